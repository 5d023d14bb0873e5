//! The shipped library from the outside: every command that its tests render is one that the real tool would take, every alert
//! has a playbook, and the example configuration has what the playbooks need.
//!
//! A command is run through the real `exec` worker against a stand-in ([`stanch_tests::commands`]), which knows the tool's
//! grammar and answers what was recorded. What that cannot show: whether what a command asks for exists, what a real system
//! answers, and whether a JSONPath, a JMESPath or an SQL statement is right. HTTP requests, the calls of `kubernetes` to the
//! API server, and the scripts and programs of a site's own are not looked at here.

#![expect(clippy::unwrap_used, reason = "what helpers of tests cannot do fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use stanch_core::{Assignment, Outcome};
use stanch_playbook::{Plan, TriggerOn};
use stanch_server::Config;
use stanch_tests::commands::{self, CALLS, REFUSALS};
use stanch_tests::library::{Library, directory, files, rules, secrets};
use stanch_tests::process::program;
use stanch_tests::repository;
use stanch_workers::{ExecConfig, SecretSpec, Secrets, Warden, Worker, WorkerConfig};
use tokio_util::sync::CancellationToken;

const STAND_IN: &str = env!("CARGO_BIN_EXE_stanch-stand-in");
/// Programs of a site's own, of which nobody else knows the arguments.
const OWN: &[&str] = &["make", "python3"];
/// What a tool refuses, and is meant to.
const MEANT: &[&str] = &[
    // An alert that names no pod: the playbook's first step is to fail.
    "kubectl get pod/ --namespace=vibe-ensemble --output=wide: pod/ names no object",
];

/// The different commands that the library's tests render.
fn rendered(library: &Library) -> Vec<Assignment> {
    let mut seen = BTreeSet::new();
    let mut different = |one: &Assignment| seen.insert((one.with.to_string(), one.env.to_string()));
    let exec = library.attempts().into_iter().filter(|one| one.action.as_str() == "exec");
    exec.filter(|one| different(one)).collect()
}

fn worker(path: &Path, of: &[Assignment]) -> Worker {
    let mut names = BTreeSet::new();
    of.iter().for_each(|one| secrets(&one.env, &mut names));
    std::fs::write(path.join("secret"), "recorded").unwrap();
    let spec = SecretSpec { from: format!("file:{}", path.join("secret").display()), hosts: Vec::new() };
    let secrets = Secrets::new(names.into_iter().map(|name| (name, spec.clone())).collect()).unwrap();
    let path = commands::path(path, Path::new(STAND_IN));
    let exec = ExecConfig { directory: None, path, warden: Warden::default() };
    Worker::new(WorkerConfig { secrets, exec, ..WorkerConfig::default() })
}

/// What is wrong with how a command came out, as far as that is not the recording's doing.
fn wrong(of: &Assignment, outcome: &Outcome) -> Option<String> {
    let (text, code) = match outcome {
        Outcome::Succeeded { output } => (output.to_string(), 0),
        Outcome::Failed { error, output, .. } => {
            let output = output.as_ref();
            let code = output.and_then(|output| output["exit_code"].as_i64()).unwrap_or(-1);
            (format!("{error} {}", output.map(Value::to_string).unwrap_or_default()), code)
        }
        Outcome::Unknown { reason } => return Some(reason.clone()),
    };
    let missing = text.lines().any(|line| line.contains(": not found") || line.contains("command not found"));
    let own = text.contains("./");
    let bad = [-1, 126].contains(&code) || ((code == 127 || missing) && !own);
    bad.then(|| format!("{} {}: {text}", of.playbook, of.attempt.step))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_library_is_one_that_its_tool_takes() {
    let library = Library::read();
    let home = tempfile::tempdir().unwrap();
    let all = rendered(&library);
    let program = |one: &Assignment| one.with["argv"][0].as_str().unwrap_or_default().to_owned();
    let known: Vec<Assignment> = all
        .into_iter()
        .filter(|one| !OWN.contains(&program(one).as_str()) && !program(one).starts_with("./"))
        .map(|mut one| {
            // A site's own directory.
            Arc::make_mut(&mut one.with).as_object_mut().unwrap().remove("cwd");
            one.timeout = Duration::from_secs(20);
            one
        })
        .collect();
    let worker = worker(home.path(), &known);
    let mut complaints = Vec::new();
    for some in known.chunks(8) {
        let outcomes = some.iter().map(|one| worker.execute(one.clone(), CancellationToken::new()));
        let outcomes = futures::future::join_all(outcomes).await;
        complaints.extend(some.iter().zip(&outcomes).filter_map(|(one, outcome)| wrong(one, outcome)));
    }
    complaints.extend(commands::lines(home.path(), REFUSALS).into_iter().filter(|line| !MEANT.contains(&&**line)));
    complaints.sort();
    complaints.dedup();
    assert_eq!(complaints, Vec::<String>::new(), "\n{}", complaints.join("\n"));
    let called = commands::lines(home.path(), CALLS);
    assert!(known.len() > 50 && called.len() >= known.len() / 2, "{} commands, {} calls", known.len(), called.len());
}

#[tokio::test]
async fn a_misspelt_flag_verb_or_kind_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let template = rendered(&Library::read()).pop().unwrap();
    let worker = worker(home.path(), &[]);
    for (line, reason) in [
        ("kubectl drain --ignore-daemonset -- node-1", "unknown flag --ignore-daemonset"),
        ("kubectl rolout status deployment/web", "unknown command rolout"),
        ("kubectl get pdos --namespace=shop", "no kind of object is named pdos"),
        ("kubectl rollout status deployment/ --namespace=shop", "deployment/ names no object"),
        ("kubectl wait pod/a --for=condition=Ready --timeout=5", "--timeout does not take \"5\""),
        ("kubectl patch hpa/web --type=merge --patch={spec}", "--patch does not take"),
        ("kubectl create job --from=cronjob/a", "0 arguments"),
        ("psql --no-psqlrc --comand=SELECT", "unknown flag --comand"),
        ("aws s3api head-object --bucket=b", "--key is missing"),
        ("helm rollback --wait --wait web 3", "--wait is given twice"),
        ("etcdctl defrag --endpoints", "--endpoints needs a value"),
        ("openssl x509 -noout -endate", "unknown flag -endate"),
        ("vault operator unseal", "unknown command operator"),
    ] {
        let mut one = template.clone();
        one.with = Arc::new(serde_json::json!({"argv": line.split(' ').collect::<Vec<_>>()}));
        one.env = Arc::new(serde_json::json!({}));
        let Outcome::Failed { error, output, .. } = worker.execute(one, CancellationToken::new()).await else {
            panic!("{line} was taken");
        };
        let output = output.unwrap_or_default();
        assert_eq!(output["exit_code"], commands::REFUSED, "{line}: {error} {output}");
        assert!(output["stderr"].as_str().unwrap().contains(reason), "{line}: {output}");
    }
}

/// The playbooks that an alert with a rule's labels starts.
fn started<'a>(plans: &'a [Arc<Plan>], alert: &str, labels: &BTreeMap<String, String>) -> Vec<&'a str> {
    let mut labels = labels.clone();
    labels.insert("alertname".to_owned(), alert.to_owned());
    let matches = |plan: &&Arc<Plan>| {
        plan.triggers.iter().any(|trigger| match &trigger.on {
            TriggerOn::Alertmanager(matchers) => matchers.iter().all(|matcher| matcher.is_match(&labels)),
            _ => false,
        })
    };
    plans.iter().filter(matches).map(|plan| plan.name.as_str()).collect()
}

#[test]
fn every_alert_that_is_shipped_starts_a_playbook() {
    let library = Library::read();
    let unmatched: Vec<String> = rules()
        .iter()
        .filter(|rule| started(&library.plans, &rule.alert, &rule.labels).is_empty())
        .map(|rule| format!("{} of {}", rule.alert, rule.file.display()))
        .collect();
    assert_eq!(unmatched, Vec::<String>::new());
}

#[test]
fn every_alert_that_a_playbook_waits_for_has_a_rule() {
    // Other names of rules that are shipped, and alerts that a site's own rules raise.
    const ELSEWHERE: &[&str] = &[
        "etcdDatabaseQuotaLowSpace",      // today's name of etcdBackendQuotaLowSpace
        "NodeFilesystemAlmostOutOfSpace", // the node mixin's other alert on the same file system
        "InstanceDown",                   // general examples
        "ProbeInstanceDown",
        "SecurityAlert",       // intrusion detection's, not a metric's
        "SuspectedCompromise", // the same
    ];
    let known: BTreeSet<String> = rules().into_iter().map(|rule| rule.alert).collect();
    let mut missing = BTreeSet::new();
    for plan in &Library::read().plans {
        for trigger in &plan.triggers {
            let TriggerOn::Alertmanager(matchers) = &trigger.on else { continue };
            for matcher in matchers.iter().filter(|matcher| matcher.name() == "alertname" && matcher.is_positive()) {
                let names: Vec<&str> = match matcher.value() {
                    // Of an expression that is more than a list of names one must be there.
                    value if value.contains(['(', '.', '*', '[']) => {
                        let label = |name: &String| BTreeMap::from([("alertname".to_owned(), name.clone())]);
                        let any = known.iter().any(|name| matcher.is_match(&label(name)));
                        if any { Vec::new() } else { vec![value] }
                    }
                    value => value.split('|').collect(),
                };
                let unknown = names.into_iter().filter(|name| !known.contains(*name) && !ELSEWHERE.contains(name));
                missing.extend(unknown.map(|name| format!("{name} of {}", plan.name)));
            }
        }
    }
    assert_eq!(missing, BTreeSet::new());
}

#[test]
fn the_rules_hold_and_fire_as_they_say() {
    let place = repository().join("deploy/prometheus");
    let promtool = |verb: &'static str, ending: &str| {
        let start = |file: PathBuf| {
            let mut promtool = Command::new(program("promtool"));
            promtool.args([verb, "rules"]).arg(file).current_dir(&place);
            std::thread::spawn(move || promtool.output().unwrap())
        };
        files(&place, ending).into_iter().map(start).collect::<Vec<_>>()
    };
    let all: Vec<_> = promtool("check", ".rules.yml").into_iter().chain(promtool("test", ".test.yml")).collect();
    assert!(!all.is_empty());
    for output in all.into_iter().map(|one| one.join().unwrap()) {
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
    }
}

/// What follows a word in the library's playbooks and catalogues, as far as it is a name.
fn named_after(word: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in files(&directory(), ".yaml").into_iter().filter(|file| !file.to_string_lossy().ends_with(".test.yaml"))
    {
        let text = std::fs::read_to_string(&file).unwrap();
        for (_, rest) in text.match_indices(word).map(|(at, _)| text[at..].split_at(word.len())) {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').unwrap_or(rest.len());
            found.insert(rest[..end].to_owned());
        }
    }
    found
}

#[test]
fn the_example_configuration_has_what_the_library_needs() {
    let config = Config::read(&repository().join("deploy/stanch.yaml")).unwrap();
    let secrets = named_after("{{ secrets.");
    let unknown: Vec<_> = secrets.iter().filter(|name| !config.secrets.contains_key(*name)).collect();
    assert!(unknown.is_empty() && !secrets.is_empty(), "secrets that deploy/stanch.yaml lacks: {unknown:?}");
    let spare: Vec<_> = config.secrets.keys().filter(|name| !secrets.contains(*name)).collect();
    assert!(spare.is_empty(), "secrets that no playbook uses: {spare:?}");
    let groups: BTreeSet<String> = config.people.values().flat_map(|person| person.groups.clone()).collect();
    let unknown: Vec<_> = named_after("group:").into_iter().filter(|name| !groups.contains(name)).collect();
    assert!(unknown.is_empty(), "groups of which nobody is: {unknown:?}");
}

#[test]
fn no_value_of_an_event_stands_in_a_shells_text() {
    for file in files(&directory(), ".yaml") {
        let text = std::fs::read_to_string(&file).unwrap();
        if file.to_string_lossy().ends_with(".test.yaml") {
            continue;
        }
        let document: Value = serde_saphyr::from_str(&text).unwrap();
        shells(&document, &mut |script| {
            assert!(!script.contains("{{"), "{}: {script}", file.display());
        });
    }
}

fn shells(value: &Value, look: &mut dyn FnMut(&str)) {
    if let Some(argv) = value["argv"].as_array()
        && let [shell, flag, script, ..] = argv.as_slice()
        && [Some("sh"), Some("bash")].contains(&shell.as_str())
        && flag.as_str().is_some_and(|flag| flag.ends_with('c'))
    {
        look(script.as_str().unwrap_or_default());
    }
    match value {
        Value::Object(map) => map.values().for_each(|value| shells(value, look)),
        Value::Array(list) => list.iter().for_each(|value| shells(value, look)),
        _ => {}
    }
}
