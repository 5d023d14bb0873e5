//! What people are told by itself: that an incident or a question waits for somebody, how an incident stands, that a
//! watchdog barks, what was stopped, and that the wall clock jumped.
//!
//! Absent: whom it is told to and how; that is the shell's.

use crate::clock::{apart, is_jump};
use crate::incident::Incident;
use crate::record::{Body, Record};
use crate::state::State;

/// What a record tells people, as one plain text in which nothing is escaped; none where it tells nothing, or is about what
/// is not in the state any more.
#[must_use]
pub fn notice(record: &Record, state: &State) -> Option<String> {
    Some(match &record.body {
        Body::IncidentEscalated(body) => format!("{}: {}", stands(state.incidents.get(&body.incident)?), body.reason),
        Body::IncidentUpdateDue(body) => stands(state.incidents.get(&body.incident)?),
        Body::ApprovalEscalated(body) => {
            let (_, _, question) = state.question(body.approval)?;
            format!("Approval still needed: {} ({})", question.asked.prompt, body.reason)
        }
        Body::WatchdogBarked(body) => {
            format!("{}: no run has succeeded since that of {} ({})", body.playbook, body.nominal, body.watchdog)
        }
        Body::ClockJumped(body) if is_jump(body.by_ms) => format!(
            "The wall clock is {} the engine's: what is in force and the deadlines go by the old time for 10m",
            apart(body.by_ms)
        ),
        Body::Frozen(body) => {
            format!("{} stopped all new steps with side effects: {}", record.actor.as_str(), body.reason)
        }
        Body::Unfrozen(_) => format!("{} lets steps with side effects start again", record.actor.as_str()),
        _ => return None,
    })
}

/// How an incident stands.
fn stands(incident: &Incident) -> String {
    let firing = incident.alerts.iter().filter(|(_, fires)| *fires).count();
    let care = incident.care.as_deref();
    let owner = care
        .and_then(|care| care.owner.as_ref())
        .map_or("nobody", |owner| owner.as_str().strip_prefix("person:").unwrap_or(owner.as_str()));
    format!(
        "{:?} {} is {}; {firing} of {} alerts fire, {} runs are live, led by {owner}",
        incident.severity,
        incident.title,
        incident.state(),
        incident.alerts.len(),
        incident.live_runs.len(),
    )
}
