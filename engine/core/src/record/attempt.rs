//! Tries of a step's action, and what follows on each.

use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stanch_playbook::{ActionName, Timestamp};

use crate::attempt::{AttemptId, IdempotencyKey};

/// An attempt is claimed: from here on it may have happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptScheduled {
    /// Which attempt.
    pub attempt: AttemptId,
    /// The action.
    pub action: ActionName,
    /// Rendered parameters.
    pub with: Arc<Value>,
    /// Rendered environment; an empty object for most.
    pub env: Arc<Value>,
    /// Its idempotency key.
    pub idempotency_key: IdempotencyKey,
    /// Its time limit, in milliseconds.
    #[serde(with = "stanch_playbook::time::whole_millis")]
    #[schemars(with = "u64")]
    pub timeout: Duration,
}

/// What becomes of a step, or of an undo, that an attempt did not finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase", tag = "then")]
pub enum Then {
    /// A further attempt of the same purpose at this time.
    Retry {
        /// When.
        at: Timestamp,
    },
    /// The verification did not hold: the step's own action is tried again at this time.
    Redo {
        /// When.
        at: Timestamp,
    },
    /// The step's verification tells.
    Verify,
    /// A person is asked what became of it.
    Ask,
    /// The step failed.
    Fail,
    /// The step failed and the playbook tolerates it.
    Tolerate,
    /// The step is cancelled with its run.
    Cancel,
}

/// A verification with everything rendered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verification {
    /// What finds out.
    #[serde(flatten)]
    pub call: RenderedCall,
    /// How long to wait between two attempts, in milliseconds.
    #[serde(rename = "every_ms", with = "stanch_playbook::time::whole_millis")]
    #[schemars(with = "u64")]
    pub every: Duration,
    /// By when it must hold.
    pub deadline: Timestamp,
}

/// An action with everything rendered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RenderedCall {
    /// The action.
    pub action: ActionName,
    /// Its parameters.
    pub with: Arc<Value>,
    /// Its environment; an empty object for most.
    pub env: Arc<Value>,
    /// The limit for each attempt, in milliseconds.
    #[serde(with = "stanch_playbook::time::whole_millis")]
    #[schemars(with = "u64")]
    pub timeout: Duration,
}

/// An attempt did what it was for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptSucceeded {
    /// Which attempt.
    pub attempt: AttemptId,
    /// The action's result.
    pub output: Arc<Value>,
    /// The step's `outputs`, evaluated: an object.
    pub outputs: Arc<Value>,
    /// Set where the action succeeded and the step is not done all the same: its condition does not hold yet, it is to be
    /// verified, or its `outputs` could not be evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsettled: Option<Unsettled>,
    /// How the step is verified, where that follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Arc<Verification>>,
}

/// Why a step is not done though its action succeeded, and what follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Unsettled {
    /// Why.
    pub reason: Arc<str>,
    /// What follows.
    #[serde(flatten)]
    pub then: Then,
}

/// An attempt is known not to have happened, or was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptFailed {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Why.
    pub error: Arc<str>,
    /// What the action returned all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Arc<Value>>,
    /// What follows.
    #[serde(flatten)]
    pub then: Then,
}

/// Nobody knows whether an attempt happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptUnknown {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Why nobody knows.
    pub reason: Arc<str>,
    /// What follows.
    #[serde(flatten)]
    pub then: Then,
    /// How the step is verified, where that follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Arc<Verification>>,
}

/// A result came for an attempt that no longer counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptLate {
    /// Which attempt.
    pub attempt: AttemptId,
    /// `succeeded`, `failed` or `unknown`: what the late result said. It changes nothing.
    pub outcome: String,
}
