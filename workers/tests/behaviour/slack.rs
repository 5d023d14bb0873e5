//! `slack` against a stand-in for Slack.

use std::time::Duration;

use crate::common::*;
use serde_json::{Value, json};
use stanch_workers::{SlackConfig, Worker, WorkerConfig};

const TOKEN: &str = "xoxb-1234-abcd";

/// A worker with a bot token (or a webhook) for the target, and what keeps its secret.
fn worker(target: &Target, webhook: bool) -> (Worker, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    std::fs::write(&path, if webhook { target.url("/services/T0/B0/hook-secret") } else { TOKEN.to_owned() }).unwrap();
    let reference = Some(format!("file:{}", path.display()));
    let slack = if webhook {
        SlackConfig { webhook_url: reference, ..SlackConfig::default() }
    } else {
        SlackConfig {
            api_url: Some(target.url("/api/")),
            token: reference,
            channel: Some("#default".to_owned()),
            ..SlackConfig::default()
        }
    };
    // No egress rule: the operator's own configuration may name an inner address.
    (Worker::new(WorkerConfig { slack, ..WorkerConfig::default() }), directory)
}

fn body(request: &str) -> Value {
    serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn a_message_is_posted_with_the_bot_token() {
    let target = Target::start(|_| json_answer(&json!({"ok": true, "channel": "C1", "ts": "1700000000.000100"}))).await;
    let (worker, _file) = worker(&target, false);
    let output = succeeded(run(&worker, "slack", json!({"channel": "#sec", "text": "a <!channel> & b"})).await);
    assert_eq!(output, json!({"channel": "C1", "ts": "1700000000.000100"}));
    let request = &target.requests()[0];
    assert!(request.starts_with("post /api/chat.postmessage http/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("authorization: bearer {TOKEN}\r\n")) && request.contains("idempotency-key: "));
    assert_eq!(
        (&body(request)["channel"], &body(request)["text"]),
        (&json!("#sec"), &json!("a &lt;!channel&gt; &amp; b"))
    );
}

#[tokio::test]
async fn the_channel_comes_from_the_configuration_and_blocks_go_as_they_are() {
    let target = Target::start(|_| json_answer(&json!({"ok": true, "channel": "c1", "ts": "1.2"}))).await;
    let (worker, _file) = worker(&target, false);
    let blocks = json!([{"type": "section", "text": {"type": "mrkdwn", "text": "<!here> *x*"}}]);
    succeeded(run(&worker, "slack", json!({"blocks": blocks})).await);
    let sent = body(&target.requests()[0]);
    assert_eq!((&sent["channel"], &sent["blocks"]), (&json!("#default"), &blocks));
}

#[tokio::test]
async fn an_error_of_slack_is_failed_and_says_what_to_do() {
    for (error, retryable, remedy) in [
        ("channel_not_found", false, "invite the bot"),
        ("invalid_auth", false, "check slack.token"),
        ("ratelimited", true, ""),
        ("internal_error", true, ""),
    ] {
        let target = Target::start(move |_| json_answer(&json!({"ok": false, "error": error}))).await;
        let (worker, _file) = worker(&target, false);
        let failure = failure(run(&worker, "slack", json!({"text": "x"})).await);
        assert_eq!(failure.retryable, retryable, "{error}");
        assert!(failure.error.contains(error) && failure.error.contains(remedy), "{}", failure.error);
    }
}

#[tokio::test]
async fn a_rate_limit_hands_its_retry_after_on() {
    let target = Target::start(|_| {
        answer("429 Too Many Requests", &[("Retry-After", "30")], r#"{"ok":false,"error":"ratelimited"}"#)
    })
    .await;
    let (worker, _file) = worker(&target, false);
    let failure = failure(run(&worker, "slack", json!({"text": "x"})).await);
    assert_eq!((failure.retryable, failure.retry_after), (true, Some(Duration::from_secs(30))));
    assert!(failure.error.contains("ratelimited"), "{}", failure.error);
}

#[tokio::test]
async fn an_incoming_webhook_takes_a_text_and_its_url_stays_hidden() {
    let target = Target::start(|_| answer("200 OK", &[], "ok")).await;
    let (hook, _file) = worker(&target, true);
    assert_eq!(succeeded(run(&hook, "slack", json!({"text": "x"})).await), json!({"channel": null, "ts": null}));
    assert!(target.requests()[0].starts_with("post /services/t0/b0/hook-secret http/1.1"));

    let refusing = Target::start(|request| {
        answer("404 Not Found", &[], &format!("no_service at {}", request.split(' ').nth(1).unwrap()))
    })
    .await;
    let url = refusing.url("/services/T0/B0/hook-secret");
    let (hook, _file) = worker(&refusing, true);
    let failure = failure(run(&hook, "slack", json!({"text": format!("{url} is mine")})).await);
    assert!(!failure.retryable && failure.error.contains("404") && !failure.error.contains(&url), "{}", failure.error);
}

#[tokio::test]
async fn answers_that_say_nothing_are_unknown() {
    for body in ["<html>", "{}", "[]"] {
        let target = Target::start(move |_| answer("200 OK", &[], body)).await;
        let (worker, _file) = worker(&target, false);
        unknown(run(&worker, "slack", json!({"text": "x"})).await);
    }
    let target = Target::start(|_| Answer::Hang).await;
    let (worker, _file) = worker(&target, false);
    assert_eq!(unknown(run_within(&worker, 1000, "slack", json!({"text": "x"})).await), "timed out after 1 s");
}

#[tokio::test]
async fn what_slack_would_refuse_is_not_sent() {
    let target = Target::start(|_| json_answer(&json!({"ok": true}))).await;
    let (with_token, _file) = worker(&target, false);
    for with in [
        json!({}),
        json!({"text": ""}),
        json!({"blocks": "x"}),
        json!({"blocks": vec![json!({}); 51]}),
        json!({"text": "x", "channel": []}),
    ] {
        assert!(!failure(run(&with_token, "slack", with).await).retryable);
    }
    let unconfigured = Worker::new(WorkerConfig::default());
    let failure = failure(run(&unconfigured, "slack", json!({"text": "x"})).await);
    assert!(failure.error.contains("slack is not configured"), "{}", failure.error);
    assert!(target.requests().is_empty());
}
