//! The next alert or event that an engine takes in, as a file that explain, plan and test read.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use stanch_core::Body;
use stanch_core::alert::AlertSnapshot;
use stanch_core::event::Event;
use stanch_core::record::Record;
use stanch_playbook::matcher::Matcher;
use stanch_playbook::subject_matches;
use tokio::time::{Instant, timeout_at};

use crate::client::Client;
use crate::failure::{Exit, Failure, Outcome};
use crate::follow;
use crate::terminal::{self, inert, note};
use crate::verbs::audit::head;

/// How long the rest of a delivery is waited for: its records become durable together.
const REST: Duration = Duration::from_millis(300);
/// Without a limit: a year is as good as for ever.
const EVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// What the engine makes itself is no event from outside.
const OWN: [&str; 2] = ["schedule", "api"];

/// What is waited for.
pub struct Wanted {
    matchers: Vec<Matcher>,
    subject: Option<String>,
}

impl Wanted {
    /// Alerts that all matchers take, or events on a subject; anything where neither is given.
    pub fn new(matchers: &[String], subject: Option<String>) -> Result<Self, Failure> {
        let mut parsed = Vec::new();
        for text in matchers {
            parsed.extend(Matcher::parse(text).map_err(|error| {
                Failure::usage(format!("{}: {error}", inert(text))).help("write a matcher as 'alertname=\"X\"'")
            })?);
        }
        Ok(Self { matchers: parsed, subject })
    }

    fn alert(&self, alert: &AlertSnapshot) -> bool {
        self.subject.is_none() && self.matchers.iter().all(|matcher| matcher.is_match(&alert.labels))
    }

    fn event(&self, event: &Event) -> bool {
        let on = |filter: &String| event.subject.as_ref().is_some_and(|subject| subject_matches(filter, subject));
        self.matchers.is_empty() && !OWN.contains(&&*event.source) && self.subject.as_ref().is_none_or(on)
    }
}

/// Waits for it and writes it. Exits with 3 where it does not come in time.
pub async fn run(client: &Client, wanted: &Wanted, output: Option<&Path>, timeout: Option<Duration>) -> Outcome {
    let from = head(client).await? + 1;
    note(&format!("waiting for what comes in at {}; Ctrl-C ends it", client.address()));
    let mut records = follow::records(client, None, from);
    let late = Instant::now() + timeout.unwrap_or(EVER);
    let mut alerts: Vec<Record> = Vec::new();
    let mut until = late;
    let fixture = loop {
        let record = match timeout_at(until, records.recv()).await {
            Ok(Some(record)) => record?,
            Ok(None) => return Err(Failure::new("the engine ended").exit(Exit::Unreachable)),
            Err(_) if !alerts.is_empty() => break of_alerts(&alerts),
            Err(_) => {
                return Err(Failure::new("nothing that is wanted came in")
                    .help("an alert that fires already is not told again; wait longer, or for less")
                    .exit(Exit::TimedOut));
            }
        };
        match &record.body {
            Body::AlertFired(body) if wanted.alert(&body.alert) => {
                // Of one delivery, all have the time of the decision.
                if alerts.first().is_some_and(|first| first.time != record.time) {
                    break of_alerts(&alerts);
                }
                alerts.push(record);
                until = late.min(Instant::now() + REST);
            }
            Body::EventReceived(body) if alerts.is_empty() && wanted.event(&body.event) => break of_event(&body.event),
            _ => {}
        }
    };
    let text = format!("{fixture:#}\n");
    match output.filter(|path| *path != Path::new("-")) {
        None => terminal::print(&text)?,
        Some(path) => {
            std::fs::write(path, text).map_err(|error| {
                Failure::because(format!("{} cannot be written", inert(&path.display().to_string())), &error)
            })?;
            note(&format!("wrote {}", inert(&path.display().to_string())));
        }
    }
    Ok(Exit::Done)
}

/// A delivery in the form of Alertmanager's webhook.
fn of_alerts(records: &[Record]) -> Value {
    let one = |record: &Record| match &record.body {
        Body::AlertFired(body) => Some(json!({
            "status": "firing",
            "labels": body.alert.labels,
            "annotations": body.alert.annotations,
            "startsAt": body.alert.starts_at,
            "endsAt": "0001-01-01T00:00:00Z",
            "generatorURL": body.alert.generator_url,
            "fingerprint": body.alert.key.fingerprint,
        })),
        _ => None,
    };
    json!({
        "version": "4",
        "receiver": "captured",
        "status": "firing",
        "alerts": records.iter().filter_map(one).collect::<Vec<_>>(),
    })
}

/// An event as a `CloudEvent`.
fn of_event(event: &Event) -> Value {
    let mut value = json!(event);
    value["specversion"] = "1.0".into();
    value
}

#[cfg(test)]
mod tests {
    use stanch_core::record::Actor;
    use stanch_core::record::{AlertFired, Firing};
    use stanch_playbook::Timestamp;
    use stanch_server::fixture::{Fixture, read};

    use super::*;

    #[test]
    fn what_is_written_is_read_as_what_came_in() {
        let alert =
            stanch_simulator::alert(&[("alertname", "X"), ("host", "a")], Timestamp::from_millis(1_767_582_000_123));
        let record = Record {
            sequence: stanch_core::Sequence(1),
            time: Timestamp::EPOCH,
            actor: Actor::engine(),
            body: AlertFired { alert: alert.clone().into(), firing: Firing::New }.into(),
        };
        let written = of_alerts(&[record]).to_string();
        let Ok(Fixture::Alerts { changes, unreadable: None }) = read(written.as_bytes(), "sim", None, Timestamp::EPOCH)
        else {
            panic!("{written}")
        };
        assert_eq!(*changes[0].alert, alert);
        let event = Event {
            id: "1".into(),
            source: "/edr".into(),
            kind: "ioc".into(),
            time: Timestamp::from_millis(1_767_582_000_123),
            subject: Some("sec.ioc".into()),
            data: json!({"x": [1, null]}),
        };
        let written = of_event(&event).to_string();
        let Ok(Fixture::Event { event: read, subject }) = read(written.as_bytes(), "sim", None, Timestamp::EPOCH)
        else {
            panic!("{written}")
        };
        assert_eq!((read, subject.as_str()), (event, "sec.ioc"));
    }

    #[test]
    fn only_what_is_wanted_is_taken() {
        let alert = stanch_simulator::alert(&[("alertname", "X")], Timestamp::EPOCH);
        let event = |source: &str, subject: &str| Event {
            id: "1".into(),
            source: source.into(),
            kind: "t".into(),
            time: Timestamp::EPOCH,
            subject: Some(subject.into()),
            data: Value::Null,
        };
        let wanted = |matchers: &[&str], subject: Option<&str>| {
            let matchers: Vec<String> = matchers.iter().map(|text| (*text).to_owned()).collect();
            Wanted::new(&matchers, subject.map(str::to_owned)).unwrap()
        };
        assert!(wanted(&[], None).alert(&alert) && wanted(&[], None).event(&event("/edr", "a.b")));
        assert!(wanted(&["alertname=X"], None).alert(&alert) && !wanted(&["alertname=Y"], None).alert(&alert));
        assert!(!wanted(&["alertname=X"], None).event(&event("/edr", "a.b")));
        assert!(
            wanted(&[], Some("a.*")).event(&event("/edr", "a.b"))
                && !wanted(&[], Some("a.*")).event(&event("/edr", "b"))
        );
        assert!(!wanted(&[], Some("a.*")).alert(&alert) && !wanted(&[], None).event(&event("api", "p")));
        assert!(Wanted::new(&["=".to_owned()], None).is_err());
    }
}
