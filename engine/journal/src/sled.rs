//! The journal on disk: segments of sled databases, one writer, one flush and sync a batch.

mod reader;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Datelike;
use stanch_core::id::{JournalId, Sequence};
use stanch_core::record::Record;
use stanch_playbook::Timestamp;

use self::reader::{Shared, State};
use crate::entry::Sealer;
use crate::envelope::Envelope;
use crate::files;
use crate::frame::{self, Frames};
use crate::hash::Hash;
use crate::segments::{self, Header, Layout, Segment, Tail, damaged, failed, guard, is_disk_full};
use crate::space::{FreeSpace, Space, free_space, is_full};
use crate::{AppendError, Cause, Head, Journal, OpenError, Reader, artifacts};

/// What can be set of a journal on disk.
#[derive(Clone)]
pub struct Options {
    /// A segment is sealed when its database has grown to this many bytes, or when a month begins (UTC).
    ///
    /// sled's cache does not hold to its limit with values of this size (measured: 442 MiB resident after reading 360
    /// MiB with a limit of 8 MiB); what bounds memory is the size of a segment.
    pub segment_bytes: u64,
    /// sled's cache for each open segment.
    pub cache_bytes: u64,
    /// The size of the ballast file; 0 makes none.
    pub ballast_bytes: u64,
    /// Appends are refused while less than this is free.
    pub reserve_bytes: u64,
    pub(crate) free_space: FreeSpace,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 32 << 20,
            cache_bytes: 8 << 20,
            ballast_bytes: 16 << 20,
            reserve_bytes: 8 << 20,
            free_space: free_space(),
        }
    }
}

/// The journal on disk.
pub struct SledJournal {
    shared: Arc<Shared>,
    id: JournalId,
    segment_bytes: u64,
    space: Space,
    sealer: Sealer,
    frames: Frames,
    /// The month of the active segment's records; none while it has none.
    month: Option<(i32, u32)>,
    /// Whether the outcome of an append is unknown.
    broken: bool,
}

impl SledJournal {
    /// Opens the journal below the data directory, and makes it where there is none. A batch that a crash cut short is
    /// dropped.
    ///
    /// # Errors
    /// [`OpenError`]: in use, of a newer format, damaged, or what the file system or the database said.
    pub fn open(data_dir: &Path, options: &Options) -> Result<Self, OpenError> {
        let layout = Layout::of(data_dir);
        files::create_directory(&layout.root).map_err(failed(&layout.root))?;
        let lock = layout.lock()?;
        let id = match layout.identity()? {
            Some(id) => id,
            None => layout.found()?,
        };
        layout.sweep().map_err(failed(&layout.root))?;
        let mut journal = Self {
            id,
            segment_bytes: options.segment_bytes,
            space: Space::new(
                &layout.root,
                options.ballast_bytes,
                options.reserve_bytes,
                Arc::clone(&options.free_space),
            ),
            shared: Shared::new(layout, options.cache_bytes, lock),
            sealer: Sealer::default(),
            frames: Frames::default(),
            month: None,
            broken: true,
        };
        journal.reopen()?;
        // A full disk is no reason not to open; appends will say so.
        let _ = journal.space.admit(0);
        Ok(journal)
    }

    /// Removes the sealed segments, oldest first, whose records are all older than `max_age` and before `keep_from`,
    /// with their artifacts; says how many. The chain is then verified from the first one kept.
    ///
    /// # Errors
    /// [`OpenError::Failed`] where the file system said no; what was removed until then stays removed.
    pub fn retain(&mut self, now: Timestamp, max_age: Duration, keep_from: Sequence) -> Result<usize, OpenError> {
        let mut removed = 0;
        loop {
            let [oldest, next, ..] = self.shared.read_state().segments[..] else { return Ok(removed) };
            let expired = next.header.began.is_some_and(|began| now.since(began) > max_age);
            if !expired || next.header.first > keep_from {
                return Ok(removed);
            }
            self.shared.write_state().segments.remove(0);
            self.shared.sealed().retain(|segment| segment.number != oldest.number);
            let path = self.shared.layout.segment(oldest.number);
            self.shared.layout.remove(oldest.number).map_err(failed(&path))?;
            removed += 1;
        }
    }

    fn active(&self) -> Result<Arc<Segment>, AppendError> {
        self.shared.read_state().active.clone().ok_or(AppendError::Closed)
    }

    /// Seals the active segment where it is large enough, or of another month than the batch.
    fn roll(&mut self, active: Arc<Segment>, first: &Record) -> Result<Arc<Segment>, Cause> {
        let Some(month) = self.month else { return Ok(active) };
        if month == month_of(first.time) && active.size()? < self.segment_bytes {
            return Ok(active);
        }
        let head = self.shared.read_state().head;
        let header = Header { first: head.sequence.next(), prev: head.hash, began: Some(first.time) };
        let layout = &self.shared.layout;
        let listed = layout.create(active.number + 1, header).map_err(into_cause)?;
        let segment = Arc::new(Segment::open(layout, listed.number, self.shared.cache_bytes).map_err(into_cause)?);
        let mut state = self.shared.write_state();
        state.segments.push(listed);
        state.active = Some(Arc::clone(&segment));
        drop(state);
        self.month = None;
        Ok(segment)
    }

    fn write(&mut self, batch: &[Record]) -> Result<Head, AppendError> {
        self.space.admit(0).map_err(AppendError::Full)?;
        let mut head = self.shared.read_state().head;
        let mut sealed = Vec::with_capacity(batch.len());
        for record in batch {
            let refused = |refusal| AppendError::Refused { sequence: record.sequence, refusal };
            sealed.push((record.sequence, self.sealer.seal(&mut head, record).map_err(refused)?));
        }
        let active = self.active()?;
        let active = self.roll(active, &batch[0]).map_err(|cause| self.failed(cause, true))?;

        self.frames.clear();
        let mut payloads = Vec::new();
        for (sequence, entry) in &sealed {
            let artifact = Frames::needs_artifact(entry);
            if let (true, Some(payload)) = (artifact, &entry.payload) {
                payloads.push((Hash::salted(&payload.salt, &payload.bytes), payload.bytes.clone()));
            }
            self.frames.push(*sequence, entry, artifact);
        }
        if !payloads.is_empty() {
            let bytes = payloads.iter().map(|(_, bytes)| bytes.len() as u64).sum();
            self.space.admit(bytes).map_err(AppendError::Full)?;
            artifacts::write(&self.shared.layout.artifacts(active.number), &payloads)
                .map_err(|error| self.failed(error.into(), true))?;
        }

        let frames = &mut self.frames;
        let written = guard(|| {
            for (first, frame) in frames.finish() {
                active.db.insert(segments::key(first), frame)?;
            }
            active.sync()
        });
        // From the first insert on, part of the batch may be on disk: its artifacts stay.
        written.map_err(|cause| self.failed(cause, false))?;
        self.month = self.month.or(Some(month_of(batch[0].time)));
        self.shared.write_state().head = head;
        Ok(head)
    }

    /// What a failure means: where nothing of the batch can have been written, a full disk is told from the unknown.
    fn failed(&mut self, cause: Cause, not_written: bool) -> AppendError {
        let full = is_disk_full(&cause);
        match cause {
            Cause::Io(error) if not_written && is_full(&error) => AppendError::Full(error),
            cause => {
                if full {
                    self.space.release_ballast();
                }
                self.broken = true;
                AppendError::OutcomeUnknown(cause)
            }
        }
    }
}

impl Journal for SledJournal {
    fn append(&mut self, expected: Sequence, batch: &[Record]) -> Result<Head, AppendError> {
        if self.broken {
            return Err(AppendError::Closed);
        }
        let head = self.head();
        if head.sequence != expected {
            return Err(AppendError::Fenced { expected, actual: head.sequence });
        }
        if batch.is_empty() { Ok(head) } else { self.write(batch) }
    }

    fn head(&self) -> Head {
        self.shared.read_state().head
    }

    fn id(&self) -> JournalId {
        self.id
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::clone(&self.shared) as Arc<dyn Reader>
    }

    fn reopen(&mut self) -> Result<Head, OpenError> {
        self.broken = true;
        self.shared.write_state().active = None;
        self.shared.sealed().clear();
        let layout = &self.shared.layout;
        let mut segments = layout.list()?;
        if segments.is_empty() {
            let header = Header { first: Sequence(1), prev: Hash::default(), began: None };
            segments.push(layout.create(1, header)?);
        }
        let last = segments[segments.len() - 1];
        let open = || {
            let active = Segment::open(layout, last.number, self.shared.cache_bytes)?;
            let (head, unfinished) = recover(layout, &active, &last.header)?;
            drop_unfinished(&active, &unfinished).map_err(opening(layout, last.number))?;
            let month = month_of_first(&active).map_err(opening(layout, last.number))?;
            Ok((active, head, month))
        };
        let opened = match open() {
            Err(OpenError::Failed { source, .. }) if is_disk_full(&source) => {
                self.space.release_ballast();
                open()
            }
            other => other,
        };
        let (active, head, month) = opened?;
        *self.shared.write_state() = State { segments, active: Some(Arc::new(active)), head };
        self.month = month;
        self.broken = false;
        Ok(head)
    }
}

/// Opens the journal below the data directory for reading alone, with the engine stopped; for as long as the reader
/// lives no engine can start. Nothing is appended or dropped; sled itself may tidy its files.
///
/// # Errors
/// [`OpenError::Busy`] where an engine runs on it, [`OpenError::Missing`] where there is none, and the rest.
pub fn open_read_only(data_dir: &Path) -> Result<Arc<dyn Reader>, OpenError> {
    let layout = Layout::of(data_dir);
    if !layout.root.join("format.json").is_file() {
        return Err(OpenError::Missing(data_dir.to_owned()));
    }
    let lock = layout.lock()?;
    layout.identity()?;
    let shared = Shared::new(layout, Options::default().cache_bytes, lock);
    let segments = shared.layout.list()?;
    let state = match segments.last() {
        None => State::default(),
        Some(last) => {
            let active = Segment::open(&shared.layout, last.number, shared.cache_bytes)?;
            let (head, _) = recover(&shared.layout, &active, &last.header)?;
            State { head, active: Some(Arc::new(active)), segments }
        }
    };
    *shared.write_state() = state;
    Ok(shared)
}

/// The head of an opened segment, and the keys of a batch that was not finished.
fn recover(layout: &Layout, segment: &Segment, header: &Header) -> Result<(Head, Vec<::sled::IVec>), OpenError> {
    let Tail { last, unfinished } = guard(|| segment.tail()).map_err(opening(layout, segment.number))?;
    let Some((first, frame)) = last else { return Ok((header.head(), unfinished)) };
    let damage = |what: String| damaged(&layout.segment(segment.number), what);
    let entries = frame::decode(&frame).map_err(|what| damage(format!("record {first} is in {what}")))?;
    let mut head: Option<Head> = None;
    for (sequence, framed) in (first.0..).map(Sequence).zip(&entries) {
        let envelope = Envelope::decode(framed.envelope())
            .map_err(|error| damage(format!("the envelope of record {sequence} does not decode: {error}")))?;
        if envelope.sequence != sequence || head.is_some_and(|head| head.hash != envelope.prev) {
            return Err(damage(format!("record {sequence} does not continue the chain")));
        }
        head = Some(Head { sequence, hash: Hash::leaf(framed.envelope()) });
    }
    Ok((head.unwrap_or_else(|| header.head()), unfinished))
}

fn drop_unfinished(segment: &Segment, unfinished: &[::sled::IVec]) -> Result<(), Cause> {
    if unfinished.is_empty() {
        return Ok(());
    }
    tracing::warn!(frames = unfinished.len(), "dropped a batch that was cut short; nobody was told it was written");
    guard(|| {
        // From the last one backwards, so that a crash in between leaves no gap.
        for key in unfinished {
            segment.db.remove(key)?;
        }
        segment.sync()
    })
}

fn month_of_first(segment: &Segment) -> Result<Option<(i32, u32)>, Cause> {
    let Some((_, frame)) = segment.db.first()? else { return Ok(None) };
    let entries = frame::decode(&Bytes::copy_from_slice(&frame)).map_err(|what| Cause::Other(what.to_owned()))?;
    let envelope = Envelope::decode(entries[0].envelope()).map_err(|error| Cause::Other(error.to_string()))?;
    Ok(Some(month_of(envelope.time)))
}

fn month_of(time: Timestamp) -> (i32, u32) {
    let date = time.to_chrono();
    (date.year(), date.month())
}

fn opening(layout: &Layout, number: u32) -> impl FnOnce(Cause) -> OpenError {
    let path = layout.segment(number);
    move |source| OpenError::Failed { path, source }
}

fn into_cause(error: OpenError) -> Cause {
    match error {
        OpenError::Failed { source, .. } => source,
        other => Cause::Other(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
