//! The worker: runs one assignment at a time to an outcome, whatever the action does.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use serde_json::Value;
use stanch_core::{Assignment, Outcome};
use stanch_playbook::time::said_duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::action::{Context, Registry, Services, Shared, failed, refused, unknown};
use crate::bound;
use crate::client::Clients;
use crate::egress::Egress;
use crate::exec::ExecConfig;
use crate::report::Stories;
use crate::secrets::Secrets;
use crate::slack::SlackConfig;

/// Longer limits count as this: a year.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// What a worker is given. `Default` has no secrets, no Slack, no NATS, and refuses loopback and private addresses.
pub struct WorkerConfig {
    /// The actions it knows.
    pub registry: Registry,
    /// Where `http` may connect to.
    pub egress: Egress,
    /// The secrets it may resolve.
    pub secrets: Secrets,
    /// How `slack` reaches Slack.
    pub slack: SlackConfig,
    /// How `exec` runs commands.
    pub exec: ExecConfig,
    /// The other services that actions call.
    pub services: Services,
    /// Who knows what runs have done, for `report`.
    pub stories: Option<Arc<dyn Stories>>,
    /// The shared NATS client; none until NATS was reached.
    pub nats: watch::Receiver<Option<async_nats::Client>>,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            registry: Registry::standard(),
            egress: Egress::default(),
            secrets: Secrets::default(),
            slack: SlackConfig::default(),
            exec: ExecConfig::default(),
            services: Services::default(),
            stories: None,
            nats: watch::channel(None).1,
        }
    }
}

impl fmt::Debug for WorkerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerConfig")
            .field("registry", &self.registry)
            .field("egress", &self.egress)
            .finish_non_exhaustive()
    }
}

/// Executes assignments. Cheap to clone.
#[derive(Clone)]
pub struct Worker {
    registry: Registry,
    shared: Arc<Shared>,
}

impl Worker {
    /// A worker. Opens nothing yet.
    #[must_use]
    pub fn new(config: WorkerConfig) -> Self {
        let WorkerConfig { registry, egress, secrets, slack, exec, services, stories, nats } = config;
        let clients = Clients::new(egress.clone());
        Self { registry, shared: Arc::new(Shared { secrets, egress, clients, nats, slack, exec, services, stories }) }
    }

    /// Runs one attempt to its outcome: within its time limit (and the action's grace), until `cancel` says stop, and
    /// through a panic of the action. The outcome holds no secret and is bounded: 256 KiB of output beside artifacts, 1,000 characters
    /// of error.
    ///
    /// A limit reached or a cancellation is *unknown*, unless the action said that nothing had left yet. Dropping the
    /// future stops the action too.
    pub async fn execute(&self, assignment: Assignment, cancel: CancellationToken) -> Outcome {
        let Some(action) = self.registry.get(assignment.action.as_str()) else {
            return refused(format!("this worker knows no action {:?}", assignment.action.as_str()));
        };
        if cancel.is_cancelled() {
            return failed("cancelled before it started");
        }
        let limit = assignment.timeout.min(LONGEST);
        let deadline = Instant::now() + limit;
        let grace = action.grace();
        let context = Context::new(cancel.clone(), deadline, self.shared.clone());
        let run = AssertUnwindSafe(async { action.run(&context, &assignment).await }).catch_unwind();
        // The action first: one that is done at once costs no timer, and one that ends at its limit by itself is heard.
        let outcome = tokio::select! {
            biased;
            outcome = run => outcome.unwrap_or_else(|panic| {
                unknown(format!("the action panicked: {}", panic_text(&*panic)))
            }),
            () = cancelled_for(&cancel, grace) => stopped(&context, "cancelled"),
            () = tokio::time::sleep_until(deadline + grace) => {
                stopped(&context, &format!("timed out after {}", said_duration(limit)))
            }
        };
        self.finished(outcome, action.keeps_artifacts())
    }

    /// The outcome without secrets and within its bounds.
    fn finished(&self, outcome: Outcome, keeps_artifacts: bool) -> Outcome {
        let mask = self.shared.secrets.mask();
        let text = |text: String| bound::error(mask.text(&text).into_owned());
        let value = |mut value: Value| {
            let artifacts =
                value.as_object_mut().filter(|_| keeps_artifacts).and_then(|value| value.remove("artifacts"));
            mask.value(&mut value);
            bound::output(&mut value, bound::OUTPUT);
            if let Some(artifacts) = artifacts {
                value["artifacts"] = artifacts;
            }
            value
        };
        match outcome {
            Outcome::Succeeded { output } => Outcome::Succeeded { output: value(output) },
            Outcome::Failed { error, output, retry_after, retryable } => {
                Outcome::Failed { error: text(error), output: output.map(value), retry_after, retryable }
            }
            Outcome::Unknown { reason } => Outcome::Unknown { reason: text(reason) },
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("registry", &self.registry).finish_non_exhaustive()
    }
}

async fn cancelled_for(cancel: &CancellationToken, grace: Duration) {
    cancel.cancelled().await;
    if !grace.is_zero() {
        tokio::time::sleep(grace).await;
    }
}

fn stopped(context: &Context, why: &str) -> Outcome {
    if context.nothing_sent() { failed(format!("{why} before anything was sent")) } else { unknown(why) }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
