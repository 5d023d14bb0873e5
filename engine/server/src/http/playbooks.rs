//! Playbooks: listed with the mistakes in their files, shown, and started by hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use stanch_core::Command;
use stanch_core::command::Target;
use stanch_core::event::Event;
use stanch_playbook::plan::{InputSpec, InputType};
use stanch_playbook::{ActionName, Plan, PlanDigest, PlaybookName, Severity, StepKey, Timestamp, TriggerOn};

use super::body::Nothing;
use super::extract::{Asked, Segment};
use super::guard::By;
use super::openapi::{Doc, Routes, schema};
use super::prefer::{Started, Wait};
use super::problem::Problem;
use super::{Http, Shared, body};
use crate::app::PlaybookProblem;
use crate::clock::wall;

/// The longest `Idempotency-Key`.
const LONGEST_KEY: usize = 256;
/// How many playbooks an answer names where none is near.
const NAMED: usize = 10;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get(
            "/api/v1/playbooks",
            list,
            Doc::new("Lists the playbooks that are loaded, and what is wrong with files that could not be")
                .answer::<Playbooks>(StatusCode::OK),
        )
        .get(
            "/api/v1/playbooks/{name}",
            show,
            Doc::new("Shows a playbook that is loaded").answer::<PlaybookView>(StatusCode::OK).problems(&[404]),
        )
        .post(
            "/api/v1/playbooks/{name}/runs",
            run,
            Doc::new("Starts a run of a playbook by hand")
                .header("Idempotency-Key", "a key under which this request counts once in 24 hours")
                .body("application/json", Some(schema::<RunRequest>))
                .prefers()
                .answer::<Started>(StatusCode::CREATED)
                .answer::<Started>(StatusCode::OK)
                .problems(&[400, 404, 415, 422, 503]),
        )
}

/// What is loaded, and what could not be.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Playbooks {
    /// Those that new runs use, by name.
    items: Vec<PlaybookView>,
    /// Always null: there is one page.
    next: Option<String>,
    /// What is wrong with files that could not be loaded.
    problems: Vec<ProblemView>,
}

/// A playbook file that could not be loaded.
#[derive(Debug, Serialize, JsonSchema)]
struct ProblemView {
    /// The file.
    file: String,
    /// The playbook whose older version stays in use, where there is one.
    playbook: Option<PlaybookName>,
    /// What is wrong, `file:line:column: error[code]: message`, a line each.
    diagnostics: Vec<String>,
}

/// A playbook that is loaded.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PlaybookView {
    /// Its name.
    name: PlaybookName,
    /// Its plan's digest.
    digest: PlanDigest,
    /// What it is for.
    description: String,
    /// What its incidents open with.
    severity: Option<Severity>,
    /// Who answers for it.
    owner: Option<String>,
    /// What starts it.
    triggers: Vec<TriggerView>,
    /// What its runs can be given.
    inputs: BTreeMap<String, InputView>,
    /// Its steps, in the order of the phases.
    steps: Vec<StepOutline>,
    /// How many runs of it may be live at once; null: no cap.
    concurrency: Option<u32>,
    /// What is wrong with its file since it was changed; what is loaded stays in use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
}

/// What starts a playbook.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum TriggerView {
    /// Alerts whose labels satisfy all of these.
    Alertmanager {
        /// The matchers.
        matchers: Vec<String>,
    },
    /// Messages on a subject.
    Nats {
        /// The filter.
        subject: String,
    },
    /// Instants of a cron expression.
    Schedule {
        /// Its time zone.
        timezone: String,
        /// The next instant.
        next: Option<Timestamp>,
    },
    /// A person's request.
    Manual {},
}

/// One input.
#[derive(Debug, Serialize, JsonSchema)]
struct InputView {
    /// string, bool, int, number, list or map.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Whether a run without it is refused.
    required: bool,
    /// What it is where nothing is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    default: Option<Value>,
}

/// One step.
#[derive(Debug, Serialize, JsonSchema)]
struct StepOutline {
    /// `phase.step`.
    step: StepKey,
    /// The action, or `wait`.
    uses: ActionName,
    /// The steps of the same phase that must be satisfied first.
    needs: Vec<StepKey>,
}

fn view(plan: &Plan, problems: &[PlaybookProblem]) -> PlaybookView {
    let own = problems.iter().filter(|problem| problem.playbook.as_ref() == Some(&plan.name));
    PlaybookView {
        name: plan.name.clone(),
        digest: plan.digest,
        description: plan.description.clone(),
        severity: plan.severity,
        owner: plan.owner.clone(),
        triggers: plan.triggers.iter().map(|trigger| trigger_view(&trigger.on)).collect(),
        inputs: plan.inputs.iter().map(|(name, spec)| (name.clone(), input_view(spec))).collect(),
        steps: plan.steps.iter().map(|step| outline(plan, step)).collect(),
        concurrency: plan.concurrency,
        problems: own.flat_map(|problem| problem.diagnostics.clone()).collect(),
    }
}

fn trigger_view(on: &TriggerOn) -> TriggerView {
    match on {
        TriggerOn::Alertmanager(matchers) => {
            TriggerView::Alertmanager { matchers: matchers.iter().map(ToString::to_string).collect() }
        }
        TriggerOn::Nats { subject } => TriggerView::Nats { subject: subject.clone() },
        TriggerOn::Schedule(schedule) => {
            TriggerView::Schedule { timezone: schedule.zone().to_owned(), next: schedule.next_after(wall()) }
        }
        TriggerOn::Manual => TriggerView::Manual {},
    }
}

fn input_view(spec: &InputSpec) -> InputView {
    let kind = match spec.kind {
        InputType::String => "string",
        InputType::Bool => "bool",
        InputType::Int => "int",
        InputType::Number => "number",
        InputType::List => "list",
        InputType::Map => "map",
    };
    InputView { kind, required: spec.required, default: spec.default.clone() }
}

fn outline(plan: &Plan, step: &stanch_playbook::Step) -> StepOutline {
    let uses = ActionName::new(step.uses.name());
    StepOutline {
        step: step.key.clone(),
        uses,
        needs: step.needs.iter().map(|index| plan.steps[*index].key.clone()).collect(),
    }
}

async fn list(State(http): State<Shared>, Asked(Nothing {}): Asked<Nothing>) -> Json<Playbooks> {
    let state = http.app.handle.state();
    let problems = Arc::clone(&http.app.problems.borrow());
    let plans = state.playbooks.values().filter_map(|digest| state.plan(*digest));
    let problem = |problem: &PlaybookProblem| ProblemView {
        file: problem.file.clone(),
        playbook: problem.playbook.clone(),
        diagnostics: problem.diagnostics.clone(),
    };
    Json(Playbooks {
        items: plans.map(|plan| view(plan, &problems)).collect(),
        next: None,
        problems: problems.iter().map(problem).collect(),
    })
}

async fn show(State(http): State<Shared>, Segment(name): Segment) -> Result<Json<PlaybookView>, Problem> {
    let problems = Arc::clone(&http.app.problems.borrow());
    http.plan(&name).map(|plan| Json(view(&plan, &problems)))
}

/// Starts a run by hand.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RunRequest {
    /// Its inputs; those of a `manual` trigger come first and these override them.
    inputs: Map<String, Value>,
}

async fn run(
    State(http): State<Shared>,
    by: By,
    Segment(name): Segment,
    request: Request,
) -> Result<Response, Problem> {
    let wait = Wait::of(request.headers());
    let id = idempotency_key(request.headers())?;
    let plan = http.plan(&name)?;
    let RunRequest { inputs } = body::json(request).await?;
    let event = Event {
        id: id.into(),
        source: "api".into(),
        kind: "stanch.run.requested".into(),
        time: http.app.handle.now(),
        subject: Some(name.into()),
        data: Value::Object(inputs.clone()),
    };
    let target = Target::Playbook { playbook: plan.name.clone(), inputs };
    let command = Command::ReceiveEvent { actor: by.actor(), event: Arc::new(event), target };
    let receipt = http.app.handle.submit(command).await?;
    let status = if receipt.runs.is_empty() { StatusCode::OK } else { StatusCode::CREATED };
    Ok(http.started(status, receipt, wait, 0).await)
}

fn idempotency_key(headers: &HeaderMap) -> Result<String, Problem> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(uuid::Uuid::now_v7().to_string()) };
    match key.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= LONGEST_KEY => Ok(key.to_owned()),
        _ => {
            let remedy = "give 1 to 256 visible ASCII characters, such as a UUID";
            let detail = "the Idempotency-Key cannot be used";
            Err(Problem::new(StatusCode::BAD_REQUEST, "idempotency-key.invalid", detail, remedy))
        }
    }
}

impl Http {
    fn plan(&self, name: &str) -> Result<Arc<Plan>, Problem> {
        let state = self.app.handle.state();
        state.playbook(name).cloned().ok_or_else(|| {
            let name = crate::intake::shorten(name, 64);
            let known = state.playbooks.keys().map(PlaybookName::as_str);
            let remedy = match nearest(&name, known) {
                Some(known) => format!("did you mean {known}?"),
                None if state.playbooks.is_empty() => {
                    "none is loaded; stanch validate says what is wrong with a file".to_owned()
                }
                None => {
                    let all = state.playbooks.len();
                    let some: Vec<&str> = state.playbooks.keys().take(NAMED).map(PlaybookName::as_str).collect();
                    let more = if all > NAMED { format!(" and {} more", all - NAMED) } else { String::new() };
                    format!("these are loaded: {}{more}", some.join(", "))
                }
            };
            Problem::unknown("playbook.unknown", format!("no playbook is named {name}"), remedy)
        })
    }
}

/// The known name that a person most likely meant.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, known)| *distance <= (known.len().max(name.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::http::testing::{Engine, get, post};

    const HOST: &str = "playbook: isolate-host\ndescription: Isolates.\ninputs:\n  host: {type: string, required: true}\n\
                        detect:\n  note: {uses: log, with: {message: \"{{ inputs.host }}\"}}\n  \
                        then: {needs: [note], uses: wait, with: {duration: 1s}}\n";

    #[tokio::test]
    async fn a_playbook_is_shown_with_what_it_takes_and_does() {
        let engine = Engine::start(&[HOST]).await;
        let one = engine.send(get("/api/v1/playbooks/isolate-host")).await.json;
        assert_eq!(one["inputs"]["host"], json!({"type": "string", "required": true}), "{one:#}");
        assert_eq!(one["steps"][1], json!({"step": "detect.then", "uses": "wait", "needs": ["detect.note"]}));
        let all = engine.send(get("/api/v1/playbooks")).await.json;
        assert_eq!((&all["items"], &all["problems"]), (&json!([one]), &json!([])));
    }

    #[tokio::test]
    async fn a_run_is_started_once_under_an_idempotency_key() {
        let engine = Engine::start(&[HOST]).await;
        let path = "/api/v1/playbooks/isolate-host/runs";
        let request = || post(path, "{\"inputs\": {\"host\": \"db-01\"}}").header("idempotency-key", "k-1");
        let first = engine.send(request()).await;
        assert_eq!((first.status, &first.json["duplicate"]), (201, &json!(false)), "{}", first.json);
        assert_eq!(first.json["runs"].as_array().map(Vec::len), Some(1));
        let again = engine.send(request()).await;
        assert_eq!((again.status, &again.json["duplicate"], &again.json["runs"]), (200, &json!(true), &json!([])));
        let answer = engine.send(request().header("idempotency-key", "k".repeat(300))).await;
        assert_eq!((answer.status, &answer.json["code"]), (400, &json!("idempotency-key.invalid")));
    }

    #[tokio::test]
    async fn what_does_not_fit_is_refused_with_the_nearest_name() {
        let engine = Engine::start(&[HOST]).await;
        let answer = engine.send(post("/api/v1/playbooks/isolate-hots/runs", "{}")).await;
        assert_eq!((answer.status, &answer.json["remedy"]), (404, &json!("did you mean isolate-host?")));
        let answer = engine.send(post("/api/v1/playbooks/x/runs", "{}")).await;
        assert_eq!(answer.json["remedy"], "these are loaded: isolate-host");
        for body in [
            "",
            "{}",
            "{\"inputs\": {\"host\": 7}}",
            "{\"inputs\": {\"host\": \"x\", \"hots\": \"y\"}}",
            "{\"inputs\": []}",
        ] {
            let answer = engine.send(post("/api/v1/playbooks/isolate-host/runs", body)).await;
            assert_eq!(answer.status, 422, "{body}: {}", answer.json);
        }
        assert_eq!(engine.send(get("/api/v1/runs")).await.json["items"], json!([]));
    }
}
