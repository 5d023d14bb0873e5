//! What authors of playbooks use before three in the morning: nothing needs to be running for it.

use std::path::Path;

use serde_json::Value;

use crate::support::{self, Engine, stanch, stanch_reading};

const PLAYBOOK: &str = "playbook: p\ninputs: {host: {type: string, required: true}}\n\
    triggers:\n  - alertmanager: {matchers: ['alertname=\"Down\"', 'env=~\"prod|stage\"'], if: \"alert.labels.host != 'x'\"}\n    \
    key: \"down/{{ alert.labels.host }}\"\n    inputs: {host: alert.labels.host}\n\
    detect:\n  probe:\n    uses: http\n    with: {url: \"http://{{ inputs.host }}/\", headers: {A: \"Bearer {{ secrets.edr }}\"}}\n    continue_on_error: true\n    \
    outputs: {up: \"result.status == 200\"}\n\
    contain:\n  restart:\n    if: \"steps.probe.state != 'succeeded'\"\n    uses: exec\n    with: {argv: [./restart.sh, \"{{ inputs.host }}\"]}\n    env: {WHERE: \"{{ inputs.host }}, {{ steps.probe.state }}\"}\n\
    recover:\n  quiet: {uses: wait, with: {for: resolved, settle: 5m}, timeout: 4h}\n";

/// A directory with these files.
fn home(files: &[(&str, &str)]) -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("the temporary directory is writable");
    for (name, text) in files {
        std::fs::write(home.path().join(name), text).expect("the test's directory is writable");
    }
    home
}

fn path(home: &tempfile::TempDir, name: &str) -> String {
    home.path().join(name).to_str().expect("its path is UTF-8").to_owned()
}

fn test_of(event: &str, rest: &str) -> String {
    format!("tests:\n  - name: it\n    playbook: p\n    event: {event}\n{rest}")
}

const DOWN: &str = "{alert: {labels: {alertname: Down, env: prod, host: a}}}";

#[test]
fn the_shipped_playbooks_pass_their_tests_and_every_step_is_reached() {
    let playbooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../playbooks");
    let tested = stanch(&["test", "-o", "json", playbooks.to_str().unwrap()]);
    let result: Value = serde_json::from_str(&tested.out).unwrap();
    assert_eq!((tested.exit, &result["failed"]), (0, &0.into()), "{result:#}");
    assert_eq!(result["coverage"]["steps"]["reached"], result["coverage"]["steps"]["all"], "{result:#}");
}

#[test]
fn a_test_sees_attempts_moments_and_rendered_requests() {
    let test = test_of(
        DOWN,
        "    mocks:\n      probe: [{fails: refused}, {fails: refused}, {fails: refused}]\n      \
         restart: [{unknown: reset}, {}]\n    then:\n      \
         - {at: 2m, expect: {run: waiting, steps: {restart: unknown}, errors: {restart: reset}}}\n      \
         - {at: 3m, answer: {restart: retry}}\n      - {at: 10m, resolve: true}\n      \
         - {at: 12m, fire: true, expect: {steps: {quiet: waiting}}}\n      - {at: 20m, resolve: {host: a}}\n      \
         - {at: 24m, expect: {run: waiting}}\n    expect:\n      \
         run: succeeded\n      steps: {probe: tolerated, quiet: succeeded}\n      order: [probe, restart, quiet]\n      \
         calls:\n        probe: {count: 3, with: {url: \"http://a/\", headers: {A: \"Bearer {{ secrets.edr }}\"}}}\n        \
         restart: {count: 2, with: {argv: [./restart.sh, a]}}\n      incident: resolved\n      key: down/a\n",
    );
    let home = home(&[("p.yaml", PLAYBOOK), ("p.test.yaml", &test)]);
    let tested = stanch(&["test", &path(&home, "")]);
    assert_eq!(tested.exit, 0, "{}{}", tested.out, tested.err);
    assert!(tested.out.contains("reached 3 of 3 steps and 4 of 7 branches"), "{}", tested.out);
    let covered = stanch(&["test", &path(&home, ""), "--coverage"]);
    assert!(covered.out.contains("contain.restart  if false, fails"), "{}", covered.out);
}

#[test]
fn what_differs_is_shown_beside_what_was_expected() {
    let test = test_of(
        DOWN,
        "    then:\n      - {at: 1m, answer: {restart: failed}}\n    expect:\n      run: succeeded\n      \
         calls: {probe: {with: {url: \"http://b/\"}}}\n      order: [quiet, probe]\n      steps: {restart: succeeded}\n",
    );
    let home = home(&[("p.yaml", PLAYBOOK), ("p.test.yaml", &test)]);
    let junit = path(&home, "out.xml");
    let tested = stanch(&["test", &path(&home, ""), "--junit", &junit]);
    assert_eq!(tested.exit, 1);
    for expected in [
        "p.test.yaml:6:27",
        "saw      step contain.restart is skipped; only an unknown step takes an answer",
        "expected succeeded\n      saw      failed\n",
        "expected with.url = \"http://b/\"\n      saw      with.url = \"http://a/\"",
        "expected quiet, probe\n      saw      probe, quiet",
        "at 1m the run was waiting:",
        "- contain.restart  skipped",
        "✘ 1 test in ",
        ", 1 failed; reached",
    ] {
        assert!(tested.out.contains(expected), "{expected} is not in {}", tested.out);
    }
    let xml = std::fs::read_to_string(junit).unwrap();
    assert!(xml.contains("tests=\"1\" failures=\"1\" errors=\"0\"") && xml.contains("<failure message="), "{xml}");
    let none = stanch(&["test", &path(&home, ""), "--filter", "no such"]);
    assert_eq!(none.exit, 1, "{}", none.out);
}

#[test]
fn an_event_may_come_from_a_file_and_be_refused() {
    let body = r#"{"alerts": [{"status": "firing", "labels": {"alertname": "Down", "env": "stage", "host": "b"},
                   "startsAt": "2026-11-21T01:00:00Z"}]}"#;
    let tests = "tests:\n  - name: from a file\n    playbook: p\n    event: {file: down.json}\n    \
                 then: [{at: 1m, resolve: true}]\n    expect: {run: succeeded, inputs: {host: b}}\n  \
                 - name: refused\n    playbook: p\n    event: {inputs: {hst: b}}\n    \
                 expect: {run: none, refused: did you mean host}\n  \
                 - name: not matched\n    playbook: p\n    event: {alert: {labels: {alertname: Down, env: prod, host: x}}}\n    \
                 expect: {run: none, incident: none}\n";
    let home = home(&[("p.yaml", PLAYBOOK), ("p.test.yaml", tests), ("down.json", body)]);
    let tested = stanch(&["test", &path(&home, "p.test.yaml")]);
    assert_eq!(tested.exit, 0, "{}{}", tested.out, tested.err);
}

#[test]
fn an_alert_that_fires_later_is_the_first_one_with_other_labels() {
    let alert = |host: &str| format!("{{labels: {{alertname: Down, env: prod, host: {host}}}}}");
    let test = test_of(
        &format!("{{alerts: [{}, {}]}}", alert("b"), alert("a")),
        "    then:\n      - {at: 1s, expect: {runs: 2}}\n      - {at: 2s, fire: {host: c}, expect: {runs: 3, inputs: {host: c}}}\n      \
         - {at: 3m, resolve: true}\n      - {at: 1h, fire: true}\n      - {at: 1h1s, resolve: true}\n    \
         expect: {runs: 4, run: succeeded, inputs: {host: b}, incident: resolved}\n",
    );
    let home = home(&[("p.yaml", PLAYBOOK), ("p.test.yaml", &test)]);
    let tested = stanch(&["test", &path(&home, "")]);
    assert_eq!(tested.exit, 0, "{}{}", tested.out, tested.err);
}

/// Seconds where the work is a fraction of one, so that a busy machine does not fail it.
#[test]
fn a_thousand_tests_take_no_time() {
    let one = |number: usize| {
        test_of(DOWN, "    mocks: {probe: {fails: x}, restart: {unknown: y}}\n    then: [{at: 1m, answer: {restart: succeeded}}, {at: 2m, resolve: true}]\n    expect: {run: succeeded}\n")
            .replace("tests:\n", "")
            .replace("name: it", &format!("name: t{number}"))
    };
    let files: Vec<(String, String)> = (0..4)
        .map(|file| {
            (format!("{file}.test.yaml"), (0..250).fold("tests:\n".to_owned(), |text, number| text + &one(number)))
        })
        .collect();
    let home = home(&[("p.yaml", PLAYBOOK)]);
    for (name, text) in files {
        std::fs::write(home.path().join(name), text).unwrap();
    }
    let begun = std::time::Instant::now();
    let tested = stanch(&["test", &path(&home, "")]);
    assert_eq!((tested.exit, tested.out.contains("✔ 1000 tests in ")), (0, true), "{}", tested.out);
    // A debug build takes three times as long as a release build, of which 2 s are demanded.
    assert!(begun.elapsed() < std::time::Duration::from_secs(6), "{:?}", begun.elapsed());
}

#[test]
fn playbooks_may_lie_elsewhere() {
    let home = home(&[("p.yaml", PLAYBOOK)]);
    std::fs::create_dir(home.path().join("tests")).unwrap();
    let test = test_of("{inputs: {host: a}}", "    expect: {run: succeeded}\n");
    let file = path(&home, "tests/p.test.yaml");
    for (playbooks, exit) in [("..", 0), ("[../p.yaml]", 0), ("[../q.yaml]", 1), (".", 1)] {
        std::fs::write(&file, format!("playbooks: {playbooks}\n{test}")).unwrap();
        let tested = stanch(&["test", &file]);
        assert_eq!(tested.exit, exit, "{playbooks}: {}{}", tested.out, tested.err);
    }
}

#[test]
fn a_test_of_a_playbook_with_errors_says_so() {
    let broken = PLAYBOOK.replace("uses: exec", "uses: exce");
    let test = test_of("{inputs: {host: a}}", "    expect: {run: succeeded}\n");
    let home = home(&[("p.yaml", &broken), ("p.test.yaml", &test)]);
    let tested = stanch(&["test", &path(&home, "")]);
    assert_eq!(tested.exit, 1);
    assert!(
        tested.out.contains("the playbook p has errors") && tested.out.contains("stanch validate"),
        "{}",
        tested.out
    );
    let empty = stanch(&["test", &path(&self::home(&[]), "")]);
    assert_eq!((empty.exit, empty.err.contains("*.test.yaml")), (1, true), "{}", empty.err);
}

fn body(alertname: &str, env: &str, status: &str) -> String {
    serde_json::json!({"version": "4", "alerts": [{
        "status": status, "labels": {"alertname": alertname, "env": env, "host": "a\u{1b}[2J"}, "startsAt": "2026-11-21T01:00:00Z",
    }]})
    .to_string()
}

#[test]
fn explain_says_which_value_decided() {
    let home = home(&[("p.yaml", PLAYBOOK), ("broken.yaml", "playbook: b\n  x: 1\n")]);
    let directory = path(&home, "");
    for (body, expected) in [
        (body("Down", "prod", "firing"), vec!["✔ p\n", "takes it", "✔ if           alert.labels.host != 'x'  gives true", "alert.labels.host = \"a", "✔ p would start, incident down/a", "broken.yaml has errors"]),
        (body("Up", "dev", "firing"), vec!["- p\n", "✘ matcher  alertname=\"Down\"  saw \"Up\"", "✘ matcher  env=~\"prod|stage\"  saw \"dev\"", "no playbook of "]),
        (body("Down", "prod", "resolved"), vec!["leaves it; this is a resolved alert, which starts nothing"]),
        (r#"{"alerts": [{"status": "firing", "labels": {"alertname": "Down", "env": "prod"}, "startsAt": "2026-11-21T01:00:00Z"}]}"#.to_owned(), vec!["✘ p\n", "would become a dead letter", "✘ if       alert.labels.host != 'x'  no such key: host", "alert.labels.host has no value"]),
    ] {
        let explained = stanch_reading(&["explain", "--event", "-", "--playbooks", &directory], &body);
        assert_eq!(explained.exit, 0, "{}", explained.err);
        for expected in expected {
            assert!(explained.out.contains(expected), "{expected} is not in {}", explained.out);
        }
        assert!(!explained.out.contains('\u{1b}'), "{}", explained.out);
    }
    let message = stanch_reading(&["explain", "--event", "-", "--playbooks", &directory], "{\"x\": 1}");
    assert_eq!((message.exit, message.err.contains("--subject")), (1, true), "{}", message.err);
    let json = ["explain", "--event", "-", "--playbooks", &directory, "--subject", "a.b", "-o", "json"];
    let result: Value = serde_json::from_str(&stanch_reading(&json, "{\"x\": 1}").out).unwrap();
    assert_eq!(result["explained"][0]["playbooks"][0]["triggers"][0]["verdict"], "leaves", "{result:#}");
}

#[test]
fn plan_tells_what_is_known_beforehand_and_what_is_not() {
    let home = home(&[("p.yaml", PLAYBOOK)]);
    let planned = stanch_reading(&["plan", &path(&home, "p.yaml"), "--event", "-"], &body("Down", "prod", "firing"));
    assert_eq!(planned.exit, 0, "{}", planned.err);
    for expected in [
        "incident  down/a\\u{1b}[2J (P2): Down",
        "inputs    host = ",
        "headers: {\"A\":\"Bearer {{ secrets.edr }}\"}",
        "url: http://a",
        "[2J, {{ steps.probe.state }}",
        "up to 3 attempts of at most 2m, after 0s to 1s, 0s to 2s; at most 6m3s in all",
        "steps.probe.state != 'succeeded': known once it runs",
        "side effects, not idempotent",
        "unknown   a person is asked",
        "takes     at most 4h",
        "3 steps, 1 with side effects, 1 of these not idempotent; nothing was done",
    ] {
        assert!(planned.out.contains(expected), "{expected} is not in {}", planned.out);
    }
    assert!(!planned.out.contains('\u{1b}'), "{}", planned.out);
    let no = stanch_reading(&["plan", &path(&home, "p.yaml"), "--event", "-"], &body("Up", "prod", "firing"));
    assert_eq!((no.exit, no.err.contains("stanch explain")), (1, true), "{}", no.err);
    let by_hand = stanch(&["plan", "p", "--playbooks", &path(&home, ""), "-i", "host=b", "-o", "json"]);
    let result: Value = serde_json::from_str(&by_hand.out).unwrap();
    assert_eq!(result["steps"][1]["with"]["value"]["argv"], serde_json::json!(["./restart.sh", "b"]), "{result:#}");
    let wrong = stanch(&["plan", "q", "--playbooks", &path(&home, "")]);
    assert_eq!((wrong.exit, wrong.err.contains("there are p")), (1, true), "{}", wrong.err);
}

#[test]
fn a_playbook_is_drawn_in_every_form_and_nothing_else_is() {
    let home = home(&[("p.yaml", PLAYBOOK)]);
    let file = path(&home, "p.yaml");
    for (form, expected) in [
        ("ascii", "├─┬ contain\n  │ └─ restart  exec"),
        (
            "mermaid",
            "subgraph p1 [\"contain\"]\n    s1_0[\"restart<br/>exec<br/>if steps.probe.state #33;= 'succeeded'\"]",
        ),
        ("dot", "s1_0 [label=\"restart\\nexec\\nif steps.probe.state != 'succeeded'\"]"),
        ("svg", "if steps.probe.state != &apos;succeeded&apos;</text>"),
    ] {
        let drawn = stanch(&["graph", &file, "--format", form]);
        assert_eq!(drawn.exit, 0, "{}", drawn.err);
        assert!(drawn.out.contains(expected), "{form}: {}", drawn.out);
    }
    let output = path(&home, "p.svg");
    assert_eq!(stanch(&["graph", &file, "--format", "svg", "--output", &output]).exit, 0);
    assert!(std::fs::read_to_string(output).unwrap().ends_with("</svg>\n"));
    let unsuited = stanch(&["graph", &file, "-o", "json"]);
    assert_eq!((unsuited.exit, unsuited.err.contains("ascii, mermaid, dot, svg")), (2, true), "{}", unsuited.err);
    let before = stanch(&["-o", "json", "graph", &file]);
    assert_eq!((before.exit, before.err.contains("ascii, mermaid, dot or svg")), (2, true), "{}", before.err);
    assert_eq!(stanch(&["runs", "list", "-o", "svg"]).exit, 2);
}

#[test]
fn problems_are_written_for_other_tools() {
    let broken = PLAYBOOK.replace("uses: wait", "uses: wiat");
    let home = home(&[("a p.yaml", &broken), ("q.yaml", &PLAYBOOK.replace("playbook: p", "playbook: q"))]);
    let sarif = stanch(&["validate", &path(&home, ""), "--format", "sarif"]);
    let result: Value = serde_json::from_str(&sarif.out).unwrap();
    assert_eq!((sarif.exit, &result["version"]), (1, &"2.1.0".into()));
    let run = &result["runs"][0];
    assert_eq!(run["results"][0]["ruleId"], "unknown-action", "{result:#}");
    let place = &run["results"][0]["locations"][0]["physicalLocation"];
    assert!(place["artifactLocation"]["uri"].as_str().unwrap().ends_with("/a%20p.yaml"), "{place:#}");
    let region = &place["region"];
    assert_eq!((&region["startColumn"], &region["endColumn"]), (&17.into(), &21.into()), "{region:#}");
    assert_eq!(run["results"][1]["level"], "warning", "{result:#}");
    let github = stanch(&["validate", &path(&home, ""), "--format", "github"]);
    assert!(
        github.out.contains("::error file=")
            && github.out.contains("title=unknown-action::no action is named wiat%0Adid you mean wait?\n"),
        "{}",
        github.out
    );
    let warned = stanch(&["validate", &path(&home, "q.yaml")]);
    assert_eq!((warned.exit, warned.out.contains("side-effect-unguarded")), (0, true), "{}", warned.out);
    assert_eq!(stanch(&["validate", &path(&home, "q.yaml"), "--deny-warnings"]).exit, 1);
}

#[test]
fn the_shipped_playbooks_have_no_warnings() {
    let playbooks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../playbooks");
    let checked = stanch(&["validate", playbooks.to_str().unwrap(), "--deny-warnings"]);
    assert_eq!(checked.exit, 0, "{}", checked.out);
}

const CATALOGUE: &str = "actions:\n  release:\n    uses: http\n    inputs: {host: {type: string, required: true}}\n    \
    with: {method: PUT, url: \"https://edr.corp/{{ inputs.host }}/release\"}\n";

#[test]
fn a_catalogue_beside_the_playbooks_gives_its_names_a_meaning_everywhere() {
    let playbook = "playbook: p\ninputs: {host: {type: string, default: a}}\n\
        contain:\n  free: {uses: release, with: {host: \"{{ inputs.host }}\"}}\n";
    let test = test_of(
        "{inputs: {host: b}}",
        "    expect: {run: succeeded, calls: {free: {with: {url: \"https://edr.corp/b/release\"}}}}\n",
    );
    let home = home(&[("p.yaml", playbook), ("p.test.yaml", &test), ("x.catalogue.yaml", CATALOGUE)]);
    let (directory, file) = (path(&home, ""), path(&home, "p.yaml"));
    let checked = stanch(&["validate", &directory]);
    assert_eq!(checked.out, "✔ 1 playbook and 1 catalogue, no problems\n");
    for arguments in [
        &["validate", &file][..],
        &["test", &directory],
        &["plan", &file],
        &["plan", "p", "--playbooks", &directory],
        &["graph", &file],
    ] {
        let done = stanch(arguments);
        assert_eq!(done.exit, 0, "{arguments:?}: {}{}", done.out, done.err);
    }
    std::fs::write(home.path().join("x.catalogue.yaml"), "actions: {release: {uses: htp}}\n").unwrap();
    for path in [&directory, &file] {
        let checked = stanch(&["validate", path]);
        assert!(checked.exit == 1 && checked.out.contains("did you mean http?"), "{}", checked.out);
        assert!(checked.out.contains("1 error; what uses a catalogue"), "what is wrong is said once: {}", checked.out);
    }
}

#[test]
fn what_only_several_playbooks_together_show_has_its_place() {
    let parent = "playbook: parent\ncontain:\n  sub: {uses: playbook, with: {playbook: chidl}}\n";
    let child = "playbook: child\ndetect:\n  a: {uses: log, with: {message: x}}\n";
    let home = home(&[("parent.yaml", parent), ("child.yaml", child)]);
    let checked = stanch(&["validate", "--format", "github", &path(&home, "")]);
    assert_eq!(checked.exit, 1);
    assert!(checked.out.contains("line=3,col=3") && checked.out.contains("did you mean child?"), "{}", checked.out);
    let alone = stanch(&["validate", &path(&home, "parent.yaml")]);
    assert!(alone.exit == 0 && alone.out.contains("check its directory too"), "{}", alone.out);
}

#[test]
fn what_comes_in_is_captured_and_what_was_recorded_is_played_again() {
    let mut engine = Engine::start(&["good.yaml"]);
    let captured = engine.path("captured.json");
    let (mut capture, _) =
        engine.follow(&["events", "capture", "--matcher", "host=a", "--output", &captured, "--timeout", "30s"]);
    let alert = |host: &str, status: &str, ends: &str| {
        serde_json::json!({"alerts": [{"status": status, "labels": {"alertname": "Good", "host": host},
            "startsAt": "2026-11-21T01:00:00Z", "endsAt": ends}]})
        .to_string()
    };
    // The first ones may come before it listens; each is another alert to the engine.
    let mut attempt = 0;
    let captured_one = || {
        attempt += 1;
        engine.stanch_reading(&["emit", "-"], &alert(&format!("other-{attempt}"), "firing", ""));
        let body = alert("a", "firing", "").replace("\"Good\"", &format!("\"Good{attempt}\""));
        engine.stanch_reading(&["emit", "-"], &body);
        capture.try_wait().unwrap().is_some()
    };
    support::eventually("one is captured", captured_one, String::new);
    assert_eq!(capture.wait().unwrap().code(), Some(0));
    let body: Value = serde_json::from_str(&std::fs::read_to_string(&captured).unwrap()).unwrap();
    assert_eq!((&body["version"], &body["alerts"][0]["labels"]["host"]), (&"4".into(), &"a".into()), "{body:#}");
    let late = engine.stanch(&["events", "capture", "--subject", "a.b", "--timeout", "50ms"]);
    assert_eq!((late.exit, late.err.contains("nothing that is wanted came in")), (3, true), "{}", late.err);
    assert_eq!(engine.stanch(&["events", "capture", "--matcher", "="]).exit, 2);

    engine.stanch_reading(&["emit", "-"], &alert("z", "firing", ""));
    engine.stanch_reading(&["emit", "-"], &alert("z", "resolved", "2026-11-21T01:30:00Z"));
    let run = engine.stanch(&["run", "good", "--wait", "30s"]);
    assert_eq!(run.exit, 0, "{}", run.err);
    let export = engine.path("trail.jsonl");
    assert_eq!(engine.stanch(&["audit", "export", "--output", &export]).exit, 0);
    engine.terminate();
    let playbooks = engine.path("playbooks");
    for source in [export, engine.data()] {
        let same = stanch(&["test", "--replay", &source, "--playbooks", &playbooks]);
        assert_eq!((same.exit, same.out.contains("all would go as they did")), (0, true), "{}{}", same.out, same.err);
        let good = std::fs::read_to_string(support::fixture("good.yaml")).unwrap();
        let edited = home(&[("good.yaml", &good.replace("look at", "look hard at"))]);
        let other = stanch(&["test", "--replay", &source, "--playbooks", &path(&edited, "")]);
        let expected = "detect.look with.message: was \"look at db-01\", would be \"look hard at db-01\"";
        assert_eq!((other.exit, other.out.contains(expected)), (1, true), "{}{}", other.out, other.err);
    }
    let none = stanch(&["test", "--replay", &captured, "--playbooks", &playbooks]);
    assert_eq!((none.exit, none.err.contains("no export")), (1, true), "{}", none.err);
}

#[test]
fn the_examples_of_the_readme_hold() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let block = |holds: &str| {
        let blocks = readme.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        blocks.into_iter().find(|block| block.contains(holds)).unwrap().to_owned()
    };
    let home = home(&[("p.yaml", &block("playbook: instance-down\ndescription")), ("p.test.yaml", &block("tests:\n"))]);
    let directory = path(&home, "");
    let checked = stanch(&["validate", "--deny-warnings", &directory]);
    assert_eq!(checked.exit, 0, "{}", checked.out);
    let tested = stanch(&["test", &directory]);
    assert_eq!(tested.exit, 0, "{}", tested.out);
}

/// The playbook with all of the language, the one that it runs, and their tests.
fn whole() -> tempfile::TempDir {
    home(&[
        ("whole.yaml", include_str!("../../../playbook/tests/fixtures/whole-language.yaml")),
        ("rotate.yaml", include_str!("rotate-credentials.yaml")),
        ("whole.test.yaml", include_str!("whole-language.test.yaml")),
    ])
}

#[test]
fn the_whole_language_runs_through_its_tests() {
    let home = whole();
    let tested = stanch(&["test", &path(&home, ""), "--coverage"]);
    assert_eq!(tested.exit, 0, "{}{}", tested.out, tested.err);
}

#[test]
fn a_plan_tells_items_approvals_verifications_undos_and_sub_playbooks() {
    let home = whole();
    let labels =
        |host: &str| serde_json::json!({"alertname": "C2Beacon", "env": "prod", "cluster": "eu", "host": host});
    let firing = |host: &str| serde_json::json!({"status": "firing", "labels": labels(host), "startsAt": "2026-11-21T01:00:00Z"});
    let body = serde_json::json!({"alerts": [firing("web-1"), firing("web-2")]}).to_string();
    std::fs::write(home.path().join("beacon.json"), body).unwrap();
    let (directory, event) = (path(&home, ""), path(&home, "beacon.json"));
    let arguments = ["plan", "compromised-host", "--playbooks", &directory, "--event", &event];
    let told = stanch(&arguments);
    for expected in [
        "each of   inputs.hosts: 2 items, at most 4 at once",
        "needs     people's yes to approve",
        "targets   {\"data\":{},\"subject\":\"edr.isolate.web-1\"}",
        "{\"data\":{},\"subject\":\"edr.isolate.web-2\"}",
        "verify    http {\"url\":\"https://edr.corp/hosts/{{ item }}\"}, result.body.isolated == true, every 5s, within 2m",
        "undo      nats.request {\"subject\":\"edr.release.{{ item }}\"}; by itself after 8h",
        "about: [\"isolate\"]",
        "playbook: rotate-credentials",
        "inputs: {\"hosts\":[\"web-1\",\"web-2\"]}",
        "step: isolate",
    ] {
        assert!(told.out.contains(expected), "{expected} is not in {}", told.out);
    }
    let told = stanch(&[&arguments[..], &["-o", "json"]].concat());
    let told: Value = serde_json::from_str(&told.out).unwrap();
    let isolate = told["steps"].as_array().unwrap().iter().find(|step| step["step"] == "contain.isolate").unwrap();
    assert_eq!(isolate["targets"][1]["value"]["subject"], "edr.isolate.web-2");
    assert_eq!((&isolate["approvals"][0], &isolate["undo"]["after_seconds"]), (&"approve".into(), &28800.0.into()));
    let drawn = stanch(&["graph", "compromised-host", "--playbooks", &directory]);
    for expected in [
        "for each of inputs.hosts; verified by http; undone by nats.request after 8h",
        "asks group:sec-oncall",
        "playbook rotate-credentials",
        "undo isolate",
    ] {
        assert!(drawn.out.contains(expected), "{expected} is not in {}", drawn.out);
    }
}

#[test]
fn a_playbook_that_only_observes_is_explained_and_planned() {
    let home = home(&[("p.yaml", &PLAYBOOK.replace("inputs: {host: {type", "mode: observe\ninputs: {host: {type"))]);
    let body = r#"{"alerts": [{"status": "firing", "labels": {"alertname": "Down", "env": "prod", "host": "a"}, "startsAt": "2026-11-21T01:00:00Z"}]}"#;
    let (directory, event) = (path(&home, ""), path(&home, "down.json"));
    std::fs::write(home.path().join("down.json"), body).unwrap();
    let explained = stanch(&["explain", "--playbooks", &directory, "--event", &event]);
    assert!(explained.out.contains("p only observes, incident down/a"), "{}", explained.out);
    let told = stanch(&["plan", "p", "--playbooks", &directory, "--event", &event]);
    assert_eq!(told.exit, 0, "{}", told.err);
    assert!(told.out.contains("down/a (P") && told.out.contains("none of it is done"), "{}", told.out);
}

#[test]
fn what_people_do_in_a_test_must_be_possible() {
    let test = include_str!("whole-language.test.yaml").replace("groups: [sec-oncall]", "groups: [others]");
    let test = test.replace("{at: 1h, extend: {isolate: 10h}}", "{at: 1h, extend: {enrich: 10h}, freeze: look first}");
    let test = test.replace("inforce: [\"isolate[web-1]\", \"isolate[web-2]\"]", "inforce: [\"isolate[web-1]\"]");
    let test = test.replace("deny: {step: approve, reason: it is a test}", "deny: rotate");
    let home = whole();
    std::fs::write(home.path().join("whole.test.yaml"), test).unwrap();
    let tested = stanch(&["test", &path(&home, "")]);
    for expected in [
        "then.approve.approve at 3m",
        "then.deny.rotate at 1m",
        "expected a question\n      saw      nobody is asked",
        "then.extend.enrich at 1h",
        "expected something in force\n      saw      nothing is",
    ] {
        assert!(tested.out.contains(expected), "{expected} is not in {}", tested.out);
    }
    let test = "tests:\n  - name: it\n    playbook: compromised-host\n    event: {inputs: {hosts: [a]}}\n    \
        mocks: {isolate: {verify: {result: {body: {isolated: true}}}}, enrich: {result: {body: {score: 99}}}}\n    \
        expect: {steps: {rotate-credentails/rotate: failed, rotate-credentials/rotat: failed}}\n";
    std::fs::write(home.path().join("whole.test.yaml"), test).unwrap();
    let tested = stanch(&["test", &path(&home, "")]);
    for expected in ["did you mean rotate-credentials?", "did you mean rotate?"] {
        assert!(tested.out.contains(expected), "{expected} is not in {}", tested.out);
    }
}

#[test]
fn a_freeze_holds_side_effects_in_a_test_until_it_ends() {
    let playbook = "playbook: p\ncontain:\n  a: {uses: wait, with: {duration: 5m}}\n  \
        b: {needs: [a], uses: http, with: {method: PUT, url: \"http://x/\"}}\n";
    let test = test_of(
        "{inputs: {}}",
        "    then:\n      - {at: 1m, freeze: a release}\n      - {at: 10m, expect: {run: running, steps: {b: pending}}}\n      \
         - {at: 11m, unfreeze: true}\n    expect: {run: succeeded, calls: {b: 1}}\n",
    );
    let home = home(&[("p.yaml", playbook), ("p.test.yaml", &test)]);
    let tested = stanch(&["test", &path(&home, "")]);
    assert_eq!(tested.exit, 0, "{}", tested.out);
}

#[test]
fn a_freeze_and_maintenance_may_have_begun_before_the_event_comes() {
    let playbook = "playbook: p\ntriggers:\n  - alertmanager: {matchers: ['alertname=\"Down\"']}\n\
        contain:\n  b: {uses: http, with: {method: PUT, url: \"http://x/\"}}\n";
    let tests = test_of(
        DOWN,
        "    freeze: a release\n    then:\n      - {at: 10m, expect: {run: running, steps: {b: pending}}}\n      \
         - {at: 11m, unfreeze: true}\n    expect: {run: succeeded, calls: {b: 1}}\n",
    ) + "  - name: maintenance\n    playbook: p\n    event: {alert: {labels: {alertname: Down, host: a}}}\n    \
         maintenance: {matchers: ['host=\"a\"'], for: 1h, reason: switches}\n    then:\n      \
         - {at: 59m, expect: {run: queued}}\n    expect: {run: succeeded}\n  \
         - name: of other alerts\n    playbook: p\n    event: {alert: {labels: {alertname: Down, host: b}}}\n    \
         maintenance: [{matchers: ['host=\"a\"'], for: 1h}]\n    expect: {runs: 1, run: succeeded}\n  \
         - name: one that begins later holds what comes later\n    playbook: p\n    event: {alert: {labels: {alertname: Down, host: a}}}\n    \
         then:\n      - {at: 1m, maintenance: {matchers: ['host=\"c\"'], for: 1h, reason: x}, expect: {run: succeeded}}\n      \
         - {at: 2m, fire: {host: c}, expect: {runs: 2, run: queued}}\n    expect: {run: succeeded}\n";
    let home = home(&[("p.yaml", playbook), ("p.test.yaml", &tests)]);
    let tested = stanch(&["test", &path(&home, "")]);
    assert_eq!((tested.exit, tested.out.contains("4 tests")), (0, true), "{}", tested.out);
}

#[test]
fn a_person_of_a_test_decides_with_the_groups_that_the_file_says() {
    let playbook = "playbook: p\ncontain:\n  ask: {uses: approval, with: {prompt: ok, from: [group:sec]}}\n";
    let test = |people: &str, by: &str, expect: &str| {
        let rest = format!("    then: [{{at: 1m, approve: {{step: ask, by: {by}}}}}]\n    expect: {{{expect}}}\n");
        format!("{people}{}", test_of("{inputs: {}}", &rest))
    };
    let people = "people: {ann: {groups: [sec]}, bob: {}}\n";
    for (test, exit) in [
        (test(people, "ann", "run: succeeded"), 0),
        (test(people, "bob", "run: waiting, refused: bob is not among those asked"), 0),
        (test("", "ann", "run: succeeded"), 1),
        (test("", "{step: ask}", "run: succeeded"), 1),
    ] {
        let home = home(&[("p.yaml", playbook), ("p.test.yaml", &test)]);
        let tested = stanch(&["test", &path(&home, "")]);
        assert_eq!(tested.exit, exit, "{test}{}", tested.out);
    }
}

#[test]
fn an_awaited_event_is_emitted_by_a_test_and_items_take_answers() {
    let playbook = "playbook: p\ndetect:\n  closed: {uses: wait, with: {for: {nats: {subject: t.closed, if: \"event.data.n == 1\"}}}, timeout: 1d}\n\
        contain:\n  each: {foreach: \"['a', 2]\", uses: exec, with: {argv: [x, \"{{ item }}\"]}, accept: [side-effect-unguarded]}\n";
    let test = test_of(
        "{inputs: {}}",
        "    mocks: {each: {do: {unknown: reset}, items: {2: {}}}}\n    then:\n      \
         - {at: 1m, emit: {nats: {subject: t.closed, data: {n: 0}}}, expect: {run: waiting, steps: {closed: waiting}}}\n      \
         - {at: 2m, emit: {nats: {subject: t.closed, data: {n: 1}}}, expect: {items: {each: {a: unknown, 2: succeeded}}}}\n      \
         - {at: 3m, answer: {each: {a: succeeded}}}\n    expect: {run: succeeded, calls: {each: {item: 2, count: 1}}}\n",
    );
    let home = home(&[("p.yaml", playbook), ("p.test.yaml", &test)]);
    let tested = stanch(&["test", &path(&home, "")]);
    assert_eq!(tested.exit, 0, "{}", tested.out);
}

#[test]
fn a_question_that_too_few_agreed_to_in_time_expired_whatever_follows() {
    for (on_timeout, run) in [("deny", "failed"), ("approve", "succeeded")] {
        let playbook = format!(
            "playbook: p\ncontain:\n  ask: {{uses: approval, with: {{prompt: x, quorum: 2}}, timeout: 5m, on_timeout: {on_timeout}}}\n  \
             act: {{needs: [ask], uses: http, with: {{url: x, method: PUT}}}}\n"
        );
        let test = |then: &str, expect: &str| {
            format!("tests:\n  - {{name: n, playbook: p, event: {{inputs: {{}}}}, then: [{then}], expect: {expect}}}\n")
        };
        let (ann, bob) = ("{at: 1m, approve: {step: ask, by: ann}}", "{at: 2m, approve: {step: ask, by: bob}}");
        let denied = "{at: 2m, deny: {step: ask, by: bob}}";
        for (then, expect) in [
            (ann.to_owned(), format!("{{run: {run}, approvals: {{ask: {{state: expired}}}}}}")),
            (format!("{ann}, {bob}"), "{run: succeeded, approvals: {ask: {state: approved}}}".to_owned()),
            (format!("{ann}, {denied}"), "{run: failed, approvals: {ask: {state: denied}}}".to_owned()),
        ] {
            let home = home(&[("p.yaml", &playbook), ("p.test.yaml", &test(&then, &expect))]);
            let tested = stanch(&["test", &path(&home, "")]);
            assert_eq!(tested.exit, 0, "{then}: {}{}", tested.out, tested.err);
        }
    }
}

#[test]
fn what_people_are_told_by_itself_is_among_the_messages() {
    let asks = "playbook: p\nseverity: P0\ntriggers:\n  - alertmanager: {matchers: ['alertname=\"Down\"']}\ndetect:\n  ask:\n    \
                uses: approval\n    with: {prompt: Fail over?, escalate: [{after: 10m, people: ann}]}\n    timeout: 1h\n";
    let home = home(&[("p.yaml", asks)]);
    let test = test_of(
        "{alert: {labels: {alertname: Down}}}",
        r#"    then:
      - at: 4m
        expect:
          messages: ["P0 Down is open; 1 of 1 alerts fire, 1 runs are live, led by nobody: "]
          no_messages: ["Approval still needed", "within 5m"]
      - {at: 9m, expect: {no_messages: ["Approval still needed"], messages: ["nobody acknowledged it within 5m"]}}
      - {at: 14m, expect: {messages: ["Approval still needed: Fail over? (nobody decided within 10m)"]}}
      - {at: 15m, acknowledge: true}
      - {at: 20m, expect: {messages: ["P0 Down is open; 1 of 1 alerts fire, 1 runs are live, led by nobody"]}}
      - {at: 31m, expect: {messages: ["P0 Down is acknowledged; "]}, approve: ask}
    expect: {run: succeeded}
"#,
    );
    std::fs::write(home.path().join("p.test.yaml"), test).unwrap();
    let tested = stanch(&["test", &path(&home, "")]);
    assert_eq!(tested.exit, 0, "{}{}", tested.out, tested.err);
}

#[test]
fn the_tests_of_the_language_s_page_pass() {
    let home = home(&[
        ("a.yaml", include_str!("../../../playbook/src/reference/tested.yaml")),
        ("b.yaml", include_str!("../../../playbook/src/reference/triggers.yaml")),
        ("x.test.yaml", include_str!("../../../playbook/src/reference/tests.yaml")),
        ("ioc.json", r#"{"confidence": 90, "cluster": "eu", "host": "db-1"}"#),
    ]);
    let tested = stanch(&["test", &path(&home, "")]);
    assert_eq!(tested.exit, 0, "{}{}", tested.out, tested.err);
}
