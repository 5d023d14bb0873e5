//! Cron expressions in IANA time zones.

use crate::time::Timestamp;

/// The instants of a cron expression in a time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Which missed instants fire when the engine was not there.
    pub catch_up: CatchUp,
}

/// Which missed instants fire late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CatchUp {
    /// None of them.
    #[default]
    None,
    /// The last of them.
    Last,
    /// All of them.
    All,
}

impl Schedule {
    /// The first nominal instant after `after`; `None` where there is none any more.
    #[must_use]
    pub fn next_after(&self, _after: Timestamp) -> Option<Timestamp> {
        None
    }
}
