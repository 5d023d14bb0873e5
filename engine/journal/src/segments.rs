//! The directories of a journal, and one segment's database.
//!
//! ```text
//! <data-dir>/journal/lock            held by the engine
//!                    format.json     version and identity
//!                    ballast         see `space`
//!                    000001/         a segment: header.json, and sled's own files
//!                    artifacts/000001/<digest>
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use stanch_core::id::{JournalId, Sequence};
use stanch_playbook::Timestamp;

use crate::files;
use crate::format::{FormatFile, FormatOnly, FormatVersion};
use crate::frame;
use crate::hash::Hash;
use crate::space::is_full;
use crate::{Cause, Head, OpenError};

/// `header.json`: where a segment stands in the chain.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    /// The first sequence it may hold.
    pub(crate) first: Sequence,
    /// The hash of the envelope before that one.
    pub(crate) prev: Hash,
    /// The time of the record that began it; none for the journal's first segment.
    pub(crate) began: Option<Timestamp>,
}

impl Header {
    /// The head of the journal at the segment's beginning.
    pub(crate) fn head(&self) -> Head {
        Head { sequence: Sequence(self.first.0.saturating_sub(1)), hash: self.prev }
    }
}

/// A segment, not necessarily open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed {
    pub(crate) number: u32,
    pub(crate) header: Header,
}

/// The paths of a journal.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
}

impl Layout {
    pub(crate) fn of(data_dir: &Path) -> Self {
        Self { root: data_dir.join("journal") }
    }

    pub(crate) fn segment(&self, number: u32) -> PathBuf {
        self.root.join(format!("{number:06}"))
    }

    pub(crate) fn artifacts(&self, number: u32) -> PathBuf {
        self.root.join("artifacts").join(format!("{number:06}"))
    }

    /// Keeps every other process out for as long as the file lives.
    pub(crate) fn lock(&self) -> Result<File, OpenError> {
        let path = self.root.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(OpenError::Busy(self.root.clone())),
            Err(TryLockError::Error(error)) => Err(failed(&path)(error)),
        }
    }

    /// The journal's identity, once its version is known to be readable; none where there is no journal yet.
    pub(crate) fn identity(&self) -> Result<Option<JournalId>, OpenError> {
        let path = self.root.join("format.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match self.numbers()?.first() {
                    None => Ok(None),
                    Some(_) => Err(damaged(&path, "the file is missing")),
                };
            }
            Err(error) => return Err(failed(&path)(error)),
        };
        let unreadable = |error: serde_json::Error| damaged(&path, error.to_string());
        let FormatOnly { format } = serde_json::from_slice(&bytes).map_err(unreadable)?;
        format
            .check_readable_by(FormatVersion::CURRENT)
            .map_err(|source| OpenError::Format { path: path.clone(), source })?;
        let format: FormatFile = serde_json::from_slice(&bytes).map_err(unreadable)?;
        Ok(Some(format.journal))
    }

    /// Makes a journal.
    pub(crate) fn found(&self) -> Result<JournalId, OpenError> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).expect("linux gives random bytes once it has booted");
        let journal = JournalId(uuid::Builder::from_random_bytes(random).into_uuid());
        let path = self.root.join("format.json");
        let bytes = serde_json::to_vec(&FormatFile { format: FormatVersion::CURRENT, journal });
        files::replace(&path, &bytes.expect("a number and an id are JSON")).map_err(failed(&path))?;
        Ok(journal)
    }

    fn numbers(&self) -> Result<Vec<u32>, OpenError> {
        let mut numbers = Vec::new();
        for item in fs::read_dir(&self.root).map_err(failed(&self.root))? {
            let name = item.map_err(failed(&self.root))?.file_name();
            let digits = name.to_str().filter(|name| name.len() == 6 && name.bytes().all(|b| b.is_ascii_digit()));
            numbers.extend(digits.and_then(|digits| digits.parse::<u32>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The segments in order. The last one is left out where it was not finished being made.
    pub(crate) fn list(&self) -> Result<Vec<Listed>, OpenError> {
        let numbers = self.numbers()?;
        let mut listed: Vec<Listed> = Vec::with_capacity(numbers.len());
        for &number in &numbers {
            let path = self.segment(number).join("header.json");
            let header: Header = match fs::read(&path) {
                Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| damaged(&path, error.to_string()))?,
                // The header is written before the database: without either, making the segment was cut short.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound
                        && Some(&number) == numbers.last()
                        && !self.segment(number).join("db").exists() =>
                {
                    break;
                }
                Err(error) => return Err(failed(&path)(error)),
            };
            if let Some(before) = listed.last()
                && (number != before.number + 1 || header.first < before.header.first)
            {
                return Err(damaged(&path, format!("it does not follow segment {:06}", before.number)));
            }
            listed.push(Listed { number, header });
        }
        Ok(listed)
    }

    /// Makes the next segment's directory; its database is made when it is opened.
    pub(crate) fn create(&self, number: u32, header: Header) -> Result<Listed, OpenError> {
        let path = self.segment(number);
        let bytes = serde_json::to_vec(&header).expect("numbers and texts are JSON");
        let make = || {
            // An attempt that a crash cut short.
            remove_directory(&path)?;
            files::create_directory(&path)?;
            files::replace(&path.join("header.json"), &bytes)
        };
        make().map_err(failed(&path))?;
        Ok(Listed { number, header })
    }

    /// Removes a segment and its artifacts; a crash in between leaves what the next start removes.
    pub(crate) fn remove(&self, number: u32) -> io::Result<()> {
        let leaving = self.root.join(format!("{number:06}.removed"));
        fs::rename(self.segment(number), &leaving)?;
        files::sync_directory(&self.root)?;
        remove_directory(&self.artifacts(number))?;
        remove_directory(&leaving)
    }

    /// Finishes removals that a crash cut short.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        for item in fs::read_dir(&self.root)? {
            let name = item?.file_name();
            if let Some(number) = name.to_str().and_then(|name| name.strip_suffix(".removed")) {
                remove_directory(&self.root.join("artifacts").join(number))?;
                remove_directory(&self.root.join(&name))?;
            }
        }
        Ok(())
    }
}

fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// One segment's database.
pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) db: ::sled::Db,
    /// sled's `flush` does not survive a power cut; a sync of its file through this descriptor does.
    file: File,
}

/// How long the lock of a database that was just closed may take to be given back: sled's threads hold on to it.
const HANDBACK: Duration = Duration::from_secs(5);

impl Segment {
    pub(crate) fn open(layout: &Layout, number: u32, cache_bytes: u64) -> Result<Self, OpenError> {
        let path = layout.segment(number);
        let db =
            open_database(&path, cache_bytes).map_err(|source| OpenError::Failed { path: path.clone(), source })?;
        let open = || {
            let file = File::open(path.join("db"))?;
            file.sync_all()?;
            File::open(path.join("conf"))?.sync_all()?;
            files::sync_directory(&path)?;
            Ok(file)
        };
        let file = open().map_err(failed(&path))?;
        Ok(Self { number, db, file })
    }

    /// Makes everything that was inserted durable.
    pub(crate) fn sync(&self) -> Result<(), Cause> {
        self.db.flush()?;
        self.file.sync_data()?;
        Ok(())
    }

    pub(crate) fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// The frame that holds a sequence, if the segment has it.
    pub(crate) fn frame_of(&self, sequence: Sequence) -> Result<Option<(Sequence, Bytes)>, Cause> {
        match self.db.get_lt(key(sequence.next()))? {
            Some((key, frame)) => Ok(Some((sequence_of(&key), Bytes::copy_from_slice(&frame)))),
            None => Ok(None),
        }
    }

    pub(crate) fn tail(&self) -> Result<Tail, Cause> {
        let mut tail = Tail::default();
        for item in self.db.iter().rev() {
            let (key, frame) = item?;
            if frame::batch_ends(&frame) {
                tail.last = Some((sequence_of(&key), Bytes::copy_from_slice(&frame)));
                break;
            }
            tail.unfinished.push(key);
        }
        Ok(tail)
    }
}

/// How a segment ends.
#[derive(Default)]
pub(crate) struct Tail {
    /// The last finished batch's last frame.
    pub(crate) last: Option<(Sequence, Bytes)>,
    /// The keys of an unfinished batch after it, the last one first.
    pub(crate) unfinished: Vec<::sled::IVec>,
}

/// The key of the frame whose first entry has this sequence: big-endian, so that keys are sequential.
pub(crate) fn key(sequence: Sequence) -> [u8; 8] {
    sequence.0.to_be_bytes()
}

/// The sequence of a key; 0 for a key that is none.
pub(crate) fn sequence_of(key: &[u8]) -> Sequence {
    Sequence(key.try_into().map_or(0, u64::from_be_bytes))
}

/// Opens a sled database; waits for one that this process is just closing.
pub(crate) fn open_database(path: &Path, cache_bytes: u64) -> Result<::sled::Db, Cause> {
    remove_unfinished_snapshots(path)?;
    let began = Instant::now();
    loop {
        // The flusher must stay on: sled collects its garbage there alone.
        let config = ::sled::Config::new().path(path).cache_capacity(cache_bytes).mode(::sled::Mode::HighThroughput);
        match guard(|| config.open().map_err(Cause::from)) {
            Err(Cause::Database(::sled::Error::Io(error)))
                if error.to_string().contains("could not acquire lock") && began.elapsed() < HANDBACK =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// Removes what a kill left of a snapshot that sled was writing. sled 0.34 takes `snap.*.generating` for a snapshot, and
/// for the newest one, and refuses to open the database when its checksum does not hold; the log has all that it says.
fn remove_unfinished_snapshots(path: &Path) -> io::Result<()> {
    let items = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        items => items?,
    };
    for item in items {
        let item = item?;
        if item.file_name().to_str().is_some_and(|name| name.starts_with("snap.") && name.ends_with(".generating")) {
            fs::remove_file(item.path())?;
        }
    }
    Ok(())
}

/// Runs sled, which panics on some damage and some full disks, and makes an error of a panic.
pub(crate) fn guard<T>(run: impl FnOnce() -> Result<T, Cause>) -> Result<T, Cause> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Cause::Other(format!("the database panicked: {}", text.unwrap_or("no reason given"))))
    })
}

pub(crate) fn is_disk_full(cause: &Cause) -> bool {
    match cause {
        Cause::Io(error) | Cause::Database(::sled::Error::Io(error)) => is_full(error),
        Cause::Database(_) | Cause::Other(_) => false,
    }
}

pub(crate) fn failed(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |error| OpenError::Failed { path: path.to_owned(), source: error.into() }
}

pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> OpenError {
    OpenError::Damaged { path: path.to_owned(), what: what.into() }
}
