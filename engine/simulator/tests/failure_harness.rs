//! For every shipped playbook: fail each step, repeat each step, restart after each append.

#![expect(clippy::unwrap_used, reason = "what helpers of tests cannot do fails the test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use stanch_core::alert::{AlertChange, AlertStatus};
use stanch_core::command::Target;
use stanch_core::event::Event;
use stanch_core::record::{Actor, Answer};
use stanch_core::run::{Run, StepState};
use stanch_core::{Assignment, Body, Command, Outcome, Settings};
use stanch_playbook::matcher::Matcher;
use stanch_playbook::{Phase, Plan, Timestamp, TriggerOn};
use stanch_simulator::{Simulation, check_history};

/// Every shipped playbook, by file.
fn shipped() -> Vec<(PathBuf, Arc<Plan>)> {
    let mut found = Vec::new();
    let mut pending = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../playbooks")];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.to_string_lossy().into_owned();
            if path.is_dir() {
                pending.push(path);
            } else if name.ends_with(".yaml") && !name.ends_with(".test.yaml") && !name.ends_with(".catalogue.yaml") {
                let text = std::fs::read_to_string(&path).unwrap();
                let plan = stanch_playbook::load(&name, &text).unwrap_or_else(|bad| panic!("{bad}")).plan;
                found.push((path, Arc::new(plan)));
            }
        }
    }
    found.sort_by(|(left, _), (right, _)| left.cmp(right));
    assert!(!found.is_empty(), "no shipped playbooks");
    found
}

/// Sends what starts the playbook, as its sender would, again and again until it is acknowledged.
fn trigger(simulation: &mut Simulation, plan: &Plan) {
    let at = Timestamp::from_millis(1_789_999_000_000);
    let Some((index, trigger)) = plan.triggers.iter().enumerate().next() else {
        return request(simulation, plan, at);
    };
    match &trigger.on {
        TriggerOn::Alertmanager(matchers) => {
            let alert = Arc::new(alert_for(matchers, at));
            let changes = vec![AlertChange { alert, status: AlertStatus::Firing }];
            simulation.command(Command::ReceiveAlerts { actor: Actor::source("sim"), changes }).unwrap();
        }
        TriggerOn::Nats { subject } => {
            let subject = subject.replace(['*', '>'], "any");
            let event = Event {
                id: "1".into(),
                source: "sim".into(),
                kind: "sim.event".into(),
                time: at,
                subject: Some(subject.as_str().into()),
                data: data(),
            };
            let target = Target::Subject(subject);
            simulation
                .command(Command::ReceiveEvent { actor: Actor::source("sim"), event: Arc::new(event), target })
                .unwrap();
        }
        TriggerOn::Schedule(_) => {
            let event = Arc::new(Event::of_tick(&plan.name, index, at));
            let target = Target::Trigger { playbook: plan.name.clone(), trigger: index };
            simulation.command(Command::ReceiveEvent { actor: Actor::source("schedule"), event, target }).unwrap();
        }
        TriggerOn::Manual => request(simulation, plan, at),
    }
}

fn request(simulation: &mut Simulation, plan: &Plan, time: Timestamp) {
    let sample = |kind| match kind {
        stanch_playbook::plan::InputType::String => json!("sample"),
        stanch_playbook::plan::InputType::Bool => json!(true),
        stanch_playbook::plan::InputType::Int | stanch_playbook::plan::InputType::Number => json!(1),
        stanch_playbook::plan::InputType::List => json!(["sample"]),
        stanch_playbook::plan::InputType::Map => json!({}),
    };
    let needed = plan.inputs.iter().filter(|(_, spec)| spec.default.is_none());
    let inputs = needed.map(|(name, spec)| (name.clone(), sample(spec.kind))).collect();
    let event = Event {
        id: "request".into(),
        source: "sim".into(),
        kind: "stanch.run.requested".into(),
        time,
        subject: None,
        data: json!({}),
    };
    let target = Target::Playbook { playbook: plan.name.clone(), inputs };
    simulation.command(Command::ReceiveEvent { actor: Actor::person("sim"), event: Arc::new(event), target }).unwrap();
}

/// What events of the shipped playbooks carry.
fn data() -> serde_json::Value {
    json!({"host": "host-1", "user": "ann", "address": "192.0.2.7", "cluster": "lab-1", "confidence": 95, "country": "NL",
           "failures": 12, "reason": "sample", "severity": "high"})
}

fn alert_for(matchers: &[Matcher], at: Timestamp) -> stanch_core::alert::AlertSnapshot {
    let common = [
        ("alertname", "Sample"),
        ("cluster", "lab-1"),
        ("instance", "db-01:9100"),
        ("job", "probe"),
        ("namespace", "shop"),
        ("pod", "web-0"),
        ("node", "node-1"),
        ("host", "host-1"),
        ("mountpoint", "/var"),
        ("device", "sda1"),
        ("container", "web"),
        ("deployment", "web"),
        ("service", "web"),
        ("severity", "critical"),
        ("region", "eu-west"),
    ];
    let mut labels: BTreeMap<&str, &str> = common.into();
    for matcher in matchers {
        // The first alternative of a regular expression stands for it.
        let value = matcher.value().split('|').next().unwrap_or_default().trim_matches(['(', ')', '.', '*', '+']);
        if matcher.is_positive() {
            labels.insert(matcher.name(), value);
        }
    }
    let labels: Vec<(&str, &str)> = labels.into_iter().collect();
    let alert = stanch_simulator::alert(&labels, at);
    assert!(matchers.iter().all(|matcher| matcher.is_match(&alert.labels)), "no sample alert for {matchers:?}");
    alert
}

fn good(_: &Assignment) -> Outcome {
    Outcome::Succeeded {
        output: json!({"status": 200, "headers": {}, "body": data(), "exit_code": 0, "stdout": "1", "stderr": "", "data": data(),
                       "channel": "C1", "ts": "1.0", "message": "m"}),
    }
}

fn bad(_: &Assignment) -> Outcome {
    Outcome::Failed { error: "refused".into(), output: None, retry_after: None, retryable: true }
}

/// Goes on to the end, as a person who answers every question with `succeeded`, and with the alerts resolved. Gives how many
/// records there were after each append, since an append is there whole or not at all.
fn finish(simulation: &mut Simulation, plan: &Plan, outcome: &mut dyn FnMut(&Assignment) -> Outcome) -> Vec<usize> {
    let mut appends = vec![simulation.records.len()];
    for _ in 0..10_000 {
        appends.push(simulation.records.len());
        if !simulation.in_flight.is_empty() {
            simulation.step(outcome);
            continue;
        }
        let asked = simulation.state.runs.values().find_map(|run| {
            let plan = simulation.state.plan(run.plan)?;
            let at = run.steps.iter().position(|step| matches!(step.state, StepState::Unknown { .. }))?;
            Some((run.id, plan.steps[at].key.clone()))
        });
        // Before the clock moves on: a wait for the alerts has a limit of its own.
        let waits = |run: &Arc<Run>| run.steps.iter().any(|step| matches!(step.state, StepState::Waiting { .. }));
        let waits = simulation.state.runs.is_empty() || simulation.state.runs.values().any(waits);
        let firing =
            simulation.state.alerts.values().find(|alert| alert.resolved_at.is_none()).filter(|_| waits).cloned();
        if let Some((run, step)) = asked {
            let actor = Actor::person("ann");
            let answer = Answer::Succeeded;
            simulation
                .command(Command::AnswerStep { actor, run, step, item: None, answer, note: String::new() })
                .unwrap();
        } else if let Some(alert) = firing {
            let mut snapshot = stanch_simulator::alert(&[], alert.starts_at);
            snapshot.key = alert.key.clone();
            let ends_at = Some(alert.starts_at.plus(std::time::Duration::from_secs(60)));
            let changes = vec![AlertChange { alert: Arc::new(snapshot), status: AlertStatus::Resolved { ends_at } }];
            simulation.command(Command::ReceiveAlerts { actor: Actor::source("sim"), changes }).unwrap();
        } else if !simulation.step(outcome) {
            break;
        }
    }
    assert!(simulation.state.runs.is_empty(), "a run of {} does not end", plan.name);
    check_history(&simulation.records).unwrap();
    appends
}

fn new(plan: &Arc<Plan>) -> Simulation {
    Simulation::new(vec![Arc::clone(plan)], Settings::default())
}

fn only_run(simulation: &Simulation) -> Arc<Run> {
    let mut starts = simulation.records.iter().filter(|record| matches!(record.body, Body::RunStarted(_)));
    assert!(starts.next().is_some() && starts.next().is_none(), "there is not exactly one run");
    Arc::clone(simulation.finished.last().unwrap())
}

#[test]
fn every_playbook_succeeds_where_every_step_does() {
    for (file, plan) in shipped() {
        let mut simulation = new(&plan);
        trigger(&mut simulation, &plan);
        finish(&mut simulation, &plan, &mut good);
        let run = only_run(&simulation);
        assert_eq!(run.state(), "succeeded", "{}: {:#?}", file.display(), run.steps);
    }
}

#[test]
fn a_step_that_fails_ends_the_run_and_finally_still_runs() {
    for (file, plan) in shipped() {
        for failing in plan.steps.iter().filter(|step| matches!(step.uses, stanch_playbook::Uses::Action(_))) {
            let mut simulation = new(&plan);
            trigger(&mut simulation, &plan);
            let mut tried = 0;
            finish(&mut simulation, &plan, &mut |assignment| {
                if assignment.attempt.step == failing.key {
                    tried += 1;
                    bad(assignment)
                } else {
                    good(assignment)
                }
            });
            if tried == 0 {
                continue;
            }
            let run = only_run(&simulation);
            assert_eq!(tried, failing.policy.retry.max_attempts, "{}: {}", file.display(), failing.key);
            let expected = if failing.continue_on_error { "succeeded" } else { "failed" };
            assert_eq!(run.state(), expected, "{}: {}", file.display(), failing.key);
            for (step, of) in run.steps.iter().zip(&plan.steps) {
                let starts =
                    of.phase != Phase::Finally || step.started_at.is_some() || step.state == StepState::Skipped;
                assert!(starts, "{}: {} did not run after {} failed", file.display(), of.key, failing.key);
                let later = of.phase > failing.phase && of.phase != Phase::Finally;
                assert!(
                    !later || failing.continue_on_error || step.started_at.is_none(),
                    "{} ran all the same",
                    of.key
                );
            }
        }
    }
}

#[test]
fn a_result_that_comes_twice_changes_nothing_the_second_time() {
    for (file, plan) in shipped() {
        let mut simulation = new(&plan);
        trigger(&mut simulation, &plan);
        while let Some(assignment) = simulation.in_flight.front().cloned() {
            simulation.finish(&assignment, good(&assignment)).unwrap();
            let before = simulation.state.runs.clone();
            let again = simulation.finish(&assignment, bad(&assignment));
            for (id, run) in &simulation.state.runs {
                assert_eq!(run.steps, before[id].steps, "{}", file.display());
            }
            assert!(again.is_err() || simulation.records.last().is_some_and(|last| last.body.kind() == "AttemptLate"));
        }
        finish(&mut simulation, &plan, &mut good);
        only_run(&simulation);
    }
}

#[test]
fn a_restart_after_any_append_loses_no_run_and_repeats_nothing_dangerous() {
    for (file, plan) in shipped() {
        let mut whole = new(&plan);
        trigger(&mut whole, &plan);
        let mut appends = finish(&mut whole, &plan, &mut good);
        appends.extend([0, 1, 2]);
        appends.dedup();
        for cut in appends {
            let mut simulation = new(&plan);
            simulation.records = whole.records.clone();
            simulation.finished = whole.finished.clone();
            simulation.dispatched.clear();
            simulation.crash_after(cut);
            // The sender had no answer, or sends again all the same.
            trigger(&mut simulation, &plan);
            finish(&mut simulation, &plan, &mut good);
            let run = simulation.finished.last().cloned();
            let starts: Vec<_> =
                simulation.records.iter().filter(|record| matches!(record.body, Body::RunStarted(_))).collect();
            assert_eq!(starts.len(), 1, "{} cut at {cut}: {} runs", file.display(), starts.len());
            assert_eq!(run.unwrap().state(), "succeeded", "{} cut at {cut}", file.display());
            let mut claims: BTreeMap<(String, u32), u32> = BTreeMap::new();
            for record in &simulation.records {
                if let Body::AttemptScheduled(body) = &record.body {
                    *claims.entry((body.attempt.step.to_string(), body.attempt.generation)).or_default() += 1;
                }
            }
            for step in plan.steps.iter().filter(|step| !step.policy.idempotent) {
                let most =
                    claims.iter().filter(|((key, _), _)| key == step.key.as_str()).map(|(_, count)| *count).max();
                assert!(most.unwrap_or(0) <= 1, "{} cut at {cut}: {} was claimed twice", file.display(), step.key);
            }
        }
    }
}
