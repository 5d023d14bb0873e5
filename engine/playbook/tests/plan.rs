//! The plan: defaults, the canonical form, inputs, triggers, and the schema beside the checker.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};
use stanch_playbook::plan::{Jitter, OnUnknown};
use stanch_playbook::{Plan, Uses, Wait, catalogue_schema, load, schema};

const FULL: &str = include_str!("fixtures/compromised-host.yaml");

const WHOLE: &str = include_str!("fixtures/whole-language.yaml");

fn plan(text: &str) -> Plan {
    load("p.yaml", text).map_err(|error| error.to_string()).expect("a good playbook").plan
}

#[test]
fn the_designs_example_becomes_a_plan() {
    let loaded = load("p.yaml", FULL).map_err(|error| error.to_string()).unwrap();
    assert_eq!(loaded.warnings, []);
    let plan = loaded.plan;
    let keys: Vec<&str> = plan.steps.iter().map(|step| step.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "detect.enrich",
            "detect.snapshot-host",
            "contain.announce",
            "contain.isolate",
            "recover.quiet",
            "recover.pause",
            "finally.review"
        ]
    );
    assert_eq!(plan.steps[3].needs, [2]);
    assert_eq!(plan.step_index(&plan.steps[5].key), Some(5));
    assert_eq!(plan.triggers.len(), 4);
    assert_eq!(plan.concurrency, Some(2));
    assert!(matches!(plan.steps[4].uses, Uses::Wait(Wait::Resolved { settle }) if settle == Duration::from_secs(300)));
}

#[test]
fn the_examples_without_a_catalogue_are_plans_without_a_warning() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../playbooks/general");
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let yaml: Vec<_> = files.filter(|file| file.to_string_lossy().ends_with(".yaml")).collect();
    assert!(!yaml.is_empty());
    let is_playbook = |file: &&std::path::PathBuf| {
        let name = file.to_string_lossy();
        !name.ends_with(".catalogue.yaml") && !name.ends_with(".test.yaml")
    };
    for file in yaml.iter().filter(is_playbook) {
        let loaded = load("p.yaml", &std::fs::read_to_string(file).unwrap()).map_err(|error| error.to_string());
        assert_eq!(loaded.map(|loaded| loaded.warnings), Ok(Vec::new()), "{}", file.display());
    }
}

#[test]
fn the_designs_whole_example_becomes_a_plan() {
    let loaded = load("p.yaml", WHOLE).map_err(|error| error.to_string()).unwrap();
    assert_eq!(loaded.warnings, []);
    let again = Plan::from_canonical(loaded.plan.canonical()).unwrap();
    assert_eq!(format!("{:?}", loaded.plan.steps), format!("{:?}", again.steps));
}

#[test]
fn attempts_are_repeated_as_the_design_says_unless_the_step_does() {
    let text = "playbook: p\ndetect:\n  log: {uses: log, with: {message: x}}\n  get: {uses: http, with: {url: x}}\n  post: {uses: http, with: {url: x, method: POST}}\n  \
                sure: {uses: exec, with: {argv: [a]}, idempotent: true}\n  own: {uses: exec, with: {argv: [a]}, retry: {max_attempts: 4, initial_interval: 5m, jitter: none}, on_unknown: fail, timeout: 5s}\n  \
                wait: {uses: wait, with: {duration: 5s}}\n";
    let plan = plan(text);
    let facts: Vec<_> = plan
        .steps
        .iter()
        .map(|step| {
            (
                step.name.as_str(),
                step.policy.idempotent,
                step.policy.retry.max_attempts,
                step.policy.on_unknown,
                step.timeout.map(|length| length.as_secs()),
            )
        })
        .collect();
    assert_eq!(
        facts,
        [
            ("log", true, 3, OnUnknown::Retry, Some(120)),
            ("get", true, 3, OnUnknown::Retry, Some(120)),
            ("post", false, 1, OnUnknown::Ask, Some(120)),
            ("sure", true, 3, OnUnknown::Retry, Some(120)),
            ("own", false, 4, OnUnknown::Fail, Some(5)),
            ("wait", true, 3, OnUnknown::Retry, None),
        ]
    );
    let retry = plan.steps[0].policy.retry;
    assert_eq!(
        (retry.initial_interval, retry.backoff, retry.max_interval, retry.jitter),
        (Duration::from_secs(1), 2.0, Duration::from_secs(60), Jitter::Full)
    );
    let retry = plan.steps[4].policy.retry;
    assert_eq!(
        (retry.initial_interval, retry.max_interval, retry.jitter),
        (Duration::from_secs(300), Duration::from_secs(300), Jitter::None)
    );
}

#[test]
fn defaults_reach_action_steps_and_not_waits() {
    let text = "playbook: p\ndefaults: {timeout: 7s, retry: {max_attempts: 9}, on_unknown: fail}\ndetect:\n  a: {uses: http, with: {url: x, method: POST}}\n  b: {uses: log, with: {message: x}, timeout: 8s, on_unknown: ask, retry: {backoff: 3}}\n  w: {uses: wait, with: {for: resolved}}\n";
    let plan = plan(text);
    let facts: Vec<_> = plan
        .steps
        .iter()
        .map(|step| {
            (step.timeout.map(|length| length.as_secs()), step.policy.retry.max_attempts, step.policy.on_unknown)
        })
        .collect();
    assert_eq!(facts[..2], [(Some(7), 9, OnUnknown::Fail), (Some(8), 9, OnUnknown::Ask)]);
    assert_eq!(facts[2].0, None);
    assert!(matches!(plan.steps[2].uses, Uses::Wait(Wait::Resolved { settle }) if settle == Duration::from_secs(30)));
}

#[test]
fn a_plan_comes_back_from_its_canonical_form() {
    let first = plan(FULL);
    let second = Plan::from_canonical(first.canonical()).unwrap();
    assert_eq!(first.canonical(), second.canonical());
    assert_eq!(first.digest, second.digest);
    assert_eq!(format!("{:?}", first.steps), format!("{:?}", second.steps));
    assert_eq!(format!("{:?}", first.inputs), format!("{:?}", second.inputs));
    assert_eq!(first.triggers.len(), second.triggers.len());
}

#[test]
fn the_digest_is_of_what_matters_and_stays_the_same_over_versions() {
    let text = "playbook: p\ndetect:\n  a: {uses: log, with: {message: x}}\n";
    let same =
        "# a comment\nplaybook:   \"p\"\ndetect:\n  a:\n    with: {message: x}\n    uses: log\n    timeout: 2m\n";
    assert_eq!(plan(text).digest, plan(same).digest);
    assert_ne!(plan(text).digest, plan(&text.replace("message: x", "message: y")).digest);
    // A journal's runs are pinned to this: it changes only with `format`.
    insta::assert_snapshot!(format!("{}\n{}", plan(text).canonical(), plan(text).digest));
}

#[test]
fn a_text_that_is_no_canonical_form_is_refused() {
    for text in ["", "{}", "[]", &FULL[..100], &plan(FULL).canonical().replace("\"format\":1", "\"format\":2")] {
        assert!(Plan::from_canonical(text).is_err(), "{text}");
    }
    let unknown = plan(FULL).canonical().replace("nats.request", "nats.reqest");
    assert_eq!(
        Plan::from_canonical(&unknown).unwrap_err().to_string(),
        "not a plan of this version: contain.isolate: not a plan of this version: unknown action \"nats.reqest\""
    );
}

#[test]
fn inputs_are_checked_and_filled() {
    let plan = plan(
        "playbook: p\ninputs:\n  hosts: {type: list, required: true}\n  drill: {type: bool, default: false}\n  n: {type: int}\n  f: {type: number}\n  s: {type: string, default: x}\n  m: {type: map}\ndetect: {a: {uses: log, with: {message: x}}}\n",
    );
    let check = |given: Value| match given {
        Value::Object(given) => plan.check_inputs(given).map(Value::Object).map_err(|error| error.to_string()),
        _ => unreachable!("cases are objects"),
    };
    let filled = json!({"hosts": [], "drill": false, "n": null, "f": null, "s": "x", "m": null});
    assert_eq!(check(json!({"hosts": []})), Ok(filled.clone()));
    assert_eq!(check(json!({"hosts": [], "n": null})), Ok(filled));
    let spelled = json!({"hosts": ["a"], "drill": "true", "n": "5", "f": "1.5", "s": "5", "m": {}});
    assert_eq!(check(spelled), Ok(json!({"hosts": ["a"], "drill": true, "n": 5, "f": 1.5, "s": "5", "m": {}})));
    let error = |given: Value| check(given).unwrap_err();
    assert_eq!(error(json!({})), "the required input hosts is missing; give it as a list");
    assert_eq!(error(json!({"hosts": null})), "input hosts is null, not a list");
    assert_eq!(error(json!({"hosts": "a"})), "input hosts is a string, not a list");
    assert_eq!(error(json!({"hots": []})), "no input is named \"hots\"; did you mean hosts?");
    assert_eq!(error(json!({"hosts": [], "drill": "yes"})), "input drill is a string, not a bool");
    assert_eq!(error(json!({"hosts": [], "n": 1.5})), "input n is a number, not an int");
    assert_eq!(error(json!({"hosts": [], "s": 5})), "input s is an int, not a string");
}

#[test]
fn triggers_know_what_they_listen_to() {
    let plan = plan(FULL);
    let labels = |env: &str| {
        BTreeMap::from([("alertname".to_owned(), "C2Beacon".to_owned()), ("env".to_owned(), env.to_owned())])
    };
    assert!(plan.triggers[0].matches_alert(&labels("prod")));
    assert!(!plan.triggers[0].matches_alert(&labels("dev")));
    assert!(!plan.triggers[1].matches_alert(&labels("prod")));
    assert!(plan.triggers[1].matches_subject("sec.ioc.host.a.b"));
    assert!(!plan.triggers[1].matches_subject("sec.ioc.host"));
    assert!(!plan.triggers[0].matches_subject("sec.ioc.host.a"));
    for (filter, subject, expected) in [
        ("a.*.c", "a.b.c", true),
        ("a.*.c", "a.b.b.c", false),
        ("a.*", "a", false),
        (">", "a.b", true),
        ("a.b", "a.b", true),
        ("a.b", "a.b.c", false),
        ("a.>", "a", false),
    ] {
        assert_eq!(stanch_playbook::subject_matches(filter, subject), expected, "{filter} on {subject}");
    }
}

/// The keys of an object schema, with `$ref` followed.
fn properties<'a>(root: &'a Value, schema: &'a Value) -> &'a Map<String, Value> {
    let schema = match schema.get("$ref").and_then(Value::as_str) {
        Some(path) => root.pointer(path.trim_start_matches('#')).expect("a reference leads somewhere"),
        None => schema,
    };
    schema["properties"].as_object().expect("an object's schema")
}

#[test]
fn the_schema_and_the_checker_know_the_same_keys() {
    let schema = schema();
    let codes = |text: String| match load("p.yaml", &text) {
        Ok(_) => Vec::new(),
        Err(diagnostics) => {
            diagnostics.list.into_iter().map(|diagnostic| (diagnostic.code, diagnostic.message)).collect()
        }
    };
    let known = |codes: &[(&'static str, String)]| {
        !codes.iter().any(|(code, _)| ["unknown-key", "unknown-field", "not-yet-supported"].contains(code))
    };
    let step = schema.pointer("/$defs/step").unwrap();
    let trigger = schema.pointer("/$defs/trigger").unwrap();
    let top = properties(&schema, schema.pointer("/$defs/playbook").unwrap());
    let cases: Vec<(String, Vec<&String>)> = vec![
        ("KEY: {}".to_owned(), top.keys().collect()),
        ("triggers: [{KEY: {}}]".to_owned(), properties(&schema, trigger).keys().collect()),
        (
            "triggers: [{alertmanager: {KEY: 1}}]".to_owned(),
            properties(&schema, &trigger["properties"]["alertmanager"]).keys().collect(),
        ),
        (
            "triggers: [{nats: {KEY: 1}}]".to_owned(),
            properties(&schema, &trigger["properties"]["nats"]).keys().collect(),
        ),
        (
            "triggers: [{schedule: {KEY: 1}}]".to_owned(),
            properties(&schema, &trigger["properties"]["schedule"]).keys().collect(),
        ),
        (
            "inputs: {a: {KEY: 1}}".to_owned(),
            properties(&schema, &top["inputs"]["additionalProperties"]).keys().collect(),
        ),
        ("defaults: {KEY: 1}".to_owned(), properties(&schema, &top["defaults"]).keys().collect()),
        (
            "defaults: {retry: {KEY: 1}}".to_owned(),
            properties(&schema, &top["defaults"]["properties"]["retry"]).keys().collect(),
        ),
        ("incident: {KEY: 1}".to_owned(), properties(&schema, &top["incident"]).keys().collect()),
        (
            "incident: {slack: {KEY: 1}}".to_owned(),
            properties(&schema, &top["incident"]["properties"]["slack"]).keys().collect(),
        ),
        (
            "incident: {escalation: {KEY: 1}}".to_owned(),
            properties(&schema, &top["incident"]["properties"]["escalation"]).keys().collect(),
        ),
        (
            "incident: {escalation: {notify: [{KEY: 1}]}}".to_owned(),
            properties(&schema, &top["incident"]["properties"]["escalation"]["properties"]["notify"]["items"])
                .keys()
                .collect(),
        ),
        ("detect: {s: {KEY: 1}}".to_owned(), properties(&schema, step).keys().collect()),
        (
            "detect: {s: {uses: log, verify: {KEY: 1}}}".to_owned(),
            properties(&schema, &step["properties"]["verify"]).keys().collect(),
        ),
        (
            "detect: {s: {uses: log, undo: {KEY: 1}}}".to_owned(),
            properties(&schema, &step["properties"]["undo"]).keys().collect(),
        ),
    ];
    for (form, keys) in cases {
        for key in keys {
            let found = codes(format!("{}\n", form.replace("KEY", key)));
            assert!(known(&found), "the checker does not know {key} of {form}: {found:?}");
        }
        let found = codes(format!("{}\n", form.replace("KEY", "zzzzzz")));
        assert!(!known(&found), "the checker takes anything in {form}");
    }
    for action in step["allOf"].as_array().unwrap() {
        let name = action.pointer("/if/properties/uses/const").and_then(Value::as_str).unwrap();
        let with = action.pointer("/then/properties/with/$ref").and_then(Value::as_str).unwrap();
        let with = schema.pointer(with.trim_start_matches('#')).unwrap();
        assert_eq!(with["additionalProperties"], json!(false));
        for field in with["properties"].as_object().unwrap().keys() {
            let found = codes(format!("playbook: p\ndetect: {{s: {{uses: {name}, with: {{{field}: 1}}}}}}\n"));
            assert!(known(&found), "{name} does not take {field}: {found:?}");
        }
    }
}

#[test]
fn every_key_of_the_schema_is_described() {
    fn walk(value: &Value, place: &str) {
        match value {
            Value::Object(map) => {
                if let Some(properties) =
                    map.get("properties").and_then(Value::as_object).filter(|_| !place.ends_with("/if"))
                {
                    for (key, schema) in properties {
                        let inner = place.ends_with("/then");
                        assert!(inner || schema["description"].is_string(), "{place}/{key} has no description");
                    }
                }
                map.iter().for_each(|(key, value)| walk(value, &format!("{place}/{key}")));
            }
            Value::Array(list) => list.iter().for_each(|value| walk(value, place)),
            _ => {}
        }
    }
    walk(&schema(), "");
    walk(&catalogue_schema(), "");
}

#[test]
fn the_schemas_in_the_repository_are_these() {
    for (name, schema) in [("playbook", schema()), ("catalogue", catalogue_schema())] {
        let path = format!("{}/../../schemas/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if std::env::var_os("STANCH_WRITE").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == text, "make it again: STANCH_WRITE=1 cargo nextest run -p stanch-playbook");
    }
}
