//! What is done and taken back, with people in between: items, verification, approval by token, a sub-playbook, a wait for
//! a NATS event and a lease, with `kill -9` wherever something waits.

use serde_json::json;
use stanch_tests::engine::stanch;
use stanch_tests::nats::Nats;
use stanch_tests::{AlertBody, Behaviour, Request, SOON, Setup, Slack, Target, eventually, slack, stays};

const HOSTS: [&str; 3] = ["a", "b", "c"];

fn playbook(target: &Target) -> String {
    let url = |path: &str| target.url(path);
    format!(
        r#"
playbook: beacon
triggers:
  - alertmanager: {{matchers: ['alertname="Beacon"']}}
inputs: {{hosts: {{type: list, default: [a, b, c]}}}}
contain:
  approve:
    uses: approval
    with: {{prompt: "Isolate {{{{ count inputs.hosts }}}} hosts?", from: ["group:sec-oncall"]}}
    timeout: 1h
  isolate:
    needs: [approve]
    foreach: inputs.hosts
    max_parallel: 2
    uses: http
    with: {{method: PUT, url: "{isolate}/{{{{ item }}}}"}}
    verify: {{uses: http, with: {{url: "{state}/{{{{ item }}}}"}}, until: "result.body.isolated == true", every: 200ms, within: 20s}}
    undo: {{uses: http, with: {{method: PUT, url: "{release}/{{{{ item }}}}"}}, after: 6s}}
eradicate:
  rotate: {{uses: playbook, with: {{playbook: rotate, inputs: {{hosts: "{{{{ inputs.hosts }}}}"}}}}}}
recover:
  quiet: {{uses: wait, with: {{for: {{nats: {{subject: host.quiet, if: "event.data.host == 'a'"}}}}}}, timeout: 1h}}
"#,
        isolate = url("/isolate"),
        state = url("/state"),
        release = url("/release"),
    )
}

fn rotate(target: &Target) -> String {
    let url = target.url("/rotate");
    format!(
        "playbook: rotate\ninputs: {{hosts: {{type: list, required: true}}}}\neradicate:\n  \
         each: {{foreach: inputs.hosts, uses: http, with: {{method: PUT, url: \"{url}/{{{{ item }}}}\"}}}}\n"
    )
}

fn requests(target: &Target, what: &str) -> Vec<usize> {
    HOSTS.iter().map(|host| target.requests(&format!("/{what}/{host}")).len()).collect()
}

#[test]
fn what_was_approved_is_done_verified_and_taken_back_by_its_lease_over_kills() {
    let (nats, target) = (Nats::start(), Target::start());
    let isolated = |is: bool| Behaviour::Json(json!({"isolated": is}));
    for host in HOSTS {
        target.behave(&format!("/state/{host}"), [isolated(false), isolated(false), isolated(true)]);
    }
    let config = format!(
        "nats: {{url: \"{}\"}}\negress: {{allow: [127.0.0.1/32]}}\npeople: {{ann: {{groups: [sec-oncall]}}}}\n\
         tokens: [{{person: ann, from: \"env:ANN_TOKEN\"}}]\n",
        nats.url()
    );
    let mut engine = Setup::new()
        .playbook("beacon", playbook(&target))
        .playbook("rotate", rotate(&target))
        .config(config)
        .env("ANN_TOKEN", "ann-s-secret-token")
        .start();
    engine.deliver(AlertBody::firing("f1", &[("alertname", "Beacon")]).bytes());
    let asked = engine.question();
    assert_eq!(
        (&asked["prompt"], asked["targets"][0]["with"].as_array().map(Vec::len)),
        (&json!("Isolate 3 hosts?"), Some(3))
    );
    let run = asked["run"].as_str().expect("a question names its run").to_owned();

    // The question outlives the engine.
    engine.kill();
    engine.start_again();
    assert_eq!(engine.question(), asked);
    assert_eq!(requests(&target, "isolate"), [0, 0, 0], "nothing was done before somebody agreed");
    let local = engine.approve(&asked, None);
    assert_eq!((local.status, &local.json()["code"]), (403, &json!("approval.not-allowed")), "{local:?}");
    assert_eq!(engine.approve(&asked, Some("ann-s-secret-tokem")).status, 401);
    let ann = engine.approve(&asked, Some("ann-s-secret-token"));
    assert_eq!((ann.status, &ann.json()["state"]), (200, &json!("approved")), "{ann:?}");

    let shown = engine.step_in_state(&run, "recover.quiet", "waiting");
    let items = &shown["steps"]["contain.isolate"]["items"];
    assert_eq!(
        (&items["states"], requests(&target, "isolate")),
        (&json!({"succeeded": 3}), vec![1, 1, 1]),
        "{items:#}"
    );
    assert!(requests(&target, "state").iter().all(|looks| *looks >= 3), "each was looked at until it held");
    assert_eq!(requests(&target, "rotate"), [1, 1, 1]);
    let child = engine.run(shown["steps"]["eradicate.rotate"]["child"].as_str().expect("it has a child"));
    assert_eq!((&child["state"], &child["parent"]["run"]), (&json!("succeeded"), &json!(run)), "{child:#}");
    assert_eq!(engine.list("/api/v1/inforce").len(), 3);

    // Its time is over while nobody is there to see it.
    engine.kill();
    std::thread::sleep(std::time::Duration::from_secs(7));
    assert_eq!(requests(&target, "release"), [0, 0, 0]);
    engine.start_again();
    eventually("the lease is taken back", SOON, || {
        let left = engine.list("/api/v1/inforce");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    });
    assert_eq!(requests(&target, "release"), [1, 1, 1], "each once");
    let asked_for = engine.records("UndoRequested");
    assert!(asked_for.len() == 3 && asked_for.iter().all(|one| one["reason"] == "its time is over"), "{asked_for:#?}");
    assert_eq!(engine.run_in_state(&run, "waiting")["steps"]["recover.quiet"]["state"], "waiting", "the wait goes on");

    let client = nats.client();
    client.publish("host.quiet", &[], r#"{"host": "b"}"#);
    let over = eventually("the event ends the wait", SOON, || {
        // What is sent before the engine listens is lost over core NATS.
        client.publish("host.quiet", &[], r#"{"host": "a"}"#);
        let run = engine.run(&run);
        if run["state"] == "succeeded" { Ok(run) } else { Err(format!("{run:#}")) }
    });
    assert_eq!(over["steps"]["contain.approve"]["question"]["answers"][0]["by"], "person:ann", "{over:#}");
    let decided = engine.records("ApprovalDecided");
    assert_eq!((decided.len(), decided[0]["via"].as_str()), (1, Some("token from 127.0.0.1")), "{decided:#?}");

    let log = String::from_utf8_lossy(&engine.process.output()).into_owned();
    for line in [
        "contain.isolate[a] of beacon is taken back: its time is over",
        "questions that wait for somebody's yes or no: 1; stanch approvals list",
    ] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert!(!log.contains("ann-s-secret"), "a token is no text for a log");
    assert!(engine.terminate().success());
    let verified = stanch(&["audit", "verify", engine.export().to_str().expect("temporary paths are UTF-8")]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}

#[test]
fn a_question_is_posted_to_slack_once() {
    let slack = Slack::start(&["#sec-incidents"]);
    slack.limit(1, 1);
    let config = format!(
        "slack: {{api_url: \"{}\", token: \"env:SLACK_TOKEN\"}}\npeople: {{ann: {{slack: U012AB3CD, groups: [sec-oncall]}}}}\n",
        slack.api_url()
    );
    let playbook = "playbook: asks\nincident: {slack: {channel: \"#sec-incidents\"}}\ncontain:\n  \
                    approve: {uses: approval, with: {prompt: \"Isolate <!channel>?\", from: [\"group:sec-oncall\"]}}\n  \
                    isolate: {needs: [approve], uses: log, with: {message: isolate}}\n";
    let mut engine = Setup::new().playbook("asks", playbook).config(config).env("SLACK_TOKEN", slack::TOKEN).start();
    let started = engine.send(&Request::post("/api/v1/playbooks/asks/runs", "{}"));
    assert_eq!(started.status, 201, "{started:?}");
    let messages = eventually("the question is posted", SOON, || {
        let messages = slack.messages();
        if messages.is_empty() { Err(format!("{:?}", slack.refused())) } else { Ok(messages) }
    });
    let (message, id) = (&messages[0], engine.question()["id"].as_str().expect("it has an id").to_owned());
    assert_eq!((messages.len(), &*message.channel), (1, "#sec-incidents"));
    let text = message.body.to_string();
    for part in ["Isolate", "contain.isolate", "<@U012AB3CD>", &format!("stanch approve {}", &id[id.len() - 8..])] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!message.body["blocks"][1].to_string().contains("<!channel>"), "{text}");
    engine.kill();
    engine.start_again();
    stays("it is posted once", std::time::Duration::from_secs(2), || match slack.messages().len() {
        1 => Ok(()),
        many => Err(many.to_string()),
    });
}
