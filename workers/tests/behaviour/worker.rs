//! What the worker guarantees whatever an action does.

use std::time::Duration;

use crate::common::*;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use stanch_core::{Assignment, Outcome};
use stanch_workers::{Action, Context, Registry, Worker, WorkerConfig};
use tokio_util::sync::CancellationToken;

/// Does what its `do` says.
struct Odd;

impl Action for Odd {
    fn name(&self) -> &'static str {
        "odd"
    }

    fn run<'a>(&'a self, context: &'a Context, assignment: &'a Assignment) -> BoxFuture<'a, Outcome> {
        let what = assignment.with["do"].as_str().unwrap().to_owned();
        assert_ne!(what, "panic at once");
        Box::pin(async move {
            match what.as_str() {
                "panic" => panic!("on purpose"),
                "prepare forever" => {
                    context.preparing();
                    std::future::pending().await
                }
                "send forever" => {
                    context.preparing();
                    context.sending();
                    std::future::pending().await
                }
                "large" => Outcome::Succeeded { output: json!({"a": "x".repeat(1_000_000), "b": 1}) },
                "long error" => Outcome::Unknown { reason: "x\n".repeat(100_000) },
                "secret" => {
                    context.secrets().resolve("edr", None).unwrap();
                    Outcome::Failed {
                        error: "said s3cr3t-token".to_owned(),
                        output: Some(json!({"s3cr3t-token": "czNjcjN0LXRva2Vu"})),
                        retry_after: None,
                        retryable: true,
                    }
                }
                _ => std::future::pending().await,
            }
        })
    }
}

fn worker() -> Worker {
    Worker::new(WorkerConfig { registry: Registry::standard().with(Odd), ..WorkerConfig::default() })
}

fn odd(what: &str) -> Value {
    json!({ "do": what })
}

#[tokio::test]
async fn an_unknown_action_is_refused() {
    let failure = failure(run(&worker(), "htpp", json!({})).await);
    assert_eq!((failure.error.as_str(), failure.retryable), ("this worker knows no action \"htpp\"", false));
}

#[tokio::test]
async fn a_panic_is_unknown() {
    assert_eq!(unknown(run(&worker(), "odd", odd("panic")).await), "the action panicked: on purpose");
    assert!(unknown(run(&worker(), "odd", odd("panic at once")).await).starts_with("the action panicked: "));
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_unknown_unless_nothing_was_sent() {
    let worker = worker();
    for (what, millis, expected) in
        [("send forever", 120_000, "timed out after 2 min"), ("hang", 1500, "timed out after 1.5 s")]
    {
        assert_eq!(unknown(run_within(&worker, millis, "odd", odd(what)).await), expected);
    }
    let failure = failure(run_within(&worker, 3_600_000, "odd", odd("prepare forever")).await);
    assert_eq!((failure.error.as_str(), failure.retryable), ("timed out after 1 h before anything was sent", true));
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_any_length_is_taken() {
    let assignment = Assignment { timeout: Duration::MAX, ..assignment("odd", odd("send forever")) };
    unknown(worker().execute(assignment, CancellationToken::new()).await);
    assert_eq!(unknown(run_within(&worker(), 0, "odd", odd("send forever")).await), "timed out after 0 ms");
}

#[tokio::test(start_paused = true)]
async fn cancellation_is_unknown_unless_nothing_was_sent() {
    for (what, sent) in [("send forever", true), ("prepare forever", false)] {
        let cancel = CancellationToken::new();
        let soon = cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            soon.cancel();
        });
        let outcome = worker().execute(assignment("odd", odd(what)), cancel).await;
        match sent {
            true => assert_eq!(unknown(outcome), "cancelled"),
            false => assert_eq!(failure(outcome).error, "cancelled before anything was sent"),
        }
    }
}

#[tokio::test]
async fn outcomes_are_bounded() {
    let output = succeeded(run(&worker(), "odd", odd("large")).await);
    assert!(output.to_string().len() <= 256 * 1024);
    assert_eq!((&output["b"], &output["truncated"]), (&json!(1), &json!(true)));
    let reason = unknown(run(&worker(), "odd", odd("long error")).await);
    assert!(reason.len() < 1100 && !reason.contains('\n'));
}

#[tokio::test]
async fn no_outcome_holds_a_secret() {
    let (secrets, _file) = secret("edr", "s3cr3t-token", &[]);
    let worker =
        Worker::new(WorkerConfig { registry: Registry::empty().with(Odd), secrets, ..WorkerConfig::default() });
    let failure = failure(run(&worker, "odd", odd("secret")).await);
    assert_eq!((failure.error.as_str(), failure.output.unwrap()), ("said ***", json!({"***": "***"})));
}

#[tokio::test]
async fn log_returns_its_message() {
    let worker = worker();
    let long = "x".repeat(10_000);
    for (message, expected) in [(json!("hello"), "hello"), (json!({"a": [1]}), "{\"a\":[1]}"), (json!(long), &long)] {
        let output = succeeded(run(&worker, "log", json!({"message": message, "level": "warn"})).await);
        assert_eq!(output, json!({"message": expected}));
    }
    assert!(
        failure(run(&worker, "log", json!({"message": "x", "level": "loud"})).await).error.contains("`level` must be")
    );
}

#[tokio::test]
async fn nats_actions_fail_without_having_sent_where_nats_is_not_there() {
    for action in ["nats.publish", "nats.request"] {
        let failure = failure(run(&worker(), action, json!({"subject": "a.b", "data": 1})).await);
        assert!(failure.retryable && failure.error.contains("nats is not connected"), "{failure:?}");
    }
    assert!(!failure(run(&worker(), "nats.publish", json!({"subject": "a.>"})).await).retryable);
}

#[test]
fn every_action_of_the_language_is_registered_and_no_other() {
    use stanch_playbook::actions::{ALL, is_kept_by_core};
    let mut known: Vec<_> = ALL.iter().map(|signature| signature.name).filter(|name| !is_kept_by_core(name)).collect();
    known.sort_unstable();
    assert_eq!(Registry::standard().names().collect::<Vec<_>>(), known);
}
