//! A document is checked into a model: every problem is reported, with its place.

mod attempts;
mod call;
mod catalogue;
mod guard;
mod incident;
mod names;
mod order;
mod read;
mod step;
mod test_file;
mod trigger;
mod with;

pub(crate) use attempts::PartialRetry;
pub(crate) use catalogue::catalogue;

use std::collections::{BTreeMap, BTreeSet};

use crate::catalogue::Catalogue;
use crate::compact::Body;
use crate::diagnostic::{Report, Span};
use crate::document::{Key, Kind, Node};
use crate::inputs;
use crate::keys;
use crate::model::{InputModel, PlaybookModel};
use crate::name::{Phase, Severity};
use crate::nearest::nearest;
use crate::plan::InputType;
use crate::time::millis;

pub(crate) use test_file::test_file;

/// What is known while a playbook is checked.
struct Checker<'a> {
    text: &'a str,
    report: &'a mut Report,
    inputs: BTreeMap<String, InputModel>,
    steps: Vec<Known<'a>>,
    /// For each step, by index, whether the other is over for certain when it starts (of the same phase).
    upstream: Vec<Vec<bool>>,
    /// Whether an alert can start it: a trigger is `alertmanager`, or there is none.
    has_alert: bool,
    catalogue: &'a Catalogue,
}

/// A step before it is checked.
struct Known<'a> {
    phase: Phase,
    name: &'a str,
    place: Span,
    node: &'a Node,
    outputs: Vec<&'a str>,
    /// Whether it is done for each item of a list.
    foreach: bool,
    /// Whether it says how it is taken back, or runs a playbook whose steps may.
    undo: bool,
}

/// Checks a document; `None` where it is so wrong that there is no model. Errors are in the report.
pub(crate) fn playbook<'a>(
    text: &'a str,
    body: &'a Body,
    catalogue: &'a Catalogue,
    report: &'a mut Report,
) -> Option<PlaybookModel> {
    Checker::new(text, report, catalogue).playbook(body)
}

impl<'a> Checker<'a> {
    fn new(text: &'a str, report: &'a mut Report, catalogue: &'a Catalogue) -> Self {
        let (inputs, steps, upstream) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { text, report, inputs, steps, upstream, has_alert: true, catalogue }
    }

    fn playbook(&mut self, Body { root, detectors }: &'a Body) -> Option<PlaybookModel> {
        let entries = self.entries(root, "a playbook")?;
        self.known_keys(entries, keys::PLAYBOOK, "a playbook");
        let name = match root.get("playbook") {
            Some(node) => self.playbook_name(node),
            None => {
                let place = Span { length: 0, ..root.span };
                self.report.error("missing-key", place, "a playbook needs a name").help("add: playbook: its-name");
                None
            }
        };
        let mut model = PlaybookModel::new(name.unwrap_or_default());
        model.description = root.get("description").and_then(|node| self.string(node)).unwrap_or_default();
        model.severity = root.get("severity").and_then(|node| self.severity(node));
        model.owner = root.get("owner").and_then(|node| self.string(node));
        model.concurrency = root.get("concurrency").and_then(|node| self.whole(node, 1, keys::MOST_RUNS));
        if let Some(node) = root.get("inputs") {
            self.inputs = self.inputs(node, false);
        }
        self.has_alert = may_have_alert(root.get("triggers"), detectors, self.catalogue);
        let defaults = root.get("defaults").map(|node| self.defaults(node)).unwrap_or_default();
        model.undo_on_failure = self.collect(root);
        self.one_kind_of_phases(root);
        let needs = self.order();
        for (index, needs) in needs.into_iter().enumerate() {
            if let Some(step) = self.step(index, needs, &defaults) {
                model.steps.push(step);
            }
        }
        model.incident = root.get("incident").map(|node| self.incident(node)).unwrap_or_default();
        self.recovers(root, &model.incident);
        model.mode = root.get("mode").and_then(|node| self.mode(node)).unwrap_or_default();
        model.hold_ms = root.get("hold").and_then(|node| self.duration(node)).map_or(0, millis);
        let key = root.get("incident").and_then(|node| node.get("key"));
        model.triggers = self.triggers(root.get("triggers"), key, detectors);
        model.watchdogs_ms =
            root.get("monitoring").map(|node| self.monitoring(node, &model.triggers)).unwrap_or_default();
        self.unguarded(&model.steps);
        self.accepted();
        model.inputs = std::mem::take(&mut self.inputs);
        Some(model)
    }

    pub(super) fn playbook_name(&mut self, node: &Node) -> Option<String> {
        let name = self.string(node)?;
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = (1..=63).contains(&name.len())
            && name.bytes().all(|byte| inner(byte) || matches!(byte, b'-' | b'_'))
            && name.bytes().next().is_some_and(inner)
            && name.bytes().last().is_some_and(inner);
        if !fits {
            self.report
                .error("bad-name", node.span, format!("{name:?} is no playbook's name"))
                .help("use lower-case letters, digits, and - or _ inside; at most 63 characters");
            return None;
        }
        Some(name)
    }

    fn severity(&mut self, node: &Node) -> Option<Severity> {
        Some(match self.word(node, &["P0", "P1", "P2", "P3"])? {
            "P0" => Severity::P0,
            "P1" => Severity::P1,
            "P2" => Severity::P2,
            _ => Severity::P3,
        })
    }

    /// Declared inputs; `templated`: whether a default may be a template, which is checked elsewhere.
    fn inputs(&mut self, node: &'a Node, templated: bool) -> BTreeMap<String, InputModel> {
        let mut inputs = BTreeMap::new();
        for (key, node) in self.entries(node, "inputs").unwrap_or_default() {
            if !identifier(&key.text) {
                self.report
                    .error("bad-name", key.span, format!("{:?} is no input's name", key.text))
                    .help("use letters, digits and _, not beginning with a digit");
            }
            if let Some(input) = self.input(key, node, templated) {
                inputs.insert(key.text.clone(), input);
            }
        }
        inputs
    }

    fn input(&mut self, name: &Key, node: &'a Node, templated: bool) -> Option<InputModel> {
        let entries = self.entries(node, &format!("input {}", name.text))?;
        self.known_keys(entries, keys::INPUT, "an input");
        let required = node.get("required").and_then(|node| self.bool(node)).unwrap_or(false);
        let Some(kind) = node.get("type") else {
            self.report
                .error("missing-key", name.span, format!("input {} has no type", name.text))
                .help("add type: string, bool, int, number, list or map");
            return None;
        };
        let kind = match self.word(kind, &["string", "bool", "int", "number", "list", "map"])? {
            "string" => InputType::String,
            "bool" => InputType::Bool,
            "int" => InputType::Int,
            "number" => InputType::Number,
            "list" => InputType::List,
            _ => InputType::Map,
        };
        if let Some(description) = node.get("description") {
            self.string(description);
        }
        let default = node.get("default").map(|default| (default, default.to_json()));
        if let Some((default, value)) = &default {
            let rendered = templated && with::has_template(default);
            if !rendered && !inputs::fits(kind, value) {
                let message =
                    format!("the default of {} is {}, not {}", name.text, default.type_name(), inputs::article(kind));
                self.report.error("wrong-type", default.span, message);
            } else if required {
                self.report
                    .warning("default-unused", default.span, "a required input never takes its default")
                    .help("remove required or default");
            }
        }
        Some(InputModel { kind, required, default: default.map(|(_, value)| value) })
    }

    /// Gathers the steps of all phases, in order; returns the phases that are undone where a step of them fails.
    fn collect(&mut self, root: &'a Node) -> BTreeSet<Phase> {
        let mut undone = BTreeSet::new();
        for phase in Phase::ALL {
            let Some(node) = root.get(phase.as_str()) else { continue };
            for (key, node) in self.entries(node, phase.as_str()).unwrap_or_default() {
                if key.text == "on_failure" {
                    if self.on_failure(phase, node) {
                        undone.insert(phase);
                    }
                    continue;
                }
                self.step_name(key, phase);
                let outputs = match node.get("outputs").map(|outputs| &outputs.kind) {
                    Some(Kind::Map(entries)) => entries.iter().map(|(key, _)| key.text.as_str()).collect(),
                    _ => Vec::new(),
                };
                let has = |key: &str| node.get(key).is_some();
                let runs = matches!(node.get("uses").map(|uses| &uses.kind), Some(Kind::Text(uses)) if uses == crate::actions::PLAYBOOK);
                let (foreach, undo) = (has("foreach"), has("undo") || runs);
                let known = Known { phase, name: &key.text, place: key.span, node, outputs, foreach, undo };
                self.steps.push(known.with_named(catalogue::named_in(self.catalogue, node)));
            }
        }
        if let Some(step) = self.steps.get(keys::MOST_STEPS) {
            let message = format!("{} steps; the limit is {}", self.steps.len(), keys::MOST_STEPS);
            self.report.error("too-many-steps", step.place, message);
            self.steps.truncate(keys::MOST_STEPS);
        }
        if self.steps.is_empty() && !self.report.has_errors() {
            let place = root.get("playbook").map_or(root.span, |node| node.span);
            self.report
                .warning("no-steps", place, "the playbook has no steps")
                .help("add them under detect, contain, eradicate, recover or finally; or under steps, for a routine");
        }
        for phase in &undone {
            if !self.steps.iter().any(|step| step.phase == *phase && step.undo) {
                let place = root.get(phase.as_str()).and_then(|node| node.get("on_failure"));
                self.report
                    .warning(
                        "no-undo",
                        place.map_or(root.span, |node| node.span),
                        format!("no step of {phase} says how it is taken back"),
                    )
                    .help("add undo: {uses: ...} to the steps that do something, or use on_failure: stop");
            }
        }
        undone
    }

    /// Routines have one phase, answers to incidents have four.
    fn one_kind_of_phases(&mut self, root: &'a Node) {
        let Kind::Map(entries) = &root.kind else { return };
        let Some((steps, _)) = entries.iter().find(|(key, _)| key.text == "steps") else { return };
        let phases = [Phase::Detect, Phase::Contain, Phase::Eradicate, Phase::Recover];
        if let Some(phase) = phases.into_iter().find(|phase| root.get(phase.as_str()).is_some()) {
            self.report
                .error("conflicting-keys", steps.span, format!("steps stands alone, and the playbook has {phase} too"))
                .help("put the steps into the phases, or the phases into steps");
        }
    }

    /// Whether what the phase did is to be taken back where a step of it fails.
    fn on_failure(&mut self, phase: Phase, node: &'a Node) -> bool {
        let Some(word) = self.word(node, &["stop", "undo"]) else { return false };
        if phase == Phase::Finally {
            self.report
                .warning("not-applicable", node.span, "the steps of finally run whatever fails")
                .help("remove on_failure");
            return false;
        }
        word == "undo"
    }

    fn step_name(&mut self, key: &Key, phase: Phase) {
        let fits = (1..=63).contains(&key.text.len())
            && key
                .text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'));
        if !fits {
            let near = nearest(&key.text, ["on_failure"]).map(|near| format!("did you mean {near}? "));
            let help =
                format!("{}use lower-case letters, digits, - and _; at most 63 characters", near.unwrap_or_default());
            self.report.error("bad-name", key.span, format!("{:?} is no step's name", key.text)).help(help);
        }
        if let Some(other) = self.steps.iter().find(|step| step.name == key.text) {
            let message = format!("a step named {} is already in {}, line {}", key.text, other.phase, other.place.line);
            self.report
                .error("duplicate-step", key.span, message)
                .help(format!("a step's name is unique in its playbook; rename this one of {phase}"));
        }
    }
}

/// Whether an alert can be what started a run, as far as the triggers tell.
fn may_have_alert(triggers: Option<&Node>, detectors: &[(String, Span)], catalogue: &Catalogue) -> bool {
    let detects = |(name, _): &(String, Span)| catalogue.detectors.get(name).is_some_and(|detector| detector.has_alert);
    match triggers.map(|node| &node.kind) {
        Some(Kind::List(items)) if !items.is_empty() => {
            items.iter().any(|item| item.get("alertmanager").is_some()) || detectors.iter().any(detects)
        }
        Some(Kind::List(_)) | None => detectors.is_empty() || detectors.iter().any(detects),
        Some(_) => true,
    }
}

/// Whether a text can be written in CEL without brackets.
fn identifier(text: &str) -> bool {
    text.len() <= 63
        && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
