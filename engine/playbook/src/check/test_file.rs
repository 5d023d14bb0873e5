//! A test file: every key and value, with its place.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::Checker;
use crate::catalogue::Catalogue;
use crate::diagnostic::{Report, Span};
use crate::document::{Key, Kind, Node};
use crate::keys;
use crate::nearest::nearest;
use crate::test_file::{
    AlertSpec, Decision, EventSpec, Expectation, Happening, Mock, MockOutcome, Mocks, Moment, Place, StepMock,
    TestCase, Want,
};
use crate::test_keys as of_tests;
use crate::time::{Timestamp, parse_duration};

/// People's groups, by name.
type People = BTreeMap<String, Vec<String>>;

/// The playbooks' directories and the tests of a document; `None` where it has neither. Errors are in the report.
pub(crate) fn test_file(text: &str, root: &Node, report: &mut Report) -> Option<(Vec<String>, Vec<TestCase>)> {
    Checker::new(text, report, &Catalogue::default()).test_file(root)
}

impl<'a> Checker<'a> {
    fn test_file(&mut self, root: &'a Node) -> Option<(Vec<String>, Vec<TestCase>)> {
        let entries = self.entries(root, "a test file")?;
        self.known_keys(entries, of_tests::FILE, "a test file");
        let playbooks = root.get("playbooks").map(|node| self.texts(node, "playbooks")).unwrap_or_default();
        let people = root.get("people").map(|node| self.known_people(node));
        let Some(tests) = root.get("tests") else {
            let place = Span { length: 0, ..root.span };
            self.report.error("missing-key", place, "a test file holds tests").help("add: tests: [{name: ..., ...}]");
            return None;
        };
        let items = self.items(tests, "tests").unwrap_or_default();
        let tests: Vec<TestCase> = items.iter().filter_map(|item| self.test(item, people.as_ref())).collect();
        for (index, test) in tests.iter().enumerate() {
            if let Some(first) = tests[..index].iter().find(|first| first.name == test.name) {
                let message = format!("a test named {:?} is already in line {}", test.name, first.place.line());
                self.report.error("duplicate-test", test.place.0, message).help("say what is different about this one");
            }
        }
        Some((playbooks.into_iter().map(|(path, _)| path).collect(), tests))
    }

    /// The groups of people, by name.
    fn known_people(&mut self, node: &'a Node) -> People {
        let mut people = People::new();
        for (name, of) in self.entries(node, "people").unwrap_or_default() {
            if !matches!(of.kind, Kind::Null) {
                let entries = self.entries(of, "a person").unwrap_or_default();
                self.known_keys(entries, of_tests::PERSON, "a person");
            }
            let groups = of.get("groups").map(|node| self.texts(node, "groups")).unwrap_or_default();
            people.insert(name.text.clone(), groups.into_iter().map(|(group, _)| group).collect());
        }
        people
    }

    fn test(&mut self, node: &'a Node, people: Option<&People>) -> Option<TestCase> {
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
        let mut before: Vec<Happening> = Vec::new();
        before.extend(node.get("freeze").and_then(|node| self.string(node)).map(Happening::Freeze));
        before.extend(node.get("maintenance").map(|node| self.maintenance(node)).unwrap_or_default());
        let mocks = node.get("mocks").map(|node| self.mocks(node)).unwrap_or_default();
        let mut then = Vec::new();
        for item in node.get("then").and_then(|node| self.items(node, "then")).unwrap_or_default() {
            then.extend(self.moment(item, people));
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
            before,
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
            let mut items = BTreeMap::new();
            if let Some(of) = node.get("items") {
                for (item, node) in self.entries(of, "items").unwrap_or_default() {
                    let own = self.mocks_of(node, &item.text, false);
                    items.insert(item.text.clone(), own);
                }
            }
            let own = self.mocks_of(node, &key.text, true);
            mocks.push(StepMock { step: key.text.clone(), place: Place(key.span), own, items });
        }
        mocks
    }

    /// The mocks of a step or of an item: a mock, a list of them, or one with what verifies and undoes it.
    fn mocks_of(&mut self, node: &'a Node, name: &str, step: bool) -> Mocks {
        let apart = |name: &&str| node.get(name).is_some();
        let extra: Vec<&str> = of_tests::STEP_MOCK.iter().map(|key| key.name).filter(apart).collect();
        let Kind::Map(entries) = &node.kind else {
            return Mocks { attempts: self.attempts(node, name), ..Mocks::default() };
        };
        if extra.is_empty() {
            return Mocks { attempts: self.attempts(node, name), ..Mocks::default() };
        }
        let known = of_tests::STEP_MOCK.iter().filter(|key| step || key.name != "items");
        let known: Vec<keys::Key> = known.chain(of_tests::MOCK).copied().collect();
        self.known_keys(entries, &known, "a mock");
        let own = entries.iter().find(|(key, _)| !extra.contains(&key.text.as_str()));
        let mut mocks = Mocks::default();
        match (node.get("do"), own) {
            (Some(_), Some((key, _))) => {
                let message = format!("{} and do say the same thing", key.text);
                self.report.error("conflicting-keys", key.span, message).help("put it into do");
            }
            (Some(of), None) => mocks.attempts = self.attempts(of, "do"),
            (None, Some(_)) => mocks.attempts = self.mock(node).into_iter().collect(),
            (None, None) => {}
        }
        mocks.verify = node.get("verify").map(|node| self.attempts(node, "verify")).unwrap_or_default();
        mocks.undo = node.get("undo").map(|node| self.attempts(node, "undo")).unwrap_or_default();
        mocks
    }

    fn attempts(&mut self, node: &'a Node, name: &str) -> Vec<Mock> {
        let items = match &node.kind {
            Kind::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        if items.is_empty() {
            self.report
                .error("wrong-value", node.span, format!("the mocks of {name} are empty"))
                .help("give one for each attempt; the last repeats");
        }
        items
            .iter()
            .filter_map(|item| {
                let entries = self.entries(item, "a mock")?;
                self.known_keys(entries, of_tests::MOCK, "a mock");
                self.mock(item)
            })
            .collect()
    }

    fn mock(&mut self, node: &'a Node) -> Option<Mock> {
        let entries = self.entries(node, "a mock")?;
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

    fn maintenance(&mut self, node: &'a Node) -> Vec<Happening> {
        let all = match &node.kind {
            Kind::List(all) => all.as_slice(),
            _ => std::slice::from_ref(node),
        };
        all.iter().filter_map(|one| self.window(one)).collect()
    }

    fn window(&mut self, node: &'a Node) -> Option<Happening> {
        let entries = self.entries(node, "maintenance")?;
        self.known_keys(entries, of_tests::MAINTENANCE, "maintenance");
        let matchers = self.value_of(node, "matchers", "matchers: ['cluster=\"eu\"']");
        let length = self.value_of(node, "for", "for: 2h");
        let reason = node.get("reason").and_then(|node| self.string(node)).unwrap_or_default();
        let (matchers, length) = (self.matcher_list(matchers?)?, self.duration(length?)?);
        Some(Happening::Maintenance { matchers, length, reason })
    }

    fn moment(&mut self, node: &'a Node, people: Option<&People>) -> Option<Moment> {
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
                    for (step, said) in self.entries(value, "answer").unwrap_or_default() {
                        let words: Vec<(Option<&Key>, &Node)> = match &said.kind {
                            Kind::Map(items) => items.iter().map(|(item, word)| (Some(item), word)).collect(),
                            _ => vec![(None, said)],
                        };
                        for (item, word) in words {
                            let Some(answer) = self.word(word, &["succeeded", "failed", "retry"]) else { continue };
                            let place = Place(item.map_or(step.span, |item| item.span));
                            let (step, item) = (step.text.clone(), item.map(|item| item.text.clone()));
                            happens.push(Happening::Answer { step, item, place, answer });
                        }
                    }
                }
                "approve" | "deny" => {
                    let all = match &value.kind {
                        Kind::List(all) => all.as_slice(),
                        _ => std::slice::from_ref(value),
                    };
                    let approves = key.text == "approve";
                    happens.extend(
                        all.iter().filter_map(|one| self.decision(one, approves, people)).map(Happening::Decide),
                    );
                }
                "undo" => {
                    let steps = self.texts(value, "undo").into_iter();
                    happens.extend(steps.map(|(step, span)| Happening::Undo(step, Place(span))));
                }
                "extend" => {
                    for (step, length) in self.entries(value, "extend").unwrap_or_default() {
                        let length = self.duration(length);
                        happens.extend(length.map(|by| Happening::Extend(step.text.clone(), by, Place(step.span))));
                    }
                }
                "freeze" => happens.extend(self.string(value).map(Happening::Freeze)),
                "maintenance" => happens.extend(self.maintenance(value)),
                "unfreeze" => happens.extend(self.truth(value).then_some(Happening::Unfreeze)),
                "undo_all" => {
                    self.truth(value);
                    if node.get("cancel").is_none() {
                        self.report.error("not-applicable", key.span, "undo_all stands beside cancel");
                    }
                }
                "resolve" => happens.extend(self.which(value, key).map(Happening::Resolve)),
                "fire" => happens.extend(self.which(value, key).map(Happening::Fire)),
                "emit" => happens.extend(self.event(value).map(|event| Happening::Emit(event, Place(value.span)))),
                "cancel" => {
                    let undo = node.get("undo_all").is_some();
                    happens.extend(self.string(value).map(|reason| Happening::Cancel { reason, undo }));
                }
                "acknowledge" => happens.extend(self.truth(value).then_some(Happening::Acknowledge)),
                "crash" => happens.extend(self.truth(value).then_some(Happening::Crash)),
                "expect" => expect = self.expect(value),
                _ => {}
            }
        }
        if entries.len() == 1 {
            self.report
                .error("missing-key", node.span, "nothing happens at this moment, and nothing is expected")
                .help("add one of answer, approve, deny, resolve, fire, emit, cancel, undo, extend, freeze, maintenance, expect");
        }
        Some(Moment { at, place: Place(node.span), happens, expect })
    }

    fn decision(&mut self, node: &'a Node, approves: bool, people: Option<&People>) -> Option<Decision> {
        let place = Place(node.span);
        if let Kind::Text(step) = &node.kind {
            let step = step.clone();
            return Some(Decision { step, place, approves, by: None, groups: None, reason: String::new() });
        }
        let entries = self.entries(node, "a decision")?;
        self.known_keys(entries, of_tests::DECISION, "a decision");
        let step = self.value_of(node, "step", "step: the step that asks")?;
        let groups = node.get("groups").map(|node| self.texts(node, "groups"));
        let groups = groups.map(|groups| groups.into_iter().map(|(group, _)| group).collect());
        let by = node.get("by").and_then(|node| Some((self.string(node)?, node.span)));
        let groups = match (&by, groups) {
            (Some((name, span)), None) => Some(self.groups_of(name, *span, people)),
            (_, groups) => groups,
        };
        Some(Decision {
            step: self.string(step)?,
            place,
            approves,
            by: by.map(|(name, _)| name),
            groups,
            reason: node.get("reason").and_then(|node| self.string(node)).unwrap_or_default(),
        })
    }

    /// The groups of a person who is named: nobody belongs to a group because a test would have it so.
    fn groups_of(&mut self, name: &str, span: Span, people: Option<&People>) -> Vec<String> {
        let Some(people) = people else { return Vec::new() };
        let Some(groups) = people.get(name) else {
            let help = match nearest(name, people.keys().map(String::as_str)) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("add {name}: {{groups: [...]}} to people, or groups here"),
            };
            self.report.error("unknown-person", span, format!("people of this file has no {name}")).help(help);
            return Vec::new();
        };
        groups.clone()
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
                "items" => {
                    for (step, items) in self.entries(value, "items").unwrap_or_default() {
                        for (item, state) in self.entries(items, "the items of a step").unwrap_or_default() {
                            let Some(state) = self.word(state, of_tests::STEP_STATES) else { continue };
                            let path = format!("{path}.{}.{}", step.text, item.text);
                            let (step, name) = (step.text.clone(), item.text.clone());
                            push(path, item.span, Want::Item { step, item: name, state });
                        }
                    }
                }
                "approvals" => match &value.kind {
                    Kind::Map(entries) => {
                        for (step, asked) in entries {
                            if let Some(want) = self.question(&step.text, asked) {
                                push(format!("{path}.{}", step.text), step.span, want);
                            }
                        }
                    }
                    _ => {
                        let steps = self.texts(value, "approvals").into_iter().map(|(step, _)| step).collect();
                        push(path, key.span, Want::Asks(steps));
                    }
                },
                "inforce" => {
                    let steps = self.texts(value, "inforce").into_iter().map(|(step, _)| step).collect();
                    push(path, key.span, Want::InForce(steps));
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

    fn question(&mut self, step: &str, node: &'a Node) -> Option<Want> {
        let entries = self.entries(node, "a question")?;
        self.known_keys(entries, of_tests::ASKED, "a question");
        let targets = node.get("targets").and_then(|node| self.entries(node, "targets")).unwrap_or_default();
        Some(Want::Question {
            step: step.to_owned(),
            prompt: node.get("prompt").and_then(|node| self.string(node)),
            targets: targets.iter().map(|(step, node)| (step.text.clone(), node.to_json())).collect(),
            state: node.get("state").and_then(|node| self.word(node, of_tests::ASKED_STATES)),
        })
    }

    fn calls(&mut self, step: &str, node: &'a Node) -> Option<Want> {
        let count = |node: &Node, checker: &mut Self| checker.whole(node, 0, keys::MOST_ATTEMPTS * 100);
        if let Kind::Number(_) = node.kind {
            let count = count(node, self);
            let (step, purpose) = (step.to_owned(), "do");
            return Some(Want::Calls { step, item: None, purpose, count, with: None, env: None });
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
            item: node.get("item").and_then(|node| self.scalar(node, "an item")),
            purpose: node.get("purpose").and_then(|node| self.word(node, &["do", "verify", "undo"])).unwrap_or("do"),
            count: node.get("count").and_then(|node| count(node, self)),
            with: node.get("with").map(Node::to_json),
            env: node.get("env").map(Node::to_json),
        })
    }
}
