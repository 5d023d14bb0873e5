//! `stanch.yaml`. Flags stand over the environment (`STANCH_*`), which stands over the file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

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
    /// Where the `http` action may connect to beside public addresses.
    pub egress: EgressConfig,
    /// Secrets by name, each by reference, bound to hosts.
    pub secrets: BTreeMap<String, SecretConfig>,
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

/// Slack.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SlackConfig {
    /// The Web API's address; `https://slack.com/api` unless set.
    pub api_url: Option<String>,
    /// A bot token, by reference; messages then go through `chat.postMessage`.
    pub token: Option<String>,
    /// An incoming webhook's address, by reference; used where there is no token.
    pub webhook_url: Option<String>,
    /// The channel of messages that name none.
    pub channel: Option<String>,
}

/// Where the `http` action may connect to.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EgressConfig {
    /// CIDRs or host patterns (`10.1.0.0/16`, `*.corp`, `127.0.0.1`) of private and loopback addresses that are allowed.
    pub allow: Vec<String>,
}

/// One secret.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretConfig {
    /// `env:NAME` or `file:PATH`.
    pub from: String,
    /// The hosts that it may be sent to; empty: none, only `exec` may use it.
    #[serde(default)]
    pub hosts: Vec<String>,
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

/// Resolves a reference to a secret: `env:NAME` or `file:PATH`.
///
/// # Errors
/// [`ConfigError::Secret`], which names the key and never a value.
pub fn resolve(key: &str, reference: &str) -> Result<String, ConfigError> {
    let fail = |reason: String| ConfigError::Secret { key: key.to_owned(), reason };
    if let Some(name) = reference.strip_prefix("env:") {
        return std::env::var(name).map_err(|_| fail(format!("the environment variable {name} is not set")));
    }
    if let Some(path) = reference.strip_prefix("file:") {
        let text = std::fs::read_to_string(path).map_err(|error| fail(format!("{path} cannot be read: {error}")))?;
        return Ok(text.trim_end_matches(['\n', '\r']).to_owned());
    }
    if reference.starts_with("vault:") {
        return Err(fail("vault: is not supported yet; use env:NAME or file:PATH".to_owned()));
    }
    Err(fail("secrets are given by reference alone: env:NAME or file:PATH".to_owned()))
}
