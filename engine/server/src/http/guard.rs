//! What holds for every request: it was meant for this engine, whoever shows a token is known, and it is counted.
//!
//! Loopback needs no token, so a web page that a person has open must not reach it: neither through a name that the page's
//! owner lets point here (DNS rebinding; told by `Host`), nor by posting across origins (told by `Origin` and
//! `Sec-Fetch-Site`). Programs send no `Origin`.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use stanch_core::record::Actor;

use super::problem::Problem;
use super::{Http, Shared};
use crate::people::Caller;

pub(super) async fn guard(State(http): State<Shared>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let admitted =
        check(&http, request.uri(), request.headers()).and_then(|()| caller(&http, request.uri(), request.headers()));
    let mut response = match admitted {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
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

/// Who sends a request. Webhooks show what `intake` names, which is no person's.
fn caller(http: &Http, uri: &Uri, headers: &HeaderMap) -> Result<Caller, Problem> {
    if uri.path().starts_with("/webhooks/") {
        return Ok(Caller::local());
    }
    let shown = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    http.app.people.borrow().of(shown).map_err(|_| {
        let remedy = "show a token of stanch.yaml's tokens as Authorization: Bearer TOKEN, or none at all";
        Problem::new(StatusCode::UNAUTHORIZED, "token.unknown", "nobody has this token", remedy)
    })
}

/// Who sent the request, and from where.
pub(super) struct By {
    /// Who.
    pub caller: Caller,
    /// From where, where that is known.
    peer: Option<SocketAddr>,
}

impl By {
    /// How they were authenticated and from where, such as `token from 127.0.0.1`.
    pub(super) fn via(&self) -> String {
        let how = if self.caller.by_token { "token" } else { "no authentication" };
        self.peer.map_or_else(|| how.to_owned(), |peer| format!("{how} from {}", peer.ip()))
    }

    /// As records name them.
    pub(super) fn actor(&self) -> Actor {
        self.caller.actor()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for By {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let caller = parts.extensions.get::<Caller>().cloned().unwrap_or_else(Caller::local);
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| *peer);
        Ok(Self { caller, peer })
    }
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
    use serde_json::{Value, json};

    use crate::http::openapi::document;
    use crate::http::testing::{Engine, firing, get, post};

    const ANN: &str = "Bearer ann-s-token";
    const ASKS: &str = "playbook: asks\ntriggers:\n  - alertmanager: {matchers: ['alertname=\"A\"']}\n    \
                        key: '{{ alert.labels.missing }}'\n  - nats: {subject: a.b}\n\
                        detect:\n  asks: {uses: log, with: {message: unknown}, idempotent: false}\n";

    #[tokio::test]
    async fn every_write_with_a_token_is_recorded_as_its_person() {
        let engine = Engine::start_with_people(&[ASKS]).await;
        engine.send(post("/webhooks/alertmanager", firing("A"))).await;
        let letter = engine.send(get("/api/v1/dead-letters")).await.json["items"][0]["id"].as_str().unwrap().to_owned();
        let ann = async |path: &str, body: Value, status: u16| {
            let answer = engine.send(post(path, body.to_string()).header("authorization", ANN)).await;
            assert_eq!(answer.status, status, "{path}: {}", answer.json);
            answer.json
        };
        let start = async || {
            let started = ann("/api/v1/playbooks/asks/runs", json!({}), 201).await;
            let id = started["runs"][0]["id"].as_str().unwrap().to_owned();
            engine.idle(&id).await;
            (format!("/api/v1/runs/{id}"), started["incidents"][0].as_str().unwrap().to_owned())
        };
        let (run, incident) = start().await;
        ann(&format!("{run}/answer"), json!({"step": "asks", "answer": "retry"}), 200).await;
        ann(&format!("{run}/cancel"), json!({}), 200).await;
        let (run, _) = start().await;
        ann(&format!("{run}/answer"), json!({"step": "asks", "answer": "failed"}), 200).await;
        let incident = format!("/api/v1/incidents/{incident}");
        if engine.send(get(&incident)).await.json["state"] != "resolved" {
            ann(&format!("{incident}/ack"), json!({}), 200).await;
            ann(&format!("{incident}/resolve"), json!({}), 200).await;
        }
        let event = json!({"specversion": "1.0", "id": "1", "source": "/x", "type": "t", "subject": "nobody.listens"});
        ann("/api/v1/events", event, 200).await;
        engine.load(&[&ASKS.replace("missing", "alertname")]).await;
        ann(&format!("/api/v1/dead-letters/{letter}/replay"), json!({}), 200).await;
        let trail = String::from_utf8(engine.send(get("/api/v1/audit")).await.body).unwrap();
        let envelopes = trail.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["envelope"].clone());
        let by_ann: Vec<String> = envelopes
            .filter(|envelope| envelope["actor"] == "person:ann")
            .map(|envelope| envelope["kind"].as_str().unwrap().to_owned())
            .collect();
        for kind in
            ["RunStarted", "StepAnswered", "RunCancelRequested", "DeadLetterReplayed", "AlertFired", "EventReceived"]
        {
            assert!(by_ann.iter().any(|known| known == kind), "{kind} is not ann's: {by_ann:?}");
        }
        assert!(!trail.contains("person:local"), "nothing was done by nobody");
    }

    #[tokio::test]
    async fn a_wrong_token_is_refused_wherever_people_act_or_look() {
        let engine = Engine::start_with_people(&[]).await;
        let mut seen = 0;
        for (path, operations) in document()["paths"].as_object().unwrap() {
            let path = path.replace("{id}", "01890000-0000-7000-8000-000000000000").replace("{name}", "x");
            let path = path.replace("{source}", "eu");
            for method in operations.as_object().unwrap().keys() {
                let request = || get(&path).method(&method.to_uppercase());
                let answer = engine.open(request().header("authorization", "Bearer ann-s-tokem")).await;
                if path.starts_with("/webhooks/") {
                    assert_ne!(answer.status(), 401, "senders of webhooks have their own tokens");
                    continue;
                }
                assert_eq!(answer.status(), 401, "{method} {path}");
                assert_eq!(answer.headers()["content-type"], "application/problem+json");
                for right in [ANN, "Basic cHJveHk6c2VjcmV0"] {
                    let answer = engine.open(request().header("authorization", right)).await;
                    assert_ne!(answer.status(), 401, "{method} {path}");
                }
                seen += 1;
            }
        }
        assert!(seen > 15, "{seen}");
    }

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
