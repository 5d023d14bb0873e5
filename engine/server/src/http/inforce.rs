//! What is in force: what runs did and can be taken back, until when, and who keeps it or ends it.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stanch_core::containment::{Containment, UndoState};
use stanch_core::{Command, ContainmentId, IncidentId, Rejected, RunId};
use stanch_playbook::{ActionName, PlaybookName, StepKey, Timestamp, parse_duration};

use super::extract::{Asked, Segment};
use super::guard::By;
use super::openapi::{Doc, Routes, schema};
use super::page::{ListQuery, Page, page_of};
use super::problem::Problem;
use super::{Http, Shared, body};

pub(super) fn routes(routes: Routes) -> Routes {
    let act = |summary| {
        Doc::new(summary)
            .body("application/json", Some(schema::<ReasonRequest>))
            .answer::<InForceView>(StatusCode::OK)
            .problems(&[400, 401, 404, 409, 415, 422, 503])
    };
    routes
        .get(
            "/api/v1/inforce",
            list,
            Doc::new("Lists what is in force, newest first, and until when")
                .query("state", "inforce, requested, undoing, backoff, unknown or failed")
                .query("playbook", "a playbook's name")
                .pages()
                .answer::<Page<InForceView>>(StatusCode::OK)
                .problems(&[400, 401]),
        )
        .get(
            "/api/v1/inforce/{id}",
            show,
            Doc::new("Shows what is in force").answer::<InForceView>(StatusCode::OK).problems(&[401, 404]),
        )
        .post("/api/v1/inforce/{id}/undo", undo, act("Takes back what is in force"))
        .post(
            "/api/v1/inforce/{id}/extend",
            extend,
            Doc::new("Keeps something in force for longer; without an end where neither for nor until says one")
                .body("application/json", Some(schema::<ExtendRequest>))
                .answer::<InForceView>(StatusCode::OK)
                .problems(&[400, 401, 404, 409, 415, 422, 503]),
        )
        .post(
            "/api/v1/inforce/{id}/end",
            end,
            act("Says that something is not in force any more, or never was; nothing is done about it"),
        )
}

/// Something that is in force.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct InForceView {
    /// Its id.
    id: ContainmentId,
    /// inforce, requested (to be taken back), undoing, backoff, unknown, failed; `ended` once it is over.
    state: &'static str,
    /// The run that did it.
    run: RunId,
    /// That run's playbook.
    playbook: PlaybookName,
    /// That run's incident.
    incident: IncidentId,
    /// The step that did it.
    step: StepKey,
    /// The item of it, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<u32>,
    /// The item's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
    /// What was done: the parameters of the step's action.
    done: Value,
    /// What takes it back.
    undo: UndoCall,
    /// Since when.
    since: Timestamp,
    /// When it is taken back by itself; null: it stays until somebody does.
    until: Option<Timestamp>,
    /// Whether it is known to have happened.
    certain: bool,
    /// Why it could not be taken back, or nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// How often taking it back was tried since it was last asked for.
    attempts: u32,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<Timestamp>,
}

/// What takes something back.
#[derive(Debug, Serialize, JsonSchema)]
struct UndoCall {
    /// The action.
    action: ActionName,
    /// Its parameters.
    with: Value,
    /// Its environment, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    env: Option<Value>,
}

fn view(of: &Containment) -> InForceView {
    let next_attempt_at = match of.state {
        UndoState::Backoff { until } => Some(until),
        _ => None,
    };
    InForceView {
        id: of.id,
        state: of.state.as_str(),
        run: of.run,
        playbook: of.playbook.clone(),
        incident: of.incident,
        step: of.step.clone(),
        item: of.item,
        value: of.value.as_deref().cloned(),
        done: Value::clone(&of.done),
        undo: UndoCall {
            action: of.undo.action.clone(),
            with: Value::clone(&of.undo.with),
            env: Some(Value::clone(&of.undo.env)).filter(|env| env.as_object().is_some_and(|env| !env.is_empty())),
        },
        since: of.since,
        until: of.until,
        certain: of.certain,
        error: of.state.error().map(ToString::to_string),
        attempts: of.attempts,
        next_attempt_at,
    }
}

async fn list(State(http): State<Shared>, Asked(query): Asked<ListQuery>) -> Result<Json<Page<InForceView>>, Problem> {
    let state = http.app.handle.state();
    let keep = |of: &Containment| {
        query.playbook.as_ref().is_none_or(|playbook| of.playbook.as_str() == playbook)
            && query.state.as_ref().is_none_or(|state| of.state.as_str() == state)
    };
    let found = state.inforce.iter().rev().filter(|(_, of)| keep(of)).map(|(id, of)| (id.0, of));
    let Page { items, next } = page_of(&query, found)?;
    Ok(Json(Page { items: items.into_iter().map(|of| view(of)).collect(), next }))
}

async fn show(State(http): State<Shared>, id: Segment) -> Result<Json<InForceView>, Problem> {
    http.in_force(id.id("containment", "containment.unknown")?).map(Json)
}

/// Says why.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ReasonRequest {
    /// Why; stands in the record.
    reason: String,
}

async fn undo(State(http): State<Shared>, by: By, id: Segment, request: Request) -> Result<Json<InForceView>, Problem> {
    let containment = id.id("containment", "containment.unknown")?;
    let ReasonRequest { reason } = body::json(request).await?;
    http.command_in_force(containment, Command::UndoContainment { actor: by.actor(), containment, reason }).await
}

async fn end(State(http): State<Shared>, by: By, id: Segment, request: Request) -> Result<Json<InForceView>, Problem> {
    let containment = id.id("containment", "containment.unknown")?;
    let ReasonRequest { reason } = body::json(request).await?;
    http.command_in_force(containment, Command::EndContainment { actor: by.actor(), containment, reason }).await
}

/// Keeps something in force.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ExtendRequest {
    /// For how long from now on, such as `4h`.
    #[serde(rename = "for")]
    length: Option<String>,
    /// Until when.
    until: Option<Timestamp>,
    /// Why; stands in the record.
    reason: String,
}

async fn extend(
    State(http): State<Shared>,
    by: By,
    id: Segment,
    request: Request,
) -> Result<Json<InForceView>, Problem> {
    let containment = id.id("containment", "containment.unknown")?;
    let ExtendRequest { length, until, reason } = body::json(request).await?;
    let invalid = |detail: String| {
        let remedy = "give either for, such as 4h, or until, such as 2026-11-21T18:00:00Z, or neither: without an end";
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "body.invalid", detail, remedy)
    };
    let until = match (length, until) {
        (Some(_), Some(_)) => return Err(invalid("both for and until are given".to_owned())),
        (Some(length), None) => {
            let length = parse_duration(&length).map_err(|error| invalid(format!("for: {error}")))?;
            Some(http.app.handle.now().plus(length))
        }
        (None, until) => until,
    };
    let command = Command::ExtendContainment { actor: by.actor(), containment, until, reason };
    http.command_in_force(containment, command).await
}

impl Http {
    fn in_force(&self, id: ContainmentId) -> Result<InForceView, Problem> {
        let state = self.app.handle.state();
        state.inforce.get(&id).map(|of| view(of)).ok_or_else(|| Rejected::UnknownContainment(id).into())
    }

    async fn command_in_force(&self, id: ContainmentId, command: Command) -> Result<Json<InForceView>, Problem> {
        let before = self.in_force(id)?;
        self.app.handle.submit(command).await?;
        // What is over by now is not in the state any more.
        Ok(Json(self.in_force(id).unwrap_or(InForceView { state: "ended", error: None, ..before })))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::http::testing::{Engine, get, post};

    const HOLDS: &str = r#"
playbook: holds
contain:
  block:
    foreach: "['a', 'b']"
    uses: log
    with: {message: "block {{ item }}"}
    undo: {uses: log, with: {message: "free {{ item }}"}, after: 8h}
  stuck: {uses: log, with: {message: on}, undo: {uses: log, with: {message: unknown}, idempotent: false}}
"#;

    async fn in_force(engine: &Engine, query: &str) -> Vec<Value> {
        let answer = engine.send(get(&format!("/api/v1/inforce{query}"))).await;
        assert_eq!(answer.status, 200, "{}", answer.json);
        answer.json["items"].as_array().unwrap().clone()
    }

    #[tokio::test]
    async fn what_is_in_force_is_listed_kept_taken_back_and_ended() {
        let engine = Engine::start_with_people(&[HOLDS]).await;
        let run = engine.run("holds").await;
        engine.finished(&run).await;
        let all = in_force(&engine, "").await;
        assert_eq!(all.len(), 3, "{all:#?}");
        let of = |step: &str, item: Value| all.iter().find(|of| of["step"] == step && of["item"] == item).unwrap();
        let (a, b, stuck) =
            (of("contain.block", json!(0)), of("contain.block", json!(1)), of("contain.stuck", Value::Null));
        assert_eq!((&a["run"], &a["playbook"], &a["value"]), (&json!(run), &json!("holds"), &json!("a")));
        assert_eq!((&a["done"], &a["state"]), (&json!({"message": "block a"}), &json!("inforce")));
        assert_eq!(a["undo"], json!({"action": "log", "with": {"message": "free a"}}));
        assert!(a["until"].is_string() && stuck["until"].is_null() && a["certain"] == true, "{a:#}");
        let path = |of: &Value, verb: &str| format!("/api/v1/inforce/{}{verb}", of["id"].as_str().unwrap());
        assert_eq!(engine.send(get(&path(a, ""))).await.json, *a);
        let page = engine.send(get("/api/v1/inforce?limit=2")).await.json;
        let rest = in_force(&engine, &format!("?limit=2&cursor={}", page["next"].as_str().unwrap())).await;
        assert_eq!((page["items"].as_array().map(Vec::len), rest.len()), (Some(2), 1));
        assert!(engine.metrics().await.contains("\nstanch_containments_inforce{state=\"inforce\"} 3\n"));

        let act = async |of: &Value, verb: &str, body: Value| {
            let request = post(&path(of, verb), body.to_string()).header("authorization", "Bearer ann-s-token");
            engine.send(request).await
        };
        let until = "2036-01-01T00:00:00.000Z";
        let longer = act(a, "/extend", json!({"until": until, "reason": "still looking"})).await;
        assert_eq!(
            (longer.status, longer.json["until"].as_str()),
            (200, Some("2036-01-01T00:00:00Z")),
            "{}",
            longer.json
        );
        let longer = act(a, "/extend", json!({"for": "4h"})).await.json;
        assert!(longer["until"].as_str() < a["until"].as_str(), "4 h from now is before 8 h: {longer:#}");
        assert_eq!(act(a, "/extend", json!({})).await.json["until"], Value::Null);
        for (body, code) in [
            (json!({"for": "4h", "until": until}), "body.invalid"),
            (json!({"for": "soon"}), "body.invalid"),
            (json!({"until": "2020-01-01T00:00:00Z"}), "time.past"),
        ] {
            let refused = act(a, "/extend", body).await;
            assert_eq!((refused.status, &refused.json["code"]), (422, &json!(code)), "{}", refused.json);
        }

        assert_eq!(act(a, "/undo", json!({"reason": "over"})).await.status, 200);
        assert_eq!(act(b, "/end", json!({"reason": "never happened"})).await.json["state"], "ended");
        assert_eq!(act(stuck, "/undo", json!({})).await.status, 200);
        let left = engine.until(async || {
            let left = in_force(&engine, "").await;
            (left.len() == 1 && left[0]["state"] == "unknown").then_some(left)
        });
        let left = left.await;
        assert_eq!((&left[0]["step"], &left[0]["error"]), (&json!("contain.stuck"), &json!("it hung")), "{left:#?}");
        assert_eq!(in_force(&engine, "?state=inforce").await, Vec::<Value>::new());
        assert!(engine.metrics().await.contains("\nstanch_containments_inforce{state=\"unknown\"} 1\n"));
        let kept = act(stuck, "/extend", json!({"for": "4h"})).await;
        assert_eq!((kept.status, &kept.json["code"]), (409, &json!("containment.not-in-force")));
        for verb in ["", "/undo"] {
            let gone =
                if verb.is_empty() { engine.send(get(&path(b, ""))).await } else { act(b, verb, json!({})).await };
            assert_eq!((gone.status, &gone.json["code"]), (404, &json!("containment.unknown")));
        }
        let trail = String::from_utf8(engine.send(get("/api/v1/audit")).await.body).unwrap();
        for kind in ["ContainmentExtended", "UndoRequested", "ContainmentEnded"] {
            let line = trail.lines().find(|line| line.contains(kind)).unwrap();
            assert!(line.contains("\"actor\":\"person:ann\""), "{line}");
        }
    }
}
