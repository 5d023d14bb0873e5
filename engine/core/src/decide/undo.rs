//! Taking back: what is in force is undone one after the other, the last first, by a failure, a cancel, a step, a person
//! or its lease.

use std::sync::Arc;

use serde_json::{Map, Value};
use stanch_playbook::plan::{OnUnknown, Undo};
use stanch_playbook::{Phase, Plan, Timestamp};

use super::Draft;
use super::attempts::delay;
use crate::attempt::{AttemptId, Outcome};
use crate::command::Rejected;
use crate::containment::{Containment, UndoState};
use crate::id::{ContainmentId, RunId};
use crate::names::{StepNames, render};
use crate::record::{
    AttemptFailed, AttemptSucceeded, AttemptUnknown, ContainmentEnded, ContainmentExtended, ContainmentStarted,
    RenderedCall, Then, UndoRequested, Waiting,
};
use crate::run::{Place, Run, StepRun, StepState};

impl Draft {
    /// What an attempt put in force, or may have. The undo is rendered now: it outlives the run.
    pub(super) fn contain(
        &self,
        run: &Run,
        plan: &Plan,
        place: Place,
        undo: &Undo,
        result: Option<&Value>,
        outputs: Option<&Value>,
    ) -> Result<ContainmentStarted, String> {
        let step = &plan.steps[place.step];
        let none = Value::Null;
        let names = StepNames::new(&self.state, run, plan, place).with_result(result.unwrap_or(&none));
        let names = StepNames { own: outputs, ..names };
        let (with, env) = render(&undo.call, names).map_err(|error| format!("undo: {error}"))?;
        let known = self.state.containment_at(run.id, &step.key, place.item).map(|of| of.id);
        let fresh = || ContainmentId::derive(self.state.journal, self.state.sequence.next(), self.now);
        let done = run.at(place).and_then(|of| of.rendered.as_ref()).map(|rendered| Arc::clone(&rendered.with));
        Ok(ContainmentStarted {
            containment: known.unwrap_or_else(fresh),
            run: run.id,
            step: step.key.clone(),
            item: place.item,
            done: done.unwrap_or_default(),
            undo: RenderedCall { action: undo.call.action.clone(), with, env, timeout: undo.timeout },
            policy: undo.policy,
            until: undo.after.map(|after| self.now.plus(after)),
            certain: result.is_some(),
        })
    }

    /// Whether what a failed or cancelled run did is taken back as far as it goes; asks for it once.
    pub(super) fn is_taken_back(&mut self, id: RunId, plan: &Plan) -> bool {
        let Some(run) = self.state.runs.get(&id) else { return true };
        if !run.undoing.is_empty() {
            return false;
        }
        if let Some(root) = self.undone_with(run) {
            return self.is_family_taken_back(root);
        }
        if run.undo_asked {
            return true;
        }
        let Some(failed) = run.failed_step(plan).filter(|step| plan.undo_on_failure.contains(&step.phase)) else {
            return true;
        };
        let reason = format!("{} failed", failed.key);
        self.take_back(id, plan, Some(failed.phase), reason);
        self.state.runs.get(&id).is_none_or(|run| run.undoing.is_empty())
    }

    /// The outermost run that was cancelled and is taken back, itself or one whose phases a cancelled run is part of: all of
    /// these are taken back together.
    fn undone_with(&self, run: &Run) -> Option<RunId> {
        let mut undone = None;
        let mut at = Some(run).filter(|run| run.cancel.is_some());
        while let Some(run) = at {
            undone = if run.cancel.is_some() && run.undo { Some(run.id) } else { undone };
            at = run.parent.as_ref().and_then(|parent| {
                let outer = self.state.runs.get(&parent.run)?;
                let step = self.state.plan(outer.plan)?.step_index(&parent.step)?;
                Some(&**outer).filter(|outer| !outer.is_finally(&self.state, step))
            });
        }
        undone
    }

    /// The same of a cancelled run together with the runs that it started: asked for once nothing of their phases is
    /// under way, so that the last comes first over all of them.
    fn is_family_taken_back(&mut self, root: RunId) -> bool {
        let Some(run) = self.state.runs.get(&root) else { return true };
        if !self.phases_are_over(run) {
            return false;
        }
        if !run.undo_asked {
            let plan = self.plan_of(run);
            self.take_back(root, &plan, None, "the run was cancelled".to_owned());
        }
        self.state.runs.get(&root).is_none_or(|run| run.undoing.is_empty())
    }

    /// Whether nothing of the phases of a cancelled run, and of those that it started, will do anything any more.
    fn phases_are_over(&self, run: &Run) -> bool {
        run.started().all(|(place, step)| {
            run.is_finally(&self.state, place.step)
                || match &step.state {
                    StepState::Waiting { wait: Waiting::Run { child, .. } } => self
                        .state
                        .runs
                        .get(child)
                        .is_none_or(|child| child.cancel.is_some() && self.phases_are_over(child)),
                    // What has not begun in a cancelled run never does.
                    state => state.is_over() || matches!(state, StepState::Pending),
                }
        })
    }

    /// Lets the runs that a cancelled one started, and that wait to be taken back together with it, go on.
    pub(super) fn advance_children(&mut self, id: RunId) {
        let Some(run) = self.state.runs.get(&id) else { return };
        let Some(root) = self.undone_with(run) else { return };
        let waits = |(_, step): (Place, &StepRun)| match step.state {
            StepState::Waiting { wait: Waiting::Run { child, .. } } => Some(child),
            _ => None,
        };
        let children: Vec<RunId> = run.started().filter_map(waits).collect();
        if !children.is_empty() && self.is_family_taken_back(root) {
            children.into_iter().for_each(|child| self.advance(child));
        }
    }

    /// Asks for what a phase of a run, or all of it, put in force to be taken back.
    fn take_back(&mut self, id: RunId, plan: &Plan, phase: Option<Phase>, reason: String) {
        let of = |step: &&stanch_playbook::Step| phase.is_none_or(|phase| step.phase == phase);
        let steps = plan.steps.iter().filter(of).map(|step| &step.key);
        let containments = last_first(steps.flat_map(|key| self.state.inforce_of(id, key)).map(Arc::clone).collect());
        if !containments.is_empty() {
            self.request_undo(UndoRequested { containments, run: Some(id), step: None, reason });
        }
    }

    fn request_undo(&mut self, request: UndoRequested) {
        let first = request.containments.first().copied();
        self.emit(request);
        if let Some(first) = first {
            self.begin_undo(first);
        }
    }

    fn begin_undo(&mut self, id: ContainmentId) {
        let Some(containment) = self.state.inforce.get(&id) else { return };
        let attempt = containment.next_attempt(self.state.epoch);
        let call = containment.undo.clone();
        self.as_engine(|draft| draft.schedule(attempt, call));
    }

    pub(super) fn fire_containment(&mut self, id: ContainmentId) {
        let Some(containment) = self.state.inforce.get(&id) else { return };
        match containment.state {
            UndoState::Inforce => self.request_undo(UndoRequested {
                containments: vec![id],
                run: None,
                step: None,
                reason: "its time is over".to_owned(),
            }),
            UndoState::Backoff { .. } => self.begin_undo(id),
            UndoState::Requested | UndoState::Undoing { .. } | UndoState::Unknown { .. } | UndoState::Failed { .. } => {
            }
        }
    }

    /// The undo attempts of an engine that is gone.
    pub(super) fn lost_undos(&self) -> Vec<AttemptId> {
        let lost = |containment: &Arc<Containment>| match &containment.state {
            UndoState::Undoing { attempt } if attempt.epoch < self.state.epoch => Some(attempt.clone()),
            _ => None,
        };
        self.state.inforce.values().filter_map(lost).collect()
    }

    pub(super) fn finish_undo(&mut self, attempt: &AttemptId, outcome: Outcome) -> Result<(), Rejected> {
        if !self.state.is_under_way(attempt) {
            if self.state.runs.contains_key(&attempt.run) {
                self.note_late(attempt, &outcome);
                return Ok(());
            }
            return Err(Rejected::UnknownAttempt);
        }
        let containment = self.state.containment_at(attempt.run, &attempt.step, attempt.item);
        let containment = Arc::clone(containment.ok_or(Rejected::UnknownAttempt)?);
        let policy = containment.policy;
        let again = |draft: &Self| Then::Retry { at: draft.now.plus(delay(&policy.retry, attempt, attempt.number)) };
        let left = attempt.number < policy.retry.max_attempts;
        match outcome {
            Outcome::Succeeded { output } => self.emit(AttemptSucceeded {
                attempt: attempt.clone(),
                output: Arc::new(output),
                outputs: Arc::new(Value::Null),
                unsettled: None,
                verification: None,
            }),
            Outcome::Failed { error, output, retryable, .. } => {
                let then = if retryable && left { again(self) } else { Then::Fail };
                let output = output.map(Arc::new);
                self.emit(AttemptFailed { attempt: attempt.clone(), error: error.into(), output, then });
            }
            Outcome::Unknown { reason } => {
                let then = match policy.on_unknown {
                    OnUnknown::Retry if left => again(self),
                    OnUnknown::Retry | OnUnknown::Fail => Then::Fail,
                    OnUnknown::Ask | OnUnknown::Verify => Then::Ask,
                };
                let attempt = attempt.clone();
                self.emit(AttemptUnknown { attempt, reason: reason.into(), then, verification: None });
            }
        }
        self.undo_moved(&containment);
        Ok(())
    }

    /// After an undo came to an end, or was given up: the next one of its row, and whoever waits for it.
    fn undo_moved(&mut self, before: &Containment) {
        if self.state.inforce.get(&before.id).is_some_and(|containment| containment.state.is_under_way()) {
            return;
        }
        if let Some(next) = before.next {
            self.begin_undo(next);
        }
        if let Some(run) = before.waiter {
            self.check_undo_waits(run);
            self.advance(run);
        }
    }

    /// A step that takes back what another one did.
    pub(super) fn start_undo(&mut self, id: RunId, plan: &Arc<Plan>, place: Place, of: usize) -> bool {
        let target = &plan.steps[of].key;
        let inforce: Vec<_> = self.state.inforce_of(id, target).map(Arc::clone).collect();
        let expires_at = self.expiry(&plan.steps[place.step]);
        self.wait(id, plan, place, Waiting::Undo { expires_at });
        let containments = last_first(inforce);
        if !containments.is_empty() {
            let step = Some(plan.steps[place.step].key.clone());
            let reason = format!("asked by {}", plan.steps[place.step].key);
            self.request_undo(UndoRequested { containments, run: Some(id), step, reason });
        }
        self.check_undo_waits(id);
        let over = |run: &Arc<Run>| run.at(place).is_none_or(|step| step.state.is_over());
        self.state.runs.get(&id).is_none_or(over)
    }

    /// Ends the steps of a run that wait for an undo which is over.
    fn check_undo_waits(&mut self, id: RunId) {
        let Some(run) = self.state.runs.get(&id) else { return };
        let plan = self.plan_of(run);
        let run = Arc::clone(run);
        for (place, step) in run.started() {
            let StepState::Waiting { wait: Waiting::Undo { .. } } = step.state else { continue };
            let stanch_playbook::Uses::Undo { step: of } = &plan.steps[place.step].uses else { continue };
            let left: Vec<_> = self.state.inforce_of(id, &plan.steps[*of].key).map(Arc::clone).collect();
            if left.iter().any(|containment| containment.state.is_under_way()) {
                continue;
            }
            match left.iter().find_map(|containment| containment.state.error()) {
                Some(error) => {
                    let reason = format!("{} could not be taken back and stays in force: {error}", left.len());
                    self.fail(id, &plan, place, reason);
                }
                None => self.wake(id, place, &Value::Object(Map::new())),
            }
        }
    }

    pub(super) fn undo_by_hand(&mut self, id: ContainmentId, reason: String) -> Result<(), Rejected> {
        let containment = self.state.inforce.get(&id).ok_or(Rejected::UnknownContainment(id))?;
        if containment.state.is_under_way() {
            return Err(Rejected::UndoUnderWay(id));
        }
        let reason = if reason.is_empty() { "asked for".to_owned() } else { reason };
        self.request_undo(UndoRequested { containments: vec![id], run: None, step: None, reason });
        Ok(())
    }

    pub(super) fn extend(
        &mut self,
        id: ContainmentId,
        until: Option<Timestamp>,
        reason: String,
    ) -> Result<(), Rejected> {
        let containment = self.state.inforce.get(&id).ok_or(Rejected::UnknownContainment(id))?;
        if containment.state.is_under_way() {
            return Err(Rejected::UndoUnderWay(id));
        }
        if until.is_some_and(|until| until <= self.now) {
            return Err(Rejected::InThePast);
        }
        if !matches!(containment.state, UndoState::Inforce) {
            return Err(Rejected::NotInForce(id));
        }
        self.emit(ContainmentExtended { containment: id, until, reason });
        Ok(())
    }

    /// A person took it back, or knows that it never happened.
    pub(super) fn end_containment(&mut self, id: ContainmentId, reason: String) -> Result<(), Rejected> {
        let containment = Arc::clone(self.state.inforce.get(&id).ok_or(Rejected::UnknownContainment(id))?);
        if containment.state.is_under_way() {
            return Err(Rejected::UndoUnderWay(id));
        }
        self.emit(ContainmentEnded { containment: id, reason });
        self.as_engine(|draft| draft.undo_moved(&containment));
        Ok(())
    }
}

/// Those that nobody is taking back yet, the last first.
fn last_first(mut containments: Vec<Arc<Containment>>) -> Vec<ContainmentId> {
    containments.retain(|containment| !containment.state.is_under_way());
    containments.sort_by_key(|containment| std::cmp::Reverse((containment.since, containment.id)));
    containments.iter().map(|containment| containment.id).collect()
}
