//! Triggers: what they listen to, and whether they give what a run needs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Checker;
use super::names::Place;
use crate::diagnostic::Span;
use crate::document::{Key, Kind, Node};
use crate::evaluate::Leaf;
use crate::keys;
use crate::matcher::Matcher;
use crate::model::{OnModel, TriggerModel};
use crate::nearest::nearest;
use crate::schedule::{CatchUp, Schedule, ScheduleError};
use crate::time::millis;

impl<'a> Checker<'a> {
    /// The triggers, and those that detectors bring; `key` is of those that have none of their own.
    pub(super) fn triggers(
        &mut self,
        node: Option<&'a Node>,
        key: Option<&'a Node>,
        detectors: &[(String, Span)],
    ) -> Vec<TriggerModel> {
        let items = node.and_then(|node| self.items(node, "triggers")).unwrap_or_default();
        if items.len() > keys::MOST_TRIGGERS {
            let message = format!("{} triggers; the limit is {}", items.len(), keys::MOST_TRIGGERS);
            self.report.error("too-many-triggers", items[keys::MOST_TRIGGERS].span, message);
        }
        let mut triggers: Vec<TriggerModel> =
            items.iter().take(keys::MOST_TRIGGERS).filter_map(|item| self.trigger(item, key)).collect();
        let mut taken = items.iter().any(|item| item.get("key").is_none());
        for (name, span) in detectors {
            let Some(detector) = self.catalogue.detectors.get(name) else { continue };
            let kind = if detector.has_alert { "alertmanager" } else { "nats" };
            let mut trigger = detector.trigger.clone();
            if trigger.key.is_none() {
                taken = true;
                trigger.key = key.and_then(|node| self.template(node, Leaf::Text, Place::Trigger(kind), None));
            }
            self.missing_inputs(&[], *span, &format!("the detector {name}"), |_| "give it a default".to_owned());
            triggers.push(trigger);
        }
        if let Some(key) = key.filter(|_| !taken) {
            self.report
                .warning("not-applicable", key.span, "no trigger takes the incident's key")
                .help("remove it, or the key of a trigger");
        }
        triggers
    }

    /// The watchdogs of a schedule, in milliseconds.
    pub(super) fn monitoring(&mut self, node: &'a Node, triggers: &[TriggerModel]) -> BTreeMap<String, u64> {
        let scheduled = triggers.iter().any(|trigger| matches!(trigger.on, OnModel::Schedule { .. }));
        if !scheduled && !self.report.has_errors() {
            self.report
                .error("not-applicable", node.span, "monitoring watches a schedule, and the playbook has none")
                .help("add a schedule trigger, or remove monitoring");
        }
        let maps = match &node.kind {
            Kind::List(items) => items.iter().collect(),
            _ => vec![node],
        };
        let mut watchdogs = BTreeMap::new();
        for map in maps {
            for (key, node) in self.entries(map, "a watchdog").unwrap_or_default() {
                let fits = (1..=63).contains(&key.text.len())
                    && key.text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
                if !fits {
                    self.report
                        .error("bad-name", key.span, format!("{:?} is no watchdog's name", key.text))
                        .help("use letters, digits, - and _; at most 63 characters");
                }
                let Some(within) = self.duration(node) else { continue };
                if watchdogs.insert(key.text.clone(), millis(within)).is_some() {
                    self.report
                        .error("duplicate-key", key.span, format!("a watchdog named {} is already there", key.text))
                        .help("choose another name");
                }
            }
        }
        watchdogs
    }

    fn trigger(&mut self, node: &'a Node, incident_key: Option<&'a Node>) -> Option<TriggerModel> {
        let entries = self.entries(node, "a trigger")?;
        self.known_keys(entries, keys::TRIGGER, "a trigger");
        self.trigger_body(node, entries, &keys::TRIGGER_KINDS, incident_key).map(|(model, _)| model)
    }

    /// A trigger of one of some kinds, and its kind.
    pub(super) fn trigger_body(
        &mut self,
        node: &'a Node,
        entries: &'a [(Key, Node)],
        allowed: &[&'static str],
        incident_key: Option<&'a Node>,
    ) -> Option<(TriggerModel, &'static str)> {
        let mut kinds = entries.iter().filter_map(|(key, node)| {
            let kind = allowed.iter().find(|kind| **kind == key.text)?;
            Some((*kind, key, node))
        });
        let Some((kind, key, on)) = kinds.next() else {
            let help = format!("give one of {}", allowed.join(", "));
            self.report.error("trigger-kind", node.span, "this trigger does not say what it listens to").help(help);
            return None;
        };
        if let Some((other, other_key, _)) = kinds.next() {
            self.report
                .error(
                    "trigger-kind",
                    other_key.span,
                    format!("a trigger listens to one thing; this one has {kind} and {other}"),
                )
                .help("write two triggers");
            return None;
        }
        let place = Place::Trigger(kind);
        let model = self.on(kind, on, key.span);
        let conditions = [node.get("if"), on.get("if").filter(|_| matches!(kind, "alertmanager" | "nats"))];
        let condition = match conditions {
            [Some(_), Some(inner)] => {
                self.report
                    .error("duplicate-key", inner.span, "the trigger has an if already")
                    .help("join the two with &&");
                None
            }
            [outer, inner] => outer.or(inner).and_then(|node| self.condition(node, place)),
        };
        let key_template =
            node.get("key").or(incident_key).and_then(|node| self.template(node, Leaf::Text, place, None));
        if let Some(node) = node.get("key").or(incident_key).filter(|_| key_template.as_deref() == Some("")) {
            self.report
                .error("wrong-value", node.span, "the key is empty, and all that has no key would share one incident")
                .help("name what the alerts of one incident have in common, or remove key");
        }
        let inputs = self.trigger_inputs(node.get("inputs"), kind, key.span);
        let group_wait = node.get("group_wait").and_then(|node| self.group_wait(node, kind));
        let group_wait_ms = group_wait.map_or(0, millis);
        Some((TriggerModel { on: model?, condition, key: key_template, inputs, group_wait_ms }, kind))
    }

    fn group_wait(&mut self, node: &'a Node, kind: &str) -> Option<Duration> {
        let duration = self.duration(node)?;
        if kind != "alertmanager" {
            self.report
                .error("not-applicable", node.span, format!("group_wait collects alerts; a {kind} trigger brings none"))
                .help("remove it, or use hold to wait before the first side effect");
            return None;
        }
        Some(duration)
    }

    pub(super) fn on(&mut self, kind: &'static str, node: &'a Node, place: Span) -> Option<OnModel> {
        if kind == "manual" && matches!(node.kind, Kind::Null) {
            return Some(OnModel::Manual);
        }
        let entries = self.entries(node, kind)?;
        let known = match kind {
            "alertmanager" => keys::ALERTMANAGER,
            "nats" => keys::NATS,
            "schedule" => keys::SCHEDULE,
            _ => keys::MANUAL,
        };
        self.known_keys(entries, known, kind);
        match kind {
            "alertmanager" => self.matchers(node, place),
            "nats" => {
                let subject = self.needed_key(node, "subject", place, "subject: \"sec.ioc.>\"")?;
                let text = self.string(subject)?;
                if let Some(problem) = subject_problem(&text) {
                    self.report.error("bad-subject", subject.span, format!("{text:?} is no NATS subject: {problem}"));
                    return None;
                }
                Some(OnModel::Nats { subject: text })
            }
            "schedule" => self.schedule(node, place),
            _ => Some(OnModel::Manual),
        }
    }

    fn needed_key(&mut self, node: &'a Node, name: &str, place: Span, example: &str) -> Option<&'a Node> {
        let found = node.get(name);
        if found.is_none() {
            self.report.error("missing-key", place, format!("{name} is missing")).help(format!("add {example}"));
        }
        found
    }

    fn matchers(&mut self, node: &'a Node, place: Span) -> Option<OnModel> {
        let list = self.needed_key(node, "matchers", place, "matchers: ['alertname=\"X\"']")?;
        self.matcher_list(list).map(|matchers| OnModel::Alertmanager { matchers })
    }

    /// A list of matchers, or one.
    pub(super) fn matcher_list(&mut self, list: &'a Node) -> Option<Vec<String>> {
        let items = match &list.kind {
            Kind::Text(_) => std::slice::from_ref(list),
            _ => self.items(list, "matchers")?,
        };
        let mut matchers = Vec::new();
        for item in items {
            let Some(text) = self.string(item) else { continue };
            match Matcher::parse(&text) {
                Ok(_) => matchers.push(text),
                Err(error) => {
                    let span = self.within(item, &text, error.offset, 1);
                    self.report
                        .error("bad-matcher", span, error.message)
                        .help("a matcher is written as 'alertname=\"X\"'");
                }
            }
        }
        if items.is_empty() {
            self.report
                .error("bad-matcher", list.span, "no matcher; it would take every alert")
                .help("to mean that, write 'alertname=~\".+\"'");
        }
        Some(matchers)
    }

    fn schedule(&mut self, node: &'a Node, place: Span) -> Option<OnModel> {
        let cron = self.needed_key(node, "cron", place, "cron: \"0 9 * * MON\"")?;
        let text = self.string(cron)?;
        let zone = node.get("timezone");
        let timezone = zone.and_then(|node| self.string(node)).unwrap_or_else(|| "UTC".to_owned());
        let catch_up = match node.get("catch_up").and_then(|node| self.word(node, &["none", "last", "all"])) {
            Some("last") => CatchUp::Last,
            Some("all") => CatchUp::All,
            _ => CatchUp::None,
        };
        match Schedule::parse(&text, &timezone, catch_up) {
            Ok(_) => Some(OnModel::Schedule { cron: text, timezone, catch_up }),
            Err(ScheduleError::Cron(message)) => {
                self.report.error("bad-cron", cron.span, message);
                None
            }
            Err(error @ ScheduleError::Zone(_)) => {
                let near = nearest(&timezone, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()));
                let span = zone.map_or(cron.span, |node| node.span);
                self.report
                    .error("bad-timezone", span, error.to_string())
                    .maybe_help(near.map(|near| format!("did you mean {near}?")));
                None
            }
        }
    }

    fn trigger_inputs(&mut self, node: Option<&'a Node>, kind: &'static str, place: Span) -> BTreeMap<String, String> {
        let entries = node.and_then(|node| self.entries(node, "inputs")).unwrap_or_default();
        let mut inputs = BTreeMap::new();
        for (key, node) in entries {
            if !self.inputs.contains_key(&key.text) {
                let near = nearest(&key.text, self.inputs.keys().map(String::as_str));
                let help =
                    near.map_or_else(|| "declare it under inputs".to_owned(), |near| format!("did you mean {near}?"));
                self.report.error("unknown-input", key.span, format!("no input is named {}", key.text)).help(help);
            }
            if let Some(text) = self.cel(node, Place::Trigger(kind)) {
                inputs.insert(key.text.clone(), text);
            }
        }
        // A person gives what is missing; no other trigger can.
        if kind != "manual" {
            let help = |name: &str| format!("add inputs: {{{name}: \"...\"}} to the trigger");
            self.missing_inputs(entries, place, "this trigger", help);
        }
        inputs
    }

    fn missing_inputs(&mut self, given: &[(Key, Node)], place: Span, what: &str, help: impl Fn(&str) -> String) {
        let missing: Vec<&str> = self
            .inputs
            .iter()
            .filter(|(name, input)| input.required && !given.iter().any(|(key, _)| key.text == **name))
            .map(|(name, _)| name.as_str())
            .collect();
        if let Some(first) = missing.first() {
            self.report
                .error(
                    "missing-input",
                    place,
                    format!("{what} does not give the required input {}", missing.join(", ")),
                )
                .help(help(first));
        }
    }
}

/// Why a text is no NATS subject filter.
fn subject_problem(text: &str) -> Option<&'static str> {
    let tokens: Vec<&str> = text.split('.').collect();
    if text.len() > 256 {
        return Some("it is longer than 256 bytes");
    }
    if tokens.iter().any(|token| token.is_empty()) {
        return Some("a token between its dots is empty");
    }
    if text.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        return Some("it holds a space");
    }
    if text.contains("{{") {
        return Some("a template cannot stand here");
    }
    if tokens[..tokens.len() - 1].contains(&">") {
        return Some("> can only come last");
    }
    if tokens.iter().any(|token| token.len() > 1 && token.contains(['*', '>'])) {
        return Some("* and > stand for whole tokens");
    }
    None
}
