//! A test file: every key and value, with its place.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::Checker;
use crate::catalogue::Catalogue;
use crate::diagnostic::{Report, Span};
use crate::document::{Key, Kind, Node};
use crate::keys;
use crate::test_file::{
    AlertSpec, EventSpec, Expectation, Happening, Mock, MockOutcome, Moment, Place, StepMock, TestCase, Want,
};
use crate::test_keys as of_tests;
use crate::time::{Timestamp, parse_duration};

/// The playbooks' directories and the tests of a document; `None` where it has neither. Errors are in the report.
pub(crate) fn test_file(text: &str, root: &Node, report: &mut Report) -> Option<(Vec<String>, Vec<TestCase>)> {
    Checker::new(text, report, &Catalogue::default()).test_file(root)
}

impl<'a> Checker<'a> {
    fn test_file(&mut self, root: &'a Node) -> Option<(Vec<String>, Vec<TestCase>)> {
        let entries = self.entries(root, "a test file")?;
        self.known_keys(entries, of_tests::FILE, "a test file");
        let playbooks = root.get("playbooks").map(|node| self.texts(node, "playbooks")).unwrap_or_default();
        let Some(tests) = root.get("tests") else {
            let place = Span { length: 0, ..root.span };
            self.report.error("missing-key", place, "a test file holds tests").help("add: tests: [{name: ..., ...}]");
            return None;
        };
        let items = self.items(tests, "tests").unwrap_or_default();
        let tests: Vec<TestCase> = items.iter().filter_map(|item| self.test(item)).collect();
        for (index, test) in tests.iter().enumerate() {
            if let Some(first) = tests[..index].iter().find(|first| first.name == test.name) {
                let message = format!("a test named {:?} is already in line {}", test.name, first.place.line());
                self.report.error("duplicate-test", test.place.0, message).help("say what is different about this one");
            }
        }
        Some((playbooks.into_iter().map(|(path, _)| path).collect(), tests))
    }

    fn test(&mut self, node: &'a Node) -> Option<TestCase> {
        let entries = self.entries(node, "a test")?;
        self.known_keys(entries, of_tests::TEST, "a test");
        let start = Span { length: 0, ..node.span };
        let mut needed = |name: &str, example: &str| {
            let found = node.get(name);
            if found.is_none() {
                self.report
                    .error("missing-key", start, format!("the test has no {name}"))
                    .help(format!("add {example}"));
            }
            found
        };
        let name = needed("name", "name: what it shows, in a sentence");
        let playbook = needed("playbook", "playbook: its-name");
        let event = needed("event", "event: {alert: {labels: {alertname: X}}}");
        let expect = needed("expect", "expect: {run: succeeded}");
        let name = name.and_then(|node| Some((self.string(node)?, node.span)));
        let playbook = playbook.and_then(|node| Some((self.string(node)?, node.span)));
        let event = event.and_then(|node| Some((self.event(node)?, node.span)));
        let start = node.get("start").and_then(|node| self.start(node));
        let mocks = node.get("mocks").map(|node| self.mocks(node)).unwrap_or_default();
        let mut then = Vec::new();
        for item in node.get("then").and_then(|node| self.items(node, "then")).unwrap_or_default() {
            then.extend(self.moment(item));
        }
        then.sort_by_key(|moment: &Moment| moment.at);
        let expect = expect.map(|node| self.expect(node)).unwrap_or_default();
        let ((name, place), (playbook, playbook_place), (event, event_place)) = (name?, playbook?, event?);
        Some(TestCase {
            name,
            place: Place(place),
            playbook,
            playbook_place: Place(playbook_place),
            start,
            event,
            event_place: Place(event_place),
            mocks,
            then,
            expect,
        })
    }

    fn start(&mut self, node: &'a Node) -> Option<Timestamp> {
        let text = self.string(node)?;
        let parsed = Timestamp::parse(&text).ok();
        if parsed.is_none() {
            self.report
                .error("wrong-value", node.span, format!("{text:?} is no time"))
                .help("write it as 2026-01-05T03:00:00Z");
        }
        parsed
    }

    fn event(&mut self, node: &'a Node) -> Option<EventSpec> {
        let entries = self.entries(node, "an event")?;
        self.known_keys(entries, of_tests::EVENT, "an event");
        let kinds = ["alert", "alerts", "file", "nats", "schedule", "inputs"];
        let mut given = entries.iter().filter(|(key, _)| kinds.contains(&key.text.as_str()));
        let Some((key, value)) = given.next() else {
            if entries.iter().all(|(key, _)| key.text == "subject") {
                let help = format!("give one of {}", kinds.join(", "));
                self.report.error("event-kind", node.span, "this event does not say what comes in").help(help);
            }
            return None;
        };
        if let Some((other, _)) = given.next() {
            let message = format!("an event is one thing; this one is {} and {}", key.text, other.text);
            self.report.error("event-kind", other.span, message).help("put the other one under then: with emit");
            return None;
        }
        if let Some((subject, _)) = entries.iter().find(|(subject, _)| subject.text == "subject" && key.text != "file")
        {
            self.report.error("not-applicable", subject.span, "subject stands beside file, or inside nats");
        }
        match key.text.as_str() {
            "alert" => Some(EventSpec::Alerts(vec![self.alert(value)?])),
            "alerts" => {
                let items = self.items(value, "alerts")?;
                let alerts: Vec<_> = items.iter().filter_map(|item| self.alert(item)).collect();
                if items.is_empty() {
                    self.report.error("wrong-value", value.span, "alerts is empty");
                }
                Some(EventSpec::Alerts(alerts))
            }
            "file" => {
                let subject = node.get("subject").and_then(|node| self.string(node));
                Some(EventSpec::File { path: self.string(value)?, subject })
            }
            "nats" => {
                let entries = self.entries(value, "nats")?;
                self.known_keys(entries, of_tests::NATS, "nats");
                let Some(subject) = value.get("subject") else {
                    self.report.error("missing-key", key.span, "subject is missing").help("add subject: sec.ioc.host");
                    return None;
                };
                let data = value.get("data").map(Node::to_json).unwrap_or_default();
                Some(EventSpec::Nats { subject: self.string(subject)?, data })
            }
            "schedule" => self.whole(value, 0, 63).map(EventSpec::Schedule),
            _ => match value.to_json() {
                Value::Object(inputs) => Some(EventSpec::Inputs(inputs)),
                Value::Null => Some(EventSpec::Inputs(Map::new())),
                _ => {
                    self.entries(value, "inputs");
                    None
                }
            },
        }
    }

    fn alert(&mut self, node: &'a Node) -> Option<AlertSpec> {
        let entries = self.entries(node, "an alert")?;
        self.known_keys(entries, of_tests::ALERT, "an alert");
        let Some(labels) = node.get("labels") else {
            self.report.error("missing-key", node.span, "the alert has no labels").help("add labels: {alertname: X}");
            return None;
        };
        Some(AlertSpec {
            labels: self.labels(labels, "labels"),
            annotations: node.get("annotations").map(|node| self.labels(node, "annotations")).unwrap_or_default(),
            since: node.get("since").and_then(|node| self.moment_of(node)).unwrap_or_default(),
        })
    }

    fn labels(&mut self, node: &'a Node, what: &str) -> BTreeMap<String, String> {
        let entries = self.entries(node, what).unwrap_or_default();
        entries.iter().filter_map(|(key, node)| Some((key.text.clone(), self.scalar(node, "a text")?))).collect()
    }

    fn mocks(&mut self, node: &'a Node) -> Vec<StepMock> {
        let mut mocks = Vec::new();
        for (key, node) in self.entries(node, "mocks").unwrap_or_default() {
            let items = match &node.kind {
                Kind::List(items) => items.as_slice(),
                _ => std::slice::from_ref(node),
            };
            if items.is_empty() {
                self.report
                    .error("wrong-value", node.span, format!("the mocks of {} are empty", key.text))
                    .help("give one for each attempt; the last repeats");
            }
            let attempts: Vec<_> = items.iter().filter_map(|item| self.mock(item)).collect();
            if !attempts.is_empty() {
                mocks.push(StepMock { step: key.text.clone(), place: Place(key.span), attempts });
            }
        }
        mocks
    }

    fn mock(&mut self, node: &'a Node) -> Option<Mock> {
        let entries = self.entries(node, "a mock")?;
        self.known_keys(entries, of_tests::MOCK, "a mock");
        let takes = node.get("takes").and_then(|node| self.moment_of(node)).unwrap_or_default();
        let result = node.get("result").map(Node::to_json);
        let outcome = match (node.get("fails"), node.get("unknown")) {
            (Some(_), Some(unknown)) => {
                self.report.error("wrong-value", unknown.span, "an attempt fails or is unknown, not both");
                return None;
            }
            (Some(fails), None) => MockOutcome::Fails {
                error: self.string(fails)?,
                result,
                retryable: node.get("retryable").and_then(|node| self.bool(node)).unwrap_or(true),
            },
            (None, Some(unknown)) => {
                if let Some((key, _)) = entries.iter().find(|(key, _)| key.text == "result") {
                    self.report.error("not-applicable", key.span, "an unknown attempt has no result");
                }
                MockOutcome::Unknown(self.string(unknown)?)
            }
            (None, None) => MockOutcome::Succeeds(result),
        };
        if let Some((key, _)) = entries.iter().find(|(key, _)| key.text == "retryable")
            && !matches!(outcome, MockOutcome::Fails { .. })
        {
            self.report.error("not-applicable", key.span, "retryable stands beside fails");
        }
        Some(Mock { outcome, takes })
    }

    fn moment(&mut self, node: &'a Node) -> Option<Moment> {
        let entries = self.entries(node, "a moment")?;
        self.known_keys(entries, of_tests::MOMENT, "a moment");
        let Some(at) = node.get("at") else {
            self.report.error("missing-key", node.span, "the moment has no time").help("add at: 5m");
            return None;
        };
        let at = self.moment_of(at)?;
        let mut happens = Vec::new();
        let mut expect = Vec::new();
        for (key, value) in entries {
            match key.text.as_str() {
                "answer" => {
                    for (step, word) in self.entries(value, "answer").unwrap_or_default() {
                        if let Some(answer) = self.word(word, &["succeeded", "failed", "retry"]) {
                            let place = Place(step.span);
                            happens.push(Happening::Answer { step: step.text.clone(), place, answer });
                        }
                    }
                }
                "resolve" => happens.extend(self.which(value, key).map(Happening::Resolve)),
                "fire" => happens.extend(self.which(value, key).map(Happening::Fire)),
                "emit" => happens.extend(self.event(value).map(|event| Happening::Emit(event, Place(value.span)))),
                "cancel" => happens.extend(self.string(value).map(Happening::Cancel)),
                "acknowledge" => happens.extend(self.truth(value).then_some(Happening::Acknowledge)),
                "crash" => happens.extend(self.truth(value).then_some(Happening::Crash)),
                "expect" => expect = self.expect(value),
                _ => {}
            }
        }
        if entries.len() == 1 {
            self.report
                .error("missing-key", node.span, "nothing happens at this moment, and nothing is expected")
                .help("add one of answer, resolve, fire, emit, cancel, acknowledge, crash, expect");
        }
        Some(Moment { at, place: Place(node.span), happens, expect })
    }

    fn truth(&mut self, node: &'a Node) -> bool {
        let said = self.bool(node);
        if said == Some(false) {
            self.report.error("wrong-value", node.span, "only true means something here").help("remove it");
        }
        said == Some(true)
    }

    /// `true` for all, or labels.
    fn which(&mut self, node: &'a Node, key: &Key) -> Option<BTreeMap<String, String>> {
        match &node.kind {
            Kind::Map(_) => Some(self.labels(node, &key.text)),
            _ => self.truth(node).then(BTreeMap::new),
        }
    }

    /// A duration, which may be nothing.
    fn moment_of(&mut self, node: &'a Node) -> Option<Duration> {
        let text = self.scalar(node, "a duration such as 30s")?;
        if text == "0" {
            return Some(Duration::ZERO);
        }
        match parse_duration(&text) {
            Ok(duration) => Some(duration),
            Err(error) => {
                self.report.error("wrong-value", node.span, error.to_string());
                None
            }
        }
    }

    fn expect(&mut self, node: &'a Node) -> Vec<Expectation> {
        let mut all = Vec::new();
        let Some(entries) = self.entries(node, "expect") else { return all };
        self.known_keys(entries, of_tests::EXPECT, "expect");
        if entries.is_empty() {
            self.report.error("wrong-value", node.span, "nothing is expected").help("add run: succeeded");
        }
        for (key, value) in entries {
            let path = format!("expect.{}", key.text);
            let mut push = |path: String, place: Span, want: Want| {
                all.push(Expectation { place: Place(place), path, want });
            };
            match key.text.as_str() {
                "run" => {
                    if let Some(word) = self.word(value, of_tests::RUN_STATES) {
                        push(path, key.span, Want::Run(word));
                    }
                }
                "runs" => {
                    if let Some(count) = self.whole(value, 0, 10_000) {
                        push(path, key.span, Want::Runs(count));
                    }
                }
                "steps" => {
                    for (step, state) in self.entries(value, "steps").unwrap_or_default() {
                        if let Some(word) = self.word(state, of_tests::STEP_STATES) {
                            push(format!("{path}.{}", step.text), step.span, Want::Step(step.text.clone(), word));
                        }
                    }
                }
                "order" => {
                    let steps = self.texts(value, "order").into_iter().map(|(step, _)| step).collect();
                    push(path, value.span, Want::Order(steps));
                }
                "calls" => {
                    for (step, call) in self.entries(value, "calls").unwrap_or_default() {
                        if let Some(want) = self.calls(&step.text, call) {
                            push(format!("{path}.{}", step.text), step.span, want);
                        }
                    }
                }
                "outputs" => {
                    for (step, outputs) in self.entries(value, "outputs").unwrap_or_default() {
                        self.entries(outputs, "a step's outputs");
                        let want = Want::Outputs(step.text.clone(), outputs.to_json());
                        push(format!("{path}.{}", step.text), step.span, want);
                    }
                }
                "inputs" => {
                    self.entries(value, "inputs");
                    push(path, key.span, Want::Inputs(value.to_json()));
                }
                "errors" => {
                    for (step, text) in self.entries(value, "errors").unwrap_or_default() {
                        if let Some(text) = self.string(text) {
                            push(format!("{path}.{}", step.text), step.span, Want::Error(step.text.clone(), text));
                        }
                    }
                }
                "messages" | "no_messages" => {
                    for (text, span) in self.texts(value, &key.text) {
                        let want = if key.text == "messages" { Want::Message(text) } else { Want::Silence(text) };
                        push(path.clone(), span, want);
                    }
                }
                "incident" => {
                    if let Some(word) = self.word(value, of_tests::INCIDENT_STATES) {
                        push(path, key.span, Want::Incident(word));
                    }
                }
                "severity" => {
                    if let Some(word) = self.word(value, &["P0", "P1", "P2", "P3"]) {
                        push(path, key.span, Want::Severity(word));
                    }
                }
                "key" => {
                    if let Some(text) = self.string(value) {
                        push(path, key.span, Want::Key(text));
                    }
                }
                "refused" => {
                    if let Some(text) = self.string(value) {
                        push(path, key.span, Want::Refused(text));
                    }
                }
                _ => {}
            }
        }
        all
    }

    fn calls(&mut self, step: &str, node: &'a Node) -> Option<Want> {
        let count = |node: &Node, checker: &mut Self| checker.whole(node, 0, keys::MOST_ATTEMPTS * 100);
        if let Kind::Number(_) = node.kind {
            let count = count(node, self);
            return Some(Want::Calls { step: step.to_owned(), count, with: None, env: None });
        }
        let entries = self.entries(node, "the calls of a step")?;
        self.known_keys(entries, of_tests::CALLS, "the calls of a step");
        for key in ["with", "env"] {
            if let Some(node) = node.get(key) {
                self.entries(node, key);
            }
        }
        Some(Want::Calls {
            step: step.to_owned(),
            count: node.get("count").and_then(|node| count(node, self)),
            with: node.get("with").map(Node::to_json),
            env: node.get("env").map(Node::to_json),
        })
    }
}
