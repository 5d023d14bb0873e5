//! Runs that are a step of another one.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use stanch_playbook::{Phase, Plan, PlanDigest, PlaybookName, Uses, ValueTemplate};

use super::Draft;
use super::advance::cancelled;
use crate::effect::Effect;
use crate::id::RunId;
use crate::names::StepNames;
use crate::record::{Ending, Parent, RunCancelRequested, RunOutcome, RunStarted, Waiting};
use crate::run::{Place, Run, StepState};

/// How deep playbooks can use playbooks.
const DEPTH: usize = 8;

impl Draft {
    /// The plans that a plan's sub-playbooks, and theirs, use from now on.
    pub(super) fn children_of(&self, plan: &Plan) -> BTreeMap<PlaybookName, PlanDigest> {
        let mut children = BTreeMap::new();
        let mut level: Vec<PlaybookName> = names_of(plan);
        for _ in 0..DEPTH {
            let mut next = Vec::new();
            for name in level {
                let Some(child) = self.state.playbook(name.as_str()) else { continue };
                if children.insert(name, child.digest).is_none() {
                    next.extend(names_of(child));
                }
            }
            level = next;
        }
        children
    }

    pub(super) fn start_child(
        &mut self,
        id: RunId,
        plan: &Arc<Plan>,
        place: Place,
        playbook: &PlaybookName,
        inputs: &ValueTemplate,
    ) -> bool {
        let Some(run) = self.state.runs.get(&id) else { return false };
        let run = Arc::clone(run);
        let names = StepNames::new(&self.state, &run, plan, place);
        let child = run.children.get(playbook).and_then(|digest| self.state.plan(*digest)).cloned();
        let prepared = match (child, inputs.render(&names)) {
            (None, _) => Err(format!("playbook {playbook} was not loaded when the run started")),
            (_, Err(error)) => Err(format!("with.inputs: {error}")),
            (Some(child), Ok(inputs)) => {
                let given = match inputs {
                    Value::Object(inputs) => inputs,
                    _ => Map::new(),
                };
                child.check_inputs(given).map(|inputs| (child, inputs)).map_err(|error| format!("with.inputs: {error}"))
            }
        };
        let (child, inputs) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.fail(id, plan, place, error);
                return true;
            }
        };
        let expires_at = self.expiry(&plan.steps[place.step]);
        let running = self.state.running.get(&child.name).copied().unwrap_or(0);
        let started = RunId::derive(self.state.journal, self.state.sequence.next(), self.now);
        self.emit(RunStarted {
            run: started,
            playbook: child.name.clone(),
            plan: child.digest,
            incident: run.incident,
            cause: run.cause.clone(),
            inputs: Arc::new(Value::Object(inputs)),
            queued: child.concurrency.is_some_and(|most| running >= most),
            parent: Some(Parent { run: id, step: plan.steps[place.step].key.clone(), item: place.item }),
            children: run.children.clone(),
            held: None,
            hold_until: None,
        });
        self.receipt.runs.push(started);
        self.wait(id, plan, place, Waiting::Run { child: started, expires_at });
        self.advance(started);
        let over = |run: &Arc<Run>| run.at(place).is_none_or(|of| of.state.is_over());
        self.state.runs.get(&id).is_none_or(over)
    }

    /// Tells the step that a run was part of how it ended.
    pub(super) fn child_finished(&mut self, child: &Run, plan: &Plan, outcome: RunOutcome) {
        let Some(parent) = &child.parent else { return };
        let Some(run) = self.state.runs.get(&parent.run) else { return };
        let parent_plan = self.plan_of(run);
        let Some(step) = parent_plan.step_index(&parent.step) else { return };
        let place = Place { step, item: parent.item };
        if !run.at(place).is_some_and(|of| is_waiting_for(&of.state, child.id)) {
            return;
        }
        let id = run.id;
        match outcome {
            RunOutcome::Succeeded => {
                let steps: Map<String, Value> = plan
                    .steps
                    .iter()
                    .zip(&child.steps)
                    .map(|(of, step)| {
                        (of.name.clone(), json!({"state": step.state.as_str(), "outputs": &*step.outputs}))
                    })
                    .collect();
                let result = json!({"run": child.id, "outcome": outcome.as_str(), "steps": steps});
                self.wake(id, place, &result);
            }
            RunOutcome::Cancelled if run.cancel.is_some() => {
                let reason = cancelled(run);
                self.end(id, &parent_plan, place, Ending::Cancelled, reason);
            }
            RunOutcome::Cancelled if run.recovering && parent_plan.steps[step].phase < Phase::Recover => {
                self.end(id, &parent_plan, place, Ending::Skipped, "its alerts are resolved".into());
            }
            RunOutcome::Failed | RunOutcome::Cancelled => {
                let why = child.cancel.as_ref().map(|(_, why)| format!(": {why}")).filter(|why| why.len() > 2);
                let (past, why) = (past(outcome), why.unwrap_or_default());
                self.fail(id, &parent_plan, place, format!("run {} of {} {past}{why}", child.id, child.playbook));
            }
        }
        self.advance(id);
    }

    /// Cancels a run together with the step that started it, which is over once it is.
    pub(super) fn cancel_child(&mut self, child: RunId, parent: &Run) {
        let reason = parent.cancel.as_ref().map_or("its alerts are resolved", |(_, reason)| reason);
        self.cancel(child, reason.to_owned(), parent.undo);
    }

    /// Cancels a run that took too long. The step that waits for it is over once it is.
    pub(super) fn cancel_late_child(&mut self, id: RunId, plan: &Plan, place: Place, child: RunId) {
        self.cancel(child, "it took too long".to_owned(), false);
        let waits = |run: &Arc<Run>| run.at(place).is_some_and(|of| is_waiting_for(&of.state, child));
        if self.state.runs.get(&id).is_some_and(waits) {
            self.wait(id, plan, place, Waiting::Run { child, expires_at: None });
        }
    }

    /// Cancels a live run that is not being cancelled yet, and carries it on.
    pub(super) fn cancel(&mut self, id: RunId, reason: String, undo: bool) {
        let Some(run) = self.state.runs.get(&id).filter(|run| run.cancel.is_none()) else { return };
        for (place, step) in run.started() {
            if let Some(attempt) = step.state.attempt()
                && !run.is_finally(&self.state, place.step)
            {
                self.effects.push(Effect::CancelAttempt(attempt.clone()));
            }
        }
        self.emit(RunCancelRequested { run: id, reason, undo });
        self.as_engine(|draft| draft.advance(id));
    }
}

fn names_of(plan: &Plan) -> Vec<PlaybookName> {
    let child = |step: &stanch_playbook::Step| match &step.uses {
        Uses::Playbook { playbook, .. } => Some(playbook.clone()),
        _ => None,
    };
    plan.steps.iter().filter_map(child).collect()
}

fn is_waiting_for(state: &StepState, run: RunId) -> bool {
    matches!(state, StepState::Waiting { wait: Waiting::Run { child, .. } } if *child == run)
}

const fn past(outcome: RunOutcome) -> &'static str {
    match outcome {
        RunOutcome::Succeeded => "succeeded",
        RunOutcome::Failed => "failed",
        RunOutcome::Cancelled => "was cancelled",
    }
}
