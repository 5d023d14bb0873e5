//! An engine on a temporary directory, asked without a socket.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderName, HeaderValue, Request, Response};
use serde_json::{Value, json};
use stanch_core::run::Run;
use stanch_core::{Assignment, Command, Outcome, RunId, State};
use stanch_playbook::Plan;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::router;
use crate::app::{App, NatsStatus};
use crate::clock::testing::Movable;
use crate::clock::{self, Clock};
use crate::config::{BudgetConfig, Config, PersonConfig, TokenConfig};
use crate::executor::{self, Dispatch, Handle};
use crate::people::People;
use crate::senders::Senders;
use crate::store::Store;

/// Carries out nothing and says that it succeeded, or what the step's message asks for: `fail`, `unknown` or `keep`.
struct Pretend;

impl Dispatch for Pretend {
    fn execute(&self, assignment: Assignment, _: CancellationToken) -> impl Future<Output = Outcome> + Send + 'static {
        std::future::ready(match assignment.with["message"].as_str() {
            Some("fail") => {
                Outcome::Failed { error: "it failed".to_owned(), output: None, retry_after: None, retryable: true }
            }
            Some("unknown") => Outcome::Unknown { reason: "it hung".to_owned() },
            Some(text) if text.starts_with("keep") => {
                let file = json!({"size": 4, "sha256": "aa", "content_base64": "/wBhYg=="});
                Outcome::Succeeded { output: json!({"artifacts": {"out/a b.bin": file}}) }
            }
            _ => Outcome::Succeeded { output: json!({"x": 7}) },
        })
    }
}

/// An engine under test.
pub(super) struct Engine {
    router: Router,
    handle: Handle,
    pub nats: watch::Sender<NatsStatus>,
    /// Its wall clock.
    pub wall: Movable,
    _home: TempDir,
}

impl Engine {
    /// An engine with these playbooks, and a budget `few` of one target an hour.
    pub(super) async fn start(playbooks: &[&str]) -> Self {
        Self::make(playbooks, Senders::default(), People::default()).await
    }

    /// The same, where webhooks are taken from these senders alone.
    pub(super) async fn start_with_senders(playbooks: &[&str], senders: Senders) -> Self {
        Self::make(playbooks, senders, People::default()).await
    }

    /// The same, where ann (of the group sec) and bob have the tokens `ann-s-token` and `bob-s-token`.
    pub(super) async fn start_with_people(playbooks: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let token = |name: &str| {
            let path = home.path().join(name);
            std::fs::write(&path, format!("{name}-s-token")).unwrap();
            TokenConfig { person: name.to_owned(), from: format!("file:{}", path.display()) }
        };
        let person = |name: &str, groups: &[&str]| {
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            (name.to_owned(), PersonConfig { slack: None, groups })
        };
        let config = Config {
            people: [person("ann", &["sec"]), person("bob", &[])].into(),
            tokens: vec![token("ann"), token("bob")],
            ..Config::default()
        };
        let people = People::read(&config, &stanch_workers::Secrets::default()).unwrap();
        Self::make(playbooks, Senders::default(), people).await
    }

    async fn make(playbooks: &[&str], senders: Senders, people: People) -> Self {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("data");
        let wall = Movable::at(clock::wall());
        let (store, state) = Store::open(&data).unwrap();
        let (reader, views, journal) = (store.reader(), store.views(), store.id());
        let handle = {
            let read = wall.clone();
            let clock = Clock::new(&state, move || read.read());
            executor::start(store, state, clock, Arc::new(Pretend), 256)
        };
        let few = BudgetConfig { most: 1, per: "1h".to_owned(), from: Vec::new() };
        let config = Config {
            external_url: Some("https://stanch.test/".to_owned()),
            budgets: [("few".to_owned(), few)].into(),
            ..Config::default()
        };
        let settings = config.settings().unwrap();
        handle.submit(Command::StartEngine { journal, version: "test".to_owned(), settings }).await.unwrap();
        handle.submit(Command::LoadPlaybooks { plans: plans(playbooks), keep: Vec::new() }).await.unwrap();
        let (nats, nats_status) = watch::channel(NatsStatus::Unused);
        let (_, problems) = watch::channel(Arc::default());
        let app = App {
            handle: handle.clone(),
            reader,
            views,
            config: Arc::new(config),
            nats: nats_status,
            problems,
            senders: Arc::new(senders),
            people: watch::channel(Arc::new(people)).1,
        };
        Self { router: router(app), handle, nats, wall, _home: home }
    }

    /// The way into it.
    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Replaces its playbooks.
    pub(super) async fn load(&self, playbooks: &[&str]) {
        let command = Command::LoadPlaybooks { plans: plans(playbooks), keep: Vec::new() };
        self.handle.submit(command).await.unwrap();
    }

    /// Ends it in good order.
    pub(super) async fn stop(&self) {
        self.handle.stop("test").await;
    }

    /// Sends a request; the answer's body is not read.
    pub(super) async fn open(&self, request: Sent) -> Response<Body> {
        self.router.clone().oneshot(request.0).await.unwrap()
    }

    /// Sends a request.
    pub(super) async fn send(&self, request: Sent) -> Answer {
        let (parts, body) = self.open(request).await.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
        let json = serde_json::from_slice(&body).unwrap_or_default();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body, json }
    }

    /// Starts a run of a playbook by hand and gives its id, once no attempt of it is under way.
    pub(super) async fn run(&self, playbook: &str) -> String {
        let answer = self.send(post(&format!("/api/v1/playbooks/{playbook}/runs"), "{}")).await;
        assert_eq!(answer.status, 201, "{}", answer.json);
        let id = answer.json["runs"][0]["id"].as_str().unwrap().to_owned();
        self.idle(&id).await;
        id
    }

    /// Waits until no attempt of a run is under way.
    pub(super) async fn idle(&self, id: &str) {
        let id: RunId = id.parse().unwrap();
        let is_idle = |run: &Arc<Run>| run.started().all(|(_, step)| step.state.attempt().is_none());
        let idle = |state: &Arc<State>| state.runs.get(&id).is_none_or(is_idle);
        self.handle.watch().wait_for(idle).await.unwrap();
    }

    /// Waits until a run is over.
    pub(super) async fn finished(&self, id: &str) {
        self.handle.finished(vec![id.parse().unwrap()]).await;
    }

    /// Asks again with each new durable state until there is an answer.
    pub(super) async fn until<T>(&self, ask: impl AsyncFn() -> Option<T>) -> T {
        let mut durable = self.handle.watch();
        loop {
            durable.borrow_and_update();
            if let Some(answer) = ask().await {
                return answer;
            }
            durable.changed().await.unwrap();
        }
    }

    /// The metrics.
    pub(super) async fn metrics(&self) -> String {
        String::from_utf8(self.send(get("/metrics")).await.body).unwrap()
    }
}

fn plans(playbooks: &[&str]) -> Vec<Arc<Plan>> {
    let load = |text: &&str| match stanch_playbook::load("test.yaml", text) {
        Ok(loaded) => Arc::new(loaded.plan),
        Err(diagnostics) => panic!("{diagnostics}\n{text}"),
    };
    playbooks.iter().map(load).collect()
}

/// A request to be sent.
pub(super) struct Sent(Request<Body>);

impl Sent {
    /// With this header, in place of one of the same name.
    pub(super) fn header(mut self, name: &str, value: impl AsRef<str>) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.0.headers_mut().insert(name, HeaderValue::from_str(value.as_ref()).unwrap());
        self
    }

    /// With this method.
    pub(super) fn method(mut self, method: &str) -> Self {
        *self.0.method_mut() = method.parse().unwrap();
        self
    }
}

/// A GET.
pub(super) fn get(path: &str) -> Sent {
    Sent(Request::get(path).header("host", "127.0.0.1:9190").body(Body::empty()).unwrap())
}

/// A POST of what is said to be JSON.
pub(super) fn post(path: &str, body: impl AsRef<[u8]>) -> Sent {
    let body = Body::from(body.as_ref().to_vec());
    let request = Request::post(path).header("host", "127.0.0.1:9190").header("content-type", "application/json");
    Sent(request.body(body).unwrap())
}

/// A notification of one firing alert.
pub(super) fn firing(name: &str) -> Vec<u8> {
    let alert = json!({"status": "firing", "labels": {"alertname": name}, "startsAt": "2026-11-21T01:56:59.766Z",
                       "endsAt": "0001-01-01T00:00:00Z"});
    json!({"version": "4", "status": "firing", "alerts": [alert]}).to_string().into_bytes()
}

/// What came back.
pub(super) struct Answer {
    pub status: u16,
    headers: axum::http::HeaderMap,
    pub body: Vec<u8>,
    /// The body as JSON; null where it is none.
    pub json: Value,
}

impl Answer {
    /// A header of it.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}
