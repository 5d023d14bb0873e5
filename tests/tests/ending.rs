//! How the engine ends while a command runs: by a second signal, and by SIGKILL.

use std::time::Instant;

use nix::sys::signal::Signal;
use stanch_tests::{SOON, Setup, eventually};

/// A command that takes no notice of SIGTERM, and the file that says its process.
const STUBBORN: &str = r#"
playbook: stubborn
triggers: [{manual: {}}]
detect:
  sit:
    uses: exec
    with: {argv: [sh, -c, "trap '' TERM; echo $$ > \"$FILE\"; while :; do sleep 0.1; done"]}
    env: {FILE: "@"}
"#;

/// Whether a process runs; one that is over and that nobody has waited for has no command line.
fn runs(process: &str) -> bool {
    std::fs::read(format!("/proc/{process}/cmdline")).is_ok_and(|line| !line.is_empty())
}

#[test]
fn a_second_signal_ends_it_at_once_with_its_commands_and_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("process");
    let mut engine = Setup::new().playbook("stubborn", STUBBORN.replace('@', file.to_str().unwrap())).start();
    let post = stanch_tests::http::Request::post("/api/v1/playbooks/stubborn/runs", "{}");
    assert_eq!(engine.send(&post).status, 201);
    let id = engine.runs()[0]["id"].as_str().unwrap().to_owned();
    let process = eventually("the command runs", SOON, || match std::fs::read_to_string(&file) {
        Ok(text) if text.ends_with('\n') => Ok(text.trim().to_owned()),
        other => Err(format!("{other:?}")),
    });

    engine.signal(Signal::SIGINT);
    eventually("it says that it ends", SOON, || {
        let log = String::from_utf8_lossy(&engine.process.output()).into_owned();
        if log.contains("a second signal ends it at once") { Ok(()) } else { Err(log) }
    });
    assert!(runs(&process), "it gives the command time");
    let told = Instant::now();
    engine.signal(Signal::SIGINT);
    let status = eventually("it ends", SOON, || engine.process.exited().ok_or("it runs".to_owned()));
    assert_eq!(status.code(), Some(1));
    assert!(told.elapsed().as_secs() < 5, "{:?}", told.elapsed());
    eventually("the command is gone", SOON, || if runs(&process) { Err(process.clone()) } else { Ok(()) });

    engine.start_again();
    let run = engine.run_in_state(&id, "waiting");
    assert_eq!((&run["steps"]["detect.sit"]["state"], &run["asks"]), (&"unknown".into(), &1.into()), "{run:#}");
}

/// An item, and what takes it back, that take a second each.
const SLOW: &str = r#"
playbook: slow
triggers: [{manual: {}}]
contain:
  each:
    foreach: "['a']"
    uses: exec
    with: {argv: [sh, -c, "sleep 1"]}
    undo: {uses: exec, with: {argv: [sh, -c, "sleep 1"]}}
"#;

#[test]
fn an_end_in_good_order_waits_for_items_and_for_what_takes_them_back() {
    let mut engine = Setup::new().playbook("slow", SLOW).start();
    let started = engine.send(&stanch_tests::http::Request::post("/api/v1/playbooks/slow/runs", "{}"));
    assert!(started.is_success(), "{started:?}");
    let id = engine.runs()[0]["id"].as_str().unwrap().to_owned();
    assert!(engine.terminate().success());
    engine.start_again();
    assert_eq!(engine.run(&id)["state"], "succeeded", "the item was waited for: {:#}", engine.run(&id));
    let held = engine.list("/api/v1/inforce");
    let path = format!("/api/v1/inforce/{}/undo", held[0]["id"].as_str().unwrap());
    let answer = engine.send(&stanch_tests::http::Request::post(&path, "{}"));
    assert_eq!((answer.status, &answer.json()["state"]), (200, &"undoing".into()), "{answer:?}");
    assert!(engine.terminate().success());
    engine.start_again();
    assert_eq!(engine.list("/api/v1/inforce"), Vec::<serde_json::Value>::new(), "the undo was waited for");
}

/// A command with a descendant, and the file that says the processes of both and the limit on core dumps.
const FAMILY: &str = r#"
playbook: family
triggers: [{manual: {}}]
detect:
  sit:
    uses: exec
    with: {argv: [sh, -c, "sh -c 'sleep 600; true' & echo $$ $! $(ulimit -c) > \"$FILE\"; wait"]}
    env: {FILE: "@"}
"#;

#[test]
fn a_killed_engine_leaves_no_command_behind() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("processes");
    let mut engine = Setup::new().playbook("family", FAMILY.replace('@', file.to_str().unwrap())).start();
    for round in 0..2 {
        std::fs::remove_file(&file).ok();
        let post = stanch_tests::http::Request::post("/api/v1/playbooks/family/runs", "{}");
        assert_eq!(engine.send(&post).status, 201);
        let said = eventually("the command runs", SOON, || match std::fs::read_to_string(&file) {
            Ok(text) if text.ends_with('\n') => Ok(text),
            other => Err(format!("{other:?}")),
        });
        let words: Vec<&str> = said.split_whitespace().collect();
        let [command, descendant, cores] = words[..] else { panic!("{said}") };
        assert_eq!(cores, "0", "a command dumps no core");
        assert!(runs(command) && runs(descendant));
        engine.kill();
        eventually(
            "both are gone",
            SOON,
            || {
                if runs(command) || runs(descendant) { Err(said.clone()) } else { Ok(()) }
            },
        );
        engine.start_again();
        let run = &engine.runs()[0];
        assert_eq!((&run["state"], &run["asks"]), (&"waiting".into(), &1.into()), "round {round}: {run:#}");
    }
}
