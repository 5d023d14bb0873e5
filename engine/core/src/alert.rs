//! Alerts: identity, what came, and what is remembered of each.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stanch_playbook::Timestamp;

/// An alert's identity: the configured name of the Alertmanager cluster, and the fingerprint of its labels.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AlertKey {
    /// The cluster's name, the last part of the webhook's path.
    pub source: Arc<str>,
    /// As the sender gave it.
    pub fingerprint: Arc<str>,
}

impl fmt::Display for AlertKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.fingerprint)
    }
}

/// An alert as one delivery showed it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AlertSnapshot {
    /// Its identity.
    #[serde(flatten)]
    pub key: AlertKey,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// When the stretch of firing began, by its sender.
    pub starts_at: Timestamp,
    /// Where to look at it; may be empty.
    pub generator_url: String,
}

/// One alert of one delivery, as intake hands it on.
#[derive(Clone, PartialEq, Debug)]
pub struct AlertChange {
    /// What came.
    pub alert: Arc<AlertSnapshot>,
    /// `alerts[].status`; the group's status is never read.
    pub status: AlertStatus,
}

/// What a delivery says of an alert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AlertStatus {
    /// It fires.
    Firing,
    /// It ended.
    Resolved {
        /// When, by its sender; none where the sender did not say.
        ends_at: Option<Timestamp>,
    },
}
