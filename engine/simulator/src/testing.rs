//! A test of a playbook: the event comes in, time passes, and what is expected is looked at.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use stanch_core::alert::{AlertChange, AlertKey, AlertSnapshot, AlertStatus};
use stanch_core::record::{Actor, Answer};
use stanch_core::run::Run;
use stanch_core::{Assignment, AttemptId, Body, Command, IncidentId, Outcome, Record, RunId, Settings};
use stanch_playbook::test_file::{EventSpec, Expectation, Happening, MockOutcome, Place, TestCase, Want, names};
use stanch_playbook::time::shown_duration;
use stanch_playbook::{Plan, StepKey, Timestamp};

use crate::shown::{difference, with_marks};
use crate::stage::{Reply, Stage};
use crate::stimulus::{Read, Stimulus};
use crate::{Restless, Simulation};

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

/// Engines that have a playbook loaded and nothing else, so that a thousand tests compile it once.
#[derive(Default)]
pub struct Engines(HashMap<stanch_playbook::PlanDigest, Simulation>);

impl Engines {
    fn of(&mut self, plan: &Arc<Plan>) -> Simulation {
        let engine = self
            .0
            .entry(plan.digest)
            .or_insert_with(|| Simulation::starting_at(vec![Arc::clone(plan)], Settings::default(), Timestamp::EPOCH));
        engine.clone()
    }
}

/// Runs one test of a playbook.
pub fn run(engines: &mut Engines, plan: &Arc<Plan>, test: &TestCase, read: &dyn Read) -> TestReport {
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
    let mut simulation = engines.of(plan);
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
    TestReport { failures: vec![failure], seen: None, seen_at: None, records: Vec::new(), virtual_time: Duration::ZERO }
}

/// How the attempts of a test come out.
fn mocked(test: &TestCase) -> impl FnMut(&Assignment) -> Reply + '_ {
    let mut made: HashMap<(RunId, StepKey), usize> = HashMap::new();
    move |assignment| {
        let AttemptId { run, step, .. } = &assignment.attempt;
        let made = made.entry((*run, step.clone())).or_default();
        let number = *made;
        *made += 1;
        let Some(mock) = test.mock(step.as_str()) else {
            let output = plausible(assignment.action.as_str());
            return Reply { outcome: Outcome::Succeeded { output }, takes: Duration::ZERO };
        };
        let mock = &mock.attempts[number.min(mock.attempts.len() - 1)];
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
            Happening::Answer { step, place, answer } => {
                let path = format!("then.answer.{step}");
                let key = self.plan.steps.iter().find(|of| names(step, of.key.as_str())).map(|of| of.key.clone());
                let (Some(run), Some(key)) = (run, key) else {
                    return self.fail(*place, &path, Some(at), "a run with an unknown step", "no run has started");
                };
                let answer = match *answer {
                    "succeeded" => Answer::Succeeded,
                    "failed" => Answer::Failed,
                    _ => Answer::Retry,
                };
                let command =
                    Command::AnswerStep { actor: person(), run, step: key, item: None, answer, note: String::new() };
                if let Err(rejected) = self.stage.simulation.command(command) {
                    self.fail(*place, &path, Some(at), "the step to be unknown", rejected);
                }
                return;
            }
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
            Happening::Cancel(reason) => {
                let Some(run) = run else {
                    return self.fail(place, "then.cancel", Some(at), "a live run", "no run has started");
                };
                ("then.cancel", Command::CancelRun { actor: person(), run, reason: reason.clone(), undo: false })
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

    /// The playbook's runs, oldest first.
    fn runs(&self) -> Vec<RunId> {
        let started = |record: &Record| match &record.body {
            Body::RunStarted(body) if body.playbook == self.plan.name => Some(body.run),
            _ => None,
        };
        self.stage.simulation.records.iter().filter_map(started).collect()
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
                let run = self.look().ok_or_else(|| ((*state).to_owned(), no_run()))?;
                let Some(of) = run.steps.iter().find(|of| names(step, of.step.as_str())) else { return Ok(()) };
                let why = of.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
                same(state, of.state).map_err(|(expected, seen)| (expected, format!("{seen}{why}")))
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
            Want::Calls { step, count, with, env } => self.calls(step, *count, with.as_ref(), env.as_ref()),
            Want::Outputs(step, wanted) => {
                let run = self.run().ok_or_else(|| (wanted.to_string(), no_run()))?;
                let of = self.plan.steps.iter().position(|of| names(step, of.key.as_str()));
                let outputs = of.map_or(&Value::Null, |index| &*run.steps[index].outputs);
                agree(wanted, outputs)
            }
            Want::Inputs(wanted) => {
                let run = self.run().ok_or_else(|| (wanted.to_string(), no_run()))?;
                agree(wanted, &run.inputs)
            }
            Want::Error(step, text) => {
                let run = self.look().ok_or_else(|| (text.clone(), no_run()))?;
                let of = run.steps.iter().find(|of| names(step, of.step.as_str()));
                match of.and_then(|of| of.error.as_ref()) {
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
                _ => continue,
            };
            if !started.contains(step) {
                started.push(step.clone());
            }
        }
        started
    }

    fn calls(
        &self,
        step: &str,
        count: Option<u32>,
        with: Option<&Value>,
        env: Option<&Value>,
    ) -> Result<(), (String, String)> {
        let run = self.run().map(|run| run.id);
        let made: Vec<&Assignment> = self
            .stage
            .simulation
            .dispatched
            .iter()
            .filter(|one| Some(one.attempt.run) == run && names(step, one.attempt.step.as_str()))
            .collect();
        let attempts = |count: usize| if count == 1 { "1 attempt".to_owned() } else { format!("{count} attempts") };
        match count {
            Some(count) if made.len() != count as usize => {
                return Err((attempts(count as usize), attempts(made.len())));
            }
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
