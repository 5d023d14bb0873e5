//! The semantics of alerts, incidents and steps, one behaviour a test.

#![expect(clippy::unwrap_used, reason = "what helpers of tests cannot do fails the test")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use stanch_core::alert::AlertStatus;
use stanch_core::command::Target;
use stanch_core::event::Event;
use stanch_core::record::{Actor, Answer};
use stanch_core::run::{Run, StepState};
use stanch_core::{Command, Outcome, Receipt, Rejected, Settings};
use stanch_playbook::{StepKey, Timestamp};
use stanch_simulator::Simulation;

const FIRST: Timestamp = Timestamp::from_millis(1_789_999_000_000);
const DOWN: [(&str, &str); 2] = [("alertname", "Down"), ("host", "a")];

/// A playbook on the alert `Down` with these phases.
fn on_down(phases: &str) -> Simulation {
    on(&format!("playbook: down\ntriggers:\n  - alertmanager: {{matchers: ['alertname=\"Down\"']}}\n{phases}"))
}

fn on(text: &str) -> Simulation {
    let plan = stanch_playbook::load("test.yaml", text).unwrap_or_else(|bad| panic!("{bad}")).plan;
    Simulation::new(vec![Arc::new(plan)], Settings::default()).checking()
}

fn fire(simulation: &mut Simulation, starts_at: Timestamp) -> Receipt {
    simulation.alert(&DOWN, starts_at, AlertStatus::Firing)
}

fn resolve(simulation: &mut Simulation, ends_at: Timestamp) -> Receipt {
    simulation.alert(&DOWN, FIRST, AlertStatus::Resolved { ends_at: Some(ends_at) })
}

fn pass(simulation: &mut Simulation, seconds: u64) {
    simulation.now = simulation.now.plus(Duration::from_secs(seconds));
    simulation.command(Command::FireTimers).unwrap();
}

fn succeed() -> Outcome {
    Outcome::Succeeded { output: json!({"status": 200, "exit_code": 0}) }
}

fn fail() -> Outcome {
    Outcome::Failed { error: "refused".into(), output: None, retry_after: None, retryable: true }
}

fn finish_all(simulation: &mut Simulation) {
    while let Some(assignment) = simulation.in_flight.front().cloned() {
        simulation.finish(&assignment, succeed()).unwrap();
    }
}

fn states(run: &Run) -> Vec<&'static str> {
    run.steps.iter().map(|step| step.state.as_str()).collect()
}

fn last(simulation: &Simulation) -> Arc<Run> {
    Arc::clone(simulation.finished.last().expect("a run is over"))
}

fn incident_state(simulation: &Simulation) -> Vec<&'static str> {
    simulation.state.incidents.values().map(|incident| incident.state()).collect()
}

const LOG: &str = "detect:\n  a: {uses: log, with: {message: hello}}\n";

#[test]
fn a_firing_alert_opens_an_incident_and_starts_a_run() {
    let mut simulation = on_down(LOG);
    let receipt = fire(&mut simulation, FIRST);
    assert_eq!((receipt.runs.len(), receipt.incidents.len(), receipt.duplicate), (1, 1, false));
    finish_all(&mut simulation);
    assert_eq!(last(&simulation).state(), "succeeded");
}

#[test]
fn a_redelivery_does_nothing() {
    let mut simulation = on_down(LOG);
    fire(&mut simulation, FIRST);
    let records = simulation.records.len();
    let receipt = fire(&mut simulation, FIRST);
    assert!(receipt.duplicate && receipt.runs.is_empty());
    assert_eq!(simulation.records.len(), records);
}

#[test]
fn an_incident_resolves_once_its_alert_stayed_resolved() {
    let mut simulation = on_down(LOG);
    fire(&mut simulation, FIRST);
    finish_all(&mut simulation);
    resolve(&mut simulation, FIRST.plus(Duration::from_secs(60)));
    pass(&mut simulation, 29);
    assert_eq!(incident_state(&simulation), ["open"]);
    pass(&mut simulation, 1);
    assert_eq!(incident_state(&simulation), ["resolved"]);
}

#[test]
fn the_same_episode_again_reopens_the_incident_and_starts_nothing() {
    let mut simulation = on_down(LOG);
    fire(&mut simulation, FIRST);
    finish_all(&mut simulation);
    let end = FIRST.plus(Duration::from_secs(60));
    resolve(&mut simulation, end);
    pass(&mut simulation, 31);
    let receipt = fire(&mut simulation, FIRST);
    assert!(receipt.runs.is_empty());
    assert_eq!(incident_state(&simulation), ["open"]);
    // The pair's second resolution is byte for byte the first, and counts.
    resolve(&mut simulation, end);
    pass(&mut simulation, 31);
    assert_eq!(incident_state(&simulation), ["resolved"]);
}

#[test]
fn the_same_episode_much_later_is_new_trouble() {
    let mut simulation = on_down(LOG);
    fire(&mut simulation, FIRST);
    finish_all(&mut simulation);
    resolve(&mut simulation, FIRST.plus(Duration::from_secs(60)));
    pass(&mut simulation, 31);
    pass(&mut simulation, 16 * 60);
    assert_eq!(fire(&mut simulation, FIRST).runs.len(), 1);
}

#[test]
fn a_flap_joins_and_starts_nothing() {
    let mut simulation = on_down(LOG);
    fire(&mut simulation, FIRST);
    finish_all(&mut simulation);
    resolve(&mut simulation, FIRST.plus(Duration::from_secs(8)));
    pass(&mut simulation, 6);
    let receipt = fire(&mut simulation, FIRST.plus(Duration::from_secs(14)));
    assert!(receipt.runs.is_empty());
    assert_eq!(incident_state(&simulation), ["open"]);
}

#[test]
fn a_new_episode_after_the_incident_closed_opens_another() {
    let mut simulation = on_down(LOG);
    let first = fire(&mut simulation, FIRST);
    finish_all(&mut simulation);
    resolve(&mut simulation, FIRST.plus(Duration::from_secs(8)));
    pass(&mut simulation, 31);
    let second = fire(&mut simulation, FIRST.plus(Duration::from_secs(100)));
    assert_eq!(second.runs.len(), 1);
    assert_ne!(first.incidents, second.incidents);
}

#[test]
fn an_episode_whose_predecessors_end_was_never_told_starts_a_run() {
    let mut simulation = on_down(LOG);
    fire(&mut simulation, FIRST);
    finish_all(&mut simulation);
    assert_eq!(fire(&mut simulation, FIRST.plus(Duration::from_secs(3600))).runs.len(), 1);
}

#[test]
fn a_start_that_moves_back_while_firing_does_nothing() {
    let mut simulation = on_down(LOG);
    fire(&mut simulation, FIRST);
    assert!(fire(&mut simulation, FIRST.minus(Duration::from_secs(30))).duplicate);
}

#[test]
fn the_end_of_an_earlier_episode_does_not_end_the_present_one() {
    let mut simulation = on_down(LOG);
    fire(&mut simulation, FIRST);
    resolve(&mut simulation, FIRST.plus(Duration::from_secs(8)));
    pass(&mut simulation, 60);
    fire(&mut simulation, FIRST.plus(Duration::from_secs(100)));
    assert!(resolve(&mut simulation, FIRST.plus(Duration::from_secs(8))).duplicate);
}

#[test]
fn a_late_firing_of_an_earlier_episode_is_ignored() {
    let mut simulation = on_down(LOG);
    fire(&mut simulation, FIRST);
    resolve(&mut simulation, FIRST.plus(Duration::from_secs(8)));
    pass(&mut simulation, 60);
    fire(&mut simulation, FIRST.plus(Duration::from_secs(100)));
    resolve(&mut simulation, FIRST.plus(Duration::from_secs(120)));
    assert!(fire(&mut simulation, FIRST).duplicate);
}

#[test]
fn alerts_of_one_key_share_an_incident_and_a_live_run() {
    let text = "playbook: down\ntriggers:\n  - alertmanager: {matchers: ['alertname=\"Down\"']}\n    key: all\ndetect:\n  a: {uses: log, with: {message: hello}}\n";
    let mut simulation = on(text);
    let first = fire(&mut simulation, FIRST);
    let second = simulation.alert(&[("alertname", "Down"), ("host", "b")], FIRST, AlertStatus::Firing);
    assert_eq!((second.runs.len(), &second.incidents), (0, &first.incidents));
    finish_all(&mut simulation);
    let third = simulation.alert(&[("alertname", "Down"), ("host", "c")], FIRST, AlertStatus::Firing);
    assert_eq!((third.runs.len(), &third.incidents), (1, &first.incidents));
    let run = simulation.run(third.runs[0]).unwrap();
    assert_eq!(run.cause.alerts.len(), 1, "a run is about what is new to the incident");
}

#[test]
fn a_failed_run_holds_its_incident_open_until_a_person_resolves_it() {
    let mut simulation = on_down("detect:\n  a: {uses: exec, with: {argv: [./x]}}\n");
    let receipt = fire(&mut simulation, FIRST);
    let assignment = simulation.in_flight[0].clone();
    simulation.finish(&assignment, fail()).unwrap();
    resolve(&mut simulation, FIRST.plus(Duration::from_secs(60)));
    pass(&mut simulation, 3600);
    assert_eq!(incident_state(&simulation), ["open"]);
    let incident = receipt.incidents[0];
    let close = Command::ResolveIncident { actor: Actor::person("ann"), incident, reason: "replaced".into() };
    simulation.command(close).unwrap();
    assert_eq!(incident_state(&simulation), ["resolved"]);
}

#[test]
fn steps_of_a_phase_run_at_once_and_phases_one_after_the_other() {
    let mut simulation = on_down(
        "detect:\n  a: {uses: log, with: {message: x}}\n  b: {uses: log, with: {message: x}}\n  c: {needs: [a], uses: log, with: {message: x}}\ncontain:\n  d: {uses: log, with: {message: x}}\n",
    );
    fire(&mut simulation, FIRST);
    let under_way = |simulation: &Simulation| {
        simulation.in_flight.iter().map(|assignment| assignment.attempt.step.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(under_way(&simulation), ["detect.a", "detect.b"]);
    let first = simulation.in_flight[0].clone();
    simulation.finish(&first, succeed()).unwrap();
    assert_eq!(under_way(&simulation), ["detect.b", "detect.c"]);
    let second = simulation.in_flight[0].clone();
    simulation.finish(&second, succeed()).unwrap();
    assert_eq!(under_way(&simulation), ["detect.c"]);
    let third = simulation.in_flight[0].clone();
    simulation.finish(&third, succeed()).unwrap();
    assert_eq!(under_way(&simulation), ["contain.d"]);
}

#[test]
fn retry_stops_after_max_attempts_and_keeps_the_idempotency_key() {
    let mut simulation = on_down(
        "detect:\n  a: {uses: http, with: {url: 'https://x.corp/'}, retry: {max_attempts: 4, initial_interval: 1s, jitter: none}}\n",
    );
    fire(&mut simulation, FIRST);
    let begun = simulation.now;
    simulation.settle(&mut |_| fail()).unwrap();
    assert_eq!(last(&simulation).state(), "failed");
    assert_eq!(simulation.dispatched.len(), 4);
    assert_eq!(simulation.now.since(begun), Duration::from_secs(1 + 2 + 4), "the delay doubles");
    let keys: std::collections::BTreeSet<_> =
        simulation.dispatched.iter().map(|assignment| assignment.idempotency_key.as_str()).collect();
    assert_eq!(keys.len(), 1);
}

#[test]
fn retry_waits_as_long_as_the_target_asks() {
    let mut simulation = on_down("detect:\n  a: {uses: http, with: {url: 'https://x.corp/'}}\n");
    fire(&mut simulation, FIRST);
    let begun = simulation.now;
    let assignment = simulation.in_flight[0].clone();
    let asked = Duration::from_secs(77);
    let outcome = Outcome::Failed { error: "429".into(), output: None, retry_after: Some(asked), retryable: true };
    simulation.finish(&assignment, outcome).unwrap();
    assert_eq!(simulation.state.next_timer(), Some(begun.plus(asked)));
}

#[test]
fn a_step_that_is_not_idempotent_is_not_repeated_after_a_crash() {
    let mut simulation = on_down("contain:\n  a: {uses: exec, with: {argv: [./x]}}\n");
    let run = fire(&mut simulation, FIRST).runs[0];
    simulation.crash();
    simulation.settle(&mut |_| succeed()).unwrap();
    assert_eq!(simulation.dispatched.len(), 1);
    assert_eq!(simulation.state.runs[&run].state(), "waiting");
    assert_eq!(states(&simulation.state.runs[&run]), ["unknown"]);
}

#[test]
fn an_idempotent_step_is_repeated_after_a_crash() {
    let mut simulation = on_down(LOG);
    fire(&mut simulation, FIRST);
    simulation.crash();
    simulation.settle(&mut |_| succeed()).unwrap();
    assert_eq!(simulation.dispatched.len(), 2);
    assert_eq!(last(&simulation).state(), "succeeded");
}

#[test]
fn a_person_answers_what_became_of_an_unknown_step() {
    for (answer, expected) in
        [(Answer::Succeeded, "succeeded"), (Answer::Failed, "failed"), (Answer::Retry, "succeeded")]
    {
        let mut simulation = on_down("contain:\n  a: {uses: exec, with: {argv: [./x]}}\n");
        let run = fire(&mut simulation, FIRST).runs[0];
        simulation.crash();
        let step = StepKey::new("contain.a");
        let command = Command::AnswerStep {
            actor: Actor::person("ann"),
            run,
            step,
            item: None,
            answer,
            note: "looked".to_owned(),
        };
        simulation.command(command).unwrap();
        simulation.settle(&mut |_| succeed()).unwrap();
        assert_eq!(last(&simulation).state(), expected);
        if answer == Answer::Retry {
            let keys: Vec<_> = simulation.dispatched.iter().map(|a| a.idempotency_key.as_str()).collect();
            assert_ne!(keys[0], keys[1], "a person's retry is another thing");
        }
    }
}

#[test]
fn only_an_unknown_step_takes_an_answer() {
    let mut simulation = on_down(LOG);
    let run = fire(&mut simulation, FIRST).runs[0];
    let step = StepKey::new("detect.a");
    let command = Command::AnswerStep {
        actor: Actor::person("ann"),
        run,
        step: step.clone(),
        item: None,
        answer: Answer::Succeeded,
        note: String::new(),
    };
    assert_eq!(simulation.command(command).unwrap_err(), Rejected::NotUnknown { step, state: "running" });
}

#[test]
fn skipped_satisfies_needs_and_failed_does_not() {
    let mut simulation = on_down(
        "detect:\n  a: {if: 'false', uses: log, with: {message: x}}\n  b: {needs: [a], uses: exec, with: {argv: [./x]}}\n  c: {needs: [b], uses: log, with: {message: x}}\ncontain:\n  d: {uses: log, with: {message: x}}\nfinally:\n  e: {uses: log, with: {message: '{{ run.outcome }}'}}\n",
    );
    fire(&mut simulation, FIRST);
    let assignment = simulation.in_flight[0].clone();
    simulation.finish(&assignment, fail()).unwrap();
    assert_eq!(simulation.in_flight[0].with["message"], json!("failed"));
    finish_all(&mut simulation);
    let run = last(&simulation);
    assert_eq!(states(&run), ["skipped", "failed", "blocked", "blocked", "succeeded"]);
    assert_eq!(run.state(), "failed");
}

#[test]
fn running_siblings_of_a_failed_step_finish_and_none_starts() {
    let mut simulation = on_down(
        "detect:\n  a: {uses: exec, with: {argv: [./x]}}\n  b: {uses: log, with: {message: x}}\n  c: {needs: [b], uses: log, with: {message: x}}\n",
    );
    fire(&mut simulation, FIRST);
    let assignment = simulation.in_flight[0].clone();
    simulation.finish(&assignment, fail()).unwrap();
    assert_eq!(simulation.state.runs.len(), 1);
    finish_all(&mut simulation);
    assert_eq!(states(&last(&simulation)), ["failed", "succeeded", "blocked"]);
}

#[test]
fn a_tolerated_failure_is_not_green_and_lets_the_run_go_on() {
    let mut simulation = on_down(
        "detect:\n  a: {uses: exec, with: {argv: [./x]}, continue_on_error: true}\n  b: {needs: [a], uses: log, with: {message: x}}\n",
    );
    fire(&mut simulation, FIRST);
    let assignment = simulation.in_flight[0].clone();
    simulation.finish(&assignment, fail()).unwrap();
    finish_all(&mut simulation);
    let run = last(&simulation);
    assert_eq!((states(&run), run.state()), (vec!["tolerated", "succeeded"], "succeeded"));
}

#[test]
fn an_error_in_a_condition_fails_the_step() {
    let mut simulation =
        on_down("detect:\n  a: {if: 'alert.labels.nothing == \"x\"', uses: log, with: {message: x}}\n");
    fire(&mut simulation, FIRST);
    assert_eq!(states(&last(&simulation)), ["failed"]);
}

#[test]
fn outputs_reach_later_steps_with_their_type() {
    let mut simulation = on_down(
        "detect:\n  a: {uses: http, with: {url: 'https://x.corp/'}, outputs: {code: result.status}}\ncontain:\n  b: {if: 'steps.a.outputs.code == 200', uses: http, with: {method: POST, url: 'https://x.corp/', body: {code: '{{ steps.a.outputs.code }}', text: 'code {{ steps.a.outputs.code }}'}}}\n",
    );
    fire(&mut simulation, FIRST);
    let assignment = simulation.in_flight[0].clone();
    simulation.finish(&assignment, succeed()).unwrap();
    assert_eq!(simulation.in_flight[0].with["body"], json!({"code": 200, "text": "code 200"}));
}

#[test]
fn a_wait_for_resolved_ends_when_the_alerts_stayed_resolved() {
    let mut simulation = on_down("recover:\n  quiet: {uses: wait, with: {for: resolved, settle: 5m}, timeout: 4h}\n");
    let run = fire(&mut simulation, FIRST).runs[0];
    assert_eq!(simulation.state.runs[&run].state(), "waiting");
    resolve(&mut simulation, FIRST.plus(Duration::from_secs(60)));
    pass(&mut simulation, 200);
    // It fires again: the time counts anew.
    fire(&mut simulation, FIRST);
    resolve(&mut simulation, FIRST.plus(Duration::from_secs(90)));
    pass(&mut simulation, 299);
    assert!(simulation.state.runs.contains_key(&run));
    pass(&mut simulation, 1);
    assert_eq!(last(&simulation).state(), "succeeded");
}

#[test]
fn a_wait_fails_when_its_time_is_over() {
    let mut simulation = on_down("recover:\n  quiet: {uses: wait, with: {for: resolved, settle: 5m}, timeout: 4h}\n");
    fire(&mut simulation, FIRST);
    simulation.crash();
    pass(&mut simulation, 4 * 3600);
    assert_eq!(last(&simulation).state(), "failed");
}

#[test]
fn a_wait_for_a_time_survives_a_crash() {
    let mut simulation = on_down("detect:\n  w: {uses: wait, with: {duration: 10m}}\n");
    let run = fire(&mut simulation, FIRST).runs[0];
    simulation.crash();
    pass(&mut simulation, 599);
    assert!(simulation.state.runs.contains_key(&run));
    pass(&mut simulation, 1);
    assert_eq!(last(&simulation).state(), "succeeded");
}

#[test]
fn concurrency_queues_what_is_beyond_it() {
    let mut simulation = on(
        "playbook: down\nconcurrency: 1\ntriggers:\n  - alertmanager: {matchers: ['alertname=\"Down\"']}\ndetect:\n  a: {uses: log, with: {message: x}}\n",
    );
    fire(&mut simulation, FIRST);
    let second = simulation.alert(&[("alertname", "Down"), ("host", "b")], FIRST, AlertStatus::Firing).runs[0];
    assert_eq!(simulation.state.runs[&second].state(), "queued");
    assert_eq!(simulation.in_flight.len(), 1);
    let assignment = simulation.in_flight[0].clone();
    simulation.finish(&assignment, succeed()).unwrap();
    assert_eq!(simulation.state.runs[&second].state(), "running");
    finish_all(&mut simulation);
    assert_eq!(simulation.finished.len(), 2);
}

#[test]
fn a_cancelled_run_ends_what_waits_and_runs_finally() {
    let mut simulation = on_down(
        "detect:\n  w: {uses: wait, with: {duration: 10m}}\ncontain:\n  a: {uses: log, with: {message: x}}\nfinally:\n  e: {uses: log, with: {message: '{{ run.outcome }}'}}\n",
    );
    let run = fire(&mut simulation, FIRST).runs[0];
    let cancel = Command::CancelRun { actor: Actor::person("ann"), run, reason: "false alarm".into(), undo: false };
    simulation.command(cancel).unwrap();
    assert_eq!(simulation.in_flight[0].with["message"], json!("cancelled"));
    finish_all(&mut simulation);
    let run = last(&simulation);
    assert_eq!((states(&run), run.state()), (vec!["cancelled", "cancelled", "succeeded"], "cancelled"));
    let StepState::Cancelled { reason } = &run.steps[0].state else { panic!("{:?}", run.steps[0]) };
    assert_eq!(&**reason, "cancelled by person:ann: false alarm");
}

#[test]
fn an_event_is_taken_once() {
    let mut simulation = on(
        "playbook: ioc\ntriggers:\n  - nats: {subject: 'sec.ioc.>'}\n    if: event.data.confidence >= 80\n    inputs: {host: event.data.host}\ninputs: {host: {type: string, required: true}}\ndetect:\n  a: {uses: log, with: {message: '{{ inputs.host }}'}}\n",
    );
    let mut send = |id: &str, confidence: u32| {
        let event = Event {
            id: id.into(),
            source: "edr".into(),
            kind: "ioc".into(),
            time: FIRST,
            subject: None,
            data: json!({"host": "h", "confidence": confidence}),
        };
        let target = Target::Subject("sec.ioc.host".to_owned());
        let command = Command::ReceiveEvent { actor: Actor::source("nats"), event: Arc::new(event), target };
        simulation.command(command).unwrap()
    };
    assert_eq!(send("1", 90).runs.len(), 1);
    assert!(send("1", 90).duplicate);
    assert_eq!(send("2", 10).runs.len(), 0);
}

#[test]
fn a_playbook_edited_during_a_run_changes_new_runs_alone() {
    let mut simulation =
        on_down("detect:\n  a: {uses: log, with: {message: old}}\ncontain:\n  b: {uses: log, with: {message: old}}\n");
    fire(&mut simulation, FIRST);
    let text = "playbook: down\ntriggers:\n  - alertmanager: {matchers: ['alertname=\"Down\"']}\ndetect:\n  a: {uses: log, with: {message: new}}\n";
    let plan = Arc::new(stanch_playbook::load("test.yaml", text).unwrap_or_else(|bad| panic!("{bad}")).plan);
    simulation.command(Command::LoadPlaybooks { plans: vec![plan], keep: Vec::new() }).unwrap();
    let first = simulation.in_flight[0].clone();
    simulation.finish(&first, succeed()).unwrap();
    assert_eq!(simulation.in_flight[0].with["message"], json!("old"));
    let second = simulation.alert(&[("alertname", "Down"), ("host", "b")], FIRST, AlertStatus::Firing);
    assert_eq!(second.runs.len(), 1);
    assert_eq!(simulation.in_flight.back().unwrap().with["message"], json!("new"));
    finish_all(&mut simulation);
    assert_eq!(simulation.state.plans.len(), 1, "the old plan is forgotten with its last run");
}

#[test]
fn an_alert_that_no_input_expression_can_read_becomes_a_dead_letter() {
    let mut simulation = on(
        "playbook: down\ntriggers:\n  - alertmanager: {matchers: ['alertname=\"Down\"']}\n    inputs: {pod: alert.labels.pod}\ninputs: {pod: {type: string}}\ndetect:\n  a: {uses: log, with: {message: x}}\n",
    );
    fire(&mut simulation, FIRST);
    assert!(simulation.records.iter().any(|record| record.body.kind() == "DeadLettered"));
    assert!(simulation.state.incidents.is_empty());
    assert!(fire(&mut simulation, FIRST).duplicate, "its repeat is no second dead letter");
    // Mended, the playbook takes the alert when it is sent again, by Alertmanager or as the replayed dead letter.
    let text = "playbook: down\ntriggers:\n  - alertmanager: {matchers: ['alertname=\"Down\"']}\ndetect:\n  a: {uses: log, with: {message: x}}\n";
    let plan = Arc::new(stanch_playbook::load("test.yaml", text).unwrap_or_else(|bad| panic!("{bad}")).plan);
    simulation.command(Command::LoadPlaybooks { plans: vec![plan], keep: Vec::new() }).unwrap();
    assert_eq!(fire(&mut simulation, FIRST).runs.len(), 1);
}
