//! The fold: one record changes the state, or is refused as illegal. Evaluates nothing.

use std::sync::Arc;

use serde_json::Value;
use stanch_playbook::plan::OnResolved;
use stanch_playbook::{Plan, PlaybookName, StepKey, Timestamp};

use crate::alert::AlertKey;
use crate::attempt::{AttemptId, Purpose};
use crate::clock::{Jump, is_jump};
use crate::containment::{Containment, UndoState};
use crate::event::Event;
use crate::id::{ApprovalId, ContainmentId, IncidentId, RunId, Sequence};
use crate::incident::{Alert, Care, Incident};
use crate::record::{
    Actor, Answer, AttemptScheduled, AttemptSucceeded, Body, ContainmentStarted, Ending, Firing, Parent, Record,
    RunOutcome, RunStarted, Then, Unsettled, Verification, Waiting,
};
use crate::run::{AttemptOutcome, AttemptRun, Place, Question, Rendered, Run, StepRun, StepState};
use crate::state::{EVENT_MEMORY, Expiry, PinnedPlan, State, Timer, Window};

/// What left the live state, or became quiet, by one record: for the views.
#[derive(Debug, Default)]
pub struct Applied {
    /// The run that the record finished; it is no longer in the state.
    pub finished: Option<Arc<Run>>,
    /// The incident that the record resolved.
    pub resolved: Option<Arc<Incident>>,
}

/// A record that cannot follow on the state: a journal that was tampered with, or a defect.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum IllegalTransition {
    /// Not the next one.
    #[error("record {got:?} cannot follow on {state:?}")]
    OutOfOrder {
        /// The state's sequence.
        state: Sequence,
        /// The record's.
        got: Sequence,
    },
    /// About a run that is not live.
    #[error("{kind}: no live run {run}")]
    NoRun {
        /// The record's kind.
        kind: String,
        /// The run it names.
        run: RunId,
    },
    /// About a step that the plan does not have.
    #[error("{kind}: run {run} has no step {step}")]
    NoStep {
        /// The record's kind.
        kind: String,
        /// The run.
        run: RunId,
        /// The step it names.
        step: StepKey,
    },
    /// A step in a state from which the record cannot lead.
    #[error("{kind}: step {step} of run {run} is {state}")]
    Step {
        /// The record's kind.
        kind: String,
        /// The run.
        run: RunId,
        /// The step.
        step: StepKey,
        /// The state it is in.
        state: &'static str,
    },
    /// About an incident that is not there.
    #[error("{kind}: no incident {incident}")]
    NoIncident {
        /// The record's kind.
        kind: String,
        /// The incident it names.
        incident: IncidentId,
    },
    /// About a containment that is not in force, or not in a state from which the record can lead.
    #[error("{kind}: no such containment is in force, or not like this: {containment:?}")]
    NoContainment {
        /// The record's kind.
        kind: String,
        /// The containment it names.
        containment: Option<ContainmentId>,
    },
    /// A plan that this version cannot read.
    #[error("{kind}: {reason}")]
    Plan {
        /// The record's kind.
        kind: String,
        /// Why.
        reason: String,
    },
}

impl State {
    /// Folds one record in.
    ///
    /// # Errors
    /// [`IllegalTransition`] where the record cannot follow; the state is then not to be used any more.
    pub fn apply(&mut self, record: &Record) -> Result<Applied, IllegalTransition> {
        if record.sequence != self.sequence.next() {
            return Err(IllegalTransition::OutOfOrder { state: self.sequence, got: record.sequence });
        }
        self.sequence = record.sequence;
        self.time = record.time;
        self.forget();
        Fold { state: self, record }.fold()
    }

    /// The id of an event's identity, as [`State::seen`] has it.
    #[must_use]
    pub fn event_identity(event: &Event) -> u128 {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        hash.update(event.source.len().to_be_bytes());
        hash.update(event.source.as_bytes());
        hash.update(event.id.as_bytes());
        let mut head = [0; 16];
        head.copy_from_slice(&hash.finalize()[..16]);
        u128::from_be_bytes(head)
    }

    fn forget(&mut self) {
        while let Some((at, what)) = self.expiry.get_min().filter(|(at, _)| *at <= self.time).cloned() {
            match &what {
                Expiry::Seen(id) => {
                    self.seen.remove(id);
                }
                Expiry::Alert(key) => {
                    self.alerts.remove(key);
                }
                Expiry::Incident(id) => {
                    if let Some(incident) = self.incidents.remove(id) {
                        for key in incident.keys() {
                            if self.keys.get(key) == Some(id) {
                                self.keys.remove(key);
                            }
                        }
                    }
                }
            }
            self.expiry.remove(&(at, what));
        }
    }
}

struct Fold<'a> {
    state: &'a mut State,
    record: &'a Record,
}

impl Fold<'_> {
    fn kind(&self) -> String {
        self.record.body.kind().to_owned()
    }

    fn fold(&mut self) -> Result<Applied, IllegalTransition> {
        let now = self.record.time;
        match &self.record.body {
            Body::EngineStarted(body) => {
                self.state.journal = body.journal;
                self.state.epoch = body.epoch;
                self.state.settings = body.settings.clone();
            }
            Body::EngineStopped(_) | Body::DeadLettered(_) | Body::DeadLetterReplayed(_) | Body::Redacted(_) => {}
            Body::AttemptLate(body) => self.note(body.attempt.run),
            Body::PlaybookLoaded(body) => {
                if !self.state.plans.contains_key(&body.plan) {
                    let plan = Plan::from_canonical(&body.canonical)
                        .map_err(|error| IllegalTransition::Plan { kind: self.kind(), reason: error.to_string() })?;
                    self.state.plans.insert(body.plan, PinnedPlan(Arc::new(plan)));
                }
                if let Some(old) = self.state.playbooks.insert(body.playbook.clone(), body.plan) {
                    self.release_plan(old);
                }
            }
            Body::PlaybookRemoved(body) => {
                if let Some(old) = self.state.playbooks.remove(&body.playbook) {
                    self.release_plan(old);
                }
            }
            Body::AlertFired(body) => {
                self.alert_fired(body.firing, &body.alert.key, body.alert.starts_at);
            }
            Body::AlertResolved(body) => self.alert_resolved(&body.alert),
            Body::EventReceived(body) => self.event_received(&body.event),
            Body::IncidentOpened(body) => {
                let mut incident = Incident {
                    id: body.incident,
                    key: body.key.clone(),
                    severity: body.severity,
                    title: body.title.clone(),
                    opened_at: now,
                    acknowledged: None,
                    resolved_at: None,
                    alerts: Vec::new(),
                    quiet_since: None,
                    settles_at: None,
                    live_runs: Vec::new(),
                    runs: Vec::new(),
                    failed_runs: 0,
                    care: None,
                };
                if body.settle.is_some() || body.escalation.is_some() || body.slack_channel.is_some() {
                    let care = incident.care_mut();
                    care.settle = body.settle;
                    care.escalation = body.escalation.clone();
                    care.slack_channel = body.slack_channel.clone();
                }
                if let Some(key) = &body.alert {
                    self.attach(&mut incident, key);
                }
                self.state.keys.insert(body.key.clone(), body.incident);
                self.put_incident(Arc::new(incident));
            }
            Body::IncidentJoined(body) => {
                let mut incident = self.take_incident(body.incident)?;
                let of = Arc::make_mut(&mut incident);
                of.severity = body.severity;
                self.attach(of, &body.alert);
                self.put_incident(incident);
            }
            Body::IncidentSettling(body) => {
                let mut incident = self.take_incident(body.incident)?;
                Arc::make_mut(&mut incident).settles_at = Some(body.until);
                self.put_incident(incident);
            }
            Body::IncidentReopened(body) => {
                let mut incident = self.take_incident(body.incident)?;
                let of = Arc::make_mut(&mut incident);
                of.settles_at = None;
                of.resolved_at = None;
                if let Some(care) = &mut of.care {
                    care.settled = false;
                }
                self.state.keys.insert(incident.key.clone(), incident.id);
                self.put_incident(incident);
            }
            Body::IncidentAcknowledged(body) => {
                let mut incident = self.take_incident(body.incident)?;
                Arc::make_mut(&mut incident).acknowledged = Some((self.record.actor.clone(), now));
                self.put_incident(incident);
            }
            Body::IncidentResolved(body) => {
                let mut incident = self.take_incident(body.incident)?;
                let of = Arc::make_mut(&mut incident);
                of.resolved_at = Some(now);
                of.settles_at = None;
                of.failed_runs = 0;
                let resolved = Arc::clone(&incident);
                self.put_incident(incident);
                return Ok(Applied { resolved: Some(resolved), ..Applied::default() });
            }
            Body::RunStarted(body) => self.run_started(body)?,
            Body::RunReleased(body) => {
                let mut run = self.take_run(body.run)?;
                self.unmark_run(&run);
                let of = Arc::make_mut(&mut run);
                of.queued = false;
                of.held = None;
                self.state.queued.remove(&(run.playbook.clone(), run.id));
                *self.state.running.entry(run.playbook.clone()).or_insert(0) += 1;
                self.put_run(run);
            }
            Body::RunCancelRequested(body) => {
                let mut run = self.take_run(body.run)?;
                let of = Arc::make_mut(&mut run);
                of.cancel = Some((self.record.actor.clone(), body.reason.as_str().into()));
                of.undo = body.undo;
                // What a failure had taken back was of one phase.
                of.undo_asked &= !body.undo;
                self.put_run(run);
            }
            Body::RunFinished(body) => return self.run_finished(body.run, body.outcome),
            Body::RunExtended(body) => {
                let mut run = self.take_run(body.run)?;
                let of = Arc::make_mut(&mut run);
                of.cause = body.cause.clone();
                of.inputs = body.inputs.clone();
                self.put_run(run);
            }
            Body::RunHoldEnded(body) => {
                let mut run = self.take_run(body.run)?;
                self.unmark_run(&run);
                let of = Arc::make_mut(&mut run);
                if of.queued && of.held.is_some() {
                    of.held = None;
                } else {
                    of.hold_until = None;
                }
                self.put_run(run);
            }
            Body::RunRecovering(body) => {
                let mut run = self.take_run(body.run)?;
                Arc::make_mut(&mut run).recovering = true;
                self.put_run(run);
            }
            Body::IncidentSettled(body) => {
                self.incident(body.incident, |incident| incident.care_mut().settled = true)?
            }
            Body::IncidentEscalated(body) => self.incident(body.incident, |incident| {
                let waited = now.since(incident.opened_at);
                let care = incident.care_mut();
                if let Some(escalation) = &care.escalation {
                    care.told = escalation.notify.iter().filter(|next| next.after <= waited).count();
                    care.overdue |= escalation.acknowledge_within.is_some_and(|within| within <= waited);
                }
            })?,
            Body::IncidentUpdateDue(body) => {
                self.incident(body.incident, |incident| incident.care_mut().updated_at = Some(now))?;
            }
            Body::IncidentTaken(body) => {
                self.incident(body.incident, |incident| incident.care_mut().owner = Some(body.owner.clone()))?;
            }
            Body::IncidentNoted(body) => {
                let note = (self.record.actor.clone(), now, Arc::from(body.note.as_str()));
                self.incident(body.incident, |incident| {
                    let notes = &mut incident.care_mut().notes;
                    if notes.len() == Care::NOTES {
                        notes.remove(0);
                    }
                    notes.push(note);
                })?;
            }
            Body::IncidentMerged(body) => self.incident_merged(body.incident, body.into)?,
            Body::PlaybookObserved(_) => {}
            Body::Frozen(body) => {
                self.state.frozen = Some((self.record.actor.clone(), body.reason.as_str().into(), now));
            }
            Body::Unfrozen(_) => self.state.frozen = None,
            Body::MaintenancePlanned(body) => {
                let window = Window { planned: body.clone(), by: self.record.actor.clone() };
                self.state.timers.insert((body.to, Timer::Maintenance(body.maintenance)));
                self.state.maintenance.insert(body.maintenance, Arc::new(window));
            }
            Body::MaintenanceEnded(body) => {
                if let Some(window) = self.state.maintenance.remove(&body.maintenance) {
                    self.state.timers.remove(&(window.planned.to, Timer::Maintenance(body.maintenance)));
                }
            }
            Body::WatchdogBarked(body) => self.unwatch(&body.playbook, &body.watchdog),
            Body::ClockJumped(body) => {
                self.clock_agreed();
                if is_jump(body.by_ms) {
                    let jump = Jump { by_ms: body.by_ms, since: now };
                    self.state.timers.insert((jump.until(), Timer::Clock));
                    self.state.clock_jump = Some(jump);
                }
            }
            Body::ClockAgreed(_) => self.clock_agreed(),
            Body::AttemptScheduled(body) => return self.attempt_scheduled(body),
            Body::AttemptSucceeded(body) => return self.attempt_succeeded(body),
            Body::AttemptFailed(body) => {
                self.attempt(&body.attempt, AttemptOutcome::Failed, Some(&body.error), |step| {
                    step.state = after(step, body.then, &body.error, None);
                })?;
            }
            Body::AttemptUnknown(body) => {
                self.attempt(&body.attempt, AttemptOutcome::Unknown, Some(&body.reason), |step| {
                    step.state = after(step, body.then, &body.reason, body.verification.as_ref());
                    if let StepState::Verifying { next, unknown, .. } = &mut step.state
                        && body.attempt.purpose == Purpose::Do
                    {
                        *next = Some(now);
                        *unknown = Some(body.reason.clone());
                    }
                })?;
            }
            Body::StepWaiting(body) => self.step(body.run, &body.step, body.item, |step| {
                let legal = matches!(step.state, StepState::Pending | StepState::Waiting { .. });
                step.started_at.get_or_insert(now);
                step.state = StepState::Waiting { wait: body.wait };
                legal
            })?,
            Body::StepWoken(body) => self.step(body.run, &body.step, body.item, |step| {
                let legal = matches!(step.state, StepState::Waiting { .. });
                step.outputs = body.outputs.clone();
                finish(step, StepState::Succeeded, now);
                legal
            })?,
            Body::StepEnded(body) => self.step(body.run, &body.step, body.item, |step| {
                let legal = !step.state.is_over() && !matches!(step.state, StepState::Running { .. });
                let state = ended(body.ending, body.reason.clone());
                finish(step, state, now);
                legal
            })?,
            Body::StepAnswered(body) => self.step(body.run, &body.step, body.item, |step| {
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
            })?,
            Body::ItemsStarted(body) => self.step(body.run, &body.step, None, |step| {
                let legal = matches!(step.state, StepState::Pending);
                step.started_at.get_or_insert(now);
                step.items = body.items.iter().map(|value| Arc::new(StepRun::item(value.clone()))).collect();
                step.state = StepState::Items { started: 0, live: 0, idle: 0, failed: 0 };
                legal
            })?,
            Body::ItemsEnded(body) => self.step(body.run, &body.step, None, |step| {
                let legal = matches!(step.state, StepState::Items { .. });
                let state = match &body.failure {
                    None => StepState::Succeeded,
                    Some(failure) => ended(failure.ending, failure.reason.clone()),
                };
                step.outputs = Arc::new(Value::Object(serde_json::Map::new()));
                finish(step, state, now);
                legal
            })?,
            Body::ApprovalRequested(body) => self.step(body.run, &body.step, None, |step| {
                // Also after it was answered: what was approved has changed.
                let legal = matches!(step.state, StepState::Pending | StepState::Waiting { .. } | StepState::Succeeded);
                step.started_at.get_or_insert(now);
                step.finished_at = None;
                let question = Question { asked: body.clone(), asked_at: now, answers: Vec::new(), told: 0 };
                step.question = Some(Arc::new(question));
                step.state = StepState::Waiting {
                    wait: Waiting::Approval { approval: body.approval, expires_at: body.expires_at },
                };
                legal
            })?,
            Body::ApprovalEscalated(body) => self.step(body.run, &body.step, None, |step| {
                let waits = matches!(step.state, StepState::Waiting { .. });
                let Some(question) = step.question.as_mut().filter(|of| of.asked.approval == body.approval) else {
                    return false;
                };
                let legal = waits && body.level > question.told;
                Arc::make_mut(question).told = body.level;
                legal
            })?,
            Body::ApprovalDecided(body) => self.step(body.run, &body.step, None, |step| {
                let Some(question) = &mut step.question else { return false };
                let answer = (self.record.actor.clone(), body.verdict, now);
                Arc::make_mut(question).answers.push(answer);
                let legal = question.asked.approval == body.approval && matches!(step.state, StepState::Waiting { .. });
                if body.resumes {
                    step.state = StepState::Pending;
                }
                legal
            })?,
            Body::ContainmentStarted(body) => self.containment_started(body)?,
            Body::ContainmentExtended(body) => self.containment(body.containment, |containment| {
                containment.until = body.until;
                matches!(containment.state, UndoState::Inforce)
            })?,
            Body::UndoRequested(body) => {
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
            }
            Body::ContainmentEnded(body) => self.containment_over(body.containment)?,
        }
        Ok(Applied::default())
    }

    fn attempt_scheduled(&mut self, body: &AttemptScheduled) -> Result<Applied, IllegalTransition> {
        let now = self.record.time;
        if body.attempt.purpose == Purpose::Undo {
            let id = self.contained(&body.attempt)?;
            self.containment(id, |containment| {
                containment.attempts = body.attempt.number;
                let before =
                    std::mem::replace(&mut containment.state, UndoState::Undoing { attempt: body.attempt.clone() });
                matches!(before, UndoState::Requested | UndoState::Backoff { .. })
            })?;
            return Ok(Applied::default());
        }
        self.spend(&body.attempt);
        self.step(body.attempt.run, &body.attempt.step, body.attempt.item, |step| {
            let made = AttemptRun {
                purpose: body.attempt.purpose,
                generation: body.attempt.generation,
                number: body.attempt.number,
                epoch: body.attempt.epoch,
                scheduled_at: now,
                finished_at: None,
                outcome: AttemptOutcome::Running,
                error: None,
            };
            if let StepState::Verifying { attempt, next, .. } = &mut step.state {
                let legal = body.attempt.purpose == Purpose::Verify && attempt.is_none();
                *attempt = Some(body.attempt.clone());
                *next = None;
                step.attempts.pop_if(|last| last.purpose == Purpose::Verify);
                step.attempts.push(made);
                return legal;
            }
            match step.state {
                StepState::Pending | StepState::Backoff { .. } => {}
                _ => return false,
            }
            step.rendered = Some(Rendered { with: body.with.clone(), env: body.env.clone(), timeout: body.timeout });
            step.started_at.get_or_insert(now);
            // Of a step that polls, the last look alone is kept.
            step.attempts.pop_if(|last| last.purpose == Purpose::Do && last.outcome == AttemptOutcome::Succeeded);
            step.attempts.push(made);
            step.state = StepState::Running { attempt: body.attempt.clone() };
            body.attempt.purpose == Purpose::Do
        })?;
        Ok(Applied::default())
    }

    /// Counts the first attempt at a target against its step's budget.
    fn spend(&mut self, attempt: &AttemptId) {
        let first = attempt.purpose == Purpose::Do && attempt.number == 1 && attempt.generation == 0;
        if !first || self.state.settings.budgets.is_empty() {
            return;
        }
        let plan = self.state.runs.get(&attempt.run).and_then(|run| self.state.plan(run.plan));
        let step = plan.and_then(|plan| plan.steps.get(plan.step_index(&attempt.step)?));
        let Some(name) = step.and_then(|step| step.budget.clone()) else { return };
        let Some(budget) = self.state.settings.budgets.get(&name) else { return };
        let (now, per) = (self.record.time, budget.per);
        let spent = self.state.spent.entry(name).or_default();
        spent.push_back(now);
        while spent.front().is_some_and(|at| now.since(*at) >= per) {
            spent.pop_front();
        }
    }

    fn attempt_succeeded(&mut self, body: &AttemptSucceeded) -> Result<Applied, IllegalTransition> {
        if body.attempt.purpose == Purpose::Undo {
            let id = self.contained(&body.attempt)?;
            self.containment_over(id)?;
            return Ok(Applied::default());
        }
        let now = self.record.time;
        let error = body.unsettled.as_ref().map(|unsettled| &unsettled.reason);
        self.attempt(&body.attempt, AttemptOutcome::Succeeded, error, |step| {
            if !body.outputs.is_null() {
                step.outputs = body.outputs.clone();
            }
            step.state = match &body.unsettled {
                None => StepState::Succeeded,
                Some(Unsettled { reason, then }) => after(step, *then, reason, body.verification.as_ref()),
            };
            if let StepState::Verifying { next, .. } = &mut step.state
                && body.attempt.purpose == Purpose::Do
            {
                *next = Some(now);
            }
        })?;
        Ok(Applied::default())
    }

    fn containment_started(&mut self, body: &ContainmentStarted) -> Result<(), IllegalTransition> {
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

    fn contained(&self, attempt: &AttemptId) -> Result<ContainmentId, IllegalTransition> {
        let containment = self.state.containment_at(attempt.run, &attempt.step, attempt.item);
        containment
            .map(|of| of.id)
            .ok_or_else(|| IllegalTransition::NoContainment { kind: self.kind(), containment: None })
    }

    /// Changes one containment; `change` says whether the state it found was a legal one.
    fn containment(
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

    fn containment_over(&mut self, id: ContainmentId) -> Result<(), IllegalTransition> {
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

    fn alert_fired(&mut self, firing: Firing, key: &AlertKey, starts_at: Timestamp) {
        let state = &mut *self.state;
        let mut alert = match state.alerts.get(key) {
            Some(known) => {
                let mut alert = Alert::clone(known);
                if let Some(at) = alert.resolved_at.take() {
                    state.expiry.remove(&(at.plus(state.alert_memory()), Expiry::Alert(key.clone())));
                }
                if firing != Firing::Again {
                    alert.earlier.push(alert.starts_at);
                    if alert.earlier.len() > Alert::EPISODES {
                        alert.earlier.remove(0);
                    }
                }
                alert
            }
            None => Alert {
                key: key.clone(),
                starts_at,
                resolved_at: None,
                earlier: Vec::new(),
                incidents: Vec::new(),
                record: self.record.sequence,
            },
        };
        alert.starts_at = starts_at;
        alert.record = self.record.sequence;
        alert.incidents.retain(|id| state.incidents.contains_key(id));
        for id in alert.incidents.clone() {
            self.set_firing(id, key, true);
        }
        self.state.alerts.insert(key.clone(), Arc::new(alert));
    }

    fn alert_resolved(&mut self, key: &AlertKey) {
        let Some(known) = self.state.alerts.get(key) else { return };
        let mut alert = Alert::clone(known);
        alert.resolved_at = Some(self.record.time);
        self.state.expiry.insert((self.record.time.plus(self.state.alert_memory()), Expiry::Alert(key.clone())));
        for id in &alert.incidents {
            self.set_firing(*id, key, false);
        }
        self.state.alerts.insert(key.clone(), Arc::new(alert));
    }

    fn set_firing(&mut self, id: IncidentId, key: &AlertKey, fires: bool) {
        let Ok(mut incident) = self.take_incident(id) else { return };
        let now = self.record.time;
        let body = Arc::make_mut(&mut incident);
        if let Some(entry) = body.alerts.iter_mut().find(|(alert, _)| alert == key) {
            entry.1 = fires;
        }
        body.quiet_since =
            if body.alerts.iter().any(|(_, fires)| *fires) { None } else { body.quiet_since.or(Some(now)) };
        self.put_incident(incident);
    }

    fn attach(&mut self, incident: &mut Incident, key: &AlertKey) {
        let fires = self.state.alerts.get(key).is_some_and(|alert| alert.resolved_at.is_none());
        match incident.alerts.iter_mut().find(|(alert, _)| alert == key) {
            Some(entry) => entry.1 = fires,
            None => push_tight(&mut incident.alerts, (key.clone(), fires)),
        }
        incident.quiet_since = if fires { None } else { incident.quiet_since };
        if let Some(known) = self.state.alerts.get(key)
            && !known.incidents.contains(&incident.id)
        {
            let mut alert = Alert::clone(known);
            push_tight(&mut alert.incidents, incident.id);
            self.state.alerts.insert(key.clone(), Arc::new(alert));
        }
    }

    fn event_received(&mut self, event: &Event) {
        let id = State::event_identity(event);
        let until = self.record.time.plus(EVENT_MEMORY);
        self.state.seen.insert(id, until);
        self.state.expiry.insert((until, Expiry::Seen(id)));
        if let Some((playbook, trigger, nominal)) = event.tick() {
            let watchdogs =
                self.state.playbook(playbook.as_str()).map(|plan| plan.watchdogs.clone()).unwrap_or_default();
            for (name, within) in watchdogs {
                let at = nominal.plus(within);
                // The earliest instant that nobody has dealt with is what counts.
                let key = (playbook.clone(), name);
                if !self.state.watched.contains_key(&key) {
                    self.state.timers.insert((at, Timer::Watchdog(key.0.clone(), key.1.clone())));
                    self.state.watched.insert(key, (nominal, at));
                }
            }
            self.state.ticks.insert((playbook, trigger), nominal);
        }
    }

    fn clock_agreed(&mut self) {
        if let Some(jump) = self.state.clock_jump.take() {
            self.state.timers.remove(&(jump.until(), Timer::Clock));
        }
    }

    fn unwatch(&mut self, playbook: &PlaybookName, name: &str) {
        let key = (playbook.clone(), name.to_owned());
        if let Some((_, at)) = self.state.watched.remove(&key) {
            self.state.timers.remove(&(at, Timer::Watchdog(key.0, key.1)));
        }
    }

    /// The alerts, the runs and the key of one incident become another's.
    fn incident_merged(&mut self, id: IncidentId, into: IncidentId) -> Result<(), IllegalTransition> {
        let mut from = self.take_incident(id)?;
        let mut to = self.take_incident(into)?;
        let (of, target) = (Arc::make_mut(&mut from), Arc::make_mut(&mut to));
        for (key, fires) in std::mem::take(&mut of.alerts) {
            if let Some(known) = self.state.alerts.get(&key) {
                let mut alert = Alert::clone(known);
                alert.incidents.retain(|known| *known != id && *known != into);
                alert.incidents.push(into);
                self.state.alerts.insert(key.clone(), Arc::new(alert));
            }
            if !target.alerts.iter().any(|(known, _)| *known == key) {
                target.alerts.push((key, fires));
            }
        }
        target.severity = target.severity.min(of.severity);
        for run in std::mem::take(&mut of.live_runs) {
            if let Some(known) = self.state.runs.get(&run) {
                let mut moved = Run::clone(known);
                moved.incident = into;
                self.state.runs.insert(run, Arc::new(moved));
            }
            target.live_runs.push(run);
        }
        target.runs.append(&mut of.runs);
        target.failed_runs += std::mem::take(&mut of.failed_runs);
        let fires = target.alerts.iter().any(|(_, fires)| *fires);
        target.quiet_since = if fires { None } else { target.quiet_since.or(of.quiet_since) };
        target.settles_at = if fires { None } else { target.settles_at };
        of.resolved_at = Some(self.record.time);
        of.settles_at = None;
        // What comes with its keys belongs to the other one from now on.
        let mut aliases = std::mem::take(&mut of.care_mut().aliases);
        aliases.push(of.key.clone());
        of.care_mut().merged_into = Some(into);
        for key in &aliases {
            self.state.keys.insert(key.clone(), into);
        }
        target.care_mut().aliases.extend(aliases);
        self.put_incident(from);
        self.put_incident(to);
        Ok(())
    }

    fn run_started(&mut self, body: &RunStarted) -> Result<(), IllegalTransition> {
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

    fn run_finished(&mut self, id: RunId, outcome: RunOutcome) -> Result<Applied, IllegalTransition> {
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

    /// Forgets a plan that no playbook and no live run uses.
    fn release_plan(&mut self, digest: stanch_playbook::PlanDigest) {
        let current = |state: &State| state.playbooks.values().any(|used| *used == digest);
        let pins = |run: &Arc<Run>| run.plan == digest || run.children.values().any(|child| *child == digest);
        if !current(self.state) && !self.state.runs.values().any(pins) {
            self.state.plans.remove(&digest);
        }
    }

    fn attempt(
        &mut self,
        attempt: &AttemptId,
        outcome: AttemptOutcome,
        error: Option<&Arc<str>>,
        change: impl FnOnce(&mut StepRun),
    ) -> Result<(), IllegalTransition> {
        let now = self.record.time;
        if attempt.purpose == Purpose::Undo {
            let id = self.contained(attempt)?;
            let then = match &self.record.body {
                Body::AttemptFailed(body) => body.then,
                Body::AttemptUnknown(body) => body.then,
                _ => Then::Fail,
            };
            let error = error.cloned().unwrap_or_else(|| "no reason given".into());
            return self.containment(id, |containment| {
                let legal = matches!(&containment.state, UndoState::Undoing { attempt: running } if running == attempt);
                containment.state = match then {
                    Then::Retry { at } | Then::Redo { at } => UndoState::Backoff { until: at },
                    Then::Ask | Then::Verify => UndoState::Unknown { reason: error },
                    Then::Fail | Then::Tolerate | Then::Cancel => UndoState::Failed { error },
                };
                legal
            });
        }
        self.step(attempt.run, &attempt.step, attempt.item, |step| {
            if step.state.attempt() != Some(attempt) {
                return false;
            }
            if let Some(last) = step.attempts.last_mut() {
                last.outcome = outcome;
                last.finished_at = Some(now);
                last.error = error.cloned();
            }
            change(step);
            if step.state.is_over() {
                step.finished_at = Some(now);
                step.rendered = None;
            }
            true
        })
    }

    fn place(&self, run: &Run, key: &StepKey, item: Option<u32>) -> Result<Place, IllegalTransition> {
        let step = self.state.plan(run.plan).and_then(|plan| plan.step_index(key));
        let place = step.map(|step| Place { step, item }).filter(|place| run.at(*place).is_some());
        place.ok_or_else(|| IllegalTransition::NoStep { kind: self.kind(), run: run.id, step: key.clone() })
    }

    /// Changes one step, or one item of it; `change` says whether the state it found was a legal one.
    fn step(
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

    fn unmark(&mut self, run: RunId, place: Place, marks: Marks) {
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

    fn note(&mut self, id: RunId) {
        if let Ok(run) = self.take_run(id) {
            self.put_run(run);
        }
    }

    /// A run taken out of the state, with this record among its own.
    fn take_run(&mut self, id: RunId) -> Result<Arc<Run>, IllegalTransition> {
        let mut run =
            self.state.runs.get(&id).cloned().ok_or_else(|| IllegalTransition::NoRun { kind: self.kind(), run: id })?;
        // Once, however many places of the run a record changes.
        let records = &mut Arc::make_mut(&mut run).records;
        if records.last() != Some(&self.record.sequence) {
            records.push_back(self.record.sequence);
        }
        Ok(run)
    }

    fn put_run(&mut self, run: Arc<Run>) {
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

    fn incident(&mut self, id: IncidentId, change: impl FnOnce(&mut Incident)) -> Result<(), IllegalTransition> {
        let mut incident = self.take_incident(id)?;
        change(Arc::make_mut(&mut incident));
        self.put_incident(incident);
        Ok(())
    }

    fn take_incident(&mut self, id: IncidentId) -> Result<Arc<Incident>, IllegalTransition> {
        let incident = self
            .state
            .incidents
            .get(&id)
            .cloned()
            .ok_or_else(|| IllegalTransition::NoIncident { kind: self.kind(), incident: id })?;
        if let Some(at) = incident.timer() {
            self.state.timers.remove(&(at, Timer::Incident(id)));
        }
        if let Some(at) = incident.resolved_at {
            self.state.expiry.remove(&(at.plus(self.state.settings.reopen_within), Expiry::Incident(id)));
        }
        Ok(incident)
    }

    fn put_incident(&mut self, incident: Arc<Incident>) {
        if let Some(at) = incident.timer() {
            self.state.timers.insert((at, Timer::Incident(incident.id)));
        }
        if let Some(at) = incident.resolved_at {
            let until = at.plus(self.state.settings.reopen_within);
            self.state.expiry.insert((until, Expiry::Incident(incident.id)));
        }
        self.state.incidents.insert(incident.id, incident);
    }
}

fn self_actor(actor: &Actor) -> &str {
    actor.as_str().strip_prefix("person:").unwrap_or(actor.as_str())
}

/// Pushes without room to spare for the first one: most of these lists have a single element, and an open incident may
/// stay in memory for weeks.
fn push_tight<T>(list: &mut Vec<T>, item: T) {
    if list.is_empty() {
        list.reserve_exact(1);
    }
    list.push(item);
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

fn after(step: &StepRun, then: Then, error: &Arc<str>, verification: Option<&Arc<Verification>>) -> StepState {
    match (then, &step.state) {
        // A verification goes on.
        (Then::Retry { at }, StepState::Verifying { verification, unknown, .. }) => StepState::Verifying {
            verification: Arc::clone(verification),
            attempt: None,
            next: Some(at),
            unknown: unknown.clone(),
        },
        (Then::Retry { at } | Then::Redo { at }, _) => StepState::Backoff { until: at },
        (Then::Verify, _) => match verification {
            Some(verification) => StepState::Verifying {
                verification: Arc::clone(verification),
                attempt: None,
                next: None,
                unknown: None,
            },
            None => StepState::Unknown { reason: error.clone() },
        },
        (Then::Ask, _) => StepState::Unknown { reason: error.clone() },
        (Then::Fail, _) => StepState::Failed { error: error.clone() },
        (Then::Tolerate, _) => StepState::Tolerated { error: error.clone() },
        (Then::Cancel, _) => StepState::Cancelled { reason: error.clone() },
    }
}

/// What the indexes hold of a state.
#[derive(Clone, Copy, PartialEq)]
struct Marks {
    timer: Option<Timestamp>,
    awaits: bool,
    question: Option<ApprovalId>,
}

impl Marks {
    fn of(step: &StepRun) -> Self {
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
