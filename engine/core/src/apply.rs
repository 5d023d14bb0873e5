//! The fold: one record changes the state, or is refused as illegal. Evaluates nothing.

use std::sync::Arc;

use serde_json::Value;
use stanch_playbook::{Plan, StepKey, Timestamp};

use crate::alert::AlertKey;
use crate::attempt::AttemptId;
use crate::event::Event;
use crate::id::{IncidentId, RunId, Sequence};
use crate::incident::{Alert, Incident};
use crate::record::{Actor, Answer, Body, Ending, Firing, Record, RunOutcome, RunStarted, Then};
use crate::run::{AttemptOutcome, AttemptRun, Rendered, Run, StepRun, StepState};
use crate::state::{EVENT_MEMORY, Expiry, PinnedPlan, State, Timer};

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
                    if let Some(incident) = self.incidents.remove(id)
                        && self.keys.get(&incident.key) == Some(id)
                    {
                        self.keys.remove(&incident.key);
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
                };
                if let Some(key) = &body.alert {
                    self.attach(&mut incident, key);
                }
                self.state.keys.insert(body.key.clone(), body.incident);
                self.state.incidents.insert(body.incident, Arc::new(incident));
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
                Arc::make_mut(&mut run).queued = false;
                self.state.queued.remove(&(run.playbook.clone(), run.id));
                *self.state.running.entry(run.playbook.clone()).or_insert(0) += 1;
                self.put_run(run);
            }
            Body::RunCancelRequested(body) => {
                let mut run = self.take_run(body.run)?;
                Arc::make_mut(&mut run).cancel = Some((self.record.actor.clone(), body.reason.as_str().into()));
                self.put_run(run);
            }
            Body::RunFinished(body) => return self.run_finished(body.run, body.outcome),
            Body::AttemptScheduled(body) => self.step(body.attempt.run, &body.attempt.step, |step| {
                match step.state {
                    StepState::Pending | StepState::Backoff { .. } => {}
                    _ => return false,
                }
                step.rendered =
                    Some(Rendered { with: body.with.clone(), env: body.env.clone(), timeout: body.timeout });
                step.started_at.get_or_insert(now);
                step.attempts.push(AttemptRun {
                    generation: body.attempt.generation,
                    number: body.attempt.number,
                    epoch: body.attempt.epoch,
                    scheduled_at: now,
                    finished_at: None,
                    outcome: AttemptOutcome::Running,
                    error: None,
                });
                step.state = StepState::Running { attempt: body.attempt.clone() };
                true
            })?,
            Body::AttemptSucceeded(body) => self.attempt(&body.attempt, AttemptOutcome::Succeeded, None, |step| {
                step.output = Some(body.output.clone());
                step.outputs = body.outputs.clone();
                step.state = match &body.failure {
                    None => StepState::Succeeded,
                    Some(failure) if failure.tolerated => StepState::Tolerated { error: failure.error.clone() },
                    Some(failure) => StepState::Failed { error: failure.error.clone() },
                };
            })?,
            Body::AttemptFailed(body) => {
                self.attempt(&body.attempt, AttemptOutcome::Failed, Some(&body.error), |step| {
                    step.output = body.output.clone();
                    step.state = after(body.then, &body.error);
                })?;
            }
            Body::AttemptUnknown(body) => {
                self.attempt(&body.attempt, AttemptOutcome::Unknown, Some(&body.reason), |step| {
                    step.state = after(body.then, &body.reason);
                })?;
            }
            Body::StepWaiting(body) => self.step(body.run, &body.step, |step| {
                let legal = matches!(step.state, StepState::Pending | StepState::Waiting { .. });
                step.started_at.get_or_insert(now);
                step.state = StepState::Waiting { wait: body.wait };
                legal
            })?,
            Body::StepWoken(body) => self.step(body.run, &body.step, |step| {
                let legal = matches!(step.state, StepState::Waiting { .. });
                step.outputs = body.outputs.clone();
                finish(step, StepState::Succeeded, now);
                legal
            })?,
            Body::StepEnded(body) => self.step(body.run, &body.step, |step| {
                let legal = !step.state.is_over() && !matches!(step.state, StepState::Running { .. });
                let reason = body.reason.clone();
                let state = match body.ending {
                    Ending::Skipped => StepState::Skipped,
                    Ending::Blocked => StepState::Blocked { reason },
                    Ending::Cancelled => StepState::Cancelled { reason },
                    Ending::Failed => StepState::Failed { error: reason },
                    Ending::Tolerated => StepState::Tolerated { error: reason },
                };
                finish(step, state, now);
                legal
            })?,
            Body::StepAnswered(body) => self.step(body.run, &body.step, |step| {
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
        }
        Ok(Applied::default())
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
            self.state.ticks.insert((playbook, trigger), nominal);
        }
    }

    fn run_started(&mut self, body: &RunStarted) -> Result<(), IllegalTransition> {
        let steps = self
            .state
            .plan(body.plan)
            .map(|plan| plan.steps.len())
            .ok_or_else(|| IllegalTransition::Plan { kind: self.kind(), reason: format!("no plan {}", body.plan) })?;
        let run = Run {
            id: body.run,
            playbook: body.playbook.clone(),
            plan: body.plan,
            incident: body.incident,
            cause: body.cause.clone(),
            inputs: body.inputs.clone(),
            queued: body.queued,
            cancel: None,
            outcome: None,
            started_at: self.record.time,
            finished_at: None,
            steps: std::iter::repeat_n(Arc::new(StepRun::pending()), steps).collect(),
            records: vec![self.record.sequence],
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
            self.put_incident(incident);
        }
        self.state.runs.insert(body.run, Arc::new(run));
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
        for (index, step) in run.steps.iter().enumerate() {
            if let Some(at) = step.state.timer() {
                self.state.timers.remove(&(at, Timer::Step(id, index)));
            }
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
            if outcome == RunOutcome::Failed && of.is_open() {
                of.failed_runs += 1;
            }
            self.put_incident(incident);
        }
        self.release_plan(run.plan);
        Ok(Applied { finished: Some(run), ..Applied::default() })
    }

    /// Forgets a plan that no playbook and no live run uses.
    fn release_plan(&mut self, digest: stanch_playbook::PlanDigest) {
        let current = |state: &State| state.playbooks.values().any(|used| *used == digest);
        if !current(self.state) && !self.state.runs.values().any(|run| run.plan == digest) {
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
        self.step(attempt.run, &attempt.step, |step| {
            if !matches!(&step.state, StepState::Running { attempt: running } if running == attempt) {
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

    /// Changes one step; `change` says whether the state it found was a legal one.
    fn step(
        &mut self,
        id: RunId,
        key: &StepKey,
        change: impl FnOnce(&mut StepRun) -> bool,
    ) -> Result<(), IllegalTransition> {
        let mut run = self.take_run(id)?;
        let index = self
            .state
            .plan(run.plan)
            .and_then(|plan| plan.step_index(key))
            .ok_or_else(|| IllegalTransition::NoStep { kind: self.kind(), run: id, step: key.clone() })?;
        let step = Arc::make_mut(&mut Arc::make_mut(&mut run).steps[index]);
        let before = step.state.as_str();
        let timer = step.state.timer();
        if !change(step) {
            return Err(IllegalTransition::Step { kind: self.kind(), run: id, step: key.clone(), state: before });
        }
        let next = step.state.timer();
        if timer != next {
            if let Some(at) = timer {
                self.state.timers.remove(&(at, Timer::Step(id, index)));
            }
            if let Some(at) = next {
                self.state.timers.insert((at, Timer::Step(id, index)));
            }
        }
        self.put_run(run);
        Ok(())
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
        Arc::make_mut(&mut run).records.push(self.record.sequence);
        Ok(run)
    }

    fn put_run(&mut self, run: Arc<Run>) {
        self.state.runs.insert(run.id, run);
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

fn after(then: Then, error: &Arc<str>) -> StepState {
    match then {
        Then::Retry { at } => StepState::Backoff { until: at },
        Then::Ask => StepState::Unknown { reason: error.clone() },
        Then::Fail => StepState::Failed { error: error.clone() },
        Then::Tolerate => StepState::Tolerated { error: error.clone() },
        Then::Cancel => StepState::Cancelled { reason: error.clone() },
    }
}
