//! How the entries of a batch lie in the database: few values, none large.
//!
//! A frame holds consecutive entries and is keyed by the first one's sequence. A batch that needs several says in the
//! last one that it ends; frames after the last such mark are a batch that was not finished, and do not count.
//!
//! ```text
//! frame: version (1 byte) · flags (1: the batch ends here) · entry ...
//! entry: kind (0 inline, 1 artifact, 2 deleted) · u16 length · envelope · [salt, 16 bytes] · [u16 length · payload]
//! ```

use std::ops::Range;

use bytes::Bytes;
use stanch_core::id::Sequence;

use crate::entry::{Entry, Payload};

/// sled turns a leaf of 16 entries that reaches 128 KiB into a file that it never syncs.
pub(crate) const MAX_FRAME: usize = 7 * 1024;
/// A larger payload becomes a file.
pub(crate) const MAX_INLINE: usize = 4 * 1024;
/// So that an entry without its payload always fits a frame.
pub(crate) const MAX_ENVELOPE: usize = 6 * 1024;

const VERSION: u8 = 1;
const HEADER: usize = 2;
const BATCH_ENDS: u8 = 1;
const INLINE: u8 = 0;
const ARTIFACT: u8 = 1;
const DELETED: u8 = 2;

/// The frames of one batch, filled entry by entry; reused from batch to batch.
#[derive(Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    frames: Vec<(Sequence, Range<usize>)>,
}

impl Frames {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.frames.clear();
    }

    /// Whether the entry's payload must be a file.
    pub(crate) fn needs_artifact(entry: &Entry) -> bool {
        entry
            .payload
            .as_ref()
            .is_some_and(|payload| payload.bytes.len() > MAX_INLINE || HEADER + size(entry, true) > MAX_FRAME)
    }

    pub(crate) fn push(&mut self, sequence: Sequence, entry: &Entry, artifact: bool) {
        let fits = self.frames.last().is_some_and(|(_, range)| range.len() + size(entry, !artifact) <= MAX_FRAME);
        if !fits {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(&[VERSION, 0]);
            self.frames.push((sequence, start..start));
        }
        let kind = match (&entry.payload, artifact) {
            (None, _) => DELETED,
            (Some(_), true) => ARTIFACT,
            (Some(_), false) => INLINE,
        };
        self.bytes.push(kind);
        push_sized(&mut self.bytes, &entry.envelope);
        if let Some(payload) = &entry.payload {
            self.bytes.extend_from_slice(&payload.salt);
            if !artifact {
                push_sized(&mut self.bytes, &payload.bytes);
            }
        }
        self.frames.last_mut().expect("a frame was begun above").1.end = self.bytes.len();
    }

    /// Marks the last frame as the batch's end, and gives all of them in order.
    pub(crate) fn finish(&mut self) -> impl Iterator<Item = (Sequence, &[u8])> {
        if let Some((_, range)) = self.frames.last() {
            self.bytes[range.start + 1] |= BATCH_ENDS;
        }
        self.frames.iter().map(|(sequence, range)| (*sequence, &self.bytes[range.clone()]))
    }
}

fn size(entry: &Entry, inline: bool) -> usize {
    let payload = entry.payload.as_ref().map_or(0, |payload| 16 + if inline { 2 + payload.bytes.len() } else { 0 });
    1 + 2 + entry.envelope.len() + payload
}

fn push_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).expect("envelopes and inline payloads are below 7 KiB");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// An entry of a frame; a payload in a file is still to be read.
pub(crate) enum Framed {
    Whole(Entry),
    Artifact { envelope: Bytes, salt: [u8; 16] },
}

impl Framed {
    pub(crate) fn envelope(&self) -> &Bytes {
        match self {
            Self::Whole(entry) => &entry.envelope,
            Self::Artifact { envelope, .. } => envelope,
        }
    }
}

/// Whether the frame is the last of its batch; false for bytes that are no frame.
pub(crate) fn batch_ends(frame: &[u8]) -> bool {
    frame.get(1).is_some_and(|flags| flags & BATCH_ENDS != 0)
}

/// The entries of a frame, or what is wrong with it.
pub(crate) fn decode(frame: &Bytes) -> Result<Vec<Framed>, &'static str> {
    let mut rest = Rest { frame, at: HEADER };
    match frame.first() {
        Some(&VERSION) if frame.len() >= HEADER => {}
        _ => return Err("a frame of unknown form"),
    }
    let mut entries = Vec::with_capacity(8);
    while rest.at < frame.len() {
        let kind = rest.take(1)?[0];
        let envelope = rest.sized()?;
        entries.push(match kind {
            DELETED => Framed::Whole(Entry { envelope, payload: None }),
            INLINE => {
                let salt = rest.salt()?;
                Framed::Whole(Entry { envelope, payload: Some(Payload { salt, bytes: rest.sized()? }) })
            }
            ARTIFACT => Framed::Artifact { envelope, salt: rest.salt()? },
            _ => return Err("an entry of unknown form"),
        });
    }
    if entries.is_empty() { Err("a frame without entries") } else { Ok(entries) }
}

struct Rest<'a> {
    frame: &'a Bytes,
    at: usize,
}

impl Rest<'_> {
    fn take(&mut self, length: usize) -> Result<Bytes, &'static str> {
        let end = self.at + length;
        if end > self.frame.len() {
            return Err("a frame that ends early");
        }
        let bytes = self.frame.slice(self.at..end);
        self.at = end;
        Ok(bytes)
    }

    fn sized(&mut self) -> Result<Bytes, &'static str> {
        let length = self.take(2)?;
        self.take(usize::from(u16::from_le_bytes([length[0], length[1]])))
    }

    fn salt(&mut self) -> Result<[u8; 16], &'static str> {
        let mut salt = [0; 16];
        salt.copy_from_slice(&self.take(16)?);
        Ok(salt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(envelope: usize, payload: Option<usize>) -> Entry {
        Entry {
            envelope: vec![b'e'; envelope].into(),
            payload: payload.map(|length| Payload { salt: [7; 16], bytes: vec![b'p'; length].into() }),
        }
    }

    #[test]
    fn no_frame_is_larger_than_the_limit_and_the_last_one_ends_the_batch() {
        let entries: Vec<_> = (0..40).map(|i| entry(300 + i, Some(i * 100))).collect();
        let mut frames = Frames::default();
        for (sequence, entry) in (1..).zip(&entries) {
            frames.push(Sequence(sequence), entry, false);
        }
        let frames: Vec<_> = frames.finish().map(|(at, frame)| (at, Bytes::copy_from_slice(frame))).collect();
        assert!(frames.len() > 5, "{}", frames.len());
        assert!(frames.iter().all(|(_, frame)| frame.len() <= MAX_FRAME));
        let ends: Vec<_> = frames.iter().map(|(_, frame)| batch_ends(frame)).collect();
        assert_eq!(ends.iter().rposition(|end| !end), Some(ends.len() - 2));
        assert_eq!(ends.last(), Some(&true));
        let mut next = 0;
        for (at, frame) in &frames {
            assert_eq!(at.0, next as u64 + 1);
            for framed in decode(frame).unwrap() {
                assert!(matches!(framed, Framed::Whole(found) if found == entries[next]));
                next += 1;
            }
        }
        assert_eq!(next, entries.len());
    }

    #[test]
    fn deleted_and_artifact_payloads_come_back_as_such() {
        let mut frames = Frames::default();
        frames.push(Sequence(1), &entry(10, None), false);
        frames.push(Sequence(2), &entry(10, Some(600_000)), true);
        let frame = Bytes::copy_from_slice(frames.finish().next().unwrap().1);
        let found = decode(&frame).unwrap();
        assert!(matches!(&found[0], Framed::Whole(Entry { payload: None, .. })));
        assert!(matches!(&found[1], Framed::Artifact { salt: [7, ..], .. }));
    }

    #[test]
    fn an_inline_payload_beside_a_long_envelope_goes_to_a_file() {
        assert!(!Frames::needs_artifact(&entry(400, Some(MAX_INLINE))));
        assert!(Frames::needs_artifact(&entry(400, Some(MAX_INLINE + 1))));
        assert!(Frames::needs_artifact(&entry(MAX_ENVELOPE, Some(2_000))));
    }

    proptest::proptest! {
        #[test]
        fn bytes_of_any_shape_never_panic(bytes: Vec<u8>) {
            let mut frame = vec![VERSION, BATCH_ENDS];
            frame.extend(bytes);
            let _ = decode(&frame.into());
        }
    }
}
