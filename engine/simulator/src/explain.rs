//! Why a trigger takes what comes in or does not, with the values that it saw.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use stanch_core::alert::{AlertChange, AlertStatus};
use stanch_core::command::Target;
use stanch_core::event::Event;
use stanch_core::record::Cause;
use stanch_core::{TriggerNames, cause_of_alerts};
use stanch_playbook::evaluate::{Names, Reference};
use stanch_playbook::{Expression, Plan, Trigger, TriggerOn, subject_matches};

/// What one trigger makes of what came in.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Its place among the playbook's triggers, from 1.
    pub trigger: usize,
    /// What it listens to: `alertmanager`, `nats`, `schedule` or `manual`.
    pub kind: &'static str,
    /// What came of it.
    pub verdict: Verdict,
    /// What was looked at, in order, up to the first that decided.
    pub checks: Vec<Check>,
}

/// What came of a trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It takes it, and the playbook would start or join.
    Takes,
    /// It does not listen to that.
    Leaves,
    /// It takes it, and its condition, key or inputs cannot be evaluated: it becomes a dead letter.
    Fails,
    /// An earlier trigger of the playbook has it already.
    Late,
}

/// Something that a trigger looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// `matcher`, `subject`, `if`, `key` or `inputs.<name>`.
    pub what: String,
    /// As it is written in the playbook.
    pub written: String,
    /// Whether it is as the trigger needs it.
    pub holds: bool,
    /// What it came to, or why it came to nothing.
    pub came_to: String,
    /// The values that it looked at, by name; null where there is none.
    pub values: BTreeMap<String, Value>,
}

/// What each trigger of a playbook makes of one alert.
#[must_use]
pub fn alert(plan: &Plan, change: &AlertChange) -> Vec<Explanation> {
    let cause = cause_of_alerts(std::slice::from_ref(&change.alert));
    let listens = |trigger: &Trigger| match &trigger.on {
        TriggerOn::Alertmanager(matchers) => {
            let mut checks: Vec<Check> = Vec::new();
            if let AlertStatus::Resolved { .. } = change.status {
                checks.push(Check::of("status", "firing", false, "a resolved alert, which starts nothing"));
                return checks;
            }
            checks.extend(matchers.iter().map(|matcher| {
                let label = change.alert.labels.get(matcher.name());
                let seen = label.map_or_else(|| "the alert has no such label".to_owned(), |label| format!("{label:?}"));
                let name = format!("alert.labels.{}", matcher.name());
                Check {
                    values: BTreeMap::from([(name, label.map_or(Value::Null, |label| label.clone().into()))]),
                    ..Check::of("matcher", &matcher.to_string(), matcher.is_match(&change.alert.labels), &seen)
                }
            }));
            checks
        }
        other => vec![Check::of("event", kind(other), false, "an alert of Alertmanager")],
    };
    explain(plan, &cause, &listens)
}

/// What each trigger of a playbook makes of an event.
#[must_use]
pub fn event(plan: &Plan, event: &Arc<Event>, target: &Target) -> Vec<Explanation> {
    let cause = Cause { event: Arc::clone(event), alerts: Arc::new([]) };
    let listens = |trigger: &Trigger| match (&trigger.on, target) {
        (TriggerOn::Nats { subject: filter }, Target::Subject(subject)) => {
            vec![Check::of("subject", filter, subject_matches(filter, subject), subject)]
        }
        (other, Target::Subject(subject)) => {
            vec![Check::of("event", kind(other), false, &format!("a message on {subject}"))]
        }
        (other, Target::Trigger { .. }) => vec![Check::of("event", kind(other), false, "a tick of a schedule")],
        (other, Target::Playbook { .. }) => vec![Check::of("event", kind(other), false, "a person's request")],
    };
    explain(plan, &cause, &listens)
}

fn kind(on: &TriggerOn) -> &'static str {
    match on {
        TriggerOn::Alertmanager(_) => "alertmanager",
        TriggerOn::Nats { .. } => "nats",
        TriggerOn::Schedule(_) => "schedule",
        TriggerOn::Manual => "manual",
    }
}

fn explain(plan: &Plan, cause: &Cause, listens: &dyn Fn(&Trigger) -> Vec<Check>) -> Vec<Explanation> {
    let mut taken = false;
    let mut explanations = Vec::new();
    for (index, trigger) in plan.triggers.iter().enumerate() {
        let mut checks = listens(trigger);
        let verdict = if checks.iter().any(|check| !check.holds) {
            Verdict::Leaves
        } else if taken {
            Verdict::Late
        } else {
            let verdict = evaluate(plan, trigger, cause, &mut checks);
            taken |= verdict != Verdict::Leaves;
            verdict
        };
        explanations.push(Explanation { trigger: index + 1, kind: kind(&trigger.on), verdict, checks });
    }
    explanations
}

/// The condition, the key and the inputs of a trigger that listens to what came in.
fn evaluate(plan: &Plan, trigger: &Trigger, cause: &Cause, checks: &mut Vec<Check>) -> Verdict {
    let names = TriggerNames { cause };
    if let Some(condition) = &trigger.condition {
        let (holds, came_to) = match condition.evaluate_bool(&names) {
            Ok(holds) => (Ok(holds), holds.to_string()),
            Err(error) => (Err(()), error.to_string()),
        };
        checks.push(of_expression("if", condition, holds == Ok(true), came_to, &names));
        match holds {
            Ok(true) => {}
            Ok(false) => return Verdict::Leaves,
            Err(()) => return Verdict::Fails,
        }
    }
    let mut verdict = Verdict::Takes;
    if let Some(key) = &trigger.key {
        let rendered = key.render(&names);
        let (holds, came_to) = (rendered.is_ok(), rendered.unwrap_or_else(|error| error.to_string()));
        let values = values(key.references(), &names);
        checks.push(Check { values, ..Check::of("key", key.source(), holds, &came_to) });
        if !holds {
            verdict = Verdict::Fails;
        }
    }
    let mut inputs = Map::new();
    for (name, expression) in &trigger.inputs {
        let what = format!("inputs.{name}");
        match expression.evaluate(&names) {
            Ok(value) => {
                checks.push(of_expression(&what, expression, true, value.to_string(), &names));
                inputs.insert(name.clone(), value);
            }
            Err(error) => {
                checks.push(of_expression(&what, expression, false, error.to_string(), &names));
                verdict = Verdict::Fails;
            }
        }
    }
    if verdict == Verdict::Takes
        && let Err(error) = plan.check_inputs(inputs)
    {
        let what = format!("inputs.{}", error.input);
        checks.push(Check::of(&what, "", false, &error.message));
        verdict = Verdict::Fails;
    }
    verdict
}

fn of_expression(what: &str, expression: &Expression, holds: bool, came_to: String, names: &dyn Names) -> Check {
    Check {
        what: what.to_owned(),
        written: expression.source().to_owned(),
        holds,
        came_to,
        values: values(expression.references(), names),
    }
}

/// What the names that are referred to stand for.
pub(crate) fn values(references: &[Reference], names: &dyn Names) -> BTreeMap<String, Value> {
    references
        .iter()
        .map(|reference| {
            let root = names.get(&reference.root);
            let mut value = root.as_deref();
            for part in &reference.rest {
                value = value.and_then(|value| value.get(part));
            }
            (reference.path(), value.cloned().unwrap_or_default())
        })
        .collect()
}

impl Check {
    fn of(what: &str, written: &str, holds: bool, came_to: &str) -> Self {
        let (what, written, came_to) = (what.to_owned(), written.to_owned(), came_to.to_owned());
        Self { what, written, holds, came_to, values: BTreeMap::new() }
    }
}
