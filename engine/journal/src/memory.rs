//! A journal in memory, for tests: the same promises until the process ends, and faults on request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stanch_core::id::{JournalId, Sequence};
use stanch_core::record::Record;

use crate::entry::{Entry, Sealer};
use crate::{AppendError, Cause, Head, Journal, OpenError, ReadError, Reader};

/// What the next append shall meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A full disk: not written.
    Full,
    /// An unknown outcome; in truth it was written.
    UnknownWritten,
    /// An unknown outcome; in truth it was not written.
    UnknownLost,
}

/// What outlives a [`MemoryJournal`], as a disk outlives a process. Cheap to clone.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    entries: Vec<Entry>,
    head: Head,
    id: JournalId,
    fault: Option<Fault>,
}

/// Sets faults on a journal that something else owns. Cheap to clone.
pub type Faults = MemoryStore;

impl MemoryStore {
    /// A journal over what is stored.
    #[must_use]
    pub fn open(&self) -> MemoryJournal {
        MemoryJournal { store: self.clone(), sealer: Sealer::default(), broken: false }
    }

    /// Makes the next append fail so.
    pub fn fail_next(&self, fault: Fault) {
        self.stored().fault = Some(fault);
    }

    fn stored(&self) -> MutexGuard<'_, Stored> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A journal in memory.
#[derive(Default)]
pub struct MemoryJournal {
    store: MemoryStore,
    sealer: Sealer,
    broken: bool,
}

impl MemoryJournal {
    /// An empty journal.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A handle to set faults with, and to open the same journal again.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.store.clone()
    }
}

impl Journal for MemoryJournal {
    fn append(&mut self, expected: Sequence, batch: &[Record]) -> Result<Head, AppendError> {
        if self.broken {
            return Err(AppendError::Closed);
        }
        let mut stored = self.store.stored();
        if stored.head.sequence != expected {
            return Err(AppendError::Fenced { expected, actual: stored.head.sequence });
        }
        let mut head = stored.head;
        let mut entries = Vec::with_capacity(batch.len());
        for record in batch {
            let refused = |refusal| AppendError::Refused { sequence: record.sequence, refusal };
            entries.push(self.sealer.seal(&mut head, record).map_err(refused)?);
        }
        let fault = stored.fault.take();
        if fault == Some(Fault::Full) {
            return Err(AppendError::Full(std::io::ErrorKind::StorageFull.into()));
        }
        if fault != Some(Fault::UnknownLost) {
            stored.entries.extend(entries);
            stored.head = head;
        }
        if fault.is_some() {
            self.broken = true;
            return Err(AppendError::OutcomeUnknown(Cause::Other("a fault that was asked for".into())));
        }
        Ok(head)
    }

    fn head(&self) -> Head {
        self.store.stored().head
    }

    fn id(&self) -> JournalId {
        self.store.stored().id
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(self.store.clone())
    }

    fn reopen(&mut self) -> Result<Head, OpenError> {
        self.broken = false;
        Ok(self.head())
    }
}

impl Reader for MemoryStore {
    fn read(&self, from: Sequence, limit: usize) -> Result<Vec<Entry>, ReadError> {
        let skip = usize::try_from(from.0.saturating_sub(1)).unwrap_or(usize::MAX);
        Ok(self.stored().entries.iter().skip(skip).take(limit).cloned().collect())
    }

    fn visit(&self, sequences: &[Sequence], take: &mut dyn FnMut(Entry)) -> Result<(), ReadError> {
        let stored = self.stored();
        let index = |sequence: &Sequence| usize::try_from(sequence.0.checked_sub(1)?).ok();
        sequences.iter().filter_map(|at| stored.entries.get(index(at)?).cloned()).for_each(take);
        Ok(())
    }

    fn head(&self) -> Head {
        self.stored().head
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Subject, records};

    impl Subject for MemoryStore {
        fn fresh() -> Self {
            Self::default()
        }

        fn open(&self) -> Box<dyn Journal> {
            Box::new(self.open())
        }
    }

    crate::conformance_suite!(MemoryStore);

    #[test]
    fn a_full_disk_writes_nothing_and_the_journal_goes_on() {
        let mut journal = MemoryJournal::new();
        journal.faults().fail_next(Fault::Full);
        assert!(matches!(journal.append(Sequence(0), &records(1, 3)), Err(AppendError::Full(_))));
        assert_eq!(journal.append(Sequence(0), &records(1, 3)).unwrap().sequence, Sequence(3));
    }

    #[test]
    fn after_an_unknown_outcome_only_reopening_tells() {
        for (fault, head) in [(Fault::UnknownWritten, 3), (Fault::UnknownLost, 0)] {
            let mut journal = MemoryJournal::new();
            journal.faults().fail_next(fault);
            assert!(matches!(journal.append(Sequence(0), &records(1, 3)), Err(AppendError::OutcomeUnknown(_))));
            assert!(matches!(journal.append(Sequence(0), &records(1, 3)), Err(AppendError::Closed)));
            assert_eq!(journal.reopen().unwrap().sequence, Sequence(head));
            journal.append(Sequence(head), &records(head + 1, 1)).unwrap();
        }
    }
}
