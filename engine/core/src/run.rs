//! One execution of one plan: its steps, their attempts, and where it stands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use imbl::Vector;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stanch_playbook::plan::Step;
use stanch_playbook::{Phase, Plan, PlanDigest, PlaybookName, Timestamp};

use crate::attempt::{AttemptId, Purpose};
use crate::id::{ContainmentId, Epoch, IncidentId, RunId, Sequence};
use crate::record::{Actor, ApprovalRequested, Cause, Held, Parent, RunOutcome, Verdict, Verification, Waiting};
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
    /// Who started it.
    pub started_by: Actor,
    /// Its inputs: an object.
    pub inputs: Arc<Value>,
    /// Whether it waits for others of its playbook, or is held.
    pub queued: bool,
    /// Why it is held, beside `concurrency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// Until when nothing with side effects starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_until: Option<Timestamp>,
    /// Whether it goes on with recover, since its alerts are resolved.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recovering: bool,
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
    pub records: Vector<Sequence>,
    /// The step that it is part of, where another run started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The plans that its sub-playbooks use.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub children: BTreeMap<PlaybookName, PlanDigest>,
    /// Whether what it did is taken back when it is cancelled.
    #[serde(default)]
    pub undo: bool,
    /// The containments that are being taken back and that it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undoing: Vec<ContainmentId>,
    /// Whether that was asked for already.
    #[serde(default)]
    pub undo_asked: bool,
}

/// A step of a run, or one of its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The step's index in [`Plan::steps`].
    pub step: usize,
    /// The item, where the step is done for each of several.
    pub item: Option<u32>,
}

impl From<usize> for Place {
    fn from(step: usize) -> Self {
        Self { step, item: None }
    }
}

/// One step of one run, or one item of it.
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
    /// What its attempts were given, until it is over.
    pub rendered: Option<Rendered>,
    /// When it first did something.
    pub started_at: Option<Timestamp>,
    /// When it was over.
    pub finished_at: Option<Timestamp>,
    /// Its items, where it is done for each of several; an item has none.
    #[serde(default, skip_serializing_if = "Vector::is_empty")]
    pub items: Vector<Arc<StepRun>>,
    /// What an item is; none for a step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Arc<Value>>,
    /// The question that an approval asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<Arc<Question>>,
    /// The generation of the next time that it is taken back: what is done again after an undo is undone under another key.
    #[serde(default)]
    pub undos: u32,
}

/// A question to people, and the answers so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// What was asked.
    pub asked: ApprovalRequested,
    /// When.
    pub asked_at: Timestamp,
    /// Who answered what, and when; the last one decided where the step is over.
    pub answers: Vec<(Actor, Verdict, Timestamp)>,
    /// How many of those whom `asked.escalate` names have been told.
    #[serde(default)]
    pub told: u32,
}

impl Question {
    /// When more people are told of it.
    #[must_use]
    pub fn escalates_at(&self) -> Option<Timestamp> {
        self.asked.escalate.get(self.told as usize).map(|next| self.asked_at.plus(next.after))
    }
}

/// What the attempts of a step are given; equal over all of a generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rendered {
    /// The action's parameters.
    pub with: Arc<Value>,
    /// The environment.
    pub env: Arc<Value>,
    /// The limit for each attempt, in milliseconds.
    #[serde(with = "stanch_playbook::time::whole_millis")]
    pub timeout: Duration,
}

/// One attempt as a step remembers it. Of consecutive verifications the last alone is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptRun {
    /// What it was for.
    pub purpose: Purpose,
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
    /// It is being done for each of its items.
    Items {
        /// How many have been started.
        started: u32,
        /// How many of those are not over.
        live: u32,
        /// How many of those wait, or are unknown.
        idle: u32,
        /// How many failed.
        failed: u32,
    },
    /// Its action is done; whether it holds is being found out.
    Verifying {
        /// How.
        verification: Arc<Verification>,
        /// The attempt that is under way.
        attempt: Option<AttemptId>,
        /// When the next one is.
        next: Option<Timestamp>,
        /// Why nobody knows whether the action was done, where nobody does.
        unknown: Option<Arc<str>>,
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
            Self::Items { live, idle, .. } if *live > 0 && *live == *idle => "waiting",
            Self::Items { .. } => "running",
            Self::Verifying { .. } => "verifying",
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
            | Self::Items { .. }
            | Self::Verifying { .. }
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
            | Self::Items { .. }
            | Self::Verifying { .. }
            | Self::Backoff { .. }
            | Self::Waiting { .. }
            | Self::Succeeded => None,
        }
    }

    /// When it goes on by itself.
    #[must_use]
    pub fn timer(&self) -> Option<Timestamp> {
        match self {
            Self::Backoff { until } | Self::Waiting { wait: Waiting::Time { until } } => Some(*until),
            Self::Verifying { next, .. } => *next,
            Self::Waiting {
                wait:
                    Waiting::Event { expires_at }
                    | Waiting::Approval { expires_at, .. }
                    | Waiting::Run { expires_at, .. }
                    | Waiting::Undo { expires_at },
            } => *expires_at,
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
            | Self::Items { .. }
            | Self::Unknown { .. }
            | Self::Succeeded
            | Self::Tolerated { .. }
            | Self::Failed { .. }
            | Self::Cancelled { .. } => None,
        }
    }

    /// The attempt that is under way.
    #[must_use]
    pub const fn attempt(&self) -> Option<&AttemptId> {
        match self {
            Self::Running { attempt } => Some(attempt),
            Self::Verifying { attempt, .. } => attempt.as_ref(),
            _ => None,
        }
    }

    /// Whether nothing is under way but a wait or a question.
    pub(crate) const fn is_idle(&self) -> bool {
        matches!(self, Self::Waiting { .. } | Self::Unknown { .. })
    }
}

impl StepRun {
    pub(crate) fn pending() -> Self {
        Self {
            state: StepState::Pending,
            generation: 0,
            attempts: Vec::new(),
            outputs: Arc::new(Value::Null),
            rendered: None,
            started_at: None,
            finished_at: None,
            items: Vector::new(),
            value: None,
            question: None,
            undos: 0,
        }
    }

    pub(crate) fn item(value: Value) -> Self {
        Self { value: Some(Arc::new(value)), ..Self::pending() }
    }

    /// When it should be looked at next.
    #[must_use]
    pub fn timer(&self) -> Option<Timestamp> {
        let asks = matches!(self.state, StepState::Waiting { wait: Waiting::Approval { .. } });
        let escalates = self.question.as_ref().filter(|_| asks).and_then(|question| question.escalates_at());
        self.state.timer().into_iter().chain(escalates).min()
    }

    /// How many attempts of a purpose the current generation has had.
    #[must_use]
    pub fn attempts_made(&self, purpose: Purpose) -> u32 {
        let of = |made: &&AttemptRun| made.generation == self.generation && made.purpose == purpose;
        self.attempts.iter().rev().find(of).map_or(0, |last| last.number)
    }
}

impl Run {
    /// When it should be looked at next, beside its steps.
    #[must_use]
    pub fn timer(&self) -> Option<Timestamp> {
        match &self.held {
            Some(held) if self.queued => held.until(),
            _ => self.hold_until,
        }
    }

    /// The step, or the item of it.
    #[must_use]
    pub fn at(&self, place: Place) -> Option<&StepRun> {
        let step = self.steps.get(place.step)?;
        match place.item {
            None => Some(step),
            Some(item) => step.items.get(item as usize).map(|item| &**item),
        }
    }

    /// Every step and every item that has been started, with its place.
    pub fn started(&self) -> impl Iterator<Item = (Place, &StepRun)> {
        self.steps.iter().enumerate().flat_map(|(index, step)| {
            let started = match step.state {
                StepState::Items { started, .. } => started as usize,
                _ => 0,
            };
            let items = step.items.iter().take(started).zip(0..);
            std::iter::once((Place::from(index), &**step))
                .chain(items.map(move |(item, at)| (Place { step: index, item: Some(at) }, &**item)))
        })
    }

    /// queued, running, waiting, undoing, succeeded, failed or cancelled.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self.outcome {
            Some(outcome) => outcome.as_str(),
            None if self.queued => "queued",
            None if !self.undoing.is_empty() => "undoing",
            None if self.is_waiting() => "waiting",
            None => "running",
        }
    }

    /// Whether nothing is under way but waits and questions.
    fn is_waiting(&self) -> bool {
        let mut waits = false;
        for step in &self.steps {
            match step.state {
                StepState::Running { .. } | StepState::Backoff { .. } | StepState::Verifying { .. } => return false,
                StepState::Items { live, idle, .. } if live > idle => return false,
                StepState::Waiting { .. } | StepState::Unknown { .. } | StepState::Items { .. } => waits = true,
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

    /// The first step of the four phases that failed.
    #[must_use]
    pub fn failed_step<'a>(&self, plan: &'a Plan) -> Option<&'a Step> {
        let failed = |(step, of): &(&Arc<StepRun>, &Step)| {
            of.phase != Phase::Finally && matches!(step.state, StepState::Failed { .. })
        };
        self.steps.iter().zip(&plan.steps).find(failed).map(|(_, of)| of)
    }

    /// Whether the step at `index` stands in `finally`.
    #[must_use]
    pub fn is_finally(&self, state: &State, index: usize) -> bool {
        state.plan(self.plan).is_some_and(|plan| plan.steps[index].phase == Phase::Finally)
    }
}
