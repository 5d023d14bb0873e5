//! What every journal must do, as one suite: `conformance_suite!(Subject)` makes a test of each case.
//!
//! The cases panic where a promise is broken.

use std::sync::Arc;

use stanch_core::id::{RunId, Sequence};
use stanch_core::record::{Actor, Body, Ending, Record, Redacted, StepEnded};
use stanch_playbook::{StepKey, Timestamp};
use uuid::Uuid;

use crate::verify::{Scope, export, verify};
use crate::{AppendError, Entry, Hash, Journal, Reader, Refusal};

/// A place to keep a journal, which outlives the journal's handle.
pub trait Subject {
    /// A new place.
    fn fresh() -> Self;

    /// Opens the journal there; no two handles are open at once.
    fn open(&self) -> Box<dyn Journal>;
}

/// Makes a `#[test]` of each case for a [`Subject`](crate::conformance::Subject).
#[macro_export]
macro_rules! conformance_suite {
    ($subject:ty) => {
        $crate::conformance_suite!(@ $subject:
            an_empty_journal_ends_at_zero,
            what_was_appended_reads_back,
            a_wrong_expectation_is_fenced_and_changes_nothing,
            a_refused_record_takes_its_batch_with_it,
            the_export_of_many_batches_verifies,
            reopening_gives_the_same_entries,
            a_payload_of_600_kb_survives,
            a_reader_sees_later_appends,
            single_entries_are_found,
        );
    };
    (@ $subject:ty: $($case:ident,)*) => {
        $(#[test]
        fn $case() {
            $crate::conformance::$case(&<$subject as $crate::conformance::Subject>::fresh());
        })*
    };
}

/// A record with a payload of about `size` bytes.
#[must_use]
pub fn record(sequence: u64, size: usize) -> Record {
    let filler = "a line of \"text\" with ünïcode\n";
    Record {
        sequence: Sequence(sequence),
        time: Timestamp::from_millis(1_790_000_000_000 + i64::try_from(sequence).unwrap_or(0)),
        actor: Actor::engine(),
        body: Body::StepEnded(StepEnded {
            item: None,
            run: RunId(Uuid::from_u128(u128::from(sequence / 12))),
            step: StepKey::new("contain.isolate"),
            ending: Ending::Skipped,
            reason: filler.repeat(size / filler.len()).into(),
        }),
    }
}

/// So many small records from `first` on.
#[must_use]
pub fn records(first: u64, count: u64) -> Vec<Record> {
    (first..first + count).map(|sequence| record(sequence, 100)).collect()
}

/// Appends batch after batch.
fn append_all(journal: &mut dyn Journal, batches: &[Vec<Record>]) {
    for batch in batches {
        let expected = journal.head().sequence;
        let head = journal.append(expected, batch).expect("the batch follows the head");
        assert_eq!(Some(head.sequence), batch.last().map(|record| record.sequence));
        assert_eq!(journal.head(), head);
    }
}

/// All entries.
fn read_all(reader: &Arc<dyn Reader>, limit: usize) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let more = reader.read(Sequence(entries.len() as u64 + 1), limit).expect("a journal reads");
        assert!(more.len() <= limit);
        if more.is_empty() {
            return entries;
        }
        entries.extend(more);
    }
}

fn decoded(entries: &[Entry]) -> Vec<Record> {
    entries.iter().map(|entry| entry.record().expect("what was written decodes")).collect()
}

/// Batches of 1, 2, 3 ... records with payloads from 100 to 5,000 bytes.
fn mixed_batches() -> Vec<Vec<Record>> {
    let mut next = 1;
    (1..=20)
        .map(|length| {
            let batch = (next..next + length).map(|at| record(at, 100 + (at as usize * 311) % 4_900)).collect();
            next += length;
            batch
        })
        .collect()
}

#[expect(missing_docs, reason = "the name is the promise")]
pub fn an_empty_journal_ends_at_zero(subject: &impl Subject) {
    let mut journal = subject.open();
    assert_eq!((journal.head().sequence, journal.head().hash), (Sequence(0), Hash::default()));
    assert_eq!(read_all(&journal.reader(), 10), []);
    assert_eq!(journal.append(Sequence(0), &[]).expect("an empty batch is no work").sequence, Sequence(0));
}

#[expect(missing_docs, reason = "the name is the promise")]
pub fn what_was_appended_reads_back(subject: &impl Subject) {
    let mut journal = subject.open();
    let batches = mixed_batches();
    append_all(&mut *journal, &batches);
    for limit in [1, 7, 1_000] {
        assert_eq!(decoded(&read_all(&journal.reader(), limit)), batches.concat());
    }
    assert_eq!(decoded(&journal.reader().read(Sequence(100), 3).expect("it reads")), batches.concat()[99..102]);
}

#[expect(missing_docs, reason = "the name is the promise")]
pub fn a_wrong_expectation_is_fenced_and_changes_nothing(subject: &impl Subject) {
    let mut journal = subject.open();
    append_all(&mut *journal, &[records(1, 5)]);
    for (expected, batch) in [(4, records(5, 1)), (6, records(7, 1)), (0, records(1, 1)), (4, Vec::new())] {
        match journal.append(Sequence(expected), &batch) {
            Err(AppendError::Fenced { expected: told, actual }) => {
                assert_eq!((told, actual), (Sequence(expected), Sequence(5)));
            }
            other => panic!("not fenced: {other:?}"),
        }
    }
    assert_eq!(decoded(&read_all(&journal.reader(), 10)), records(1, 5));
    append_all(&mut *journal, &[records(6, 1)]);
}

#[expect(missing_docs, reason = "the name is the promise")]
pub fn a_refused_record_takes_its_batch_with_it(subject: &impl Subject) {
    let mut journal = subject.open();
    append_all(&mut *journal, &[records(1, 5)]);
    let mut long = record(7, 100);
    long.actor = Actor::person(&"x".repeat(7_000));
    let mut redacted = record(7, 100);
    redacted.body = Body::Redacted(Redacted { kind: "StepEnded".into(), run: None });
    let cases = [
        (long, Refusal::EnvelopeTooLarge),
        (redacted, Refusal::Redacted),
        (record(8, 100), Refusal::OutOfOrder),
        (record(6, 100), Refusal::OutOfOrder),
    ];
    for (bad, expected) in cases {
        match journal.append(Sequence(5), &[record(6, 100), bad]) {
            Err(AppendError::Refused { refusal, .. }) => assert_eq!(refusal, expected),
            other => panic!("not refused: {other:?}"),
        }
        assert_eq!(journal.head().sequence, Sequence(5));
    }
    append_all(&mut *journal, &[records(6, 1)]);
    assert_eq!(decoded(&read_all(&journal.reader(), 10)), records(1, 6));
}

#[expect(missing_docs, reason = "the name is the promise")]
pub fn the_export_of_many_batches_verifies(subject: &impl Subject) {
    let mut journal = subject.open();
    append_all(&mut *journal, &mixed_batches());
    let mut lines = Vec::new();
    let count = export(&*journal.reader(), Sequence(1), &mut lines).expect("it exports");
    let verified = verify(&lines[..], Scope::Whole, None).expect("it holds");
    assert_eq!((verified.count, count), (210, 210));
    assert_eq!((verified.last, verified.head_hash), (journal.head().sequence, journal.head().hash));
}

#[expect(missing_docs, reason = "the name is the promise")]
pub fn reopening_gives_the_same_entries(subject: &impl Subject) {
    let batches = mixed_batches();
    let mut journal = subject.open();
    append_all(&mut *journal, &batches[..15]);
    let (id, head, entries) = (journal.id(), journal.head(), read_all(&journal.reader(), 100));
    drop(journal);

    let mut journal = subject.open();
    assert_eq!((journal.id(), journal.head()), (id, head));
    assert_eq!(read_all(&journal.reader(), 100), entries);
    let reader = journal.reader();
    append_all(&mut *journal, &batches[15..18]);
    let (head, entries) = (journal.head(), read_all(&reader, 100));
    assert_eq!(journal.reopen().expect("it opens again"), head);
    assert_eq!(read_all(&reader, 100), entries);
    append_all(&mut *journal, &batches[18..]);
    assert_eq!(decoded(&read_all(&reader, 100)), batches.concat());
}

#[expect(missing_docs, reason = "the name is the promise")]
pub fn a_payload_of_600_kb_survives(subject: &impl Subject) {
    let batch = vec![record(1, 100), record(2, 600_000), record(3, 600_000), record(4, 5_000), record(5, 100)];
    let mut journal = subject.open();
    append_all(&mut *journal, std::slice::from_ref(&batch));
    drop(journal);
    let reader = subject.open().reader();
    assert_eq!(decoded(&read_all(&reader, 100)), batch);
    assert_eq!(decoded(&reader.get(&[Sequence(3)]).expect("it reads")), batch[2..3]);
}

#[expect(missing_docs, reason = "the name is the promise")]
pub fn a_reader_sees_later_appends(subject: &impl Subject) {
    let mut journal = subject.open();
    let reader = journal.reader();
    append_all(&mut *journal, &[records(1, 3)]);
    assert_eq!(reader.head(), journal.head());
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            for first in (4..400).step_by(3) {
                append_all(&mut *journal, &[records(first, 3)]);
            }
        });
        let mut seen = 3;
        while seen < 399 {
            seen = reader.head().sequence.0.max(seen);
            let entries = read_all(&reader, 50);
            assert!(entries.len() as u64 >= seen, "the head was {seen}, and {} were there", entries.len());
            assert_eq!(entries.len() % 3, 0, "a batch was seen in part");
        }
        writer.join().expect("the writer goes on");
    });
}

#[expect(missing_docs, reason = "the name is the promise")]
pub fn single_entries_are_found(subject: &impl Subject) {
    let batches = mixed_batches();
    let mut journal = subject.open();
    append_all(&mut *journal, &batches);
    let all = batches.concat();
    let wanted: Vec<_> = [200, 0, 1, 17, 18, 210, 211, u64::MAX, 17].map(Sequence).into();
    let found = decoded(&journal.reader().get(&wanted).expect("it reads"));
    assert_eq!(found, [199, 0, 16, 17, 209, 16].map(|at: usize| all[at].clone()));
}
