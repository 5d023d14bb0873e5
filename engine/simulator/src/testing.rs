//! A test of a playbook: the event comes in, time passes, and what is expected is looked at.

mod happen;
mod look;
mod mocks;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use stanch_core::alert::{AlertKey, AlertSnapshot};
use stanch_core::run::Run;
use stanch_core::{Assignment, Body, IncidentId, Record, RunId, Settings};
use stanch_playbook::test_file::{EventSpec, Place, TestCase, Want, item_text, names, playbook_and_step};
use stanch_playbook::time::shown_duration;
use stanch_playbook::{Plan, PlaybookName, StepKey, Timestamp};

pub use self::mocks::{mocked, plausible};
use crate::stage::Stage;
use crate::stimulus::{Read, Stimulus};
use crate::{Restless, Simulation, family};

/// What a test came to.
#[derive(Debug)]
pub struct TestReport {
    /// What was not as expected, in the order in which it was looked at; empty: the test passed.
    pub failures: Vec<Failure>,
    /// The run as it stood at the first failure, else at the end; none where none started.
    pub seen: Option<RunSeen>,
    /// When that was; none at the end.
    pub seen_at: Option<Duration>,
    /// Every record of the simulation.
    pub records: Vec<Record>,
    /// Every attempt that was dispatched, as it was rendered, oldest first.
    pub dispatched: Vec<Assignment>,
    /// How long it took on the virtual clock.
    pub virtual_time: Duration,
}

/// Something that was not as expected.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// Where the expectation stands.
    pub place: Place,
    /// Its keys, such as `expect.steps.probe`.
    pub path: String,
    /// The moment, where it was not the end.
    pub at: Option<Duration>,
    /// What was expected.
    pub expected: String,
    /// What was seen.
    pub seen: String,
}

/// A run as people look at it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSeen {
    /// Its state.
    pub state: &'static str,
    /// Its steps, in order.
    pub steps: Vec<StepSeen>,
}

/// A step as people look at it.
#[derive(Debug, Clone, PartialEq)]
pub struct StepSeen {
    /// `phase.name`.
    pub step: StepKey,
    /// Its state.
    pub state: &'static str,
    /// Why it is not green.
    pub error: Option<Arc<str>>,
    /// How many attempts it had.
    pub attempts: usize,
}

/// Engines that have a playbook loaded with those that it runs and nothing else, so that a thousand tests compile it once.
#[derive(Default)]
pub struct Engines(HashMap<Vec<stanch_playbook::PlanDigest>, Simulation>);

impl Engines {
    fn of(&mut self, family: Vec<Arc<Plan>>) -> Simulation {
        let digests = family.iter().map(|plan| plan.digest).collect();
        // What stanch.yaml would say, were it empty.
        let settings = Settings { escalation: Settings::usual_escalation(), ..Settings::default() };
        let start = || Simulation::starting_at(family, settings, Timestamp::EPOCH);
        self.0.entry(digests).or_insert_with(start).clone()
    }
}

/// Runs one test of a playbook; `plans` are all those that it could run.
pub fn run(
    engines: &mut Engines,
    plan: &Arc<Plan>,
    plans: &[Arc<Plan>],
    test: &TestCase,
    read: &dyn Read,
) -> TestReport {
    let start = test.start.unwrap_or(TestCase::START);
    let first = match Stimulus::of(&test.event, plan, start, 0, read) {
        Ok(first) => first,
        Err(reason) => return unusable(test, reason),
    };
    // What was captured tells its own time; nothing ends before it began.
    let start = match (&test.event, test.start) {
        (EventSpec::File { .. }, None) => first.time().unwrap_or(start),
        _ => start,
    };
    let mut simulation = engines.of(family(plan, plans));
    simulation.now = start;
    let mut tester = Tester {
        stage: Stage::new(simulation, mocked(test)),
        plan,
        read,
        emitted: 0,
        first: None,
        alerts: BTreeMap::new(),
        refusals: Vec::new(),
        may_be_refused: {
            let expectations = test.then.iter().flat_map(|moment| &moment.expect).chain(&test.expect);
            expectations.into_iter().any(|one| matches!(one.want, Want::Refused(_)))
        },
        failures: Vec::new(),
        seen: None,
    };
    for happening in &test.before {
        tester.happen(happening, test.place, Duration::ZERO);
    }
    tester.bring_in(&first, test.event_place, "event");
    for moment in &test.then {
        let at = start.plus(moment.at);
        if tester.play(Some(at), moment.place).is_err() {
            break;
        }
        for happening in &moment.happens {
            tester.happen(happening, moment.place, moment.at);
        }
        if tester.play(Some(at), moment.place).is_err() {
            break;
        }
        tester.expect(&moment.expect, Some(moment.at));
    }
    if tester.play(None, test.place).is_ok() {
        tester.expect(&test.expect, None);
    }
    let (seen, seen_at) = tester.seen.take().unwrap_or_else(|| (tester.look(), None));
    let simulation = tester.stage.simulation;
    TestReport {
        failures: tester.failures,
        seen,
        seen_at,
        virtual_time: simulation.now.since(start),
        records: simulation.records,
        dispatched: simulation.dispatched,
    }
}

fn unusable(test: &TestCase, reason: String) -> TestReport {
    let failure = Failure {
        place: test.event_place,
        path: "event".to_owned(),
        at: None,
        expected: "an event".to_owned(),
        seen: reason,
    };
    TestReport {
        failures: vec![failure],
        seen: None,
        seen_at: None,
        records: Vec::new(),
        dispatched: Vec::new(),
        virtual_time: Duration::ZERO,
    }
}

struct Tester<'a> {
    stage: Stage<'a>,
    plan: &'a Arc<Plan>,
    read: &'a dyn Read,
    emitted: usize,
    /// The first alert that came in.
    first: Option<Arc<AlertSnapshot>>,
    /// Every alert that came in, and whether it fires.
    alerts: BTreeMap<AlertKey, (Arc<AlertSnapshot>, bool)>,
    /// Why people's requests were refused.
    refusals: Vec<String>,
    /// Whether the test expects that.
    may_be_refused: bool,
    failures: Vec<Failure>,
    seen: Option<(Option<RunSeen>, Option<Duration>)>,
}

impl Tester<'_> {
    fn fail(
        &mut self,
        place: Place,
        path: &str,
        at: Option<Duration>,
        expected: impl fmt::Display,
        seen: impl fmt::Display,
    ) {
        if self.seen.is_none() {
            self.seen = Some((self.look(), at));
        }
        let (expected, seen) = (expected.to_string(), seen.to_string());
        self.failures.push(Failure { place, path: path.to_owned(), at, expected, seen });
    }

    fn play(&mut self, at: Option<Timestamp>, place: Place) -> Result<(), Restless> {
        self.stage.play(at).inspect_err(|restless| {
            self.failures.push(Failure {
                place,
                path: "test".to_owned(),
                at: None,
                expected: "to come to rest".to_owned(),
                seen: restless.to_string(),
            });
        })
    }

    /// The playbook's runs, oldest first.
    fn runs(&self) -> Vec<RunId> {
        self.runs_of(&self.plan.name).collect()
    }

    fn runs_of<'b>(&'b self, playbook: &'b PlaybookName) -> impl Iterator<Item = RunId> + 'b {
        self.stage.simulation.records.iter().filter_map(move |record| match &record.body {
            Body::RunStarted(body) if body.playbook == *playbook => Some(body.run),
            _ => None,
        })
    }

    /// The step that a person means, in the last run of its playbook.
    fn step(&self, written: &str) -> Option<(Arc<Run>, Arc<Plan>, StepKey, usize)> {
        let (playbook, step) = playbook_and_step(written);
        let name = playbook.map_or_else(|| self.plan.name.clone(), PlaybookName::new);
        let run = self.runs_of(&name).last().and_then(|id| self.stage.simulation.run(id))?;
        let plan = self.stage.simulation.state.plan(run.plan).cloned();
        let plan = plan.or_else(|| (run.plan == self.plan.digest).then(|| Arc::clone(self.plan)))?;
        let index = plan.steps.iter().position(|of| names(step, of.key.as_str()))?;
        let key = plan.steps[index].key.clone();
        Some((Arc::clone(run), plan, key, index))
    }

    fn run(&self) -> Option<&Arc<Run>> {
        self.runs().last().and_then(|id| self.stage.simulation.run(*id))
    }

    fn look(&self) -> Option<RunSeen> {
        let run = self.run()?;
        let steps = self.plan.steps.iter().zip(&run.steps).map(|(of, step)| StepSeen {
            step: of.key.clone(),
            state: step.state.as_str(),
            error: step.state.error().cloned(),
            attempts: step.attempts.len(),
        });
        Some(RunSeen { state: run.state(), steps: steps.collect() })
    }

    fn incident(&self) -> Option<IncidentId> {
        let opened = || {
            self.stage.simulation.records.iter().rev().find_map(|record| match &record.body {
                Body::IncidentOpened(body) => Some(body.incident),
                _ => None,
            })
        };
        self.run().map(|run| run.incident).or_else(opened)
    }
}

/// The item of a step that a person means by its text.
fn item_of(run: &Run, step: usize, text: &str) -> Option<u32> {
    let is = |of: &Arc<stanch_core::run::StepRun>| of.value.as_deref().is_some_and(|value| item_text(value) == text);
    run.steps[step].items.iter().position(is).and_then(|at| u32::try_from(at).ok())
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path)?;
        if let Some(at) = self.at {
            write!(f, " at {}", shown_duration(at))?;
        }
        write!(f, ": expected {}, saw {}", self.expected, self.seen)
    }
}
