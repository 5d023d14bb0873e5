//! The catalogue: what its documents are told, and what its names become in playbooks.

use serde_json::json;
use stanch_playbook::plan::OnUnknown;
use stanch_playbook::{Catalogue, Plan, Scope, Uses, load_with};

const SHIPPED: &str = r#"
actions:
  revoke_token:
    description: Revoke a token at the authorization server.
    inputs:
      token: {type: string, default: "{{ alert.labels.token }}"}
      reason: {type: string, default: incident}
      hosts: {type: list, required: true}
      hint: {type: string}
    uses: http
    with:
      method: POST
      url: https://auth.corp/revoke
      headers: {Authorization: "Bearer {{ secrets.auth }}"}
      body: {token: "{{ inputs.token }}", hosts: "{{ inputs.hosts }}", reason: "{{ inputs.reason }} of {{ incident.key }}"}
    idempotent: true
    retry: {max_attempts: 7, if: "error != 'gone'"}
    timeout: 9s
    on_unknown: verify
    verify: {uses: http, with: {url: "https://auth.corp/{{ inputs.token }}"}, until: result.status == 404}
    undo: {uses: http, with: {method: DELETE, url: "https://auth.corp/revoked/{{ inputs.token }}"}, after: 8h}
    outputs: {status: result.status}
  look:
    uses: exec
    with: {argv: [./look.sh]}
    idempotent: true
detectors:
  replay:
    description: A token that was used twice.
    alertmanager: {matchers: ['alertname="TokenReplay"']}
    if: "alert.labels.env == 'prod'"
    key: "replay/{{ alert.labels.token }}"
    group_wait: 10s
"#;

fn shipped() -> Catalogue {
    let mut catalogue = Catalogue::new();
    let warnings = catalogue.load("a.catalogue.yaml", SHIPPED).map_err(|error| error.to_string()).expect("a good one");
    assert_eq!(warnings, []);
    catalogue
}

fn lines(list: &[stanch_playbook::Diagnostic]) -> String {
    match list {
        [] => "(nothing)".to_owned(),
        list => list.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

/// Each catalogue with what is said about it beside the shipped one.
fn told(cases: &[(&str, &str)]) -> String {
    let one = |(name, text): &(&str, &str)| {
        let said = match shipped().load("c.catalogue.yaml", text) {
            Ok(warnings) => lines(&warnings),
            Err(diagnostics) => diagnostics.to_string(),
        };
        format!("# {name}\n{said}")
    };
    cases.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// Each step of a playbook with what is said about it beside the shipped catalogue.
fn told_of_steps(cases: &[(&str, &str)]) -> String {
    let one = |(name, step): &(&str, &str)| {
        let text = format!("playbook: p\ninputs: {{hosts: {{type: list}}}}\ncontain:\n  s: {step}\n");
        let said = match load_with("p.yaml", &text, &shipped()) {
            Ok(loaded) => lines(&loaded[0].warnings),
            Err(diagnostics) => diagnostics.to_string(),
        };
        format!("# {name}\n{said}")
    };
    cases.iter().map(one).collect::<Vec<_>>().join("\n")
}

#[test]
fn catalogues_are_checked() {
    let action = |rest: &str| format!("actions: {{a: {{uses: http, {rest}}}}}");
    let cases: Vec<(&str, String)> = vec![
        ("not a map", "[a]".to_owned()),
        ("empty", String::new()),
        ("unknown keys", "action: {}\ndetector: {}".to_owned()),
        ("wrong types", "actions: [a]\ndetectors: 5".to_owned()),
        ("actions that are none", "actions: {a: http, b: [], c:}".to_owned()),
        ("keys of an action", action("wiht: {}, needs: [a], foreach: x")),
        ("no action", "actions: {a: {with: {url: x}}}".to_owned()),
        ("unknown action", "actions: {a: {uses: htpp}}".to_owned()),
        ("what the engine keeps", "actions: {a: {uses: wait, with: {duration: 5s}}}".to_owned()),
        ("an action of the catalogue", "actions: {a: {uses: revoke_token}, b: {uses: a}}".to_owned()),
        ("parameters", action("with: {ulr: x}")),
        ("names", "actions: {http: {uses: http, with: {url: x}}, 'A b': {uses: http, with: {url: x}}, revoke_token: {uses: http, with: {url: x}}, replay: {uses: http, with: {url: x}}, on_failure: {uses: http, with: {url: x}}}\ndetectors: {look: {nats: {subject: a}}}".to_owned()),
        ("one name for both", "actions: {a: {uses: http, with: {url: x}}}\ndetectors: {a: {nats: {subject: a}}}".to_owned()),
        ("inputs", action("with: {url: x}, inputs: {a: {type: int, default: x}, b-c: {type: int}, d: {default: 1}, e: {type: list, default: '{{ event.data }}'}, f: 5}")),
        ("names in defaults", action("with: {url: x}, inputs: {a: {type: string, default: '{{ inputs.b }}{{ steps.c.state }}{{ evnt.x }}'}}")),
        ("names in templates", action("with: {url: '{{ inputs.nope }}{{ item }}{{ steps.a.state }}{{ result }}'}")),
        ("names in conditions", action("with: {url: x}, inputs: {a: {type: int}}, outputs: {b: inputs.a}, retry: {if: 'item == result'}, verify: {uses: http, with: {url: '{{ inputs.a }}'}, until: inputs.a == result.status}")),
        ("wrong values", action("with: {url: x}, timeout: 0s, idempotent: 1, retry: [], on_unknown: x, outputs: [a], undo: {uses: wait}, verify: 5, env: {A: b}, description: 5")),
        ("artifacts of what leaves none", action("with: {url: x}, artifacts: [a]")),
        ("a result where there is none", action("with: {url: '{{ result.id }}'}, undo: {uses: http, with: {url: '{{ result.id }}'}}")),
        ("verify is missed", action("with: {url: x}, on_unknown: verify")),
        ("may happen twice", action("with: {url: x, method: POST}, on_unknown: retry")),
        ("detectors", "detectors: {a: {}, b: {schedule: {cron: '@daily'}}, c: {nats: {subject: 'a..b'}, inputs: {a: b}}, d: {alertmanager: {matchers: ['a']}, nats: {subject: a}}, e: {nats: {subject: a}, key: '{{ alert.labels.x }}', if: alert.labels.y, group_wait: 5s}, f: 5}".to_owned()),
    ];
    let cases: Vec<(&str, &str)> = cases.iter().map(|(name, text)| (*name, text.as_str())).collect();
    insta::assert_snapshot!(told(&cases));
    let post = |rest: &str| action(&format!("with: {{url: x, method: POST}}, {rest}"));
    assert_eq!(
        told(&[
            ("its own warning", &post("on_unknown: retry, accept: [may-happen-twice]")),
            ("its steps' warning", &post("accept: [side-effect-unguarded, no-alert]")),
            ("nothing", &action("with: {url: x}, accept: [side-effect-unguarded]")),
            ("unknown", &post("accept: [no-such]")),
            ("no list", &post("accept: {a: b}")),
        ]),
        "# its own warning\n(nothing)\n# its steps' warning\n(nothing)\n\
         # nothing\nc.catalogue.yaml:1:52: warning[nothing-to-accept]: no step of this action has a warning side-effect-unguarded; remove it from accept\n\
         # unknown\nc.catalogue.yaml:1:66: warning[nothing-to-accept]: no step of this action has a warning no-such; remove it from accept\n\
         # no list\nc.catalogue.yaml:1:65: error[wrong-type]: accept must be a list, not a map"
    );
}

#[test]
fn a_warning_is_answered_once_in_the_catalogue_for_all_steps() {
    let text = |accept: &str| {
        format!("actions: {{wipe: {{uses: exec, with: {{argv: [x, '{{{{ alert.labels.a }}}}']}}{accept}}}}}")
    };
    let warnings = |accept: &str, own: &str| {
        let mut catalogue = Catalogue::new();
        catalogue.load("c.catalogue.yaml", &text(accept)).expect("it is a good one");
        let playbook = format!(
            "playbook: p\ntriggers: [{{nats: {{subject: a}}}}]\ncontain:\n  a: {{uses: wipe{own}}}\n  b: {{needs: [a], uses: wipe}}\n"
        );
        let loaded = load_with("p.yaml", &playbook, &catalogue).expect("it is a good one");
        loaded[0].warnings.iter().map(|warning| warning.code).collect::<Vec<_>>()
    };
    let (unguarded, alert) = ("side-effect-unguarded", "no-alert");
    assert_eq!(warnings("", ""), [alert, unguarded, alert, unguarded]);
    assert_eq!(warnings(", accept: [side-effect-unguarded]", ""), [alert, alert]);
    assert_eq!(warnings(", accept: [side-effect-unguarded, no-alert]", ", accept: [no-alert]"), [""; 0]);
}

#[test]
fn steps_that_use_the_catalogue_are_checked() {
    insta::assert_snapshot!(told_of_steps(&[
        (
            "in place",
            "{uses: revoke_token, with: {hosts: '{{ inputs.hosts }}', reason: 'a {{ run.id }}'}, foreach: inputs.hosts, on_unknown: verify}"
        ),
        ("a missing input", "{uses: revoke_token}"),
        ("an unknown input", "{uses: revoke_token, with: {hosts: [], tokn: x}}"),
        ("wrong types", "{uses: revoke_token, with: {hosts: x, token: [a], reason: 5}}"),
        ("with is no map", "{uses: revoke_token, with: [a]}"),
        ("names", "{uses: revoke_token, with: {hosts: '{{ inputs.hsts }}', token: '{{ item }}'}}"),
        ("a secret", "{uses: revoke_token, with: {hosts: [], token: '{{ secrets.a }}'}}"),
        ("secrets that are not listed", "{uses: revoke_token, with: {hosts: []}, secrets: [other]}"),
        ("secrets that are", "{uses: revoke_token, with: {hosts: []}, secrets: [auth]}"),
        ("an environment", "{uses: look, env: {A: b}}"),
        ("inputs where there are none", "{uses: look, with: {a: b}}"),
        ("misspelt", "{uses: revoke_tokn, with: {hosts: []}}"),
        ("a detector", "{uses: replay}"),
        (
            "in its parts",
            "{uses: log, with: {message: x}, verify: {uses: look, until: result.exit_code == 0}, undo: {uses: revoke_token, with: {hosts: []}}}"
        ),
        (
            "in its parts, wrongly",
            "{uses: log, with: {message: x}, verify: {uses: revoke_token, until: 'true'}, undo: {uses: revoke_token, with: {hsts: []}, env: {A: b}}}"
        ),
        (
            "its outputs and its undo",
            "{uses: revoke_token, with: {hosts: []}}\n  t: {uses: log, needs: [s], with: {message: '{{ steps.s.outputs.status }}{{ steps.s.outputs.nope }}'}}\n  u: {uses: undo, needs: [s], with: {step: s}}"
        ),
    ]));
}

#[test]
fn a_named_action_says_that_it_only_looks_unless_the_step_says_otherwise() {
    let mut catalogue = Catalogue::new();
    let text = "actions:\n  look: {uses: exec, with: {argv: [look]}, read_only: true}\n  bad: {uses: exec, with: {argv: [x]}, read_only: true, undo: {uses: look}}\n";
    let told = catalogue.load("c.catalogue.yaml", text).unwrap_err().to_string();
    assert!(told.contains("3:57: error[conflicting-keys]: what only looks leaves nothing to take back"), "{told}");
    catalogue.load("c.catalogue.yaml", text.split("  bad").next().unwrap()).unwrap();
    let of = |rest: &str| {
        let text = format!("playbook: p\ndefaults: {{idempotent: false}}\ncontain:\n  a: {{uses: look{rest}}}\n");
        let loaded = load_with("p.yaml", &text, &catalogue).map_err(|error| error.to_string())?.remove(0);
        let codes: Vec<&str> = loaded.warnings.iter().map(|warning| warning.code).collect();
        Ok::<_, String>((loaded.plan.steps[0].acts, loaded.plan.steps[0].policy.idempotent, codes))
    };
    assert_eq!(of(""), Ok((false, true, vec![])));
    assert_eq!(of(", read_only: false, idempotent: false"), Ok((true, false, vec!["side-effect-unguarded"])));
    assert!(of(", budget: some").unwrap_err().contains("conflicting-keys"));
    assert_eq!(of(", verify: {uses: look, until: result.exit_code == 0}"), Ok((false, true, vec![])));
}

#[test]
fn a_named_action_knows_its_files_and_what_it_did() {
    let mut catalogue = Catalogue::new();
    let text = "actions:\n  dump:\n    uses: exec\n    with: {argv: [./dump.sh]}\n    artifacts: [dump.gz]\n    undo: {uses: exec, with: {argv: [./forget.sh, '{{ result.id }}']}}\n";
    catalogue.load("c.catalogue.yaml", text).unwrap();
    let text = "playbook: p\ncontain:\n  a: {uses: dump}\n  b: {uses: dump, artifacts: [other]}\n";
    let plan = load_with("p.yaml", text, &catalogue).map_err(|error| error.to_string()).unwrap().remove(0).plan;
    let artifacts: Vec<_> = plan
        .steps
        .iter()
        .map(|step| match &step.uses {
            Uses::Action(call) => call.with.render(&Scope::default()).unwrap()["artifacts"].clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(artifacts, [json!(["dump.gz"]), json!(["other"])]);
    let undo = plan.steps[0].undo.as_ref().unwrap();
    let names = Scope([("result".to_owned(), json!({"id": "7"}))].into());
    assert_eq!(undo.call.with.render(&names).unwrap()["argv"], json!(["./forget.sh", "7"]));
}

#[test]
fn a_named_action_ends_what_others_did_before_it() {
    let mut catalogue = Catalogue::new();
    let text = "actions:\n  hold: {uses: http, with: {method: PUT, url: x}, undo: {uses: http, with: {method: DELETE, url: x}}}\n  free: {uses: http, with: {method: DELETE, url: x}, ends: [hold, unused]}\n";
    catalogue.load("c.catalogue.yaml", text).unwrap();
    let text = "playbook: p\ncontain: hold, free, hold\n";
    let plan = load_with("p.yaml", text, &catalogue).map_err(|error| error.to_string()).unwrap().remove(0).plan;
    let ends: Vec<_> = plan.steps.iter().map(|step| (step.name.as_str(), step.ends.clone())).collect();
    assert_eq!(ends, [("hold", vec![]), ("free", vec![0]), ("hold_2", vec![])]);
}

#[test]
fn a_named_action_is_its_built_in_one_with_inputs() {
    let text = "playbook: p\ninputs: {hosts: {type: list}}\ndefaults: {timeout: 1m, retry: {max_attempts: 2, backoff: 3}, idempotent: false}\ncontain:\n  \
                a: {uses: revoke_token, with: {hosts: '{{ inputs.hosts }}', reason: drill}}\n  \
                b: {uses: revoke_token, with: {hosts: []}, timeout: 4s, retry: {max_attempts: 1}, on_unknown: ask, idempotent: false, outputs: {body: result.body}, undo: {uses: log, with: {message: x}}}\n";
    let loaded = load_with("p.yaml", text, &shipped()).map_err(|error| error.to_string()).unwrap().remove(0);
    assert_eq!(loaded.warnings, []);
    let plan = loaded.plan;
    let [a, b] = plan.steps.as_slice() else { panic!("two steps") };
    let Uses::Action(call) = &a.uses else { panic!("an action") };
    let (name, inputs) = call.alias.as_ref().unwrap();
    assert_eq!((name.as_str(), call.action.as_str()), ("revoke_token", "http"));
    let names = Scope(
        [
            ("inputs".to_owned(), json!({"hosts": ["h"]})),
            ("alert".to_owned(), json!({"labels": {"token": "t"}})),
            ("incident".to_owned(), json!({"key": "k"})),
        ]
        .into(),
    );
    let rendered = inputs.render(&names).unwrap();
    assert_eq!(rendered, json!({"token": "t", "reason": "drill", "hosts": ["h"], "hint": null}));
    let mut within = names.clone();
    within.0.insert("inputs".to_owned(), rendered);
    assert_eq!(
        call.with.render(&within).unwrap()["body"],
        json!({"token": "t", "hosts": ["h"], "reason": "drill of k"})
    );
    assert_eq!((a.policy.idempotent, a.policy.on_unknown, a.timeout.unwrap().as_secs()), (true, OnUnknown::Verify, 9));
    assert_eq!((a.policy.retry.max_attempts, a.policy.retry.backoff), (7, 3.0));
    assert_eq!(a.retry_if.as_ref().unwrap().source(), "error != 'gone'");
    for part in [&a.verify.as_ref().unwrap().call, &a.undo.as_ref().unwrap().call] {
        assert_eq!(part.alias.as_ref().unwrap().1.render(&names).unwrap()["token"], json!("t"));
    }
    assert_eq!(a.outputs.keys().collect::<Vec<_>>(), ["status"]);
    assert_eq!(
        (b.policy.idempotent, b.policy.on_unknown, b.timeout.unwrap().as_secs(), b.policy.retry.max_attempts),
        (false, OnUnknown::Ask, 4, 1)
    );
    assert_eq!(b.outputs.keys().collect::<Vec<_>>(), ["body", "status"]);
    assert_eq!(b.undo.as_ref().unwrap().call.action.as_str(), "log");
    let again = Plan::from_canonical(plan.canonical()).unwrap();
    assert_eq!(format!("{:?}", plan.steps), format!("{:?}", again.steps));
}

#[test]
fn a_bad_catalogue_changes_nothing() {
    let mut catalogue = shipped();
    assert!(
        catalogue
            .load("b.catalogue.yaml", "actions: {good: {uses: log, with: {message: x}}, bad: {uses: nope}}")
            .is_err()
    );
    let names: Vec<&str> = catalogue.actions().chain(catalogue.detectors()).map(|(name, _)| name).collect();
    assert_eq!(names, ["look", "revoke_token", "replay"]);
    let told = |name: &str| {
        load_with("p.yaml", &format!("playbook: p\ndetect: {{s: {{uses: {name}}}}}"), &catalogue).unwrap_err().list[0]
            .to_string()
    };
    assert_eq!(
        told("good"),
        "p.yaml:2:20: error[broken-catalogue]: good stands in b.catalogue.yaml, which has errors; mend the catalogue first"
    );
    assert!(told("other").contains("[unknown-action]"));
    let mut torn = shipped();
    assert!(torn.load("t.catalogue.yaml", "actions:\n  good: {uses: log\n  bad: 5\n").is_err());
    assert!(
        load_with("p.yaml", "playbook: p\ndetect: {s: {uses: good}}", &torn)
            .unwrap_err()
            .to_string()
            .contains("broken-catalogue")
    );
}
