//! Writes an export, and checks one offline: nothing but the lines themselves is needed.
//!
//! What this cannot find without a head's hash that was noted elsewhere: an end that was cut off whole, and a rewrite of
//! everything.

use std::io::{self, BufRead, Read, Write};

use serde::Deserialize;
use serde_json::value::RawValue;
use stanch_core::id::Sequence;

use crate::entry::{Entry, Payload};
use crate::envelope::Envelope;
use crate::hash::Hash;
use crate::{ReadError, Reader};

/// What an export is said to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// All records from the first line's to the last line's: a gap is an error.
    Whole,
    /// Some records in order, such as those of one run: gaps are allowed.
    Excerpt,
}

/// An export that holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// The first record's place.
    pub first: Sequence,
    /// The last record's place.
    pub last: Sequence,
    /// How many records there are.
    pub count: u64,
    /// The last envelope's hash: compare it with one that was noted elsewhere.
    pub head_hash: Hash,
    /// How many of them have had their payload deleted.
    pub redacted: u64,
    /// Whether no record is left out between the first and the last.
    pub contiguous: bool,
    /// Whether it begins with the journal's first record. If not, what lay before is taken on trust.
    pub from_start: bool,
    /// The record whose hash was noted.
    pub noted: Option<Sequence>,
}

/// The first record that does not hold.
#[derive(Debug, thiserror::Error)]
#[error("record {sequence} (line {line}) does not hold: {reason}")]
pub struct Broken {
    /// The record: where its own line does not say, the one that belongs there.
    pub sequence: Sequence,
    /// The line, from 1.
    pub line: u64,
    /// Why; part of the message.
    pub reason: Reason,
}

/// Why a record does not hold.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// There is no line.
    #[error("the export is empty")]
    Empty,
    /// The file could not be read.
    #[error("the file cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// The line is longer than any record.
    #[error("the line is longer than {MAX_LINE} bytes")]
    TooLong,
    /// The last line has no end.
    #[error("the line ends in the middle; the export was cut off")]
    CutOff,
    /// The line is empty, and more follows.
    #[error("the line is blank, and more lines follow it")]
    Blank,
    /// The line is no record.
    #[error("the line is not a record of an export: {0}")]
    Garbage(#[source] serde_json::Error),
    /// The bytes are not as they were written.
    #[error("the line is not in the form in which records are written")]
    NotCanonical,
    /// A record is not there.
    #[error("it is missing; record {0} stands in its place")]
    Missing(Sequence),
    /// A record is where a later one belongs.
    #[error("record {0} stands in its place, out of order or a second time")]
    OutOfOrder(Sequence),
    /// The payload is not the one that was hashed.
    #[error("its payload or salt was changed")]
    Payload,
    /// The chain does not pass through it.
    #[error("its envelope was changed: it is not the one that the record after it names")]
    Chain,
    /// The first record has one before it.
    #[error("it names a record before it, and it is the journal's first")]
    Start,
}

/// No record is longer: intake takes at most a few MiB, and a base64 of it.
const MAX_LINE: u64 = 256 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    envelope: &'a RawValue,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(default)]
    salt: Option<&'a str>,
}

/// One line, checked by itself.
struct Checked {
    envelope: Envelope,
    hash: Hash,
    redacted: bool,
}

/// Checks an export: the form of each line, the order of sequences, the chain, and each payload's digest. Looks also for
/// the record whose hash is `noted`, such as the head of an earlier export. Blank lines at the end are no lines.
///
/// # Errors
/// [`Broken`] with the first record that does not hold.
pub fn verify(mut export: impl BufRead, scope: Scope, noted: Option<Hash>) -> Result<Verified, Broken> {
    let mut line = Vec::new();
    let mut number = 0;
    let mut verified: Option<Verified> = None;
    loop {
        number += 1;
        let belongs = verified.as_ref().map_or(Sequence(1), |verified| verified.last.next());
        let broken = |sequence, reason| Broken { sequence, line: number, reason };
        if !read_line(&mut export, &mut line).map_err(|reason| broken(belongs, reason))? {
            return verified.ok_or(broken(Sequence(1), Reason::Empty));
        }
        if line.is_empty() {
            while read_line(&mut export, &mut line).map_err(|reason| broken(belongs, reason))? {
                if !line.is_empty() {
                    return Err(broken(belongs, Reason::Blank));
                }
            }
            return verified.ok_or(broken(Sequence(1), Reason::Empty));
        }
        let checked = check_line(&line).map_err(|(found, reason)| broken(found.unwrap_or(belongs), reason))?;
        let found = checked.envelope.sequence;
        let is_noted = (noted == Some(checked.hash)).then_some(found);
        let Some(verified) = &mut verified else {
            if found == Sequence(0) || (found == Sequence(1) && checked.envelope.prev != Hash::default()) {
                return Err(broken(found, Reason::Start));
            }
            verified = Some(Verified {
                first: found,
                last: found,
                count: 1,
                head_hash: checked.hash,
                redacted: u64::from(checked.redacted),
                contiguous: true,
                from_start: found == Sequence(1),
                noted: is_noted,
            });
            continue;
        };
        if found < belongs {
            return Err(broken(belongs, Reason::OutOfOrder(found)));
        }
        if found > belongs && scope == Scope::Whole {
            return Err(broken(belongs, Reason::Missing(found)));
        }
        if found == belongs && checked.envelope.prev != verified.head_hash {
            // One of the two was changed. The one after them, if it is there, names this one as it was written.
            let next = read_line(&mut export, &mut line).is_ok_and(|more| more).then(|| check_line(&line).ok());
            let this_is_changed = next
                .flatten()
                .is_some_and(|next| next.envelope.sequence == found.next() && next.envelope.prev != checked.hash);
            return Err(if this_is_changed {
                broken(found, Reason::Chain)
            } else {
                Broken { sequence: verified.last, line: number - 1, reason: Reason::Chain }
            });
        }
        verified.contiguous &= found == belongs;
        verified.last = found;
        verified.count += 1;
        verified.head_hash = checked.hash;
        verified.redacted += u64::from(checked.redacted);
        verified.noted = verified.noted.or(is_noted);
    }
}

/// Reads a line without its end; false where there is none.
fn read_line(export: &mut impl BufRead, line: &mut Vec<u8>) -> Result<bool, Reason> {
    line.clear();
    export.take(MAX_LINE).read_until(b'\n', line).map_err(Reason::Unreadable)?;
    if line.last() == Some(&b'\n') {
        line.pop();
        return Ok(true);
    }
    if line.len() as u64 == MAX_LINE { Err(Reason::TooLong) } else { Ok(!line.is_empty()) }
}

fn check_line(bytes: &[u8]) -> Result<Checked, (Option<Sequence>, Reason)> {
    let garbage =
        |error: serde_json::Error| (None, if error.is_eof() { Reason::CutOff } else { Reason::Garbage(error) });
    let line: Line<'_> = serde_json::from_slice(bytes).map_err(garbage)?;
    let raw = line.envelope.get().as_bytes();
    let envelope = Envelope::decode(raw).map_err(garbage)?;
    let at = |reason| (Some(envelope.sequence), reason);
    let payload = match (line.payload, line.salt) {
        (Some(payload), Some(text)) => {
            let mut salt = [0; 16];
            hex::decode_to_slice(text, &mut salt).map_err(|_| at(Reason::Payload))?;
            if Hash::salted(&salt, payload.get().as_bytes()) != envelope.payload {
                return Err(at(Reason::Payload));
            }
            Some(Payload { salt, bytes: bytes::Bytes::copy_from_slice(payload.get().as_bytes()) })
        }
        (None, None) => None,
        _ => return Err(at(Reason::Payload)),
    };
    let redacted = payload.is_none();
    let mut written = Vec::with_capacity(bytes.len() + 1);
    Entry { envelope: envelope.canonical().into(), payload }.write_line(&mut written);
    if written.strip_suffix(b"\n") != Some(bytes) {
        return Err(at(Reason::NotCanonical));
    }
    let hash = Hash::leaf(raw);
    Ok(Checked { envelope, hash, redacted })
}

/// Why an export could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The journal could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What is written to said no.
    #[error("the export cannot be written")]
    Write(#[from] io::Error),
}

/// Writes all records from `from` on as lines that [`verify`](fn@verify) takes, and says how many.
///
/// # Errors
/// [`ExportError`] where reading or writing fails.
pub fn export(reader: &dyn Reader, from: Sequence, out: &mut impl Write) -> Result<u64, ExportError> {
    let head = reader.head().sequence;
    let (mut next, mut count) = (from, 0);
    let mut lines = Vec::new();
    while next <= head {
        let entries = reader.read(next, 1_024)?;
        let Some(last) = entries.last() else { break };
        next = Envelope::decode(&last.envelope)
            .map_err(|error| ReadError::Damaged { sequence: next, what: error.to_string() })?
            .sequence
            .next();
        lines.clear();
        for entry in &entries {
            entry.write_line(&mut lines);
        }
        out.write_all(&lines)?;
        count += entries.len() as u64;
    }
    out.flush()?;
    Ok(count)
}

#[cfg(test)]
mod tests;
