//! What is in force, and is taken back.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stanch_playbook::plan::Policy;
use stanch_playbook::{StepKey, Timestamp};

use super::RenderedCall;
use crate::id::{ContainmentId, RunId};

/// What a step did can be taken back: from here on it is in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContainmentStarted {
    /// Its id.
    pub containment: ContainmentId,
    /// The run whose step it is.
    pub run: RunId,
    /// The step.
    pub step: StepKey,
    /// The item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// What was done, as the action was given it.
    pub done: Arc<Value>,
    /// What takes it back.
    #[serde(flatten)]
    pub undo: RenderedCall,
    /// How its attempts are repeated.
    #[schemars(with = "Value")]
    pub policy: Policy,
    /// When it is taken back by itself.
    pub until: Option<Timestamp>,
    /// Whether it is known to have happened.
    pub certain: bool,
}

/// What is in force stays so for longer, or without an end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContainmentExtended {
    /// Which.
    pub containment: ContainmentId,
    /// When it is taken back by itself; none: a person must.
    pub until: Option<Timestamp>,
    /// Why, by whoever asked; may be empty.
    pub reason: String,
}

/// Containments are to be taken back, in the order named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UndoRequested {
    /// Which, in the order in which they are taken back, one after the other.
    pub containments: Vec<ContainmentId>,
    /// The run that waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The step of that run which asked for it; none where the run's failure or end did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepKey>,
    /// Why.
    pub reason: String,
}

/// A containment is no longer in force, and no attempt of ours ended it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContainmentEnded {
    /// Which.
    pub containment: ContainmentId,
    /// Why.
    pub reason: String,
}
