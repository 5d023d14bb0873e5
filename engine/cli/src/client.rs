//! The way to an engine: its HTTP API.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::Value;

use crate::failure::{Exit, Failure, causes};
use crate::terminal::inert;

/// How many pages are looked through for an id of which only a part is given.
const PAGES: usize = 20;

/// The way to one engine.
#[derive(Clone, Debug)]
pub struct Client {
    base: Url,
    http: reqwest::Client,
}

/// What an engine answers where it says no.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    detail: String,
    remedy: String,
}

/// One page of a list.
#[derive(Debug, Deserialize)]
struct Page {
    items: Vec<Value>,
    next: Option<String>,
}

impl Client {
    /// The way to the engine at this address, for whoever has this token.
    pub fn new(server: &str, token: Option<&str>) -> Result<Self, Failure> {
        let with_scheme = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
        let wrong = || {
            Failure::usage(format!("{} is no address of an engine", inert(server)))
                .help("give one such as http://127.0.0.1:9190 with --server or STANCH_SERVER")
        };
        let base: Url = with_scheme.parse().map_err(|_| wrong())?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(wrong());
        }
        let mut headers = HeaderMap::new();
        if let Some(token) = token.map(str::trim).filter(|token| !token.is_empty()) {
            let mut shown = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| {
                Failure::usage("the token holds a character that no token has").help("check --token, or STANCH_TOKEN")
            })?;
            shown.set_sensitive(true);
            headers.insert(AUTHORIZATION, shown);
        }
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(Duration::from_secs(5))
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("stanch/", env!("CARGO_PKG_VERSION")));
        if base.host_str().is_some_and(|host| host == "localhost" || host.starts_with("127.") || host == "[::1]") {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| Failure::because("HTTP is not to be had", &error))?;
        Ok(Self { base, http })
    }

    /// The engine's address, without a final slash.
    pub fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// A request for a path of the engine.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.address()))
    }

    /// A GET of a path with parameters.
    pub fn query(&self, path: &str, query: &[(&str, String)]) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url.query_pairs_mut().extend_pairs(query);
        self.http.get(url)
    }

    /// Sends; any answer but a 2xx is a failure.
    pub async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await.map_err(|error| self.lost(&error))?;
        if response.status().is_success() { Ok(response) } else { Err(refused(response).await) }
    }

    /// The JSON that a path answers.
    pub async fn get(&self, path: &str) -> Result<Value, Failure> {
        let response = self.send(self.request(Method::GET, path)).await?;
        self.json(response).await
    }

    /// The JSON that a list answers to these parameters.
    pub async fn list(&self, path: &str, query: &[(&str, String)]) -> Result<Value, Failure> {
        let response = self.send(self.query(path, query)).await?;
        self.json(response).await
    }

    /// Posts JSON and gives the JSON of the answer.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let response = self.send(self.request(Method::POST, path).json(body)).await?;
        self.json(response).await
    }

    /// An answer's body as JSON.
    pub async fn json(&self, response: Response) -> Result<Value, Failure> {
        let bytes = response.bytes().await.map_err(|error| self.lost(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Failure::because(format!("what {} answers is not JSON", self.address()), &error)
                .help("is that a stanch engine? name another with --server")
        })
    }

    /// What a connection that failed means.
    pub fn lost(&self, error: &reqwest::Error) -> Failure {
        if error.is_connect() {
            return Failure::new(format!("no engine answers at {}", self.address()))
                .help("start one with `stanch serve`, or name another with --server")
                .exit(Exit::Unreachable);
        }
        let exit = if error.is_timeout() { Exit::TimedOut } else { Exit::Unreachable };
        Failure::new(format!("the connection to {} was lost: {}", self.address(), causes(error))).exit(exit)
    }

    /// The whole id of which a person gave all, the beginning or the end; `list` is the path of its kind.
    pub async fn whole_id(&self, kind: &str, list: &str, given: &str) -> Result<String, Failure> {
        let text = given.trim().to_ascii_lowercase();
        if uuid::Uuid::parse_str(&text).is_ok() {
            return Ok(text);
        }
        if text.len() < 4 || !text.chars().all(|letter| letter.is_ascii_hexdigit() || letter == '-') {
            return Err(Failure::usage(format!("{} is no {kind}'s id, nor the beginning or end of one", inert(given)))
                .help("give at least four of its letters; the lists show its last eight"));
        }
        let mut found: Vec<String> = Vec::new();
        let mut query = vec![("limit", "500".to_owned())];
        for _ in 0..PAGES {
            let page: Page = serde_json::from_value(self.list(list, &query).await?)
                .map_err(|error| Failure::because(format!("{list} is no list"), &error))?;
            let ids = page.items.iter().filter_map(|item| item["id"].as_str());
            found.extend(ids.filter(|id| id.starts_with(&text) || id.ends_with(&text)).map(str::to_owned));
            let Some(next) = page.next else { break };
            query = vec![("limit", "500".to_owned()), ("cursor", next)];
        }
        found.dedup();
        match &found[..] {
            [id] => Ok(id.clone()),
            [] => Err(Failure::new(format!("no {kind} has an id that begins or ends with {text}")).help(format!(
                "the lists of stanch show all; older ones than the last {} need the whole id",
                PAGES * 500
            ))),
            several => Err(Failure::new(format!("{} {kind}s have ids that begin or end with {text}", several.len()))
                .help(format!("give more of it: {}", several[..several.len().min(5)].join(", ")))),
        }
    }
}

async fn refused(response: Response) -> Failure {
    let status = response.status();
    let is_problem = is_json(response.headers());
    let body = response.bytes().await.unwrap_or_default();
    let problem: Problem =
        if is_problem { serde_json::from_slice(&body).unwrap_or_default() } else { Problem::default() };
    let message = match problem.detail.as_str() {
        "" => format!("the engine answers {status}"),
        detail => inert(detail),
    };
    let exit = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::NotAllowed,
        StatusCode::GATEWAY_TIMEOUT => Exit::TimedOut,
        _ => Exit::Failed,
    };
    let help = Some(inert(&problem.remedy)).filter(|remedy| !remedy.is_empty());
    Failure { exit, message, help }
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).is_some_and(|value| value.contains("json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_leave_out_its_scheme() {
        crate::install_crypto();
        let new = |server: &str| Client::new(server, None);
        assert_eq!(new("127.0.0.1:9190").unwrap().address(), "http://127.0.0.1:9190");
        assert_eq!(new("https://stanch.corp/").unwrap().address(), "https://stanch.corp");
        for wrong in ["", "ftp://x", "http://", "::"] {
            assert_eq!(new(wrong).unwrap_err().exit, Exit::Usage, "{wrong}");
        }
    }
}
