//! What comes in broken, and what targets do wrong: it loses nothing and stops nothing else.

use std::time::Duration;

use serde_json::Value;
use stanch_tests::http::{Request, send_raw};
use stanch_tests::nats::Nats;
use stanch_tests::{AlertBody, Behaviour, Engine, SOON, Setup, Target, eventually, fixture, free_port};

const ANY: &str = r#"
playbook: any
triggers:
  - alertmanager: {matchers: ['scenario=~".*"']}
detect:
  note: {uses: log, with: {message: seen}}
"#;

fn any() -> Engine {
    Setup::new().playbook("any", ANY).start()
}

/// The engine still does its work.
fn still_works(engine: &Engine, runs: usize) {
    let answer = engine.webhook("still-works", fixture("single-firing"));
    assert!(answer.is_success(), "{answer:?}");
    let _runs = engine.finished_runs(runs + 1);
    assert_eq!(engine.get("/readyz").status, 200);
}

/// Nested `depth` deep, in the place of an annotation.
fn nested(depth: usize) -> Vec<u8> {
    let value = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let body = AlertBody::firing("00000000000000aa", &[]).annotated("deep", "HERE").json().to_string();
    body.replace("\"HERE\"", &value).into_bytes()
}

#[test]
fn a_body_that_no_one_can_read_is_acknowledged_and_kept_as_a_dead_letter() {
    let engine = any();
    let mut not_utf8 = fixture("single-firing");
    let at = not_utf8.windows(5).position(|part| part == b"probe").unwrap();
    not_utf8[at] = 0xff;
    let typed = |from: &str, to: &str| {
        let body = String::from_utf8(fixture("single-firing")).unwrap();
        assert!(body.contains(from));
        body.replacen(from, to, 1).into_bytes()
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("no JSON", b"hello".to_vec()),
        ("cut", fixture("single-firing")[..600].to_vec()),
        ("two documents", [fixture("single-firing"), fixture("single-firing")].concat()),
        ("not UTF-8", not_utf8),
        ("a list", b"[{}]".to_vec()),
        ("null", b"null".to_vec()),
        ("alerts is a text", b"{\"version\":\"4\",\"alerts\":\"x\"}".to_vec()),
        ("no alerts", b"{\"version\":\"4\"}".to_vec()),
        ("an alert is null", b"{\"version\":\"4\",\"alerts\":[null]}".to_vec()),
        ("labels is a list", b"{\"version\":\"4\",\"alerts\":[{\"labels\":[]}]}".to_vec()),
        ("fingerprint is a number", typed("\"fingerprint\":\"d7823c29edb44cc9\"", "\"fingerprint\":7")),
        ("fingerprint is empty", typed("\"fingerprint\":\"d7823c29edb44cc9\"", "\"fingerprint\":\"\"")),
        ("status is unknown", typed("\"alerts\":[{\"status\":\"firing\"", "\"alerts\":[{\"status\":\"burning\"")),
        ("startsAt is no time", typed("2026-11-21T01:56:59.766Z", "yesterday")),
        ("a label is a number", typed("\"job\":\"probe\"", "\"job\":1")),
        ("nested 100,000 deep", nested(100_000)),
    ];
    for (index, (what, body)) in cases.iter().enumerate() {
        let answer = engine.webhook("eu", body.clone());
        assert!(answer.is_success(), "{what}: {answer:?}");
        let letters = engine.dead_letters();
        assert_eq!(letters.len(), index + 1, "{what}: {letters:#?}");
        let letter = &letters[0];
        assert!(letter["id"].is_string() && letter["reason"].is_string() && letter["code"].is_string(), "{letter:#}");
        assert_eq!(letter["via"], "/webhooks/alertmanager/eu", "{what}: {letter:#}");
    }
    assert_eq!(engine.runs().len(), 0);
    still_works(&engine, 0);
}

#[test]
fn dead_letters_survive_a_kill_and_can_be_replayed() {
    let mut engine = any();
    engine.deliver("{\"alerts\": [");
    engine.kill();
    engine.start_again();
    let letters = engine.dead_letters();
    assert_eq!(letters.len(), 1);
    let id = letters[0]["id"].as_str().unwrap();
    let answer = engine.send(&Request::post(&format!("/api/v1/dead-letters/{id}/replay"), ""));
    assert!((200..500).contains(&answer.status), "{answer:?}");
    assert_eq!(engine.runs().len(), 0);
    still_works(&engine, 0);
}

#[test]
fn an_oversized_body_is_refused_shortly_or_kept_and_stops_nothing() {
    let engine = any();
    let huge = "x".repeat(64 << 20);
    let request = Request::post("/webhooks/alertmanager/eu", huge).timeout(Duration::from_secs(20));
    // The server may close before it has read all of it; then there is no answer to read.
    if let Ok(answer) = request.send(engine.address()) {
        assert!(answer.is_success() || answer.status == 413, "{answer:?}");
        assert!(answer.body.len() <= 500, "{} bytes", answer.body.len());
    }
    still_works(&engine, 0);
}

#[test]
fn a_body_of_many_headers_or_none_or_without_an_end_stops_nothing() {
    let engine = any();
    let target = "POST /webhooks/alertmanager/eu HTTP/1.1\r\nHost: localhost\r\n";
    let short = Duration::from_millis(500);
    let many: String = (0..5000).map(|number| format!("X-{number}: y\r\n")).collect();
    for bytes in [
        format!("{target}Content-Length: 100\r\n\r\n{{"),
        format!("{target}Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
        format!("{target}Content-Length: -1\r\n\r\n"),
        format!("{target}Content-Length: 99999999999999999999\r\n\r\n"),
        format!("{target}{many}\r\n"),
        "GET\r\n\r\n".to_owned(),
        "\u{0}\u{1}\u{2}".to_owned(),
    ] {
        if let Ok(answer) = send_raw(engine.address(), bytes.as_bytes(), short) {
            assert!(answer.status >= 400 && answer.status < 500 || answer.is_success(), "{bytes:.80}: {answer:?}");
        }
    }
    assert_eq!(engine.runs().len(), 0);
    still_works(&engine, 0);
}

#[test]
fn a_compressed_body_is_bounded_after_decompression() {
    let engine = any();
    // 1 GiB of zeros cannot be sent as gzip without a compressor; a wrong stream must do no harm either.
    let answer = engine.send(
        &Request::post("/webhooks/alertmanager/eu", vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3])
            .header("Content-Encoding", "gzip"),
    );
    assert!(answer.is_success() || (400..500).contains(&answer.status), "{answer:?}");
    still_works(&engine, 0);
}

#[test]
fn the_api_answers_nonsense_with_a_problem() {
    let engine = any();
    let posts: [(&str, &[u8], u16); 6] = [
        ("/api/v1/playbooks/any/runs", b"{", 400),
        ("/api/v1/playbooks/any/runs", b"{\"inputs\": {\"unknown\": 1}}", 422),
        ("/api/v1/playbooks/none/runs", b"{}", 404),
        ("/api/v1/runs/not-an-id/cancel", b"{}", 404),
        ("/api/v1/runs/01890000-0000-7000-8000-000000000000/cancel", b"{}", 404),
        ("/api/v1/events", b"\xff\xfe", 400),
    ];
    for (path, body, status) in posts {
        let answer = engine.send(&Request::post(path, body));
        assert!((400..500).contains(&answer.status), "POST {path}: {answer:?}");
        if answer.status != status {
            println!("note: POST {path} answers {}, {status} was expected", answer.status);
        }
        problem(&answer, path);
    }
    for path in ["/api/v1/runs/not-an-id", "/api/v1/runs?limit=-1", "/api/v1/runs?cursor=nonsense", "/api/v1/nothing"] {
        let answer = engine.get(path);
        assert!((400..500).contains(&answer.status), "GET {path}: {answer:?}");
        problem(&answer, path);
    }
    let answer = engine.send(&Request::new("DELETE", "/api/v1/runs"));
    assert_eq!(answer.status, 405, "{answer:?}");
    still_works(&engine, 0);
}

fn problem(answer: &stanch_tests::Response, what: &str) {
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("application/problem+json"), "{what}: {answer:?}");
    let body: Value = answer.json();
    assert_eq!(body["status"], answer.status, "{what}: {body:#}");
    assert!(body["code"].is_string() && body["title"].is_string(), "{what}: {body:#}");
    assert!(answer.body.len() < 1000, "{what}: {body:#}");
}

#[test]
fn a_foreign_host_header_is_refused() {
    let engine = any();
    let answer = engine.send(&Request::new("GET", "/api/v1/runs").header("Host", "evil.example"));
    assert!((400..500).contains(&answer.status), "{answer:?}");
}

#[test]
fn a_target_that_misbehaves_fails_its_own_attempt_alone() {
    let target = Target::start();
    let mut setup = Setup::new().config("egress: {allow: [127.0.0.1/32]}\n").playbook("any", ANY);
    let cases = [
        ("hang", Behaviour::Hang, "unknown"),
        ("reset", Behaviour::Reset, "unknown"),
        ("endless", Behaviour::Endless, ""),
        ("error", Behaviour::Status(503), "failed"),
        ("refusal", Behaviour::Status(404), "failed"),
    ];
    for (name, behaviour, _) in &cases {
        target.behave(&format!("/{name}"), [behaviour.clone()]);
        setup = setup.playbook(
            name,
            format!(
                "playbook: {name}\ndetect:\n  act: {{uses: http, with: {{method: POST, url: \"{}\"}}, timeout: 1s}}\n",
                target.url(&format!("/{name}"))
            ),
        );
    }
    let engine = setup.start();
    let started: Vec<String> = cases
        .iter()
        .map(|(name, ..)| {
            let answer = engine.send(&Request::post(&format!("/api/v1/playbooks/{name}/runs"), "{\"inputs\":{}}"));
            assert!(answer.is_success(), "{name}: {answer:?}");
            run_id(&engine, name)
        })
        .collect();
    for ((name, _, state), id) in cases.iter().zip(started) {
        let step = eventually(&format!("the attempt on {name} is over"), SOON, || {
            let run = engine.run(&id);
            let step = run["steps"]["detect.act"].clone();
            match step["state"].as_str() {
                Some("failed" | "unknown") => Ok(step),
                _ => Err(format!("{run:#}")),
            }
        });
        if !state.is_empty() {
            assert_eq!(step["state"], *state, "{name}: {step:#}");
        }
        assert_eq!(step["attempts"].as_array().map(Vec::len), Some(1), "{name}: {step:#}");
        assert_eq!(target.requests(&format!("/{name}")).len(), 1, "{name}: a POST is not sent twice");
    }
    let before = engine.runs().len();
    engine.deliver(fixture("single-firing"));
    eventually("another run succeeds meanwhile", SOON, || {
        let runs = engine.list("/api/v1/runs?playbook=any");
        if runs.len() == 1 && runs[0]["state"] == "succeeded" { Ok(()) } else { Err(format!("{runs:#?}")) }
    });
    assert_eq!(engine.runs().len(), before + 1);
}

/// The one run of a playbook.
fn run_id(engine: &Engine, playbook: &str) -> String {
    let runs = engine.list(&format!("/api/v1/runs?playbook={playbook}"));
    assert_eq!(runs.len(), 1, "{runs:#?}");
    runs[0]["id"].as_str().expect("a run has an id").to_owned()
}

#[test]
fn without_nats_the_engine_serves_says_so_and_reconnects() {
    let port = free_port();
    let playbook = "playbook: tell\ntriggers:\n  - alertmanager: {matchers: ['scenario=~\".*\"']}\n\
                    detect:\n  tell:\n    uses: nats.publish\n    with: {subject: ops.told, data: hello}\n    \
                    idempotent: true\n    retry: {max_attempts: 100, initial_interval: 200ms, max_interval: 200ms}\n";
    let engine =
        Setup::new().playbook("tell", playbook).config(format!("nats: {{url: \"nats://127.0.0.1:{port}\"}}\n")).start();
    let detail = |connected: bool| {
        eventually(&format!("/readyz says that nats is {}there", if connected { "" } else { "not " }), SOON, || {
            let answer = engine.get("/readyz");
            let metric = engine.get("/metrics").text().lines().any(|line| {
                line.starts_with("stanch_nats_connected") && line.ends_with(if connected { " 1" } else { " 0" })
            });
            let said = answer.text();
            if answer.status == 200 && metric && said.contains("nats") {
                Ok(())
            } else {
                Err(format!("{answer:?}; metric right: {metric}"))
            }
        });
    };
    detail(false);
    engine.deliver(fixture("single-firing"));

    let mut nats = Nats::start_at(port);
    let client = nats.client();
    let inbox = client.subscribe("ops.told");
    detail(true);
    let runs = engine.finished_runs(1);
    assert_eq!(runs[0]["state"], "succeeded");
    // The first message may have come before there was anybody to hear it.
    let before = inbox.messages().len();
    engine.deliver(AlertBody::firing("00aa", &[("scenario", "connected")]).bytes());
    eventually("the message is heard", SOON, || {
        if inbox.messages().len() > before { Ok(()) } else { Err(format!("{:?}", inbox.messages())) }
    });

    nats.kill();
    detail(false);
    engine.deliver(fixture("amtool-firing"));
    nats.start_again();
    detail(true);
    eventually("the second run succeeds", SOON, || {
        let runs = engine.runs();
        if runs.iter().all(|run| run["state"] == "succeeded") { Ok(()) } else { Err(format!("{runs:#?}")) }
    });
}

#[test]
fn a_broken_playbook_does_not_replace_the_one_that_is_loaded() {
    let engine = any();
    let file = engine.playbook_dir().join("any.yaml");
    std::fs::write(&file, ANY.replace("uses: log", "uses: lgo")).unwrap();
    eventually("the mistake is shown", SOON, || {
        let playbooks = engine.json("/api/v1/playbooks");
        if playbooks.to_string().contains("lgo") { Ok(()) } else { Err(format!("{playbooks:#}")) }
    });
    still_works(&engine, 0);
    std::fs::write(&file, ANY.replace("message: seen", "message: edited")).unwrap();
    eventually("the edit is loaded", SOON, || {
        let playbooks = engine.json("/api/v1/playbooks").to_string();
        let loaded = engine.records("PlaybookLoaded").len();
        if !playbooks.contains("lgo") && loaded == 2 { Ok(()) } else { Err(format!("{loaded} loaded: {playbooks}")) }
    });
}
