//! The fold of the journal: what is live, and what must be remembered to judge what comes in.
//!
//! Everything that can be derived from the rest is an index (`open`, `timers`, `expiry`, `queued`, `running`): not part of
//! a snapshot, rebuilt when one is read.

use std::sync::Arc;
use std::time::Duration;

use imbl::{OrdMap, OrdSet, Vector};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use stanch_playbook::{Plan, PlanDigest, PlaybookName, StepKey, Timestamp, Uses};

use crate::alert::AlertKey;
use crate::attempt::{Assignment, AttemptId, Purpose};
use crate::clock::Jump;
use crate::containment::{Containment, UndoState};
use crate::id::{ApprovalId, ContainmentId, Epoch, IncidentId, JournalId, MaintenanceId, RunId, Sequence};
use crate::incident::{Alert, Incident};
use crate::record::{Actor, MaintenancePlanned, Settings, Waiting};
use crate::run::{Place, Question, Run, StepState};

/// How long the identity of an event is remembered.
pub const EVENT_MEMORY: Duration = Duration::from_secs(24 * 3600);

/// The version of a snapshot's form; another one is thrown away and the journal folded.
pub const SNAPSHOT_VERSION: u32 = 3;

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
    /// What is in force, also of runs that are over.
    pub inforce: OrdMap<ContainmentId, Arc<Containment>>,
    /// Who stopped all side effects, why and when.
    pub frozen: Option<(Actor, Arc<str>, Timestamp)>,
    /// The jump of the wall clock that the engine's has not followed.
    pub clock_jump: Option<Jump>,
    /// The maintenance windows that are not over.
    pub maintenance: OrdMap<MaintenanceId, Arc<Window>>,
    /// When targets were counted against each budget, oldest first, within its time.
    pub spent: OrdMap<String, Vector<Timestamp>>,
    /// The nominal instants whose runs have not succeeded yet, and when the watchdog barks.
    pub watched: OrdMap<(PlaybookName, String), (Timestamp, Timestamp)>,
    /// Identities of events, and when each may be forgotten.
    pub seen: OrdMap<u128, Timestamp>,
    /// The last nominal instant of each schedule, by playbook and trigger.
    pub ticks: OrdMap<(PlaybookName, usize), Timestamp>,
    /// The containment of a step or an item; of several, the last.
    pub(crate) contained: OrdMap<(RunId, StepKey, Option<u32>), ContainmentId>,
    /// The containments of the runs that a step started, and of those that these did.
    pub(crate) inherited: OrdSet<(RunId, StepKey, ContainmentId)>,
    /// The questions that wait for an answer.
    pub(crate) questions: OrdMap<ApprovalId, (RunId, Place)>,
    /// The steps that wait for an event.
    pub(crate) awaiting: OrdSet<(RunId, Place)>,
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

/// A time in which runs for some alerts are held back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// What was planned.
    pub planned: MaintenancePlanned,
    /// Who planned it.
    pub by: Actor,
}

/// What a timer belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Step(RunId, Place),
    Incident(IncidentId),
    Containment(ContainmentId),
    Run(RunId),
    Maintenance(MaintenanceId),
    Watchdog(PlaybookName, String),
    Clock,
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

    /// What a worker needs for the attempt that the step or item is at.
    #[must_use]
    pub fn assignment(&self, run: &Run, place: Place) -> Option<Assignment> {
        let step = run.at(place)?;
        let attempt = step.state.attempt()?;
        let (action, with, env, timeout) = match &step.state {
            StepState::Verifying { verification, .. } => {
                let call = &verification.call;
                (call.action.clone(), &call.with, &call.env, call.timeout)
            }
            _ => {
                let rendered = step.rendered.as_ref()?;
                let Uses::Action(call) = &self.plan(run.plan)?.steps[place.step].uses else { return None };
                (call.action.clone(), &rendered.with, &rendered.env, rendered.timeout)
            }
        };
        Some(Assignment {
            attempt: attempt.clone(),
            playbook: run.playbook.clone(),
            action,
            with: with.clone(),
            env: env.clone(),
            idempotency_key: attempt.idempotency_key(),
            timeout,
        })
    }

    /// Whether this attempt is what a step, an item or an undo is at.
    #[must_use]
    pub fn is_under_way(&self, attempt: &AttemptId) -> bool {
        if attempt.purpose == Purpose::Undo {
            let containment = self.containment_at(attempt.run, &attempt.step, attempt.item);
            return containment
                .is_some_and(|of| matches!(&of.state, UndoState::Undoing { attempt: at } if at == attempt));
        }
        let Some(run) = self.runs.get(&attempt.run) else { return false };
        let place = self.place_of(run, attempt);
        place.and_then(|place| run.at(place)).is_some_and(|step| step.state.attempt() == Some(attempt))
    }

    /// The place of an attempt in its run.
    #[must_use]
    pub fn place_of(&self, run: &Run, attempt: &AttemptId) -> Option<Place> {
        let step = self.plan(run.plan)?.step_index(&attempt.step)?;
        Some(Place { step, item: attempt.item })
    }

    /// What a step, or an item of it, put in force.
    #[must_use]
    pub fn containment_at(&self, run: RunId, step: &StepKey, item: Option<u32>) -> Option<&Arc<Containment>> {
        self.contained.get(&(run, step.clone(), item)).and_then(|id| self.inforce.get(id))
    }

    /// What a step put in force itself or through the runs that it started, in no particular order.
    pub fn inforce_of<'a>(&'a self, run: RunId, step: &'a StepKey) -> impl Iterator<Item = &'a Arc<Containment>> {
        let own = self.contained.range((run, step.clone(), None)..);
        let own = own.take_while(move |((owner, key, _), _)| *owner == run && key == step).map(|(_, id)| id);
        let inherited = self.inherited.range((run, step.clone(), ContainmentId(uuid::Uuid::nil()))..);
        let inherited = inherited.take_while(move |(owner, key, _)| *owner == run && key == step).map(|(_, _, id)| id);
        own.chain(inherited).filter_map(|id| self.inforce.get(id))
    }

    /// The question of an id that waits for an answer, with its run and its step.
    #[must_use]
    pub fn question(&self, id: ApprovalId) -> Option<(&Arc<Run>, Place, &Arc<Question>)> {
        let (run, place) = self.questions.get(&id)?;
        let run = self.runs.get(run)?;
        Some((run, *place, run.at(*place)?.question.as_ref()?))
    }

    /// All questions that wait for an answer, oldest first.
    pub fn questions(&self) -> impl Iterator<Item = (&Arc<Run>, Place, &Arc<Question>)> {
        self.questions.keys().filter_map(|id| self.question(*id))
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
            if let Some(at) = run.timer() {
                self.timers.insert((at, Timer::Run(run.id)));
            }
            for (place, step) in run.started() {
                if let Some(at) = step.timer() {
                    self.timers.insert((at, Timer::Step(run.id, place)));
                }
                match step.state {
                    StepState::Waiting { wait: Waiting::Event { .. } } => {
                        self.awaiting.insert((run.id, place));
                    }
                    StepState::Waiting { wait: Waiting::Approval { approval, .. } } => {
                        self.questions.insert(approval, (run.id, place));
                    }
                    _ => {}
                }
            }
        }
        for containment in self.inforce.values() {
            self.contained.insert((containment.run, containment.step.clone(), containment.item), containment.id);
            self.inherited.extend(containment.inheritors());
            if let Some(at) = containment.timer() {
                self.timers.insert((at, Timer::Containment(containment.id)));
            }
        }
        if let Some(jump) = &self.clock_jump {
            self.timers.insert((jump.until(), Timer::Clock));
        }
        for (id, window) in &self.maintenance {
            self.timers.insert((window.planned.to, Timer::Maintenance(*id)));
        }
        for ((playbook, name), (_, at)) in &self.watched {
            self.timers.insert((*at, Timer::Watchdog(playbook.clone(), name.clone())));
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
    for key in incident.keys() {
        let holder = keys.get(key).and_then(|id| incidents.get(id));
        if holder.is_none_or(|holder| incident.is_open() || (!holder.is_open() && holder.id < incident.id)) {
            keys.insert(key.clone(), incident.id);
        }
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
    inforce: Vec<Arc<Containment>>,
    frozen: Option<(Actor, Arc<str>, Timestamp)>,
    clock_jump: Option<Jump>,
    maintenance: Vec<Arc<Window>>,
    spent: Vec<(String, Vec<Timestamp>)>,
    watched: Vec<((PlaybookName, String), (Timestamp, Timestamp))>,
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
            inforce: self.inforce.values().cloned().collect(),
            frozen: self.frozen.clone(),
            clock_jump: self.clock_jump,
            maintenance: self.maintenance.values().cloned().collect(),
            spent: self.spent.iter().map(|(name, at)| (name.clone(), at.iter().copied().collect())).collect(),
            watched: self.watched.iter().map(|(key, at)| (key.clone(), *at)).collect(),
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
            inforce: image.inforce.into_iter().map(|containment| (containment.id, containment)).collect(),
            frozen: image.frozen,
            clock_jump: image.clock_jump,
            maintenance: image.maintenance.into_iter().map(|window| (window.planned.maintenance, window)).collect(),
            spent: image.spent.into_iter().map(|(name, at)| (name, Vector::from(at))).collect(),
            watched: image.watched.into_iter().collect(),
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
