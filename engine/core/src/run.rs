//! One execution of one plan: its steps, their attempts, and where it stands.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use stanch_playbook::{Phase, Plan, PlanDigest, PlaybookName, Timestamp};

use crate::attempt::AttemptId;
use crate::id::{Epoch, IncidentId, RunId, Sequence};
use crate::record::{Actor, Cause, RunOutcome, Waiting};
use crate::state::State;

/// One run. Live ones stand in [`State::runs`]; finished ones leave it and are read from the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The playbook's name.
    pub playbook: PlaybookName,
    /// The plan it is pinned to.
    pub plan: PlanDigest,
    /// The incident it belongs to.
    pub incident: IncidentId,
    /// What started it.
    pub cause: Cause,
    /// Its inputs: an object.
    pub inputs: Arc<Value>,
    /// Whether it waits for others of its playbook.
    pub queued: bool,
    /// Who asked for its end, and why.
    pub cancel: Option<(Actor, Arc<str>)>,
    /// How it ended; none while it is live.
    pub outcome: Option<RunOutcome>,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Its steps, in the order of [`Plan::steps`].
    pub steps: Vec<Arc<StepRun>>,
    /// The sequences of its records.
    pub records: Vec<Sequence>,
}

/// One step of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRun {
    /// Where it stands.
    pub state: StepState,
    /// How often a person asked for it to be tried again.
    pub generation: u32,
    /// Every attempt, oldest first.
    pub attempts: Vec<AttemptRun>,
    /// The evaluated `outputs`: an object, or null before the step succeeded.
    pub outputs: Arc<Value>,
    /// The action's result.
    pub output: Option<Arc<Value>>,
    /// What its attempts were given, until it is over.
    pub rendered: Option<Rendered>,
    /// When it first did something.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
}

/// What the attempts of a step are given; equal over all of a generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rendered {
    /// The action's parameters.
    pub with: Arc<Value>,
    /// The environment.
    pub env: Arc<Value>,
    /// The limit for each attempt, in milliseconds.
    #[serde(with = "crate::record::millis")]
    pub timeout: Duration,
}

/// One attempt as a step remembers it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptRun {
    /// The generation it belongs to.
    pub generation: u32,
    /// Its number in that generation, from 1.
    pub number: u32,
    /// The engine's epoch that made it.
    pub epoch: Epoch,
    /// When it was claimed.
    pub scheduled_at: Timestamp,
    /// When its outcome was recorded.
    pub finished_at: Option<Timestamp>,
    /// `running`, `succeeded`, `failed` or `unknown`.
    pub outcome: AttemptOutcome,
    /// Why it did not succeed.
    pub error: Option<Arc<str>>,
}

/// How an attempt came out, so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the design's own names")]
pub enum AttemptOutcome {
    Running,
    Succeeded,
    Failed,
    Unknown,
}

/// Where a step stands; each state holds what only it needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum StepState {
    /// It has not been looked at, or waits for what it needs.
    Pending,
    /// Something it needs did not succeed.
    Blocked {
        /// Why.
        reason: Arc<str>,
    },
    /// Its `if` was false.
    Skipped,
    /// An attempt is claimed.
    Running {
        /// Which.
        attempt: AttemptId,
    },
    /// A further attempt follows.
    Backoff {
        /// When.
        until: Timestamp,
    },
    /// It waits for a time or for its alerts.
    Waiting {
        /// For what.
        wait: Waiting,
    },
    /// Nobody knows whether its last attempt happened; a person is asked.
    Unknown {
        /// Why nobody knows.
        reason: Arc<str>,
    },
    /// It did what it was for.
    Succeeded,
    /// It failed and the playbook tolerates it.
    Tolerated {
        /// Why it failed.
        error: Arc<str>,
    },
    /// It failed.
    Failed {
        /// Why.
        error: Arc<str>,
    },
    /// Its run was cancelled.
    Cancelled {
        /// Why.
        reason: Arc<str>,
    },
}

impl StepState {
    /// The word of the design.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Blocked { .. } => "blocked",
            Self::Skipped => "skipped",
            Self::Running { .. } => "running",
            Self::Backoff { .. } => "backoff",
            Self::Waiting { .. } => "waiting",
            Self::Unknown { .. } => "unknown",
            Self::Succeeded => "succeeded",
            Self::Tolerated { .. } => "tolerated",
            Self::Failed { .. } => "failed",
            Self::Cancelled { .. } => "cancelled",
        }
    }

    /// Whether it is over.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        match self {
            Self::Pending
            | Self::Running { .. }
            | Self::Backoff { .. }
            | Self::Waiting { .. }
            | Self::Unknown { .. } => false,
            Self::Blocked { .. }
            | Self::Skipped
            | Self::Succeeded
            | Self::Tolerated { .. }
            | Self::Failed { .. }
            | Self::Cancelled { .. } => true,
        }
    }

    /// Whether it is over and satisfies those that need it.
    #[must_use]
    pub const fn satisfies(&self) -> bool {
        matches!(self, Self::Skipped | Self::Succeeded | Self::Tolerated { .. })
    }

    /// Why it is not green, where there is a reason.
    #[must_use]
    pub fn error(&self) -> Option<&Arc<str>> {
        match self {
            Self::Blocked { reason } | Self::Unknown { reason } | Self::Cancelled { reason } => Some(reason),
            Self::Tolerated { error } | Self::Failed { error } => Some(error),
            Self::Pending
            | Self::Skipped
            | Self::Running { .. }
            | Self::Backoff { .. }
            | Self::Waiting { .. }
            | Self::Succeeded => None,
        }
    }

    /// When it should be looked at next.
    #[must_use]
    pub fn timer(&self) -> Option<Timestamp> {
        match self {
            Self::Backoff { until } | Self::Waiting { wait: Waiting::Time { until } } => Some(*until),
            Self::Waiting { wait: Waiting::Resolved { settled_at, expires_at, .. } } => {
                match (*settled_at, *expires_at) {
                    (Some(settled), Some(expires)) => Some(settled.min(expires)),
                    (settled, expires) => settled.or(expires),
                }
            }
            Self::Pending
            | Self::Blocked { .. }
            | Self::Skipped
            | Self::Running { .. }
            | Self::Unknown { .. }
            | Self::Succeeded
            | Self::Tolerated { .. }
            | Self::Failed { .. }
            | Self::Cancelled { .. } => None,
        }
    }
}

impl StepRun {
    pub(crate) fn pending() -> Self {
        Self {
            state: StepState::Pending,
            generation: 0,
            attempts: Vec::new(),
            outputs: Arc::new(Value::Null),
            output: None,
            rendered: None,
            started_at: None,
            finished_at: None,
        }
    }

    /// How many attempts the current generation has had.
    #[must_use]
    pub fn attempts_made(&self) -> u32 {
        self.attempts.last().filter(|last| last.generation == self.generation).map_or(0, |last| last.number)
    }
}

impl Run {
    /// queued, running, waiting, succeeded, failed or cancelled.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self.outcome {
            Some(outcome) => outcome.as_str(),
            None if self.queued => "queued",
            None if self.is_waiting() => "waiting",
            None => "running",
        }
    }

    /// Whether nothing is under way but waits and questions.
    fn is_waiting(&self) -> bool {
        let mut waits = false;
        for step in &self.steps {
            match step.state {
                StepState::Running { .. } | StepState::Backoff { .. } => return false,
                StepState::Waiting { .. } | StepState::Unknown { .. } => waits = true,
                StepState::Pending
                | StepState::Blocked { .. }
                | StepState::Skipped
                | StepState::Succeeded
                | StepState::Tolerated { .. }
                | StepState::Failed { .. }
                | StepState::Cancelled { .. } => {}
            }
        }
        waits
    }

    /// The phase it stands in: that of the first step that is not over, or the last one that did something.
    #[must_use]
    pub fn phase(&self, plan: &Plan) -> Option<Phase> {
        let current = self.steps.iter().position(|step| !step.state.is_over());
        let last = || self.steps.iter().rposition(|step| step.started_at.is_some());
        current.or_else(last).map(|index| plan.steps[index].phase)
    }

    /// Whether the step at `index` stands in `finally`.
    #[must_use]
    pub fn is_finally(&self, state: &State, index: usize) -> bool {
        state.plan(self.plan).is_some_and(|plan| plan.steps[index].phase == Phase::Finally)
    }
}
