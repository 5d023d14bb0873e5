//! A stored record: envelope and payload as they were hashed.

use bytes::Bytes;
use stanch_core::record::{Body, DecodeError, Record, Redacted};

use crate::envelope::{self, Envelope};
use crate::hash::Hash;
use crate::{Head, Refusal};

/// A record as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The canonical envelope, exactly as hashed.
    pub envelope: Bytes,
    /// The payload; none where it was deleted.
    pub payload: Option<Payload>,
}

/// A payload and the salt of its digest; they are deleted together.
#[derive(Clone, Debug, PartialEq)]
pub struct Payload {
    /// Sixteen random bytes, without which a short payload could be guessed from its digest.
    pub salt: [u8; 16],
    /// The body's fields as JSON, exactly as hashed.
    pub bytes: Bytes,
}

/// An entry that is no record.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The envelope does not decode.
    #[error("the envelope does not decode; a newer stanch may have written it")]
    Envelope(#[source] serde_json::Error),
    /// The payload does not decode.
    #[error(transparent)]
    Payload(#[from] DecodeError),
}

impl Entry {
    /// The record; where the payload was deleted, one with [`Body::Redacted`].
    ///
    /// # Errors
    /// [`EntryError`] where envelope or payload are not of a shape that this version knows.
    pub fn record(&self) -> Result<Record, EntryError> {
        let envelope = Envelope::decode(&self.envelope).map_err(EntryError::Envelope)?;
        let body = match &self.payload {
            Some(payload) => Body::decode(&envelope.kind, &payload.bytes)?,
            None => Body::Redacted(Redacted { kind: envelope.kind, run: envelope.run }),
        };
        Ok(Record { sequence: envelope.sequence, time: envelope.time, actor: envelope.actor, body })
    }

    /// The hash of the envelope, which the next one carries as `prev`.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::leaf(&self.envelope)
    }

    /// Writes the entry as one line of an export: `{"envelope":..,"payload":..,"salt":".."}` and a line feed, the inner
    /// bytes exactly as hashed; of a deleted payload, the envelope alone.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"envelope\":");
        out.extend_from_slice(&self.envelope);
        if let Some(payload) = &self.payload {
            out.extend_from_slice(b",\"payload\":");
            out.extend_from_slice(&payload.bytes);
            out.extend_from_slice(b",\"salt\":\"");
            let mut salt = [0; 32];
            hex::encode_to_slice(payload.salt, &mut salt).expect("32 is twice 16");
            out.extend_from_slice(&salt);
            out.push(b'"');
        }
        out.extend_from_slice(b"}\n");
    }
}

/// Turns records into entries.
#[derive(Default)]
pub(crate) struct Sealer {
    salts: Vec<[u8; 16]>,
}

impl Sealer {
    /// Chains the record to `head`, and moves `head` to it.
    pub(crate) fn seal(&mut self, head: &mut Head, record: &Record) -> Result<Entry, Refusal> {
        if record.sequence != head.sequence.next() {
            return Err(Refusal::OutOfOrder);
        }
        if matches!(record.body, Body::Redacted(_)) {
            return Err(Refusal::Redacted);
        }
        let payload = Payload { salt: self.salt(), bytes: record.body.payload().into() };
        let mut bytes = Vec::with_capacity(448);
        envelope::write(&mut bytes, record, Hash::salted(&payload.salt, &payload.bytes), head.hash);
        if bytes.len() > crate::frame::MAX_ENVELOPE {
            return Err(Refusal::EnvelopeTooLarge);
        }
        *head = Head { sequence: record.sequence, hash: Hash::leaf(&bytes) };
        Ok(Entry { envelope: bytes.into(), payload: Some(payload) })
    }

    /// Drawn from the system 64 at a time: a call costs more than the bytes.
    fn salt(&mut self) -> [u8; 16] {
        if let Some(salt) = self.salts.pop() {
            return salt;
        }
        let mut random = [0; 1024];
        getrandom::fill(&mut random).expect("linux gives random bytes once it has booted");
        self.salts.extend(random.as_chunks::<16>().0);
        self.salts.pop().expect("1024 bytes are 64 salts")
    }
}
