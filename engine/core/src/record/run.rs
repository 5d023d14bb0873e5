//! Executions of plans, from what starts them to their ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stanch_playbook::{PlanDigest, PlaybookName, StepKey, Timestamp};

use crate::alert::AlertSnapshot;
use crate::event::Event;
use crate::id::{IncidentId, RunId};

/// What started a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cause {
    /// The event: for an alert its change, in CloudEvents terms.
    pub event: Arc<Event>,
    /// The alerts that it is about; the first is `alert` in templates. Empty where no alert started it.
    pub alerts: Arc<[Arc<AlertSnapshot>]>,
}

/// A run came to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunStarted {
    /// Its id.
    pub run: RunId,
    /// The playbook's name.
    pub playbook: PlaybookName,
    /// The plan it is pinned to.
    pub plan: PlanDigest,
    /// The incident it belongs to.
    pub incident: IncidentId,
    /// What started it.
    pub cause: Cause,
    /// Its inputs, checked, defaults filled in: an object.
    pub inputs: Arc<Value>,
    /// Whether it must wait for others of its playbook (`concurrency`).
    pub queued: bool,
    /// The step that it is part of, where another run started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The plans that its sub-playbooks will use, pinned with its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub children: BTreeMap<PlaybookName, PlanDigest>,
    /// Why it does not begin at once, beside `concurrency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// Until when nothing with side effects starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_until: Option<Timestamp>,
}

/// Why a run does not begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum Held {
    /// More alerts of its key may come (`group_wait`).
    Group {
        /// Until when.
        until: Timestamp,
    },
    /// A maintenance window.
    Maintenance {
        /// Until when.
        until: Timestamp,
        /// The window's reason.
        reason: String,
    },
    /// An earlier run of its playbook in its incident (`on_repeat`).
    Behind {
        /// Which.
        run: RunId,
    },
}

impl Held {
    /// Until when, where a time ends it.
    #[must_use]
    pub const fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Group { until } | Self::Maintenance { until, .. } => Some(*until),
            Self::Behind { .. } => None,
        }
    }
}

/// The step that a run is part of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Parent {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepKey,
    /// The item of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
}

/// A queued run may go on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunReleased {
    /// Which.
    pub run: RunId,
}

/// Someone asked for a run to end early.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunCancelRequested {
    /// Which.
    pub run: RunId,
    /// Why, by whoever asked; may be empty.
    pub reason: String,
    /// Whether what it did is taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undo: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the design's own names")]
pub enum RunOutcome {
    Succeeded,
    Failed,
    Cancelled,
}

impl RunOutcome {
    /// The word of the records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A run is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunFinished {
    /// Which.
    pub run: RunId,
    /// How.
    pub outcome: RunOutcome,
}

/// More became part of a run that has not begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunExtended {
    /// Which.
    pub run: RunId,
    /// What starts it, all together.
    pub cause: Cause,
    /// Its inputs from these.
    pub inputs: Arc<Value>,
}

/// A run may do what has side effects from now on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunHoldEnded {
    /// Which.
    pub run: RunId,
}

/// The alerts of a run are resolved: what its first three phases have not begun is skipped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunRecovering {
    /// Which.
    pub run: RunId,
}

/// A playbook that only observes would have started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlaybookObserved {
    /// The playbook's name.
    pub playbook: PlaybookName,
    /// The plan.
    pub plan: PlanDigest,
    /// The key of the incident that it would have belonged to.
    pub key: Arc<str>,
    /// What would have started it.
    pub cause: Cause,
    /// With what inputs.
    pub inputs: Arc<Value>,
}
