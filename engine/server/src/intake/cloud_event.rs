//! CloudEvents 1.0, structured and binary, and plain JSON, as they come over NATS or HTTP.

use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value;
use stanch_core::event::Event;
use stanch_playbook::Timestamp;

use super::{Unreadable, describe, is_of_another_shape};

/// The type of a message that is no CloudEvent.
const PLAIN: &str = "stanch.message";
/// The longest id, source, type and subject.
const LONGEST: usize = 1024;
/// Sources that the engine itself uses: whoever could use them could have a schedule's tick or a person's request taken
/// for one that was seen before.
const OWN_SOURCES: [&str; 2] = ["schedule", "api"];

/// What a message that is no CloudEvent is taken to be.
#[derive(Debug, Clone)]
pub(crate) struct Fallback {
    /// Its id, unique within the source.
    pub id: String,
    /// Where it came from.
    pub source: String,
    /// What it came in on.
    pub subject: String,
    /// When it came.
    pub time: Timestamp,
}

/// Reads an event: structured where the content type or `specversion` in the body says so, binary where there are `ce-`
/// headers, and else plain JSON, whose identity is the fallback's. `headers` gives a header's value, whatever the case of
/// its name.
///
/// # Errors
/// [`Unreadable`].
pub(crate) fn cloud_event(
    headers: impl Fn(&str) -> Option<String>,
    body: &[u8],
    fallback: Fallback,
) -> Result<Event, Unreadable> {
    let event = read(headers, body, fallback)?;
    if OWN_SOURCES.contains(&&*event.source) {
        let reason = format!("the source {} is stanch's own; give the event another one", event.source);
        return Err(Unreadable::new("event.reserved-source", reason));
    }
    Ok(event)
}

/// Reads an event that the engine itself had made: the one kind that may have a source of its own.
///
/// # Errors
/// [`Unreadable`].
pub(crate) fn own_event(body: &[u8], fallback: Fallback) -> Result<Event, Unreadable> {
    read(|_| None, body, fallback)
}

fn read(headers: impl Fn(&str) -> Option<String>, body: &[u8], fallback: Fallback) -> Result<Event, Unreadable> {
    let content_type = headers("content-type").unwrap_or_default().trim().to_ascii_lowercase();
    if content_type.starts_with("application/cloudevents-batch") {
        let reason = "batches of CloudEvents are not taken; send each on its own";
        return Err(Unreadable::new("event.batch", reason));
    }
    if content_type.starts_with("application/cloudevents") {
        return structured(body, fallback);
    }
    if headers("ce-specversion").is_some() {
        return binary(headers, &content_type, body, fallback);
    }
    let data = json(body)?;
    if data.get("specversion").is_some_and(Value::is_string) {
        return structured(body, fallback);
    }
    Ok(Event {
        id: fallback.id.into(),
        source: fallback.source.into(),
        kind: PLAIN.into(),
        time: fallback.time,
        subject: Some(fallback.subject.into()),
        data,
    })
}

#[derive(Deserialize)]
struct Structured {
    specversion: String,
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    time: Option<String>,
    subject: Option<String>,
    datacontenttype: Option<String>,
    #[serde(default)]
    data: Value,
    data_base64: Option<String>,
}

fn structured(body: &[u8], fallback: Fallback) -> Result<Event, Unreadable> {
    let event: Structured = serde_json::from_slice(body).map_err(|error| {
        let code = if is_of_another_shape(&error) { "event.invalid-cloudevent" } else { "event.invalid-json" };
        Unreadable::new(code, describe(&error))
    })?;
    let data = match event.data_base64 {
        None => event.data,
        Some(text) => {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(&text)
                .map_err(|error| invalid("data_base64", &error.to_string()))?;
            data_of(event.datacontenttype.as_deref().unwrap_or_default(), &bytes)?
        }
    };
    Attributes {
        version: event.specversion,
        id: event.id,
        source: event.source,
        kind: event.kind,
        time: event.time,
        subject: event.subject,
    }
    .event(data, fallback)
}

fn binary(
    headers: impl Fn(&str) -> Option<String>,
    content_type: &str,
    body: &[u8],
    fallback: Fallback,
) -> Result<Event, Unreadable> {
    let attribute = |name: &str| -> Result<Option<String>, Unreadable> {
        let Some(text) = headers(&format!("ce-{name}")) else { return Ok(None) };
        match percent_encoding::percent_decode_str(&text).decode_utf8() {
            Ok(text) => Ok(Some(text.into_owned())),
            Err(_) => Err(invalid(&format!("ce-{name}"), "what its percent signs encode is not UTF-8")),
        }
    };
    let required = |name: &str| attribute(name)?.ok_or_else(|| invalid(&format!("ce-{name}"), "it is missing"));
    let attributes = Attributes {
        version: required("specversion")?,
        id: required("id")?,
        source: required("source")?,
        kind: required("type")?,
        time: attribute("time")?,
        subject: attribute("subject")?,
    };
    let data = data_of(content_type, body)?;
    attributes.event(data, fallback)
}

struct Attributes {
    version: String,
    id: String,
    source: String,
    kind: String,
    time: Option<String>,
    subject: Option<String>,
}

impl Attributes {
    fn event(self, data: Value, fallback: Fallback) -> Result<Event, Unreadable> {
        if !self.version.starts_with("1.") {
            return Err(invalid("specversion", "1.0 is expected"));
        }
        for (name, value) in [("id", &self.id), ("source", &self.source), ("type", &self.kind)] {
            if value.is_empty() || value.len() > LONGEST {
                return Err(invalid(name, "1 to 1024 bytes are expected"));
            }
        }
        if self.subject.as_ref().is_some_and(|subject| subject.len() > LONGEST) {
            return Err(invalid("subject", "at most 1024 bytes are expected"));
        }
        let time = match &self.time {
            Some(time) => Timestamp::parse(time).map_err(|error| invalid("time", &error.to_string()))?,
            None => fallback.time,
        };
        Ok(Event {
            id: self.id.into(),
            source: self.source.into(),
            kind: self.kind.into(),
            time,
            subject: Some(self.subject.unwrap_or(fallback.subject).into()),
            data,
        })
    }
}

/// The content of an event as a value: JSON where it is said or left open, else text, or base64 where it is no text.
fn data_of(content_type: &str, bytes: &[u8]) -> Result<Value, Unreadable> {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    if media.is_empty() || media.ends_with("/json") || media.ends_with("+json") {
        return json(bytes);
    }
    Ok(match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
    })
}

fn json(bytes: &[u8]) -> Result<Value, Unreadable> {
    serde_json::from_slice(bytes).map_err(|error| Unreadable::new("event.invalid-json", describe(&error)))
}

fn invalid(name: &str, reason: &str) -> Unreadable {
    Unreadable::new("event.invalid-cloudevent", format!("{name}: {reason}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fallback() -> Fallback {
        Fallback {
            id: "7".to_owned(),
            source: "nats/EVENTS".to_owned(),
            subject: "sec.ioc".to_owned(),
            time: Timestamp::from_millis(5),
        }
    }

    fn with(headers: &[(&str, &str)], body: &[u8]) -> Result<Event, Unreadable> {
        let header = |name: &str| {
            let found = headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| (*value).to_owned())
        };
        cloud_event(header, body, fallback())
    }

    /// The headers and the payload of an HPUB or PUB as it went over the wire.
    fn parse_wire(sent: &str) -> (Vec<(String, String)>, Vec<u8>) {
        let (command, rest) = sent.split_once("\r\n").unwrap();
        let words: Vec<&str> = command.split(' ').collect();
        let head = if words[0] == "HPUB" { words[words.len() - 2].parse().unwrap() } else { 0 };
        let headers = rest[..head].lines().skip(1).filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        (headers, rest[head..].trim_end_matches("\r\n").as_bytes().to_vec())
    }

    #[test]
    fn the_captured_messages_are_read() {
        let path = format!("{}/../../tests/fixtures/alertmanager/nats-messages.json", env!("CARGO_MANIFEST_DIR"));
        let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let mut cloud_events = 0;
        for message in file["messages"].as_array().unwrap() {
            let sent = message["sent"].as_str().unwrap();
            if sent.contains("\\x") {
                continue;
            }
            let (headers, body) = parse_wire(sent);
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
            match with(&headers, &body) {
                Ok(event) if &*event.kind != PLAIN => {
                    assert!(["/alertmanager/eu-west", "/x"].contains(&&*event.source), "{event:?}");
                    cloud_events += 1;
                }
                Ok(_) | Err(_) => println!("{}: no CloudEvent", message["name"]),
            }
        }
        assert!(cloud_events >= 3, "{cloud_events}");
    }

    #[test]
    fn structured_is_known_by_content_type_or_by_the_body_alone() {
        let body = json!({"specversion": "1.0", "id": "a", "source": "/s", "type": "t", "data": {"x": 1},
                          "time": "2026-11-21T01:56:59.766Z", "extension": "ignored"})
        .to_string();
        let typed = [("Content-Type", "application/cloudevents+json; charset=utf-8")];
        for headers in [&[][..], &typed[..], &[("content-type", "application/json")][..]] {
            let event = with(headers, body.as_bytes()).unwrap();
            assert_eq!((&*event.id, &*event.source, &*event.kind, event.data["x"].as_i64()), ("a", "/s", "t", Some(1)));
            assert_eq!(event.subject.as_deref(), Some("sec.ioc"));
        }
    }

    #[test]
    fn binary_attributes_are_percent_decoded_and_of_any_case() {
        let headers = [
            ("CE-SpecVersion", "1.0"),
            ("ce-id", "%E2%82%AC-1"),
            ("ce-source", "/s"),
            ("ce-type", "t"),
            ("ce-subject", "db%2D01"),
            ("content-type", "text/plain"),
        ];
        let event = with(&headers, b"hello").unwrap();
        assert_eq!((&*event.id, event.subject.as_deref(), &event.data), ("€-1", Some("db-01"), &json!("hello")));
    }

    #[test]
    fn plain_json_has_the_identity_of_its_fallback() {
        let event = with(&[], b"{\"host\": \"db-01\"}").unwrap();
        assert_eq!((&*event.id, &*event.source, &*event.kind), ("7", "nats/EVENTS", PLAIN));
        assert_eq!((event.data, event.time), (json!({"host": "db-01"}), Timestamp::from_millis(5)));
    }

    #[test]
    fn base64_data_is_decoded_by_its_type() {
        let body = json!({"specversion": "1.0", "id": "a", "source": "/s", "type": "t", "data_base64": "eyJ4IjoxfQ==",
                          "datacontenttype": "application/json"});
        assert_eq!(with(&[], body.to_string().as_bytes()).unwrap().data, json!({"x": 1}));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        type Headers<'a> = &'a [(&'a str, &'a str)];
        let structured = |change: Value| {
            let mut body = json!({"specversion": "1.0", "id": "a", "source": "/s", "type": "t"});
            body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            body.to_string().into_bytes()
        };
        let cloud_events = [("content-type", "application/cloudevents+json")];
        let cases: [(Headers<'_>, Vec<u8>, &str); 11] = [
            (&[], b"hello".to_vec(), "event.invalid-json"),
            (&[], Vec::new(), "event.invalid-json"),
            (&[], b"\xff\xfe".to_vec(), "event.invalid-json"),
            (&[], "[".repeat(100_000).into_bytes(), "event.invalid-json"),
            (&cloud_events, b"{}".to_vec(), "event.invalid-cloudevent"),
            (&[], structured(json!({"id": ""})), "event.invalid-cloudevent"),
            (&[], structured(json!({"time": "yesterday"})), "event.invalid-cloudevent"),
            (&[], structured(json!({"specversion": "0.3"})), "event.invalid-cloudevent"),
            (&[("ce-specversion", "1.0")], b"{}".to_vec(), "event.invalid-cloudevent"),
            (&[("content-type", "application/cloudevents-batch+json")], b"[]".to_vec(), "event.batch"),
            (&[], structured(json!({"source": "schedule"})), "event.reserved-source"),
        ];
        for (headers, body, code) in cases {
            let unreadable = with(headers, &body).unwrap_err();
            assert_eq!(unreadable.code, code, "{}", unreadable.reason);
        }
    }
}
