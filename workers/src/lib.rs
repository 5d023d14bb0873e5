//! Workers: what executes an attempt and says honestly how it came out. In reading order: the [`Worker`] runs an
//! assignment under its time limit; an [`Action`] does the work; [`Egress`] and [`Secrets`] guard what leaves; then one
//! action a file.
//!
//! The distinction that everything here serves: **failed** is known not to have happened, or the target said no;
//! **unknown** is a time-out or a reset after sending, or a kill.
//!
//! Absent: retries, which are the engine's, and any knowledge of the journal.

mod action;
mod alertmanager;
mod artifacts;
mod bound;
mod client;
mod egress;
mod email;
mod exec;
mod http;
mod kubernetes;
mod log;
mod mask;
mod nats;
mod pagerduty;
mod parameters;
mod prometheus;
mod report;
mod secrets;
mod service;
mod slack;
pub mod warden;
mod worker;

pub use action::{Action, Context, Registry, Services};
pub use alertmanager::AlertmanagerSilence;
pub use egress::{Egress, InvalidEgressRule};
pub use email::{Email, EmailConfig};
pub use exec::{Exec, ExecConfig};
pub use http::Http;
pub use kubernetes::{Kubernetes, KubernetesConfig};
pub use log::Log;
pub use nats::{NatsPublish, NatsRequest};
pub use pagerduty::{PagerDuty, PagerDutyConfig};
pub use prometheus::Prometheus;
pub use report::{Report, Stories, Story};
pub use secrets::{SecretError, SecretSpec, SecretText, Secrets};
pub use service::ServiceConfig;
pub use slack::{Slack, SlackConfig};
pub use warden::Warden;
pub use worker::{Worker, WorkerConfig};
