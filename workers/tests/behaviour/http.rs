//! `http` against targets that do what targets do.

use std::time::Duration;

use crate::common::*;
use serde_json::json;
use stanch_workers::{Egress, Worker, WorkerConfig};
use tokio::net::TcpListener;

fn worker() -> Worker {
    Worker::new(local())
}

#[tokio::test]
async fn a_json_answer_is_parsed_and_header_names_are_lower_case() {
    let target = Target::start(|_| {
        answer(
            "200 OK",
            &[("Content-Type", "application/problem+json"), ("X-A", "1"), ("x-a", "2")],
            r#"{"score": 97}"#,
        )
    })
    .await;
    let output = succeeded(run(&worker(), "http", json!({"url": target.url("/hosts")})).await);
    assert_eq!(output["status"], 200);
    assert_eq!(output["body"], json!({"score": 97}));
    assert_eq!(output["headers"]["x-a"], "1, 2");
}

#[tokio::test]
async fn other_answers_are_texts() {
    for (content_type, body) in [("text/plain", "{\"a\": 1}"), ("application/json", "{not json"), ("", "plain")] {
        let target = Target::start(move |_| answer("201 Created", &[("content-type", content_type)], body)).await;
        let output = succeeded(run(&worker(), "http", json!({"url": target.url("/")})).await);
        assert_eq!((&output["status"], &output["body"]), (&json!(201), &json!(body)));
    }
}

#[tokio::test]
async fn what_is_sent_is_what_was_written() {
    let target = Target::start(|_| answer("204 No Content", &[], "")).await;
    let with = json!({
        "method": "post", "url": target.url("/a?x=1"), "query": {"name": ["h 1", "h&2"], "n": 3, "none": null},
        "headers": {"X-Team": "sec", "X-Num": 7}, "body": {"k": [1, "é"]},
    });
    succeeded(run(&worker(), "http", with.clone()).await);
    let request = &target.requests()[0];
    assert!(request.starts_with("post /a?x=1&n=3&name=h+1&name=h%262 http/1.1\r\n"), "{request}");
    let key = assignment("http", with).idempotency_key;
    for expected in [
        "\r\nx-team: sec\r\n",
        "\r\nx-num: 7\r\n",
        "\r\ncontent-type: application/json\r\n",
        &format!("\r\nidempotency-key: {}\r\n", key.as_str()),
        "\r\n\r\n{\"k\":[1,\"é\"]}",
    ] {
        assert!(request.contains(expected), "{expected} in {request}");
    }
    assert!(!request.contains("accept-encoding"), "{request}");
}

#[tokio::test]
async fn a_text_body_goes_as_it_is_and_given_headers_win() {
    let target = Target::start(|_| answer("200 OK", &[], "")).await;
    let with = json!({"method": "PUT", "url": target.url("/"), "body": "<x/>", "headers": {"Idempotency-Key": "mine", "content-type": "text/xml"}});
    succeeded(run(&worker(), "http", with).await);
    let request = &target.requests()[0];
    assert!(
        request.ends_with("\r\n\r\n<x/>")
            && request.contains("idempotency-key: mine\r\n")
            && request.contains("content-type: text/xml\r\n"),
        "{request}"
    );
    assert_eq!(request.matches("idempotency-key").count(), 1);
}

#[tokio::test]
async fn an_empty_post_has_a_length() {
    let target = Target::start(|_| answer("200 OK", &[], "")).await;
    succeeded(run(&worker(), "http", json!({"method": "POST", "url": target.url("/")})).await);
    assert!(target.requests()[0].contains("content-length: 0\r\n"), "{:?}", target.requests());
}

#[tokio::test]
async fn a_refusal_is_failed_with_what_was_answered() {
    for (status, retryable) in [
        ("400 Bad Request", false),
        ("404 Not Found", false),
        ("408 Request Timeout", true),
        ("500 Oops", true),
        ("503 Busy", true),
    ] {
        let target = Target::start(move |_| answer(status, &[], "why")).await;
        let failure =
            failure(run(&worker(), "http", json!({"method": "POST", "url": target.url("/"), "body": "x"})).await);
        assert_eq!(failure.retryable, retryable, "{status}");
        assert!(failure.error.contains(&status[..3]), "{}", failure.error);
        assert_eq!(failure.output.unwrap()["body"], "why");
    }
}

#[tokio::test]
async fn retry_after_is_handed_on() {
    let target = Target::start(|_| answer("429 Too Many Requests", &[("Retry-After", "7")], "")).await;
    let failure = failure(run(&worker(), "http", json!({"url": target.url("/")})).await);
    assert_eq!((failure.retryable, failure.retry_after), (true, Some(Duration::from_secs(7))));
}

#[tokio::test]
async fn a_hanging_target_is_unknown_after_the_limit() {
    let target = Target::start(|_| Answer::Hang).await;
    for body in [json!("x"), json!("")] {
        let outcome =
            run_within(&worker(), 1000, "http", json!({"method": "POST", "url": target.url("/"), "body": body})).await;
        assert_eq!(unknown(outcome), "timed out after 1 s");
    }
}

#[tokio::test]
async fn a_reset_after_the_request_is_unknown() {
    let target = Target::start(|_| Answer::Reset).await;
    for method in ["POST", "GET", "DELETE"] {
        unknown(run(&worker(), "http", json!({"method": method, "url": target.url("/"), "body": "x"})).await);
    }
}

#[tokio::test]
async fn a_refused_connection_is_failed_and_may_be_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let failure = failure(run(&worker(), "http", json!({"method": "POST", "url": format!("http://{address}/")})).await);
    assert!(failure.retryable && failure.error.starts_with("cannot connect to 127.0.0.1:"), "{}", failure.error);
}

#[tokio::test]
async fn a_name_without_address_is_failed() {
    let failure = failure(
        run(&worker(), "http", json!({"method": "POST", "url": "http://no-such-host.invalid/", "body": "x"})).await,
    );
    assert!(failure.error.contains("cannot resolve no-such-host.invalid"), "{}", failure.error);
}

#[tokio::test]
async fn a_failed_tls_handshake_is_failed() {
    let target = Target::start(|_| Answer::Hang).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.try_write(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        }
    });
    let failed = failure(
        run(&worker(), "http", json!({"method": "POST", "url": format!("https://{address}/"), "body": "x"})).await,
    );
    assert!(failed.error.starts_with("cannot connect to"), "{}", failed.error);
    // And one that never ends: nothing was sent.
    let outcome = run_within(
        &worker(),
        300,
        "http",
        json!({"method": "POST", "url": format!("https://{}/", target.address), "body": "x"}),
    )
    .await;
    assert_eq!(failure(outcome).error, "timed out after 300 ms before anything was sent");
}

#[tokio::test]
async fn an_endless_answer_fails_that_attempt_alone() {
    let target = Target::start(|request| {
        if request.contains("/no") {
            Answer::Endless("HTTP/1.1 500 Oops\r\n\r\n")
        } else {
            Answer::Endless("HTTP/1.1 200 OK\r\n\r\n")
        }
    })
    .await;
    let worker = worker();
    let got = failure(run(&worker, "http", json!({"url": target.url("/")})).await);
    assert!(got.error.contains("exceeds 1 MiB") && !got.retryable, "{got:?}");
    let posted = unknown(run(&worker, "http", json!({"method": "POST", "url": target.url("/")})).await);
    assert!(posted.contains("exceeds 1 MiB"), "{posted}");
    let refused = failure(run(&worker, "http", json!({"method": "POST", "url": target.url("/no")})).await);
    assert_eq!((refused.retryable, &refused.output.unwrap()["truncated"]), (true, &json!(true)));
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_a_success_unknown_and_a_refusal_failed() {
    let target = Target::start(|request| {
        if request.contains("/no") {
            Answer::HalfBody("HTTP/1.1 409 Conflict\r\ncontent-length: 99\r\n\r\n")
        } else {
            Answer::HalfBody("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n")
        }
    })
    .await;
    unknown(run_within(&worker(), 1000, "http", json!({"method": "POST", "url": target.url("/")})).await);
    let refused =
        failure(run_within(&worker(), 1000, "http", json!({"method": "POST", "url": target.url("/no")})).await);
    assert!(!refused.retryable && refused.error.contains("409"));
}

#[tokio::test]
async fn a_large_result_is_cut_and_says_so() {
    let body = serde_json::to_string(&vec!["x".repeat(1000); 500]).unwrap();
    let target = Target::start(move |_| answer("200 OK", &[("content-type", "application/json")], &body)).await;
    let output = succeeded(run(&worker(), "http", json!({"url": target.url("/")})).await);
    assert_eq!((&output["truncated"], &output["status"]), (&json!(true), &json!(200)));
    assert!(output.to_string().len() <= 256 * 1024);
}

#[tokio::test]
async fn redirects_of_get_are_followed_and_of_others_not() {
    let target = Target::start(|request| match request.split(' ').nth(1) {
        Some("/a") => answer("302 Found", &[("location", "b")], ""),
        Some("/b") => answer("200 OK", &[], "there"),
        _ => answer("302 Found", &[("location", "/loop")], ""),
    })
    .await;
    assert_eq!(succeeded(run(&worker(), "http", json!({"url": target.url("/a")})).await)["body"], "there");
    let posted = failure(run(&worker(), "http", json!({"method": "POST", "url": target.url("/a")})).await);
    assert!(!posted.retryable && posted.error.contains("302") && posted.error.contains("final URL"), "{posted:?}");
    assert_eq!(
        failure(run(&worker(), "http", json!({"url": target.url("/loop")})).await).error,
        "more than 5 redirects"
    );
    assert_eq!(target.requests().len(), 2 + 1 + 6);
}

#[tokio::test]
async fn a_redirect_to_a_refused_address_is_not_followed() {
    for location in [
        "http://169.254.169.254/latest/meta-data",
        "http://[::ffff:a9fe:a9fe]/",
        "http://10.0.0.1/",
        "file:///etc/passwd",
        "http://2852039166/",
    ] {
        let target = Target::start(move |_| answer("307 Temporary Redirect", &[("location", location)], "")).await;
        let failure = failure(run(&worker(), "http", json!({"url": target.url("/")})).await);
        assert!(failure.error.starts_with("redirected to where it may not go: ") && !failure.retryable, "{failure:?}");
    }
}

#[tokio::test]
async fn loopback_is_refused_in_every_spelling_unless_allowed() {
    let target = Target::start(|_| answer("200 OK", &[], "")).await;
    let port = target.address.port();
    let closed = Worker::new(WorkerConfig::default());
    for host in [
        "127.0.0.1",
        "localhost",
        "0x7f.1",
        "2130706433",
        "017700000001",
        "127.1",
        "0",
        "[::1]",
        "[::ffff:7f00:1]",
        "127.0.0.1.",
    ] {
        let failure = failure(run(&closed, "http", json!({"url": format!("http://{host}:{port}/")})).await);
        assert!(!failure.retryable && failure.error.contains("egress.allow"), "{host}: {failure:?}");
    }
    assert!(target.requests().is_empty());
    let by_name = Worker::new(WorkerConfig { egress: Egress::new(["localhost"]).unwrap(), ..WorkerConfig::default() });
    succeeded(run(&by_name, "http", json!({"url": format!("http://localhost:{port}/")})).await);
}

#[tokio::test]
async fn what_cannot_be_a_request_is_refused_before_anything_is_sent() {
    for with in [
        json!({}),
        json!({"url": "nonsense"}),
        json!({"url": "ftp://127.0.0.1/"}),
        json!({"url": "http://user:pw@127.0.0.1/"}),
        json!({"url": {"secret_text": [{"secret": "x"}]}}),
        json!({"url": "http://127.0.0.1/", "method": "A B"}),
        json!({"url": "http://127.0.0.1/", "headers": {"a b": "c"}}),
        json!({"url": "http://127.0.0.1/", "headers": {"a": "b\r\nc: d"}}),
        json!({"url": "http://127.0.0.1/", "headers": {"a": ["b"]}}),
        json!({"url": "http://127.0.0.1/", "headers": {"Content-Length": "5"}}),
        json!({"url": "http://127.0.0.1/", "headers": "x"}),
        json!({"url": "http://127.0.0.1/", "query": {"a": {"b": 1}}}),
        json!("text"),
    ] {
        let failure = failure(run(&worker(), "http", with.clone()).await);
        assert!(!failure.retryable && failure.output.is_none(), "{with}: {failure:?}");
    }
}

#[tokio::test]
async fn a_secret_is_sent_to_its_host_and_masked_in_the_answer() {
    let (secrets, _file) = secret("edr", "s3cr3t/token+x", &["127.0.0.1"]);
    let echo = Target::start(|request| {
        let echo = json!({"all": request, "url": "s3cr3t%2Ftoken%2Bx", "base64": "czNjcjN0L3Rva2VuK3g="});
        answer("200 OK", &[("content-type", "application/json"), ("x-echo", "s3cr3t/token+x")], &echo.to_string())
    })
    .await;
    let worker = Worker::new(WorkerConfig { secrets, ..local() });
    let with = json!({"url": echo.url("/"), "headers": {"Authorization": {"secret_text": [{"text": "Bearer "}, {"secret": "edr"}]}}});
    let output = succeeded(run(&worker, "http", with).await);
    assert!(echo.requests()[0].contains("authorization: bearer s3cr3t/token+x\r\n"));
    let shown = output.to_string();
    assert!(!shown.contains("s3cr3t") && !shown.contains("czNjcjN0"), "{shown}");
    assert_eq!(
        (&output["headers"]["x-echo"], &output["body"]["url"], &output["body"]["base64"]),
        (&json!("***"), &json!("***"), &json!("***"))
    );
}

#[tokio::test]
async fn a_secret_in_a_long_refusal_is_masked_up_to_the_cut() {
    let (secrets, _file) = secret("edr", "s3cr3t-token", &[]);
    let target = Target::start(|_| answer("500 Oops", &[], &"s3cr3t-token ".repeat(20_000))).await;
    let worker = Worker::new(WorkerConfig { secrets, ..local() });
    let with = json!({"url": target.url("/"), "headers": {"x": {"secret_text": [{"secret": "edr"}]}}});
    let output = failure(run(&worker, "http", with).await).output.unwrap();
    assert!(!output["body"].as_str().unwrap().contains("s3c"), "{output}");
}

#[tokio::test]
async fn a_bound_secret_is_refused_for_another_host() {
    let (secrets, _file) = secret("edr", "s3cr3t-token", &["edr.corp"]);
    let target = Target::start(|_| answer("200 OK", &[], "")).await;
    let worker = Worker::new(WorkerConfig { secrets, ..local() });
    let with = json!({"url": target.url("/"), "headers": {"x": {"secret_text": [{"secret": "edr"}]}}});
    let failure = failure(run(&worker, "http", with).await);
    assert!(
        !failure.retryable && failure.error.contains("is bound to edr.corp and is not sent to 127.0.0.1"),
        "{failure:?}"
    );
    assert!(target.requests().is_empty());
}

#[tokio::test]
async fn credentials_stay_behind_on_a_redirect_to_another_origin() {
    let (secrets, _file) = secret("edr", "s3cr3t-token", &[]);
    let other = Target::start(|_| answer("200 OK", &[], "there")).await;
    let there = other.url("/");
    let target = Target::start(move |request| {
        let same = request.starts_with("GET /first ");
        answer("302 Found", &[("location", if same { "/second" } else { &there })], "")
    })
    .await;
    let worker = Worker::new(WorkerConfig { secrets, ..local() });
    let with = json!({"url": target.url("/first"), "headers": {
        "X-Key": {"secret_text": [{"secret": "edr"}]}, "Authorization": "Basic abc", "Cookie": "a=b", "X-Plain": "kept"}});
    succeeded(run(&worker, "http", with).await);
    let second = &target.requests()[1];
    assert!(second.contains("x-key: s3cr3t-token\r\n") && second.contains("authorization: basic abc\r\n"), "{second}");
    let last = &other.requests()[0];
    assert!(last.contains("x-plain: kept\r\n"), "{last}");
    for gone in ["x-key", "s3cr3t", "authorization", "cookie"] {
        assert!(!last.contains(gone), "{gone} in {last}");
    }
}
