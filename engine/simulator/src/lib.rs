//! An engine on a virtual clock with mocked actions: the core alone, without its shell. In reading order: a [`Simulation`]
//! decides, a [`stage::Stage`] lets its attempts take time, a [`stimulus::Stimulus`] is what comes in. On these stand the tools
//! for authors: [`testing`] and [`coverage`], [`explain`], [`foresee`], [`replay`], which compare values by [`shown`].
//!
//! Whoever drives it says how attempts come out; time moves only where nothing else is left to do. With
//! [`Simulation::checking`] every decision is held against the invariants of the core.
//!
//! Absent: I/O, threads, and the wall clock.

mod check;
pub mod coverage;
pub mod explain;
pub mod foresee;
pub mod replay;
pub mod shown;
pub mod stage;
pub mod stimulus;
pub mod testing;

use std::collections::VecDeque;
use std::sync::Arc;

use stanch_core::alert::{AlertChange, AlertKey, AlertSnapshot, AlertStatus};
use stanch_core::record::Actor;
use stanch_core::run::Run;
use stanch_core::{
    Assignment, Command, Effect, JournalId, Outcome, Receipt, Record, Rejected, RunId, Settings, State, decide, notice,
};
use stanch_playbook::{Plan, Timestamp, Uses};

pub use check::{BrokenInvariant, check_history, fold};

/// How many things one call may do before it is taken to go on for ever.
const MOST: usize = 100_000;

/// An engine without a shell. A copy goes on by itself.
#[derive(Clone)]
pub struct Simulation {
    /// The live state.
    pub state: State,
    /// Every record so far.
    pub records: Vec<Record>,
    /// The virtual clock.
    pub now: Timestamp,
    /// Attempts that were dispatched and are not over, oldest first.
    pub in_flight: VecDeque<Assignment>,
    /// Runs that are over, oldest first.
    pub finished: Vec<Arc<Run>>,
    /// Every attempt that was dispatched, in order.
    pub dispatched: Vec<Assignment>,
    /// What people were told by itself, oldest first.
    pub notices: Vec<String>,
    settings: Settings,
    plans: Vec<Arc<Plan>>,
    checking: bool,
}

/// The simulation did not come to rest.
#[derive(Debug, thiserror::Error)]
#[error("the simulation did not come to rest within {MOST} steps")]
pub struct Restless;

impl Simulation {
    /// An engine that just started with these playbooks.
    #[must_use]
    pub fn new(plans: Vec<Arc<Plan>>, settings: Settings) -> Self {
        Self::starting_at(plans, settings, Timestamp::from_millis(1_790_000_000_000))
    }

    /// The same, at a moment: nothing that comes later can be earlier.
    #[must_use]
    pub fn starting_at(plans: Vec<Arc<Plan>>, settings: Settings, now: Timestamp) -> Self {
        let mut simulation = Self {
            state: State::default(),
            records: Vec::new(),
            now,
            in_flight: VecDeque::new(),
            finished: Vec::new(),
            dispatched: Vec::new(),
            notices: Vec::new(),
            settings,
            plans,
            checking: false,
        };
        simulation.start();
        simulation
    }

    /// The same, holding every decision against the invariants; a broken one panics with the history.
    #[must_use]
    pub fn checking(mut self) -> Self {
        self.checking = true;
        self
    }

    fn start(&mut self) {
        let start = Command::StartEngine {
            journal: JournalId(uuid::Uuid::from_u128(0x5374_616e_6368)),
            version: "simulation".to_owned(),
            settings: self.settings.clone(),
        };
        self.command(start).expect("a start is never refused");
        let load = Command::LoadPlaybooks { plans: self.plans.clone(), keep: Vec::new() };
        self.command(load).expect("loading is never refused");
    }

    /// Carries out a command at the present moment.
    ///
    /// # Errors
    /// What the core refuses.
    pub fn command(&mut self, command: Command) -> Result<Receipt, Rejected> {
        let decision = decide(&self.state, command, self.now)?;
        self.state = decision.state;
        self.notices.extend(decision.records.iter().filter_map(|record| notice(record, &self.state)));
        self.records.extend(decision.records);
        self.finished.extend(decision.finished);
        for effect in decision.effects {
            match effect {
                Effect::DispatchAttempt(assignment) => {
                    self.dispatched.push((*assignment).clone());
                    self.in_flight.push_back(*assignment);
                }
                Effect::CancelAttempt(_) | Effect::ArmTimer(_) => {}
            }
        }
        if self.checking {
            check::check(self).unwrap_or_else(|broken| panic!("{broken}"));
        }
        Ok(decision.receipt)
    }

    /// Ends one attempt.
    ///
    /// # Errors
    /// What the core refuses.
    pub fn finish(&mut self, assignment: &Assignment, outcome: Outcome) -> Result<Receipt, Rejected> {
        self.in_flight.retain(|other| other.attempt != assignment.attempt);
        self.command(Command::FinishAttempt { attempt: assignment.attempt.clone(), outcome })
    }

    /// Ends the oldest attempt under way as `outcome` says, or, where none is, moves the clock to the next timer. Says
    /// whether there was anything to do.
    pub fn step(&mut self, outcome: &mut dyn FnMut(&Assignment) -> Outcome) -> bool {
        if let Some(assignment) = self.in_flight.pop_front() {
            let result = outcome(&assignment);
            // A run that was cancelled to its end may have no place for the result.
            self.command(Command::FinishAttempt { attempt: assignment.attempt, outcome: result }).ok();
            return true;
        }
        match self.state.next_timer() {
            Some(at) => {
                self.now = self.now.max(at);
                self.command(Command::FireTimers).expect("timers are never refused");
                true
            }
            None => false,
        }
    }

    /// Goes on until nothing is under way and no timer is armed.
    ///
    /// # Errors
    /// [`Restless`] where that does not happen.
    pub fn settle(&mut self, outcome: &mut dyn FnMut(&Assignment) -> Outcome) -> Result<(), Restless> {
        for _ in 0..MOST {
            if !self.step(outcome) {
                return Ok(());
            }
        }
        Err(Restless)
    }

    /// The engine dies at once and starts again on its records; what was under way is lost.
    pub fn crash(&mut self) {
        self.in_flight.clear();
        self.state = fold(&self.records).expect("its own records fold");
        self.start();
    }

    /// The engine died after the record at `keep - 1`: what came later was never written.
    pub fn crash_after(&mut self, keep: usize) {
        self.records.truncate(keep);
        self.finished.retain(|run| run.records.iter().all(|at| at.0 <= keep as u64));
        self.crash();
    }

    /// One delivery of one alert from the source `sim`.
    ///
    /// # Errors
    /// What the core refuses.
    pub fn alert(&mut self, labels: &[(&str, &str)], starts_at: Timestamp, status: AlertStatus) -> Receipt {
        let change = AlertChange { alert: Arc::new(alert(labels, starts_at)), status };
        let command = Command::ReceiveAlerts { actor: Actor::source("sim"), changes: vec![change] };
        self.command(command).expect("a delivery is never refused")
    }

    /// Whether nothing comes by itself any more, beside reminders of people and watchdogs.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let run = |run: &Arc<Run>| run.timer().is_some() || run.started().any(|(_, step)| step.state.timer().is_some());
        let settles = |of: &Arc<stanch_core::incident::Incident>| {
            let reacts = of.care.as_deref().is_some_and(|care| care.reacts && !care.settled);
            let free = of.live_runs.is_empty() && of.failed_runs == 0;
            of.is_open() && of.settles_at.is_some() && (free || (reacts && !of.live_runs.is_empty()))
        };
        !self.state.runs.values().any(run)
            && !self.state.inforce.values().any(|of| of.timer().is_some())
            && !self.state.incidents.values().any(settles)
    }

    /// A run, live or over.
    #[must_use]
    pub fn run(&self, id: RunId) -> Option<&Arc<Run>> {
        self.state.runs.get(&id).or_else(|| self.finished.iter().find(|run| run.id == id))
    }
}

/// A playbook with those that it runs, and that these run, as far as they are there: what an engine needs for its runs.
#[must_use]
pub fn family(plan: &Arc<Plan>, plans: &[Arc<Plan>]) -> Vec<Arc<Plan>> {
    let mut family = vec![Arc::clone(plan)];
    let mut next = 0;
    while let Some(of) = family.get(next).cloned() {
        next += 1;
        for step in &of.steps {
            let Uses::Playbook { playbook, .. } = &step.uses else { continue };
            let known = family.iter().any(|one| one.name == *playbook);
            family.extend(plans.iter().find(|one| one.name == *playbook && !known).cloned());
        }
    }
    family
}

/// An alert with these labels; its fingerprint is made of them.
#[must_use]
pub fn alert(labels: &[(&str, &str)], starts_at: Timestamp) -> AlertSnapshot {
    let joined: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    AlertSnapshot {
        key: AlertKey { source: "sim".into(), fingerprint: joined.join(",").into() },
        labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        annotations: [("summary".to_owned(), "a simulated alert".to_owned())].into(),
        starts_at,
        generator_url: String::new(),
    }
}
