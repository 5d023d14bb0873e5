//! Steps without an attempt: waits, endings, answers, items.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stanch_playbook::{StepKey, Timestamp};

use crate::id::{ApprovalId, RunId};

/// A step waits for a time or for its alerts to settle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepWaiting {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepKey,
    /// The item, where the step is done for each of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// For what.
    #[serde(flatten)]
    pub wait: Waiting,
}

/// What a step waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", tag = "for")]
pub enum Waiting {
    /// A time.
    Time {
        /// When it is over.
        until: Timestamp,
    },
    /// The incident's alerts to have stayed resolved.
    Resolved {
        /// For how long, in milliseconds.
        #[serde(with = "stanch_playbook::time::whole_millis")]
        #[schemars(with = "u64")]
        settle: Duration,
        /// When they will have, if none fires again; none while one fires.
        settled_at: Option<Timestamp>,
        /// When the wait itself fails; none where it has no limit.
        expires_at: Option<Timestamp>,
    },
    /// An event.
    Event {
        /// When the wait itself fails.
        expires_at: Option<Timestamp>,
    },
    /// People's answer.
    Approval {
        /// The question.
        approval: ApprovalId,
        /// When it counts as not answered.
        expires_at: Option<Timestamp>,
    },
    /// The end of a run that it started.
    Run {
        /// Which.
        child: RunId,
        /// When it is cancelled.
        expires_at: Option<Timestamp>,
    },
    /// What another step did to be taken back.
    Undo {
        /// When the wait itself fails; the undo goes on.
        expires_at: Option<Timestamp>,
    },
}

/// A waiting step's condition came true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepWoken {
    /// The run.
    pub run: RunId,
    /// The step; it succeeded.
    pub step: StepKey,
    /// The item, where the step is done for each of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// The step's `outputs`, evaluated: an object.
    pub outputs: Arc<Value>,
}

/// How a step ended without an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// Its `if` was false.
    Skipped,
    /// Something it needs did not succeed, or its phase had failed.
    Blocked,
    /// Its run was cancelled before it started.
    Cancelled,
    /// Its `if`, its templates or its outputs could not be evaluated, or its wait expired.
    Failed,
    /// The same, and the playbook tolerates it.
    Tolerated,
}

impl Ending {
    /// The word of the records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::Blocked => "blocked",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Tolerated => "tolerated",
        }
    }
}

/// A step ended without an attempt: skipped, blocked, cancelled, or failed before it could start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepEnded {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepKey,
    /// The item, where the step is done for each of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// How.
    pub ending: Ending,
    /// Why, in one sentence.
    pub reason: Arc<str>,
}

/// What a person said of an unknown attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It happened; the step succeeded.
    Succeeded,
    /// It did not happen, or it went wrong; the step failed.
    Failed,
    /// Try again, under a new idempotency key.
    Retry,
}

impl Answer {
    /// The word of the records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Retry => "retry",
        }
    }
}

/// A person said what became of an unknown attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepAnswered {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepKey,
    /// The item, where the step is done for each of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// The answer.
    pub answer: Answer,
    /// Whether a failure is tolerated by the playbook.
    pub tolerated: bool,
    /// What the person added; may be empty.
    pub note: String,
}

/// A step begins on its items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ItemsStarted {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepKey,
    /// The items, in their order.
    pub items: Arc<[Value]>,
}

/// All items of a step are over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ItemsEnded {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepKey,
    /// How the step ended; none where all its items succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<ItemsFailure>,
}

/// Why a step whose items are over did not succeed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ItemsFailure {
    /// How the step ended.
    pub ending: Ending,
    /// Why.
    pub reason: Arc<str>,
}
