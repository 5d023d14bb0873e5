//! `stanch.yaml`. Flags stand over the environment (`STANCH_*`), which stands over the file.

mod text;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use stanch_core::Command;
use stanch_core::record::{Actor, Budget};
use stanch_playbook::matcher::Matcher;
use stanch_playbook::plan::{Escalation, NotifyAfter};
use stanch_playbook::{Severity, Timestamp};
use stanch_workers::{
    EmailConfig, KubernetesConfig, PagerDutyConfig, SecretError, SecretSpec, Secrets, ServiceConfig, SlackConfig,
    Warden,
};

/// The configuration file. Every key may be left out.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where people reach this engine, such as `https://stanch.corp`; links in messages begin with it.
    pub external_url: Option<String>,
    /// The NATS server that events come from and `nats.*` actions go to.
    pub nats: Option<NatsConfig>,
    /// Slack, for the `slack` action.
    pub slack: Option<SlackConfig>,
    /// The Prometheus server that the `prometheus` action asks.
    pub prometheus: Option<ServiceConfig>,
    /// The Alertmanager that the `alertmanager.silence` action tells.
    pub alertmanager: Option<ServiceConfig>,
    /// The cluster that the `kubernetes` action changes; the one that the engine runs in unless set.
    pub kubernetes: KubernetesConfig,
    /// The mail server of the `email` action.
    pub email: Option<EmailConfig>,
    /// PagerDuty, for the `pagerduty` action.
    pub pagerduty: PagerDutyConfig,
    /// Where the `http` action may connect to beside public addresses.
    pub egress: EgressConfig,
    /// Secrets by name, each by reference, bound to hosts.
    pub secrets: BTreeMap<String, SecretSpec>,
    /// How incidents close.
    pub incidents: IncidentsConfig,
    /// What comes in.
    pub intake: IntakeConfig,
    /// What goes out.
    pub attempts: AttemptsConfig,
    /// People by name: the name stands in records, and an approval's `from` names it.
    pub people: BTreeMap<String, PersonConfig>,
    /// How much steps may do that name a budget, by its name; more waits for an approval.
    pub budgets: BTreeMap<String, BudgetConfig>,
    /// Times in which runs for some alerts are held back. Those that are over are passed over.
    pub maintenance: Vec<MaintenanceConfig>,
    /// What people show to be known: each token names its person.
    pub tokens: Vec<TokenConfig>,
}

/// One person.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PersonConfig {
    /// Their member id in Slack, such as `U012AB3CD`.
    pub slack: Option<String>,
    /// The groups that they belong to; an approval's `from` names one as `group:NAME`.
    pub groups: Vec<String>,
}

/// A token that a person shows.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// Whose it is; `people` must name them.
    pub person: String,
    /// The token, by reference (`env:NAME` or `file:PATH`).
    pub from: String,
}

/// The NATS server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NatsConfig {
    /// Its address, such as `nats://127.0.0.1:4222`; several may be separated by commas.
    pub url: String,
    /// A credentials token, by reference (`env:NAME` or `file:PATH`).
    #[serde(default)]
    pub token: Option<String>,
    /// A user's name; goes with `password`.
    #[serde(default)]
    pub user: Option<String>,
    /// The user's password, by reference.
    #[serde(default)]
    pub password: Option<String>,
}

/// Where the `http` action may connect to.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EgressConfig {
    /// CIDRs or host patterns (`10.1.0.0/16`, `*.corp`, `127.0.0.1`) of private and loopback addresses that are allowed.
    pub allow: Vec<String>,
}

/// How incidents close.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IncidentsConfig {
    /// How long all alerts must have stayed resolved; `30s` unless set.
    pub settle: Option<String>,
    /// Within what time the same episode reopens a resolved incident; `15m` unless set.
    pub reopen_within: Option<String>,
    /// Who is told of an incident, and when, by its severity (`P0` to `P3`), where its playbook does not say. Unless set: of
    /// P0 at once and again after 5 minutes, and every 15 minutes how it stands; of P1 after 15 minutes and after 30 without an
    /// acknowledgement, and every 30 minutes. An empty entry tells nobody.
    pub escalation: BTreeMap<Severity, EscalationConfig>,
}

/// Who is told of an incident, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EscalationConfig {
    /// Within what time somebody must acknowledge it, such as `15m`.
    pub acknowledge_within: Option<String>,
    /// How often those who follow it are told how it stands, such as `30m`.
    pub update_every: Option<String>,
    /// Who is told after what time without an acknowledgement.
    pub notify: Vec<NotifyConfig>,
}

/// Who is told after what time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotifyConfig {
    /// After what time, such as `5m`.
    pub after: String,
    /// People, or groups as `group:name`; nobody in particular where there are none.
    #[serde(default)]
    pub people: Vec<String>,
}

/// How much may be done in what time, over all playbooks.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetConfig {
    /// How many targets.
    pub most: u32,
    /// In what time, such as `1h`.
    pub per: String,
    /// Who may approve more: people, or groups as `group:name`; everybody where nobody is named.
    #[serde(default)]
    pub from: Vec<String>,
}

/// A maintenance window.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MaintenanceConfig {
    /// Alertmanager's matchers, all of which an alert's labels must satisfy.
    pub matchers: Vec<String>,
    /// From when: an RFC 3339 time.
    pub from: Timestamp,
    /// Until when.
    pub to: Timestamp,
    /// Why.
    pub reason: String,
}

impl MaintenanceConfig {
    /// What tells it from every other window.
    pub(crate) fn declared(&self) -> String {
        format!("{} {} {} {}", self.matchers.join(","), self.from, self.to, self.reason)
    }

    /// The command that plans it.
    pub(crate) fn command(&self) -> Command {
        Command::PlanMaintenance {
            actor: Actor::source("stanch.yaml"),
            declared: Some(self.declared()),
            matchers: self.matchers.clone(),
            from: Some(self.from),
            to: self.to,
            reason: self.reason.clone(),
        }
    }
}

/// What comes in.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IntakeConfig {
    /// The largest body of a webhook, in bytes; 8 MiB unless set.
    pub max_body: Option<usize>,
    /// A bearer token that senders of webhooks must show, by reference; none unless set.
    pub token: Option<String>,
    /// A name and a password that senders of webhooks may show instead of the token; none unless set.
    pub basic: Option<BasicConfig>,
}

/// HTTP basic authentication, as in Alertmanager's `http_config.basic_auth`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicConfig {
    /// The name; without a colon.
    pub username: String,
    /// The password, by reference (`env:NAME` or `file:PATH`).
    pub password: String,
}

/// What goes out.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AttemptsConfig {
    /// How many attempts may be under way at once; 256 unless set.
    pub max: Option<usize>,
}

/// What `serve` is told beside the file.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the journal lies.
    pub data_dir: PathBuf,
    /// Where the playbooks lie.
    pub playbooks: PathBuf,
    /// The configuration.
    pub config: Config,
    /// The file that it was read from, which is read again when it changes; none where there is none.
    pub config_file: Option<PathBuf>,
    /// Who ends the commands of `exec` steps where this process is killed.
    pub warden: Warden,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{} cannot be read", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not of the expected shape.
    #[error("{}: {reason}", .path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// A key's value cannot be used.
    #[error("{key}: {reason}")]
    Value {
        /// Which key.
        key: Cow<'static, str>,
        /// Why, and what would do.
        reason: String,
    },
    /// A secret's reference leads nowhere.
    #[error("{key}: {reason}")]
    Secret {
        /// Which key.
        key: String,
        /// Why.
        reason: String,
    },
    /// Listening on this address would let everyone in.
    #[error(
        "{0} is not a loopback address, and whoever reaches this engine may act without a token; listen on 127.0.0.1, and put a proxy with authentication before it where others are to reach it"
    )]
    Open(SocketAddr),
}

impl ConfigError {
    /// A secret that cannot be read. Names the key and the reference, never a value.
    pub(crate) fn secret(key: &str, error: &SecretError) -> Self {
        Self::Secret { key: key.to_owned(), reason: error.to_string() }
    }
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`ConfigError`], with line and column where it is about the text.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(path, &text_of(path)?)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = text::parse(path, text)?;
        config.check().map_err(|error| text::place(path, text, error))?;
        Ok(config)
    }

    /// Whether all of it can be used that needs nothing beside it.
    fn check(&self) -> Result<(), ConfigError> {
        self.settings()?;
        self.secrets()?;
        self.check_maintenance()?;
        crate::people::check(self)
    }

    /// The configured secrets, none of which is read yet.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for a reference or a host of a form that is not known.
    pub(crate) fn secrets(&self) -> Result<Secrets, ConfigError> {
        for (name, spec) in &self.secrets {
            Secrets::new(BTreeMap::from([(name.clone(), spec.clone())])).map_err(|error| {
                let key = if matches!(error, SecretError::InvalidHost { .. }) { "hosts" } else { "from" };
                value(format!("secrets.{name}.{key}"), error.to_string())
            })?;
        }
        Secrets::new(self.secrets.clone()).map_err(|error| value("secrets".to_owned(), error.to_string()))
    }

    /// The keys of a configuration file with what they say, to be compared.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub(crate) fn keys(path: &Path) -> Result<serde_json::Map<String, serde_json::Value>, ConfigError> {
        text::parse(path, &text_of(path)?)
    }

    /// The settings that the core decides by.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for a duration that is none.
    pub fn settings(&self) -> Result<stanch_core::Settings, ConfigError> {
        let mut settings = stanch_core::Settings::default();
        let duration = |key, text: &Option<String>, into: &mut Duration| match text {
            Some(text) => {
                *into = stanch_playbook::parse_duration(text)
                    .map_err(|error| ConfigError::Value { key: Cow::Borrowed(key), reason: error.to_string() })?;
                Ok(())
            }
            None => Ok(()),
        };
        duration("incidents.settle", &self.incidents.settle, &mut settings.settle)?;
        duration("incidents.reopen_within", &self.incidents.reopen_within, &mut settings.reopen_within)?;
        settings.escalation = self.escalation()?;
        for (name, budget) in &self.budgets {
            let key = format!("budgets.{name}");
            if budget.most == 0 {
                return Err(value(
                    format!("{key}.most"),
                    "it must be at least 1; remove the steps that nobody may run".to_owned(),
                ));
            }
            let per = length(format!("{key}.per"), &budget.per)?;
            settings.budgets.insert(name.clone(), Budget { most: budget.most, per, from: budget.from.clone() });
        }
        if let Some(url) = &self.external_url {
            settings.external_url = url.trim_end_matches('/').into();
        }
        Ok(settings)
    }

    /// Who is told of incidents: the defaults, with what the file says over them.
    fn escalation(&self) -> Result<BTreeMap<Severity, Escalation>, ConfigError> {
        let mut all = stanch_core::Settings::usual_escalation();
        for (severity, config) in &self.incidents.escalation {
            if *config == EscalationConfig::default() {
                all.remove(severity);
                continue;
            }
            let key = |rest: &str| format!("incidents.escalation.{severity:?}.{rest}");
            let optional =
                |name: &str, text: &Option<String>| text.as_ref().map(|text| length(key(name), text)).transpose();
            let notify = config.notify.iter().map(|next| {
                Ok(NotifyAfter { after: length(key("notify.after"), &next.after)?, people: next.people.clone() })
            });
            let mut notify = notify.collect::<Result<Vec<_>, ConfigError>>()?;
            notify.sort_by_key(|next| next.after);
            let escalation = Escalation {
                acknowledge_within: optional("acknowledge_within", &config.acknowledge_within)?,
                update_every: optional("update_every", &config.update_every)?,
                notify,
            };
            all.insert(*severity, escalation);
        }
        Ok(all)
    }

    /// Whether every maintenance window can be planned.
    fn check_maintenance(&self) -> Result<(), ConfigError> {
        for (at, window) in self.maintenance.iter().enumerate() {
            let key = |name: &str| format!("maintenance[{at}].{name}");
            if window.to <= window.from {
                return Err(value(key("to"), "the window ends before it begins".to_owned()));
            }
            for matcher in &window.matchers {
                Matcher::parse(matcher).map_err(|error| value(key("matchers"), error.to_string()))?;
            }
            if window.matchers.is_empty() {
                return Err(value(key("matchers"), "a window needs at least one".to_owned()));
            }
        }
        Ok(())
    }

    /// The largest body of a webhook, in bytes.
    #[must_use]
    pub fn max_body(&self) -> usize {
        self.intake.max_body.unwrap_or(8 << 20)
    }
}

fn text_of(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

fn value(key: String, reason: String) -> ConfigError {
    ConfigError::Value { key: key.into(), reason }
}

fn length(key: String, text: &str) -> Result<Duration, ConfigError> {
    stanch_playbook::parse_duration(text).map_err(|error| value(key, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("stanch.yaml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn people_are_told_as_the_severity_says_unless_the_file_says_otherwise() {
        let settings = |text: &str| parse(text).unwrap().settings().unwrap();
        let defaults = settings("{}").escalation;
        let minutes = |minutes: u64| Some(Duration::from_secs(minutes * 60));
        assert_eq!(defaults[&Severity::P0].update_every, minutes(15));
        assert_eq!(defaults[&Severity::P1].acknowledge_within, minutes(15));
        assert!(!defaults.contains_key(&Severity::P2));
        let own = settings(
            "incidents: {escalation: {P1: {}, P2: {notify: [{after: 9m, people: [ann]}, {after: 3m, people: ['group:x']}]}}}",
        );
        assert!(!own.escalation.contains_key(&Severity::P1), "an empty entry tells nobody");
        let after: Vec<_> = own.escalation[&Severity::P2].notify.iter().map(|next| next.after.as_secs()).collect();
        assert_eq!(after, [180, 540]);
    }

    #[test]
    fn what_cannot_be_used_is_told_with_its_place_and_what_to_write() {
        let of = "stanch.yaml: line";
        for (text, told) in [
            ("attempts: {max: \"many\"}", format!("{of} 1 column 17: attempts.max: a whole number is expected")),
            ("people: [ann]", format!("{of} 1 column 9: people: a map is expected, as {{name: value}} or a line each")),
            (
                "people:\n  ann: {groups: leads}",
                format!(
                    "{of} 2 column 17: people.ann.groups: a list is expected, as [one, other] or a line each after -"
                ),
            ),
            (
                "secrets:\n  a: {from: plain}",
                format!(
                    "{of} 2 column 13: secrets.a.from: secrets are given by reference: write env:NAME or file:PATH"
                ),
            ),
            (
                "secrets: {a: {from: env:A, hosts: [x, 'a/b']}}",
                format!(
                    "{of} 1 column 35: secrets.a.hosts: \"a/b\" is no host pattern: write for example edr.corp or *.corp"
                ),
            ),
            ("tokens:\n- {person: ann, from: env:A}", format!("{of} 2 column 12: tokens[0].person: ")),
            ("budgets:\n  b: {most: 0, per: 1h}", format!("{of} 2 column 13: budgets.b.most: it must be at least 1")),
            // What it would stand in.
            (
                "incidents: {escalation: {P1: {notify: [{after: 1}]}}}",
                format!("{of} 1 column 39: incidents.escalation.P1.notify.after: "),
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(&told), "{text}: {error}");
        }
        assert!(parse("people: {ann: {grups: [a]}}").unwrap_err().contains("people.ann"), "an unknown key");
    }

    #[test]
    fn what_cannot_be_used_is_told_with_its_key() {
        for (text, told) in [
            ("incidents: {escalation: {P1: {update_every: soon}}}", "incidents.escalation.P1.update_every"),
            ("incidents: {escalation: {P9: {}}}", "P9"),
            ("budgets: {b: {most: 0, per: 1h}}", "budgets.b.most"),
            ("budgets: {b: {most: 1, per: 1}}", "budgets.b.per"),
            ("budgets: {b: {per: 1h}}", "most"),
            (
                "maintenance: [{matchers: ['a=\"b\"'], from: 2026-01-02T00:00:00Z, to: 2026-01-01T00:00:00Z, reason: x}]",
                "maintenance[0].to",
            ),
            (
                "maintenance: [{matchers: ['a=~\"(\"'], from: 2026-01-01T00:00:00Z, to: 2026-01-02T00:00:00Z, reason: x}]",
                "maintenance[0].matchers",
            ),
            (
                "maintenance: [{matchers: [], from: 2026-01-01T00:00:00Z, to: 2026-01-02T00:00:00Z, reason: x}]",
                "at least one",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
