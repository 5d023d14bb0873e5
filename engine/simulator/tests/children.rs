//! Runs that are a step of another one, how they end with it, and how they are taken back together.

#![expect(clippy::unwrap_used, reason = "what helpers of tests cannot do fails the test")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use stanch_core::alert::AlertStatus;
use stanch_core::record::Actor;
use stanch_core::{Assignment, Command, Outcome, RunId, Settings};
use stanch_playbook::Timestamp;
use stanch_simulator::Simulation;

const FIRST: Timestamp = Timestamp::from_millis(1_789_999_000_000);
/// Its only step ends at once where it is cancelled.
const CHILD: &str = "playbook: child\ndetect:\n  sit: {uses: wait, with: {duration: 1h}}\n";

fn with_child(step: &str) -> (Simulation, RunId) {
    let parent = format!(
        "playbook: down\ntriggers:\n  - alertmanager: {{matchers: ['alertname=\"Down\"']}}\ndetect:\n  sub: {{uses: playbook, with: {{playbook: child}}{step}}}\n"
    );
    let plans = [&*parent, CHILD]
        .map(|text| Arc::new(stanch_playbook::load("test.yaml", text).unwrap_or_else(|bad| panic!("{bad}")).plan));
    let mut simulation = Simulation::new(plans.to_vec(), Settings::default()).checking();
    let run = simulation.alert(&[("alertname", "Down")], FIRST, AlertStatus::Firing).runs[0];
    (simulation, run)
}

fn ended(simulation: &Simulation) -> Vec<(&str, &'static str)> {
    simulation.finished.iter().map(|run| (run.playbook.as_str(), run.state())).collect()
}

#[test]
fn a_cancelled_run_cancels_the_child_that_ends_at_once() {
    let (mut simulation, run) = with_child("");
    let actor = Actor::person("ann");
    simulation.command(Command::CancelRun { actor, run, reason: String::new(), undo: false }).unwrap();
    let mut ended = ended(&simulation);
    ended.sort_unstable();
    assert_eq!(ended, [("child", "cancelled"), ("down", "cancelled")]);
    let parent = simulation.finished.iter().find(|of| of.id == run).unwrap();
    assert_eq!(parent.steps[0].state.as_str(), "cancelled");
}

#[test]
fn a_child_that_takes_too_long_fails_its_step_and_is_cancelled() {
    let (mut simulation, run) = with_child(", timeout: 5m");
    simulation.now = simulation.now.plus(Duration::from_secs(301));
    simulation.command(Command::FireTimers).unwrap();
    let mut ended = ended(&simulation);
    ended.sort_unstable();
    assert_eq!(ended, [("child", "cancelled"), ("down", "failed")]);
    let parent = simulation.finished.iter().find(|of| of.id == run).unwrap();
    assert!(parent.steps[0].state.error().unwrap().ends_with("of child was cancelled: it took too long"));
}

const PARENT: &str = r#"
playbook: down
triggers:
  - alertmanager: {matchers: ['alertname="Down"']}
contain:
  on_failure: undo
  first: {uses: http, with: {method: PUT, url: first}, undo: {uses: http, with: {method: DELETE, url: first}}}
  sub: {needs: [first], uses: playbook, with: {playbook: middle}TIMEOUT}
  beside: {needs: [first], uses: http, with: {method: PUT, url: beside}, undo: {uses: http, with: {method: DELETE, url: beside}}}
eradicate:
  on_failure: undo
  wipe: {uses: http, with: {method: POST, url: wipe}}
recover:
  back: {uses: undo, with: {step: sub}}
finally:
  end: {uses: http, with: {method: GET, url: parent-is-over}}
"#;

const MIDDLE: &str = r#"
playbook: middle
contain:
  fence: {uses: http, with: {method: PUT, url: fence}, undo: {uses: http, with: {method: DELETE, url: fence}}}
  deeper: {needs: [fence], uses: playbook, with: {playbook: leaf}}
recover:
  mark: {uses: http, with: {method: POST, url: mark}, undo: {uses: http, with: {method: DELETE, url: mark}}}
finally:
  end: {uses: http, with: {method: GET, url: middle-is-over}}
"#;

const LEAF: &str = r#"
playbook: leaf
contain:
  cut: {uses: http, with: {method: PUT, url: cut}, undo: {uses: http, with: {method: DELETE, url: cut}}}
  sit: {needs: [cut], uses: wait, with: {duration: 10s}}
"#;

fn family(timeout: &str) -> (Simulation, RunId) {
    let parent = PARENT.replace("TIMEOUT", timeout);
    let plans = [&*parent, MIDDLE, LEAF]
        .map(|text| Arc::new(stanch_playbook::load("test.yaml", text).unwrap_or_else(|bad| panic!("{bad}")).plan));
    let mut simulation = Simulation::new(plans.to_vec(), Settings::default()).checking();
    let run = simulation.alert(&[("alertname", "Down")], FIRST, AlertStatus::Firing).runs[0];
    (simulation, run)
}

fn under_way(simulation: &Simulation) -> Vec<String> {
    let shown = |of: &Assignment| {
        format!("{} {}", of.with["method"].as_str().unwrap_or_default(), of.with["url"].as_str().unwrap_or_default())
    };
    simulation.in_flight.iter().map(shown).collect()
}

/// Ends the attempts with these requests, each a second after the other.
fn end(simulation: &mut Simulation, requests: &[&str]) {
    finish(simulation, requests, Outcome::Succeeded { output: json!({"status": 200}) });
}

fn finish(simulation: &mut Simulation, requests: &[&str], outcome: Outcome) {
    for request in requests {
        let at = under_way(simulation).iter().position(|of| of == request);
        let at = at.unwrap_or_else(|| panic!("no {request:?} among {:?}", under_way(simulation)));
        let assignment = simulation.in_flight[at].clone();
        simulation.finish(&assignment, outcome.clone()).unwrap();
        simulation.now = simulation.now.plus(Duration::from_secs(1));
    }
}

fn pass(simulation: &mut Simulation, seconds: u64) {
    simulation.now = simulation.now.plus(Duration::from_secs(seconds));
    simulation.command(Command::FireTimers).unwrap();
}

fn no() -> Outcome {
    Outcome::Failed { error: "refused".into(), output: None, retry_after: None, retryable: false }
}

/// Each of these, one at a time and nothing beside it.
fn one_by_one(simulation: &mut Simulation, requests: &[&str]) {
    for request in requests {
        assert_eq!(under_way(simulation), [*request]);
        end(simulation, &[request]);
    }
}

#[test]
fn a_failure_takes_back_what_the_sub_playbooks_of_its_phase_did_in_one_row_with_its_own() {
    let (mut simulation, run) = family("");
    end(&mut simulation, &["PUT first", "PUT fence", "PUT cut"]);
    pass(&mut simulation, 10);
    // The other run fails, and its step with it; what it did is the phase's.
    finish(&mut simulation, &["POST mark"], no());
    end(&mut simulation, &["GET middle-is-over", "PUT beside"]);
    one_by_one(&mut simulation, &["DELETE beside", "DELETE cut", "DELETE fence", "DELETE first", "GET parent-is-over"]);
    assert_eq!(simulation.run(run).unwrap().state(), "failed");
    assert!(simulation.state.inforce.is_empty());
    stanch_simulator::check_history(&simulation.records).unwrap();
}

#[test]
fn a_failure_of_another_phase_leaves_what_a_sub_playbook_did_in_force() {
    let (mut simulation, run) = family("");
    end(&mut simulation, &["PUT first", "PUT beside", "PUT fence", "PUT cut"]);
    pass(&mut simulation, 10);
    end(&mut simulation, &["POST mark", "GET middle-is-over"]);
    finish(&mut simulation, &["POST wipe"], no());
    one_by_one(&mut simulation, &["GET parent-is-over"]);
    assert_eq!((simulation.run(run).unwrap().state(), simulation.state.inforce.len()), ("failed", 5));
}

#[test]
fn a_step_takes_back_what_a_sub_playbook_and_its_own_did() {
    let (mut simulation, run) = family("");
    end(&mut simulation, &["PUT first", "PUT beside", "PUT fence", "PUT cut"]);
    pass(&mut simulation, 10);
    end(&mut simulation, &["POST mark", "GET middle-is-over", "POST wipe"]);
    simulation.crash();
    pass(&mut simulation, 60);
    one_by_one(&mut simulation, &["DELETE mark", "DELETE cut", "DELETE fence", "GET parent-is-over"]);
    assert_eq!((simulation.run(run).unwrap().state(), simulation.state.inforce.len()), ("succeeded", 2));
}

#[test]
fn a_cancel_takes_back_all_runs_of_the_family_the_last_first_and_only_then_runs_finally_from_within() {
    let (mut simulation, run) = family("");
    end(&mut simulation, &["PUT first", "PUT fence", "PUT cut"]);
    let actor = Actor::person("ann");
    simulation.command(Command::CancelRun { actor, run, reason: String::new(), undo: true }).unwrap();
    // What is under way comes to its end first: it may have happened.
    assert_eq!(under_way(&simulation), ["PUT beside"]);
    end(&mut simulation, &["PUT beside"]);
    let rest =
        ["DELETE beside", "DELETE cut", "DELETE fence", "DELETE first", "GET middle-is-over", "GET parent-is-over"];
    let (before, after) = rest.split_at(2);
    one_by_one(&mut simulation, before);
    simulation.crash();
    // What was under way when the engine died is asked for again.
    pass(&mut simulation, 60);
    one_by_one(&mut simulation, after);
    assert_eq!(ended(&simulation), [("leaf", "cancelled"), ("middle", "cancelled"), ("down", "cancelled")]);
    assert!(simulation.state.inforce.is_empty());
    stanch_simulator::check_history(&simulation.records).unwrap();
}

#[test]
fn a_cancel_without_undo_waits_for_the_other_runs_too() {
    let (mut simulation, run) = family("");
    end(&mut simulation, &["PUT first", "PUT beside", "PUT fence", "PUT cut"]);
    let actor = Actor::person("ann");
    simulation.command(Command::CancelRun { actor, run, reason: String::new(), undo: false }).unwrap();
    one_by_one(&mut simulation, &["GET middle-is-over", "GET parent-is-over"]);
    assert_eq!((simulation.run(run).unwrap().state(), simulation.state.inforce.len()), ("cancelled", 4));
}

#[test]
fn a_run_goes_on_only_once_a_late_one_that_it_started_is_over() {
    let (mut simulation, run) = family(", timeout: 5s, continue_on_error: true");
    end(&mut simulation, &["PUT first", "PUT beside", "PUT fence"]);
    pass(&mut simulation, 5);
    // Told to stop, and not over yet.
    end(&mut simulation, &["PUT cut"]);
    assert_eq!(under_way(&simulation), ["GET middle-is-over"]);
    simulation.crash();
    pass(&mut simulation, 60);
    one_by_one(
        &mut simulation,
        &["GET middle-is-over", "POST wipe", "DELETE cut", "DELETE fence", "GET parent-is-over"],
    );
    let parent = simulation.run(run).unwrap();
    assert_eq!((parent.state(), parent.steps[1].state.as_str()), ("succeeded", "tolerated"));
}

#[test]
fn a_run_that_is_cancelled_by_itself_takes_back_what_is_below_it_alone() {
    let (mut simulation, run) = family(", continue_on_error: true");
    end(&mut simulation, &["PUT first", "PUT beside", "PUT fence", "PUT cut"]);
    let middle = simulation.state.runs.values().find(|of| of.playbook.as_str() == "middle").unwrap().id;
    let actor = Actor::person("ann");
    simulation.command(Command::CancelRun { actor, run: middle, reason: "no".to_owned(), undo: true }).unwrap();
    one_by_one(
        &mut simulation,
        &["DELETE cut", "DELETE fence", "GET middle-is-over", "POST wipe", "GET parent-is-over"],
    );
    assert_eq!((simulation.run(run).unwrap().state(), simulation.state.inforce.len()), ("succeeded", 2));
}

#[test]
fn a_run_whose_alerts_are_resolved_recovers_once_the_one_that_it_started_is_over() {
    let parent = "playbook: down\ntriggers:\n  - alertmanager: {matchers: ['alertname=\"Down\"']}\n\
                  incident: {on_resolved: recover}\ncontain:\n  sub: {uses: playbook, with: {playbook: child}}\n\
                  recover:\n  back: {uses: http, with: {method: POST, url: back}}\n";
    let child = format!("{CHILD}finally:\n  end: {{uses: http, with: {{method: GET, url: child-is-over}}}}\n");
    let plans = [parent, &*child]
        .map(|text| Arc::new(stanch_playbook::load("test.yaml", text).unwrap_or_else(|bad| panic!("{bad}")).plan));
    let mut simulation = Simulation::new(plans.to_vec(), Settings::default()).checking();
    let run = simulation.alert(&[("alertname", "Down")], FIRST, AlertStatus::Firing).runs[0];
    let status = AlertStatus::Resolved { ends_at: Some(simulation.now) };
    simulation.alert(&[("alertname", "Down")], FIRST, status);
    pass(&mut simulation, 30);
    one_by_one(&mut simulation, &["GET child-is-over", "POST back"]);
    let parent = simulation.run(run).unwrap();
    assert_eq!((parent.state(), parent.steps[0].state.as_str()), ("succeeded", "skipped"));
}
