//! What people ask of runs: to end early, and what became of an unknown attempt.

use stanch_playbook::StepKey;

use super::Draft;
use crate::command::Rejected;
use crate::effect::Effect;
use crate::id::RunId;
use crate::record::{Answer, RunCancelRequested, StepAnswered};
use crate::run::StepState;

impl Draft {
    pub(super) fn cancel_run(&mut self, id: RunId, reason: String) -> Result<(), Rejected> {
        let run = self.state.runs.get(&id).ok_or(Rejected::UnknownRun(id))?;
        if run.cancel.is_some() {
            return Err(Rejected::AlreadyCancelled(id));
        }
        for (index, step) in run.steps.iter().enumerate() {
            if let StepState::Running { attempt } = &step.state
                && !run.is_finally(&self.state, index)
            {
                self.effects.push(Effect::CancelAttempt(attempt.clone()));
            }
        }
        self.emit(RunCancelRequested { run: id, reason });
        self.as_engine(|draft| draft.advance(id));
        Ok(())
    }

    pub(super) fn answer_step(
        &mut self,
        id: RunId,
        step: &StepKey,
        answer: Answer,
        note: String,
    ) -> Result<(), Rejected> {
        let run = self.state.runs.get(&id).ok_or(Rejected::UnknownRun(id))?;
        let plan = self.plan_of(run);
        let index = plan.step_index(step).ok_or_else(|| Rejected::UnknownStep(step.clone()))?;
        let state = &run.steps[index].state;
        if !matches!(state, StepState::Unknown { .. }) {
            return Err(Rejected::NotUnknown { step: step.clone(), state: state.as_str() });
        }
        let tolerated = plan.steps[index].continue_on_error;
        self.emit(StepAnswered { run: id, step: step.clone(), answer, tolerated, note });
        self.as_engine(|draft| {
            if answer == Answer::Retry {
                draft.schedule_again(id, index);
            }
            draft.advance(id);
        });
        Ok(())
    }
}
