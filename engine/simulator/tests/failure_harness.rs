//! For every shipped playbook: fail each step, repeat each result, restart after appends.
//!
//! What comes in and how attempts come out is what its own tests say: the first of them whose run succeeds by agreement alone,
//! or where there is none the one that reaches most. A person who agrees to everything, and alerts that resolve once somebody
//! waits for it, do the rest.

#![expect(clippy::unwrap_used, reason = "what helpers of tests cannot do fails the test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use stanch_core::alert::{AlertChange, AlertStatus};
use stanch_core::attempt::Purpose;
use stanch_core::command::Person;
use stanch_core::record::{Actor, Answer, Verdict};
use stanch_core::run::{Run, StepRun, StepState};
use stanch_core::{Assignment, Body, Command, Outcome, Settings, State};
use stanch_playbook::plan::OnUnknown;
use stanch_playbook::test_file::{AlertSpec, EventSpec, Happening, TestCase};
use stanch_playbook::{Catalogue, Phase, Plan, Timestamp, Uses};
use stanch_simulator::stage::Reply;
use stanch_simulator::stimulus::{Read, Stimulus};
use stanch_simulator::{Simulation, check_history, family, testing};

/// After how many of its appends a playbook is cut, spread over all of them; with `STANCH_LONG` after each.
const MOST_CUTS: usize = 4;

/// A shipped playbook with the test that it goes through here.
struct Shipped {
    file: PathBuf,
    plan: Arc<Plan>,
    /// An engine that has loaded it and those that it runs.
    engine: Simulation,
    test: TestCase,
}

/// What tests name, without any file.
struct Plain;

impl Read for Plain {
    fn alerts(&self, alerts: &[AlertSpec], now: Timestamp) -> Result<Vec<AlertChange>, String> {
        let one = |spec: &AlertSpec| {
            let labels: Vec<(&str, &str)> =
                spec.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let mut alert = stanch_simulator::alert(&labels, now.minus(spec.since));
            alert.annotations.extend(spec.annotations.clone());
            AlertChange { alert: Arc::new(alert), status: AlertStatus::Firing }
        };
        Ok(alerts.iter().map(one).collect())
    }

    fn file(&self, path: &str, _: Option<&str>, _: Timestamp) -> Result<Stimulus, String> {
        Err(format!("{path} is not read here"))
    }
}

/// Every file of the library whose name ends so.
fn files(ending: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut pending = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../../playbooks")];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found.sort();
    found
}

static SHIPPED: LazyLock<Vec<Shipped>> = LazyLock::new(|| {
    let mut catalogue = Catalogue::new();
    for (path, text) in files(".catalogue.yaml") {
        catalogue.load(&path.to_string_lossy(), &text).unwrap_or_else(|bad| panic!("{bad}"));
    }
    let mut plans = Vec::new();
    for (path, text) in files(".yaml") {
        let name = path.to_string_lossy().into_owned();
        if name.ends_with(".test.yaml") || name.ends_with(".catalogue.yaml") {
            continue;
        }
        let loaded = stanch_playbook::load_with(&name, &text, &catalogue).unwrap_or_else(|bad| panic!("{bad}"));
        plans.extend(loaded.into_iter().map(|loaded| (path.clone(), Arc::new(loaded.plan))));
    }
    assert!(!plans.is_empty(), "no shipped playbooks");
    let mut tests: BTreeMap<String, Vec<TestCase>> = BTreeMap::new();
    for (path, text) in files(".test.yaml") {
        let file = stanch_playbook::load_tests(&path.to_string_lossy(), &text).unwrap_or_else(|bad| panic!("{bad}"));
        for test in file.tests {
            tests.entry(test.playbook.clone()).or_default().push(test);
        }
    }
    let all: Vec<Arc<Plan>> = plans.iter().map(|(_, plan)| Arc::clone(plan)).collect();
    let chosen = |(file, plan): (PathBuf, Arc<Plan>)| {
        let engine = Simulation::starting_at(family(&plan, &all), Settings::default(), Timestamp::EPOCH);
        let all = tests.remove(plan.name.as_str()).into_iter().flatten();
        let mut most = None;
        for test in all.filter(usable) {
            let shipped = Shipped { file: file.clone(), plan: Arc::clone(&plan), engine: engine.clone(), test };
            let Some(run) = shipped.to_the_end(&mut |_| None).1 else { continue };
            if run.state() == "succeeded" {
                return shipped;
            }
            let started = run.steps.iter().filter(|step| step.started_at.is_some()).count();
            if most.as_ref().is_none_or(|(best, _)| started > *best) {
                most = Some((started, shipped));
            }
        }
        most.unwrap_or_else(|| panic!("{}: no test starts {}", file.display(), plan.name)).1
    };
    plans.into_iter().map(chosen).collect()
});

/// Whether a test can be gone through by agreement alone.
fn usable(test: &TestCase) -> bool {
    let plain = |happening: &Happening| match happening {
        Happening::Decide(decision) => decision.approves,
        Happening::Resolve(_) | Happening::Emit(..) | Happening::Answer { .. } | Happening::Acknowledge => true,
        _ => false,
    };
    !matches!(test.event, EventSpec::File { .. }) && test.then.iter().flat_map(|moment| &moment.happens).all(plain)
}

/// How an attempt comes out in place of what the test says.
type Instead<'a> = dyn FnMut(&Assignment) -> Option<Outcome> + 'a;

impl Shipped {
    fn begin(&self) -> Simulation {
        let start = self.test.start.unwrap_or(TestCase::START);
        let mut simulation = self.engine.clone();
        simulation.now = start;
        self.trigger(&mut simulation);
        simulation
    }

    /// Sends what starts the playbook, as its sender would, again and again until it is acknowledged.
    fn trigger(&self, simulation: &mut Simulation) {
        let start = self.test.start.unwrap_or(TestCase::START);
        let stimulus = Stimulus::of(&self.test.event, &self.plan, start, 0, &Plain).unwrap();
        simulation.command(stimulus.command()).unwrap();
    }

    /// The simulation at its end, its last run, and after how many records each append ended.
    fn to_the_end(&self, instead: &mut Instead<'_>) -> (Simulation, Option<Arc<Run>>, Vec<usize>) {
        let mut simulation = self.begin();
        let appends = self.finish(&mut simulation, instead);
        let run = self.runs(&simulation).pop();
        (simulation, run, appends)
    }

    fn runs(&self, simulation: &Simulation) -> Vec<Arc<Run>> {
        let started = simulation.records.iter().filter_map(|record| match &record.body {
            Body::RunStarted(body) if body.playbook == self.plan.name => Some(body.run),
            _ => None,
        });
        started.filter_map(|run| simulation.run(run).cloned()).collect()
    }

    /// Goes on to the end as a person who answers every question with yes and every unknown with `succeeded`, with the alerts
    /// resolved once somebody waits for it. An append is there whole or not at all.
    fn finish(&self, simulation: &mut Simulation, instead: &mut Instead<'_>) -> Vec<usize> {
        let mut replies = testing::mocked(&self.test);
        let mut emitted = 0;
        let mut appends = vec![simulation.records.len()];
        for _ in 0..20_000 {
            appends.push(simulation.records.len());
            if let Some(assignment) = simulation.in_flight.pop_front() {
                let outcome =
                    instead(&assignment).unwrap_or_else(|| outcome(&assignment, &simulation.state, &mut replies));
                simulation.command(Command::FinishAttempt { attempt: assignment.attempt, outcome }).ok();
            } else if let Some(command) = answered(simulation).or_else(|| resolved(simulation)) {
                simulation.command(command).unwrap();
            } else if let Some(spec) = self.emits().nth(emitted).filter(|_| waits(&simulation.state)) {
                emitted += 1;
                let stimulus = Stimulus::of(spec, &self.plan, simulation.now, emitted, &Plain).unwrap();
                simulation.command(stimulus.command()).unwrap();
            } else if simulation.is_at_rest() || !simulation.step(&mut |_| unreachable!("nothing is under way")) {
                break;
            }
        }
        assert!(simulation.state.runs.is_empty(), "{}: a run does not end", self.file.display());
        check_history(&simulation.records).unwrap();
        appends
    }

    fn emits(&self) -> impl Iterator<Item = &EventSpec> {
        self.test.then.iter().flat_map(|moment| &moment.happens).filter_map(|happening| match happening {
            Happening::Emit(spec, _) => Some(spec),
            _ => None,
        })
    }
}

fn outcome(assignment: &Assignment, state: &State, replies: &mut dyn FnMut(&Assignment, &State) -> Reply) -> Outcome {
    let Reply { outcome, takes } = replies(assignment, state);
    if takes > assignment.timeout { Outcome::Unknown { reason: "timed out".into() } } else { outcome }
}

fn waits(state: &State) -> bool {
    let waits = |step: &Arc<StepRun>| matches!(step.state, StepState::Waiting { .. });
    state.runs.values().any(|run| run.steps.iter().any(waits))
}

/// What a person says to what is asked.
fn answered(simulation: &Simulation) -> Option<Command> {
    let unknown = simulation.state.runs.values().find_map(|run| {
        let plan = simulation.state.plan(run.plan)?;
        let unknown = |of: &Arc<StepRun>| matches!(of.state, StepState::Unknown { .. });
        run.steps.iter().enumerate().find_map(|(at, step)| {
            let item = step.items.iter().position(unknown);
            (item.is_some() || unknown(step)).then(|| (run.id, plan.steps[at].key.clone(), item))
        })
    });
    if let Some((run, step, item)) = unknown {
        let (actor, answer, note) = (Actor::person("ann"), Answer::Succeeded, String::new());
        let item = item.map(|item| u32::try_from(item).unwrap());
        return Some(Command::AnswerStep { actor, run, step, item, answer, note });
    }
    let (_, _, question) = simulation.state.questions().next()?;
    let asked = &question.asked;
    // Each time another one of those who may: a quorum counts people.
    let named = asked.from.iter().filter(|who| !who.starts_with("group:")).nth(question.answers.len());
    let name = named.cloned().unwrap_or_else(|| format!("tester-{}", question.answers.len()));
    let groups = asked.from.iter().filter_map(|who| who.strip_prefix("group:")).map(str::to_owned).collect();
    Some(Command::DecideApproval {
        actor: Actor::person(&name),
        person: Person { name, groups, via: "test".to_owned() },
        approval: asked.approval,
        verdict: Verdict::Approved,
        digest: asked.digest.to_string(),
        reason: String::new(),
    })
}

/// The end of an alert that still fires, where a run waits, or none is left. Before the clock moves on: a wait has a limit.
fn resolved(simulation: &Simulation) -> Option<Command> {
    let due = simulation.state.runs.is_empty() || waits(&simulation.state);
    let alert = simulation.state.alerts.values().find(|alert| alert.resolved_at.is_none()).filter(|_| due)?;
    let mut snapshot = stanch_simulator::alert(&[], alert.starts_at);
    snapshot.key = alert.key.clone();
    let ends_at = Some(simulation.now.max(alert.starts_at.plus(Duration::from_millis(1))));
    let changes = vec![AlertChange { alert: Arc::new(snapshot), status: AlertStatus::Resolved { ends_at } }];
    Some(Command::ReceiveAlerts { actor: Actor::source("test"), changes })
}

fn refused() -> Outcome {
    Outcome::Failed { error: "refused".into(), output: None, retry_after: None, retryable: true }
}

#[test]
fn a_step_that_fails_ends_the_run_and_finally_still_runs() {
    for shipped in &*SHIPPED {
        for failing in shipped.plan.steps.iter().filter(|step| matches!(step.uses, Uses::Action(_))) {
            let mut tried = 0;
            let (_, run, _) = shipped.to_the_end(&mut |assignment| {
                let of = &assignment.attempt;
                let hit = of.step == failing.key
                    && of.purpose == Purpose::Do
                    && assignment.playbook.as_str() == shipped.plan.name.as_str();
                tried += u32::from(hit);
                hit.then(refused)
            });
            let (run, place) = (run.unwrap(), format!("{}: {}", shipped.file.display(), failing.key));
            if tried == 0 {
                continue;
            }
            let most = failing.policy.retry.max_attempts;
            let many = failing.foreach.is_some() || failing.until.is_some();
            assert!(many || tried <= most, "{place}: {tried} attempts, {most} allowed");
            let failed = run.state() == "failed";
            assert!(failed || failing.continue_on_error, "{place}: the run is {}", run.state());
            for (step, of) in run.steps.iter().zip(&shipped.plan.steps) {
                let starts =
                    of.phase != Phase::Finally || step.started_at.is_some() || step.state == StepState::Skipped;
                assert!(starts, "{place} failed, and {} did not run", of.key);
                let later = of.phase > failing.phase && of.phase != Phase::Finally;
                let on = !later || failing.continue_on_error || step.started_at.is_none();
                assert!(on, "{place} failed, and {} ran all the same", of.key);
            }
        }
    }
}

#[test]
fn a_result_that_comes_twice_changes_nothing_the_second_time() {
    for shipped in &*SHIPPED {
        let mut simulation = shipped.begin();
        let mut replies = testing::mocked(&shipped.test);
        while let Some(assignment) = simulation.in_flight.front().cloned() {
            let result = outcome(&assignment, &simulation.state, &mut replies);
            simulation.finish(&assignment, result).unwrap();
            let before = simulation.state.runs.clone();
            let again = simulation.finish(&assignment, refused());
            for (id, run) in &simulation.state.runs {
                assert_eq!(run.steps, before[id].steps, "{}", shipped.file.display());
            }
            assert!(again.is_err() || simulation.records.last().is_some_and(|last| last.body.kind() == "AttemptLate"));
        }
        shipped.finish(&mut simulation, &mut |_| None);
        assert_eq!(shipped.runs(&simulation).len(), 1, "{}", shipped.file.display());
    }
}

#[test]
fn a_restart_after_an_append_loses_no_run_and_repeats_nothing_dangerous() {
    for (at, shipped) in SHIPPED.iter().enumerate() {
        let (whole, _, mut appends) = shipped.to_the_end(&mut |_| None);
        appends.extend([0, 1, 2]);
        appends.sort_unstable();
        appends.dedup();
        let each = if std::env::var_os("STANCH_LONG").is_some() { 1 } else { appends.len().div_ceil(MOST_CUTS) };
        for cut in appends.into_iter().skip(at % each).step_by(each) {
            let mut simulation = shipped.begin();
            simulation.records = whole.records.clone();
            simulation.finished = whole.finished.clone();
            simulation.dispatched.clear();
            simulation.crash_after(cut);
            // The sender had no answer, or sends again all the same; hours later nobody does.
            if !simulation.state.runs.is_empty() || shipped.runs(&simulation).is_empty() {
                shipped.trigger(&mut simulation);
            }
            shipped.finish(&mut simulation, &mut |_| None);
            let place = format!("{} cut at {cut}", shipped.file.display());
            assert_eq!(shipped.runs(&simulation).len(), 1, "{place}");
            let mut claims: BTreeMap<(String, Option<u32>, u32), u32> = BTreeMap::new();
            for record in &simulation.records {
                if let Body::AttemptScheduled(body) = &record.body
                    && body.attempt.purpose == Purpose::Do
                {
                    let of = &body.attempt;
                    *claims.entry((of.step.to_string(), of.item, of.generation)).or_default() += 1;
                }
            }
            let dangerous = |step: &&stanch_playbook::Step| {
                let policy = &step.policy;
                !policy.idempotent && policy.on_unknown != OnUnknown::Retry && policy.retry.max_attempts == 1
            };
            for step in shipped.plan.steps.iter().filter(dangerous).filter(|step| step.until.is_none()) {
                let of_step = claims.iter().filter(|((key, ..), _)| key == step.key.as_str());
                let most = of_step.map(|(_, count)| *count).max().unwrap_or(0);
                assert!(most <= 1, "{place}: {} was claimed {most} times", step.key);
            }
        }
    }
}
