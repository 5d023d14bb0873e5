//! What the core decides and the journal keeps. Past tense; only ever added to.
//!
//! A record is a [`Record`]: place, time, who, and a [`Body`]. The journal splits it into an envelope (what is
//! hashed and chained) and a payload (the body's fields, which can be deleted without breaking the chain).

mod approval;
mod attempt;
mod containment;
mod engine;
mod hold;
mod incident;
mod intake;
mod run;
mod step;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stanch_playbook::Timestamp;

use crate::id::{RunId, Sequence};

pub use self::approval::{ApprovalDecided, ApprovalEscalated, ApprovalRequested, ApprovalTarget, Verdict};
pub use self::attempt::{
    AttemptFailed, AttemptLate, AttemptScheduled, AttemptSucceeded, AttemptUnknown, RenderedCall, Then, Unsettled,
    Verification,
};
pub use self::containment::{ContainmentEnded, ContainmentExtended, ContainmentStarted, UndoRequested};
pub use self::engine::{Budget, EngineStarted, EngineStopped, PlaybookLoaded, PlaybookRemoved, Settings};
pub use self::hold::{
    ClockAgreed, ClockJumped, Frozen, MaintenanceEnded, MaintenancePlanned, Unfrozen, WatchdogBarked,
};
pub use self::incident::{
    IncidentAcknowledged, IncidentEscalated, IncidentJoined, IncidentMerged, IncidentNoted, IncidentOpened,
    IncidentReopened, IncidentResolved, IncidentSettled, IncidentSettling, IncidentTaken, IncidentUpdateDue,
};
pub use self::intake::{
    AlertFired, AlertResolved, DeadLetter, DeadLetterReplayed, DeadLettered, EventReceived, Firing, base64,
};
pub use self::run::{
    Cause, Held, Parent, PlaybookObserved, RunCancelRequested, RunExtended, RunFinished, RunHoldEnded, RunOutcome,
    RunRecovering, RunReleased, RunStarted,
};
pub use self::step::{
    Answer, Ending, ItemsEnded, ItemsFailure, ItemsStarted, StepAnswered, StepEnded, StepWaiting, StepWoken, Waiting,
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
    ($($kind:ident,)*) => {
        /// What happened, by kind.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Body {
            $(#[doc = concat!("See [`", stringify!($kind), "`].")] $kind($kind),)*
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
    EngineStarted,
    EngineStopped,
    PlaybookLoaded,
    PlaybookRemoved,
    AlertFired,
    AlertResolved,
    EventReceived,
    DeadLettered,
    DeadLetterReplayed,
    IncidentOpened,
    IncidentJoined,
    IncidentSettling,
    IncidentReopened,
    IncidentAcknowledged,
    IncidentResolved,
    RunStarted,
    RunReleased,
    RunCancelRequested,
    RunFinished,
    AttemptScheduled,
    AttemptSucceeded,
    AttemptFailed,
    AttemptUnknown,
    AttemptLate,
    StepWaiting,
    StepWoken,
    StepEnded,
    StepAnswered,
    ItemsStarted,
    ItemsEnded,
    ContainmentStarted,
    ContainmentExtended,
    UndoRequested,
    ContainmentEnded,
    ApprovalRequested,
    ApprovalEscalated,
    ApprovalDecided,
    RunExtended,
    RunHoldEnded,
    RunRecovering,
    IncidentSettled,
    IncidentEscalated,
    IncidentUpdateDue,
    IncidentTaken,
    IncidentNoted,
    IncidentMerged,
    PlaybookObserved,
    Frozen,
    Unfrozen,
    MaintenancePlanned,
    MaintenanceEnded,
    WatchdogBarked,
    ClockJumped,
    ClockAgreed,
}

/// See [`Body::Redacted`].
#[derive(Clone, Debug, PartialEq)]
pub struct Redacted {
    /// The kind that the envelope still names.
    pub kind: String,
    /// The run it was about, where the envelope names one.
    pub run: Option<RunId>,
}
