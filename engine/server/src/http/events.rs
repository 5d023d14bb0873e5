//! `POST /api/v1/events`: a CloudEvent, structured or binary, for whichever playbook listens to its subject.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use stanch_core::Command;
use stanch_core::command::Target;
use stanch_core::event::Event;

use super::Shared;
use super::alertmanager::Letter;
use super::body;
use super::guard::By;
use super::openapi::{Doc, Routes, schema};
use super::prefer::{Started, Wait};
use super::problem::Problem;
use crate::clock::wall;
use crate::intake::{Fallback, Unreadable, cloud_event};

/// The path that dead letters name.
pub(super) const PATH: &str = "/api/v1/events";

pub(super) fn routes(routes: Routes) -> Routes {
    let doc = Doc::new("Takes a CloudEvent; its subject is matched against the nats triggers of playbooks")
        .body("application/cloudevents+json", Some(schema::<Event>))
        .prefers()
        .answer::<Started>(StatusCode::OK)
        .problems(&[400, 413, 415, 503]);
    routes.post(PATH, receive, doc)
}

async fn receive(State(http): State<Shared>, by: By, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let headers = parts.headers;
    let media = body::media_type(&headers);
    let is_event = media.starts_with("application/cloudevents") || headers.contains_key("ce-specversion");
    if !is_event && media != "application/json" {
        let remedy = "send application/cloudevents+json, or binary mode with ce- headers";
        let detail = "the body is not said to be a CloudEvent";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "event.not-cloudevent", detail, remedy));
    }
    let limit = http.app.config.max_body();
    let received = body::read(body, limit).await?;
    let actor = by.actor();
    let letter = Letter { actor: &actor, via: PATH, content_type: header(&headers, header::CONTENT_TYPE.as_str()) };
    let read = match received.is_complete() {
        false => Err(Unreadable::new("body.too-large", format!("more than {limit} bytes are not taken"))),
        true => body::decode(&headers, received.bytes.clone(), limit)
            .and_then(|bytes| read_event(|name| header(&headers, name).map(str::to_owned), &bytes)),
    };
    let (event, subject) = match read {
        Ok(read) => read,
        Err(unreadable) => {
            let kept = http.keep(letter, &unreadable, &received).await?;
            let status = match unreadable.code {
                "body.too-large" => StatusCode::PAYLOAD_TOO_LARGE,
                _ => StatusCode::BAD_REQUEST,
            };
            return Err(Problem::unreadable(status, &unreadable, kept));
        }
    };
    let command = Command::ReceiveEvent { actor, event: Arc::new(event), target: Target::Subject(subject) };
    let receipt = http.app.handle.submit(command).await?;
    Ok(http.started(StatusCode::OK, receipt, Wait::of(&headers), 0).await)
}

/// An event with the subject that triggers are matched against, which must be its own here.
pub(super) fn read_event(headers: impl Fn(&str) -> Option<String>, body: &[u8]) -> Result<(Event, String), Unreadable> {
    let fallback = Fallback { id: String::new(), source: String::new(), subject: String::new(), time: wall() };
    let event = cloud_event(headers, body, fallback)?;
    if event.id.is_empty() {
        return Err(Unreadable::new("event.invalid-cloudevent", "neither the headers nor the body has a specversion"));
    }
    match event.subject.as_deref() {
        None | Some("") => {
            let reason = "subject: it is missing; it says which nats triggers take the event";
            Err(Unreadable::new("event.no-subject", reason))
        }
        Some(subject) => {
            let subject = subject.to_owned();
            Ok((event, subject))
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::http::testing::{Engine, get, post};

    const IOC: &str = "playbook: ioc\ntriggers:\n  - nats: {subject: \"sec.ioc.>\", if: \"event.data.confidence >= 80\"}\n\
                       detect:\n  note: {uses: log, with: {message: seen}}\n";

    fn event(id: &str, subject: &str, confidence: i32) -> String {
        json!({"specversion": "1.0", "id": id, "source": "/edr", "type": "ioc", "subject": subject,
               "data": {"confidence": confidence}})
        .to_string()
    }

    #[tokio::test]
    async fn an_event_starts_what_listens_to_its_subject_once() {
        let engine = Engine::start(&[IOC]).await;
        for (id, subject, confidence, runs, duplicate) in [
            ("1", "sec.ioc.host", 90, 1, false),
            ("1", "sec.ioc.host", 90, 0, true),
            ("2", "sec.ioc.host", 10, 0, false),
            ("3", "ops.other", 90, 0, false),
        ] {
            let request = post("/api/v1/events", event(id, subject, confidence))
                .header("content-type", "application/cloudevents+json")
                .header("prefer", "wait=20");
            let answer = engine.send(request).await;
            assert_eq!(answer.status, 200, "{}", answer.json);
            assert_eq!(answer.json["runs"].as_array().map(Vec::len), Some(runs), "{id}: {}", answer.json);
            assert_eq!(answer.json["duplicate"], duplicate);
        }
    }

    #[tokio::test]
    async fn binary_mode_is_taken() {
        let engine = Engine::start(&[IOC]).await;
        let mut request = post("/api/v1/events", "{\"confidence\": 99}");
        for (name, value) in
            [("specversion", "1.0"), ("id", "1"), ("source", "/edr"), ("type", "ioc"), ("subject", "sec.ioc.host")]
        {
            request = request.header(&format!("ce-{name}"), value);
        }
        let answer = engine.send(request).await;
        assert_eq!((answer.status, answer.json["runs"].as_array().map(Vec::len)), (200, Some(1)), "{}", answer.json);
    }

    #[tokio::test]
    async fn what_is_no_event_is_a_problem_and_kept() {
        let engine = Engine::start(&[]).await;
        let cases: [(&[u8], &str, u16, usize); 5] = [
            (b"\xff\xfe", "application/json", 400, 1),
            (b"{}", "application/json", 400, 2),
            (b"{", "application/cloudevents+json", 400, 3),
            (b"{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/s\",\"type\":\"t\"}", "application/json", 400, 4),
            (b"hello", "text/plain", 415, 4),
        ];
        for (body, kind, status, letters) in cases {
            let answer = engine.send(post("/api/v1/events", body).header("content-type", kind)).await;
            assert_eq!((answer.status, &answer.json["status"]), (status, &json!(status)), "{}", answer.json);
            let listed = engine.send(get("/api/v1/dead-letters")).await.json;
            assert_eq!(listed["items"].as_array().map(Vec::len), Some(letters));
        }
    }
}
