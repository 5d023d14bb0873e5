//! How the attempts of a test come out.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use stanch_core::attempt::Purpose;
use stanch_core::{Assignment, AttemptId, Outcome, RunId, State};
use stanch_playbook::StepKey;
use stanch_playbook::test_file::{MockOutcome, Mocks, TestCase, item_text};

use crate::stage::Reply;

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
            let output = plausible(assignment);
            return Reply { outcome: Outcome::Succeeded { output }, takes: Duration::ZERO };
        };
        let outcome = match &mock.outcome {
            MockOutcome::Succeeds(result) => {
                let output = result.clone().unwrap_or_else(|| plausible(assignment));
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

/// The result of an action that went well and had nothing to say, in the shape that the action's results have.
#[must_use]
pub fn plausible(assignment: &Assignment) -> Value {
    shape(assignment.action.as_str(), &assignment.with)
}

fn shape(action: &str, with: &Value) -> Value {
    let given = |key: &str, other: &str| with[key].as_str().unwrap_or(other).to_owned();
    match action {
        "log" => json!({"message": given("message", "")}),
        "http" => json!({"status": 200, "headers": {}, "body": {}}),
        "exec" => json!({"exit_code": 0, "stdout": "", "stderr": ""}),
        "slack" => json!({"channel": given("channel", "C0"), "ts": "1767582000.000000"}),
        "nats.publish" => json!({"data": null}),
        "nats.request" => json!({"data": {}}),
        "prometheus" => json!({"value": null, "samples": [], "count": 0, "empty": true}),
        "alertmanager.silence" => json!({"id": given("id", "silence-1"), "until": "2030-01-01T00:00:00Z"}),
        "kubernetes" => object_changed(with),
        "email" => json!({"message_id": "<1@test>", "to": with["to"]}),
        "report" => json!({"title": "", "markdown": ""}),
        "pagerduty" => {
            json!({"dedup_key": given("dedup_key", "key-1"), "status": "success", "message": "Event processed"})
        }
        _ => json!({}),
    }
}

/// Of a change of a Kubernetes object.
fn object_changed(with: &Value) -> Value {
    let operation = with["operation"].as_str().unwrap_or_default();
    let namespace = with["namespace"].as_str().unwrap_or("default");
    if operation == "delete-pod" {
        let pods: Vec<&str> = with["name"].as_str().into_iter().collect();
        return json!({"namespace": namespace, "count": pods.len(), "pods": pods});
    }
    let (kind, before, after) = match operation {
        "cordon" => ("node", json!({"unschedulable": false}), json!({"unschedulable": true})),
        "uncordon" => ("node", json!({"unschedulable": true}), json!({"unschedulable": false})),
        "scale" => {
            let wanted = with["replicas"].as_str().and_then(|text| text.parse::<u32>().ok()).unwrap_or(1);
            ("deployment", json!({"replicas": 1}), json!({"replicas": wanted}))
        }
        "label" => {
            let labels = with["labels"].as_object().into_iter().flat_map(|labels| labels.keys());
            let none: Value = labels.map(|name| (name.clone(), Value::Null)).collect::<serde_json::Map<_, _>>().into();
            ("pod", json!({"labels": none}), json!({"labels": with["labels"]}))
        }
        _ => ("deployment", json!({}), json!({})),
    };
    json!({
        "kind": with["kind"].as_str().unwrap_or(kind),
        "namespace": if kind == "node" { Value::Null } else { namespace.into() },
        "name": with["name"],
        "changed": true,
        "before": before,
        "after": after,
    })
}

#[cfg(test)]
mod tests {
    use stanch_playbook::actions;

    use super::*;

    #[test]
    fn every_action_has_a_result_of_the_shape_that_its_description_says() {
        for signature in actions::ALL.iter().filter(|signature| !actions::is_kept_by_core(signature.name)) {
            let (_, told) = signature.doc.split_once("The result has ").expect(signature.name);
            for with in [json!({}), json!({"operation": "delete-pod", "name": "a"}), json!({"operation": "scale"})] {
                let shape = shape(signature.name, &with);
                let keys: Vec<&String> = shape.as_object().expect("an object").keys().collect();
                assert!(!keys.is_empty(), "{}", signature.name);
                assert!(keys.iter().all(|key| told.contains(key.as_str())), "{}: {keys:?} and {told}", signature.name);
            }
        }
    }
}
