//! What people ask of runs: to end early, and what became of an unknown attempt.

use stanch_playbook::StepKey;

use super::Draft;
use crate::command::Rejected;
use crate::id::RunId;
use crate::record::{Answer, ContainmentEnded, StepAnswered};
use crate::run::{Place, StepState};

impl Draft {
    pub(super) fn cancel_run(&mut self, id: RunId, reason: String, undo: bool) -> Result<(), Rejected> {
        let run = self.state.runs.get(&id).ok_or(Rejected::UnknownRun(id))?;
        if run.cancel.is_some() {
            return Err(Rejected::AlreadyCancelled(id));
        }
        self.cancel(id, reason, undo);
        Ok(())
    }

    pub(super) fn answer_step(
        &mut self,
        id: RunId,
        step: &StepKey,
        item: Option<u32>,
        answer: Answer,
        note: String,
    ) -> Result<(), Rejected> {
        let run = self.state.runs.get(&id).ok_or(Rejected::UnknownRun(id))?;
        let plan = self.plan_of(run);
        let index = plan.step_index(step).ok_or_else(|| Rejected::UnknownStep(step.clone()))?;
        let place = Place { step: index, item };
        let state = &run.at(place).ok_or_else(|| Rejected::UnknownStep(step.clone()))?.state;
        if !matches!(state, StepState::Unknown { .. }) {
            return Err(Rejected::NotUnknown { step: step.clone(), state: state.as_str() });
        }
        let tolerated = plan.steps[index].continue_on_error;
        self.emit(StepAnswered { run: id, step: step.clone(), item, answer, tolerated, note });
        // What did not happen is not in force.
        if answer == Answer::Failed
            && let Some(containment) = self.state.containment_at(id, step, item).map(|of| of.id)
        {
            self.emit(ContainmentEnded { containment, reason: "it did not happen".to_owned() });
        }
        self.as_engine(|draft| {
            if answer == Answer::Retry {
                draft.schedule_again(id, place);
            }
            draft.advance(id);
        });
        Ok(())
    }
}
