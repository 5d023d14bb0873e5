//! Recorded runs, played again with the present playbooks: what would change.

use std::path::Path;

use serde_json::{Value, json};
use stanch_core::record::Record;
use stanch_core::{IllegalTransition, Sequence};
use stanch_simulator::replay::{Change, Recorded, recorded, replay};

use crate::cases::Shelves;
use crate::failure::{Exit, Failure, Outcome, causes};
use crate::format::{self, Format, short};
use crate::terminal::{self, OUT, Style, inert};
use crate::trail;
use crate::verbs::audit::unreadable;
use crate::verbs::validate::plural;

/// How many records are read at once.
const CHUNK: usize = 1_000;

/// Replays. Exits with 1 where something would change.
pub fn run(path: &Path, playbooks: &Path, filter: Option<&str>, format: Format) -> Outcome {
    let library = Shelves::default().directory(playbooks)?;
    let runs = recorded(records(path)?).map_err(|illegal| not_whole(&illegal))?;
    let wanted =
        |run: &Recorded, text: &str| run.run.id.to_string().contains(text) || run.run.playbook.as_str().contains(text);
    let runs: Vec<&Recorded> = runs.iter().filter(|run| filter.is_none_or(|text| wanted(run, text))).collect();
    if runs.is_empty() {
        return Err(Failure::new("there is no recorded run to play again")
            .help("only runs that are over are; look at what there is: stanch runs list"));
    }
    let played: Vec<(&Recorded, Vec<Change>)> =
        runs.into_iter().map(|run| (run, replay(run, &library.plans))).collect();
    let changed = played.iter().filter(|(_, changes)| !changes.is_empty()).count();
    if format == Format::Table {
        terminal::print(&people(&played, changed))?;
    } else {
        format.print(&result(&played, changed))?;
    }
    Ok(if changed == 0 { Exit::Done } else { Exit::Failed })
}

fn not_whole(illegal: &IllegalTransition) -> Failure {
    Failure::new(inert(&causes(illegal)))
        .help("the whole trail is needed: stanch audit export --output FILE, without --run; verify it with stanch audit verify")
}

fn records(path: &Path) -> Result<Vec<Record>, Failure> {
    let file = inert(&path.display().to_string());
    let undecodable = |error: &dyn std::fmt::Display| {
        Failure::new(format!("{file}: {}", inert(&error.to_string()))).help("verify it: stanch audit verify FILE")
    };
    let mut records = Vec::new();
    if !path.is_dir() {
        let export = std::fs::read(path).map_err(|error| Failure::because(format!("{file} cannot be read"), &error))?;
        for line in export.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let entry = trail::entry(line).map_err(|_| {
                Failure::new(format!("{file} is no export of an audit trail"))
                    .help("make one: stanch audit export --output FILE")
            })?;
            records.push(entry.record().map_err(|error| undecodable(&causes(&error)))?);
        }
        return Ok(records);
    }
    let reader = stanch_journal::open_read_only(path).map_err(|error| Failure::new(inert(&causes(&error))))?;
    let mut next = Sequence(1);
    loop {
        let entries = reader.read(next, CHUNK).map_err(|error| unreadable(&error))?;
        if entries.is_empty() {
            return Ok(records);
        }
        for entry in &entries {
            let record = entry.record().map_err(|error| undecodable(&causes(&error)))?;
            next = record.sequence.next();
            records.push(record);
        }
    }
}

fn people(played: &[(&Recorded, Vec<Change>)], changed: usize) -> String {
    let mut out = String::new();
    for (recorded, changes) in played.iter().filter(|(_, changes)| !changes.is_empty()) {
        let run = &recorded.run;
        let head = format!("{} {}", run.playbook, short(&run.id.to_string()));
        out.push_str(&format!(
            "{} {}  {}\n",
            OUT.paint(Style::Yellow, "≠"),
            OUT.paint(Style::Bold, &inert(&head)),
            OUT.paint(Style::Dim, &format!("{} {}", format::date_time(run.started_at), run.state())),
        ));
        for change in changes {
            out.push_str(&format!("    {}\n", inert(&change.to_string())));
        }
    }
    let (style, mark) = if changed == 0 { (Style::Green, "✔") } else { (Style::Yellow, "≠") };
    let verdict = match changed {
        0 => "all would go as they did".to_owned(),
        changed => format!("{changed} would go another way"),
    };
    out.push_str(&OUT.paint(style, &format!("{mark} {} played again, {verdict}", plural(played.len(), "run"))));
    out.push('\n');
    out
}

fn result(played: &[(&Recorded, Vec<Change>)], changed: usize) -> Value {
    let change = |change: &Change| match change {
        Change::Gone(_) | Change::NotStarted(_) | Change::Restless => {
            json!({"what": "run", "text": change.to_string()})
        }
        Change::Differs { what, was, would_be, assumed } => {
            json!({"what": what, "was": was, "would_be": would_be, "assumed": assumed, "text": change.to_string()})
        }
    };
    let run = |(recorded, changes): &(&Recorded, Vec<Change>)| {
        json!({
            "run": recorded.run.id,
            "playbook": recorded.run.playbook,
            "started_at": recorded.run.started_at,
            "state": recorded.run.state(),
            "changes": changes.iter().map(change).collect::<Vec<_>>(),
        })
    };
    json!({"runs": played.iter().map(run).collect::<Vec<_>>(), "changed": changed})
}
