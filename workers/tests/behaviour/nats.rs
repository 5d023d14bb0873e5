//! `nats.publish` and `nats.request` through a real nats-server.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use async_nats::{Client, HeaderMap};
use futures::StreamExt as _;
use serde_json::json;
use stanch_workers::{Worker, WorkerConfig};
use tokio::sync::watch;

use crate::common::*;

/// A running server with its own store; ends with the value.
struct Server {
    process: Child,
    url: String,
    _store: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program() -> Option<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/bin/nats-server");
    let named = std::env::var_os("NATS_SERVER").map(PathBuf::from);
    let found = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).map(|part| part.join("nats-server")).find(|file| file.is_file()));
    named.or(Some(own).filter(|file| file.is_file())).or(found)
}

/// A server and a client of it; none, with the reason printed, where there is no server to start.
async fn server() -> Option<(Server, Client)> {
    let Some(program) = program() else {
        println!("skipped: no nats-server in NATS_SERVER, .tools/bin or PATH");
        return None;
    };
    let store = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let process = Command::new(program)
        .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
        .arg(store.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let url = format!("nats://127.0.0.1:{port}");
    let server = Server { process, url, _store: store };
    let client = async_nats::ConnectOptions::new()
        .retry_on_initial_connect()
        .reconnect_delay_callback(|_| Duration::from_millis(20))
        .connect(&server.url)
        .await
        .unwrap();
    while client.flush().await.is_err() || client.connection_state() != async_nats::connection::State::Connected {
        tokio::task::yield_now().await;
    }
    Some((server, client))
}

fn worker(client: &Client) -> Worker {
    Worker::new(WorkerConfig { nats: watch::channel(Some(client.clone())).1, ..WorkerConfig::default() })
}

#[tokio::test]
async fn a_published_message_reaches_its_subscribers() {
    let Some((_server, client)) = server().await else { return };
    let mut subscriber = client.subscribe("sec.>").await.unwrap();
    client.flush().await.unwrap();
    let with = json!({"subject": "sec.ioc", "data": {"host": "web-1"}, "headers": {"X-Team": "sec"}});
    let key = assignment("nats.publish", with.clone()).idempotency_key;
    assert_eq!(succeeded(run(&worker(&client), "nats.publish", with).await), json!({"data": null}));
    let message = subscriber.next().await.unwrap();
    assert_eq!((message.subject.as_str(), &message.payload[..]), ("sec.ioc", &br#"{"host":"web-1"}"#[..]));
    let headers = message.headers.unwrap();
    assert_eq!(
        (headers.get("Nats-Msg-Id").unwrap().as_str(), headers.get("X-Team").unwrap().as_str()),
        (key.as_str(), "sec")
    );
}

#[tokio::test]
async fn a_stream_acknowledges_and_keeps_one_message_of_a_key() {
    let Some((_server, client)) = server().await else { return };
    let context = jetstream::new(client.clone());
    let config =
        stream::Config { name: "SEC".to_owned(), subjects: vec!["sec.>".to_owned()], ..stream::Config::default() };
    context.create_stream(config).await.unwrap();
    let with = json!({"subject": "sec.ioc", "data": "plain text"});
    let first = succeeded(run(&worker(&client), "nats.publish", with.clone()).await);
    assert_eq!(first, json!({"data": {"stream": "SEC", "sequence": 1, "duplicate": false}}));
    let second = succeeded(run(&worker(&client), "nats.publish", with).await);
    assert_eq!(second["data"]["duplicate"], true);
    let message = context.get_stream("SEC").await.unwrap().get_raw_message(1).await.unwrap();
    assert_eq!(&message.payload[..], b"plain text");
}

#[tokio::test]
async fn a_stream_that_says_no_is_failed() {
    let Some((_server, client)) = server().await else { return };
    let config = stream::Config {
        name: "SMALL".to_owned(),
        subjects: vec!["small".to_owned()],
        max_message_size: 100,
        ..stream::Config::default()
    };
    jetstream::new(client.clone()).create_stream(config).await.unwrap();
    let failure =
        failure(run(&worker(&client), "nats.publish", json!({"subject": "small", "data": "x".repeat(500)})).await);
    assert!(failure.error.contains("the stream refused the message"), "{}", failure.error);
}

#[tokio::test]
async fn a_request_gets_its_answer() {
    let Some((_server, client)) = server().await else { return };
    let mut subscriber = client.subscribe("edr.isolate.*").await.unwrap();
    client.flush().await.unwrap();
    let service = client.clone();
    tokio::spawn(async move {
        while let Some(message) = subscriber.next().await {
            let mut headers = HeaderMap::new();
            if message.subject.ends_with("unknown-host") {
                headers.insert("Nats-Service-Error-Code", "404");
                headers.insert("Nats-Service-Error", "no such host");
            }
            let answer = format!("{{\"key\": {:?}}}", message.headers.unwrap().get("Nats-Msg-Id").unwrap().as_str());
            service.publish_with_headers(message.reply.unwrap(), headers, answer.into()).await.unwrap();
        }
    });
    let with = json!({"subject": "edr.isolate.web-1", "data": {}});
    let key = assignment("nats.request", with.clone()).idempotency_key;
    let output = succeeded(run(&worker(&client), "nats.request", with).await);
    assert_eq!(output, json!({"data": {"key": key.as_str()}}));
    let failure = failure(run(&worker(&client), "nats.request", json!({"subject": "edr.isolate.unknown-host"})).await);
    assert!(failure.error.ends_with("answered an error: 404 no such host"), "{}", failure.error);
}

#[tokio::test]
async fn a_request_that_nobody_hears_is_failed_and_one_without_answer_unknown() {
    let Some((_server, client)) = server().await else { return };
    let nobody = failure(run(&worker(&client), "nats.request", json!({"subject": "nobody.there"})).await);
    assert_eq!((nobody.error.as_str(), nobody.retryable), ("nobody listens on nobody.there", true));
    let _silent = client.subscribe("silent").await.unwrap();
    client.flush().await.unwrap();
    let reason = unknown(run_within(&worker(&client), 1000, "nats.request", json!({"subject": "silent"})).await);
    assert_eq!(reason, "timed out after 1 s");
}

#[tokio::test]
async fn a_message_beyond_the_servers_limit_is_refused() {
    let Some((_server, client)) = server().await else { return };
    let with = json!({"subject": "a", "data": "x".repeat(1_100_000)});
    let failure = failure(run(&worker(&client), "nats.publish", with).await);
    assert!(!failure.retryable && failure.error.contains("the server takes 1048576"), "{}", failure.error);
}

#[tokio::test]
async fn a_server_that_went_away_is_failed_and_nothing_is_kept_for_later() {
    let Some((server, client)) = server().await else { return };
    let worker = worker(&client);
    drop(server);
    while client.connection_state() == async_nats::connection::State::Connected {
        tokio::task::yield_now().await;
    }
    for action in ["nats.publish", "nats.request"] {
        let failure = failure(run(&worker, action, json!({"subject": "a.b"})).await);
        assert!(failure.retryable && failure.error.contains("nats is not connected at the moment"), "{failure:?}");
    }
}
