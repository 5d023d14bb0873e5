//! What the end-to-end tests share: the engine as a process, the real servers around it, and stand-ins for the
//! systems that playbooks talk to. Everything listens on loopback alone, on ports of its own.
//!
//! A helper that cannot do its work panics with what it knows: it is a failed test.

pub mod alerts;
pub mod commands;
pub mod engine;
pub mod http;
pub mod library;
pub mod load;
pub mod nats;
pub mod process;
pub mod servers;
pub mod slack;
pub mod stand_in;
pub mod target;

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use alerts::{AlertBody, fixture, fixture_json, sequence};
pub use engine::{Engine, Setup};
pub use http::{Request, Response};
pub use load::{Ledger, Load};
pub use servers::{Alertmanager, Exporter, Prometheus};
pub use slack::Slack;
pub use target::{Behaviour, Target};

/// How long anything may take that should happen soon.
pub const SOON: Duration = Duration::from_secs(20);

/// Asks `probe` until it gives something, at most for `deadline`; then panics with `what` and the last complaint.
///
/// # Panics
/// When the deadline passes.
pub fn eventually<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    let mut pause = Duration::from_millis(2);
    loop {
        match probe() {
            Ok(value) => return value,
            Err(complaint) if started.elapsed() > deadline => {
                panic!("{what}: not within {deadline:?}; last seen: {complaint}")
            }
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Asserts that `probe` holds now and goes on holding for `span`: for what must *not* happen.
///
/// # Panics
/// As soon as it does not hold.
pub fn stays(what: &str, span: Duration, mut probe: impl FnMut() -> Result<(), String>) {
    let started = Instant::now();
    loop {
        if let Err(complaint) = probe() {
            panic!("{what}: no longer after {:?}: {complaint}", started.elapsed());
        }
        if started.elapsed() >= span {
            return;
        }
        std::thread::sleep(Duration::from_millis(50).min(span));
    }
}

/// A loopback port where nothing listens, outside the range from which the kernel draws the ports of outgoing
/// connections, so that a server that was killed finds its port free again.
///
/// # Panics
/// Where a thousand draws find none.
#[must_use]
pub fn free_port() -> u16 {
    let mut random = Random::from_clock();
    for _ in 0..1000 {
        let port = 15_000 + u16::try_from(random.below(17_000)).expect("below 17,000 fits");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 15000 and 32000")
}

/// The repository's root.
#[must_use]
pub fn repository() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// Whether `tests/run --long` asked for the long rounds.
#[must_use]
pub fn long() -> bool {
    std::env::var_os("STANCH_LONG").is_some_and(|value| value == "1")
}

/// A small random generator (splitmix64), so that a failing round can be run again from its printed seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Draws from `seed` on.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed of `STANCH_SEED`, or one of the clock.
    ///
    /// # Panics
    /// Where `STANCH_SEED` is not a number.
    #[must_use]
    pub fn seed() -> u64 {
        match std::env::var("STANCH_SEED") {
            Ok(text) => text.parse().expect("STANCH_SEED is a number"),
            Err(_) => Self::from_clock().next(),
        }
    }

    fn from_clock() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
        let mut random = Self(u64::from(now.subsec_nanos()) ^ (u64::from(std::process::id()) << 32) ^ now.as_secs());
        random.next();
        random
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it never ends, and is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// A length of time between the two.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let span = u64::try_from((most - least).as_micros()).expect("tests use short spans");
        least + Duration::from_micros(self.below(span))
    }
}
