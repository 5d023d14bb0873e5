//! What people respond to.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stanch_playbook::plan::Escalation;
use stanch_playbook::{Severity, Timestamp};

use super::Actor;
use crate::alert::AlertKey;
use crate::id::IncidentId;

/// Something to respond to came up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentOpened {
    /// Its id.
    pub incident: IncidentId,
    /// Its key, as rendered.
    pub key: Arc<str>,
    /// Its severity.
    pub severity: Severity,
    /// A line for people.
    pub title: Arc<str>,
    /// The alert that opened it; none where an event, a schedule or a person did.
    pub alert: Option<AlertKey>,
    /// How long its alerts must stay resolved, in milliseconds; the configured time by default.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        rename = "settle_ms",
        with = "stanch_playbook::time::optional_millis"
    )]
    #[schemars(with = "Option<u64>")]
    pub settle: Option<Duration>,
    /// Who is told, and when; the first opener's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Value>")]
    pub escalation: Option<Escalation>,
    /// Its Slack channel; the first opener's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack_channel: Option<String>,
}

/// An alert became part of an open incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentJoined {
    /// Which.
    pub incident: IncidentId,
    /// The alert that joined.
    pub alert: AlertKey,
    /// The incident's severity from here on; the highest wins.
    pub severity: Severity,
}

/// All alerts of an incident are resolved; it closes at the given time unless one fires again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentSettling {
    /// Which.
    pub incident: IncidentId,
    /// When it closes.
    pub until: Timestamp,
}

/// An incident that was resolved or settling is open again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentReopened {
    /// Which.
    pub incident: IncidentId,
}

/// A person took notice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentAcknowledged {
    /// Which.
    pub incident: IncidentId,
}

/// An incident is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentResolved {
    /// Which.
    pub incident: IncidentId,
    /// Why, in one sentence.
    pub reason: String,
}

/// All alerts of an incident have stayed resolved, and runs are under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentSettled {
    /// Which.
    pub incident: IncidentId,
}

/// Nobody took notice of an incident in time: people are told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentEscalated {
    /// Which.
    pub incident: IncidentId,
    /// People, or groups as `group:name`; empty where the channel alone is told.
    pub people: Vec<String>,
    /// Why, in one sentence.
    pub reason: String,
}

/// Those who follow an incident are to be told how it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentUpdateDue {
    /// Which.
    pub incident: IncidentId,
}

/// A person took an incident on, or gave it to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentTaken {
    /// Which.
    pub incident: IncidentId,
    /// Who leads it from now on.
    pub owner: Actor,
}

/// A person wrote something down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentNoted {
    /// Which.
    pub incident: IncidentId,
    /// What was written down.
    pub note: String,
}

/// An incident became part of another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentMerged {
    /// Which is no incident of its own any more.
    pub incident: IncidentId,
    /// Which it is part of.
    pub into: IncidentId,
}
