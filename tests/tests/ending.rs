//! How the engine ends: what a second signal does while a command runs.

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

fn runs(process: &str) -> bool {
    std::path::Path::new("/proc").join(process).exists()
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
