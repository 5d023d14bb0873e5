//! The shipped library as the tests see it: its playbooks, its tests, and what these render.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use stanch_core::Assignment;
use stanch_core::alert::AlertChange;
use stanch_playbook::test_file::{AlertSpec, TestCase};
use stanch_playbook::{Plan, Timestamp, load_tests};
use stanch_server::fixture::{self, Fixture};
use stanch_server::playbooks;
use stanch_simulator::stimulus::{Read, Stimulus};
use stanch_simulator::testing::{self, Engines};

use crate::repository;

/// The shipped library.
pub struct Library {
    /// Every playbook.
    pub plans: Vec<Arc<Plan>>,
    /// Every test, with its file.
    pub tests: Vec<(PathBuf, TestCase)>,
}

/// Where the library lies.
#[must_use]
pub fn directory() -> PathBuf {
    repository().join("playbooks")
}

impl Library {
    /// Reads it.
    ///
    /// # Panics
    /// Where a part of it is broken.
    #[must_use]
    pub fn read() -> Self {
        let library = playbooks::read(&directory()).expect("the library is there");
        assert!(library.broken.is_empty() && !library.plans.is_empty(), "broken: {:?}", library.broken);
        let mut tests = Vec::new();
        for file in files(&directory(), ".test.yaml") {
            let text = std::fs::read_to_string(&file).expect("it was listed a moment ago");
            let read = load_tests(&file.to_string_lossy(), &text).unwrap_or_else(|bad| panic!("{bad}"));
            tests.extend(read.tests.into_iter().map(|test| (file.clone(), test)));
        }
        Self { plans: library.plans, tests }
    }

    /// The plan of a name.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn plan(&self, name: &str) -> &Arc<Plan> {
        self.plans.iter().find(|plan| plan.name.as_str() == name).unwrap_or_else(|| panic!("no playbook {name}"))
    }

    /// Every attempt that the library's tests dispatch, as it is rendered.
    #[must_use]
    pub fn attempts(&self) -> Vec<Assignment> {
        let mut engines = Engines::default();
        let run = |(file, test): &(PathBuf, TestCase)| {
            let beside = Beside(file.parent().unwrap_or(Path::new(".")));
            testing::run(&mut engines, self.plan(&test.playbook), &self.plans, test, &beside).dispatched
        };
        self.tests.iter().flat_map(run).collect()
    }
}

/// The files below a directory whose names end so, in order.
///
/// # Panics
/// Where it cannot be read.
#[must_use]
pub fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory of the repository") {
            let path = entry.expect("a directory of the repository").path();
            if path.is_dir() {
                pending.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.insert(path);
            }
        }
    }
    found.into_iter().collect()
}

/// The names of the secrets that a rendered value holds.
pub fn secrets(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            let parts = map.get("secret_text").and_then(Value::as_array).into_iter().flatten();
            found.extend(parts.filter_map(|part| part["secret"].as_str()).map(str::to_owned));
            map.values().for_each(|value| secrets(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| secrets(value, found)),
        _ => {}
    }
}

/// Bodies of tests, read from files beside them.
struct Beside<'a>(&'a Path);

impl Read for Beside<'_> {
    fn alerts(&self, alerts: &[AlertSpec], now: Timestamp) -> Result<Vec<AlertChange>, String> {
        let one = |alert: &AlertSpec| json!({"status": "firing", "labels": alert.labels, "annotations": alert.annotations, "startsAt": now.minus(alert.since)});
        let body = json!({"alerts": alerts.iter().map(one).collect::<Vec<_>>()}).to_string();
        match fixture::read(body.as_bytes(), "default", None, now) {
            Ok(Fixture::Alerts { changes, .. }) => Ok(changes),
            other => Err(format!("{other:?}")),
        }
    }

    fn file(&self, path: &str, _: Option<&str>, _: Timestamp) -> Result<Stimulus, String> {
        Err(format!("{} is not read here", self.0.join(path).display()))
    }
}

/// An alerting rule of `deploy/prometheus`.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its file.
    pub file: PathBuf,
    /// Its name.
    pub alert: String,
    /// The labels that it sets, and the system that its series are of.
    pub labels: BTreeMap<String, String>,
}

/// Every alerting rule that is shipped.
///
/// # Panics
/// Where a file of rules cannot be read.
#[must_use]
pub fn rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    for file in files(&repository().join("deploy/prometheus"), ".rules.yml") {
        let text = std::fs::read_to_string(&file).expect("it was listed a moment ago");
        let read: Value = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let groups = read["groups"].as_array().into_iter().flatten();
        for rule in groups.flat_map(|group| group["rules"].as_array().into_iter().flatten()) {
            let Some(alert) = rule["alert"].as_str() else { continue };
            let labels = rule["labels"].as_object().into_iter().flatten();
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            // A label that all its series have is one of the alert's too.
            let expression = rule["expr"].as_str().unwrap_or_default();
            let system = expression.split_once("system=\"").and_then(|(_, rest)| rest.split_once('"'));
            let of_series = system.map(|(system, _)| ("system".to_owned(), system.to_owned()));
            rules.push(Rule {
                file: file.clone(),
                alert: alert.to_owned(),
                labels: of_series.into_iter().chain(labels.map(|(name, value)| (name.clone(), text(value)))).collect(),
            });
        }
    }
    rules
}
