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
