//! Events over a real nats-server: CloudEvents as they were captured and plain JSON, over core NATS and a stream.

use std::time::Duration;

use serde_json::{Value, json};
use stanch_tests::engine::stanch;
use stanch_tests::nats::{Client, Nats};
use stanch_tests::{Engine, SOON, Setup, eventually, fixture_json};

const PLAYBOOK: &str = r#"
playbook: event
triggers:
  - nats: {subject: "monitoring.alerts.>"}
    inputs: {id: event.id, source: event.source, type: event.type, data: event.data}
inputs:
  id: {type: string, required: true}
  source: {type: string, required: true}
  type: {type: string, required: true}
  data: {type: map, required: true}
detect:
  note: {uses: log, with: {message: "{{ inputs.id }}"}}
"#;

fn engine(nats: &Nats) -> Engine {
    Setup::new().playbook("event", PLAYBOOK).config(format!("nats: {{url: \"{}\"}}\n", nats.url())).start()
}

/// The captured message of that name: subject, headers, payload.
fn captured(name: &str) -> (String, Vec<(String, String)>, Vec<u8>) {
    let file = fixture_json("nats-messages");
    let messages = file["messages"].as_array().expect("the file has messages");
    let message = messages.iter().find(|message| message["name"].as_str().is_some_and(|known| known.starts_with(name)));
    let sent = message.unwrap_or_else(|| panic!("no message {name}"))["sent"].as_str().expect("it was sent").to_owned();
    let (line, rest) = sent.split_once("\r\n").expect("a protocol line ends so");
    let subject = line.split(' ').nth(1).expect("a line names its subject").to_owned();
    let rest = rest.strip_suffix("\r\n").unwrap_or(rest);
    if !line.starts_with("HPUB") {
        return (subject, Vec::new(), rest.as_bytes().to_vec());
    }
    let (head, payload) = rest.split_once("\r\n\r\n").expect("headers end so");
    let headers = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
    (subject, headers, payload.as_bytes().to_vec())
}

fn publish(client: &Client, (subject, headers, payload): &(String, Vec<(String, String)>, Vec<u8>)) {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    client.publish(subject, &headers, payload.clone());
}

/// Waits until the engine listens: what is sent before that over core NATS is lost.
fn until_it_listens(engine: &Engine, client: &Client) {
    eventually("the engine listens", SOON, || {
        // One event, however often it is sent: its identity is source and id.
        let hello = r#"{"specversion": "1.0", "id": "hello", "source": "/test", "type": "t", "data": {}}"#;
        client.publish("monitoring.alerts.hello", &[], hello);
        if engine.runs().is_empty() { Err("no run".to_owned()) } else { Ok(()) }
    });
    let _runs = engine.finished_runs(1);
}

fn newest_inputs(engine: &Engine, count: usize) -> Value {
    let runs = engine.finished_runs(count);
    engine.run(runs[0]["id"].as_str().expect("a run has an id"))["inputs"].clone()
}

#[test]
fn cloud_events_of_both_modes_start_a_run_and_their_identity_is_source_and_id() {
    let nats = Nats::start();
    let client = nats.client();
    let engine = engine(&nats);
    until_it_listens(&engine, &client);
    let before = engine.runs().len();

    let structured = captured("structured, no headers");
    publish(&client, &structured);
    let inputs = newest_inputs(&engine, before + 1);
    let sent: Value = serde_json::from_slice(&structured.2).unwrap();
    for key in ["id", "source", "type", "data"] {
        assert_eq!(inputs[key], sent[key], "{key}");
    }
    // The same event again, framed otherwise, is the same event.
    publish(&client, &captured("structured, with Content-Type"));
    publish(&client, &captured("binary"));
    publish(&client, &structured);

    let headers = [("ce-specversion", "1.0"), ("CE-ID", "b%20%2F1"), ("Ce-Source", "/test"), ("ce-type", "t.t")];
    client.publish("monitoring.alerts.db", &headers, r#"{"n": 1}"#);
    let inputs = newest_inputs(&engine, before + 2);
    assert_eq!(inputs, json!({"id": "b /1", "source": "/test", "type": "t.t", "data": {"n": 1}}));
}

#[test]
fn what_cannot_be_read_is_a_dead_letter_and_stops_nothing() {
    let nats = Nats::start();
    let client = nats.client();
    let engine = engine(&nats);
    until_it_listens(&engine, &client);
    let before = engine.runs().len();
    let bad: &[&[u8]] = &[b"not json", b"\xff\xfe", b"{\"specversion\":\"1.0\"}", b""];
    for payload in bad {
        client.publish("monitoring.alerts.db", &[], *payload);
    }
    let letters = eventually("each is a dead letter", SOON, || {
        let letters = engine.dead_letters();
        if letters.len() == bad.len() { Ok(letters) } else { Err(format!("{letters:#?}")) }
    });
    assert!(letters.iter().all(|letter| letter["via"] == "nats:monitoring.alerts.db"), "{letters:#?}");
    client.publish("monitoring.alerts.db", &[], r#"{"n": 2}"#);
    assert_eq!(newest_inputs(&engine, before + 1)["data"], json!({"n": 2}));
}

#[test]
fn a_stream_delivers_what_was_published_while_the_engine_was_down_and_each_once() {
    let nats = Nats::start();
    let client = nats.client();
    client.make_stream("ALERTS", &["monitoring.alerts.>"]);
    client.publish_to_stream("monitoring.alerts.db", r#"{"n": 0}"#);
    let mut engine = engine(&nats);
    let _runs = engine.finished_runs(1);
    engine.kill();
    for n in 1..=50 {
        client.publish_to_stream("monitoring.alerts.db", json!({ "n": n }).to_string());
    }
    engine.start_again();
    // Killed in the middle of them: what was not acknowledged comes again and starts nothing twice.
    eventually("some came", SOON, || if engine.runs().len() > 1 { Ok(()) } else { Err("one run".to_owned()) });
    engine.kill();
    engine.start_again();
    let runs = eventually("all came", Duration::from_secs(60), || {
        let runs = engine.runs();
        assert!(runs.len() <= 51, "{} runs", runs.len());
        if runs.len() == 51 && runs.iter().all(|run| run["state"] == "succeeded") {
            Ok(runs)
        } else {
            Err(format!("{}", runs.len()))
        }
    });
    let mut numbers: Vec<i64> = runs
        .iter()
        .filter_map(|run| engine.run(run["id"].as_str().expect("a run has an id"))["inputs"]["data"]["n"].as_i64())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..=50).collect::<Vec<i64>>());
    eventually("all are acknowledged by one durable consumer", Duration::from_secs(60), || {
        match client.unacknowledged("ALERTS") {
            (0, 1) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn the_log_says_that_nats_is_away_and_that_it_is_back() {
    let mut nats = Nats::start();
    let url = nats.url();
    nats.kill();
    let with_password = url.replace("nats://", "nats://ann:hunter2@");
    let engine = Setup::new().config(format!("nats: {{url: \"{with_password}\"}}\n")).start();
    let said = |what: &str| {
        eventually(&format!("the log says: {what}"), SOON, || {
            let log = String::from_utf8_lossy(&engine.process.output()).into_owned();
            assert!(!log.contains("hunter2"), "{log}");
            let lines = log.lines().filter(|line| line.contains(what)).map(str::to_owned).collect::<Vec<_>>();
            if lines.is_empty() { Err(log) } else { Ok(lines) }
        })
    };
    let away = said("NATS cannot be reached");
    assert!(away[0].contains("\"WARN\"") && away[0].contains(url.trim_start_matches("nats://")), "{away:?}");
    nats.start_again();
    assert!(said("connected to NATS")[0].contains("\"INFO\""));
    assert_eq!(said("NATS cannot be reached").len(), 1, "it is said once, however often it is tried");
}

#[test]
fn what_is_emitted_over_nats_is_confirmed_or_said_to_be_lost() {
    let nats = Nats::start();
    let client = nats.client();
    let engine = engine(&nats);
    until_it_listens(&engine, &client);
    let file = engine.scratch("event.json");
    std::fs::write(&file, r#"{"specversion": "1.0", "id": "emitted", "source": "/test", "type": "t", "data": {}}"#)
        .unwrap();
    let url = nats.url();
    let emit = |subject: &str| {
        let ended = stanch(&["emit", file.to_str().unwrap(), "--nats", &url, "--subject", subject]);
        let text = [ended.stdout, ended.stderr].concat();
        (ended.status.code(), String::from_utf8(text).unwrap())
    };
    let (exit, said) = emit("monitoring.alerts.db");
    assert_eq!((exit, said.contains(": taken")), (Some(0), true), "{said}");
    let inputs = newest_inputs(&engine, 2);
    assert_eq!(inputs["id"], "emitted", "it was durable before it was confirmed");
    let (exit, said) = emit("nobody.listens");
    assert_eq!((exit, said.contains("nobody listens")), (Some(1), true), "{said}");
    client.make_stream("KEPT", &["kept.>"]);
    let (exit, said) = emit("kept.one");
    assert_eq!((exit, said.contains("stored in KEPT")), (Some(0), true), "{said}");
    for wrong in ["monitoring..db", "monitoring.*", "monitoring alerts"] {
        assert_eq!(emit(wrong).0, Some(2), "{wrong}");
    }
}
