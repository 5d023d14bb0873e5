//! Durable records as they come: the engine's stream of server-sent events, taken up again where it breaks off.

use std::time::Duration;

use reqwest::{Method, Response};
use stanch_core::record::Record;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::failure::Failure;
use crate::trail;

/// How long an engine may be away, such as for a restart, before following ends.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(250);
/// Records that nobody has looked at yet; beyond them the engine has to wait.
const AHEAD: usize = 256;

/// The records of one run, from its first on; those of all runs from `from` on where no run is named.
///
/// Ends with a failure where the engine is away for too long.
pub fn records(client: &Client, run: Option<&str>, from: u64) -> mpsc::Receiver<Result<Record, Failure>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let follower = Follower {
        client: client.clone(),
        run: run.map(str::to_owned),
        next: from,
        sender,
        pending: Vec::new(),
        connected: false,
    };
    tokio::spawn(follower.run());
    receiver
}

struct Follower {
    client: Client,
    run: Option<String>,
    /// The sequence from which to go on.
    next: u64,
    sender: mpsc::Sender<Result<Record, Failure>>,
    /// Of an event that has not come whole.
    pending: Vec<u8>,
    /// Whether a stream was open since this was last asked.
    connected: bool,
}

/// Nobody listens any more, or has a reason to.
struct Deaf;

impl Follower {
    async fn run(mut self) -> Result<(), Deaf> {
        let mut patient_until = Instant::now() + PATIENCE;
        loop {
            let ended = self.once().await?;
            if std::mem::take(&mut self.connected) {
                patient_until = Instant::now() + PATIENCE;
            }
            // A stream ends with the engine, and another one may be about to start; what was never reached will hardly
            // come up.
            if let Err(failure) = ended
                && (self.next == 0 || Instant::now() >= patient_until)
            {
                self.sender.send(Err(failure)).await.ok();
                return Err(Deaf);
            }
            sleep(PAUSE).await;
        }
    }

    /// Reads until the connection ends or fails.
    async fn once(&mut self) -> Result<Result<(), Failure>, Deaf> {
        self.pending.clear();
        if let Some(run) = self.run.clone().filter(|_| self.next == 0) {
            // What happened before is asked for by run: the stream would go through the whole journal for it.
            match self.history(&run).await {
                Ok(records) => {
                    self.next = 1;
                    for record in records {
                        self.tell(record).await?;
                    }
                }
                Err(failure) => return Ok(Err(failure)),
            }
        }
        let mut response = match self.open().await {
            Ok(response) => response,
            Err(failure) => return Ok(Err(failure)),
        };
        self.connected = true;
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) => self.pending.extend_from_slice(&chunk),
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(self.client.lost(&error))),
            }
            while let Some(line) = take_line(&mut self.pending) {
                let Some(data) = line.strip_prefix(b"data: ") else { continue };
                match trail::entry(data) {
                    // A kind that only a newer stanch knows tells this one nothing.
                    Ok(entry) => {
                        if let Ok(record) = entry.record() {
                            self.tell(record).await?;
                        }
                    }
                    Err(failure) => return Ok(Err(failure)),
                }
            }
        }
    }

    async fn history(&self, run: &str) -> Result<Vec<Record>, Failure> {
        let request = self.client.request(Method::GET, &format!("/api/v1/runs/{run}/records"));
        let response = self.client.send(request).await?;
        let export = response.bytes().await.map_err(|error| self.client.lost(&error))?;
        Ok(trail::entries(&export)?.iter().filter_map(|entry| entry.record().ok()).collect())
    }

    async fn open(&self) -> Result<Response, Failure> {
        let mut query = vec![("from", self.next.max(1).to_string())];
        query.extend(self.run.iter().map(|run| ("run", run.clone())));
        self.client.send(self.client.query("/api/v1/stream", &query)).await
    }

    async fn tell(&mut self, record: Record) -> Result<(), Deaf> {
        self.next = record.sequence.0 + 1;
        self.sender.send(Ok(record)).await.map_err(|_| Deaf)
    }
}

/// Takes the first whole line, without its end.
fn take_line(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let mut line: Vec<u8> = bytes.drain(..=end).collect();
    line.pop();
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_once_it_is_whole() {
        let mut bytes = b"data: {\"a\"".to_vec();
        assert_eq!(take_line(&mut bytes), None);
        bytes.extend_from_slice(b": 1}\r\n\nid: 2\n: beat");
        assert_eq!(take_line(&mut bytes), Some(b"data: {\"a\": 1}".to_vec()));
        assert_eq!(take_line(&mut bytes), Some(Vec::new()));
        assert_eq!(take_line(&mut bytes), Some(b"id: 2".to_vec()));
        assert_eq!((take_line(&mut bytes), &bytes[..]), (None, &b": beat"[..]));
    }
}
