//! Actions through a whole engine: a query of a real Prometheus decides, a real Alertmanager is silenced and heard again,
//! what a command leaves behind is kept, and the report at the end tells it.

use stanch_tests::http::Request;
use stanch_tests::{Alertmanager, Engine, Exporter, Prometheus, Setup};

const PLAYBOOK: &str = r##"
playbook: drill
description: Look, silence, keep, tell.
severity: P2
inputs:
  host: {type: string, required: true}
detect:
  load:
    uses: prometheus
    with: {query: "vector(40) + 2"}
    outputs: {value: result.value}
contain:
  quiet:
    if: steps.load.outputs.value > 40.0
    uses: alertmanager.silence
    with: {matchers: {alertname: HostDown, host: "{{ inputs.host }}"}, duration: 1h, comment: "drill of {{ inputs.host }}"}
    outputs: {id: result.id}
eradicate:
  keep:
    uses: exec
    with: {argv: [sh, -c, 'printf "%s" "$HOST" > found.txt'], cwd: "@scratch@"}
    env: {HOST: "{{ inputs.host }}"}
    artifacts: [found.txt]
recover:
  heard:
    uses: alertmanager.silence
    with: {operation: expire, id: "{{ steps.quiet.outputs.id }}"}
finally:
  review: {uses: report}
"##;

fn silences(alertmanager: &Alertmanager) -> serde_json::Value {
    let answer = Request::new("GET", "/api/v2/silences").send(alertmanager.address).expect("alertmanager answers");
    answer.json()
}

#[test]
fn a_drill_looks_silences_keeps_and_reports() {
    let alertmanager = Alertmanager::start("http://127.0.0.1:9/hook/");
    let prometheus = Prometheus::start(&Exporter::start(), &alertmanager);
    let scratch = tempfile::tempdir().expect("the temporary directory is there");
    let engine: Engine = Setup::new()
        .playbook("drill", PLAYBOOK.replace("@scratch@", &scratch.path().display().to_string()))
        .config(format!(
            "prometheus: {{url: 'http://{}'}}\nalertmanager: {{url: 'http://{}'}}\n",
            prometheus.address, alertmanager.address
        ))
        .start();
    let body = r#"{"inputs": {"host": "db-01 | <b>\" #"}}"#;
    let answer = engine.send(&Request::post("/api/v1/playbooks/drill/runs", body));
    assert!(answer.is_success(), "{answer:?}");
    let runs = engine.finished_runs(1);
    let run = engine.run(runs[0]["id"].as_str().expect("a run has an id"));
    assert_eq!(run["state"], "succeeded", "{run:#}");

    let steps = &run["steps"];
    assert_eq!(steps["detect.load"]["outputs"]["value"], 42.0, "{steps:#}");
    let silences = silences(&alertmanager);
    assert_eq!(silences[0]["id"], steps["contain.quiet"]["outputs"]["id"]);
    assert_eq!(silences[0]["status"]["state"], "expired");
    let host = silences[0]["matchers"].as_array().and_then(|all| all.iter().find(|one| one["name"] == "host"));
    assert_eq!(host.expect("it was silenced by host")["value"], "db-01 | <b>\" #");

    let kept = &steps["eradicate.keep"]["output"]["artifacts"]["found.txt"];
    let digest = "2396fc37f8ea14fced444965a63a75f4b3be40dc11068b9999a7995b756d82eb";
    assert_eq!((&kept["size"], &kept["sha256"]), (&14.into(), &digest.into()), "{steps:#}");

    let report = steps["finally.review"]["output"]["markdown"].as_str().expect("the report is a text");
    for expected in ["| contain.quiet | alertmanager.silence | succeeded | 1 |", "## Timeline", "the run started"] {
        assert!(report.contains(expected), "{expected} is missing:\n{report}");
    }
    assert!(!report.contains("<b>"), "{report}");
}
