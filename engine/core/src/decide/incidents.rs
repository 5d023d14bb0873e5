//! Settling, reopening and resolving; and the steps that wait for it.

use stanch_playbook::Timestamp;

use super::Draft;
use crate::alert::AlertKey;
use crate::command::Rejected;
use crate::id::{IncidentId, RunId};
use crate::record::{IncidentAcknowledged, IncidentReopened, IncidentResolved, IncidentSettling, StepWaiting, Waiting};
use crate::run::StepState;

impl Draft {
    /// Lets an open incident settle once none of its alerts fires.
    pub(super) fn settle_if_quiet(&mut self, id: IncidentId) {
        let Some(incident) = self.state.incidents.get(&id) else { return };
        if incident.is_open()
            && incident.settles_at.is_none()
            && let Some(quiet) = incident.quiet_since
        {
            let until = quiet.plus(self.state.settings.settle);
            self.as_engine(|draft| draft.emit(IncidentSettling { incident: id, until }));
        }
    }

    /// Takes back a resolution or a settling that a firing alert proved wrong.
    pub(super) fn reopen_if_closing(&mut self, id: IncidentId) {
        let Some(incident) = self.state.incidents.get(&id) else { return };
        if !incident.is_open() || incident.settles_at.is_some() {
            self.as_engine(|draft| draft.emit(IncidentReopened { incident: id }));
        }
    }

    /// Resolves an incident that nothing holds open any more.
    pub(super) fn resolve_if_over(&mut self, id: IncidentId) {
        let Some(incident) = self.state.incidents.get(&id) else { return };
        if !incident.is_open() || !incident.live_runs.is_empty() || incident.failed_runs > 0 {
            return;
        }
        let reason = if incident.alerts.is_empty() {
            // Without alerts a success is what there is to go by.
            if incident.runs.is_empty() {
                return;
            }
            "its run succeeded"
        } else if incident.settles_at.is_some_and(|at| at <= self.now) {
            "all its alerts stayed resolved"
        } else {
            return;
        };
        let reason = reason.to_owned();
        self.as_engine(|draft| draft.emit(IncidentResolved { incident: id, reason }));
    }

    /// Tells the steps that wait for an alert's incidents when these will have settled.
    pub(super) fn refresh_waits_of(&mut self, key: &AlertKey) {
        let Some(alert) = self.state.alerts.get(key) else { return };
        let incidents = alert.incidents.clone();
        for incident in incidents {
            let Some(incident) = self.state.incidents.get(&incident) else { continue };
            let quiet = incident.quiet_since;
            for run in incident.live_runs.clone() {
                self.refresh_waits(run, quiet);
            }
        }
    }

    fn refresh_waits(&mut self, id: RunId, quiet: Option<Timestamp>) {
        let Some(run) = self.state.runs.get(&id) else { return };
        let plan = self.plan_of(run);
        let mut changed = Vec::new();
        for (place, step) in run.started() {
            if let StepState::Waiting { wait: Waiting::Resolved { settle, settled_at, expires_at } } = step.state {
                let next = quiet.map(|at| at.plus(settle));
                if next != settled_at {
                    let wait = Waiting::Resolved { settle, settled_at: next, expires_at };
                    let step = plan.steps[place.step].key.clone();
                    changed.push(StepWaiting { run: id, step, item: place.item, wait });
                }
            }
        }
        for waiting in changed {
            self.as_engine(|draft| draft.emit(waiting));
        }
    }

    pub(super) fn acknowledge(&mut self, id: IncidentId) -> Result<(), Rejected> {
        let incident = self.open(id)?;
        if incident.acknowledged.is_none() {
            self.emit(IncidentAcknowledged { incident: id });
        }
        Ok(())
    }

    pub(super) fn resolve_by_hand(&mut self, id: IncidentId, reason: &str) -> Result<(), Rejected> {
        let incident = self.open(id)?;
        if !incident.live_runs.is_empty() {
            return Err(Rejected::IncidentBusy(id));
        }
        let reason = if reason.is_empty() { "resolved by hand" } else { reason }.to_owned();
        self.emit(IncidentResolved { incident: id, reason });
        Ok(())
    }

    fn open(&self, id: IncidentId) -> Result<&crate::incident::Incident, Rejected> {
        let incident = self.state.incidents.get(&id).filter(|incident| incident.is_open());
        incident.map(|incident| &**incident).ok_or(Rejected::UnknownIncident(id))
    }
}
