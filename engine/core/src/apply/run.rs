//! Runs, from their start to their end.

use std::sync::Arc;

use stanch_playbook::plan::OnResolved;

use super::step::Marks;
use super::{Applied, Fold, IllegalTransition, push_tight};
use crate::id::RunId;
use crate::record::{
    RunCancelRequested, RunExtended, RunHoldEnded, RunOutcome, RunRecovering, RunReleased, RunStarted,
};
use crate::run::{Run, StepRun};
use crate::state::Timer;

impl Fold<'_> {
    pub(super) fn run_released(&mut self, body: &RunReleased) -> Result<(), IllegalTransition> {
        let mut run = self.take_run(body.run)?;
        self.unmark_run(&run);
        let of = Arc::make_mut(&mut run);
        of.queued = false;
        of.held = None;
        self.state.queued.remove(&(run.playbook.clone(), run.id));
        *self.state.running.entry(run.playbook.clone()).or_insert(0) += 1;
        self.put_run(run);
        Ok(())
    }

    pub(super) fn run_cancel_requested(&mut self, body: &RunCancelRequested) -> Result<(), IllegalTransition> {
        let mut run = self.take_run(body.run)?;
        let of = Arc::make_mut(&mut run);
        of.cancel = Some((self.record.actor.clone(), body.reason.as_str().into()));
        of.undo = body.undo;
        // What a failure had taken back was of one phase.
        of.undo_asked &= !body.undo;
        self.put_run(run);
        Ok(())
    }

    pub(super) fn run_extended(&mut self, body: &RunExtended) -> Result<(), IllegalTransition> {
        let mut run = self.take_run(body.run)?;
        let of = Arc::make_mut(&mut run);
        of.cause = body.cause.clone();
        of.inputs = body.inputs.clone();
        self.put_run(run);
        Ok(())
    }

    pub(super) fn run_hold_ended(&mut self, body: &RunHoldEnded) -> Result<(), IllegalTransition> {
        let mut run = self.take_run(body.run)?;
        self.unmark_run(&run);
        let of = Arc::make_mut(&mut run);
        if of.queued && of.held.is_some() {
            of.held = None;
        } else {
            of.hold_until = None;
        }
        self.put_run(run);
        Ok(())
    }

    pub(super) fn run_recovering(&mut self, body: &RunRecovering) -> Result<(), IllegalTransition> {
        let mut run = self.take_run(body.run)?;
        Arc::make_mut(&mut run).recovering = true;
        self.put_run(run);
        Ok(())
    }

    pub(super) fn run_started(&mut self, body: &RunStarted) -> Result<(), IllegalTransition> {
        let plan = self.state.plan(body.plan).cloned();
        let steps = plan
            .as_ref()
            .map(|plan| plan.steps.len())
            .ok_or_else(|| IllegalTransition::Plan { kind: self.kind(), reason: format!("no plan {}", body.plan) })?;
        let run = Run {
            id: body.run,
            playbook: body.playbook.clone(),
            plan: body.plan,
            incident: body.incident,
            cause: body.cause.clone(),
            started_by: self.record.actor.clone(),
            inputs: body.inputs.clone(),
            queued: body.queued,
            cancel: None,
            outcome: None,
            started_at: self.record.time,
            finished_at: None,
            steps: std::iter::repeat_n(Arc::new(StepRun::pending()), steps).collect(),
            records: imbl::Vector::unit(self.record.sequence),
            parent: body.parent.clone(),
            children: body.children.clone(),
            undo: false,
            undoing: Vec::new(),
            undo_asked: false,
            held: body.held.clone(),
            hold_until: body.hold_until,
            recovering: false,
        };
        if body.queued {
            self.state.queued.insert((body.playbook.clone(), body.run));
        } else {
            *self.state.running.entry(body.playbook.clone()).or_insert(0) += 1;
        }
        if let Ok(mut incident) = self.take_incident(body.incident) {
            let of = Arc::make_mut(&mut incident);
            push_tight(&mut of.live_runs, body.run);
            push_tight(&mut of.runs, body.run);
            if plan.is_some_and(|plan| plan.incident.on_resolved != OnResolved::Continue) {
                of.care_mut().reacts = true;
            }
            self.put_incident(incident);
        }
        self.put_run(Arc::new(run));
        Ok(())
    }

    pub(super) fn run_finished(&mut self, id: RunId, outcome: RunOutcome) -> Result<Applied, IllegalTransition> {
        let mut run = self.take_run(id)?;
        {
            let run = Arc::make_mut(&mut run);
            run.outcome = Some(outcome);
            run.finished_at = Some(self.record.time);
        }
        self.state.runs.remove(&id);
        self.unmark_run(&run);
        if outcome == RunOutcome::Succeeded
            && let Some((playbook, _, _)) = run.cause.event.tick()
            && let Some(plan) = self.state.plan(run.plan).cloned()
        {
            for name in plan.watchdogs.keys() {
                self.unwatch(&playbook, name);
            }
        }
        for (place, step) in run.started() {
            let marks = Marks::of(step);
            self.unmark(id, place, marks);
        }
        if run.queued {
            self.state.queued.remove(&(run.playbook.clone(), id));
        } else if let Some(count) = self.state.running.get_mut(&run.playbook) {
            *count -= 1;
            if *count == 0 {
                self.state.running.remove(&run.playbook);
            }
        }
        if let Ok(mut incident) = self.take_incident(run.incident) {
            let of = Arc::make_mut(&mut incident);
            of.live_runs.retain(|live| *live != id);
            of.live_runs.shrink_to_fit();
            if outcome == RunOutcome::Failed && of.is_open() && run.parent.is_none() {
                of.failed_runs += 1;
            }
            self.put_incident(incident);
        }
        self.release_plan(run.plan);
        for child in run.children.values() {
            self.release_plan(*child);
        }
        Ok(Applied { finished: Some(run), ..Applied::default() })
    }

    pub(super) fn note(&mut self, id: RunId) {
        if let Ok(run) = self.take_run(id) {
            self.put_run(run);
        }
    }

    /// A run taken out of the state, with this record among its own.
    pub(super) fn take_run(&mut self, id: RunId) -> Result<Arc<Run>, IllegalTransition> {
        let mut run =
            self.state.runs.get(&id).cloned().ok_or_else(|| IllegalTransition::NoRun { kind: self.kind(), run: id })?;
        // Once, however many places of the run a record changes.
        let records = &mut Arc::make_mut(&mut run).records;
        if records.last() != Some(&self.record.sequence) {
            records.push_back(self.record.sequence);
        }
        Ok(run)
    }

    pub(super) fn put_run(&mut self, run: Arc<Run>) {
        if let Some(at) = run.timer() {
            self.state.timers.insert((at, Timer::Run(run.id)));
        }
        self.state.runs.insert(run.id, run);
    }

    fn unmark_run(&mut self, run: &Run) {
        if let Some(at) = run.timer() {
            self.state.timers.remove(&(at, Timer::Run(run.id)));
        }
    }
}
