//! How incidents live and runs begin: what is said of it, and what it becomes.

mod told;

use std::time::Duration;

use stanch_playbook::plan::{Escalation, Mode, NotifyAfter, OnRepeat, OnResolved};
use stanch_playbook::{Plan, load};
use told::told;

fn with_lines(lines: &str) -> String {
    format!("playbook: p\n{lines}\ndetect:\n  say: {{uses: log, with: {{message: hello}}}}\n")
}

const ALERT: &str = "triggers: [{alertmanager: {matchers: ['a=\"b\"']}}]\n";

#[test]
fn the_incidents_rules_are_checked() {
    let incident = |rules: &str| with_lines(&format!("{ALERT}incident: {rules}"));
    insta::assert_snapshot!(told(&[
        (
            "in place",
            incident(
                "{key: 'x/{{ alert.labels.a }}', on_repeat: queue, on_resolved: cancel, settle: 1m, slack: {channel: '#sec'}, escalation: {acknowledge_within: 5m, update_every: 15m, notify: [{after: 5m, people: [group:leads]}]}}"
            )
        ),
        ("recover without the phase", incident("{on_resolved: recover}")),
        ("not a map", incident("attach")),
        (
            "unknown keys",
            incident("{on_repaet: attach, slack: {chanel: '#a'}, escalation: {update_evry: 5m, notify: [{afer: 5m}]}}")
        ),
        ("wrong words", incident("{on_repeat: join, on_resolved: stop, settle: 30}")),
        (
            "wrong types",
            incident("{on_repeat: [attach], on_resolved: true, settle: [], slack: '#a', escalation: 5m, key: {a: b}}")
        ),
        ("slack", incident("{slack: {channel: 'a b'}}")),
        ("slack with a template", incident("{slack: {channel: '#{{ incident.key }}'}}")),
        ("escalation", incident("{escalation: {acknowledge_within: 0s, update_every: x, notify: {after: 5m}}}")),
        ("notify", incident("{escalation: {notify: [{after: 5m, people: [local, 'a b']}, {people: [ann]}]}}")),
        ("names in the key", incident("{key: '{{ inputs.a }}{{ alert.label.a }}'}")),
        (
            "a key that a trigger cannot render",
            with_lines(
                "triggers: [{alertmanager: {matchers: ['a=\"b\"']}}, {nats: {subject: a}}, {manual: {}, key: m}]\nincident: {key: '{{ alert.labels.a }}'}"
            )
        ),
        ("a key that no trigger takes", with_lines("triggers: [{nats: {subject: a}, key: k}]\nincident: {key: x}")),
    ]));
}

#[test]
fn how_runs_begin_is_checked() {
    insta::assert_snapshot!(told(&[
        (
            "in place",
            with_lines(
                "mode: observe\nhold: 30s\ntriggers: [{alertmanager: {matchers: ['a=\"b\"']}, group_wait: 30s}]"
            )
        ),
        ("wrong words", with_lines("mode: watch\nhold: 5")),
        (
            "wrong types",
            with_lines(
                "mode: [act]\nhold: {a: 5s}\ntriggers: [{alertmanager: {matchers: ['a=\"b\"']}, group_wait: 30}]"
            )
        ),
        (
            "group_wait without alerts",
            with_lines(
                "triggers: [{nats: {subject: a}, group_wait: 30s}, {schedule: {cron: '@daily'}, group_wait: 30s}]"
            )
        ),
        (
            "in the wrong place",
            with_lines(
                "group_wait: 30s\non_repeat: attach\ntriggers: [{alertmanager: {matchers: ['a=\"b\"']}, hold: 30s}]"
            )
        ),
    ]));
}

#[test]
fn rules_become_a_part_of_the_plan() {
    let text = with_lines(
        "mode: observe\nhold: 30s\ntriggers:\n  - {alertmanager: {matchers: ['a=\"b\"']}, group_wait: 10s}\n  - {nats: {subject: a}, key: own}\n\
         incident: {key: shared, on_repeat: restart, on_resolved: cancel, settle: 1m, slack: {channel: '#sec'}, escalation: {update_every: 15m, notify: [{after: 5m, people: ann}]}}",
    );
    let plan = load("p.yaml", &text).map_err(|error| error.to_string()).unwrap().plan;
    assert_eq!((plan.mode, plan.hold), (Mode::Observe, Duration::from_secs(30)));
    assert_eq!((plan.incident.on_repeat, plan.incident.on_resolved), (OnRepeat::Restart, OnResolved::Cancel));
    assert_eq!(
        (plan.incident.settle, plan.incident.slack_channel.as_deref()),
        (Some(Duration::from_secs(60)), Some("#sec"))
    );
    let notify = vec![NotifyAfter { after: Duration::from_secs(300), people: vec!["ann".to_owned()] }];
    let expected = Escalation { acknowledge_within: None, update_every: Some(Duration::from_secs(900)), notify };
    assert_eq!(plan.incident.escalation, Some(expected));
    let keys: Vec<_> = plan.triggers.iter().map(|trigger| trigger.key.as_ref().unwrap().source()).collect();
    assert_eq!(keys, ["shared", "own"]);
    assert_eq!(plan.triggers[0].group_wait, Duration::from_secs(10));
    let again = Plan::from_canonical(plan.canonical()).unwrap();
    assert_eq!((again.incident, again.mode, again.hold), (plan.incident, plan.mode, plan.hold));
}
