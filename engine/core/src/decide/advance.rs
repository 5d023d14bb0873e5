//! Carrying a run on: which steps can start, which cannot any more, and when it is over.

use std::sync::Arc;

use serde_json::{Map, Value};
use stanch_playbook::plan::{Step, Wait};
use stanch_playbook::{Phase, Plan, PlaybookName, Timestamp, Uses};

use super::Draft;
use super::attempts::settled_at;
use crate::id::RunId;
use crate::names::{StepNames, render};
use crate::record::{
    ContainmentEnded, Ending, Held, ItemsEnded, ItemsFailure, ItemsStarted, RunFinished, RunOutcome, RunReleased,
    StepEnded, StepWaiting, Waiting,
};
use crate::run::{Place, Rendered, Run, StepState};

/// How many items a step has at most.
const MOST_ITEMS: usize = 10_000;

/// The limit of an attempt where the plan gives none.
const DEFAULT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);

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
            if phase == Phase::Finally && !self.is_taken_back(id, &plan) {
                return;
            }
            // A step that ends without an attempt may free or block others of its phase.
            while self.advance_phase(id, &plan, phase) {}
            self.end_what_is_final(id, &plan, phase);
            let Some(run) = self.state.runs.get(&id) else { return };
            let over = |(step, of): (&Arc<crate::run::StepRun>, &Step)| of.phase != phase || step.state.is_over();
            if !run.steps.iter().zip(&plan.steps).all(over) {
                return self.advance_children(id);
            }
        }
        self.finish_run(id, &plan);
    }

    /// What a step that succeeded made final is not in force any more.
    fn end_what_is_final(&mut self, id: RunId, plan: &Plan, phase: Phase) {
        for (index, step) in plan.steps.iter().enumerate().filter(|(_, step)| step.phase == phase) {
            for target in &step.ends {
                let Some(run) = self.state.runs.get(&id) else { return };
                if !matches!(run.steps[index].state, StepState::Succeeded) {
                    break;
                }
                let inforce = self.state.inforce_of(id, &plan.steps[*target].key);
                let free = inforce.filter(|containment| !containment.state.is_under_way());
                let ended: Vec<_> = free.map(|containment| containment.id).collect();
                for containment in ended {
                    self.emit(ContainmentEnded { containment, reason: format!("{} made it final", step.key) });
                }
            }
        }
    }

    /// Looks once at every step of a phase; says whether one ended.
    fn advance_phase(&mut self, id: RunId, plan: &Arc<Plan>, phase: Phase) -> bool {
        let mut ended = false;
        for (index, step) in plan.steps.iter().enumerate().filter(|(_, step)| step.phase == phase) {
            let Some(run) = self.state.runs.get(&id) else { return false };
            let run = Arc::clone(run);
            ended |= self.give_up(&run, plan, index);
            let Some(run) = self.state.runs.get(&id) else { return false };
            match run.steps[index].state {
                StepState::Items { .. } => ended |= self.advance_items(id, plan, index),
                StepState::Pending => match self.next(run, plan, step) {
                    Next::Later => {}
                    Next::End(ending, reason) => {
                        self.end(id, plan, index.into(), ending, reason);
                        ended = true;
                    }
                    Next::Start => ended |= self.start_step(id, plan, index),
                },
                _ => {}
            }
        }
        ended
    }

    /// What can be done about a pending step now.
    fn next(&self, run: &Run, plan: &Plan, step: &Step) -> Next {
        if let Some((ending, reason)) = stopped(run, plan, step) {
            return Next::End(ending, reason);
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
        if later || self.is_held_back(run, step) { Next::Later } else { Next::Start }
    }

    /// Whether what a step does must wait, because of a freeze or of its run's `hold`.
    fn is_held_back(&self, run: &Run, step: &Step) -> bool {
        step.acts && (self.state.frozen.is_some() || run.hold_until.is_some_and(|until| until > self.now))
    }

    /// Ends what merely waits in a cancelled run, and what nobody knows of in a phase that is taken back; says whether
    /// that ended something.
    fn give_up(&mut self, run: &Run, plan: &Plan, index: usize) -> bool {
        let step = &plan.steps[index];
        if step.phase == Phase::Finally {
            return false;
        }
        let taken_back = plan.undo_on_failure.contains(&step.phase) && run.failed_step(plan).is_some();
        let skipped = run.recovering && step.phase < Phase::Recover;
        if run.cancel.is_none() && !taken_back && !skipped {
            return false;
        }
        let skipped = skipped.then_some((Ending::Skipped, "its alerts are resolved".into()));
        let given_up = run.cancel.is_some().then(|| (Ending::Cancelled, cancelled(run))).or(skipped);
        let mut ended = false;
        for (place, of) in run.started().filter(|(place, _)| place.step == index) {
            let how = match (&of.state, &given_up) {
                // It is over once the other run is.
                (StepState::Waiting { wait: Waiting::Run { child, .. } }, Some(_)) => {
                    self.cancel_child(*child, run);
                    continue;
                }
                (StepState::Waiting { .. }, Some((ending, reason))) => Some((*ending, Arc::clone(reason))),
                (
                    StepState::Backoff { .. } | StepState::Unknown { .. } | StepState::Verifying { attempt: None, .. },
                    Some((Ending::Cancelled, reason)),
                ) => Some((Ending::Cancelled, Arc::clone(reason))),
                (StepState::Unknown { reason }, _) if taken_back => {
                    Some((Ending::Failed, format!("{reason}; its phase is taken back").into()))
                }
                _ => None,
            };
            if let Some((ending, reason)) = how {
                self.end(run.id, plan, place, ending, reason);
                ended = true;
            }
        }
        ended
    }

    /// Starts a step whose turn has come; says whether it is over at once.
    fn start_step(&mut self, id: RunId, plan: &Arc<Plan>, index: usize) -> bool {
        let Some(run) = self.state.runs.get(&id) else { return false };
        let step = &plan.steps[index];
        let names = StepNames::new(&self.state, run, plan, index.into());
        match step.condition.as_ref().map(|condition| condition.evaluate_bool(&names)) {
            Some(Ok(false)) => {
                self.end(id, plan, index.into(), Ending::Skipped, "its condition is false".into());
                return true;
            }
            Some(Err(error)) => {
                self.fail(id, plan, index.into(), format!("if: {error}"));
                return true;
            }
            Some(Ok(true)) | None => {}
        }
        if self.asks_again(id, plan, index) {
            return true;
        }
        let Some(foreach) = &step.foreach else {
            return self.exceeds_budget(id, plan, index, 1) || self.start(id, plan, index.into());
        };
        let Some(run) = self.state.runs.get(&id) else { return false };
        let names = StepNames::new(&self.state, run, plan, index.into());
        let items = match foreach.items.evaluate(&names).map_err(|error| error.to_string()) {
            Ok(Value::Array(items)) if items.len() > MOST_ITEMS => {
                Err(format!("{} items; the limit is {MOST_ITEMS}", items.len()))
            }
            Ok(Value::Array(items)) => Ok(items),
            Ok(_) => Err("the value is no list".to_owned()),
            Err(error) => Err(error),
        };
        match items {
            Ok(items) if self.exceeds_budget(id, plan, index, items.len()) => true,
            Ok(items) => {
                self.emit(ItemsStarted { run: id, step: step.key.clone(), items: items.into() });
                self.advance_items(id, plan, index)
            }
            Err(error) => {
                self.fail(id, plan, index.into(), format!("foreach: {error}"));
                true
            }
        }
    }

    /// Starts as many items of a step as may be under way; says whether the step is over.
    fn advance_items(&mut self, id: RunId, plan: &Arc<Plan>, index: usize) -> bool {
        let step = &plan.steps[index];
        let (most, fail_fast) =
            step.foreach.as_ref().map_or((1, false), |foreach| (foreach.max_parallel, foreach.fail_fast));
        loop {
            let Some(run) = self.state.runs.get(&id) else { return false };
            let StepState::Items { started, live, idle, failed } = run.steps[index].state else { return false };
            let all = run.steps[index].items.len();
            let stopped = stopped(run, plan, step);
            let held_back = self.is_held_back(run, step);
            let more = stopped.is_none() && (started as usize) < all && !(fail_fast && failed > 0);
            if more && !held_back && live - idle < most {
                self.start(id, plan, Place { step: index, item: Some(started) });
                continue;
            }
            if live > 0 || more {
                return false;
            }
            let failing = if step.continue_on_error { Ending::Tolerated } else { Ending::Failed };
            let failure = match stopped {
                _ if failed > 0 => Some((failing, failed_items(run, index, failed, started))),
                Some((ending, reason)) if (started as usize) < all || ending == Ending::Cancelled => {
                    Some((ending, format!("{reason}; {started} of {all} items were started").into()))
                }
                _ => None,
            };
            let failure = failure.map(|(ending, reason)| ItemsFailure { ending, reason });
            self.emit(ItemsEnded { run: id, step: step.key.clone(), failure });
            return true;
        }
    }

    /// Starts a step without items, or one item; says whether it is over at once.
    fn start(&mut self, id: RunId, plan: &Arc<Plan>, place: Place) -> bool {
        let Some(run) = self.state.runs.get(&id) else { return false };
        let step = &plan.steps[place.step];
        match &step.uses {
            Uses::Action(call) => match render(call, StepNames::new(&self.state, run, plan, place)) {
                Ok((with, env)) => {
                    let timeout = step.timeout.unwrap_or(DEFAULT_TIMEOUT);
                    self.claim(id, place, Rendered { with, env, timeout });
                    false
                }
                Err(error) => {
                    self.fail(id, plan, place, error);
                    true
                }
            },
            Uses::Wait(wait) => self.start_wait(id, plan, place, wait),
            Uses::Approval(approval) => self.ask(id, plan, place.step, approval, None),
            Uses::Playbook { playbook, inputs } => self.start_child(id, plan, place, playbook, inputs),
            Uses::Undo { step } => self.start_undo(id, plan, place, *step),
        }
    }

    fn start_wait(&mut self, id: RunId, plan: &Arc<Plan>, place: Place, wait: &Wait) -> bool {
        let Some(run) = self.state.runs.get(&id) else { return false };
        let step = &plan.steps[place.step];
        let expires_at = self.expiry(step);
        let wait = match wait {
            Wait::Duration(template) => {
                let names = StepNames::new(&self.state, run, plan, place);
                let length =
                    template.render(&names).map_err(|error| format!("with.duration: {error}")).and_then(|text| {
                        stanch_playbook::parse_duration(&text).map_err(|error| format!("with.duration: {error}"))
                    });
                match length {
                    Ok(length) => Waiting::Time { until: self.now.plus(length) },
                    Err(reason) => {
                        self.fail(id, plan, place, reason);
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
                Waiting::Resolved { settle, settled_at: settled_at(quiet, settle), expires_at }
            }
            Wait::Event(_) => Waiting::Event { expires_at },
        };
        self.wait(id, plan, place, wait);
        let due = match wait {
            Waiting::Time { until } => until <= self.now,
            Waiting::Resolved { settled_at, .. } => settled_at.is_some_and(|at| at <= self.now),
            Waiting::Event { .. } | Waiting::Approval { .. } | Waiting::Run { .. } | Waiting::Undo { .. } => false,
        };
        if due {
            self.wake(id, place, &Value::Object(Map::new()));
        }
        due
    }

    /// When a step that waits from now on gives up.
    pub(super) fn expiry(&self, step: &Step) -> Option<Timestamp> {
        step.timeout.map(|timeout| self.now.plus(timeout))
    }

    pub(super) fn wait(&mut self, id: RunId, plan: &Plan, place: Place, wait: Waiting) {
        self.emit(StepWaiting { run: id, step: plan.steps[place.step].key.clone(), item: place.item, wait });
    }

    /// Ends a step or an item without an attempt.
    pub(super) fn end(&mut self, id: RunId, plan: &Plan, place: Place, ending: Ending, reason: Arc<str>) {
        let step = plan.steps[place.step].key.clone();
        self.emit(StepEnded { run: id, step, item: place.item, ending, reason });
    }

    /// Fails a step or an item without an attempt, as far as the playbook does not tolerate it.
    pub(super) fn fail(&mut self, id: RunId, plan: &Plan, place: Place, reason: impl Into<Arc<str>>) {
        let tolerated = plan.steps[place.step].continue_on_error;
        self.end(id, plan, place, if tolerated { Ending::Tolerated } else { Ending::Failed }, reason.into());
    }

    fn finish_run(&mut self, id: RunId, plan: &Plan) {
        let Some(run) = self.state.runs.get(&id) else { return };
        let run = Arc::clone(run);
        let incident = run.incident;
        let finally_failed = run
            .steps
            .iter()
            .zip(&plan.steps)
            .any(|(step, of)| of.phase == Phase::Finally && matches!(step.state, StepState::Failed { .. }));
        let outcome = match &run.cancel {
            _ if finally_failed => RunOutcome::Failed,
            Some(_) => RunOutcome::Cancelled,
            None if run.failed_step(plan).is_some() => RunOutcome::Failed,
            None => RunOutcome::Succeeded,
        };
        self.emit(RunFinished { run: id, outcome });
        if outcome != RunOutcome::Cancelled
            || self.state.incidents.get(&incident).is_some_and(|of| !of.alerts.is_empty())
        {
            self.resolve_if_over(incident);
        }
        self.release_queued(&run.playbook, plan.concurrency);
        if run.parent.is_some() {
            self.child_finished(&run, plan, outcome);
        }
    }

    /// Lets the oldest queued runs of a playbook go on, as far as its cap and what holds them allow.
    pub(super) fn release_queued(&mut self, playbook: &PlaybookName, most: Option<u32>) {
        loop {
            let running = self.state.running.get(playbook).copied().unwrap_or(0);
            if most.is_some_and(|most| running >= most) {
                return;
            }
            let from = (playbook.clone(), RunId(uuid::Uuid::nil()));
            let mut queued = self.state.queued.range(from..).take_while(|(name, _)| name == playbook);
            let Some(run) = queued.find(|(_, run)| self.may_begin(*run)).map(|(_, run)| *run) else { return };
            self.emit(RunReleased { run });
            self.advance(run);
        }
    }

    fn may_begin(&self, id: RunId) -> bool {
        let Some(run) = self.state.runs.get(&id) else { return false };
        match &run.held {
            None => true,
            Some(Held::Behind { run }) => !self.state.runs.contains_key(run),
            Some(Held::Group { .. } | Held::Maintenance { .. }) => false,
        }
    }
}

pub(super) fn cancelled(run: &Run) -> Arc<str> {
    match &run.cancel {
        Some((actor, reason)) if !reason.is_empty() => format!("cancelled by {}: {reason}", actor.as_str()).into(),
        Some((actor, _)) => format!("cancelled by {}", actor.as_str()).into(),
        None => "cancelled".into(),
    }
}

/// Why a step of the four phases does not begin, nor a further item of it.
fn stopped(run: &Run, plan: &Plan, step: &Step) -> Option<(Ending, Arc<str>)> {
    if step.phase == Phase::Finally {
        return None;
    }
    if run.cancel.is_some() {
        return Some((Ending::Cancelled, cancelled(run)));
    }
    if let Some(of) = run.failed_step(plan) {
        return Some((Ending::Blocked, format!("{} failed", of.key).into()));
    }
    (run.recovering && step.phase < Phase::Recover).then(|| (Ending::Skipped, "its alerts are resolved".into()))
}

fn failed_items(run: &Run, index: usize, failed: u32, started: u32) -> Arc<str> {
    let items = &run.steps[index].items;
    let first = items.iter().zip(0..).find_map(|(item, at)| match &item.state {
        StepState::Failed { error } => Some((at, item.value.clone().unwrap_or_default(), error)),
        _ => None,
    });
    let left = match items.len().saturating_sub(started as usize) {
        0 => String::new(),
        left => format!(", {left} did not begin"),
    };
    match first {
        Some((at, value, error)) => {
            let shown: String = value.to_string().chars().take(80).collect();
            format!("{failed} of {} items failed{left}; item {at} ({shown}): {error}", items.len()).into()
        }
        None => format!("{failed} of {} items failed{left}", items.len()).into(),
    }
}
