//! Questions to people.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stanch_playbook::plan::NotifyAfter;
use stanch_playbook::{StepKey, Timestamp};

use super::Actor;
use crate::id::{ApprovalId, RunId};

/// People are asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalRequested {
    /// Its id.
    pub approval: ApprovalId,
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepKey,
    /// The question.
    pub prompt: Arc<str>,
    /// What would be done, exactly.
    pub targets: Arc<[ApprovalTarget]>,
    /// SHA-256 of the targets, in hexadecimal digits; an answer must name it.
    pub digest: Arc<str>,
    /// Who may decide; empty: everybody.
    pub from: Vec<String>,
    /// How many must agree.
    pub quorum: u32,
    /// Who may not decide, since they started the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded: Option<Actor>,
    /// When it counts as not answered.
    pub expires_at: Option<Timestamp>,
    /// Who else is told after what time without a decision, the earliest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Value>")]
    pub escalate: Vec<NotifyAfter>,
    /// The question that this one replaces, since its targets have changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<ApprovalId>,
}

/// What one step would do once it is approved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalTarget {
    /// The step.
    pub step: StepKey,
    /// Its action.
    pub action: Arc<str>,
    /// Its parameters; for a step with items, a list of them. Null where it cannot be known yet.
    pub with: Arc<Value>,
    /// Its environment, in the same form; null where it has none.
    #[serde(default, skip_serializing_if = "is_null")]
    pub env: Arc<Value>,
}

fn is_null(value: &Arc<Value>) -> bool {
    value.is_null()
}

/// Nobody decided in time: more people are told of the question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalEscalated {
    /// Which.
    pub approval: ApprovalId,
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepKey,
    /// People, or groups as `group:name`.
    pub people: Vec<String>,
    /// How many entries of the question's `escalate` have been told by now, these included.
    pub level: u32,
    /// Why, in one sentence.
    pub reason: String,
}

/// What a person answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the design's own names")]
pub enum Verdict {
    Approved,
    Denied,
}

impl Verdict {
    /// The word of the records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Denied => "denied",
        }
    }
}

/// A person answered. Who, stands in the record's actor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalDecided {
    /// Which.
    pub approval: ApprovalId,
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepKey,
    /// The answer.
    pub verdict: Verdict,
    /// The digest of the targets that the person saw.
    pub digest: Arc<str>,
    /// How they were authenticated and from where, such as `token from 127.0.0.1`.
    pub via: String,
    /// Why, by the person; may be empty.
    pub reason: String,
    /// Whether a step that is no approval itself may start now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumes: bool,
}
