use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

use super::*;
use crate::ReadError;
use crate::conformance::{Subject, record, records};
use crate::verify::{Scope, export, verify};

fn options() -> Options {
    Options { ballast_bytes: 0, ..Options::default() }
}

fn open(dir: &TempDir) -> SledJournal {
    SledJournal::open(dir.path(), &options()).unwrap()
}

fn append(journal: &mut SledJournal, count: u64) {
    let head = journal.head().sequence;
    journal.append(head, &records(head.0 + 1, count)).unwrap();
}

fn verified(journal: &SledJournal) -> u64 {
    let mut lines = Vec::new();
    export(&*journal.reader(), Sequence(1), &mut lines).unwrap();
    verify(&lines[..], Scope::Whole, None).unwrap().count
}

fn segment_path(dir: &TempDir, number: u32) -> PathBuf {
    dir.path().join(format!("journal/{number:06}"))
}

/// Opens a segment's database beside the journal, which must be closed.
fn raw(dir: &TempDir, number: u32) -> ::sled::Db {
    segments::open_database(&segment_path(dir, number), 1 << 20).unwrap()
}

impl Subject for TempDir {
    fn fresh() -> Self {
        tempfile::tempdir().unwrap()
    }

    fn open(&self) -> Box<dyn Journal> {
        Box::new(open(self))
    }
}

crate::conformance_suite!(TempDir);

/// A journal that is sealed every few batches.
struct Segmented(TempDir);

impl Subject for Segmented {
    fn fresh() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> Box<dyn Journal> {
        Box::new(SledJournal::open(self.0.path(), &Options { segment_bytes: 1, ..options() }).unwrap())
    }
}

mod segmented {
    use super::Segmented;

    crate::conformance_suite!(Segmented);
}

#[test]
fn ten_thousand_records_make_no_blobs_and_no_large_frames() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(&dir);
    let mut next = 1;
    for batch in 0..500_u64 {
        let batch: Vec<_> = (next..next + 1 + batch % 40).map(|at| record(at, (at as usize * 977) % 4_000)).collect();
        next += batch.len() as u64;
        journal.append(journal.head().sequence, &batch).unwrap();
    }
    assert!(next > 9_000);
    drop(journal);
    assert_eq!(fs::read_dir(segment_path(&dir, 1).join("blobs")).unwrap().count(), 0);
    let largest = raw(&dir, 1).iter().values().map(|frame| frame.unwrap().len()).max().unwrap();
    assert!((6_000..=frame::MAX_FRAME).contains(&largest), "{largest}");
    assert_eq!(verified(&open(&dir)), next - 1);
}

#[test]
fn a_batch_whose_last_frame_is_missing_is_gone_and_the_rest_is_intact() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(&dir);
    append(&mut journal, 10);
    let before = journal.head();
    append(&mut journal, 100);
    drop(journal);
    let db = raw(&dir, 1);
    let frames = db.len();
    assert!(frames > 4, "the second batch is to have several frames, there are {frames} in all");
    db.remove(db.last().unwrap().unwrap().0).unwrap();
    drop(db);

    let reader = open_read_only(dir.path()).unwrap();
    assert_eq!((reader.head(), reader.read(Sequence(1), 100).unwrap().len()), (before, 10));
    drop(reader);
    let mut journal = open(&dir);
    assert_eq!((journal.head(), verified(&journal)), (before, 10));
    append(&mut journal, 3);
    assert_eq!(verified(&journal), 13);
    drop(journal);
    assert_eq!(raw(&dir, 1).len(), 2);
}

#[test]
fn a_month_begins_a_segment_and_old_segments_are_removed_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(&dir);
    let month = |number: i64| Timestamp::from_millis(1_790_000_000_000 + number * 31 * 86_400_000);
    for number in 0..4 {
        let first = journal.head().sequence.next().0;
        let mut batch = vec![record(first, 100), record(first + 1, 10_000)];
        batch.iter_mut().for_each(|record| record.time = month(number));
        journal.append(Sequence(first - 1), &batch).unwrap();
        batch.iter_mut().for_each(|record| record.sequence = Sequence(record.sequence.0 + 2));
        journal.append(Sequence(first + 1), &batch).unwrap();
    }
    assert!(segment_path(&dir, 4).exists() && !segment_path(&dir, 5).exists());
    assert_eq!(verified(&journal), 16);

    let days = |days: u64| Duration::from_secs(days * 86_400);
    assert_eq!(journal.retain(month(4), days(400), Sequence(17)).unwrap(), 0);
    assert_eq!(journal.retain(month(4), days(60), Sequence(5)).unwrap(), 1);
    assert_eq!(journal.retain(month(4), days(60), Sequence(17)).unwrap(), 1);
    assert_eq!(journal.retain(month(40), days(0), Sequence(17)).unwrap(), 1, "the active one stays");
    assert!(!dir.path().join("journal/artifacts/000001").exists());
    assert!(dir.path().join("journal/artifacts/000004").exists());
    let reader = journal.reader();
    assert_eq!(reader.read(Sequence(1), 100).unwrap()[0].record().unwrap().sequence, Sequence(13));
    assert_eq!(reader.get(&[Sequence(2), Sequence(14)]).unwrap().len(), 1);
    drop((journal, reader));
    let mut journal = open(&dir);
    assert_eq!(verified(&journal), 4);
    append(&mut journal, 1);
    assert_eq!(verified(&journal), 5);
}

#[test]
fn a_segment_that_was_not_finished_being_made_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(&dir);
    append(&mut journal, 3);
    drop(journal);
    fs::create_dir(segment_path(&dir, 2)).unwrap();
    fs::create_dir_all(dir.path().join("journal/000000.removed/blobs")).unwrap();
    let mut journal = SledJournal::open(dir.path(), &Options { segment_bytes: 1, ..options() }).unwrap();
    append(&mut journal, 3);
    append(&mut journal, 3);
    assert_eq!(verified(&journal), 9);
    assert!(segment_path(&dir, 3).exists() && !dir.path().join("journal/000000.removed").exists());
}

#[test]
fn a_segment_whose_header_is_gone_is_not_taken_for_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(&dir);
    append(&mut journal, 3);
    drop(journal);
    let header = segment_path(&dir, 1).join("header.json");
    let bytes = fs::read(&header).unwrap();
    fs::remove_file(&header).unwrap();
    assert!(SledJournal::open(dir.path(), &options()).is_err());
    fs::write(&header, bytes).unwrap();
    assert_eq!(verified(&open(&dir)), 3);
}

/// What a killed process leaves: the files as they are, with nothing closed.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let to = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy(&item.path(), &to);
        } else {
            fs::copy(item.path(), to).unwrap();
        }
    }
}

#[test]
fn what_was_acknowledged_is_there_after_the_process_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = SledJournal::open(dir.path(), &Options { segment_bytes: 1 << 20, ..options() }).unwrap();
    for round in 1..=12 {
        append(&mut journal, 2 + 23 * round % 150);
        let killed = tempfile::tempdir().unwrap();
        copy(dir.path(), killed.path());
        let mut left = open(&killed);
        assert_eq!(left.head(), journal.head());
        append(&mut left, 5);
        assert_eq!(verified(&left), journal.head().sequence.0 + 5);
    }
    assert!(segment_path(&dir, 2).exists());
}

/// Found by `tests/tests/crash.rs`, once in some hundred kills: sled was writing a snapshot of its own as it opened.
#[test]
fn a_kill_while_the_database_writes_its_snapshot_leaves_it_openable() {
    let dir = tempfile::tempdir().unwrap();
    append(&mut open(&dir), 100);
    fs::write(segment_path(&dir, 1).join("snap.0000000000FFFFFF.generating"), b"cut sho").unwrap();
    assert_eq!(verified(&open(&dir)), 100);
}

#[test]
fn a_second_engine_is_kept_out_and_so_is_a_reader() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(&dir);
    let Err(error) = SledJournal::open(dir.path(), &options()) else { panic!("it opened twice") };
    assert!(matches!(error, OpenError::Busy(_)), "{error}");
    let Err(error) = open_read_only(dir.path()) else { panic!("it opened beside the engine") };
    assert!(error.to_string().contains("GET /api/v1/audit"), "{error}");
    drop(journal);
    drop(open(&dir));
}

#[test]
fn reading_alone_makes_no_journal() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(open_read_only(dir.path()), Err(OpenError::Missing(_))));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir));
    let path = dir.path().join("journal/format.json");
    fs::write(&path, r#"{"format":2,"journal":{"of":"the future"}}"#).unwrap();
    let Err(error) = SledJournal::open(dir.path(), &options()) else { panic!("it opened") };
    assert!(matches!(error, OpenError::Format { .. }), "{error:?}");
    fs::remove_file(&path).unwrap();
    assert!(matches!(SledJournal::open(dir.path(), &options()), Err(OpenError::Damaged { .. })));
}

#[test]
fn damage_is_an_error_that_names_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(&dir);
    append(&mut journal, 3);
    append(&mut journal, 3);
    append(&mut journal, 3);
    drop(journal);
    let db = raw(&dir, 1);
    db.remove(segments::key(Sequence(4))).unwrap();
    drop(db);
    let journal = open(&dir);
    let reader = journal.reader();
    assert!(matches!(reader.read(Sequence(1), 100), Err(ReadError::Damaged { sequence: Sequence(4), .. })));
    assert!(matches!(reader.get(&[Sequence(5)]), Err(ReadError::Damaged { sequence: Sequence(5), .. })));
    drop((journal, reader));

    let db = raw(&dir, 1);
    db.insert(segments::key(Sequence(7)), vec![1, 1, 0, 255, 255]).unwrap();
    drop(db);
    let Err(error) = SledJournal::open(dir.path(), &options()) else { panic!("it opened") };
    assert!(error.to_string().contains("record #7") || error.to_string().contains("record 7"), "{error}");
}

#[test]
fn a_missing_artifact_is_told_with_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(&dir);
    journal.append(Sequence(0), &[record(1, 5_000)]).unwrap();
    let artifacts = dir.path().join("journal/artifacts/000001");
    let file = fs::read_dir(&artifacts).unwrap().next().unwrap().unwrap();
    let envelope = Envelope::decode(&journal.reader().read(Sequence(1), 1).unwrap()[0].envelope).unwrap();
    assert_eq!(file.file_name().to_str().unwrap(), envelope.payload.to_string());
    fs::remove_file(file.path()).unwrap();
    assert!(matches!(journal.reader().read(Sequence(1), 1), Err(ReadError::Artifact { .. })));
}

#[test]
fn a_full_disk_refuses_appends_until_space_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let told = Arc::clone(&free);
    let options = Options {
        ballast_bytes: 1 << 20,
        reserve_bytes: 1 << 20,
        free_space: Arc::new(move |_| Ok(told.load(Ordering::Relaxed))),
        ..Options::default()
    };
    let ballast = dir.path().join("journal/ballast");
    let mut journal = SledJournal::open(dir.path(), &options).unwrap();
    append(&mut journal, 3);
    assert_eq!(fs::metadata(&ballast).unwrap().len(), 1 << 20);

    free.store((1 << 20) - 1, Ordering::Relaxed);
    assert!(matches!(journal.append(Sequence(3), &records(4, 3)), Err(AppendError::Full(_))));
    assert_eq!(journal.reader().read(Sequence(1), 10).unwrap().len(), 3);
    drop(journal);
    let mut journal = SledJournal::open(dir.path(), &options).unwrap();
    assert!(matches!(journal.append(Sequence(3), &records(4, 3)), Err(AppendError::Full(_))));

    free.store(3 << 19, Ordering::Relaxed);
    assert!(matches!(journal.append(Sequence(3), &[record(4, 600_000)]), Err(AppendError::Full(_))));
    assert_eq!(fs::read_dir(dir.path().join("journal/artifacts")).map_or(0, Iterator::count), 0);

    journal.space.release_ballast();
    free.store(2 << 20, Ordering::Relaxed);
    append(&mut journal, 3);
    assert!(!ballast.exists(), "a ballast would take the space that the journal needs");
    free.store(3 << 20, Ordering::Relaxed);
    append(&mut journal, 3);
    assert!(ballast.exists());
    assert_eq!(verified(&journal), 9);
}

#[test]
fn after_a_failure_midway_nothing_is_appended_until_reopened() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(&dir);
    append(&mut journal, 3);
    let error = journal.failed(Cause::Other("a cable was pulled".into()), false);
    assert!(matches!(error, AppendError::OutcomeUnknown(_)));
    assert!(matches!(journal.append(Sequence(3), &records(4, 1)), Err(AppendError::Closed)));
    assert_eq!(journal.reader().read(Sequence(1), 10).unwrap().len(), 3);
    assert_eq!(journal.reopen().unwrap().sequence, Sequence(3));
    append(&mut journal, 1);
    assert_eq!(verified(&journal), 4);
}
