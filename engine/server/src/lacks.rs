//! What playbooks use that the configuration does not have: told at the start, not at the first alert of the night.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use stanch_playbook::Plan;

use crate::config::Config;

/// One sentence for each thing that is missing, sorted.
pub(crate) fn lacking(plans: &[Arc<Plan>], config: &Config) -> Vec<String> {
    let mut missing: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for plan in plans {
        let mut note = |what: String| {
            missing.entry(what).or_default().insert(plan.name.as_str());
        };
        // The canonical form names actions, secrets and people in one way wherever they stand.
        let canonical: Value = serde_json::from_str(plan.canonical()).unwrap_or_default();
        let mut open = vec![&canonical];
        while let Some(value) = open.pop() {
            match value {
                Value::Object(map) => {
                    let with = map.get("with").unwrap_or(&Value::Null);
                    let uses = map.get("uses").and_then(Value::as_str).unwrap_or_default();
                    if !is_configured(uses, with, config) {
                        note(format!("{uses} is not configured"));
                    }
                    let from = with.get("from").and_then(Value::as_array).filter(|_| uses == "approval");
                    for group in from.into_iter().flatten().filter_map(Value::as_str) {
                        let Some(name) = group.strip_prefix("group:") else { continue };
                        if !config.people.values().any(|person| person.groups.iter().any(|of| of == name)) {
                            note(format!("nobody belongs to {group}"));
                        }
                    }
                    open.extend(map.values());
                }
                Value::Array(list) => open.extend(list),
                Value::String(text) => {
                    for secret in secrets_in(text).filter(|secret| !config.secrets.contains_key(*secret)) {
                        note(format!("the secret {secret} is not configured"));
                    }
                }
                _ => {}
            }
        }
    }
    let told = |(what, plans): (String, BTreeSet<&str>)| {
        let first = plans.first().copied().unwrap_or_default();
        match plans.len() {
            1 => format!("{what}, and the playbook {first} needs it"),
            many => format!("{what}, and {many} playbooks need it, such as {first}"),
        }
    };
    missing.into_iter().map(told).collect()
}

fn is_configured(uses: &str, with: &Value, config: &Config) -> bool {
    let own_url = with.get("url").is_some();
    match uses {
        "slack" => config.slack.is_some(),
        "email" => config.email.is_some(),
        "pagerduty" => config.pagerduty.routing_key.is_some() || with.get("routing_key").is_some(),
        "prometheus" => config.prometheus.is_some() || own_url,
        "alertmanager.silence" => config.alertmanager.is_some() || own_url,
        // Inside a cluster the pod's own account will do.
        "kubernetes" => config.kubernetes.url.is_some() || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
        "nats.publish" | "nats.request" => config.nats.is_some(),
        _ => true,
    }
}

/// The names after `{{ secrets.` in a text.
fn secrets_in(text: &str) -> impl Iterator<Item = &str> {
    let after = text.split("{{").skip(1).filter_map(|part| part.trim_start().strip_prefix("secrets."));
    after
        .map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_configuration_lacks_is_told_once_with_who_needs_it() {
        let load =
            |text: &str| Arc::new(stanch_playbook::load("p.yaml", text).unwrap_or_else(|bad| panic!("{bad}")).plan);
        let plans = [
            load(
                "playbook: a\ncontain:\n  ask: {uses: approval, with: {prompt: x, from: ['group:oncall', 'group:dba']}, timeout: 5m}\n  \
                 do: {needs: [ask], uses: http, with: {method: PUT, url: 'https://x', headers: {A: 'Bearer {{ secrets.edr }}'}}}\n  \
                 ask-it: {uses: prometheus, with: {query: up, url: 'http://p:9090'}}\nfinally:\n  tell: {uses: slack, with: {text: x}}\n",
            ),
            load("playbook: b\nfinally:\n  tell: {uses: slack, with: {text: x}}\n"),
        ];
        let lacks = lacking(&plans, &Config::default());
        assert_eq!(
            lacks,
            [
                "nobody belongs to group:dba, and the playbook a needs it",
                "nobody belongs to group:oncall, and the playbook a needs it",
                "slack is not configured, and 2 playbooks need it, such as a",
                "the secret edr is not configured, and the playbook a needs it",
            ]
        );
        let text = "slack: {token: 'env:T'}\nsecrets: {edr: {from: 'env:E', hosts: [x]}}\npeople: {ann: {groups: [oncall, dba]}}\n";
        let config: Config = serde_yaml_of(text);
        assert_eq!(lacking(&plans, &config), Vec::<String>::new());
    }

    fn serde_yaml_of(text: &str) -> Config {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("stanch.yaml");
        std::fs::write(&file, text).unwrap();
        Config::read(&file).unwrap_or_else(|error| panic!("{error}"))
    }
}
