//! Events from NATS subjects that playbooks name.
//!
//! Where a JetStream stream captures a subject, a durable consumer reads it and a message is acknowledged once its records
//! are durable. Elsewhere it is a core subscription, which promises no delivery: what is sent while nobody listens is gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, AckKind, consumer};
use async_nats::{Client, ConnectOptions, HeaderMap, Subject};
use base64::Engine as _;
use futures::StreamExt as _;
use stanch_core::Command;
use stanch_core::command::Target;
use stanch_core::record::{Actor, DeadLetter};
use stanch_playbook::{Timestamp, TriggerOn, Uses, Wait, subject_matches};
use stanch_workers::Secrets;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::app::NatsStatus;
use crate::config::{ConfigError, NatsConfig};
use crate::executor::{Handle, Refused};
use crate::intake::{Fallback, cloud_event};

/// How many messages of one subscription are being made durable at once.
const CONCURRENCY: usize = 64;
/// How often it is looked whether a stream has come to capture a subject.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// The longest message that a dead letter keeps whole.
const KEPT: usize = 1 << 20;

/// Connects in the background and for good; the client can be used at once and fails while there is no server.
pub(crate) async fn connect(
    config: &NatsConfig,
    secrets: &Secrets,
    status: watch::Sender<NatsStatus>,
) -> Result<Option<Client>, ConfigError> {
    // Addresses may carry a password.
    let without_user = |server: &str| server.rsplit('@').next().unwrap_or_default().trim().to_owned();
    let servers: Arc<str> = config.url.split(',').map(without_user).collect::<Vec<_>>().join(", ").into();
    let status = Arc::new(status);
    let told = Arc::clone(&status);
    let mut options = ConnectOptions::new().name("stanch").retry_on_initial_connect().event_callback(move |event| {
        let (told, servers) = (Arc::clone(&told), Arc::clone(&servers));
        async move {
            match event {
                async_nats::Event::Connected => {
                    tracing::info!(%servers, "connected to NATS");
                    told.send_replace(NatsStatus::Connected);
                }
                async_nats::Event::Disconnected => {
                    tracing::warn!("NATS is gone; trying again");
                    let reason = "the connection was lost".to_owned();
                    told.send_replace(NatsStatus::Disconnected { reason });
                }
                async_nats::Event::ClientError(error) => {
                    // One comes with every try: only news are for the log.
                    let reason = error.to_string();
                    let news = told.send_if_modified(|status| match status {
                        NatsStatus::Disconnected { reason: known } if *known != reason => {
                            known.clone_from(&reason);
                            true
                        }
                        _ => false,
                    });
                    if news {
                        tracing::warn!(
                            %servers,
                            reason,
                            "NATS cannot be reached; serving without it, trying on"
                        );
                    }
                }
                other => tracing::debug!(%other, "NATS"),
            }
        }
    });
    let read = |key: &str, from: &str| match secrets.read(from) {
        Ok(secret) => Ok(secret.expose().to_owned()),
        Err(error) => Err(ConfigError::secret(key, &error)),
    };
    if let Some(token) = &config.token {
        options = options.token(read("nats.token", token)?);
    }
    if let Some(user) = &config.user {
        let password = config.password.as_deref().map(|from| read("nats.password", from)).transpose()?;
        options = options.user_and_password(user.clone(), password.unwrap_or_default());
    }
    let servers: Vec<&str> = config.url.split(',').map(str::trim).collect();
    status.send_if_modified(|status| {
        let new = *status == NatsStatus::Unused;
        if new {
            *status = NatsStatus::Disconnected { reason: "not connected yet".to_owned() };
        }
        new
    });
    match options.connect(servers).await {
        Ok(client) => Ok(Some(client)),
        Err(error) => {
            Err(ConfigError::Value { key: "nats.url".into(), reason: format!("{error}; give nats://HOST:PORT") })
        }
    }
}

/// Keeps a subscription for every subject that a loaded playbook, or a live run's plan, names, until stopped.
pub(crate) async fn run(
    client: Client,
    handle: Handle,
    mut reloaded: watch::Receiver<u64>,
    mut status: watch::Receiver<NatsStatus>,
    stop: CancellationToken,
) {
    let mut running: BTreeMap<String, Subscription> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let connected = *status.borrow_and_update() == NatsStatus::Connected;
        if connected {
            let filters: Arc<[String]> = filters(&handle).into();
            running.retain(|filter, subscription| {
                let keep =
                    filters.contains(filter) && subscription.filters == filters && !subscription.stop.is_cancelled();
                if !keep {
                    subscription.stop.cancel();
                }
                keep
            });
            for filter in &*filters {
                let stream = stream_of(&client, filter).await;
                let known = running.get(filter).map(|subscription| subscription.stream.clone());
                if known.as_ref() == Some(&stream) {
                    continue;
                }
                if let Some(old) = running.remove(filter) {
                    old.stop.cancel();
                }
                let subscription =
                    Subscription { stream: stream.clone(), filters: Arc::clone(&filters), stop: stop.child_token() };
                let ended = subscription.stop.clone();
                let work = listen(client.clone(), handle.clone(), filter.clone(), subscription.clone());
                tasks.spawn(async move {
                    work.await;
                    ended.cancel();
                });
                running.insert(filter.clone(), subscription);
            }
        }
        tokio::select! {
            // First: the end of the subscriptions is a part of it and no reason to make them again.
            biased;
            () = stop.cancelled() => break,
            changed = reloaded.changed() => if changed.is_err() { break },
            changed = status.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
        }
    }
    for subscription in running.values() {
        subscription.stop.cancel();
    }
    while tasks.join_next().await.is_some() {}
}

#[derive(Clone)]
struct Subscription {
    stream: Option<String>,
    filters: Arc<[String]>,
    stop: CancellationToken,
}

fn filters(handle: &Handle) -> Vec<String> {
    let state = handle.state();
    let mut filters: Vec<String> = Vec::new();
    for plan in state.playbooks.values().filter_map(|digest| state.plan(*digest)) {
        filters.extend(plan.triggers.iter().filter_map(|trigger| subject_of(&trigger.on)));
    }
    // What steps wait for, also in plans that only live runs still have.
    for step in state.plans.values().flat_map(|pinned| &pinned.0.steps) {
        if let Uses::Wait(Wait::Event(awaited)) = &step.uses {
            filters.extend(subject_of(&awaited.on));
        }
    }
    filters.sort();
    filters.dedup();
    filters
}

fn subject_of(on: &TriggerOn) -> Option<String> {
    match on {
        TriggerOn::Nats { subject } => Some(subject.clone()),
        TriggerOn::Alertmanager(_) | TriggerOn::Schedule(_) | TriggerOn::Manual => None,
    }
}

/// The stream that captures a subject, if JetStream is there and has one.
async fn stream_of(client: &Client, filter: &str) -> Option<String> {
    let mut context = jetstream::new(client.clone());
    context.set_timeout(Duration::from_secs(2));
    context.stream_by_subject(filter.to_owned()).await.ok()
}

async fn listen(client: Client, handle: Handle, filter: String, subscription: Subscription) {
    let outcome = match &subscription.stream {
        Some(stream) => consume(&client, &handle, &filter, stream, &subscription).await,
        None => subscribe(&client, &handle, &filter, &subscription).await,
    };
    if let Err(error) = outcome {
        tracing::warn!(filter, error, "the subscription ended; it is made again");
    }
}

async fn consume(
    client: &Client,
    handle: &Handle,
    filter: &str,
    stream: &str,
    subscription: &Subscription,
) -> Result<(), String> {
    let context = jetstream::new(client.clone());
    let stream = context.get_stream(stream).await.map_err(|error| error.to_string())?;
    let name = consumer_name(filter);
    let config = consumer::pull::Config {
        durable_name: Some(name.clone()),
        filter_subject: filter.to_owned(),
        ack_policy: consumer::AckPolicy::Explicit,
        ack_wait: Duration::from_secs(30),
        ..Default::default()
    };
    let consumer = stream.get_or_create_consumer(&name, config).await.map_err(|error| error.to_string())?;
    let messages = consumer.messages().await.map_err(|error| error.to_string())?;
    tracing::info!(filter, stream = stream.cached_info().config.name, "reading events from JetStream");
    messages
        .take_until(subscription.stop.cancelled())
        .for_each_concurrent(CONCURRENCY, |message| async {
            let Ok(message) = message else { return };
            let identity = message.info().map(|info| {
                let at = i64::try_from(info.published.unix_timestamp_nanos()).unwrap_or_default();
                (format!("{}", info.stream_sequence), format!("nats/{}", info.stream), Timestamp::from_nanos(at))
            });
            let Ok((id, source, time)) = identity else { return };
            let fallback = Fallback { id, source, subject: message.subject.to_string(), time };
            if first_of(&subscription.filters, filter, &message.subject) {
                let kept = take(handle, message.headers.as_ref(), &message.payload, fallback).await;
                if kept.is_err() {
                    message.ack_with(AckKind::Nak(Some(Duration::from_secs(1)))).await.ok();
                    return;
                }
            }
            if let Err(error) = message.ack().await {
                tracing::debug!(%error, "an acknowledgement was not sent; the message will come again and do nothing");
            }
        })
        .await;
    if subscription.stop.is_cancelled() { Ok(()) } else { Err("the consumer ended".to_owned()) }
}

async fn subscribe(client: &Client, handle: &Handle, filter: &str, subscription: &Subscription) -> Result<(), String> {
    let messages = client.subscribe(filter.to_owned()).await.map_err(|error| error.to_string())?;
    tracing::info!(filter, "reading events from core NATS: what is sent while stanch is away is lost");
    messages
        .take_until(subscription.stop.cancelled())
        .for_each_concurrent(CONCURRENCY, |message| async move {
            if !first_of(&subscription.filters, filter, &message.subject) {
                return;
            }
            let fallback = Fallback {
                id: uuid::Uuid::now_v7().to_string(),
                source: "nats".to_owned(),
                subject: message.subject.to_string(),
                time: handle.now(),
            };
            while take(handle, message.headers.as_ref(), &message.payload, fallback.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            if let Some(reply) = message.reply {
                client.publish(reply, "+ACK".into()).await.ok();
            }
        })
        .await;
    if subscription.stop.is_cancelled() { Ok(()) } else { Err("the subscription ended".to_owned()) }
}

/// Filters may overlap; the first that takes a subject has it for all of them.
fn first_of(filters: &[String], filter: &str, subject: &Subject) -> bool {
    filters.iter().find(|candidate| subject_matches(candidate, subject)).is_some_and(|first| first == filter)
}

/// Makes one message durable: as an event or as a dead letter.
async fn take(handle: &Handle, headers: Option<&HeaderMap>, payload: &[u8], fallback: Fallback) -> Result<(), Refused> {
    let subject = fallback.subject.clone();
    let header = |name: &str| {
        let headers = headers?;
        headers
            .iter()
            .find(|(key, _)| AsRef::<str>::as_ref(*key).eq_ignore_ascii_case(name))
            .and_then(|(_, values)| values.first().map(|value| value.as_str().to_owned()))
    };
    let actor = Actor::source("nats");
    let command = match cloud_event(header, payload, fallback) {
        Ok(event) => Command::ReceiveEvent { actor, event: Arc::new(event), target: Target::Subject(subject) },
        Err(unreadable) => Command::KeepDeadLetter {
            actor,
            letter: DeadLetter {
                via: format!("nats:{subject}"),
                reason: unreadable.reason,
                code: unreadable.code.to_owned(),
                content_type: header("content-type"),
                body: base64::engine::general_purpose::STANDARD.encode(&payload[..payload.len().min(KEPT)]),
                size: payload.len() as u64,
                complete: payload.len() <= KEPT,
            },
        },
    };
    match handle.submit_patiently(command).await {
        Ok(_) | Err(Refused::Rejected(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A durable consumer's name: the filter with what NATS does not allow in names replaced.
fn consumer_name(filter: &str) -> String {
    let mut name = String::from("stanch_");
    for letter in filter.chars() {
        match letter {
            '*' => name.push_str("ANY"),
            '>' => name.push_str("ALL"),
            letter if letter.is_ascii_alphanumeric() || letter == '-' => name.push(letter),
            '.' => name.push('_'),
            letter => name.push_str(&format!("u{:x}", u32::from(letter))),
        }
    }
    name
}
