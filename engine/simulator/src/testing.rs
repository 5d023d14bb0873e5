//! A test of a playbook: the event comes in, time passes, and what is expected is looked at.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use stanch_core::alert::{AlertChange, AlertKey, AlertSnapshot, AlertStatus};
use stanch_core::attempt::Purpose;
use stanch_core::command::Person;
use stanch_core::record::{Actor, Answer, Verdict};
use stanch_core::run::{Run, StepState};
use stanch_core::{Assignment, AttemptId, Body, Command, IncidentId, Outcome, Record, RunId, Settings, State};
use stanch_playbook::test_file::{
    Decision, EventSpec, Expectation, Happening, MockOutcome, Mocks, Place, TestCase, Want, item_text, names,
    playbook_and_step,
};
use stanch_playbook::time::shown_duration;
use stanch_playbook::{Plan, PlaybookName, StepKey, Timestamp};

use crate::shown::{difference, with_marks};
use crate::stage::{Reply, Stage};
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
        let start = || Simulation::starting_at(family, Settings::default(), Timestamp::EPOCH);
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

/// How the attempts of a test come out, each time from the first of its mocks on.
pub fn mocked(test: &TestCase) -> impl FnMut(&Assignment, &State) -> Reply + '_ {
    type Tried = (RunId, StepKey, Option<u32>, Purpose);
    let mut made: HashMap<Tried, usize> = HashMap::new();
    move |assignment, state| {
        let AttemptId { run, step, item, purpose, .. } = &assignment.attempt;
        let made = made.entry((*run, step.clone(), *item, *purpose)).or_default();
        let number = *made;
        *made += 1;
        let of = |mocks: &'_ Mocks| match purpose {
            Purpose::Do => mocks.attempts.clone(),
            Purpose::Verify => mocks.verify.clone(),
            Purpose::Undo => mocks.undo.clone(),
        };
        let mock = test.mock(assignment.playbook.as_str(), step.as_str());
        let special = mock.filter(|mock| !mock.items.is_empty()).and_then(|mock| {
            let of_item = mock.items.get(&item_text(&item_value(state, &assignment.attempt)?))?;
            Some(of(of_item)).filter(|attempts| !attempts.is_empty())
        });
        let attempts = special.or_else(|| mock.map(|mock| of(&mock.own))).unwrap_or_default();
        let Some(mock) = attempts.get(number).or(attempts.last()) else {
            let output = plausible(assignment.action.as_str());
            return Reply { outcome: Outcome::Succeeded { output }, takes: Duration::ZERO };
        };
        let outcome = match &mock.outcome {
            MockOutcome::Succeeds(result) => {
                let output = result.clone().unwrap_or_else(|| plausible(assignment.action.as_str()));
                Outcome::Succeeded { output }
            }
            MockOutcome::Fails { error, result, retryable } => Outcome::Failed {
                error: error.clone(),
                output: result.clone(),
                retry_after: None,
                retryable: *retryable,
            },
            MockOutcome::Unknown(reason) => Outcome::Unknown { reason: reason.clone() },
        };
        Reply { outcome, takes: mock.takes }
    }
}

/// What the item is that an attempt is for: an undo may outlive its run.
fn item_value(state: &State, attempt: &AttemptId) -> Option<Value> {
    let item = attempt.item?;
    let contained =
        || state.containment_at(attempt.run, &attempt.step, attempt.item).and_then(|one| one.value.as_deref().cloned());
    let live = || {
        let run = state.runs.get(&attempt.run)?;
        let step = state.plan(run.plan)?.step_index(&attempt.step)?;
        run.at(stanch_core::run::Place { step, item: Some(item) })?.value.as_deref().cloned()
    };
    live().or_else(contained)
}

/// The result of an action that went well and had nothing to say.
#[must_use]
pub fn plausible(action: &str) -> Value {
    match action {
        "http" => json!({"status": 200, "headers": {}, "body": {}}),
        "exec" => json!({"exit_code": 0, "stdout": "", "stderr": ""}),
        "slack" => json!({"channel": "C0", "ts": "1767582000.000000"}),
        "nats.publish" => json!({"data": null}),
        "nats.request" => json!({"data": {}}),
        _ => json!({}),
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

    fn bring_in(&mut self, stimulus: &Stimulus, place: Place, path: &str) {
        if let Stimulus::Alerts(changes) = stimulus {
            for change in changes {
                let fires = change.status == AlertStatus::Firing;
                self.first.get_or_insert_with(|| Arc::clone(&change.alert));
                self.alerts.insert(change.alert.key.clone(), (Arc::clone(&change.alert), fires));
            }
        }
        if let Err(rejected) = self.stage.simulation.command(stimulus.command()) {
            self.refusals.push(rejected.to_string());
            if !self.may_be_refused {
                self.fail(place, path, None, "to be taken", rejected);
            }
        }
    }

    fn happen(&mut self, happening: &Happening, place: Place, at: Duration) {
        let now = self.stage.simulation.now;
        let run = self.runs().last().copied();
        let person = || Actor::person("local");
        let (path, command) = match happening {
            Happening::Answer { step, item, place, answer } => {
                let path = format!("then.answer.{step}");
                let Some((run, _, key, index)) = self.step(step) else {
                    return self.fail(*place, &path, Some(at), "a run with an unknown step", "no run has started");
                };
                let item = match item {
                    None => None,
                    Some(text) => match item_of(&run, index, text) {
                        Some(item) => Some(item),
                        None => return self.fail(*place, &path, Some(at), format!("an item {text}"), "none"),
                    },
                };
                let answer = match *answer {
                    "succeeded" => Answer::Succeeded,
                    "failed" => Answer::Failed,
                    _ => Answer::Retry,
                };
                let (run, note) = (run.id, String::new());
                let command = Command::AnswerStep { actor: person(), run, step: key, item, answer, note };
                if let Err(rejected) = self.stage.simulation.command(command) {
                    self.fail(*place, &path, Some(at), "the step to be unknown", rejected);
                }
                return;
            }
            Happening::Decide(decision) => return self.decide(decision, at),
            Happening::Undo(step, place) | Happening::Extend(step, _, place) => {
                let word = if matches!(happening, Happening::Undo(..)) { "undo" } else { "extend" };
                let path = format!("then.{word}.{step}");
                let found = self.step(step).map(|(run, _, key, _)| (run.id, key));
                let of = |(run, key): (RunId, StepKey)| {
                    let contained = self.stage.simulation.state.inforce_of(run, &key);
                    contained.map(|of| (of.since, of.id)).collect::<Vec<_>>()
                };
                let mut containments = found.map(of).unwrap_or_default();
                containments.sort_unstable();
                if containments.is_empty() {
                    return self.fail(*place, &path, Some(at), "something in force", "nothing is");
                }
                // As `on_failure: undo` does: the last first.
                for (_, containment) in containments.into_iter().rev() {
                    let (actor, reason) = (person(), String::new());
                    let command = match happening {
                        Happening::Extend(_, by, _) => {
                            Command::ExtendContainment { actor, containment, until: Some(now.plus(*by)), reason }
                        }
                        _ => Command::UndoContainment { actor, containment, reason },
                    };
                    if let Err(rejected) = self.stage.simulation.command(command) {
                        self.fail(*place, &path, Some(at), "to be possible", rejected);
                    }
                }
                return;
            }
            Happening::Freeze(reason) => ("then.freeze", Command::Freeze { actor: person(), reason: reason.clone() }),
            Happening::Maintenance { matchers, length, reason } => {
                let (actor, matchers, to) = (person(), matchers.clone(), now.plus(*length));
                let (declared, from, reason) = (None, None, reason.clone());
                ("then.maintenance", Command::PlanMaintenance { actor, declared, matchers, from, to, reason })
            }
            Happening::Unfreeze => ("then.unfreeze", Command::Unfreeze { actor: person(), reason: String::new() }),
            Happening::Resolve(labels) => {
                let chosen: Vec<_> = self
                    .alerts
                    .values_mut()
                    .filter(|(alert, fires)| {
                        *fires && labels.iter().all(|(name, value)| alert.labels.get(name) == Some(value))
                    })
                    .map(|(alert, fires)| {
                        *fires = false;
                        // A resolution that is no later than the beginning is taken for an old one.
                        let ends_at = Some(now.max(alert.starts_at.plus(Duration::from_millis(1))));
                        AlertChange { alert: Arc::clone(alert), status: AlertStatus::Resolved { ends_at } }
                    })
                    .collect();
                if chosen.is_empty() {
                    return self.fail(place, "then.resolve", Some(at), "an alert that fires", "none does");
                }
                ("then.resolve", Command::ReceiveAlerts { actor: Actor::source("test"), changes: chosen })
            }
            Happening::Fire(labels) => {
                let Some(first) = self.first.clone() else {
                    return self.fail(place, "then.fire", Some(at), "a test that begins with an alert", "it does not");
                };
                let spec = stanch_playbook::test_file::AlertSpec {
                    labels: first.labels.clone().into_iter().chain(labels.clone()).collect(),
                    annotations: first.annotations.clone(),
                    since: Duration::ZERO,
                };
                return self.emit(&EventSpec::Alerts(vec![spec]), place, "then.fire", at);
            }
            Happening::Emit(spec, place) => return self.emit(spec, *place, "then.emit", at),
            Happening::Cancel { reason, undo } => {
                let Some(run) = run else {
                    return self.fail(place, "then.cancel", Some(at), "a live run", "no run has started");
                };
                ("then.cancel", Command::CancelRun { actor: person(), run, reason: reason.clone(), undo: *undo })
            }
            Happening::Acknowledge => {
                let Some(incident) = self.incident() else {
                    return self.fail(place, "then.acknowledge", Some(at), "an open incident", "there is none");
                };
                ("then.acknowledge", Command::AcknowledgeIncident { actor: person(), incident })
            }
            Happening::Crash => return self.stage.simulation.crash(),
        };
        if let Err(rejected) = self.stage.simulation.command(command) {
            self.fail(place, path, Some(at), "to be possible", rejected);
        }
    }

    fn emit(&mut self, spec: &EventSpec, place: Place, path: &str, at: Duration) {
        self.emitted += 1;
        match Stimulus::of(spec, self.plan, self.stage.simulation.now, self.emitted, self.read) {
            Ok(stimulus) => self.bring_in(&stimulus, place, path),
            Err(reason) => self.fail(place, path, Some(at), "an event", reason),
        }
    }

    fn decide(&mut self, decision: &Decision, at: Duration) {
        let path = format!("then.{}.{}", if decision.approves { "approve" } else { "deny" }, decision.step);
        let asked = self.step(&decision.step).and_then(|(run, _, key, _)| {
            let mut questions = self.stage.simulation.state.questions().map(|(_, _, question)| &question.asked);
            questions.find(|asked| asked.run == run.id && asked.step == key).cloned()
        });
        let Some(asked) = asked else {
            return self.fail(decision.place, &path, Some(at), "a question", "nobody is asked");
        };
        let groups = asked.from.iter().filter_map(|who| who.strip_prefix("group:")).map(str::to_owned);
        let groups = decision.groups.clone().unwrap_or_else(|| groups.collect());
        let named = asked.from.iter().find(|who| !who.starts_with("group:")).cloned();
        let name = decision.by.clone().or(named).unwrap_or_else(|| "tester".to_owned());
        let command = Command::DecideApproval {
            actor: Actor::person(&name),
            person: Person { name, groups, via: "test".to_owned() },
            approval: asked.approval,
            verdict: if decision.approves { Verdict::Approved } else { Verdict::Denied },
            digest: asked.digest.to_string(),
            reason: decision.reason.clone(),
        };
        let refused = match self.stage.simulation.command(command) {
            Ok(receipt) => receipt.refused,
            Err(rejected) => Some(rejected),
        };
        if let Some(rejected) = refused {
            self.refusals.push(rejected.to_string());
            if !self.may_be_refused {
                self.fail(decision.place, &path, Some(at), "to be allowed", rejected);
            }
        }
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

    fn expect(&mut self, expectations: &[Expectation], at: Option<Duration>) {
        for one in expectations {
            if let Err((expected, seen)) = self.look_at(&one.want) {
                self.fail(one.place, &one.path, at, expected, seen);
            }
        }
    }

    /// What was wanted and what is there, where they differ.
    fn look_at(&self, want: &Want) -> Result<(), (String, String)> {
        let no_run = || "no run has started".to_owned();
        match want {
            Want::Run(state) => {
                let seen = self.run().map_or("none", |run| run.state());
                same(state, seen)
            }
            Want::Runs(count) => same(count, self.runs().len()),
            Want::Step(step, state) => {
                let (run, _, _, index) = self.step(step).ok_or_else(|| ((*state).to_owned(), no_run()))?;
                let of = &run.steps[index].state;
                let why = of.error().map(|error| format!(": {error}")).unwrap_or_default();
                same(state, of.as_str()).map_err(|(expected, seen)| (expected, format!("{seen}{why}")))
            }
            Want::Item { step, item, state } => {
                let (run, _, _, index) = self.step(step).ok_or_else(|| ((*state).to_owned(), no_run()))?;
                let of = item_of(&run, index, item).and_then(|at| run.steps[index].items.get(at as usize));
                let Some(of) = of else {
                    let all: Vec<String> =
                        run.steps[index].items.iter().filter_map(|of| of.value.as_deref()).map(item_text).collect();
                    return Err(((*state).to_owned(), format!("no such item among {}", all.join(", "))));
                };
                let why = of.state.error().map(|error| format!(": {error}")).unwrap_or_default();
                same(state, of.state.as_str()).map_err(|(expected, seen)| (expected, format!("{seen}{why}")))
            }
            Want::Asks(steps) => {
                let asked = self.stage.simulation.state.questions();
                let asked: Vec<String> = asked.map(|(_, _, of)| self.written(of.asked.run, &of.asked.step)).collect();
                set(steps, &asked)
            }
            Want::Question { step, prompt, targets, state } => self.question(step, prompt.as_deref(), targets, *state),
            Want::InForce(steps) => {
                let inforce = self.stage.simulation.state.inforce.values();
                let inforce: Vec<String> = inforce
                    .map(|of| {
                        let step = self.written(of.run, &of.step);
                        let item = of.value.as_deref().map(|value| format!("[{}]", item_text(value)));
                        format!("{step}{}", item.unwrap_or_default())
                    })
                    .collect();
                set(steps, &inforce)
            }
            Want::Order(steps) => {
                let started = self.started();
                let listed: Vec<&str> = started
                    .iter()
                    .filter_map(|key| steps.iter().find(|step| names(step, key.as_str())))
                    .map(String::as_str)
                    .collect();
                let missing: Vec<&str> =
                    steps.iter().map(String::as_str).filter(|step| !listed.contains(step)).collect();
                if listed == *steps {
                    return Ok(());
                }
                let note =
                    if missing.is_empty() { String::new() } else { format!("; never started: {}", missing.join(", ")) };
                Err((steps.join(", "), format!("{}{note}", listed.join(", "))))
            }
            Want::Calls { step, item, purpose, count, with, env } => {
                let made = self.made(step, item.as_deref(), purpose);
                calls(&made, *count, with.as_ref(), env.as_ref())
            }
            Want::Outputs(step, wanted) => {
                let (run, _, _, index) = self.step(step).ok_or_else(|| (wanted.to_string(), no_run()))?;
                agree(wanted, &run.steps[index].outputs)
            }
            Want::Inputs(wanted) => {
                let run = self.run().ok_or_else(|| (wanted.to_string(), no_run()))?;
                agree(wanted, &run.inputs)
            }
            Want::Error(step, text) => {
                let (run, _, _, index) = self.step(step).ok_or_else(|| (text.clone(), no_run()))?;
                match run.steps[index].state.error() {
                    Some(error) if error.contains(text.as_str()) => Ok(()),
                    Some(error) => Err((format!("{text:?} in it"), error.to_string())),
                    None => Err((format!("{text:?} in it"), "no error".to_owned())),
                }
            }
            Want::Message(text) => {
                let said = self.messages();
                match said.iter().any(|message| message.contains(text.as_str())) {
                    true => Ok(()),
                    false if said.is_empty() => Err((format!("{text:?}"), "nothing was said".to_owned())),
                    false => Err((
                        format!("{text:?}"),
                        said.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(", "),
                    )),
                }
            }
            Want::Silence(text) => match self.messages().into_iter().find(|message| message.contains(text.as_str())) {
                Some(message) => Err((format!("nobody to say {text:?}"), format!("{message:?}"))),
                None => Ok(()),
            },
            Want::Incident(state) => {
                let seen = match self.incident() {
                    None => "none",
                    // A resolved one is forgotten after a while.
                    Some(id) => self.stage.simulation.state.incidents.get(&id).map_or("resolved", |of| of.state()),
                };
                same(state, seen)
            }
            Want::Severity(severity) => {
                let of = self.incident();
                let seen = self.stage.simulation.records.iter().rev().find_map(|record| match &record.body {
                    Body::IncidentOpened(body) if Some(body.incident) == of => Some(body.severity),
                    Body::IncidentJoined(body) if Some(body.incident) == of => Some(body.severity),
                    _ => None,
                });
                same(severity, seen.map_or("none".to_owned(), |severity| format!("{severity:?}")))
            }
            Want::Key(key) => {
                let of = self.incident();
                let seen = self.stage.simulation.records.iter().find_map(|record| match &record.body {
                    Body::IncidentOpened(body) if Some(body.incident) == of => Some(body.key.to_string()),
                    _ => None,
                });
                same(key, seen.unwrap_or_else(|| "no incident".to_owned()))
            }
            Want::Refused(text) => {
                let letters = self.stage.simulation.records.iter().filter_map(|record| match &record.body {
                    Body::DeadLettered(body) => Some(body.letter.reason.as_str()),
                    _ => None,
                });
                let reasons: Vec<&str> = letters.chain(self.refusals.iter().map(String::as_str)).collect();
                match reasons.iter().any(|reason| reason.contains(text.as_str())) {
                    true => Ok(()),
                    false if reasons.is_empty() => Err((format!("{text:?}"), "nothing was refused".to_owned())),
                    false => Err((format!("{text:?}"), reasons.join(", "))),
                }
            }
        }
    }

    /// The steps of the run in the order in which they first did something.
    fn started(&self) -> Vec<StepKey> {
        let Some(run) = self.run().map(|run| run.id) else { return Vec::new() };
        let mut started: Vec<StepKey> = Vec::new();
        for record in &self.stage.simulation.records {
            let step = match &record.body {
                Body::AttemptScheduled(body) if body.attempt.run == run => &body.attempt.step,
                Body::StepWaiting(body) if body.run == run => &body.step,
                Body::ApprovalRequested(body) if body.run == run => &body.step,
                _ => continue,
            };
            if !started.contains(step) {
                started.push(step.clone());
            }
        }
        started
    }

    /// A step as a person writes it, of the tested playbook or of another.
    fn written(&self, run: RunId, step: &StepKey) -> String {
        let name = step.as_str().split_once('.').map_or(step.as_str(), |(_, name)| name);
        match self.stage.simulation.run(run) {
            Some(run) if run.playbook != self.plan.name => format!("{}/{name}", run.playbook),
            _ => name.to_owned(),
        }
    }

    /// What a step asks or asked last.
    fn question(
        &self,
        step: &str,
        prompt: Option<&str>,
        targets: &BTreeMap<String, Value>,
        state: Option<&'static str>,
    ) -> Result<(), (String, String)> {
        let nobody = || ("a question".to_owned(), "nobody was asked".to_owned());
        let (run, _, _, index) = self.step(step).ok_or_else(nobody)?;
        let of = &run.steps[index];
        let question = of.question.as_ref().ok_or_else(nobody)?;
        if let Some(prompt) = prompt
            && !question.asked.prompt.contains(prompt)
        {
            return Err((format!("{prompt:?} in it"), format!("{:?}", question.asked.prompt)));
        }
        for (step, wanted) in targets {
            let mut of = question.asked.targets.iter();
            let Some(target) = of.find(|target| names(step, target.step.as_str())) else {
                let all: Vec<&str> = question.asked.targets.iter().map(|target| target.step.as_str()).collect();
                return Err((format!("{step} among the targets"), all.join(", ")));
            };
            agree(wanted, &with_marks(&target.with))?;
        }
        let last = question.answers.last().map(|(_, verdict, _)| verdict.as_str());
        let seen = match last {
            _ if matches!(of.state, StepState::Waiting { .. }) => "open",
            Some(verdict) => verdict,
            None => "expired",
        };
        state.map_or(Ok(()), |state| same(state, seen))
    }

    /// The attempts at something, oldest first.
    fn made(&self, step: &str, item: Option<&str>, purpose: &str) -> Vec<&Assignment> {
        let Some((run, _, key, index)) = self.step(step) else { return Vec::new() };
        let item = item.map(|text| item_of(&run, index, text));
        let wanted = |one: &&Assignment| {
            let of = &one.attempt;
            of.run == run.id
                && of.step == key
                && of.purpose.as_str() == purpose
                && item.is_none_or(|item| item.is_some() && of.item == item)
        };
        self.stage.simulation.dispatched.iter().filter(wanted).collect()
    }

    /// What slack and log steps said, over all runs.
    fn messages(&self) -> Vec<String> {
        let said = |one: &Assignment| match one.action.as_str() {
            "slack" => {
                let text = one.with["text"].as_str().map(str::to_owned);
                text.or_else(|| one.with.get("blocks").map(Value::to_string))
            }
            "log" => one.with["message"].as_str().map(str::to_owned),
            _ => None,
        };
        self.stage.simulation.dispatched.iter().filter_map(said).collect()
    }
}

/// The item of a step that a person means by its text.
fn item_of(run: &Run, step: usize, text: &str) -> Option<u32> {
    let is = |of: &Arc<stanch_core::run::StepRun>| of.value.as_deref().is_some_and(|value| item_text(value) == text);
    run.steps[step].items.iter().position(is).and_then(|at| u32::try_from(at).ok())
}

/// Whether those there are all wanted, and none of the wanted is missing; `step` stands for all its items.
fn set(wanted: &[String], seen: &[String]) -> Result<(), (String, String)> {
    let is = |wanted: &String, seen: &String| {
        seen == wanted || seen.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.starts_with('['))
    };
    let agrees = wanted.iter().all(|wanted| seen.iter().any(|seen| is(wanted, seen)))
        && seen.iter().all(|seen| wanted.iter().any(|wanted| is(wanted, seen)));
    let shown = |list: &[String]| if list.is_empty() { "nothing".to_owned() } else { list.join(", ") };
    if agrees { Ok(()) } else { Err((shown(wanted), shown(seen))) }
}

fn calls(
    made: &[&Assignment],
    count: Option<u32>,
    with: Option<&Value>,
    env: Option<&Value>,
) -> Result<(), (String, String)> {
    let attempts = |count: usize| if count == 1 { "1 attempt".to_owned() } else { format!("{count} attempts") };
    match count {
        Some(count) if made.len() != count as usize => return Err((attempts(count as usize), attempts(made.len()))),
        None if made.is_empty() => return Err(("an attempt".to_owned(), "none".to_owned())),
        _ => {}
    }
    for (name, wanted, of) in
        [("with", with, made.last().map(|one| &one.with)), ("env", env, made.last().map(|one| &one.env))]
    {
        let (Some(wanted), Some(seen)) = (wanted, of) else { continue };
        agree(wanted, &with_marks(seen))
            .map_err(|(expected, seen)| (format!("{name}{expected}"), format!("{name}{seen}")))?;
    }
    Ok(())
}

fn same(expected: impl ToString, seen: impl ToString) -> Result<(), (String, String)> {
    let (expected, seen) = (expected.to_string(), seen.to_string());
    if expected == seen { Ok(()) } else { Err((expected, seen)) }
}

fn agree(wanted: &Value, seen: &Value) -> Result<(), (String, String)> {
    match difference(wanted, seen) {
        None => Ok(()),
        Some(found) => {
            let place = if found.place.is_empty() { String::new() } else { format!("{} = ", found.place) };
            let seen = found.seen.map_or_else(|| "nothing".to_owned(), |seen| seen.to_string());
            Err((format!("{place}{}", found.wanted), format!("{place}{seen}")))
        }
    }
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
