//! Cut any history anywhere, fold it again: state and outstanding effects equal those of the live engine.

#![expect(clippy::unwrap_used, reason = "what helpers of tests cannot do fails the test")]

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use stanch_core::alert::AlertStatus;
use stanch_core::command::Person;
use stanch_core::record::{Actor, Answer, Budget, Verdict, Waiting};
use stanch_core::run::StepState;
use stanch_core::{Command, Outcome, Settings, State};
use stanch_playbook::{Plan, Timestamp};
use stanch_simulator::{Simulation, check_history, fold};

const PLAYBOOKS: [&str; 10] = [
    r#"
playbook: host-down
concurrency: 2
triggers:
  - alertmanager: {matchers: ['alertname="Down"']}
    inputs: {host: alert.labels.host}
inputs: {host: {type: string, required: true}}
detect:
  ask: {uses: http, with: {url: "https://edr.corp/{{ inputs.host }}"}, outputs: {status: result.status}}
  look: {uses: exec, with: {argv: [./look.sh]}, continue_on_error: true}
contain:
  cordon: {uses: exec, with: {argv: [./cordon.sh]}, env: {HOST: "{{ inputs.host }}"}}
  tell: {needs: [cordon], if: "steps.ask.outputs.status == 200", uses: log, with: {message: "cordoned {{ inputs.host }}"}}
recover:
  quiet: {uses: wait, with: {for: resolved, settle: 10s}, timeout: 10m}
finally:
  report: {uses: log, with: {message: "{{ run.outcome }}"}}
"#,
    r#"
playbook: cluster-down
triggers:
  - alertmanager: {matchers: ['alertname="Down"']}
    key: "cluster/{{ alert.labels.cluster }}"
detect:
  pause: {uses: wait, with: {duration: 5s}}
  note: {needs: [pause], uses: log, with: {message: "{{ alert.labels.cluster }}"}}
"#,
    r#"
playbook: careful
triggers:
  - alertmanager: {matchers: ['alertname="Down"', 'cluster="b"']}
contain:
  once: {uses: exec, with: {argv: [./once.sh]}, on_unknown: fail}
"#,
    r#"
playbook: isolate
triggers:
  - alertmanager: {matchers: ['alertname="Down"', 'cluster="a"']}
    key: "isolate/{{ alert.labels.cluster }}"
detect:
  settled: {uses: http, with: {url: "https://edr.corp/queue"}, until: "result.status == 200", every: 5s, within: 30s}
contain:
  on_failure: undo
  isolate:
    foreach: "['x', 'y', 'z']"
    max_parallel: 2
    uses: http
    with: {method: POST, url: "https://edr.corp/{{ item }}"}
    on_unknown: verify
    verify: {uses: http, with: {url: "https://edr.corp/{{ item }}"}, until: "result.status == 200", every: 5s, within: 20s}
    undo: {uses: http, with: {method: DELETE, url: "https://edr.corp/{{ item }}"}, after: 5m}
  gate:
    uses: exec
    with: {argv: [./gate.sh]}
    undo: {uses: exec, with: {argv: [./open.sh]}}
eradicate:
  wipe: {uses: exec, with: {argv: [./wipe.sh]}, if: "steps.isolate.items.all(i, i.state == 'succeeded')"}
"#,
    r#"
playbook: parent
incident: {on_repeat: queue, on_resolved: recover, settle: 5s, escalation: {acknowledge_within: 1m, notify: [{after: 30s, people: [ann]}]}}
triggers:
  - alertmanager: {matchers: ['alertname="Down"', 'cluster="b"']}
    key: "parent/{{ alert.labels.cluster }}"
    group_wait: 20s
hold: 10s
contain:
  ask: {uses: approval, with: {prompt: "{{ count incident.alerts }}?", quorum: 1, escalate: [{after: 1m, people: [ann]}, {after: 3m, people: [bob]}]}, timeout: 5m, on_timeout: approve}
  each:
    needs: [ask]
    uses: playbook
    with: {playbook: child, inputs: {host: "{{ incident.key }}"}}
    timeout: 10m
recover:
  quiet: {uses: wait, with: {for: resolved, settle: 10s}, timeout: 10m}
"#,
    r#"
playbook: child
concurrency: 2
inputs: {host: {type: string, required: true}}
contain:
  act:
    uses: http
    with: {method: PUT, url: "https://edr.corp/{{ inputs.host }}"}
    budget: acts
    undo: {uses: http, with: {method: DELETE, url: "https://edr.corp/{{ inputs.host }}"}, after: 1m}
recover:
  back: {uses: undo, with: {step: act}}
"#,
    r#"
playbook: nested
triggers:
  - alertmanager: {matchers: ['alertname="Down"', 'host=~"h0|h3"']}
    key: "nested/{{ alert.labels.host }}"
contain:
  on_failure: undo
  first: {uses: http, with: {method: PUT, url: first}, undo: {uses: http, with: {method: DELETE, url: first}}}
  inner: {uses: playbook, with: {playbook: inner}, timeout: 90s}
  beside: {uses: exec, with: {argv: [./beside.sh]}, on_unknown: fail, undo: {uses: http, with: {method: DELETE, url: beside}}}
recover:
  back: {uses: undo, with: {step: inner}, continue_on_error: true}
finally:
  tell: {uses: log, with: {message: "{{ run.outcome }}"}}
"#,
    r#"
playbook: inner
contain:
  on_failure: undo
  fence: {uses: http, with: {method: PUT, url: fence}, undo: {uses: http, with: {method: DELETE, url: fence}, after: 3m}}
  deeper: {needs: [fence], uses: playbook, with: {playbook: child, inputs: {host: deep}}}
recover:
  mark: {uses: http, with: {method: PUT, url: mark}, undo: {uses: http, with: {method: DELETE, url: mark}}}
finally:
  tell: {uses: log, with: {message: "{{ run.outcome }}"}}
"#,
    r#"
playbook: restarting
incident: {on_repeat: restart, on_resolved: cancel}
triggers:
  - alertmanager: {matchers: ['alertname="Down"']}
    key: all
detect:
  scan: {uses: wait, with: {for: {alertmanager: {matchers: ['host="h3"']}}}, timeout: 2m, continue_on_error: true}
  act: {needs: [scan], uses: exec, with: {argv: [./act.sh]}}
"#,
    r#"
playbook: watching
mode: observe
triggers:
  - alertmanager: {matchers: ['alertname="Down"']}
detect:
  act: {uses: exec, with: {argv: [./act.sh]}}
"#,
];

fn plans() -> Vec<Arc<Plan>> {
    let load =
        |text: &&str| Arc::new(stanch_playbook::load("test.yaml", text).unwrap_or_else(|bad| panic!("{bad}")).plan);
    PLAYBOOKS.iter().map(load).collect()
}

#[derive(Debug, Clone)]
enum Act {
    Fire { host: u8, episode: u8 },
    Resolve { host: u8, episode: u8 },
    Finish { which: u8, how: u8 },
    Pass { seconds: u16 },
    Timers,
    Cancel { which: u8, undo: bool },
    Contained { which: u8, how: u8 },
    Decide { which: u8, how: u8 },
    Answer { which: u8, how: u8 },
    Crash,
    CloseIncident { which: u8 },
    Manage { which: u8, how: u8 },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..4u8, 0..3u8).prop_map(|(host, episode)| Act::Fire { host, episode }),
        3 => (0..4u8, 0..3u8).prop_map(|(host, episode)| Act::Resolve { host, episode }),
        8 => (any::<u8>(), 0..6u8).prop_map(|(which, how)| Act::Finish { which, how }),
        3 => (0..400u16).prop_map(|seconds| Act::Pass { seconds }),
        4 => Just(Act::Timers),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(which, undo)| Act::Cancel { which, undo }),
        2 => (any::<u8>(), 0..3u8).prop_map(|(which, how)| Act::Contained { which, how }),
        2 => (any::<u8>(), 0..4u8).prop_map(|(which, how)| Act::Decide { which, how }),
        2 => (any::<u8>(), 0..3u8).prop_map(|(which, how)| Act::Answer { which, how }),
        1 => Just(Act::Crash),
        1 => any::<u8>().prop_map(|which| Act::CloseIncident { which }),
        2 => (any::<u8>(), 0..9u8).prop_map(|(which, how)| Act::Manage { which, how }),
    ]
}

fn outcome(how: u8) -> Outcome {
    match how {
        0..=2 => Outcome::Succeeded { output: serde_json::json!({"status": 200}) },
        3 => Outcome::Failed { error: "no".into(), output: None, retry_after: None, retryable: true },
        4 => Outcome::Failed { error: "never".into(), output: None, retry_after: None, retryable: false },
        _ => Outcome::Unknown { reason: "reset".into() },
    }
}

fn perform(simulation: &mut Simulation, act: &Act) {
    let start = |episode: u8| Timestamp::from_millis(1_790_000_000_000 + i64::from(episode) * 40_000);
    let hosts = ["h0", "h1", "h2", "h3"];
    let cluster = |host: u8| if host < 2 { "a" } else { "b" };
    match act {
        Act::Fire { host, episode } => {
            let labels = [("alertname", "Down"), ("host", hosts[usize::from(*host)]), ("cluster", cluster(*host))];
            simulation.alert(&labels, start(*episode), AlertStatus::Firing);
        }
        Act::Resolve { host, episode } => {
            let labels = [("alertname", "Down"), ("host", hosts[usize::from(*host)]), ("cluster", cluster(*host))];
            let ends_at = Some(start(*episode).plus(Duration::from_secs(20)));
            simulation.alert(&labels, start(*episode), AlertStatus::Resolved { ends_at });
        }
        Act::Finish { which, how } => {
            if let Some(at) = usize::from(*which).checked_rem(simulation.in_flight.len()) {
                let assignment = simulation.in_flight[at].clone();
                simulation.finish(&assignment, outcome(*how)).ok();
            }
        }
        Act::Pass { seconds } => simulation.now = simulation.now.plus(Duration::from_secs(u64::from(*seconds))),
        Act::Timers => {
            if let Some(at) = simulation.state.next_timer() {
                simulation.now = simulation.now.max(at);
            }
            simulation.command(Command::FireTimers).unwrap();
        }
        Act::Cancel { which, undo } => {
            let runs: Vec<_> = simulation.state.runs.keys().copied().collect();
            if let Some(at) = usize::from(*which).checked_rem(runs.len()) {
                let cancel = Command::CancelRun {
                    actor: Actor::person("ann"),
                    run: runs[at],
                    reason: "enough".to_owned(),
                    undo: *undo,
                };
                simulation.command(cancel).ok();
            }
        }
        Act::Answer { which, how } => {
            let mut asked = Vec::new();
            for run in simulation.state.runs.values() {
                let plan = simulation.state.plan(run.plan).unwrap();
                for (place, step) in run.started() {
                    if matches!(step.state, StepState::Unknown { .. }) {
                        asked.push((run.id, plan.steps[place.step].key.clone(), place.item));
                    }
                }
            }
            if let Some(at) = usize::from(*which).checked_rem(asked.len()) {
                let (run, step, item) = asked[at].clone();
                let answer = [Answer::Succeeded, Answer::Failed, Answer::Retry][usize::from(*how)];
                let command =
                    Command::AnswerStep { actor: Actor::person("ann"), run, step, item, answer, note: String::new() };
                simulation.command(command).unwrap();
            }
        }
        Act::Contained { which, how } => {
            let inforce: Vec<_> = simulation.state.inforce.keys().copied().collect();
            if let Some(at) = usize::from(*which).checked_rem(inforce.len()) {
                let (actor, containment, reason) = (Actor::person("ann"), inforce[at], "enough".to_owned());
                let until = Some(simulation.now.plus(Duration::from_secs(60)));
                let command = match how {
                    0 => Command::UndoContainment { actor, containment, reason },
                    1 => Command::ExtendContainment { actor, containment, until, reason },
                    _ => Command::EndContainment { actor, containment, reason },
                };
                simulation.command(command).ok();
            }
        }
        Act::Decide { which, how } => {
            let asked: Vec<_> = simulation.state.questions().map(|(_, _, question)| question.asked.clone()).collect();
            if let Some(at) = usize::from(*which).checked_rem(asked.len()) {
                let command = Command::DecideApproval {
                    actor: Actor::person("ann"),
                    person: Person { name: "ann".to_owned(), groups: Vec::new(), via: "test".to_owned() },
                    approval: asked[at].approval,
                    verdict: if *how == 0 { Verdict::Denied } else { Verdict::Approved },
                    digest: asked[at].digest.to_string(),
                    reason: String::new(),
                };
                simulation.command(command).ok();
            }
        }
        Act::Manage { which, how } => manage(simulation, *which, *how),
        Act::Crash => simulation.crash(),
        Act::CloseIncident { which } => {
            let open: Vec<_> = simulation.state.incidents.keys().copied().collect();
            if let Some(at) = usize::from(*which).checked_rem(open.len()) {
                let command =
                    Command::ResolveIncident { actor: Actor::person("ann"), incident: open[at], reason: String::new() };
                simulation.command(command).ok();
            }
        }
    }
}

fn manage(simulation: &mut Simulation, which: u8, how: u8) {
    let ann = Actor::person("ann");
    let incidents: Vec<_> = simulation.state.incidents.keys().copied().collect();
    let Some(at) = usize::from(which).checked_rem(incidents.len()) else { return };
    let windows: Vec<_> = simulation.state.maintenance.keys().copied().collect();
    let command = match how {
        0 => Command::Freeze { actor: ann, reason: "stop".to_owned() },
        1 => Command::Unfreeze { actor: ann, reason: String::new() },
        2 => Command::PlanMaintenance {
            actor: ann,
            declared: None,
            matchers: vec!["cluster=\"b\"".to_owned()],
            from: None,
            to: simulation.now.plus(Duration::from_secs(60)),
            reason: "switches".to_owned(),
        },
        3 => match windows.first() {
            Some(maintenance) => Command::EndMaintenance { actor: ann, maintenance: *maintenance },
            None => return,
        },
        4 => Command::MergeIncident { actor: ann, incident: incidents[at], into: incidents[0] },
        5 => Command::NoteClockJump { by_ms: i64::from(which) * 1000 - 100_000 },
        6 => Command::AgreeToClock { actor: ann },
        7 => Command::TakeIncident { actor: ann.clone(), incident: incidents[at], owner: ann },
        _ => Command::AcknowledgeIncident { actor: ann, incident: incidents[at] },
    };
    simulation.command(command).ok();
}

fn settings() -> Settings {
    let budget = Budget { most: 2, per: Duration::from_secs(120), from: Vec::new() };
    Settings { budgets: [("acts".to_owned(), budget)].into(), ..Settings::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_history_folds_to_the_live_state_wherever_it_is_cut(acts in prop::collection::vec(act(), 1..60)) {
        let mut simulation = Simulation::new(plans(), settings()).checking();
        let mut marks: Vec<(usize, State)> = Vec::new();
        for act in &acts {
            perform(&mut simulation, act);
            marks.push((simulation.records.len(), simulation.state.clone()));
        }
        check_history(&simulation.records).unwrap();
        for (length, state) in &marks {
            prop_assert_eq!(&fold(&simulation.records[..*length]).unwrap(), state);
        }
        // Between decisions too, a start finds a state that it can go on from.
        let stride = simulation.records.len() / 24 + 1;
        for cut in (0..=simulation.records.len()).step_by(stride) {
            check_history(&simulation.records[..cut]).unwrap();
        }
    }

    #[test]
    fn every_run_of_retried_steps_ends_whatever_happens(acts in prop::collection::vec(act(), 1..40)) {
        let mut simulation = Simulation::new(plans(), settings());
        for act in &acts {
            perform(&mut simulation, act);
        }
        for host in 0..4 {
            perform(&mut simulation, &Act::Resolve { host, episode: 9 });
        }
        let unfreeze = Command::Unfreeze { actor: Actor::person("ann"), reason: String::new() };
        simulation.command(unfreeze).ok();
        simulation.settle(&mut |_| outcome(0)).unwrap();
        // What is left waits for a person, or for a run that does.
        for run in simulation.state.runs.values() {
            let asks = run.started().any(|(_, step)| {
                let waits = |wait: &Waiting| matches!(wait, Waiting::Approval { .. } | Waiting::Run { .. });
                match &step.state {
                    StepState::Unknown { .. } => true,
                    StepState::Waiting { wait } => waits(wait),
                    _ => false,
                }
            });
            prop_assert!(asks || run.queued, "{run:?} does not end");
        }
    }
}
