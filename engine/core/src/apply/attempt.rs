//! Attempts, and where they leave their steps.

use std::sync::Arc;

use super::{Fold, IllegalTransition};
use crate::attempt::{AttemptId, Purpose};
use crate::containment::UndoState;
use crate::record::{
    AttemptFailed, AttemptScheduled, AttemptSucceeded, AttemptUnknown, Body, Then, Unsettled, Verification,
};
use crate::run::{AttemptOutcome, AttemptRun, Rendered, StepRun, StepState};

impl Fold<'_> {
    pub(super) fn attempt_failed(&mut self, body: &AttemptFailed) -> Result<(), IllegalTransition> {
        self.attempt(&body.attempt, AttemptOutcome::Failed, Some(&body.error), |step| {
            step.state = after(step, body.then, &body.error, None);
        })
    }

    pub(super) fn attempt_unknown(&mut self, body: &AttemptUnknown) -> Result<(), IllegalTransition> {
        let now = self.record.time;
        self.attempt(&body.attempt, AttemptOutcome::Unknown, Some(&body.reason), |step| {
            step.state = after(step, body.then, &body.reason, body.verification.as_ref());
            if let StepState::Verifying { next, unknown, .. } = &mut step.state
                && body.attempt.purpose == Purpose::Do
            {
                *next = Some(now);
                *unknown = Some(body.reason.clone());
            }
        })
    }

    pub(super) fn attempt_scheduled(&mut self, body: &AttemptScheduled) -> Result<(), IllegalTransition> {
        let now = self.record.time;
        if body.attempt.purpose == Purpose::Undo {
            let id = self.contained(&body.attempt)?;
            self.containment(id, |containment| {
                containment.attempts = body.attempt.number;
                let before =
                    std::mem::replace(&mut containment.state, UndoState::Undoing { attempt: body.attempt.clone() });
                matches!(before, UndoState::Requested | UndoState::Backoff { .. })
            })?;
            return Ok(());
        }
        self.spend(&body.attempt);
        self.step(body.attempt.run, &body.attempt.step, body.attempt.item, |step| {
            let made = AttemptRun {
                purpose: body.attempt.purpose,
                generation: body.attempt.generation,
                number: body.attempt.number,
                epoch: body.attempt.epoch,
                scheduled_at: now,
                finished_at: None,
                outcome: AttemptOutcome::Running,
                error: None,
            };
            if let StepState::Verifying { attempt, next, .. } = &mut step.state {
                let legal = body.attempt.purpose == Purpose::Verify && attempt.is_none();
                *attempt = Some(body.attempt.clone());
                *next = None;
                step.attempts.pop_if(|last| last.purpose == Purpose::Verify);
                step.attempts.push(made);
                return legal;
            }
            match step.state {
                StepState::Pending | StepState::Backoff { .. } => {}
                _ => return false,
            }
            step.rendered = Some(Rendered { with: body.with.clone(), env: body.env.clone(), timeout: body.timeout });
            step.started_at.get_or_insert(now);
            // Of a step that polls, the last look alone is kept.
            step.attempts.pop_if(|last| last.purpose == Purpose::Do && last.outcome == AttemptOutcome::Succeeded);
            step.attempts.push(made);
            step.state = StepState::Running { attempt: body.attempt.clone() };
            body.attempt.purpose == Purpose::Do
        })
    }

    /// Counts the first attempt at a target against its step's budget.
    fn spend(&mut self, attempt: &AttemptId) {
        let first = attempt.purpose == Purpose::Do && attempt.number == 1 && attempt.generation == 0;
        if !first || self.state.settings.budgets.is_empty() {
            return;
        }
        let plan = self.state.runs.get(&attempt.run).and_then(|run| self.state.plan(run.plan));
        let step = plan.and_then(|plan| plan.steps.get(plan.step_index(&attempt.step)?));
        let Some(name) = step.and_then(|step| step.budget.clone()) else { return };
        let Some(budget) = self.state.settings.budgets.get(&name) else { return };
        let (now, per) = (self.record.time, budget.per);
        let spent = self.state.spent.entry(name).or_default();
        spent.push_back(now);
        while spent.front().is_some_and(|at| now.since(*at) >= per) {
            spent.pop_front();
        }
    }

    pub(super) fn attempt_succeeded(&mut self, body: &AttemptSucceeded) -> Result<(), IllegalTransition> {
        if body.attempt.purpose == Purpose::Undo {
            let id = self.contained(&body.attempt)?;
            self.containment_over(id)?;
            return Ok(());
        }
        let now = self.record.time;
        let error = body.unsettled.as_ref().map(|unsettled| &unsettled.reason);
        self.attempt(&body.attempt, AttemptOutcome::Succeeded, error, |step| {
            if !body.outputs.is_null() {
                step.outputs = body.outputs.clone();
            }
            step.state = match &body.unsettled {
                None => StepState::Succeeded,
                Some(Unsettled { reason, then }) => after(step, *then, reason, body.verification.as_ref()),
            };
            if let StepState::Verifying { next, .. } = &mut step.state
                && body.attempt.purpose == Purpose::Do
            {
                *next = Some(now);
            }
        })
    }

    fn attempt(
        &mut self,
        attempt: &AttemptId,
        outcome: AttemptOutcome,
        error: Option<&Arc<str>>,
        change: impl FnOnce(&mut StepRun),
    ) -> Result<(), IllegalTransition> {
        let now = self.record.time;
        if attempt.purpose == Purpose::Undo {
            let id = self.contained(attempt)?;
            let then = match &self.record.body {
                Body::AttemptFailed(body) => body.then,
                Body::AttemptUnknown(body) => body.then,
                _ => Then::Fail,
            };
            let error = error.cloned().unwrap_or_else(|| "no reason given".into());
            return self.containment(id, |containment| {
                let legal = matches!(&containment.state, UndoState::Undoing { attempt: running } if running == attempt);
                containment.state = match then {
                    Then::Retry { at } | Then::Redo { at } => UndoState::Backoff { until: at },
                    Then::Ask | Then::Verify => UndoState::Unknown { reason: error },
                    Then::Fail | Then::Tolerate | Then::Cancel => UndoState::Failed { error },
                };
                legal
            });
        }
        self.step(attempt.run, &attempt.step, attempt.item, |step| {
            if step.state.attempt() != Some(attempt) {
                return false;
            }
            if let Some(last) = step.attempts.last_mut() {
                last.outcome = outcome;
                last.finished_at = Some(now);
                last.error = error.cloned();
            }
            change(step);
            if step.state.is_over() {
                step.finished_at = Some(now);
                step.rendered = None;
            }
            true
        })
    }
}

fn after(step: &StepRun, then: Then, error: &Arc<str>, verification: Option<&Arc<Verification>>) -> StepState {
    match (then, &step.state) {
        // A verification goes on.
        (Then::Retry { at }, StepState::Verifying { verification, unknown, .. }) => StepState::Verifying {
            verification: Arc::clone(verification),
            attempt: None,
            next: Some(at),
            unknown: unknown.clone(),
        },
        (Then::Retry { at } | Then::Redo { at }, _) => StepState::Backoff { until: at },
        (Then::Verify, _) => match verification {
            Some(verification) => StepState::Verifying {
                verification: Arc::clone(verification),
                attempt: None,
                next: None,
                unknown: None,
            },
            None => StepState::Unknown { reason: error.clone() },
        },
        (Then::Ask, _) => StepState::Unknown { reason: error.clone() },
        (Then::Fail, _) => StepState::Failed { error: error.clone() },
        (Then::Tolerate, _) => StepState::Tolerated { error: error.clone() },
        (Then::Cancel, _) => StepState::Cancelled { reason: error.clone() },
    }
}
