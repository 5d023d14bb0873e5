//! `report` of a story that is written out.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use stanch_core::record::{Actor, Body, Record};
use stanch_core::{RunId, Sequence};
use stanch_playbook::{PlaybookName, Timestamp};
use stanch_workers::{Stories, Story, Worker, WorkerConfig};

use crate::common::*;

/// Tells this story.
struct Told(Vec<Record>);

impl Stories for Told {
    fn story(&self, run: RunId) -> BoxFuture<'_, Result<Story, String>> {
        let story = Story {
            run,
            playbook: PlaybookName::new("compromised-host"),
            incident: None,
            records: self.0.clone(),
            inforce: Vec::new(),
        };
        Box::pin(async { Ok(story) })
    }
}

/// A record of so many seconds after the beginning.
fn record(second: i64, actor: Actor, kind: &str, body: &Value) -> Record {
    let body = Body::decode(kind, body.to_string().as_bytes()).unwrap();
    let time = Timestamp::from_millis(1_790_000_000_000 + second * 1000);
    Record { sequence: Sequence(u64::try_from(second).unwrap()), time, actor, body }
}

fn attempt(step: &str, number: u32) -> Value {
    let id = assignment("log", json!({})).attempt;
    json!({"run": id.run, "step": step, "purpose": "do", "generation": 0, "number": number, "epoch": 1})
}

fn scheduled(step: &str, number: u32) -> Value {
    json!({
        "attempt": attempt(step, number), "action": "http", "with": {}, "env": {}, "idempotency_key": "00", "timeout": 1000,
    })
}

fn worker(records: Vec<Record>) -> Worker {
    Worker::new(WorkerConfig { stories: Some(Arc::new(Told(records))), ..WorkerConfig::default() })
}

#[tokio::test]
async fn a_report_tells_outcomes_durations_and_who_did_what() {
    let run_id = assignment("report", json!({})).attempt.run;
    let engine = Actor::engine;
    let records = vec![
        record(0, engine(), "AttemptScheduled", &scheduled("contain.isolate", 1)),
        record(
            5,
            engine(),
            "AttemptFailed",
            &json!({"attempt": attempt("contain.isolate", 1), "error": "| 503 <b>", "then": "retry", "at": "2026-09-21T14:13:30Z"}),
        ),
        record(30, engine(), "AttemptScheduled", &scheduled("contain.isolate", 2)),
        record(
            90,
            engine(),
            "AttemptUnknown",
            &json!({"attempt": attempt("contain.isolate", 2), "reason": "reset", "then": "ask"}),
        ),
        record(
            125,
            Actor::person("ann"),
            "StepAnswered",
            &json!({"run": run_id, "step": "contain.isolate", "answer": "succeeded", "tolerated": false, "note": "[seen](http://evil)\n# x"}),
        ),
        record(
            126,
            engine(),
            "StepEnded",
            &json!({"run": run_id, "step": "recover.release", "ending": "skipped", "reason": "its if was false"}),
        ),
    ];
    let output = succeeded(run(&worker(records), "report", json!({"format": "markdown"})).await);
    assert_eq!(output["title"], "Report of compromised-host");
    let text = output["markdown"].as_str().unwrap();
    for expected in [
        "# Report of compromised-host\n",
        "| contain.isolate | http | succeeded | 2 | 2 min 5 s | by a person's answer |\n",
        "| recover.release |  | skipped | 0 |  |  |\n",
        "contain.isolate failed: \\| 503 &lt;b&gt; |\n",
        "contain.isolate is unknown: reset |\n",
        "## What people did",
        "| person\\:ann | contain.isolate was answered for: it succeeded: \\[seen\\]\\(http\\://evil\\) \\# x |\n",
        "Nothing that this run did and that could be taken back.",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing:\n{text}");
    }
    assert!(!text.contains("<b>") && !text.contains("](http") && !text.contains("\n# x"), "{text}");
}

#[tokio::test]
async fn files_are_named_and_items_by_what_they_are() {
    let run_id = assignment("report", json!({})).attempt.run;
    let of_item = |item: u32| {
        let mut id = attempt("detect.keep", 1);
        id["item"] = item.into();
        id
    };
    let kept = json!({"exit_code": 0, "artifacts": {"out/a|b.txt": {"size": 3, "sha256": "ab12"}}});
    let records = vec![
        record(
            0,
            Actor::engine(),
            "ItemsStarted",
            &json!({"run": run_id, "step": "detect.keep", "items": ["web-1", {"n": 2}]}),
        ),
        record(1, Actor::engine(), "AttemptSucceeded", &json!({"attempt": of_item(0), "output": kept, "outputs": {}})),
        record(
            2,
            Actor::engine(),
            "AttemptFailed",
            &json!({"attempt": of_item(1), "error": "no", "output": kept, "then": "fail"}),
        ),
    ];
    let output = succeeded(run(&worker(records), "report", json!({})).await);
    let text = output["markdown"].as_str().unwrap();
    for expected in [
        "## Files\n".to_owned(),
        format!("`stanch runs artifacts {run_id} --out DIR` fetches them."),
        "| detect.keep web-1 | out/a\\|b.txt | 3 | ab12 |\n".to_owned(),
        "| detect.keep web-1 succeeded |".replace("| detect", "detect"),
    ] {
        assert!(text.contains(&expected), "{expected:?} is missing:\n{text}");
    }
    assert!(!text.contains("item 0") && !text.contains("item 1"), "{text}");
}

#[tokio::test]
async fn a_long_run_keeps_its_first_and_last_lines() {
    let records = (0..5000).map(|second| {
        let number = u32::try_from(second).unwrap();
        record(second, Actor::engine(), "AttemptScheduled", &scheduled("detect.look", number))
    });
    let output = succeeded(run(&worker(records.collect()), "report", json!({})).await);
    let text = output["markdown"].as_str().unwrap();
    assert!(
        text.contains("attempt 0 of http")
            && text.contains("attempt 4999 of http")
            && text.contains("4500 rows left out")
    );
    assert!(output.to_string().len() < 256 * 1024 && output.get("truncated").is_none());
}

#[tokio::test]
async fn without_the_engine_there_is_no_report() {
    let alone = failure(run(&Worker::new(WorkerConfig::default()), "report", json!({})).await);
    assert!(!alone.retryable && alone.error.contains("the engine's own"), "{alone:?}");
    let html = failure(run(&worker(Vec::new()), "report", json!({"format": "html"})).await);
    assert!(!html.retryable && html.error.contains("no format"), "{html:?}");
}
