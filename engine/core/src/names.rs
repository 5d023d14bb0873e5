//! What templates and conditions can name, built from the state when one asks for it.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use stanch_playbook::Plan;
use stanch_playbook::evaluate::{INPUTS_OF_ACTION, Names};
use stanch_playbook::plan::{Call, Uses};

use crate::alert::AlertSnapshot;
use crate::event::Event;
use crate::record::Cause;
use crate::run::{Place, Run};
use crate::state::State;

pub(crate) fn alert_value(alert: &AlertSnapshot) -> Value {
    json!({
        "labels": alert.labels,
        "annotations": alert.annotations,
        "starts_at": alert.starts_at,
        "fingerprint": alert.key.fingerprint,
        "source": alert.key.source,
        "generator_url": alert.generator_url,
    })
}

fn event_value(event: &Event, cause: &Cause) -> Value {
    let data = match cause.alerts.first() {
        Some(alert) if event.data.is_null() => alert_value(alert),
        _ => event.data.clone(),
    };
    json!({
        "id": event.id,
        "source": event.source,
        "type": event.kind,
        "time": event.time,
        "subject": event.subject,
        "data": data,
    })
}

/// What a trigger's `if`, `key` and `inputs` can name.
pub struct TriggerNames<'a> {
    /// The event and the alerts that it is asked about.
    pub cause: &'a Cause,
}

impl Names for TriggerNames<'_> {
    fn get(&self, root: &str) -> Option<Cow<'_, Value>> {
        match root {
            "event" => Some(Cow::Owned(event_value(&self.cause.event, self.cause))),
            "alert" => self.cause.alerts.first().map(|alert| Cow::Owned(alert_value(alert))),
            "alerts" => Some(Cow::Owned(self.cause.alerts.iter().map(|alert| alert_value(alert)).collect())),
            _ => None,
        }
    }
}

/// What a step's keys can name.
#[derive(Clone, Copy)]
pub(crate) struct StepNames<'a> {
    pub state: &'a State,
    pub run: &'a Run,
    pub plan: &'a Plan,
    /// The step whose keys they are, and the item.
    pub place: Place,
    pub result: Option<&'a Value>,
    /// Why an attempt failed, for `retry.if`.
    pub error: Option<&'a str>,
    /// The step's own `outputs`, for its undo, which is rendered before they are recorded.
    pub own: Option<&'a Value>,
    /// The event that a wait looks at, in place of the run's own.
    pub cause: Option<&'a Cause>,
    /// An approval that is taken for given: what would be done then.
    pub given: Option<usize>,
}

impl<'a> StepNames<'a> {
    pub fn new(state: &'a State, run: &'a Run, plan: &'a Plan, place: Place) -> Self {
        Self { state, run, plan, place, result: None, error: None, own: None, cause: None, given: None }
    }

    pub fn with_result(self, result: &'a Value) -> Self {
        Self { result: Some(result), ..self }
    }

    /// The steps that this one's keys name: with thousands of items, all of them would be too many each time.
    fn steps(&self) -> Value {
        let mut steps = Map::new();
        for index in &self.plan.steps[self.place.step].names {
            if *index == self.place.step {
                let own = self.own.cloned().unwrap_or_else(|| json!({}));
                let of = json!({"state": "succeeded", "outputs": own, "error": null});
                steps.insert(self.plan.steps[*index].name.clone(), of);
                continue;
            }
            let run = &self.run.steps[*index];
            let state = if self.given == Some(*index) { "succeeded" } else { run.state.as_str() };
            let mut of = json!({"state": state, "outputs": &*run.outputs, "error": run.state.error()});
            if self.plan.steps[*index].foreach.is_some() {
                let items = run.items.iter().map(|item| {
                    json!({
                        "item": item.value,
                        "state": item.state.as_str(),
                        "outputs": &*item.outputs,
                        "error": item.state.error(),
                    })
                });
                of["items"] = items.collect();
            }
            steps.insert(self.plan.steps[*index].name.clone(), of);
        }
        Value::Object(steps)
    }

    /// What the action of the catalogue is given: rendered again from the same names, as its verification and its undo are.
    fn inputs_of_action(&self) -> Option<Value> {
        let Uses::Action(Call { alias: Some((_, inputs)), .. }) = &self.plan.steps[self.place.step].uses else {
            return None;
        };
        inputs.render(self).ok()
    }

    fn incident(&self) -> Value {
        let base = &self.state.settings.external_url;
        let url = format!("{base}/api/v1/incidents/{}", self.run.incident);
        let Some(incident) = self.state.incidents.get(&self.run.incident) else {
            return json!({"id": self.run.incident, "url": url});
        };
        let alerts: Vec<Value> = incident
            .alerts
            .iter()
            .map(|(key, fires)| json!({"source": key.source, "fingerprint": key.fingerprint, "firing": fires}))
            .collect();
        json!({
            "id": incident.id,
            "key": incident.key,
            "severity": incident.severity,
            "owner": self.plan.owner,
            "title": incident.title,
            "alerts": alerts,
            "url": url,
        })
    }
}

impl Names for StepNames<'_> {
    fn get(&self, root: &str) -> Option<Cow<'_, Value>> {
        let outcome = || match &self.run.cancel {
            Some(_) => "cancelled",
            None if self.run.failed_step(self.plan).is_some() => "failed",
            None => "succeeded",
        };
        match root {
            "inputs" => Some(Cow::Borrowed(&self.run.inputs)),
            INPUTS_OF_ACTION => self.inputs_of_action().map(Cow::Owned),
            "result" => self.result.map(Cow::Borrowed),
            "error" => self.error.map(|error| Cow::Owned(error.into())),
            "steps" => Some(Cow::Owned(self.steps())),
            "incident" => Some(Cow::Owned(self.incident())),
            "run" => Some(Cow::Owned(json!({
                "id": self.run.id,
                "playbook": self.run.playbook,
                "url": format!("{}/api/v1/runs/{}", self.state.settings.external_url, self.run.id),
                "outcome": outcome(),
            }))),
            "item" => self.run.at(self.place).and_then(|item| item.value.as_deref()).map(Cow::Borrowed),
            _ => {
                let cause = self.cause.unwrap_or(&self.run.cause);
                TriggerNames { cause }.get(root).map(|value| Cow::Owned(value.into_owned()))
            }
        }
    }
}

/// What the templates of a catalogue's action can name: its own inputs, and all that a step can.
struct AliasNames<'a> {
    inputs: &'a Value,
    step: StepNames<'a>,
}

impl Names for AliasNames<'_> {
    fn get(&self, root: &str) -> Option<Cow<'_, Value>> {
        match root {
            "inputs" => Some(Cow::Borrowed(self.inputs)),
            root => self.step.get(root),
        }
    }
}

/// An action's parameters and its environment, rendered.
///
/// # Errors
/// Why a template has no value, with its place.
pub(crate) fn render(call: &Call, names: StepNames<'_>) -> Result<(Arc<Value>, Arc<Value>), String> {
    let both = |names: &dyn Names| {
        let with = call.with.render(names).map_err(|error| format!("with: {error}"))?;
        let env = call.env.render(names).map_err(|error| format!("env: {error}"))?;
        Ok((Arc::new(with), Arc::new(env)))
    };
    match &call.alias {
        None => both(&names),
        Some((name, inputs)) => {
            let inputs = inputs.render(&names).map_err(|error| format!("with: {error}"))?;
            both(&AliasNames { inputs: &inputs, step: names }).map_err(|error| format!("{name}: {error}"))
        }
    }
}
