//! `stanch.yaml`. Flags stand over the environment (`STANCH_*`), which stands over the file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use stanch_workers::{
    EmailConfig, KubernetesConfig, PagerDutyConfig, SecretError, SecretSpec, ServiceConfig, SlackConfig, Warden,
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
        key: &'static str,
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
        "{0} is not a loopback address and no authentication is configured; listen on 127.0.0.1, or put a proxy with authentication before it"
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
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let config: Self = if text.trim().is_empty() {
            Self::default()
        } else {
            serde_saphyr::from_str_with_options(&text, yaml_options())
                .map_err(|error| ConfigError::Parse { path: path.to_owned(), reason: error.to_string() })?
        };
        config.settings()?;
        Ok(config)
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
                    .map_err(|error| ConfigError::Value { key, reason: error.to_string() })?;
                Ok(())
            }
            None => Ok(()),
        };
        duration("incidents.settle", &self.incidents.settle, &mut settings.settle)?;
        duration("incidents.reopen_within", &self.incidents.reopen_within, &mut settings.reopen_within)?;
        if let Some(url) = &self.external_url {
            settings.external_url = url.trim_end_matches('/').into();
        }
        Ok(settings)
    }

    /// The largest body of a webhook, in bytes.
    #[must_use]
    pub fn max_body(&self) -> usize {
        self.intake.max_body.unwrap_or(8 << 20)
    }
}

fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! { strict_booleans: true, with_snippet: false }
}
