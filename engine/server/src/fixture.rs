//! What comes in, from a file: read as the engine reads it, for tools that look at playbooks without one.

use serde_json::Value;
use stanch_core::alert::AlertChange;
use stanch_core::event::Event;
use stanch_playbook::Timestamp;

use crate::intake::{self, Unreadable};

/// The content of a fixture.
#[derive(Debug, Clone)]
pub enum Fixture {
    /// The body of an Alertmanager webhook.
    Alerts {
        /// Its alerts, in its order.
        changes: Vec<AlertChange>,
        /// Why one of them could not be read.
        unreadable: Option<String>,
    },
    /// An event, and the subject that triggers are matched against.
    Event {
        /// The event.
        event: Event,
        /// The subject.
        subject: String,
    },
}

/// Why a file is no fixture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FixtureError {
    /// It is none of what can come in.
    #[error("{reason}")]
    Unreadable {
        /// Stable, such as `alertmanager.invalid-json`.
        code: &'static str,
        /// One sentence with the place.
        reason: String,
    },
    /// An event that came in on no subject.
    #[error("it does not say on which subject it came in")]
    NoSubject,
}

impl From<Unreadable> for FixtureError {
    fn from(Unreadable { code, reason }: Unreadable) -> Self {
        Self::Unreadable { code, reason }
    }
}

/// Reads a file: an Alertmanager body from the cluster `source`, a `CloudEvent`, or plain JSON that came in on a
/// subject. Where a subject is given, it is the one that the event came in on.
///
/// # Errors
/// [`FixtureError`].
pub fn read(body: &[u8], source: &str, subject: Option<&str>, now: Timestamp) -> Result<Fixture, FixtureError> {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    let has = |key: &str| value.as_ref().is_some_and(|value| value.get(key).is_some());
    if subject.is_none() && has("alerts") && !has("specversion") {
        let delivery = intake::alerts(source, body)?;
        return Ok(Fixture::Alerts {
            changes: delivery.changes,
            unreadable: delivery.bad.map(|unreadable| unreadable.reason),
        });
    }
    let own = value.as_ref().and_then(|value| value.get("specversion").and(value.get("subject"))?.as_str());
    let Some(subject) = subject.or(own).map(str::to_owned) else {
        // What is no JSON says so first.
        intake::cloud_event(|_| None, body, fallback("", now))?;
        return Err(FixtureError::NoSubject);
    };
    let event = intake::cloud_event(|_| None, body, fallback(&subject, now))?;
    Ok(Fixture::Event { event, subject })
}

fn fallback(subject: &str, now: Timestamp) -> intake::Fallback {
    intake::Fallback { id: "fixture".to_owned(), source: "nats".to_owned(), subject: subject.to_owned(), time: now }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: &str, subject: Option<&str>) -> Result<Fixture, FixtureError> {
        super::read(body.as_bytes(), "eu", subject, Timestamp::EPOCH)
    }

    #[test]
    fn what_a_file_is_is_told_from_its_content() {
        let alerts =
            r#"{"alerts": [{"status": "firing", "labels": {"a": "b"}, "startsAt": "2026-11-21T01:56:59Z"}, {}]}"#;
        match read(alerts, None).unwrap() {
            Fixture::Alerts { changes, unreadable } => {
                assert_eq!((changes.len(), &*changes[0].alert.key.source), (1, "eu"));
                assert!(unreadable.unwrap().starts_with("alerts[1]: "));
            }
            Fixture::Event { .. } => panic!("alerts are no event"),
        }
        let event =
            r#"{"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "subject": "own", "data": {"x": 1}}"#;
        for (body, given, expected) in
            [(event, None, "own"), (event, Some("a.b"), "a.b"), ("{\"x\": 1}", Some("a.b"), "a.b")]
        {
            match read(body, given).unwrap() {
                Fixture::Event { event, subject } => {
                    assert_eq!((subject.as_str(), &event.data), (expected, &json!({"x": 1})))
                }
                Fixture::Alerts { .. } => panic!("an event is no alerts"),
            }
        }
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        assert_eq!(read("{\"x\": 1}", None).unwrap_err(), FixtureError::NoSubject);
        for (body, code) in [
            ("{", "event.invalid-json"),
            ("{\"alerts\": {}}", "alertmanager.invalid-body"),
            ("{\"specversion\": \"1.0\", \"subject\": \"s\"}", "event.invalid-cloudevent"),
        ] {
            assert!(
                matches!(read(body, None), Err(FixtureError::Unreadable { code: found, .. }) if found == code),
                "{body}: {:?}",
                read(body, None)
            );
        }
    }
}
