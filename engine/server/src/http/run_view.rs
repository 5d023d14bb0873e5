//! A run as people look at it, folded from its records alone, so that runs whose plan is long gone can be shown too.

use schemars::JsonSchema;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use stanch_core::Epoch;
use stanch_core::attempt::AttemptId;
use stanch_core::record::{Answer, Body, Cause, Ending, Record, Then, Waiting};
use stanch_playbook::{ActionName, Plan, PlanDigest, StepKey, Timestamp};

use crate::summary::RunSummary;

/// A run with all its steps.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RunDetail {
    #[serde(flatten)]
    summary: RunSummary,
    /// The plan that it is pinned to.
    plan: Option<PlanDigest>,
    /// Its inputs.
    inputs: Value,
    /// What started it; null where that was deleted.
    trigger: Option<Cause>,
    /// Who asked for its early end.
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled: Option<Cancelled>,
    /// Its steps by `phase.step`, in the playbook's order.
    #[schemars(with = "std::collections::BTreeMap<String, StepView>")]
    steps: Steps,
}

/// Who asked for a run's early end.
#[derive(Debug, Serialize, JsonSchema)]
struct Cancelled {
    /// Who.
    by: String,
    /// Why; may be empty.
    reason: String,
    /// When.
    at: Timestamp,
}

/// Steps in order, written as an object.
#[derive(Debug, Default)]
struct Steps(Vec<(StepKey, StepView)>);

impl Serialize for Steps {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, step) in &self.0 {
            map.serialize_entry(key, step)?;
        }
        map.end()
    }
}

/// One step of a run.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StepView {
    /// pending, blocked, skipped, running, backoff, waiting, unknown, succeeded, tolerated, failed or cancelled.
    state: &'static str,
    /// Its place in the playbook, from 0.
    position: usize,
    /// The action, or `wait`; null where that is not known any more.
    uses: Option<ActionName>,
    /// Whether repeating it is harmless; null where that is not known any more.
    idempotent: Option<bool>,
    /// The action's result.
    output: Option<Value>,
    /// The step's evaluated `outputs`.
    outputs: Option<Value>,
    /// Why it is not green.
    error: Option<String>,
    /// Every attempt, oldest first.
    attempts: Vec<AttemptView>,
    /// What it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<Waiting>,
    /// When the next attempt is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<Timestamp>,
    /// What a person said of an unknown attempt, the last answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    answered: Option<Answered>,
    /// When it first did something.
    started_at: Option<Timestamp>,
    /// When it was over.
    finished_at: Option<Timestamp>,
}

/// A person's answer.
#[derive(Debug, Serialize, JsonSchema)]
struct Answered {
    /// Who.
    by: String,
    /// What.
    answer: Answer,
    /// What the person added.
    note: String,
    /// When.
    at: Timestamp,
}

/// One attempt of a step.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AttemptView {
    /// How often a person had asked for the step to be tried again.
    generation: u32,
    /// Its number in that generation, from 1.
    number: u32,
    /// The engine's epoch that made it.
    epoch: Epoch,
    /// running, succeeded, failed or unknown.
    outcome: &'static str,
    /// Why it did not succeed.
    error: Option<String>,
    /// What a result said that came too late to count.
    #[serde(skip_serializing_if = "Option::is_none")]
    late: Option<String>,
    /// When it was claimed.
    scheduled_at: Timestamp,
    /// When its outcome was recorded.
    finished_at: Option<Timestamp>,
}

/// The plan that the records of a run name.
pub(super) fn plan_of(records: &[Record]) -> Option<PlanDigest> {
    records.iter().find_map(|record| match &record.body {
        Body::RunStarted(body) => Some(body.plan),
        _ => None,
    })
}

impl RunDetail {
    /// Folds a run's records. The plan, where it is at hand, adds the steps that nothing is recorded of yet.
    pub(super) fn new(mut summary: RunSummary, records: &[Record], plan: Option<&Plan>) -> Self {
        summary.records.clear();
        let inputs = Value::Object(Map::new());
        let mut run =
            Self { summary, plan: plan_of(records), inputs, trigger: None, cancelled: None, steps: Steps::default() };
        for step in plan.map(|plan| &plan.steps[..]).unwrap_or_default() {
            let view = run.steps.at(&step.key);
            view.uses = Some(ActionName::new(step.uses.name()));
            view.idempotent = Some(step.policy.idempotent);
        }
        for record in records {
            run.apply(record);
        }
        run
    }

    fn apply(&mut self, record: &Record) {
        let at = record.time;
        match &record.body {
            Body::RunStarted(body) => {
                self.inputs = Value::clone(&body.inputs);
                self.trigger = Some(body.cause.clone());
            }
            Body::RunCancelRequested(body) => {
                let by = record.actor.as_str().to_owned();
                self.cancelled = Some(Cancelled { by, reason: body.reason.clone(), at });
            }
            Body::AttemptScheduled(body) => {
                let step = self.steps.at(&body.attempt.step);
                step.uses = Some(body.action.clone());
                step.enter("running", None);
                step.started_at.get_or_insert(at);
                step.attempts.push(AttemptView {
                    generation: body.attempt.generation,
                    number: body.attempt.number,
                    epoch: body.attempt.epoch,
                    outcome: "running",
                    error: None,
                    late: None,
                    scheduled_at: at,
                    finished_at: None,
                });
            }
            Body::AttemptSucceeded(body) => {
                let step = self.steps.at(&body.attempt.step);
                step.finish_attempt(&body.attempt, "succeeded", None, at);
                step.output = Some(Value::clone(&body.output));
                step.outputs = Some(Value::clone(&body.outputs));
                match &body.unsettled {
                    None => step.end("succeeded", None, at),
                    Some(unsettled) => step.follow(unsettled.then, &unsettled.reason, at),
                }
            }
            Body::AttemptFailed(body) => {
                let step = self.steps.at(&body.attempt.step);
                step.finish_attempt(&body.attempt, "failed", Some(&body.error), at);
                step.output = body.output.as_deref().cloned();
                step.follow(body.then, &body.error, at);
            }
            Body::AttemptUnknown(body) => {
                let step = self.steps.at(&body.attempt.step);
                step.finish_attempt(&body.attempt, "unknown", Some(&body.reason), at);
                step.follow(body.then, &body.reason, at);
            }
            Body::AttemptLate(body) => {
                if let Some(attempt) = self.steps.at(&body.attempt.step).attempt(&body.attempt) {
                    attempt.late = Some(body.outcome.clone());
                }
            }
            Body::StepWaiting(body) => {
                let step = self.steps.at(&body.step);
                step.enter("waiting", None);
                step.waiting = Some(body.wait);
                step.started_at.get_or_insert(at);
            }
            Body::StepWoken(body) => {
                let step = self.steps.at(&body.step);
                step.outputs = Some(Value::clone(&body.outputs));
                step.end("succeeded", None, at);
            }
            Body::StepEnded(body) => {
                let error = (body.ending != Ending::Skipped).then_some(&*body.reason);
                self.steps.at(&body.step).end(body.ending.as_str(), error, at);
            }
            Body::StepAnswered(body) => {
                let by = record.actor.as_str().to_owned();
                let step = self.steps.at(&body.step);
                let person = by.strip_prefix("person:").unwrap_or(&by);
                let error = match body.note.as_str() {
                    "" => format!("{person} answered that it failed"),
                    note => format!("{person} answered that it failed: {note}"),
                };
                match body.answer {
                    Answer::Succeeded => step.end("succeeded", None, at),
                    Answer::Failed if body.tolerated => step.end("tolerated", Some(&error), at),
                    Answer::Failed => step.end("failed", Some(&error), at),
                    Answer::Retry => step.enter("backoff", None),
                }
                step.answered = Some(Answered { by, answer: body.answer, note: body.note.clone(), at });
            }
            // These are about the run as a whole, of which the summary tells, or about other things.
            _ => {}
        }
    }
}

impl Steps {
    /// The view of a step, made where it is not there yet.
    fn at(&mut self, key: &StepKey) -> &mut StepView {
        let position = self.0.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
            let position = self.0.len();
            self.0.push((key.clone(), StepView::pending(position)));
            position
        });
        &mut self.0[position].1
    }
}

impl StepView {
    fn pending(position: usize) -> Self {
        Self {
            state: "pending",
            position,
            uses: None,
            idempotent: None,
            output: None,
            outputs: None,
            error: None,
            attempts: Vec::new(),
            waiting: None,
            next_attempt_at: None,
            answered: None,
            started_at: None,
            finished_at: None,
        }
    }

    fn enter(&mut self, state: &'static str, error: Option<&str>) {
        self.state = state;
        self.error = error.map(str::to_owned);
        self.waiting = None;
        self.next_attempt_at = None;
    }

    fn end(&mut self, state: &'static str, error: Option<&str>, at: Timestamp) {
        self.enter(state, error);
        self.finished_at = Some(at);
    }

    fn follow(&mut self, then: Then, error: &str, at: Timestamp) {
        match then {
            Then::Verify => self.enter("verifying", None),
            Then::Retry { at } | Then::Redo { at } => {
                self.enter("backoff", None);
                self.next_attempt_at = Some(at);
            }
            Then::Ask => self.enter("unknown", Some(error)),
            Then::Fail => self.end("failed", Some(error), at),
            Then::Tolerate => self.end("tolerated", Some(error), at),
            Then::Cancel => self.end("cancelled", Some(error), at),
        }
    }

    fn attempt(&mut self, id: &AttemptId) -> Option<&mut AttemptView> {
        let is = |attempt: &&mut AttemptView| {
            (attempt.generation, attempt.number, attempt.epoch) == (id.generation, id.number, id.epoch)
        };
        self.attempts.iter_mut().rev().find(is)
    }

    fn finish_attempt(&mut self, id: &AttemptId, outcome: &'static str, error: Option<&str>, at: Timestamp) {
        if let Some(attempt) = self.attempt(id) {
            attempt.outcome = outcome;
            attempt.error = error.map(str::to_owned);
            attempt.finished_at = Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use stanch_core::RunId;

    use crate::http::testing::{Engine, get, post};

    const MANY: &str = r#"
playbook: many
detect:
  good: {uses: log, with: {message: ok}, outputs: {seven: result.x}}
  skipped: {if: 'false', uses: log, with: {message: ok}}
  tolerated: {uses: log, with: {message: fail}, retry: {max_attempts: 1}, continue_on_error: true}
  late: {uses: log, with: {message: fail}, retry: {max_attempts: 2, initial_interval: 1h, jitter: none}}
  asks: {uses: log, with: {message: unknown}, on_unknown: ask}
  waits: {uses: wait, with: {duration: 10m}}
  after: {needs: [waits], uses: log, with: {message: ok}}
"#;

    /// What the engine itself has of a live run, in the words of the API.
    fn of_state(engine: &Engine, id: &str) -> Value {
        let state = engine.handle().state();
        let id: RunId = id.parse().unwrap();
        let run = &state.runs[&id];
        let plan = state.plan(run.plan).unwrap();
        let step = |(step, plan): (&std::sync::Arc<stanch_core::run::StepRun>, &stanch_playbook::Step)| {
            let attempts: Vec<Value> = step
                .attempts
                .iter()
                .map(|attempt| {
                    json!([attempt.generation, attempt.number, attempt.outcome, attempt.error, attempt.finished_at])
                })
                .collect();
            let words =
                json!([step.state.as_str(), step.state.error(), step.outputs, step.output, attempts, step.finished_at]);
            (plan.key.to_string(), words)
        };
        run.steps.iter().zip(&plan.steps).map(step).collect::<serde_json::Map<_, _>>().into()
    }

    async fn of_api(engine: &Engine, id: &str) -> Value {
        let run = engine.send(get(&format!("/api/v1/runs/{id}"))).await.json;
        let step = |(key, step): (&String, &Value)| {
            let attempts: Vec<Value> = step["attempts"]
                .as_array()
                .unwrap()
                .iter()
                .map(|attempt| {
                    json!([
                        attempt["generation"],
                        attempt["number"],
                        attempt["outcome"],
                        attempt["error"],
                        attempt["finished_at"]
                    ])
                })
                .collect();
            let words =
                json!([step["state"], step["error"], step["outputs"], step["output"], attempts, step["finished_at"]]);
            (key.clone(), words)
        };
        run["steps"].as_object().unwrap().iter().map(step).collect::<serde_json::Map<_, _>>().into()
    }

    #[tokio::test]
    async fn what_is_folded_from_records_is_what_the_engine_has() {
        let engine = Engine::start(&[MANY]).await;
        let id = engine.run("many").await;
        let states = of_api(&engine, &id).await;
        for (step, state) in [
            ("good", "succeeded"),
            ("skipped", "skipped"),
            ("tolerated", "tolerated"),
            ("late", "backoff"),
            ("asks", "unknown"),
            ("waits", "waiting"),
            ("after", "pending"),
        ] {
            assert_eq!(states[format!("detect.{step}")][0], state, "{states:#}");
        }
        assert_eq!(states["detect.good"][2], json!({"seven": 7}));
        assert_eq!(states, of_state(&engine, &id));

        let answer = |answer: &str| {
            post(
                &format!("/api/v1/runs/{id}/answer"),
                json!({"step": "asks", "answer": answer, "note": "looked"}).to_string(),
            )
        };
        assert_eq!(engine.send(answer("retry")).await.status, 200);
        engine.idle(&id).await;
        assert_eq!(of_api(&engine, &id).await, of_state(&engine, &id));
        assert_eq!(engine.send(answer("failed")).await.status, 200);
        let states = of_api(&engine, &id).await;
        assert_eq!(states["detect.asks"][1], "local answered that it failed: looked");
        assert_eq!(states, of_state(&engine, &id));
    }

    #[tokio::test]
    async fn a_run_whose_plan_is_gone_is_still_shown_with_all_its_steps() {
        let quick = "playbook: quick\ndetect:\n  one: {uses: log, with: {message: ok}}\n";
        let engine =
            Engine::start(&[&format!("{quick}  two: {{if: 'false', uses: log, with: {{message: ok}}}}\n")]).await;
        let id = engine.run("quick").await;
        engine.load(&[quick]).await;
        let run = engine.send(get(&format!("/api/v1/runs/{id}"))).await.json;
        let steps = &run["steps"];
        assert_eq!(
            (&steps["detect.one"]["state"], &steps["detect.two"]["state"]),
            (&json!("succeeded"), &json!("skipped"))
        );
        assert_eq!((&steps["detect.one"]["uses"], &steps["detect.two"]["uses"]), (&json!("log"), &Value::Null));
    }
}
