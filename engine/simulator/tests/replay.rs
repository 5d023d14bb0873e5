//! Recorded runs, played again: nothing changes where nothing was edited, and what was edited is told.

use std::sync::Arc;

use serde_json::json;
use stanch_core::alert::AlertStatus;
use stanch_core::attempt::Purpose;
use stanch_core::command::{Person, Target};
use stanch_core::event::Event;
use stanch_core::record::{Actor, Answer, Verdict};
use stanch_core::{Assignment, Command, Outcome, Settings};
use stanch_playbook::{Plan, StepKey, load};
use stanch_simulator::Simulation;
use stanch_simulator::replay::{recorded, replay};

const PLAYBOOK: &str = "playbook: p\n\
    triggers:\n  - alertmanager: {matchers: ['alertname=\"X\"']}\n    inputs: {host: alert.labels.host}\n  - manual: {}\n\
    inputs: {host: {type: string, required: true}}\n\
    detect:\n  probe:\n    uses: http\n    with: {url: \"http://{{ inputs.host }}/{{ run.id }}\"}\n    outputs: {ok: result.status == 200}\n\
    contain:\n  act: {uses: exec, with: {argv: [act, \"{{ inputs.host }}\"]}}\n  \
    note: {needs: [act], if: \"steps.probe.outputs.ok\", uses: log, with: {message: \"{{ run.url }}\"}}\n\
    recover:\n  quiet: {uses: wait, with: {for: resolved, settle: 5m}, timeout: 1h}\n";

fn plan(text: &str) -> Arc<Plan> {
    Arc::new(load("p.yaml", text).expect("a good playbook").plan)
}

fn outcome(assignment: &Assignment) -> Outcome {
    match (assignment.attempt.step.as_str(), assignment.attempt.number) {
        ("detect.probe", 1) => {
            Outcome::Failed { error: "refused".to_owned(), output: None, retry_after: None, retryable: true }
        }
        ("detect.probe", _) => Outcome::Succeeded { output: json!({"status": 200}) },
        ("contain.act", _) => Outcome::Unknown { reason: "reset".to_owned() },
        _ => Outcome::Succeeded { output: json!({}) },
    }
}

/// A run of an alert: a retry, an unknown step that a person answers after an hour, a flap, and the end.
fn history() -> Simulation {
    let mut simulation = Simulation::new(vec![plan(PLAYBOOK)], Settings::default());
    let began = simulation.now;
    let labels = [("alertname", "X"), ("host", "a")];
    simulation.alert(&labels, began, AlertStatus::Firing);
    simulation.settle(&mut outcome).expect("it comes to rest");
    let run = *simulation.state.runs.keys().next().expect("a run is live");
    simulation.now = simulation.now.plus(std::time::Duration::from_secs(3600));
    let (actor, step) = (Actor::person("ann"), StepKey::new("contain.act"));
    let answer = Command::AnswerStep { actor, run, step, item: None, answer: Answer::Succeeded, note: String::new() };
    simulation.command(answer).expect("the step is unknown");
    while !simulation.in_flight.is_empty() {
        simulation.step(&mut outcome);
    }
    for (after, fires) in [(60, false), (120, true), (600, false)] {
        simulation.now = simulation.now.plus(std::time::Duration::from_secs(after));
        let ends_at = Some(simulation.now);
        let status = if fires { AlertStatus::Firing } else { AlertStatus::Resolved { ends_at } };
        simulation.alert(&labels, began, status);
    }
    simulation.settle(&mut outcome).expect("it comes to rest");
    simulation
}

fn by_hand() -> Simulation {
    let mut simulation = Simulation::new(vec![plan(PLAYBOOK)], Settings::default());
    let inputs = json!({"host": "b"}).as_object().cloned().unwrap_or_default();
    let event = Event {
        id: "1".into(),
        source: "api".into(),
        kind: "stanch.run.requested".into(),
        time: simulation.now,
        subject: None,
        data: json!({"host": "b"}),
    };
    let target = Target::Playbook { playbook: plan(PLAYBOOK).name.clone(), inputs };
    let command = Command::ReceiveEvent { actor: Actor::person("ann"), event: Arc::new(event), target };
    let run = simulation.command(command).expect("it fits").runs[0];
    simulation.settle(&mut outcome).expect("it comes to rest");
    simulation
        .command(Command::CancelRun { actor: Actor::person("ann"), run, reason: "enough".to_owned(), undo: false })
        .expect("it is live");
    simulation
}

/// What would change with this playbook, as one text.
#[track_caller]
fn changes(history: &Simulation, playbook: &str) -> String {
    let runs = recorded(history.records.clone()).expect("its own records fold");
    assert_eq!(runs.len(), 1);
    let changes = replay(&runs[0], &[plan(playbook)]);
    changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn what_was_not_edited_goes_as_it_did() {
    for history in [history(), by_hand()] {
        assert_eq!(changes(&history, PLAYBOOK), "");
    }
    assert_eq!(history().finished[0].state(), "succeeded");
    assert_eq!(by_hand().finished[0].state(), "cancelled");
}

#[test]
fn what_was_edited_is_told() {
    let history = history();
    for (from, to, expected) in [
        ("argv: [act,", "argv: [do,", "contain.act with.argv[0]: was \"act\", would be \"do\""),
        ("[act, \"{{", "[act, x, \"{{", "contain.act with.argv: was [\"act\",\"a\"], would be [\"act\",\"x\",\"a\"]"),
        ("http://{{", "https://{{", "detect.probe with.url: was \"http://a/"),
        (
            "contain:\n  act:",
            "contain:\n  new: {uses: http, with: {url: x}}\n  act:",
            "contain.new: was not there, would be succeeded (never tried; assumed to go well)",
        ),
        ("if: \"steps", "if: \"!steps", "contain.note: was succeeded, would be skipped"),
        (
            "\n  note: {needs: [act], if: \"steps.probe.outputs.ok\", uses: log, with: {message: \"{{ run.url }}\"}}",
            "",
            "contain.note: was succeeded, would be not there",
        ),
        ("timeout: 1h", "timeout: 10m", "run: was succeeded, would be failed"),
        (
            "detect:\n  probe:\n    uses: http\n",
            "detect:\n  probe:\n    uses: http\n    retry: {max_attempts: 1}\n",
            "attempts of probe: was 2 attempts, would be 1 attempt",
        ),
        ("uses: exec, ", "uses: exec, on_unknown: fail, ", "contain.act: was succeeded, would be failed (reset)"),
        ("alertname=\"X\"", "alertname=\"Y\"", "no run would start: no trigger takes the event"),
        ("alert.labels.host}", "alert.labels.hst}", "no run would start: playbook p: trigger 1: inputs.host: "),
        ("playbook: p\n", "playbook: q\n", "the playbook p is not there any more"),
    ] {
        assert!(PLAYBOOK.contains(from), "{from}");
        let told = changes(&history, &PLAYBOOK.replacen(from, to, 1));
        assert!(told.contains(expected), "{to}: {told}");
    }
}

#[test]
fn an_excerpt_is_refused() {
    let records = history().records;
    assert!(recorded(records[3..].to_vec()).is_err());
    assert!(recorded(Vec::new()).expect("nothing folds").is_empty());
}

const WHOLE: &str = "playbook: whole\n\
    inputs: {hosts: {type: list, default: [a, b]}}\n\
    contain:\n  on_failure: undo\n  ask: {uses: approval, with: {prompt: \"isolate {{ count inputs.hosts }}?\", from: [group:oncall]}, timeout: 1h}\n  \
    isolate:\n    needs: [ask]\n    foreach: inputs.hosts\n    uses: http\n    with: {method: POST, url: \"x/{{ item }}\"}\n    \
    verify: {uses: http, with: {url: \"look/{{ item }}\"}, until: result.status == 200, every: 5s, within: 1m}\n    \
    undo: {uses: http, with: {method: DELETE, url: \"x/{{ item }}\"}}\n\
    eradicate:\n  rotate: {uses: playbook, with: {playbook: child, inputs: {}}}\n\
    recover:\n  closed: {uses: wait, with: {for: {nats: {subject: closed}}}, timeout: 1d}\n  release: {needs: [closed], uses: undo, with: {step: isolate}}\n";
const CHILD: &str = "playbook: child\ndetect:\n  ask-too: {uses: approval, with: {prompt: sure?}, timeout: 1h}\n  \
    turn: {needs: [ask-too], uses: exec, with: {argv: [turn]}}\n";

/// A run in which people agree twice, a look fails once, an item is unknown, and an event is awaited.
fn whole() -> Simulation {
    let mut simulation = Simulation::new(vec![plan(WHOLE), plan(CHILD)], Settings::default());
    let now = simulation.now;
    let event = |source: &str, subject: Option<&str>| {
        let kind = "test".into();
        let (id, subject) = (source.into(), subject.map(Into::into));
        Arc::new(Event { id, source: source.into(), kind, time: now, subject, data: json!({}) })
    };
    let target = Target::Playbook { playbook: plan(WHOLE).name.clone(), inputs: serde_json::Map::new() };
    let command = Command::ReceiveEvent { actor: Actor::person("ann"), event: event("api", None), target };
    simulation.command(command).expect("it fits");
    let mut outcome = |assignment: &Assignment| match (assignment.attempt.purpose, assignment.attempt.number) {
        (Purpose::Verify, 1) => Outcome::Succeeded { output: json!({"status": 404}) },
        _ if assignment.attempt.item == Some(1) && assignment.attempt.purpose == Purpose::Undo => {
            Outcome::Failed { error: "busy".to_owned(), output: None, retry_after: None, retryable: false }
        }
        _ => Outcome::Succeeded { output: json!({"status": 200}) },
    };
    for _ in 0..2 {
        simulation.now = simulation.now.plus(std::time::Duration::from_secs(60));
        let asked = simulation.state.questions().next().expect("somebody is asked").2.asked.clone();
        let person = Person { name: "bob".to_owned(), groups: vec!["oncall".to_owned()], via: "test".to_owned() };
        let decided = Command::DecideApproval {
            actor: Actor::person("bob"),
            person,
            approval: asked.approval,
            verdict: Verdict::Approved,
            digest: asked.digest.to_string(),
            reason: String::new(),
        };
        simulation.command(decided).expect("bob may");
        for _ in 0..100 {
            let timer = simulation.state.next_timer().is_some_and(|at| at.since(simulation.now).as_secs() < 30);
            if simulation.in_flight.is_empty() && !timer {
                break;
            }
            simulation.step(&mut outcome);
        }
    }
    simulation.now = simulation.now.plus(std::time::Duration::from_secs(60));
    let closed = event("nats", Some("closed"));
    let target = Target::Subject("closed".to_owned());
    simulation.command(Command::ReceiveEvent { actor: Actor::source("nats"), event: closed, target }).expect("taken");
    simulation.settle(&mut outcome).expect("it comes to rest");
    simulation
}

#[test]
fn items_looks_undos_approvals_and_sub_playbooks_go_as_they_did() {
    let history = whole();
    assert!(history.finished.iter().any(|run| run.playbook.as_str() == "child" && run.state() == "succeeded"));
    let runs = recorded(history.records.clone()).expect("its own records fold");
    assert_eq!(runs.len(), 1, "a sub-playbook is part of its parent");
    let told = |whole: &str, child: &str| {
        let changes = replay(&runs[0], &[plan(whole), plan(child)]);
        changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(told(WHOLE, CHILD), "");
    let edited = told(&WHOLE.replace("DELETE, url: \"x/", "DELETE, url: \"y/"), CHILD);
    assert!(edited.contains("contain.isolate[1] undo.with.url: was \"x/b\", would be \"y/b\""), "{edited}");
    for (from, to, expected) in [
        ("isolate {{", "Isolate {{", "contain.ask.prompt: was \"isolate 2?\", would be \"Isolate 2?\""),
        (
            "from: [group:oncall]",
            "from: [group:oncall], allow_self: true",
            "contain.ask.allow_self: was false, would be true",
        ),
        (
            "from: [group:oncall]",
            "from: [group:oncall, dan]",
            "contain.ask.from: was [\"group:oncall\"], would be [\"group:oncall\",\"dan\"]",
        ),
        ("timeout: 1h}\n  isolate", "timeout: 2h}\n  isolate", "contain.ask.timeout: was \"1h\", would be \"2h\""),
        (
            "DELETE, url: \"x/{{ item }}\"}",
            "DELETE, url: \"x/{{ item }}\"}, after: 9h",
            "contain.isolate[0] undo.after: was null, would be \"9h\"",
        ),
        (
            "undo: {uses: http, with: {method: DELETE, url: \"x/{{ item }}\"}}",
            "undo: {uses: log, with: {message: x}}",
            "contain.isolate[0] undo.",
        ),
    ] {
        assert!(WHOLE.contains(from), "{from}");
        let edited = told(&WHOLE.replace(from, to), CHILD);
        assert!(edited.contains(expected), "{edited}");
    }
    let edited = told(WHOLE, &CHILD.replace("uses: exec", "if: \"int(run.id) == 1\", uses: exec"));
    assert!(edited.contains("eradicate.rotate: was succeeded, would be failed"), "{edited}");
}

#[test]
fn a_lower_quorum_is_told_though_the_run_goes_as_it_did() {
    let asks = "playbook: p\ndetect:\n  ask: {uses: approval, with: {prompt: sure?, quorum: 2}, timeout: 1h}\n";
    let mut simulation = Simulation::new(vec![plan(asks)], Settings::default());
    let (id, source, kind, time) = ("1".into(), "api".into(), "test".into(), simulation.now);
    let event = Arc::new(Event { id, source, kind, time, subject: None, data: json!({}) });
    let target = Target::Playbook { playbook: plan(asks).name.clone(), inputs: serde_json::Map::new() };
    let command = Command::ReceiveEvent { actor: Actor::person("ann"), event, target };
    simulation.command(command).expect("it fits");
    for name in ["bob", "eve"] {
        let asked = simulation.state.questions().next().expect("somebody is asked").2.asked.clone();
        let decided = Command::DecideApproval {
            actor: Actor::person(name),
            person: Person { name: name.to_owned(), groups: Vec::new(), via: "test".to_owned() },
            approval: asked.approval,
            verdict: Verdict::Approved,
            digest: asked.digest.to_string(),
            reason: String::new(),
        };
        simulation.command(decided).expect("both may");
    }
    assert_eq!(simulation.finished[0].state(), "succeeded");
    assert_eq!(changes(&simulation, asks), "");
    let told = changes(&simulation, &asks.replace("quorum: 2", "quorum: 1"));
    assert_eq!(told, "detect.ask.quorum: was 2, would be 1");
}
