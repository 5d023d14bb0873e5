//! Attempts: claiming, outcomes, retries, recovery, and the timers that lead from one to the next.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use stanch_playbook::plan::{Jitter, OnUnknown, Retry, Step, Verify};
use stanch_playbook::{Plan, Timestamp, Uses};

use super::Draft;
use crate::attempt::{Assignment, AttemptId, IdempotencyKey, Outcome, Purpose};
use crate::command::Rejected;
use crate::effect::Effect;
use crate::id::RunId;
use crate::names::{StepNames, render};
use crate::record::{
    AttemptFailed, AttemptLate, AttemptScheduled, AttemptSucceeded, AttemptUnknown, DeadLetter, MaintenanceEnded,
    RenderedCall, StepWoken, Then, Unsettled, Verification, Waiting,
};
use crate::run::{Place, Rendered, Run, StepState};
use crate::state::Timer;

/// How many timers one decision fires at most, so that a batch stays small after a long stop.
const TIMERS_AT_ONCE: usize = 256;

impl Draft {
    /// Claims the next attempt of a step or an item: from here on it may have happened.
    pub(super) fn claim(&mut self, id: RunId, place: Place, rendered: Rendered) {
        let Some(run) = self.state.runs.get(&id) else { return };
        let plan = self.plan_of(run);
        let Uses::Action(call) = &plan.steps[place.step].uses else { return };
        let Some(attempt) = self.next_attempt(run, &plan, place, Purpose::Do) else { return };
        self.schedule(
            attempt,
            RenderedCall {
                action: call.action.clone(),
                with: rendered.with,
                env: rendered.env,
                timeout: rendered.timeout,
            },
        );
    }

    fn next_attempt(&self, run: &Run, plan: &Plan, place: Place, purpose: Purpose) -> Option<AttemptId> {
        let of = run.at(place)?;
        Some(AttemptId {
            run: run.id,
            step: plan.steps[place.step].key.clone(),
            item: place.item,
            purpose,
            generation: of.generation,
            number: of.attempts_made(purpose) + 1,
            epoch: self.state.epoch,
        })
    }

    pub(super) fn schedule(&mut self, attempt: AttemptId, call: RenderedCall) {
        let assignment = {
            let RenderedCall { action, with, env, timeout } = call;
            let playbook = self.playbook_of(&attempt);
            let idempotency_key = attempt.idempotency_key();
            Assignment { attempt, playbook, action, with, env, idempotency_key, timeout }
        };
        self.emit(AttemptScheduled {
            idempotency_key: assignment.idempotency_key.clone(),
            attempt: assignment.attempt.clone(),
            action: assignment.action.clone(),
            with: Arc::clone(&assignment.with),
            env: Arc::clone(&assignment.env),
            timeout: assignment.timeout,
        });
        self.effects.push(Effect::DispatchAttempt(Box::new(assignment)));
    }

    /// Claims a further attempt with what the earlier ones were given.
    pub(super) fn schedule_again(&mut self, id: RunId, place: Place) {
        let Some(run) = self.state.runs.get(&id) else { return };
        if let Some(rendered) = run.at(place).and_then(|of| of.rendered.clone()) {
            self.claim(id, place, rendered);
        }
    }

    pub(super) fn finish_attempt(&mut self, attempt: &AttemptId, outcome: Outcome) -> Result<(), Rejected> {
        if attempt.purpose == Purpose::Undo {
            return self.finish_undo(attempt, outcome);
        }
        let run = self.state.runs.get(&attempt.run).ok_or(Rejected::UnknownAttempt)?;
        let plan = self.plan_of(run);
        let place = self.state.place_of(run, attempt).ok_or(Rejected::UnknownAttempt)?;
        if !self.state.is_under_way(attempt) {
            self.note_late(attempt, &outcome);
            return Ok(());
        }
        let step = &plan.steps[place.step];
        match outcome {
            Outcome::Succeeded { output } if attempt.purpose == Purpose::Verify => {
                self.verification_looked(attempt, &plan, place, output);
            }
            Outcome::Succeeded { output } => self.attempt_succeeded(attempt, &plan, place, output),
            Outcome::Failed { error, output, retry_after, retryable } => {
                let then = if attempt.purpose == Purpose::Verify {
                    self.after_verification(attempt, step, place)
                } else {
                    let retryable = retryable && self.may_retry(&plan, place, attempt, &error, output.as_ref());
                    self.after_failure(attempt, step, place, retryable, retry_after)
                };
                self.emit(AttemptFailed {
                    attempt: attempt.clone(),
                    error: error.into(),
                    output: output.map(Arc::new),
                    then,
                });
            }
            Outcome::Unknown { reason } => self.attempt_unknown(attempt, &plan, place, reason),
        }
        self.advance(attempt.run);
        Ok(())
    }

    pub(super) fn note_late(&mut self, attempt: &AttemptId, outcome: &Outcome) {
        let outcome = match outcome {
            Outcome::Succeeded { .. } => "succeeded",
            Outcome::Failed { .. } => "failed",
            Outcome::Unknown { .. } => "unknown",
        };
        self.emit(AttemptLate { attempt: attempt.clone(), outcome: outcome.to_owned() });
    }

    fn attempt_succeeded(&mut self, attempt: &AttemptId, plan: &Plan, place: Place, output: Value) {
        let Some(run) = self.state.runs.get(&attempt.run) else { return };
        let step = &plan.steps[place.step];
        let names = StepNames::new(&self.state, run, plan, place).with_result(&output);
        let (outputs, settled) = match evaluate_outputs(step, &names) {
            Ok(outputs) => (outputs, self.settle_attempt(attempt, run, step, &names)),
            Err(error) => (Map::new(), Err(Unsettled { reason: error.into(), then: end(step) })),
        };
        let outputs = Value::Object(outputs);
        let contained =
            step.undo.as_ref().map(|undo| self.contain(run, plan, place, undo, Some(&output), Some(&outputs)));
        let (mut unsettled, verification) = match settled {
            Ok(None) => (None, None),
            Ok(Some(verification)) => {
                let reason = "to be verified".into();
                (Some(Unsettled { reason, then: Then::Verify }), Some(verification))
            }
            Err(unsettled) => (Some(unsettled), None),
        };
        if let Some(Err(error)) = &contained {
            let reason = format!("it was done, and cannot be taken back: {error}").into();
            unsettled = Some(Unsettled { reason, then: end(step) });
        }
        self.emit(AttemptSucceeded {
            attempt: attempt.clone(),
            output: Arc::new(output),
            outputs: Arc::new(outputs),
            unsettled,
            verification,
        });
        if let Some(Ok(started)) = contained {
            self.emit(started);
        }
    }

    /// What follows on an action's success: nothing, its verification, or a further look.
    fn settle_attempt(
        &self,
        attempt: &AttemptId,
        run: &Run,
        step: &Step,
        names: &StepNames<'_>,
    ) -> Result<Option<Arc<Verification>>, Unsettled> {
        if let Some(until) = &step.until {
            let failed = |reason: String| Unsettled { reason: reason.into(), then: end(step) };
            let began = run.at(names.place).and_then(|of| of.started_at).unwrap_or(self.now);
            let next = self.now.plus(until.every);
            match until.condition.evaluate_bool(names) {
                Ok(true) => {}
                Ok(false) if next <= began.plus(until.within) && !self.is_cancelled(attempt, step) => {
                    return Err(Unsettled { reason: "until does not hold yet".into(), then: Then::Retry { at: next } });
                }
                Ok(false) => {
                    let within = stanch_playbook::time::shown_duration(until.within);
                    return Err(failed(format!("until did not hold within {within}")));
                }
                Err(error) => return Err(failed(format!("until: {error}"))),
            }
        }
        let Some(verify) = &step.verify else { return Ok(None) };
        match self.verification(verify, *names) {
            Ok(verification) => Ok(Some(verification)),
            Err(error) => Err(Unsettled { reason: format!("verify: {error}").into(), then: end(step) }),
        }
    }

    fn verification(&self, verify: &Verify, names: StepNames<'_>) -> Result<Arc<Verification>, String> {
        let (with, env) = render(&verify.call, names)?;
        Ok(Arc::new(Verification {
            call: RenderedCall { action: verify.call.action.clone(), with, env, timeout: verify.timeout },
            every: verify.until.every,
            deadline: self.now.plus(verify.until.within),
        }))
    }

    /// A verifying action gave a result: whether the condition holds of it.
    fn verification_looked(&mut self, attempt: &AttemptId, plan: &Plan, place: Place, output: Value) {
        let Some(run) = self.state.runs.get(&attempt.run) else { return };
        let step = &plan.steps[place.step];
        let Some(verify) = &step.verify else { return };
        let names = StepNames::new(&self.state, run, plan, place).with_result(&output);
        let looked = verify.until.condition.evaluate_bool(&names);
        let was_unknown =
            run.at(place).is_some_and(|of| matches!(&of.state, StepState::Verifying { unknown: Some(_), .. }));
        let (outputs, unsettled) = match looked {
            // Of an action whose result nobody saw there is nothing to evaluate.
            Ok(true) if was_unknown => (Value::Object(Map::new()), None),
            Ok(true) => (Value::Null, None),
            Ok(false) => {
                let then = self.after_verification(attempt, step, place);
                (Value::Null, Some(Unsettled { reason: self.not_verified(attempt, then, "").into(), then }))
            }
            Err(error) => (Value::Null, Some(Unsettled { reason: format!("verify: {error}").into(), then: end(step) })),
        };
        self.emit(AttemptSucceeded {
            attempt: attempt.clone(),
            output: Arc::new(output),
            outputs: Arc::new(outputs),
            unsettled,
            verification: None,
        });
    }

    fn not_verified(&self, attempt: &AttemptId, then: Then, why: &str) -> String {
        let more = if why.is_empty() { String::new() } else { format!(": {why}") };
        match then {
            Then::Retry { .. } => format!("the verification does not hold yet{more}"),
            _ => format!("the verification did not hold in {} looks{more}", attempt.number),
        }
    }

    /// What follows where a verification does not hold, or could not be looked at.
    fn after_verification(&self, attempt: &AttemptId, step: &Step, place: Place) -> Then {
        let Some(of) = self.state.runs.get(&attempt.run).and_then(|run| run.at(place)) else { return end(step) };
        let StepState::Verifying { verification, unknown, .. } = &of.state else { return end(step) };
        if self.is_cancelled(attempt, step) {
            return Then::Cancel;
        }
        let next = self.now.plus(verification.every);
        if next <= verification.deadline {
            return Then::Retry { at: next };
        }
        // What was done for certain is not done again by itself because it did not help.
        let made = of.attempts_made(Purpose::Do);
        if unknown.is_some() && made < step.policy.retry.max_attempts {
            return Then::Redo { at: self.now.plus(delay(&step.policy.retry, attempt, made)) };
        }
        end(step)
    }

    pub(super) fn is_cancelled(&self, attempt: &AttemptId, step: &Step) -> bool {
        let cancelled = self.state.runs.get(&attempt.run).is_some_and(|run| run.cancel.is_some());
        cancelled && step.phase != stanch_playbook::Phase::Finally
    }

    fn attempt_unknown(&mut self, attempt: &AttemptId, plan: &Plan, place: Place, reason: String) {
        let step = &plan.steps[place.step];
        if attempt.purpose == Purpose::Verify {
            let then = self.after_verification(attempt, step, place);
            let reason = self.not_verified(attempt, then, &reason).into();
            return self.emit(AttemptUnknown { attempt: attempt.clone(), reason, then, verification: None });
        }
        let Some(run) = self.state.runs.get(&attempt.run) else { return };
        let names = StepNames::new(&self.state, run, plan, place);
        let retry = &step.policy.retry;
        let mut verification = None;
        let then = match step.policy.on_unknown {
            _ if self.is_cancelled(attempt, step) => Then::Cancel,
            OnUnknown::Retry if attempt.number < retry.max_attempts => {
                Then::Retry { at: self.now.plus(delay(retry, attempt, attempt.number)) }
            }
            OnUnknown::Verify => match step.verify.as_ref().map(|verify| self.verification(verify, names)) {
                Some(Ok(found)) => {
                    verification = Some(found);
                    Then::Verify
                }
                // Nothing that could tell: a person must.
                Some(Err(_)) | None => Then::Ask,
            },
            OnUnknown::Ask => Then::Ask,
            OnUnknown::Retry | OnUnknown::Fail => end(step),
        };
        let contained = step.undo.as_ref().map(|undo| self.contain(run, plan, place, undo, None, None));
        self.emit(AttemptUnknown { attempt: attempt.clone(), reason: reason.into(), then, verification });
        if let Some(Ok(started)) = contained {
            self.emit(started);
        }
    }

    /// Whether the playbook's `retry.if` is for a further attempt; an error in it is not.
    fn may_retry(&self, plan: &Plan, place: Place, attempt: &AttemptId, error: &str, output: Option<&Value>) -> bool {
        let Some(condition) = &plan.steps[place.step].retry_if else { return true };
        let Some(run) = self.state.runs.get(&attempt.run) else { return false };
        let none = Value::Null;
        let names = StepNames::new(&self.state, run, plan, place).with_result(output.unwrap_or(&none));
        condition.evaluate_bool(&StepNames { error: Some(error), ..names }).unwrap_or(false)
    }

    fn after_failure(
        &self,
        attempt: &AttemptId,
        step: &Step,
        place: Place,
        retryable: bool,
        retry_after: Option<Duration>,
    ) -> Then {
        if self.is_cancelled(attempt, step) {
            return Then::Cancel;
        }
        // A step that polls goes on looking until its time is over.
        if let Some(until) = &step.until
            && let Some(began) = self.state.runs.get(&attempt.run).and_then(|run| run.at(place)?.started_at)
        {
            let next = self.now.plus(until.every.max(retry_after.unwrap_or_default()));
            return if retryable && next <= began.plus(until.within) { Then::Retry { at: next } } else { end(step) };
        }
        let retry = &step.policy.retry;
        if retryable && attempt.number < retry.max_attempts {
            let wait = delay(retry, attempt, attempt.number).max(retry_after.unwrap_or_default());
            return Then::Retry { at: self.now.plus(wait) };
        }
        end(step)
    }

    /// After a start: whoever was at work on a claimed attempt is gone, and nobody knows how far it came.
    pub(super) fn recover(&mut self) {
        let mut lost = Vec::new();
        for run in self.state.runs.values() {
            for (place, step) in run.started() {
                if let Some(attempt) = step.state.attempt()
                    && attempt.epoch < self.state.epoch
                {
                    lost.push((attempt.clone(), place));
                }
            }
        }
        let gone = || "the engine stopped while the attempt was under way".to_owned();
        for (attempt, place) in &lost {
            let Some(run) = self.state.runs.get(&attempt.run) else { continue };
            let plan = self.plan_of(run);
            let policy = plan.steps[place.step].policy;
            self.attempt_unknown(attempt, &plan, *place, gone());
            if attempt.purpose == Purpose::Do
                && policy.on_unknown == OnUnknown::Retry
                && attempt.number >= policy.retry.max_attempts
            {
                self.keep_poisoned(attempt);
            }
        }
        for attempt in self.lost_undos() {
            // Of an attempt that is under way this cannot be refused.
            let _ = self.finish_undo(&attempt, Outcome::Unknown { reason: gone() });
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
            let Some((_, timer)) = self.state.timers.get_min().filter(|(at, _)| *at <= self.now).cloned() else {
                return;
            };
            match timer {
                Timer::Incident(id) => self.fire_incident(id),
                Timer::Run(id) => self.fire_run(id),
                Timer::Maintenance(maintenance) => self.emit(MaintenanceEnded { maintenance }),
                Timer::Clock => {
                    // Of a jump that nobody has agreed to this cannot be refused.
                    let _ = self.agree_to_clock();
                }
                Timer::Watchdog(playbook, watchdog) => self.bark(playbook, watchdog),
                Timer::Containment(id) => self.fire_containment(id),
                Timer::Step(run, place) => {
                    self.fire_step(run, place);
                    self.advance(run);
                }
            }
        }
    }

    fn fire_step(&mut self, id: RunId, place: Place) {
        let Some(run) = self.state.runs.get(&id) else { return };
        let plan = self.plan_of(run);
        let Some(of) = run.at(place) else { return };
        match &of.state {
            StepState::Backoff { .. } => self.schedule_again(id, place),
            StepState::Verifying { verification, attempt: None, .. } => {
                let call = verification.call.clone();
                if let Some(attempt) = self.next_attempt(run, &plan, place, Purpose::Verify) {
                    self.schedule(attempt, call);
                }
            }
            StepState::Waiting { wait } => self.fire_wait(id, &plan, place, *wait),
            StepState::Pending
            | StepState::Blocked { .. }
            | StepState::Skipped
            | StepState::Running { .. }
            | StepState::Items { .. }
            | StepState::Verifying { .. }
            | StepState::Unknown { .. }
            | StepState::Succeeded
            | StepState::Tolerated { .. }
            | StepState::Failed { .. }
            | StepState::Cancelled { .. } => {}
        }
    }

    fn fire_wait(&mut self, id: RunId, plan: &Plan, place: Place, wait: Waiting) {
        match wait {
            Waiting::Time { .. } => self.wake(id, place, &Value::Object(Map::new())),
            Waiting::Resolved { settled_at, .. } if settled_at.is_some_and(|at| at <= self.now) => {
                self.wake(id, place, &Value::Object(Map::new()));
            }
            Waiting::Resolved { .. } => {
                self.fail(id, plan, place, "timed out waiting for the alerts to resolve");
            }
            Waiting::Event { .. } => self.fail(id, plan, place, "timed out waiting for the event"),
            Waiting::Undo { .. } => self.fail(id, plan, place, "timed out waiting for the undo, which goes on"),
            Waiting::Run { child, .. } => self.cancel_late_child(id, plan, place, child),
            Waiting::Approval { expires_at, .. } => self.fire_approval(id, plan, place, expires_at),
        }
    }

    /// Ends a wait whose condition came true.
    pub(super) fn wake(&mut self, id: RunId, place: Place, result: &Value) {
        let Some(run) = self.state.runs.get(&id) else { return };
        let plan = self.plan_of(run);
        let names = StepNames::new(&self.state, run, &plan, place).with_result(result);
        let step = &plan.steps[place.step];
        match evaluate_outputs(step, &names) {
            Ok(outputs) => {
                let outputs = Arc::new(Value::Object(outputs));
                self.emit(StepWoken { run: id, step: step.key.clone(), item: place.item, outputs });
            }
            Err(error) => self.fail(id, &plan, place, error),
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

/// The delay before the attempt after the one with this number: exponential, capped, and with full jitter drawn from the
/// key, so that equal histories have equal delays.
pub(super) fn delay(retry: &Retry, attempt: &AttemptId, number: u32) -> Duration {
    let fraction = match retry.jitter {
        Jitter::None => 1.0,
        Jitter::Full => fraction(&attempt.idempotency_key(), number),
    };
    retry.delay_at_most(number).mul_f64(fraction)
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
