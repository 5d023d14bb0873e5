//! The binary as people run it: what it prints, how it exits, and that nothing needs to be running for what is offline.

mod authors;
mod support;

use std::path::Path;

use serde_json::Value;
use support::{Engine, fixture, stanch, stanch_reading};

#[test]
fn a_playbook_without_a_problem_passes() {
    let good = stanch(&["validate", &fixture("good.yaml")]);
    assert_eq!((good.exit, &*good.out), (0, "✔ 1 playbook, no problems\n"), "{}", good.err);
}

#[test]
fn every_problem_is_shown_with_its_place() {
    let bad = stanch(&["validate", &fixture("bad.yaml")]);
    assert_eq!(bad.exit, 1, "{}", bad.err);
    insta::assert_snapshot!(bad.out.replace(&fixture(""), ""));
    let json = stanch(&["validate", "-o", "json", &fixture("bad.yaml"), &fixture("good.yaml")]);
    let result: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((json.exit, &result["files"], &result["errors"]), (1, &2.into(), &3.into()), "{result:#}");
    assert_eq!(result["playbooks"][0]["diagnostics"][0]["line"], 6, "{result:#}");
    assert_eq!(result["playbooks"][1]["playbook"], "good", "{result:#}");
}

#[test]
fn a_directory_is_checked_as_an_engine_would_load_it() {
    let home = tempfile::tempdir().unwrap();
    let copy = |from: &str, to: &str| std::fs::copy(fixture(from), home.path().join(to)).unwrap();
    copy("good.yaml", "one.yaml");
    copy("bad.yaml", "some.test.yaml");
    std::fs::create_dir(home.path().join("below")).unwrap();
    let path = home.path().to_str().unwrap();
    assert_eq!(stanch(&["validate", path]).exit, 0);
    copy("good.yaml", "below/two.yml");
    let twice = stanch(&["validate", path]);
    assert_eq!(twice.exit, 1, "two playbooks of one name: {}", twice.out);
    assert!(twice.out.contains("has a playbook named good too"), "{}", twice.out);
}

#[test]
fn what_is_not_there_is_named() {
    let none = stanch(&["validate", "no-such-file.yaml"]);
    assert_eq!(none.exit, 1);
    assert!(none.err.contains("error: no-such-file.yaml cannot be read"), "{}", none.err);
    let empty = tempfile::tempdir().unwrap();
    let none = stanch(&["validate", empty.path().to_str().unwrap()]);
    assert_eq!((none.exit, none.err.contains("help:")), (1, true), "{}", none.err);
}

#[test]
fn wrong_usage_exits_with_2_and_an_absent_engine_with_5() {
    assert_eq!(stanch(&["runs", "lst"]).exit, 2);
    assert_eq!(stanch(&["run", "x", "--input", "no-value"]).exit, 2);
    assert_eq!(stanch(&["runs", "list", "--server", "ftp://x"]).exit, 2);
    // Nothing listens on port 1 of the loopback address.
    let absent = stanch(&["runs", "list", "--server", "http://127.0.0.1:1"]);
    assert_eq!(absent.exit, 5);
    assert_eq!(
        absent.err,
        "error: no engine answers at http://127.0.0.1:1\nhelp:  start one with `stanch serve`, or name another with --server\n"
    );
}

#[test]
fn a_missing_playbook_directory_is_named_and_nothing_is_made() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let playbooks = path(&home.path().join("playbooks"));
    let refused = stanch(&["serve", "--listen", "127.0.0.1:0", "--data-dir", &path(&data), "--playbooks", &playbooks]);
    assert_eq!(refused.exit, 1);
    assert!(refused.err.contains(&playbooks) && refused.err.contains("help:"), "{}", refused.err);
    assert!(!data.exists());
}

#[test]
fn an_address_that_cannot_be_listened_on_is_named_once_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().to_str().unwrap();
    let serve = |address: &str| stanch(&["serve", "--listen", address, "--data-dir", path, "--playbooks", path]);
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let refused = serve(&taken);
    assert_eq!((refused.exit, refused.err.matches("in use").count()), (1, 1), "{}", refused.err);
    assert!(refused.err.contains(&taken) && refused.err.contains("--listen"), "{}", refused.err);
    for wrong in ["127.0.0.1:99999", "127.0.0.1", "localhost:9190", ":9190"] {
        let refused = serve(wrong);
        assert_eq!((refused.exit, refused.err.contains("such as 127.0.0.1:9190")), (2, true), "{}", refused.err);
        assert_eq!(refused.err.matches(&format!("'{wrong}'")).count(), 1, "{}", refused.err);
    }
}

#[test]
fn schemas_are_written_and_drift_is_named() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().to_str().unwrap();
    assert_eq!(stanch(&["schema", "--write", path]).exit, 0);
    assert_eq!(stanch(&["schema", "--check", path]).exit, 0);
    let playbook = stanch(&["schema", "playbook"]);
    let file = home.path().join("playbook.schema.json");
    assert_eq!(playbook.out, std::fs::read_to_string(&file).unwrap());
    std::fs::write(&file, "{}\n").unwrap();
    let drifted = stanch(&["schema", "--check", path]);
    assert_eq!(drifted.exit, 1);
    assert!(
        drifted.err.contains("playbook.schema.json is out of date") && !drifted.err.contains("event.schema"),
        "{}",
        drifted.err
    );
    assert_eq!(stanch(&["schema", "nonsense"]).exit, 2);
}

#[test]
fn completions_know_the_verbs() {
    for shell in ["bash", "zsh", "fish"] {
        let completions = stanch(&["completions", shell]);
        assert_eq!(completions.exit, 0);
        assert!(completions.out.contains("dead-letters"), "{shell}");
    }
}

#[test]
fn the_demo_runs_the_four_phases_and_ends() {
    let demo = stanch(&["demo", "--once", "--listen", "127.0.0.1:0"]);
    assert_eq!(demo.exit, 0, "{}{}", demo.out, demo.err);
    for phase in ["detect", "contain", "eradicate", "recover", "finally"] {
        assert!(demo.out.lines().any(|line| line == phase), "no {phase} in {}", demo.out);
    }
    assert!(demo.out.contains("ProbeInstanceDown") && demo.out.contains("chain verified, head "), "{}", demo.out);
    assert!(!demo.out.contains('\u{1b}'), "no colours where no terminal is: {}", demo.out);
    assert_eq!(demo.err, "");
}

#[test]
fn an_export_verifies_until_it_is_tampered_with() {
    let mut engine = Engine::start(&["good.yaml"]);
    let run = engine.stanch(&["run", "good", "-o", "json"]);
    assert_eq!(run.exit, 0, "{}", run.err);
    let running = engine.stanch(&["audit", "export"]);
    assert_eq!(running.exit, 0, "{}", running.err);
    let busy = stanch(&["audit", "export", "--data-dir", &engine.data()]);
    assert_eq!((busy.exit, busy.err.contains("in use")), (1, true), "{}", busy.err);
    engine.terminate();

    let file = engine.path("trail.jsonl");
    let stopped = stanch(&["audit", "export", "--data-dir", &engine.data(), "--output", &file]);
    assert_eq!(stopped.exit, 0, "{}", stopped.err);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with(&running.out) && text.len() > running.out.len(), "the end of the engine is recorded too");
    let verified = stanch(&["audit", "verify", &file]);
    assert_eq!((verified.exit, verified.out.contains("chain verified")), (0, true), "{}", verified.err);

    assert!(verified.out.contains("an end that was cut off cannot be seen"), "{}", verified.out);
    let head = verified.out.split("head ").nth(1).unwrap().lines().next().unwrap().to_owned();
    let noted = stanch_reading(&["audit", "verify", "-", "--head", &head], &format!("{text}\n\n"));
    assert_eq!((noted.exit, noted.out.contains("the noted head is record")), (0, true), "{}", noted.err);
    let cut = &text[..text.trim_end().rfind('\n').unwrap() + 1];
    assert_eq!(stanch_reading(&["audit", "verify", "-"], cut).exit, 0);
    let cut = stanch_reading(&["audit", "verify", "-", "--head", &head], cut);
    assert_eq!((cut.exit, cut.err.contains("none of them has the hash")), (1, true), "{}", cut.err);
    assert_eq!(stanch(&["audit", "verify", &file, "--head", "nonsense"]).exit, 2);

    let third = text.lines().nth(2).unwrap();
    let tampered = text.replace(third, &third.replacen("\"time\":\"2", "\"time\":\"3", 1));
    assert_ne!(tampered, text);
    let broken = stanch_reading(&["audit", "verify", "-"], &tampered);
    assert_eq!(broken.exit, 1);
    assert!(broken.err.starts_with("error: record 3 (line 3) does not hold"), "{}", broken.err);
    let gap: String = text.lines().enumerate().filter(|(n, _)| *n != 2).map(|(_, line)| format!("{line}\n")).collect();
    let missing = stanch_reading(&["audit", "verify", "-"], &gap);
    assert_eq!((missing.exit, missing.err.contains("record 3")), (1, true), "{}", missing.err);
    assert_eq!(stanch_reading(&["audit", "verify", "--excerpt", "-"], &gap).exit, 0);
}

#[test]
fn a_run_is_started_listed_watched_and_cancelled() {
    let engine = Engine::start(&["good.yaml"]);
    let started = engine.stanch(&["run", "good", "-o", "json", "-i", "host=db-07"]);
    let started: Value = serde_json::from_str(&started.out).unwrap();
    let id = started["runs"][0]["id"].as_str().unwrap();
    let end = &id[id.len() - 8..];
    // Without alerts to wait for, the run would be over at once; what matters here is that all verbs find it.
    let watched = engine.stanch(&["runs", "watch", end]);
    assert_eq!(watched.exit, 0, "{}{}", watched.out, watched.err);
    assert!(watched.out.contains("look at db-07") && watched.out.contains("succeeded after"), "{}", watched.out);
    let listed = engine.stanch(&["runs", "list"]);
    assert!(listed.out.contains(end) && listed.out.contains("good"), "{}", listed.out);
    for given in [id, end, &id[..16]] {
        let shown = engine.stanch(&["runs", "show", given]);
        assert_eq!(shown.exit, 0, "{given}: {}", shown.err);
        assert!(shown.out.contains("detect.look") && shown.out.contains("look at db-07"), "{}", shown.out);
    }
    let over = engine.stanch(&["runs", "cancel", end]);
    assert_eq!((over.exit, over.err.contains("over")), (1, true), "{}", over.err);
    assert_eq!(engine.stanch(&["runs", "show", "00000000"]).exit, 1);
    assert_eq!(engine.stanch(&["runs", "show", "nonsense"]).exit, 2);
    let unknown = engine.stanch(&["run", "god"]);
    assert_eq!((unknown.exit, unknown.err.contains("no playbook is named god")), (1, true), "{}", unknown.err);
}

#[test]
fn a_question_stands_in_the_list_and_a_retry_says_what_it_may_do() {
    let engine = Engine::start(&["asking.yaml"]);
    let started = engine.stanch(&["run", "asking", "-o", "json"]);
    assert_eq!(started.exit, 0, "{}", started.err);
    let id = engine.first("runs");
    let (mut watcher, mut lines) = engine.follow(&["runs", "watch", &id]);
    let mut asked = |count: usize| {
        let asks = lines.by_ref().filter(|line| line.as_ref().unwrap().contains("stanch runs answer"));
        assert_eq!(asks.take(count).count(), count, "the watcher shows the questions");
    };
    asked(2);
    let listed = engine.stanch(&["runs", "list"]).out;
    assert!(listed.contains("… waiting (2 unknown: answer)"), "{listed}");
    let retried = engine.stanch(&["runs", "answer", &id, "command", "retry"]);
    assert_eq!(
        (retried.exit, &*retried.err),
        (
            0,
            "warning: detect.command is not idempotent: if it happened before, it now happens twice; \
             look whether the process of the attempt before still runs\n"
        )
    );
    let harmless = engine.stanch(&["runs", "answer", &id, "detect.harmless", "retry"]);
    assert_eq!((harmless.exit, &*harmless.err), (0, ""));
    asked(2);
    let answered = engine.stanch(&["runs", "answer", &id, "command", "succeeded"]);
    assert_eq!((answered.exit, &*answered.err), (0, ""));
    watcher.kill().unwrap();
    watcher.wait().unwrap();
}

#[test]
fn a_run_that_is_held_back_says_why_and_what_ends_it() {
    let engine = Engine::start(&["asking.yaml"]);
    assert_eq!(engine.stanch(&["freeze", "a release"]).exit, 0);
    assert_eq!(engine.stanch(&["run", "asking"]).exit, 0);
    let id = engine.first("runs");
    let listed = engine.stanch(&["runs", "list"]).out;
    assert!(listed.contains("running (frozen)"), "{listed}");
    let shown = engine.stanch(&["runs", "show", &id]).out;
    let told = |text: &str| {
        text.contains("  waits because person:local froze side effects, such as detect.command, at 2")
            && text.contains("UTC: a release; stanch unfreeze")
    };
    assert!(told(&shown), "{shown}");
    let (mut watcher, mut lines) = engine.follow(&["runs", "watch", &id]);
    assert!(lines.any(|line| told(&line.unwrap())), "whoever watches is told");
    assert_eq!(engine.stanch(&["unfreeze"]).exit, 0);
    assert!(lines.any(|line| line.unwrap().contains("command")), "it goes on");
    watcher.kill().unwrap();
    watcher.wait().unwrap();
    assert!(!engine.stanch(&["runs", "show", &id]).out.contains("waits because"));
}

#[test]
fn watching_outlives_the_engine() {
    let mut engine = Engine::start(&["long.yaml"]);
    assert_eq!(engine.stanch(&["run", "long"]).exit, 0);
    let id = engine.first("runs");
    let (mut watcher, mut lines) = engine.follow(&["runs", "watch", &id]);
    assert!(lines.any(|line| line.unwrap().contains("for 1h00m")), "the wait is shown");
    engine.crash_and_restart();
    assert_eq!(engine.stanch(&["runs", "cancel", &id]).exit, 0);
    assert!(lines.any(|line| line.unwrap().contains("cancelled after")), "the end is shown");
    assert_eq!(watcher.wait().unwrap().code(), Some(1));
    let limited = engine.stanch(&["run", "long", "--wait", "10ms"]);
    assert_eq!((limited.exit, limited.err.contains("the run goes on")), (3, true), "{}", limited.err);
}

#[test]
fn text_from_outside_is_inert_in_every_table() {
    let engine = Engine::start(&["good.yaml"]);
    let alert = include_str!("../src/demo-alert.json")
        .replace("ProbeInstanceDown", "Good")
        .replace("db-01", "\\u001b[2J\\u202e");
    let emitted = engine.stanch_reading(&["emit", "-"], &alert);
    assert_eq!(emitted.exit, 0, "{}", emitted.err);
    let id = engine.first("runs");
    let incident = engine.first("incidents");
    for verb in [
        &["runs", "show", &id][..],
        &["incidents", "list"],
        &["incidents", "show", &incident],
        &["incidents", "ack", &incident],
        &["audit", "show"],
        &["audit", "show", "--run", &id],
    ] {
        let shown = engine.stanch(verb);
        assert_eq!(shown.exit, 0, "{verb:?}: {}", shown.err);
        assert!(!shown.out.contains(['\u{1b}', '\u{202e}']), "{verb:?}: {}", shown.out);
    }
    assert!(engine.stanch(&["runs", "show", &id]).out.contains("\\u{1b}[2J\\u{202e}"));
    let cancelled = engine.stanch(&["runs", "cancel", &id, "--reason", "enough"]);
    assert_eq!((cancelled.exit, cancelled.out.contains("cancelled")), (0, true), "{}", cancelled.err);
    assert_eq!(engine.stanch(&["runs", "watch", &id]).exit, 1, "a run that did not succeed");
}

#[test]
fn what_cannot_be_read_is_a_dead_letter_that_can_be_seen_and_replayed() {
    let engine = Engine::start(&["good.yaml"]);
    assert_eq!(engine.stanch_reading(&["emit", "-"], "hello").exit, 2, "it is neither");
    let emitted = engine.stanch_reading(&["emit", "-", "--as", "alertmanager", "--source", "eu"], "hello\u{1b}");
    assert_eq!((emitted.exit, emitted.err.contains("events dead-letters")), (1, true), "{}", emitted.err);
    let letters = engine.stanch(&["events", "dead-letters"]);
    assert!(letters.out.contains("/webhooks/alertmanager/eu"), "{}", letters.out);
    let id = engine.first("dead-letters");
    let shown = engine.stanch(&["events", "dead-letters", &id]);
    assert!(shown.out.ends_with("\nhello\\u{1b}\n"), "{}", shown.out);
    let replayed = engine.stanch(&["events", "replay", &id]);
    assert_eq!((replayed.exit, replayed.err.contains("error:")), (1, true), "{}", replayed.out);
}

const PEOPLE: &str = "people: {ann: {groups: [sec]}}\ntokens: [{person: ann, from: 'file:HOME/ann'}]\n";

#[test]
fn people_tokens_and_maintenance_are_read_again_when_the_file_changes() {
    let engine = Engine::start_with(&["good.yaml"], PEOPLE);
    let file = engine.path("stanch.yaml");
    let soon = |what: &str, holds: &dyn Fn() -> bool| support::eventually(what, holds, String::new);
    let bob = |arguments: &[&str]| engine.stanch(&[arguments, &["--token", "bob-s-token"]].concat());
    assert_eq!(bob(&["runs", "list"]).exit, 4, "nobody has this token");
    std::fs::write(engine.path("bob"), "bob-s-token").unwrap();
    let with = |rest: &str| {
        let bob =
            "people: {bob: {}}\ntokens: [{person: bob, from: 'file:HOME/bob'}]\n".replace("HOME", &engine.path(""));
        std::fs::write(&file, bob + rest).unwrap();
    };
    let window = |cluster: &str| {
        format!(
            "maintenance: [{{matchers: ['cluster=\"{cluster}\"'], from: 2026-01-01T00:00:00Z, to: 2046-01-01T00:00:00Z, reason: switches}}]\n"
        )
    };
    let listed = || engine.stanch(&["maintenance", "list"]).out;
    with(&window("eu"));
    soon("a window is there", &|| listed().contains("cluster=\"eu\""));
    assert_eq!(bob(&["runs", "list"]).exit, 0);
    assert_eq!(engine.stanch(&["runs", "list", "--token", "ann-s-token"]).exit, 4, "she is no more in it");
    with("maintenance: [{matchers: []");
    with(&window("us"));
    soon("the window is another one", &|| listed().contains("cluster=\"us\"") && !listed().contains("cluster=\"eu\""));
    std::fs::write(&file, "people: {bob: {group: x}}\n").unwrap();
    let log = || engine.log();
    soon("it says so", &|| log().contains("what was read before stays in force"));
    assert_eq!(bob(&["runs", "list"]).exit, 0, "of a broken file nothing is taken");
    with("attempts: {max: 7}\n");
    soon("it says what needs a restart", &|| {
        log().contains("what stanch.yaml now says of attempts takes effect with the next start")
    });
}

#[test]
fn a_question_is_shown_with_what_would_be_done_and_answered_by_those_asked() {
    let engine = Engine::start_with(&["contain.yaml", "long.yaml"], PEOPLE);
    let started = engine.stanch(&["run", "contain", "-o", "json"]);
    assert_eq!(started.exit, 0, "{}", started.err);
    let run = engine.first("runs");
    let listed = engine.stanch(&["runs", "list"]).out;
    assert!(listed.contains("… waiting (1 to approve)"), "{listed}");
    let id = engine.first("approvals");
    let end = &id[id.len() - 8..];
    let questions = engine.stanch(&["approvals", "list"]).out;
    assert!(questions.contains(end) && questions.contains("0 of 1  contain: Isolate 3 hosts?"), "{questions}");
    let shown = engine.stanch(&["approvals", "show", end]).out;
    for text in [
        "Isolate 3 hosts?",
        "contain.isolate  exec  3 items",
        "HOST=db-01 {\"argv\":[\"sh\"",
        "HOST=odd-03",
        "group:sec",
    ] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    assert!(
        engine.stanch(&["runs", "show", &run]).out.contains(&format!("stanch approve {end}, or stanch deny {end}"))
    );

    let local = engine.stanch(&["approve", end, "--yes"]);
    assert_eq!((local.exit, local.err.contains("local is not among those asked")), (4, true), "{}", local.err);
    let wrong = engine.stanch(&["approve", end, "--yes", "--token", "ann-s-tokem"]);
    assert_eq!((wrong.exit, wrong.err.contains("nobody has this token")), (4, true), "{}", wrong.err);
    let ann = |arguments: &[&str]| engine.stanch(&[arguments, &["--token", "ann-s-token"]].concat());
    let asked = ann(&["approve", end]);
    assert_eq!((asked.exit, asked.err.contains("--yes")), (2, true), "no terminal, no answer: {}", asked.err);
    assert!(asked.out.contains("HOST=bad-02"), "what would be done is shown first: {}", asked.out);
    let approved = ann(&["approve", end, "--yes", "--reason", "seen it"]);
    assert_eq!((approved.exit, approved.out.contains("approved; stanch runs watch")), (0, true), "{}", approved.err);
    assert_eq!(ann(&["deny", end, "--yes"]).exit, 1, "it is answered");
    assert_eq!(engine.stanch(&["approvals", "list"]).out, "no questions\n");

    let (mut watcher, mut lines) = engine.follow(&["runs", "watch", &run]);
    let found = lines.by_ref().map(Result::unwrap).find(|line| line.contains("stanch runs answer"));
    assert!(found.unwrap().contains(" isolate --item 2 succeeded|failed|retry"));
    watcher.kill().unwrap();
    watcher.wait().unwrap();
    let shown = engine.stanch(&["runs", "show", &run]).out;
    for text in
        ["2/3, 1 tolerated, 1 unknown", "bad-02  exit code 3", "isolate --item 2 succeeded", "approved by person:ann"]
    {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    assert_eq!(engine.stanch(&["runs", "answer", &run, "isolate[7]", "failed"]).exit, 1);
    assert_eq!(ann(&["runs", "answer", &run, "isolate[2]", "succeeded"]).exit, 0);
    let shown = engine.stanch(&["runs", "list"]).out;
    assert!(shown.contains(&format!("long (of {})", &run[run.len() - 8..])), "its child is listed: {shown}");
}

#[test]
fn what_is_in_force_is_listed_kept_taken_back_and_ended() {
    let engine = Engine::start_with(&["contain.yaml", "long.yaml"], PEOPLE);
    assert_eq!(engine.stanch(&["inforce", "list"]).out, "nothing is in force\n");
    assert_eq!(engine.stanch(&["run", "contain"]).exit, 0);
    let run = engine.first("runs");
    let ann = |arguments: &[&str]| engine.stanch(&[arguments, &["--token", "ann-s-token"]].concat());
    assert_eq!(ann(&["approve", &engine.first("approvals"), "--yes"]).exit, 0);
    let held = |state: &str| -> Vec<Value> {
        let answer = engine.stanch(&["inforce", "list", "-o", "json", "--state", state]);
        let list: Value = serde_json::from_str(&answer.out).unwrap();
        list["items"].as_array().unwrap().clone()
    };
    let soon = |what: &str, holds: &dyn Fn() -> bool| {
        support::eventually(what, holds, || engine.stanch(&["runs", "show", &run]).out);
    };
    soon("three are in force", &|| held("inforce").len() == 3);
    let listed = engine.stanch(&["inforce", "list"]).out;
    for text in ["perhaps", "isolate odd-03 of contain", "no end", "firewall of contain"] {
        assert!(listed.contains(text), "{text}: {listed}");
    }
    let of = |step: &str| {
        let found = held("inforce").into_iter().find(|of| of["step"] == step && of["value"] != "odd-03");
        found.unwrap()["id"].as_str().unwrap().to_owned()
    };
    let (isolate, firewall) = (of("contain.isolate"), of("contain.firewall"));
    assert_eq!(ann(&["inforce", "extend", &isolate]).exit, 2, "for how long is to be said");
    let kept = ann(&["inforce", "extend", &isolate[isolate.len() - 8..], "--until", "2036-01-02T03:04:05Z"]);
    assert!(kept.out.contains("2036-01-02 03:04:05 UTC") && kept.out.contains("undo by"), "{}{}", kept.out, kept.err);
    assert!(ann(&["inforce", "extend", &isolate, "--no-end"]).out.contains("somebody takes it back"));
    assert_eq!(ann(&["inforce", "extend", &isolate, "--until", "2020-01-01T00:00:00Z"]).exit, 1);
    assert_eq!(ann(&["inforce", "end", &isolate, "--reason", "by hand"]).exit, 0);
    assert_eq!(ann(&["inforce", "show", &isolate]).exit, 1);
    assert_eq!(ann(&["runs", "answer", &run, "isolate[2]", "succeeded"]).exit, 0);
    let cancelled = ann(&["runs", "cancel", &run, "--undo", "--reason", "enough"]);
    assert_eq!(cancelled.exit, 0, "{}", cancelled.err);
    soon("the rest is taken back", &|| held("failed").len() == 1 && held("inforce").is_empty());
    let shown = ann(&["inforce", "show", &firewall]);
    assert!(shown.out.contains("undo failed") && shown.out.contains("exit code 4"), "{}", shown.out);
    let run_shown = engine.stanch(&["runs", "show", &run]).out;
    assert!(run_shown.contains("by person:ann, taking back what it did: enough"), "{run_shown}");
    assert_eq!(ann(&["inforce", "undo", &firewall]).exit, 0, "it can be tried again");
    let table = engine.stanch(&["audit", "show", "--limit", "100"]).out;
    for (kind, about) in [
        ("AttemptFailed", "  isolate[1] do failed: exit code 3"),
        ("AttemptFailed", "  firewall undo failed: exit code 4"),
        ("ContainmentStarted", "  isolate[2]: perhaps in force until 2"),
        ("ContainmentExtended", "  isolate[0] until 2036-01-02 03:04:05"),
        ("ContainmentEnded", "  isolate[0]: by hand"),
        ("UndoRequested", ": the run was cancelled"),
        ("StepAnswered", "  isolate[2] succeeded"),
    ] {
        assert!(table.lines().any(|line| line.contains(kind) && line.contains(about)), "{kind} {about}: {table}");
    }
    let asked = table.lines().find(|line| line.contains("UndoRequested")).unwrap();
    assert!(asked.contains("firewall") && asked.contains("isolate[2]"), "{asked}");
    let trail = engine.stanch(&["audit", "export"]).out;
    for kind in ["ContainmentExtended", "ContainmentEnded", "RunCancelRequested"] {
        let line = trail.lines().find(|line| line.contains(kind)).unwrap();
        assert!(line.contains("\"actor\":\"person:ann\""), "{line}");
    }
}

#[test]
fn a_clock_that_goes_by_the_wall_clock_has_nothing_to_agree_to() {
    let engine = Engine::start(&["good.yaml"]);
    let shown = engine.stanch(&["clock"]);
    assert!(shown.exit == 0 && shown.out.ends_with(" UTC, by the wall clock\n"), "{} {}", shown.out, shown.err);
    let agreed = engine.stanch(&["clock", "agree"]);
    assert_eq!((agreed.exit, agreed.err.contains("the wall clock has not jumped")), (1, true), "{}", agreed.err);
}

#[test]
fn playbooks_are_checked_together() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
    write("parent.yaml", "playbook: parent\ndetect:\n  sub: {uses: playbook, with: {playbook: lng}}\n");
    std::fs::copy(fixture("long.yaml"), home.path().join("long.yaml")).unwrap();
    let directory = stanch(&["validate", home.path().to_str().unwrap()]);
    assert_eq!(directory.exit, 1, "{}", directory.out);
    assert!(directory.out.contains("no playbook is named lng") && directory.out.contains(":3:3"), "{}", directory.out);
    let alone = stanch(&["validate", home.path().join("parent.yaml").to_str().unwrap()]);
    assert_eq!((alone.exit, alone.out.contains("1 warning")), (0, true), "it may be elsewhere: {}", alone.out);
    write("parent.yaml", "playbook: parent\ndetect:\n  sub: {uses: playbook, with: {playbook: parent}}\n");
    assert_eq!(stanch(&["validate", home.path().to_str().unwrap()]).exit, 1, "it runs itself");
    assert_eq!(stanch(&["validate", home.path().join("parent.yaml").to_str().unwrap()]).exit, 1);
}

#[test]
fn files_that_steps_left_behind_are_listed_and_fetched_and_nothing_is_overwritten() {
    let engine = Engine::start(&["keeps.yaml"]);
    assert_eq!(engine.stanch(&["run", "keeps"]).exit, 0);
    let runs: Value = serde_json::from_str(&engine.stanch(&["runs", "list", "-o", "json"]).out).unwrap();
    let run = runs["items"][0]["id"].as_str().unwrap();
    let listed = engine.stanch(&["runs", "artifacts", run]);
    assert_eq!(listed.exit, 0, "{}", listed.err);
    assert!(listed.out.contains("detect.keep[a]") && listed.out.contains("out/x.txt"), "{}", listed.out);
    let json: Value = serde_json::from_str(&engine.stanch(&["runs", "artifacts", run, "-o", "json"]).out).unwrap();
    assert_eq!((json.as_array().map(Vec::len), &json[1]["size"]), (Some(2), &2.into()), "{json:#}");
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("kept");
    let fetched = engine.stanch(&["runs", "artifacts", run, "--out", out.to_str().unwrap()]);
    assert_eq!(fetched.exit, 0, "{}", fetched.err);
    assert_eq!(std::fs::read_to_string(out.join("detect.keep/0-a/out/x.txt")).unwrap(), "a!");
    std::fs::write(out.join("detect.keep/1-b/out/x.txt"), "mine").unwrap();
    std::fs::remove_file(out.join("detect.keep/0-a/out/x.txt")).unwrap();
    let again = engine.stanch(&["runs", "artifacts", run, "--out", out.to_str().unwrap()]);
    assert!(again.exit == 1 && again.err.contains("is there already"), "{}", again.err);
    assert_eq!(std::fs::read_to_string(out.join("detect.keep/1-b/out/x.txt")).unwrap(), "mine");
    assert_eq!(std::fs::read_to_string(out.join("detect.keep/0-a/out/x.txt")).unwrap(), "a!");
}
