//! What surrounds the action of a step: items, verification, undo, polling; and what the engine itself keeps.

mod told;

use std::time::Duration;

use serde_json::json;
use stanch_playbook::plan::{OnTimeout, OnUnknown, TriggerOn, Undo};
use stanch_playbook::{Phase, Plan, Scope, Uses, Wait, load};
use told::told;

fn plan(text: &str) -> Plan {
    load("p.yaml", text).map_err(|error| error.to_string()).expect("a good playbook").plan
}

/// A playbook whose step `s` of `contain`, after `first`, says these lines.
fn step(lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "playbook: p\ninputs: {{hosts: {{type: list}}}}\ncontain:\n  first: {{uses: log, with: {{message: hello}}, foreach: inputs.hosts, outputs: {{a: result}}}}\n  \
         other: {{uses: log, with: {{message: hello}}, outputs: {{a: result}}}}\n  s:\n    needs: [first, other]\n{lines}"
    )
}

const LOG: &str = "uses: log\nwith: {message: x}\n";
const POST: &str = "uses: http\nwith: {url: x, method: POST}\n";

#[test]
fn items_are_told_apart() {
    insta::assert_snapshot!(told(&[
        (
            "all in place",
            step(
                "foreach: steps.first.items.map(i, i.outputs.a)\nmax_parallel: 4\nuses: http\nwith: {url: 'x/{{ item }}', headers: {A: '{{ item }}'}}\nif: size(steps.first.items) > 0\n\
             until: result.body == item\nretry: {if: item != 'a'}\noutputs: {a: item}\nverify: {uses: http, with: {url: '{{ item }}'}, until: result.status == 200 && item != ''}\n\
             undo: {uses: http, with: {url: '{{ item }}/{{ steps.s.outputs.a }}'}, retry: {max_attempts: 2}}"
            )
        ),
        ("a list", step(&format!("{LOG}foreach: [a, b]"))),
        ("not CEL", step(&format!("{LOG}foreach: '{{{{ inputs.hosts }}}}'"))),
        ("wrong numbers", step(&format!("{LOG}foreach: inputs.hosts\nmax_parallel: 0"))),
        ("too many", step(&format!("{LOG}foreach: inputs.hosts\nmax_parallel: 1001"))),
        ("a word for a number", step(&format!("{LOG}foreach: inputs.hosts\nmax_parallel: many"))),
        ("max_parallel alone", step(&format!("{LOG}max_parallel: 2"))),
        ("ends what is not there", step(&format!("{LOG}ends: [frist]"))),
        ("ends what cannot be taken back", step(&format!("{LOG}ends: [first]"))),
        ("ends itself", step(&format!("{LOG}ends: [s]"))),
        ("a constant that is no condition", step(&format!("{LOG}if: 1 + 1"))),
        ("a condition that never holds", step(&format!("{LOG}if: 'false'"))),
        ("a constant that is no list", step(&format!("{LOG}foreach: \"'abc'\""))),
        ("until that is no condition", step("uses: http\nwith: {url: x}\nuntil: 17")),
        ("a quorum of nobody", step("uses: approval\nwith: {prompt: x, from: []}\ntimeout: 5m")),
        ("fail_fast alone", step(&format!("{LOG}fail_fast: true"))),
        ("fail_fast that is no bool", step(&format!("{LOG}foreach: inputs.hosts\nfail_fast: 2"))),
        ("item without foreach", step("uses: log\nwith: {message: '{{ item }}'}")),
        ("item in if and foreach", step(&format!("{LOG}foreach: item.x\nif: item == 'a'"))),
        ("items of a step without foreach", step("uses: log\nwith: {message: '{{ steps.other.items }}'}")),
        ("outputs of a step with foreach", step("uses: log\nwith: {message: '{{ steps.first.outputs.a }}'}")),
        ("what a step with items has", step(&format!("{LOG}if: steps.first.itmes == []"))),
        ("misspelt", step(&format!("{LOG}for_each: inputs.hosts"))),
    ]));
}

#[test]
fn polling_is_checked() {
    insta::assert_snapshot!(told(&[
        ("in place", step("uses: http\nwith: {url: x}\nuntil: result.status == 200\nevery: 1s\nwithin: 1m")),
        ("not idempotent", step(&format!("{POST}until: result.status == 200"))),
        ("idempotent by its word", step(&format!("{POST}idempotent: true\nuntil: result.status == 200"))),
        ("without until", step(&format!("{LOG}every: 5s\nwithin: 5m"))),
        ("not durations", step(&format!("{LOG}until: 'true'\nevery: 5\nwithin: [1m]"))),
        ("longer than the whole", step(&format!("{LOG}until: 'true'\nevery: 5m\nwithin: 1m"))),
        ("too often", step(&format!("{LOG}until: 'true'\nevery: 1ms"))),
        ("not CEL", step(&format!("{LOG}until: result.status = 200"))),
        ("the step itself", step(&format!("{LOG}until: steps.s.outputs.a == 1"))),
    ]));
}

#[test]
fn verifications_are_checked() {
    insta::assert_snapshot!(told(&[
        (
            "in place",
            step(&format!(
                "{POST}on_unknown: verify\nverify: {{uses: http, with: {{url: x}}, until: result.status == 200, every: 1s, within: 1m, timeout: 5s}}"
            ))
        ),
        ("not a map", step(&format!("{LOG}verify: http"))),
        ("nothing in it", step(&format!("{LOG}verify: {{}}"))),
        ("unknown keys", step(&format!("{LOG}verify: {{uses: http, wiht: {{url: x}}, untl: 'true', retry: {{}}}}"))),
        ("parameters", step(&format!("{LOG}verify: {{uses: http, with: {{ulr: x}}, until: 'true'}}"))),
        ("not idempotent", step(&format!("{LOG}verify: {{uses: exec, with: {{argv: [check]}}, until: 'true'}}"))),
        (
            "it only looks, by its word",
            step(&format!(
                "{LOG}verify: {{uses: exec, with: {{argv: [check]}}, env: {{A: '{{{{ run.id }}}}'}}, read_only: true, until: result.exit_code == 0}}"
            ))
        ),
        ("what the engine keeps", step(&format!("{LOG}verify: {{uses: wait, with: {{duration: 5s}}, until: 'true'}}"))),
        ("an unknown action", step(&format!("{LOG}verify: {{uses: htpp, with: {{}}, until: 'true'}}"))),
        (
            "names",
            step(&format!(
                "{LOG}verify: {{uses: http, with: {{url: '{{{{ result.x }}}}{{{{ steps.s.state }}}}'}}, until: item == error}}"
            ))
        ),
        (
            "secrets that are not listed",
            step(&format!(
                "{LOG}secrets: [a]\nverify: {{uses: http, with: {{url: x, headers: {{A: '{{{{ secrets.b }}}}'}}}}, until: 'true'}}"
            ))
        ),
        ("on_unknown: verify without one", step(&format!("{LOG}on_unknown: verify"))),
        ("wrong words", step(&format!("{LOG}on_unknown: verfy"))),
        (
            "wrong types",
            step(&format!(
                "{LOG}verify: {{uses: 5, with: [], until: {{}}, every: x, within: true, timeout: 0s, read_only: 1}}"
            ))
        ),
    ]));
}

#[test]
fn what_only_looks_says_so() {
    let budget = "uses: exec\nwith: {argv: [x]}\nread_only: true\nbudget: some";
    assert_eq!(
        told(&[
            ("in place", step("uses: exec\nwith: {argv: [look]}\nread_only: true\nuntil: result.exit_code == 0")),
            ("a look that does more", step("uses: http\nwith: {url: x}\nread_only: false\nbudget: some")),
            ("a budget", step(budget)),
            ("an undo", step("uses: exec\nwith: {argv: [x]}\nread_only: true\nundo: {uses: http, with: {url: x}}")),
            ("not idempotent", step(&format!("{LOG}read_only: true\nidempotent: false"))),
            ("wrong type", step(&format!("{LOG}read_only: maybe"))),
            ("of a wait", step("uses: wait\nwith: {duration: 5s}\nread_only: true")),
        ]),
        "# in place\n(nothing)\n# a look that does more\n(nothing)\n\
         # a budget\np.yaml:11:5: error[conflicting-keys]: what only looks has no targets to count, and read_only is true; remove budget, or say read_only: false\n\
         # an undo\np.yaml:11:5: error[conflicting-keys]: what only looks leaves nothing to take back, and read_only is true; remove undo, or say read_only: false\n\
         # not idempotent\np.yaml:11:5: error[conflicting-keys]: what only looks can be repeated, and read_only is true; remove idempotent, or say read_only: false\n\
         # wrong type\np.yaml:10:16: error[wrong-type]: expected true or false, not a text; write true or false, without quotes\n\
         # of a wait\np.yaml:10:5: error[not-applicable]: read_only means nothing for a wait: it has no attempts; remove it"
    );
    let of = |lines: &str| {
        let step = plan(&step(lines)).steps.remove(2);
        (step.acts, step.policy.idempotent, step.policy.retry.max_attempts)
    };
    assert_eq!(of("uses: exec\nwith: {argv: [look]}\naccept: side-effect-unguarded"), (true, false, 1));
    assert_eq!(of("uses: exec\nwith: {argv: [look]}\nread_only: true"), (false, true, 3));
    assert_eq!(of("uses: http\nwith: {url: x}\nread_only: false"), (true, true, 3));
}

#[test]
fn undoing_is_checked() {
    insta::assert_snapshot!(told(&[
        ("in place", step(&format!("{POST}outputs: {{id: result.body.id}}\nundo: {{uses: http, with: {{url: 'x/{{{{ steps.s.outputs.id }}}}', method: DELETE}}, after: 8h, timeout: 5s, retry: {{max_attempts: 3}}, on_unknown: fail}}"))),
        ("not a map", step(&format!("{LOG}undo: true"))),
        ("no action", step(&format!("{LOG}undo: {{after: 8h}}"))),
        ("unknown keys", step(&format!("{LOG}undo: {{uses: http, with: {{url: x}}, aftr: 8h, verify: {{}}, outputs: {{}}}}"))),
        ("wrong types", step(&format!("{LOG}undo: {{uses: http, with: {{url: x}}, after: 8, timeout: x, retry: 5, idempotent: maybe, on_unknown: 5}}"))),
        ("on_unknown: verify", step(&format!("{LOG}undo: {{uses: http, with: {{url: x}}, on_unknown: verify}}"))),
        ("may happen twice", step(&format!("{LOG}undo: {{uses: exec, with: {{argv: [a]}}, on_unknown: retry}}"))),
        ("what the engine keeps", step(&format!("{LOG}undo: {{uses: approval, with: {{prompt: x}}}}"))),
        ("names", step(&format!("{LOG}undo: {{uses: http, with: {{url: '{{{{ steps.s.outputs.nope }}}}{{{{ item }}}}{{{{ result }}}}'}}}}"))),
        ("on_failure: undo with nothing to undo", "playbook: p\ncontain:\n  on_failure: undo\n  a: {uses: log, with: {message: x}}\n".to_owned()),
        ("on_failure in finally", "playbook: p\nfinally:\n  on_failure: undo\n  a: {uses: log, with: {message: x}, undo: {uses: log, with: {message: y}}}\n".to_owned()),
        ("on_failure with a wrong word", "playbook: p\ncontain:\n  on_failure: undoo\n  a: {uses: log, with: {message: x}}\ndetect:\n  on_failure: [stop]\n".to_owned()),
    ]));
}

#[test]
fn the_lesser_keys_of_a_step_are_checked() {
    insta::assert_snapshot!(told(&[
        ("in place", step("uses: exec\nwith: {argv: [a]}\nartifacts: [out/a.tar.gz, b]\nruns_on: edr\nbudget: isolations\nretry: {max_attempts: 3, if: \"result == null || error.contains('x')\"}")),
        ("one artifact", step("uses: exec\nwith: {argv: [a]}\nartifacts: a.txt")),
        ("artifacts of another action", step(&format!("{LOG}artifacts: [a]"))),
        ("artifacts in with", step("uses: exec\nwith: {argv: [a], artifacts: [a]}")),
        ("bad paths", step("uses: exec\nwith: {argv: [a]}\nartifacts: [/etc/passwd, a/../../b, '', '{{ run.id }}', \"a\\0b\", 5]")),
        ("too many artifacts", step(&format!("uses: exec\nwith: {{argv: [a]}}\nartifacts: [{}]", "a, ".repeat(65)))),
        ("names", step(&format!("{LOG}runs_on: 'the pool'\nbudget: [a]"))),
        ("on_timeout of another action", step(&format!("{LOG}on_timeout: deny"))),
        ("retry.if", step(&format!("{LOG}retry: {{if: item == 1}}"))),
        ("retry.if of one attempt", step(&format!("{LOG}retry: {{max_attempts: 1, if: 'true'}}"))),
        ("error elsewhere", step(&format!("{LOG}if: error == 'x'\noutputs: {{a: error}}"))),
        ("defaults", "playbook: p\ndefaults: {runs_on: 5, on_unknown: verify, retry: {if: 'steps.a.state == result && item'}}\ndetect: {a: {uses: log, with: {message: x}}}\n".to_owned()),
    ]));
}

#[test]
fn the_fields_of_actions_are_checked() {
    let of = |action: &str, with: &str| step(&format!("uses: {action}\nwith: {{{with}}}"));
    let unknown = |with: &str| step(&format!("uses: kubernetes\nwith: {{{with}}}\non_unknown: retry"));
    insta::assert_snapshot!(told(&[
        ("prometheus", of("prometheus", "query: 'up{{ inputs.x }}', urll: x")),
        ("a silence by labels", of("alertmanager.silence", "matchers: {a: '{{ inputs.hosts }}'}, duration: 1h")),
        ("a silence by matchers", of("alertmanager.silence", "matchers: ['a=~\"b\"'], duration: 5")),
        ("a silence of nothing", of("alertmanager.silence", "operation: extnd, duration: '{{ run.id }}'")),
        ("a templated operation", of("kubernetes", "operation: '{{ run.id }}', kind: '{{ run.id }}', name: a")),
        ("a kind that is none", of("kubernetes", "operation: label, kind: pods, name: a, labels: [a]")),
        ("scaling may be repeated", unknown("operation: scale, name: web, replicas: 3")),
        ("deleting pods may not", unknown("operation: delete-pod, name: web-0")),
        ("mail", of("email", "to: ['{{ inputs.hosts }}'], subject: [a]")),
        ("a routing key by secret", of("pagerduty", "summary: x, routing_key: '{{ secrets.pager }}'")),
        ("secrets elsewhere", of("pagerduty", "summary: '{{ secrets.pager }}', severity: P1")),
        ("report", of("report", "format: html")),
    ]));
}

#[test]
fn approvals_are_checked() {
    let approval = |rest: &str| step(&format!("uses: approval\n{rest}"));
    insta::assert_snapshot!(told(&[
        (
            "in place",
            approval(
                "with: {prompt: 'Isolate {{ count inputs.hosts }}?', from: [group:sec, ann], quorum: 2, allow_self: true, escalate: [{after: 5m, people: bob}]}\ntimeout: 15m\non_timeout: approve"
            )
        ),
        ("no timeout", approval("with: {prompt: x}")),
        ("no prompt", approval("timeout: 5m")),
        ("people", approval("with: {prompt: x, from: [local, 'group:', 'a b', 5]}\ntimeout: 5m")),
        ("more than there are", approval("with: {prompt: x, from: [ann, bob], quorum: 3}\ntimeout: 5m")),
        (
            "wrong types",
            approval(
                "with: {prompt: [x], from: {}, quorum: 0, allow_self: 1, escalate: {after: 5m}}\ntimeout: 5m\non_timeout: aprove"
            )
        ),
        (
            "escalate",
            approval(
                "with: {prompt: x, escalate: [{after: 5}, {people: [], after: 5m}, {afer: 5m, people: [ann]}, ann]}\ntimeout: 5m"
            )
        ),
        ("templates in who", approval("with: {prompt: x, from: ['{{ incident.owner }}']}\ntimeout: 5m")),
        (
            "what means nothing",
            approval(
                "with: {prompt: x}\ntimeout: 5m\ncontinue_on_error: true\nforeach: inputs.hosts\nretry: {max_attempts: 2}\nverify: {uses: log, with: {message: x}, until: 'true'}\nundo: {uses: log, with: {message: x}}\noutputs: {a: '1'}\nruns_on: x\nbudget: y\nuntil: 'true'\nsecrets: [a]\nenv: {A: b}\nartifacts: [a]\nidempotent: true\non_unknown: ask"
            )
        ),
    ]));
}

#[test]
fn sub_playbooks_and_undo_steps_are_checked() {
    insta::assert_snapshot!(told(&[
        ("in place", step("uses: playbook\nwith: {playbook: rotate-credentials, inputs: {hosts: '{{ inputs.hosts }}'}}\ntimeout: 1h\noutputs: {how: result.outcome}\ncontinue_on_error: true")),
        ("no name", step("uses: playbook\nwith: {inputs: {}}")),
        ("a template for a name", step("uses: playbook\nwith: {playbook: '{{ inputs.hosts }}'}")),
        ("no playbook's name", step("uses: playbook\nwith: {playbook: 'Rotate It'}")),
        ("inputs from data", step("uses: playbook\nwith: {playbook: a, inputs: '{{ event.data }}'}")),
        ("what means nothing", step("uses: playbook\nwith: {playbook: a}\nforeach: inputs.hosts\nmax_parallel: 2\nretry: {}\non_timeout: deny")),
        ("undo of a step without undo", step("uses: undo\nwith: {step: other}")),
        ("undo of nothing", step("uses: undo\nwith: {step: othr}")),
        ("undo of itself", step("uses: undo\nwith: {step: s}")),
        ("undo of a later step", "playbook: p\ndetect:\n  a: {uses: undo, with: {step: b}}\ncontain:\n  b: {uses: log, with: {message: x}, undo: {uses: log, with: {message: y}}}\n".to_owned()),
        ("undo of a step that may not be over", "playbook: p\ncontain:\n  a: {uses: undo, with: {step: b}}\n  b: {uses: log, with: {message: x}, undo: {uses: log, with: {message: y}}}\n".to_owned()),
        ("undo of another playbook", "playbook: p\ncontain:\n  on_failure: undo\n  sub: {uses: playbook, with: {playbook: q}}\nrecover:\n  a: {uses: undo, with: {step: sub}}\n".to_owned()),
        ("undo with a template", step("uses: undo\nwith: {step: '{{ inputs.hosts }}'}")),
        ("undo with what means nothing", "playbook: p\ncontain:\n  b: {uses: log, with: {message: x}, undo: {uses: log, with: {message: y}}}\nrecover:\n  a: {uses: undo, with: {step: b}, timeout: 5m, outputs: {a: result}, continue_on_error: true}\n".to_owned()),
    ]));
}

#[test]
fn waits_for_events_are_checked() {
    let wait = |what: &str| step(&format!("uses: wait\nwith: {{for: {what}}}\ntimeout: 5m"));
    insta::assert_snapshot!(told(&[
        (
            "a message",
            step(
                "uses: wait\nwith: {for: {nats: {subject: 'a.>', if: \"event.data.host == inputs.hosts[0]\"}}}\ntimeout: 5m\noutputs: {who: result.data.who}"
            )
        ),
        ("an alert", wait("{alertmanager: {matchers: ['a=\"b\"'], if: \"alert.labels.host in inputs.hosts\"}}")),
        ("an alert, started by a message", "playbook: p\ntriggers: [{nats: {subject: a}}]\ndetect:\n  w: {uses: wait, with: {for: {alertmanager: {matchers: ['a=\"b\"'], if: \"alert.labels.host == 'x'\"}}}, timeout: 5m}\n".to_owned()),
        ("alerts", wait("{alertmanager: {matchers: ['a=\"b\"'], if: \"size(alerts) > 1\"}}")),
        ("neither", wait("{schedule: {cron: '@daily'}}")),
        ("both", wait("{nats: {subject: a}, alertmanager: {matchers: ['a=\"b\"']}}")),
        ("an empty map", wait("{}")),
        ("what a trigger is told too", wait("{nats: {subject: 'a..b', fi: 'true'}}")),
        ("an alert in a message", wait("{nats: {subject: a, if: alert.labels.x == ''}}")),
        ("names", wait("{nats: {subject: a, if: item == result && evnt == 1}}")),
        ("a list", wait("[resolved]")),
        ("settle of an event", step("uses: wait\nwith: {for: {nats: {subject: a}}, settle: 5m}")),
        ("outputs of a length of time", step("uses: wait\nwith: {duration: 5s}\noutputs: {a: result}")),
    ]));
}

#[test]
fn a_step_becomes_what_it_says() {
    let text = "playbook: p\ninputs: {hosts: {type: list}}\ndefaults: {timeout: 7s, retry: {max_attempts: 9, if: \"error != 'no'\"}, runs_on: far}\ncontain:\n  on_failure: undo\n  approve:\n    uses: approval\n    with: {prompt: x}\n    timeout: 5m\n    on_timeout: approve\n  \
                s:\n    needs: [approve]\n    foreach: inputs.hosts\n    uses: http\n    with: {url: x, method: POST}\n    until: result.status == 200\n    verify: {uses: http, with: {url: x}, until: result.status == 200}\n    \
                undo: {uses: http, with: {url: x, method: DELETE}, after: 8h}\n    on_unknown: verify\n  e:\n    uses: exec\n    with: {argv: [a]}\n    artifacts: [a]\n    undo: {uses: exec, with: {argv: [b]}}\n    runs_on: near\n    budget: b\n\
                recover:\n  back: {uses: undo, with: {step: s}}\n  w: {uses: wait, with: {for: {nats: {subject: a, if: 'event.data == 1'}}}}\n  c: {uses: playbook, with: {playbook: q, inputs: {a: '{{ inputs.hosts }}'}}}\n";
    let plan = plan(text);
    assert_eq!(plan.undo_on_failure, [Phase::Contain].into());
    let Uses::Approval(approval) = &plan.steps[0].uses else { panic!("an approval") };
    assert_eq!((approval.quorum, approval.allow_self, approval.on_timeout), (1, false, OnTimeout::Approve));
    assert_eq!((plan.steps[0].timeout, plan.steps[0].runs_on.as_ref()), (Some(Duration::from_secs(300)), None));
    assert!(plan.steps[0].retry_if.is_none());

    let step = &plan.steps[1];
    assert_eq!(step.foreach.as_ref().map(|foreach| foreach.max_parallel), Some(16));
    let until = step.until.as_ref().unwrap();
    assert_eq!((until.every, until.within), (Duration::from_secs(10), Duration::from_secs(600)));
    let verify = step.verify.as_ref().unwrap();
    assert_eq!(
        (verify.until.every, verify.until.within, verify.timeout),
        (Duration::from_secs(5), Duration::from_secs(120), Duration::from_secs(7))
    );
    assert_eq!((step.policy.on_unknown, step.policy.retry.max_attempts), (OnUnknown::Verify, 9));
    assert_eq!(step.retry_if.as_ref().map(|text| text.source().to_owned()), Some("error != 'no'".to_owned()));
    assert_eq!(step.runs_on.as_deref(), Some("far"));
    let facts = |undo: &Undo| {
        (
            undo.policy.idempotent,
            undo.policy.retry.max_attempts,
            undo.policy.on_unknown,
            undo.timeout.as_secs(),
            undo.after,
        )
    };
    assert_eq!(facts(step.undo.as_ref().unwrap()), (true, 5, OnUnknown::Retry, 7, Some(Duration::from_secs(8 * 3600))));

    let step = &plan.steps[2];
    assert_eq!(facts(step.undo.as_ref().unwrap()), (false, 1, OnUnknown::Ask, 7, None));
    assert_eq!((step.runs_on.as_deref(), step.budget.as_deref()), (Some("near"), Some("b")));
    let Uses::Action(call) = &step.uses else { panic!("an action") };
    assert_eq!(call.with.render(&Scope::default()).unwrap(), json!({"argv": ["a"], "artifacts": ["a"]}));

    assert!(matches!(plan.steps[3].uses, Uses::Undo { step: 1 }));
    let Uses::Wait(Wait::Event(awaited)) = &plan.steps[4].uses else { panic!("a wait for an event") };
    assert!(matches!(&awaited.on, TriggerOn::Nats { subject } if subject == "a") && awaited.condition.is_some());
    let Uses::Playbook { playbook, inputs } = &plan.steps[5].uses else { panic!("a sub-playbook") };
    assert_eq!((playbook.as_str(), inputs.roots()), ("q", &["inputs".to_owned()][..]));

    let again = Plan::from_canonical(plan.canonical()).unwrap();
    assert_eq!(format!("{:?}", plan.steps), format!("{:?}", again.steps));
}
