//! `pagerduty` against a stand-in that takes events as PagerDuty's documentation has them.

use std::time::Duration;

use serde_json::{Value, json};
use stanch_workers::{PagerDutyConfig, Services, Worker, WorkerConfig};

use crate::common::*;

const KEY: &str = "e93facc04764012d7bfb002500d5d1a6";

/// Refuses, as PagerDuty does, what lacks a part that its documentation requires.
fn checked(request: &str) -> Answer {
    let event: Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap_or_default();
    let mut errors = Vec::new();
    if !request.starts_with("POST /v2/enqueue HTTP/1.1\r\n") {
        errors.push("not the enqueue endpoint");
    }
    if event["routing_key"].as_str().is_none_or(|key| key.len() != 32) {
        errors.push("'routing_key' is missing or malformed");
    }
    match event["event_action"].as_str() {
        Some("trigger") => {
            let text = |field: &str| event["payload"][field].as_str().is_some_and(|text| !text.is_empty());
            if !(text("summary") && text("source") && text("severity")) {
                errors.push("'payload' is incomplete");
            }
        }
        Some("acknowledge" | "resolve") if event["dedup_key"].is_string() => {}
        _ => errors.push("'event_action' is invalid"),
    }
    if errors.is_empty() {
        let body = json!({"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]});
        answer("202 Accepted", &[("content-type", "application/json")], &body.to_string())
    } else {
        let body = json!({"status": "invalid event", "message": "Event object is invalid", "errors": errors});
        answer("400 Bad Request", &[("content-type", "application/json")], &body.to_string())
    }
}

fn worker(target: &Target) -> (Worker, tempfile::TempDir) {
    let (secrets, file) = secret("pager", KEY, &["127.0.0.1"]);
    let reference = format!("file:{}", file.path().join("secret").display());
    let pagerduty = PagerDutyConfig { api_url: Some(target.url("")), routing_key: Some(reference) };
    let services = Services { pagerduty, ..Services::default() };
    (Worker::new(WorkerConfig { services, secrets, ..WorkerConfig::default() }), file)
}

#[tokio::test]
async fn an_alert_is_triggered_acknowledged_and_resolved() {
    let target = Target::start(checked).await;
    let (worker, _file) = worker(&target);
    let with = json!({
        "summary": "db-01 is down", "severity": "error", "source": "db-01", "component": "postgres", "group": "prod",
        "details": {"alerts": 3},
    });
    let triggered = succeeded(run(&worker, "pagerduty", with).await);
    let key = assignment("pagerduty", json!({})).idempotency_key;
    assert_eq!(triggered, json!({"dedup_key": key.as_str(), "status": "success", "message": "Event processed"}));
    for operation in ["acknowledge", "resolve"] {
        let with = json!({"operation": operation, "dedup_key": triggered["dedup_key"]});
        assert_eq!(succeeded(run(&worker, "pagerduty", with).await)["dedup_key"], key.as_str());
    }
    let calls = target.calls();
    assert_eq!(
        calls[0].2,
        json!({
            "routing_key": KEY, "event_action": "trigger", "dedup_key": key.as_str(), "client": "Stanch",
            "payload": {
                "summary": "db-01 is down", "severity": "error", "source": "db-01", "component": "postgres",
                "group": "prod", "custom_details": {"alerts": 3},
            },
        })
    );
    assert_eq!(calls[2].2, json!({"routing_key": KEY, "event_action": "resolve", "dedup_key": key.as_str()}));
    assert!(target.requests()[0].contains(&format!("idempotency-key: {key}\r\n", key = key.as_str()).to_lowercase()));
}

#[tokio::test]
async fn a_step_can_bring_its_own_routing_key_as_a_secret() {
    let target = Target::start(checked).await;
    let (secrets, _file) = secret("team", KEY, &["127.0.0.1"]);
    let pagerduty = PagerDutyConfig { api_url: Some(target.url("")), routing_key: None };
    let services = Services { pagerduty, ..Services::default() };
    let config = WorkerConfig { services, secrets, ..WorkerConfig::default() };
    let worker = Worker::new(config);
    let mark = json!({"secret_text": [{"secret": "team"}]});
    succeeded(run(&worker, "pagerduty", json!({"summary": "x", "routing_key": mark})).await);
    assert_eq!(target.calls()[0].2["payload"]["source"], "compromised-host");
    assert_eq!(target.calls()[0].2["payload"]["severity"], "critical");

    // Bound to another host, it does not leave.
    let (secrets, _file) = secret("team", KEY, &["events.eu.pagerduty.com"]);
    let pagerduty = PagerDutyConfig { api_url: Some(target.url("")), routing_key: None };
    let services = Services { pagerduty, ..Services::default() };
    let bound = Worker::new(WorkerConfig { services, secrets, ..WorkerConfig::default() });
    let failure = failure(run(&bound, "pagerduty", json!({"summary": "x", "routing_key": mark})).await);
    assert!(!failure.retryable && failure.error.contains("is not sent to 127.0.0.1"), "{failure:?}");
    assert_eq!(target.requests().len(), 1);
}

#[tokio::test]
async fn refusals_are_told_apart_and_hide_the_key() {
    let cases: [(&str, &str, bool, Option<u64>); 4] = [
        (
            "400 Bad Request",
            r#"{"message":"Event object is invalid","errors":["no e93facc04764012d7bfb002500d5d1a6"]}"#,
            false,
            None,
        ),
        ("429 Too Many Requests", r#"{"message":"throttled"}"#, true, Some(30)),
        ("500 Internal Server Error", "", true, None),
        ("200 OK", "{}", false, None),
    ];
    for (status, body, retryable, wait) in cases {
        let target = Target::start(move |_| match wait {
            Some(_) => answer(status, &[("Retry-After", "30")], body),
            None => answer(status, &[], body),
        })
        .await;
        let (worker, _file) = worker(&target);
        let failure = failure(run(&worker, "pagerduty", json!({"summary": "x"})).await);
        assert_eq!((failure.retryable, failure.retry_after), (retryable, wait.map(Duration::from_secs)), "{status}");
        assert!(failure.error.contains(status) && !failure.error.contains(KEY), "{failure:?}");
    }
    let target = Target::start(|_| Answer::Reset).await;
    let (worker, _file) = worker(&target);
    unknown(run(&worker, "pagerduty", json!({"summary": "x"})).await);
}

#[tokio::test]
async fn what_pagerduty_would_refuse_is_not_sent() {
    let target = Target::start(checked).await;
    let (with_key, _file) = worker(&target);
    for (with, expected) in [
        (json!({}), "`summary` is missing"),
        (json!({"summary": "x", "severity": "P1"}), "no severity of PagerDuty"),
        (json!({"operation": "resolve"}), "needs `dedup_key`"),
        (json!({"operation": "close", "dedup_key": "a"}), "is no operation"),
        (json!({"summary": "x", "dedup_key": "k".repeat(256)}), "longer than 255"),
        (json!({"summary": "x", "details": {"a": "x".repeat(600_000)}}), "larger than PagerDuty takes"),
    ] {
        let failure = failure(run(&with_key, "pagerduty", with).await);
        assert!(!failure.retryable && failure.error.contains(expected), "{expected}: {failure:?}");
    }
    let unconfigured = Worker::new(WorkerConfig::default());
    assert!(failure(run(&unconfigured, "pagerduty", json!({"summary": "x"})).await).error.contains("no routing key"));
    assert!(target.requests().is_empty());

    let long = json!({"summary": "é".repeat(2000)});
    succeeded(run(&with_key, "pagerduty", long).await);
    assert_eq!(target.calls()[0].2["payload"]["summary"].as_str().unwrap().chars().count(), 1024);
}
