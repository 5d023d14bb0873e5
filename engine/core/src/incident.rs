//! What people respond to.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stanch_playbook::plan::Escalation;
use stanch_playbook::{Severity, Timestamp};

use crate::alert::AlertKey;
use crate::id::{IncidentId, RunId};
use crate::record::Actor;

/// What is remembered of an alert. Its labels stand in the journal, at `record`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Its identity.
    pub key: AlertKey,
    /// When the current episode began, by its sender.
    pub starts_at: Timestamp,
    /// When it was reported resolved, by our clock; none while it fires.
    pub resolved_at: Option<Timestamp>,
    /// When earlier episodes began, newest last; at most [`Alert::EPISODES`].
    pub earlier: Vec<Timestamp>,
    /// The incidents it belongs to.
    pub incidents: Vec<IncidentId>,
    /// The sequence of the last `AlertFired` of it.
    pub record: crate::id::Sequence,
}

impl Alert {
    /// How many earlier episodes are remembered, to tell a late delivery of one from something new.
    pub const EPISODES: usize = 8;
}

/// One incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Its id.
    pub id: IncidentId,
    /// Its key, as rendered.
    pub key: Arc<str>,
    /// Its severity: the highest of its playbooks and alerts.
    pub severity: Severity,
    /// A line for people.
    pub title: Arc<str>,
    /// When it opened.
    pub opened_at: Timestamp,
    /// Who took notice, and when.
    pub acknowledged: Option<(Actor, Timestamp)>,
    /// When it was resolved; none while it is open.
    pub resolved_at: Option<Timestamp>,
    /// Its alerts, and whether each fires.
    pub alerts: Vec<(AlertKey, bool)>,
    /// Since when none of its alerts fires.
    pub quiet_since: Option<Timestamp>,
    /// When it closes, if no alert fires again and no run of it is live.
    pub settles_at: Option<Timestamp>,
    /// Its runs that are not over.
    pub live_runs: Vec<RunId>,
    /// All its runs, oldest first.
    pub runs: Vec<RunId>,
    /// Its runs that failed and that nobody has dealt with.
    pub failed_runs: u32,
    /// What few incidents have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub care: Option<Box<Care>>,
}

/// How an incident is looked after, where its playbook or a person says so. Apart, since tens of thousands may be open.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Care {
    /// How long its alerts must stay resolved.
    #[serde(default, with = "stanch_playbook::time::optional_millis")]
    pub settle: Option<Duration>,
    /// Who is told, and when.
    #[serde(default)]
    pub escalation: Option<Escalation>,
    /// Its Slack channel.
    #[serde(default)]
    pub slack_channel: Option<String>,
    /// Who leads it.
    #[serde(default)]
    pub owner: Option<Actor>,
    /// What people wrote down: who, when, what; the last [`Care::NOTES`].
    #[serde(default)]
    pub notes: Vec<(Actor, Timestamp, Arc<str>)>,
    /// How many of those to be told have been.
    #[serde(default)]
    pub told: usize,
    /// Whether it was said that nobody took notice in time.
    #[serde(default)]
    pub overdue: bool,
    /// When those who follow it were last told how it stands.
    #[serde(default)]
    pub updated_at: Option<Timestamp>,
    /// Whether a run of it does something once its alerts are settled.
    #[serde(default)]
    pub reacts: bool,
    /// Whether that was done.
    #[serde(default)]
    pub settled: bool,
    /// The keys of the incidents that became part of it.
    #[serde(default)]
    pub aliases: Vec<Arc<str>>,
    /// The incident that it became part of.
    #[serde(default)]
    pub merged_into: Option<IncidentId>,
}

impl Care {
    /// How many notes an incident shows; all stand in the record.
    pub const NOTES: usize = 100;
}

impl Incident {
    /// `open`, `acknowledged` or `resolved`.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match (self.resolved_at, &self.acknowledged) {
            (Some(_), _) => "resolved",
            (None, Some(_)) => "acknowledged",
            (None, None) => "open",
        }
    }

    /// Whether it is not resolved.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.resolved_at.is_none()
    }

    /// When it should be looked at next: at the end of its settling, once nothing else holds it open or a run reacts to it,
    /// and when people are to be told.
    #[must_use]
    pub fn timer(&self) -> Option<Timestamp> {
        if !self.is_open() {
            return None;
        }
        let care = self.care.as_deref();
        let free = self.live_runs.is_empty() && self.failed_runs == 0;
        let reacts = !self.live_runs.is_empty() && care.is_some_and(|care| care.reacts && !care.settled);
        let settles = self.settles_at.filter(|_| free || reacts);
        let told = care.and_then(|care| self.next_told(care));
        settles.into_iter().chain(told).min()
    }

    /// When people are to be told next.
    fn next_told(&self, care: &Care) -> Option<Timestamp> {
        let escalation = care.escalation.as_ref()?;
        let waits = self.acknowledged.is_none();
        let next = escalation.notify.get(care.told).filter(|_| waits).map(|next| self.opened_at.plus(next.after));
        let overdue =
            escalation.acknowledge_within.filter(|_| waits && !care.overdue).map(|within| self.opened_at.plus(within));
        let update = escalation.update_every.map(|every| care.updated_at.unwrap_or(self.opened_at).plus(every));
        next.into_iter().chain(overdue).chain(update).min()
    }

    /// The keys under which it is found: its own, unless it became part of another, and those of what became part of it.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &Arc<str>> {
        let care = self.care.as_deref();
        let own = care.is_none_or(|care| care.merged_into.is_none()).then_some(&self.key);
        own.into_iter().chain(care.map(|care| &care.aliases[..]).unwrap_or_default())
    }

    pub(crate) fn care_mut(&mut self) -> &mut Care {
        self.care.get_or_insert_with(Box::default)
    }
}
