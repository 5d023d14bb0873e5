//! `kill -9` at random moments under load. `STANCH_SEED` repeats a round's moments; `STANCH_LONG=1` does 200 rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use stanch_tests::engine::{is_over, of_kind, stanch};
use stanch_tests::{AlertBody, Behaviour, Engine, Ledger, Load, Random, Setup, Target, eventually, long};

const KINDS: [&str; 4] = ["put", "log", "exec", "post"];

fn playbooks(target: &Target, ledger: &Path) -> Vec<(&'static str, String)> {
    let head = |kind: &str| {
        format!(
            "playbook: {kind}\ntriggers:\n  - alertmanager: {{matchers: ['kind=\"{kind}\"']}}\n    \
             inputs: {{fingerprint: alert.fingerprint}}\ninputs: {{fingerprint: {{type: string, required: true}}}}\n"
        )
    };
    let first = "detect:\n  note: {uses: log, with: {message: \"{{ inputs.fingerprint }}\"}}\n";
    let last = "recover:\n  done: {uses: log, with: {message: done}}\n";
    let request = |method: &str| {
        let url = target.url(&format!("/{}", method.to_lowercase()));
        format!("contain:\n  act: {{uses: http, with: {{method: {method}, url: \"{url}\"}}{{retry}}}}\n")
    };
    // Three kills may fall on one run's attempts by chance; ten do not.
    let often = ", retry: {max_attempts: 10, initial_interval: 10ms}";
    vec![
        ("put", head("put") + first + &request("PUT").replace("{retry}", often) + last),
        ("log", head("log") + first + "contain:\n  a: {uses: log, with: {message: a}}\n" + last),
        (
            "exec",
            head("exec")
                + first
                + &format!(
                    "contain:\n  act:\n    uses: exec\n    with: {{argv: [sh, -c, 'echo \"$STANCH_IDEMPOTENCY_KEY\" >> \
                     \"$LEDGER\"; sleep 0.03']}}\n    env: {{LEDGER: \"{}\"}}\n",
                    ledger.display()
                )
                + last,
        ),
        ("post", head("post") + first + &request("POST").replace("{retry}", "") + last),
    ]
}

#[test]
fn no_kill_loses_or_doubles_anything() {
    let seed = Random::seed();
    let rounds = if long() { 200 } else { 20 };
    println!("seed {seed}, {rounds} rounds");
    let mut random = Random::new(seed);
    let target = Target::start();
    target.behave("/put", [Behaviour::Slow(Duration::from_millis(8))]);
    target.behave("/post", [Behaviour::Slow(Duration::from_millis(8))]);
    let home = tempfile::tempdir().unwrap();
    let commands = home.path().join("commands");
    let mut setup = Setup::new().config("egress: {allow: [127.0.0.1/32]}\n");
    for (name, text) in playbooks(&target, &commands) {
        setup = setup.playbook(name, text);
    }
    let mut engine = setup.start();
    let ledger = Arc::new(Ledger::default());
    for round in 0..rounds {
        let load = Load::start(engine.address(), &ledger, |number, fingerprint| {
            let kind = KINDS[usize::try_from(number % 4).expect("below four")];
            AlertBody::firing(fingerprint, &[("alertname", "Crash"), ("kind", kind)])
        });
        let moment = random.between(Duration::from_millis(20), Duration::from_millis(400));
        std::thread::sleep(moment);
        engine.kill();
        drop(load);
        let again = random.below(4) == 0;
        engine.spawn_again();
        if again {
            // And once more while it is still coming up.
            std::thread::sleep(random.between(Duration::ZERO, Duration::from_millis(60)));
            engine.kill();
            engine.spawn_again();
        }
        let ready = engine.wait_until_ready();
        println!("round {round}: killed after {moment:?}{}, ready after {ready:?}", if again { ", twice" } else { "" });
        check_started(&engine, &ledger);
    }
    let runs = settle(&engine);
    check(&engine, &runs, &target, &commands);

    assert!(engine.terminate().success());
    let export = engine.export();
    let verified = stanch(&["audit", "verify", export.to_str().unwrap()]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

/// Every acknowledged alert has one run; every other one that was sent has one or none.
fn check_started(engine: &Engine, ledger: &Ledger) {
    let acknowledged = ledger.acknowledged();
    let mut started = BTreeMap::new();
    for run in engine.records("RunStarted") {
        let fingerprint = run["inputs"]["fingerprint"].as_str().expect("every playbook takes it").to_owned();
        *started.entry(fingerprint).or_insert(0) += 1;
    }
    let lost: Vec<&String> = acknowledged.iter().filter(|&one| !started.contains_key(one)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let doubled: Vec<_> = started.iter().filter(|&(_, &count)| count > 1).collect();
    assert!(doubled.is_empty(), "runs for one alert: {doubled:?}");
    let sent = ledger.sent();
    assert!(started.keys().all(|one| sent.contains(one)), "runs for alerts that nobody sent");
}

/// Waits until every run is over or asks a person, and gives all with their steps.
fn settle(engine: &Engine) -> Vec<Value> {
    let open = eventually("all runs are over or wait for a person", Duration::from_secs(120), || {
        let runs = engine.runs();
        let live: Vec<&Value> = runs.iter().filter(|run| !is_over(run) && run["state"] != "waiting").collect();
        if live.is_empty() { Ok(runs) } else { Err(format!("{} live, such as {:#}", live.len(), live[0])) }
    });
    open.iter().map(|run| engine.run(run["id"].as_str().expect("a run has an id"))).collect()
}

fn check(engine: &Engine, runs: &[Value], target: &Target, commands: &Path) {
    let commands = std::fs::read_to_string(commands).unwrap_or_default();
    let mut executed = BTreeMap::<&str, usize>::new();
    for key in commands.lines() {
        *executed.entry(key).or_default() += 1;
    }
    let (puts, posts) = (target.keys("/put"), target.keys("/post"));
    let scheduled = of_kind(&engine.audit(), "AttemptScheduled");
    let mut keys = BTreeMap::<&str, BTreeSet<&str>>::new();
    for attempt in &scheduled {
        if attempt["attempt"]["step"] == "contain.act" {
            let run = attempt["attempt"]["run"].as_str().expect("an attempt names its run");
            keys.entry(run).or_default().insert(attempt["idempotency_key"].as_str().expect("an attempt has a key"));
        }
    }
    let mut counts = BTreeMap::<(String, String), usize>::new();
    for run in runs {
        let id = run["id"].as_str().expect("a run has an id");
        let playbook = run["playbook"].as_str().expect("a run has a playbook");
        let state = run["state"].as_str().expect("a run has a state");
        *counts.entry((playbook.to_owned(), state.to_owned())).or_default() += 1;
        let act = &run["steps"]["contain.act"]["state"];
        let step_keys = keys.get(id).cloned().unwrap_or_default();
        assert!(step_keys.len() <= 1, "one key over all attempts of {id}: {step_keys:?}");
        let key = step_keys.first().copied().unwrap_or_default();
        match playbook {
            "put" | "log" => assert_eq!(state, "succeeded", "a run of idempotent steps: {run:#}"),
            _ if state == "waiting" => assert_eq!(*act, "unknown", "what waits, waits as unknown: {run:#}"),
            _ => assert_eq!(state, "succeeded", "{run:#}"),
        }
        let (seen, most) = match playbook {
            "put" => (puts.get(key).copied().unwrap_or(0), usize::MAX),
            "post" => (posts.get(key).copied().unwrap_or(0), 1),
            "exec" => (executed.get(key).copied().unwrap_or(0), 1),
            _ => continue,
        };
        assert!(seen <= most, "done {seen} times: {run:#}");
        assert!(seen >= 1 || state != "succeeded", "success is reported and nobody saw it: {run:#}");
    }
    println!("{counts:#?}");
    for kind in KINDS {
        let done = counts.get(&(kind.to_owned(), "succeeded".to_owned())).copied().unwrap_or(0);
        assert!(done > 0, "no run of {kind} succeeded: the test shows nothing");
    }
}
