//! What a run waits for: people's answers, other runs, events. One behaviour a test.

#![expect(clippy::unwrap_used, reason = "what helpers of tests cannot do fails the test")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use stanch_core::alert::AlertStatus;
use stanch_core::command::{Person, Target};
use stanch_core::event::Event;
use stanch_core::record::{Actor, ApprovalRequested, Verdict};
use stanch_core::run::Run;
use stanch_core::{Body, Command, Outcome, Receipt, Rejected, RunId, Settings};
use stanch_playbook::{PlaybookName, Timestamp};
use stanch_simulator::Simulation;

const FIRST: Timestamp = Timestamp::from_millis(1_789_999_000_000);

fn simulation(texts: &[&str]) -> Simulation {
    let load =
        |text: &&str| Arc::new(stanch_playbook::load("test.yaml", text).unwrap_or_else(|bad| panic!("{bad}")).plan);
    Simulation::new(texts.iter().map(load).collect(), Settings::default()).checking()
}

fn fire(simulation: &mut Simulation, host: &str) -> Receipt {
    simulation.alert(&[("alertname", "Down"), ("host", host)], FIRST, AlertStatus::Firing)
}

fn start(simulation: &mut Simulation, by: &str, playbook: &str) -> RunId {
    let event = Event {
        id: format!("{}", simulation.records.len()).into(),
        source: "test".into(),
        kind: "request".into(),
        time: simulation.now,
        subject: None,
        data: serde_json::Value::Null,
    };
    let target = Target::Playbook { playbook: PlaybookName::new(playbook), inputs: serde_json::Map::new() };
    let command = Command::ReceiveEvent { actor: Actor::person(by), event: Arc::new(event), target };
    simulation.command(command).unwrap().runs[0]
}

fn pass(simulation: &mut Simulation, seconds: u64) {
    simulation.now = simulation.now.plus(Duration::from_secs(seconds));
    simulation.command(Command::FireTimers).unwrap();
}

fn run(simulation: &Simulation, id: RunId) -> Arc<Run> {
    Arc::clone(simulation.run(id).unwrap())
}

fn asked(simulation: &Simulation) -> ApprovalRequested {
    let (_, _, question) = simulation.state.questions().next().expect("somebody is asked");
    question.asked.clone()
}

fn decide(simulation: &mut Simulation, name: &str, groups: &[&str], verdict: Verdict) -> Result<Receipt, Rejected> {
    let asked = asked(simulation);
    simulation.command(Command::DecideApproval {
        actor: Actor::person(name),
        person: Person {
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            via: "test".to_owned(),
        },
        approval: asked.approval,
        verdict,
        digest: asked.digest.to_string(),
        reason: "looked".to_owned(),
    })
}

fn finish_all(simulation: &mut Simulation) {
    while let Some(assignment) = simulation.in_flight.front().cloned() {
        simulation.finish(&assignment, Outcome::Succeeded { output: json!({"exit_code": 0, "status": 200}) }).unwrap();
    }
}

const ASKING: &str = r#"
playbook: careful
triggers:
  - alertmanager: {matchers: ['alertname="Down"']}
    key: down
contain:
  ask: {uses: approval, with: {prompt: "Isolate {{ count incident.alerts }}?", from: [ann, "group:oncall"], quorum: 2}, timeout: 15m, on_timeout: deny}
  isolate: {needs: [ask], foreach: "incident.alerts", uses: exec, with: {argv: [./isolate.sh, "{{ item.fingerprint }}"]}}
"#;

#[test]
fn an_approval_shows_the_exact_targets_and_takes_as_many_answers_as_it_needs() {
    let mut simulation = simulation(&[ASKING]);
    let id = fire(&mut simulation, "a").runs[0];
    let question = asked(&simulation);
    assert_eq!(&*question.prompt, "Isolate 1?");
    assert_eq!(*question.targets[0].with, json!([{"argv": ["./isolate.sh", "alertname=Down,host=a"]}]));
    decide(&mut simulation, "ann", &[], Verdict::Approved).unwrap();
    assert_eq!(run(&simulation, id).state(), "waiting");
    assert!(matches!(decide(&mut simulation, "ann", &[], Verdict::Approved), Err(Rejected::NotAllowed(_))));
    decide(&mut simulation, "bob", &["oncall"], Verdict::Approved).unwrap();
    assert_eq!(simulation.in_flight.len(), 1);
    finish_all(&mut simulation);
    assert_eq!(run(&simulation, id).state(), "succeeded");
}

#[test]
fn only_those_asked_decide_and_local_is_never_among_them() {
    let mut simulation = simulation(&[&ASKING.replace("[ann, \"group:oncall\"]", "[ann, zoe]")]);
    fire(&mut simulation, "a");
    for name in ["eve", "local"] {
        assert!(matches!(decide(&mut simulation, name, &["oncall"], Verdict::Approved), Err(Rejected::NotAllowed(_))));
    }
}

#[test]
fn an_approval_that_nobody_decides_tells_more_people_each_once_also_over_a_crash() {
    let escalate = ", escalate: [{after: 10m, people: [zoe]}, {after: 5m, people: ['group:leads']}]}, timeout: 15m";
    let text = ASKING.replace("}, timeout: 15m", escalate);
    let told = |simulation: &Simulation| -> Vec<(u32, Vec<String>)> {
        let of = |record: &stanch_core::Record| match &record.body {
            Body::ApprovalEscalated(body) => Some((body.level, body.people.clone())),
            _ => None,
        };
        simulation.records.iter().filter_map(of).collect()
    };
    let leads = [(1, vec!["group:leads".to_owned()])];
    let both = [leads[0].clone(), (2, vec!["zoe".to_owned()])];
    let mut simulation = simulation(&[&text]);
    let id = fire(&mut simulation, "a").runs[0];
    pass(&mut simulation, 299);
    assert_eq!(told(&simulation), []);
    pass(&mut simulation, 1);
    assert_eq!(told(&simulation), leads);
    simulation.crash();
    pass(&mut simulation, 299);
    assert_eq!(told(&simulation), leads);
    // One of the two who must agree does: the question is still open.
    decide(&mut simulation, "ann", &[], Verdict::Approved).unwrap();
    let mut decided = simulation.clone();
    decide(&mut decided, "bob", &["oncall"], Verdict::Approved).unwrap();
    pass(&mut decided, 600);
    assert_eq!(told(&decided), leads, "what is decided is not escalated");
    pass(&mut simulation, 1);
    assert_eq!(told(&simulation), both);
    pass(&mut simulation, 300);
    assert_eq!((told(&simulation).len(), run(&simulation, id).state()), (2, "failed"));
    // After a long stop everybody is told at once; of what is over by then nobody is.
    for (seconds, expected) in [(700, vec![(2, vec!["group:leads".to_owned(), "zoe".to_owned()])]), (1000, vec![])] {
        let mut simulation = self::simulation(&[&text]);
        fire(&mut simulation, "a");
        pass(&mut simulation, seconds);
        assert_eq!(told(&simulation), expected);
    }
}

#[test]
fn one_who_denies_is_enough_and_nothing_runs() {
    let mut simulation = simulation(&[ASKING]);
    let id = fire(&mut simulation, "a").runs[0];
    decide(&mut simulation, "ann", &[], Verdict::Denied).unwrap();
    let run = run(&simulation, id);
    assert_eq!((run.state(), simulation.dispatched.len()), ("failed", 0));
    assert_eq!(&**run.steps[0].state.error().unwrap(), "denied by person:ann: looked");
}

#[test]
fn nobody_in_time_denies_and_where_the_playbook_says_so_approves() {
    for (word, expected) in [("deny", 0), ("approve", 1)] {
        let mut simulation = simulation(&[&ASKING.replace("on_timeout: deny", &format!("on_timeout: {word}"))]);
        fire(&mut simulation, "a");
        simulation.crash();
        pass(&mut simulation, 15 * 60);
        assert_eq!(simulation.dispatched.len(), expected, "{word}");
    }
}

#[test]
fn an_answer_to_targets_that_have_changed_is_refused_and_people_are_asked_again() {
    let mut simulation = simulation(&[ASKING]);
    let id = fire(&mut simulation, "a").runs[0];
    let before = asked(&simulation);
    fire(&mut simulation, "b");
    let receipt = decide(&mut simulation, "ann", &[], Verdict::Approved).unwrap();
    assert_eq!(receipt.refused, Some(Rejected::OtherTargets(before.approval)));
    let after = asked(&simulation);
    assert_eq!((after.replaces, &*after.prompt), (Some(before.approval), "Isolate 2?"));
    decide(&mut simulation, "ann", &[], Verdict::Approved).unwrap();
    decide(&mut simulation, "bob", &["oncall"], Verdict::Approved).unwrap();
    finish_all(&mut simulation);
    assert_eq!(run(&simulation, id).state(), "succeeded");
    assert_eq!(simulation.dispatched.len(), 2);
}

#[test]
fn whoever_started_the_run_does_not_approve_it_unless_allowed() {
    let text = |allow: &str| {
        format!("playbook: p\ncontain:\n  ask: {{uses: approval, with: {{prompt: ok{allow}}}, timeout: 5m}}\n")
    };
    let mut one = simulation(&[&text("")]);
    start(&mut one, "ann", "p");
    assert!(matches!(decide(&mut one, "ann", &[], Verdict::Approved), Err(Rejected::NotAllowed(_))));
    decide(&mut one, "bob", &[], Verdict::Approved).unwrap();
    let mut other = simulation(&[&text("?', allow_self: true").replace("prompt: ok?", "prompt: 'ok?")]);
    start(&mut other, "ann", "p");
    decide(&mut other, "ann", &[], Verdict::Approved).unwrap();
}

const PARENT: &str = "playbook: parent\ndetect:\n  go: {uses: playbook, with: {playbook: child, inputs: {n: '{{ run.playbook }}'}}, timeout: 1h, outputs: {state: result.steps.work.outputs.code}}\n  after: {needs: [go], uses: log, with: {message: '{{ steps.go.outputs.state }}'}}\n";
const CHILD: &str = "playbook: child\ninputs: {n: {type: string, required: true}}\ndetect:\n  work: {uses: exec, with: {argv: [./work.sh, '{{ inputs.n }}']}, outputs: {code: result.exit_code}}\n";

#[test]
fn a_sub_playbook_runs_in_the_same_incident_and_gives_its_outputs() {
    let mut simulation = simulation(&[PARENT, CHILD]);
    let id = start(&mut simulation, "ann", "parent");
    assert_eq!(simulation.in_flight[0].with["argv"][1], "parent");
    simulation.crash();
    let child = simulation.state.runs.values().find(|run| run.parent.is_some()).unwrap().clone();
    assert_eq!((child.incident, run(&simulation, id).state()), (run(&simulation, id).incident, "waiting"));
    let answer = Command::AnswerStep {
        actor: Actor::person("ann"),
        run: child.id,
        step: stanch_playbook::StepKey::new("detect.work"),
        item: None,
        answer: stanch_core::record::Answer::Retry,
        note: String::new(),
    };
    simulation.command(answer).unwrap();
    finish_all(&mut simulation);
    assert_eq!((run(&simulation, child.id).state(), run(&simulation, id).state()), ("succeeded", "succeeded"));
    assert_eq!(simulation.dispatched.last().unwrap().with["message"], "0");
}

#[test]
fn a_sub_playbook_is_pinned_with_its_parent() {
    let mut simulation = simulation(&[PARENT, CHILD]);
    let pausing = PARENT
        .replace("detect:\n", "detect:\n  pause: {uses: wait, with: {duration: 1m}}\n")
        .replace("go: {", "go: {needs: [pause], ");
    let load = |text: &str| Arc::new(stanch_playbook::load("test.yaml", text).unwrap().plan);
    let plans = vec![load(&pausing), load(CHILD)];
    simulation.command(Command::LoadPlaybooks { plans, keep: Vec::new() }).unwrap();
    start(&mut simulation, "ann", "parent");
    let plans = vec![load(&pausing), load(&CHILD.replace("./work.sh", "./other.sh"))];
    simulation.command(Command::LoadPlaybooks { plans, keep: Vec::new() }).unwrap();
    pass(&mut simulation, 60);
    assert_eq!(simulation.in_flight[0].with["argv"][0], "./work.sh");
}

#[test]
fn a_failed_sub_playbook_fails_its_step_and_a_late_one_is_cancelled() {
    let mut one = simulation(&[PARENT, CHILD]);
    let id = start(&mut one, "ann", "parent");
    let assignment = one.in_flight[0].clone();
    one.finish(&assignment, Outcome::Failed { error: "no".into(), output: None, retry_after: None, retryable: false })
        .unwrap();
    assert_eq!(run(&one, id).state(), "failed");
    let mut late = simulation(&[PARENT, CHILD]);
    let id = start(&mut late, "ann", "parent");
    let child = late.state.runs.values().find(|run| run.parent.is_some()).unwrap().id;
    pass(&mut late, 3600);
    assert_eq!(run(&late, id).state(), "waiting", "the other run is told to end and has not yet");
    finish_all(&mut late);
    assert_eq!((run(&late, child).state(), run(&late, id).state()), ("cancelled", "failed"));
}

#[test]
fn cancelling_a_run_cancels_the_one_it_waits_for() {
    let mut simulation = simulation(&[PARENT, CHILD]);
    let id = start(&mut simulation, "ann", "parent");
    let child = simulation.state.runs.values().find(|run| run.parent.is_some()).unwrap().id;
    let cancel = Command::CancelRun { actor: Actor::person("ann"), run: id, reason: "enough".into(), undo: false };
    simulation.command(cancel).unwrap();
    finish_all(&mut simulation);
    assert_eq!((run(&simulation, id).state(), run(&simulation, child).state()), ("cancelled", "cancelled"));
}

#[test]
fn a_wait_for_an_event_takes_the_one_that_its_condition_names() {
    let text = "playbook: p\ntriggers:\n  - alertmanager: {matchers: ['alertname=\"Down\"']}\n    inputs: {host: alert.labels.host}\ninputs: {host: {type: string, required: true}}\ndetect:\n  scan: {uses: wait, with: {for: {nats: {subject: 'scan.*', if: \"event.data.host == inputs.host\"}}}, timeout: 1h, outputs: {verdict: result.data.verdict}}\n  tell: {needs: [scan], uses: log, with: {message: '{{ steps.scan.outputs.verdict }}'}}\n";
    let mut simulation = simulation(&[text]);
    let id = fire(&mut simulation, "a").runs[0];
    let mut send = |host: &str, number: u32| {
        let event = Event {
            id: format!("{number}").into(),
            source: "scanner".into(),
            kind: "scan".into(),
            time: simulation.now,
            subject: None,
            data: json!({"host": host, "verdict": format!("clean {number}")}),
        };
        let target = Target::Subject("scan.done".to_owned());
        simulation
            .command(Command::ReceiveEvent { actor: Actor::source("nats"), event: Arc::new(event), target })
            .unwrap();
        simulation.in_flight.len()
    };
    assert_eq!((send("b", 1), send("a", 2)), (0, 1));
    assert_eq!(simulation.in_flight[0].with["message"], "clean 2");
    finish_all(&mut simulation);
    assert_eq!(run(&simulation, id).state(), "succeeded");
}

#[test]
fn a_question_shows_what_would_be_done_once_it_is_answered() {
    let text = r#"
playbook: careful
triggers:
  - alertmanager: {matchers: ['alertname="Down"']}
contain:
  ask: {uses: approval, with: {prompt: "Really?", from: [ann]}, timeout: 15m}
  first: {needs: [ask], if: "steps.ask.state == 'succeeded'", uses: exec, with: {argv: [./first.sh]}}
  then: {needs: [ask, first], if: "steps.first.state == 'succeeded'", uses: exec, with: {argv: [./then.sh]}}
  never: {needs: [ask], if: "alert.labels.host == 'z'", uses: exec, with: {argv: [./never.sh]}}
"#;
    let mut simulation = simulation(&[text]);
    let id = fire(&mut simulation, "a").runs[0];
    let shown: Vec<String> = asked(&simulation).targets.iter().map(|target| target.step.to_string()).collect();
    assert_eq!(shown, ["contain.first", "contain.then"], "and nothing that certainly is not done");
    decide(&mut simulation, "ann", &[], Verdict::Approved).unwrap();
    assert!(simulation.state.questions().next().is_none(), "one answer is enough");
    finish_all(&mut simulation);
    assert_eq!(run(&simulation, id).state(), "succeeded");
}
