//! The compact form: what it becomes, and what it is told.

use std::time::Duration;

use stanch_playbook::{Catalogue, Loaded, Plan, TriggerOn, Uses, Wait, load, load_with};

/// *Incident Playbooks (Additions)* and *Key and JWKS Rotation* of an operations guide, as they stand there.
const INCIDENTS: &str = "\
playbooks:
  token_replay_suspected:
    detect: dpop_jti_reuse_or_mtls_mismatch
    contain: revoke_token, block_ip, require_step_up
    eradicate: rotate_keys_if_compromised
    recover: resume_traffic_with_monitoring
  manifest_verification_failure:
    detect: spike_in_jws_verify_errors
    contain: quarantine_server_registration
    eradicate: update_trust_roots_or_inform_provider
    recover: resume_registration_after_pass
  ssrf_attempts:
    detect: egress_proxy_denied_events
    contain: tighten_tenant_allowlist, alert_sec
    eradicate: patch_validation_rules
    recover: monitor_and_report
";
const ROTATION: &str = "\
jwks_rotation:
  schedule: \"@weekly\"
  steps:
    - generate_new_keypair
    - publish_to_vault_and_jwks
    - add_new_kid_with_overlap
    - wait_propagation: 24h
    - retire_old_kid
  monitoring:
    - stale_kid_alert: 48h
";

/// A catalogue that gives every name of the two blocks a meaning.
fn catalogue() -> Catalogue {
    let actions = [
        "revoke_token",
        "block_ip",
        "require_step_up",
        "rotate_keys_if_compromised",
        "resume_traffic_with_monitoring",
        "quarantine_server_registration",
        "update_trust_roots_or_inform_provider",
        "resume_registration_after_pass",
        "tighten_tenant_allowlist",
        "alert_sec",
        "patch_validation_rules",
        "monitor_and_report",
        "generate_new_keypair",
        "publish_to_vault_and_jwks",
        "add_new_kid_with_overlap",
        "retire_old_kid",
    ];
    let actions: String = actions
        .iter()
        .map(|name| format!("  {name}: {{uses: log, with: {{message: \"{name} of {{{{ incident.key }}}}\"}}}}\n"))
        .collect();
    let actions = actions
        + "  of_alert: {inputs: {a: {type: string, default: '{{ alert.labels.a }}'}}, uses: log, with: {message: '{{ inputs.a }}'}}\n";
    let detectors = "  dpop_jti_reuse_or_mtls_mismatch: {alertmanager: {matchers: ['alertname=\"DpopReuse\"']}, key: \"replay/{{ alert.labels.tenant }}\"}\n  \
                     spike_in_jws_verify_errors: {alertmanager: {matchers: ['alertname=\"JwsErrors\"']}}\n  egress_proxy_denied_events: {nats: {subject: egress.denied.>}, if: event.data.count > 10}\n";
    let mut catalogue = Catalogue::new();
    catalogue
        .load("c.catalogue.yaml", &format!("actions:\n{actions}detectors:\n{detectors}"))
        .map_err(|error| error.to_string())
        .expect("a good catalogue");
    catalogue
}

fn loaded(text: &str) -> Vec<Loaded> {
    load_with("p.yaml", text, &catalogue()).map_err(|error| error.to_string()).expect("good playbooks")
}

/// The steps, each with what it needs.
fn steps(plan: &Plan) -> Vec<String> {
    let step = |step: &stanch_playbook::Step| {
        let needs: Vec<&str> = step.needs.iter().map(|index| plan.steps[*index].name.as_str()).collect();
        format!("{} <- {}", step.key, needs.join(" "))
    };
    plan.steps.iter().map(step).collect()
}

#[test]
fn playbooks_that_read_like_a_runbook_are_playbooks() {
    let loaded = loaded(INCIDENTS);
    assert!(loaded.iter().all(|one| one.warnings.is_empty()));
    let names: Vec<&str> = loaded.iter().map(|one| one.plan.name.as_str()).collect();
    assert_eq!(names, ["token_replay_suspected", "manifest_verification_failure", "ssrf_attempts"]);
    let plan = &loaded[0].plan;
    assert_eq!(
        steps(plan),
        [
            "contain.revoke_token <- ",
            "contain.block_ip <- revoke_token",
            "contain.require_step_up <- block_ip",
            "eradicate.rotate_keys_if_compromised <- ",
            "recover.resume_traffic_with_monitoring <- ",
        ]
    );
    assert!(matches!(&plan.triggers[0].on, TriggerOn::Alertmanager(_)));
    assert_eq!(plan.triggers[0].key.as_ref().unwrap().source(), "replay/{{ alert.labels.tenant }}");
    let Uses::Action(call) = &plan.steps[0].uses else { panic!("an action") };
    assert_eq!(call.alias.as_ref().unwrap().0, "revoke_token");
    let trigger = &loaded[2].plan.triggers[0];
    assert!(trigger.matches_subject("egress.denied.a") && trigger.condition.is_some());
    for one in &loaded {
        assert_eq!(Plan::from_canonical(one.plan.canonical()).unwrap().digest, one.plan.digest);
    }
}

#[test]
fn a_routine_runs_on_its_schedule() {
    let loaded = loaded(ROTATION);
    let plan = &loaded[0].plan;
    assert_eq!((loaded.len(), plan.name.as_str(), &loaded[0].warnings[..]), (1, "jwks_rotation", &[][..]));
    assert_eq!(
        steps(plan),
        [
            "steps.generate_new_keypair <- ",
            "steps.publish_to_vault_and_jwks <- generate_new_keypair",
            "steps.add_new_kid_with_overlap <- publish_to_vault_and_jwks",
            "steps.wait_propagation <- add_new_kid_with_overlap",
            "steps.retire_old_kid <- wait_propagation",
        ]
    );
    assert!(matches!(&plan.steps[3].uses, Uses::Wait(Wait::Duration(length)) if length.source() == "24h"));
    assert!(matches!(&plan.triggers[0].on, TriggerOn::Schedule(_)));
    assert_eq!(plan.watchdogs, [("stale_kid_alert".to_owned(), Duration::from_secs(48 * 3600))].into());
    assert_eq!(Plan::from_canonical(plan.canonical()).unwrap().digest, plan.digest);
}

#[test]
fn names_that_repeat_get_a_suffix() {
    let text = "playbook: p\ndetect: block_ip, revoke_token, block_ip\ncontain: [block_ip, wait: 5s, wait: 6s]\nrecover:\n  block_ip_3: {uses: log, with: {message: x}}\n";
    assert_eq!(
        steps(&loaded(text)[0].plan),
        [
            "detect.block_ip <- ",
            "detect.revoke_token <- block_ip",
            "detect.block_ip_2 <- revoke_token",
            "contain.block_ip_4 <- ",
            "contain.wait <- block_ip_4",
            "contain.wait_2 <- wait",
            "recover.block_ip_3 <- ",
        ]
    );
}

#[test]
fn the_compact_form_and_the_other_keys_stand_together() {
    let text = "playbooks:\n  a:\n    severity: P1\n    incident: {key: shared}\n    detect: [egress_proxy_denied_events, block_ip]\n    triggers: [{manual: {}, key: own}]\n    finally: alert_sec\n  \
                b:\n    contain:\n      s: {uses: revoke_token}\n";
    let loaded = loaded(text);
    let [a, b] = loaded.as_slice() else { panic!("two playbooks") };
    assert_eq!(steps(&a.plan), ["detect.block_ip <- ", "finally.alert_sec <- "]);
    let keys: Vec<_> = a.plan.triggers.iter().map(|trigger| trigger.key.as_ref().unwrap().source()).collect();
    assert_eq!(keys, ["own", "shared"]);
    assert_eq!(steps(&b.plan), ["contain.s <- "]);
    let routine = "r:\n  schedule: {cron: '0 4 * * *', timezone: Europe/London}\n  triggers: [{manual: {}}]\n  steps: block_ip\n  finally: alert_sec\n  monitoring: {late: 1h, very_late: 1d}\n";
    let plan = &self::loaded(routine)[0].plan;
    assert_eq!((plan.triggers.len(), plan.watchdogs.len(), steps(plan).len()), (2, 2, 2));
}

#[test]
fn one_file_of_several_playbooks_is_not_one() {
    let error = load("p.yaml", "playbooks: {a: {detect: {s: {uses: log, with: {message: x}}}}, b: {detect: {s: {uses: log, with: {message: x}}}}}").unwrap_err();
    assert_eq!(error.list[0].code, "several-playbooks");
}

#[test]
fn what_cannot_be_written_out_is_told() {
    let cases = [
        ("unknown names", "playbook: p\ncontain: revoke_tokn, nothing_like_it\nrecover: [block_ipp]\n"),
        ("names on several lines", "playbook: p\ncontain: revoke_token,\n  block_ipp\n"),
        ("names that are missing", "playbook: p\ncontain: revoke_token,, block_ip,\ndetect: ''\nrecover: []\n"),
        (
            "what is no name",
            "playbook: p\ncontain: [5, [a], {block_ip: {a: b}}, {wait_a: 1h, wait_b: 2h}, null]\nrecover: 5\neradicate:\n",
        ),
        ("waits", "playbook: p\ncontain: [wait_a: 5, wait_b: soon, wait_c: [1h], waiting: 5s]\n"),
        ("a detector elsewhere", "playbook: p\ncontain: [egress_proxy_denied_events]\n"),
        ("a detector as a step", "playbook: p\ndetect: {s: {uses: egress_proxy_denied_events}}\n"),
        (
            "required inputs",
            "playbook: p\ninputs: {a: {type: int, required: true}}\ndetect: egress_proxy_denied_events\ncontain: block_ip\n",
        ),
        (
            "the incident's key",
            "playbook: p\nincident: {key: '{{ alert.labels.a }}'}\ndetect: egress_proxy_denied_events\ncontain: block_ip\n",
        ),
        (
            "alerts of a detector without",
            "playbook: p\ndetect: egress_proxy_denied_events\ncontain: {s: {uses: log, with: {message: '{{ alert.labels.a }}'}}}\n",
        ),
        (
            "alerts that an action names",
            "playbook: p\ndetect: egress_proxy_denied_events\ncontain: [of_alert]\nrecover: {s: {uses: of_alert, with: {a: x}}}\n",
        ),
        (
            "several, wrongly",
            "playbooks: {a: block_ip, b: {playbook: c, contain: block_ip}, 'B b': {contain: block_ip}}\nseverity: P1\n",
        ),
        ("several of none", "playbooks: {}\n"),
        ("several as a list", "playbooks: [a]\n"),
        ("an error in the second", "playbooks: {a: {contain: block_ip}, b: {contain: block_ipp}}\n"),
        (
            "routines, wrongly",
            "a: {steps: block_ip}\nb: {schedule: '@weekly'}\nc: 5\nd: {schedule: 5, steps: block_ip}\ne: {schedule: '@wekly', steps: block_ip, stages: x}\nf: {schedule: '@weekly', steps: block_ip, playbook: x}\n",
        ),
        ("steps beside phases", "playbook: p\nsteps: block_ip\ncontain: block_ip\n"),
        ("watchdogs", "a: {schedule: '@weekly', steps: block_ip, monitoring: [late: 5, 'a b': 1h, ok: 1h, ok: 2h]}\n"),
        ("watchdogs of nothing", "playbook: p\ncontain: block_ip\nmonitoring: [late: 1h]\n"),
        ("watchdogs of the wrong type", "a: {schedule: '@weekly', steps: block_ip, monitoring: 5h}\n"),
        ("a name too long", &format!("playbook: p\ncontain: {}\n", "a".repeat(70))),
    ];
    let told = cases.map(|(name, text)| {
        let said = match load_with("p.yaml", text, &catalogue()) {
            Ok(loaded) => loaded.iter().flat_map(|one| &one.warnings).map(|warning| format!("{warning}\n")).collect(),
            Err(diagnostics) => format!("{diagnostics}\n"),
        };
        format!("# {name}\n{said}")
    });
    insta::assert_snapshot!(told.concat());
}
