//! `POST /webhooks/alertmanager[/{source}]`: authenticate, read, parse, answer once durable.
//!
//! Alertmanager drops an alert at the first 4xx and sends again after a 5xx. So overload is a 503, a body that can never be
//! read is a 202 and a dead letter, and nothing redirects (RFC 9110, 15.4: a 302 turns the POST into a GET, which
//! Alertmanager counts as delivered).

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use stanch_core::alert::AlertStatus;
use stanch_core::record::{Actor, DeadLetter, base64};
use stanch_core::{Command, DeadLetterId, Receipt};

use super::body::{self, Received};
use super::extract::Segment;
use super::openapi::{Doc, Routes};
use super::prefer::{Started, Wait};
use super::problem::Problem;
use super::{Http, Shared};
use crate::executor::Refused;
use crate::intake::{self, Unreadable};

/// The path that dead letters name; a source follows after a slash.
pub(super) const PATH: &str = "/webhooks/alertmanager";
/// The source of deliveries that name none.
pub(super) const DEFAULT_SOURCE: &str = "default";
/// How much of a body a dead letter keeps.
const KEPT: usize = 1 << 20;

pub(super) fn routes(routes: Routes) -> Routes {
    let doc = || {
        Doc::new("Takes a notification of Alertmanager's, version 4, and answers once its alerts are durable")
            .body("application/json", None)
            .prefers()
            .answer::<Started>(StatusCode::OK)
            .problems(&[202, 401, 404, 503])
    };
    let hidden = Doc::hidden;
    routes
        .post("/webhooks/alertmanager", receive_default, doc())
        .post("/webhooks/alertmanager/{source}", receive, doc())
        .post("/webhooks/alertmanager/", receive_default, hidden())
        .post("/webhooks/alertmanager/{source}/", receive, hidden())
}

async fn receive_default(State(http): State<Shared>, request: Request) -> Result<Response, Problem> {
    take(&http, None, request).await
}

async fn receive(State(http): State<Shared>, source: Segment, request: Request) -> Result<Response, Problem> {
    take(&http, Some(source.0), request).await
}

async fn take(http: &Http, source: Option<String>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    authenticate(http, &parts.headers)?;
    let via = match &source {
        Some(source) if is_source(source) => format!("{PATH}/{source}"),
        Some(_) => {
            let remedy = "name the Alertmanager cluster with 1 to 64 of the characters A-Z a-z 0-9 . _ -";
            return Err(Problem::unknown("source.invalid", "the path does not end in the name of a source", remedy));
        }
        None => PATH.to_owned(),
    };
    let source = source.as_deref().unwrap_or(DEFAULT_SOURCE);
    let limit = http.app.config.max_body();
    let received = body::read(body, limit).await?;
    let actor = Actor::source(source);
    let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let letter = Letter { actor: &actor, via: &via, content_type };

    let decoded = match body_of(&parts.headers, &received, limit) {
        Ok(decoded) => decoded,
        Err(unreadable) => return http.refuse(letter, &unreadable, &received).await,
    };
    match http.give_alerts(actor.clone(), source, &decoded).await? {
        Err(unreadable) => {
            let received = Received { size: decoded.len() as u64, bytes: decoded };
            http.refuse(letter, &unreadable, &received).await
        }
        Ok(Given { mut receipt, bad, truncated }) => {
            if let Some(unreadable) = bad {
                let received = Received { size: decoded.len() as u64, bytes: decoded };
                receipt.dead_letters.extend(http.keep(letter, &unreadable, &received).await?);
            }
            Ok(http.started(StatusCode::OK, receipt, Wait::of(&parts.headers), truncated).await)
        }
    }
}

fn body_of(headers: &HeaderMap, received: &Received, limit: usize) -> Result<Bytes, Unreadable> {
    if !received.is_complete() {
        let reason = format!("it has {} bytes and more than {limit} are not taken", received.size);
        return Err(Unreadable::new("body.too-large", reason));
    }
    body::decode(headers, received.bytes.clone(), limit)
}

/// Whether a text can name an Alertmanager cluster.
pub(super) fn is_source(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=64).contains(&text.len()) && text.bytes().all(allowed)
}

fn authenticate(http: &Http, headers: &HeaderMap) -> Result<(), Problem> {
    let shown = headers.get(header::AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
    if http.app.senders.know(shown) {
        return Ok(());
    }
    let remedy = http.app.senders.remedy();
    Err(Problem::new(StatusCode::UNAUTHORIZED, "sender.unknown", "the sender is not known", remedy))
}

/// What became of a delivery.
pub(super) struct Given {
    /// What it led to.
    pub receipt: Receipt,
    /// Why not all of it could be taken.
    pub bad: Option<Unreadable>,
    /// How many alerts the sender left out.
    pub truncated: u64,
}

/// Where something that cannot be read came from.
#[derive(Clone, Copy)]
pub(super) struct Letter<'a> {
    pub actor: &'a Actor,
    pub via: &'a str,
    pub content_type: Option<&'a str>,
}

impl Http {
    /// Gives a delivery's body to the core; the inner error is what is wrong with the body.
    pub(super) async fn give_alerts(
        &self,
        actor: Actor,
        source: &str,
        body: &[u8],
    ) -> Result<Result<Given, Unreadable>, Refused> {
        let delivery = match intake::alerts(source, body) {
            Ok(delivery) => delivery,
            Err(unreadable) => return Ok(Err(unreadable)),
        };
        if delivery.truncated > 0 {
            tracing::warn!(
                source,
                left_out = delivery.truncated,
                "a notification left alerts out; raise max_alerts in the webhook's configuration"
            );
        }
        let resolved = delivery.changes.iter().filter(|change| change.status != AlertStatus::Firing).count();
        let firing = delivery.changes.len() - resolved;
        let receipt = self.app.handle.submit(Command::ReceiveAlerts { actor, changes: delivery.changes }).await?;
        self.metrics.alerts_received(source, firing, resolved, delivery.truncated);
        Ok(Ok(Given { receipt, bad: delivery.bad, truncated: delivery.truncated }))
    }

    /// Makes a dead letter of what came.
    pub(super) async fn keep(
        &self,
        letter: Letter<'_>,
        unreadable: &Unreadable,
        received: &Received,
    ) -> Result<Vec<DeadLetterId>, Refused> {
        let kept = &received.bytes[..received.bytes.len().min(KEPT)];
        let actor = letter.actor.clone();
        let letter = DeadLetter {
            via: letter.via.to_owned(),
            reason: unreadable.reason.clone(),
            code: unreadable.code.to_owned(),
            content_type: letter.content_type.map(|text| intake::shorten(text, 200)),
            body: base64(kept),
            size: received.size,
            complete: kept.len() as u64 == received.size,
        };
        tracing::warn!(via = letter.via, code = letter.code, size = letter.size, "kept as a dead letter");
        let receipt = self.app.handle.submit(Command::KeepDeadLetter { actor, letter }).await?;
        Ok(receipt.dead_letters)
    }

    async fn refuse(
        &self,
        letter: Letter<'_>,
        unreadable: &Unreadable,
        received: &Received,
    ) -> Result<Response, Problem> {
        let kept = self.keep(letter, unreadable, received).await?;
        Ok(Problem::unreadable(StatusCode::ACCEPTED, unreadable, kept).into_response())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use stanch_workers::Secrets;

    use crate::config::IntakeConfig;
    use crate::http::testing::{Engine, get, post};
    use crate::senders::Senders;

    const ANY: &str = "playbook: any\ntriggers:\n  - alertmanager: {matchers: ['scenario=~\".+\"']}\n\
                       detect:\n  note: {uses: log, with: {message: seen}}\n";

    fn fixture(name: &str) -> Vec<u8> {
        let path = format!("{}/../../tests/fixtures/alertmanager/{name}.json", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    #[tokio::test]
    async fn an_alert_is_answered_with_its_run_and_again_with_nothing() {
        let engine = Engine::start(&[ANY]).await;
        let answer = engine.send(post("/webhooks/alertmanager/eu?x=1", fixture("single-firing"))).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json["runs"].as_array().map(Vec::len), Some(1), "{}", answer.json);
        assert!(answer.json["runs"][0]["state"].is_string());
        assert_eq!(
            (answer.json["incidents"].as_array().map(Vec::len), &answer.json["duplicate"]),
            (Some(1), &json!(false))
        );
        let answer = engine.send(post("/webhooks/alertmanager/eu", fixture("single-firing"))).await;
        assert_eq!((answer.status, answer.json), (200, json!({"runs": [], "incidents": [], "duplicate": true})));
    }

    #[tokio::test]
    async fn a_preferred_wait_is_for_the_end_of_the_runs() {
        let engine = Engine::start(&[ANY]).await;
        let request = post("/webhooks/alertmanager", fixture("single-firing")).header("prefer", "wait=20");
        let answer = engine.send(request).await;
        assert_eq!(answer.json["runs"][0]["state"], "succeeded", "{}", answer.json);
        assert_eq!(answer.header("preference-applied"), Some("wait=20"));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_202_and_kept_and_the_answer_repeats_nothing_of_it() {
        let engine = Engine::start(&[ANY]).await;
        for (index, body) in
            ["{\"alerts\": \"hunter2\"", "hunter2", "[\"hunter2\"]", "{\"alerts\": [{\"status\": \"hunter2\"}]}"]
                .iter()
                .enumerate()
        {
            let answer = engine.send(post("/webhooks/alertmanager/eu", *body)).await;
            assert_eq!((answer.status, answer.header("content-type")), (202, Some("application/problem+json")));
            assert!(
                answer.body.len() < 500 && !String::from_utf8_lossy(&answer.body).contains("hunter2"),
                "{}",
                answer.json
            );
            let letters = engine.send(get("/api/v1/dead-letters")).await.json;
            let letters = letters["items"].as_array().unwrap();
            assert_eq!(letters.len(), index + 1);
            assert_eq!(
                (&letters[0]["id"], &letters[0]["via"]),
                (&answer.json["dead_letters"][0], &json!("/webhooks/alertmanager/eu"))
            );
        }
    }

    #[tokio::test]
    async fn good_alerts_beside_a_bad_one_are_taken_and_the_body_is_kept() {
        let engine = Engine::start(&[ANY]).await;
        let mut body: Value = serde_json::from_slice(&fixture("single-firing")).unwrap();
        let mut bad = body["alerts"][0].clone();
        bad["startsAt"] = "yesterday".into();
        body["alerts"].as_array_mut().unwrap().insert(0, bad);
        let answer = engine.send(post("/webhooks/alertmanager/eu", body.to_string())).await;
        assert_eq!((answer.status, answer.json["runs"].as_array().map(Vec::len)), (200, Some(1)), "{}", answer.json);
        let id = answer.json["dead_letters"][0].as_str().unwrap();
        let letter = engine.send(get(&format!("/api/v1/dead-letters/{id}"))).await.json;
        assert!(letter["reason"].as_str().unwrap().starts_with("alerts[0]: startsAt"), "{letter}");
        assert_eq!(letter["body"], body.to_string());
    }

    #[tokio::test]
    async fn an_answer_names_every_dead_letter_that_was_made_of_the_body() {
        let unusable = "playbook: unusable\ntriggers:\n  - alertmanager: {matchers: ['scenario=~\".+\"']}\n    \
                        key: \"{{ alert.labels.missing }}\"\ndetect:\n  note: {uses: log, with: {message: seen}}\n";
        let engine = Engine::start(&[ANY, unusable]).await;
        let mut body: Value = serde_json::from_slice(&fixture("single-firing")).unwrap();
        let mut second = body["alerts"][0].clone();
        second["fingerprint"] = "00aa".into();
        body["alerts"].as_array_mut().unwrap().extend([second, Value::Null]);
        let answer = engine.send(post("/webhooks/alertmanager/eu", body.to_string())).await;
        let named = answer.json["dead_letters"].as_array().unwrap();
        let mut codes = Vec::new();
        for id in named {
            let letter = engine.send(get(&format!("/api/v1/dead-letters/{}", id.as_str().unwrap()))).await.json;
            codes.push(letter["code"].as_str().unwrap().to_owned());
        }
        let unusable = "trigger.evaluation-failed";
        assert_eq!(codes, [unusable, unusable, "alertmanager.invalid-alert"], "{}", answer.json);
        assert_eq!((answer.status, answer.json["runs"].as_array().map(Vec::len)), (200, Some(2)));
    }

    #[tokio::test]
    async fn an_oversized_body_is_kept_in_part() {
        let engine = Engine::start(&[ANY]).await;
        let answer = engine.send(post("/webhooks/alertmanager", vec![b'x'; 9 << 20])).await;
        assert_eq!((answer.status, &answer.json["code"]), (202, &json!("body.too-large")));
        let id = answer.json["dead_letters"][0].as_str().unwrap();
        let letter = engine.send(get(&format!("/api/v1/dead-letters/{id}"))).await.json;
        assert_eq!((&letter["complete"], &letter["size"]), (&json!(false), &json!(9 << 20)));
    }

    #[tokio::test]
    async fn nothing_redirects_and_other_methods_are_refused() {
        let engine = Engine::start(&[ANY]).await;
        for (path, status) in [
            ("/webhooks/alertmanager", 200),
            ("/webhooks/alertmanager/", 200),
            ("/webhooks/alertmanager/eu", 200),
            ("/webhooks/alertmanager/eu/", 200),
            ("/webhooks/alertmanager/eu%2F", 404),
            ("/webhooks/alertmanager/a/b", 404),
            ("//webhooks/alertmanager/eu", 404),
            ("/", 404),
        ] {
            assert_eq!(engine.send(post(path, fixture("single-firing"))).await.status, status, "{path}");
        }
        for path in ["/webhooks/alertmanager", "/webhooks/alertmanager/hunter2"] {
            let answer = engine.send(get(path)).await;
            assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{path}");
            assert!(!String::from_utf8_lossy(&answer.body).contains("hunter2"));
        }
    }

    #[tokio::test]
    async fn senders_that_are_not_known_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("token");
        std::fs::write(&path, "s3cret").unwrap();
        let intake = IntakeConfig { token: Some(format!("file:{}", path.display())), ..IntakeConfig::default() };
        let senders = Senders::read(&intake, &Secrets::default()).unwrap();
        let engine = Engine::start_with_senders(&[ANY], senders).await;
        for (header, status) in [(None, 401), (Some("Bearer wrong"), 401), (Some("Bearer s3cret"), 200)] {
            let mut request = post("/webhooks/alertmanager", fixture("single-firing"));
            if let Some(header) = header {
                request = request.header("authorization", header);
            }
            let answer = engine.send(request).await;
            assert_eq!(answer.status, status, "{header:?}");
            assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{header:?}");
        }
    }
}
