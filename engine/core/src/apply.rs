//! The fold: one record changes the state, or is refused as illegal. Evaluates nothing.

mod approval;
mod attempt;
mod containment;
mod engine;
mod incident;
mod intake;
mod run;
mod step;

use std::sync::Arc;

use stanch_playbook::StepKey;

use crate::event::Event;
use crate::id::{ContainmentId, IncidentId, RunId, Sequence};
use crate::incident::Incident;
use crate::record::{Body, Record};
use crate::run::Run;
use crate::state::{Expiry, State};

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
        match &self.record.body {
            Body::EngineStarted(body) => self.engine_started(body),
            Body::EngineStopped(_) | Body::DeadLettered(_) | Body::DeadLetterReplayed(_) | Body::Redacted(_) => {}
            Body::AttemptLate(body) => self.note(body.attempt.run),
            Body::PlaybookLoaded(body) => self.playbook_loaded(body)?,
            Body::PlaybookRemoved(body) => self.playbook_removed(body),
            Body::AlertFired(body) => {
                self.alert_fired(body.firing, &body.alert.key, body.alert.starts_at);
            }
            Body::AlertResolved(body) => self.alert_resolved(&body.alert),
            Body::EventReceived(body) => self.event_received(&body.event),
            Body::IncidentOpened(body) => self.incident_opened(body),
            Body::IncidentJoined(body) => self.incident_joined(body)?,
            Body::IncidentSettling(body) => self.incident_settling(body)?,
            Body::IncidentReopened(body) => self.incident_reopened(body)?,
            Body::IncidentAcknowledged(body) => self.incident_acknowledged(body)?,
            Body::IncidentResolved(body) => return self.incident_resolved(body),
            Body::RunStarted(body) => self.run_started(body)?,
            Body::RunReleased(body) => self.run_released(body)?,
            Body::RunCancelRequested(body) => self.run_cancel_requested(body)?,
            Body::RunFinished(body) => return self.run_finished(body.run, body.outcome),
            Body::RunExtended(body) => self.run_extended(body)?,
            Body::RunHoldEnded(body) => self.run_hold_ended(body)?,
            Body::RunRecovering(body) => self.run_recovering(body)?,
            Body::IncidentSettled(body) => self.incident_settled(body)?,
            Body::IncidentEscalated(body) => self.incident_escalated(body)?,
            Body::IncidentUpdateDue(body) => self.incident_update_due(body)?,
            Body::IncidentTaken(body) => self.incident_taken(body)?,
            Body::IncidentNoted(body) => self.incident_noted(body)?,
            Body::IncidentMerged(body) => self.incident_merged(body.incident, body.into)?,
            Body::PlaybookObserved(_) => {}
            Body::Frozen(body) => self.frozen(body),
            Body::Unfrozen(_) => self.state.frozen = None,
            Body::MaintenancePlanned(body) => self.maintenance_planned(body),
            Body::MaintenanceEnded(body) => self.maintenance_ended(body),
            Body::WatchdogBarked(body) => self.unwatch(&body.playbook, &body.watchdog),
            Body::ClockJumped(body) => self.clock_jumped(body),
            Body::ClockAgreed(_) => self.clock_agreed(),
            Body::AttemptScheduled(body) => self.attempt_scheduled(body)?,
            Body::AttemptSucceeded(body) => self.attempt_succeeded(body)?,
            Body::AttemptFailed(body) => self.attempt_failed(body)?,
            Body::AttemptUnknown(body) => self.attempt_unknown(body)?,
            Body::StepWaiting(body) => self.step_waiting(body)?,
            Body::StepWoken(body) => self.step_woken(body)?,
            Body::StepEnded(body) => self.step_ended(body)?,
            Body::StepAnswered(body) => self.step_answered(body)?,
            Body::ItemsStarted(body) => self.items_started(body)?,
            Body::ItemsEnded(body) => self.items_ended(body)?,
            Body::ApprovalRequested(body) => self.approval_requested(body)?,
            Body::ApprovalEscalated(body) => self.approval_escalated(body)?,
            Body::ApprovalDecided(body) => self.approval_decided(body)?,
            Body::ContainmentStarted(body) => self.containment_started(body)?,
            Body::ContainmentExtended(body) => self.containment_extended(body)?,
            Body::UndoRequested(body) => self.undo_requested(body)?,
            Body::ContainmentEnded(body) => self.containment_over(body.containment)?,
        }
        Ok(Applied::default())
    }
}

/// Pushes without room to spare for the first one: most of these lists have a single element, and an open incident may
/// stay in memory for weeks.
fn push_tight<T>(list: &mut Vec<T>, item: T) {
    if list.is_empty() {
        list.reserve_exact(1);
    }
    list.push(item);
}
