//! The fold of the journal: what is live, and what must be remembered to judge what comes in.
//!
//! Everything that can be derived from the rest is an index (`open`, `timers`, `expiry`, `queued`, `running`): not part of
//! a snapshot, rebuilt when one is read.

use std::sync::Arc;
use std::time::Duration;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use stanch_playbook::{Plan, PlanDigest, PlaybookName, Timestamp, Uses};

use crate::alert::AlertKey;
use crate::attempt::Assignment;
use crate::id::{Epoch, IncidentId, JournalId, RunId, Sequence};
use crate::incident::{Alert, Incident};
use crate::record::Settings;
use crate::run::{Run, StepState};

/// How long the identity of an event is remembered.
pub const EVENT_MEMORY: Duration = Duration::from_secs(24 * 3600);

/// The version of a snapshot's form; another one is thrown away and the journal folded.
pub const SNAPSHOT_VERSION: u32 = 1;

/// The state. A copy of it is cheap and shares all that did not change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The journal's identity.
    pub journal: JournalId,
    /// The epoch of the engine that has the journal.
    pub epoch: Epoch,
    /// The last record that was folded.
    pub sequence: Sequence,
    /// Its time.
    pub time: Timestamp,
    /// What decisions depend on beside the records.
    pub settings: Settings,
    /// The playbooks that new runs use.
    pub playbooks: OrdMap<PlaybookName, PlanDigest>,
    /// The plans of those, and of live runs.
    pub plans: OrdMap<PlanDigest, PinnedPlan>,
    /// Alerts that fire, and those that lately did.
    pub alerts: OrdMap<AlertKey, Arc<Alert>>,
    /// Incidents that are open, and those that can still be reopened.
    pub incidents: OrdMap<IncidentId, Arc<Incident>>,
    /// Live runs.
    pub runs: OrdMap<RunId, Arc<Run>>,
    /// Identities of events, and when each may be forgotten.
    pub seen: OrdMap<u128, Timestamp>,
    /// The last nominal instant of each schedule, by playbook and trigger.
    pub ticks: OrdMap<(PlaybookName, usize), Timestamp>,
    pub(crate) keys: OrdMap<Arc<str>, IncidentId>,
    pub(crate) timers: OrdSet<(Timestamp, Timer)>,
    pub(crate) expiry: OrdSet<(Timestamp, Expiry)>,
    pub(crate) queued: OrdSet<(PlaybookName, RunId)>,
    pub(crate) running: OrdMap<PlaybookName, u32>,
}

/// A plan as the state holds it; equal where the digests are.
#[derive(Clone, Debug)]
pub struct PinnedPlan(pub Arc<Plan>);

impl PartialEq for PinnedPlan {
    fn eq(&self, other: &Self) -> bool {
        self.0.digest == other.0.digest
    }
}

/// What a timer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Step(RunId, usize),
    Incident(IncidentId),
}

/// What may be forgotten at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Expiry {
    Seen(u128),
    Incident(IncidentId),
    Alert(AlertKey),
}

impl State {
    /// The time of the first timer.
    #[must_use]
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.timers.get_min().map(|(at, _)| *at)
    }

    /// A plan that is loaded or pinned.
    #[must_use]
    pub fn plan(&self, digest: PlanDigest) -> Option<&Arc<Plan>> {
        self.plans.get(&digest).map(|pinned| &pinned.0)
    }

    /// The plan that new runs of a playbook use.
    #[must_use]
    pub fn playbook(&self, name: &str) -> Option<&Arc<Plan>> {
        self.playbooks.get(name).and_then(|digest| self.plan(*digest))
    }

    /// The incident with this key: the open one, or the last that can still be reopened.
    #[must_use]
    pub fn incident_by_key(&self, key: &str) -> Option<&Arc<Incident>> {
        self.keys.get(key).and_then(|id| self.incidents.get(id))
    }

    /// What a worker needs for the attempt that the step at `index` is running.
    #[must_use]
    pub fn assignment(&self, run: &Run, index: usize) -> Option<Assignment> {
        let step = &run.steps[index];
        let StepState::Running { attempt } = &step.state else { return None };
        let rendered = step.rendered.as_ref()?;
        let Uses::Action { name, .. } = &self.plan(run.plan)?.steps[index].uses else { return None };
        Some(Assignment {
            attempt: attempt.clone(),
            playbook: run.playbook.clone(),
            action: name.clone(),
            with: rendered.with.clone(),
            env: rendered.env.clone(),
            idempotency_key: attempt.idempotency_key(),
            timeout: rendered.timeout,
        })
    }

    /// How long a resolved alert is remembered: long enough to tell a late delivery from something new.
    pub(crate) fn alert_memory(&self) -> Duration {
        self.settings.reopen_within.max(Duration::from_secs(900)) * 4
    }

    fn index(&mut self) {
        for incident in self.incidents.values() {
            index_key(&mut self.keys, &self.incidents, incident);
            if let Some(at) = incident.timer() {
                self.timers.insert((at, Timer::Incident(incident.id)));
            }
            if let Some(at) = incident.resolved_at {
                self.expiry.insert((at.plus(self.settings.reopen_within), Expiry::Incident(incident.id)));
            }
        }
        for run in self.runs.values() {
            if run.queued {
                self.queued.insert((run.playbook.clone(), run.id));
            } else {
                *self.running.entry(run.playbook.clone()).or_insert(0) += 1;
            }
            for (index, step) in run.steps.iter().enumerate() {
                if let Some(at) = step.state.timer() {
                    self.timers.insert((at, Timer::Step(run.id, index)));
                }
            }
        }
        for alert in self.alerts.values() {
            if let Some(at) = alert.resolved_at {
                self.expiry.insert((at.plus(self.alert_memory()), Expiry::Alert(alert.key.clone())));
            }
        }
        for (id, at) in &self.seen {
            self.expiry.insert((*at, Expiry::Seen(*id)));
        }
    }
}

/// An open incident has its key for itself; of resolved ones the latest has it.
fn index_key(
    keys: &mut OrdMap<Arc<str>, IncidentId>,
    incidents: &OrdMap<IncidentId, Arc<Incident>>,
    incident: &Incident,
) {
    let holder = keys.get(&incident.key).and_then(|id| incidents.get(id));
    if holder.is_none_or(|holder| incident.is_open() || (!holder.is_open() && holder.id < incident.id)) {
        keys.insert(incident.key.clone(), incident.id);
    }
}

/// The state without what can be derived.
#[derive(Serialize, Deserialize)]
struct Image {
    journal: JournalId,
    epoch: Epoch,
    sequence: Sequence,
    time: Timestamp,
    settings: Settings,
    playbooks: Vec<(PlaybookName, PlanDigest)>,
    plans: Vec<String>,
    alerts: Vec<Arc<Alert>>,
    incidents: Vec<Arc<Incident>>,
    runs: Vec<Arc<Run>>,
    seen: Vec<(String, Timestamp)>,
    ticks: Vec<((PlaybookName, usize), Timestamp)>,
}

impl Serialize for State {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Image {
            journal: self.journal,
            epoch: self.epoch,
            sequence: self.sequence,
            time: self.time,
            settings: self.settings.clone(),
            playbooks: self.playbooks.iter().map(|(name, digest)| (name.clone(), *digest)).collect(),
            plans: self.plans.values().map(|pinned| pinned.0.canonical().to_owned()).collect(),
            alerts: self.alerts.values().cloned().collect(),
            incidents: self.incidents.values().cloned().collect(),
            runs: self.runs.values().cloned().collect(),
            seen: self.seen.iter().map(|(id, at)| (format!("{id:032x}"), *at)).collect(),
            ticks: self.ticks.iter().map(|(key, at)| (key.clone(), *at)).collect(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for State {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let image = Image::deserialize(deserializer)?;
        let mut plans = OrdMap::new();
        for canonical in &image.plans {
            let plan = Plan::from_canonical(canonical).map_err(D::Error::custom)?;
            plans.insert(plan.digest, PinnedPlan(Arc::new(plan)));
        }
        let mut seen = OrdMap::new();
        for (id, at) in image.seen {
            seen.insert(u128::from_str_radix(&id, 16).map_err(D::Error::custom)?, at);
        }
        let mut state = Self {
            journal: image.journal,
            epoch: image.epoch,
            sequence: image.sequence,
            time: image.time,
            settings: image.settings,
            playbooks: image.playbooks.into_iter().collect(),
            plans,
            alerts: image.alerts.into_iter().map(|alert| (alert.key.clone(), alert)).collect(),
            incidents: image.incidents.into_iter().map(|incident| (incident.id, incident)).collect(),
            runs: image.runs.into_iter().map(|run| (run.id, run)).collect(),
            seen,
            ticks: image.ticks.into_iter().collect(),
            ..Self::default()
        };
        if let Some(run) =
            state.runs.values().find(|run| state.plan(run.plan).is_none_or(|plan| plan.steps.len() != run.steps.len()))
        {
            return Err(D::Error::custom(format_args!("run {} has no plan", run.id)));
        }
        state.index();
        Ok(state)
    }
}
