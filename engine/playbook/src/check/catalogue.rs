//! The catalogue's documents, and the steps that use its names.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::attempts::Defaults;
use super::names::{Part, Place};
use super::{Checker, Known};
use crate::actions;
use crate::catalogue::{Catalogue, Detector, NamedAction};
use crate::diagnostic::{Report, Span};
use crate::document::{Key, Kind, Node};
use crate::evaluate::{Leaf, Node as Compiled};
use crate::inputs::{article, fits};
use crate::keys;
use crate::model::AliasModel;
use crate::nearest::nearest;

/// Checks a catalogue's document beside what other files name; `None` where it is so wrong that there is nothing in it.
pub(crate) fn catalogue(
    file: &str,
    text: &str,
    root: &Node,
    known: &Catalogue,
    report: &mut Report,
) -> Option<Catalogue> {
    // A named action is made of built-in ones: those of other files cannot be named in it.
    let none = Catalogue::new();
    let mut checker = Checker::new(text, report, &none);
    let entries = checker.entries(root, "a catalogue")?;
    checker.known_keys(entries, keys::CATALOGUE, "a catalogue");
    let mut read = Catalogue::new();
    for (key, node) in root.get("actions").and_then(|node| checker.entries(node, "actions")).unwrap_or_default() {
        checker.catalogue_name(key, &[known, &read]);
        if let Some(mut action) = checker.named_action(key, node) {
            action.place = format!("{file}, line {}", key.span.line);
            read.actions.insert(key.text.clone(), action);
        }
    }
    for (key, node) in root.get("detectors").and_then(|node| checker.entries(node, "detectors")).unwrap_or_default() {
        checker.catalogue_name(key, &[known, &read]);
        if let Some(mut detector) = checker.detector(key, node) {
            detector.place = format!("{file}, line {}", key.span.line);
            read.detectors.insert(key.text.clone(), detector);
        }
    }
    Some(read)
}

impl<'a> Checker<'a> {
    fn catalogue_name(&mut self, key: &Key, known: &[&Catalogue]) {
        let name = key.text.as_str();
        let fits = (1..=63).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'));
        if !fits {
            self.report
                .error("bad-name", key.span, format!("{name:?} is no name of the catalogue"))
                .help("use lower-case letters, digits, - and _; at most 63 characters");
        } else if actions::find(name).is_some() {
            self.report
                .error("duplicate-name", key.span, format!("{name} is a built-in action"))
                .help("choose another name");
        } else if keys::PHASE.iter().any(|key| key.name == name) {
            self.report
                .error("bad-name", key.span, format!("{name} is a key of the phases"))
                .help("choose another name");
        } else if let Some(place) = known.iter().find_map(|catalogue| catalogue.place(name)) {
            self.report
                .error("duplicate-name", key.span, format!("{name} already has a meaning ({place})"))
                .help("actions and detectors have names of their own; choose another one");
        }
    }

    fn named_action(&mut self, key: &Key, node: &'a Node) -> Option<NamedAction> {
        let what = format!("action {}", key.text);
        let entries = self.entries(node, &what)?;
        self.known_keys(entries, keys::NAMED_ACTION, "an action of the catalogue");
        let description = node.get("description").and_then(|node| self.string(node)).unwrap_or_default();
        self.inputs = node.get("inputs").map(|node| self.named_inputs(node)).unwrap_or_default();
        let at = Place::Catalogue;
        let signature = self.uses(node.get("uses"), &what, key.span, false);
        if let (Some(signature), Some(uses)) = (signature, node.get("uses")) {
            self.only_workers(signature.name, uses, &what);
        }
        let with = signature.map(|signature| {
            let mut with = self.with(signature, node.get("with"), at(Part::Each), None, key.span);
            if let Some(artifacts) = node.get("artifacts") {
                self.artifacts(artifacts, signature, &mut with);
            }
            with
        });
        let env = self.env(node.get("env"), signature, at(Part::Each), None);
        let retry = node.get("retry").map(|node| self.retry(node, at(Part::Retry))).unwrap_or_default();
        let idempotent = node.get("idempotent").and_then(|node| self.bool(node));
        let timeout = node.get("timeout").and_then(|node| self.duration(node));
        let none = Defaults::default();
        let verify = node.get("verify").and_then(|node| self.verify(node, at, None, &none));
        let undo = node.get("undo").and_then(|node| self.undo(node, at, None, &none));
        let ends = node.get("ends").map(|node| self.texts(node, "ends")).unwrap_or_default();
        let ends = ends.into_iter().map(|(name, _)| name).collect();
        let outputs = self.outputs(node.get("outputs"), at(Part::Outputs));
        let on_unknown = node.get("on_unknown").and_then(|node| self.on_unknown(node, keys::STEP_ON_UNKNOWN));
        let (base, with) = (signature?, with?);
        let read_only = self.read_only(node, None);
        let looks = read_only == Some(true);
        let said = looks || idempotent.unwrap_or_else(|| base.idempotent(&with));
        self.consistent(node, base.name, said, on_unknown, verify.is_some());
        let acts = read_only.map_or_else(|| base.acts(&with), |looks| !looks);
        let unguarded = !said && acts && verify.is_none() && undo.is_none();
        let accept = self.accepted_of_all(node, unguarded);
        let mut secrets = std::collections::BTreeSet::new();
        let calls = verify.iter().map(|verify| &verify.call).chain(undo.iter().map(|undo| &undo.call));
        let parts = calls.map(|call| (&call.with, &call.env)).chain([(&with, &env)]);
        for (with, env) in parts {
            let texts = texts_of(with.values()).into_iter().chain(env.values().map(String::as_str));
            for text in texts {
                if let Ok(compiled) = Compiled::leaf(text, Leaf::Secret) {
                    secrets.extend(compiled.references().1.into_iter().map(|(name, _)| name.to_owned()));
                }
            }
        }
        Some(NamedAction {
            place: String::new(),
            description,
            inputs: std::mem::take(&mut self.inputs),
            base,
            with,
            env,
            secrets,
            retry,
            on_unknown,
            idempotent: if looks { Some(true) } else { idempotent },
            read_only,
            timeout,
            verify,
            undo,
            ends,
            outputs,
            accept,
        })
    }

    fn named_inputs(&mut self, node: &'a Node) -> BTreeMap<String, crate::model::InputModel> {
        let inputs = self.inputs(node, true);
        for (key, _) in self.entries(node, "inputs").unwrap_or_default() {
            let default = node.get(&key.text).and_then(|node| node.get("default"));
            if let Some(default) = default {
                self.any_template(default, Place::CatalogueDefault);
            }
        }
        inputs
    }

    fn detector(&mut self, key: &Key, node: &'a Node) -> Option<Detector> {
        let entries = self.entries(node, &format!("detector {}", key.text))?;
        self.known_keys(entries, keys::DETECTOR, "a detector");
        let description = node.get("description").and_then(|node| self.string(node)).unwrap_or_default();
        self.inputs = BTreeMap::new();
        let (trigger, kind) = self.trigger_body(node, entries, &["alertmanager", "nats"], None)?;
        Some(Detector { place: String::new(), description, trigger, has_alert: kind == "alertmanager" })
    }

    /// The inputs that a step gives to an action of the catalogue, with the defaults of the others.
    pub(super) fn alias(
        &mut self,
        name: &str,
        action: &NamedAction,
        node: Option<&'a Node>,
        at: Place,
        place: Span,
    ) -> AliasModel {
        let mut inputs = Map::new();
        let entries = match node {
            Some(node) if !matches!(node.kind, Kind::Null) => self.entries(node, "with").unwrap_or_default(),
            _ => &[],
        };
        for (key, node) in entries {
            let Some(input) = action.inputs.get(&key.text) else {
                let names = action.inputs.keys().map(String::as_str);
                let help = match nearest(&key.text, names.clone()) {
                    Some(near) => format!("did you mean {near}?"),
                    None if action.inputs.is_empty() => format!("{name} takes no inputs"),
                    None => format!("{name} takes {}", names.collect::<Vec<_>>().join(", ")),
                };
                self.report
                    .error("unknown-input", key.span, format!("{name} has no input named {}", key.text))
                    .help(help);
                continue;
            };
            let Some(value) = self.any_template(node, at) else { continue };
            let null = value.is_null() && !input.required;
            let rendered = super::with::has_template(node);
            let spelled = crate::inputs::spelled(input.kind, value.clone());
            if !rendered && !null && !fits(input.kind, &spelled) {
                let message =
                    format!("input {} of {name} is {}, not {}", key.text, node.type_name(), article(input.kind));
                self.report.error("wrong-type", node.span, message).help(format!("give {}", article(input.kind)));
            }
            inputs.insert(key.text.clone(), if rendered || null { value } else { spelled });
        }
        let given = |name: &str| entries.iter().any(|(key, _)| key.text == name);
        for (input, model) in action.inputs.iter().filter(|(name, _)| !given(name)) {
            if model.required {
                let span = node.map_or(place, |node| Span { length: 0, ..node.span });
                self.report
                    .error("missing-input", span, format!("{name} needs the input {input}"))
                    .help(format!("add it to with: {input}: ..., as {}", article(model.kind)));
            }
            inputs.insert(input.clone(), model.default.clone().unwrap_or(Value::Null));
        }
        let defaults = action.inputs.keys().filter(|name| !given(name)).filter_map(|name| inputs.get(name));
        let texts = texts_of(action.with.values().chain(defaults));
        if !self.has_alert && texts.into_iter().chain(action.env.values().map(String::as_str)).any(names_alert) {
            self.report
                .warning(
                    super::guard::NO_ALERT,
                    place,
                    format!("no trigger of this playbook brings the alert that {name} names"),
                )
                .help("give the inputs whose defaults name it, or add an alertmanager trigger");
        }
        AliasModel { name: name.to_owned(), inputs }
    }

    /// Refuses a named action that uses secrets which the step does not list.
    pub(super) fn secrets_of(&mut self, name: &str, action: &NamedAction, secrets: Option<&[String]>, place: Span) {
        let Some(listed) = secrets else { return };
        for secret in action.secrets.iter().filter(|secret| !listed.contains(secret)) {
            self.report
                .error(
                    "secret-not-listed",
                    place,
                    format!("{name} uses the secret {secret}, which secrets does not list"),
                )
                .help(format!("add {secret} to secrets, or remove secrets"));
        }
    }
}

/// What the catalogue says of the action that a map uses, and its name.
pub(super) fn named_in<'a>(catalogue: &'a Catalogue, node: &Node) -> Option<(&'a str, &'a NamedAction)> {
    match node.get("uses").map(|node| &node.kind) {
        Some(Kind::Text(name)) => catalogue.actions.get_key_value(name).map(|(name, action)| (name.as_str(), action)),
        _ => None,
    }
}

impl<'a> Known<'a> {
    /// With what the catalogue says of its action.
    pub(super) fn with_named(mut self, named: Option<(&'a str, &'a NamedAction)>) -> Self {
        if let Some((_, action)) = named {
            self.outputs.extend(action.outputs.keys().map(String::as_str));
            self.undo |= action.undo.is_some();
        }
        self
    }
}

/// All texts of trees.
fn texts_of<'v>(values: impl Iterator<Item = &'v Value>) -> Vec<&'v str> {
    let mut texts = Vec::new();
    let mut open: Vec<&Value> = values.collect();
    while let Some(value) = open.pop() {
        match value {
            Value::String(text) => texts.push(text.as_str()),
            Value::Array(list) => open.extend(list),
            Value::Object(map) => open.extend(map.values()),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    texts
}

/// Whether a template names the alert that started the run.
fn names_alert(text: &str) -> bool {
    let Ok(compiled) = Compiled::leaf(text, Leaf::Secret) else { return false };
    compiled.references().0.iter().any(|reference| reference.root.starts_with("alert"))
}
