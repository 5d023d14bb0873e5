//! `slack`: one Slack message, through a bot token (`chat.postMessage`) or an incoming webhook.
//!
//! `channel` (default from the configuration; an incoming webhook has its own), `text`, `blocks`. Result `{channel, ts}`,
//! null for a webhook.
//!
//! `text` is sent inert: `&`, `<` and `>` are escaped, since alert text in it cannot be told from the author's, and
//! `<!channel>` in a label must call nobody. Links and mentions are written with `blocks`, which are sent as they are. A text
//! beyond 39,000 characters is cut; Slack refuses 40,000.
//!
//! How it comes out: an answer that says `ok` is success; one that names an error is *failed*, as is every 4xx and 5xx; 429
//! is tried again after its `Retry-After`. A success that cannot be read is *unknown*.

use std::time::SystemTime;

use futures::future::BoxFuture;
use reqwest::header::{self, HeaderValue};
use reqwest::{Response, Url};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use stanch_core::{Assignment, Outcome};

use crate::action::{Action, Context, failed, refused, unknown};
use crate::client::{Lost, send};
use crate::http::{BodyLost, json_request, retry_after, start_of_body, whole_body, worth_retrying};
use crate::parameters::{Parameters, kind, text_or_json};

const API: &str = "https://slack.com/api";
const LONGEST_TEXT: usize = 39_000;
const MOST_BLOCKS: usize = 50;

/// Slack. With both a token and a webhook, the token is used.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SlackConfig {
    /// The Web API's address; `https://slack.com/api` unless set.
    pub api_url: Option<String>,
    /// A bot token, by reference (`env:NAME` or `file:PATH`); messages then go through `chat.postMessage`.
    pub token: Option<String>,
    /// An incoming webhook's address, by reference: it is a secret too. Used where there is no token.
    pub webhook_url: Option<String>,
    /// The channel of messages that name none.
    pub channel: Option<String>,
}

/// The action `slack`.
#[derive(Debug, Clone, Copy)]
pub struct Slack;

impl Action for Slack {
    fn name(&self) -> &'static str {
        "slack"
    }

    fn run<'a>(&'a self, context: &'a Context, assignment: &'a Assignment) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            context.preparing();
            match prepare(context, assignment) {
                Ok(message) => post(context, assignment, message).await,
                Err(error) => refused(error),
            }
        })
    }
}

/// A message that is ready to leave.
struct Message {
    url: Url,
    /// `Authorization`; none for a webhook.
    token: Option<HeaderValue>,
    body: Value,
}

fn prepare(context: &Context, assignment: &Assignment) -> Result<Message, String> {
    let parameters = Parameters::of(assignment);
    let config = &context.shared.slack;
    let mut body = Map::new();
    if let Some(text) = parameters.get("text") {
        body.insert("text".to_owned(), Value::String(inert(&text_or_json(text))));
    }
    match parameters.get("blocks") {
        None => {}
        Some(Value::Array(blocks)) if blocks.len() > MOST_BLOCKS => {
            return Err(format!("`blocks` holds {} blocks, and Slack takes {MOST_BLOCKS}", blocks.len()));
        }
        Some(Value::Array(blocks)) => {
            body.insert("blocks".to_owned(), Value::Array(blocks.clone()));
        }
        Some(other) => return Err(format!("`blocks` must be a list, not {}", kind(other))),
    }
    if body.values().all(|part| part == "" || part.as_array().is_some_and(Vec::is_empty)) {
        return Err("a message needs `text` or `blocks`".to_owned());
    }
    body.insert("unfurl_links".to_owned(), Value::Bool(false));
    body.insert("unfurl_media".to_owned(), Value::Bool(false));

    let read = |reference: &str| context.secrets().read(reference).map_err(|error| error.to_string());
    if let Some(reference) = &config.token {
        let token = read(reference).map_err(|error| format!("slack.token: {error}"))?;
        let mut token = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
            .map_err(|_| "slack.token holds a character that no token has".to_owned())?;
        token.set_sensitive(true);
        let channel = parameters.optional_text("channel")?.filter(|channel| !channel.is_empty());
        let channel = channel
            .as_deref()
            .or(config.channel.as_deref())
            .ok_or("no channel: give `channel`, or slack.channel in stanch.yaml")?;
        body.insert("channel".to_owned(), Value::String(channel.to_owned()));
        let api = config.api_url.as_deref().unwrap_or(API);
        let url = checked_url(&format!("{}/chat.postMessage", api.trim_end_matches('/')))
            .map_err(|error| format!("slack.api_url {error}"))?;
        Ok(Message { url, token: Some(token), body: Value::Object(body) })
    } else if let Some(reference) = &config.webhook_url {
        let url = read(reference).map_err(|error| format!("slack.webhook_url: {error}"))?;
        let url = checked_url(url.expose()).map_err(|error| format!("slack.webhook_url {error}"))?;
        Ok(Message { url, token: None, body: Value::Object(body) })
    } else {
        Err("slack is not configured: set slack.token or slack.webhook_url in stanch.yaml".to_owned())
    }
}

fn checked_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).map_err(|error| format!("is no URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("must begin with https:// or http://".to_owned());
    }
    let host = url.host_str().unwrap_or_default();
    crate::egress::Egress::trusted().check_literal(host).map_err(|refused| format!("leads astray: {refused}"))?;
    Ok(url)
}

/// The text with Slack's control characters escaped, cut to what Slack takes.
fn inert(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let mut length = 0;
    for c in text.chars() {
        let mut plain = [0; 4];
        let (part, characters) = match c {
            '&' => ("&amp;", 5),
            '<' => ("&lt;", 4),
            '>' => ("&gt;", 4),
            other => (&*other.encode_utf8(&mut plain), 1),
        };
        length += characters;
        if length > LONGEST_TEXT {
            escaped.push('…');
            break;
        }
        escaped.push_str(part);
    }
    escaped
}

async fn post(context: &Context, assignment: &Assignment, message: Message) -> Outcome {
    let client = match context.shared.clients.trusted() {
        Ok(client) => client,
        Err(error) => return refused(error),
    };
    let by_token = message.token.is_some();
    let mut request = json_request(message.url, &message.body);
    if let Some(token) = message.token {
        request.headers_mut().insert(header::AUTHORIZATION, token);
    }
    if let Ok(key) = HeaderValue::from_str(assignment.idempotency_key.as_str()) {
        request.headers_mut().insert("idempotency-key", key);
    }
    let mut response = match send(&client, request, &context.progress()).await {
        Ok(response) => response,
        Err(Lost::NotSent(error)) => return failed(error),
        Err(Lost::Refused(error)) => return refused(error),
        Err(Lost::Unknown(reason)) => return unknown(reason),
    };
    if !response.status().is_success() {
        return said_no(context, &mut response).await;
    }
    match whole_body(&mut response).await {
        Ok(body) if by_token => web_api(&response, &body),
        // An incoming webhook answers `ok`, and anything else with a status of its own.
        Ok(_) => Outcome::Succeeded { output: json!({ "channel": null, "ts": null }) },
        Err(BodyLost::TooLong) => unknown("slack took the message, but its answer exceeds 1 MiB"),
        Err(BodyLost::Broken(why)) => unknown(format!("slack took the message, but its answer was lost: {why}")),
    }
}

async fn said_no(context: &Context, response: &mut Response) -> Outcome {
    let status = response.status();
    let (body, _) = start_of_body(response, context.deadline).await;
    let text = String::from_utf8_lossy(&body);
    let reason = serde_json::from_slice::<Value>(&body)
        .ok()
        .and_then(|body| body["error"].as_str().map(str::to_owned))
        .unwrap_or_else(|| text.lines().next().unwrap_or_default().chars().take(100).collect());
    let separator = if reason.is_empty() { "" } else { ": " };
    Outcome::Failed {
        error: format!("slack answered {status}{separator}{reason}"),
        output: None,
        retry_after: retry_after(response.headers(), SystemTime::now()),
        retryable: worth_retrying(status),
    }
}

fn web_api(response: &Response, body: &[u8]) -> Outcome {
    let Ok(answer) = serde_json::from_slice::<Value>(body) else {
        return unknown("slack answered 200 and no JSON: is slack.api_url Slack's Web API?");
    };
    match (answer["ok"].as_bool(), answer["error"].as_str()) {
        (Some(true), _) => Outcome::Succeeded { output: json!({ "channel": answer["channel"], "ts": answer["ts"] }) },
        (Some(false), error) => {
            let error = error.unwrap_or("no reason given");
            Outcome::Failed {
                error: format!("slack refused the message: {error}{}", remedy(error)),
                output: None,
                retry_after: retry_after(response.headers(), SystemTime::now()),
                retryable: passing(error),
            }
        }
        (None, _) => unknown("slack answered 200 and neither ok nor an error: is slack.api_url Slack's Web API?"),
    }
}

/// Whether Slack's error is one of the moment.
fn passing(error: &str) -> bool {
    matches!(
        error,
        "ratelimited"
            | "rate_limited"
            | "internal_error"
            | "fatal_error"
            | "service_unavailable"
            | "request_timeout"
            | "message_limit_exceeded"
            | "team_added_to_org"
            | "enterprise_is_restricted"
    )
}

fn remedy(error: &str) -> &'static str {
    match error {
        "channel_not_found" => ": check the name, and invite the bot where the channel is private",
        "not_in_channel" => ": invite the bot to the channel",
        "invalid_auth" | "not_authed" | "token_revoked" | "account_inactive" | "token_expired" => ": check slack.token",
        "missing_scope" => ": give the bot the scope chat:write",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_mention_or_link() {
        assert_eq!(inert("<!channel> a & b <http://x|y>"), "&lt;!channel&gt; a &amp; b &lt;http://x|y&gt;");
    }

    #[test]
    fn a_long_text_is_cut_between_entities() {
        let cut = inert(&"<".repeat(40_000));
        assert!(cut.chars().count() <= LONGEST_TEXT + 1);
        assert!(cut.ends_with("&lt;…"));
        assert_eq!(inert(&"é".repeat(39_000)).chars().count(), 39_000);
    }
}
