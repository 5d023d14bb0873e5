//! What came in: alerts, events, and what could not be read.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stanch_playbook::Timestamp;

use crate::alert::{AlertKey, AlertSnapshot};
use crate::event::Event;
use crate::id::DeadLetterId;

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

/// An alert fires: for the first time, anew, or again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AlertFired {
    /// The alert as it came.
    pub alert: Arc<AlertSnapshot>,
    /// What kind of firing.
    pub firing: Firing,
}

/// An alert no longer fires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AlertResolved {
    /// Which alert.
    pub alert: AlertKey,
    /// When it ended, by its sender.
    pub ends_at: Option<Timestamp>,
}

/// An event other than an alert came in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventReceived {
    /// The event.
    pub event: Arc<Event>,
}

/// What came in could not be read.
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

/// A dead letter was given to intake again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetterReplayed {
    /// Which.
    pub id: DeadLetterId,
}

/// Standard base64 with padding.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
