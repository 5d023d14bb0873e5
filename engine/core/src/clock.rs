//! What the core is told of clocks: that the wall clock is not where the engine's own is.
//!
//! The engine's clock is the shell's. It goes by the monotonic clock and follows the wall clock only within
//! [`TOLERANCE`]; beyond that it goes on by itself, so that no lease and no deadline is over before its time, until a person
//! agrees or [`HOLD`] has passed.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use stanch_playbook::Timestamp;
use stanch_playbook::time::shown_duration;

/// How far the wall clock may be from the engine's before that is a jump.
pub const TOLERANCE: Duration = Duration::from_secs(60);

/// How long the engine's clock waits for a person to agree before it follows by itself.
pub const HOLD: Duration = Duration::from_secs(600);

/// A jump of the wall clock that nobody has agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jump {
    /// How far the wall clock is ahead of the engine's, in milliseconds; negative where it is behind.
    pub by_ms: i64,
    /// When it was found, by the engine's clock.
    pub since: Timestamp,
}

impl Jump {
    /// When it is followed without an agreement.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        self.since.plus(HOLD)
    }
}

/// Whether so many milliseconds between the two clocks are a jump.
#[must_use]
pub const fn is_jump(by_ms: i64) -> bool {
    by_ms.unsigned_abs() > TOLERANCE.as_millis() as u64
}

/// How far the wall clock is from the engine's, in whole seconds: `1h ahead of`, `2h behind`.
#[must_use]
pub fn apart(by_ms: i64) -> String {
    let length = shown_duration(Duration::from_secs(by_ms.unsigned_abs() / 1000));
    format!("{length} {}", if by_ms < 0 { "behind" } else { "ahead of" })
}
