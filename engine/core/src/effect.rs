//! What the shell must do once the records are durable, and what follows from a state alone.

use stanch_playbook::Timestamp;

use crate::attempt::{Assignment, AttemptId};
use crate::run::Run;
use crate::state::State;

/// What the shell must do once the records are durable.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Give the attempt to a worker.
    DispatchAttempt(Box<Assignment>),
    /// Tell the worker to stop it; its result is still awaited.
    CancelAttempt(AttemptId),
    /// Send [`crate::Command::FireTimers`] at this time; it replaces the earlier one.
    ArmTimer(Timestamp),
}

/// What should be under way in this state: every claimed attempt at a worker, the cancelled ones told so, and the
/// first timer armed. Derived from the state alone; recovery is to fold the journal and do this.
pub fn outstanding(state: &State) -> impl Iterator<Item = Effect> + '_ {
    let attempts = state.runs.values().flat_map(move |run| run_effects(state, run));
    let undos = state.inforce.values().filter_map(|containment| containment.assignment());
    attempts
        .chain(undos.map(|assignment| Effect::DispatchAttempt(Box::new(assignment))))
        .chain(state.next_timer().map(Effect::ArmTimer))
}

fn run_effects<'a>(state: &'a State, run: &'a Run) -> impl Iterator<Item = Effect> + 'a {
    run.started().flat_map(move |(place, step)| {
        let mut effects = Vec::new();
        if step.state.attempt().is_some()
            && let Some(assignment) = state.assignment(run, place)
        {
            if run.cancel.is_some() && !run.is_finally(state, place.step) {
                effects.push(Effect::CancelAttempt(assignment.attempt.clone()));
            }
            effects.insert(0, Effect::DispatchAttempt(Box::new(assignment)));
        }
        effects
    })
}
