//! `stanch plan`: what an event would do to a playbook, told beforehand. Nothing is done.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use stanch_core::command::Target;
use stanch_core::event::Event;
use stanch_playbook::Phase;
use stanch_playbook::evaluate::Preview;
use stanch_playbook::plan::OnUnknown;
use stanch_playbook::time::shown_duration;
use stanch_simulator::foresee::{Foreseen, ForeseenCall, Foresight, Foretold, Looks, NoRun, foresee};
use stanch_simulator::stimulus::Stimulus;

use super::validate::plural;
use crate::cases::{from_file, now, playbook_named};
use crate::cli::Plan;
use crate::failure::{Exit, Failure, Outcome};
use crate::format::Format;
use crate::terminal::{self, OUT, Style, cut, inert, pad, width};

/// How many targets of a step people see; -o json has all.
const TARGETS: usize = 5;

/// Tells. Exits with 1 where no run would start.
pub fn run(arguments: &Plan, format: Format) -> Outcome {
    let (plan, plans) = playbook_named(&arguments.playbook, &arguments.playbooks)?;
    let stimulus = match &arguments.event {
        Some(file) => from_file(file, arguments.subject.as_deref(), now())?,
        None => by_hand(arguments, &plan),
    };
    let foresight = foresee(&plan, &plans, &stimulus, now()).map_err(|none| match none {
        NoRun::NotTaken => Failure::new(format!("no trigger of {} takes this event", plan.name))
            .help("see what each one saw: stanch explain --event FILE"),
        NoRun::Unusable(reason) => Failure::new(inert(&reason)).help("the event would become a dead letter"),
        NoRun::Refused(refused) => Failure::new(inert(&refused.to_string()))
            .help("give inputs with --input name=value, or an event with --event FILE"),
    })?;
    if format == Format::Table {
        terminal::print(&people(&plan, &foresight))?;
    } else {
        format.print(&result(&plan, &foresight))?;
    }
    Ok(Exit::Done)
}

fn by_hand(arguments: &Plan, plan: &stanch_playbook::Plan) -> Stimulus {
    let inputs: Map<String, Value> =
        arguments.inputs.iter().map(|input| (input.name.clone(), input.value.clone())).collect();
    let event = Event {
        id: "plan".into(),
        source: "api".into(),
        kind: "stanch.run.requested".into(),
        time: now(),
        subject: Some(plan.name.as_str().into()),
        data: Value::Object(inputs.clone()),
    };
    Stimulus::Event(Arc::new(event), Target::Playbook { playbook: plan.name.clone(), inputs })
}

fn people(plan: &stanch_playbook::Plan, foresight: &Foresight) -> String {
    let mut out = OUT.paint(Style::Bold, plan.name.as_str());
    if !plan.description.is_empty() {
        out.push_str(&format!("  {}", OUT.paint(Style::Dim, &inert(&plan.description))));
    }
    out.push('\n');
    out.push_str(&format!(
        "  incident  {} ({:?}): {}\n",
        inert(&foresight.key),
        foresight.severity,
        inert(&foresight.title)
    ));
    if foresight.observes {
        let text = "the playbook only observes: none of it is done";
        out.push_str(&format!("  mode      {}\n", OUT.paint(Style::Yellow, text)));
    }
    if !plan.hold.is_zero() {
        out.push_str(&format!("  hold      {} before the first side effect\n", shown_duration(plan.hold)));
    }
    let empty = Map::new();
    let inputs = foresight.inputs.as_object().unwrap_or(&empty);
    let names = inputs.keys().map(|name| width(name)).max().unwrap_or(0);
    for (index, (name, value)) in inputs.iter().enumerate() {
        let head = if index == 0 { "inputs" } else { "" };
        out.push_str(&format!("  {}  {} = {}\n", pad(head, 8), pad(name, names), inert(&value.to_string())));
    }
    for phase in Phase::ALL {
        let mut steps: Vec<&Foreseen> = foresight.steps.iter().filter(|step| step.phase == phase).collect();
        steps.sort_by_key(|step| step.wave);
        if steps.is_empty() {
            continue;
        }
        out.push_str(&format!("\n{}\n", OUT.paint(Style::Bold, phase.as_str())));
        for step in steps {
            people_step(&mut out, step);
        }
    }
    let acting = foresight.steps.iter().filter(|step| step.acts).count();
    let once = foresight.steps.iter().filter(|step| step.acts && !step.idempotent).count();
    out.push_str(&format!(
        "\n{} steps, {acting} with side effects, {once} of these not idempotent; nothing was done\n",
        foresight.steps.len()
    ));
    out
}

fn people_step(out: &mut String, step: &Foreseen) {
    let name = step.step.as_str().rsplit('.').next().unwrap_or_default();
    let skipped = step.condition.as_ref().is_some_and(|one| one.value == Some(Ok(false)));
    let (mark, style) = if skipped { ("-", Style::Dim) } else { ("▸", Style::Cyan) };
    let mut line = format!("  {} {}  {}", OUT.paint(style, mark), OUT.paint(Style::Bold, name), step.uses);
    if !step.needs.is_empty() {
        line.push_str(&OUT.paint(Style::Dim, &format!(", after {}", step.needs.join(", "))));
    }
    if step.acts {
        let words = if step.idempotent { "side effects" } else { "side effects, not idempotent" };
        line.push_str(&format!("  {}", OUT.paint(Style::Yellow, words)));
    }
    out.push_str(&line);
    out.push('\n');
    let mut detail = |name: &str, text: &str| {
        let room = OUT.columns.unwrap_or(160).saturating_sub(18);
        out.push_str(&format!("      {}  {}\n", OUT.paint(Style::Dim, &pad(name, 8)), cut(&inert(text), room)));
    };
    if let Some(condition) = &step.condition {
        detail("if", &condition_text(condition));
    }
    if let Some(items) = &step.items {
        let value = match &items.value {
            None => "known once it runs".to_owned(),
            Some(Err(error)) => format!("fails: {error}"),
            Some(Ok(list)) => format!("{}, at most {} at once", plural(list.len(), "item"), items.max_parallel),
        };
        detail("each of", &format!("{}: {value}", items.written));
    }
    if !step.approvals.is_empty() {
        detail("needs", &format!("people's yes to {}", step.approvals.join(", ")));
    }
    for (index, target) in step.targets.iter().take(TARGETS).enumerate() {
        detail(if index == 0 { "targets" } else { "" }, &target.value.to_string());
        target.errors.iter().for_each(|error| detail("", &format!("would fail: {error}")));
    }
    if step.targets.len() > TARGETS {
        detail("", &format!("… and {} more; -o json has them all", step.targets.len() - TARGETS));
    }
    // Where all its targets are told, what it would be for some item says no more.
    let with = Some(("with", &step.with)).filter(|_| step.targets.is_empty());
    for (head, preview) in with.into_iter().chain([("env", &step.env)]) {
        let empty = Map::new();
        for (index, (key, value)) in preview.value.as_object().unwrap_or(&empty).iter().enumerate() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            detail(if index == 0 { head } else { "" }, &format!("{key}: {value}"));
        }
        if !preview.open.is_empty() {
            detail("", &format!("known once it runs: {}", preview.open.join(", ")));
        }
        for error in &preview.errors {
            detail("", &format!("would fail: {error}"));
        }
    }
    if let Some(until) = &step.until {
        detail("until", &looks(until));
    }
    if step.uses != "log" {
        detail("takes", &takes(step));
    }
    if let Some((call, until)) = &step.verify {
        detail("verify", &format!("{}, {}", other(call), looks(until)));
    }
    if let Some((call, after)) = &step.undo {
        let after = after.map(|after| format!("; by itself after {}", shown_duration(after))).unwrap_or_default();
        detail("undo", &format!("{}{after}", other(call)));
    }
    if let Some(budget) = &step.budget {
        detail("budget", &format!("{budget}: over it, people are asked"));
    }
    let unknown = match step.on_unknown {
        OnUnknown::Verify => Some("its verification tells"),
        OnUnknown::Ask => Some("a person is asked"),
        OnUnknown::Fail => Some("it fails"),
        OnUnknown::Retry => None,
    };
    if let Some(unknown) = unknown.filter(|_| step.acts) {
        detail("unknown", unknown);
    }
    if step.continue_on_error {
        detail("failure", "is tolerated");
    }
}

/// Another action of a step, with its environment where it has one.
fn other(call: &ForeseenCall) -> String {
    let env = match call.env.value.as_object().is_some_and(|env| !env.is_empty()) {
        true => format!(" env {}", call.env.value),
        false => String::new(),
    };
    format!("{} {}{env}", call.uses, call.with.value)
}

fn condition_text(condition: &Foretold) -> String {
    let values: Vec<String> = condition.values.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    let seen = if values.is_empty() { String::new() } else { format!(" ({})", values.join(", ")) };
    let verdict = match &condition.value {
        Some(Ok(true)) => "true".to_owned(),
        Some(Ok(false)) => "false, so it is skipped".to_owned(),
        Some(Err(error)) => format!("fails: {error}"),
        None => "known once it runs".to_owned(),
    };
    format!("{}: {verdict}{seen}", condition.written)
}

fn looks(until: &Looks) -> String {
    format!("{}, every {}, within {}", until.written, shown_duration(until.every), shown_duration(until.within))
}

fn takes(step: &Foreseen) -> String {
    let at_most = |length: Duration| format!("at most {}", shown_duration(length));
    if step.attempts == 0 {
        return match step.at_most {
            Some(length) => at_most(length),
            None => "as long as it takes".to_owned(),
        };
    }
    let limit = step.timeout.map(|limit| format!(" of {}", at_most(limit))).unwrap_or_default();
    if step.attempts == 1 {
        return format!("1 attempt{limit}");
    }
    let between = |(least, most): &(Duration, Duration)| match least == most {
        true => shown_duration(*most),
        false => format!("{} to {}", shown_duration(*least), shown_duration(*most)),
    };
    let mut delays: Vec<String> = step.delays.iter().take(4).map(between).collect();
    if step.delays.len() > 4 {
        delays.push("…".to_owned());
    }
    let all = step.at_most.map(|length| format!("; {} in all", at_most(length))).unwrap_or_default();
    format!("up to {} attempts{limit}, after {}{all}", step.attempts, delays.join(", "))
}

fn result(plan: &stanch_playbook::Plan, foresight: &Foresight) -> Value {
    let seconds = |length: Duration| length.as_secs_f64();
    let preview = |preview: &Preview| json!({"value": preview.value, "open": preview.open, "errors": preview.errors});
    let looks = |until: &Looks| json!({"if": until.written, "every_seconds": seconds(until.every), "within_seconds": seconds(until.within)});
    let step = |step: &Foreseen| {
        json!({
            "step": step.step,
            "phase": step.phase,
            "wave": step.wave,
            "needs": step.needs,
            "if": step.condition.as_ref().map(|condition| json!({
                "written": condition.written,
                "value": condition.value.as_ref().and_then(|value| value.as_ref().ok()),
                "error": condition.value.as_ref().and_then(|value| value.as_ref().err()),
                "values": condition.values,
            })),
            "uses": step.uses,
            "items": step.items.as_ref().map(|items| json!({
                "written": items.written,
                "max_parallel": items.max_parallel,
                "value": items.value.as_ref().and_then(|value| value.as_ref().ok()),
                "error": items.value.as_ref().and_then(|value| value.as_ref().err()),
            })),
            "approvals": step.approvals,
            "budget": step.budget,
            "with": preview(&step.with),
            "targets": step.targets.iter().map(preview).collect::<Vec<_>>(),
            "until": step.until.as_ref().map(looks),
            "verify": step.verify.as_ref().map(|(of, until)| json!({"uses": of.uses, "with": preview(&of.with), "env": preview(&of.env), "until": looks(until)})),
            "undo": step.undo.as_ref().map(|(of, after)| json!({"uses": of.uses, "with": preview(&of.with), "env": preview(&of.env), "after_seconds": after.map(seconds)})),
            "env": preview(&step.env),
            "side_effects": step.acts,
            "idempotent": step.idempotent,
            "on_unknown": step.on_unknown,
            "attempts": step.attempts,
            "delays_seconds": step.delays.iter().map(|(least, most)| [seconds(*least), seconds(*most)]).collect::<Vec<_>>(),
            "timeout_seconds": step.timeout.map(seconds),
            "at_most_seconds": step.at_most.map(seconds),
            "continue_on_error": step.continue_on_error,
        })
    };
    json!({
        "playbook": plan.name,
        "plan": plan.digest,
        "observes": foresight.observes,
        "hold_seconds": seconds(plan.hold),
        "incident": {
            "key": foresight.key,
            "severity": foresight.severity,
            "title": foresight.title,
        },
        "inputs": foresight.inputs,
        "steps": foresight.steps.iter().map(step).collect::<Vec<_>>(),
    })
}
