//! Steps and items that move without an attempt, and the indexes that follow them.

use std::sync::Arc;

use serde_json::Value;
use stanch_playbook::{StepKey, Timestamp};

use super::{Fold, IllegalTransition};
use crate::id::{ApprovalId, RunId};
use crate::record::{
    Actor, Answer, Ending, ItemsEnded, ItemsStarted, StepAnswered, StepEnded, StepWaiting, StepWoken, Waiting,
};
use crate::run::{Place, Run, StepRun, StepState};
use crate::state::Timer;

impl Fold<'_> {
    pub(super) fn step_waiting(&mut self, body: &StepWaiting) -> Result<(), IllegalTransition> {
        let now = self.record.time;
        self.step(body.run, &body.step, body.item, |step| {
            let legal = matches!(step.state, StepState::Pending | StepState::Waiting { .. });
            step.started_at.get_or_insert(now);
            step.state = StepState::Waiting { wait: body.wait };
            legal
        })
    }

    pub(super) fn step_woken(&mut self, body: &StepWoken) -> Result<(), IllegalTransition> {
        let now = self.record.time;
        self.step(body.run, &body.step, body.item, |step| {
            let legal = matches!(step.state, StepState::Waiting { .. });
            step.outputs = body.outputs.clone();
            finish(step, StepState::Succeeded, now);
            legal
        })
    }

    pub(super) fn step_ended(&mut self, body: &StepEnded) -> Result<(), IllegalTransition> {
        let now = self.record.time;
        self.step(body.run, &body.step, body.item, |step| {
            let legal = !step.state.is_over() && !matches!(step.state, StepState::Running { .. });
            let state = ended(body.ending, body.reason.clone());
            finish(step, state, now);
            legal
        })
    }

    pub(super) fn step_answered(&mut self, body: &StepAnswered) -> Result<(), IllegalTransition> {
        let now = self.record.time;
        self.step(body.run, &body.step, body.item, |step| {
            let legal = matches!(step.state, StepState::Unknown { .. });
            let error: Arc<str> = match body.note.as_str() {
                "" => format!("{} answered that it failed", self_actor(&self.record.actor)).into(),
                note => format!("{} answered that it failed: {note}", self_actor(&self.record.actor)).into(),
            };
            match body.answer {
                Answer::Succeeded => finish(step, StepState::Succeeded, now),
                Answer::Failed if body.tolerated => finish(step, StepState::Tolerated { error }, now),
                Answer::Failed => finish(step, StepState::Failed { error }, now),
                Answer::Retry => {
                    step.generation += 1;
                    step.state = StepState::Backoff { until: now };
                }
            }
            if step.outputs.is_null() && step.state.satisfies() {
                step.outputs = Arc::new(Value::Object(serde_json::Map::new()));
            }
            legal
        })
    }

    pub(super) fn items_started(&mut self, body: &ItemsStarted) -> Result<(), IllegalTransition> {
        let now = self.record.time;
        self.step(body.run, &body.step, None, |step| {
            let legal = matches!(step.state, StepState::Pending);
            step.started_at.get_or_insert(now);
            step.items = body.items.iter().map(|value| Arc::new(StepRun::item(value.clone()))).collect();
            step.state = StepState::Items { started: 0, live: 0, idle: 0, failed: 0 };
            legal
        })
    }

    pub(super) fn items_ended(&mut self, body: &ItemsEnded) -> Result<(), IllegalTransition> {
        let now = self.record.time;
        self.step(body.run, &body.step, None, |step| {
            let legal = matches!(step.state, StepState::Items { .. });
            let state = match &body.failure {
                None => StepState::Succeeded,
                Some(failure) => ended(failure.ending, failure.reason.clone()),
            };
            step.outputs = Arc::new(Value::Object(serde_json::Map::new()));
            finish(step, state, now);
            legal
        })
    }

    pub(super) fn place(&self, run: &Run, key: &StepKey, item: Option<u32>) -> Result<Place, IllegalTransition> {
        let step = self.state.plan(run.plan).and_then(|plan| plan.step_index(key));
        let place = step.map(|step| Place { step, item }).filter(|place| run.at(*place).is_some());
        place.ok_or_else(|| IllegalTransition::NoStep { kind: self.kind(), run: run.id, step: key.clone() })
    }

    /// Changes one step, or one item of it; `change` says whether the state it found was a legal one.
    pub(super) fn step(
        &mut self,
        id: RunId,
        key: &StepKey,
        item: Option<u32>,
        change: impl FnOnce(&mut StepRun) -> bool,
    ) -> Result<(), IllegalTransition> {
        let mut run = self.take_run(id)?;
        let place = self.place(&run, key, item)?;
        let step = Arc::make_mut(&mut Arc::make_mut(&mut run).steps[place.step]);
        let (before, after, word, legal) = match item {
            None => changed(step, change),
            Some(item) => {
                let Some(of) = step.items.get_mut(item as usize) else { return Ok(()) };
                let of = Arc::make_mut(of);
                let was = of.state.clone();
                let result = changed(of, change);
                count(&mut step.state, &was, &of.state);
                result
            }
        };
        if !legal {
            return Err(IllegalTransition::Step { kind: self.kind(), run: id, step: key.clone(), state: word });
        }
        if before != after {
            self.unmark(id, place, before);
            self.mark(id, place, after);
        }
        self.put_run(run);
        Ok(())
    }

    fn mark(&mut self, run: RunId, place: Place, marks: Marks) {
        if let Some(at) = marks.timer {
            self.state.timers.insert((at, Timer::Step(run, place)));
        }
        if marks.awaits {
            self.state.awaiting.insert((run, place));
        }
        if let Some(question) = marks.question {
            self.state.questions.insert(question, (run, place));
        }
    }

    pub(super) fn unmark(&mut self, run: RunId, place: Place, marks: Marks) {
        if let Some(at) = marks.timer {
            self.state.timers.remove(&(at, Timer::Step(run, place)));
        }
        if marks.awaits {
            self.state.awaiting.remove(&(run, place));
        }
        if let Some(question) = marks.question {
            self.state.questions.remove(&question);
        }
    }
}

fn self_actor(actor: &Actor) -> &str {
    actor.as_str().strip_prefix("person:").unwrap_or(actor.as_str())
}

fn finish(step: &mut StepRun, state: StepState, now: Timestamp) {
    step.state = state;
    step.rendered = None;
    step.finished_at = Some(now);
}

fn ended(ending: Ending, reason: Arc<str>) -> StepState {
    match ending {
        Ending::Skipped => StepState::Skipped,
        Ending::Blocked => StepState::Blocked { reason },
        Ending::Cancelled => StepState::Cancelled { reason },
        Ending::Failed => StepState::Failed { error: reason },
        Ending::Tolerated => StepState::Tolerated { error: reason },
    }
}

/// What the indexes hold of a state.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Marks {
    timer: Option<Timestamp>,
    awaits: bool,
    question: Option<ApprovalId>,
}

impl Marks {
    pub(super) fn of(step: &StepRun) -> Self {
        let state = &step.state;
        let question = match state {
            StepState::Waiting { wait: Waiting::Approval { approval, .. } } => Some(*approval),
            _ => None,
        };
        let awaits = matches!(state, StepState::Waiting { wait: Waiting::Event { .. } });
        Self { timer: step.timer(), awaits, question }
    }
}

fn changed(step: &mut StepRun, change: impl FnOnce(&mut StepRun) -> bool) -> (Marks, Marks, &'static str, bool) {
    let (before, word) = (Marks::of(step), step.state.as_str());
    let legal = change(step);
    (before, Marks::of(step), word, legal)
}

/// Keeps a step's counts of its items in step with one item's change.
fn count(step: &mut StepState, before: &StepState, after: &StepState) {
    let StepState::Items { started, live, idle, failed } = step else { return };
    let was_live = !before.is_over() && !matches!(before, StepState::Pending);
    *started += u32::from(matches!(before, StepState::Pending));
    *live = *live + u32::from(!after.is_over()) - u32::from(was_live);
    *idle = *idle + u32::from(after.is_idle()) - u32::from(before.is_idle());
    *failed += u32::from(matches!(after, StepState::Failed { .. }));
}
