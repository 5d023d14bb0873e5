//! How attempts are repeated: `retry`, `on_unknown`, `idempotent`, and what `defaults` gives.

use std::time::Duration;

use super::Checker;
use super::call::key_of;
use super::names::Place;
use crate::catalogue::NamedAction;
use crate::document::{Kind, Node};
use crate::keys;
use crate::plan::{Jitter, OnUnknown, Retry};

/// The limit for an attempt that says none.
pub(super) const TIMEOUT: Duration = Duration::from_secs(120);

/// What `defaults` gives to action steps.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    pub timeout: Option<Duration>,
    pub retry: PartialRetry,
    pub on_unknown: Option<OnUnknown>,
    pub idempotent: Option<bool>,
    pub runs_on: Option<String>,
}

/// A `retry` as it is written.
#[derive(Debug, Default, Clone)]
pub(crate) struct PartialRetry {
    pub max_attempts: Option<u32>,
    pub initial_interval: Option<Duration>,
    pub backoff: Option<f64>,
    pub max_interval: Option<Duration>,
    pub jitter: Option<Jitter>,
    pub condition: Option<String>,
}

impl<'a> Checker<'a> {
    pub(super) fn defaults(&mut self, node: &'a Node) -> Defaults {
        let Some(entries) = self.entries(node, "defaults") else { return Defaults::default() };
        self.known_keys(entries, keys::DEFAULTS, "defaults");
        Defaults {
            timeout: node.get("timeout").and_then(|node| self.duration(node)),
            retry: node.get("retry").map(|node| self.retry(node, Place::Defaults)).unwrap_or_default(),
            on_unknown: node.get("on_unknown").and_then(|node| self.on_unknown(node, keys::ON_UNKNOWN)),
            idempotent: node.get("idempotent").and_then(|node| self.bool(node)),
            runs_on: node.get("runs_on").and_then(|node| self.name(node, "pool")),
        }
    }

    pub(super) fn on_unknown(&mut self, node: &Node, words: &[&'static str]) -> Option<OnUnknown> {
        Some(match self.word(node, words)? {
            "retry" => OnUnknown::Retry,
            "verify" => OnUnknown::Verify,
            "ask" => OnUnknown::Ask,
            _ => OnUnknown::Fail,
        })
    }

    /// Whether a step, or an action of the catalogue, says that it only looks; else what `named` says for the step.
    pub(super) fn read_only(&mut self, node: &Node, named: Option<&NamedAction>) -> Option<bool> {
        let own = node.get("read_only").and_then(|node| self.bool(node));
        let read_only = own.or(named.and_then(|action| action.read_only));
        if read_only == Some(true) {
            let repeats = node.get("idempotent").is_some_and(|node| matches!(node.kind, Kind::Bool(false)));
            for (key, told, why) in [
                ("idempotent", repeats, "what only looks can be repeated"),
                ("undo", true, "what only looks leaves nothing to take back"),
                ("budget", true, "what only looks has no targets to count"),
            ] {
                if let Some(place) = key_of(node, key).filter(|_| told) {
                    self.report
                        .error("conflicting-keys", place, format!("{why}, and read_only is true"))
                        .help(format!("remove {key}, or say read_only: false"));
                }
            }
        }
        read_only
    }

    pub(super) fn retry(&mut self, node: &'a Node, place: Place) -> PartialRetry {
        let Some(entries) = self.entries(node, "retry") else { return PartialRetry::default() };
        self.known_keys(entries, keys::RETRY, "retry");
        let retry = PartialRetry {
            max_attempts: node.get("max_attempts").and_then(|node| self.whole(node, 1, keys::MOST_ATTEMPTS)),
            initial_interval: node.get("initial_interval").and_then(|node| self.duration(node)),
            backoff: node.get("backoff").and_then(|node| self.factor(node)),
            max_interval: node.get("max_interval").and_then(|node| self.duration(node)),
            jitter: node.get("jitter").and_then(|node| self.word(node, &["full", "none"])).map(|word| match word {
                "none" => Jitter::None,
                _ => Jitter::Full,
            }),
            condition: node.get("if").and_then(|node| self.condition(node, place)),
        };
        if let (Some(first), Some(most), Some(node)) =
            (retry.initial_interval, retry.max_interval, node.get("max_interval"))
            && most < first
        {
            self.report.error("wrong-value", node.span, "max_interval is shorter than initial_interval");
        }
        if let (Some(1), Some(_), Some(node)) = (retry.max_attempts, &retry.condition, node.get("if")) {
            self.report
                .warning("not-applicable", node.span, "one attempt is never repeated")
                .help("raise max_attempts, or remove if");
        }
        retry
    }
}

impl PartialRetry {
    /// These words over those of another.
    pub(super) fn over(&self, other: &Self) -> Self {
        Self {
            max_attempts: self.max_attempts.or(other.max_attempts),
            initial_interval: self.initial_interval.or(other.initial_interval),
            backoff: self.backoff.or(other.backoff),
            max_interval: self.max_interval.or(other.max_interval),
            jitter: self.jitter.or(other.jitter),
            condition: self.condition.clone().or_else(|| other.condition.clone()),
        }
    }

    /// With what holds for what is not said.
    pub(super) fn resolve(&self, max_attempts: u32) -> Retry {
        let initial = self.initial_interval.unwrap_or(Duration::from_secs(1));
        let most = self.max_interval.unwrap_or(Duration::from_secs(60));
        Retry {
            max_attempts: self.max_attempts.unwrap_or(max_attempts),
            initial_interval: initial,
            backoff: self.backoff.unwrap_or(2.0),
            max_interval: most.max(initial),
            jitter: self.jitter.unwrap_or(Jitter::Full),
        }
    }
}
