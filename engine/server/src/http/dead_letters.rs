//! Dead letters: what came in and could not be read, listed, shown, and given to intake again.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use schemars::JsonSchema;
use serde::Serialize;
use stanch_core::command::Target;
use stanch_core::record::{Actor, Body, DeadLetter};
use stanch_core::{Command, DeadLetterId, Receipt, decide};
use stanch_journal::Table;
use stanch_playbook::Timestamp;

use super::extract::{Asked, Segment};
use super::guard::By;
use super::openapi::{Doc, Routes};
use super::page::{ListQuery, Page};
use super::prefer::{Started, Wait};
use super::problem::Problem;
use super::{Http, Shared, alertmanager, events};
use crate::clock::wall;
use crate::intake::{self, Fallback, Unreadable, cloud_event, own_event};
use crate::summary::DeadLetterSummary;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get(
            "/api/v1/dead-letters",
            list,
            Doc::new("Lists what came in and could not be read, newest first")
                .pages()
                .answer::<Page<DeadLetterSummary>>(StatusCode::OK)
                .problems(&[400]),
        )
        .get(
            "/api/v1/dead-letters/{id}",
            show,
            Doc::new("Shows a dead letter with its body")
                .answer::<DeadLetterDetail>(StatusCode::OK)
                .problems(&[404, 410]),
        )
        .post(
            "/api/v1/dead-letters/{id}/replay",
            replay,
            Doc::new("Gives a dead letter to intake again, as if it came now")
                .prefers()
                .answer::<Started>(StatusCode::OK)
                .problems(&[404, 409, 410, 422, 503]),
        )
}

/// A dead letter with its body.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DeadLetterDetail {
    #[serde(flatten)]
    summary: DeadLetterSummary,
    /// The content type that it came with.
    content_type: Option<String>,
    /// Whether the body is here as a whole.
    complete: bool,
    /// The body, where it is UTF-8.
    body: Option<String>,
    /// The body in base64.
    body_base64: String,
}

async fn list(
    State(http): State<Shared>,
    Asked(query): Asked<ListQuery>,
) -> Result<Json<Page<DeadLetterSummary>>, Problem> {
    http.page(&query, Table::DeadLetters, Vec::new(), |_| true).await.map(Json)
}

async fn show(State(http): State<Shared>, id: Segment) -> Result<Json<DeadLetterDetail>, Problem> {
    let (summary, letter) = http.dead_letter(id.id("dead letter", "dead-letter.unknown")?).await?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(&letter.body).unwrap_or_default();
    Ok(Json(DeadLetterDetail {
        summary,
        content_type: letter.content_type.clone(),
        complete: letter.complete,
        body: String::from_utf8(bytes).ok(),
        body_base64: letter.body.clone(),
    }))
}

async fn replay(State(http): State<Shared>, by: By, id: Segment, request: Request) -> Result<Response, Problem> {
    let wait = Wait::of(request.headers());
    let (summary, letter) = http.dead_letter(id.id("dead letter", "dead-letter.unknown")?).await?;
    if !letter.complete {
        let remedy = "have its sender send it again";
        return Err(Problem::conflict("dead-letter.incomplete", "only its beginning was kept", remedy));
    }
    let body = base64::engine::general_purpose::STANDARD.decode(&letter.body).unwrap_or_default();
    let actor = by.actor();
    let command = || again(actor.clone(), summary.id, summary.at, &letter, &body);
    let unusable = |code, detail: String| {
        let remedy =
            "it stays a dead letter; mend its sender, or the playbook that could not use it, and replay it then";
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail, remedy)
    };
    let unreadable = |of: Unreadable| unusable("dead-letter.unreadable", format!("{}: {}", of.code, of.reason));
    // Looked at before it is given: what still cannot be used would become a second letter, or pass for seen before.
    let (foreseen, truncated) = command().map_err(unreadable)?;
    if let Ok(decided) = decide(&http.app.handle.state(), foreseen, wall()) {
        let Receipt { runs, incidents, unusable: reasons, .. } = decided.receipt;
        if !reasons.is_empty() && runs.is_empty() && incidents.is_empty() {
            return Err(unusable("dead-letter.unusable", reasons.join("; ")));
        }
    }
    let (command, _) = command().map_err(unreadable)?;
    let receipt = http.app.handle.submit(command).await?;
    http.app.handle.submit(Command::MarkReplayed { actor, id: summary.id }).await?;
    Ok(http.started(StatusCode::OK, receipt, wait, truncated).await)
}

/// A letter's body as what it would have been, had it been read, and how many alerts its sender left out. What is bad in
/// it stays in this dead letter.
fn again(
    actor: Actor,
    id: DeadLetterId,
    at: Timestamp,
    letter: &DeadLetter,
    body: &[u8],
) -> Result<(Command, u64), Unreadable> {
    if let Some(rest) = letter.via.strip_prefix(alertmanager::PATH) {
        let source = Some(rest.trim_start_matches('/')).filter(|source| !source.is_empty());
        let delivery = intake::alerts(source.unwrap_or(alertmanager::DEFAULT_SOURCE), body)?;
        return Ok((Command::ReceiveAlerts { actor, changes: delivery.changes }, delivery.truncated));
    }
    // A CloudEvent says who it is; of anything else the dead letter's id does, so that it counts once.
    let fallback = |subject: &str| Fallback {
        id: id.to_string(),
        source: "dead-letter".to_owned(),
        subject: subject.to_owned(),
        time: at,
    };
    let headers = |name: &str| letter.content_type.clone().filter(|_| name == "content-type");
    let (event, target) = if let Some(subject) = letter.via.strip_prefix("nats:") {
        (cloud_event(headers, body, fallback(subject))?, Target::Subject(subject.to_owned()))
    } else if letter.via == events::PATH {
        let (event, subject) = events::read_event(headers, body)?;
        (event, Target::Subject(subject))
    } else {
        let event = own_event(body, fallback(""))?;
        let Some((playbook, trigger, _)) = event.tick() else {
            return Err(Unreadable::new("dead-letter.no-way-in", "it cannot be told where it is to go"));
        };
        (event, Target::Trigger { playbook, trigger })
    };
    Ok((Command::ReceiveEvent { actor, event: Arc::new(event), target }, 0))
}

impl Http {
    async fn dead_letter(&self, id: DeadLetterId) -> Result<(DeadLetterSummary, Arc<DeadLetter>), Problem> {
        let stored = self.app.views.get(Table::DeadLetters, id.0.as_bytes()).map_err(Problem::unavailable)?;
        let summary: Option<DeadLetterSummary> = stored.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let summary = summary.ok_or_else(|| {
            let remedy = "stanch events dead-letters lists all dead letters";
            Problem::unknown("dead-letter.unknown", format!("no dead letter has the id {id}"), remedy)
        })?;
        let (reader, sequence) = (Arc::clone(&self.app.reader), summary.record);
        let entries = tokio::task::spawn_blocking(move || reader.get(&[sequence])).await;
        let entries = entries.map_err(Problem::unavailable)?.map_err(Problem::unavailable)?;
        let record = entries.first().map(stanch_journal::Entry::record).transpose().map_err(Problem::unavailable)?;
        match record.map(|record| record.body) {
            Some(Body::DeadLettered(body)) => Ok((summary, body.letter)),
            _ => {
                let detail = "its content was deleted";
                Err(Problem::new(StatusCode::GONE, "dead-letter.deleted", detail, "have its sender send it again"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::http::testing::{Engine, firing, get, post};

    const ANY: &str = "playbook: any\ntriggers:\n  - alertmanager: {matchers: ['alertname=~\".+\"']}\n\
                       detect:\n  note: {uses: log, with: {message: seen}}\n";

    #[tokio::test]
    async fn a_letter_that_is_still_unreadable_stays_what_it_is() {
        let engine = Engine::start(&[ANY]).await;
        let answer = engine.send(post("/webhooks/alertmanager/eu", "{\"alerts\": [")).await;
        let id = answer.json["dead_letters"][0].as_str().unwrap().to_owned();
        let path = format!("/api/v1/dead-letters/{id}");
        let letter = engine.send(get(&path)).await.json;
        assert_eq!(
            (&letter["body"], &letter["complete"], &letter["size"]),
            (&json!("{\"alerts\": ["), &json!(true), &json!(12))
        );
        let answer = engine.send(post(&format!("{path}/replay"), "")).await;
        assert_eq!((answer.status, &answer.json["code"]), (422, &json!("dead-letter.unreadable")), "{}", answer.json);
        let list = engine.send(get("/api/v1/dead-letters")).await.json;
        assert_eq!((list["items"].as_array().map(Vec::len), &list["items"][0]["replayed_at"]), (Some(1), &Value::Null));
    }

    #[tokio::test]
    async fn a_partly_readable_letter_replays_what_can_be_read() {
        let engine = Engine::start(&[]).await;
        let mut body: Value = serde_json::from_slice(&firing("A")).unwrap();
        body["alerts"].as_array_mut().unwrap().push(json!(null));
        let answer = engine.send(post("/webhooks/alertmanager/eu", body.to_string())).await;
        let id = answer.json["dead_letters"][0].as_str().unwrap().to_owned();
        let path = format!("/api/v1/dead-letters/{id}");
        let answer = engine.send(post(&format!("{path}/replay"), "")).await;
        assert_eq!((answer.status, &answer.json["duplicate"]), (200, &json!(true)), "{}", answer.json);
        assert!(engine.send(get(&path)).await.json["replayed_at"].is_string());
    }

    #[tokio::test]
    async fn a_letter_of_which_only_a_part_was_kept_cannot_be_replayed() {
        let engine = Engine::start(&[]).await;
        let answer = engine.send(post("/webhooks/alertmanager", vec![b' '; 9 << 20])).await;
        let id = answer.json["dead_letters"][0].as_str().unwrap().to_owned();
        let answer = engine.send(post(&format!("/api/v1/dead-letters/{id}/replay"), "")).await;
        assert_eq!((answer.status, &answer.json["code"]), (409, &json!("dead-letter.incomplete")));
        assert_eq!(engine.send(post("/api/v1/dead-letters/none/replay", "")).await.status, 404);
    }

    /// A replay says so, and leaves the letter as the only one.
    async fn still_dead(engine: &Engine, id: &str, why: &str) {
        for _ in 0..2 {
            let answer = engine.send(post(&format!("/api/v1/dead-letters/{id}/replay"), "")).await;
            assert_eq!((answer.status, &answer.json["code"]), (422, &json!("dead-letter.unusable")), "{}", answer.json);
            assert!(answer.json["detail"].as_str().unwrap().starts_with(why), "{}", answer.json);
        }
        let list = engine.send(get("/api/v1/dead-letters")).await.json;
        assert_eq!((list["items"].as_array().map(Vec::len), &list["items"][0]["replayed_at"]), (Some(1), &Value::Null));
    }

    #[tokio::test]
    async fn an_alert_that_a_playbook_could_not_use_starts_its_run_once_the_playbook_is_mended() {
        let playbook = |key: &str| {
            format!(
                "playbook: any\ntriggers:\n  - alertmanager: {{matchers: ['alertname=~\".+\"']}}\n    \
                 key: \"{{{{ {key} }}}}\"\ndetect:\n  note: {{uses: log, with: {{message: seen}}}}\n"
            )
        };
        let engine = Engine::start(&[&playbook("alert.labels.missing")]).await;
        engine.send(post("/webhooks/alertmanager/eu", firing("A"))).await;
        let list = engine.send(get("/api/v1/dead-letters")).await.json;
        assert_eq!(
            (&list["items"][0]["code"], &list["items"][0]["via"]),
            (&json!("trigger.evaluation-failed"), &json!("/webhooks/alertmanager/eu"))
        );
        let id = list["items"][0]["id"].as_str().unwrap();
        still_dead(&engine, id, "playbook any: trigger 1: key: ").await;
        engine.load(&[&playbook("alert.labels.alertname")]).await;
        let request = post(&format!("/api/v1/dead-letters/{id}/replay"), "").header("prefer", "wait=20");
        let answer = engine.send(request).await;
        assert_eq!(answer.json["runs"][0]["state"], "succeeded", "{}", answer.json);
    }

    #[tokio::test]
    async fn a_message_that_a_playbook_could_not_use_starts_its_run_once_the_playbook_is_mended() {
        let playbook = |condition: &str| {
            format!(
                "playbook: ioc\ntriggers:\n  - nats: {{subject: sec.ioc, if: \"{condition}\"}}\n\
                 detect:\n  note: {{uses: log, with: {{message: seen}}}}\n"
            )
        };
        let engine = Engine::start(&[&playbook("event.data.confidence > 80")]).await;
        let event = json!({"specversion": "1.0", "id": "1", "source": "/edr", "type": "t", "subject": "sec.ioc"});
        engine.send(post("/api/v1/events", event.to_string())).await;
        let list = engine.send(get("/api/v1/dead-letters")).await.json;
        assert_eq!(list["items"][0]["via"], "nats:sec.ioc", "{list}");
        let id = list["items"][0]["id"].as_str().unwrap();
        still_dead(&engine, id, "playbook ioc: trigger 1: if: ").await;
        engine.load(&[&playbook("true")]).await;
        let path = format!("/api/v1/dead-letters/{id}/replay");
        let answer = engine.send(post(&path, "").header("prefer", "wait=20")).await;
        assert_eq!(answer.json["runs"][0]["state"], "succeeded", "{}", answer.json);
        assert_eq!(engine.send(post(&path, "")).await.json["duplicate"], true);
    }
}
