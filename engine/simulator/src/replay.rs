//! Recorded runs again, with edited playbooks: what was known of the world stands, and what would change is told.
//!
//! The attempts of a step come out as they did, and take as long; people's answers and the ends of alerts come when they
//! came. What was never tried is assumed to go well, and said to be an assumption.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use stanch_core::alert::{AlertChange, AlertKey, AlertStatus};
use stanch_core::attempt::Purpose;
use stanch_core::command::{Person, Target};
use stanch_core::event::Event;
use stanch_core::record::{Actor, Answer, Cause, ContainmentStarted, RenderedCall, Then, Verdict};
use stanch_core::run::{Question, Run, StepState};
use stanch_core::{Assignment, AttemptId, Body, Command, IllegalTransition, Outcome, Record, RunId, Settings, State};
use stanch_playbook::plan::Step;
use stanch_playbook::time::shown_duration;
use stanch_playbook::{Plan, PlaybookName, StepKey, Timestamp, Uses};

use crate::shown::{difference, with_marks};
use crate::stage::{Reply, Stage};
use crate::stimulus::Stimulus;
use crate::testing::plausible;
use crate::{Restless, Simulation, family};

/// A run that is over, as it was recorded.
#[derive(Debug)]
pub struct Recorded {
    /// The run with the states of its steps.
    pub run: Arc<Run>,
    /// The plan it had.
    pub plan: Arc<Plan>,
    settings: Settings,
    attempts: HashMap<Tried, Vec<Attempted>>,
    order: Vec<StepKey>,
    contained: BTreeMap<(StepKey, Option<u32>), Contained>,
    happened: Vec<(Timestamp, Happened)>,
}

/// What takes back what a step, or an item of it, put in force.
#[derive(Debug, Clone)]
struct Contained {
    call: RenderedCall,
    /// After what time it is taken back by itself.
    after: Option<Duration>,
}

/// What is tried: one thing of a step, of the run's own playbook or of one that it ran.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Tried {
    playbook: PlaybookName,
    step: StepKey,
    item: Option<u32>,
    purpose: Purpose,
}

/// One attempt with what it was given and how it came out.
#[derive(Debug, Clone)]
struct Attempted {
    with: Arc<Value>,
    env: Arc<Value>,
    at: Timestamp,
    came: Option<(Outcome, Timestamp)>,
}

/// What came from outside while the run was live.
#[derive(Debug, Clone)]
enum Happened {
    Asked(Word),
    Cancelled(Actor, String, bool),
    Event(Arc<Event>),
    Fired(AlertChange),
    Resolved(AlertKey, Option<Timestamp>),
}

/// What a person said when the run asked.
#[derive(Debug, Clone)]
enum Word {
    /// What became of an unknown step, or of an item of it.
    Became(PlaybookName, StepKey, Option<u32>, Answer, Actor),
    /// Whether something may be done.
    May(PlaybookName, StepKey, Verdict, Actor),
}

/// The runs of a journal that are over, oldest first, from its first record on.
///
/// # Errors
/// Where the records do not begin with the first one, or do not fold.
pub fn recorded(records: impl IntoIterator<Item = Record>) -> Result<Vec<Recorded>, IllegalTransition> {
    let mut state = State::default();
    let mut live: BTreeMap<RunId, Recorded> = BTreeMap::new();
    let mut over = Vec::new();
    // The run, with its playbook, that each live one is part of; that may be itself.
    let mut part_of: Parts = BTreeMap::new();
    for record in records {
        let finished = state.apply(&record)?.finished;
        observe(&state, &record, &mut live, &mut part_of);
        if let Some(run) = finished
            && let Some(recorded) = live.remove(&run.id)
        {
            over.push(Recorded { run, ..recorded });
        }
    }
    Ok(over)
}

/// For each run the one that it is part of in the end, and its own playbook.
type Parts = BTreeMap<RunId, (RunId, PlaybookName)>;

fn observe(state: &State, record: &Record, live: &mut BTreeMap<RunId, Recorded>, part_of: &mut Parts) {
    let at = record.time;
    if let Body::RunStarted(body) = &record.body {
        let root =
            body.parent.as_ref().map_or(body.run, |parent| part_of.get(&parent.run).map_or(parent.run, |of| of.0));
        part_of.insert(body.run, (root, body.playbook.clone()));
        let (Some(run), Some(plan), None) = (state.runs.get(&body.run), state.plan(body.plan), &body.parent) else {
            return;
        };
        let recorded = Recorded {
            run: Arc::clone(run),
            plan: Arc::clone(plan),
            settings: state.settings.clone(),
            attempts: HashMap::new(),
            order: Vec::new(),
            contained: BTreeMap::new(),
            happened: Vec::new(),
        };
        live.insert(body.run, recorded);
        return;
    }
    let part = |run: RunId| part_of.get(&run).cloned();
    let finish = |live: &mut BTreeMap<RunId, Recorded>, attempt: &AttemptId, outcome: Outcome| {
        let Some((root, playbook)) = part(attempt.run) else { return };
        let attempts = live.get_mut(&root).and_then(|of| of.attempts.get_mut(&Tried::of(playbook, attempt)));
        if let Some(last) = attempts.and_then(|attempts| attempts.last_mut()) {
            last.came = Some((outcome, at));
        }
    };
    match &record.body {
        Body::AttemptScheduled(body) => {
            let Some((root, playbook)) = part(body.attempt.run) else { return };
            let Some(of) = live.get_mut(&root) else { return };
            if root == body.attempt.run {
                of.begin(&body.attempt.step);
            }
            let attempt = Attempted { with: Arc::clone(&body.with), env: Arc::clone(&body.env), at, came: None };
            of.attempts.entry(Tried::of(playbook, &body.attempt)).or_default().push(attempt);
        }
        Body::AttemptSucceeded(body) => {
            finish(live, &body.attempt, Outcome::Succeeded { output: (*body.output).clone() })
        }
        Body::AttemptFailed(body) => {
            let most = live
                .get(&body.attempt.run)
                .filter(|_| body.attempt.purpose == Purpose::Do)
                .and_then(|of| Some(of.plan.steps[of.plan.step_index(&body.attempt.step)?].policy.retry.max_attempts));
            // It was tried again, or could not be any more; else the action had said that it would not help.
            let again = matches!(body.then, Then::Retry { .. } | Then::Redo { .. });
            let retryable = again || most.is_none_or(|most| body.attempt.number >= most);
            let outcome = Outcome::Failed {
                error: body.error.to_string(),
                output: body.output.as_deref().cloned(),
                retry_after: None,
                retryable,
            };
            finish(live, &body.attempt, outcome);
        }
        Body::AttemptUnknown(body) => finish(live, &body.attempt, Outcome::Unknown { reason: body.reason.to_string() }),
        Body::StepWaiting(body) => {
            if let Some(of) = live.get_mut(&body.run) {
                of.begin(&body.step);
            }
        }
        Body::ApprovalRequested(body) => {
            if let Some(of) = live.get_mut(&body.run) {
                of.begin(&body.step);
            }
        }
        Body::ContainmentStarted(body) => {
            if let Some(of) = live.get_mut(&body.run) {
                of.contained.insert((body.step.clone(), body.item), Contained::new(body, at));
            }
        }
        Body::StepAnswered(body) => {
            let Some((root, playbook)) = part(body.run) else { return };
            if let Some(of) = live.get_mut(&root) {
                let word = Word::Became(playbook, body.step.clone(), body.item, body.answer, record.actor.clone());
                of.happened.push((at, Happened::Asked(word)));
            }
        }
        Body::ApprovalDecided(body) => {
            let Some((root, playbook)) = part(body.run) else { return };
            if let Some(of) = live.get_mut(&root) {
                let word = Word::May(playbook, body.step.clone(), body.verdict, record.actor.clone());
                of.happened.push((at, Happened::Asked(word)));
            }
        }
        Body::RunCancelRequested(body) => {
            if let Some(of) = live.get_mut(&body.run) {
                of.happened.push((at, Happened::Cancelled(record.actor.clone(), body.reason.clone(), body.undo)));
            }
        }
        Body::EventReceived(body) => {
            // What the run awaits, as far as one can tell; a tick or a person's request starts another run.
            if body.event.tick().is_none() && &*body.event.source != "api" {
                live.values_mut().for_each(|of| of.happened.push((at, Happened::Event(Arc::clone(&body.event)))));
            }
        }
        Body::AlertFired(body) => {
            let change = AlertChange { alert: Arc::clone(&body.alert), status: AlertStatus::Firing };
            for of in live.values_mut().filter(|of| of.has_alert(state, &body.alert.key)) {
                of.happened.push((at, Happened::Fired(change.clone())));
            }
        }
        Body::AlertResolved(body) => {
            for of in live.values_mut().filter(|of| of.has_alert(state, &body.alert)) {
                of.happened.push((at, Happened::Resolved(body.alert.clone(), body.ends_at)));
            }
        }
        // What the engine itself made of these is made again.
        Body::EngineStarted(_)
        | Body::EngineStopped(_)
        | Body::PlaybookLoaded(_)
        | Body::PlaybookRemoved(_)
        | Body::DeadLettered(_)
        | Body::DeadLetterReplayed(_)
        | Body::IncidentOpened(_)
        | Body::IncidentJoined(_)
        | Body::IncidentSettling(_)
        | Body::IncidentReopened(_)
        | Body::IncidentAcknowledged(_)
        | Body::IncidentResolved(_)
        | Body::RunReleased(_)
        | Body::RunFinished(_)
        | Body::AttemptLate(_)
        | Body::StepWoken(_)
        | Body::StepEnded(_)
        | Body::RunStarted(_)
        | Body::ItemsStarted(_)
        | Body::ItemsEnded(_)
        | Body::ContainmentEnded(_)
        | Body::RunExtended(_)
        | Body::RunHoldEnded(_)
        | Body::RunRecovering(_)
        | Body::IncidentSettled(_)
        | Body::IncidentEscalated(_)
        | Body::IncidentUpdateDue(_)
        | Body::ApprovalEscalated(_)
        | Body::PlaybookObserved(_)
        | Body::WatchdogBarked(_)
        | Body::ClockJumped(_)
        | Body::ClockAgreed(_)
        | Body::Redacted(_) => {}
        // What people did beside the run changes nothing of what its playbook says.
        Body::ContainmentExtended(_)
        | Body::UndoRequested(_)
        | Body::IncidentTaken(_)
        | Body::IncidentNoted(_)
        | Body::IncidentMerged(_)
        | Body::Frozen(_)
        | Body::Unfrozen(_)
        | Body::MaintenancePlanned(_)
        | Body::MaintenanceEnded(_) => {}
    }
}

impl Contained {
    fn new(body: &ContainmentStarted, at: Timestamp) -> Self {
        Self { call: body.undo.clone(), after: body.until.map(|until| until.since(at)) }
    }
}

impl Tried {
    fn of(playbook: PlaybookName, attempt: &AttemptId) -> Self {
        Self { playbook, step: attempt.step.clone(), item: attempt.item, purpose: attempt.purpose }
    }
}

impl Recorded {
    fn begin(&mut self, step: &StepKey) {
        if !self.order.contains(step) {
            self.order.push(step.clone());
        }
    }

    /// A value of the recorded run with the ids of another one, and secrets as they are written.
    fn under_ids_of(&self, value: &Value, other: &Run) -> Value {
        let text = with_marks(value).to_string();
        let text = text.replace(&self.run.id.to_string(), &other.id.to_string());
        let text = text.replace(&self.run.incident.to_string(), &other.incident.to_string());
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Whether an alert belongs to the run's incident.
    fn has_alert(&self, state: &State, key: &AlertKey) -> bool {
        let incident = state.incidents.get(&self.run.incident);
        incident.is_some_and(|incident| incident.alerts.iter().any(|(alert, _)| alert == key))
    }

    fn stimulus(&self) -> Stimulus {
        let Cause { event, alerts } = &self.run.cause;
        if !alerts.is_empty() {
            let firing = |alert: &Arc<_>| AlertChange { alert: Arc::clone(alert), status: AlertStatus::Firing };
            return Stimulus::Alerts(alerts.iter().map(firing).collect());
        }
        let target = match (event.tick(), event.data.as_object()) {
            (Some((playbook, trigger, _)), _) => Target::Trigger { playbook, trigger },
            (None, Some(inputs)) if &*event.source == "api" => {
                Target::Playbook { playbook: self.run.playbook.clone(), inputs: inputs.clone() }
            }
            _ => Target::Subject(event.subject.as_deref().unwrap_or_default().to_owned()),
        };
        Stimulus::Event(Arc::clone(event), target)
    }
}

/// Something that would be otherwise.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// There is no such playbook any more.
    Gone(PlaybookName),
    /// No run would start.
    NotStarted(String),
    /// The run would not come to rest.
    Restless,
    /// Something was one thing and would be another.
    Differs {
        /// What: `run`, `order`, `inputs.x`, a step, or a part of a step's request.
        what: String,
        /// As it was recorded.
        was: String,
        /// As it would be.
        would_be: String,
        /// Whether that rests on an attempt of which there is no recording.
        assumed: bool,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone(playbook) => write!(f, "the playbook {playbook} is not there any more"),
            Self::NotStarted(why) => write!(f, "no run would start: {why}"),
            Self::Restless => write!(f, "the run would not come to rest"),
            Self::Differs { what, was, would_be, assumed } => {
                write!(f, "{what}: was {was}, would be {would_be}")?;
                if *assumed { write!(f, " (never tried; assumed to go well)") } else { Ok(()) }
            }
        }
    }
}

/// What would be otherwise, were the recorded run to happen with these playbooks.
#[must_use]
pub fn replay(recorded: &Recorded, plans: &[Arc<Plan>]) -> Vec<Change> {
    let Some(plan) = plans.iter().find(|plan| plan.name == recorded.run.playbook) else {
        return vec![Change::Gone(recorded.run.playbook.clone())];
    };
    let start = recorded.run.started_at;
    let simulation = Simulation::starting_at(family(plan, plans), recorded.settings.clone(), start);
    let mut stage = Stage::new(simulation, outcomes(recorded));
    let refused = match stage.simulation.command(recorded.stimulus().command()) {
        Ok(_) => None,
        Err(rejected) => Some(rejected.to_string()),
    };
    let Some(run) = started(&stage.simulation, plan) else {
        let letter = stage.simulation.records.iter().find_map(|record| match &record.body {
            Body::DeadLettered(body) => Some(body.letter.reason.clone()),
            _ => None,
        });
        return vec![Change::NotStarted(refused.or(letter).unwrap_or_else(|| "no trigger takes the event".to_owned()))];
    };
    match play(&mut stage, recorded, run) {
        Ok(()) => changes(recorded, plan, &stage.simulation, run),
        Err(Restless) => vec![Change::Restless],
    }
}

fn started(simulation: &Simulation, plan: &Plan) -> Option<RunId> {
    simulation.records.iter().find_map(|record| match &record.body {
        Body::RunStarted(body) if body.playbook == plan.name => Some(body.run),
        _ => None,
    })
}

/// Attempts come out as they were recorded; the last outcome repeats.
fn outcomes(recorded: &Recorded) -> impl FnMut(&Assignment, &State) -> Reply + '_ {
    let mut made: HashMap<Tried, usize> = HashMap::new();
    move |assignment, _| {
        let tried = Tried::of(assignment.playbook.clone(), &assignment.attempt);
        let attempts = recorded.attempts_of(&tried);
        let number = made.entry(tried).or_default();
        let known = attempts.get((*number).min(attempts.len().saturating_sub(1)));
        *number += 1;
        match known.and_then(|one| one.came.as_ref().map(|(outcome, came)| (outcome, came.since(one.at)))) {
            Some((outcome, takes)) => Reply { outcome: outcome.clone(), takes: takes.min(assignment.timeout) },
            None => Reply { outcome: Outcome::Succeeded { output: plausible(assignment) }, takes: Duration::ZERO },
        }
    }
}

impl Recorded {
    /// The attempts at something, also where its step has moved to another phase since.
    fn attempts_of(&self, tried: &Tried) -> &[Attempted] {
        let alike = |other: &&Tried| {
            name(&other.step) == name(&tried.step)
                && (&other.playbook, other.item, other.purpose) == (&tried.playbook, tried.item, tried.purpose)
        };
        let moved = || self.attempts.keys().find(alike).and_then(|other| self.attempts.get(other));
        self.attempts.get(tried).or_else(moved).map_or(&[], Vec::as_slice)
    }
}

fn name(step: &StepKey) -> &str {
    step.as_str().split_once('.').map_or(step.as_str(), |(_, name)| name)
}

/// Lets happen what happened, when it did; a word waits until somebody is asked for it.
fn play(stage: &mut Stage<'_>, recorded: &Recorded, run: RunId) -> Result<(), Restless> {
    let mut words: Vec<Word> = Vec::new();
    let mut rest = recorded.happened.iter();
    loop {
        let next = rest.next();
        stage.play(next.map(|(at, _)| *at))?;
        while say(&mut stage.simulation, &mut words) {
            stage.play(next.map(|(at, _)| *at))?;
        }
        let Some((_, happened)) = next else { return Ok(()) };
        let command = match happened {
            Happened::Asked(word) => {
                words.push(word.clone());
                say(&mut stage.simulation, &mut words);
                continue;
            }
            Happened::Cancelled(actor, reason, undo) => {
                Command::CancelRun { actor: actor.clone(), run, reason: reason.clone(), undo: *undo }
            }
            Happened::Event(event) => {
                let target = Target::Subject(event.subject.as_deref().unwrap_or_default().to_owned());
                Command::ReceiveEvent { actor: Actor::engine(), event: Arc::clone(event), target }
            }
            Happened::Fired(change) => Command::ReceiveAlerts { actor: Actor::engine(), changes: vec![change.clone()] },
            Happened::Resolved(key, ends_at) => {
                let joined = recorded.happened.iter().filter_map(|(_, happened)| match happened {
                    Happened::Fired(change) => Some(&change.alert),
                    Happened::Asked(_) | Happened::Cancelled(..) | Happened::Event(_) | Happened::Resolved(..) => None,
                });
                let mut alerts = recorded.run.cause.alerts.iter().chain(joined);
                let Some(alert) = alerts.find(|alert| alert.key == *key) else { continue };
                let status = AlertStatus::Resolved { ends_at: *ends_at };
                let change = AlertChange { alert: Arc::clone(alert), status };
                Command::ReceiveAlerts { actor: Actor::engine(), changes: vec![change] }
            }
        };
        // A run that ended earlier than it did has no use for what came later.
        stage.simulation.command(command).ok();
    }
}

/// Says the first word that somebody is asked for; says whether there was one.
fn say(simulation: &mut Simulation, words: &mut Vec<Word>) -> bool {
    for index in 0..words.len() {
        let taken = match words[index].clone() {
            Word::Became(playbook, step, item, answer, actor) => {
                let Some((run, step)) = place_of(simulation, &playbook, &step) else { continue };
                simulation.command(Command::AnswerStep { actor, run, step, item, answer, note: String::new() })
            }
            Word::May(playbook, step, verdict, actor) => {
                let Some((run, step)) = place_of(simulation, &playbook, &step) else { continue };
                let asked = simulation.state.questions().map(|(_, _, question)| question.asked.clone());
                let asked = asked.into_iter().find(|asked| (asked.run, &asked.step) == (run, &step));
                let Some(asked) = asked else { continue };
                // The record tells who decided and not why they could; that they could stands.
                let groups = asked.from.iter().filter_map(|name| name.strip_prefix("group:")).map(str::to_owned);
                let name = actor.as_str().strip_prefix("person:").unwrap_or(actor.as_str()).to_owned();
                let person = Person { name, groups: groups.collect(), via: "replay".to_owned() };
                simulation.command(Command::DecideApproval {
                    actor,
                    person,
                    approval: asked.approval,
                    verdict,
                    digest: asked.digest.to_string(),
                    reason: String::new(),
                })
            }
        };
        if taken.is_ok() {
            words.remove(index);
            return true;
        }
    }
    false
}

/// The last run of a playbook, and the step as its plan has it now, which may stand in another phase.
fn place_of(simulation: &Simulation, playbook: &PlaybookName, step: &StepKey) -> Option<(RunId, StepKey)> {
    let run = simulation.state.runs.values().rfind(|run| run.playbook == *playbook)?;
    let plan = simulation.state.plan(run.plan)?;
    let key = plan.steps.iter().map(|of| &of.key).find(|key| name(key) == name(step))?;
    Some((run.id, key.clone()))
}

fn changes(recorded: &Recorded, plan: &Plan, simulation: &Simulation, id: RunId) -> Vec<Change> {
    let mut changes = Vec::new();
    let Some(run) = simulation.run(id) else { return changes };
    let mut differs = |what: String, was: String, would_be: String, assumed: bool| {
        if was != would_be {
            changes.push(Change::Differs { what, was, would_be, assumed });
        }
    };
    differs("run".to_owned(), recorded.run.state().to_owned(), run.state().to_owned(), false);
    compare("inputs", &recorded.run.inputs, &run.inputs, &mut differs);
    let old_step = |name: &str| recorded.plan.steps.iter().position(|step| step.name == name);
    for (of, step) in plan.steps.iter().zip(&run.steps) {
        let of_step = |one: &&Assignment| one.attempt.run == id && one.attempt.step == of.key;
        let made: Vec<&Assignment> = simulation.dispatched.iter().filter(of_step).collect();
        let known = |one: &Assignment| recorded.attempts_of(&Tried::of(plan.name.clone(), &one.attempt));
        let assumed = made.iter().any(|one| known(one).is_empty());
        let Some(old) = old_step(&of.name) else {
            differs(of.key.to_string(), "not there".to_owned(), said(&step.state), assumed);
            continue;
        };
        let before = &recorded.plan.steps[old];
        differs(format!("phase of {}", of.name), before.phase.to_string(), of.phase.to_string(), false);
        let was = &recorded.run.steps[old];
        let unlike = was.state.as_str() != step.state.as_str();
        if unlike {
            differs(of.key.to_string(), said(&was.state), said(&step.state), assumed);
        }
        let attempts = |count: usize| if count == 1 { "1 attempt".to_owned() } else { format!("{count} attempts") };
        if !was.attempts.is_empty() && !step.attempts.is_empty() {
            let (was, now) = (was.attempts.len(), step.attempts.len());
            differs(format!("attempts of {}", of.name), attempts(was), attempts(now), now > was);
        }
        let same_ids = |value: &Value| recorded.under_ids_of(value, run);
        if let (Some(was), Some(now)) = (&was.question, &step.question) {
            compare(&of.key.to_string(), &same_ids(&asked(was, before)), &asked(now, of), &mut differs);
        }
        // Of one thing that was tried again and again, the last request.
        let mut told: Vec<(Option<u32>, Purpose)> = Vec::new();
        for one in made.into_iter().rev() {
            let thing = (one.attempt.item, one.attempt.purpose);
            // That is told of what is in force, which may not have been taken back at all.
            if thing.1 == Purpose::Undo {
                continue;
            }
            let Some(old) = known(one).last().filter(|_| !told.contains(&thing)) else { continue };
            told.push(thing);
            let item = thing.0.map(|item| format!("[{item}]")).unwrap_or_default();
            let purpose = if thing.1 == Purpose::Do { String::new() } else { format!(" {}", thing.1.as_str()) };
            for (part, old, new) in [("with", &old.with, &one.with), ("env", &old.env, &one.env)] {
                let what = format!("{}{item}{purpose} {part}", of.key);
                compare(&what, &same_ids(old), &with_marks(new), &mut differs);
            }
        }
    }
    for old in &recorded.plan.steps {
        if !plan.steps.iter().any(|step| step.name == old.name) {
            let was =
                recorded.plan.step_index(&old.key).map_or("not there", |at| recorded.run.steps[at].state.as_str());
            differs(old.key.to_string(), was.to_owned(), "not there".to_owned(), false);
        }
    }
    let same_ids = |value: &Value| recorded.under_ids_of(value, run);
    contained(recorded, simulation, id, &same_ids, &mut differs);
    order(recorded, simulation, id, &mut differs);
    changes
}

/// What a step's question asks of whom.
fn asked(question: &Question, step: &Step) -> Value {
    let asked = &question.asked;
    let allow_self = match &step.uses {
        // By the plan: who started the run again is nobody who could be excluded.
        Uses::Approval(approval) => Some(approval.allow_self),
        Uses::Action(_) | Uses::Wait(_) | Uses::Playbook { .. } | Uses::Undo { .. } => None,
    };
    json!({
        "prompt": asked.prompt,
        "from": asked.from,
        "quorum": asked.quorum,
        "allow_self": allow_self,
        "timeout": asked.expires_at.map(|at| shown_duration(at.since(question.asked_at))),
    })
}

/// How what was put in force both then and now is taken back.
fn contained(
    recorded: &Recorded,
    simulation: &Simulation,
    id: RunId,
    same_ids: &dyn Fn(&Value) -> Value,
    differs: &mut dyn FnMut(String, String, String, bool),
) {
    let told = |of: &Contained| {
        let call = &of.call;
        json!({"uses": call.action, "with": with_marks(&call.with), "env": with_marks(&call.env), "after": of.after.map(shown_duration)})
    };
    for record in &simulation.records {
        let Body::ContainmentStarted(body) = &record.body else { continue };
        let old =
            recorded.contained.iter().find(|((step, item), _)| name(step) == name(&body.step) && *item == body.item);
        let Some((_, old)) = old.filter(|_| body.run == id) else { continue };
        let item = body.item.map(|item| format!("[{item}]")).unwrap_or_default();
        let what = format!("{}{item} undo", body.step);
        compare(&what, &same_ids(&told(old)), &told(&Contained::new(body, record.time)), differs);
    }
}

/// The order in which those steps begin that began both then and now.
fn order(
    recorded: &Recorded,
    simulation: &Simulation,
    id: RunId,
    differs: &mut dyn FnMut(String, String, String, bool),
) {
    let mut now: Vec<&str> = Vec::new();
    for record in &simulation.records {
        let step = match &record.body {
            Body::AttemptScheduled(body) if body.attempt.run == id => name(&body.attempt.step),
            Body::StepWaiting(body) if body.run == id => name(&body.step),
            Body::ApprovalRequested(body) if body.run == id => name(&body.step),
            _ => continue,
        };
        if !now.contains(&step) {
            now.push(step);
        }
    }
    let then: Vec<&str> = recorded.order.iter().map(name).filter(|step| now.contains(step)).collect();
    now.retain(|step| then.contains(step));
    differs("order".to_owned(), then.join(", "), now.join(", "), false);
}

fn said(state: &StepState) -> String {
    let why = state.error().map(|error| format!(" ({error})")).unwrap_or_default();
    format!("{}{why}", state.as_str())
}

/// Every first difference, both ways: what is no longer there counts too.
fn compare(what: &str, was: &Value, now: &Value, differs: &mut dyn FnMut(String, String, String, bool)) {
    let there = |value: Option<Value>| value.map_or_else(|| "not there".to_owned(), |value| value.to_string());
    if let Some(found) = difference(was, now) {
        differs(format!("{what}{}", found.place), found.wanted.to_string(), there(found.seen), false);
    } else if let Some(found) = difference(now, was) {
        differs(format!("{what}{}", found.place), there(found.seen), found.wanted.to_string(), false);
    }
}
