//! The real nats-server, and a client that watches and sends.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::process::{Process, program};
use crate::{SOON, eventually, free_port};

/// A running nats-server with JetStream.
#[derive(Debug)]
pub struct Nats {
    address: SocketAddr,
    process: Process,
    home: TempDir,
}

impl Nats {
    /// Starts it on an empty directory.
    ///
    /// # Panics
    /// Where it does not come up.
    #[must_use]
    pub fn start() -> Self {
        Self::start_at(free_port())
    }

    /// The same at a given port, for an engine that was told of it before.
    ///
    /// # Panics
    /// Where it does not come up.
    #[must_use]
    pub fn start_at(port: u16) -> Self {
        let home = tempfile::Builder::new().prefix("stanch-test-").tempdir().expect("the temporary directory is there");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let process = Self::spawn(&home, address);
        let mut nats = Self { address, process, home };
        nats.wait();
        nats
    }

    fn spawn(home: &TempDir, address: SocketAddr) -> Process {
        let store: PathBuf = home.path().join("jetstream");
        let mut command = Command::new(program("nats-server"));
        command.args(["-a", "127.0.0.1", "-p", &address.port().to_string(), "-js", "-sd"]).arg(store);
        Process::start("nats-server", command, &home.path().join("log"))
    }

    fn wait(&mut self) {
        eventually("nats-server listens", SOON, || {
            self.process.must_run();
            std::net::TcpStream::connect(self.address).map(drop).map_err(|error| error.to_string())
        });
    }

    /// For `nats.url`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// SIGKILL, at once.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same data, after [`Nats::kill`].
    ///
    /// # Panics
    /// Where it does not come up.
    pub fn start_again(&mut self) {
        self.process = Self::spawn(&self.home, self.address);
        self.wait();
    }

    /// A client.
    ///
    /// # Panics
    /// Where it cannot connect.
    #[must_use]
    pub fn client(&self) -> Client {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime needs threads alone");
        let client = runtime
            .block_on(async_nats::ConnectOptions::new().connection_timeout(SOON).connect(self.url()))
            .expect("nats-server listens");
        Client { runtime, client }
    }
}

/// A message that came.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its subject.
    pub subject: String,
    /// Its `Nats-Msg-Id`, where it has one.
    pub id: Option<String>,
    /// Its content.
    pub data: Vec<u8>,
}

/// A blocking client.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    client: async_nats::Client,
}

/// What a subscription has gathered so far.
#[derive(Debug, Clone, Default)]
pub struct Inbox(Arc<Mutex<Vec<Message>>>);

impl Inbox {
    /// All messages, in order.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Client {
    /// Gathers what comes on a subject from now on.
    ///
    /// # Panics
    /// Where the server is gone.
    #[must_use]
    pub fn subscribe(&self, subject: &str) -> Inbox {
        self.respond(subject, |_| None)
    }

    /// The same, and sends back what `reply` gives for each request; none leaves the request unanswered.
    ///
    /// # Panics
    /// Where the server is gone.
    #[must_use]
    pub fn respond(&self, subject: &str, reply: impl Fn(&Message) -> Option<String> + Send + Sync + 'static) -> Inbox {
        let inbox = Inbox::default();
        let mut subscription =
            self.runtime.block_on(self.client.subscribe(subject.to_owned())).expect("the server is there");
        self.runtime.block_on(self.client.flush()).expect("the server is there");
        let (messages, client) = (Arc::clone(&inbox.0), self.client.clone());
        self.runtime.spawn(async move {
            while let Some(message) = subscription.next().await {
                let id = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Id"));
                let came = Message {
                    subject: message.subject.to_string(),
                    id: id.map(ToString::to_string),
                    data: message.payload.to_vec(),
                };
                let answer = reply(&came);
                messages.lock().unwrap_or_else(PoisonError::into_inner).push(came);
                if let (Some(to), Some(answer)) = (message.reply, answer) {
                    let _ = client.publish(to, answer.into()).await;
                }
            }
        });
        inbox
    }

    /// Publishes to core NATS, with headers, and waits until the server has it.
    ///
    /// # Panics
    /// Where the server is gone.
    pub fn publish(&self, subject: &str, headers: &[(&str, &str)], data: impl Into<Vec<u8>>) {
        let mut map = async_nats::HeaderMap::new();
        for &(name, value) in headers {
            map.insert(name, value);
        }
        let data: Vec<u8> = data.into();
        self.runtime.block_on(async {
            self.client.publish_with_headers(subject.to_owned(), map, data.into()).await.expect("the server is there");
            self.client.flush().await.expect("the server is there");
        });
    }

    fn jetstream(&self) -> async_nats::jetstream::Context {
        // It starts a task of its own when it is made.
        let _runtime = self.runtime.enter();
        async_nats::jetstream::new(self.client.clone())
    }

    /// Makes a stream over subjects.
    ///
    /// # Panics
    /// Where the server refuses it.
    pub fn make_stream(&self, name: &str, subjects: &[&str]) {
        let config = async_nats::jetstream::stream::Config {
            name: name.to_owned(),
            subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(),
            ..Default::default()
        };
        let jetstream = self.jetstream();
        self.runtime.block_on(jetstream.create_stream(config)).expect("the stream is made");
    }

    /// Publishes into a stream and waits for its acknowledgement.
    ///
    /// # Panics
    /// Where the stream does not acknowledge.
    pub fn publish_to_stream(&self, subject: &str, data: impl Into<Vec<u8>>) {
        let jetstream = self.jetstream();
        let data: Vec<u8> = data.into();
        self.runtime.block_on(async {
            let acknowledgement = jetstream.publish(subject.to_owned(), data.into()).await.expect("it is sent");
            tokio::time::timeout(Duration::from_secs(10), acknowledgement)
                .await
                .expect("the stream answers")
                .expect("the stream acknowledges");
        });
    }

    /// How many messages of a stream its consumers have not acknowledged yet, and how many consumers there are.
    ///
    /// # Panics
    /// Where the stream is gone.
    #[must_use]
    pub fn unacknowledged(&self, stream: &str) -> (u64, usize) {
        let jetstream = self.jetstream();
        self.runtime.block_on(async {
            let stream = jetstream.get_stream(stream).await.expect("the stream is there");
            let mut consumers = stream.consumers();
            let (mut open, mut count) = (0, 0);
            while let Some(consumer) = consumers.next().await {
                let consumer = consumer.expect("the server lists its consumers");
                open +=
                    consumer.num_pending + u64::try_from(consumer.num_ack_pending).expect("a count is not negative");
                count += 1;
            }
            (open, count)
        })
    }
}
