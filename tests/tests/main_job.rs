//! The main job, with nothing made up between the alert and the audit trail: a rule of a real Prometheus fires, a real
//! Alertmanager posts it, the engine is killed twice on the way, the alert resolves, and the record of it all verifies.

use std::collections::BTreeSet;
use std::time::Duration;

use stanch_tests::engine::{lines, stanch};
use stanch_tests::nats::Nats;
use stanch_tests::slack::TOKEN;
use stanch_tests::{Alertmanager, Behaviour, Engine, Exporter, Prometheus, Setup, Slack, Target, eventually};

const GAUGE: &str = r#"probe_single{instance="db-01:9100"}"#;

fn playbook(target: &Target, snapshots: &str) -> String {
    let base = target.url("");
    format!(
        r##"
playbook: instance-down
description: Find out about a host that is down, fence it, tell people, and wait until it is back.
severity: P1
triggers:
  - alertmanager: {{matchers: ['alertname="ProbeInstanceDown"', 'severity=~"critical|page"']}}
    key: "down/{{{{ alert.labels.cluster }}}}"
    inputs: {{instance: alert.labels.instance}}
inputs:
  instance: {{type: string, required: true}}
detect:
  inspect:
    uses: http
    with: {{method: GET, url: "{base}/hosts", query: {{name: "{{{{ inputs.instance }}}}"}}}}
    outputs: {{score: result.body.score}}
  snapshot:
    uses: exec
    with: {{argv: [sh, -c, 'echo "$HOST $STANCH_IDEMPOTENCY_KEY" | tee -a "$SNAPSHOTS"']}}
    env: {{HOST: "{{{{ inputs.instance }}}}", SNAPSHOTS: "{snapshots}"}}
contain:
  fence:
    if: steps.inspect.outputs.score > 90
    uses: http
    with: {{method: PUT, url: "{base}/fence", body: {{host: "{{{{ inputs.instance }}}}"}}}}
  ignore:
    if: steps.inspect.outputs.score <= 90
    uses: log
    with: {{message: not reached}}
eradicate:
  publish:
    uses: nats.publish
    with: {{subject: ops.fenced, data: {{host: "{{{{ inputs.instance }}}}", score: "{{{{ steps.inspect.outputs.score }}}}"}}}}
  tell:
    needs: [publish]
    uses: slack
    with: {{channel: "#ops", text: "{{{{ inputs.instance }}}} is fenced ({{{{ alert.annotations.summary }}}})"}}
    retry: {{max_attempts: 3, initial_interval: 1s}}
recover:
  quiet:
    uses: wait
    with: {{for: resolved, settle: 1s}}
    timeout: 5m
  done:
    needs: [quiet]
    uses: log
    with: {{message: "{{{{ inputs.instance }}}} is back"}}
"##
    )
}

#[test]
fn a_real_alert_runs_a_playbook_to_the_end_through_two_kills() {
    let target = Target::start();
    target.behave("/hosts", [Behaviour::Json(serde_json::json!({"name": "db-01:9100", "score": 97}))]);
    target.behave("/fence", [Behaviour::Hang, Behaviour::Status(200)]);
    let slack = Slack::start(&["#ops"]);
    slack.limit(1, 1);
    let nats = Nats::start();
    let nats_client = nats.client();
    let fenced = nats_client.subscribe("ops.fenced");
    let home = tempfile::tempdir().unwrap();
    let snapshots = home.path().join("snapshots");
    let mut engine = Setup::new()
        .playbook("instance-down", playbook(&target, snapshots.to_str().unwrap()))
        .config(format!(
            "nats: {{url: \"{}\"}}\nslack: {{api_url: \"{}\", token: \"env:TEST_SLACK_TOKEN\"}}\n\
             egress: {{allow: [127.0.0.0/8]}}\nincidents: {{settle: 1s}}\n",
            nats.url(),
            slack.api_url()
        ))
        .env("TEST_SLACK_TOKEN", TOKEN)
        .start();
    let exporter = Exporter::start();
    let alertmanager = Alertmanager::start(&engine.url("/webhooks/alertmanager/eu"));
    let _prometheus = Prometheus::start(&exporter, &alertmanager);

    exporter.set(GAUGE, 1.0);
    eventually("the host is being fenced", Duration::from_secs(60), || {
        if target.requests("/fence").is_empty() { Err(format!("{:#?}", engine.runs())) } else { Ok(()) }
    });
    engine.kill();
    engine.start_again();

    let runs = engine.runs();
    assert_eq!(runs.len(), 1, "{runs:#?}");
    let id = runs[0]["id"].as_str().unwrap().to_owned();
    let _waits = engine.step_in_state(&id, "recover.quiet", "waiting");
    engine.kill();
    exporter.set(GAUGE, 0.0);
    engine.start_again();

    let run = eventually("the run succeeds", Duration::from_secs(90), || {
        let run = engine.run(&id);
        assert_ne!(run["state"], "failed", "{run:#}");
        if run["state"] == "succeeded" { Ok(run) } else { Err(format!("{run:#}")) }
    });
    assert_run(&run);
    assert_eq!(engine.runs().len(), 1);
    let incidents = engine.incidents_in_state(1, "resolved");
    assert_eq!(incidents[0]["key"], "down/lab-1");
    assert_eq!(incidents[0]["severity"], "P1");

    // What the world outside saw.
    let keys = target.keys("/fence");
    assert_eq!(keys.len(), 1, "one key over all attempts: {keys:?}");
    assert_eq!(keys.values().sum::<usize>(), 2, "once before the kill and once after: {keys:?}");
    assert_eq!(target.requests("/hosts")[0].path, "/hosts?name=db-01%3A9100");
    assert_eq!(fenced.messages().len(), 1);
    assert!(fenced.messages()[0].id.is_some(), "Nats-Msg-Id carries the idempotency key");
    let published: serde_json::Value = serde_json::from_slice(&fenced.messages()[0].data).unwrap();
    assert_eq!(published, serde_json::json!({"host": "db-01:9100", "score": 97}));
    assert_eq!(std::fs::read_to_string(&snapshots).unwrap().lines().count(), 1, "the command ran once");
    let messages = slack.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].body["text"], "db-01:9100 is fenced (Instance db-01:9100 down)");
    assert_eq!((slack.limited(), slack.refused()), (1, Vec::new()));
    assert_eq!(run["steps"]["eradicate.tell"]["output"]["ts"], messages[0].ts);

    audit_verifies_and_names_what_was_edited(&mut engine);
}

fn assert_run(run: &serde_json::Value) {
    assert_eq!(run["playbook"], "instance-down");
    assert_eq!(run["inputs"], serde_json::json!({"instance": "db-01:9100"}));
    assert!(run["finished_at"].is_string(), "{run:#}");
    for (step, state) in [
        ("detect.inspect", "succeeded"),
        ("detect.snapshot", "succeeded"),
        ("contain.fence", "succeeded"),
        ("contain.ignore", "skipped"),
        ("eradicate.publish", "succeeded"),
        ("eradicate.tell", "succeeded"),
        ("recover.quiet", "succeeded"),
        ("recover.done", "succeeded"),
    ] {
        assert_eq!(run["steps"][step]["state"], state, "{step} in {run:#}");
    }
    assert_eq!(run["steps"]["contain.fence"]["attempts"].as_array().expect("there was one").len(), 2, "{run:#}");
    assert_eq!(run["steps"]["detect.snapshot"]["output"]["exit_code"], 0);
}

fn audit_verifies_and_names_what_was_edited(engine: &mut Engine) {
    let status = engine.terminate();
    assert!(status.success(), "SIGTERM ends the engine in good order: {status}");
    let file = engine.export();
    let export = std::fs::read(&file).expect("the export is whole");
    let path = file.to_str().expect("the export is whole");
    let verified = stanch(&["audit", "verify", path]);
    assert!(verified.status.success(), "{}{}", text(&verified.stdout), text(&verified.stderr));

    let records = lines(&export);
    let kinds: BTreeSet<&str> = records.iter().filter_map(|record| record["envelope"]["kind"].as_str()).collect();
    for kind in ["EngineStarted", "AlertFired", "RunStarted", "AttemptScheduled", "AlertResolved", "RunFinished"] {
        assert!(kinds.contains(kind), "no {kind} in {kinds:?}");
    }
    let starts = records.iter().filter(|record| record["envelope"]["kind"] == "EngineStarted").count();
    assert_eq!(starts, 3);
    assert!(!text(&export).contains(TOKEN), "the journal holds a secret");

    let victim = records
        .iter()
        .position(|record| record["envelope"]["kind"] == "AttemptSucceeded")
        .expect("the export is whole");
    let sequence = records[victim]["envelope"]["sequence"].as_u64().expect("the export is whole");
    let edit = |needle: &str| {
        let mut all: Vec<Vec<u8>> = export.split_inclusive(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect();
        let line = &mut all[victim];
        let at = line.windows(needle.len()).position(|part| part == needle.as_bytes()).expect("the export is whole")
            + needle.len();
        line[at] = if line[at] == b'1' { b'2' } else { b'1' };
        std::fs::write(&file, all.concat()).expect("the export is whole");
        let output = stanch(&["audit", "verify", path]);
        assert_eq!(output.status.code(), Some(1), "{}{}", text(&output.stdout), text(&output.stderr));
        format!("{}{}", text(&output.stdout), text(&output.stderr))
    };
    let said = edit("\"attempt\":{\"run\":\"");
    assert!(names(&said, sequence), "an edited payload of {sequence}: {said}");
    // Only the next record's `prev` can tell.
    let said = edit("\"time\":\"");
    assert!(names(&said, sequence) || names(&said, sequence + 1), "an edited envelope of {sequence}: {said}");
}

fn names(said: &str, sequence: u64) -> bool {
    said.split(|c: char| !c.is_ascii_digit()).any(|number| number == sequence.to_string())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
