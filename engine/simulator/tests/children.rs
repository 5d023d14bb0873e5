//! Runs that are a step of another one, and how they end with it.

use std::sync::Arc;
use std::time::Duration;

use stanch_core::alert::AlertStatus;
use stanch_core::record::Actor;
use stanch_core::{Command, RunId, Settings};
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
    assert!(parent.steps[0].state.error().unwrap().ends_with("took too long and was cancelled"));
}
