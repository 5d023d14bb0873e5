//! What a step's parts call: the action of a verification and of an undo, environments, and conditions that are polled.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Checker;
use super::attempts::{Defaults, PartialRetry, TIMEOUT};
use super::catalogue::named_in;
use super::identifier;
use super::names::{Part, Place};
use crate::actions::{self, Signature};
use crate::catalogue::BROKEN_CATALOGUE;
use crate::diagnostic::Span;
use crate::document::{Key, Node};
use crate::evaluate::Leaf;
use crate::keys;
use crate::model::{CallModel, UndoModel, UntilModel, VerifyModel};
use crate::nearest::nearest;
use crate::plan::{OnUnknown, Policy};
use crate::time::millis;

/// How often and how long a condition is looked at, where it is not said.
pub(super) struct Polling {
    pub every: Duration,
    pub within: Duration,
}

const VERIFY: Polling = Polling { every: Duration::from_secs(5), within: Duration::from_secs(120) };
/// Undoing is tried longer than doing: what is in force must not stay so by accident.
const UNDO_ATTEMPTS: u32 = 5;

impl<'a> Checker<'a> {
    /// The built-in action that a key names, or that an action of the catalogue is; `place` is where it is missed.
    /// `kept`: whether it may be one that the core keeps.
    pub(super) fn uses(
        &mut self,
        node: Option<&'a Node>,
        what: &str,
        place: Span,
        kept: bool,
    ) -> Option<&'static Signature> {
        let names = actions::ALL.iter().map(|signature| signature.name);
        let names = names.filter(|name| kept || !actions::is_kept_by_core(name));
        let names: Vec<&str> = names.chain(self.catalogue.actions.keys().map(String::as_str)).collect();
        let Some(node) = node else {
            let help = format!("add uses: one of {}", some_of(&names));
            self.report.error("missing-key", place, format!("{what} does not say what it uses")).help(help);
            return None;
        };
        let name = self.string(node)?;
        if let Some(action) = self.catalogue.actions.get(&name) {
            return Some(action.base);
        }
        if let Some(signature) = actions::find(&name) {
            return Some(signature);
        }
        if let Some(file) = self.catalogue.refused(&name) {
            self.broken_catalogue(&name, file, node.span);
            return None;
        }
        let help = match nearest(&name, names.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None if self.catalogue.detectors.contains_key(&name) => {
                format!("{name} is a detector, which only detect of the compact form can name")
            }
            None => format!("actions: {}", some_of(&names)),
        };
        self.report.error("unknown-action", node.span, format!("no action is named {name}")).help(help);
        None
    }

    /// A name whose catalogue could not be loaded: what is wrong is not here.
    pub(super) fn broken_catalogue(&mut self, name: &str, file: &str, span: Span) {
        self.report
            .error(BROKEN_CATALOGUE, span, format!("{name} stands in {file}, which has errors"))
            .help("mend the catalogue first");
    }

    /// Whether a worker executes an action; an error otherwise.
    pub(super) fn only_workers(&mut self, name: &str, uses: &Node, what: &str) -> bool {
        if actions::is_kept_by_core(name) {
            self.report
                .error("not-applicable", uses.span, format!("{what} uses an action that a worker executes, not {name}"))
                .help("use http, exec, nats.request or another such action");
        }
        !actions::is_kept_by_core(name)
    }

    /// What a map calls: its parameters, or what the catalogue makes of its inputs.
    pub(super) fn call(
        &mut self,
        node: &'a Node,
        signature: &'static Signature,
        at: Place,
        secrets: Option<&[String]>,
        place: Span,
    ) -> CallModel {
        let uses = signature.name.to_owned();
        if let Some((name, action)) = named_in(self.catalogue, node) {
            let alias = self.alias(name, action, node.get("with"), at, place);
            let span = node.get("uses").map_or(place, |node| node.span);
            self.secrets_of(name, action, secrets, span);
            if let Some(place) = key_of(node, "env") {
                self.report
                    .error("not-applicable", place, format!("the environment of {name} stands in the catalogue"))
                    .help("give it an input there");
            }
            return CallModel { uses, with: action.with.clone(), env: action.env.clone(), alias: Some(alias) };
        }
        let with = self.with(signature, node.get("with"), at, secrets, place);
        // What the core keeps has no environment; that is told with the other keys that mean nothing for it.
        let env = node.get("env").filter(|_| !actions::is_kept_by_core(signature.name));
        let env = self.env(env, Some(signature), at, secrets);
        CallModel { uses, with, env, alias: None }
    }

    /// What a verification or an undo calls, which a worker executes.
    fn part(
        &mut self,
        node: &'a Node,
        what: &str,
        at: Place,
        secrets: Option<&[String]>,
    ) -> Option<(&'static Signature, CallModel)> {
        let span = Span { length: 0, ..node.span };
        let uses = node.get("uses");
        let signature = self.uses(uses, what, span, false)?;
        let worker = uses.is_none_or(|uses| self.only_workers(signature.name, uses, what));
        worker.then(|| (signature, self.call(node, signature, at, secrets, span)))
    }

    pub(super) fn env(
        &mut self,
        node: Option<&'a Node>,
        signature: Option<&Signature>,
        place: Place,
        secrets: Option<&[String]>,
    ) -> BTreeMap<String, String> {
        let Some(node) = node else { return BTreeMap::new() };
        if let Some(signature) = signature.filter(|signature| signature.name != "exec") {
            self.report
                .error("not-applicable", node.span, format!("env is for exec; {} has no environment", signature.name))
                .help("pass it in with");
        }
        let mut env = BTreeMap::new();
        for (key, node) in self.entries(node, "env").unwrap_or_default() {
            if !identifier(&key.text) {
                self.report
                    .error("bad-name", key.span, format!("{:?} is no environment variable's name", key.text))
                    .help("use letters, digits and _, not beginning with a digit");
            } else if key.text.starts_with("STANCH_") {
                self.report.error("bad-name", key.span, "names that begin with STANCH_ are the engine's own");
            }
            if let Some(text) = self.template(node, Leaf::Secret, place, secrets) {
                env.insert(key.text.clone(), text);
            }
        }
        env
    }

    /// `until`, `every` and `within` of a map; nothing where it has no `until`.
    pub(super) fn until(&mut self, node: &'a Node, place: Place, default: &Polling) -> Option<UntilModel> {
        let every = node.get("every").and_then(|node| self.duration(node));
        let within = node.get("within").and_then(|node| self.duration(node));
        let Some(condition) = node.get("until") else {
            for key in ["every", "within"] {
                if let Some(place) = key_of(node, key) {
                    self.report
                        .error("missing-key", place, format!("{key} means nothing without until"))
                        .help("add until: \"result.status == 200\", or remove it");
                }
            }
            return None;
        };
        let condition = self.condition(condition, place);
        let (every, within) = (every.unwrap_or(default.every), within.unwrap_or(default.within));
        let given = ["every", "within"].into_iter().find_map(|key| node.get(key)).map(|node| node.span);
        if let Some(span) = given {
            if every > within {
                self.report
                    .error("wrong-value", span, "every is longer than within: there would be one look alone")
                    .help("shorten every, or lengthen within (by default they are 10s and 10m; 5s and 2m in verify)");
            } else if within.as_nanos() / every.as_nanos().max(1) > keys::MOST_LOOKS {
                self.report
                    .error("wrong-value", span, format!("more than {} looks", keys::MOST_LOOKS))
                    .help("lengthen every, or shorten within");
            }
        }
        Some(UntilModel { condition: condition?, every_ms: millis(every), within_ms: millis(within) })
    }

    pub(super) fn verify(
        &mut self,
        node: &'a Node,
        at: impl Fn(Part) -> Place,
        secrets: Option<&[String]>,
        defaults: &Defaults,
    ) -> Option<VerifyModel> {
        let entries = self.entries(node, "verify")?;
        self.known_keys(entries, keys::VERIFY, "verify");
        let called = self.part(node, "verify", at(Part::Verify), secrets);
        let until = self.until(node, at(Part::VerifyUntil), &VERIFY);
        if node.get("until").is_none() {
            self.report
                .error("missing-key", Span { length: 0, ..node.span }, "verify does not say what must hold")
                .help("add until: \"result.status == 200\", or what else shows that it is done");
        }
        let timeout = node.get("timeout").and_then(|node| self.duration(node));
        let looks = node.get("read_only").and_then(|node| self.bool(node)).unwrap_or(false);
        let (signature, call) = called?;
        let said = named_in(self.catalogue, node).and_then(|(_, action)| action.idempotent);
        if !looks && !said.unwrap_or_else(|| signature.idempotent(&call.with)) {
            let span = node.get("uses").map_or(node.span, |node| node.span);
            self.report
                .error(
                    "may-happen-twice",
                    span,
                    format!("{} is not idempotent, and a verification is repeated", signature.name),
                )
                .help("verify with an action that only looks, or say read_only: true in verify where this one does");
        }
        let until = until?;
        let within = Duration::from_millis(until.within_ms);
        let timeout = timeout.unwrap_or_else(|| defaults.timeout.unwrap_or(TIMEOUT).min(within));
        Some(VerifyModel { call, timeout_ms: millis(timeout), until })
    }

    pub(super) fn undo(
        &mut self,
        node: &'a Node,
        at: impl Fn(Part) -> Place,
        secrets: Option<&[String]>,
        defaults: &Defaults,
    ) -> Option<UndoModel> {
        let entries = self.entries(node, "undo")?;
        self.known_keys(entries, keys::UNDO, "undo");
        let called = self.part(node, "undo", at(Part::Undo), secrets);
        let after = node.get("after").and_then(|node| self.duration(node));
        let timeout = node.get("timeout").and_then(|node| self.duration(node));
        let own_idempotent = node.get("idempotent").and_then(|node| self.bool(node));
        let retry: PartialRetry =
            node.get("retry").map(|node| self.retry(node, at(Part::UndoRetry))).unwrap_or_default();
        if let Some(place) = retry.condition.as_ref().and(node.get("retry").and_then(|retry| retry.get("if"))) {
            let message =
                "retry.if means nothing for an undo, which outlives its run and all that a condition could look at";
            self.report.error("not-applicable", place.span, message).help("remove it");
        }
        let own_unknown = node.get("on_unknown").and_then(|node| self.on_unknown(node, keys::ON_UNKNOWN));
        let (signature, call) = called?;
        let named = named_in(self.catalogue, node).map(|(_, action)| action);
        let own_idempotent = own_idempotent.or(named.and_then(|action| action.idempotent));
        let idempotent = own_idempotent.unwrap_or_else(|| signature.idempotent(&call.with));
        let retry = named.map_or_else(|| retry.clone(), |action| retry.over(&action.retry));
        let timeout = timeout.or(named.and_then(|action| action.timeout));
        if own_unknown == Some(OnUnknown::Retry) && !idempotent {
            self.may_happen_twice(node, signature.name);
        }
        let on_unknown = own_unknown.unwrap_or(if idempotent { OnUnknown::Retry } else { OnUnknown::Ask });
        let policy =
            Policy { idempotent, retry: retry.resolve(if idempotent { UNDO_ATTEMPTS } else { 1 }), on_unknown };
        let timeout = timeout.or(defaults.timeout).unwrap_or(TIMEOUT);
        Some(UndoModel { call, policy, timeout_ms: millis(timeout), after_ms: after.map(millis) })
    }

    /// Warns of `on_unknown: retry` in a map whose action is not idempotent.
    pub(super) fn may_happen_twice(&mut self, node: &Node, action: &str) {
        let span = node.get("on_unknown").map_or(node.span, |node| node.span);
        self.report
            .warning("may-happen-twice", span, format!("{action} is not idempotent: a further attempt may do it twice"))
            .help("use on_unknown: ask, or say idempotent: true where the target takes the idempotency key");
    }
}

/// Names for a remedy: not all that a large catalogue has.
fn some_of(names: &[&str]) -> String {
    const SHOWN: usize = 24;
    let more = if names.len() > SHOWN { ", ..." } else { "" };
    format!("{}{more}", names[..names.len().min(SHOWN)].join(", "))
}

/// The place of a key of a map.
pub(super) fn key_of(node: &Node, name: &str) -> Option<Span> {
    let crate::document::Kind::Map(entries) = &node.kind else { return None };
    entries.iter().find(|(key, _): &&(Key, Node)| key.text == name).map(|(key, _)| key.span)
}
