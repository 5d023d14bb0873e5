//! `http`: one HTTP request.
//!
//! `method` (default `GET`), `url`, `query` (map; a list repeats its key), `headers`, `body` (a text as it is; anything
//! else as JSON with its content type). Result `{status, headers, body}`: header names in lower case, several of a name
//! joined with `, `; the body parsed where its content type is JSON, else as text.
//!
//! How it comes out:
//! - 2xx is success, and its body was read whole. Where the body breaks off, hangs or exceeds 1 MiB, the request has
//!   been accepted and the result is lost: *unknown*; only a too long answer to GET, HEAD or OPTIONS, which change
//!   nothing, is *failed*.
//! - 4xx and 5xx are *failed*, whatever becomes of their body. 408, 425, 429 and 5xx may be tried again, after their
//!   `Retry-After`; the others not.
//! - Up to five redirects of GET and HEAD are followed, each checked by egress; credentials and secrets stay behind where
//!   the origin changes. Any other 3xx is *failed*.
//! - No address, connection refused, TLS failure, egress refusal: *failed*, nothing was sent. Reset or time-out after
//!   sending: *unknown*.

use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Client, Method, Request, Response, StatusCode, Url};
use serde_json::{Map, Value, json};
use stanch_core::{Assignment, Outcome};
use tokio::time::Instant;

use crate::action::{Action, Context, failed, refused, unknown};
use crate::bound::masked_start;
use crate::client::{Lost, causes, place, send};
use crate::egress::bare_host;
use crate::parameters::{Parameters, kind, scalar, text_or_json};

/// The longest body of a success.
const BODY: usize = 1024 * 1024;
/// How much of the body of a refusal is kept, and how long it may take.
const ERROR_BODY: usize = 64 * 1024;
const ERROR_BODY_WITHIN: Duration = Duration::from_secs(2);
const REDIRECTS: usize = 5;
/// No target may put a step off for longer.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The action `http`.
#[derive(Debug, Clone, Copy)]
pub struct Http;

impl Action for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn run<'a>(&'a self, context: &'a Context, assignment: &'a Assignment) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            context.preparing();
            let prepared = prepare(context, assignment);
            let client = context.shared.clients.guarded();
            match (prepared, client) {
                (Ok(call), Ok(client)) => follow(context, &client, call).await,
                (Err(error), _) | (_, Err(error)) => refused(error),
            }
        })
    }
}

/// A request that is ready to leave.
struct Call {
    method: Method,
    url: Url,
    headers: HeaderMap,
    /// Names of headers that must not reach another origin.
    private: Vec<HeaderName>,
    body: Vec<u8>,
}

fn prepare(context: &Context, assignment: &Assignment) -> Result<Call, String> {
    let parameters = Parameters::of(assignment);
    let method = parameters.optional_text("method")?.unwrap_or("GET".into()).to_ascii_uppercase();
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| format!("{method:?} is no HTTP method"))?;
    if method == Method::CONNECT {
        return Err("method CONNECT is not supported".to_owned());
    }
    let url = url(&parameters)?;
    let host = bare_host(url.host_str().unwrap_or_default()).to_owned();
    context.shared.egress.check_literal(&host).map_err(|refused| refused.to_string())?;

    let mut headers = HeaderMap::new();
    let mut private = vec![header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];
    let body = match parameters.get("body") {
        None => Vec::new(),
        Some(Value::String(text)) => text.clone().into_bytes(),
        Some(other) => {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            other.to_string().into_bytes()
        }
    };
    if body.is_empty() && matches!(method, Method::POST | Method::PUT | Method::PATCH) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    headers.insert("idempotency-key", value("idempotency-key", assignment.idempotency_key.as_str())?);
    let mut given = HeaderMap::new();
    for (name, content) in parameters.object("headers")?.into_iter().flatten() {
        let header_name = header_name(name)?;
        if content.is_null() {
            continue;
        }
        let rendered =
            context.secrets().render(content, Some(&host)).map_err(|error| format!("header {name}: {error}"))?;
        let mut content = value(name, &rendered.text)?;
        if rendered.secret {
            content.set_sensitive(true);
            private.push(header_name.clone());
        }
        given.append(header_name, content);
    }
    headers.extend(given);
    Ok(Call { method, url, headers, private, body })
}

fn url(parameters: &Parameters<'_>) -> Result<Url, String> {
    let text = parameters.text("url")?;
    let mut url = Url::parse(text.trim()).map_err(|error| format!("`url` is no URL: {error}"))?;
    check_url(&url)?;
    if let Some(query) = parameters.object("query")?.filter(|query| !query.is_empty()) {
        let mut pairs = url.query_pairs_mut();
        for (name, content) in query {
            let wrong = || format!("`query.{name}` must be a text or a list of texts, not {}", kind(content));
            match content {
                Value::Null => {}
                Value::Array(items) => {
                    for item in items {
                        pairs.append_pair(name, &scalar(item).ok_or_else(wrong)?);
                    }
                }
                other => {
                    pairs.append_pair(name, &scalar(other).ok_or_else(wrong)?);
                }
            }
        }
    }
    Ok(url)
}

/// Whether it is called at all: http or https, and without credentials in it.
pub(crate) fn check_url(url: &Url) -> Result<(), String> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("only http and https URLs are called, not {}:", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials do not belong in a URL: use `headers` with a secret".to_owned());
    }
    Ok(())
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("{name:?} is no header name"))?;
    match parsed {
        header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION | header::UPGRADE | header::TE => {
            Err(format!("header {name} is set by the connection itself: leave it out"))
        }
        _ => Ok(parsed),
    }
}

fn value(name: &str, text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_bytes(text.as_bytes())
        .map_err(|_| format!("the value of header {name} holds a control character"))
}

async fn follow(context: &Context, client: &Client, mut call: Call) -> Outcome {
    let safe = matches!(call.method, Method::GET | Method::HEAD);
    for hop in 0..=REDIRECTS {
        let mut request = Request::new(call.method.clone(), call.url.clone());
        *request.headers_mut() = call.headers.clone();
        if !call.body.is_empty() {
            *request.body_mut() = Some(Body::from(call.body.clone()));
        }
        let response = match send(client, request, &context.progress()).await {
            Ok(response) => response,
            Err(Lost::NotSent(error)) => return failed(error),
            Err(Lost::Refused(error)) => return refused(error),
            Err(Lost::Unknown(reason)) => return unknown(reason),
        };
        let Some(location) = redirection(&response).filter(|_| safe) else {
            return outcome(context, &call, response).await;
        };
        if hop == REDIRECTS {
            break;
        }
        if let Err(error) = redirect(context, &mut call, &location) {
            return refused(format!("redirected to where it may not go: {error}"));
        }
    }
    refused(format!("more than {REDIRECTS} redirects"))
}

fn redirection(response: &Response) -> Option<String> {
    let followed = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let location = response.headers().get(header::LOCATION).filter(|_| followed)?;
    Some(String::from_utf8_lossy(location.as_bytes()).into_owned())
}

fn redirect(context: &Context, call: &mut Call, location: &str) -> Result<(), String> {
    let next = call.url.join(location).map_err(|error| format!("its Location is no URL: {error}"))?;
    check_url(&next)?;
    context.shared.egress.check_literal(next.host_str().unwrap_or_default()).map_err(|refused| refused.to_string())?;
    if next.origin() != call.url.origin() {
        for name in &call.private {
            call.headers.remove(name);
        }
    }
    call.url = next;
    Ok(())
}

async fn outcome(context: &Context, call: &Call, mut response: Response) -> Outcome {
    let status = response.status();
    if status.is_success() {
        return match whole_body(&mut response).await {
            Ok(body) => Outcome::Succeeded { output: result(&response, parsed(&response, &body)) },
            Err(BodyLost::TooLong) if call.method.is_safe() => {
                refused(format!("{}: its body exceeds 1 MiB", answered(call, status)))
            }
            Err(BodyLost::TooLong) => unknown(format!("{}, but its body exceeds 1 MiB", answered(call, status))),
            Err(BodyLost::Broken(why)) => unknown(format!("{}, but its body was lost: {why}", answered(call, status))),
        };
    }
    let (bytes, complete) = start_of_body(&mut response, context.deadline).await;
    let body = match complete {
        true => parsed(&response, &bytes),
        false => Value::String(masked_start(&context.secrets().mask(), &bytes, false)),
    };
    let mut output = result(&response, body);
    if !complete {
        output["truncated"] = Value::Bool(true);
    }
    let mut error = answered(call, status);
    if status.is_redirection() {
        error.push_str(": redirects of GET and HEAD alone are followed, so give the final URL");
    }
    Outcome::Failed {
        error,
        output: Some(output),
        retry_after: retry_after(response.headers(), SystemTime::now()),
        retryable: worth_retrying(status),
    }
}

fn answered(call: &Call, status: StatusCode) -> String {
    format!("{} answered {status}", place(&call.url))
}

/// Whether a refusal may be another one next time.
pub(crate) fn worth_retrying(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429)
}

fn result(response: &Response, body: Value) -> Value {
    let mut headers = Map::new();
    for name in response.headers().keys() {
        let all = response.headers().get_all(name);
        let texts: Vec<_> = all.iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        headers.insert(name.as_str().to_owned(), Value::String(texts.join(", ")));
    }
    json!({ "status": response.status().as_u16(), "headers": headers, "body": body })
}

fn parsed(response: &Response, body: &[u8]) -> Value {
    let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = media == "application/json" || media == "text/json" || media.ends_with("+json");
    is_json
        .then(|| serde_json::from_slice(body).ok())
        .flatten()
        .unwrap_or_else(|| Value::String(String::from_utf8_lossy(body).into_owned()))
}

/// Why the body of a success is not there.
pub(crate) enum BodyLost {
    TooLong,
    Broken(String),
}

/// A body of at most 1 MiB.
pub(crate) async fn whole_body(response: &mut Response) -> Result<Vec<u8>, BodyLost> {
    whole_body_of(response, BODY).await
}

/// A body of at most so many bytes.
pub(crate) async fn whole_body_of(response: &mut Response, most: usize) -> Result<Vec<u8>, BodyLost> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > most => return Err(BodyLost::TooLong),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) => return Err(BodyLost::Broken(causes(&error))),
        }
    }
}

/// What comes of a body within its bounds, and whether that is all.
pub(crate) async fn start_of_body(response: &mut Response, deadline: Instant) -> (Vec<u8>, bool) {
    let until = deadline.min(Instant::now() + ERROR_BODY_WITHIN);
    let mut body = Vec::new();
    let read = async {
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => {
                    let room = ERROR_BODY - body.len();
                    body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                    if chunk.len() > room {
                        return false;
                    }
                }
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    };
    let complete = tokio::time::timeout_at(until, read).await.unwrap_or(false);
    (body, complete)
}

/// `Retry-After` in seconds or as a date, at most a day.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

/// A body as the target gets it, for other actions that speak HTTP.
pub(crate) fn json_request(url: Url, body: &Value) -> Request {
    let mut request = Request::new(Method::POST, url);
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    *request.body_mut() = Some(Body::from(text_or_json(body).into_owned()));
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(text: &str) -> Option<Duration> {
        let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
        let now = httpdate::parse_http_date("Sun, 06 Nov 2022 08:49:00 GMT").unwrap();
        retry_after(&headers, now)
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        assert_eq!(wait("Sun, 06 Nov 2022 08:49:37 GMT"), Some(Duration::from_secs(37)));
        assert_eq!(wait("Sun, 06 Nov 2022 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("99999999999999999999999"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(wait("-1"), None);
        assert_eq!(wait("soon"), None);
    }

    #[test]
    fn a_refusal_is_retried_where_it_may_change() {
        let retried: Vec<u16> =
            (400..600).filter(|&code| worth_retrying(StatusCode::from_u16(code).unwrap())).collect();
        assert_eq!(retried[..4], [408, 425, 429, 500]);
        assert_eq!(retried.len(), 103);
    }
}
