//! Incidents.

use std::sync::Arc;

use super::{Applied, Fold, IllegalTransition};
use crate::id::IncidentId;
use crate::incident::{Alert, Care, Incident};
use crate::record::{
    IncidentAcknowledged, IncidentEscalated, IncidentJoined, IncidentNoted, IncidentOpened, IncidentReopened,
    IncidentResolved, IncidentSettled, IncidentSettling, IncidentTaken, IncidentUpdateDue,
};
use crate::run::Run;
use crate::state::{Expiry, Timer};

impl Fold<'_> {
    pub(super) fn incident_opened(&mut self, body: &IncidentOpened) {
        let now = self.record.time;
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

    pub(super) fn incident_joined(&mut self, body: &IncidentJoined) -> Result<(), IllegalTransition> {
        let mut incident = self.take_incident(body.incident)?;
        let of = Arc::make_mut(&mut incident);
        of.severity = body.severity;
        self.attach(of, &body.alert);
        self.put_incident(incident);
        Ok(())
    }

    pub(super) fn incident_settling(&mut self, body: &IncidentSettling) -> Result<(), IllegalTransition> {
        let mut incident = self.take_incident(body.incident)?;
        Arc::make_mut(&mut incident).settles_at = Some(body.until);
        self.put_incident(incident);
        Ok(())
    }

    pub(super) fn incident_reopened(&mut self, body: &IncidentReopened) -> Result<(), IllegalTransition> {
        let mut incident = self.take_incident(body.incident)?;
        let of = Arc::make_mut(&mut incident);
        of.settles_at = None;
        of.resolved_at = None;
        if let Some(care) = &mut of.care {
            care.settled = false;
        }
        self.state.keys.insert(incident.key.clone(), incident.id);
        self.put_incident(incident);
        Ok(())
    }

    pub(super) fn incident_acknowledged(&mut self, body: &IncidentAcknowledged) -> Result<(), IllegalTransition> {
        let now = self.record.time;
        let mut incident = self.take_incident(body.incident)?;
        Arc::make_mut(&mut incident).acknowledged = Some((self.record.actor.clone(), now));
        self.put_incident(incident);
        Ok(())
    }

    pub(super) fn incident_resolved(&mut self, body: &IncidentResolved) -> Result<Applied, IllegalTransition> {
        let now = self.record.time;
        let mut incident = self.take_incident(body.incident)?;
        let of = Arc::make_mut(&mut incident);
        of.resolved_at = Some(now);
        of.settles_at = None;
        of.failed_runs = 0;
        let resolved = Arc::clone(&incident);
        self.put_incident(incident);
        Ok(Applied { resolved: Some(resolved), ..Applied::default() })
    }

    pub(super) fn incident_settled(&mut self, body: &IncidentSettled) -> Result<(), IllegalTransition> {
        self.incident(body.incident, |incident| incident.care_mut().settled = true)
    }

    pub(super) fn incident_escalated(&mut self, body: &IncidentEscalated) -> Result<(), IllegalTransition> {
        let now = self.record.time;
        self.incident(body.incident, |incident| {
            let waited = now.since(incident.opened_at);
            let care = incident.care_mut();
            if let Some(escalation) = &care.escalation {
                care.told = escalation.notify.iter().filter(|next| next.after <= waited).count();
                care.overdue |= escalation.acknowledge_within.is_some_and(|within| within <= waited);
            }
        })
    }

    pub(super) fn incident_update_due(&mut self, body: &IncidentUpdateDue) -> Result<(), IllegalTransition> {
        let now = self.record.time;
        self.incident(body.incident, |incident| incident.care_mut().updated_at = Some(now))
    }

    pub(super) fn incident_taken(&mut self, body: &IncidentTaken) -> Result<(), IllegalTransition> {
        self.incident(body.incident, |incident| incident.care_mut().owner = Some(body.owner.clone()))
    }

    pub(super) fn incident_noted(&mut self, body: &IncidentNoted) -> Result<(), IllegalTransition> {
        let now = self.record.time;
        let note = (self.record.actor.clone(), now, Arc::from(body.note.as_str()));
        self.incident(body.incident, |incident| {
            let notes = &mut incident.care_mut().notes;
            if notes.len() == Care::NOTES {
                notes.remove(0);
            }
            notes.push(note);
        })
    }

    /// The alerts, the runs and the key of one incident become another's.
    pub(super) fn incident_merged(&mut self, id: IncidentId, into: IncidentId) -> Result<(), IllegalTransition> {
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

    fn incident(&mut self, id: IncidentId, change: impl FnOnce(&mut Incident)) -> Result<(), IllegalTransition> {
        let mut incident = self.take_incident(id)?;
        change(Arc::make_mut(&mut incident));
        self.put_incident(incident);
        Ok(())
    }

    pub(super) fn take_incident(&mut self, id: IncidentId) -> Result<Arc<Incident>, IllegalTransition> {
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

    pub(super) fn put_incident(&mut self, incident: Arc<Incident>) {
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
