//! Counters in Prometheus's text format. Runs and attempts are counted from durable records, by
//! following the journal, so that nothing is counted that did not happen. Labels are never ids.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde::Deserialize;
use stanch_core::run::Run;
use stanch_core::{RunId, Sequence, State};
use stanch_journal::Entry;
use stanch_playbook::{Plan, PlanDigest, PlaybookName, StepKey, Uses};

use crate::app::App;

/// How many combinations of labels a counter keeps; whatever else comes is counted under `other`.
const MOST: usize = 2000;
/// How many records are read at once.
const CHUNK: usize = 512;
/// How long what is durable waits to be counted, unless someone asks.
const EVERY: Duration = Duration::from_secs(1);

/// One counter by its labels.
struct Counter<const N: usize> {
    name: &'static str,
    help: &'static str,
    labels: [&'static str; N],
    values: Mutex<BTreeMap<[Cow<'static, str>; N], u64>>,
}

impl<const N: usize> Counter<N> {
    const fn new(name: &'static str, help: &'static str, labels: [&'static str; N]) -> Self {
        Self { name, help, labels, values: Mutex::new(BTreeMap::new()) }
    }

    fn values(&self) -> MutexGuard<'_, BTreeMap<[Cow<'static, str>; N], u64>> {
        self.values.lock().expect("no holder of this lock can panic")
    }

    fn add(&self, labels: [&str; N], count: u64) {
        let mut values = self.values();
        let key = labels.map(|label| Cow::Owned(label.to_owned()));
        if let Some(value) = values.get_mut(&key) {
            *value += count;
        } else if values.len() < MOST {
            values.insert(key, count);
        } else {
            *values.entry(labels.map(|_| Cow::Borrowed("other"))).or_insert(0) += count;
        }
    }

    fn render(&self, out: &mut String) {
        let values = self.values();
        writeln!(out, "# HELP {} {}\n# TYPE {} counter", self.name, self.help, self.name).expect("texts take it all");
        if N == 0 && values.is_empty() {
            writeln!(out, "{} 0", self.name).expect("texts take it all");
        }
        for (key, value) in &*values {
            out.push_str(self.name);
            for (index, (label, text)) in self.labels.iter().zip(key).enumerate() {
                out.push(if index == 0 { '{' } else { ',' });
                write!(out, "{label}=\"{}\"", escape(text)).expect("texts take it all");
            }
            out.push_str(if N == 0 { " " } else { "} " });
            writeln!(out, "{value}").expect("texts take it all");
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// All counters.
pub(super) struct Metrics {
    runs: Counter<2>,
    attempts: Counter<4>,
    alerts: Counter<2>,
    truncated: Counter<1>,
    dead_letters: Counter<0>,
    requests: Counter<3>,
    follower: tokio::sync::Mutex<Follower>,
}

impl Metrics {
    /// Counters that begin after what `state` tells of.
    pub(super) fn after(state: &State) -> Self {
        Self {
            runs: Counter::new(
                "stanch_runs_total",
                "Runs that ended since the engine started.",
                ["playbook", "outcome"],
            ),
            attempts: Counter::new(
                "stanch_attempts_total",
                "Attempts of steps that ended since the engine started.",
                ["playbook", "phase", "action", "outcome"],
            ),
            alerts: Counter::new(
                "stanch_alerts_received_total",
                "Alerts in notifications that were taken, repeats included.",
                ["source", "status"],
            ),
            truncated: Counter::new(
                "stanch_alerts_truncated_total",
                "Alerts that senders left out of notifications (max_alerts).",
                ["source"],
            ),
            dead_letters: Counter::new(
                "stanch_dead_letters_total",
                "What came in and could not be read since the engine started.",
                [],
            ),
            requests: Counter::new(
                "stanch_http_requests_total",
                "HTTP requests answered.",
                ["route", "method", "code"],
            ),
            follower: tokio::sync::Mutex::new(Follower::after(state)),
        }
    }

    /// Counts an answered request.
    pub(super) fn answered(&self, route: &str, method: &Method, status: StatusCode) {
        let method = match method.as_str() {
            known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known,
            _ => "other",
        };
        self.requests.add([route, method, status.as_str()], 1);
    }

    /// Counts the alerts of a notification.
    pub(super) fn alerts_received(&self, source: &str, firing: usize, resolved: usize, truncated: u64) {
        for (status, count) in [("firing", firing), ("resolved", resolved)] {
            if count > 0 {
                self.alerts.add([source, status], count as u64);
            }
        }
        if truncated > 0 {
            self.truncated.add([source], truncated);
        }
    }

    /// All counters as text.
    pub(super) fn render(&self) -> String {
        let mut out = String::with_capacity(4096);
        self.runs.render(&mut out);
        self.attempts.render(&mut out);
        self.alerts.render(&mut out);
        self.truncated.render(&mut out);
        self.dead_letters.render(&mut out);
        self.requests.render(&mut out);
        out
    }
}

/// Counts what becomes durable, once a second at most; whoever asks for the metrics has them brought up to date before.
pub(super) async fn follow(metrics: Arc<Metrics>, app: App) {
    let mut durable = app.handle.watch();
    while durable.changed().await.is_ok() {
        metrics.catch_up(&app).await;
        tokio::time::sleep(EVERY).await;
    }
}

/// Up to where records are counted, and what they do not repeat.
struct Follower {
    next: Sequence,
    live: HashMap<RunId, Live>,
}

/// What is known of a live run.
struct Live {
    playbook: PlaybookName,
    plan: Option<Arc<Plan>>,
}

/// What is counted of an envelope.
#[derive(Deserialize)]
struct Head<'a> {
    run: Option<RunId>,
    plan: Option<PlanDigest>,
    step: Option<StepKey>,
    #[serde(borrow)]
    outcome: Option<Cow<'a, str>>,
}

impl Follower {
    /// Counts from after `state` on.
    fn after(state: &State) -> Self {
        let of = |run: &Run| Live { playbook: run.playbook.clone(), plan: state.plan(run.plan).cloned() };
        Self { next: state.sequence.next(), live: state.runs.iter().map(|(id, run)| (*id, of(run))).collect() }
    }

    fn count(&mut self, metrics: &Metrics, state: &State, entry: &Entry) {
        // Most kinds are not counted, and telling the kind is cheaper than reading the envelope.
        let kind = kind_of(&entry.envelope);
        if kind == Some("DeadLettered") {
            metrics.dead_letters.add([], 1);
        }
        if !matches!(kind, Some("RunStarted" | "RunFinished" | "AttemptSucceeded" | "AttemptFailed" | "AttemptUnknown"))
        {
            return;
        }
        let Ok(head) = serde_json::from_slice::<Head<'_>>(&entry.envelope) else { return };
        let Some(run) = head.run else { return };
        let outcome = head.outcome.as_deref().unwrap_or_default();
        match (kind, head.step) {
            (Some("RunStarted"), _) => {
                let plan = head.plan.and_then(|digest| state.plan(digest)).cloned();
                let playbook = plan.as_ref().map(|plan| plan.name.clone()).or_else(|| playbook_of(entry));
                if let Some(playbook) = playbook {
                    self.live.insert(run, Live { playbook, plan });
                }
            }
            (Some("RunFinished"), _) => {
                if let Some(Live { playbook, .. }) = self.live.remove(&run) {
                    metrics.runs.add([playbook.as_str(), outcome], 1);
                }
            }
            (_, Some(step)) => {
                let Some(Live { playbook, plan }) = self.live.get(&run) else { return };
                let index = plan.as_ref().and_then(|plan| plan.step_index(&step));
                let action = match plan.as_ref().zip(index).map(|(plan, index)| &plan.steps[index].uses) {
                    Some(Uses::Action(call)) => call.action.as_str(),
                    _ => "other",
                };
                let phase = step.as_str().split('.').next().unwrap_or_default();
                metrics.attempts.add([playbook.as_str(), phase, action, outcome], 1);
            }
            _ => {}
        }
    }
}

impl Metrics {
    /// Counts what has become durable since the last time.
    pub(super) async fn catch_up(&self, app: &App) {
        let follower = &mut *self.follower.lock().await;
        loop {
            let state = app.handle.state();
            if state.sequence < follower.next {
                return;
            }
            let (reader, from) = (Arc::clone(&app.reader), follower.next);
            match tokio::task::spawn_blocking(move || reader.read(from, CHUNK)).await {
                Ok(Ok(entries)) if !entries.is_empty() => {
                    for entry in &entries {
                        follower.count(self, &state, entry);
                        follower.next = follower.next.next();
                    }
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, "the journal cannot be read for metrics now");
                    return;
                }
                Ok(Ok(_)) | Err(_) => return,
            }
        }
    }
}

/// The kind in a canonical envelope.
fn kind_of(envelope: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(envelope).ok()?;
    // Quotes inside of texts are escaped, so this is the key.
    let (_, rest) = text.split_once(",\"kind\":\"")?;
    rest.split_once('"').map(|(kind, _)| kind)
}

/// The playbook that a run's first record names.
fn playbook_of(entry: &Entry) -> Option<PlaybookName> {
    #[derive(Deserialize)]
    struct Started {
        playbook: PlaybookName,
    }
    serde_json::from_slice::<Started>(&entry.payload.as_ref()?.bytes).ok().map(|started| started.playbook)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_of_too_many_labels_counts_the_rest_together() {
        let counter = Counter::new("x_total", "X.", ["a"]);
        for number in 0..MOST + 5 {
            counter.add([&number.to_string()], 1);
        }
        counter.add(["0"], 1);
        let mut out = String::new();
        counter.render(&mut out);
        assert!(out.contains("\nx_total{a=\"other\"} 5\n") && out.contains("\nx_total{a=\"0\"} 2\n"), "{out:.300}");
    }

    #[test]
    fn the_kind_is_told_whatever_the_actor_is_called() {
        let envelope = br#"{"actor":"person:,\"kind\":\"x","incident":"a","kind":"RunStarted","payload":""}"#;
        assert_eq!(kind_of(envelope), Some("RunStarted"));
        assert_eq!(kind_of(b"{}"), None);
    }

    #[test]
    fn labels_are_escaped() {
        let counter = Counter::new("x_total", "X.", ["a"]);
        counter.add(["q\"\\\n"], 3);
        let mut out = String::new();
        counter.render(&mut out);
        assert!(out.ends_with("x_total{a=\"q\\\"\\\\\\n\"} 3\n"), "{out}");
    }
}
