//! The words for what stands in records.

use std::time::Duration;

use serde_json::Value;
use stanch_core::record::{Ending, Record, Verification};
use stanch_playbook::{StepKey, Timestamp};

use crate::format;
use crate::terminal::cut;

/// What of an action's result says most, in one line; not yet inert.
pub fn gist(action: &str, output: &Value) -> String {
    let text = |key: &str| output.get(key).and_then(Value::as_str).map(first_line).filter(|text| !text.is_empty());
    match action {
        "log" => text("message").unwrap_or_default(),
        "exec" => text("stdout").or_else(|| text("stderr")).unwrap_or_else(|| match output.get("exit_code") {
            Some(code) => format!("exit code {code}"),
            None => String::new(),
        }),
        "http" => output.get("status").map(|status| format!("status {status}")).unwrap_or_default(),
        "slack" => text("channel").map(|channel| format!("posted to {channel}")).unwrap_or_else(|| "posted".to_owned()),
        _ => match output {
            Value::Null => String::new(),
            Value::Object(map) if map.is_empty() => String::new(),
            other => cut(&other.to_string(), 200),
        },
    }
}

pub(super) fn first_line(text: &str) -> String {
    let mut lines = text.trim().lines();
    let first = lines.next().unwrap_or_default().to_owned();
    if lines.next().is_some() { first + " …" } else { first }
}

pub(super) fn name_of(step: &str) -> &str {
    step.split_once('.').map_or(step, |(_, name)| name)
}

/// A duration to the second where it is one, since records and playbooks are exact.
pub(super) fn whole(length: Duration) -> String {
    let rounded = Duration::from_millis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
    match rounded.as_millis() {
        millis if (1_000..60_000).contains(&millis) && millis % 1_000 == 0 => format!("{} s", millis / 1_000),
        _ => format::duration(rounded),
    }
}

/// A step by its name alone, or an item of it.
pub fn place(step: &StepKey, item: Option<u32>) -> String {
    let name = name_of(step.as_str());
    item.map_or_else(|| name.to_owned(), |item| format!("{name}[{item}]"))
}

/// How a step is verified, in words.
pub(super) fn looks_of(verification: &Verification, at: Timestamp) -> String {
    let (every, within) = (whole(verification.every), whole(verification.deadline.since(at)));
    format!("{} looks every {every}, for {within} at most", verification.call.action)
}

pub(super) const fn ended(ending: Ending) -> &'static str {
    match ending {
        Ending::Skipped => "skipped",
        Ending::Blocked => "blocked",
        Ending::Cancelled => "cancelled",
        Ending::Failed => "failed",
        Ending::Tolerated => "tolerated",
    }
}

/// Whether a state of an item is one in which something goes on.
pub(super) fn is_live(state: &str) -> bool {
    matches!(state, "running" | "backoff" | "verifying" | "waiting" | "unknown")
}

pub(super) fn person(record: &Record) -> String {
    let actor = record.actor.as_str();
    actor.strip_prefix("person:").unwrap_or(actor).to_owned()
}
