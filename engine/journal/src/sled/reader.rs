//! Reading: what is durable, from the active segment and from sealed ones that are opened as they are asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use stanch_core::id::Sequence;

use crate::entry::{Entry, Payload};
use crate::envelope::Envelope;
use crate::frame::{self, Framed};
use crate::segments::{self, Layout, Listed, Segment};
use crate::{Head, ReadError, Reader, artifacts};

/// What writer and readers share.
pub(super) struct Shared {
    pub(super) layout: Layout,
    pub(super) cache_bytes: u64,
    state: RwLock<State>,
    /// Sealed segments that were read lately, the latest last.
    sealed: Mutex<Vec<Arc<Segment>>>,
    _lock: File,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) segments: Vec<Listed>,
    /// The last segment, open; none while the journal is being opened again.
    pub(super) active: Option<Arc<Segment>>,
    /// The end of what is durable.
    pub(super) head: Head,
}

/// How many sealed segments stay open for reading.
const SEALED_OPEN: usize = 2;
/// A read ends with the entry that reaches this.
const READ_BYTES: usize = 1 << 20;

impl Shared {
    pub(super) fn new(layout: Layout, cache_bytes: u64, lock: File) -> Arc<Self> {
        Arc::new(Self { layout, cache_bytes, state: RwLock::default(), sealed: Mutex::default(), _lock: lock })
    }

    pub(super) fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sealed(&self) -> MutexGuard<'_, Vec<Arc<Segment>>> {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open segment that holds a sequence, and the first sequence after it.
    fn segment_of(&self, sequence: Sequence) -> Result<Option<(Arc<Segment>, Sequence)>, ReadError> {
        let (listed, end) = {
            let state = self.read_state();
            let active = state.active.as_ref().ok_or(ReadError::Closed)?;
            let at = state.segments.partition_point(|listed| listed.header.first <= sequence);
            let Some(listed) = at.checked_sub(1).map(|at| state.segments[at]) else { return Ok(None) };
            match state.segments.get(at) {
                None => return Ok(Some((Arc::clone(active), state.head.sequence.next()))),
                Some(next) => (listed, next.header.first),
            }
        };
        let mut sealed = self.sealed();
        if let Some(segment) = sealed.iter().find(|segment| segment.number == listed.number) {
            return Ok(Some((Arc::clone(segment), end)));
        }
        if sealed.len() >= SEALED_OPEN {
            sealed.remove(0);
        }
        let segment = Segment::open(&self.layout, listed.number, self.cache_bytes)
            .map_err(|error| ReadError::Segment(Box::new(error)))?;
        let segment = Arc::new(segment);
        sealed.push(Arc::clone(&segment));
        Ok(Some((segment, end)))
    }

    /// The entry, its payload read from its file where it is in one.
    fn complete(&self, segment: u32, sequence: Sequence, framed: Framed) -> Result<Entry, ReadError> {
        match framed {
            Framed::Whole(entry) => Ok(entry),
            Framed::Artifact { envelope, salt } => {
                let decoded = Envelope::decode(&envelope)
                    .map_err(|error| ReadError::Damaged { sequence, what: format!("its envelope: {error}") })?;
                let path = artifacts::path(&self.layout.artifacts(segment), decoded.payload);
                let bytes =
                    std::fs::read(&path).map_err(|source| ReadError::Artifact { sequence, path, source })?.into();
                Ok(Entry { envelope, payload: Some(Payload { salt, bytes }) })
            }
        }
    }
}

impl Reader for Shared {
    fn read(&self, from: Sequence, limit: usize) -> Result<Vec<Entry>, ReadError> {
        let (head, first) = {
            let state = self.read_state();
            (state.head.sequence, state.segments.first().map_or(Sequence(1), |listed| listed.header.first))
        };
        let mut next = from.max(first);
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while next <= head && entries.len() < limit && bytes < READ_BYTES {
            let Some((segment, end)) = self.segment_of(next)? else { break };
            let start = segment.frame_of(next).map_err(ReadError::Failed)?.map_or(next, |(first, _)| first);
            for item in segment.db.range(segments::key(start)..segments::key(end)) {
                let (key, frame) = item.map_err(|error| ReadError::Failed(error.into()))?;
                for (sequence, framed) in unpack(segments::sequence_of(&key), &Bytes::copy_from_slice(&frame))? {
                    if sequence < next {
                        continue;
                    }
                    if sequence > head || entries.len() >= limit || bytes >= READ_BYTES {
                        return Ok(entries);
                    }
                    if sequence != next {
                        return Err(ReadError::Damaged { sequence: next, what: "it is missing".into() });
                    }
                    let entry = self.complete(segment.number, sequence, framed)?;
                    bytes += entry.envelope.len() + entry.payload.as_ref().map_or(0, |payload| payload.bytes.len());
                    entries.push(entry);
                    next = next.next();
                }
            }
            if next < end {
                return Err(ReadError::Damaged { sequence: next, what: "it is missing".into() });
            }
        }
        Ok(entries)
    }

    fn visit(&self, sequences: &[Sequence], take: &mut dyn FnMut(Entry)) -> Result<(), ReadError> {
        let head = self.read_state().head.sequence;
        // What is asked for together mostly lies together: a frame is unpacked once for all that it holds.
        let mut unpacked: (u32, BTreeMap<Sequence, Framed>) = (0, BTreeMap::new());
        for &sequence in sequences.iter().filter(|sequence| **sequence <= head) {
            if !unpacked.1.contains_key(&sequence) {
                let Some((segment, _)) = self.segment_of(sequence)? else { continue };
                let missing = || ReadError::Damaged { sequence, what: "it is missing".into() };
                let (first, frame) = segment.frame_of(sequence).map_err(ReadError::Failed)?.ok_or_else(missing)?;
                unpacked = (segment.number, unpack(first, &frame)?.collect());
                if !unpacked.1.contains_key(&sequence) {
                    return Err(missing());
                }
            }
            if let Some(framed) = unpacked.1.remove(&sequence) {
                take(self.complete(unpacked.0, sequence, framed)?);
            }
        }
        Ok(())
    }

    fn head(&self) -> Head {
        self.read_state().head
    }
}

/// The entries of a frame with their places.
fn unpack(first: Sequence, frame: &Bytes) -> Result<impl Iterator<Item = (Sequence, Framed)>, ReadError> {
    let entries = frame::decode(frame).map_err(|what| ReadError::Damaged { sequence: first, what: what.to_owned() })?;
    Ok((first.0..).map(Sequence).zip(entries))
}
