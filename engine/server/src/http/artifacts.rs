//! The files that the steps of a run left behind: listed and fetched.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use stanch_core::attempt::AttemptId;
use stanch_core::{RunId, Sequence};
use stanch_journal::Reader;
use stanch_playbook::StepKey;

use super::extract::{Asked, Segment};
use super::openapi::{Doc, Routes};
use super::problem::Problem;
use super::{Http, Shared};
use crate::artifacts::{self, Artifact};

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get(
            "/api/v1/runs/{id}/artifacts",
            of_run,
            Doc::new("Lists the files that the steps of a run left behind, those of every attempt")
                .answer::<Vec<Artifact>>(StatusCode::OK)
                .problems(&[400, 404, 503]),
        )
        .get(
            "/api/v1/runs/{id}/steps/{step}/artifacts",
            of_step,
            Doc::new("Lists the files that a step left behind, by its phase.name or its name alone")
                .answer::<Vec<Artifact>>(StatusCode::OK)
                .problems(&[400, 404, 503]),
        )
        .get(
            "/api/v1/runs/{id}/steps/{step}/artifacts/{*path}",
            fetch,
            Doc::new("Gives a file that a step left behind, of the last attempt that did unless the query says")
                .query("item", "the item's number, from 0; needed where several items left the file behind")
                .query("generation", "how often a person had asked for the step to be tried again")
                .query("attempt", "the attempt's number in its generation, from 1")
                .lines("application/octet-stream")
                .problems(&[400, 404, 503]),
        )
}

/// Which of several files of one path.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    item: Option<u32>,
    generation: Option<u32>,
    attempt: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

type Parts<T> = Result<Path<T>, axum::extract::rejection::PathRejection>;

async fn of_run(
    State(http): State<Shared>,
    id: Segment,
    Asked(Nothing {}): Asked<Nothing>,
) -> Result<Json<Vec<Artifact>>, Problem> {
    Ok(Json(list(&http, &id, None).await?))
}

async fn of_step(
    State(http): State<Shared>,
    parts: Parts<(String, String)>,
    Asked(Nothing {}): Asked<Nothing>,
) -> Result<Json<Vec<Artifact>>, Problem> {
    let Path((id, step)) = parts.map_err(|_| unreadable())?;
    Ok(Json(list(&http, &Segment(id), Some(step)).await?))
}

async fn fetch(
    State(http): State<Shared>,
    parts: Parts<(String, String, String)>,
    Asked(which): Asked<Which>,
) -> Result<Response, Problem> {
    let Path((id, step, path)) = parts.map_err(|_| unreadable())?;
    let (reader, sequences) = records_of(&http, &Segment(id))?;
    let found = {
        let path = path.clone();
        blocking(move || find(&*reader, &sequences, &step, &path, which)).await?
    };
    let bytes = match found {
        Found::File(bytes) => bytes,
        Found::Nothing => {
            let detail = format!("no such attempt of this step left {path} behind");
            return Err(Problem::unknown("artifact.unknown", detail, "GET .../artifacts lists what there is"));
        }
        Found::Several(items) => {
            let detail = format!("{items} items of this step left {path} behind");
            let remedy = "say which with ?item=N; GET .../artifacts lists them";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "artifact.ambiguous", detail, remedy));
        }
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_DISPOSITION, attachment(&path));
    Ok((headers, bytes).into_response())
}

fn unreadable() -> Problem {
    Problem::unknown("route.unknown", "the path is not UTF-8", "encode the path's parts as UTF-8")
}

async fn list(http: &Http, id: &Segment, step: Option<String>) -> Result<Vec<Artifact>, Problem> {
    let (reader, sequences) = records_of(http, id)?;
    let wanted = move |key: &StepKey| step.as_ref().is_none_or(|step| is_named(key, step));
    blocking(move || artifacts::list(&*reader, &sequences, wanted)).await
}

fn records_of(http: &Http, id: &Segment) -> Result<(Arc<dyn Reader>, Vec<Sequence>), Problem> {
    let id: RunId = id.id("run", "run.unknown")?;
    Ok((Arc::clone(&http.app.reader), http.run(id)?.records))
}

async fn blocking<T: Send + 'static>(read: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(read).await.map_err(Problem::unavailable)?.map_err(Problem::unavailable)
}

enum Found {
    File(Vec<u8>),
    Nothing,
    /// So many items left it behind, and which is meant is not said.
    Several(usize),
}

fn find(reader: &dyn Reader, sequences: &[Sequence], step: &str, path: &str, which: Which) -> Result<Found, String> {
    let meant = |item: Option<u32>, generation: u32, attempt: u32| {
        (which.item.is_none() || which.item == item)
            && which.generation.is_none_or(|wanted| wanted == generation)
            && which.attempt.is_none_or(|wanted| wanted == attempt)
    };
    if which.item.is_none() {
        let all = artifacts::list(reader, sequences, |key| is_named(key, step))?;
        let of_path = all.iter().filter(|one| one.path == path && meant(one.item, one.generation, one.attempt));
        let mut items: Vec<Option<u32>> = of_path.map(|one| one.item).collect();
        items.sort_unstable();
        items.dedup();
        match items.len() {
            0 => return Ok(Found::Nothing),
            1 => {}
            several => return Ok(Found::Several(several)),
        }
    }
    let wanted = |of: &AttemptId| is_named(&of.step, step) && meant(of.item, of.generation, of.number);
    Ok(artifacts::content(reader, sequences, path, wanted)?.map_or(Found::Nothing, Found::File))
}

fn is_named(key: &StepKey, name: &str) -> bool {
    key.as_str() == name || key.as_str().split_once('.').is_some_and(|(_, step)| step == name)
}

/// Never shown in a browser, and saved under the last part of its path.
fn attachment(path: &str) -> HeaderValue {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
    let name: String =
        path.rsplit('/').next().unwrap_or_default().chars().map(|c| if plain(c) { c } else { '_' }).collect();
    HeaderValue::try_from(format!("attachment; filename=\"{name}\""))
        .unwrap_or_else(|_| HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::http::testing::{Engine, get};

    const KEEPS: &str = "playbook: keeps\ninputs: {hosts: {type: list, default: [a, b]}}\ndetect:\n  \
                         keep: {uses: log, with: {message: keep}}\n  each: {foreach: inputs.hosts, uses: log, with: {message: 'keep {{ item }}'}}\n  \
                         bare: {uses: log, with: {message: x}}\n";

    #[tokio::test]
    async fn what_a_step_left_behind_is_listed_and_fetched_byte_by_byte() {
        let engine = Engine::start(&[KEEPS]).await;
        let id = engine.run("keeps").await;
        let all = engine.send(get(&format!("/api/v1/runs/{id}/artifacts"))).await.json;
        let mut seen: Vec<_> =
            all.as_array().unwrap().iter().map(|one| (one["step"].to_string(), one["value"].to_string())).collect();
        seen.sort();
        let named = |step: &str, value: &str| (format!("\"detect.{step}\""), value.to_owned());
        assert_eq!(seen, [named("each", "\"a\""), named("each", "\"b\""), named("keep", "null")]);
        let of = engine.send(get(&format!("/api/v1/runs/{id}/steps/detect.keep/artifacts"))).await.json;
        let one = json!({"step": "detect.keep", "generation": 0, "attempt": 1, "path": "out/a b.bin", "size": 4, "sha256": "aa"});
        assert_eq!(of, json!([one]));
        let file = engine.open(get(&format!("/api/v1/runs/{id}/steps/keep/artifacts/out/a%20b.bin"))).await;
        assert_eq!(file.status(), 200);
        for (name, value) in [
            ("content-type", "application/octet-stream"),
            ("x-content-type-options", "nosniff"),
            ("content-disposition", "attachment; filename=\"a_b.bin\""),
        ] {
            assert_eq!(file.headers()[name], value);
        }
        let bytes = axum::body::to_bytes(file.into_body(), 1 << 20).await.unwrap();
        assert_eq!(&bytes[..], b"\xff\x00ab");
        let at = |rest: &str| format!("/api/v1/runs/{id}/steps/{rest}");
        for (rest, status, code) in [
            ("keep/artifacts/out/none", 404, "artifact.unknown"),
            ("keep/artifacts/out/a%20b.bin?attempt=2", 404, "artifact.unknown"),
            ("keep/artifacts/out/a%20b.bin?atempt=2", 400, "query.invalid"),
            ("bare/artifacts/out/a%20b.bin", 404, "artifact.unknown"),
            ("each/artifacts/out/a%20b.bin", 400, "artifact.ambiguous"),
            ("keep/artifacts/../../../../healthz", 404, "artifact.unknown"),
        ] {
            let answer = engine.send(get(&at(rest))).await;
            assert_eq!((answer.status, &answer.json["code"]), (status, &json!(code)), "{rest}: {}", answer.json);
        }
        let item = engine.open(get(&at("each/artifacts/out/a%20b.bin?item=1"))).await;
        assert_eq!(item.status(), 200);
    }
}
