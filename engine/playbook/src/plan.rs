//! The plan: a playbook that was checked, compiled and identified by its digest.
//!
//! Invariant: a [`Plan`] exists only where its document had no error, so that whoever holds one
//! need not ask again whether a step, an input or an action is known.

use std::collections::{BTreeMap, BTreeSet};
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
    /// The phases whose containments are taken back where a step of them fails.
    pub undo_on_failure: BTreeSet<Phase>,
    /// How its incidents live.
    pub incident: IncidentRules,
    /// Whether it acts, or only shows what it would do.
    pub mode: Mode,
    /// How long a run waits before its first step with side effects.
    pub hold: Duration,
    /// Within what time after a nominal instant of its schedule a run must have succeeded, by a name of its own.
    pub watchdogs: BTreeMap<String, Duration>,
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
    /// How long alerts of one key are collected before their run starts.
    pub group_wait: Duration,
}

/// How the incidents of a playbook live.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncidentRules {
    /// What a new alert with the key does while a run of the playbook is live.
    #[serde(default)]
    pub on_repeat: OnRepeat,
    /// What settled alerts do to a live run.
    #[serde(default)]
    pub on_resolved: OnResolved,
    /// How long all alerts must have stayed resolved; the configured time by default.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        rename = "settle_ms",
        with = "crate::time::optional_millis"
    )]
    pub settle: Option<Duration>,
    /// The Slack channel of the incident.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack_channel: Option<String>,
    /// Who is told, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalation: Option<Escalation>,
}

/// What a new alert with an incident's key does while a run of the playbook is live.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRepeat {
    /// It joins the incident.
    #[default]
    Attach,
    /// One more run follows the live one, with all that came meanwhile.
    Queue,
    /// The live run is cancelled and a new one starts.
    Restart,
    /// It joins the incident and is not looked at.
    Ignore,
}

/// What settled alerts do to a live run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnResolved {
    /// Nothing.
    #[default]
    Continue,
    /// It is cancelled.
    Cancel,
    /// What runs is finished, then it goes on with recover.
    Recover,
}

/// When who is told of an incident that nobody takes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Escalation {
    /// Within what time somebody must take notice.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        rename = "acknowledge_within_ms",
        with = "crate::time::optional_millis"
    )]
    pub acknowledge_within: Option<Duration>,
    /// How often those who follow it are told how it stands.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        rename = "update_every_ms",
        with = "crate::time::optional_millis"
    )]
    pub update_every: Option<Duration>,
    /// Who is told after what time without an acknowledgement.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<NotifyAfter>,
}

/// Who is told after what time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifyAfter {
    /// After what time.
    #[serde(rename = "after_ms", with = "crate::time::whole_millis")]
    pub after: Duration,
    /// People, or groups as `group:name`.
    pub people: Vec<String>,
}

/// Whether a playbook acts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It does what it says.
    #[default]
    Act,
    /// It matches and plans, shows what it would do, and does nothing.
    Observe,
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
    /// The items for which it is done one by one, and how many at once.
    pub foreach: Option<Foreach>,
    /// How its attempts are repeated.
    pub policy: Policy,
    /// CEL over `result` (null where an attempt gave none), `error` (a text) and the rest; a failed attempt is repeated
    /// only where it is true, and an error in it counts as false.
    pub retry_if: Option<Expression>,
    /// The limit for each attempt; for a wait, an approval and a sub-playbook, for the whole of it.
    pub timeout: Option<Duration>,
    /// Its action is repeated until this holds of the result.
    pub until: Option<Until>,
    /// What must hold before it is done, and how to find out.
    pub verify: Option<Verify>,
    /// How it is taken back.
    pub undo: Option<Undo>,
    /// Indexes of the steps whose effects are final once this one has succeeded: they are not taken back any more.
    pub ends: Vec<usize>,
    /// The pool of workers that executes it.
    pub runs_on: Option<String>,
    /// The budget that its targets are counted against.
    pub budget: Option<String>,
    /// Whether its action changes anything beyond the run.
    pub acts: bool,
    /// Indexes of the steps that its templates and conditions name.
    pub names: Vec<usize>,
    /// CEL over `result` and the rest, for each output.
    pub outputs: BTreeMap<String, Expression>,
    /// Whether its failure is tolerated (never green, but it satisfies `needs`).
    pub continue_on_error: bool,
}

/// What a step uses.
#[derive(Debug)]
pub enum Uses {
    /// An action that a worker executes.
    Action(Call),
    /// A wait, which the core itself keeps.
    Wait(Wait),
    /// A question to people.
    Approval(Approval),
    /// A run of another playbook.
    Playbook {
        /// Its name.
        playbook: PlaybookName,
        /// Its inputs: a map.
        inputs: ValueTemplate,
    },
    /// Taking back what another step did.
    Undo {
        /// The index of that step.
        step: usize,
    },
}

impl Uses {
    /// What `uses` says: an action's name, or the catalogue's for it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Action(call) => call.alias.as_ref().map_or(call.action.as_str(), |(name, _)| name),
            Self::Wait(_) => crate::actions::WAIT,
            Self::Approval(_) => crate::actions::APPROVAL,
            Self::Playbook { .. } => crate::actions::PLAYBOOK,
            Self::Undo { .. } => crate::actions::UNDO,
        }
    }
}

/// An action with its parameters.
#[derive(Debug)]
pub struct Call {
    /// The worker's action.
    pub action: ActionName,
    /// The catalogue's name for it, and what `inputs` is in the catalogue's templates: a map, rendered first.
    pub alias: Option<(String, ValueTemplate)>,
    /// Its parameters: a map.
    pub with: ValueTemplate,
    /// Environment for `exec`, each value a template that may hold secrets.
    pub env: ValueTemplate,
}

/// How attempts are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Whether repeating is harmless: the action's word, or the step's `idempotent:`.
    pub idempotent: bool,
    /// How failed attempts are repeated.
    pub retry: Retry,
    /// What an unknown outcome leads to.
    pub on_unknown: OnUnknown,
}

/// The items of a step.
#[derive(Debug)]
pub struct Foreach {
    /// CEL; a list.
    pub items: Expression,
    /// How many are under way at once; at least 1.
    pub max_parallel: u32,
    /// Whether no further item begins once one has failed.
    pub fail_fast: bool,
}

/// A condition that is looked at again and again.
#[derive(Debug)]
pub struct Until {
    /// CEL over `result` and the rest.
    pub condition: Expression,
    /// How long to wait between two looks.
    pub every: Duration,
    /// Within what time it must hold.
    pub within: Duration,
}

/// How a step is verified.
#[derive(Debug)]
pub struct Verify {
    /// What finds out; executed again and again.
    pub call: Call,
    /// The limit for each attempt.
    pub timeout: Duration,
    /// What must hold.
    pub until: Until,
}

/// How a step is taken back.
#[derive(Debug)]
pub struct Undo {
    /// What takes it back.
    pub call: Call,
    /// How its attempts are repeated.
    pub policy: Policy,
    /// The limit for each attempt.
    pub timeout: Duration,
    /// After what time it is taken back by itself.
    pub after: Option<Duration>,
}

/// A question to people.
#[derive(Debug)]
pub struct Approval {
    /// The question.
    pub prompt: Template,
    /// Who may decide: people, or groups as `group:name`. Empty: everybody.
    pub from: Vec<String>,
    /// How many must agree; at least 1.
    pub quorum: u32,
    /// Whether whoever started the run may decide.
    pub allow_self: bool,
    /// What follows when nobody decided in time.
    pub on_timeout: OnTimeout,
    /// Who is told after what time without a decision.
    pub escalate: Vec<NotifyAfter>,
}

/// What follows when nobody decided in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnTimeout {
    /// The step fails.
    #[default]
    Deny,
    /// The step succeeds.
    Approve,
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
    /// An event.
    Event(Awaited),
}

/// An event that is waited for.
#[derive(Debug)]
pub struct Awaited {
    /// What it comes as: `nats` or `alertmanager`.
    pub on: TriggerOn,
    /// CEL over `event`, `alert` and what a step can name; only where it is true has the event come.
    pub condition: Option<Expression>,
}

/// How failed attempts are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// All attempts, the first included; at least 1.
    pub max_attempts: u32,
    /// The longest first delay.
    #[serde(rename = "initial_interval_ms", with = "crate::time::whole_millis")]
    pub initial_interval: Duration,
    /// What the delay is multiplied by for each further attempt; at least 1.
    pub backoff: f64,
    /// The longest delay of all.
    #[serde(rename = "max_interval_ms", with = "crate::time::whole_millis")]
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
    /// The step's verification tells.
    Verify,
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
