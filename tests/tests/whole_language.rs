//! The playbook with all of the language in it, word for word, against real parts: a rule of a real Prometheus fires for two
//! hosts, they are isolated over a real nats-server once a person agrees, and released when it was quiet for long enough,
//! with the engine killed in the middle of the one and of the other.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use stanch_tests::engine::{lines, of_kind, stanch};
use stanch_tests::nats::{Message, Nats};
use stanch_tests::{
    Alertmanager, Behaviour, Engine, Exporter, Prometheus, SOON, Setup, Slack, Target, eventually, repository, slack,
};

const ANN: &str = "ann-s-secret-token";
const EDR: &str = "edr-s-secret-token";
const BEACONS: [&str; 2] = [r#"probe_beacon{env="prod",host="web-1"}"#, r#"probe_beacon{env="prod",host="web-2"}"#];

/// A playbook of the repository with `host` replaced by the stand-in: nobody but its owner can have the name and its
/// certificate. All else stays as it is written.
fn playbook(path: &str, host: &str, stand_in: &Target) -> String {
    let path = repository().join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(text.contains(host), "{} calls {host}", path.display());
    text.replace(host, &stand_in.url(""))
}

fn host(message: &Message) -> String {
    message.subject.rsplit('.').next().unwrap_or_default().to_owned()
}

fn subjects(messages: &[Message]) -> Vec<&str> {
    let mut subjects: Vec<_> = messages.iter().map(|message| message.subject.as_str()).collect();
    subjects.sort_unstable();
    subjects
}

/// An EDR system: what is asked over NATS shows over HTTP. It isolates `web-2` and says nothing.
struct Edr {
    http: Arc<Target>,
    isolate: stanch_tests::nats::Inbox,
    release: stanch_tests::nats::Inbox,
    _client: stanch_tests::nats::Client,
}

impl Edr {
    fn start(nats: &Nats) -> Self {
        let (http, client) = (Arc::new(Target::start()), nats.client());
        http.behave("/hosts", [Behaviour::Status(503), Behaviour::Json(json!({"score": 80}))]);
        let isolated = |http: &Target, host: &str, is: bool| {
            http.behave(&format!("/hosts/{host}"), [Behaviour::Json(json!({"isolated": is}))]);
        };
        let of = Arc::clone(&http);
        let isolate = client.respond("edr.isolate.*", move |message| {
            isolated(&of, &host(message), true);
            (host(message) != "web-2").then(|| "{}".to_owned())
        });
        let of = Arc::clone(&http);
        let release = client.respond("edr.release.*", move |message| {
            isolated(&of, &host(message), false);
            Some("{}".to_owned())
        });
        Self { http, isolate, release, _client: client }
    }
}

fn the_run(engine: &Engine) -> String {
    let mine = |run: &Value| run["playbook"] == "compromised-host";
    let run = eventually("the alerts start a run", Duration::from_secs(60), || {
        engine.runs().into_iter().find(mine).ok_or_else(|| "none".to_owned())
    });
    run["id"].as_str().expect("a run has an id").to_owned()
}

#[test]
fn two_hosts_that_beacon_are_isolated_and_released() {
    let (nats, slack) = (Nats::start(), Slack::start(&["#sec-incidents"]));
    let edr = Edr::start(&nats);
    let vault = Target::start();
    let config = format!(
        "nats: {{url: \"{nats}\"}}\nslack: {{api_url: \"{slack}\", token: \"env:SLACK_TOKEN\"}}\n\
         egress: {{allow: [127.0.0.1/32]}}\nsecrets: {{edr: {{from: \"env:EDR_TOKEN\", hosts: [127.0.0.1]}}}}\n\
         people: {{ann: {{slack: U012AB3CD, groups: [sec-oncall]}}}}\ntokens: [{{person: ann, from: \"env:ANN_TOKEN\"}}]\n",
        nats = nats.url(),
        slack = slack.api_url(),
    );
    let mut engine = Setup::new()
        .playbook(
            "compromised-host",
            playbook("engine/playbook/tests/fixtures/whole-language.yaml", "https://edr.corp", &edr.http),
        )
        .playbook(
            "rotate-credentials",
            playbook("engine/cli/tests/authors/rotate-credentials.yaml", "https://vault.corp", &vault),
        )
        .script("snapshot.sh", "#!/bin/sh\nprintf '%s' \"$HOSTS\" > snapshot.tar.gz\n")
        .config(config)
        .env("SLACK_TOKEN", slack::TOKEN)
        .env("EDR_TOKEN", EDR)
        .env("ANN_TOKEN", ANN)
        .start();
    let exporter = Exporter::start();
    let alertmanager = Alertmanager::start(&engine.url("/webhooks/alertmanager/eu"));
    let _prometheus = Prometheus::start(&exporter, &alertmanager);
    exporter.set_all(&BEACONS, 1.0);

    // Looked at, and asked for: nothing is done yet.
    let id = the_run(&engine);
    let asked = engine.question();
    assert_eq!(asked["prompt"], "Isolate 2 hosts (score 80)?", "{asked:#}");
    let targets: Vec<_> = asked["targets"][0]["with"].as_array().expect("there are some").iter().collect();
    let mut shown: Vec<_> = targets.iter().map(|with| with["subject"].as_str().unwrap_or_default()).collect();
    shown.sort_unstable();
    assert_eq!(shown, ["edr.isolate.web-1", "edr.isolate.web-2"]);
    let queries = edr.http.requests("/hosts");
    assert_eq!(queries.len(), 2, "the first answer was a 503, which is retried");
    assert!(queries[0].path.contains("name=web-1") && queries[0].path.contains("name=web-2"), "{}", queries[0].path);
    assert_eq!(queries[0].header("authorization"), Some(&*format!("Bearer {EDR}")));
    assert_eq!(edr.isolate.messages().len(), 0);
    assert_eq!(engine.approve(&asked, None).status, 403, "nobody in particular may not");
    let yes = engine.approve(&asked, Some(ANN));
    assert_eq!((yes.status, &yes.json()["state"]), (200, &json!("approved")), "{yes:?}");

    let posted = || slack.messages().into_iter().map(|message| message.body.to_string()).collect::<Vec<_>>();
    let told = |what: &str| {
        let by = |text: &String| text.contains(what).then(|| text.clone());
        eventually(what, SOON, || posted().iter().find_map(by).ok_or_else(|| format!("{:?}", slack.refused())))
    };
    assert!(told("Isolate 2 hosts (score 80)?").contains("<@U012AB3CD>"), "who may answer is mentioned");

    // The engine is killed while nobody has said what became of the second host.
    eventually("both hosts are to be isolated", SOON, || match edr.isolate.messages().len() {
        2 => Ok(()),
        other => Err(other.to_string()),
    });
    engine.kill();
    engine.start_again();
    let run = engine.step_in_state(&id, "recover.quiet", "waiting");
    for step in ["detect.enrich", "detect.snapshot", "contain.approve", "contain.isolate", "eradicate.rotate"] {
        assert_eq!(run["steps"][step]["state"], "succeeded", "{step}: {run:#}");
    }
    assert_eq!(
        subjects(&edr.isolate.messages()),
        ["edr.isolate.web-1", "edr.isolate.web-2"],
        "what was unknown was looked at, and not done again"
    );
    let kept = &run["steps"]["detect.snapshot"]["output"]["artifacts"]["snapshot.tar.gz"];
    assert_eq!(kept["size"], r#"["web-1","web-2"]"#.len(), "{kept}");
    assert_eq!(["web-1", "web-2"].map(|host| vault.requests(&format!("/rotate/{host}")).len()), [1, 1]);
    let inforce = engine.list("/api/v1/inforce");
    assert!(inforce.len() == 2 && edr.release.messages().is_empty(), "{inforce:#?}");

    // It is quiet, and five minutes pass without the engine.
    exporter.set_all(&BEACONS, 0.0);
    eventually("both alerts are resolved", Duration::from_secs(60), || match engine.records("AlertResolved").len() {
        2 => Ok(()),
        other => Err(other.to_string()),
    });
    engine.kill();
    engine.start_again_later(Duration::from_secs(310));
    let run = engine.run_in_state(&id, "succeeded");
    assert_eq!(subjects(&edr.release.messages()), ["edr.release.web-1", "edr.release.web-2"]);
    assert_eq!(engine.list("/api/v1/inforce"), Vec::<Value>::new());
    let incident = &engine.incidents_in_state(1, "resolved")[0];
    assert_eq!((&incident["key"], &incident["severity"]), (&json!("c2/lab-1"), &json!("P0")), "{incident:#}");

    let report = run["steps"]["finally.review"]["output"]["markdown"].as_str().unwrap_or_default().to_owned();
    for part in [
        "# Report of P0\\: web-1 beacons \\(compromised-host\\)",
        "| contain.isolate (2 items) | nats.request | succeeded |",
        "approved by person\\:ann",
        "Nothing that this run did",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
    let _escalation = told("nobody acknowledged");
    assert_eq!(posted().iter().filter(|text| text.contains("Isolate 2 hosts")).count(), 1, "{:#?}", posted());
    assert_eq!(slack.refused(), Vec::<String>::new());

    assert!(engine.terminate().success());
    let file = engine.export();
    let verified = stanch(&["audit", "verify", file.to_str().expect("temporary paths are UTF-8")]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    let export = std::fs::read(&file).expect("it was written a moment ago");
    let said = format!("{}{}", String::from_utf8_lossy(&export), String::from_utf8_lossy(&engine.process.output()));
    for secret in [ANN, EDR, slack::TOKEN] {
        assert!(!said.contains(secret), "a secret is on record or in the log");
    }
    let decided = of_kind(&lines(&export), "ApprovalDecided");
    assert_eq!((decided.len(), &decided[0]["via"]), (1, &json!("token from 127.0.0.1")), "{decided:#?}");
}
