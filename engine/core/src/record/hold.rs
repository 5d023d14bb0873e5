//! What holds runs back or calls people, beside incidents: freezes, maintenance, watchdogs, clocks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stanch_playbook::{PlaybookName, Timestamp};

use crate::id::MaintenanceId;

/// No step with side effects starts from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Frozen {
    /// Why.
    pub reason: String,
}

/// Steps with side effects start again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Unfrozen {
    /// Why; may be empty.
    pub reason: String,
}

/// Runs for some alerts are held back for a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MaintenancePlanned {
    /// Its id.
    pub maintenance: MaintenanceId,
    /// What distinguishes it, where a file declares it: the same declaration makes no second window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared: Option<String>,
    /// Alertmanager's matchers, all of which an alert's labels must satisfy.
    pub matchers: Vec<String>,
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// Why.
    pub reason: String,
}

/// A maintenance window is over before its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MaintenanceEnded {
    /// Which.
    pub maintenance: MaintenanceId,
}

/// A schedule's run has not succeeded in time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WatchdogBarked {
    /// The playbook.
    pub playbook: PlaybookName,
    /// The watchdog's name.
    pub watchdog: String,
    /// The nominal instant whose run has not succeeded.
    pub nominal: Timestamp,
}

/// The wall clock is not where it was; the engine's goes on by itself for a while.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClockJumped {
    /// How far the wall clock is ahead of the engine's, in milliseconds; negative where it is behind. Within a minute it is
    /// right again.
    pub by_ms: i64,
}

/// The engine's clock follows the wall clock again. Who agreed, stands in the record's actor: the engine itself, where nobody did in time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClockAgreed {
    /// How far the wall clock was ahead, in milliseconds, when it was found.
    pub by_ms: i64,
}
