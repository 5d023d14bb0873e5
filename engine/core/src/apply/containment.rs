//! What is in force, and its taking back.

use std::sync::Arc;

use super::{Fold, IllegalTransition};
use crate::attempt::AttemptId;
use crate::containment::{Containment, UndoState};
use crate::id::{ContainmentId, RunId};
use crate::record::{ContainmentExtended, ContainmentStarted, Parent, UndoRequested};
use crate::run::Run;
use crate::state::Timer;

impl Fold<'_> {
    pub(super) fn containment_extended(&mut self, body: &ContainmentExtended) -> Result<(), IllegalTransition> {
        self.containment(body.containment, |containment| {
            containment.until = body.until;
            matches!(containment.state, UndoState::Inforce)
        })
    }

    pub(super) fn undo_requested(&mut self, body: &UndoRequested) -> Result<(), IllegalTransition> {
        for (at, id) in body.containments.iter().enumerate() {
            let next = body.containments.get(at + 1).copied();
            self.containment(*id, |containment| {
                let legal = !containment.state.is_under_way();
                if !matches!(containment.state, UndoState::Inforce) {
                    containment.generation += 1;
                    containment.attempts = 0;
                }
                containment.state = UndoState::Requested;
                containment.next = next;
                containment.waiter = body.run;
                legal
            })?;
            self.count_undo(*id);
        }
        if let Some(id) = body.run {
            let mut run = self.take_run(id)?;
            let of = Arc::make_mut(&mut run);
            of.undoing.extend(&body.containments);
            of.undo_asked |= body.step.is_none();
            self.put_run(run);
        }
        Ok(())
    }

    pub(super) fn containment_started(&mut self, body: &ContainmentStarted) -> Result<(), IllegalTransition> {
        let run = self.take_run(body.run)?;
        let place = self.place(&run, &body.step, body.item)?;
        let (value, generation) = run.at(place).map(|of| (of.value.clone(), of.undos)).unwrap_or_default();
        let at = (body.run, body.step.clone(), body.item);
        // The same thing, tried again by a person: one is in force, and the later one knows how to take it back.
        if let Some(earlier) = self.state.containment_at(body.run, &body.step, body.item).map(|of| of.id) {
            self.remove_containment(earlier);
        }
        let containment = Containment {
            id: body.containment,
            run: body.run,
            playbook: run.playbook.clone(),
            incident: run.incident,
            step: body.step.clone(),
            item: body.item,
            parents: self.parents_of(&run),
            value,
            done: body.done.clone(),
            undo: body.undo.clone(),
            policy: body.policy,
            since: self.record.time,
            until: body.until,
            certain: body.certain,
            state: UndoState::Inforce,
            generation,
            attempts: 0,
            waiter: None,
            next: None,
        };
        self.state.contained.insert(at, body.containment);
        self.state.inherited.extend(containment.inheritors());
        if let Some(at) = containment.timer() {
            self.state.timers.insert((at, Timer::Containment(containment.id)));
        }
        self.state.inforce.insert(body.containment, Arc::new(containment));
        self.put_run(run);
        Ok(())
    }

    /// The steps that a run is part of, the nearest first. A run ends after those that it started.
    fn parents_of(&self, run: &Run) -> Vec<Parent> {
        let next = |parent: &Parent| self.state.runs.get(&parent.run)?.parent.clone();
        std::iter::successors(run.parent.clone(), next).collect()
    }

    pub(super) fn contained(&self, attempt: &AttemptId) -> Result<ContainmentId, IllegalTransition> {
        let containment = self.state.containment_at(attempt.run, &attempt.step, attempt.item);
        containment
            .map(|of| of.id)
            .ok_or_else(|| IllegalTransition::NoContainment { kind: self.kind(), containment: None })
    }

    /// Changes one containment; `change` says whether the state it found was a legal one.
    pub(super) fn containment(
        &mut self,
        id: ContainmentId,
        change: impl FnOnce(&mut Containment) -> bool,
    ) -> Result<(), IllegalTransition> {
        let illegal = || IllegalTransition::NoContainment { kind: self.kind(), containment: Some(id) };
        let mut containment = self.state.inforce.get(&id).cloned().ok_or_else(illegal)?;
        let timer = containment.timer();
        let of = Arc::make_mut(&mut containment);
        if !change(of) {
            return Err(illegal());
        }
        let (run, next, waiter, under_way) = (of.run, of.timer(), of.waiter, of.state.is_under_way());
        if timer != next {
            if let Some(at) = timer {
                self.state.timers.remove(&(at, Timer::Containment(id)));
            }
            if let Some(at) = next {
                self.state.timers.insert((at, Timer::Containment(id)));
            }
        }
        self.state.inforce.insert(id, containment);
        self.note(run);
        if let Some(run) = waiter.filter(|_| !under_way) {
            self.no_longer_undoing(run, id);
        }
        Ok(())
    }

    pub(super) fn containment_over(&mut self, id: ContainmentId) -> Result<(), IllegalTransition> {
        let Some(containment) = self.remove_containment(id) else {
            return Err(IllegalTransition::NoContainment { kind: self.kind(), containment: Some(id) });
        };
        self.note(containment.run);
        if let Some(run) = containment.waiter {
            self.no_longer_undoing(run, id);
        }
        Ok(())
    }

    fn remove_containment(&mut self, id: ContainmentId) -> Option<Arc<Containment>> {
        let containment = self.state.inforce.remove(&id)?;
        if let Some(at) = containment.timer() {
            self.state.timers.remove(&(at, Timer::Containment(id)));
        }
        let at = (containment.run, containment.step.clone(), containment.item);
        if self.state.contained.get(&at) == Some(&id) {
            self.state.contained.remove(&at);
        }
        for inherited in containment.inheritors() {
            self.state.inherited.remove(&inherited);
        }
        Some(containment)
    }

    /// Lets a live run's step know which generation of its undo comes next.
    fn count_undo(&mut self, id: ContainmentId) {
        let Some(containment) = self.state.inforce.get(&id).cloned() else { return };
        let Some(mut run) = self.state.runs.get(&containment.run).cloned() else { return };
        let Ok(place) = self.place(&run, &containment.step, containment.item) else { return };
        let step = Arc::make_mut(&mut Arc::make_mut(&mut run).steps[place.step]);
        let of = match place.item {
            None => step,
            Some(item) => match step.items.get_mut(item as usize) {
                Some(item) => Arc::make_mut(item),
                None => return,
            },
        };
        of.undos = containment.generation + 1;
        self.state.runs.insert(run.id, run);
    }

    fn no_longer_undoing(&mut self, run: RunId, id: ContainmentId) {
        if let Ok(mut run) = self.take_run(run) {
            Arc::make_mut(&mut run).undoing.retain(|undoing| *undoing != id);
            self.put_run(run);
        }
    }
}
