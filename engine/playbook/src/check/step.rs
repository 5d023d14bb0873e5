//! One step: its action, its parameters, and how its attempts are repeated.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Checker;
use super::identifier;
use super::names::Place;
use crate::actions::{self, Signature, WAIT};
use crate::document::Node;
use crate::evaluate::Leaf;
use crate::keys;
use crate::model::StepModel;
use crate::nearest::nearest;
use crate::plan::{Jitter, OnUnknown, Retry};

const TIMEOUT: Duration = Duration::from_secs(120);

/// What `defaults` gives to action steps.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    timeout: Option<Duration>,
    retry: PartialRetry,
    on_unknown: Option<OnUnknown>,
    idempotent: Option<bool>,
}

/// A `retry` as it is written.
#[derive(Debug, Default)]
struct PartialRetry {
    max_attempts: Option<u32>,
    initial_interval: Option<Duration>,
    backoff: Option<f64>,
    max_interval: Option<Duration>,
    jitter: Option<Jitter>,
}

impl<'a> Checker<'a> {
    pub(super) fn defaults(&mut self, node: &'a Node) -> Defaults {
        let Some(entries) = self.entries(node, "defaults") else { return Defaults::default() };
        self.known_keys(entries, keys::DEFAULTS, &["runs_on"], "defaults");
        Defaults {
            timeout: node.get("timeout").and_then(|node| self.duration(node)),
            retry: node.get("retry").map(|node| self.retry(node)).unwrap_or_default(),
            on_unknown: node.get("on_unknown").and_then(|node| self.on_unknown(node)),
            idempotent: node.get("idempotent").and_then(|node| self.bool(node)),
        }
    }

    pub(super) fn step(&mut self, index: usize, needs: Vec<String>, defaults: &Defaults) -> Option<StepModel> {
        let (phase, name, place, node) = {
            let known = &self.steps[index];
            (known.phase, known.name, known.place, known.node)
        };
        let entries = self.entries(node, &format!("step {name}"))?;
        self.known_keys(entries, keys::STEP, keys::STEP_LATER, "a step");
        let condition = node.get("if").and_then(|node| self.cel(node, Place::Step(index)));
        let secrets = node.get("secrets").map(|node| self.secret_names(node));
        let signature = match node.get("uses") {
            Some(node) => self.uses(node),
            None => {
                let help = format!("add uses: one of {}", action_names().join(", "));
                self.report.error("missing-key", place, format!("step {name} does not say what it uses")).help(help);
                None
            }
        };
        let with = signature.map(|signature| self.with(signature, node.get("with"), index, secrets.as_deref(), place));
        let env = self.env(node.get("env"), signature, index, secrets.as_deref());
        let outputs = self.outputs(node.get("outputs"), index);
        let own_retry = node.get("retry").map(|node| self.retry(node));
        let own_unknown = node.get("on_unknown").and_then(|node| self.on_unknown(node));
        let own_idempotent = node.get("idempotent").and_then(|node| self.bool(node));
        let timeout = node.get("timeout").and_then(|node| self.duration(node));
        let continue_on_error = node.get("continue_on_error").and_then(|node| self.bool(node)).unwrap_or(false);
        let (signature, with) = (signature?, with?);
        let is_wait = signature.name == WAIT;
        if is_wait {
            for key in ["retry", "on_unknown", "idempotent", "outputs", "env", "secrets"] {
                if let Some((key, _)) = entries.iter().find(|(entry, _)| entry.text == key) {
                    let message = format!("{} means nothing for a wait, which has no attempts and no result", key.text);
                    self.report.error("not-applicable", key.span, message).help("remove it");
                }
            }
        }
        let idempotent = match own_idempotent.or(defaults.idempotent) {
            Some(said) if !is_wait => said,
            _ => signature.idempotent(&with),
        };
        let on_unknown = own_unknown.or(defaults.on_unknown).unwrap_or(match idempotent {
            true => OnUnknown::Retry,
            false => OnUnknown::Ask,
        });
        if own_unknown == Some(OnUnknown::Retry) && !idempotent {
            let span = node.get("on_unknown").map_or(place, |node| node.span);
            self.report
                .warning(
                    "may-happen-twice",
                    span,
                    format!("{} is not idempotent: a further attempt may do it twice", signature.name),
                )
                .help("use on_unknown: ask, or say idempotent: true where the target takes the idempotency key");
        }
        let timeout = if is_wait { timeout } else { timeout.or(defaults.timeout).or(Some(TIMEOUT)) };
        Some(StepModel {
            phase,
            name: name.to_owned(),
            needs,
            condition,
            uses: signature.name.to_owned(),
            with,
            env,
            secrets,
            idempotent,
            retry: resolve(&own_retry.unwrap_or_default(), &defaults.retry, idempotent),
            on_unknown,
            timeout_ms: timeout.map(crate::time::millis),
            outputs,
            continue_on_error,
            alias: None,
            foreach: None,
            until: None,
            verify: None,
            undo: None,
            on_timeout: None,
            runs_on: None,
            budget: None,
        })
    }

    fn uses(&mut self, node: &Node) -> Option<&'static Signature> {
        let name = self.string(node)?;
        if let Some(signature) = actions::find(&name) {
            return Some(signature);
        }
        let help = match nearest(&name, action_names()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("actions: {}", action_names().join(", ")),
        };
        self.report.error("unknown-action", node.span, format!("no action is named {name}")).help(help);
        None
    }

    fn secret_names(&mut self, node: &'a Node) -> Vec<String> {
        let names = self.texts(node, "secrets");
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        for (name, span) in &names {
            if name.is_empty() || !name.bytes().all(fits) {
                self.report
                    .error("bad-name", *span, format!("{name:?} is no secret's name"))
                    .help("write the name alone, such as edr");
            }
        }
        names.into_iter().map(|(name, _)| name).collect()
    }

    fn env(
        &mut self,
        node: Option<&'a Node>,
        signature: Option<&Signature>,
        index: usize,
        secrets: Option<&[String]>,
    ) -> BTreeMap<String, String> {
        let Some(node) = node else { return BTreeMap::new() };
        if let Some(signature) = signature.filter(|signature| !["exec", WAIT].contains(&signature.name)) {
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
            if let Some(text) = self.template(node, Leaf::Secret, Place::Step(index), secrets) {
                env.insert(key.text.clone(), text);
            }
        }
        env
    }

    fn outputs(&mut self, node: Option<&'a Node>, index: usize) -> BTreeMap<String, String> {
        let entries = node.and_then(|node| self.entries(node, "outputs")).unwrap_or_default();
        let mut outputs = BTreeMap::new();
        for (key, node) in entries {
            if !identifier(&key.text) {
                self.report
                    .error("bad-name", key.span, format!("{:?} is no output's name", key.text))
                    .help("use letters, digits and _, not beginning with a digit");
            }
            if let Some(text) = self.cel(node, Place::Outputs(index)) {
                outputs.insert(key.text.clone(), text);
            }
        }
        outputs
    }

    fn on_unknown(&mut self, node: &Node) -> Option<OnUnknown> {
        if matches!(&node.kind, crate::document::Kind::Text(text) if text == "verify") {
            self.report
                .error("not-yet-supported", node.span, "on_unknown: verify is not supported yet")
                .help("use retry, ask or fail");
            return None;
        }
        Some(match self.word(node, &["retry", "ask", "fail"])? {
            "retry" => OnUnknown::Retry,
            "ask" => OnUnknown::Ask,
            _ => OnUnknown::Fail,
        })
    }

    fn retry(&mut self, node: &'a Node) -> PartialRetry {
        let Some(entries) = self.entries(node, "retry") else { return PartialRetry::default() };
        self.known_keys(entries, keys::RETRY, keys::RETRY_LATER, "retry");
        let retry = PartialRetry {
            max_attempts: node.get("max_attempts").and_then(|node| self.whole(node, 1, keys::MOST_ATTEMPTS)),
            initial_interval: node.get("initial_interval").and_then(|node| self.duration(node)),
            backoff: node.get("backoff").and_then(|node| self.factor(node)),
            max_interval: node.get("max_interval").and_then(|node| self.duration(node)),
            jitter: node.get("jitter").and_then(|node| self.word(node, &["full", "none"])).map(|word| match word {
                "none" => Jitter::None,
                _ => Jitter::Full,
            }),
        };
        if let (Some(first), Some(most), Some(node)) =
            (retry.initial_interval, retry.max_interval, node.get("max_interval"))
            && most < first
        {
            self.report.error("wrong-value", node.span, "max_interval is shorter than initial_interval");
        }
        retry
    }
}

/// A step's own words over the defaults over what holds for its kind.
fn resolve(own: &PartialRetry, defaults: &PartialRetry, idempotent: bool) -> Retry {
    let initial = own.initial_interval.or(defaults.initial_interval).unwrap_or(Duration::from_secs(1));
    let most = own.max_interval.or(defaults.max_interval).unwrap_or(Duration::from_secs(60));
    Retry {
        max_attempts: own.max_attempts.or(defaults.max_attempts).unwrap_or(if idempotent { 3 } else { 1 }),
        initial_interval: initial,
        backoff: own.backoff.or(defaults.backoff).unwrap_or(2.0),
        max_interval: most.max(initial),
        jitter: own.jitter.or(defaults.jitter).unwrap_or(Jitter::Full),
    }
}

fn action_names() -> Vec<&'static str> {
    actions::ALL.iter().map(|signature| signature.name).collect()
}
