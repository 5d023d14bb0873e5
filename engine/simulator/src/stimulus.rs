//! What comes in, as a command.

use std::sync::Arc;

use serde_json::Value;
use stanch_core::Command;
use stanch_core::alert::AlertChange;
use stanch_core::command::Target;
use stanch_core::event::Event;
use stanch_core::record::Actor;
use stanch_playbook::test_file::{AlertSpec, EventSpec};
use stanch_playbook::{Plan, Timestamp, TriggerOn};

/// Something that comes in.
#[derive(Debug, Clone)]
pub enum Stimulus {
    /// One delivery of alerts.
    Alerts(Vec<AlertChange>),
    /// An event, and whom it is for.
    Event(Arc<Event>, Target),
}

/// How bodies are read, which the simulator leaves to others.
pub trait Read {
    /// The alerts that such a spec means, all firing, of which `now` is the moment of delivery.
    ///
    /// # Errors
    /// Why there are none.
    fn alerts(&self, alerts: &[AlertSpec], now: Timestamp) -> Result<Vec<AlertChange>, String>;

    /// What a file holds, by its path relative to the test's file.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn file(&self, path: &str, subject: Option<&str>, now: Timestamp) -> Result<Stimulus, String>;
}

impl Stimulus {
    /// What a spec means for a playbook at a moment; `id` tells events of one test apart.
    ///
    /// # Errors
    /// Why it means nothing.
    pub fn of(spec: &EventSpec, plan: &Plan, now: Timestamp, id: usize, read: &dyn Read) -> Result<Self, String> {
        let event = |source: &str, kind: &str, subject: Option<&str>, data: Value| {
            Arc::new(Event {
                id: format!("test-{id}").into(),
                source: source.into(),
                kind: kind.into(),
                time: now,
                subject: subject.map(Into::into),
                data,
            })
        };
        Ok(match spec {
            EventSpec::Alerts(alerts) => Self::Alerts(read.alerts(alerts, now)?),
            EventSpec::File { path, subject } => read.file(path, subject.as_deref(), now)?,
            EventSpec::Nats { subject, data } => {
                let event = event("nats", "stanch.message", Some(subject), data.clone());
                Self::Event(event, Target::Subject(subject.clone()))
            }
            EventSpec::Schedule(number) => {
                let ticks = |on: &TriggerOn| matches!(on, TriggerOn::Schedule(_));
                let mut schedules = plan.triggers.iter().enumerate().filter(|(_, trigger)| ticks(&trigger.on));
                let Some((trigger, _)) = schedules.nth(usize::try_from(*number).unwrap_or(usize::MAX)) else {
                    let count = plan.triggers.iter().filter(|trigger| ticks(&trigger.on)).count();
                    return Err(format!("{} has {count} schedules; the first one is 0", plan.name));
                };
                let target = Target::Trigger { playbook: plan.name.clone(), trigger };
                Self::Event(Arc::new(Event::of_tick(&plan.name, trigger, now)), target)
            }
            EventSpec::Inputs(inputs) => {
                let event =
                    event("api", "stanch.run.requested", Some(plan.name.as_str()), Value::Object(inputs.clone()));
                Self::Event(event, Target::Playbook { playbook: plan.name.clone(), inputs: inputs.clone() })
            }
        })
    }

    /// The command that brings it in.
    #[must_use]
    pub fn command(&self) -> Command {
        match self {
            Self::Alerts(changes) => Command::ReceiveAlerts { actor: Actor::source("test"), changes: changes.clone() },
            Self::Event(event, target) => {
                Command::ReceiveEvent { actor: Actor::source("test"), event: Arc::clone(event), target: target.clone() }
            }
        }
    }

    /// When it happened, by its sender: the latest beginning among its alerts, or the event's time.
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        match self {
            Self::Alerts(changes) => changes.iter().map(|change| change.alert.starts_at).max(),
            Self::Event(event, _) => Some(event.time),
        }
    }
}
