//! What templates and conditions can name, built from the state when one asks for it.

use std::borrow::Cow;

use serde_json::{Map, Value, json};
use stanch_playbook::Plan;
use stanch_playbook::evaluate::Names;

use crate::alert::AlertSnapshot;
use crate::event::Event;
use crate::record::Cause;
use crate::run::Run;
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
pub(crate) struct StepNames<'a> {
    pub state: &'a State,
    pub run: &'a Run,
    pub plan: &'a Plan,
    pub result: Option<&'a Value>,
}

impl StepNames<'_> {
    fn steps(&self) -> Value {
        let mut steps = Map::new();
        for (step, run) in self.plan.steps.iter().zip(&self.run.steps) {
            steps.insert(
                step.name.clone(),
                json!({"state": run.state.as_str(), "outputs": &*run.outputs, "error": run.state.error()}),
            );
        }
        Value::Object(steps)
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
            None if crate::decide::has_failed(self.run, self.plan) => "failed",
            None => "succeeded",
        };
        match root {
            "inputs" => Some(Cow::Borrowed(&self.run.inputs)),
            "result" => self.result.map(Cow::Borrowed),
            "steps" => Some(Cow::Owned(self.steps())),
            "incident" => Some(Cow::Owned(self.incident())),
            "run" => Some(Cow::Owned(json!({
                "id": self.run.id,
                "playbook": self.run.playbook,
                "url": format!("{}/api/v1/runs/{}", self.state.settings.external_url, self.run.id),
                "outcome": outcome(),
            }))),
            _ => TriggerNames { cause: &self.run.cause }.get(root).map(|value| Cow::Owned(value.into_owned())),
        }
    }
}
