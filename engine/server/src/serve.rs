//! Start and end of an engine.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stanch_core::containment::{Containment, UndoState};
use stanch_core::run::Run;
use stanch_core::{Command, Effect, RunId, State, outstanding};
use stanch_journal::{Reader, Views};
use stanch_workers::{
    Egress, ExecConfig, Registry, SecretError, Secrets, ServiceConfig, Services, Warden, Worker, WorkerConfig,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::app::{App, NatsStatus};
use crate::clock::{self, Clock};
use crate::config::{Config, ConfigError, Options};
use crate::executor::{self, Handle, Refused};
use crate::people::People;
use crate::senders::Senders;
use crate::store::{StartError, Store};
use crate::stories::EngineStories;
use crate::{http, lacks, nats, notify, playbooks, reload, schedules, summary};

/// How long attempts may go on after the engine was told to end; those that are not over then become unknown.
const GRACE: Duration = Duration::from_secs(10);

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Store(#[from] StartError),
    /// The playbook directory cannot be read.
    #[error("the playbook directory {} cannot be read: {source}", .path.display())]
    Playbooks {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The journal does not take the record of the start.
    #[error("the engine could not record its start")]
    Record(#[from] Refused),
    /// An egress rule or the like is not usable.
    #[error("{0}")]
    Workers(String),
}

/// A running engine.
pub struct Server {
    address: SocketAddr,
    handle: Handle,
    reader: Arc<dyn Reader>,
    stop: CancellationToken,
    http: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
    lacks: Vec<String>,
}

/// Starts an engine: folds the journal, loads the playbooks, takes up what is outstanding, and serves.
///
/// # Errors
/// [`StartupError`]; nothing listens then.
pub async fn start(options: Options) -> Result<Server, StartupError> {
    let Options { listen, data_dir, playbooks: directory, config, config_file, warden } = options;
    if !listen.ip().is_loopback() {
        return Err(ConfigError::Open(listen).into());
    }
    let mut settings = config.settings()?;
    let followed = config_file.map(reload::Followed::new);
    let secrets = config.secrets()?;
    let senders = Senders::read(&config.intake, &secrets)?;
    let people = People::read(&config, &secrets)?;
    for (key, error) in unreadable(&config, &secrets) {
        tracing::warn!(key, %error, "a secret cannot be read; steps that need it fail until it can be");
    }
    let listener =
        TcpListener::bind(listen).await.map_err(|source| StartupError::Listen { address: listen, source })?;
    let address = listener.local_addr().unwrap_or(listen);
    if config.external_url.is_none() {
        settings.external_url = format!("http://{address}").into();
    }
    let library =
        playbooks::read(&directory).map_err(|source| StartupError::Playbooks { path: directory.clone(), source })?;
    let opened = tokio::task::spawn_blocking(move || Store::open(&data_dir)).await.expect("opening does not panic");
    let (store, state) = opened?;
    let (reader, views, journal): (_, Arc<Views>, _) = (store.reader(), store.views(), store.id());

    let stop = CancellationToken::new();
    let (nats_sender, nats_status) = watch::channel(NatsStatus::Unused);
    let client = match &config.nats {
        Some(nats) => nats::connect(nats, &secrets, nats_sender).await?,
        None => None,
    };
    let (_, client_of_workers) = watch::channel(client.clone());
    let stories = Arc::new(EngineStories::default());
    let of_engine = Arc::clone(&stories);
    let worker = Arc::new(Worker::new(WorkerConfig {
        stories: Some(of_engine),
        ..worker_config(&config, secrets.clone(), warden, client_of_workers)?
    }));
    let told = notify::waiting(&state);
    let clock = Clock::system(&state);
    let handle = executor::start(store, state, clock, Arc::clone(&worker), config.attempts.max.unwrap_or(256));
    let notices = handle.notices();
    stories.tell_of(handle.clone(), Arc::clone(&reader));
    let version = env!("CARGO_PKG_VERSION").to_owned();
    handle.submit_patiently(Command::StartEngine { journal, version, settings }).await?;
    handle.submit_patiently(library.command()).await?;
    for command in reload::windows(&handle.state(), &config, &Config::default()) {
        handle.submit_patiently(command).await?;
    }
    for line in waiting(&handle.state()) {
        tracing::warn!("{line}");
    }
    for line in library.problems.iter().flat_map(|problem| &problem.diagnostics) {
        tracing::warn!("{line}");
    }

    let lacks = lacks::lacking(&library.plans, &config);
    let (problems_sender, problems) = watch::channel(Arc::new(library.problems.clone()));
    let (reloaded_sender, reloaded) = watch::channel(0);
    let config = Arc::new(config);
    let inforce = reload::InForce {
        config: watch::Sender::new(Arc::clone(&config)),
        people: watch::Sender::new(Arc::new(people)),
    };
    let app = App {
        handle: handle.clone(),
        reader: Arc::clone(&reader),
        views,
        config: Arc::clone(&config),
        nats: nats_status.clone(),
        problems,
        senders: Arc::new(senders),
        people: inforce.people.subscribe(),
    };
    let mut background = Vec::new();
    let follow = playbooks::follow(directory, library, handle.clone(), problems_sender, reloaded_sender, stop.clone());
    background.push(tokio::spawn(follow));
    background.push(tokio::spawn(clock::keep_looking(handle.clone(), stop.clone())));
    background.push(tokio::spawn(schedules::run(handle.clone(), reloaded.clone(), stop.clone())));
    if config.slack.is_some() {
        let notify = notify::run(worker, handle.clone(), inforce.config.subscribe(), told, notices, stop.clone());
        background.push(tokio::spawn(notify));
    }
    if let Some(followed) = followed {
        background.push(tokio::spawn(reload::follow(followed, inforce, secrets, handle.clone(), stop.clone())));
    }
    if let Some(client) = client {
        background.push(tokio::spawn(nats::run(client, handle.clone(), reloaded, nats_status, stop.clone())));
    }
    let ending = stop.clone();
    let router = http::router(app);
    let http = tokio::spawn(async move {
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let serving = axum::serve(listener, service).with_graceful_shutdown(ending.cancelled_owned());
        if let Err(error) = serving.await {
            tracing::error!(%error, "the HTTP server ended");
        }
    });
    Ok(Server { address, handle, reader, stop, http, background, lacks })
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What its playbooks use that its configuration does not have, one sentence each.
    #[must_use]
    pub fn lacks(&self) -> &[String] {
        &self.lacks
    }

    /// The way into it, without HTTP.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Its durable records.
    #[must_use]
    pub fn reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.reader)
    }

    /// Ends it in good order: takes in nothing more, lets attempts finish for up to 10 s, records the end.
    pub async fn stop(self, reason: &str) {
        self.stop.cancel();
        for task in self.background {
            task.await.ok();
        }
        let mut durable = self.handle.watch();
        // Steps, items, looks of verifications, and what takes something back.
        let idle =
            durable.wait_for(|state| !outstanding(state).any(|effect| matches!(effect, Effect::DispatchAttempt(_))));
        if tokio::time::timeout(GRACE, idle).await.is_err() {
            tracing::warn!("attempts are still under way; what became of them will be unknown");
        }
        self.handle.stop(reason).await;
        // A stream or a waiting request does not hold the end up.
        if tokio::time::timeout(Duration::from_secs(1), self.http).await.is_err() {
            tracing::debug!("connections were closed under way");
        }
    }
}

/// What waits for people when an engine starts: a line each, with the command that shows it.
fn waiting(state: &State) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some((by, reason, since)) = &state.frozen {
        let by = by.as_str();
        lines.push(format!(
            "frozen by {by} since {since}, no step with side effects starts until stanch unfreeze: {reason}"
        ));
    }
    let approvals = state.questions().count();
    if approvals > 0 {
        lines.push(format!("questions that wait for somebody's yes or no: {approvals}; stanch approvals list"));
    }
    let asking = |run: &Arc<Run>| (summary::questions(run), run.id);
    let unknown: Vec<(usize, RunId)> = state.runs.values().map(asking).filter(|(steps, _)| *steps > 0).collect();
    if let Some((_, first)) = unknown.first() {
        let steps: usize = unknown.iter().map(|(steps, _)| steps).sum();
        lines.push(format!(
            "unknown steps that wait for an answer: {steps}; stanch runs list, stanch runs show {first}"
        ));
    }
    let stuck = |of: &&Arc<Containment>| matches!(of.state, UndoState::Unknown { .. } | UndoState::Failed { .. });
    let stuck = state.inforce.values().filter(stuck).count();
    if stuck > 0 {
        lines.push(format!("in force, and not or perhaps not taken back: {stuck}; stanch inforce list"));
    }
    lines
}

/// The keys whose secrets cannot be read now, each with the reason, which names the reference and no value.
fn unreadable(config: &Config, secrets: &Secrets) -> Vec<(String, SecretError)> {
    let mut found = Vec::new();
    let slack = config.slack.as_ref();
    let token = |service: &'_ Option<ServiceConfig>| service.as_ref().and_then(|service| service.token.clone());
    let references = [
        ("slack.token", slack.and_then(|slack| slack.token.clone())),
        ("slack.webhook_url", slack.and_then(|slack| slack.webhook_url.clone())),
        ("prometheus.token", token(&config.prometheus)),
        ("alertmanager.token", token(&config.alertmanager)),
        ("kubernetes.token", config.kubernetes.token.clone()),
        ("email.password", config.email.as_ref().and_then(|email| email.password.clone())),
        ("pagerduty.routing_key", config.pagerduty.routing_key.clone()),
    ];
    for (key, reference) in references.iter().filter_map(|(key, reference)| Some((*key, reference.as_ref()?))) {
        found.extend(secrets.read(reference).err().map(|error| (key.to_owned(), error)));
    }
    found.extend(secrets.unreadable().into_iter().map(|(name, error)| (format!("secrets.{name}"), error)));
    found
}

fn worker_config(
    config: &Config,
    secrets: Secrets,
    warden: Warden,
    nats: watch::Receiver<Option<async_nats::Client>>,
) -> Result<WorkerConfig, StartupError> {
    let egress = Egress::new(config.egress.allow.clone()).map_err(|error| StartupError::Workers(error.to_string()))?;
    Ok(WorkerConfig {
        registry: Registry::standard(),
        egress,
        secrets,
        slack: config.slack.clone().unwrap_or_default(),
        exec: exec(warden),
        services: Services {
            prometheus: config.prometheus.clone(),
            alertmanager: config.alertmanager.clone(),
            kubernetes: config.kubernetes.clone(),
            pagerduty: config.pagerduty.clone(),
            email: config.email.clone(),
        },
        nats,
        ..WorkerConfig::default()
    })
}

/// Commands are found on the engine's own `PATH`.
fn exec(warden: Warden) -> ExecConfig {
    let config = ExecConfig { warden, ..ExecConfig::default() };
    match std::env::var_os("PATH").filter(|path| !path.is_empty()) {
        Some(path) => ExecConfig { path, ..config },
        None => config,
    }
}

#[cfg(test)]
mod tests {
    use stanch_core::command::Target;
    use stanch_core::event::Event;
    use stanch_core::{Actor, JournalId, Outcome, Settings};
    use stanch_playbook::Timestamp;

    use super::*;

    #[test]
    fn what_waits_for_people_is_counted_with_the_command_that_shows_it() {
        let text = "playbook: p\ndetect:\n  ask: {uses: approval, with: {prompt: Well?}}\n  \
                    lost: {uses: exec, with: {argv: [x]}, undo: {uses: exec, with: {argv: [y]}}}\n";
        let plan = Arc::new(stanch_playbook::load("p.yaml", text).unwrap_or_else(|bad| panic!("{bad}")).plan);
        let now = Timestamp::from_millis(1_790_000_000_000);
        let (mut state, mut attempt) = (State::default(), None);
        let mut submit = |command: Command| {
            let decided = stanch_core::decide(&state, command, now).unwrap();
            state = decided.state;
            let dispatched = |effect| match effect {
                Effect::DispatchAttempt(assignment) => Some(assignment.attempt),
                Effect::CancelAttempt(_) | Effect::ArmTimer(_) => None,
            };
            attempt = decided.effects.into_iter().find_map(dispatched).or(attempt.take());
            (waiting(&state), attempt.clone(), state.inforce.keys().next().copied())
        };
        let actor = Actor::source("test");
        let event = Event {
            id: "1".into(),
            source: "api".into(),
            kind: "test".into(),
            time: now,
            subject: None,
            data: serde_json::Value::Null,
        };
        let target = Target::Playbook { playbook: plan.name.clone(), inputs: serde_json::Map::new() };
        let (journal, version) = (JournalId::default(), String::new());
        submit(Command::StartEngine { journal, version, settings: Settings::default() });
        assert!(submit(Command::LoadPlaybooks { plans: vec![plan], keep: Vec::new() }).0.is_empty());
        let command = Command::ReceiveEvent { actor: actor.clone(), event: Arc::new(event), target };
        let (lines, attempt, _) = submit(command);
        let question = "questions that wait for somebody's yes or no: 1; stanch approvals list";
        assert_eq!(lines, [question]);
        let unknown = || Outcome::Unknown { reason: "it hung".to_owned() };
        let (lines, _, id) = submit(Command::FinishAttempt { attempt: attempt.unwrap(), outcome: unknown() });
        assert_eq!((lines.len(), &*lines[0]), (2, question));
        assert!(lines[1].starts_with("unknown steps that wait for an answer: 1; stanch runs list, stanch runs show 0"));
        let (_, attempt, _) =
            submit(Command::UndoContainment { actor: actor.clone(), containment: id.unwrap(), reason: String::new() });
        submit(Command::FinishAttempt { attempt: attempt.unwrap(), outcome: unknown() });
        let (lines, _, _) = submit(Command::Freeze { actor, reason: "a release".to_owned() });
        let ends = ["until stanch unfreeze: a release", "stanch approvals list", "", "stanch inforce list"];
        assert_eq!(lines.len(), ends.len());
        assert!(lines.iter().zip(ends).all(|(line, end)| line.ends_with(end)), "{lines:#?}");
    }

    #[test]
    fn secrets_that_cannot_be_read_are_named_by_their_keys_and_references() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name).display().to_string();
        std::fs::write(home.path().join("there"), "hunter2-and-more").unwrap();
        let text = format!(
            "slack: {{token: 'env:STANCH_TEST_NOT_SET', webhook_url: 'file:{}'}}\n\
             prometheus: {{url: 'http://127.0.0.1:9090', token: 'env:STANCH_TEST_NOT_SET'}}\n\
             alertmanager: {{url: 'http://127.0.0.1:9093', token: 'env:STANCH_TEST_NOT_SET'}}\n\
             kubernetes: {{token: 'env:STANCH_TEST_NOT_SET', ca: /ca.crt}}\n\
             email: {{smtp: 'smtp://mail.corp', username: stanch, password: 'env:STANCH_TEST_NOT_SET', from: a@corp.example}}\n\
             pagerduty: {{routing_key: 'env:STANCH_TEST_NOT_SET'}}\n\
             secrets: {{edr: {{from: 'file:{}'}}, good: {{from: 'file:{}'}}}}\n",
            path("none"),
            path("gone"),
            path("there")
        );
        let file = home.path().join("stanch.yaml");
        std::fs::write(&file, text).unwrap();
        let config = Config::read(&file).unwrap();
        let secrets = Secrets::new(config.secrets.clone()).unwrap();
        let found: Vec<_> =
            unreadable(&config, &secrets).into_iter().map(|(key, error)| (key, error.to_string())).collect();
        assert_eq!(found[0].1, "env:STANCH_TEST_NOT_SET cannot be read: the variable is not set");
        assert!(found[1].1.starts_with(&format!("file:{} cannot be read: ", path("none"))), "{found:?}");
        let keys: Vec<_> = found.iter().map(|(key, _)| key.as_str()).collect();
        let expected = [
            "slack.token",
            "slack.webhook_url",
            "prometheus.token",
            "alertmanager.token",
            "kubernetes.token",
            "email.password",
            "pagerduty.routing_key",
            "secrets.edr",
        ];
        assert_eq!(keys, expected);
    }
}
