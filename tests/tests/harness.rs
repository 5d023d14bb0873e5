//! The real servers work here as the other tests need them; where this fails, look no further.

use std::time::Duration;

use serde_json::{Value, json};
use stanch_tests::nats::Nats;
use stanch_tests::{Alertmanager, Exporter, Prometheus, Target, eventually};

#[test]
fn a_gauge_becomes_a_webhook_through_prometheus_and_alertmanager() {
    let target = Target::start();
    let exporter = Exporter::start();
    let alertmanager = Alertmanager::start(&target.url("/webhook"));
    let _prometheus = Prometheus::start(&exporter, &alertmanager);
    let status = |status: &str| {
        eventually(&format!("a webhook says {status}"), Duration::from_secs(60), || {
            let bodies: Vec<Value> =
                target.requests("/webhook").iter().filter_map(|one| serde_json::from_slice(&one.body).ok()).collect();
            let last = bodies.last().map(|body| body["alerts"][0].clone()).unwrap_or_default();
            if last["status"] == status { Ok(last) } else { Err(format!("{bodies:#?}")) }
        })
    };
    exporter.set(r#"probe_single{instance="db-01:9100"}"#, 1.0);
    assert_eq!(status("firing")["labels"]["alertname"], "ProbeInstanceDown");
    exporter.set(r#"probe_single{instance="db-01:9100"}"#, 0.0);
    status("resolved");
}

#[test]
fn alertmanager_sends_again_what_it_lost() {
    let target = Target::start();
    let mut alertmanager = Alertmanager::start(&target.url("/webhook"));
    let alerts = json!([{"labels": {"alertname": "Lost", "scenario": "single"}}]);
    for count in 1..=2 {
        alertmanager.post(&alerts);
        eventually("the alert comes", Duration::from_secs(20), || match target.requests("/webhook").len() {
            len if len == count => Ok(()),
            len => Err(format!("{len} requests")),
        });
        if count == 1 {
            alertmanager.lose_data_and_restart();
        }
    }
}

#[test]
fn nats_keeps_a_stream_over_a_kill() {
    let mut nats = Nats::start();
    let client = nats.client();
    let inbox = client.respond("plain", |_| Some("an answer".to_owned()));
    client.publish("plain", &[("Nats-Msg-Id", "7")], "hello");
    let messages = eventually("the message comes", Duration::from_secs(10), || {
        let messages = inbox.messages();
        if messages.len() == 1 { Ok(messages) } else { Err(format!("{messages:?}")) }
    });
    assert_eq!((messages[0].data.as_slice(), messages[0].id.as_deref()), (&b"hello"[..], Some("7")));
    client.make_stream("EVENTS", &["events.>"]);
    client.publish_to_stream("events.a", "one");
    nats.kill();
    nats.start_again();
    nats.client().publish_to_stream("events.a", "two");
}
