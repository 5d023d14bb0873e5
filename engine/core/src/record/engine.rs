//! Engines, their settings, and the playbooks that they use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stanch_playbook::plan::{Escalation, NotifyAfter};
use stanch_playbook::{PlanDigest, PlaybookName, Severity};

use crate::id::{Epoch, JournalId};

/// An engine took the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EngineStarted {
    /// The journal's identity; the same in every such record of one journal.
    pub journal: JournalId,
    /// This engine's epoch, one above the last.
    pub epoch: Epoch,
    /// The version of stanch.
    pub version: String,
    /// The settings that decisions depend on from here on.
    pub settings: Settings,
}

/// The settings of `stanch.yaml` that the core decides by. They stand in the record, so that a fold needs no file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Settings {
    /// Where people reach this engine, without a final slash; `run.url` and `incident.url` begin with it.
    pub external_url: Arc<str>,
    /// How long all alerts of an incident must have stayed resolved before it closes, in milliseconds.
    #[serde(with = "stanch_playbook::time::whole_millis")]
    #[schemars(with = "u64")]
    pub settle: Duration,
    /// How much may be done in what time, by the budget's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub budgets: BTreeMap<String, Budget>,
    /// Who is told of an incident that no playbook says it of, and when, by severity.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, Value>")]
    pub escalation: BTreeMap<Severity, Escalation>,
    /// Within what time after its resolution the same episode reopens an incident, in milliseconds.
    #[serde(with = "stanch_playbook::time::whole_millis")]
    #[schemars(with = "u64")]
    pub reopen_within: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            external_url: "http://127.0.0.1:9190".into(),
            settle: Duration::from_secs(30),
            budgets: BTreeMap::new(),
            escalation: BTreeMap::new(),
            reopen_within: Duration::from_secs(15 * 60),
        }
    }
}

impl Settings {
    /// Who is told of incidents, and when, where neither a playbook nor `stanch.yaml` says so: of P0 at once and again after
    /// 5 minutes, and every 15 minutes how it stands; of P1 after 15 minutes and after 30 without an acknowledgement, and
    /// every 30 minutes.
    #[must_use]
    pub fn usual_escalation() -> BTreeMap<Severity, Escalation> {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let notify = |after: &[u64]| {
            after.iter().map(|after| NotifyAfter { after: minutes(*after), people: Vec::new() }).collect()
        };
        BTreeMap::from([
            (
                Severity::P0,
                Escalation { acknowledge_within: None, update_every: Some(minutes(15)), notify: notify(&[0, 5]) },
            ),
            (
                Severity::P1,
                Escalation {
                    acknowledge_within: Some(minutes(15)),
                    update_every: Some(minutes(30)),
                    notify: notify(&[30]),
                },
            ),
        ])
    }
}

/// How much may be done in what time, over all playbooks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Budget {
    /// How many targets.
    pub most: u32,
    /// In what time, in milliseconds.
    #[serde(rename = "per_ms", with = "stanch_playbook::time::whole_millis")]
    #[schemars(with = "u64")]
    pub per: Duration,
    /// Who may approve more; empty: everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
}

/// An engine ended in good order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EngineStopped {
    /// Why it ended, such as `SIGTERM`.
    pub reason: String,
}

/// A playbook's plan became the one that new runs use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlaybookLoaded {
    /// Its name.
    pub playbook: PlaybookName,
    /// The plan's digest.
    pub plan: PlanDigest,
    /// The plan's canonical form, as text.
    pub canonical: Arc<str>,
}

/// A playbook is no longer there for new runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlaybookRemoved {
    /// Its name.
    pub playbook: PlaybookName,
}
