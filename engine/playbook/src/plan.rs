//! The plan: a playbook that was checked, compiled and identified by its digest.
//!
//! Invariant: a [`Plan`] exists only where its document had no error, so that whoever holds one
//! need not ask again whether a step, an input or an action is known.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::evaluate::{Expression, Template, ValueTemplate};
use crate::matcher::Matcher;
use crate::name::{ActionName, Phase, PlanDigest, PlaybookName, Severity, StepKey};
use crate::schedule::Schedule;

/// One playbook, resolved with its defaults and compiled. Immutable; runs are pinned to it by [`Plan::digest`].
#[derive(Debug)]
pub struct Plan {
    /// The playbook's name.
    pub name: PlaybookName,
    /// SHA-256 over [`Plan::canonical`].
    pub digest: PlanDigest,
    /// One sentence of what it is for; may be empty.
    pub description: String,
    /// What its incidents open with, where no label says otherwise.
    pub severity: Option<Severity>,
    /// The team that answers for it.
    pub owner: Option<String>,
    /// Which events start it. Empty: a person alone can.
    pub triggers: Vec<Trigger>,
    /// The typed inputs, by name.
    pub inputs: BTreeMap<String, InputSpec>,
    /// All steps: in the order of the phases, and within a phase as written.
    pub steps: Vec<Step>,
    /// How many runs of this playbook may be live at once; the others are queued. `None`: no cap.
    pub concurrency: Option<u32>,
    pub(crate) canonical: String,
    pub(crate) index: BTreeMap<StepKey, usize>,
}

/// Which events start a playbook, and how they become inputs.
#[derive(Debug)]
pub struct Trigger {
    /// What it listens to.
    pub on: TriggerOn,
    /// CEL over `event` and `alert`; the trigger matches only where it is true.
    pub condition: Option<Expression>,
    /// The incident's key; `None`: the alert's identity, or the event's.
    pub key: Option<Template>,
    /// CEL for each input, over `event`, `alert`, `alerts`.
    pub inputs: BTreeMap<String, Expression>,
}

/// What a trigger listens to.
#[derive(Debug)]
pub enum TriggerOn {
    /// Alerts whose labels satisfy every matcher.
    Alertmanager(Vec<Matcher>),
    /// Messages on a NATS subject (`*` and `>` as NATS has them).
    Nats {
        /// The subject filter.
        subject: String,
    },
    /// Instants of a cron expression.
    Schedule(Schedule),
    /// A person's request. Every playbook can be started by hand; this gives it a key and inputs.
    Manual,
}

/// What an input may be.
#[derive(Debug, Clone)]
pub struct InputSpec {
    /// The type that a value must have.
    pub kind: InputType,
    /// Whether a run without it is refused.
    pub required: bool,
    /// What it is where nothing is given.
    pub default: Option<serde_json::Value>,
}

/// The types of inputs. `Number` takes integers too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "JSON's own names")]
pub enum InputType {
    String,
    Bool,
    Int,
    Number,
    List,
    Map,
}

/// One step, ready to be executed.
#[derive(Debug)]
pub struct Step {
    /// `phase.name`.
    pub key: StepKey,
    /// The phase it stands in.
    pub phase: Phase,
    /// Its name, unique in the playbook; `steps.<name>` in templates and conditions.
    pub name: String,
    /// Indexes into [`Plan::steps`] of those of the same phase that must be satisfied first.
    pub needs: Vec<usize>,
    /// CEL; false skips the step, an error fails it.
    pub condition: Option<Expression>,
    /// What it does.
    pub uses: Uses,
    /// Environment for `exec`, each value a template that may hold secrets.
    pub env: ValueTemplate,
    /// Whether repeating it is harmless: the action's word, or the step's `idempotent:`.
    pub idempotent: bool,
    /// How failed attempts are repeated.
    pub retry: Retry,
    /// What an unknown outcome leads to.
    pub on_unknown: OnUnknown,
    /// The limit for each attempt; for a wait, for the whole of it.
    pub timeout: Option<Duration>,
    /// CEL over `result` and the rest, for each output.
    pub outputs: BTreeMap<String, Expression>,
    /// Whether its failure is tolerated (never green, but it satisfies `needs`).
    pub continue_on_error: bool,
}

/// What a step uses.
#[derive(Debug)]
pub enum Uses {
    /// An action that a worker executes.
    Action {
        /// Its name.
        name: ActionName,
        /// Its parameters.
        with: ValueTemplate,
    },
    /// A wait, which the core itself keeps.
    Wait(Wait),
}

/// What a wait waits for.
#[derive(Debug)]
pub enum Wait {
    /// A length of time; rendered to a duration such as `30s`.
    Duration(Template),
    /// The incident's alerts to have stayed resolved for `settle`.
    Resolved {
        /// How long they must have stayed resolved.
        settle: Duration,
    },
}

/// How failed attempts are repeated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// All attempts, the first included; at least 1.
    pub max_attempts: u32,
    /// The longest first delay.
    pub initial_interval: Duration,
    /// What the delay is multiplied by for each further attempt; at least 1.
    pub backoff: f64,
    /// The longest delay of all.
    pub max_interval: Duration,
    /// Whether the delay is drawn from `0..=delay` (full jitter) or is the delay itself.
    pub jitter: Jitter,
}

/// How delays are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Jitter {
    /// Uniform between zero and the delay.
    Full,
    /// No spread.
    None,
}

/// What an unknown outcome leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnknown {
    /// A further attempt, within `retry.max_attempts`.
    Retry,
    /// A person's answer.
    Ask,
    /// The step fails.
    Fail,
}

/// A text that is no plan's canonical form, or one of another version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a plan of this version: {0}")]
pub struct PlanError(pub String);

impl Retry {
    /// The longest delay after the attempt of this number, from 1; with full jitter it is drawn from zero to that.
    #[must_use]
    pub fn delay_at_most(&self, number: u32) -> Duration {
        let exponent = i32::try_from(number.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.initial_interval.as_secs_f64() * self.backoff.powi(exponent);
        Duration::from_secs_f64(grown.min(self.max_interval.as_secs_f64()).max(0.0))
    }
}

impl Trigger {
    /// Whether this is an `alertmanager` trigger and its matchers are satisfied; `if` is not looked at.
    #[must_use]
    pub fn matches_alert(&self, labels: &BTreeMap<String, String>) -> bool {
        match &self.on {
            TriggerOn::Alertmanager(matchers) => matchers.iter().all(|matcher| matcher.is_match(labels)),
            TriggerOn::Nats { .. } | TriggerOn::Schedule(_) | TriggerOn::Manual => false,
        }
    }

    /// Whether this is a `nats` trigger and its filter covers the subject; `if` is not looked at.
    #[must_use]
    pub fn matches_subject(&self, subject: &str) -> bool {
        match &self.on {
            TriggerOn::Nats { subject: filter } => subject_matches(filter, subject),
            TriggerOn::Alertmanager(_) | TriggerOn::Schedule(_) | TriggerOn::Manual => false,
        }
    }
}

/// Whether a NATS filter covers a subject: `*` stands for one token, a final `>` for one or more.
#[must_use]
pub fn subject_matches(filter: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in filter.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

impl Plan {
    /// The canonical JSON text (sorted keys, no spaces) over which the digest is taken and from which
    /// [`Plan::from_canonical`] builds the same plan again.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// The index into [`Plan::steps`] of `phase.step`.
    #[must_use]
    pub fn step_index(&self, key: &StepKey) -> Option<usize> {
        self.index.get(key).copied()
    }
}
