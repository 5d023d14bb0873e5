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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stanch_playbook::Timestamp;

    use super::*;

    /// JSON of any shape, with the keys that intake looks at.
    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".{0,12}".prop_map(Into::into),
            Just("firing".into()),
            Just("resolved".into()),
            Just("1.0".into()),
            Just("2026-11-21T01:56:59.766Z".into()),
            Just("0001-01-01T00:00:00Z".into()),
        ];
        let keys = "alerts|status|labels|annotations|startsAt|endsAt|fingerprint|truncatedAlerts|specversion|id|source|\
                    type|time|subject|data|data_base64|datacontenttype|.{0,3}";
        leaf.prop_recursive(4, 40, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::hash_map(keys, inner, 0..9).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    fn read(body: &[u8]) -> Result<(), TestCaseError> {
        if let Ok(delivery) = alerts("eu", body) {
            for change in &delivery.changes {
                prop_assert!(!change.alert.key.fingerprint.is_empty());
            }
        }
        let fallback =
            || Fallback { id: "1".to_owned(), source: "s".to_owned(), subject: "x".to_owned(), time: Timestamp::EPOCH };
        for mode in ["application/cloudevents+json", "application/json", "text/plain", ""] {
            let header = |name: &str| match name {
                "content-type" => Some(mode.to_owned()),
                _ if mode == "text/plain" => Some("1.0%ff".to_owned()),
                _ => None,
            };
            if let Ok(event) = cloud_event(header, body, fallback()) {
                prop_assert!(!event.id.is_empty() && !event.source.is_empty() && !event.kind.is_empty());
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            read(&body)?;
        }

        #[test]
        fn json_of_any_shape_is_read_or_refused(value in json(), cut in any::<prop::sample::Index>()) {
            let text = value.to_string();
            read(text.as_bytes())?;
            read(&text.as_bytes()[..cut.index(text.len())])?;
        }

        #[test]
        fn a_text_is_cut_between_its_characters(text in ".{0,40}", most in 0..40usize) {
            let cut = shorten(&text, most);
            prop_assert!(cut == text || cut.chars().count() == most + 1);
        }
    }
}
