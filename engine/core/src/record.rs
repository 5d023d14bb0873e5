//! What the core decides and the journal keeps. Past tense; only ever added to.
//!
//! A record is a [`Record`]: place, time, who, and a [`Body`]. The journal splits it into an envelope (what is
//! hashed and chained) and a payload (the body's fields, which can be deleted without breaking the chain).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stanch_playbook::plan::{Escalation, NotifyAfter, Policy};
use stanch_playbook::{ActionName, PlanDigest, PlaybookName, Severity, StepKey, Timestamp};

use crate::alert::{AlertKey, AlertSnapshot};
use crate::attempt::{AttemptId, IdempotencyKey};
use crate::event::Event;
use crate::id::{
    ApprovalId, ContainmentId, DeadLetterId, Epoch, IncidentId, JournalId, MaintenanceId, RunId, Sequence,
};
pub use crate::outline::Outline;

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its place.
    pub sequence: Sequence,
    /// When it was decided; never before the record that precedes it.
    pub time: Timestamp,
    /// Who caused it.
    pub actor: Actor,
    /// What happened.
    pub body: Body,
}

/// Who caused a record: `engine`, `source:<name>` for a sender of events, `person:<name>`.
#[derive(Clone, PartialEq, Eq, Debug, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Actor(Arc<str>);

impl Actor {
    /// The engine itself: timers, recovery, results of its own workers.
    #[must_use]
    pub fn engine() -> Self {
        Self("engine".into())
    }

    /// A sender of events.
    #[must_use]
    pub fn source(name: &str) -> Self {
        Self(format!("source:{name}").into())
    }

    /// A person, by the name under which they were authenticated (`local` on loopback).
    #[must_use]
    pub fn person(name: &str) -> Self {
        Self(format!("person:{name}").into())
    }

    /// As it is written in records.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An actor as a record has it.
    #[must_use]
    pub fn from_record(text: &str) -> Self {
        Self(text.into())
    }
}

/// A payload that does not fit its kind: damaged, or written by a newer version.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// This version does not know the kind.
    #[error("unknown record kind {0:?}; a newer stanch wrote it")]
    UnknownKind(String),
    /// The payload is not of its kind's shape.
    #[error("payload of {kind} does not decode")]
    Payload {
        /// The kind.
        kind: &'static str,
        /// What serde said.
        #[source]
        source: serde_json::Error,
    },
}

macro_rules! bodies {
    ($($(#[$doc:meta])* $kind:ident,)*) => {
        /// What happened, by kind.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Body {
            $($(#[$doc])* $kind($kind),)*
            /// A record whose payload was deleted (personal data); its envelope still stands in the chain.
            Redacted(Redacted),
        }

        impl Body {
            /// Every kind, in the order of this page.
            pub const KINDS: &'static [&'static str] = &[$(stringify!($kind),)*];

            /// The kind's name as envelopes carry it.
            #[must_use]
            pub fn kind(&self) -> &str {
                match self {
                    $(Self::$kind(_) => stringify!($kind),)*
                    Self::Redacted(redacted) => &redacted.kind,
                }
            }

            /// The payload: the body's fields as JSON.
            #[must_use]
            pub fn payload(&self) -> Vec<u8> {
                match self {
                    $(Self::$kind(body) => serde_json::to_vec(body).expect("bodies have text keys alone"),)*
                    Self::Redacted(_) => Vec::new(),
                }
            }

            /// A body from its kind and payload.
            ///
            /// # Errors
            /// [`DecodeError`] where this version does not know the kind or the payload is not of its shape.
            pub fn decode(kind: &str, payload: &[u8]) -> Result<Self, DecodeError> {
                match kind {
                    $(stringify!($kind) => serde_json::from_slice(payload)
                        .map(Self::$kind)
                        .map_err(|source| DecodeError::Payload { kind: stringify!($kind), source }),)*
                    _ => Err(DecodeError::UnknownKind(kind.to_owned())),
                }
            }

            /// The JSON Schema of each kind's payload.
            pub fn schemas(generator: &mut schemars::SchemaGenerator) -> Vec<(&'static str, schemars::Schema)> {
                vec![$((stringify!($kind), generator.subschema_for::<$kind>()),)*]
            }
        }

        $(impl From<$kind> for Body {
            fn from(body: $kind) -> Self {
                Self::$kind(body)
            }
        })*
    };
}

bodies! {
    /// An engine took the journal.
    EngineStarted,
    /// An engine ended in good order.
    EngineStopped,
    /// A playbook's plan became the one that new runs use.
    PlaybookLoaded,
    /// A playbook is no longer there for new runs.
    PlaybookRemoved,
    /// An alert fires: for the first time, anew, or again.
    AlertFired,
    /// An alert no longer fires.
    AlertResolved,
    /// An event other than an alert came in.
    EventReceived,
    /// What came in could not be read.
    DeadLettered,
    /// A dead letter was given to intake again.
    DeadLetterReplayed,
    /// Something to respond to came up.
    IncidentOpened,
    /// An alert became part of an open incident.
    IncidentJoined,
    /// All alerts of an incident are resolved; it closes at the given time unless one fires again.
    IncidentSettling,
    /// An incident that was resolved or settling is open again.
    IncidentReopened,
    /// A person took notice.
    IncidentAcknowledged,
    /// An incident is over.
    IncidentResolved,
    /// A run came to be.
    RunStarted,
    /// A queued run may go on.
    RunReleased,
    /// Someone asked for a run to end early.
    RunCancelRequested,
    /// A run is over.
    RunFinished,
    /// An attempt is claimed: from here on it may have happened.
    AttemptScheduled,
    /// An attempt did what it was for.
    AttemptSucceeded,
    /// An attempt is known not to have happened, or was refused.
    AttemptFailed,
    /// Nobody knows whether an attempt happened.
    AttemptUnknown,
    /// A result came for an attempt that no longer counted.
    AttemptLate,
    /// A step waits for a time or for its alerts to settle.
    StepWaiting,
    /// A waiting step's condition came true.
    StepWoken,
    /// A step ended without an attempt: skipped, blocked, cancelled, or failed before it could start.
    StepEnded,
    /// A person said what became of an unknown attempt.
    StepAnswered,
    /// A step begins on its items.
    ItemsStarted,
    /// All items of a step are over.
    ItemsEnded,
    /// What a step did can be taken back: from here on it is in force.
    ContainmentStarted,
    /// What is in force stays so for longer, or without an end.
    ContainmentExtended,
    /// Containments are to be taken back, in the order named.
    UndoRequested,
    /// A containment is no longer in force, and no attempt of ours ended it.
    ContainmentEnded,
    /// People are asked.
    ApprovalRequested,
    /// Nobody decided in time: more people are told of the question.
    ApprovalEscalated,
    /// A person answered.
    ApprovalDecided,
    /// More became part of a run that has not begun.
    RunExtended,
    /// A run may do what has side effects from now on.
    RunHoldEnded,
    /// The alerts of a run are resolved: what its first three phases have not begun is skipped.
    RunRecovering,
    /// All alerts of an incident have stayed resolved, and runs are under way.
    IncidentSettled,
    /// Nobody took notice of an incident in time: people are told.
    IncidentEscalated,
    /// Those who follow an incident are to be told how it stands.
    IncidentUpdateDue,
    /// A person took an incident on, or gave it to another.
    IncidentTaken,
    /// A person wrote something down.
    IncidentNoted,
    /// An incident became part of another one.
    IncidentMerged,
    /// A playbook that only observes would have started.
    PlaybookObserved,
    /// No step with side effects starts from now on.
    Frozen,
    /// Steps with side effects start again.
    Unfrozen,
    /// Runs for some alerts are held back for a time.
    MaintenancePlanned,
    /// A maintenance window is over before its time.
    MaintenanceEnded,
    /// A schedule's run has not succeeded in time.
    WatchdogBarked,
}

/// See [`Body::Redacted`].
#[derive(Clone, Debug, PartialEq)]
pub struct Redacted {
    /// The kind that the envelope still names.
    pub kind: String,
    /// The run it was about, where the envelope names one.
    pub run: Option<RunId>,
}

/// See [`Body::EngineStarted`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EngineStarted {
    /// The journal's identity; the same in every such record of one journal.
    pub journal: JournalId,
    /// This engine's epoch, one above the last.
    pub epoch: Epoch,
    /// The version of stanch.
    pub version: String,
    /// The settings that decisions depend on from here on.
    pub settings: Settings,
}

/// The settings of `stanch.yaml` that the core decides by. They stand in the record, so that a fold needs no file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Settings {
    /// Where people reach this engine, without a final slash; `run.url` and `incident.url` begin with it.
    pub external_url: Arc<str>,
    /// How long all alerts of an incident must have stayed resolved before it closes, in milliseconds.
    #[serde(with = "stanch_playbook::time::whole_millis")]
    #[schemars(with = "u64")]
    pub settle: Duration,
    /// How much may be done in what time, by the budget's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub budgets: BTreeMap<String, Budget>,
    /// Who is told of an incident that no playbook says it of, and when, by severity.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, Value>")]
    pub escalation: BTreeMap<Severity, Escalation>,
    /// Within what time after its resolution the same episode reopens an incident, in milliseconds.
    #[serde(with = "stanch_playbook::time::whole_millis")]
    #[schemars(with = "u64")]
    pub reopen_within: Duration,
}

/// How much may be done in what time, over all playbooks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Budget {
    /// How many targets.
    pub most: u32,
    /// In what time, in milliseconds.
    #[serde(rename = "per_ms", with = "stanch_playbook::time::whole_millis")]
    #[schemars(with = "u64")]
    pub per: Duration,
    /// Who may approve more; empty: everybody.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            external_url: "http://127.0.0.1:9190".into(),
            settle: Duration::from_secs(30),
            budgets: BTreeMap::new(),
            escalation: BTreeMap::new(),
            reopen_within: Duration::from_secs(15 * 60),
        }
    }
}

/// See [`Body::EngineStopped`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EngineStopped {
    /// Why it ended, such as `SIGTERM`.
    pub reason: String,
}

/// See [`Body::PlaybookLoaded`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlaybookLoaded {
    /// Its name.
    pub playbook: PlaybookName,
    /// The plan's digest.
    pub plan: PlanDigest,
    /// The plan's canonical form, as text.
    pub canonical: Arc<str>,
}

/// See [`Body::PlaybookRemoved`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlaybookRemoved {
    /// Its name.
    pub playbook: PlaybookName,
}

/// How a firing relates to what was known of the alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Firing {
    /// A new episode.
    New,
    /// A new episode so soon after the last that it counts as the same trouble.
    Flap,
    /// The same episode again after it had been reported resolved.
    Again,
}

/// See [`Body::AlertFired`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AlertFired {
    /// The alert as it came.
    pub alert: Arc<AlertSnapshot>,
    /// What kind of firing.
    pub firing: Firing,
}

/// See [`Body::AlertResolved`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AlertResolved {
    /// Which alert.
    pub alert: AlertKey,
    /// When it ended, by its sender.
    pub ends_at: Option<Timestamp>,
}

/// See [`Body::EventReceived`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventReceived {
    /// The event.
    pub event: Arc<Event>,
}

/// See [`Body::DeadLettered`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLettered {
    /// Its id.
    pub id: DeadLetterId,
    /// The letter.
    pub letter: Arc<DeadLetter>,
}

/// Something that came in and could not be read, or an attempt that could not be finished.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetter {
    /// Where it came in: a path such as `/webhooks/alertmanager/eu`, or `nats:<subject>`.
    pub via: String,
    /// Why it could not be read, in one sentence with its place.
    pub reason: String,
    /// A stable code, such as `alertmanager.invalid-json`.
    pub code: String,
    /// The content type, where there was one.
    pub content_type: Option<String>,
    /// The body, base64; cut at the intake's limit.
    pub body: String,
    /// How many bytes came, or at least came before reading ended.
    pub size: u64,
    /// Whether `body` holds all of it.
    pub complete: bool,
}

/// See [`Body::DeadLetterReplayed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetterReplayed {
    /// Which.
    pub id: DeadLetterId,
}

/// See [`Body::IncidentOpened`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentOpened {
    /// Its id.
    pub incident: IncidentId,
    /// Its key, as rendered.
    pub key: Arc<str>,
    /// Its severity.
    pub severity: Severity,
    /// A line for people.
    pub title: Arc<str>,
    /// The alert that opened it; none where an event, a schedule or a person did.
    pub alert: Option<AlertKey>,
    /// How long its alerts must stay resolved, in milliseconds; the configured time by default.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        rename = "settle_ms",
        with = "stanch_playbook::time::optional_millis"
    )]
    #[schemars(with = "Option<u64>")]
    pub settle: Option<Duration>,
    /// Who is told, and when; the first opener's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Value>")]
    pub escalation: Option<Escalation>,
    /// Its Slack channel; the first opener's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack_channel: Option<String>,
}

/// See [`Body::IncidentJoined`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentJoined {
    /// Which.
    pub incident: IncidentId,
    /// The alert that joined.
    pub alert: AlertKey,
    /// The incident's severity from here on; the highest wins.
    pub severity: Severity,
}

/// See [`Body::IncidentSettling`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentSettling {
    /// Which.
    pub incident: IncidentId,
    /// When it closes.
    pub until: Timestamp,
}

/// See [`Body::IncidentReopened`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentReopened {
    /// Which.
    pub incident: IncidentId,
}

/// See [`Body::IncidentAcknowledged`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentAcknowledged {
    /// Which.
    pub incident: IncidentId,
}

/// See [`Body::IncidentResolved`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentResolved {
    /// Which.
    pub incident: IncidentId,
    /// Why, in one sentence.
    pub reason: String,
}

/// What started a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cause {
    /// The event: for an alert its change, in CloudEvents terms.
    pub event: Arc<Event>,
    /// The alerts that it is about; the first is `alert` in templates. Empty where no alert started it.
    pub alerts: Arc<[Arc<AlertSnapshot>]>,
}

/// See [`Body::RunStarted`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunStarted {
    /// Its id.
    pub run: RunId,
    /// The playbook's name.
    pub playbook: PlaybookName,
    /// The plan it is pinned to.
    pub plan: PlanDigest,
    /// The incident it belongs to.
    pub incident: IncidentId,
    /// What started it.
    pub cause: Cause,
    /// Its inputs, checked, defaults filled in: an object.
    pub inputs: Arc<Value>,
    /// Whether it must wait for others of its playbook (`concurrency`).
    pub queued: bool,
    /// The step that it is part of, where another run started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The plans that its sub-playbooks will use, pinned with its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub children: BTreeMap<PlaybookName, PlanDigest>,
    /// Why it does not begin at once, beside `concurrency`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// Until when nothing with side effects starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_until: Option<Timestamp>,
}

/// Why a run does not begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum Held {
    /// More alerts of its key may come (`group_wait`).
    Group {
        /// Until when.
        until: Timestamp,
    },
    /// A maintenance window.
    Maintenance {
        /// Until when.
        until: Timestamp,
        /// The window's reason.
        reason: String,
    },
    /// An earlier run of its playbook in its incident (`on_repeat`).
    Behind {
        /// Which.
        run: RunId,
    },
}

impl Held {
    /// Until when, where a time ends it.
    #[must_use]
    pub const fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Group { until } | Self::Maintenance { until, .. } => Some(*until),
            Self::Behind { .. } => None,
        }
    }
}

/// The step that a run is part of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Parent {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepKey,
    /// The item of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
}

/// See [`Body::RunReleased`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunReleased {
    /// Which.
    pub run: RunId,
}

/// See [`Body::RunCancelRequested`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunCancelRequested {
    /// Which.
    pub run: RunId,
    /// Why, by whoever asked; may be empty.
    pub reason: String,
    /// Whether what it did is taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub undo: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the design's own names")]
pub enum RunOutcome {
    Succeeded,
    Failed,
    Cancelled,
}

impl RunOutcome {
    /// The word of the records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// See [`Body::RunFinished`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunFinished {
    /// Which.
    pub run: RunId,
    /// How.
    pub outcome: RunOutcome,
}

/// See [`Body::AttemptScheduled`].
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

/// See [`Body::AttemptSucceeded`].
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

/// See [`Body::AttemptFailed`].
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

/// See [`Body::AttemptUnknown`].
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

/// See [`Body::AttemptLate`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptLate {
    /// Which attempt.
    pub attempt: AttemptId,
    /// `succeeded`, `failed` or `unknown`: what the late result said. It changes nothing.
    pub outcome: String,
}

/// See [`Body::StepWaiting`].
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

/// See [`Body::StepWoken`].
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

/// See [`Body::StepEnded`].
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

/// See [`Body::StepAnswered`].
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

/// See [`Body::ItemsStarted`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ItemsStarted {
    /// The run.
    pub run: RunId,
    /// The step.
    pub step: StepKey,
    /// The items, in their order.
    pub items: Arc<[Value]>,
}

/// See [`Body::ItemsEnded`].
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

/// See [`Body::ContainmentStarted`].
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

/// See [`Body::ContainmentExtended`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContainmentExtended {
    /// Which.
    pub containment: ContainmentId,
    /// When it is taken back by itself; none: a person must.
    pub until: Option<Timestamp>,
    /// Why, by whoever asked; may be empty.
    pub reason: String,
}

/// See [`Body::UndoRequested`].
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

/// See [`Body::ContainmentEnded`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContainmentEnded {
    /// Which.
    pub containment: ContainmentId,
    /// Why.
    pub reason: String,
}

/// See [`Body::ApprovalRequested`].
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

/// See [`Body::ApprovalEscalated`].
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

/// See [`Body::ApprovalDecided`]. Who, stands in the record's actor.
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

/// See [`Body::RunExtended`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunExtended {
    /// Which.
    pub run: RunId,
    /// What starts it, all together.
    pub cause: Cause,
    /// Its inputs from these.
    pub inputs: Arc<Value>,
}

/// See [`Body::RunHoldEnded`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunHoldEnded {
    /// Which.
    pub run: RunId,
}

/// See [`Body::RunRecovering`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunRecovering {
    /// Which.
    pub run: RunId,
}

/// See [`Body::IncidentSettled`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentSettled {
    /// Which.
    pub incident: IncidentId,
}

/// See [`Body::IncidentEscalated`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentEscalated {
    /// Which.
    pub incident: IncidentId,
    /// People, or groups as `group:name`; empty where the channel alone is told.
    pub people: Vec<String>,
    /// Why, in one sentence.
    pub reason: String,
}

/// See [`Body::IncidentUpdateDue`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentUpdateDue {
    /// Which.
    pub incident: IncidentId,
}

/// See [`Body::IncidentTaken`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentTaken {
    /// Which.
    pub incident: IncidentId,
    /// Who leads it from now on.
    pub owner: Actor,
}

/// See [`Body::IncidentNoted`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentNoted {
    /// Which.
    pub incident: IncidentId,
    /// What was written down.
    pub note: String,
}

/// See [`Body::IncidentMerged`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentMerged {
    /// Which is no incident of its own any more.
    pub incident: IncidentId,
    /// Which it is part of.
    pub into: IncidentId,
}

/// See [`Body::PlaybookObserved`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlaybookObserved {
    /// The playbook's name.
    pub playbook: PlaybookName,
    /// The plan.
    pub plan: PlanDigest,
    /// The key of the incident that it would have belonged to.
    pub key: Arc<str>,
    /// What would have started it.
    pub cause: Cause,
    /// With what inputs.
    pub inputs: Arc<Value>,
}

/// See [`Body::Frozen`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Frozen {
    /// Why.
    pub reason: String,
}

/// See [`Body::Unfrozen`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Unfrozen {
    /// Why; may be empty.
    pub reason: String,
}

/// See [`Body::MaintenancePlanned`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MaintenancePlanned {
    /// Its id.
    pub maintenance: MaintenanceId,
    /// What distinguishes it, where a file declares it: the same declaration makes no second window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub declared: Option<String>,
    /// Alertmanager's matchers, all of which an alert's labels must satisfy.
    pub matchers: Vec<String>,
    /// From when.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// Why.
    pub reason: String,
}

/// See [`Body::MaintenanceEnded`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MaintenanceEnded {
    /// Which.
    pub maintenance: MaintenanceId,
}

/// See [`Body::WatchdogBarked`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WatchdogBarked {
    /// The playbook.
    pub playbook: PlaybookName,
    /// The watchdog's name.
    pub watchdog: String,
    /// The nominal instant whose run has not succeeded.
    pub nominal: Timestamp,
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

/// Standard base64 with padding.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
