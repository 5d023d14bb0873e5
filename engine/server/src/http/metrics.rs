//! Counters in Prometheus's text format. Runs and attempts are counted from durable records, by one task that follows the
//! journal, so that nothing is counted that did not happen. Labels are never ids.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::http::{Method, StatusCode};
use serde::Deserialize;
use stanch_core::run::StepState;
use stanch_core::{RunId, Sequence, State};
use stanch_journal::Entry;
use stanch_playbook::Uses;

use crate::app::App;

/// How many combinations of labels a counter keeps; whatever else comes is counted under `other`.
const MOST: usize = 2000;
/// How many records are read at once.
const CHUNK: usize = 512;

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
}

impl Default for Metrics {
    fn default() -> Self {
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
        }
    }
}

impl Metrics {
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

/// Counts what becomes durable from now on, until the engine ends.
pub(super) async fn follow(metrics: Arc<Metrics>, app: App) {
    let mut durable = app.handle.watch();
    let state = Arc::clone(&durable.borrow_and_update());
    let mut next = state.sequence.next();
    let mut live = Live::of(&state);
    drop(state);
    loop {
        if durable.borrow_and_update().sequence < next && durable.changed().await.is_err() {
            return;
        }
        let (reader, from) = (Arc::clone(&app.reader), next);
        let Ok(read) = tokio::task::spawn_blocking(move || reader.read(from, CHUNK)).await else { return };
        match read {
            Ok(entries) => {
                for entry in &entries {
                    next = live.count(&metrics, entry).unwrap_or(next).next().max(next);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "the journal cannot be read for metrics now");
                if durable.changed().await.is_err() {
                    return;
                }
            }
        }
    }
}

/// What the records of live runs do not repeat: the playbook, and the actions under way.
#[derive(Default)]
struct Live(HashMap<RunId, (String, HashMap<String, String>)>);

/// What is counted of an envelope.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    sequence: Sequence,
    run: Option<RunId>,
    step: Option<&'a str>,
    #[serde(borrow)]
    outcome: Option<Cow<'a, str>>,
}

impl Live {
    fn of(state: &State) -> Self {
        let mut live = Self::default();
        for (id, run) in &state.runs {
            let mut actions = HashMap::new();
            for (step, plan) in
                run.steps.iter().zip(state.plan(run.plan).map(|plan| &plan.steps[..]).unwrap_or_default())
            {
                if let (StepState::Running { .. }, Uses::Action { name, .. }) = (&step.state, &plan.uses) {
                    actions.insert(plan.key.to_string(), name.to_string());
                }
            }
            live.0.insert(*id, (run.playbook.to_string(), actions));
        }
        live
    }

    /// Counts one record; gives its place. Payloads are read only where they say what no envelope does.
    fn count(&mut self, metrics: &Metrics, entry: &Entry) -> Option<Sequence> {
        #[derive(Deserialize)]
        struct Playbook<'a> {
            #[serde(borrow)]
            playbook: Cow<'a, str>,
        }
        #[derive(Deserialize)]
        struct Action<'a> {
            #[serde(borrow)]
            action: Cow<'a, str>,
        }
        let head: Head<'_> = serde_json::from_slice(&entry.envelope).ok()?;
        let payload = entry.payload.as_ref().map(|payload| &*payload.bytes).unwrap_or_default();
        match (&*head.kind, head.run, head.step) {
            ("DeadLettered", ..) => metrics.dead_letters.add([], 1),
            ("RunStarted", Some(run), _) => {
                if let Ok(Playbook { playbook }) = serde_json::from_slice(payload) {
                    self.0.insert(run, (playbook.into_owned(), HashMap::new()));
                }
            }
            ("RunFinished", Some(run), _) => {
                let playbook = self.0.remove(&run).map_or_else(|| "other".to_owned(), |(playbook, _)| playbook);
                metrics.runs.add([&playbook, head.outcome.as_deref().unwrap_or_default()], 1);
            }
            ("AttemptScheduled", Some(run), Some(step)) => {
                if let (Some((_, actions)), Ok(Action { action })) =
                    (self.0.get_mut(&run), serde_json::from_slice(payload))
                {
                    actions.insert(step.to_owned(), action.into_owned());
                }
            }
            ("AttemptSucceeded" | "AttemptFailed" | "AttemptUnknown", Some(run), Some(step)) => {
                if let Some((playbook, actions)) = self.0.get_mut(&run) {
                    let action = actions.remove(step).unwrap_or_else(|| "other".to_owned());
                    let phase = step.split('.').next().unwrap_or_default();
                    metrics.attempts.add([playbook, phase, &action, head.outcome.as_deref().unwrap_or_default()], 1);
                }
            }
            _ => {}
        }
        Some(head.sequence)
    }
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
    fn labels_are_escaped() {
        let counter = Counter::new("x_total", "X.", ["a"]);
        counter.add(["q\"\\\n"], 3);
        let mut out = String::new();
        counter.render(&mut out);
        assert!(out.ends_with("x_total{a=\"q\\\"\\\\\\n\"} 3\n"), "{out}");
    }
}
