//! Runs: listed, shown, ended early, and told what became of an unknown attempt.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use stanch_core::record::Answer;
use stanch_core::{Command, Rejected, RunId};
use stanch_journal::Table;
use stanch_playbook::{Plan, StepKey};

use super::extract::{Asked, Segment};
use super::guard::By;
use super::openapi::{Doc, Routes, schema};
use super::page::{ListQuery, Page};
use super::problem::Problem;
use super::run_view::{self, RunDetail};
use super::{Http, Shared, body};
use crate::executor::Refused;
use crate::records;
use crate::summary::RunSummary;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get(
            "/api/v1/runs",
            list,
            Doc::new("Lists runs, newest first")
                .query("state", "queued, running, waiting, succeeded, failed or cancelled")
                .query("playbook", "a playbook's name")
                .pages()
                .answer::<Page<RunSummary>>(StatusCode::OK)
                .problems(&[400]),
        )
        .get(
            "/api/v1/runs/{id}",
            show,
            Doc::new("Shows a run with its inputs, what started it, and its steps with all their attempts; of artifacts the sizes and digests, with the contents in its records")
                .query("items", "all: every item of each step; otherwise of many the first 100 that have not succeeded")
                .answer::<RunDetail>(StatusCode::OK)
                .problems(&[400, 404]),
        )
        .post(
            "/api/v1/runs/{id}/cancel",
            cancel,
            Doc::new("Ends a run early: what is under way is cancelled, and finally runs")
                .body("application/json", Some(schema::<CancelRequest>))
                .answer::<RunSummary>(StatusCode::OK)
                .problems(&[400, 404, 409, 415, 422, 503]),
        )
        .post(
            "/api/v1/runs/{id}/answer",
            answer,
            Doc::new("Says what became of an unknown attempt")
                .body("application/json", Some(schema::<AnswerRequest>))
                .answer::<RunSummary>(StatusCode::OK)
                .problems(&[400, 404, 409, 415, 422, 503]),
        )
}

async fn list(State(http): State<Shared>, Asked(query): Asked<ListQuery>) -> Result<Json<Page<RunSummary>>, Problem> {
    let state = http.app.handle.state();
    let live = state.runs.iter().rev().map(|(id, run)| (id.0, RunSummary::of(run, &state))).collect();
    let (wanted, playbook) = (query.state.clone(), query.playbook.clone());
    let keep = move |run: &RunSummary| {
        wanted.as_ref().is_none_or(|state| run.state == *state)
            && playbook.as_ref().is_none_or(|playbook| run.playbook.as_str() == playbook)
    };
    let mut page = http.page(&query, Table::Runs, live, keep).await?;
    for run in &mut page.items {
        run.records.clear();
    }
    Ok(Json(page))
}

/// How much of a run is shown.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Detail {
    items: Option<Items>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Items {
    All,
}

async fn show(
    State(http): State<Shared>,
    id: Segment,
    Asked(asked): Asked<Detail>,
) -> Result<Json<RunDetail>, Problem> {
    let id: RunId = id.id("run", "run.unknown")?;
    let summary = http.run(id)?;
    let reader = std::sync::Arc::clone(&http.app.reader);
    let sequences = summary.records.clone();
    let records = tokio::task::spawn_blocking(move || records::read(&*reader, &sequences));
    let records = records.await.map_err(Problem::unavailable)?.map_err(Problem::unavailable)?;
    let state = http.app.handle.state();
    let most = match asked.items {
        Some(Items::All) => usize::MAX,
        None => run_view::ITEMS,
    };
    Ok(Json(RunDetail::new(summary, &records, &state, most)))
}

/// Asks for a run's early end.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CancelRequest {
    /// Why; stands in the record.
    reason: String,
    /// Whether what it did is taken back.
    undo: bool,
}

async fn cancel(
    State(http): State<Shared>,
    by: By,
    id: Segment,
    request: Request,
) -> Result<Json<RunSummary>, Problem> {
    let run: RunId = id.id("run", "run.unknown")?;
    let CancelRequest { reason, undo } = body::json(request).await?;
    let command = Command::CancelRun { actor: by.actor(), run, reason, undo };
    http.command_run(run, command).await
}

/// Says what became of an unknown attempt.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnswerRequest {
    /// The step: `phase.step`, or its name alone.
    step: String,
    /// The item, where the step has items; from 0.
    #[serde(default)]
    item: Option<u32>,
    /// What became of it; `retry` tries it again.
    answer: Answer,
    /// What the person adds; stands in the record.
    #[serde(default)]
    note: String,
}

async fn answer(
    State(http): State<Shared>,
    by: By,
    id: Segment,
    request: Request,
) -> Result<Json<RunSummary>, Problem> {
    let run: RunId = id.id("run", "run.unknown")?;
    let AnswerRequest { step, item, answer, note } = body::json(request).await?;
    let state = http.app.handle.state();
    let plan = state.runs.get(&run).and_then(|run| state.plan(run.plan));
    let step = plan.and_then(|plan| step_named(plan, &step)).unwrap_or_else(|| StepKey::new(step));
    let command = Command::AnswerStep { actor: by.actor(), run, step, item, answer, note };
    http.command_run(run, command).await
}

fn step_named(plan: &Plan, name: &str) -> Option<StepKey> {
    plan.steps.iter().find(|step| step.key.as_str() == name || step.name == name).map(|step| step.key.clone())
}

impl Http {
    /// A run's summary, live or over.
    pub(super) fn run(&self, id: RunId) -> Result<RunSummary, Problem> {
        let state = self.app.handle.state();
        let live = state.runs.get(&id).map(|run| RunSummary::of(run, &state));
        live.or_else(|| self.summary_of(id)).ok_or_else(|| Rejected::UnknownRun(id).into())
    }

    async fn command_run(&self, id: RunId, command: Command) -> Result<Json<RunSummary>, Problem> {
        match self.app.handle.submit(command).await {
            Ok(_) => {
                let mut summary = self.run(id)?;
                summary.records.clear();
                Ok(Json(summary))
            }
            // What is not live may have been.
            Err(Refused::Rejected(Rejected::UnknownRun(_))) => {
                let RunSummary { state, .. } = self.run(id)?;
                Err(Problem::conflict("run.over", format!("the run is over: {state}"), "start another one"))
            }
            Err(refused) => Err(refused.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::http::testing::{Engine, get, post};

    const QUICK: &str = "playbook: quick\ndetect:\n  first: {uses: log, with: {message: one}}\n\
                         contain:\n  second: {if: 'false', uses: log, with: {message: two}}\n";
    const LONG: &str = "playbook: long\ndetect:\n  wait_long: {uses: wait, with: {duration: 10m}}\n\
                        recover:\n  after: {uses: log, with: {message: over}}\n";

    #[tokio::test]
    async fn a_run_tells_of_all_that_it_took_in_before_it_began() {
        let text = "playbook: gathers\ninputs: {hosts: {type: list}}\ntriggers:\n  - alertmanager: {matchers: ['alertname=\"Down\"']}\n    \
                    key: k\n    group_wait: 10m\n    inputs: {hosts: \"alerts.map(a, a.labels.host)\"}\n\
                    detect:\n  a: {uses: log, with: {message: x}}\n";
        let engine = Engine::start(&[text]).await;
        for host in ["a", "b"] {
            let alert = json!({"status": "firing", "labels": {"alertname": "Down", "host": host}, "annotations": {}, "startsAt": "2026-01-05T03:00:00Z"});
            let body = json!({"version": "4", "status": "firing", "alerts": [alert]}).to_string();
            assert_eq!(engine.send(post("/webhooks/alertmanager", body)).await.status, 200);
        }
        let list = engine.send(get("/api/v1/runs")).await.json;
        let id = list["items"][0]["id"].as_str().unwrap().to_owned();
        let run = engine.send(get(&format!("/api/v1/runs/{id}"))).await.json;
        assert_eq!(run["inputs"]["hosts"], json!(["a", "b"]), "{run:#}");
        assert_eq!(run["trigger"]["alerts"].as_array().map(Vec::len), Some(2));
    }

    #[tokio::test]
    async fn runs_are_listed_newest_first_by_pages() {
        let engine = Engine::start(&[QUICK, LONG]).await;
        let mut ids = Vec::new();
        for name in ["quick", "long", "quick", "quick", "long"] {
            ids.push(engine.run(name).await);
        }
        ids.sort();
        ids.reverse();
        let mut seen = Vec::new();
        let mut path = "/api/v1/runs?limit=2".to_owned();
        let mut pages = 0;
        loop {
            let page = engine.send(get(&path)).await.json;
            seen.extend(page["items"].as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap().to_owned()));
            pages += 1;
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/api/v1/runs?limit=2&cursor={next}");
        }
        assert_eq!((seen, pages), (ids, 3));
        for (query, count) in [("playbook=quick", 3), ("state=waiting", 2), ("state=succeeded&playbook=long", 0)] {
            let page = engine.send(get(&format!("/api/v1/runs?{query}"))).await.json;
            assert_eq!(page["items"].as_array().map(Vec::len), Some(count), "{query}: {page}");
            assert_eq!(page["next"], Value::Null);
        }
        for query in ["limit=-1", "limit=0", "limit=x", "cursor=nonsense", "plabook=quick"] {
            let answer = engine.send(get(&format!("/api/v1/runs?{query}"))).await;
            assert_eq!(
                (answer.status, answer.header("content-type")),
                (400, Some("application/problem+json")),
                "{query}"
            );
        }
    }

    #[tokio::test]
    async fn a_run_that_is_over_is_shown_with_all_its_steps() {
        let engine = Engine::start(&[QUICK]).await;
        let id = engine.run("quick").await;
        let run = engine.send(get(&format!("/api/v1/runs/{id}"))).await.json;
        assert_eq!(
            (&run["state"], &run["playbook"], &run["inputs"]),
            (&json!("succeeded"), &json!("quick"), &json!({}))
        );
        assert_eq!(run["trigger"]["event"]["type"], "stanch.run.requested");
        let first = &run["steps"]["detect.first"];
        assert_eq!((&first["state"], &first["error"]), (&json!("succeeded"), &Value::Null), "{run:#}");
        let attempts = first["attempts"].as_array().unwrap();
        assert_eq!(attempts.len(), 1);
        assert_eq!((&attempts[0]["outcome"], &attempts[0]["number"]), (&json!("succeeded"), &json!(1)));
        assert!(attempts[0]["scheduled_at"].is_string() && attempts[0]["finished_at"].is_string());
        assert_eq!(run["steps"]["contain.second"]["state"], "skipped");
        assert!(run["finished_at"].is_string() && run.get("records").is_none());
    }

    #[tokio::test]
    async fn a_live_run_shows_what_it_waits_for_and_what_has_not_begun() {
        let engine = Engine::start(&[LONG]).await;
        let id = engine.run("long").await;
        let run = engine.send(get(&format!("/api/v1/runs/{id}"))).await.json;
        assert_eq!((&run["state"], &run["phase"]), (&json!("waiting"), &json!("detect")), "{run:#}");
        assert_eq!(run["steps"]["detect.wait_long"]["state"], "waiting");
        assert!(run["steps"]["detect.wait_long"]["waiting"]["until"].is_string(), "{run:#}");
        assert_eq!(run["steps"]["recover.after"]["state"], "pending");
    }

    #[tokio::test]
    async fn a_list_tells_a_question_from_a_healthy_wait() {
        let asking = "playbook: asking\ndetect:\n  a: {uses: log, with: {message: unknown}, idempotent: false}\n  \
                      b: {uses: log, with: {message: unknown}, idempotent: false}\n";
        let engine = Engine::start(&[LONG, asking]).await;
        engine.run("long").await;
        let id = engine.run("asking").await;
        let shown = async || {
            let list = engine.send(get("/api/v1/runs")).await.json;
            let of = |run: &Value| (run["playbook"].clone(), run["state"].clone(), run["asks"].clone());
            list["items"].as_array().unwrap().iter().map(of).collect::<Vec<_>>()
        };
        let long = (json!("long"), json!("waiting"), json!(0));
        assert_eq!(shown().await, [(json!("asking"), json!("waiting"), json!(2)), long.clone()]);
        for (step, left) in [("a", 1), ("b", 0)] {
            let metrics = engine.metrics().await;
            assert!(metrics.contains("\nstanch_steps_unknown{playbook=\"long\"} 0\n"), "{metrics}");
            let line = format!("\nstanch_steps_unknown{{playbook=\"asking\"}} {}\n", left + 1);
            assert!(metrics.contains(&line), "{metrics}");
            let body = json!({"step": step, "answer": "succeeded"}).to_string();
            let answer = engine.send(post(&format!("/api/v1/runs/{id}/answer"), body)).await;
            assert_eq!((answer.status, &answer.json["asks"]), (200, &json!(left)), "{}", answer.json);
        }
        assert_eq!(shown().await, [(json!("asking"), json!("succeeded"), json!(0)), long]);
        assert!(engine.metrics().await.contains("\nstanch_steps_unknown{playbook=\"asking\"} 0\n"));
    }

    #[tokio::test]
    async fn a_live_run_can_be_cancelled_once() {
        let engine = Engine::start(&[LONG]).await;
        let id = engine.run("long").await;
        let path = format!("/api/v1/runs/{id}/cancel");
        let answer = engine.send(post(&path, "{\"reason\": \"a drill\"}")).await;
        assert_eq!((answer.status, &answer.json["state"]), (200, &json!("cancelled")), "{}", answer.json);
        let run = engine.send(get(&format!("/api/v1/runs/{id}"))).await.json;
        assert_eq!((&run["cancelled"]["by"], &run["cancelled"]["reason"]), (&json!("person:local"), &json!("a drill")));
        assert_eq!(run["steps"]["recover.after"]["state"], "cancelled", "{run:#}");
        let answer = engine.send(post(&path, "")).await;
        assert_eq!((answer.status, &answer.json["code"]), (409, &json!("run.over")));
    }

    #[tokio::test]
    async fn nonsense_is_answered_with_a_problem() {
        let engine = Engine::start(&[LONG]).await;
        let id = engine.run("long").await;
        let none = "01890000-0000-7000-8000-000000000000";
        for (path, body, status, code) in [
            ("/api/v1/runs/not-an-id/cancel".to_owned(), "{}", 404, "run.unknown"),
            (format!("/api/v1/runs/{none}/cancel"), "{}", 404, "run.unknown"),
            (format!("/api/v1/runs/{id}/cancel"), "{", 400, "body.invalid-json"),
            (format!("/api/v1/runs/{id}/cancel"), "[]", 422, "body.invalid"),
            (format!("/api/v1/runs/{id}/cancel"), "{\"reson\": \"\"}", 422, "body.invalid"),
            (format!("/api/v1/runs/{id}/answer"), "{}", 422, "body.invalid"),
            (format!("/api/v1/runs/{id}/answer"), "{\"step\": \"x\", \"answer\": \"failed\"}", 404, "step.unknown"),
            (
                format!("/api/v1/runs/{id}/answer"),
                "{\"step\": \"wait_long\", \"answer\": \"retry\"}",
                409,
                "step.not-unknown",
            ),
        ] {
            let answer = engine.send(post(&path, body)).await;
            assert_eq!((answer.status, &answer.json["code"]), (status, &json!(code)), "{path} {body}: {}", answer.json);
        }
        let answer =
            engine.send(post(&format!("/api/v1/runs/{id}/cancel"), "{}").header("content-type", "text/plain")).await;
        assert_eq!(answer.status, 415);
        assert_eq!(engine.send(get(&format!("/api/v1/runs/{none}"))).await.status, 404);
    }
}
