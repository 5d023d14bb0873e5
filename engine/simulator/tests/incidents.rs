//! How incidents live: repeats, settling, escalation; and what holds runs back. One behaviour a test.

#![expect(clippy::unwrap_used, reason = "what helpers of tests cannot do fails the test")]

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use stanch_core::alert::{AlertChange, AlertStatus};
use stanch_core::command::{Person, Target};
use stanch_core::event::Event;
use stanch_core::record::{Actor, Budget, Verdict};
use stanch_core::{Body, Command, Outcome, Rejected, RunId, Settings};
use stanch_playbook::Timestamp;
use stanch_simulator::Simulation;

const FIRST: Timestamp = Timestamp::from_millis(1_789_999_000_000);

fn with(text: &str, settings: Settings) -> Simulation {
    let plan = stanch_playbook::load("test.yaml", text).unwrap_or_else(|bad| panic!("{bad}")).plan;
    Simulation::new(vec![Arc::new(plan)], settings).checking()
}

/// A playbook whose incident is the cluster's, with these keys and phases.
fn down(rest: &str) -> Simulation {
    with(
        &format!(
            "playbook: down\ntriggers:\n  - alertmanager: {{matchers: ['alertname=\"Down\"']}}\n    key: cluster\n{rest}"
        ),
        Settings::default(),
    )
}

fn fire(simulation: &mut Simulation, host: &str) -> Vec<RunId> {
    simulation.alert(&[("alertname", "Down"), ("host", host)], FIRST, AlertStatus::Firing).runs
}

fn resolve(simulation: &mut Simulation, host: &str) {
    let status = AlertStatus::Resolved { ends_at: Some(simulation.now) };
    simulation.alert(&[("alertname", "Down"), ("host", host)], FIRST, status);
}

fn pass(simulation: &mut Simulation, seconds: u64) {
    simulation.now = simulation.now.plus(Duration::from_secs(seconds));
    simulation.command(Command::FireTimers).unwrap();
}

fn finish_all(simulation: &mut Simulation) {
    while let Some(assignment) = simulation.in_flight.front().cloned() {
        simulation.finish(&assignment, Outcome::Succeeded { output: json!({"exit_code": 0, "status": 200}) }).unwrap();
    }
}

fn state(simulation: &Simulation, id: RunId) -> &'static str {
    simulation.run(id).unwrap().state()
}

fn kinds(simulation: &Simulation, kind: &str) -> usize {
    simulation.records.iter().filter(|record| record.body.kind() == kind).count()
}

const ACT: &str = "contain:\n  act: {uses: exec, with: {argv: [./act.sh, '{{ count alerts }}']}}\n";

#[test]
fn repeats_queue_behind_the_live_run_and_are_looked_at_together() {
    let mut simulation = down(&format!("incident: {{on_repeat: queue}}\n{ACT}"));
    let first = fire(&mut simulation, "a")[0];
    let second = fire(&mut simulation, "b")[0];
    assert!(fire(&mut simulation, "c").is_empty());
    assert_eq!((state(&simulation, first), state(&simulation, second)), ("running", "queued"));
    finish_all(&mut simulation);
    assert_eq!(simulation.dispatched[1].with["argv"][1], "2");
    assert_eq!(state(&simulation, second), "succeeded");
}

#[test]
fn a_repeat_restarts_the_run_only_once_what_was_under_way_has_ended() {
    let mut simulation = down(&format!("incident: {{on_repeat: restart}}\n{ACT}"));
    let first = fire(&mut simulation, "a")[0];
    let second = fire(&mut simulation, "b")[0];
    assert_eq!((state(&simulation, second), simulation.in_flight.len()), ("queued", 1));
    finish_all(&mut simulation);
    assert_eq!((state(&simulation, first), state(&simulation, second)), ("cancelled", "succeeded"));
}

#[test]
fn attached_and_ignored_repeats_start_nothing() {
    for word in ["attach", "ignore"] {
        let mut simulation = down(&format!("incident: {{on_repeat: {word}}}\n{ACT}"));
        fire(&mut simulation, "a");
        assert!(fire(&mut simulation, "b").is_empty());
        assert_eq!(simulation.state.incidents.values().next().unwrap().alerts.len(), 2);
    }
}

const PHASES: &str = "detect:\n  look: {uses: exec, with: {argv: [./look.sh]}}\n  pause: {needs: [look], uses: wait, with: {duration: 9h}}\ncontain:\n  act: {uses: exec, with: {argv: [./act.sh]}}\nrecover:\n  restore: {uses: exec, with: {argv: [./restore.sh]}}\nfinally:\n  tell: {uses: log, with: {message: '{{ run.outcome }}'}}\n";

#[test]
fn settled_alerts_send_a_run_on_to_recover_once_what_runs_has_ended() {
    let mut simulation = down(&format!("incident: {{on_resolved: recover, settle: 1m}}\n{PHASES}"));
    let run = fire(&mut simulation, "a")[0];
    resolve(&mut simulation, "a");
    pass(&mut simulation, 59);
    assert!(!simulation.run(run).unwrap().recovering);
    pass(&mut simulation, 1);
    assert!(simulation.run(run).unwrap().recovering);
    finish_all(&mut simulation);
    let argv: Vec<_> = simulation.dispatched.iter().map(|of| of.with["argv"][0].clone()).collect();
    assert_eq!(argv, [json!("./look.sh"), json!("./restore.sh"), json!(null)]);
    assert_eq!(state(&simulation, run), "succeeded");
    assert_eq!(simulation.run(run).unwrap().steps[2].state.as_str(), "skipped");
}

#[test]
fn an_event_restarts_the_live_run_once_and_the_next_one_is_for_the_run_that_waits() {
    let text = "playbook: down\ntriggers:\n  - nats: {subject: down}\n    key: cluster\nincident: {on_repeat: restart}\n\
                contain:\n  act: {uses: exec, with: {argv: [./act.sh, '{{ event.id }}']}}\n";
    let mut simulation = with(text, Settings::default());
    let mut come = |id: &str| {
        let event = Event {
            id: id.into(),
            source: "nats".into(),
            kind: "down".into(),
            time: simulation.now,
            subject: None,
            data: serde_json::Value::Null,
        };
        let target = Target::Subject("down".to_owned());
        let command = Command::ReceiveEvent { actor: Actor::source("nats"), event: Arc::new(event), target };
        simulation.command(command).unwrap().runs
    };
    let (first, second, third) = (come("1"), come("2"), come("3"));
    assert_eq!((first.len(), second.len(), third.len()), (1, 1, 0), "the third is for the one that waits");
    assert_eq!((state(&simulation, first[0]), state(&simulation, second[0])), ("running", "queued"));
    finish_all(&mut simulation);
    assert_eq!((state(&simulation, first[0]), state(&simulation, second[0])), ("cancelled", "succeeded"));
    assert_eq!(simulation.dispatched[1].with["argv"][1], "3");
}

#[test]
fn settled_alerts_cancel_a_run_where_the_playbook_says_so_and_only_then() {
    for (word, expected) in [("cancel", "cancelled"), ("continue", "waiting")] {
        let mut simulation = down(&format!("incident: {{on_resolved: {word}}}\n{PHASES}"));
        let run = fire(&mut simulation, "a")[0];
        finish_all(&mut simulation);
        resolve(&mut simulation, "a");
        pass(&mut simulation, 31);
        finish_all(&mut simulation);
        assert_eq!(state(&simulation, run), expected);
    }
}

#[test]
fn people_are_told_while_nobody_acknowledges_and_updates_come_until_the_end() {
    let text = "incident:\n  escalation:\n    acknowledge_within: 5m\n    update_every: 15m\n    notify: [{after: 10m, people: [ann]}, {after: 5m, people: ['group:leads']}]\n";
    let mut simulation = down(&format!("{text}{PHASES}"));
    fire(&mut simulation, "a");
    let told = |simulation: &Simulation| -> Vec<Vec<String>> {
        let of = |record: &stanch_core::Record| match &record.body {
            Body::IncidentEscalated(body) => Some(body.people.clone()),
            _ => None,
        };
        simulation.records.iter().filter_map(of).collect()
    };
    pass(&mut simulation, 299);
    assert!(told(&simulation).is_empty());
    pass(&mut simulation, 1);
    assert_eq!(told(&simulation), [["group:leads"]]);
    simulation.crash();
    let incident = *simulation.state.incidents.keys().next().unwrap();
    simulation.command(Command::AcknowledgeIncident { actor: Actor::person("ann"), incident }).unwrap();
    pass(&mut simulation, 600);
    assert_eq!((told(&simulation).len(), kinds(&simulation, "IncidentUpdateDue")), (1, 1));
    pass(&mut simulation, 900);
    assert_eq!(kinds(&simulation, "IncidentUpdateDue"), 2);
}

#[test]
fn an_incident_is_taken_noted_and_merged_into_another() {
    let mut simulation = down(PHASES);
    fire(&mut simulation, "a");
    let first = *simulation.state.incidents.keys().next().unwrap();
    let other = stanch_playbook::load(
        "o.yaml",
        "playbook: other\ntriggers:\n  - alertmanager: {matchers: ['alertname=\"Other\"']}\n    key: other\ndetect:\n  a: {uses: log, with: {message: x}}\n",
    );
    let plans = vec![Arc::new(other.unwrap().plan)];
    simulation
        .command(Command::LoadPlaybooks { plans, keep: vec![stanch_playbook::PlaybookName::new("down")] })
        .unwrap();
    simulation.alert(&[("alertname", "Other")], FIRST, AlertStatus::Firing);
    let second = *simulation.state.incidents.keys().nth(1).unwrap();
    let ann = Actor::person("ann");
    let take = Command::TakeIncident { actor: ann.clone(), incident: first, owner: ann.clone() };
    simulation.command(take).unwrap();
    let note = Command::NoteIncident { actor: ann.clone(), incident: first, note: "the switch".to_owned() };
    simulation.command(note).unwrap();
    simulation.command(Command::MergeIncident { actor: ann.clone(), incident: second, into: first }).unwrap();
    let incident = &simulation.state.incidents[&first];
    assert_eq!((incident.alerts.len(), incident.live_runs.len(), incident.state()), (2, 2, "acknowledged"));
    assert_eq!(incident.care.as_ref().unwrap().owner, Some(ann));
    assert_eq!(simulation.state.incidents[&second].state(), "resolved");
    // What comes with the other's key joins the one that it is part of.
    simulation.alert(&[("alertname", "Other"), ("n", "2")], FIRST, AlertStatus::Firing);
    assert_eq!(simulation.state.incidents[&first].alerts.len(), 3);
    // And only once all are resolved does it settle.
    finish_all(&mut simulation);
    resolve(&mut simulation, "a");
    pass(&mut simulation, 60);
    assert!(simulation.state.incidents[&first].is_open());
}

#[test]
fn a_freeze_stops_what_has_side_effects_and_nothing_else() {
    let text = "detect:\n  look: {uses: exec, with: {argv: [x]}, read_only: true}\ncontain:\n  act: {uses: http, with: {url: x}, read_only: false}\n";
    let mut simulation = down(text);
    let freeze = || Command::Freeze { actor: Actor::person("ann"), reason: "a release".to_owned() };
    simulation.command(freeze()).unwrap();
    assert_eq!(simulation.command(freeze()).unwrap_err(), Rejected::AlreadyFrozen);
    let run = fire(&mut simulation, "a")[0];
    finish_all(&mut simulation);
    assert_eq!((simulation.dispatched.len(), state(&simulation, run)), (1, "running"));
    simulation.crash();
    simulation.command(Command::Unfreeze { actor: Actor::person("ann"), reason: String::new() }).unwrap();
    finish_all(&mut simulation);
    assert_eq!(state(&simulation, run), "succeeded");
}

#[test]
fn hold_lets_a_run_look_and_keeps_it_from_acting_for_a_while() {
    let text = "hold: 2m\ndetect:\n  look: {uses: http, with: {url: x}}\ncontain:\n  act: {uses: http, with: {method: PUT, url: x}}\n";
    let mut simulation = down(text);
    let run = fire(&mut simulation, "a")[0];
    finish_all(&mut simulation);
    simulation.crash();
    pass(&mut simulation, 119);
    assert_eq!(simulation.dispatched.len(), 1);
    pass(&mut simulation, 1);
    finish_all(&mut simulation);
    assert_eq!(state(&simulation, run), "succeeded");
}

#[test]
fn group_wait_collects_the_alerts_of_a_key_into_one_run() {
    let text = format!(
        "playbook: down\ntriggers:\n  - alertmanager: {{matchers: ['alertname=\"Down\"']}}\n    key: cluster\n    group_wait: 30s\n{ACT}"
    );
    let mut simulation = with(&text, Settings::default());
    let run = fire(&mut simulation, "a")[0];
    pass(&mut simulation, 20);
    fire(&mut simulation, "b");
    pass(&mut simulation, 9);
    assert!(simulation.dispatched.is_empty());
    pass(&mut simulation, 1);
    finish_all(&mut simulation);
    assert_eq!((simulation.dispatched[0].with["argv"][1].clone(), state(&simulation, run)), (json!("2"), "succeeded"));
}

#[test]
fn an_observing_playbook_says_what_it_would_start_once_an_episode_and_does_nothing() {
    let mut simulation = down(&format!("mode: observe\n{ACT}"));
    for _ in 0..3 {
        assert!(fire(&mut simulation, "a").is_empty());
    }
    assert_eq!((kinds(&simulation, "PlaybookObserved"), kinds(&simulation, "IncidentOpened")), (1, 0));
}

fn maintenance(simulation: &Simulation, matcher: &str, seconds: u64) -> Command {
    Command::PlanMaintenance {
        actor: Actor::person("ann"),
        declared: None,
        matchers: vec![matcher.to_owned()],
        from: None,
        to: simulation.now.plus(Duration::from_secs(seconds)),
        reason: "new switches".to_owned(),
    }
}

#[test]
fn maintenance_holds_a_run_back_until_it_is_over() {
    let mut simulation = down(ACT);
    simulation.command(maintenance(&simulation, "host=~\"a|b\"", 600)).unwrap();
    let run = fire(&mut simulation, "a")[0];
    simulation.crash();
    assert_eq!((state(&simulation, run), simulation.dispatched.len()), ("queued", 0));
    pass(&mut simulation, 600);
    assert_eq!(simulation.dispatched.len(), 1);
    assert!(simulation.state.maintenance.is_empty());
}

#[test]
fn what_resolves_during_maintenance_starts_nothing_and_an_early_end_lets_the_rest_go_on() {
    let mut simulation = down(ACT);
    simulation.command(maintenance(&simulation, "host=\"a\"", 600)).unwrap();
    let run = fire(&mut simulation, "a")[0];
    resolve(&mut simulation, "a");
    pass(&mut simulation, 600);
    assert_eq!((state(&simulation, run), simulation.dispatched.len()), ("cancelled", 0));
    let mut other = down(ACT);
    other.command(maintenance(&other, "host=\"a\"", 600)).unwrap();
    fire(&mut other, "a");
    let maintenance = *other.state.maintenance.keys().next().unwrap();
    other.command(Command::EndMaintenance { actor: Actor::person("ann"), maintenance }).unwrap();
    assert_eq!(other.dispatched.len(), 1);
    let bad = Command::PlanMaintenance {
        actor: Actor::person("ann"),
        declared: None,
        matchers: vec!["host=~\"(\"".to_owned()],
        from: None,
        to: other.now.plus(Duration::from_secs(5)),
        reason: String::new(),
    };
    assert!(matches!(other.command(bad), Err(Rejected::InvalidInputs(_))));
}

#[test]
fn more_than_the_budget_asks_people_and_only_the_rest_waits() {
    let text = "playbook: down\ntriggers:\n  - alertmanager: {matchers: ['alertname=\"Down\"']}\ncontain:\n  act: {foreach: \"['x', 'y']\", budget: isolations, uses: exec, with: {argv: [./act.sh, '{{ item }}']}}\n";
    let budgets =
        [("isolations".to_owned(), Budget { most: 3, per: Duration::from_secs(3600), from: vec!["ann".into()] })];
    let mut simulation = with(text, Settings { budgets: budgets.into(), ..Settings::default() });
    let first = fire(&mut simulation, "a")[0];
    finish_all(&mut simulation);
    assert_eq!(state(&simulation, first), "succeeded");
    let second = fire(&mut simulation, "b")[0];
    assert_eq!((state(&simulation, second), simulation.in_flight.len()), ("waiting", 0));
    let question = simulation.state.questions().next().unwrap().2.asked.clone();
    assert!(question.prompt.contains("2 more; 2 of 3 in 1h"), "{}", question.prompt);
    let decide = |name: &str| Command::DecideApproval {
        actor: Actor::person(name),
        person: Person { name: name.to_owned(), groups: Vec::new(), via: "test".to_owned() },
        approval: question.approval,
        verdict: Verdict::Approved,
        digest: question.digest.to_string(),
        reason: String::new(),
    };
    assert!(matches!(simulation.command(decide("eve")), Err(Rejected::NotAllowed(_))));
    simulation.command(decide("ann")).unwrap();
    finish_all(&mut simulation);
    assert_eq!(state(&simulation, second), "succeeded");
    // An hour later there is room again.
    pass(&mut simulation, 3600);
    fire(&mut simulation, "c");
    assert_eq!(simulation.in_flight.len(), 2);
}

#[test]
fn a_watchdog_barks_where_no_run_of_the_schedule_succeeded_in_time() {
    let text = "playbook: backup\ntriggers:\n  - schedule: {cron: '@daily'}\ndetect:\n  save: {uses: exec, with: {argv: [./save.sh]}}\n";
    let mut plan = stanch_playbook::load("test.yaml", text).unwrap().plan;
    plan.watchdogs = [("stale".to_owned(), Duration::from_secs(7200))].into();
    for (succeeds, barks) in [(true, 0), (false, 1)] {
        // The watchdogs stand in the canonical form too, from which the state makes its plan.
        let text = plan.canonical().replacen("\"triggers\"", "\"watchdogs_ms\":{\"stale\":7200000},\"triggers\"", 1);
        let watched = stanch_playbook::Plan::from_canonical(&text).unwrap();
        let mut simulation = Simulation::new(vec![Arc::new(watched)], Settings::default());
        let nominal = simulation.now;
        let playbook = stanch_playbook::PlaybookName::new("backup");
        let event = Event::of_tick(&playbook, 0, nominal);
        let target = Target::Trigger { playbook, trigger: 0 };
        let tick = Command::ReceiveEvent { actor: Actor::source("schedule"), event: Arc::new(event), target };
        simulation.command(tick).unwrap();
        if succeeds {
            finish_all(&mut simulation);
        }
        simulation.crash();
        pass(&mut simulation, 7200);
        assert_eq!(kinds(&simulation, "WatchdogBarked"), barks);
    }
}

const HOSTS: &str = "playbook: down\ninputs: {hosts: {type: list}}\ntriggers:\n  - alertmanager: {matchers: ['alertname=\"Down\"']}\n    key: cluster\n    inputs: {hosts: \"alerts.map(a, a.labels.host)\"}\nincident: {on_repeat: queue}\ncontain:\n  act: {foreach: inputs.hosts, uses: exec, with: {argv: [./act.sh, '{{ item }}']}}\n";

#[test]
fn an_alert_that_cannot_be_evaluated_beside_a_live_run_is_answered_once_the_playbook_is_mended() {
    let mut simulation = with(HOSTS, Settings::default());
    fire(&mut simulation, "a");
    let nameless = [("alertname", "Down"), ("host", "")];
    let refused = simulation.alert(&nameless[..1], FIRST, AlertStatus::Firing);
    assert!(refused.runs.is_empty() && refused.dead_letters.len() == 1, "{refused:?}");
    let mended = HOSTS.replace("a.labels.host)", "has(a.labels.host) ? a.labels.host : 'unknown')");
    let plan = stanch_playbook::load("test.yaml", &mended).unwrap_or_else(|bad| panic!("{bad}")).plan;
    simulation.command(Command::LoadPlaybooks { plans: vec![Arc::new(plan)], keep: Vec::new() }).unwrap();
    let again = simulation.alert(&nameless[..1], FIRST, AlertStatus::Firing);
    assert_eq!(again.runs.len(), 1, "its repeat is not taken for one that was answered: {again:?}");
    finish_all(&mut simulation);
    let hosts: Vec<_> = simulation.dispatched.iter().map(|of| of.with["argv"][1].clone()).collect();
    assert_eq!(hosts, ["a", "unknown"]);
    stanch_simulator::check_history(&simulation.records).unwrap();
}

#[test]
fn an_alert_that_cannot_be_evaluated_keeps_no_other_of_its_delivery_from_being_answered() {
    let mut simulation = with(HOSTS, Settings::default());
    let change = |labels: &[(&str, &str)]| AlertChange {
        alert: Arc::new(stanch_simulator::alert(labels, FIRST)),
        status: AlertStatus::Firing,
    };
    let down = ("alertname", "Down");
    let changes = vec![change(&[down, ("host", "a")]), change(&[down]), change(&[down, ("host", "b")])];
    let receipt = simulation.command(Command::ReceiveAlerts { actor: Actor::source("test"), changes }).unwrap();
    assert_eq!((receipt.runs.len(), receipt.dead_letters.len()), (1, 1), "{receipt:?}");
    finish_all(&mut simulation);
    let hosts: Vec<_> = simulation.dispatched.iter().map(|of| of.with["argv"][1].clone()).collect();
    assert_eq!(hosts, ["a", "b"]);
}

#[test]
fn two_alerts_without_a_name_for_their_incident_share_none() {
    let text = HOSTS.replace("key: cluster", "key: \"{{#if alert.labels.cluster}}{{ alert.labels.cluster }}{{/if}}\"");
    let mut simulation = with(&text, Settings::default());
    let receipt = simulation.alert(&[("alertname", "Down"), ("host", "a")], FIRST, AlertStatus::Firing);
    assert!(receipt.incidents.is_empty() && receipt.dead_letters.len() == 1, "{receipt:?}");
}
