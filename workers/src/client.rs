//! The HTTP client that `http` and `slack` share: connects only where egress allows, follows nothing by itself, and
//! tells what was not sent from what was lost.
//!
//! No proxies from the environment, no cookies, no decompression, and no connection is used twice: a kept connection
//! that the target just closed would make a harmless failure an unknown outcome.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Body, Certificate, Client, Request, Response};

use crate::action::Progress;
use crate::egress::{Egress, Refused};

const CONNECT: Duration = Duration::from_secs(5);

/// The clients of one worker, made when they are first used.
pub(crate) struct Clients {
    egress: Egress,
    guarded: OnceLock<Result<Client, String>>,
    trusted: OnceLock<Result<Client, String>>,
}

impl Clients {
    pub fn new(egress: Egress) -> Self {
        Self { egress, guarded: OnceLock::new(), trusted: OnceLock::new() }
    }

    /// For targets that a playbook names.
    pub fn guarded(&self) -> Result<Client, String> {
        self.guarded.get_or_init(|| build(self.egress.clone(), &[])).clone()
    }

    /// For targets that the operator's configuration names.
    pub fn trusted(&self) -> Result<Client, String> {
        self.trusted.get_or_init(|| build(Egress::trusted(), &[])).clone()
    }

    /// For a target that the operator's configuration names, and whose certificate these alone sign.
    #[expect(clippy::unused_self, reason = "clients are made here alone")]
    pub fn trusted_by(&self, authorities: &[Certificate]) -> Result<Client, String> {
        build(Egress::trusted(), authorities)
    }
}

fn build(egress: Egress, authorities: &[Certificate]) -> Result<Client, String> {
    // Fails where the process has a provider already, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || {
        Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT)
            .pool_max_idle_per_host(0)
            .tcp_nodelay(true)
            .user_agent(concat!("stanch/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(GuardedResolver { egress: egress.clone() })
    };
    if !authorities.is_empty() {
        let built = builder().tls_certs_only(authorities.iter().cloned()).build();
        return built.map_err(|error| format!("no HTTP client: {}", causes(&error)));
    }
    // Without any certificate authority on the machine, plain HTTP still works and TLS says what it misses.
    builder()
        .build()
        .or_else(|_| builder().tls_certs_only([]).build())
        .map_err(|error| format!("no HTTP client: {}", causes(&error)))
}

/// Resolves as the system does, and drops the addresses that egress refuses.
struct GuardedResolver {
    egress: Egress,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let egress = self.egress.clone();
        Box::pin(async move {
            let host = name.as_str();
            let found = tokio::net::lookup_host((host, 0))
                .await
                .map_err(|error| NotResolved { host: host.to_owned(), reason: error.to_string() })?;
            let mut refused = None;
            let mut allowed: Vec<SocketAddr> = Vec::new();
            for address in found {
                match egress.check(host, address.ip()) {
                    Ok(()) => allowed.push(address),
                    Err(why) => refused = Some(why),
                }
            }
            match (allowed.is_empty(), refused) {
                (true, Some(why)) => Err(why.into()),
                (true, None) => Err(NotResolved { host: host.to_owned(), reason: "no address".to_owned() }.into()),
                (false, _) => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot resolve {host}: {reason}")]
struct NotResolved {
    host: String,
    reason: String,
}

/// Why there is no response.
pub(crate) enum Lost {
    /// Nothing left; trying again could help.
    NotSent(String),
    /// Nothing left, and nothing ever will.
    Refused(String),
    /// It left, and what became of it is not known.
    Unknown(String),
}

/// Sends a request. `progress` turns when the request starts to leave.
pub(crate) async fn send(client: &Client, mut request: Request, progress: &Progress) -> Result<Response, Lost> {
    let bytes =
        request.body_mut().take().and_then(|body| body.as_bytes().map(Bytes::copy_from_slice)).unwrap_or_default();
    // Of an empty body hyper never asks for the content, so that its request counts as leaving at once.
    let marked = !bytes.is_empty();
    if marked {
        *request.body_mut() = Some(Body::wrap(Marked { bytes: Some(bytes), progress: progress.clone() }));
    } else {
        progress.sending();
    }
    let place = place(request.url());
    client.execute(request).await.map_err(|error| {
        if let Some(refused) = cause::<Refused>(&error) {
            Lost::Refused(refused.to_string())
        } else if error.is_builder() {
            Lost::Refused(format!("not a valid request: {}", causes(&error)))
        } else if let Some(not_resolved) = cause::<NotResolved>(&error) {
            Lost::NotSent(not_resolved.to_string())
        } else if error.is_connect() {
            Lost::NotSent(format!("cannot connect to {place}: {}", causes(&error)))
        } else if marked && !progress.left() {
            Lost::NotSent(format!("nothing was sent to {place}: {}", causes(&error)))
        } else {
            Lost::Unknown(format!("{place} did not answer: {}", causes(&error)))
        }
    })
}

/// Host and port, for messages: no path, query or credentials.
pub(crate) fn place(url: &reqwest::Url) -> String {
    let host = url.host_str().unwrap_or("?");
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// The innermost causes of a failure, without the URL.
pub(crate) fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut chain = Vec::new();
    let mut next = error.source();
    while let Some(error) = next {
        let text = error.to_string();
        // hyper's own layers say only that there was an error.
        if chain.last() != Some(&text) && !text.starts_with("client error (") {
            chain.push(text);
        }
        next = error.source();
    }
    match chain.len() {
        0 => "no further cause".to_owned(),
        length => chain.split_off(length.saturating_sub(2)).join(": "),
    }
}

fn cause<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// A body that turns `progress` when the connection stands and the request is about to be written: hyper asks for it
/// with the head, not before.
struct Marked {
    bytes: Option<Bytes>,
    progress: Progress,
}

impl HttpBody for Marked {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        self.progress.sending();
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, Bytes::len) as u64)
    }
}
