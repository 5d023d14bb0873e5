//! A stand-in for whatever playbooks act on over HTTP. It remembers what it was asked and behaves as it is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::json;

use crate::stand_in::{Answer, Received, StandIn};

/// How a path behaves.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// Answer with this status and a small JSON body.
    Status(u16),
    /// Answer with this status, `Retry-After` in seconds.
    RetryAfter(u16, u64),
    /// Answer 200 after this long.
    Slow(Duration),
    /// Do not answer.
    Hang,
    /// Reset the connection after the request was read.
    Reset,
    /// Answer 200 with a body that does not end.
    Endless,
    /// Redirect to this address.
    Redirect(String),
    /// Answer 200 and this JSON.
    Json(serde_json::Value),
}

#[derive(Debug, Default)]
struct Memory {
    requests: Vec<Received>,
    /// By path; the last of a list repeats.
    behaviours: BTreeMap<String, Vec<Behaviour>>,
}

/// The stand-in.
#[derive(Debug)]
pub struct Target {
    server: StandIn,
    memory: Arc<Mutex<Memory>>,
}

fn lock(memory: &Mutex<Memory>) -> MutexGuard<'_, Memory> {
    memory.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Target {
    /// Starts it; every path answers 200 until told otherwise.
    #[must_use]
    pub fn start() -> Self {
        let memory = Arc::new(Mutex::new(Memory::default()));
        let shared = Arc::clone(&memory);
        let server = StandIn::start(move |request| {
            let behaviour = {
                let mut memory = lock(&shared);
                memory.requests.push(request.clone());
                let path = request.path.split('?').next().unwrap_or_default();
                match memory.behaviours.get_mut(path) {
                    Some(list) if list.len() > 1 => list.remove(0),
                    Some(list) => list.first().cloned().unwrap_or(Behaviour::Status(200)),
                    None => Behaviour::Status(200),
                }
            };
            match behaviour {
                Behaviour::Status(status) => Answer::json(status, &json!({"status": status})),
                Behaviour::RetryAfter(status, seconds) => Answer::Reply {
                    status,
                    headers: vec![("Retry-After".into(), seconds.to_string())],
                    body: Vec::new(),
                },
                Behaviour::Slow(delay) => {
                    std::thread::sleep(delay);
                    Answer::json(200, &json!({"status": 200}))
                }
                Behaviour::Hang => Answer::Hang,
                Behaviour::Reset => Answer::Reset,
                Behaviour::Endless => Answer::Endless,
                Behaviour::Redirect(location) => {
                    Answer::Reply { status: 302, headers: vec![("Location".into(), location)], body: Vec::new() }
                }
                Behaviour::Json(value) => Answer::json(200, &value),
            }
        });
        Self { server, memory }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// The URL of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address)
    }

    /// From now on `path` behaves so; of several the last repeats.
    pub fn behave(&self, path: &str, behaviours: impl Into<Vec<Behaviour>>) {
        lock(&self.memory).behaviours.insert(path.to_owned(), behaviours.into());
    }

    /// What was asked of `path` (without its query), in order.
    #[must_use]
    pub fn requests(&self, path: &str) -> Vec<Received> {
        let memory = lock(&self.memory);
        memory.requests.iter().filter(|request| request.path.split('?').next() == Some(path)).cloned().collect()
    }

    /// How often each idempotency key came to `path`.
    #[must_use]
    pub fn keys(&self, path: &str) -> BTreeMap<String, usize> {
        let mut keys = BTreeMap::new();
        for request in self.requests(path) {
            let key = request.header("idempotency-key").unwrap_or("").to_owned();
            *keys.entry(key).or_insert(0) += 1;
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Request;

    #[test]
    fn it_behaves_as_told_and_remembers() {
        let target = Target::start();
        target.behave("/a", [Behaviour::Status(503), Behaviour::RetryAfter(429, 7), Behaviour::Reset]);
        let ask = || Request::post("/a?x=1", "{}").header("Idempotency-Key", "k").send(target.address());
        assert_eq!(ask().unwrap().status, 503);
        assert_eq!(ask().unwrap().header("retry-after"), Some("7"));
        assert!(ask().is_err());
        assert!(ask().is_err());
        assert_eq!(target.keys("/a"), BTreeMap::from([("k".to_owned(), 4)]));
    }

    #[test]
    fn it_can_hang_and_never_end() {
        let target = Target::start();
        target.behave("/hang", [Behaviour::Hang]);
        let hung = Request::new("GET", "/hang").timeout(Duration::from_millis(100)).send(target.address());
        assert!(hung.is_err());
        target.behave("/endless", [Behaviour::Endless]);
        let mut stream = std::net::TcpStream::connect(target.address()).unwrap();
        std::io::Write::write_all(&mut stream, b"GET /endless HTTP/1.1\r\n\r\n").unwrap();
        let mut much = vec![0; 4 << 20];
        std::io::Read::read_exact(&mut stream, &mut much).unwrap();
    }
}
