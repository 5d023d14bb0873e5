//! `nats.publish` and `nats.request`: one message.
//!
//! `subject`, `data` (a text as it is; anything else as JSON), `headers`. The idempotency key goes out as `Nats-Msg-Id`.
//!
//! `nats.publish` waits for the acknowledgement of the stream that holds the subject; result `{data: {stream, sequence,
//! duplicate}}`. Without a stream the message is delivered at most once, which the server confirms taking; result `{data:
//! null}`. `nats.request` waits for one answer; result `{data}`, parsed where it is JSON.
//!
//! How they come out: not connected, no responders, an error that the service or the stream answers: *failed*. A time-out or a
//! lost connection after sending: *unknown*.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::context::{GetStreamByNameErrorKind, PublishErrorKind};
use async_nats::{Client, HeaderMap, HeaderName, HeaderValue, Request, RequestErrorKind, jetstream};
use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use stanch_core::{Assignment, Outcome};
use tokio::time::Instant;

use crate::action::{Action, Context, failed, refused, unknown};
use crate::client::causes;
use crate::parameters::{Parameters, kind, scalar, text_or_json};

/// How long a server that has JetStream may take to name the stream of a subject.
const STREAM_LOOKUP: Duration = Duration::from_secs(2);

/// The action `nats.publish`.
#[derive(Debug, Clone, Copy)]
pub struct NatsPublish;

/// The action `nats.request`.
#[derive(Debug, Clone, Copy)]
pub struct NatsRequest;

impl Action for NatsPublish {
    fn name(&self) -> &'static str {
        "nats.publish"
    }

    fn run<'a>(&'a self, context: &'a Context, assignment: &'a Assignment) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            context.preparing();
            match prepare(context, assignment) {
                Ok(message) => publish(context, message).await,
                Err(outcome) => outcome,
            }
        })
    }
}

impl Action for NatsRequest {
    fn name(&self) -> &'static str {
        "nats.request"
    }

    fn run<'a>(&'a self, context: &'a Context, assignment: &'a Assignment) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            context.preparing();
            match prepare(context, assignment) {
                Ok(message) => request(context, message).await,
                Err(outcome) => outcome,
            }
        })
    }
}

struct Message {
    client: Client,
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
}

fn prepare(context: &Context, assignment: &Assignment) -> Result<Message, Outcome> {
    let (subject, headers, payload) = parts(assignment).map_err(refused)?;
    let client =
        context.nats().ok_or_else(|| failed("nats is not connected: check nats.url in stanch.yaml, and the server"))?;
    // The client would keep the message until it is connected again, long after this attempt was called failed.
    if client.connection_state() != State::Connected {
        return Err(failed("nats is not connected at the moment"));
    }
    let longest = client.max_payload();
    let size = payload.len()
        + headers.iter().flat_map(|(_, values)| values).map(|value| value.as_str().len() + 64).sum::<usize>();
    if longest > 0 && size > longest {
        return Err(refused(format!("the message has {size} bytes and the server takes {longest}")));
    }
    Ok(Message { client, subject, headers, payload })
}

fn parts(assignment: &Assignment) -> Result<(String, HeaderMap, Bytes), String> {
    let parameters = Parameters::of(assignment);
    let subject = parameters.text("subject")?.into_owned();
    check_subject(&subject)?;
    let payload = match parameters.get("data") {
        None => Bytes::new(),
        Some(data) => Bytes::from(text_or_json(data).into_owned()),
    };
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, assignment.idempotency_key.as_str());
    for (name, value) in parameters.object("headers")?.into_iter().flatten() {
        if value.is_null() {
            continue;
        }
        let text = scalar(value).ok_or_else(|| format!("`headers.{name}` must be a text, not {}", kind(value)))?;
        let header: HeaderName = name.parse().map_err(|_| format!("{name:?} is no header name"))?;
        let value: HeaderValue = text.parse().map_err(|_| format!("the value of header {name} holds a line break"))?;
        headers.insert(header, value);
    }
    Ok((subject, headers, payload))
}

/// A subject that is sent to has no wildcards, spaces or empty tokens: a label in it could bring them.
fn check_subject(subject: &str) -> Result<(), String> {
    let bad_token = |token: &str| {
        token.is_empty() || token.contains(|c: char| c.is_whitespace() || c.is_control() || c == '*' || c == '>')
    };
    if subject.len() > 1024 || subject.split('.').any(bad_token) {
        let shown: String = subject.chars().take(100).collect();
        return Err(format!("{shown:?} cannot be sent to: a subject has no spaces, wildcards or empty parts"));
    }
    Ok(())
}

async fn publish(context: &Context, message: Message) -> Outcome {
    let Message { client, subject, headers, payload } = message;
    let mut jetstream = jetstream::new(client.clone());
    jetstream.set_timeout(STREAM_LOOKUP);
    let held = match jetstream.stream_by_subject(subject.as_str()).await {
        Ok(_) => true,
        Err(error) => match error.kind() {
            GetStreamByNameErrorKind::InvalidSubject => return refused(format!("{subject:?} is no subject")),
            // No JetStream, no right to ask, or no stream: then there is nobody to acknowledge.
            GetStreamByNameErrorKind::NotFound
            | GetStreamByNameErrorKind::Request
            | GetStreamByNameErrorKind::JetStream(_) => false,
        },
    };
    if client.connection_state() != State::Connected {
        return failed("nats is not connected at the moment");
    }
    context.sending();
    if !held {
        if let Err(error) = client.publish_with_headers(subject, headers, payload).await {
            return unknown(format!("whether the message left is not known: {error}"));
        }
        return match confirmed(&client).await {
            Ok(()) => Outcome::Succeeded { output: json!({ "data": null }) },
            Err(error) => unknown(format!("whether the server has the message is not known: {error}")),
        };
    }
    // The worker ends the wait; this one only bounds what the client remembers of it.
    jetstream.set_timeout(left(context));
    let acknowledged = match jetstream.publish_with_headers(subject, headers, payload).await {
        Ok(acknowledgement) => acknowledgement.await,
        Err(error) => Err(error),
    };
    match acknowledged {
        Ok(ack) => Outcome::Succeeded {
            output: json!({ "data": { "stream": ack.stream, "sequence": ack.sequence, "duplicate": ack.duplicate } }),
        },
        Err(error) => match error.kind() {
            PublishErrorKind::StreamNotFound => failed("the stream of the subject is gone"),
            PublishErrorKind::WrongLastMessageId | PublishErrorKind::WrongLastSequence => {
                refused(format!("the stream refused the message: {error}"))
            }
            PublishErrorKind::MaxAckPending => failed("too many messages wait for an acknowledgement"),
            PublishErrorKind::MaxPayloadExceeded => refused(error.to_string()),
            PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => unknown(error.to_string()),
            PublishErrorKind::Other => {
                match std::error::Error::source(&error).and_then(|e| e.downcast_ref::<jetstream::Error>()) {
                    Some(said) => failed(format!("the stream refused the message: {said}")),
                    None => unknown(format!("{error}: {}", causes(&error))),
                }
            }
        },
    }
}

/// A little more than the attempt has left.
fn left(context: &Context) -> Duration {
    context.deadline.saturating_duration_since(Instant::now()) + Duration::from_secs(1)
}

/// Waits until the server has handled what was sent before: it answers in order, and that nobody listens is an answer.
async fn confirmed(client: &Client) -> Result<(), String> {
    client.flush().await.map_err(|error| error.to_string())?;
    let probe = Request::new().payload(Bytes::new()).timeout(Some(STREAM_LOOKUP));
    match client.send_request(client.new_inbox(), probe).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(()),
        // Some accounts may not publish to inboxes.
        Err(error) if client.connection_state() == State::Connected && error.kind() == RequestErrorKind::TimedOut => {
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}

async fn request(context: &Context, message: Message) -> Outcome {
    let Message { client, subject, headers, payload } = message;
    context.sending();
    let request = Request::new().headers(headers).payload(payload).timeout(Some(left(context)));
    match client.send_request(subject.clone(), request).await {
        Ok(answer) => {
            let data = data(&answer.payload);
            match service_error(answer.headers.as_ref()) {
                None => Outcome::Succeeded { output: json!({ "data": data }) },
                Some(error) => Outcome::Failed {
                    error: format!("the service at {subject} answered an error: {error}"),
                    output: Some(json!({ "data": data })),
                    retry_after: None,
                    retryable: true,
                },
            }
        }
        Err(error) => match error.kind() {
            RequestErrorKind::NoResponders => failed(format!("nobody listens on {subject}")),
            RequestErrorKind::InvalidSubject => refused(format!("{subject:?} is no subject")),
            RequestErrorKind::MaxPayloadExceeded => refused(error.to_string()),
            RequestErrorKind::TimedOut => unknown(format!("no answer from {subject} in time")),
            RequestErrorKind::Other => unknown(format!("the answer from {subject} was lost: {error}")),
        },
    }
}

fn data(payload: &[u8]) -> Value {
    match payload {
        [] => Value::Null,
        bytes => {
            serde_json::from_slice(bytes).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
        }
    }
}

/// The error of a NATS service (ADR-32).
fn service_error(headers: Option<&HeaderMap>) -> Option<String> {
    let code = headers?.get("Nats-Service-Error-Code")?;
    let text = headers?.get("Nats-Service-Error").map_or("", |text| text.as_str());
    Some(format!("{code} {text}").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_widen_a_subject() {
        for subject in ["a.>", "a.*.b", "a b", "a..b", ".a", "a.", "a.\r\nPUB x 1"] {
            assert!(check_subject(subject).is_err(), "{subject}");
        }
        assert!(check_subject("edr.isolate.web-1").is_ok());
    }

    #[test]
    fn answers_are_read_as_json_or_text() {
        assert_eq!(data(b""), Value::Null);
        assert_eq!(data(b"{\"a\":1}"), json!({"a": 1}));
        assert_eq!(data(b"\xffplain"), json!("\u{fffd}plain"));
    }
}
