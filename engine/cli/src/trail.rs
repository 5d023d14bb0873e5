//! The record of everything as people read it: one line a record.

use serde::Deserialize;
use serde_json::value::RawValue;
use stanch_core::record::Body;
use stanch_journal::{Entry, Envelope, Payload};

use crate::failure::Failure;
use crate::format;
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

/// Entries as a table: place, time, kind, who, the beginning of the hash that the next one carries, and what about.
pub fn table(entries: &[Entry], terminal: Terminal) -> Result<String, Failure> {
    let mut table = Table::new(["SEQ", "TIME (UTC)", "RECORD", "WHO", "HASH", "ABOUT"]);
    for entry in entries {
        let envelope = Envelope::decode(&entry.envelope)
            .map_err(|error| Failure::because("the engine sent an envelope that cannot be read", &error))?;
        let hash = entry.hash().to_string();
        table.row([
            plain(envelope.sequence.to_string()),
            (Style::Dim, format::clock(envelope.time)),
            (style(&envelope), envelope.kind.clone()),
            plain(envelope.actor.as_str()),
            (Style::Dim, hash[..12].to_owned()),
            plain(about(&envelope, entry)),
        ]);
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

fn about(envelope: &Envelope, entry: &Entry) -> String {
    let mut parts: Vec<String> = Vec::new();
    parts.extend(envelope.step.as_ref().map(ToString::to_string));
    parts.extend(envelope.attempt.filter(|attempt| *attempt > 1).map(|attempt| format!("attempt {attempt}")));
    parts.extend(envelope.outcome.clone());
    if entry.payload.is_none() {
        parts.push("(content deleted)".to_owned());
    }
    parts.extend(entry.record().ok().and_then(|record| of_body(&record.body)));
    if envelope.step.is_none() {
        let run = envelope.run.map(|run| run.to_string());
        parts.extend(run.map(|run| format!("run {}", format::short(&run))));
    }
    parts.join(" ")
}

/// What a body is about, where the envelope does not say.
fn of_body(body: &Body) -> Option<String> {
    Some(match body {
        Body::EngineStarted(body) => format!("stanch {}, epoch {}", body.version, body.epoch.0),
        Body::EngineStopped(body) => body.reason.clone(),
        Body::PlaybookLoaded(body) => body.playbook.to_string(),
        Body::PlaybookRemoved(body) => body.playbook.to_string(),
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
        Body::IncidentSettling(body) => format!("until {}", format::clock(body.until)),
        Body::IncidentResolved(body) => body.reason.clone(),
        Body::RunStarted(body) => body.playbook.to_string(),
        Body::AttemptScheduled(body) => body.action.to_string(),
        Body::StepAnswered(body) => body.note.clone(),
        Body::ApprovalEscalated(body) => format!("to {}: {}", body.people.join(", "), body.reason),
        _ => return None,
    })
}
