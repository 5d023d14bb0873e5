//! `stanch graph`: a playbook's steps and their order as a picture.

use std::path::Path;

use stanch_playbook::plan::{Call, Step};
use stanch_playbook::time::shown_duration;
use stanch_playbook::{Phase, Plan, TriggerOn, Uses, Wait};

use crate::cases::playbook_named;
use crate::cli::Graph;
use crate::failure::{Exit, Failure, Outcome};
use crate::format::Format;
use crate::graph;
use crate::terminal;

/// Draws.
pub fn run(arguments: &Graph) -> Outcome {
    let (plan, _) = playbook_named(&arguments.playbook, &arguments.playbooks)?;
    let drawing = drawing(&plan);
    let text = match arguments.format {
        Format::Ascii => graph::ascii::draw(&drawing),
        Format::Mermaid => graph::mermaid::draw(&drawing),
        Format::Dot => graph::dot::draw(&drawing),
        Format::Svg => graph::svg::draw(&drawing),
        // Given before the verb, where the formats of most verbs are taken.
        Format::Table | Format::Json | Format::Yaml | Format::Sarif | Format::Github => {
            return Err(Failure::usage("a graph is a picture, and not written like that")
                .help("it is drawn in ascii, mermaid, dot or svg: stanch graph PLAYBOOK --format svg"));
        }
    };
    match arguments.output.as_deref().filter(|path| *path != Path::new("-")) {
        None => terminal::print(&text)?,
        Some(path) => std::fs::write(path, text).map_err(|error| {
            Failure::because(format!("{} cannot be written", terminal::inert(&path.display().to_string())), &error)
        })?,
    }
    Ok(Exit::Done)
}

/// What is drawn of a plan.
fn drawing(plan: &Plan) -> graph::Drawing {
    let mut triggers: Vec<String> = plan.triggers.iter().map(|trigger| listens(&trigger.on)).collect();
    if triggers.is_empty() {
        triggers.push("a person".to_owned());
    }
    let phases = Phase::ALL.into_iter().filter_map(|phase| {
        let of: Vec<usize> = (0..plan.steps.len()).filter(|index| plan.steps[*index].phase == phase).collect();
        let node = |index: &usize| {
            let step = &plan.steps[*index];
            let place = |need: &usize| of.iter().position(|other| other == need);
            graph::Node {
                name: step.name.clone(),
                uses: uses(plan, step),
                marks: marks(step),
                needs: step.needs.iter().filter_map(place).collect(),
            }
        };
        (!of.is_empty()).then(|| graph::PhaseDrawing { name: phase.as_str(), nodes: of.iter().map(node).collect() })
    });
    graph::Drawing { title: plan.name.to_string(), triggers, phases: phases.collect() }
}

fn listens(on: &TriggerOn) -> String {
    match on {
        TriggerOn::Alertmanager(matchers) => matchers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        TriggerOn::Nats { subject } => format!("nats {subject}"),
        TriggerOn::Schedule(_) => "a schedule".to_owned(),
        TriggerOn::Manual => "a person".to_owned(),
    }
}

fn uses(plan: &Plan, step: &Step) -> String {
    match &step.uses {
        Uses::Action(_) | Uses::Approval(_) => step.uses.name().to_owned(),
        Uses::Wait(Wait::Duration(template)) => format!("wait {}", template.source()),
        Uses::Wait(Wait::Resolved { .. }) => "wait until resolved".to_owned(),
        Uses::Wait(Wait::Event(awaited)) => format!("wait for {}", listens(&awaited.on)),
        Uses::Playbook { playbook, .. } => format!("playbook {playbook}"),
        Uses::Undo { step } => format!("undo {}", plan.steps[*step].name),
    }
}

fn marks(step: &Step) -> Vec<String> {
    let mut marks = Vec::new();
    if let Some(condition) = &step.condition {
        marks.push(format!("if {}", condition.source()));
    }
    if let Some(foreach) = &step.foreach {
        marks.push(format!("for each of {}", foreach.items.source()));
    }
    if let Uses::Approval(approval) = &step.uses
        && !approval.from.is_empty()
    {
        marks.push(format!("asks {}", approval.from.join(", ")));
    }
    if let Some(until) = &step.until {
        marks.push(format!("until {}", until.condition.source()));
    }
    if let Some(verify) = &step.verify {
        marks.push(format!("verified by {}", call_name(&verify.call)));
    }
    if let Some(undo) = &step.undo {
        let after = undo.after.map(|after| format!(" after {}", shown_duration(after))).unwrap_or_default();
        marks.push(format!("undone by {}{after}", call_name(&undo.call)));
    }
    if let Some(budget) = &step.budget {
        marks.push(format!("budget {budget}"));
    }
    if step.continue_on_error {
        marks.push("failure tolerated".to_owned());
    }
    marks
}

fn call_name(call: &Call) -> &str {
    call.alias.as_ref().map_or(call.action.as_str(), |(name, _)| name)
}
