//! `GET /api/v1/stream`: every durable record as a server-sent event, from where the listener left off.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use serde::Deserialize;
use stanch_core::{RunId, Sequence};
use stanch_journal::{Envelope, Reader};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::Shared;
use super::extract::Asked;
use super::openapi::{Doc, Routes};
use super::problem::Problem;

/// How many records are read at once.
const CHUNK: usize = 128;
/// How long a stream is silent at most; proxies close what is silent for longer.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) fn routes(routes: Routes) -> Routes {
    let doc =
        Doc::new("Gives every record once it is durable, as server-sent events: id is the sequence, event the kind")
            .query("from", "the first sequence; what comes after the present end unless given (or Last-Event-ID)")
            .query("run", "only the records of this run")
            .lines("text/event-stream")
            .problems(&[400, 503]);
    routes.get("/api/v1/stream", follow, doc)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    from: Option<u64>,
    run: Option<String>,
}

struct Follower {
    reader: Arc<dyn Reader>,
    durable: watch::Receiver<Arc<stanch_core::State>>,
    next: Sequence,
    run: Option<RunId>,
    over: bool,
    _permit: OwnedSemaphorePermit,
}

async fn follow(State(http): State<Shared>, headers: HeaderMap, Asked(from): Asked<From>) -> Result<Response, Problem> {
    let invalid = |what: &str| {
        let detail = format!("{what} cannot be read");
        Problem::new(StatusCode::BAD_REQUEST, "query.invalid", detail, "give a record's sequence, or a run's id")
    };
    let run = from.run.map(|run| run.parse::<RunId>()).transpose().map_err(|_| invalid("run"))?;
    let last = headers.get("last-event-id").map(|value| value.to_str().ok().and_then(|text| text.parse::<u64>().ok()));
    let next = match (last, from.from) {
        (Some(None), _) => return Err(invalid("Last-Event-ID")),
        (Some(Some(last)), _) => Sequence(last.saturating_add(1)),
        (None, Some(from)) => Sequence(from.max(1)),
        (None, None) => http.app.reader.head().sequence.next(),
    };
    let permit = Arc::clone(&http.streams).try_acquire_owned().map_err(|_| {
        let detail = "too many streams are open";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stream.too-many", detail, "close some, or try again later")
    })?;
    let reader = Arc::clone(&http.app.reader);
    let durable = http.app.handle.watch();
    let follower = Follower { reader, durable, next, run, over: false, _permit: permit };
    let events = stream::unfold(follower, |mut follower| async move {
        let events = follower.events().await?;
        Some((Ok::<_, std::io::Error>(events), follower))
    });
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response())
}

impl Follower {
    /// The next events, or a heartbeat where nothing happens; none once the engine has ended.
    async fn events(&mut self) -> Option<Bytes> {
        loop {
            if self.over {
                return None;
            }
            // Marked as seen before reading, so that what becomes durable meanwhile wakes it again.
            self.durable.borrow_and_update();
            let (reader, next) = (Arc::clone(&self.reader), self.next);
            let read = tokio::task::spawn_blocking(move || reader.read(next, CHUNK)).await;
            let entries = match read {
                Ok(Ok(entries)) => entries,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "a stream ends: the journal cannot be read now");
                    return None;
                }
                Err(_) => return None,
            };
            let caught_up = entries.is_empty();
            let mut out = Vec::new();
            for entry in entries {
                let envelope = Envelope::decode(&entry.envelope).ok()?;
                self.next = envelope.sequence.next();
                // The engine's last record; connections would hold up its end.
                self.over = envelope.kind == "EngineStopped" && self.next > self.reader.head().sequence;
                if self.run.is_some() && envelope.run != self.run {
                    continue;
                }
                out.extend_from_slice(
                    format!("id: {}\nevent: {}\ndata: ", envelope.sequence, envelope.kind).as_bytes(),
                );
                entry.write_line(&mut out);
                out.push(b'\n');
            }
            if !out.is_empty() {
                return Some(out.into());
            }
            if caught_up {
                match tokio::time::timeout(HEARTBEAT, self.durable.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return None,
                    Err(_) => return Some(Bytes::from_static(b": nothing new\n\n")),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use crate::http::testing::{Engine, get};

    const QUICK: &str = "playbook: quick\ndetect:\n  first: {uses: log, with: {message: one}}\n";

    /// Reads events until `count` have come; their ids and kinds.
    async fn events(engine: &Engine, path: &str, last: Option<&str>, count: usize) -> Vec<(u64, String)> {
        let mut request = get(path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = engine.open(request).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut stream = response.into_body().into_data_stream();
        let mut text = String::new();
        while text.matches("\n\n").count() < count {
            let chunk = stream.next().await.expect("the stream goes on").unwrap();
            text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        let event = |part: &str| {
            let field =
                |name: &str| part.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
            (field("id: ").parse().unwrap(), field("event: "))
        };
        text.split_terminator("\n\n").map(event).collect()
    }

    #[tokio::test]
    async fn records_come_in_order_from_where_the_listener_left_off() {
        let engine = Engine::start(&[QUICK]).await;
        let id = engine.run("quick").await;
        let all = events(&engine, "/api/v1/stream?from=1", None, 5).await;
        assert_eq!(all[0], (1, "EngineStarted".to_owned()));
        assert_eq!(events(&engine, "/api/v1/stream", Some("3"), 1).await[0].0, 4);
        let of_run = events(&engine, &format!("/api/v1/stream?from=1&run={id}"), None, 4).await;
        assert_eq!(of_run.last().map(|(_, kind)| &**kind), Some("RunFinished"));
    }

    #[tokio::test]
    async fn what_becomes_durable_later_comes_too() {
        let engine = Engine::start(&[QUICK]).await;
        let listening = events(&engine, "/api/v1/stream", None, 1);
        let (events, _) = tokio::join!(listening, engine.run("quick"));
        assert_eq!(events[0].1, "EventReceived");
    }

    #[tokio::test]
    async fn the_stream_ends_with_the_engine() {
        let engine = Engine::start(&[]).await;
        let response = engine.open(get("/api/v1/stream?from=1")).await;
        engine.stop().await;
        let parts: Vec<_> = response.into_body().into_data_stream().collect().await;
        let text: String = parts.into_iter().map(|part| String::from_utf8(part.unwrap().to_vec()).unwrap()).collect();
        assert!(text.contains("event: EngineStopped"), "{text}");
    }

    #[tokio::test]
    async fn a_place_that_is_none_is_a_problem() {
        let engine = Engine::start(&[]).await;
        assert_eq!(engine.send(get("/api/v1/stream").header("last-event-id", "x")).await.status, 400);
        assert_eq!(engine.send(get("/api/v1/stream?run=x")).await.status, 400);
    }
}
