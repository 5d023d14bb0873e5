//! The catalogue: named actions and detectors, so that playbooks read like a runbook.
//!
//! Absent: what playbooks say. A named action is a built-in one with its parameters, of which the inputs are left open.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::actions::Signature;
use crate::check;
use crate::check::PartialRetry;
use crate::diagnostic::{Diagnostic, Diagnostics, Report};
use crate::document::{self, Kind};
use crate::evaluate::Expression;
use crate::model::{InputModel, OfAction, TriggerModel, UndoModel, VerifyModel};
use crate::plan::OnUnknown;

/// Actions and detectors by name. What one file names, another cannot name again.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    pub(crate) actions: BTreeMap<String, NamedAction>,
    pub(crate) detectors: BTreeMap<String, Detector>,
    /// What files with errors would have named, with the file.
    refused: BTreeMap<String, String>,
}

/// The code of what is said of a name whose catalogue has errors: what is wrong stands there, not where the name does.
pub const BROKEN_CATALOGUE: &str = "broken-catalogue";

/// A built-in action with its parameters.
#[derive(Debug, Clone)]
pub(crate) struct NamedAction {
    /// Where it was named, for messages.
    pub place: String,
    pub description: String,
    pub inputs: BTreeMap<String, InputModel>,
    pub base: &'static Signature,
    /// Templates in which `inputs` is what the step gives.
    pub with: Map<String, Value>,
    pub env: BTreeMap<String, String>,
    /// The secrets that it uses, with those of its verification and its undo.
    pub secrets: BTreeSet<String>,
    pub retry: PartialRetry,
    pub on_unknown: Option<OnUnknown>,
    pub idempotent: Option<bool>,
    pub read_only: Option<bool>,
    pub timeout: Option<Duration>,
    pub verify: Option<VerifyModel>,
    pub undo: Option<UndoModel>,
    /// The actions whose effects are final once this one has succeeded.
    pub ends: Vec<String>,
    pub outputs: BTreeMap<String, String>,
    /// The codes of warnings that are answered for every step that uses it.
    pub accept: Vec<String>,
}

impl NamedAction {
    /// Which of its conditions look at its inputs.
    pub fn conditions_on_inputs(&self) -> OfAction {
        let names = |text: &String| {
            Expression::compile(text).is_ok_and(|expression| expression.roots().iter().any(|root| root == "inputs"))
        };
        OfAction {
            outputs: self.outputs.iter().filter(|(_, text)| names(text)).map(|(output, _)| output.clone()).collect(),
            retry_if: self.retry.condition.as_ref().is_some_and(names),
            verify: self.verify.as_ref().is_some_and(|verify| names(&verify.until.condition)),
        }
    }
}

/// A trigger with a name.
#[derive(Debug, Clone)]
pub(crate) struct Detector {
    pub place: String,
    pub description: String,
    pub trigger: TriggerModel,
    pub has_alert: bool,
}

impl Catalogue {
    /// A catalogue without names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what a `*.catalogue.yaml` names; gives what someone should look at all the same.
    ///
    /// # Errors
    /// All [`Diagnostics`] at once where there is an error among them; the catalogue is then as it was.
    pub fn load(&mut self, file_name: &str, text: &str) -> Result<Vec<Diagnostic>, Diagnostics> {
        let mut report = Report::new(file_name);
        let read = document::parse(text, document::NODES, &mut report)
            .and_then(|root| check::catalogue(file_name, text, &root, self, &mut report));
        match read.filter(|_| !report.has_errors()) {
            Some(read) => {
                self.actions.extend(read.actions);
                self.detectors.extend(read.detectors);
                Ok(report.into_list())
            }
            None => {
                self.refused.extend(names_in(text).into_iter().map(|name| (name, file_name.to_owned())));
                Err(Diagnostics { list: report.into_list(), source: Arc::from(text) })
            }
        }
    }

    /// The named actions with their descriptions, sorted.
    pub fn actions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.actions.iter().map(|(name, action)| (name.as_str(), action.description.as_str()))
    }

    /// The detectors with their descriptions, sorted.
    pub fn detectors(&self) -> impl Iterator<Item = (&str, &str)> {
        self.detectors.iter().map(|(name, detector)| (name.as_str(), detector.description.as_str()))
    }

    /// The file with errors that would have given a name its meaning.
    pub(crate) fn refused(&self, name: &str) -> Option<&str> {
        self.refused.get(name).map(String::as_str)
    }

    /// Where a name was given a meaning.
    pub(crate) fn place(&self, name: &str) -> Option<&str> {
        let action = self.actions.get(name).map(|action| action.place.as_str());
        action.or_else(|| self.detectors.get(name).map(|detector| detector.place.as_str()))
    }
}

/// What a text with errors names, or seems to name where it is no YAML.
fn names_in(text: &str) -> Vec<String> {
    let Some(root) = document::parse(text, document::NODES, &mut Report::new("")) else {
        let indented = text.lines().filter_map(|line| line.strip_prefix("  "));
        let named = indented.filter(|line| line.starts_with(|c: char| c.is_ascii_alphanumeric()));
        return named.filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect();
    };
    let entries = |section| match root.get(section).map(|node| &node.kind) {
        Some(Kind::Map(entries)) => entries.as_slice(),
        _ => &[],
    };
    ["actions", "detectors"].into_iter().flat_map(entries).map(|(key, _)| key.text.clone()).collect()
}
