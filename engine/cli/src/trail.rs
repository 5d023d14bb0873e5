//! The record of everything as people read it: one line a record.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use stanch_core::ContainmentId;
use stanch_core::attempt::AttemptId;
use stanch_core::record::{Body, Waiting};
use stanch_journal::{Entry, Envelope, Payload};
use stanch_playbook::Timestamp;

use crate::failure::Failure;
use crate::format;
use crate::story::place;
use crate::terminal::{Style, Table, Terminal, plain};

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    envelope: &'a RawValue,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

/// The entry of one line of an export. Not verified: the salt is left out.
pub fn entry(line: &[u8]) -> Result<Entry, Failure> {
    let line: Line<'_> = serde_json::from_slice(line)
        .map_err(|error| Failure::because("the engine sent a line that is no record", &error))?;
    let bytes = |raw: &RawValue| raw.get().as_bytes().to_vec().into();
    let payload = line.payload.map(|payload| Payload { salt: [0; 16], bytes: bytes(payload) });
    Ok(Entry { envelope: bytes(line.envelope), payload })
}

/// The entries of an export's lines.
pub fn entries(export: &[u8]) -> Result<Vec<Entry>, Failure> {
    export.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(entry).collect()
}

/// The columns below which the hash is left out and the time is whole seconds, so that what a record is about has room.
const WIDE: usize = 110;

/// Entries as a table: place, time, kind, who, the beginning of the hash that the next one carries, and what about.
pub fn table(entries: &[Entry], terminal: Terminal) -> Result<String, Failure> {
    let wide = terminal.columns.is_none_or(|columns| columns >= WIDE);
    let mut table = match wide {
        true => Table::new(["SEQ", "TIME (UTC)", "RECORD", "WHO", "HASH", "ABOUT"]),
        false => Table::new(["SEQ", "UTC", "RECORD", "WHO", "ABOUT"]),
    };
    let mut inforce = BTreeMap::new();
    for entry in entries {
        let envelope = Envelope::decode(&entry.envelope)
            .map_err(|error| Failure::because("the engine sent an envelope that cannot be read", &error))?;
        let record = entry.record().ok();
        if let Some(Body::ContainmentStarted(body)) = record.as_ref().map(|record| &record.body) {
            inforce.insert(body.containment, place(&body.step, body.item));
        }
        let about = about(&envelope, record.as_ref().map(|record| &record.body), &inforce);
        let clock = format::clock(envelope.time);
        let seq = plain(envelope.sequence.to_string());
        let (kind, who) = ((style(&envelope), envelope.kind.clone()), plain(envelope.actor.as_str()));
        if wide {
            let hash = entry.hash().to_string();
            table.row([seq, (Style::Dim, clock), kind, who, (Style::Dim, hash[..12].to_owned()), plain(about)]);
        } else {
            table.row([seq, (Style::Dim, clock[..8].to_owned()), kind, who, plain(about)]);
        }
    }
    Ok(table.render(terminal))
}

fn style(envelope: &Envelope) -> Style {
    match envelope.outcome.as_deref() {
        Some("succeeded") => Style::Green,
        Some("failed") => Style::Red,
        Some("unknown" | "tolerated" | "late") => Style::Yellow,
        _ => Style::Plain,
    }
}

/// What was put in force, as far as its record is among those shown.
type Inforce = BTreeMap<ContainmentId, String>;

fn about(envelope: &Envelope, body: Option<&Body>, inforce: &Inforce) -> String {
    let short = |what: &str, id: String| format!("{what} {}", format::short(&id));
    let step = envelope.step.as_ref().map(|step| place(step, body.and_then(item_of)));
    let run = || envelope.run.map(|run| short("run", run.to_string()));
    let incident = || envelope.incident.map(|incident| short("incident", incident.to_string()));
    let text = match body {
        None | Some(Body::Redacted(_)) => "(content deleted)".to_owned(),
        Some(body) => of_body(body, inforce),
    };
    let mut head: Vec<String> = step.or_else(run).or_else(incident).into_iter().collect();
    head.extend(body.and_then(attempt_of).map(|attempt| attempt.purpose.as_str().to_owned()));
    head.extend(envelope.attempt.filter(|attempt| *attempt > 1).map(|attempt| format!("attempt {attempt}")));
    head.extend(envelope.outcome.clone().filter(|outcome| !text.starts_with(outcome.as_str())));
    let head = head.join(" ");
    if head.is_empty() { text } else { with_reason(&head, &text) }
}

/// The attempt that a body is about.
const fn attempt_of(body: &Body) -> Option<&AttemptId> {
    match body {
        Body::AttemptScheduled(body) => Some(&body.attempt),
        Body::AttemptSucceeded(body) => Some(&body.attempt),
        Body::AttemptFailed(body) => Some(&body.attempt),
        Body::AttemptUnknown(body) => Some(&body.attempt),
        Body::AttemptLate(body) => Some(&body.attempt),
        _ => None,
    }
}

/// The item that a body is about.
fn item_of(body: &Body) -> Option<u32> {
    match body {
        Body::StepWaiting(body) => body.item,
        Body::StepWoken(body) => body.item,
        Body::StepEnded(body) => body.item,
        Body::StepAnswered(body) => body.item,
        Body::ContainmentStarted(body) => body.item,
        other => attempt_of(other)?.item,
    }
}

/// What a body is about, where the envelope does not say; may be empty.
fn of_body(body: &Body, inforce: &Inforce) -> String {
    let contained = |id: &ContainmentId| {
        inforce.get(id).cloned().unwrap_or_else(|| format!("containment {}", format::short(&id.to_string())))
    };
    let until = |until: &Option<Timestamp>| match until {
        Some(until) => format!("until {}", format::date_time(*until)),
        None => "without an end".to_owned(),
    };
    match body {
        Body::EngineStarted(body) => format!("stanch {}, epoch {}", body.version, body.epoch.0),
        Body::EngineStopped(body) => body.reason.clone(),
        Body::PlaybookLoaded(body) => body.playbook.to_string(),
        Body::PlaybookRemoved(body) => body.playbook.to_string(),
        Body::PlaybookObserved(body) => format!("{} would start for {}", body.playbook, body.key),
        Body::AlertFired(body) => {
            let name = body.alert.labels.get("alertname").map_or("an alert", |name| name);
            let instance = body.alert.labels.get("instance").map(|instance| format!(" {instance}"));
            format!("{name}{}", instance.unwrap_or_default())
        }
        Body::AlertResolved(body) => format!("{}/{}", body.alert.source, body.alert.fingerprint),
        Body::EventReceived(body) => format!("{} from {}", body.event.kind, body.event.source),
        Body::DeadLettered(body) => format!("{} {}", body.letter.via, body.letter.code),
        Body::DeadLetterReplayed(body) => format!("dead letter {}", format::short(&body.id.to_string())),
        Body::IncidentOpened(body) => format!("{:?}: {}", body.severity, body.title),
        Body::IncidentJoined(body) => format!("{}/{}", body.alert.source, body.alert.fingerprint),
        Body::IncidentSettling(body) => format!("until {}", format::clock(body.until)),
        Body::IncidentResolved(body) => body.reason.clone(),
        Body::IncidentEscalated(body) => {
            let people = if body.people.is_empty() { String::new() } else { format!(": {}", body.people.join(", ")) };
            format!("{}{people}", body.reason)
        }
        Body::IncidentTaken(body) => format!("by {}", body.owner.as_str()),
        Body::IncidentNoted(body) => body.note.clone(),
        Body::IncidentMerged(body) => format!("into {}", format::short(&body.into.to_string())),
        Body::RunStarted(body) => body.playbook.to_string(),
        Body::RunCancelRequested(body) => match (body.undo, body.reason.as_str()) {
            (true, "") => "with undo".to_owned(),
            (true, reason) => format!("with undo: {reason}"),
            (false, reason) => reason.to_owned(),
        },
        Body::AttemptScheduled(body) => body.action.to_string(),
        Body::AttemptSucceeded(body) => body.unsettled.as_ref().map(|of| of.reason.to_string()).unwrap_or_default(),
        Body::AttemptFailed(body) => body.error.to_string(),
        Body::AttemptUnknown(body) => body.reason.to_string(),
        Body::AttemptLate(body) => body.outcome.clone(),
        Body::StepWaiting(body) => waiting(body.wait),
        Body::StepEnded(body) => body.reason.to_string(),
        Body::StepAnswered(body) => body.note.clone(),
        Body::ApprovalEscalated(body) => format!("to {}: {}", body.people.join(", "), body.reason),
        Body::ClockJumped(body) => format!("the wall clock is {} s ahead", body.by_ms / 1000),
        Body::ItemsStarted(body) => format!("{} items", body.items.len()),
        Body::ItemsEnded(body) => body.failure.as_ref().map(|of| of.reason.to_string()).unwrap_or_default(),
        Body::ContainmentStarted(body) => {
            format!("{}in force {}", if body.certain { "" } else { "perhaps " }, until(&body.until))
        }
        Body::ContainmentExtended(body) => {
            with_reason(&format!("{} {}", contained(&body.containment), until(&body.until)), &body.reason)
        }
        Body::ContainmentEnded(body) => with_reason(&contained(&body.containment), &body.reason),
        Body::UndoRequested(body) => {
            const NAMED: usize = 3;
            let named: Vec<String> = body.containments.iter().take(NAMED).map(contained).collect();
            let more = body.containments.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            with_reason(&format!("{}{more}", named.join(", ")), &body.reason)
        }
        Body::ApprovalRequested(body) => body.prompt.to_string(),
        Body::ApprovalDecided(body) => body.reason.clone(),
        Body::Frozen(body) => body.reason.clone(),
        Body::Unfrozen(body) => body.reason.clone(),
        Body::MaintenancePlanned(body) => {
            with_reason(&format!("{} until {}", body.matchers.join(","), format::date_time(body.to)), &body.reason)
        }
        Body::MaintenanceEnded(body) => format!("window {}", format::short(&body.maintenance.to_string())),
        Body::WatchdogBarked(body) => {
            format!("{}: {}, of {}", body.playbook, body.watchdog, format::date_time(body.nominal))
        }
        Body::IncidentReopened(_)
        | Body::IncidentAcknowledged(_)
        | Body::IncidentSettled(_)
        | Body::IncidentUpdateDue(_)
        | Body::RunReleased(_)
        | Body::RunFinished(_)
        | Body::RunExtended(_)
        | Body::RunHoldEnded(_)
        | Body::RunRecovering(_)
        | Body::StepWoken(_)
        | Body::ClockAgreed(_)
        | Body::Redacted(_) => String::new(),
    }
}

fn with_reason(what: &str, reason: &str) -> String {
    if reason.is_empty() { what.to_owned() } else { format!("{what}: {reason}") }
}

fn waiting(wait: Waiting) -> String {
    let (what, expires_at) = match wait {
        Waiting::Time { until } => return format!("until {}", format::date_time(until)),
        Waiting::Resolved { settle, expires_at, .. } => {
            (format!("for its alerts to stay resolved for {}", format::duration(settle)), expires_at)
        }
        Waiting::Event { expires_at } => ("for an event".to_owned(), expires_at),
        Waiting::Approval { expires_at, .. } => ("for people".to_owned(), expires_at),
        Waiting::Run { child, expires_at } => (format!("for run {}", format::short(&child.to_string())), expires_at),
        Waiting::Undo { expires_at } => ("for what is taken back".to_owned(), expires_at),
    };
    match expires_at {
        Some(at) => format!("{what}, at most until {}", format::date_time(at)),
        None => what,
    }
}

#[cfg(test)]
mod tests {
    use stanch_core::record::{Actor, EngineStopped, Record};
    use stanch_core::{ContainmentId, Sequence};
    use stanch_journal::{Journal as _, MemoryJournal};

    use super::*;
    use crate::terminal::width;

    #[test]
    fn a_narrow_terminal_has_room_for_what_a_record_is_about() {
        let mut journal = MemoryJournal::new();
        let record = |at: u64, body: Body| Record {
            sequence: Sequence(at),
            time: Timestamp::from_millis(1_790_000_000_000),
            actor: Actor::engine(),
            body,
        };
        let reason =
            "a reason that is as long as reasons are where somebody writes at night what came to mind, to be read";
        let ended = stanch_core::record::ContainmentEnded {
            containment: ContainmentId::derive(journal.id(), Sequence(2), Timestamp::EPOCH),
            reason: reason.to_owned(),
        };
        let records = [record(1, EngineStopped { reason: "SIGTERM".to_owned() }.into()), record(2, ended.into())];
        journal.append(Sequence(0), &records).unwrap();
        let entries = journal.reader().read(Sequence(1), 10).unwrap();
        for (columns, hash) in [(80, false), (120, true)] {
            let terminal = Terminal { live: false, color: false, columns: Some(columns) };
            let shown = table(&entries, terminal).unwrap();
            assert!(shown.lines().all(|line| width(line) <= columns), "{columns}: {shown}");
            assert_eq!(shown.contains("HASH"), hash, "{shown}");
            assert!(shown.contains("containment ") && shown.contains("SIGTERM"), "{shown}");
        }
    }
}
