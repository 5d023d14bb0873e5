//! What the actions that call an HTTP API share: where it is, its token, and what its answers mean.
//!
//! An address from `stanch.yaml` may be an inner one and gets the configured token. An address from a playbook is
//! guarded by egress and gets no token: it would otherwise leave for wherever the playbook says.

use std::time::{Duration, SystemTime};

use reqwest::header::{self, HeaderValue};
use reqwest::{Body, Client, Method, Request, Response, StatusCode, Url};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use stanch_core::{Assignment, Outcome};
use tokio::time::timeout_at;

use crate::action::{Context, Progress, failed, refused, unknown};
use crate::client::{Lost, place, send};
use crate::egress::Egress;
use crate::http::{BodyLost, check_url, retry_after, start_of_body, whole_body_of, worth_retrying};

/// The longest answer.
const ANSWER: usize = 8 * 1024 * 1024;

/// Where a service is.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Its address, such as `http://127.0.0.1:9090`, with the path that it is served under where it has one.
    pub url: String,
    /// A bearer token, by reference (`env:NAME` or `file:PATH`); none unless set.
    #[serde(default)]
    pub token: Option<String>,
}

/// A service that can be called.
pub(crate) struct Service {
    name: &'static str,
    base: Url,
    token: Option<HeaderValue>,
    client: Client,
}

/// What a service answered; its body is whole where the status is a success.
pub(crate) struct Answer {
    pub status: StatusCode,
    pub body: Vec<u8>,
    retry_after: Option<Duration>,
}

impl Service {
    /// The service at the address that the step gives, else at the configured one.
    pub fn find(
        context: &Context,
        name: &'static str,
        config: Option<&ServiceConfig>,
        given: Option<&str>,
    ) -> Result<Self, String> {
        if let Some(url) = given {
            let base = Url::parse(url.trim()).map_err(|error| format!("`url` is no URL: {error}"))?;
            check_url(&base)?;
            let host = base.host_str().unwrap_or_default();
            context.shared.egress.check_literal(host).map_err(|refused| refused.to_string())?;
            return Ok(Self { name, base, token: None, client: context.shared.clients.guarded()? });
        }
        let config = config.ok_or_else(|| format!("{name} is not configured: set {name}.url in stanch.yaml"))?;
        let base = configured_url(&config.url).map_err(|error| format!("{name}.url {error}"))?;
        let token = match &config.token {
            Some(reference) => Some(bearer(context, reference).map_err(|error| format!("{name}.token: {error}"))?),
            None => None,
        };
        Ok(Self { name, base, token, client: context.shared.clients.trusted()? })
    }

    /// The service at an address of the operator's, with a client and a token of its own.
    pub fn at(name: &'static str, base: Url, token: Option<HeaderValue>, client: Client) -> Self {
        Self { name, base, token, client }
    }

    /// Where it is, for messages.
    pub fn place(&self) -> String {
        format!("{} at {}", self.name, place(&self.base))
    }

    /// A request to the path of these segments, each of them escaped.
    pub fn request(&self, method: Method, path: &[&str]) -> Request {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = Request::new(method, url);
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(token) = &self.token {
            request.headers_mut().insert(header::AUTHORIZATION, token.clone());
        }
        request
    }

    /// Asks for something: whatever goes wrong, nothing has happened.
    pub async fn read(&self, context: &Context, request: Request) -> Result<Answer, Outcome> {
        let reading = async {
            let mut response = match send(&self.client, request, &Progress::default()).await {
                Ok(response) => response,
                Err(Lost::Refused(error)) => return Err(refused(error)),
                Err(Lost::NotSent(error) | Lost::Unknown(error)) => return Err(failed(error)),
            };
            self.answer(context, &mut response).await.map_err(|lost| match lost {
                BodyLost::TooLong => refused(format!("the answer of {} exceeds 8 MiB", self.place())),
                BodyLost::Broken(why) => failed(format!("the answer of {} was lost: {why}", self.place())),
            })
        };
        let late = || failed(format!("{} did not answer within the step's limit", self.place()));
        timeout_at(context.deadline, reading).await.unwrap_or_else(|_| Err(late()))
    }

    /// Changes something: where it left and no answer came, what became of it is unknown.
    pub async fn change(&self, context: &Context, request: Request) -> Result<Answer, Outcome> {
        let mut response = match send(&self.client, request, &context.progress()).await {
            Ok(response) => response,
            Err(Lost::NotSent(error)) => return Err(failed(error)),
            Err(Lost::Refused(error)) => return Err(refused(error)),
            Err(Lost::Unknown(reason)) => return Err(unknown(reason)),
        };
        self.answer(context, &mut response).await.map_err(|lost| match lost {
            BodyLost::TooLong => unknown(format!("{} took it, but its answer exceeds 8 MiB", self.place())),
            BodyLost::Broken(why) => unknown(format!("{} took it, but its answer was lost: {why}", self.place())),
        })
    }

    async fn answer(&self, context: &Context, response: &mut Response) -> Result<Answer, BodyLost> {
        let status = response.status();
        let body = match status.is_success() {
            true => whole_body_of(response, ANSWER).await?,
            false => start_of_body(response, context.deadline).await.0,
        };
        Ok(Answer { status, body, retry_after: retry_after(response.headers(), SystemTime::now()) })
    }

    /// The failure that an answer other than a success stands for, with the reason that its body gives.
    pub fn said_no(&self, answer: &Answer) -> Outcome {
        let reason = answer.reason();
        let separator = if reason.is_empty() { "" } else { ": " };
        Outcome::Failed {
            error: format!("{} answered {}{separator}{reason}", self.place(), answer.status),
            output: None,
            retry_after: answer.retry_after,
            retryable: worth_retrying(answer.status),
        }
    }
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Why it is no success: what JSON calls `error` or `message`, else the first line.
    fn reason(&self) -> String {
        let json = self.json().unwrap_or_default();
        let listed =
            || Some(json["errors"].as_array()?.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "));
        let named = ["error", "message"].iter().find_map(|name| json[*name].as_str().map(str::to_owned));
        let text = named
            .map(|named| match listed() {
                Some(listed) => format!("{named}: {listed}"),
                None => named,
            })
            .or_else(|| json.as_str().map(str::to_owned))
            .unwrap_or_else(|| String::from_utf8_lossy(&self.body).lines().next().unwrap_or_default().to_owned());
        text.trim().chars().filter(|letter| !letter.is_control()).take(300).collect()
    }
}

/// Gives a request its JSON body.
pub(crate) fn with_body(mut request: Request, media: &'static str, body: &Value) -> Request {
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    *request.body_mut() = Some(Body::from(body.to_string()));
    request
}

/// Gives a request the attempt's idempotency key.
pub(crate) fn with_key(mut request: Request, assignment: &Assignment) -> Request {
    if let Ok(key) = HeaderValue::from_str(assignment.idempotency_key.as_str()) {
        request.headers_mut().insert("idempotency-key", key);
    }
    request
}

/// An address of the operator's configuration.
pub(crate) fn configured_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text.trim()).map_err(|error| format!("is no URL: {error}"))?;
    check_url(&url).map_err(|error| format!("cannot be used: {error}"))?;
    let host = url.host_str().unwrap_or_default();
    Egress::trusted().check_literal(host).map_err(|refused| format!("leads astray: {refused}"))?;
    Ok(url)
}

/// The `Authorization` of a token given by reference.
pub(crate) fn bearer(context: &Context, reference: &str) -> Result<HeaderValue, String> {
    let token = context.secrets().read(reference).map_err(|error| error.to_string())?;
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose().trim()))
        .map_err(|_| "it holds a character that no token has".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}
