//! `prometheus` against a real Prometheus, and against a stand-in for what a real one does not do on demand.

use std::time::Duration;

use serde_json::json;
use stanch_workers::{Egress, ServiceConfig, Services, Worker, WorkerConfig};

use crate::common::*;
use crate::servers;

fn worker(url: &str) -> Worker {
    let prometheus = Some(ServiceConfig { url: url.to_owned(), token: None });
    Worker::new(WorkerConfig { services: Services { prometheus, ..Services::default() }, ..WorkerConfig::default() })
}

fn vector(samples: &serde_json::Value) -> serde_json::Value {
    json!({"status": "success", "data": {"resultType": "vector", "result": samples}})
}

#[tokio::test]
async fn a_real_prometheus_answers_vectors_scalars_and_nothing() {
    let Some(server) = servers::prometheus() else { return };
    let worker = worker(&server.url);
    let query = async |text: &str| run(&worker, "prometheus", json!({"query": text})).await;

    let labelled = r#"label_replace(vector(0.25), "instance", "db-01 & co", "", "")"#;
    assert_eq!(
        succeeded(query(labelled).await),
        json!({"value": 0.25, "count": 1, "empty": false, "samples": [{"labels": {"instance": "db-01 & co"}, "value": 0.25}]})
    );
    assert_eq!(succeeded(query("2 + 3").await)["value"], 5.0);
    assert_eq!(
        succeeded(query("vector(1) > 2").await),
        json!({"value": null, "count": 0, "empty": true, "samples": []})
    );
    assert_eq!(succeeded(query("vector(0) / 0").await)["samples"], json!([{"labels": {}, "value": null}]));

    let refused = failure(query("rate(").await);
    assert!(
        !refused.retryable && refused.error.contains("400") && refused.error.contains("parse error"),
        "{refused:?}"
    );
    let range = failure(query("up[5m]").await);
    assert!(!range.retryable && range.error.contains("gives a matrix"), "{range:?}");
    let text = failure(query("\"text\"").await);
    assert!(!text.retryable && text.error.contains("gives a string"), "{text:?}");
}

#[tokio::test]
async fn the_configured_address_keeps_its_path_and_token() {
    let target = Target::start(|_| json_answer(&vector(&json!([])))).await;
    let (_, file) = secret("unused", "prom-token", &[]);
    let token = Some(format!("file:{}", file.path().join("secret").display()));
    let prometheus = Some(ServiceConfig { url: target.url("/prom/"), token });
    let services = Services { prometheus, ..Services::default() };
    let worker = Worker::new(WorkerConfig { services, ..local() });
    succeeded(run(&worker, "prometheus", json!({"query": "a{b=\"c d\"} + 1"})).await);
    let request = &target.requests()[0];
    assert!(request.starts_with("get /prom/api/v1/query?query=a%7bb%3d%22c+d%22%7d+%2b+1 http/1.1\r\n"), "{request}");
    assert!(request.contains("authorization: bearer prom-token\r\n"), "{request}");

    // The token is for the configured server, not for one that a playbook names.
    let elsewhere = Target::start(|_| json_answer(&vector(&json!([])))).await;
    succeeded(run(&worker, "prometheus", json!({"query": "up", "url": elsewhere.url("")})).await);
    assert!(!elsewhere.requests()[0].contains("authorization"), "{:?}", elsewhere.requests());
}

#[tokio::test]
async fn an_address_of_the_playbook_is_guarded_by_egress() {
    let target = Target::start(|_| json_answer(&vector(&json!([])))).await;
    let guarded = Worker::new(WorkerConfig { egress: Egress::default(), ..WorkerConfig::default() });
    for url in [target.url(""), format!("http://localhost:{}", target.address.port())] {
        let failure = failure(run(&guarded, "prometheus", json!({"query": "up", "url": url})).await);
        assert!(!failure.retryable && failure.error.contains("egress.allow"), "{failure:?}");
    }
    let with_password = json!({"query": "up", "url": "http://a:b@prometheus.corp"});
    assert!(failure(run(&guarded, "prometheus", with_password).await).error.contains("credentials"));
    let unconfigured = failure(run(&guarded, "prometheus", json!({"query": "up"})).await);
    assert!(unconfigured.error.contains("prometheus.url in stanch.yaml"), "{unconfigured:?}");
    assert!(failure(run(&guarded, "prometheus", json!({"query": ""})).await).error.contains("`query` is missing"));
    assert!(target.requests().is_empty());
}

#[tokio::test]
async fn whatever_goes_wrong_with_a_query_is_failed_and_never_unknown() {
    let overloaded = || {
        answer("503 Service Unavailable", &[("Retry-After", "9")], r#"{"status":"error","error":"query queue full"}"#)
    };
    let cases: [(Reply, bool, &str); 7] = [
        (|| Answer::Reset, true, "did not answer"),
        (|| Answer::Hang, true, "within the step's limit"),
        (|| Answer::HalfBody("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"), true, "within the step's limit"),
        (|| Answer::Endless("HTTP/1.1 200 OK\r\n\r\n"), false, "exceeds 8 MiB"),
        (|| answer("200 OK", &[], "<html>"), true, "is it a Prometheus?"),
        (|| json_answer(&vector(&json!([{"metric": {}, "value": [1]}]))), true, "is it a Prometheus?"),
        (|| answer("302 Found", &[("Location", "/login")], ""), false, "answered 302"),
    ];
    for (reply, retryable, expected) in cases {
        let target = Target::start(move |_| reply()).await;
        let outcome = run_within(&worker(&target.url("")), 1500, "prometheus", json!({"query": "up"})).await;
        let failure = failure(outcome);
        assert!(failure.retryable == retryable && failure.error.contains(expected), "{expected}: {failure:?}");
    }
    let target = Target::start(move |_| overloaded()).await;
    let failure = failure(run(&worker(&target.url("")), "prometheus", json!({"query": "up"})).await);
    assert_eq!((failure.retryable, failure.retry_after), (true, Some(Duration::from_secs(9))));
    assert!(failure.error.contains("query queue full"), "{failure:?}");
}
