//! The append-only, hash-chained sequence of records on disk, and the disposable views beside it.
//!
//! In reading order: a record becomes an [`envelope`] (hashed and chained) and a payload (deletable), together an
//! [`entry`]; the entries of one batch are framed and appended durably by a [`Journal`], either [`SledJournal`] or
//! [`MemoryJournal`], which pass one conformance suite; [`mod@verify`] checks an export offline; [`views`] and
//! [`snapshot`] are what can be deleted and rebuilt.
//!
//! Absent: asynchrony, clocks, and any decision about records. Invariants: a reader sees only what is durable; a
//! batch is there whole or not at all; the bytes that were hashed are the bytes that are stored and exported.

mod artifacts;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod entry;
pub mod envelope;
mod files;
pub mod format;
mod frame;
mod hash;
mod memory;
mod segments;
mod sled;
pub mod snapshot;
mod space;
pub mod verify;
pub mod views;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use stanch_core::id::{JournalId, Sequence};
use stanch_core::record::Record;

pub use self::sled::{Options, SledJournal, open_read_only};
pub use entry::{Entry, Payload};
pub use envelope::Envelope;
pub use hash::Hash;
pub use memory::{Fault, Faults, MemoryJournal, MemoryStore};
pub use verify::{Broken, Scope, Verified, export, verify};
pub use views::{Table, Views};

/// The end of the chain: the last record's sequence (0 where there is none) and its hash (zeros where there is none).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// The last record's place.
    pub sequence: Sequence,
    /// The last envelope's hash, which the next one carries as `prev`.
    pub hash: Hash,
}

/// One totally ordered sequence of records with one writer.
pub trait Journal: Send {
    /// Appends the batch, whole or not at all, and returns once it is durable.
    ///
    /// `expected` is the sequence that the caller believes to be the last; the batch continues it without a gap.
    ///
    /// # Errors
    /// See [`AppendError`]: each variant says whether the batch is in the journal.
    fn append(&mut self, expected: Sequence, batch: &[Record]) -> Result<Head, AppendError>;

    /// The end of what is durable.
    fn head(&self) -> Head;

    /// The journal's identity, drawn once when it was made.
    fn id(&self) -> JournalId;

    /// A handle for reading, from any thread, also while records are appended.
    fn reader(&self) -> Arc<dyn Reader>;

    /// Closes and opens again after [`AppendError::OutcomeUnknown`]: what is there then is the truth, and the head says
    /// whether the last batch is part of it. Handles given out by [`Journal::reader`] stay good.
    ///
    /// # Errors
    /// [`OpenError`] where it cannot be opened; it may be tried again.
    fn reopen(&mut self) -> Result<Head, OpenError>;
}

/// Reads durable records, and those alone.
pub trait Reader: Send + Sync {
    /// Consecutive entries, from `from` or, where retention removed that, from the first one kept.
    ///
    /// At most `limit`, and fewer where they are large: only an empty answer means that there are no more.
    ///
    /// # Errors
    /// [`ReadError`].
    fn read(&self, from: Sequence, limit: usize) -> Result<Vec<Entry>, ReadError>;

    /// Gives the entries at these places one by one, in this order, so that no two of them need to be in memory together;
    /// those that are not there (removed by retention, or beyond the head) are left out.
    ///
    /// # Errors
    /// [`ReadError`]; what was given until then stays given.
    fn visit(&self, sequences: &[Sequence], take: &mut dyn FnMut(Entry)) -> Result<(), ReadError>;

    /// The entries that [`Reader::visit`] gives, together.
    ///
    /// # Errors
    /// [`ReadError`].
    fn get(&self, sequences: &[Sequence]) -> Result<Vec<Entry>, ReadError> {
        let mut entries = Vec::with_capacity(sequences.len());
        self.visit(sequences, &mut |entry| entries.push(entry))?;
        Ok(entries)
    }

    /// The end of what is durable.
    fn head(&self) -> Head;
}

/// Why a batch was not appended, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Not written: the journal's head is another than the caller believes.
    #[error("the journal ends at {actual}, not at {expected}; read on from there before appending")]
    Fenced {
        /// What the caller believed.
        expected: Sequence,
        /// Where the journal ends.
        actual: Sequence,
    },
    /// Not written: a record cannot be appended as it is.
    #[error("record {sequence} cannot be appended: {refusal}")]
    Refused {
        /// The record.
        sequence: Sequence,
        /// Why.
        refusal: Refusal,
    },
    /// Not written: the disk is full. The journal stays usable, and appends again once there is space.
    #[error("the disk is full; free some space and the journal goes on by itself")]
    Full(#[source] io::Error),
    /// Not known: the batch may be in the journal or not. Nothing more is appended until [`Journal::reopen`].
    #[error("an append failed midway; the journal must be opened again to know whether it happened")]
    OutcomeUnknown(#[source] Cause),
    /// Not written: an earlier append had an unknown outcome and [`Journal::reopen`] has not succeeded since.
    #[error("the journal must be opened again before it takes records")]
    Closed,
}

/// Why a record cannot be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its sequence does not follow.
    #[error("its sequence does not follow the record before it")]
    OutOfOrder,
    /// It has no payload any more.
    #[error("its payload was deleted")]
    Redacted,
    /// Actor and step make an envelope of more than 6 KiB.
    #[error("its actor and step are longer than an envelope can hold (6 KiB)")]
    EnvelopeTooLarge,
}

/// What went wrong beneath the journal.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The file system said no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The database said no.
    #[error(transparent)]
    Database(#[from] ::sled::Error),
    /// The database panicked, or a test asked for this.
    #[error("{0}")]
    Other(String),
}

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by a running stanch engine; ask that engine over HTTP (GET /api/v1/audit), stop it, or use another data directory", .0.display())]
    Busy(PathBuf),
    /// A newer version wrote it.
    #[error("{} cannot be read", .path.display())]
    Format {
        /// Where.
        path: PathBuf,
        /// Which versions meet.
        #[source]
        source: format::Incompatible,
    },
    /// There is no journal, and none may be made.
    #[error("{} holds no journal; name the engine's data directory", .0.display())]
    Missing(PathBuf),
    /// Something is there that the journal did not write so.
    #[error("{} is damaged: {what}; restore it from a backup", .path.display())]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file system or the database said no.
    #[error("{} cannot be opened", .path.display())]
    Failed {
        /// Where.
        path: PathBuf,
        /// What it said.
        #[source]
        source: Cause,
    },
}

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The journal is being opened again after a failure.
    #[error("the journal is being opened again; try in a moment")]
    Closed,
    /// What is stored is not what was written.
    #[error("record {sequence} is damaged: {what}; restore it from a backup")]
    Damaged {
        /// The record, or the first of the frame it is in.
        sequence: Sequence,
        /// What is wrong with it.
        what: String,
    },
    /// The payload's file could not be read.
    #[error("the payload of record {sequence} cannot be read from {}", .path.display())]
    Artifact {
        /// The record.
        sequence: Sequence,
        /// The file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// A sealed segment could not be opened.
    #[error("a sealed segment cannot be opened")]
    Segment(#[source] Box<OpenError>),
    /// The file system or the database said no.
    #[error("the journal cannot be read")]
    Failed(#[source] Cause),
}
