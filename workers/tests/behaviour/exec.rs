//! `exec` with real commands.

use std::sync::Arc;
use std::time::Duration;

use crate::common::*;
use nix::errno::Errno;
use nix::sys::signal::killpg;
use nix::unistd::Pid;
use serde_json::{Value, json};
use stanch_core::Assignment;
use stanch_workers::{ExecConfig, Worker, WorkerConfig};
use tokio_util::sync::CancellationToken;

fn worker() -> Worker {
    Worker::new(WorkerConfig::default())
}

fn shell(script: &str) -> Value {
    json!({"argv": ["sh", "-c", script]})
}

/// The group that a script wrote with `echo $$`.
fn group(directory: &tempfile::TempDir) -> Pid {
    Pid::from_raw(std::fs::read_to_string(directory.path().join("group")).unwrap().trim().parse().unwrap())
}

/// Waits until nobody is left in the group; the kernel takes a moment after a kill.
async fn gone(group: Pid) -> bool {
    for _ in 0..200 {
        if killpg(group, None) == Err(Errno::ESRCH) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test]
async fn a_command_gives_its_streams_and_exit_code() {
    let output =
        succeeded(run(&worker(), "exec", json!({"argv": ["sh", "-c", "cat; echo err >&2"], "stdin": {"a": 1}})).await);
    assert_eq!(output, json!({"exit_code": 0, "stdout": "{\"a\":1}", "stderr": "err\n"}));
}

#[tokio::test]
async fn another_exit_code_is_failed_with_the_last_line() {
    let failure =
        failure(run(&worker(), "exec", shell("echo out; echo first >&2; echo 'last words' >&2; exit 3")).await);
    assert_eq!((failure.error.as_str(), failure.retryable), ("exit code 3: last words", true));
    assert_eq!(failure.output.unwrap()["stdout"], "out\n");
}

#[tokio::test]
async fn what_does_not_start_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let plain = directory.path().join("plain");
    std::fs::write(&plain, "x").unwrap();
    for (with, expected) in [
        (json!({"argv": ["no-such-command-here"]}), "not found"),
        (json!({"argv": [plain]}), "not executable"),
        (json!({"argv": ["true"], "cwd": "/no/such/directory"}), "does not exist"),
        (json!({"argv": ["a\u{0}b"]}), "cannot start"),
        (json!({"argv": []}), "names no command"),
        (json!({"argv": "ls -l"}), "must be a list"),
        (json!({"argv": [["ls"]]}), "must hold texts"),
        (json!({}), "is missing"),
    ] {
        let failure = failure(run(&worker(), "exec", with).await);
        assert!(!failure.retryable && failure.error.contains(expected), "{expected}: {}", failure.error);
    }
}

#[tokio::test]
async fn the_environment_is_clean() {
    let (secrets, _file) = secret("edr", "s3cr3t-token", &[]);
    let worker = Worker::new(WorkerConfig { secrets, ..WorkerConfig::default() });
    let mut assignment = assignment("exec", shell("env; test \"$TOKEN\" = s3cr3t-token"));
    assignment.env =
        Arc::new(json!({"TOKEN": {"secret_text": [{"secret": "edr"}]}, "HOSTS": "a b", "STANCH_STEP": "forged"}));
    let key = assignment.idempotency_key.clone();
    let output = succeeded(worker.execute(assignment, CancellationToken::new()).await);
    let mut names = Vec::new();
    for line in output["stdout"].as_str().unwrap().lines() {
        let (name, value) = line.split_once('=').unwrap();
        match name {
            "TOKEN" => assert_eq!(value, "***"),
            "HOSTS" => assert_eq!(value, "a b"),
            "STANCH_STEP" => assert_eq!(value, "contain.isolate"),
            "STANCH_IDEMPOTENCY_KEY" => assert_eq!(value, key.as_str()),
            _ => {}
        }
        names.push(name);
    }
    names.sort_unstable();
    names.retain(|name| !["_", "SHLVL", "OLDPWD", "PWD", "HOME"].contains(name));
    let ours = [
        "HOSTS",
        "LANG",
        "PATH",
        "STANCH_ATTEMPT",
        "STANCH_IDEMPOTENCY_KEY",
        "STANCH_PLAYBOOK",
        "STANCH_PURPOSE",
        "STANCH_RUN_ID",
        "STANCH_STEP",
        "TOKEN",
    ];
    assert_eq!(names, ours);
}

#[tokio::test]
async fn relative_directories_and_commands_start_at_the_configured_one() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("sub")).unwrap();
    let config = ExecConfig { directory: Some(directory.path().to_owned()), ..ExecConfig::default() };
    let worker = Worker::new(WorkerConfig { exec: config, ..WorkerConfig::default() });
    let output = succeeded(run(&worker, "exec", json!({"argv": ["pwd"], "cwd": "sub"})).await);
    assert_eq!(
        output["stdout"].as_str().unwrap().trim(),
        directory.path().join("sub").canonicalize().unwrap().to_str().unwrap()
    );
}

#[tokio::test]
async fn a_time_out_is_unknown_and_the_whole_group_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let mut with = shell("echo $$ > group; sleep 1000 & sleep 1000");
    with["cwd"] = json!(directory.path());
    let reason = unknown(run_within(&worker(), 1000, "exec", with).await);
    assert_eq!(reason, "timed out after 1 s, and its processes were killed");
    assert!(gone(group(&directory)).await);
}

#[tokio::test]
async fn a_group_that_ignores_the_request_to_end_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let mut with = shell("trap '' TERM; echo $$ > group; sleep 1000 & while :; do sleep 1; done");
    with["cwd"] = json!(directory.path());
    unknown(run_within(&worker(), 1000, "exec", with).await);
    assert!(gone(group(&directory)).await);
}

#[tokio::test]
async fn a_command_may_clean_up_before_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let mut with = shell("trap 'echo done > cleaned; exit 1' TERM; echo $$ > group; sleep 1000 & wait");
    with["cwd"] = json!(directory.path());
    unknown(run_within(&worker(), 1000, "exec", with).await);
    assert_eq!(std::fs::read_to_string(directory.path().join("cleaned")).unwrap(), "done\n");
}

#[tokio::test]
async fn cancellation_and_dropping_end_the_group_too() {
    for drop_it in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let mut with = shell("echo $$ > part; mv part group; sleep 1000 & sleep 1000");
        with["cwd"] = json!(directory.path());
        let cancel = CancellationToken::new();
        let worker = worker();
        let mut run = Box::pin(worker.execute(assignment("exec", with), cancel.clone()));
        let started = async {
            while !directory.path().join("group").exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            outcome = &mut run => panic!("ended early: {outcome:?}"),
            () = started => {}
        }
        if drop_it {
            drop(run);
        } else {
            cancel.cancel();
            assert_eq!(unknown(run.await), "cancelled, and its processes were killed");
        }
        assert!(gone(group(&directory)).await, "dropped: {drop_it}");
    }
}

#[tokio::test]
async fn a_descendant_that_keeps_the_output_open_does_not_keep_the_attempt() {
    let directory = tempfile::tempdir().unwrap();
    let mut with = shell("echo $$ > group; echo out; sleep 1000 & exit 0");
    with["cwd"] = json!(directory.path());
    let output = succeeded(run(&worker(), "exec", with).await);
    assert_eq!(output["stdout"], "out\n");
    assert!(gone(group(&directory)).await);
}

#[tokio::test]
async fn somebodys_signal_is_unknown() {
    assert_eq!(unknown(run(&worker(), "exec", shell("kill -9 $$")).await), "the command was killed by SIGKILL");
}

#[tokio::test]
async fn long_output_is_cut_and_the_command_is_not_held_up() {
    let output = succeeded(
        run(&worker(), "exec", shell("echo begin; yes | head -c 3000000; yes | head -c 300000 >&2; echo end")).await,
    );
    let stdout = output["stdout"].as_str().unwrap();
    assert!(stdout.starts_with("begin\n") && stdout.ends_with("end\n") && stdout.len() < 66_000, "{}", stdout.len());
    assert_eq!(output["truncated"], true);
}

#[tokio::test]
async fn endless_output_ends_with_the_limit() {
    unknown(run_within(&worker(), 1000, "exec", json!({"argv": ["yes"]})).await);
}

#[tokio::test]
async fn unread_input_is_no_error() {
    succeeded(run(&worker(), "exec", json!({"argv": ["true"], "stdin": "x".repeat(1_000_000)})).await);
}

#[tokio::test]
async fn a_cancelled_attempt_does_not_start() {
    let cancel = CancellationToken::new();
    cancel.cancel();
    let assignment = Assignment { ..assignment("exec", shell("echo x")) };
    assert_eq!(failure(worker().execute(assignment, cancel).await).error, "cancelled before it started");
}

/// A worker whose commands run in a directory.
fn within(directory: &tempfile::TempDir) -> WorkerConfig {
    let exec = ExecConfig { directory: Some(directory.path().to_owned()), ..ExecConfig::default() };
    WorkerConfig { exec, ..WorkerConfig::default() }
}

#[tokio::test]
async fn artifacts_are_kept_whole_and_beside_the_bound_of_other_output() {
    let directory = tempfile::tempdir().unwrap();
    let worker = Worker::new(within(&directory));
    let script = "mkdir -p out && head -c 900000 /dev/zero > out/zeros && echo hello > note && head -c 300000 /dev/zero | tr '\\0' y";
    let with = json!({"argv": ["sh", "-c", script], "artifacts": ["out/zeros", "note"]});
    let output = succeeded(run(&worker, "exec", with).await);
    assert_eq!(
        output["artifacts"]["note"],
        json!({
            "size": 6,
            "sha256": "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
            "content_base64": "aGVsbG8K",
        })
    );
    let zeros = &output["artifacts"]["out/zeros"];
    assert_eq!((&zeros["size"], zeros["content_base64"].as_str().unwrap().len()), (&json!(900_000), 1_200_000));
    assert_eq!((&output["exit_code"], &output["truncated"]), (&json!(0), &json!(true)));
    assert!(output["stdout"].as_str().unwrap().len() < 70_000);
}

#[tokio::test]
async fn artifacts_have_a_directory_of_the_attempts_own() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("logs"), "of another attempt").unwrap();
    let worker = Worker::new(within(&directory));
    let script = "echo mine > \"$STANCH_ARTIFACTS/logs\"; echo \"$STANCH_ARTIFACTS\"";
    let output = succeeded(run(&worker, "exec", json!({"argv": ["sh", "-c", script], "artifacts": ["logs"]})).await);
    assert_eq!(output["artifacts"]["logs"]["content_base64"], "bWluZQo=");
    let own = std::path::Path::new(output["stdout"].as_str().unwrap().trim_end());
    assert!(!own.exists(), "it is gone afterwards");
    let none = succeeded(run(&worker, "exec", json!({"argv": ["sh", "-c", "echo ${STANCH_ARTIFACTS-none}"]})).await);
    assert_eq!(none["stdout"], "none\n");
}

#[tokio::test]
async fn a_missing_artifact_fails_the_attempt_and_a_failed_command_keeps_none() {
    let directory = tempfile::tempdir().unwrap();
    let worker = Worker::new(within(&directory));
    let with = json!({"argv": ["sh", "-c", "echo done; echo x > a"], "artifacts": ["a", "b.tar.gz"]});
    let missing = failure(run(&worker, "exec", with).await);
    assert_eq!((missing.error.as_str(), missing.retryable), ("artifact \"b.tar.gz\" was not left behind", true));
    assert_eq!(missing.output.unwrap()["stdout"], "done\n");

    let with = json!({"argv": ["sh", "-c", "exit 3"], "artifacts": ["none"]});
    let failed = failure(run(&worker, "exec", with).await);
    assert_eq!(failed.error, "exit code 3");
    let wrong = failure(run(&worker, "exec", json!({"argv": ["true"], "artifacts": "a"})).await);
    assert!(!wrong.retryable && wrong.error.contains("must be a list"), "{wrong:?}");
}

#[tokio::test]
async fn artifacts_are_found_below_cwd_and_hold_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("sub")).unwrap();
    let (secrets, _file) = secret("edr", "s3cr3t-token", &[]);
    let worker = Worker::new(WorkerConfig { secrets, ..within(&directory) });
    let script = "printf '%s;' \"$TOKEN\" > dump";
    let mut assignment = assignment("exec", json!({"argv": ["sh", "-c", script], "cwd": "sub", "artifacts": ["dump"]}));
    assignment.env = Arc::new(json!({"TOKEN": {"secret_text": [{"secret": "edr"}]}}));
    let output = succeeded(worker.execute(assignment, CancellationToken::new()).await);
    assert_eq!(output["artifacts"]["dump"]["content_base64"], "Kioq".to_owned() + "Ow==");
    assert_eq!(output["artifacts"]["dump"]["size"], 4);
}
