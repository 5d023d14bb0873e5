//! One try of a step's action: its name, what a worker is given, and how it came out.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use stanch_playbook::{ActionName, PlaybookName, StepKey};

use crate::id::{Epoch, RunId};

/// What an attempt is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// The step's own action.
    Do,
    /// Taking it back.
    Undo,
    /// Finding out whether it holds.
    Verify,
}

impl Purpose {
    /// The word of the records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Do => "do",
            Self::Undo => "undo",
            Self::Verify => "verify",
        }
    }
}

/// Which attempt: unique over the life of the journal.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize, JsonSchema)]
pub struct AttemptId {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepKey,
    /// The item, where the step is done for each of several; from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// What it is for.
    pub purpose: Purpose,
    /// Grows when a person asks for the step to be tried again; the idempotency key changes with it.
    pub generation: u32,
    /// Counts within the generation, from 1.
    pub number: u32,
    /// The engine's epoch that made it; a result under another epoch is late.
    pub epoch: Epoch,
}

/// Equal over the automatic attempts of one thing, different for anything else: 64 hexadecimal digits.
///
/// Goes out as the `Idempotency-Key` header, `STANCH_IDEMPOTENCY_KEY` and `Nats-Msg-Id`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct IdempotencyKey(Arc<str>);

impl IdempotencyKey {
    /// The key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AttemptId {
    /// The key of (run, step, item, purpose, generation).
    #[must_use]
    pub fn idempotency_key(&self) -> IdempotencyKey {
        let mut hash = Sha256::new();
        hash.update(self.run.0.as_bytes());
        hash.update(self.step.as_str());
        hash.update([0]);
        hash.update(self.purpose.as_str());
        hash.update([0]);
        hash.update(self.generation.to_be_bytes());
        if let Some(item) = self.item {
            hash.update(item.to_be_bytes());
        }
        IdempotencyKey(hex::encode(hash.finalize()).into())
    }
}

/// Everything a worker needs to execute one attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    /// Which attempt.
    pub attempt: AttemptId,
    /// The playbook's name, for logs and metrics.
    pub playbook: PlaybookName,
    /// The action to execute.
    pub action: ActionName,
    /// The action's rendered parameters: an object. A text that holds secrets is
    /// `{"secret_text": [{"text": "Bearer "}, {"secret": "edr"}]}`, only where the action's own fields allow it; the worker
    /// alone resolves it.
    pub with: Arc<Value>,
    /// Rendered environment for `exec`: an object of texts, in the same form.
    pub env: Arc<Value>,
    /// Sent along with whatever the action does.
    pub idempotency_key: IdempotencyKey,
    /// The limit for this attempt.
    pub timeout: Duration,
}

/// How an attempt came out.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was done; the output as the action documents it.
    Succeeded {
        /// The action's result.
        output: Value,
    },
    /// It is known not to have happened, or the action said no.
    Failed {
        /// Why, in one short sentence without secrets.
        error: String,
        /// What the action returned all the same (a response's status and body, an exit code).
        output: Option<Value>,
        /// How long the target asked to wait (`Retry-After`).
        retry_after: Option<Duration>,
        /// Whether trying again could help; false for a request that the target will always refuse.
        retryable: bool,
    },
    /// Whether it happened is not known: time-out or reset after sending, killed, worker lost.
    Unknown {
        /// Why, in one short sentence without secrets.
        reason: String,
    },
}

/// The environment that every `exec` attempt is given beside its own: names and values.
#[must_use]
pub fn standard_environment(assignment: &Assignment) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("STANCH_IDEMPOTENCY_KEY", assignment.idempotency_key.as_str().to_owned()),
        ("STANCH_RUN_ID", assignment.attempt.run.to_string()),
        ("STANCH_STEP", assignment.attempt.step.to_string()),
        ("STANCH_ATTEMPT", assignment.attempt.number.to_string()),
        ("STANCH_PLAYBOOK", assignment.playbook.to_string()),
        ("STANCH_PURPOSE", assignment.attempt.purpose.as_str().to_owned()),
    ])
}
