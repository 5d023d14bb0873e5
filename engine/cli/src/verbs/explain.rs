//! `stanch explain`: why each playbook would start from an event or not, with the values seen.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use stanch_core::alert::{AlertChange, AlertStatus};
use stanch_core::{Body, Settings};
use stanch_playbook::{Plan, PlaybookName};
use stanch_server::playbooks::Library;
use stanch_simulator::Simulation;
use stanch_simulator::explain::{self, Check, Explanation, Verdict};
use stanch_simulator::stimulus::Stimulus;

use super::validate::plural;
use crate::cases::{Shelves, from_file, now};
use crate::cli::Explain;
use crate::failure::{Exit, Outcome};
use crate::format::Format;
use crate::terminal::{self, OUT, Style, cut, inert, pad, width};

/// How many alerts of one delivery are explained to people; -o json has all.
const ALERTS: usize = 5;

/// Something that came in, and what each playbook makes of it.
struct Explained {
    subject: String,
    playbooks: Vec<(Arc<Plan>, Vec<Explanation>)>,
}

/// A playbook that would start, its incident's key, and its severity; none where it only observes.
type Start = (PlaybookName, String, Option<String>);

/// Explains.
pub fn run(arguments: &Explain, format: Format) -> Outcome {
    let library = Shelves::default().directory(&arguments.playbooks)?;
    let stimulus = from_file(&arguments.event, arguments.subject.as_deref(), now())?;
    let all: Vec<Explained> = match &stimulus {
        Stimulus::Alerts(changes) => changes
            .iter()
            .map(|change| Explained {
                subject: of_alert(change),
                playbooks: library.plans.iter().map(|plan| (Arc::clone(plan), explain::alert(plan, change))).collect(),
            })
            .collect(),
        Stimulus::Event(event, target) => vec![Explained {
            subject: format!("event {} from {}", event.kind, event.source)
                + &event.subject.as_ref().map(|subject| format!(" on {subject}")).unwrap_or_default(),
            playbooks: library
                .plans
                .iter()
                .map(|plan| (Arc::clone(plan), explain::event(plan, event, target)))
                .collect(),
        }],
    };
    let starts = starts(&library.plans, &stimulus);
    if format != Format::Table {
        format.print(&result(&all, &starts, &library))?;
        return Ok(Exit::Done);
    }
    let mut out = String::new();
    for explained in all.iter().take(ALERTS) {
        people(&mut out, explained);
    }
    if all.len() > ALERTS {
        out.push_str(&format!("… and {}; -o json has them all\n\n", plural(all.len() - ALERTS, "more alert")));
    }
    summary(&mut out, &starts, &library, &arguments.playbooks);
    terminal::print(&out)?;
    Ok(Exit::Done)
}

fn of_alert(change: &AlertChange) -> String {
    let labels: Vec<String> = change.alert.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    let state = if change.status == AlertStatus::Firing { "firing" } else { "resolved" };
    format!("{state} alert {}", labels.join(" "))
}

/// The playbooks that an engine with all of them would start, and their incidents: its own word, not a retelling.
fn starts(plans: &[Arc<Plan>], stimulus: &Stimulus) -> Vec<Start> {
    let mut simulation = Simulation::starting_at(plans.to_vec(), Settings::default(), now());
    simulation.command(stimulus.command()).ok();
    let mut incidents = BTreeMap::new();
    let (mut starts, mut observed) = (Vec::new(), Vec::new());
    for record in &simulation.records {
        match &record.body {
            Body::IncidentOpened(body) => {
                incidents.insert(body.incident, (body.key.to_string(), format!("{:?}", body.severity)));
            }
            Body::IncidentJoined(body) => {
                if let Some((_, severity)) = incidents.get_mut(&body.incident) {
                    *severity = format!("{:?}", body.severity);
                }
            }
            Body::RunStarted(body) => starts.push((body.playbook.clone(), body.incident)),
            // It would start, were it not that it only observes.
            Body::PlaybookObserved(body) => observed.push((body.playbook.clone(), body.key.to_string(), None)),
            _ => {}
        }
    }
    let of = |(playbook, incident)| {
        let (key, severity) = incidents.get(&incident).cloned().unwrap_or_default();
        (playbook, key, Some(severity))
    };
    starts.into_iter().map(of).chain(observed).collect()
}

fn people(out: &mut String, explained: &Explained) {
    let room = OUT.columns.unwrap_or(160);
    out.push_str(&OUT.paint(Style::Bold, &cut(&inert(&explained.subject), room)));
    out.push('\n');
    for (plan, explanations) in &explained.playbooks {
        let taken = explanations.iter().find(|one| matches!(one.verdict, Verdict::Takes | Verdict::Fails));
        let (mark, style) = match taken.map(|one| one.verdict) {
            Some(Verdict::Takes) => ("✔", Style::Green),
            Some(_) => ("✘", Style::Red),
            None => ("-", Style::Dim),
        };
        let name = OUT.paint(if taken.is_some() { Style::Bold } else { Style::Plain }, plan.name.as_str());
        out.push_str(&format!("  {} {name}\n", OUT.paint(style, mark)));
        if explanations.is_empty() {
            out.push_str("      has no triggers: a person alone can start it\n");
        }
        for one in explanations {
            trigger(out, one);
        }
    }
    out.push('\n');
}

fn trigger(out: &mut String, one: &Explanation) {
    let verdict = match one.verdict {
        Verdict::Takes => "takes it",
        Verdict::Fails => "takes it, and cannot be evaluated: it would become a dead letter",
        Verdict::Leaves => "leaves it",
        Verdict::Late => "would take it too; an earlier trigger of the playbook has it",
    };
    // Of another kind altogether: that fits into one line.
    let other = one.checks.iter().find(|check| !check.holds && matches!(check.what.as_str(), "event" | "status"));
    let why = other.map(|check| format!("; this is {}", inert(&check.came_to))).unwrap_or_default();
    out.push_str(&format!("      trigger {}, {}: {verdict}{why}\n", one.trigger, one.kind));
    if other.is_some() {
        return;
    }
    // What held is of interest only where everything did.
    let shown: Vec<&Check> = one.checks.iter().filter(|check| !check.holds || one.verdict != Verdict::Leaves).collect();
    let what = shown.iter().map(|check| width(&check.what)).max().unwrap_or(0);
    for check in shown {
        let (mark, style) = if check.holds { ("✔", Style::Green) } else { ("✘", Style::Red) };
        let written = OUT.paint(Style::Dim, &inert(&check.written));
        let came_to = match check.what.as_str() {
            "matcher" | "subject" => format!("saw {}", check.came_to),
            _ if check.holds || check.came_to == "false" => format!("gives {}", check.came_to),
            _ => check.came_to.clone(),
        };
        let gap = if check.written.is_empty() { "" } else { "  " };
        let line = format!("{}  {written}{gap}{}", pad(&check.what, what), inert(&came_to));
        out.push_str(&format!("        {} {line}\n", OUT.paint(style, mark)));
        // What a matcher saw stands there already.
        for (name, value) in check.values.iter().filter(|_| check.what != "matcher") {
            let value = if value.is_null() { "has no value".to_owned() } else { format!("= {value}") };
            let line = cut(&inert(&format!("{name} {value}")), OUT.columns.unwrap_or(160).saturating_sub(12));
            out.push_str(&format!("            {}\n", OUT.paint(Style::Dim, &line)));
        }
    }
}

fn summary(out: &mut String, starts: &[Start], library: &Library, directory: &Path) {
    for (playbook, key, severity) in starts {
        let line = match severity {
            Some(severity) => format!("✔ {playbook} would start, incident {} ({severity})", inert(key)),
            None => format!("✔ {playbook} only observes, incident {}", inert(key)),
        };
        out.push_str(&OUT.paint(Style::Green, &line));
        out.push('\n');
    }
    if starts.is_empty() {
        out.push_str(
            &OUT.paint(
                Style::Yellow,
                &format!("no playbook of {} would start", inert(&directory.display().to_string())),
            ),
        );
        out.push('\n');
    }
    for problem in &library.problems {
        let file = inert(&directory.join(&problem.file).display().to_string());
        let line = format!("! {file} has errors and starts nothing: stanch validate {file}");
        out.push_str(&OUT.paint(Style::Yellow, &line));
        out.push('\n');
    }
}

fn result(all: &[Explained], starts: &[Start], library: &Library) -> Value {
    let check = |check: &Check| {
        json!({
            "what": check.what,
            "written": check.written,
            "holds": check.holds,
            "came_to": check.came_to,
            "values": check.values,
        })
    };
    let trigger = |one: &Explanation| {
        json!({
            "trigger": one.trigger,
            "kind": one.kind,
            "verdict": match one.verdict {
                Verdict::Takes => "takes",
                Verdict::Leaves => "leaves",
                Verdict::Fails => "fails",
                Verdict::Late => "late",
            },
            "checks": one.checks.iter().map(check).collect::<Vec<_>>(),
        })
    };
    let playbook = |(plan, explanations): &(Arc<Plan>, Vec<Explanation>)| json!({"playbook": plan.name, "triggers": explanations.iter().map(trigger).collect::<Vec<_>>()});
    let explained = all
        .iter()
        .map(|one| json!({"about": one.subject, "playbooks": one.playbooks.iter().map(playbook).collect::<Vec<_>>()}));
    let starts = starts
        .iter()
        .map(|(playbook, key, severity)| json!({"playbook": playbook, "incident": key, "severity": severity, "observes": severity.is_none()}));
    let broken: Vec<&str> = library.problems.iter().map(|problem| problem.file.as_str()).collect();
    json!({
        "starts": starts.collect::<Vec<_>>(),
        "explained": explained.collect::<Vec<_>>(),
        "files_with_errors": broken,
    })
}
