//! What the tests share: assignments, and targets that answer exactly the bytes a test gives them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use stanch_core::{Assignment, AttemptId, Epoch, Outcome, RunId};
use stanch_playbook::{ActionName, PlaybookName, StepKey};
use stanch_workers::{Egress, SecretSpec, Secrets, Worker, WorkerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// An assignment of an action, with a limit that no passing test reaches.
pub fn assignment(action: &str, with: Value) -> Assignment {
    let attempt = AttemptId {
        run: RunId("0192f0c1-2d3e-7a4b-8c5d-6e7f80910203".parse().unwrap()),
        step: StepKey::new("contain.isolate"),
        item: None,
        purpose: stanch_core::attempt::Purpose::Do,
        generation: 0,
        number: 1,
        epoch: Epoch(1),
    };
    Assignment {
        idempotency_key: attempt.idempotency_key(),
        attempt,
        playbook: PlaybookName::new("compromised-host"),
        action: ActionName::new(action),
        with: Arc::new(with),
        env: Arc::new(serde_json::json!({})),
        timeout: Duration::from_secs(30),
    }
}

/// Runs an action to its outcome.
pub async fn run(worker: &Worker, action: &str, with: Value) -> Outcome {
    worker.execute(assignment(action, with), CancellationToken::new()).await
}

/// The same with a limit of so many milliseconds.
pub async fn run_within(worker: &Worker, millis: u64, action: &str, with: Value) -> Outcome {
    let assignment = Assignment { timeout: Duration::from_millis(millis), ..assignment(action, with) };
    worker.execute(assignment, CancellationToken::new()).await
}

/// A worker that may connect to loopback.
pub fn local() -> WorkerConfig {
    WorkerConfig { egress: Egress::new(["127.0.0.0/8"]).unwrap(), ..WorkerConfig::default() }
}

/// One secret from a file, and what keeps the file.
pub fn secret(name: &str, text: &str, hosts: &[&str]) -> (Secrets, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    std::fs::write(&path, text).unwrap();
    let spec = SecretSpec {
        from: format!("file:{}", path.display()),
        hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
    };
    (Secrets::new(BTreeMap::from([(name.to_owned(), spec)])).unwrap(), directory)
}

/// What a target does with a request.
#[derive(Clone)]
pub enum Answer {
    /// Sends these bytes and closes.
    Bytes(Vec<u8>),
    /// Reads on and says nothing.
    Hang,
    /// Resets the connection.
    Reset,
    /// Sends this head, then bytes without end.
    Endless(&'static str),
    /// Sends this head and the start of a body, then nothing.
    HalfBody(&'static str),
}

/// Makes an answer.
pub type Reply = fn() -> Answer;

/// A response with a status, headers and a body.
pub fn answer(status: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    Answer::Bytes(
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n{body}")
            .into_bytes(),
    )
}

/// A JSON response.
pub fn json_answer(body: &Value) -> Answer {
    answer("200 OK", &[("content-type", "application/json; charset=utf-8")], &body.to_string())
}

/// An HTTP target on loopback.
pub struct Target {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Target {
    /// Answers every request as the function says.
    pub async fn start(respond: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let respond = Arc::new(respond);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, respond.clone(), seen.clone()));
            }
        });
        Self { address, requests }
    }

    /// A URL on this target.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The requests so far, as they came, in lower case.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|request| request.to_lowercase()).collect()
    }

    /// The method, the path and the JSON body of the requests so far.
    pub fn calls(&self) -> Vec<(String, String, Value)> {
        let requests = self.requests.lock().unwrap();
        let calls = requests.iter().map(|request| {
            let (head, body) = request.split_once("\r\n\r\n").unwrap();
            let mut words = head.split(' ');
            let (method, path) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
            (method, path, serde_json::from_str(body).unwrap_or_default())
        });
        calls.collect()
    }
}

async fn serve(mut stream: TcpStream, respond: Arc<impl Fn(&str) -> Answer>, seen: Arc<Mutex<Vec<String>>>) {
    let Some(request) = read_request(&mut stream).await else { return };
    seen.lock().unwrap().push(request.clone());
    match respond(&request) {
        Answer::Bytes(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Answer::Hang => {
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        Answer::Reset => {
            stream.set_zero_linger().unwrap();
        }
        Answer::Endless(head) => {
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(&[b'x'; 16 * 1024]).await.is_ok() {}
        }
        Answer::HalfBody(head) => {
            let _ = stream.write_all(format!("{head}half").as_bytes()).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if bytes.len() >= end + 4 + length {
                return Some(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        match stream.read(&mut buffer).await {
            Ok(length @ 1..) => bytes.extend_from_slice(&buffer[..length]),
            _ => return None,
        }
    }
}

/// The output of a success.
#[track_caller]
pub fn succeeded(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Succeeded { output } => output,
        other => panic!("expected a success, not {other:?}"),
    }
}

/// What a failure says.
#[derive(Debug)]
pub struct Failure {
    pub error: String,
    pub output: Option<Value>,
    pub retry_after: Option<Duration>,
    pub retryable: bool,
}

/// The parts of a failure.
#[track_caller]
pub fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed { error, output, retry_after, retryable } => Failure { error, output, retry_after, retryable },
        other => panic!("expected a failure, not {other:?}"),
    }
}

/// The reason of an unknown outcome.
#[track_caller]
pub fn unknown(outcome: Outcome) -> String {
    match outcome {
        Outcome::Unknown { reason } => reason,
        other => panic!("expected an unknown outcome, not {other:?}"),
    }
}
