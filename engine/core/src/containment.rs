//! What is in force: things that were done and can be taken back. They outlive their runs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use stanch_playbook::plan::Policy;
use stanch_playbook::{PlaybookName, StepKey, Timestamp};

use crate::attempt::{Assignment, AttemptId, Purpose};
use crate::id::{ContainmentId, Epoch, IncidentId, RunId};
use crate::record::{Parent, RenderedCall};

/// One thing that is in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Containment {
    /// Its id.
    pub id: ContainmentId,
    /// The run that did it.
    pub run: RunId,
    /// That run's playbook.
    pub playbook: PlaybookName,
    /// That run's incident.
    pub incident: IncidentId,
    /// The step that did it.
    pub step: StepKey,
    /// The item of it.
    pub item: Option<u32>,
    /// The steps of other runs that the run is part of, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<Parent>,
    /// The item's value.
    pub value: Option<Arc<Value>>,
    /// What was done: the parameters of the step's action.
    pub done: Arc<Value>,
    /// What takes it back.
    pub undo: RenderedCall,
    /// How its attempts are repeated.
    pub policy: Policy,
    /// Since when.
    pub since: Timestamp,
    /// When it is taken back by itself; none: it stays until somebody does.
    pub until: Option<Timestamp>,
    /// Whether it is known to have happened.
    pub certain: bool,
    /// Where its taking back stands.
    pub state: UndoState,
    /// Grows each time that it is asked for.
    pub generation: u32,
    /// How many attempts this generation has had.
    pub attempts: u32,
    /// The run that waits for it to be taken back.
    pub waiter: Option<RunId>,
    /// The one that is taken back after it.
    pub next: Option<ContainmentId>,
}

/// Where the taking back of a containment stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum UndoState {
    /// Nobody asked for it.
    Inforce,
    /// It waits for others, which were done later and are taken back first.
    Requested,
    /// An attempt is under way.
    Undoing {
        /// Which.
        attempt: AttemptId,
    },
    /// A further attempt follows.
    Backoff {
        /// When.
        until: Timestamp,
    },
    /// Nobody knows whether it was taken back; a person must look.
    Unknown {
        /// Why nobody knows.
        reason: Arc<str>,
    },
    /// It could not be taken back and stays in force.
    Failed {
        /// Why.
        error: Arc<str>,
    },
}

impl UndoState {
    /// Every word of [`Self::as_str`].
    pub const WORDS: [&'static str; 6] = ["inforce", "requested", "undoing", "backoff", "unknown", "failed"];

    /// The word of the interfaces.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Inforce => "inforce",
            Self::Requested => "requested",
            Self::Undoing { .. } => "undoing",
            Self::Backoff { .. } => "backoff",
            Self::Unknown { .. } => "unknown",
            Self::Failed { .. } => "failed",
        }
    }

    /// Whether it is on its way to be taken back.
    #[must_use]
    pub const fn is_under_way(&self) -> bool {
        matches!(self, Self::Requested | Self::Undoing { .. } | Self::Backoff { .. })
    }

    /// Why it could not be taken back, or nobody knows.
    #[must_use]
    pub const fn error(&self) -> Option<&Arc<str>> {
        match self {
            Self::Unknown { reason: error } | Self::Failed { error } => Some(error),
            _ => None,
        }
    }
}

impl Containment {
    /// When it should be looked at next.
    #[must_use]
    pub fn timer(&self) -> Option<Timestamp> {
        match self.state {
            UndoState::Inforce => self.until,
            UndoState::Backoff { until } => Some(until),
            UndoState::Requested | UndoState::Undoing { .. } | UndoState::Unknown { .. } | UndoState::Failed { .. } => {
                None
            }
        }
    }

    /// The steps that it is found under beside its own.
    pub(crate) fn inheritors(&self) -> impl Iterator<Item = (RunId, StepKey, ContainmentId)> + '_ {
        self.parents.iter().map(|parent| (parent.run, parent.step.clone(), self.id))
    }

    /// The next attempt to take it back.
    #[must_use]
    pub fn next_attempt(&self, epoch: Epoch) -> AttemptId {
        AttemptId {
            run: self.run,
            step: self.step.clone(),
            item: self.item,
            purpose: Purpose::Undo,
            generation: self.generation,
            number: self.attempts + 1,
            epoch,
        }
    }

    /// What a worker needs for the attempt that is under way.
    #[must_use]
    pub fn assignment(&self) -> Option<Assignment> {
        let UndoState::Undoing { attempt } = &self.state else { return None };
        Some(Assignment {
            attempt: attempt.clone(),
            playbook: self.playbook.clone(),
            action: self.undo.action.clone(),
            with: self.undo.with.clone(),
            env: self.undo.env.clone(),
            idempotency_key: attempt.idempotency_key(),
            timeout: self.undo.timeout,
        })
    }
}
