//! Items, verification, polling and taking back, one behaviour a test.

#![expect(clippy::unwrap_used, reason = "what helpers of tests cannot do fails the test")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use stanch_core::alert::AlertStatus;
use stanch_core::attempt::Purpose;
use stanch_core::record::{Actor, Answer};
use stanch_core::run::Run;
use stanch_core::{Assignment, Command, Outcome, Rejected, RunId, Settings};
use stanch_playbook::{StepKey, Timestamp};
use stanch_simulator::Simulation;

const FIRST: Timestamp = Timestamp::from_millis(1_789_999_000_000);

fn on_down(phases: &str) -> (Simulation, RunId) {
    let text = format!("playbook: down\ntriggers:\n  - alertmanager: {{matchers: ['alertname=\"Down\"']}}\n{phases}");
    let plan = stanch_playbook::load("test.yaml", &text).unwrap_or_else(|bad| panic!("{bad}")).plan;
    let mut simulation = Simulation::new(vec![Arc::new(plan)], Settings::default()).checking();
    let run = simulation.alert(&[("alertname", "Down")], FIRST, AlertStatus::Firing).runs[0];
    (simulation, run)
}

fn ok() -> Outcome {
    Outcome::Succeeded { output: json!({"status": 200}) }
}

fn not_yet() -> Outcome {
    Outcome::Succeeded { output: json!({"status": 404}) }
}

fn no() -> Outcome {
    Outcome::Failed { error: "refused".into(), output: None, retry_after: None, retryable: true }
}

fn unknown() -> Outcome {
    Outcome::Unknown { reason: "reset".into() }
}

fn url(assignment: &Assignment) -> String {
    let method = assignment.with["method"].as_str().unwrap_or("GET");
    format!("{method} {}", assignment.with["url"].as_str().unwrap_or_default())
}

fn under_way(simulation: &Simulation) -> Vec<String> {
    simulation.in_flight.iter().map(url).collect()
}

/// Ends the attempt with this request.
fn end(simulation: &mut Simulation, request: &str, outcome: Outcome) {
    let found = simulation.in_flight.iter().find(|assignment| url(assignment) == request).cloned();
    let assignment = found.unwrap_or_else(|| panic!("no {request:?} among {:?}", under_way(simulation)));
    simulation.finish(&assignment, outcome).unwrap();
}

fn pass(simulation: &mut Simulation, seconds: u64) {
    simulation.now = simulation.now.plus(Duration::from_secs(seconds));
    simulation.command(Command::FireTimers).unwrap();
}

fn run(simulation: &Simulation, id: RunId) -> Arc<Run> {
    Arc::clone(simulation.run(id).unwrap())
}

fn state(simulation: &Simulation, id: RunId, index: usize) -> &'static str {
    run(simulation, id).steps[index].state.as_str()
}

fn inforce(simulation: &Simulation) -> Vec<(String, &'static str)> {
    let shown = |of: &Arc<stanch_core::containment::Containment>| {
        (of.undo.with["url"].as_str().unwrap_or_default().to_owned(), of.state.as_str())
    };
    simulation.state.inforce.values().map(shown).collect()
}

const EACH: &str = r#"
contain:
  act:
    foreach: "['a', 'b', 'c']"
    max_parallel: 2
    uses: http
    with: {method: PUT, url: "x/{{ item }}"}
    retry: {max_attempts: 2, jitter: none}
"#;

#[test]
fn items_run_side_by_side_up_to_the_limit_and_each_on_its_own() {
    let (mut simulation, id) = on_down(EACH);
    assert_eq!(under_way(&simulation), ["PUT x/a", "PUT x/b"]);
    end(&mut simulation, "PUT x/a", no());
    // Its retry waits; no further item takes its slot.
    assert_eq!(under_way(&simulation), ["PUT x/b"]);
    end(&mut simulation, "PUT x/b", ok());
    assert_eq!(under_way(&simulation), ["PUT x/c"]);
    end(&mut simulation, "PUT x/c", ok());
    pass(&mut simulation, 1);
    end(&mut simulation, "PUT x/a", ok());
    let run = run(&simulation, id);
    assert_eq!((run.state(), run.steps[0].items.len()), ("succeeded", 3));
}

#[test]
fn one_item_that_fails_lets_the_others_finish_and_fails_the_step() {
    let (mut simulation, id) = on_down(EACH);
    for _ in 0..2 {
        end(&mut simulation, "PUT x/a", no());
        pass(&mut simulation, 2);
    }
    end(&mut simulation, "PUT x/b", ok());
    end(&mut simulation, "PUT x/c", ok());
    let run = run(&simulation, id);
    assert_eq!(run.state(), "failed");
    let error = run.steps[0].state.error().unwrap();
    assert_eq!(&**error, "1 of 3 items failed; item 0 (\"a\"): refused");
}

#[test]
fn an_unknown_item_holds_no_slot_and_takes_its_own_answer() {
    let (mut simulation, id) =
        on_down(&EACH.replace("PUT", "POST").replace("    retry: {max_attempts: 2, jitter: none}\n", ""));
    end(&mut simulation, "POST x/a", unknown());
    assert_eq!(under_way(&simulation), ["POST x/b", "POST x/c"]);
    end(&mut simulation, "POST x/b", ok());
    end(&mut simulation, "POST x/c", ok());
    assert_eq!((run(&simulation, id).state(), state(&simulation, id, 0)), ("waiting", "waiting"));
    let answer = |item| Command::AnswerStep {
        actor: Actor::person("ann"),
        run: id,
        step: StepKey::new("contain.act"),
        item,
        answer: Answer::Succeeded,
        note: String::new(),
    };
    assert!(matches!(simulation.command(answer(Some(1))), Err(Rejected::NotUnknown { .. })));
    simulation.command(answer(Some(0))).unwrap();
    assert_eq!(run(&simulation, id).state(), "succeeded");
}

#[test]
fn ten_thousand_items_end_within_seconds() {
    let items: Vec<String> = (0..10_000).map(|at| format!("h{at}")).collect();
    let text = "playbook: many\ninputs: {hosts: {type: list, required: true}}\ncontain:\n  act:\n    foreach: inputs.hosts\n    max_parallel: 100\n    uses: http\n    with: {method: PUT, url: \"x/{{ item }}\"}\n  count: {needs: [act], uses: log, with: {message: \"{{ count steps.act.items }}\"}}\n";
    let plan = stanch_playbook::load("test.yaml", text).unwrap_or_else(|bad| panic!("{bad}")).plan;
    let mut simulation = Simulation::new(vec![Arc::new(plan)], Settings::default());
    let event = stanch_core::event::Event {
        id: "1".into(),
        source: "test".into(),
        kind: "request".into(),
        time: simulation.now,
        subject: None,
        data: serde_json::Value::Null,
    };
    let inputs = json!({"hosts": items}).as_object().unwrap().clone();
    let target =
        stanch_core::command::Target::Playbook { playbook: stanch_playbook::PlaybookName::new("many"), inputs };
    let began = std::time::Instant::now();
    let receipt = simulation
        .command(Command::ReceiveEvent { actor: Actor::person("ann"), event: Arc::new(event), target })
        .unwrap();
    let mut most = 0;
    while let Some(assignment) = simulation.in_flight.front().cloned() {
        most = most.max(simulation.in_flight.len());
        simulation.finish(&assignment, ok()).unwrap();
    }
    assert_eq!((run(&simulation, receipt.runs[0]).state(), most), ("succeeded", 100));
    assert_eq!(simulation.dispatched.last().unwrap().with["message"], "10000");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

const VERIFIED: &str = r#"
contain:
  act:
    uses: http
    with: {method: POST, url: "do"}
    on_unknown: verify
    verify: {uses: http, with: {url: "look"}, until: "result.status == 200", every: 5s, within: 12s}
    outputs: {status: result.status}
"#;

#[test]
fn a_step_is_done_only_once_its_verification_holds() {
    let (mut simulation, id) = on_down(VERIFIED);
    end(&mut simulation, "POST do", ok());
    assert_eq!((state(&simulation, id, 0), run(&simulation, id).state()), ("verifying", "running"));
    pass(&mut simulation, 0);
    end(&mut simulation, "GET look", not_yet());
    assert!(under_way(&simulation).is_empty());
    pass(&mut simulation, 5);
    end(&mut simulation, "GET look", no());
    pass(&mut simulation, 5);
    end(&mut simulation, "GET look", ok());
    let run = run(&simulation, id);
    assert_eq!(run.state(), "succeeded");
    assert_eq!(run.steps[0].outputs["status"], 200, "the outputs are of the action, not of the look");
    let keys: Vec<_> = simulation.dispatched.iter().map(|of| of.idempotency_key.clone()).collect();
    assert_ne!(keys[0], keys[1], "a verification has a key of its own");
}

#[test]
fn the_conditions_of_the_catalogue_see_the_actions_inputs_and_those_of_the_step_the_playbooks() {
    let mut catalogue = stanch_playbook::Catalogue::new();
    let actions = r#"
actions:
  scale:
    inputs: {wanted: {type: int, required: true}, title: {type: string, default: "{{ incident.title }}"}}
    uses: http
    with: {url: "x/{{ inputs.wanted }}", method: PUT}
    retry: {max_attempts: 2, initial_interval: 1s, jitter: none, if: "error != inputs.title"}
    verify: {uses: http, with: {url: "y/{{ inputs.wanted }}"}, until: result.status == inputs.wanted}
    outputs: {more: "result.status + inputs.wanted", title: inputs.title}
"#;
    catalogue.load("a.catalogue.yaml", actions).unwrap();
    let text = "playbook: down\ninputs: {wanted: {type: int, default: 1}}\ntriggers:\n  - alertmanager: {matchers: ['alertname=\"Down\"']}\n\
                contain:\n  a: {uses: scale, with: {wanted: 404}, outputs: {own: inputs.wanted}}\n\
                recover:\n  b: {uses: scale, with: {wanted: 7}, outputs: {more: inputs.wanted}, verify: {uses: http, with: {url: z}, until: result.status == 199 + inputs.wanted}}\n";
    let plan =
        stanch_playbook::load_with("test.yaml", text, &catalogue).unwrap_or_else(|bad| panic!("{bad}")).remove(0).plan;
    let plan = stanch_playbook::Plan::from_canonical(plan.canonical()).unwrap();
    let mut simulation = Simulation::new(vec![Arc::new(plan)], Settings::default()).checking();
    let id = simulation.alert(&[("alertname", "Down")], FIRST, AlertStatus::Firing).runs[0];
    end(&mut simulation, "PUT x/404", no());
    pass(&mut simulation, 1);
    end(&mut simulation, "PUT x/404", ok());
    assert_eq!(*run(&simulation, id).steps[0].outputs, json!({"more": 604, "title": "a simulated alert", "own": 1}));
    simulation.crash();
    pass(&mut simulation, 5);
    end(&mut simulation, "GET y/404", ok());
    assert_eq!(state(&simulation, id, 0), "verifying");
    pass(&mut simulation, 5);
    end(&mut simulation, "GET y/404", not_yet());
    assert_eq!(state(&simulation, id, 0), "succeeded");
    end(&mut simulation, "PUT x/7", ok());
    assert_eq!(run(&simulation, id).steps[1].outputs["more"], json!(1));
    pass(&mut simulation, 5);
    end(&mut simulation, "GET z", ok());
    assert_eq!(run(&simulation, id).state(), "succeeded");
}

#[test]
fn a_failure_that_the_catalogue_takes_for_final_is_not_repeated() {
    let mut catalogue = stanch_playbook::Catalogue::new();
    let actions = "actions:\n  put:\n    inputs: {final: {type: string, required: true}}\n    uses: http\n    with: {url: x, method: PUT}\n    retry: {if: error != inputs.final}\n";
    catalogue.load("a.catalogue.yaml", actions).unwrap();
    for (word, wanted) in [("refused", "failed"), ("other", "backoff")] {
        let text = format!(
            "playbook: down\ntriggers:\n  - alertmanager: {{matchers: ['alertname=\"Down\"']}}\ncontain:\n  a: {{uses: put, with: {{final: {word}}}}}\n"
        );
        let plan = stanch_playbook::load_with("test.yaml", &text, &catalogue).unwrap().remove(0).plan;
        let mut simulation = Simulation::new(vec![Arc::new(plan)], Settings::default()).checking();
        let id = simulation.alert(&[("alertname", "Down")], FIRST, AlertStatus::Firing).runs[0];
        end(&mut simulation, "PUT x", no());
        let state = match simulation.run(id) {
            Some(run) => run.steps[0].state.as_str(),
            None => "failed",
        };
        assert_eq!(state, wanted);
    }
}

#[test]
fn a_verification_that_does_not_hold_in_time_fails_the_step() {
    let (mut simulation, id) = on_down(VERIFIED);
    end(&mut simulation, "POST do", ok());
    for seconds in [0, 5, 5] {
        pass(&mut simulation, seconds);
        end(&mut simulation, "GET look", not_yet());
    }
    let run = run(&simulation, id);
    assert_eq!(run.state(), "failed");
    assert!(run.steps[0].state.error().unwrap().contains("did not hold in 3 looks"), "{:?}", run.steps[0].state);
}

#[test]
fn a_lost_worker_leads_to_the_verification_and_not_to_a_second_time() {
    let (mut simulation, id) = on_down(VERIFIED);
    simulation.crash();
    assert_eq!(state(&simulation, id, 0), "verifying");
    pass(&mut simulation, 0);
    end(&mut simulation, "GET look", ok());
    assert_eq!(run(&simulation, id).state(), "succeeded");
    let done = simulation.dispatched.iter().filter(|of| of.attempt.purpose == Purpose::Do).count();
    assert_eq!(done, 1);
}

#[test]
fn a_polling_step_looks_again_until_its_condition_holds_or_its_time_is_over() {
    let text = "detect:\n  p: {uses: http, with: {url: q}, until: 'result.status == 200', every: 10s, within: 25s}\n";
    let (mut simulation, id) = on_down(text);
    end(&mut simulation, "GET q", not_yet());
    pass(&mut simulation, 10);
    end(&mut simulation, "GET q", ok());
    assert_eq!(run(&simulation, id).state(), "succeeded");
    let (mut simulation, id) = on_down(text);
    for outcome in [not_yet(), no(), not_yet()] {
        end(&mut simulation, "GET q", outcome);
        pass(&mut simulation, 10);
    }
    assert_eq!(run(&simulation, id).state(), "failed");
    assert_eq!(&**run(&simulation, id).steps[0].state.error().unwrap(), "until did not hold within 25s");
}

const UNDONE: &str = r#"
contain:
  on_failure: undo
  first: {uses: http, with: {method: PUT, url: one}, undo: {uses: http, with: {method: DELETE, url: one}}}
  second: {needs: [first], uses: http, with: {method: PUT, url: two}, undo: {uses: http, with: {method: DELETE, url: two}}}
  third: {needs: [second], uses: http, with: {method: POST, url: three}, undo: {uses: http, with: {method: DELETE, url: three}}}
  fourth: {needs: [second], uses: http, with: {method: POST, url: four}, on_unknown: fail}
finally:
  tell: {uses: log, with: {message: "{{ run.outcome }}"}}
"#;

fn up_to_the_failure() -> (Simulation, RunId) {
    let (mut simulation, id) = on_down(UNDONE);
    end(&mut simulation, "PUT one", ok());
    pass(&mut simulation, 1);
    end(&mut simulation, "PUT two", ok());
    pass(&mut simulation, 1);
    end(&mut simulation, "POST three", unknown());
    assert_eq!(run(&simulation, id).steps[2].state.as_str(), "unknown");
    end(&mut simulation, "POST four", no());
    (simulation, id)
}

#[test]
fn a_failure_takes_its_phase_back_the_last_first_and_only_then_runs_finally() {
    let (mut simulation, id) = up_to_the_failure();
    for request in ["DELETE three", "DELETE two", "DELETE one"] {
        assert_eq!((under_way(&simulation), run(&simulation, id).state()), (vec![request.to_owned()], "undoing"));
        end(&mut simulation, request, ok());
    }
    assert_eq!(simulation.in_flight[0].with["message"], "failed");
    let assignment = simulation.in_flight[0].clone();
    simulation.finish(&assignment, ok()).unwrap();
    assert_eq!(run(&simulation, id).state(), "failed");
    assert!(inforce(&simulation).is_empty());
}

#[test]
fn an_undo_is_retried_outlives_a_crash_and_stays_in_force_where_it_fails() {
    let (mut simulation, id) = up_to_the_failure();
    end(&mut simulation, "DELETE three", no());
    assert!(under_way(&simulation).is_empty());
    simulation.crash();
    pass(&mut simulation, 60);
    simulation.crash();
    pass(&mut simulation, 60);
    for _ in 0..8 {
        if under_way(&simulation) != ["DELETE three"] {
            break;
        }
        end(&mut simulation, "DELETE three", no());
        pass(&mut simulation, 120);
    }
    assert_eq!(under_way(&simulation), ["DELETE two"], "the others are taken back all the same");
    end(&mut simulation, "DELETE two", ok());
    end(&mut simulation, "DELETE one", ok());
    let assignment = simulation.in_flight[0].clone();
    simulation.finish(&assignment, ok()).unwrap();
    assert_eq!(run(&simulation, id).state(), "failed");
    assert_eq!(inforce(&simulation), [("three".to_owned(), "failed")]);
    // A person tries once more, under another key.
    let containment = *simulation.state.inforce.keys().next().unwrap();
    let again = Command::UndoContainment { actor: Actor::person("ann"), containment, reason: String::new() };
    simulation.command(again).unwrap();
    end(&mut simulation, "DELETE three", ok());
    assert!(inforce(&simulation).is_empty());
}

const LEASED: &str = "contain:\n  a: {uses: http, with: {method: PUT, url: one}, undo: {uses: http, with: {method: DELETE, url: one}, after: 1h}}\n";

#[test]
fn a_lease_outlives_its_run_and_takes_itself_back() {
    let (mut simulation, id) = on_down(LEASED);
    end(&mut simulation, "PUT one", ok());
    assert_eq!(run(&simulation, id).state(), "succeeded");
    assert_eq!(inforce(&simulation), [("one".to_owned(), "inforce")]);
    pass(&mut simulation, 3599);
    assert!(under_way(&simulation).is_empty());
    pass(&mut simulation, 1);
    end(&mut simulation, "DELETE one", ok());
    assert!(inforce(&simulation).is_empty());
}

#[test]
fn an_extended_lease_holds_and_an_ended_one_is_gone() {
    let (mut simulation, _) = on_down(LEASED);
    end(&mut simulation, "PUT one", ok());
    let containment = *simulation.state.inforce.keys().next().unwrap();
    let until = |seconds| Some(simulation.now.plus(Duration::from_secs(seconds)));
    let extend =
        |until| Command::ExtendContainment { actor: Actor::person("ann"), containment, until, reason: String::new() };
    let (two_hours, never) = (extend(until(7200)), extend(None));
    simulation.command(two_hours).unwrap();
    pass(&mut simulation, 4000);
    assert!(under_way(&simulation).is_empty());
    simulation.command(never).unwrap();
    pass(&mut simulation, 1_000_000);
    assert!(under_way(&simulation).is_empty());
    let past = Some(simulation.now);
    let late =
        Command::ExtendContainment { actor: Actor::person("ann"), containment, until: past, reason: String::new() };
    assert_eq!(simulation.command(late).unwrap_err(), Rejected::InThePast);
    let end = Command::EndContainment { actor: Actor::person("ann"), containment, reason: "by hand".to_owned() };
    simulation.command(end).unwrap();
    assert!(inforce(&simulation).is_empty());
}

#[test]
fn a_cancel_takes_back_only_where_it_is_asked_to() {
    for undo in [false, true] {
        let (mut simulation, id) = on_down(&format!("{LEASED}recover:\n  w: {{uses: wait, with: {{duration: 9h}}}}\n"));
        end(&mut simulation, "PUT one", ok());
        let cancel = Command::CancelRun { actor: Actor::person("ann"), run: id, reason: String::new(), undo };
        simulation.command(cancel).unwrap();
        if undo {
            assert_eq!(run(&simulation, id).state(), "undoing");
            end(&mut simulation, "DELETE one", ok());
        }
        assert_eq!(run(&simulation, id).state(), "cancelled");
        assert_eq!(inforce(&simulation).is_empty(), undo);
    }
}

#[test]
fn what_did_not_happen_is_not_in_force() {
    let (mut simulation, id) = on_down(&LEASED.replace("PUT", "POST"));
    end(&mut simulation, "POST one", unknown());
    assert_eq!(inforce(&simulation), [("one".to_owned(), "inforce")]);
    assert!(!simulation.state.inforce.values().next().unwrap().certain);
    let answer = Command::AnswerStep {
        actor: Actor::person("ann"),
        run: id,
        step: StepKey::new("contain.a"),
        item: None,
        answer: Answer::Failed,
        note: String::new(),
    };
    simulation.command(answer).unwrap();
    assert!(inforce(&simulation).is_empty());
}

#[test]
fn an_undo_is_given_what_the_step_itself_found_out() {
    let text = "contain:\n  a:\n    uses: http\n    with: {method: POST, url: rules}\n    outputs: {id: result.status}\n    undo: {uses: http, with: {method: DELETE, url: 'rules/{{ steps.a.outputs.id }}'}, after: 1m}\n";
    let (mut simulation, _) = on_down(text);
    end(&mut simulation, "POST rules", ok());
    pass(&mut simulation, 60);
    end(&mut simulation, "DELETE rules/200", ok());
}

#[test]
fn a_failure_is_retried_only_where_the_playbook_says_so() {
    for (error, state) in [("refused", "failed"), ("busy", "running")] {
        let text = "contain:\n  a: {uses: http, with: {method: PUT, url: x}, retry: {max_attempts: 3, if: \"error == 'busy'\"}}\n";
        let (mut simulation, id) = on_down(text);
        let outcome = Outcome::Failed { error: error.into(), output: None, retry_after: None, retryable: true };
        end(&mut simulation, "PUT x", outcome);
        assert_eq!(run(&simulation, id).state(), state);
    }
}

#[test]
fn what_is_done_and_taken_back_again_is_taken_back_under_another_key() {
    let (mut simulation, id) = on_down(&LEASED.replace("PUT", "POST"));
    end(&mut simulation, "POST one", unknown());
    let containment = *simulation.state.inforce.keys().next().unwrap();
    let undo = Command::UndoContainment { actor: Actor::person("ann"), containment, reason: String::new() };
    simulation.command(undo).unwrap();
    end(&mut simulation, "DELETE one", ok());
    let answer = Command::AnswerStep {
        actor: Actor::person("ann"),
        run: id,
        step: StepKey::new("contain.a"),
        item: None,
        answer: Answer::Retry,
        note: String::new(),
    };
    simulation.command(answer).unwrap();
    end(&mut simulation, "POST one", ok());
    pass(&mut simulation, 3600);
    end(&mut simulation, "DELETE one", ok());
    let undos = simulation.dispatched.iter().filter(|of| of.attempt.purpose == Purpose::Undo);
    let keys: Vec<_> = undos.map(|of| of.idempotency_key.clone()).collect();
    assert_ne!(keys[0], keys[1], "a target that has seen the first would do nothing for the second");
    stanch_simulator::check_history(&simulation.records).unwrap();
}

#[test]
fn an_undo_can_name_what_the_action_gave_and_is_not_there_where_nobody_knows() {
    let text = "contain:\n  a: {uses: http, with: {method: POST, url: one}, undo: {uses: http, with: {method: DELETE, url: \"{{ result.body.id }}\"}, after: 1h}}\n";
    let (mut simulation, _) = on_down(text);
    end(&mut simulation, "POST one", Outcome::Succeeded { output: json!({"body": {"id": "seven"}}) });
    pass(&mut simulation, 3600);
    end(&mut simulation, "DELETE seven", ok());
    assert!(inforce(&simulation).is_empty());
    let (mut simulation, _) = on_down(text);
    end(&mut simulation, "POST one", unknown());
    assert!(inforce(&simulation).is_empty());
}

#[test]
fn what_was_done_and_did_not_help_is_not_done_again_by_itself() {
    let text = "contain:\n  a:\n    uses: http\n    with: {method: PUT, url: one}\n    retry: {max_attempts: 5}\n    verify: {uses: http, with: {url: look}, until: result.status == 200, every: 10s, within: 20s}\n";
    let (mut simulation, id) = on_down(text);
    end(&mut simulation, "PUT one", ok());
    for seconds in [0, 10, 10] {
        pass(&mut simulation, seconds);
        end(&mut simulation, "GET look", not_yet());
    }
    pass(&mut simulation, 3600);
    assert_eq!((under_way(&simulation).len(), run(&simulation, id).state()), (0, "failed"));
}

#[test]
fn where_one_failure_is_enough_no_further_item_begins() {
    let (mut simulation, id) = on_down(
        &EACH
            .replace("max_parallel: 2", "max_parallel: 1\n    fail_fast: true")
            .replace("max_attempts: 2", "max_attempts: 1"),
    );
    end(&mut simulation, "PUT x/a", ok());
    end(&mut simulation, "PUT x/b", no());
    assert!(under_way(&simulation).is_empty());
    let run = run(&simulation, id);
    assert_eq!(run.state(), "failed");
    assert_eq!(&**run.steps[0].state.error().unwrap(), "1 of 3 items failed, 1 did not begin; item 1 (\"b\"): refused");
    stanch_simulator::check_history(&simulation.records).unwrap();
}

#[test]
fn what_a_later_step_made_final_is_not_taken_back_any_more() {
    let text = "contain:\n  a: {uses: http, with: {method: PUT, url: one}, undo: {uses: http, with: {method: DELETE, url: one}, after: 1h}}\nrecover:\n  b: {uses: http, with: {method: PUT, url: two}, ends: [a]}\n";
    let (mut simulation, id) = on_down(text);
    end(&mut simulation, "PUT one", ok());
    assert_eq!(inforce(&simulation).len(), 1);
    end(&mut simulation, "PUT two", ok());
    assert!(inforce(&simulation).is_empty());
    assert_eq!(run(&simulation, id).state(), "succeeded");
    pass(&mut simulation, 7200);
    assert!(under_way(&simulation).is_empty(), "its lease is over too");
    let (mut simulation, _) = on_down(text);
    end(&mut simulation, "PUT one", ok());
    for _ in 0..3 {
        end(&mut simulation, "PUT two", no());
        pass(&mut simulation, 60);
    }
    assert_eq!(inforce(&simulation).len(), 1, "a step that failed makes nothing final");
    stanch_simulator::check_history(&simulation.records).unwrap();
}
