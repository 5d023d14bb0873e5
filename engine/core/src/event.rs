//! What comes in, in CloudEvents 1.0 terms.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stanch_playbook::{PlaybookName, Timestamp};

/// An event: an alert's change, a NATS message, a schedule's tick, a person's request.
///
/// (`source`, `id`) is its identity, remembered for 24 hours.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Unique within the source.
    pub id: Arc<str>,
    /// Who sent it.
    pub source: Arc<str>,
    /// What kind of thing happened, such as `stanch.alert.firing` or `stanch.schedule.tick`.
    #[serde(rename = "type")]
    pub kind: Arc<str>,
    /// When it happened, by its sender.
    pub time: Timestamp,
    /// What it is about: for a NATS message its subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Arc<str>>,
    /// Its content.
    #[serde(default)]
    pub data: Value,
}

/// The type of a schedule's tick.
pub const TICK: &str = "stanch.schedule.tick";

impl Event {
    /// The tick of one schedule: its nominal instant is its identity.
    #[must_use]
    pub fn of_tick(playbook: &PlaybookName, trigger: usize, nominal: Timestamp) -> Self {
        Self {
            id: format!("{playbook}/{trigger}/{nominal}").into(),
            source: "schedule".into(),
            kind: TICK.into(),
            time: nominal,
            subject: Some(playbook.as_str().into()),
            data: serde_json::json!({"trigger": trigger}),
        }
    }

    /// The playbook, the trigger and the nominal instant of a schedule's tick.
    #[must_use]
    pub fn tick(&self) -> Option<(PlaybookName, usize, Timestamp)> {
        if &*self.kind != TICK || &*self.source != "schedule" {
            return None;
        }
        let trigger = usize::try_from(self.data.get("trigger")?.as_u64()?).ok()?;
        Some((PlaybookName::new(&**self.subject.as_ref()?), trigger, self.time))
    }
}
