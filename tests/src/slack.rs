//! A stand-in for Slack's Web API and incoming webhooks that refuses what Slack refuses.
//!
//! Rules: <https://docs.slack.dev/reference/methods/chat.postMessage> and the block reference.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::stand_in::{Answer, Received, StandIn};

/// The bot token that it takes.
pub const TOKEN: &str = "xoxb-test-0123456789-stanch";
/// The one path of its incoming webhook.
pub const WEBHOOK: &str = "/services/T000/B000/stanch-test";

const TEXT_LIMIT: usize = 40_000;
const BLOCKS_LIMIT: usize = 50;
const SECTION_LIMIT: usize = 3_000;

/// A message that was taken.
#[derive(Debug, Clone)]
pub struct Message {
    /// The channel as it was asked for; `webhook` for the incoming webhook.
    pub channel: String,
    /// The whole body.
    pub body: Value,
    /// What the sender was given as the message's id.
    pub ts: String,
}

#[derive(Debug, Default)]
struct Memory {
    messages: Vec<Message>,
    refused: Vec<String>,
    limited: usize,
    limit_next: usize,
    retry_after: u64,
}

/// The stand-in.
#[derive(Debug)]
pub struct Slack {
    server: StandIn,
    memory: Arc<Mutex<Memory>>,
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slack {
    /// Starts it with these channels (names such as `#sec-incidents`, or ids).
    #[must_use]
    pub fn start(channels: &[&str]) -> Self {
        let memory = Arc::new(Mutex::new(Memory::default()));
        let shared = Arc::clone(&memory);
        let channels: Vec<String> = channels.iter().map(|&channel| channel.to_owned()).collect();
        let server = StandIn::start(move |request| answer(request, &channels, &mut lock(&shared)));
        Self { server, memory }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// The base of its Web API, for `slack.api_url`.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("http://{}/api", self.server.address)
    }

    /// Answers the next `count` calls with 429 and this `Retry-After`.
    pub fn limit(&self, count: usize, retry_after: u64) {
        let mut memory = lock(&self.memory);
        memory.limit_next = count;
        memory.retry_after = retry_after;
    }

    /// The messages that were taken, in order.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        lock(&self.memory).messages.clone()
    }

    /// Slack's word for each call that was refused.
    #[must_use]
    pub fn refused(&self) -> Vec<String> {
        lock(&self.memory).refused.clone()
    }

    /// How many calls got a 429.
    #[must_use]
    pub fn limited(&self) -> usize {
        lock(&self.memory).limited
    }
}

fn answer(request: &Received, channels: &[String], memory: &mut Memory) -> Answer {
    if memory.limit_next > 0 {
        memory.limit_next -= 1;
        memory.limited += 1;
        return Answer::Reply {
            status: 429,
            headers: vec![
                ("Retry-After".into(), memory.retry_after.to_string()),
                ("Content-Type".into(), "application/json".into()),
            ],
            body: json!({"ok": false, "error": "ratelimited"}).to_string().into_bytes(),
        };
    }
    let path = request.path.split('?').next().unwrap_or_default();
    if request.method != "POST" {
        memory.refused.push("method".into());
        return Answer::Reply { status: 405, headers: Vec::new(), body: Vec::new() };
    }
    let webhook = path == WEBHOOK;
    let checked = if webhook {
        body(request).and_then(|body| content(&body).map(|()| ("webhook".to_owned(), body)))
    } else if path == "/api/chat.postMessage" {
        post_message(request, channels)
    } else {
        Err("unknown_method")
    };
    match checked {
        Ok((channel, body)) => {
            let ts = format!("1700000000.{:06}", memory.messages.len() + 1);
            memory.messages.push(Message { channel: channel.clone(), body: body.clone(), ts: ts.clone() });
            if webhook {
                return Answer::Reply { status: 200, headers: Vec::new(), body: b"ok".to_vec() };
            }
            Answer::json(200, &json!({"ok": true, "channel": channel, "ts": ts, "message": body}))
        }
        Err(error) => {
            memory.refused.push(error.to_owned());
            if webhook {
                return Answer::Reply { status: 400, headers: Vec::new(), body: error.as_bytes().to_vec() };
            }
            Answer::json(200, &json!({"ok": false, "error": error}))
        }
    }
}

fn post_message(request: &Received, channels: &[String]) -> Result<(String, Value), &'static str> {
    match request.header("authorization") {
        None => return Err("not_authed"),
        Some(value) if value != format!("Bearer {TOKEN}") => return Err("invalid_auth"),
        Some(_) => {}
    }
    let body = body(request)?;
    let channel = body["channel"].as_str().unwrap_or_default();
    if !channels.iter().any(|known| known == channel) {
        return Err("channel_not_found");
    }
    content(&body)?;
    Ok((channel.to_owned(), body))
}

fn body(request: &Received) -> Result<Value, &'static str> {
    let kind = request.header("content-type").unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        return Err("invalid_post_type");
    }
    match serde_json::from_slice(&request.body) {
        Ok(body @ Value::Object(_)) => Ok(body),
        Ok(_) => Err("json_not_object"),
        Err(_) => Err("invalid_json"),
    }
}

fn content(body: &Value) -> Result<(), &'static str> {
    let text = match &body["text"] {
        Value::Null => "",
        Value::String(text) => text,
        _ => return Err("invalid_arguments"),
    };
    if text.chars().count() > TEXT_LIMIT {
        return Err("msg_too_long");
    }
    let blocks = match &body["blocks"] {
        Value::Null => &Vec::new(),
        Value::Array(blocks) => blocks,
        _ => return Err("invalid_blocks_format"),
    };
    if text.is_empty() && blocks.is_empty() {
        return Err("no_text");
    }
    if blocks.len() > BLOCKS_LIMIT {
        return Err("invalid_blocks");
    }
    for block in blocks {
        let fits = match block["type"].as_str() {
            Some("section") => {
                block["text"]["text"].as_str().is_some_and(|text| (1..=SECTION_LIMIT).contains(&text.chars().count()))
                    || block["fields"].is_array()
            }
            Some("header") => block["text"]["text"].as_str().is_some_and(|text| text.chars().count() <= 150),
            Some("divider" | "context" | "actions" | "image" | "rich_text" | "markdown") => true,
            _ => false,
        };
        if !fits {
            return Err("invalid_blocks");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Request;

    fn post(slack: &Slack, token: &str, body: &Value) -> Value {
        Request::post("/api/chat.postMessage", body.to_string())
            .header("Authorization", &format!("Bearer {token}"))
            .send(slack.address())
            .unwrap()
            .json()
    }

    #[test]
    fn it_takes_a_message_and_refuses_what_slack_refuses() {
        let slack = Slack::start(&["#ops"]);
        let taken = post(&slack, TOKEN, &json!({"channel": "#ops", "text": "hello"}));
        assert_eq!(taken["ok"], true);
        assert_eq!(taken["ts"], slack.messages()[0].ts);
        let long = "x".repeat(SECTION_LIMIT + 1);
        for (token, body, error) in [
            ("wrong", json!({"channel": "#ops", "text": "x"}), "invalid_auth"),
            (TOKEN, json!({"channel": "#none", "text": "x"}), "channel_not_found"),
            (TOKEN, json!({"channel": "#ops"}), "no_text"),
            (TOKEN, json!({"channel": "#ops", "text": "x".repeat(TEXT_LIMIT + 1)}), "msg_too_long"),
            (TOKEN, json!({"channel": "#ops", "blocks": vec![json!({"type": "divider"}); 51]}), "invalid_blocks"),
            (
                TOKEN,
                json!({"channel": "#ops", "blocks": [{"type": "section", "text": {"type": "mrkdwn", "text": long}}]}),
                "invalid_blocks",
            ),
        ] {
            assert_eq!(post(&slack, token, &body), json!({"ok": false, "error": error}));
        }
        assert_eq!(slack.messages().len(), 1);
    }

    #[test]
    fn it_limits_the_rate_when_told() {
        let slack = Slack::start(&["#ops"]);
        slack.limit(1, 3);
        let call = Request::post(WEBHOOK, r#"{"text": "hello"}"#);
        assert_eq!(call.send(slack.address()).unwrap().header("retry-after"), Some("3"));
        assert_eq!(call.send(slack.address()).unwrap().body, b"ok");
        assert_eq!((slack.limited(), slack.messages().len()), (1, 1));
    }
}
