//! The keys of a test file: one table for the checker and the JSON Schema.

use serde_json::{Value, json};

use crate::keys::{Key, Shape, required};
use crate::schema;

const fn key(name: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key { name, shape, doc, required: false }
}

pub(crate) const RUN_STATES: &[&str] =
    &["succeeded", "failed", "cancelled", "waiting", "running", "undoing", "queued", "none"];
pub(crate) const STEP_STATES: &[&str] = &[
    "pending",
    "blocked",
    "skipped",
    "running",
    "backoff",
    "waiting",
    "unknown",
    "verifying",
    "succeeded",
    "tolerated",
    "failed",
    "cancelled",
];
pub(crate) const INCIDENT_STATES: &[&str] = &["open", "acknowledged", "resolved", "none"];

pub(crate) const FILE: &[Key] = &[
    key(
        "playbooks",
        Shape::Texts,
        "Where the playbooks lie, relative to this file; its directory and below by default.",
    ),
    key(
        "people",
        Shape::MapOf(&Shape::Object(PERSON)),
        "Who decides in these tests, by name, with their groups; what stanch.yaml says of them.",
    ),
    required(key("tests", Shape::Any, "The tests.")),
];

pub(crate) const PERSON: &[Key] = &[key("groups", Shape::Texts, "The groups that they belong to.")];

pub(crate) const TEST: &[Key] = &[
    required(key("name", Shape::Text, "What it shows, in a sentence; unique in the file.")),
    required(key("playbook", Shape::Name, "The playbook's name.")),
    key("start", Shape::Text, "When the event comes, such as 2026-01-05T03:00:00Z, which is the default."),
    key("freeze", Shape::Text, "Side effects are stopped, for this reason, before the event comes."),
    key(
        "maintenance",
        Shape::Any,
        "Maintenance windows that have begun when the event comes: a map, or a list of them.",
    ),
    required(key("event", Shape::Any, "What comes in first.")),
    key(
        "mocks",
        Shape::Any,
        "How the attempts of steps come out, by the step's name, phase.name, or playbook/step for a step of a sub-playbook: a map, or a list of one for each attempt, of which the last repeats. An attempt without a mock succeeds with a result that its action could have.",
    ),
    key("then", Shape::Any, "What happens later, at moments of the virtual clock."),
    required(key("expect", Shape::Any, "What must be true once nothing more happens.")),
];

pub(crate) const EVENT: &[Key] = &[
    key("alert", Shape::Object(ALERT), "One alert fires."),
    key("alerts", Shape::ListOf(&Shape::Object(ALERT)), "Several alerts fire, in one delivery."),
    key(
        "file",
        Shape::Text,
        "A file beside this one: an Alertmanager webhook's body, a CloudEvent, or plain JSON with a subject.",
    ),
    key("subject", Shape::Text, "The NATS subject that the file's content came in on."),
    key("nats", Shape::Object(NATS), "A message comes in over NATS."),
    key("schedule", Shape::Whole { least: 0, most: 63 }, "A schedule of the playbook ticks; 0 is the first one."),
    key("inputs", Shape::Any, "A person starts the playbook with these inputs."),
];

pub(crate) const ALERT: &[Key] = &[
    required(key("labels", Shape::MapOf(&Shape::Template), "The alert's labels.")),
    key("annotations", Shape::MapOf(&Shape::Template), "The alert's annotations."),
    key("since", Shape::Duration, "For how long it has been firing when it comes in; it just began by default."),
];

pub(crate) const NATS: &[Key] = &[
    required(key("subject", Shape::Text, "The subject that the message comes in on.")),
    key("data", Shape::Any, "The message's content."),
];

pub(crate) const MOCK: &[Key] = &[
    key(
        "result",
        Shape::Any,
        "The action's result, such as {status: 200, body: {}} of http, {exit_code: 0, stdout: \"\"} of exec, {data: {}} of nats.request.",
    ),
    key("fails", Shape::Text, "The attempt fails, and this is why."),
    key("retryable", Shape::Bool, "Whether trying again could help a failed attempt; true by default."),
    key("unknown", Shape::Text, "Nobody knows whether the attempt happened, and this is why."),
    key(
        "takes",
        Shape::Duration,
        "How long the attempt takes; nothing by default. Longer than the step's timeout, it is unknown at that limit.",
    ),
];

/// Beside the keys of a mock, where it is a step's.
pub(crate) const STEP_MOCK: &[Key] = &[
    key(
        "do",
        Shape::Any,
        "How the step's own attempts come out, where it is written apart: a mock, or a list of them.",
    ),
    key("verify", Shape::Any, "How the looks of its verification come out: a mock, or a list of them."),
    key("undo", Shape::Any, "How the attempts to take it back come out: a mock, or a list of them."),
    key("items", Shape::Any, "The same for single items, by the item's text (JSON, where it is none)."),
];

pub(crate) const MOMENT: &[Key] = &[
    required(key("at", Shape::Duration, "How long after the start.")),
    key(
        "answer",
        Shape::Any,
        "What a person says became of unknown steps, by step, or by step and item: succeeded, failed or retry.",
    ),
    key("approve", Shape::Any, "People agree: the step that asks, or a map, or a list of these."),
    key("deny", Shape::Any, "People say no: the step that asks, or a map, or a list of these."),
    key("undo", Shape::Texts, "A person takes back what these steps did."),
    key(
        "extend",
        Shape::MapOf(&Shape::Duration),
        "A person keeps what a step did in force for so long from now on, by step.",
    ),
    key("freeze", Shape::Text, "A person stops all side effects, for this reason."),
    key("unfreeze", Shape::Bool, "A person lets side effects begin again."),
    key(
        "maintenance",
        Shape::Any,
        "A person holds back runs for some alerts, from this moment on: a map, or a list of them.",
    ),
    key("resolve", Shape::Any, "Alerts resolve: true for all that fire, or labels for those that have these."),
    key(
        "fire",
        Shape::Any,
        "An alert fires: true for the test's first one again, or labels to put in place of its own.",
    ),
    key("emit", Shape::Any, "Something else comes in; written as event."),
    key("cancel", Shape::Text, "A person cancels the run, for this reason."),
    key("undo_all", Shape::Bool, "Whether what the run did is taken back when it is cancelled; beside cancel."),
    key("acknowledge", Shape::Bool, "A person takes notice of the incident."),
    key("crash", Shape::Bool, "The engine dies and starts again; what was under way is lost."),
    key("expect", Shape::Any, "What must be true once all that happened at this moment has had its effects."),
];

pub(crate) const MAINTENANCE: &[Key] = &[
    required(key("matchers", Shape::Matchers, "Alertmanager's matchers, all of which an alert's labels must satisfy.")),
    required(key("for", Shape::Duration, "For how long.")),
    key("reason", Shape::Text, "Why."),
];

/// Who decides, where it is a map.
pub(crate) const DECISION: &[Key] = &[
    required(key("step", Shape::Text, "The step that asks.")),
    key("by", Shape::Text, "The person; one who may decide by default."),
    key(
        "groups",
        Shape::Texts,
        "The groups that the person belongs to; what people of the file says by default, and those that are asked where nobody is named.",
    ),
    key("reason", Shape::Text, "Why, by the person."),
];

/// What is expected of a question.
pub(crate) const ASKED: &[Key] = &[
    key("prompt", Shape::Text, "A part of the question."),
    key(
        "targets",
        Shape::MapOf(&Shape::Any),
        "What would be done, by step: rendered parameters, of which others may be there too; a list of them for items.",
    ),
    key("state", Shape::Word(ASKED_STATES), "Whether it is still asked, or how it was decided."),
];

pub(crate) const ASKED_STATES: &[&str] = &["open", "approved", "denied", "expired"];

pub(crate) const EXPECT: &[Key] = &[
    key("run", Shape::Word(RUN_STATES), "The state of the last run; none where none may have started."),
    key("runs", Shape::Whole { least: 0, most: 10_000 }, "How many runs of the playbook have started."),
    key(
        "steps",
        Shape::MapOf(&Shape::Word(STEP_STATES)),
        "The states of steps, by step; of a sub-playbook as playbook/step.",
    ),
    key(
        "items",
        Shape::MapOf(&Shape::MapOf(&Shape::Word(STEP_STATES))),
        "The states of items, by step and by the item's text.",
    ),
    key("approvals", Shape::Any, "The steps that ask people at this moment, no others; or questions by step."),
    key("inforce", Shape::Texts, "The steps of which something is in force, no others; of one item as step[item]."),
    key("order", Shape::Texts, "These steps started, in this order; others may lie between them."),
    key("calls", Shape::Any, "What the attempts of steps were given, by step: a number of attempts, or a map."),
    key("outputs", Shape::MapOf(&Shape::Any), "Outputs of steps, by step; others may be there too."),
    key("inputs", Shape::MapOf(&Shape::Any), "Inputs of the run; others may be there too."),
    key("errors", Shape::MapOf(&Shape::Text), "A part of why steps are not green, by step."),
    key(
        "messages",
        Shape::Texts,
        "Texts that slack and log steps must have said, or that Slack must have been told by itself: escalations of incidents and of approvals, how an incident stands (of P0 every 15 minutes, of P1 every 30, unless the playbook says otherwise), a watchdog, a freeze. Each is a part of one message; a question itself stands in approvals.",
    ),
    key("no_messages", Shape::Texts, "Texts that none of these may have said."),
    key("incident", Shape::Word(INCIDENT_STATES), "The incident's state; none where there may be none."),
    key("severity", Shape::Word(&["P0", "P1", "P2", "P3"]), "The incident's severity."),
    key("key", Shape::Text, "The incident's key."),
    key(
        "refused",
        Shape::Text,
        "A part of why what came in could not be used: what a person is told, or the dead letter says.",
    ),
];

pub(crate) const CALLS: &[Key] = &[
    key("count", Shape::Whole { least: 0, most: 10_000 }, "How many attempts were made; at least one by default."),
    key("item", Shape::Text, "The item whose attempts they are; all by default."),
    key("purpose", Shape::Word(&["do", "verify", "undo"]), "Whether they do, verify or undo; do by default."),
    key(
        "with",
        Shape::MapOf(&Shape::Any),
        "Rendered parameters; in maps, others may be there too. A secret is written as in the playbook.",
    ),
    key("env", Shape::MapOf(&Shape::Any), "Rendered environment; others may be there too."),
];

/// The JSON Schema (2020-12) of a test file, for editors: every key with a description, unknown keys refused.
#[must_use]
pub fn test_schema() -> Value {
    let reference = |name: &str| json!({"$ref": format!("#/$defs/{name}")});
    let list = |name: &str| json!({"type": "array", "items": reference(name)});
    let by_step = |inner: Value| json!({"type": "object", "additionalProperties": inner});
    let all_or_labels = json!({"anyOf": [
        {"const": true},
        {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}},
    ]});
    let mut root = table(FILE, &[("tests", list("test"))]);
    root["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    root["title"] = "Stanch tests of playbooks".into();
    let mocks = json!({"anyOf": [reference("mock"), {"type": "array", "items": reference("mock"), "minItems": 1}]});
    let apart = |keys: Vec<Key>, items: bool| {
        let mut shapes = vec![("do", mocks.clone()), ("verify", mocks.clone()), ("undo", mocks.clone())];
        if items {
            shapes.push(("items", by_step(reference("item_mock"))));
        }
        let one = table(&keys, &shapes);
        json!({"anyOf": [one, {"type": "array", "items": reference("mock"), "minItems": 1}]})
    };
    let of_item: Vec<Key> = STEP_MOCK.iter().filter(|key| key.name != "items").chain(MOCK).copied().collect();
    let of_step: Vec<Key> = STEP_MOCK.iter().chain(MOCK).copied().collect();
    let windows = json!({"anyOf": [table(MAINTENANCE, &[]), {"type": "array", "items": table(MAINTENANCE, &[])}]});
    let test = [
        ("maintenance", windows.clone()),
        ("event", reference("event")),
        ("mocks", by_step(reference("step_mock"))),
        ("then", list("moment")),
        ("expect", reference("expect")),
    ];
    let word = json!({"enum": ["succeeded", "failed", "retry"]});
    let decision = json!({"anyOf": [{"type": "string"}, table(DECISION, &[])]});
    let decisions = json!({"anyOf": [decision, {"type": "array", "items": decision}]});
    let asked = json!({"anyOf": [{"type": "array", "items": {"type": "string"}}, by_step(table(ASKED, &[]))]});
    let moment = [
        ("resolve", all_or_labels.clone()),
        ("fire", all_or_labels),
        ("emit", reference("event")),
        ("answer", by_step(json!({"anyOf": [word.clone(), by_step(word)]}))),
        ("approve", decisions.clone()),
        ("deny", decisions),
        ("maintenance", windows),
        ("expect", reference("expect")),
    ];
    let calls = by_step(json!({"anyOf": [{"type": "integer", "minimum": 0}, table(CALLS, &[])]}));
    let mut event = table(EVENT, &[("inputs", json!({"type": ["object", "null"]}))]);
    event["oneOf"] =
        EVENT.iter().filter(|key| key.name != "subject").map(|key| json!({"required": [key.name]})).collect();
    root["$defs"] = json!({
        "test": table(TEST, &test),
        "event": event,
        "mock": table(MOCK, &[]),
        "item_mock": apart(of_item, false),
        "step_mock": apart(of_step, true),
        "moment": table(MOMENT, &moment),
        "expect": table(EXPECT, &[("calls", calls), ("approvals", asked)]),
    });
    root
}

/// The schema of a table of keys, some of them with shapes that the table cannot say.
fn table(keys: &[Key], shapes: &[(&str, Value)]) -> Value {
    let mut object = schema::object(keys);
    for (name, shape) in shapes {
        let mut shape = shape.clone();
        shape["description"] = object["properties"][name]["description"].clone();
        object["properties"][name] = shape;
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undescribed(schema: &Value, at: &str, found: &mut Vec<String>) {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            for (name, property) in properties {
                if property.get("description").and_then(Value::as_str).is_none_or(str::is_empty) {
                    found.push(format!("{at}.{name}"));
                }
            }
        }
        match schema {
            Value::Object(map) => map.iter().for_each(|(key, value)| undescribed(value, &format!("{at}.{key}"), found)),
            Value::Array(list) => list.iter().for_each(|value| undescribed(value, at, found)),
            _ => {}
        }
    }

    #[test]
    fn every_key_of_the_schema_is_described() {
        let mut found = Vec::new();
        undescribed(&test_schema(), "", &mut found);
        assert_eq!(found, Vec::<String>::new());
    }
}
