//! Settling, reopening and resolving; and the steps that wait for it.

use std::time::Duration;

use stanch_playbook::plan::{NotifyAfter, OnResolved};
use stanch_playbook::time::shown_duration;
use stanch_playbook::{PlaybookName, Timestamp};

use super::Draft;
use crate::alert::AlertKey;
use crate::command::Rejected;
use crate::id::{IncidentId, RunId};
use crate::record::{
    Actor, IncidentAcknowledged, IncidentEscalated, IncidentMerged, IncidentNoted, IncidentReopened, IncidentResolved,
    IncidentSettled, IncidentSettling, IncidentTaken, IncidentUpdateDue, RunRecovering, StepWaiting, Waiting,
    WatchdogBarked,
};
use crate::run::StepState;

impl Draft {
    /// Lets an open incident settle once none of its alerts fires.
    pub(super) fn settle_if_quiet(&mut self, id: IncidentId) {
        let Some(incident) = self.state.incidents.get(&id) else { return };
        if incident.is_open()
            && incident.settles_at.is_none()
            && let Some(quiet) = incident.quiet_since
        {
            let own = incident.care.as_deref().and_then(|care| care.settle);
            let until = quiet.plus(own.unwrap_or(self.state.settings.settle));
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

    pub(super) fn fire_incident(&mut self, id: IncidentId) {
        self.tell(id);
        self.react_if_settled(id);
        self.resolve_if_over(id);
    }

    /// Tells people what is due by now.
    fn tell(&mut self, id: IncidentId) {
        let Some(incident) = self.state.incidents.get(&id).filter(|incident| incident.is_open()) else { return };
        let Some(care) = incident.care.as_deref() else { return };
        let Some(escalation) = care.escalation.clone() else { return };
        let waited = self.now.since(incident.opened_at);
        let due = |after: Duration| after <= waited;
        if incident.acknowledged.is_none() {
            let people: Vec<String> = escalation.notify[care.told.min(escalation.notify.len())..]
                .iter()
                .filter(|next| due(next.after))
                .flat_map(|next| next.people.clone())
                .collect();
            let late = escalation.notify.get(care.told).filter(|next| due(next.after));
            let overdue = escalation.acknowledge_within.filter(|within| !care.overdue && due(*within));
            if late.is_some() || overdue.is_some() {
                let reason = format!("nobody acknowledged it within {}", shown_duration(waited));
                let reason = if waited.is_zero() { "it was opened".to_owned() } else { reason };
                self.as_engine(|draft| draft.emit(IncidentEscalated { incident: id, people, reason }));
            }
        }
        let Some(incident) = self.state.incidents.get(&id) else { return };
        let updated = incident.care.as_deref().and_then(|care| care.updated_at).unwrap_or(incident.opened_at);
        if escalation.update_every.is_some_and(|every| updated.plus(every) <= self.now) {
            self.as_engine(|draft| draft.emit(IncidentUpdateDue { incident: id }));
        }
    }

    /// Once all alerts have stayed resolved: cancels the live runs that want it, or sends them on to recover.
    fn react_if_settled(&mut self, id: IncidentId) {
        let Some(incident) = self.state.incidents.get(&id) else { return };
        let due = incident.settles_at.is_some_and(|at| at <= self.now);
        let reacts = incident.care.as_deref().is_some_and(|care| care.reacts && !care.settled);
        if !incident.is_open() || !due || !reacts || incident.live_runs.is_empty() {
            return;
        }
        let runs = incident.live_runs.clone();
        self.as_engine(|draft| {
            draft.emit(IncidentSettled { incident: id });
            for run in runs {
                let Some(live) = draft.state.runs.get(&run) else { continue };
                let reaction = draft.plan_of(live).incident.on_resolved;
                match reaction {
                    OnResolved::Continue => {}
                    OnResolved::Cancel => draft.cancel(run, "its alerts are resolved".to_owned(), false),
                    OnResolved::Recover if live.cancel.is_none() && !live.recovering => {
                        draft.emit(RunRecovering { run });
                        draft.advance(run);
                    }
                    OnResolved::Recover => {}
                }
            }
        });
    }

    pub(super) fn bark(&mut self, playbook: PlaybookName, watchdog: String) {
        let watched = self.state.watched.get(&(playbook.clone(), watchdog.clone()));
        if let Some((nominal, _)) = watched.copied() {
            self.emit(WatchdogBarked { playbook, watchdog, nominal });
        }
    }

    pub(super) fn take(&mut self, id: IncidentId, owner: Actor) -> Result<(), Rejected> {
        let incident = self.open(id)?;
        if incident.acknowledged.is_none() {
            self.emit(IncidentAcknowledged { incident: id });
        }
        self.emit(IncidentTaken { incident: id, owner });
        Ok(())
    }

    pub(super) fn note_down(&mut self, id: IncidentId, note: String) -> Result<(), Rejected> {
        if !self.state.incidents.contains_key(&id) {
            return Err(Rejected::UnknownIncident(id));
        }
        self.emit(IncidentNoted { incident: id, note });
        Ok(())
    }

    pub(super) fn merge(&mut self, id: IncidentId, into: IncidentId) -> Result<(), Rejected> {
        self.open(id)?;
        self.open(into)?;
        if id == into {
            return Err(Rejected::UnknownIncident(into));
        }
        self.emit(IncidentMerged { incident: id, into });
        self.settle_if_quiet(into);
        Ok(())
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

/// Those to be told in the order of their times, in which they are counted.
pub(super) fn earliest_first(notify: &[NotifyAfter]) -> Vec<NotifyAfter> {
    let mut sorted = notify.to_vec();
    sorted.sort_by_key(|next| next.after);
    sorted
}
