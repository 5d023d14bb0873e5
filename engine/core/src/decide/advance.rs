//! Carrying a run on: which steps can start, which cannot any more, and when it is over.

use std::sync::Arc;

use stanch_playbook::plan::{Step, Wait};
use stanch_playbook::{Phase, Plan, Timestamp, Uses};

use super::attempts::settled_at;
use super::{Draft, has_failed};
use crate::id::RunId;
use crate::names::StepNames;
use crate::record::{Ending, RunFinished, RunOutcome, RunReleased, StepEnded, StepWaiting, Waiting};
use crate::run::{Rendered, Run, StepState};

/// What can be done about a pending step now.
enum Next {
    /// Something it needs is not over.
    Later,
    Start,
    End(Ending, Arc<str>),
}

impl Draft {
    /// Carries a run as far as it goes without an answer from outside.
    pub(super) fn advance(&mut self, id: RunId) {
        let Some(run) = self.state.runs.get(&id) else { return };
        let plan = self.plan_of(run);
        if run.queued && run.cancel.is_none() {
            return;
        }
        for phase in Phase::ALL {
            // A step that ends without an attempt may free or block others of its phase.
            while self.advance_phase(id, &plan, phase) {}
            let Some(run) = self.state.runs.get(&id) else { return };
            let over = |(step, of): (&Arc<crate::run::StepRun>, &Step)| of.phase != phase || step.state.is_over();
            if !run.steps.iter().zip(&plan.steps).all(over) {
                return;
            }
        }
        self.finish_run(id, &plan);
    }

    /// Looks once at every step of a phase; says whether one ended.
    fn advance_phase(&mut self, id: RunId, plan: &Arc<Plan>, phase: Phase) -> bool {
        let mut ended = false;
        for (index, step) in plan.steps.iter().enumerate().filter(|(_, step)| step.phase == phase) {
            let Some(run) = self.state.runs.get(&id) else { return false };
            let run = Arc::clone(run);
            if self.give_up(&run, index, step) {
                ended = true;
                continue;
            }
            if !matches!(run.steps[index].state, StepState::Pending) {
                continue;
            }
            match next(&run, plan, step) {
                Next::Later => {}
                Next::End(ending, reason) => {
                    self.emit(StepEnded { run: id, step: step.key.clone(), ending, reason });
                    ended = true;
                }
                Next::Start => ended |= self.start_step(id, plan, index),
            }
        }
        ended
    }

    /// In a cancelled run, ends what merely waits.
    fn give_up(&mut self, run: &Run, index: usize, step: &Step) -> bool {
        let Some((_, _)) = &run.cancel else { return false };
        if step.phase == Phase::Finally {
            return false;
        }
        let waits = matches!(
            run.steps[index].state,
            StepState::Backoff { .. } | StepState::Waiting { .. } | StepState::Unknown { .. }
        );
        if waits {
            let reason = cancelled(run);
            self.emit(StepEnded { run: run.id, step: step.key.clone(), ending: Ending::Cancelled, reason });
        }
        waits
    }

    /// Starts a step whose turn has come; says whether it is over at once.
    fn start_step(&mut self, id: RunId, plan: &Arc<Plan>, index: usize) -> bool {
        let Some(run) = self.state.runs.get(&id) else { return false };
        let step = &plan.steps[index];
        let names = StepNames { state: &self.state, run, plan, result: None };
        let end = |ending, reason: String| StepEnded { run: id, step: step.key.clone(), ending, reason: reason.into() };
        let failing = if step.continue_on_error { Ending::Tolerated } else { Ending::Failed };
        match step.condition.as_ref().map(|condition| condition.evaluate_bool(&names)) {
            Some(Ok(false)) => {
                self.emit(end(Ending::Skipped, "its condition is false".to_owned()));
                return true;
            }
            Some(Err(error)) => {
                self.emit(end(failing, format!("if: {error}")));
                return true;
            }
            Some(Ok(true)) | None => {}
        }
        match &step.uses {
            Uses::Action { with, .. } => {
                let rendered = with.render(&names).map_err(|error| format!("with: {error}")).and_then(|with| {
                    let env = step.env.render(&names).map_err(|error| format!("env: {error}"))?;
                    Ok(Rendered {
                        with: Arc::new(with),
                        env: Arc::new(env),
                        timeout: step.timeout.unwrap_or(DEFAULT_TIMEOUT),
                    })
                });
                match rendered {
                    Ok(rendered) => {
                        self.claim(id, index, rendered);
                        false
                    }
                    Err(error) => {
                        self.emit(end(failing, error));
                        true
                    }
                }
            }
            Uses::Wait(wait) => self.start_wait(id, plan, index, wait),
        }
    }

    fn start_wait(&mut self, id: RunId, plan: &Arc<Plan>, index: usize, wait: &Wait) -> bool {
        let Some(run) = self.state.runs.get(&id) else { return false };
        let step = &plan.steps[index];
        let wait = match wait {
            Wait::Duration(template) => {
                let names = StepNames { state: &self.state, run, plan, result: None };
                let length =
                    template.render(&names).map_err(|error| format!("with.duration: {error}")).and_then(|text| {
                        stanch_playbook::parse_duration(&text).map_err(|error| format!("with.duration: {error}"))
                    });
                match length {
                    Ok(length) => Waiting::Time { until: self.now.plus(length) },
                    Err(reason) => {
                        let ending = if step.continue_on_error { Ending::Tolerated } else { Ending::Failed };
                        self.emit(StepEnded { run: id, step: step.key.clone(), ending, reason: reason.into() });
                        return true;
                    }
                }
            }
            Wait::Resolved { settle } => {
                let incident = self.state.incidents.get(&run.incident);
                let without_alerts = incident.is_none_or(|incident| incident.alerts.is_empty());
                let quiet: Option<Timestamp> =
                    if without_alerts { Some(self.now) } else { incident.and_then(|of| of.quiet_since) };
                let settle = if without_alerts { std::time::Duration::ZERO } else { *settle };
                Waiting::Resolved {
                    settle,
                    settled_at: settled_at(quiet, settle),
                    expires_at: step.timeout.map(|timeout| self.now.plus(timeout)),
                }
            }
        };
        self.emit(StepWaiting { run: id, step: step.key.clone(), wait });
        let due = match wait {
            Waiting::Time { until } => until <= self.now,
            Waiting::Resolved { settled_at, .. } => settled_at.is_some_and(|at| at <= self.now),
        };
        if due {
            self.wake(id, index);
        }
        due
    }

    fn finish_run(&mut self, id: RunId, plan: &Arc<Plan>) {
        let Some(run) = self.state.runs.get(&id) else { return };
        let incident = run.incident;
        let finally_failed = run
            .steps
            .iter()
            .zip(&plan.steps)
            .any(|(step, of)| of.phase == Phase::Finally && matches!(step.state, StepState::Failed { .. }));
        let outcome = match &run.cancel {
            _ if finally_failed => RunOutcome::Failed,
            Some(_) => RunOutcome::Cancelled,
            None if has_failed(run, plan) => RunOutcome::Failed,
            None => RunOutcome::Succeeded,
        };
        let playbook = run.playbook.clone();
        self.emit(RunFinished { run: id, outcome });
        if outcome != RunOutcome::Cancelled
            || self.state.incidents.get(&incident).is_some_and(|of| !of.alerts.is_empty())
        {
            self.resolve_if_over(incident);
        }
        self.release_queued(&playbook, plan.concurrency);
    }

    /// Lets the oldest queued runs of a playbook go on, as far as its cap allows.
    fn release_queued(&mut self, playbook: &stanch_playbook::PlaybookName, most: Option<u32>) {
        loop {
            let running = self.state.running.get(playbook).copied().unwrap_or(0);
            if most.is_some_and(|most| running >= most) {
                return;
            }
            let from = (playbook.clone(), RunId(uuid::Uuid::nil()));
            let first =
                self.state.queued.range(from..).next().filter(|(name, _)| name == playbook).map(|(_, run)| *run);
            let Some(run) = first else { return };
            self.emit(RunReleased { run });
            self.advance(run);
        }
    }
}

/// The limit of an attempt where the plan gives none.
const DEFAULT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);

fn cancelled(run: &Run) -> Arc<str> {
    match &run.cancel {
        Some((actor, reason)) if !reason.is_empty() => format!("cancelled by {}: {reason}", actor.as_str()).into(),
        Some((actor, _)) => format!("cancelled by {}", actor.as_str()).into(),
        None => "cancelled".into(),
    }
}

fn next(run: &Run, plan: &Plan, step: &Step) -> Next {
    if step.phase != Phase::Finally {
        if run.cancel.is_some() {
            return Next::End(Ending::Cancelled, cancelled(run));
        }
        let failed = run
            .steps
            .iter()
            .zip(&plan.steps)
            .find(|(other, of)| of.phase != Phase::Finally && matches!(other.state, StepState::Failed { .. }));
        if let Some((_, of)) = failed {
            return Next::End(Ending::Blocked, format!("{} failed", of.key).into());
        }
    }
    let mut later = false;
    for need in &step.needs {
        let state = &run.steps[*need].state;
        if !state.is_over() {
            later = true;
        } else if !state.satisfies() {
            let reason = format!("{} is {}", plan.steps[*need].key, state.as_str());
            return Next::End(Ending::Blocked, reason.into());
        }
    }
    if later { Next::Later } else { Next::Start }
}
