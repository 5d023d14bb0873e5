//! Test files: what is read, and that every mistake has its place and remedy.

use std::time::Duration;

use stanch_playbook::load_tests;
use stanch_playbook::test_file::{EventSpec, Happening, MockOutcome, Want, names};

const HEAD: &str = "tests:\n  - name: n\n    playbook: p\n    event: {inputs: {}}\n";

#[track_caller]
fn refused(text: &str) -> String {
    load_tests("x.test.yaml", text).expect_err("it is refused").to_string()
}

#[test]
fn a_test_is_read_with_its_places() {
    let text = "tests:\n  - name: n\n    playbook: p\n    event: {nats: {subject: a.b, data: {x: 1}}}\n    mocks:\n      \
                one: {fails: no}\n      two: [{unknown: reset, takes: 3s}, {result: {a: 1}}, {}]\n    then:\n      \
                - {at: 5m, resolve: true}\n      - {at: 0s, answer: {two: retry}, expect: {run: waiting}}\n    expect:\n      \
                run: failed\n      calls: {one: 2}\n      order: [one, two]\n";
    let file = load_tests("x.test.yaml", text).unwrap();
    let test = &file.tests[0];
    assert!(matches!(&test.event, EventSpec::Nats { subject, .. } if subject == "a.b"));
    assert!(matches!(
        &test.mock("p", "contain.one").unwrap().own.attempts[0].outcome,
        MockOutcome::Fails { retryable: true, .. }
    ));
    let two = &test.mock("p", "contain.two").unwrap().own;
    assert_eq!((two.attempts.len(), two.attempts[0].takes), (3, Duration::from_secs(3)));
    assert_eq!(two.attempts[2].outcome, MockOutcome::Succeeds(None));
    let moments: Vec<_> = test.then.iter().map(|moment| moment.at.as_secs()).collect();
    assert_eq!(moments, [0, 300], "moments are sorted");
    assert!(matches!(&test.then[0].happens[0], Happening::Answer { answer: "retry", .. }));
    assert_eq!((test.expect[0].place.line(), test.expect[0].place.column()), (12, 7));
    assert_eq!(test.expect[0].want, Want::Run("failed"));
    assert_eq!(test.expect[1].path, "expect.calls.one");
}

#[test]
fn every_mistake_has_its_place_and_remedy() {
    for (rest, expected) in [
        (
            "    expct: {run: failed}\n",
            "x.test.yaml:5:5: error[unknown-key]: unknown key \"expct\" in a test; did you mean expect?",
        ),
        ("    expect: {}\n", "error[wrong-value]: nothing is expected"),
        ("    expect: {run: failed}\n    maintenance: {for: 1h}\n", "matchers is missing; add matchers: ['cluster="),
        ("    expect: {run: failed}\n    maintenance: {matchers: ['a=\"b\"']}\n", "for is missing; add for: 2h"),
        ("    expect: {run: failed}\n    maintenance: {matchers: ['a'], for: 1h}\n", "error[bad-matcher]"),
        ("    expect: {run: failed}\n    freeze: [a]\n", "error[wrong-type]"),
        ("    expect: {run: failed}\n    then: [{at: 1m, maintenance: {matchers: x, fro: 1h}}]\n", "did you mean for?"),
        ("    expect: {run: done}\n", "x.test.yaml:5:19: error[wrong-value]: \"done\" is not one of"),
        ("    expect: {steps: {a: succeded}}\n", "did you mean succeeded?"),
        ("    expect: {steps: [a]}\n", "steps must be a map, not a list"),
        ("    expect: {calls: {a: {wit: {}}}}\n", "unknown key \"wit\" in the calls of a step; did you mean with?"),
        ("    expect: {runs: -1}\n", "expected a whole number from 0"),
        ("    expect: {run: failed}\n    start: yesterday\n", "\"yesterday\" is no time; write it as 2026"),
        ("    expect: {run: failed}\n    mocks: {a: []}\n", "the mocks of a are empty"),
        ("    expect: {run: failed}\n    mocks: {a: {fails: x, unknown: y}}\n", "fails or is unknown, not both"),
        ("    expect: {run: failed}\n    mocks: {a: {unknown: y, result: 1}}\n", "an unknown attempt has no result"),
        ("    expect: {run: failed}\n    mocks: {a: {retryable: true}}\n", "retryable stands beside fails"),
        ("    expect: {run: failed}\n    mocks: {a: {do: {}, fails: x}}\n", "fails and do say the same thing"),
        ("    expect: {run: failed}\n    mocks: {a: {verify: []}}\n", "the mocks of verify are empty"),
        ("    expect: {run: failed}\n    mocks: {a: {undo: {fials: x}}}\n", "did you mean fails?"),
        ("    expect: {run: failed}\n    mocks: {a: {items: {h: {items: {}}}}}\n", "unknown key \"items\" in a mock"),
        ("    expect: {run: failed}\n    mocks: {a: {items: [h]}}\n", "items must be a map"),
        ("    expect: {run: failed}\n    then: [{at: 1m, approve: {by: ann}}]\n", "step is missing"),
        ("    expect: {run: failed}\n    then: [{at: 1m, deny: {step: a, grops: [b]}}]\n", "did you mean groups?"),
        ("    expect: {run: failed}\n    then: [{at: 1m, extend: {a: soon}}]\n", "soon"),
        ("    expect: {run: failed}\n    then: [{at: 1m, undo_all: true}]\n", "undo_all stands beside cancel"),
        ("    expect: {run: failed}\n    then: [{at: 1m, unfreeze: false}]\n", "only true means something here"),
        (
            "    expect: {run: failed}\n    then: [{at: 1m, answer: {a: {h: maybe}}}]\n",
            "\"maybe\" is not one of succeeded",
        ),
        ("    expect: {approvals: {a: {promt: x}}}\n", "did you mean prompt?"),
        ("    expect: {approvals: {a: {state: asked}}}\n", "\"asked\" is not one of open"),
        ("    expect: {items: {a: succeeded}}\n", "the items of a step must be a map"),
        ("    expect: {inforce: {a: b}}\n", "inforce must be a list"),
        ("    expect: {calls: {a: {purpose: redo}}}\n", "\"redo\" is not one of do, verify, undo"),
        ("    expect: {run: failed}\n    then: [{resolve: true}]\n", "the moment has no time; add at: 5m"),
        ("    expect: {run: failed}\n    then: [{at: 1m}]\n", "nothing happens at this moment"),
        ("    expect: {run: failed}\n    then: [{at: 1m, crash: false}]\n", "only true means something here"),
        ("    expect: {run: failed}\n    then: [{at: 1m, answer: {a: yes}}]\n", "\"yes\" is not one of succeeded"),
    ] {
        let found = refused(&format!("{HEAD}{rest}"));
        assert!(found.contains(expected), "{rest}: {found}");
    }
    for (text, expected) in [
        ("", "the file is empty; tests begin with: tests:"),
        ("tests: []\n---\ntests: []\n", "this is a second document"),
        ("tests: {}\n", "tests must be a list"),
        ("a: 1\n", "a test file holds tests"),
        ("tests:\n  - {name: n}\n", "the test has no event"),
        (
            "tests:\n  - {event: {alert: {labels: {}}, inputs: {}}}\n",
            "an event is one thing; this one is alert and inputs",
        ),
        ("tests:\n  - {event: {subject: x}}\n", "does not say what comes in"),
        ("tests:\n  - {event: {inputs: {}, subject: x}}\n", "subject stands beside file"),
        ("tests:\n  - {event: {alert: {}}}\n", "the alert has no labels"),
        ("tests:\n  - {event: {nats: {}}}\n", "subject is missing"),
    ] {
        assert!(refused(text).contains(expected), "{text}: {}", refused(text));
    }
    let twice = format!("{HEAD}    expect: {{run: none}}\n{}    expect: {{run: none}}\n", &HEAD[7..]);
    assert!(refused(&twice).contains("a test named \"n\" is already in line 2"), "{}", refused(&twice));
}

#[test]
fn names_that_no_playbook_has_are_found() {
    let playbook = "playbook: p\ndetect:\n  probe: {uses: log, with: {message: x}}\n";
    let plan = stanch_playbook::load("p.yaml", playbook).unwrap().plan;
    let text = format!(
        "{HEAD}    mocks: {{prob: {{}}}}\n    then: [{{at: 1m, answer: {{detect.probe: failed}}}}]\n    expect: {{order: [probe, x]}}\n"
    );
    let file = load_tests("x.test.yaml", &text).unwrap();
    let found: Vec<String> =
        file.check_names(|name| (name == "p").then_some(&plan), &["p"]).iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("x.test.yaml:5:13: error[unknown-step]: p has no step \"prob\"; did you mean probe?"));
    let found = file.check_names(|_| None, &["pp"]);
    assert_eq!(
        found[0].to_string(),
        "x.test.yaml:3:15: error[unknown-playbook]: no playbook is named p; did you mean pp?"
    );
    assert!(names("probe", "detect.probe") && names("detect.probe", "detect.probe") && !names("be", "detect.probe"));
}

#[test]
fn people_stand_at_the_top_and_nobody_joins_a_group_silently() {
    let decided = |people: &str, decision: &str| {
        let text = format!("{people}{HEAD}    then: [{{at: 1m, approve: {decision}}}]\n    expect: {{run: failed}}\n");
        load_tests("x.test.yaml", &text).map_err(|told| told.to_string()).map(|file| {
            match &file.tests[0].then[0].happens[0] {
                Happening::Decide(decision) => decision.groups.clone(),
                other => panic!("{other:?}"),
            }
        })
    };
    let people = "people: {ann: {groups: [sec]}, bob: {}}\n";
    let groups = |groups: &[&str]| Ok(Some(groups.iter().map(|group| (*group).to_owned()).collect::<Vec<_>>()));
    assert_eq!(decided(people, "{step: a, by: ann}"), groups(&["sec"]));
    assert_eq!(decided(people, "{step: a, by: bob}"), groups(&[]));
    assert_eq!(decided(people, "{step: a, by: ann, groups: [other]}"), groups(&["other"]));
    assert_eq!(decided("", "{step: a, by: ann}"), groups(&[]));
    assert_eq!(decided("", "a"), Ok(None), "whoever may");
    let unknown = decided(people, "{step: a, by: anna}").unwrap_err();
    assert!(unknown.contains("error[unknown-person]: people of this file has no anna; did you mean ann?"), "{unknown}");
    for (people, expected) in [
        ("people: [ann]\n", "people must be a map, not a list"),
        ("people: {ann: {group: [a]}}\n", "unknown key \"group\" in a person; did you mean groups?"),
        ("people: {ann: [sec]}\n", "a person must be a map, not a list"),
    ] {
        let told = decided(people, "a").unwrap_err();
        assert!(told.contains(expected), "{told}");
    }
}

#[test]
fn a_file_holds_more_than_a_thousand_tests_and_says_where_its_end_is() {
    let one = |number: usize| {
        HEAD.replace("tests:\n", "").replace("name: n", &format!("name: n{number}"))
            + "    expect: {run: failed, steps: {a: failed, b: skipped}, calls: {a: {count: 1, with: {x: y}}}}\n"
    };
    let text = |count: usize| (0..count).fold("tests:\n".to_owned(), |text, number| text + &one(number));
    assert_eq!(load_tests("x.test.yaml", &text(2_000)).unwrap().tests.len(), 2_000);
    let many = format!("x: &x [{}]\ny: [{}]\n", "1,".repeat(1_000), "*x,".repeat(300));
    let told = refused(&many);
    assert!(told.contains("more than 200000 values, aliases followed; split the file"), "{told}");
}

#[test]
fn a_merge_key_is_told_once_and_as_in_playbooks() {
    let text = "tests:\n  - &base\n    name: n\n    playbook: p\n    event: {inputs: {}}\n    expect: {run: succeeded}\n  - <<: *base\n    \
                name: m\n    playbook: p\n    event: {inputs: {}}\n    expect: {run: failed}\n";
    assert_eq!(
        refused(text),
        "x.test.yaml:7:5: error[merge-key]: merge keys (<<) are not part of the language; write the keys out, or give a whole value an \
         anchor (&name) and repeat it (*name)"
    );
}
