//! What lists show of what is over: the values of the views. Versioned with them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stanch_core::incident::Incident;
use stanch_core::record::{DeadLettered, Parent, Record, Waiting};
use stanch_core::run::{Run, StepState};
use stanch_core::{DeadLetterId, IncidentId, RunId, Sequence, State};
use stanch_playbook::{Phase, PlaybookName, Severity, Timestamp};

use crate::held::HeldBack;

/// A run as lists show it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RunSummary {
    /// Its id.
    pub id: RunId,
    /// The playbook.
    pub playbook: PlaybookName,
    /// queued, running, waiting, succeeded, failed or cancelled.
    pub state: String,
    /// How many of its steps are unknown and wait for a person's answer.
    #[serde(default)]
    pub asks: usize,
    /// How many of its steps wait for an approval.
    #[serde(default)]
    pub approvals: usize,
    /// What keeps it from going on though nothing that it needs is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldBack>,
    /// The step that it is part of, where another run started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The phase it stands in or ended in; null before its first step.
    pub phase: Option<Phase>,
    /// The incident it belongs to.
    pub incident: IncidentId,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ended; null while it is live.
    pub finished_at: Option<Timestamp>,
    /// The sequences of its records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Sequence>,
}

impl RunSummary {
    /// The summary of a run, live or just finished.
    #[must_use]
    pub fn of(run: &Run, state: &State) -> Self {
        Self {
            id: run.id,
            playbook: run.playbook.clone(),
            state: run.state().to_owned(),
            asks: questions(run),
            approvals: approvals(run),
            held: HeldBack::of(run, state),
            parent: run.parent.clone(),
            phase: state.plan(run.plan).and_then(|plan| run.phase(plan)),
            incident: run.incident,
            started_at: run.started_at,
            finished_at: run.finished_at,
            records: run.records.iter().copied().collect(),
        }
    }
}

/// How many steps of a run are unknown and wait for a person's answer.
pub(crate) fn questions(run: &Run) -> usize {
    run.started().filter(|(_, step)| matches!(step.state, StepState::Unknown { .. })).count()
}

/// How many steps of a run wait for an approval.
pub(crate) fn approvals(run: &Run) -> usize {
    let waits = |step: &StepState| matches!(step, StepState::Waiting { wait: Waiting::Approval { .. } });
    run.steps.iter().filter(|step| waits(&step.state)).count()
}

/// An incident as lists show it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct IncidentSummary {
    /// Its id.
    pub id: IncidentId,
    /// Its key.
    pub key: String,
    /// A line for people.
    pub title: String,
    /// open, acknowledged or resolved.
    pub state: String,
    /// Its severity.
    pub severity: Severity,
    /// When it opened.
    pub opened_at: Timestamp,
    /// Who took notice; null where nobody did.
    pub acknowledged_by: Option<String>,
    /// When it closes unless an alert fires again.
    pub settles_at: Option<Timestamp>,
    /// When it was resolved.
    pub resolved_at: Option<Timestamp>,
    /// Its alerts.
    pub alerts: Vec<IncidentAlert>,
    /// Its runs, oldest first.
    pub runs: Vec<RunId>,
    /// How many of its runs failed and hold it open.
    pub failed_runs: u32,
    /// Who leads it; null where nobody took it on.
    #[serde(default)]
    pub owner: Option<String>,
    /// What people wrote down, oldest first; the last hundred.
    #[serde(default)]
    pub notes: Vec<IncidentNote>,
    /// The incident that it became part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged_into: Option<IncidentId>,
}

/// What a person wrote down.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct IncidentNote {
    /// Who.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// What.
    pub note: String,
}

/// An alert of an incident.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct IncidentAlert {
    /// The Alertmanager cluster's name.
    pub source: String,
    /// The alert's fingerprint there.
    pub fingerprint: String,
    /// Whether it fires.
    pub firing: bool,
}

impl IncidentSummary {
    /// The summary of an incident.
    #[must_use]
    pub fn of(incident: &Incident) -> Self {
        let alert = |(key, firing): &(stanch_core::alert::AlertKey, bool)| IncidentAlert {
            source: key.source.to_string(),
            fingerprint: key.fingerprint.to_string(),
            firing: *firing,
        };
        let note = |(by, at, note): &(stanch_core::Actor, Timestamp, std::sync::Arc<str>)| IncidentNote {
            by: by.as_str().to_owned(),
            at: *at,
            note: note.to_string(),
        };
        let care = incident.care.as_deref();
        Self {
            id: incident.id,
            key: incident.key.to_string(),
            title: incident.title.to_string(),
            state: incident.state().to_owned(),
            severity: incident.severity,
            opened_at: incident.opened_at,
            acknowledged_by: incident.acknowledged.as_ref().map(|(actor, _)| actor.as_str().to_owned()),
            settles_at: incident.settles_at,
            resolved_at: incident.resolved_at,
            alerts: incident.alerts.iter().map(alert).collect(),
            runs: incident.runs.clone(),
            failed_runs: incident.failed_runs,
            owner: care.and_then(|care| care.owner.as_ref()).map(|owner| owner.as_str().to_owned()),
            notes: care.map(|care| care.notes.iter().map(note).collect()).unwrap_or_default(),
            merged_into: care.and_then(|care| care.merged_into),
        }
    }
}

/// A dead letter as lists show it; its body stands in the journal, at `record`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetterSummary {
    /// Its id.
    pub id: DeadLetterId,
    /// When it came.
    pub at: Timestamp,
    /// Where it came in.
    pub via: String,
    /// A stable code.
    pub code: String,
    /// Why it could not be read.
    pub reason: String,
    /// How many bytes came.
    pub size: u64,
    /// When it was last given to intake again; null where it never was.
    pub replayed_at: Option<Timestamp>,
    /// The sequence of its record.
    pub record: Sequence,
}

impl DeadLetterSummary {
    /// The summary of a dead letter.
    #[must_use]
    pub fn of(record: &Record, body: &DeadLettered) -> Self {
        Self {
            id: body.id,
            at: record.time,
            via: body.letter.via.clone(),
            code: body.letter.code.clone(),
            reason: body.letter.reason.clone(),
            size: body.letter.size,
            replayed_at: None,
            record: record.sequence,
        }
    }
}
