//! Alerts posted from several threads at once, and which of them were acknowledged.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::alerts::AlertBody;
use crate::http::Request;

/// How many threads post.
const SENDERS: usize = 4;
/// Between two posts of one thread: the load must leave the engine time to work, not to swamp it.
const PACE: Duration = Duration::from_millis(4);

/// What became of the posts so far.
#[derive(Debug, Default)]
pub struct Ledger {
    next: AtomicU64,
    sent: Mutex<BTreeSet<String>>,
    acknowledged: Mutex<BTreeSet<String>>,
}

impl Ledger {
    /// The fingerprints of alerts whose webhook was answered 2xx.
    #[must_use]
    pub fn acknowledged(&self) -> BTreeSet<String> {
        self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All fingerprints that were ever sent.
    #[must_use]
    pub fn sent(&self) -> BTreeSet<String> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A load in progress; it ends when dropped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    senders: Vec<JoinHandle<()>>,
}

impl Load {
    /// Posts one alert after the other to `/webhooks/alertmanager/eu` until dropped. Each thread posts an alert that
    /// was not acknowledged once more, as Alertmanager would, and then goes on. `body` makes the body for a number;
    /// the fingerprint is that number in 16 hexadecimal digits.
    pub fn start(
        address: SocketAddr,
        ledger: &Arc<Ledger>,
        body: impl Fn(u64, &str) -> AlertBody + Send + Sync + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let body = Arc::new(body);
        let senders = (0..SENDERS)
            .map(|_| {
                let (stop, ledger, body) = (Arc::clone(&stop), Arc::clone(ledger), Arc::clone(&body));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::SeqCst) {
                        let number = ledger.next.fetch_add(1, Ordering::SeqCst);
                        let fingerprint = format!("{number:016x}");
                        let bytes = body(number, &fingerprint).bytes();
                        ledger.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(fingerprint.clone());
                        let request = Request::post("/webhooks/alertmanager/eu", bytes);
                        for _ in 0..2 {
                            if request.send(address).is_ok_and(|answer| answer.is_success()) {
                                ledger.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(fingerprint);
                                break;
                            }
                            std::thread::sleep(PACE);
                        }
                        std::thread::sleep(PACE);
                    }
                })
            })
            .collect();
        Self { stop, senders }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for sender in self.senders.drain(..) {
            let _ = sender.join();
        }
    }
}
