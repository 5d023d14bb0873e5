//! What comes in, read: bodies become changes of alerts or events, or a reason why they cannot.
//!
//! Absent: HTTP and NATS types, and anything durable. Input of any shape gives a value or an [`Unreadable`].

mod alertmanager;
mod cloud_event;

pub(crate) use alertmanager::alerts;
pub(crate) use cloud_event::{Fallback, cloud_event, own_event};

use serde_json::error::Category;

/// How much of a parser's message is kept: it may repeat what came in.
const REASON: usize = 200;

/// Why something that came in is no alert and no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// Stable, such as `alertmanager.invalid-json`.
    pub code: &'static str,
    /// One sentence with the place. It may repeat what came in, so it goes into the dead letter and nowhere else.
    pub reason: String,
}

impl Unreadable {
    pub(crate) fn new(code: &'static str, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// What serde says, with the place, and of a bounded length.
fn describe(error: &serde_json::Error) -> String {
    shorten(&error.to_string(), REASON)
}

/// At most so many characters, with an ellipsis where something was cut.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Whether the bytes are JSON of another shape than was asked for (and not something that is no JSON).
fn is_of_another_shape(error: &serde_json::Error) -> bool {
    error.classify() == Category::Data
}
