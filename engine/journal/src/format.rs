//! The version of what is on disk, checked before anything else is read.

use std::fmt;

use serde::{Deserialize, Serialize};
use stanch_core::id::JournalId;

/// A version of the journal's form on disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FormatVersion(pub u32);

/// A journal that this version cannot read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a newer stanch wrote this journal (format {found}, this one reads up to {supported}); use that stanch or a newer one"
)]
pub struct Incompatible {
    /// What is there.
    pub found: FormatVersion,
    /// What this version can read.
    pub supported: FormatVersion,
}

impl FormatVersion {
    /// What this version writes.
    pub const CURRENT: Self = Self(1);

    /// Whether a reader of `supported` can read this.
    ///
    /// # Errors
    /// [`Incompatible`] where it cannot.
    pub fn check_readable_by(self, supported: Self) -> Result<(), Incompatible> {
        if self <= supported { Ok(()) } else { Err(Incompatible { found: self, supported }) }
    }
}

impl fmt::Display for FormatVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// `format.json`: what a journal is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct FormatFile {
    pub(crate) format: FormatVersion,
    pub(crate) journal: JournalId,
}

/// The part of `format.json` that every version has, whatever else it may hold.
#[derive(Deserialize)]
pub(crate) struct FormatOnly {
    pub(crate) format: FormatVersion,
}
