//! What people respond to.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
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

    /// When it should be looked at next: at the end of its settling, once nothing else holds it open.
    #[must_use]
    pub fn timer(&self) -> Option<Timestamp> {
        (self.is_open() && self.live_runs.is_empty() && self.failed_runs == 0).then_some(self.settles_at).flatten()
    }
}
