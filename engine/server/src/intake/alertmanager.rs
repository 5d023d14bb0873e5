//! Alertmanager's webhook body, version 4, and what other senders make of it.
//!
//! Only `alerts[]` is read: the group's `status`, `groupKey` and `groupLabels` say nothing about an alert. Unknown
//! fields are ignored, at any depth.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use stanch_core::alert::{AlertChange, AlertKey, AlertSnapshot, AlertStatus};
use stanch_playbook::Timestamp;

use super::{Unreadable, describe, is_of_another_shape};

/// The longest fingerprint that is taken as one.
const FINGERPRINT: usize = 128;
/// What Alertmanager writes for "not set".
const NOT_SET: &str = "0001-01-01T00:00:00Z";

/// What a delivery says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Delivery {
    /// Its alerts that could be read, in its order.
    pub changes: Vec<AlertChange>,
    /// Why an alert of it could not, the first one with its index.
    pub bad: Option<Unreadable>,
    /// How many alerts the sender left out.
    pub truncated: u64,
}

/// Reads a delivery of the Alertmanager cluster that is configured as `source`.
///
/// # Errors
/// [`Unreadable`] where not one alert can be read and the body is not simply empty of alerts.
pub(crate) fn alerts(source: &str, body: &[u8]) -> Result<Delivery, Unreadable> {
    let source: Arc<str> = source.into();
    // The common case in one pass; where something is wrong, a second one finds out what.
    if let Ok(parsed) = serde_json::from_slice::<Body<Incoming<'_>>>(body) {
        let changes: Result<Vec<_>, _> = parsed.alerts.into_iter().map(|alert| alert.change(&source)).collect();
        if let Ok(changes) = changes {
            return Ok(Delivery { changes, bad: None, truncated: parsed.truncated });
        }
    }
    one_by_one(&source, body)
}

fn one_by_one(source: &Arc<str>, body: &[u8]) -> Result<Delivery, Unreadable> {
    let invalid = |error: serde_json::Error| {
        let code = if is_of_another_shape(&error) { "alertmanager.invalid-body" } else { "alertmanager.invalid-json" };
        Unreadable::new(code, describe(&error))
    };
    if let Err(error) = std::str::from_utf8(body) {
        return Err(Unreadable::new("alertmanager.not-utf8", format!("no UTF-8 at byte {}", error.valid_up_to())));
    }
    let parsed: Body<&RawValue> = serde_json::from_slice(body).map_err(invalid)?;
    let mut delivery = Delivery { truncated: parsed.truncated, ..Delivery::default() };
    for (index, raw) in parsed.alerts.into_iter().enumerate() {
        let read = serde_json::from_str::<Incoming<'_>>(raw.get())
            .map_err(|error| describe(&error))
            .and_then(|alert| alert.change(source));
        match read {
            Ok(change) => delivery.changes.push(change),
            Err(reason) if delivery.bad.is_none() => {
                let reason = format!("alerts[{index}]: {reason}");
                delivery.bad = Some(Unreadable::new("alertmanager.invalid-alert", reason));
            }
            Err(_) => {}
        }
    }
    match delivery.bad {
        Some(bad) if delivery.changes.is_empty() => Err(bad),
        _ => Ok(delivery),
    }
}

/// A delivery's body: what is needed of it.
struct Body<A> {
    alerts: Vec<A>,
    truncated: u64,
}

/// By hand, since serde would have `truncatedAlerts` of another type spoil the alerts beside it.
impl<'de, A: Deserialize<'de>> Deserialize<'de> for Body<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<A>(std::marker::PhantomData<A>);
        impl<'de, A: Deserialize<'de>> Visitor<'de> for Fields<A> {
            type Value = Body<A>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with alerts")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                use serde::de::Error as _;
                let (mut alerts, mut truncated) = (None, 0);
                while let Some(key) = map.next_key::<Name<'de>>()? {
                    match &*key.0 {
                        "alerts" if alerts.is_some() => return Err(M::Error::duplicate_field("alerts")),
                        "alerts" => alerts = Some(map.next_value()?),
                        "truncatedAlerts" => {
                            truncated = map.next_value::<&RawValue>()?.get().parse().unwrap_or_default();
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                let alerts = alerts.ok_or_else(|| M::Error::missing_field("alerts"))?;
                Ok(Body { alerts, truncated })
            }
        }
        deserializer.deserialize_map(Fields(std::marker::PhantomData))
    }
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Incoming<'a> {
    status: Status,
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(borrow)]
    starts_at: Cow<'a, str>,
    #[serde(default, borrow)]
    ends_at: Option<Name<'a>>,
    #[serde(default, rename = "generatorURL")]
    generator_url: Option<String>,
    #[serde(default, borrow)]
    fingerprint: Option<Name<'a>>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Status {
    Firing,
    Resolved,
}

impl Incoming<'_> {
    fn change(self, source: &Arc<str>) -> Result<AlertChange, String> {
        let fingerprint: Arc<str> = match &self.fingerprint {
            Some(Name(text)) if text.is_empty() || text.len() > FINGERPRINT || text.chars().any(char::is_control) => {
                return Err(format!("fingerprint: 1 to {FINGERPRINT} characters are expected, none of them a control"));
            }
            Some(Name(text)) => (&**text).into(),
            None => fingerprint_of(&self.labels).into(),
        };
        let starts_at = Timestamp::parse(&self.starts_at).map_err(|error| format!("startsAt: {error}"))?;
        let status = match self.status {
            Status::Firing => AlertStatus::Firing,
            Status::Resolved => AlertStatus::Resolved { ends_at: ends_at(self.ends_at.as_ref())? },
        };
        let alert = AlertSnapshot {
            key: AlertKey { source: Arc::clone(source), fingerprint },
            labels: self.labels,
            annotations: self.annotations.unwrap_or_default(),
            starts_at,
            generator_url: self.generator_url.unwrap_or_default(),
        };
        Ok(AlertChange { alert: Arc::new(alert), status })
    }
}

fn ends_at(text: Option<&Name<'_>>) -> Result<Option<Timestamp>, String> {
    match text {
        None => Ok(None),
        Some(Name(text)) if text.is_empty() || *text == NOT_SET => Ok(None),
        Some(Name(text)) => Timestamp::parse(text).map(Some).map_err(|error| format!("endsAt: {error}")),
    }
}

/// The fingerprint that Prometheus gives these labels: FNV-1a over the sorted names and values, each closed by 0xff
/// (`prometheus/common/model`, `LabelsToSignature`).
fn fingerprint_of(labels: &BTreeMap<String, String>) -> String {
    const OFFSET: u64 = 14_695_981_039_346_656_037;
    const PRIME: u64 = 1_099_511_628_211;
    let parts = labels.iter().flat_map(|(name, value)| [name, value]);
    let bytes = parts.flat_map(|part| part.bytes().chain([0xff]));
    let sum = bytes.fold(OFFSET, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(PRIME));
    format!("{sum:016x}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn fixture(name: &str) -> Vec<u8> {
        let path = format!("{}/../../tests/fixtures/alertmanager/{name}.json", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn body(alert: &Value) -> Vec<u8> {
        json!({"version": "4", "status": "firing", "alerts": [alert]}).to_string().into_bytes()
    }

    fn alert() -> Value {
        json!({"status": "firing", "labels": {"alertname": "X"}, "annotations": {}, "generatorURL": "",
               "startsAt": "2026-11-21T01:56:59.766Z", "endsAt": NOT_SET, "fingerprint": "00aa"})
    }

    #[test]
    fn every_captured_body_is_read_whole() {
        let directory = format!("{}/../../tests/fixtures/alertmanager", env!("CARGO_MANIFEST_DIR"));
        let mut bodies = 0;
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let Ok(value) = serde_json::from_str::<Value>(&text) else { continue };
            let all = match value["requests"].as_array() {
                Some(requests) => requests.iter().map(|request| request["body"].clone()).collect(),
                None => vec![value],
            };
            for value in all.into_iter().filter(|value| value["version"] == "4") {
                let delivery = alerts("eu", value.to_string().as_bytes()).unwrap();
                let sent = value["alerts"].as_array().unwrap();
                assert_eq!((delivery.changes.len(), delivery.bad), (sent.len(), None), "{}", path.display());
                assert_eq!(delivery.truncated, value["truncatedAlerts"].as_u64().unwrap_or_default());
                for (change, sent) in delivery.changes.iter().zip(sent) {
                    assert_eq!(json!(change.alert.labels), sent["labels"]);
                    assert_eq!(json!(change.alert.annotations), sent["annotations"]);
                    assert_eq!(*change.alert.key.fingerprint, *sent["fingerprint"].as_str().unwrap());
                    assert_eq!(change.status == AlertStatus::Firing, sent["status"] == "firing");
                    bodies += 1;
                }
            }
        }
        assert!(bodies > 100, "{bodies}");
    }

    #[test]
    fn a_missing_fingerprint_is_the_one_prometheus_would_give() {
        let mut value: Value = serde_json::from_slice(&fixture("single-firing")).unwrap();
        let given = value["alerts"][0]["fingerprint"].take();
        value["alerts"][0].as_object_mut().unwrap().remove("fingerprint");
        let delivery = alerts("eu", value.to_string().as_bytes()).unwrap();
        assert_eq!(*delivery.changes[0].alert.key.fingerprint, *given.as_str().unwrap());
    }

    #[test]
    fn what_is_optional_may_be_missing_or_null() {
        let mut sparse = alert();
        for field in ["annotations", "generatorURL", "endsAt"] {
            sparse[field] = Value::Null;
        }
        let null = alerts("eu", &body(&sparse)).unwrap();
        for field in ["annotations", "generatorURL", "endsAt"] {
            sparse.as_object_mut().unwrap().remove(field);
        }
        assert_eq!(alerts("eu", &body(&sparse)).unwrap(), null);
        assert_eq!(null.changes.len(), 1);
    }

    #[test]
    fn a_year_one_end_means_that_none_is_known() {
        let mut resolved = alert();
        resolved["status"] = "resolved".into();
        assert_eq!(alerts("eu", &body(&resolved)).unwrap().changes[0].status, AlertStatus::Resolved { ends_at: None });
        resolved["endsAt"] = "2026-11-21T03:00:00.5+01:00".into();
        let ends_at = Some(Timestamp::parse("2026-11-21T02:00:00.5Z").unwrap());
        assert_eq!(alerts("eu", &body(&resolved)).unwrap().changes[0].status, AlertStatus::Resolved { ends_at });
    }

    #[test]
    fn good_alerts_beside_a_bad_one_are_taken_and_the_bad_one_is_named() {
        let mut bad = alert();
        bad["startsAt"] = "yesterday".into();
        let text = json!({"alerts": [alert(), bad, alert()], "truncatedAlerts": "many"}).to_string();
        let delivery = alerts("eu", text.as_bytes()).unwrap();
        assert_eq!(delivery.changes.len(), 2);
        let bad = delivery.bad.unwrap();
        assert_eq!(bad.code, "alertmanager.invalid-alert");
        assert!(bad.reason.starts_with("alerts[1]: startsAt: "), "{}", bad.reason);
    }

    #[test]
    fn what_cannot_be_read_says_why_and_never_panics() {
        let deep = format!("{{\"alerts\":[{{\"labels\":{}{}}}]}}", "[".repeat(100_000), "]".repeat(100_000));
        let cases: [(&[u8], &str); 10] = [
            (b"", "alertmanager.invalid-json"),
            (b"hello", "alertmanager.invalid-json"),
            (b"{\"alerts\": [", "alertmanager.invalid-json"),
            (b"{\"alerts\": []} {}", "alertmanager.invalid-json"),
            (b"{\"alerts\": [\"\xff\"]}", "alertmanager.not-utf8"),
            (b"null", "alertmanager.invalid-body"),
            (b"[{}]", "alertmanager.invalid-body"),
            (b"{\"alerts\": {}}", "alertmanager.invalid-body"),
            (b"{\"alerts\": [null]}", "alertmanager.invalid-alert"),
            (deep.as_bytes(), "alertmanager.invalid-alert"),
        ];
        for (body, code) in cases {
            let unreadable = alerts("eu", body).unwrap_err();
            assert_eq!(unreadable.code, code, "{}", unreadable.reason);
            assert!(unreadable.reason.chars().count() <= 250, "{}", unreadable.reason);
        }
    }

    #[test]
    fn wrong_types_inside_an_alert_are_refused() {
        for (field, value) in [
            ("labels", json!(null)),
            ("labels", json!({"job": 1})),
            ("status", json!("burning")),
            ("fingerprint", json!(7)),
            ("fingerprint", json!("")),
            ("fingerprint", json!("a".repeat(129))),
            ("startsAt", json!(NOT_SET)),
            ("endsAt", json!(1)),
        ] {
            let mut bad = alert();
            bad["status"] = "resolved".into();
            bad[field] = value.clone();
            let unreadable = alerts("eu", &body(&bad)).unwrap_err();
            assert!(unreadable.reason.starts_with("alerts[0]: "), "{field} {value}: {}", unreadable.reason);
        }
    }

    #[test]
    fn no_alerts_are_no_mistake() {
        assert_eq!(alerts("eu", b"{\"alerts\": []}\n").unwrap(), Delivery::default());
    }
}
