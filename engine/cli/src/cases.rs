//! What tests of playbooks need from disk: the playbooks beside them, and the bodies that they name.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use serde_json::json;
use stanch_core::alert::AlertChange;
use stanch_core::command::Target;
use stanch_playbook::test_file::AlertSpec;
use stanch_playbook::{Catalogue, Diagnostics, Plan, Timestamp, load_with};
use stanch_server::fixture::{self, Fixture, FixtureError};
use stanch_server::playbooks::{self, Library};
use stanch_simulator::stimulus::{self, Stimulus};

use crate::failure::Failure;
use crate::terminal::inert;
use crate::verbs::validate::beside;

/// The name of the Alertmanager cluster that alerts of tests and fixtures come from, as `emit` has it.
pub const SOURCE: &str = "default";

/// Playbooks by directory, each read once.
#[derive(Default)]
pub struct Shelves(RefCell<BTreeMap<PathBuf, Rc<Library>>>);

impl Shelves {
    /// The playbooks that lie in a directory and below.
    pub fn directory(&self, path: &Path) -> Result<Rc<Library>, Failure> {
        if let Some(library) = self.0.borrow().get(path) {
            return Ok(Rc::clone(library));
        }
        let library = playbooks::read(path).map_err(|error| {
            Failure::because(format!("{} cannot be read", inert(&path.display().to_string())), &error)
        })?;
        let library = Rc::new(library);
        self.0.borrow_mut().insert(path.to_owned(), Rc::clone(&library));
        Ok(library)
    }
}

/// The plan of a name among some.
pub fn named<'a>(plans: &'a [Arc<Plan>], name: &str) -> Option<&'a Arc<Plan>> {
    plans.iter().find(|plan| plan.name.as_str() == name)
}

/// Bodies, read from files beside the test.
pub struct Beside<'a>(pub &'a Path);

impl stimulus::Read for Beside<'_> {
    fn alerts(&self, alerts: &[AlertSpec], now: Timestamp) -> Result<Vec<AlertChange>, String> {
        let one = |alert: &AlertSpec| {
            json!({
                "status": "firing",
                "labels": alert.labels,
                "annotations": alert.annotations,
                "startsAt": now.minus(alert.since),
            })
        };
        // Through the same reader as a webhook, so that the fingerprint is the one that Prometheus would give.
        let body = json!({"alerts": alerts.iter().map(one).collect::<Vec<_>>()}).to_string();
        match fixture::read(body.as_bytes(), SOURCE, None, now) {
            Ok(Fixture::Alerts { changes, unreadable: None }) => Ok(changes),
            Ok(Fixture::Alerts { unreadable: Some(reason), .. }) => Err(reason),
            Ok(Fixture::Event { .. }) => Err("these are no alerts".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn file(&self, path: &str, subject: Option<&str>, now: Timestamp) -> Result<Stimulus, String> {
        let file = self.0.join(path);
        let body = std::fs::read(&file).map_err(|error| format!("{path} cannot be read: {error}"))?;
        stimulus(&body, subject, now)
            .map_err(|error| match error {
                FixtureError::NoSubject => format!("{error}; say so beside file: subject: sec.ioc.host"),
                FixtureError::Unreadable { .. } => error.to_string(),
            })
            .map_err(|reason| format!("{path}: {reason}"))
    }
}

/// What a body means that came in from outside.
pub fn stimulus(body: &[u8], subject: Option<&str>, now: Timestamp) -> Result<Stimulus, FixtureError> {
    Ok(match fixture::read(body, SOURCE, subject, now)? {
        Fixture::Alerts { changes, .. } => Stimulus::Alerts(changes),
        Fixture::Event { event, subject } => Stimulus::Event(Arc::new(event), Target::Subject(subject)),
    })
}

/// What a file that a person names means; `-` is the standard input.
pub fn from_file(path: &Path, subject: Option<&str>, now: Timestamp) -> Result<Stimulus, Failure> {
    let file = inert(&path.display().to_string());
    let unreadable = |error: std::io::Error| Failure::because(format!("{file} cannot be read"), &error);
    let body = if path == Path::new("-") {
        let mut body = Vec::new();
        std::io::stdin().lock().read_to_end(&mut body).map_err(unreadable)?;
        body
    } else {
        std::fs::read(path).map_err(unreadable)?
    };
    stimulus(&body, subject, now).map_err(|error| {
        let help = match error {
            FixtureError::NoSubject => "name it: --subject sec.ioc.host",
            FixtureError::Unreadable { .. } => {
                "give the body of an Alertmanager webhook, a CloudEvent, or JSON with --subject"
            }
        };
        Failure::new(format!("{file}: {}", inert(&error.to_string()))).help(help)
    })
}

/// The present, by the wall clock.
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH.plus(since)
}

/// The playbook of a file that a person names, or of a name in a directory, and those that it could run.
pub fn playbook_named(playbook: &str, directory: &Path) -> Result<(Arc<Plan>, Vec<Arc<Plan>>), Failure> {
    let path = Path::new(playbook);
    if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
        return Ok((playbook_in(path)?, Vec::new()));
    }
    let library = Shelves::default().directory(directory)?;
    if let Some(plan) = named(&library.plans, playbook) {
        return Ok((Arc::clone(plan), library.plans.clone()));
    }
    let directory = inert(&directory.display().to_string());
    let broken = library.broken.iter().any(|name| name.as_str() == playbook);
    Err(if broken {
        Failure::new(format!("the playbook {playbook} has errors"))
            .help(format!("see them: stanch validate {directory}"))
    } else {
        let names: Vec<&str> = library.plans.iter().map(|plan| plan.name.as_str()).collect();
        let help = match names.as_slice() {
            [] => "name another directory with --playbooks, or the playbook's file".to_owned(),
            names => format!("there are {}", names.join(", ")),
        };
        Failure::new(format!("{directory} has no playbook named {}", inert(playbook))).help(help)
    })
}

/// The playbook of a file that holds one.
fn playbook_in(path: &Path) -> Result<Arc<Plan>, Failure> {
    let mut plans = playbooks_in(path)?;
    match (plans.pop(), plans.as_slice()) {
        (Some(one), []) => Ok(one),
        (last, others) => {
            let names: Vec<&str> = others.iter().chain(&last).map(|plan| plan.name.as_str()).collect();
            let file = inert(&path.display().to_string());
            Err(Failure::new(format!("{file} holds several playbooks: {}", names.join(", ")))
                .help("name one of them, and its directory with --playbooks"))
        }
    }
}

/// The playbooks of a file, with what the catalogues beside it name.
pub fn playbooks_in(path: &Path) -> Result<Vec<Arc<Plan>>, Failure> {
    let file = inert(&path.display().to_string());
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::because(format!("{file} cannot be read"), &error))?;
    let mut catalogue = Catalogue::new();
    for beside in beside(path)? {
        let name = inert(&beside.display().to_string());
        let read = std::fs::read_to_string(&beside);
        let text = read.map_err(|error| Failure::because(format!("{name} cannot be read"), &error))?;
        catalogue.load(&name, &text).map_err(|diagnostics| refused(&name, &diagnostics))?;
    }
    let loaded = load_with(&file, &text, &catalogue).map_err(|diagnostics| refused(&file, &diagnostics))?;
    Ok(loaded.into_iter().map(|loaded| Arc::new(loaded.plan)).collect())
}

fn refused(file: &str, diagnostics: &Diagnostics) -> Failure {
    let first = diagnostics.list.first().map(ToString::to_string).unwrap_or_default();
    Failure::new(inert(&first)).help(format!("see all of it: stanch validate {file}"))
}
