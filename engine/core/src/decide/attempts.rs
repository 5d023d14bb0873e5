//! Attempts: claiming, outcomes, retries, recovery, and the timers that lead from one to the next.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use stanch_playbook::plan::{Jitter, OnUnknown, Retry, Step};
use stanch_playbook::{Timestamp, Uses};

use super::Draft;
use crate::attempt::{AttemptId, IdempotencyKey, Outcome, Purpose};
use crate::command::Rejected;
use crate::effect::Effect;
use crate::id::RunId;
use crate::names::StepNames;
use crate::record::{
    AttemptFailed, AttemptLate, AttemptScheduled, AttemptSucceeded, AttemptUnknown, DeadLetter, Ending, StepEnded,
    StepFailure, StepWoken, Then, Waiting,
};
use crate::run::{Rendered, StepState};
use crate::state::Timer;

/// How many timers one decision fires at most, so that a batch stays small after a long stop.
const TIMERS_AT_ONCE: usize = 256;

impl Draft {
    /// Claims the next attempt of a step: from here on it may have happened.
    pub(super) fn claim(&mut self, id: RunId, index: usize, rendered: Rendered) {
        let Some(run) = self.state.runs.get(&id) else { return };
        let plan = self.plan_of(run);
        let Uses::Action { name, .. } = &plan.steps[index].uses else { return };
        let step = &run.steps[index];
        let attempt = AttemptId {
            run: id,
            step: plan.steps[index].key.clone(),
            purpose: Purpose::Do,
            generation: step.generation,
            number: step.attempts_made() + 1,
            epoch: self.state.epoch,
        };
        self.emit(AttemptScheduled {
            idempotency_key: attempt.idempotency_key(),
            attempt,
            action: name.clone(),
            with: rendered.with,
            env: rendered.env,
            timeout: rendered.timeout,
        });
        if let Some(run) = self.state.runs.get(&id)
            && let Some(assignment) = self.state.assignment(run, index)
        {
            self.effects.push(Effect::DispatchAttempt(Box::new(assignment)));
        }
    }

    /// Claims a further attempt with what the earlier ones were given.
    pub(super) fn schedule_again(&mut self, id: RunId, index: usize) {
        let Some(run) = self.state.runs.get(&id) else { return };
        if let Some(rendered) = run.steps[index].rendered.clone() {
            self.claim(id, index, rendered);
        }
    }

    pub(super) fn finish_attempt(&mut self, attempt: &AttemptId, outcome: Outcome) -> Result<(), Rejected> {
        let run = self.state.runs.get(&attempt.run).ok_or(Rejected::UnknownAttempt)?;
        let plan = self.plan_of(run);
        let index = plan.step_index(&attempt.step).ok_or(Rejected::UnknownAttempt)?;
        if !matches!(&run.steps[index].state, StepState::Running { attempt: running } if running == attempt) {
            let outcome = match outcome {
                Outcome::Succeeded { .. } => "succeeded",
                Outcome::Failed { .. } => "failed",
                Outcome::Unknown { .. } => "unknown",
            };
            self.emit(AttemptLate { attempt: attempt.clone(), outcome: outcome.to_owned() });
            return Ok(());
        }
        match outcome {
            Outcome::Succeeded { output } => self.attempt_succeeded(attempt, index, output),
            Outcome::Failed { error, output, retry_after, retryable } => {
                let then = self.after_failure(attempt, &plan.steps[index], retryable, retry_after);
                self.emit(AttemptFailed {
                    attempt: attempt.clone(),
                    error: error.into(),
                    output: output.map(Arc::new),
                    then,
                });
            }
            Outcome::Unknown { reason } => self.attempt_unknown(attempt, &plan.steps[index], reason),
        }
        self.advance(attempt.run);
        Ok(())
    }

    fn attempt_succeeded(&mut self, attempt: &AttemptId, index: usize, output: Value) {
        let Some(run) = self.state.runs.get(&attempt.run) else { return };
        let plan = self.plan_of(run);
        let step = &plan.steps[index];
        let names = StepNames { state: &self.state, run, plan: &plan, result: Some(&output) };
        let (outputs, failure) = match evaluate_outputs(step, &names) {
            Ok(outputs) => (outputs, None),
            Err(error) => (Map::new(), Some(StepFailure { error: error.into(), tolerated: step.continue_on_error })),
        };
        self.emit(AttemptSucceeded {
            attempt: attempt.clone(),
            output: Arc::new(output),
            outputs: Arc::new(Value::Object(outputs)),
            failure,
        });
    }

    fn attempt_unknown(&mut self, attempt: &AttemptId, step: &Step, reason: String) {
        let cancelled = self.state.runs.get(&attempt.run).is_some_and(|run| run.cancel.is_some());
        let then = match step.on_unknown {
            _ if cancelled && step.phase != stanch_playbook::Phase::Finally => Then::Cancel,
            OnUnknown::Retry if attempt.number < step.retry.max_attempts => {
                Then::Retry { at: self.now.plus(delay(&step.retry, attempt)) }
            }
            OnUnknown::Ask => Then::Ask,
            OnUnknown::Retry | OnUnknown::Fail => end(step),
        };
        self.emit(AttemptUnknown { attempt: attempt.clone(), reason: reason.into(), then });
    }

    fn after_failure(&self, attempt: &AttemptId, step: &Step, retryable: bool, retry_after: Option<Duration>) -> Then {
        let cancelled = self.state.runs.get(&attempt.run).is_some_and(|run| run.cancel.is_some());
        if cancelled && step.phase != stanch_playbook::Phase::Finally {
            return Then::Cancel;
        }
        if retryable && attempt.number < step.retry.max_attempts {
            let wait = delay(&step.retry, attempt).max(retry_after.unwrap_or_default());
            return Then::Retry { at: self.now.plus(wait) };
        }
        end(step)
    }

    /// After a start: whoever was at work on a claimed attempt is gone, and nobody knows how far it came.
    pub(super) fn recover(&mut self) {
        let mut lost = Vec::new();
        for run in self.state.runs.values() {
            for (index, step) in run.steps.iter().enumerate() {
                if let StepState::Running { attempt } = &step.state
                    && attempt.epoch < self.state.epoch
                {
                    lost.push((attempt.clone(), index));
                }
            }
        }
        for (attempt, index) in &lost {
            let Some(run) = self.state.runs.get(&attempt.run) else { continue };
            let plan = self.plan_of(run);
            let step = &plan.steps[*index];
            self.attempt_unknown(attempt, step, "the engine stopped while the attempt was under way".to_owned());
            if step.on_unknown == OnUnknown::Retry && attempt.number >= step.retry.max_attempts {
                self.keep_poisoned(attempt);
            }
        }
        let runs: Vec<RunId> = self.state.runs.keys().copied().collect();
        for run in runs {
            self.advance(run);
        }
    }

    fn keep_poisoned(&mut self, attempt: &AttemptId) {
        let body = serde_json::to_vec(attempt).unwrap_or_default();
        self.keep_dead_letter(DeadLetter {
            via: format!("attempt:{}/{}", attempt.run, attempt.step),
            reason: format!("the engine stopped during each of {} attempts", attempt.number),
            code: "attempt.poisoned".to_owned(),
            content_type: Some("application/json".to_owned()),
            size: body.len() as u64,
            body: crate::record::base64(&body),
            complete: true,
        });
    }

    pub(super) fn fire_timers(&mut self) {
        for _ in 0..TIMERS_AT_ONCE {
            let Some((_, timer)) = self.state.timers.get_min().filter(|(at, _)| *at <= self.now).copied() else {
                return;
            };
            match timer {
                Timer::Incident(id) => self.resolve_if_over(id),
                Timer::Step(run, index) => {
                    self.fire_step(run, index);
                    self.advance(run);
                }
            }
        }
    }

    fn fire_step(&mut self, id: RunId, index: usize) {
        let Some(run) = self.state.runs.get(&id) else { return };
        let plan = self.plan_of(run);
        let step = &plan.steps[index];
        match run.steps[index].state {
            StepState::Backoff { .. } => self.schedule_again(id, index),
            StepState::Waiting { wait: Waiting::Time { .. } } => self.wake(id, index),
            StepState::Waiting { wait: Waiting::Resolved { settled_at, .. } } => {
                if settled_at.is_some_and(|at| at <= self.now) {
                    self.wake(id, index);
                } else {
                    let ending = if step.continue_on_error { Ending::Tolerated } else { Ending::Failed };
                    let reason = "timed out waiting for the alerts to resolve".into();
                    self.emit(StepEnded { run: id, step: step.key.clone(), ending, reason });
                }
            }
            StepState::Pending
            | StepState::Blocked { .. }
            | StepState::Skipped
            | StepState::Running { .. }
            | StepState::Unknown { .. }
            | StepState::Succeeded
            | StepState::Tolerated { .. }
            | StepState::Failed { .. }
            | StepState::Cancelled { .. } => {}
        }
    }

    /// Ends a wait whose condition came true.
    pub(super) fn wake(&mut self, id: RunId, index: usize) {
        let Some(run) = self.state.runs.get(&id) else { return };
        let plan = self.plan_of(run);
        let step = &plan.steps[index];
        let result = Value::Object(Map::new());
        let names = StepNames { state: &self.state, run, plan: &plan, result: Some(&result) };
        match evaluate_outputs(step, &names) {
            Ok(outputs) => {
                let outputs = Arc::new(Value::Object(outputs));
                self.emit(StepWoken { run: id, step: step.key.clone(), outputs });
            }
            Err(error) => {
                let ending = if step.continue_on_error { Ending::Tolerated } else { Ending::Failed };
                self.emit(StepEnded { run: id, step: step.key.clone(), ending, reason: error.into() });
            }
        }
    }
}

fn end(step: &Step) -> Then {
    if step.continue_on_error { Then::Tolerate } else { Then::Fail }
}

fn evaluate_outputs(step: &Step, names: &StepNames<'_>) -> Result<Map<String, Value>, String> {
    let mut outputs = Map::new();
    for (name, expression) in &step.outputs {
        let value = expression.evaluate(names).map_err(|error| format!("outputs.{name}: {error}"))?;
        outputs.insert(name.clone(), value);
    }
    Ok(outputs)
}

/// The delay before the attempt after this one: exponential, capped, and with full jitter drawn from the key, so that
/// equal histories have equal delays.
fn delay(retry: &Retry, attempt: &AttemptId) -> Duration {
    let fraction = match retry.jitter {
        Jitter::None => 1.0,
        Jitter::Full => fraction(&attempt.idempotency_key(), attempt.number),
    };
    retry.delay_at_most(attempt.number).mul_f64(fraction)
}

/// A number in `0.0..1.0` that looks random and is not.
fn fraction(key: &IdempotencyKey, number: u32) -> f64 {
    let mut hash = Sha256::new();
    hash.update("jitter");
    hash.update(key.as_str());
    hash.update(number.to_be_bytes());
    let mut head = [0; 4];
    head.copy_from_slice(&hash.finalize()[..4]);
    f64::from(u32::from_be_bytes(head)) / (f64::from(u32::MAX) + 1.0)
}

/// When a wait for resolved alerts is over, where none fires.
pub(super) fn settled_at(quiet_since: Option<Timestamp>, settle: Duration) -> Option<Timestamp> {
    quiet_since.map(|quiet| quiet.plus(settle))
}
