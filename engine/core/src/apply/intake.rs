//! Alerts and events.

use std::sync::Arc;

use stanch_playbook::Timestamp;

use super::{Fold, push_tight};
use crate::alert::AlertKey;
use crate::event::Event;
use crate::id::IncidentId;
use crate::incident::{Alert, Incident};
use crate::record::Firing;
use crate::state::{EVENT_MEMORY, Expiry, State, Timer};

impl Fold<'_> {
    pub(super) fn alert_fired(&mut self, firing: Firing, key: &AlertKey, starts_at: Timestamp) {
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

    pub(super) fn alert_resolved(&mut self, key: &AlertKey) {
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

    pub(super) fn attach(&mut self, incident: &mut Incident, key: &AlertKey) {
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

    pub(super) fn event_received(&mut self, event: &Event) {
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
}
