//! What an action is, what it is given, and the table of all actions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use stanch_core::{Assignment, Outcome};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::alertmanager::AlertmanagerSilence;
use crate::client::Clients;
use crate::egress::Egress;
use crate::email::{Email, EmailConfig};
use crate::exec::{Exec, ExecConfig};
use crate::http::Http;
use crate::kubernetes::{Kubernetes, KubernetesConfig};
use crate::log::Log;
use crate::nats::{NatsPublish, NatsRequest};
use crate::pagerduty::{PagerDuty, PagerDutyConfig};
use crate::prometheus::Prometheus;
use crate::report::{Report, Stories};
use crate::secrets::Secrets;
use crate::service::ServiceConfig;
use crate::slack::{Slack, SlackConfig};

/// One way of doing something: `http`, `exec`, `log` ...
///
/// The worker enforces the time limit and cancellation by dropping the future, so whatever must be taken down then
/// belongs in a `Drop`.
pub trait Action: Send + Sync {
    /// The name that a step's `uses` has.
    fn name(&self) -> &'static str;

    /// Does it once. Never returns an error: the outcome says all.
    fn run<'a>(&'a self, context: &'a Context, assignment: &'a Assignment) -> BoxFuture<'a, Outcome>;

    /// How much longer than the limit an action may take because it stops by itself at the limit and at cancellation
    /// (`exec` ends its processes).
    fn grace(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether `artifacts` of its result are files: masked and bounded where they were read, and not cut.
    fn keeps_artifacts(&self) -> bool {
        false
    }
}

/// The services that the operator's configuration names; an action whose service is missing says so.
#[derive(Debug, Clone, Default)]
pub struct Services {
    /// For `prometheus`.
    pub prometheus: Option<ServiceConfig>,
    /// For `alertmanager.silence`.
    pub alertmanager: Option<ServiceConfig>,
    /// For `kubernetes`; the cluster that the worker runs in unless set.
    pub kubernetes: KubernetesConfig,
    /// For `pagerduty`.
    pub pagerduty: PagerDutyConfig,
    /// For `email`.
    pub email: Option<EmailConfig>,
}

/// What all attempts of one worker share.
pub(crate) struct Shared {
    pub secrets: Secrets,
    pub egress: Egress,
    pub clients: Clients,
    pub nats: watch::Receiver<Option<async_nats::Client>>,
    pub slack: SlackConfig,
    pub exec: ExecConfig,
    pub services: Services,
    pub stories: Option<Arc<dyn Stories>>,
}

/// What one attempt is given beside its assignment.
pub struct Context {
    /// Cancelled when the attempt should stop.
    pub cancel: CancellationToken,
    /// When the attempt's limit is reached.
    pub deadline: Instant,
    pub(crate) shared: Arc<Shared>,
    progress: Progress,
}

impl Context {
    pub(crate) fn new(cancel: CancellationToken, deadline: Instant, shared: Arc<Shared>) -> Self {
        Self { cancel, deadline, shared, progress: Progress::default() }
    }

    /// Resolves secrets, and masks them in what comes back.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.shared.secrets
    }

    /// The shared NATS client; none where NATS is not configured or was never reached.
    #[must_use]
    pub fn nats(&self) -> Option<async_nats::Client> {
        self.shared.nats.borrow().clone()
    }

    /// Says that nothing has left yet: a time-out from here on is a failure. An action that says nothing counts as one
    /// that may have done something.
    pub fn preparing(&self) {
        self.progress.0.store(true, Ordering::Release);
    }

    /// Says that something may leave from here on: a time-out is unknown.
    pub fn sending(&self) {
        self.progress.sending();
    }

    /// Whether it is certain that nothing has left.
    #[must_use]
    pub fn nothing_sent(&self) -> bool {
        self.progress.0.load(Ordering::Acquire)
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }
}

/// True while it is certain that nothing has left.
#[derive(Clone, Default)]
pub(crate) struct Progress(Arc<AtomicBool>);

impl Progress {
    pub fn sending(&self) {
        self.0.store(false, Ordering::Release);
    }

    pub fn left(&self) -> bool {
        !self.0.load(Ordering::Acquire)
    }
}

/// The actions by name. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<BTreeMap<&'static str, Arc<dyn Action>>>);

impl Registry {
    /// No actions.
    #[must_use]
    pub fn empty() -> Self {
        Self(Arc::default())
    }

    /// All actions of this crate.
    #[must_use]
    pub fn standard() -> Self {
        Self::empty()
            .with(Log)
            .with(Http)
            .with(Exec)
            .with(NatsPublish)
            .with(NatsRequest)
            .with(Slack)
            .with(Prometheus)
            .with(AlertmanagerSilence)
            .with(Kubernetes)
            .with(PagerDuty)
            .with(Email)
            .with(Report)
    }

    /// This registry and one more action, which replaces one of the same name.
    #[must_use]
    pub fn with(mut self, action: impl Action + 'static) -> Self {
        Arc::make_mut(&mut self.0).insert(action.name(), Arc::new(action));
        self
    }

    /// The action of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Action>> {
        self.0.get(name)
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::standard()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// Failed, and it would fail again.
pub(crate) fn refused(error: impl Into<String>) -> Outcome {
    Outcome::Failed { error: error.into(), output: None, retry_after: None, retryable: false }
}

/// Failed without having happened; another try could help.
pub(crate) fn failed(error: impl Into<String>) -> Outcome {
    Outcome::Failed { error: error.into(), output: None, retry_after: None, retryable: true }
}

/// Nobody knows.
pub(crate) fn unknown(reason: impl Into<String>) -> Outcome {
    Outcome::Unknown { reason: reason.into() }
}
