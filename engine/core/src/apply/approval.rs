//! Questions to people.

use std::sync::Arc;

use super::{Fold, IllegalTransition};
use crate::record::{ApprovalDecided, ApprovalEscalated, ApprovalRequested, Waiting};
use crate::run::{Question, StepState};

impl Fold<'_> {
    pub(super) fn approval_requested(&mut self, body: &ApprovalRequested) -> Result<(), IllegalTransition> {
        let now = self.record.time;
        self.step(body.run, &body.step, None, |step| {
            // Also after it was answered: what was approved has changed.
            let legal = matches!(step.state, StepState::Pending | StepState::Waiting { .. } | StepState::Succeeded);
            step.started_at.get_or_insert(now);
            step.finished_at = None;
            let question = Question { asked: body.clone(), asked_at: now, answers: Vec::new(), told: 0 };
            step.question = Some(Arc::new(question));
            step.state =
                StepState::Waiting { wait: Waiting::Approval { approval: body.approval, expires_at: body.expires_at } };
            legal
        })
    }

    pub(super) fn approval_escalated(&mut self, body: &ApprovalEscalated) -> Result<(), IllegalTransition> {
        self.step(body.run, &body.step, None, |step| {
            let waits = matches!(step.state, StepState::Waiting { .. });
            let Some(question) = step.question.as_mut().filter(|of| of.asked.approval == body.approval) else {
                return false;
            };
            let legal = waits && body.level > question.told;
            Arc::make_mut(question).told = body.level;
            legal
        })
    }

    pub(super) fn approval_decided(&mut self, body: &ApprovalDecided) -> Result<(), IllegalTransition> {
        let now = self.record.time;
        self.step(body.run, &body.step, None, |step| {
            let Some(question) = &mut step.question else { return false };
            let answer = (self.record.actor.clone(), body.verdict, now);
            Arc::make_mut(question).answers.push(answer);
            let legal = question.asked.approval == body.approval && matches!(step.state, StepState::Waiting { .. });
            if body.resumes {
                step.state = StepState::Pending;
            }
            legal
        })
    }
}
