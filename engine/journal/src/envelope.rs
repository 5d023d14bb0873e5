//! The part of a record that is hashed and chained.
//!
//! Canonical form: one JSON object, keys sorted, no spaces, absent fields left out, texts escaped as RFC 8785 says.
//! Absent: content. What a person may want deleted stands in the payload, of which the envelope has a salted digest.

use serde::Deserialize;
use stanch_core::id::{Epoch, IncidentId, RunId, Sequence};
use stanch_core::record::{Actor, Record};
use stanch_playbook::{PlanDigest, StepKey, Timestamp};
use uuid::Uuid;

use crate::hash::Hash;

/// An envelope, decoded.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Who caused the record.
    pub actor: Actor,
    /// The attempt's number.
    pub attempt: Option<u32>,
    /// The attempt's or the engine's epoch.
    pub epoch: Option<Epoch>,
    /// The incident.
    pub incident: Option<IncidentId>,
    /// The kind, as `Body::kind` names it.
    pub kind: String,
    /// The outcome, in one word.
    pub outcome: Option<String>,
    /// SHA-256 of the salt and the payload's bytes.
    pub payload: Hash,
    /// The plan.
    pub plan: Option<PlanDigest>,
    /// The hash of the envelope before; zeros for the first.
    pub prev: Hash,
    /// The run.
    pub run: Option<RunId>,
    /// The record's place.
    pub sequence: Sequence,
    /// The step.
    pub step: Option<StepKey>,
    /// When it was decided.
    pub time: Timestamp,
}

impl Envelope {
    /// An envelope from its stored bytes. Lenient about form: compare with [`Envelope::canonical`] where that matters.
    ///
    /// # Errors
    /// What serde says of bytes that are no envelope.
    pub fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The canonical bytes, which are what is hashed.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        let fields = Fields {
            actor: self.actor.as_str(),
            attempt: self.attempt,
            epoch: self.epoch,
            incident: self.incident,
            kind: &self.kind,
            outcome: self.outcome.as_deref(),
            payload: self.payload,
            plan: self.plan,
            prev: self.prev,
            run: self.run,
            sequence: self.sequence,
            step: self.step.as_ref(),
            time: self.time,
        };
        fields.write(&mut out);
        out
    }
}

/// Writes the canonical envelope of a record.
pub(crate) fn write(out: &mut Vec<u8>, record: &Record, payload: Hash, prev: Hash) {
    let outline = record.body.outline();
    let fields = Fields {
        actor: record.actor.as_str(),
        attempt: outline.attempt,
        epoch: outline.epoch,
        incident: outline.incident,
        kind: record.body.kind(),
        outcome: outline.outcome,
        payload,
        plan: outline.plan,
        prev,
        run: outline.run,
        sequence: record.sequence,
        step: outline.step,
        time: record.time,
    };
    fields.write(out);
}

struct Fields<'a> {
    actor: &'a str,
    attempt: Option<u32>,
    epoch: Option<Epoch>,
    incident: Option<IncidentId>,
    kind: &'a str,
    outcome: Option<&'a str>,
    payload: Hash,
    plan: Option<PlanDigest>,
    prev: Hash,
    run: Option<RunId>,
    sequence: Sequence,
    step: Option<&'a StepKey>,
    time: Timestamp,
}

impl Fields<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"actor\":");
        push_text(out, self.actor);
        if let Some(attempt) = self.attempt {
            out.extend_from_slice(b",\"attempt\":");
            push_number(out, u64::from(attempt));
        }
        if let Some(epoch) = self.epoch {
            out.extend_from_slice(b",\"epoch\":");
            push_number(out, epoch.0);
        }
        if let Some(incident) = self.incident {
            out.extend_from_slice(b",\"incident\":\"");
            push_uuid(out, incident.0);
            out.push(b'"');
        }
        out.extend_from_slice(b",\"kind\":");
        push_text(out, self.kind);
        if let Some(outcome) = self.outcome {
            out.extend_from_slice(b",\"outcome\":");
            push_text(out, outcome);
        }
        out.extend_from_slice(b",\"payload\":\"");
        self.payload.push_hex(out);
        if let Some(plan) = self.plan {
            out.extend_from_slice(b"\",\"plan\":\"");
            Hash(plan.0).push_hex(out);
        }
        out.extend_from_slice(b"\",\"prev\":\"");
        self.prev.push_hex(out);
        out.push(b'"');
        if let Some(run) = self.run {
            out.extend_from_slice(b",\"run\":\"");
            push_uuid(out, run.0);
            out.push(b'"');
        }
        out.extend_from_slice(b",\"sequence\":");
        push_number(out, self.sequence.0);
        if let Some(step) = self.step {
            out.extend_from_slice(b",\"step\":");
            push_text(out, step.as_str());
        }
        out.extend_from_slice(b",\"time\":\"");
        push_time(out, self.time);
        out.extend_from_slice(b"\"}");
    }
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        serde_json::to_writer(out, text).expect("a text is always JSON");
    }
}

fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn push_uuid(out: &mut Vec<u8>, uuid: Uuid) {
    let mut text = [0; 36];
    uuid.hyphenated().encode_lower(&mut text);
    out.extend_from_slice(&text);
}

/// As `Timestamp` displays itself, four times as fast: every record has one.
fn push_time(out: &mut Vec<u8>, time: Timestamp) {
    let seconds = time.as_nanos().div_euclid(1_000_000_000);
    let nanos = time.as_nanos().rem_euclid(1_000_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to a civil date, by Howard Hinnant's algorithm (http://howardhinnant.github.io/date_algorithms.html).
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    push_padded(out, year, 4);
    out.push(b'-');
    push_padded(out, month, 2);
    out.push(b'-');
    push_padded(out, day, 2);
    out.push(b'T');
    push_padded(out, second / 3_600, 2);
    out.push(b':');
    push_padded(out, second / 60 % 60, 2);
    out.push(b':');
    push_padded(out, second % 60, 2);
    if nanos > 0 {
        out.push(b'.');
        if nanos % 1_000_000 == 0 {
            push_padded(out, nanos / 1_000_000, 3);
        } else if nanos % 1_000 == 0 {
            push_padded(out, nanos / 1_000, 6);
        } else {
            push_padded(out, nanos, 9);
        }
    }
    out.push(b'Z');
}

fn push_padded(out: &mut Vec<u8>, number: i64, width: usize) {
    let start = out.len();
    out.resize(start + width, b'0');
    let mut rest = number.unsigned_abs();
    for digit in out[start..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn envelope() -> impl Strategy<Value = Envelope> {
        (
            (".*", any::<Option<u32>>(), any::<Option<u64>>(), any::<Option<u128>>(), "[A-Za-z]*"),
            (any::<Option<String>>(), any::<[u8; 32]>(), any::<Option<[u8; 32]>>(), any::<[u8; 32]>()),
            (any::<Option<u128>>(), any::<u64>(), any::<Option<String>>(), any::<i64>(), 0..4u32),
        )
            .prop_map(|(a, b, c)| Envelope {
                actor: Actor::from_record(&a.0),
                attempt: a.1,
                epoch: a.2.map(Epoch),
                incident: a.3.map(|id| IncidentId(Uuid::from_u128(id))),
                kind: a.4,
                outcome: b.0,
                payload: Hash(b.1),
                plan: b.2.map(PlanDigest),
                prev: Hash(b.3),
                run: c.0.map(|id| RunId(Uuid::from_u128(id))),
                sequence: Sequence(c.1),
                step: c.2.map(StepKey::new),
                time: Timestamp::from_nanos(c.3 / 1_000_i64.pow(c.4) * 1_000_i64.pow(c.4)),
            })
    }

    proptest! {
        #[test]
        fn canonical_bytes_are_what_serde_writes_with_sorted_keys(envelope in envelope()) {
            let bytes = envelope.canonical();
            let mut fields = serde_json::Map::new();
            let mut put = |key: &str, value: serde_json::Value| {
                if !value.is_null() {
                    fields.insert(key.to_owned(), value);
                }
            };
            put("actor", envelope.actor.as_str().into());
            put("attempt", envelope.attempt.into());
            put("epoch", envelope.epoch.map(|epoch| epoch.0).into());
            put("incident", envelope.incident.map(|id| id.to_string()).into());
            put("kind", envelope.kind.clone().into());
            put("outcome", envelope.outcome.clone().into());
            put("payload", envelope.payload.to_string().into());
            put("plan", envelope.plan.map(|plan| plan.to_string()).into());
            put("prev", envelope.prev.to_string().into());
            put("run", envelope.run.map(|id| id.to_string()).into());
            put("sequence", envelope.sequence.0.into());
            put("step", envelope.step.as_ref().map(|step| step.as_str()).into());
            put("time", envelope.time.to_string().into());
            prop_assert_eq!(std::str::from_utf8(&bytes).unwrap(), serde_json::to_string(&fields).unwrap());
        }

        #[test]
        fn decoding_gives_the_envelope_back(envelope in envelope()) {
            prop_assert_eq!(Envelope::decode(&envelope.canonical()).unwrap(), envelope);
        }
    }

    #[test]
    fn unknown_fields_are_refused() {
        let bytes = br#"{"actor":"engine","colour":"red"}"#;
        assert!(Envelope::decode(bytes).unwrap_err().to_string().contains("colour"));
    }
}
