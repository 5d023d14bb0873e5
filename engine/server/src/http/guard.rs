//! What holds for every request: it was meant for this engine, and it is counted.
//!
//! Loopback needs no token, so a web page that a person has open must not reach it: neither through a name that the page's
//! owner lets point here (DNS rebinding; told by `Host`), nor by posting across origins (told by `Origin` and
//! `Sec-Fetch-Site`). Programs send no `Origin`.

use std::net::IpAddr;

use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::{Http, Shared};

pub(super) async fn guard(State(http): State<Shared>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let mut response = match check(&http, request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let route = route.as_ref().map_or("other", MatchedPath::as_str);
    http.metrics.answered(route, &method, response.status());
    response
}

fn check(http: &Http, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let forbidden = |code, detail| {
        let remedy = "use the engine's own address, or set external_url in stanch.yaml to the name that people use";
        Err(Problem::new(StatusCode::FORBIDDEN, code, detail, remedy))
    };
    let host = match headers.get(header::HOST) {
        Some(host) => Some(host.to_str().unwrap_or("?")),
        None => uri.authority().map(Authority::as_str),
    };
    if host.is_some_and(|host| !is_own(http, host)) {
        return forbidden("host.foreign", "the Host header names another place");
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        let host = origin.to_str().ok().and_then(host_of_url);
        if !host.is_some_and(|host| is_own(http, &host)) {
            return forbidden("origin.foreign", "the request comes from a page of another place");
        }
    }
    if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return forbidden("origin.foreign", "the request comes from a page of another place");
    }
    Ok(())
}

/// Whether an authority (`host[:port]`) is this engine's: `localhost`, a loopback address, or the host of `external_url`.
fn is_own(http: &Http, authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        || http.external_host.as_deref().is_some_and(|external| external.eq_ignore_ascii_case(host))
}

/// The host of a URL, without its port; an IPv6 one keeps its brackets.
pub(super) fn host_of_url(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    uri.scheme()?;
    uri.host().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use crate::http::testing::{Engine, get};

    #[tokio::test]
    async fn only_requests_meant_for_this_engine_are_let_in() {
        let engine = Engine::start(&[]).await;
        let cases = [
            ("host", "localhost", 200),
            ("host", "LOCALHOST:9190", 200),
            ("host", "127.0.0.1:1", 200),
            ("host", "[::1]:9190", 200),
            ("host", "stanch.test", 200),
            ("host", "stanch.test:8443", 200),
            ("host", "evil.example", 403),
            ("host", "evil.example:9190", 403),
            ("host", "localhost.evil.example", 403),
            ("host", "169.254.1.1", 403),
            ("host", "", 403),
            ("origin", "http://127.0.0.1:9190", 200),
            ("origin", "https://stanch.test", 200),
            ("origin", "http://evil.example", 403),
            ("origin", "null", 403),
            ("sec-fetch-site", "cross-site", 403),
            ("sec-fetch-site", "same-origin", 200),
        ];
        for (name, value, status) in cases {
            let answer = engine.send(get("/healthz").header(name, value)).await;
            assert_eq!(answer.status, status, "{name}: {value}");
        }
    }
}
