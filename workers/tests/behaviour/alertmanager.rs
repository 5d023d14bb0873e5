//! `alertmanager.silence` against a real Alertmanager, and against a stand-in for what breaks.

use serde_json::{Value, json};
use stanch_core::{Assignment, Outcome};
use stanch_playbook::Timestamp;
use stanch_workers::{ServiceConfig, Services, Worker, WorkerConfig};
use tokio_util::sync::CancellationToken;

use crate::common::*;
use crate::servers;

const ACTION: &str = "alertmanager.silence";

fn worker(url: &str) -> Worker {
    let alertmanager = Some(ServiceConfig { url: url.to_owned(), token: None });
    Worker::new(WorkerConfig { services: Services { alertmanager, ..Services::default() }, ..local() })
}

/// The same as another run's step would ask.
async fn of_another_run(worker: &Worker, with: Value) -> Outcome {
    let mut assignment: Assignment = assignment(ACTION, with);
    assignment.attempt.run.0 = "0192f0c1-2d3e-7a4b-8c5d-6e7f80910299".parse().unwrap();
    assignment.idempotency_key = assignment.attempt.idempotency_key();
    worker.execute(assignment, CancellationToken::new()).await
}

/// All silences of a server, as it tells them itself.
async fn silences(url: &str) -> Vec<Value> {
    let worker = Worker::new(local());
    let output = succeeded(run(&worker, "http", json!({"url": format!("{url}/api/v2/silences")})).await);
    output["body"].as_array().unwrap().clone()
}

async fn state(url: &str, id: &Value) -> Value {
    silences(url).await.into_iter().find(|silence| silence["id"] == *id).unwrap()["status"]["state"].clone()
}

#[tokio::test]
async fn a_silence_is_created_extended_and_expired_and_every_step_can_be_repeated() {
    let Some(server) = servers::alertmanager() else { return };
    let worker = worker(&server.url);
    let create = json!({
        "matchers": {"alertname": "Disk \"full\", really", "instance": "db-01:9100"},
        "duration": "1h", "comment": "drill", "created_by": "ann",
    });
    let created = succeeded(run(&worker, ACTION, create.clone()).await);
    let all = silences(&server.url).await;
    assert_eq!(all.len(), 1);
    assert_eq!(
        (&all[0]["id"], &all[0]["endsAt"].as_str().unwrap()[..19], &all[0]["createdBy"]),
        (&created["id"], &created["until"].as_str().unwrap()[..19], &json!("ann"))
    );
    assert_eq!(all[0]["matchers"][0]["value"], "Disk \"full\", really");
    assert!(all[0]["comment"].as_str().unwrap().starts_with("drill [stanch "), "{all:?}");
    assert_eq!(state(&server.url, &created["id"]).await, "active");

    // The same step again finds what it made; another one makes its own.
    assert_eq!(succeeded(run(&worker, ACTION, create.clone()).await)["id"], created["id"]);
    assert_eq!(silences(&server.url).await.len(), 1);
    let other = succeeded(of_another_run(&worker, create).await);
    assert_ne!(other["id"], created["id"]);

    // Extended, it may get a new id; the old one still leads to it.
    let extend = |duration: &str| json!({"operation": "extend", "id": created["id"], "duration": duration});
    let extended = succeeded(run(&worker, ACTION, extend("3h")).await);
    let later = |a: &Value, b: &Value| {
        let at = |value: &Value| Timestamp::parse(value["until"].as_str().unwrap()).unwrap();
        at(a) > at(b)
    };
    assert!(later(&extended, &created), "{extended} {created}");
    let again = succeeded(run(&worker, ACTION, extend("2h")).await);
    assert_eq!(again["id"], extended["id"]);
    assert!(!later(&extended, &again), "extending never shortens");
    assert_eq!(state(&server.url, &extended["id"]).await, "active");

    let expire = json!({"operation": "expire", "id": created["id"]});
    let expired = succeeded(run(&worker, ACTION, expire.clone()).await);
    assert_eq!(expired["id"], extended["id"]);
    assert!(later(&created, &expired));
    assert_eq!(state(&server.url, &extended["id"]).await, "expired");
    succeeded(run(&worker, ACTION, expire).await);
    assert_eq!(state(&server.url, &other["id"]).await, "active", "nobody else's is touched");

    let over = failure(run(&worker, ACTION, extend("4h")).await);
    assert!(!over.retryable && over.error.contains("is over"), "{over:?}");
    let nobody = json!({"operation": "expire", "id": "00000000-0000-4000-8000-000000000000"});
    let missing = failure(run(&worker, ACTION, nobody).await);
    assert!(!missing.retryable && missing.error.contains("knows no silence"), "{missing:?}");
}

#[tokio::test]
async fn somebody_elses_silence_is_found_again_after_it_was_extended() {
    let Some(server) = servers::alertmanager() else { return };
    let worker = worker(&server.url);
    let now = Timestamp::from_millis(i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap());
    let body = json!({
        "matchers": [{"name": "env", "value": "a|b", "isRegex": true, "isEqual": true}],
        "startsAt": now.to_string(), "endsAt": now.plus(std::time::Duration::from_secs(600)).to_string(),
        "createdBy": "bob", "comment": "by hand",
    });
    let url = format!("{}/api/v2/silences", server.url);
    let made = succeeded(run(&worker, "http", json!({"method": "POST", "url": url, "body": body})).await);
    let id = &made["body"]["silenceID"];
    let extend = json!({"operation": "extend", "id": id, "duration": "1h"});
    let extended = succeeded(run(&worker, ACTION, extend).await);
    succeeded(run(&worker, ACTION, json!({"operation": "expire", "id": id})).await);
    assert_eq!(state(&server.url, &extended["id"]).await, "expired");
}

#[tokio::test]
async fn a_list_of_matchers_and_the_defaults_reach_a_real_alertmanager() {
    let Some(server) = servers::alertmanager() else { return };
    let worker = worker(&server.url);
    let with = json!({"matchers": ["env=~\"prod|stage\"", "team!=\"x\""], "duration": "10m"});
    succeeded(run(&worker, ACTION, with).await);
    let all = silences(&server.url).await;
    let mut matchers = all[0]["matchers"].as_array().unwrap().clone();
    matchers.sort_by_key(|matcher| matcher["name"].to_string());
    assert_eq!(
        Value::Array(matchers),
        json!([
            {"name": "env", "value": "prod|stage", "isRegex": true, "isEqual": true},
            {"name": "team", "value": "x", "isRegex": false, "isEqual": false},
        ])
    );
    assert!(all[0]["comment"].as_str().unwrap().starts_with("by playbook compromised-host [stanch "));
    assert_eq!(all[0]["createdBy"], "stanch");
}

#[tokio::test]
async fn what_is_lost_on_the_way_back_is_unknown_and_what_was_only_asked_is_failed() {
    let create = json!({"matchers": {"a": "b"}, "duration": "1h"});
    let lost = Target::start(|request| match request.starts_with("GET") {
        true => json_answer(&json!([])),
        false => Answer::Reset,
    })
    .await;
    assert!(unknown(run(&worker(&lost.url("")), ACTION, create.clone()).await).contains("did not answer"));

    let hanging = Target::start(|request| match request.starts_with("GET") {
        true => json_answer(&json!([])),
        false => Answer::Hang,
    })
    .await;
    unknown(run_within(&worker(&hanging.url("")), 1500, ACTION, create.clone()).await);

    let deaf = Target::start(|_| Answer::Hang).await;
    let asked = failure(run_within(&worker(&deaf.url("")), 1000, ACTION, create.clone()).await);
    assert!(asked.retryable, "{asked:?}");
    assert!(deaf.calls().iter().all(|(method, ..)| method == "GET"));

    let refusing = Target::start(|request| match request.starts_with("GET") {
        true => json_answer(&json!([])),
        false => answer("400 Bad Request", &[], "\"bad matchers\""),
    })
    .await;
    let refused = failure(run(&worker(&refusing.url("")), ACTION, create).await);
    assert!(!refused.retryable && refused.error.ends_with("400 Bad Request: bad matchers"), "{refused:?}");
}

#[tokio::test]
async fn what_cannot_be_meant_is_not_sent() {
    let target = Target::start(|_| json_answer(&json!([]))).await;
    let worker = worker(&target.url(""));
    for (with, expected) in [
        (json!({"duration": "1h"}), "`matchers` is missing"),
        (json!({"matchers": {"a": "b"}}), "`duration` is missing"),
        (json!({"matchers": {"a": "b"}, "duration": "soon"}), "not a duration"),
        (json!({"matchers": {"a": "b"}, "duration": "0s"}), "longer than nothing"),
        (json!({"matchers": {"a": ""}, "duration": "1h"}), "at least one label"),
        (json!({"operation": "expire"}), "`id` is missing"),
        (json!({"operation": "expire", "id": "../status"}), "no silence's id"),
        (json!({"operation": "extend", "id": "a-b"}), "`duration` is missing"),
        (json!({"operation": "delete", "id": "a-b"}), "is no operation"),
    ] {
        let failure = failure(run(&worker, ACTION, with).await);
        assert!(!failure.retryable && failure.error.contains(expected), "{expected}: {failure:?}");
    }
    let unconfigured = Worker::new(WorkerConfig::default());
    let failure = failure(run(&unconfigured, ACTION, json!({"matchers": {"a": "b"}, "duration": "1h"})).await);
    assert!(failure.error.contains("alertmanager.url in stanch.yaml"), "{failure:?}");
    assert!(target.requests().is_empty());
}
