//! Typed ids, sequences and counters.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use stanch_playbook::Timestamp;
use uuid::Uuid;

macro_rules! uuids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "format": "uuid"})
            }
        }

        impl $name {
            /// The id that the record at `sequence` introduces: a `UUIDv7` of `now`, counted by the sequence within a
            /// millisecond so that ids order as their records do, the rest derived from the journal's id and the
            /// sequence. The core has no randomness; equal histories have equal ids.
            #[must_use]
            pub fn derive(journal: JournalId, sequence: Sequence, now: Timestamp) -> Self {
                let mut hash = Sha256::new();
                hash.update(stringify!($name));
                hash.update(journal.0);
                hash.update(sequence.0.to_be_bytes());
                let hash = hash.finalize();
                let mut random = [0; 10];
                random.copy_from_slice(&hash[..10]);
                random[..4].copy_from_slice(&counter(sequence));
                let millis = u64::try_from(now.as_millis()).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
            }
        }
    )*};
}

/// The low 26 bits of a sequence where a `UUIDv7` has bits to count with (RFC 9562, 6.2, method 1): four of the first
/// byte, eight of the second, six of the third, eight of the fourth.
const fn counter(sequence: Sequence) -> [u8; 4] {
    let [_, _, _, _, a, b, c, d] = (sequence.0 << 2).to_be_bytes();
    [a & 0x0f, b, c >> 2, (c << 6) | (d >> 2)]
}

uuids! {
    /// A run.
    RunId;
    /// An incident.
    IncidentId;
    /// A dead letter.
    DeadLetterId;
    /// A containment.
    ContainmentId;
    /// A question to people.
    ApprovalId;
    /// A maintenance window.
    MaintenanceId;
}

/// A journal's identity, drawn once when it is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema, Default)]
#[serde(transparent)]
pub struct JournalId(pub Uuid);

/// A record's place in the journal; the first is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, Default)]
#[serde(transparent)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The place after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// How many times engines have started on this journal; an attempt of an older epoch is fenced.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema, Default)]
#[serde(transparent)]
pub struct Epoch(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_millisecond_order_as_their_records_do() {
        let id = |sequence| {
            RunId::derive(JournalId::default(), Sequence(sequence), Timestamp::from_millis(1_795_000_000_000))
        };
        let steps =
            (0..5000).chain(16_000..17_000).chain((1 << 22) - 500..(1 << 22) + 500).chain((1 << 26) - 9..1 << 26);
        let ids: Vec<RunId> = steps.map(id).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
        assert_eq!(ids[7].0.get_version_num(), 7);
    }
}
