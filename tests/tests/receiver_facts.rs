//! The 26 facts about what Alertmanager sends and expects, each posted to a running engine as it was captured from a
//! real one. `tests/fixtures/alertmanager/README.md` says what each body is.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stanch_tests::http::Request;
use stanch_tests::{
    AlertBody, Alertmanager, Behaviour, Engine, SOON, Setup, Target, eventually, fixture, fixture_json, sequence, stays,
};

/// Takes every alert; its run is over at once.
const ANY: &str = r#"
playbook: any
triggers:
  - alertmanager: {matchers: ['scenario=~".*"']}
    inputs: {fingerprint: alert.fingerprint, labels: alert.labels, annotations: alert.annotations, count: size(alerts)}
inputs:
  fingerprint: {type: string, required: true}
  labels: {type: map, required: true}
  annotations: {type: map, required: true}
  count: {type: int, required: true}
detect:
  note: {uses: log, with: {message: seen}}
"#;

/// Takes every alert into one incident; its run lasts until the alerts have settled.
const UNTIL_RESOLVED: &str = r#"
playbook: until-resolved
triggers:
  - alertmanager: {matchers: ['scenario=~".*"']}
    key: all
    inputs: {count: size(alerts)}
inputs:
  count: {type: int, required: true}
detect:
  quiet: {uses: wait, with: {for: resolved, settle: 1s}, timeout: 10m}
"#;

const SETTLE: &str = "incidents: {settle: 1s, reopen_within: 15m}\n";

fn any() -> Engine {
    Setup::new().playbook("any", ANY).config(SETTLE).start()
}

fn until_resolved() -> Engine {
    Setup::new().playbook("until-resolved", UNTIL_RESOLVED).config(SETTLE).start()
}

fn deliver_all(engine: &Engine, bodies: &[Value]) {
    for body in bodies {
        engine.deliver(body.to_string());
    }
}

/// The fingerprint of each run's alert, over `count` finished runs.
fn fingerprints(engine: &Engine, count: usize) -> Vec<String> {
    let runs = engine.finished_runs(count);
    let fingerprint = |run: &Value| {
        let run = engine.run(run["id"].as_str().expect("a run has an id"));
        run["inputs"]["fingerprint"].as_str().expect("the playbook takes it").to_owned()
    };
    let mut found: Vec<String> = runs.iter().map(fingerprint).collect();
    found.sort();
    found
}

/// Nothing more happens: the number of runs and incidents stays over two settle times.
fn nothing_more(engine: &Engine, runs: usize, incidents: usize) {
    stays("nothing more starts", Duration::from_millis(2200), || {
        let now = (engine.runs().len(), engine.incidents().len());
        if now == (runs, incidents) { Ok(()) } else { Err(format!("{now:?}: {:#?}", engine.runs())) }
    });
}

#[test]
fn fact_01_a_bare_post_of_one_json_line_starts_a_run() {
    let engine = any();
    let body = fixture("single-firing");
    assert_eq!(body.last(), Some(&b'\n'));
    let answer = engine.send(
        &Request::new("POST", "/webhooks/alertmanager/eu")
            .header("Content-Type", "application/json")
            .header("User-Agent", "Alertmanager/0.25.0")
            .body(body),
    );
    assert!(answer.is_success(), "{answer:?}");
    assert_eq!(fingerprints(&engine, 1), ["d7823c29edb44cc9"]);
}

#[test]
fn fact_02_control_characters_reach_the_run_whole_and_the_log_not_at_all() {
    let engine = any();
    engine.deliver(fixture("special-characters-firing"));
    let runs = engine.finished_runs(1);
    let path = format!("/api/v1/runs/{}", runs[0]["id"].as_str().unwrap());
    let sent = fixture_json("special-characters-firing");
    assert_eq!(engine.json(&path)["inputs"]["labels"], sent["alerts"][0]["labels"]);
    assert_eq!(engine.json(&path)["inputs"]["annotations"], sent["alerts"][0]["annotations"]);
    for path in [&*path, "/api/v1/incidents", "/api/v1/audit", "/metrics"] {
        assert!(!has_control(&engine.get(path).body), "{path} gives control characters");
    }
    assert!(!has_control(&engine.process.output()), "the log has control characters");
}

fn has_control(bytes: &[u8]) -> bool {
    bytes.iter().any(|&byte| byte < 0x20 && byte != b'\n')
}

#[test]
fn fact_03_bodies_of_a_thousand_alerts_and_of_three_megabytes_are_taken() {
    let engine = until_resolved();
    let labels = [("alertname", "Many"), ("scenario", "many"), ("padding", &*"p".repeat(320))];
    let mut many = AlertBody::firing("0000000000000000", &labels);
    for number in 1..1000 {
        many = many.and_firing(&format!("{number:016x}"), &labels);
    }
    let many = many.bytes();
    assert!(many.len() > 590_000, "{}", many.len());
    engine.deliver(many);
    let runs = engine.runs();
    assert_eq!(runs.len(), 1, "{runs:#?}");
    assert_eq!(engine.run(runs[0]["id"].as_str().unwrap())["inputs"]["count"], 1000);

    let mut large = fixture_json("single-firing");
    large["alerts"][0]["annotations"]["description"] = "x".repeat(1_500_000).into();
    large["commonAnnotations"]["description"] = "x".repeat(1_500_000).into();
    engine.deliver(large.to_string());
    assert_eq!(engine.records("AlertFired").len(), 1001);
}

#[test]
fn fact_04_unknown_fields_are_ignored() {
    let engine = any();
    let mut body = fixture_json("single-firing");
    body["notification_reason"] = "first notification".into();
    body["routeLabels"] = json!({"team": "infra"});
    body["alerts"][0]["invented"] = json!([{"deep": null}]);
    engine.deliver(body.to_string());
    assert_eq!(fingerprints(&engine, 1), ["d7823c29edb44cc9"]);
    assert_eq!(engine.dead_letters().len(), 0);
}

#[test]
fn fact_05_odd_receivers_empty_group_labels_and_missing_names_are_taken() {
    let engine = any();
    let names = ["receiver-name-escaped", "api-no-alertname-empty-group-labels", "amtool-bare-no-annotations"];
    let mut expected = BTreeSet::new();
    for name in names {
        engine.deliver(fixture(name));
        expected.insert(fixture_json(name)["alerts"][0]["fingerprint"].as_str().unwrap().to_owned());
    }
    assert_eq!(fingerprints(&engine, 3), expected.into_iter().collect::<Vec<_>>());
}

#[test]
fn fact_06_times_of_three_to_nine_digits_are_read_and_year_one_means_still_firing() {
    let engine = any();
    engine.deliver(fixture("single-firing"));
    engine.deliver(fixture("amtool-firing"));
    let _runs = engine.finished_runs(2);
    let fired = engine.records("AlertFired");
    let starts: BTreeSet<&str> = fired.iter().filter_map(|record| record["alert"]["starts_at"].as_str()).collect();
    let sent = |name| fixture_json(name)["alerts"][0]["startsAt"].as_str().unwrap().to_owned();
    let sent = [sent("single-firing"), sent("amtool-firing")];
    assert_eq!(starts, sent.iter().map(String::as_str).collect());
    assert!(sent[1].len() > "2026-11-21T01:56:59.766Z".len(), "nanoseconds are in the capture: {sent:?}");
    stays("both incidents are open", Duration::from_millis(2200), || {
        let open = engine.incidents().iter().filter(|incident| incident["state"] == "open").count();
        if open == 2 { Ok(()) } else { Err(format!("{:#?}", engine.incidents())) }
    });
}

#[test]
fn fact_07_what_was_answered_2xx_survives_a_kill_in_the_next_instant() {
    let mut engine = any();
    engine.deliver(fixture("single-firing"));
    engine.kill();
    engine.start_again();
    assert_eq!(fingerprints(&engine, 1), ["d7823c29edb44cc9"]);
}

#[test]
fn fact_08_an_alert_sent_while_the_engine_is_down_arrives_when_it_is_back() {
    let mut engine = any();
    let alertmanager = Alertmanager::start(&engine.url("/webhooks/alertmanager/eu"));
    engine.kill();
    alertmanager.post(&json!([{"labels": {"alertname": "WhileDown", "scenario": "single"}}]));
    // It is refused for longer than the first tries take.
    std::thread::sleep(Duration::from_secs(2));
    engine.start_again();
    eventually("alertmanager tries again", Duration::from_secs(40), || match engine.runs().len() {
        0 => Err("no run".to_owned()),
        1 => Ok(()),
        count => panic!("{count} runs for one alert"),
    });
    assert_eq!(engine.records("AlertFired")[0]["alert"]["labels"]["alertname"], "WhileDown");
}

#[test]
fn fact_09_overload_is_never_a_4xx_and_what_cannot_be_parsed_is_2xx_and_a_dead_letter() {
    let engine = any();
    let bad: &[&[u8]] = &[b"{\"alerts\": [", b"not json", b"", b"[]", b"{\"version\":\"4\",\"alerts\":{}}"];
    for (index, body) in bad.iter().enumerate() {
        let answer = engine.webhook("eu", *body);
        assert!(answer.is_success(), "{:?}: {answer:?}", String::from_utf8_lossy(body));
        assert_eq!(engine.dead_letters().len(), index + 1, "{:?}", String::from_utf8_lossy(body));
    }
    assert_eq!(engine.runs().len(), 0);

    let number = AtomicUsize::new(0);
    let taken = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                for _ in 0..16 {
                    let fingerprint = format!("{:016x}", number.fetch_add(1, Ordering::SeqCst));
                    let answer = engine.webhook("eu", AlertBody::firing(&fingerprint, &[("scenario", "load")]).bytes());
                    assert!(answer.is_success() || answer.status == 503, "{answer:?}");
                    taken.fetch_add(usize::from(answer.is_success()), Ordering::SeqCst);
                }
            });
        }
    });
    let fired = engine.records("AlertFired").len();
    assert_eq!(fired, taken.load(Ordering::SeqCst), "each one that was taken is there, and no other");
}

#[test]
fn fact_10_nothing_redirects_and_get_on_the_webhook_is_405() {
    let engine = any();
    for path in [
        "/webhooks/alertmanager",
        "/webhooks/alertmanager/",
        "/webhooks/alertmanager/eu",
        "/webhooks/alertmanager/eu/",
        "//webhooks/alertmanager/eu",
        "/webhooks/alertmanager/eu?tenant=a%20b&x=1",
        "/webhooks/ALERTMANAGER/eu",
        "/",
    ] {
        let answer = engine.send(&Request::post(path, fixture("single-firing")));
        assert!(!(300..400).contains(&answer.status), "POST {path}: {answer:?}");
    }
    for path in ["/webhooks/alertmanager", "/webhooks/alertmanager/eu"] {
        let answer = engine.get(path);
        assert_eq!(answer.status, 405, "GET {path}: {answer:?}");
        assert_eq!(answer.header("allow"), Some("POST"), "{answer:?}");
    }
    assert_eq!(fingerprints(&engine, 2).len(), 2, "once for eu, once for the source without a name");
}

#[test]
fn fact_11_the_answer_does_not_wait_for_slow_steps() {
    let target = Target::start();
    target.behave("/slow", [Behaviour::Hang]);
    let playbook = format!(
        "playbook: slow\ntriggers:\n  - alertmanager: {{matchers: ['scenario=~\".*\"']}}\n\
         detect:\n  ask: {{uses: http, with: {{url: \"{}\"}}}}\n",
        target.url("/slow")
    );
    let engine = Setup::new().playbook("slow", playbook).config("egress: {allow: [127.0.0.1/32]}\n").start();
    let mut slowest = Duration::ZERO;
    for number in 0..20 {
        let body = AlertBody::firing(&format!("{number:016x}"), &[("scenario", "slow")]).bytes();
        let started = Instant::now();
        engine.deliver(body);
        slowest = slowest.max(started.elapsed());
    }
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    eventually("the steps are under way", SOON, || match target.requests("/slow").len() {
        20 => Ok(()),
        count => Err(format!("{count} requests")),
    });
}

#[test]
fn fact_12_a_retry_that_carries_an_old_firing_is_followed_by_its_resolved() {
    let engine = until_resolved();
    deliver_all(&engine, &sequence("seq-recover-after-5xx"));
    let runs = engine.finished_runs(1);
    assert_eq!(runs[0]["state"], "succeeded");
    let _incidents = engine.incidents_in_state(1, "resolved");
}

#[test]
fn fact_13_firing_is_acknowledged_even_where_no_playbook_wants_it_so_that_resolved_comes() {
    let engine = Setup::new().config(SETTLE).start();
    let alertmanager = Alertmanager::start(&engine.url("/webhooks/alertmanager/eu"));
    alertmanager.post(&json!([{"labels": {"alertname": "Unwanted", "scenario": "single"}}]));
    eventually("firing came", SOON, || match engine.records("AlertFired").len() {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    });
    // resolve_timeout is 10 s.
    eventually("resolved came", Duration::from_secs(40), || match engine.records("AlertResolved").len() {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    });
    assert_eq!(engine.runs().len(), 0);
}

#[test]
fn fact_14_error_bodies_are_short_and_repeat_nothing_of_the_request() {
    let engine = any();
    for body in
        ["{\"alerts\": \"hunter2-secret\"", "hunter2-secret", &format!("[\"{}\"", "hunter2-secret".repeat(9999))]
    {
        let answer = engine
            .send(&Request::post("/webhooks/alertmanager/eu", body).header("Authorization", "Bearer hunter2-secret"));
        assert!(answer.body.len() <= 500, "{} bytes: {answer:?}", answer.body.len());
        assert!(!answer.text().contains("hunter2"), "{answer:?}");
    }
    let answer = engine.get("/webhooks/alertmanager/hunter2-secret");
    assert!(answer.body.len() <= 500 && !answer.text().contains("hunter2"), "{answer:?}");
    assert!(!String::from_utf8_lossy(&engine.process.output()).contains("hunter2"), "the log repeats it");
}

#[test]
fn fact_15_the_groups_status_is_never_read() {
    let engine = any();
    // Says resolved while an alert of it fires.
    let mut body = fixture_json("single-firing");
    body["status"] = "resolved".into();
    engine.deliver(body.to_string());
    assert_eq!(fingerprints(&engine, 1), ["d7823c29edb44cc9"]);
    // Says firing while one of its three is resolved.
    engine.deliver(sequence("seq-partial-resolve")[0].to_string());
    engine.deliver(sequence("seq-partial-resolve")[1].to_string());
    let _runs = engine.finished_runs(4);
    eventually("the resolved one alone is resolved", SOON, || {
        let resolved = engine.incidents().iter().filter(|incident| incident["state"] == "resolved").count();
        if resolved == 1 { Ok(()) } else { Err(format!("{:#?}", engine.incidents())) }
    });
    stays("the firing ones stay open", Duration::from_millis(2200), || {
        let open = engine.incidents().iter().filter(|incident| incident["state"] == "open").count();
        if open == 3 { Ok(()) } else { Err(format!("{:#?}", engine.incidents())) }
    });
}

#[test]
fn fact_15_a_truncated_group_resolves_only_the_alerts_that_it_names() {
    let engine = any();
    engine.deliver(fixture("truncated-firing"));
    let _runs = engine.finished_runs(2);
    let labels = [("alertname", "ProbeTargetMissing"), ("scenario", "truncate")];
    engine.deliver(AlertBody::firing("00000000000000aa", &labels).bytes());
    let _runs = engine.finished_runs(3);
    engine.deliver(fixture("truncated-says-resolved-while-3-fire"));
    eventually("two are resolved", SOON, || {
        let incidents = engine.incidents();
        let open: Vec<&Value> = incidents.iter().filter(|incident| incident["state"] == "open").collect();
        if open.len() == 1 { Ok(()) } else { Err(format!("{incidents:#?}")) }
    });
    stays("the one left out stays open", Duration::from_millis(2200), || {
        let open = engine.incidents().iter().filter(|incident| incident["state"] == "open").count();
        if open == 1 { Ok(()) } else { Err(format!("{:#?}", engine.incidents())) }
    });
}

#[test]
fn fact_16_an_alert_that_vanishes_from_its_group_is_not_resolved() {
    let engine = any();
    let bodies = sequence("seq-inhibit");
    // Up to the moment where both services vanished because their nodes are down.
    deliver_all(&engine, &bodies[..3]);
    let _runs = engine.finished_runs(3);
    engine.deliver(bodies[4].to_string());
    eventually("the node that came back is resolved", SOON, || {
        let resolved = engine.incidents().iter().filter(|incident| incident["state"] == "resolved").count();
        if resolved == 1 { Ok(()) } else { Err(format!("{:#?}", engine.incidents())) }
    });
    stays("the inhibited service is open", Duration::from_millis(2200), || {
        let open = engine.incidents().iter().filter(|incident| incident["state"] == "open").count();
        if open == 2 { Ok(()) } else { Err(format!("{:#?}", engine.incidents())) }
    });
    assert_eq!(engine.records("AlertResolved").len(), 1);
}

#[test]
fn fact_17_a_run_that_waits_for_a_resolved_that_never_comes_ends_by_its_own_limit() {
    let playbook = UNTIL_RESOLVED.replace("timeout: 10m", "timeout: 2s");
    let engine = Setup::new().playbook("until-resolved", playbook).config(SETTLE).start();
    deliver_all(&engine, &sequence("seq-resolved-under-silence-lost"));
    let runs = engine.finished_runs(1);
    assert_eq!(runs[0]["state"], "failed");
    let run = engine.run(runs[0]["id"].as_str().unwrap());
    assert_eq!(run["steps"]["detect.quiet"]["state"], "failed");
    assert!(run["steps"]["detect.quiet"]["error"].is_string(), "{run:#}");
}

#[test]
fn fact_18_an_old_resolved_alert_starts_and_changes_nothing() {
    let engine = any();
    // Never seen firing: no-op.
    engine.deliver(fixture("single-resolved"));
    nothing_more(&engine, 0, 0);
    // The first body names an old resolved alert beside the new one.
    deliver_all(&engine, &sequence("seq-prometheus-paused")[..1]);
    assert_eq!(fingerprints(&engine, 1).len(), 1);
    let firing = &sequence("seq-partial-resolve")[0];
    let last = &sequence("seq-partial-resolve")[2];
    engine.deliver(firing.to_string());
    engine.deliver(last.to_string());
    let _runs = engine.finished_runs(4);
    eventually("three are resolved", SOON, || {
        let resolved = engine.incidents().iter().filter(|incident| incident["state"] == "resolved").count();
        if resolved == 3 { Ok(()) } else { Err(format!("{:#?}", engine.incidents())) }
    });
    let before = engine.audit().len();
    engine.deliver(last.to_string());
    nothing_more(&engine, 4, 4);
    assert_eq!(engine.audit().len(), before, "a resolved that was seen writes nothing");
}

#[test]
fn fact_19_repeats_and_changed_annotations_do_nothing() {
    let engine = any();
    let bodies = sequence("seq-repeat");
    engine.deliver(bodies[0].to_string());
    let _runs = engine.finished_runs(1);
    let before = engine.audit().len();
    engine.deliver(bodies[1].to_string());
    engine.deliver(bodies[2].to_string());
    assert_eq!(engine.audit().len(), before, "a delivery that was seen writes nothing");

    let bodies = sequence("seq-changing-annotations");
    deliver_all(&engine, &bodies[..3]);
    let _runs = engine.finished_runs(2);
    nothing_more(&engine, 2, 2);
}

#[test]
fn fact_20_identity_is_source_and_fingerprint_and_not_the_group_key() {
    let engine = any();
    // Two routes with equal matchers share the group key and differ in the receiver.
    engine.deliver(fixture("two-routes-continue-1"));
    engine.deliver(fixture("two-routes-continue-2"));
    let _runs = engine.finished_runs(1);
    // An edited matcher fires the alert again under a new group key.
    let mut body = fixture_json("two-routes-continue-1");
    body["groupKey"] = "{}/{scenario=~\"continue|other\"}:{alertname=\"ProbeContinue\"}".into();
    engine.deliver(body.to_string());
    nothing_more(&engine, 1, 1);
    // The same fingerprint from another cluster is another alert.
    assert!(engine.webhook("us", fixture("two-routes-continue-1")).is_success());
    let _runs = engine.finished_runs(2);
    assert_eq!(engine.incidents().len(), 2);
}

#[test]
fn fact_21_a_delivery_seen_before_does_nothing_whatever_route_it_took() {
    let engine = any();
    engine.deliver(fixture("two-hooks-1"));
    engine.deliver(fixture("two-hooks-2"));
    let _runs = engine.finished_runs(1);
    nothing_more(&engine, 1, 1);
    assert_eq!(engine.records("AlertFired").len(), 1);
}

#[test]
fn fact_22_a_resolved_with_another_starts_at_resolves_and_a_moved_firing_is_no_new_episode() {
    let engine = until_resolved();
    let bodies = sequence("seq-startsat-moves-earlier");
    deliver_all(&engine, &bodies[..2]);
    nothing_more(&engine, 1, 1);
    engine.deliver(bodies[2].to_string());
    assert_eq!(engine.finished_runs(1)[0]["state"], "succeeded");

    // Forward: the resolved's startsAt is after the firing's.
    let labels = [("alertname", "Forward"), ("scenario", "x")];
    engine.deliver(AlertBody::firing("00000000000000f0", &labels).bytes());
    engine.deliver(AlertBody::resolved("00000000000000f0", &labels).with("startsAt", "2026-11-21T01:57:10Z").bytes());
    let _incidents = engine.incidents_in_state(2, "resolved");
}

#[test]
fn fact_23_a_flap_joins_its_incident_and_starts_nothing() {
    for engine in [any(), until_resolved()] {
        let bodies = sequence("seq-flap");
        deliver_all(&engine, &bodies[..3]);
        nothing_more(&engine, 1, 1);
        let fired = engine.records("AlertFired");
        assert_eq!(fired.len(), 2, "{fired:#?}");
        assert_ne!(fired[0]["alert"]["starts_at"], fired[1]["alert"]["starts_at"]);
        assert_eq!(engine.incidents()[0]["state"], "open");
        engine.deliver(bodies[3].to_string());
        let _runs = engine.finished_runs(1);
        let _incidents = engine.incidents_in_state(1, "resolved");
    }
}

#[test]
fn fact_24_the_same_episode_firing_again_reopens_its_incident_and_starts_nothing() {
    let engine = any();
    let bodies = sequence("seq-ha-stale-firing-after-resolved");
    deliver_all(&engine, &bodies[..2]);
    let _incidents = engine.incidents_in_state(1, "resolved");
    // The slower peer's firing, or Prometheus waking up: nobody can tell.
    engine.deliver(bodies[2].to_string());
    let _incidents = engine.incidents_in_state(1, "open");
    nothing_more(&engine, 1, 1);
    engine.deliver(bodies[3].to_string());
    let _incidents = engine.incidents_in_state(1, "resolved");
}

#[test]
fn fact_24_after_prometheus_was_paused_the_same_episode_goes_on() {
    let engine = any();
    let bodies = sequence("seq-prometheus-paused");
    deliver_all(&engine, &bodies[..3]);
    let _incidents = engine.incidents_in_state(1, "open");
    nothing_more(&engine, 1, 1);
    deliver_all(&engine, &bodies[3..]);
    let _runs = engine.finished_runs(2);
    let _incidents = engine.incidents_in_state(2, "resolved");
}

#[test]
fn fact_25_duplicates_of_a_pair_start_one_run_even_where_their_times_differ() {
    let engine = any();
    let mut expected = 0;
    for name in ["seq-ha-cluster-failing-receiver", "seq-ha-cluster-slow-receiver"] {
        deliver_all(&engine, &sequence(name));
        expected += 1;
        let _runs = engine.finished_runs(expected);
    }
    // Posted to both peers without times: each peer makes up its own.
    let labels = [("alertname", "DirectHa"), ("scenario", "x")];
    for starts_at in ["2026-11-21T02:06:44.510400317Z", "2026-11-21T02:06:44.512007881Z"] {
        engine.deliver(AlertBody::firing("27cf090000000000", &labels).with("startsAt", starts_at).bytes());
    }
    for ends_at in ["2026-11-21T02:06:54.510400317Z", "2026-11-21T02:06:54.512007881Z"] {
        engine.deliver(AlertBody::resolved("27cf090000000000", &labels).with("endsAt", ends_at).bytes());
    }
    nothing_more(&engine, 3, 3);
}

#[test]
fn fact_26_after_alertmanager_lost_its_data_everything_comes_again_and_starts_nothing() {
    let engine = any();
    let mut alertmanager = Alertmanager::start(&engine.url("/webhooks/alertmanager/eu"));
    let alert = |instance: &str| {
        json!({"labels": {"alertname": "Lost", "scenario": "growing", "instance": instance},
               "startsAt": "2026-11-21T01:56:59.766Z", "endsAt": "2099-01-01T00:00:00Z"})
    };
    let alerts = json!([alert("web-1"), alert("web-2"), alert("web-3")]);
    alertmanager.post(&alerts);
    let _runs = engine.finished_runs(3);
    let before = engine.audit().len();
    alertmanager.lose_data_and_restart();
    // Partial groups over seconds, as its senders come back one by one.
    alertmanager.post(&json!([alert("web-2")]));
    alertmanager.post(&alerts);
    alertmanager.post(&json!([{"labels": {"alertname": "Marker", "scenario": "single"}}]));
    let _runs = engine.finished_runs(4);
    stays("nothing more starts", Duration::from_secs(5), || match engine.runs().len() {
        4 => Ok(()),
        count => Err(format!("{count} runs")),
    });
    let fired = engine.records("AlertFired");
    let marker = fired.iter().filter(|record| record["alert"]["labels"]["alertname"] == "Marker").count();
    assert_eq!((fired.len(), marker), (4, 1), "{fired:#?}");
    assert!(engine.audit().len() > before);
}

#[test]
fn the_credentials_that_alertmanager_sends_are_known_and_others_are_not() {
    let headers = fixture_json("headers");
    let sent = |capture: &str| {
        let headers = headers[capture]["headers"].as_array().expect("the capture has headers");
        let found = headers.iter().find(|header| header[0] == "Authorization").expect("it was sent with credentials");
        found[1].as_str().expect("a header is a text").to_owned()
    };
    let engine = Setup::new()
        .config("intake: {token: 'env:TOKEN', basic: {username: alertmanager, password: 'env:PASSWORD'}}\n")
        .env("TOKEN", "example-token")
        .env("PASSWORD", "example-password")
        .start();
    for (authorization, status) in [
        (Some(sent("basic-auth")), 200),
        (Some(sent("bearer-token")), 200),
        (Some("Basic YWxlcnRtYW5hZ2VyOm90aGVy".to_owned()), 401),
        (Some("Bearer other".to_owned()), 401),
        (None, 401),
    ] {
        let mut request = Request::post("/webhooks/alertmanager/eu", fixture("basic-auth"));
        if let Some(authorization) = &authorization {
            request = request.header("Authorization", authorization);
        }
        assert_eq!(engine.send(&request).status, status, "{authorization:?}");
    }
}
