//! Webhook bodies: the captured ones, and ones made after their pattern.

use serde_json::{Map, Value, json};

use crate::repository;

/// The bytes of a captured body, by its file's name without `.json`.
///
/// # Panics
/// Where there is none.
#[must_use]
pub fn fixture(name: &str) -> Vec<u8> {
    let path = repository().join("tests/fixtures/alertmanager").join(format!("{name}.json"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A captured body, parsed.
///
/// # Panics
/// Where there is none.
#[must_use]
pub fn fixture_json(name: &str) -> Value {
    serde_json::from_slice(&fixture(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The bodies of a captured sequence's POSTs, in order.
///
/// # Panics
/// Where there is none of that name.
#[must_use]
pub fn sequence(name: &str) -> Vec<Value> {
    let file = fixture_json(name);
    let requests = file["requests"].as_array().expect("a sequence has requests");
    requests.iter().map(|request| request["body"].clone()).filter(Value::is_object).collect()
}

/// A body in the making: alerts of one group, as Alertmanager would send them.
#[derive(Debug, Clone)]
pub struct AlertBody(Value);

impl AlertBody {
    /// One firing alert of these labels; the fingerprint is given, as a sender does.
    #[must_use]
    pub fn firing(fingerprint: &str, labels: &[(&str, &str)]) -> Self {
        let mut body = Self(json!({
            "receiver": "stanch", "status": "firing", "alerts": [],
            "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {},
            "externalURL": "http://host-a:19093", "version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0,
        }));
        body.add("firing", fingerprint, labels);
        body
    }

    /// One resolved alert of these labels.
    #[must_use]
    pub fn resolved(fingerprint: &str, labels: &[(&str, &str)]) -> Self {
        let mut body = Self::firing(fingerprint, labels);
        body.0["status"] = "resolved".into();
        body.0["alerts"] = json!([]);
        body.add("resolved", fingerprint, labels);
        body
    }

    /// With one more firing alert.
    #[must_use]
    pub fn and_firing(mut self, fingerprint: &str, labels: &[(&str, &str)]) -> Self {
        self.add("firing", fingerprint, labels);
        self
    }

    /// With this value in place of each alert's `key`, such as `startsAt`.
    ///
    /// # Panics
    /// Never for a body made here.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        for alert in self.0["alerts"].as_array_mut().expect("a body has alerts") {
            alert[key] = value.clone();
        }
        self
    }

    /// With this annotation on each alert.
    ///
    /// # Panics
    /// Never for a body made here.
    #[must_use]
    pub fn annotated(mut self, name: &str, text: &str) -> Self {
        for alert in self.0["alerts"].as_array_mut().expect("a body has alerts") {
            alert["annotations"][name] = text.into();
        }
        self
    }

    fn add(&mut self, status: &str, fingerprint: &str, labels: &[(&str, &str)]) {
        let labels: Map<String, Value> = labels.iter().map(|&(name, value)| (name.to_owned(), value.into())).collect();
        let ends_at = if status == "firing" { "0001-01-01T00:00:00Z" } else { "2026-11-21T01:57:23.766Z" };
        self.0["alerts"].as_array_mut().expect("a body has alerts").push(json!({
            "status": status, "labels": labels, "annotations": {"summary": "made by a test"},
            "startsAt": "2026-11-21T01:56:59.766Z", "endsAt": ends_at,
            "generatorURL": "http://host-a:19090/graph?g0.expr=probe", "fingerprint": fingerprint,
        }));
    }

    /// The body as it goes over the wire.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.0.to_string().into_bytes();
        bytes.push(b'\n');
        bytes
    }

    /// The body as JSON.
    #[must_use]
    pub const fn json(&self) -> &Value {
        &self.0
    }
}
