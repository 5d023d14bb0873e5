//! Tests of playbooks, `*.test.yaml`: an event, how attempts come out, what happens later, and what is expected.
//!
//! This is the document alone, checked as far as it can be without the playbooks; who runs it is another crate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::check;
use crate::diagnostic::{Diagnostic, Diagnostics, Report, Span};
use crate::document;
use crate::nearest::nearest;
use crate::plan::Plan;
use crate::time::Timestamp;

/// The tests of one file, in its order.
#[derive(Debug, Clone, PartialEq)]
pub struct TestFile {
    /// The file's name, as given.
    pub file: Arc<str>,
    /// Its text, which the places point into.
    pub source: Arc<str>,
    /// Where the playbooks lie, relative to the file; empty: in its directory and below.
    pub playbooks: Vec<String>,
    /// The tests.
    pub tests: Vec<TestCase>,
}

/// A place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(pub(crate) Span);

impl Place {
    /// The line, from 1.
    #[must_use]
    pub const fn line(self) -> usize {
        self.0.line
    }

    /// The column in characters, from 1.
    #[must_use]
    pub const fn column(self) -> usize {
        self.0.column
    }
}

/// One test.
#[derive(Debug, Clone, PartialEq)]
pub struct TestCase {
    /// What it shows, in a sentence.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// The playbook's name.
    pub playbook: String,
    /// Where that stands.
    pub playbook_place: Place,
    /// When the event comes, on the virtual clock; none: [`TestCase::START`].
    pub start: Option<Timestamp>,
    /// What people have done before the event comes: a freeze, maintenance windows.
    pub before: Vec<Happening>,
    /// What comes in first.
    pub event: EventSpec,
    /// Where that stands.
    pub event_place: Place,
    /// How the attempts of steps come out.
    pub mocks: Vec<StepMock>,
    /// What happens later, in the order of its moments.
    pub then: Vec<Moment>,
    /// What must be true once nothing more happens.
    pub expect: Vec<Expectation>,
}

impl TestCase {
    /// When a test begins that does not say: a Monday in January, at three in the morning.
    pub const START: Timestamp = Timestamp::from_millis(1_767_582_000_000);

    /// The mock of a step of a playbook.
    #[must_use]
    pub fn mock(&self, playbook: &str, phase_and_name: &str) -> Option<&StepMock> {
        self.mocks.iter().find(|mock| {
            let (of, step) = playbook_and_step(&mock.step);
            of.unwrap_or(&self.playbook) == playbook && names(step, phase_and_name)
        })
    }
}

/// What a person writes for a step: `step`, `phase.step`, or `playbook/step` for one of a sub-playbook.
#[must_use]
pub fn playbook_and_step(written: &str) -> (Option<&str>, &str) {
    match written.split_once('/') {
        Some((playbook, step)) => (Some(playbook), step),
        None => (None, written),
    }
}

/// Whether a text written by a person means the step `phase.name`.
#[must_use]
pub fn names(written: &str, phase_and_name: &str) -> bool {
    written == phase_and_name || phase_and_name.split_once('.').is_some_and(|(_, name)| name == written)
}

/// An item as people write it: its text, or JSON where it is none.
#[must_use]
pub fn item_text(item: &Value) -> String {
    item.as_str().map_or_else(|| item.to_string(), str::to_owned)
}

/// What comes in.
#[derive(Debug, Clone, PartialEq)]
pub enum EventSpec {
    /// Alerts in one delivery.
    Alerts(Vec<AlertSpec>),
    /// What a file holds: an Alertmanager body, a `CloudEvent`, or plain JSON with a subject.
    File {
        /// The path, relative to the test's file.
        path: String,
        /// The NATS subject it came in on.
        subject: Option<String>,
    },
    /// A message on a NATS subject.
    Nats {
        /// The subject.
        subject: String,
        /// Its content.
        data: Value,
    },
    /// A tick of the playbook's schedule, the first being 0.
    Schedule(u32),
    /// A person's request, with these inputs.
    Inputs(Map<String, Value>),
}

/// One alert, as a test writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AlertSpec {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// How long before the delivery it began to fire.
    pub since: Duration,
}

/// How the attempts of one step come out.
#[derive(Debug, Clone, PartialEq)]
pub struct StepMock {
    /// The step: its name, `phase.name` or `playbook/name`.
    pub step: String,
    /// Where it stands.
    pub place: Place,
    /// For the step, and for items without mocks of their own.
    pub own: Mocks,
    /// For single items, by their text.
    pub items: BTreeMap<String, Mocks>,
}

/// How attempts come out: one for each, the last repeats; empty where nothing is said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mocks {
    /// Of the action itself.
    pub attempts: Vec<Mock>,
    /// Of the looks of its verification.
    pub verify: Vec<Mock>,
    /// To take it back.
    pub undo: Vec<Mock>,
}

/// A person's answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The step that asks.
    pub step: String,
    /// Where it stands.
    pub place: Place,
    /// Whether it is a yes.
    pub approves: bool,
    /// The person; none: one who may.
    pub by: Option<String>,
    /// The person's groups, where a person is named; none: those that are asked.
    pub groups: Option<Vec<String>>,
    /// Why.
    pub reason: String,
}

/// How one attempt comes out.
#[derive(Debug, Clone, PartialEq)]
pub struct Mock {
    /// The outcome.
    pub outcome: MockOutcome,
    /// How long it takes; an attempt that takes longer than its time limit is unknown at that limit.
    pub takes: Duration,
}

/// What an attempt comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum MockOutcome {
    /// It succeeds, with the action's result; none: one that the action could have.
    Succeeds(Option<Value>),
    /// It fails.
    Fails {
        /// Why.
        error: String,
        /// What the action returned all the same.
        result: Option<Value>,
        /// Whether trying again could help.
        retryable: bool,
    },
    /// Nobody knows.
    Unknown(String),
}

/// What happens at a moment of the virtual clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Moment {
    /// How long after the start.
    pub at: Duration,
    /// Where it stands.
    pub place: Place,
    /// What happens, in this order.
    pub happens: Vec<Happening>,
    /// What must be true once that has had its effects.
    pub expect: Vec<Expectation>,
}

/// Something that happens from outside while a run is live.
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// A person says what became of an unknown step.
    Answer {
        /// The step.
        step: String,
        /// The item's text, where it has items.
        item: Option<String>,
        /// Where it stands.
        place: Place,
        /// `succeeded`, `failed` or `retry`.
        answer: &'static str,
    },
    /// A person answers a question.
    Decide(Decision),
    /// A person takes back what a step did.
    Undo(String, Place),
    /// A person keeps what a step did in force for so long from now on.
    Extend(String, Duration, Place),
    /// A person stops all side effects.
    Freeze(String),
    /// A person lets them begin again.
    Unfreeze,
    /// A person holds back the runs of the alerts that all these matchers take, from now on.
    Maintenance {
        /// The matchers.
        matchers: Vec<String>,
        /// For how long.
        length: Duration,
        /// Why.
        reason: String,
    },
    /// Alerts resolve: those whose labels hold all of these.
    Resolve(BTreeMap<String, String>),
    /// An alert fires: the first of the test, with these labels in place of its own.
    Fire(BTreeMap<String, String>),
    /// Something else comes in.
    Emit(EventSpec, Place),
    /// A person cancels the run.
    Cancel {
        /// Why.
        reason: String,
        /// Whether what it did is taken back.
        undo: bool,
    },
    /// A person takes notice of the incident.
    Acknowledge,
    /// The engine dies, and starts again at once; what was under way is lost.
    Crash,
}

/// Something that must be true.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// Where it stands.
    pub place: Place,
    /// Its keys, such as `expect.steps.probe`.
    pub path: String,
    /// What must be true.
    pub want: Want,
}

/// What an expectation is about. A run is the last one that the playbook started.
#[derive(Debug, Clone, PartialEq)]
pub enum Want {
    /// The run's state; `none` where no run may have started.
    Run(&'static str),
    /// How many runs the playbook has started.
    Runs(u32),
    /// A step's state.
    Step(String, &'static str),
    /// The state of an item of a step.
    Item {
        /// The step.
        step: String,
        /// The item's text.
        item: String,
        /// The state.
        state: &'static str,
    },
    /// These steps ask people now, and no others.
    Asks(Vec<String>),
    /// What a step asks, or asked last.
    Question {
        /// The step.
        step: String,
        /// A part of the question.
        prompt: Option<String>,
        /// A part of what would be done, by step.
        targets: BTreeMap<String, Value>,
        /// `open`, `approved`, `denied` or `expired`.
        state: Option<&'static str>,
    },
    /// Of these steps something is in force, as `step` or `step[item]`, and of no others.
    InForce(Vec<String>),
    /// These steps started, in this order.
    Order(Vec<String>),
    /// The attempts that a step was given.
    Calls {
        /// The step.
        step: String,
        /// The item's text; none: all of them.
        item: Option<String>,
        /// `do`, `verify` or `undo`.
        purpose: &'static str,
        /// How many; none: at least one.
        count: Option<u32>,
        /// A part of the rendered parameters.
        with: Option<Value>,
        /// A part of the rendered environment.
        env: Option<Value>,
    },
    /// A part of a step's outputs.
    Outputs(String, Value),
    /// A part of the run's inputs.
    Inputs(Value),
    /// A part of why a step is not green.
    Error(String, String),
    /// A part of what a `slack` or `log` step said, or people were told by itself.
    Message(String),
    /// What none of them may have said.
    Silence(String),
    /// The incident's state; `none` where there may be none.
    Incident(&'static str),
    /// The incident's severity.
    Severity(&'static str),
    /// The incident's key.
    Key(String),
    /// A part of why what came in could not be used.
    Refused(String),
}

impl Want {
    /// The steps that it names.
    fn steps(&self) -> Vec<&str> {
        match self {
            Self::Step(step, _) | Self::Calls { step, .. } | Self::Outputs(step, _) | Self::Error(step, _) => {
                vec![step]
            }
            Self::Item { step, .. } => vec![step],
            Self::Question { step, targets, .. } => {
                std::iter::once(step.as_str()).chain(targets.keys().map(String::as_str)).collect()
            }
            Self::Order(steps) | Self::Asks(steps) => steps.iter().map(String::as_str).collect(),
            Self::InForce(steps) => {
                steps.iter().map(|step| step.split_once('[').map_or(step.as_str(), |(step, _)| step)).collect()
            }
            Self::Run(_)
            | Self::Runs(_)
            | Self::Inputs(_)
            | Self::Message(_)
            | Self::Silence(_)
            | Self::Incident(_)
            | Self::Severity(_)
            | Self::Key(_)
            | Self::Refused(_) => Vec::new(),
        }
    }
}

/// Reads and checks a test file.
///
/// # Errors
/// All [`Diagnostics`] at once where there is an error among them.
pub fn load_tests(file_name: &str, text: &str) -> Result<TestFile, Diagnostics> {
    let mut report = Report::new(file_name);
    let read = document::parse(text, document::TEST_NODES, &mut report)
        .and_then(|root| check::test_file(text, &root, &mut report));
    match read.filter(|_| !report.has_errors()) {
        Some((playbooks, tests)) => Ok(TestFile { file: file_name.into(), source: Arc::from(text), playbooks, tests }),
        None => {
            let mut list = report.into_list();
            for one in &mut list {
                // The reader's own words are about playbooks.
                match one.code {
                    "empty" => one.message = "the file is empty; tests begin with: tests:".to_owned(),
                    "several-documents" => {
                        one.message = "a file holds one list of tests; this is a second document".to_owned();
                    }
                    _ => {}
                }
            }
            Err(Diagnostics { list, source: Arc::from(text) })
        }
    }
}

impl TestFile {
    /// Names in the tests that no playbook has: playbooks and steps. `known` are the playbooks' names.
    #[must_use]
    pub fn check_names<'a>(&self, plan_of: impl Fn(&str) -> Option<&'a Plan>, known: &[&str]) -> Vec<Diagnostic> {
        let mut report = Report::new(&self.file);
        for test in &self.tests {
            let Some(plan) = plan_of(&test.playbook) else {
                let help = match nearest(&test.playbook, known.iter().copied()) {
                    Some(near) => format!("did you mean {near}?"),
                    None if known.is_empty() => "there is no valid playbook in the directory of this file and below; \
                                                 name its path under playbooks:"
                        .to_owned(),
                    None => format!("there are {}", known.join(", ")),
                };
                let message = format!("no playbook is named {}", test.playbook);
                report.error("unknown-playbook", test.playbook_place.0, message).help(help);
                continue;
            };
            let mocked = test.mocks.iter().map(|mock| (mock.step.as_str(), mock.place));
            let moments = test.then.iter().flat_map(|moment| &moment.happens);
            let answered = moments.filter_map(|happening| match happening {
                Happening::Answer { step, place, .. }
                | Happening::Undo(step, place)
                | Happening::Extend(step, _, place)
                | Happening::Decide(Decision { step, place, .. }) => Some((step.as_str(), *place)),
                Happening::Resolve(_)
                | Happening::Fire(_)
                | Happening::Emit(..)
                | Happening::Cancel { .. }
                | Happening::Freeze(_)
                | Happening::Unfreeze
                | Happening::Maintenance { .. }
                | Happening::Acknowledge
                | Happening::Crash => None,
            });
            let expectations = test.then.iter().flat_map(|moment| &moment.expect).chain(&test.expect);
            let expected = expectations.flat_map(|one| one.want.steps().into_iter().map(|step| (step, one.place)));
            for (written, place) in mocked.chain(answered).chain(expected) {
                let (other, step) = playbook_and_step(written);
                let Some(plan) = other.map_or(Some(plan), &plan_of) else {
                    let name = other.unwrap_or_default();
                    let near = nearest(name, known.iter().copied()).map(|near| format!("did you mean {near}?"));
                    let help = near.unwrap_or_else(|| "write playbook/step for a step of a sub-playbook".to_owned());
                    report.error("unknown-playbook", place.0, format!("no playbook is named {name}")).help(help);
                    continue;
                };
                if plan.steps.iter().any(|of| names(step, of.key.as_str())) {
                    continue;
                }
                let all = || plan.steps.iter().map(|step| step.name.as_str());
                let help = match nearest(step, all()) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("its steps are {}", all().collect::<Vec<_>>().join(", ")),
                };
                report.error("unknown-step", place.0, format!("{} has no step {step:?}", plan.name)).help(help);
            }
        }
        report.into_list()
    }
}
