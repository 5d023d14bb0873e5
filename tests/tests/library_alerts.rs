//! Three alerts of the library, one a system, from the metric to the end of the run: the shipped rules in a real Prometheus, a
//! real Alertmanager, the real engine with the shipped playbooks, whose remedies show in the metrics.
//!
//! Stand-ins are Slack, the Kubernetes API server, and the commands on the engine's `PATH` ([`stanch_tests::commands`]). In the
//! copies that run here rules fire after two seconds instead of minutes, rates are over 15 seconds instead of five minutes,
//! and playbooks wait for one second of calm; all else is as shipped.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stanch_tests::commands::{self, CALLS, REFUSALS};
use stanch_tests::engine::is_over;
use stanch_tests::slack::TOKEN;
use stanch_tests::stand_in::{Answer, Received, StandIn};
use stanch_tests::{
    Alertmanager, Engine, Exporter, Prometheus, Setup, Slack, eventually, free_port, library, repository,
};

const CHANNELS: &[&str] = &["#incidents", "#maintenance-api-alerts"];
const SICK_POD: &str = "/api/v1/namespaces/stratmaster-production/pods/api-2";
/// A limit that no passing test reaches.
const LATE: Duration = Duration::from_secs(120);

/// Minutes of patience, as seconds.
fn hurried(text: &str) -> String {
    let mut text = text.replace("[5m]", "[15s]").replace("cwd: /srv/stratmaster", "cwd: .");
    for minutes in [1, 2, 3, 5, 10, 15, 30] {
        text = text.replace(&format!("settle: {minutes}m"), "settle: 1s");
        text = text.replace(&format!("for: {minutes}m\n"), "for: 2s\n");
    }
    text
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The engine's setup with every shipped playbook and catalogue.
fn shipped(mut setup: Setup) -> Setup {
    for file in library::files(&library::directory(), ".yaml") {
        let path = file.strip_prefix(library::directory()).expect("it lies there").to_string_lossy().replace('/', "_");
        let name = path.strip_suffix(".yaml").expect("it ends so");
        if !name.ends_with(".test") {
            setup = setup.playbook(name, hurried(&read(&file)));
        }
    }
    setup
}

/// An API server with a pod.
struct Cluster {
    server: StandIn,
    objects: Arc<Mutex<BTreeMap<String, Value>>>,
}

impl Cluster {
    fn start() -> Self {
        let pod = json!({"kind": "Pod", "metadata": {"name": "api-2", "uid": "uid-2"}});
        let objects = BTreeMap::from([(SICK_POD.to_owned(), pod)]);
        let objects = Arc::new(Mutex::new(objects));
        let shared = Arc::clone(&objects);
        let server = StandIn::start(move |request| {
            let (status, body) = respond(&mut shared.lock().unwrap_or_else(PoisonError::into_inner), request);
            Answer::json(status, &body)
        });
        Self { server, objects }
    }

    fn object(&self, path: &str) -> Option<Value> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }
}

fn respond(objects: &mut BTreeMap<String, Value>, request: &Received) -> (u16, Value) {
    let path = request.path.split('?').next().unwrap_or_default();
    let Some(object) = objects.get(path).cloned() else {
        return (404, json!({"kind": "Status", "message": format!("{path} not found")}));
    };
    match request.method.as_str() {
        "DELETE" => (200, objects.remove(path).unwrap_or_default()),
        _ => (200, object),
    }
}

/// What the systems do: their gauges and counters, for as long as they are sick.
struct Systems {
    exporter: Arc<Exporter>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Systems {
    /// `cured` says which of queue, pod and load no longer are.
    fn start(cured: impl Fn() -> [bool; 3] + Send + 'static) -> Self {
        let exporter = Arc::new(Exporter::start());
        let stop = Arc::new(AtomicBool::new(false));
        let (shown, stopped) = (Arc::clone(&exporter), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let (mut errors, mut cpu, mut last) = (0.0, 0.0, Instant::now());
            let started = last;
            while !stopped.load(Ordering::SeqCst) {
                let [queue, pod, load] = cured();
                let passed = last.elapsed().as_secs_f64();
                last = Instant::now();
                errors += if pod { 0.0 } else { 5.0 * passed };
                cpu += if load { 0.1 } else { 0.95 } * passed;
                shown.set(r#"celery_queue_depth{queue="default"}"#, if queue { 3.0 } else { 1500.0 });
                let asked = r#"http_requests_total{job="stratmaster-api",status="200",pod="api-1"}"#;
                shown.set(asked, 20.0 * started.elapsed().as_secs_f64());
                shown.set(r#"http_requests_total{job="stratmaster-api",status="500",pod="api-2"}"#, errors);
                for pod in ["a", "b", "c"] {
                    let of = format!(r#"namespace="maintenance-api",container="maintenance-api",pod="{pod}""#);
                    shown.set(&format!("container_cpu_usage_seconds_total{{{of}}}"), cpu);
                    shown.set(&format!(r#"kube_pod_container_resource_limits{{{of},resource="cpu"}}"#), 1.0);
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Self { exporter, stop, thread: Some(thread) }
    }
}

impl Drop for Systems {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// The run of a playbook, once it is over.
fn finished(engine: &Engine, playbook: &str) -> Value {
    let run = eventually(&format!("{playbook} comes to its end"), LATE, || {
        let runs = engine.runs();
        let of = runs.iter().find(|run| run["playbook"] == playbook).ok_or_else(|| format!("{runs:#?}"))?;
        let run = engine.run(of["id"].as_str().expect("a run has an id"));
        if is_over(&run) { Ok(run) } else { Err(format!("{run:#}")) }
    });
    assert_eq!(run["state"], "succeeded", "{run:#}");
    run
}

fn ended(run: &Value, steps: &[(&str, &str)]) {
    for (step, state) in steps {
        assert_eq!(run["steps"][step]["state"], *state, "{step} in {run:#}");
    }
}

#[test]
fn an_alert_of_each_system_is_answered_by_its_playbook_to_the_end() {
    let commands = tempfile::tempdir().expect("a temporary directory");
    let home = commands.path().to_owned();
    let path = commands::path(&home, Path::new(env!("CARGO_BIN_EXE_stanch-stand-in")));
    let write = |name: &str, text: &str| std::fs::write(home.join(name), text).expect("a directory of the test's own");
    write(
        "kubectl.answers.yaml",
        concat!(
            "- {of: [get], with: 'deployment/sprintconnect-workers --namespace=sprintconnect --output=jsonpath', stdout: 3 3}\n",
            // As it is once it was raised, and nobody else has raised it.
            "- {of: [get], with: deployment/sprintconnect-workers, stdout: '{\"metadata\": {\"resourceVersion\": \"7\", ",
            r#""annotations": {"stanch-raised": "{\"before\":3,\"runs\":{}}"}}, "spec": {"replicas": 5}}'}"#,
            "\n- {of: [get], with: deployment/stratmaster-api, stdout: 3 3}\n",
            "- {of: [get], with: '{.spec.maxReplicas}', stdout: 3 10 3 Deployment maintenance-api}\n",
            "- {of: [get], with: '{.spec.minReplicas} {.status.currentReplicas}', stdout: 5 5}\n",
        ),
    );
    write("psql.answers.yaml", "- {of: [], with: max_connections, stdout: 20|0|200}\n");
    // The target of a repository that is not here.
    write("make", "#!/bin/sh\necho \"$@\"\n");
    std::fs::set_permissions(home.join("make"), Permissions::from_mode(0o755)).expect("it was written a moment ago");

    let cluster = Cluster::start();
    let slack = Slack::start(CHANNELS);
    let prometheus = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let engine = shipped(Setup::new())
        .config(format!(
            "slack: {{api_url: \"{}\", token: \"env:TEST_SLACK_TOKEN\"}}\nprometheus: {{url: \"http://{prometheus}\"}}\n\
             kubernetes: {{url: \"http://{}\", token: \"env:TEST_SLACK_TOKEN\"}}\negress: {{allow: [127.0.0.0/8]}}\n\
             incidents: {{settle: 1s}}\n",
            slack.api_url(),
            cluster.server.address,
        ))
        .env("TEST_SLACK_TOKEN", TOKEN)
        .env("PATH", &path.to_string_lossy())
        .start();
    let (objects, called) = (Arc::clone(&cluster.objects), home.clone());
    let systems = Systems::start(move || {
        let objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
        let calls = commands::lines(&called, CALLS);
        let patched = |what: &str| calls.iter().any(|line| line.contains(&format!("kubectl patch {what}")));
        [
            patched("deployment/sprintconnect-workers"),
            !objects.contains_key(SICK_POD),
            patched("horizontalpodautoscaler/maintenance-api"),
        ]
    });
    let alertmanager = Alertmanager::start(&engine.url("/webhooks/alertmanager/main"));
    let rules = ["sprintconnect", "stratmaster", "maintenance-api"].map(|system| {
        let name = format!("{system}.rules.yml");
        let text = hurried(&read(&repository().join("deploy/prometheus").join(&name)));
        (name, text)
    });
    let _prometheus = Prometheus::start_at(prometheus.port(), &systems.exporter, &alertmanager, &rules);

    let run = finished(&engine, "sprintconnect-high-queue-depth");
    assert_eq!(run["inputs"]["queue"], "default", "{run:#}");
    ended(
        &run,
        &[
            ("contain.more_workers", "succeeded"),
            ("contain.hand_over", "skipped"),
            ("recover.fewer_workers", "succeeded"),
        ],
    );
    let patches = |what: &str| -> Vec<String> {
        let of = format!("kubectl patch {what}");
        commands::lines(&home, CALLS).into_iter().filter(|line| line.contains(&of)).collect()
    };
    let workers = patches("deployment/sprintconnect-workers");
    assert!(workers.first().is_some_and(|line| line.contains(r#""spec":{"replicas":5}"#)), "{workers:?}");
    let back = |line: &String| line.contains(r#""spec":{"replicas":3}"#) && line.contains(r#""stanch-raised":null"#);
    assert!(workers.last().is_some_and(back), "taken back once it was calm: {workers:?}");

    let run = finished(&engine, "stratmaster-high-error-rate");
    ended(
        &run,
        &[("contain.replace_pod", "succeeded"), ("eradicate.ask", "skipped"), ("recover.smoke_tests", "succeeded")],
    );
    assert_eq!(cluster.object(SICK_POD), None);

    let run = finished(&engine, "maintenance-api-high-cpu");
    ended(
        &run,
        &[
            ("contain.more_pods", "succeeded"),
            ("eradicate.replace_pod", "skipped"),
            ("recover.fewer_pods", "succeeded"),
        ],
    );
    let patches = patches("horizontalpodautoscaler/");
    assert!(patches.len() >= 2 && patches.iter().all(|line| line.contains("minReplicas")), "{patches:?}");

    assert_eq!(commands::lines(&home, REFUSALS), Vec::<String>::new());
    let said: Vec<String> = slack.messages().iter().map(|message| message.body["text"].to_string()).collect();
    for outcome in ["queue default: succeeded", "error rate: succeeded", "high CPU: succeeded"] {
        assert!(said.iter().any(|text| text.contains(outcome)), "{outcome} in {said:#?}");
    }
}
