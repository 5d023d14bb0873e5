//! The journal as JSON lines, exactly as it is exported: `{"envelope":..,"payload":..,"salt":".."}`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use serde::Deserialize;
use stanch_core::{RunId, Sequence};
use stanch_journal::{Entry, Envelope, ReadError, Reader};

use super::Shared;
use super::extract::{Asked, Segment};
use super::openapi::{Doc, Routes};
use super::problem::Problem;

/// How many records are read at once.
const CHUNK: usize = 256;
/// How many bytes of records that are read one by one are sent at once.
const CHUNK_BYTES: usize = 256 << 10;
const MEDIA_TYPE: &str = "application/jsonl";

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get(
            "/api/v1/audit",
            audit,
            Doc::new("Gives the journal's records, one a line, which `stanch audit verify` checks")
                .query("from", "the first sequence; 1 unless given")
                .query("limit", "the largest number of records; all up to the end unless given")
                .lines(MEDIA_TYPE)
                .problems(&[400]),
        )
        .get(
            "/api/v1/runs/{id}/records",
            of_run,
            Doc::new("Gives the records of one run, one a line").lines(MEDIA_TYPE).problems(&[404]),
        )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    from: Option<u64>,
    limit: Option<u64>,
}

/// What is still to be read.
enum Left {
    /// Consecutive ones: the next, the last, and how many at most.
    Range { next: Sequence, last: Sequence, count: u64 },
    /// Those at these places, of which so many are done.
    Places { places: Vec<Sequence>, done: usize },
}

async fn audit(State(http): State<Shared>, Asked(range): Asked<Range>) -> Response {
    let next = Sequence(range.from.unwrap_or(1).max(1));
    // What is appended meanwhile is not awaited, so that the answer has an end.
    let last = http.app.reader.head().sequence;
    let count = range.limit.unwrap_or(u64::MAX);
    lines(Arc::clone(&http.app.reader), Left::Range { next, last, count })
}

async fn of_run(State(http): State<Shared>, id: Segment) -> Result<Response, Problem> {
    let run: RunId = id.id("run", "run.unknown")?;
    let places = http.run(run)?.records;
    Ok(lines(Arc::clone(&http.app.reader), Left::Places { places, done: 0 }))
}

/// Streams lines; where reading fails midway the answer breaks off, so that nobody takes it for whole.
fn lines(reader: Arc<dyn Reader>, left: Left) -> Response {
    let chunks = stream::unfold(Some(left), move |left| {
        let reader = Arc::clone(&reader);
        async move {
            let mut left = left?;
            let read = tokio::task::spawn_blocking(move || left.chunk(&*reader).map(|bytes| (bytes, left))).await;
            match read {
                Ok(Ok((bytes, _))) if bytes.is_empty() => None,
                Ok(Ok((bytes, left))) => Some((Ok(Bytes::from(bytes)), Some(left))),
                Ok(Err(error)) => {
                    tracing::error!(%error, "the journal could not be read to the end");
                    Some((Err(std::io::Error::other(error)), None))
                }
                Err(error) => Some((Err(std::io::Error::other(error)), None)),
            }
        }
    });
    (StatusCode::OK, [(header::CONTENT_TYPE, MEDIA_TYPE)], Body::from_stream(chunks)).into_response()
}

impl Left {
    /// The next lines; empty at the end.
    fn chunk(&mut self, reader: &dyn Reader) -> Result<Vec<u8>, ReadError> {
        let mut out = Vec::new();
        match self {
            Self::Range { next, last, count } => {
                if *next > *last || *count == 0 {
                    return Ok(out);
                }
                let most = (*count).min(CHUNK as u64).min(last.0 - next.0 + 1);
                for entry in reader.read(*next, usize::try_from(most).unwrap_or(CHUNK))? {
                    // Retention may have removed the beginning: what comes is what the envelope says.
                    let at = sequence_of(&entry).unwrap_or(*next);
                    if at > *last {
                        break;
                    }
                    entry.write_line(&mut out);
                    *next = at.next();
                    *count -= 1;
                }
            }
            Self::Places { places, done } => {
                while out.len() < CHUNK_BYTES && *done < places.len() {
                    for entry in reader.get(&places[*done..=*done])? {
                        entry.write_line(&mut out);
                    }
                    *done += 1;
                }
            }
        }
        Ok(out)
    }
}

fn sequence_of(entry: &Entry) -> Option<Sequence> {
    Envelope::decode(&entry.envelope).ok().map(|envelope| envelope.sequence)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::http::testing::{Engine, get};

    const QUICK: &str = "playbook: quick\ndetect:\n  first: {uses: log, with: {message: one}}\n";

    fn lines(body: &[u8]) -> Vec<Value> {
        body.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    #[tokio::test]
    async fn the_audit_is_the_whole_journal_and_verifies() {
        let engine = Engine::start(&[QUICK]).await;
        for _ in 0..80 {
            engine.run("quick").await;
        }
        let answer = engine.send(get("/api/v1/audit")).await;
        assert_eq!(answer.header("content-type"), Some("application/jsonl"));
        let all = lines(&answer.body);
        assert!(all.len() > 400, "more than one chunk: {}", all.len());
        for (index, line) in all.iter().enumerate() {
            assert_eq!(line["envelope"]["sequence"], index + 1);
        }
        let part = lines(&engine.send(get("/api/v1/audit?from=10&limit=3")).await.body);
        assert_eq!(part, all[9..12]);
        assert_eq!(engine.send(get("/api/v1/audit?from=1000000")).await.body, b"");
        assert_eq!(engine.send(get("/api/v1/audit?from=x")).await.status, 400);
    }

    #[tokio::test]
    async fn the_records_of_a_run_are_its_own_alone() {
        let engine = Engine::start(&[QUICK]).await;
        engine.run("quick").await;
        let id = engine.run("quick").await;
        let records = lines(&engine.send(get(&format!("/api/v1/runs/{id}/records"))).await.body);
        let kinds: Vec<&str> = records.iter().map(|line| line["envelope"]["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["RunStarted", "AttemptScheduled", "AttemptSucceeded", "RunFinished"]);
        assert!(records.iter().all(|line| line["envelope"]["run"] == *id));
        assert_eq!(engine.send(get("/api/v1/runs/none/records")).await.status, 404);
    }
}
