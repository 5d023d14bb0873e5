//! The start of runs: in which incident, and beside which others.

use std::sync::Arc;

use serde_json::{Map, Value};
use stanch_playbook::plan::{Escalation, OnRepeat};
use stanch_playbook::{Plan, PlaybookName, Severity};

use super::Draft;
use super::incidents::earliest_first;
use crate::alert::{AlertKey, AlertSnapshot};
use crate::id::{IncidentId, RunId};
use crate::record::{Cause, Held, IncidentJoined, IncidentOpened, RunExtended, RunStarted};
use crate::run::Run;

/// How a run comes to be.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Begin {
    /// No run of the playbook is live.
    Alone,
    /// Once this one is over.
    Behind(RunId),
    /// This one is cancelled for it.
    InsteadOf(RunId),
    /// This one has not begun, and takes it in.
    Within(RunId),
}

impl Draft {
    /// Starts a run, or lets one that has not begun take in what came. `held` is why the only run would not begin at once.
    pub(super) fn begin(
        &mut self,
        plan: &Arc<Plan>,
        incident: IncidentId,
        cause: Cause,
        inputs: Map<String, Value>,
        begin: Begin,
        held: Option<Held>,
    ) {
        let held = match begin {
            Begin::Within(run) => {
                let inputs = Arc::new(Value::Object(inputs));
                return self.as_engine(|draft| draft.emit(RunExtended { run, cause, inputs }));
            }
            Begin::InsteadOf(run) => {
                self.as_engine(|draft| draft.cancel(run, "it starts anew with what came".to_owned(), false));
                self.state.runs.contains_key(&run).then_some(Held::Behind { run })
            }
            Begin::Behind(run) => Some(Held::Behind { run }),
            Begin::Alone => held,
        };
        self.start_run(plan, incident, cause, inputs, held);
    }

    /// The runs of a playbook in an incident that are not over, oldest first.
    pub(super) fn live_runs(&self, incident: IncidentId, playbook: &PlaybookName) -> Vec<Arc<Run>> {
        let live = self.state.incidents.get(&incident).map(|incident| &incident.live_runs[..]).unwrap_or_default();
        let runs = live.iter().filter_map(|id| self.state.runs.get(id));
        runs.filter(|run| run.playbook == *playbook).map(Arc::clone).collect()
    }

    pub(super) fn has_alert(&self, incident: IncidentId, key: &AlertKey) -> bool {
        self.state.incidents.get(&incident).is_some_and(|of| of.alerts.iter().any(|(alert, _)| alert == key))
    }

    pub(super) fn join(&mut self, incident: IncidentId, plan: &Plan, alert: &AlertSnapshot) {
        let severity = severity_of(plan, Some(alert));
        let Some(of) = self.state.incidents.get(&incident) else { return };
        if !self.has_alert(incident, &alert.key) || severity < of.severity {
            let severity = severity.min(of.severity);
            self.emit(IncidentJoined { incident, alert: alert.key.clone(), severity });
        }
    }

    pub(super) fn open_incident(
        &mut self,
        key: &Arc<str>,
        plan: &Plan,
        alert: Option<&Arc<AlertSnapshot>>,
    ) -> IncidentId {
        let incident = IncidentId::derive(self.state.journal, self.state.sequence.next(), self.now);
        let severity = severity_of(plan, alert.map(|alert| &**alert));
        let escalation =
            plan.incident.escalation.as_ref().or_else(|| self.state.settings.escalation.get(&severity)).cloned();
        let escalation = escalation.map(|of| Escalation { notify: earliest_first(&of.notify), ..of });
        self.emit(IncidentOpened {
            incident,
            key: Arc::clone(key),
            severity,
            title: title_of(plan, alert.map(|alert| &**alert)),
            alert: alert.map(|alert| alert.key.clone()),
            settle: plan.incident.settle,
            escalation,
            slack_channel: plan.incident.slack_channel.clone(),
        });
        // What is due at once is told at once.
        self.fire_incident(incident);
        incident
    }

    pub(super) fn start_run(
        &mut self,
        plan: &Arc<Plan>,
        incident: IncidentId,
        cause: Cause,
        inputs: Map<String, Value>,
        held: Option<Held>,
    ) {
        let run = RunId::derive(self.state.journal, self.state.sequence.next(), self.now);
        let running = self.state.running.get(&plan.name).copied().unwrap_or(0);
        let queued = held.is_some() || plan.concurrency.is_some_and(|most| running >= most);
        self.emit(RunStarted {
            run,
            playbook: plan.name.clone(),
            plan: plan.digest,
            incident,
            cause,
            inputs: Arc::new(Value::Object(inputs)),
            queued,
            parent: None,
            children: self.children_of(plan),
            held,
            hold_until: self.hold_until(plan),
        });
        self.receipt.runs.push(run);
        self.as_engine(|draft| draft.advance(run));
    }
}

/// How what came leads to a run of a playbook, beside those in the incident that are live, the oldest first; none where it
/// does not. More alerts of one key are always for a run that has not begun; an event is one thing by itself.
pub(super) fn begin(plan: &Plan, live: &[Arc<Run>], alerts: bool) -> Option<Begin> {
    let repeats = matches!(plan.incident.on_repeat, OnRepeat::Queue | OnRepeat::Restart);
    let waits = |run: &&Arc<Run>| run.queued && run.held.is_some() && (alerts || repeats);
    if let Some(run) = live.iter().find(waits) {
        return Some(Begin::Within(run.id));
    }
    match (live.last(), plan.incident.on_repeat) {
        (None, _) => Some(Begin::Alone),
        (Some(_), OnRepeat::Attach | OnRepeat::Ignore) => None,
        (Some(run), OnRepeat::Queue) => Some(Begin::Behind(run.id)),
        (Some(run), OnRepeat::Restart) => Some(Begin::InsteadOf(run.id)),
    }
}

/// The graver of what the playbook says and what the alert's `severity` label says; P2 where neither does.
fn severity_of(plan: &Plan, alert: Option<&AlertSnapshot>) -> Severity {
    let label = alert.and_then(|alert| alert.labels.get("severity")).and_then(|label| {
        match label.to_ascii_lowercase().as_str() {
            "p0" | "emergency" => Some(Severity::P0),
            "p1" | "critical" | "page" | "high" => Some(Severity::P1),
            "p2" | "warning" | "medium" => Some(Severity::P2),
            "p3" | "info" | "low" | "none" => Some(Severity::P3),
            _ => None,
        }
    });
    match (plan.severity, label) {
        (Some(plan), Some(label)) => plan.min(label),
        (plan, label) => plan.or(label).unwrap_or(Severity::P2),
    }
}

fn title_of(plan: &Plan, alert: Option<&AlertSnapshot>) -> Arc<str> {
    let text = alert
        .and_then(|alert| alert.annotations.get("summary").or_else(|| alert.labels.get("alertname")))
        .map_or_else(|| plan.name.to_string(), Clone::clone);
    let mut cut: String = text.chars().take(200).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut.into()
}
