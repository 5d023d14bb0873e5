//! Indexes over the journal for the API and the console: disposable, versioned, rebuilt by whoever keeps them.
//!
//! One sled tree; a key is the table's byte and the table's own key. A commit writes its values, and last the sequence
//! that the views are then as of; sled recovers a prefix of what was written, so that after a crash the views may be
//! behind the journal and may hold values from beyond [`Views::as_of`], and never lack one from before it. Nothing
//! waits for the disk here: what was lost is read from the journal again.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use stanch_core::id::Sequence;

use crate::segments::{guard, open_database};
use crate::{Cause, files};

/// Which index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Table {
    /// Runs, by the 16 bytes of their id, which order by time.
    Runs,
    /// Incidents, by the 16 bytes of their id, which order by time.
    Incidents,
    /// Dead letters, by the 16 bytes of their id, which order by time.
    DeadLetters,
}

impl Table {
    const fn byte(self) -> u8 {
        match self {
            Self::Runs => 1,
            Self::Incidents => 2,
            Self::DeadLetters => 3,
        }
    }

    fn key(self, key: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1 + key.len());
        bytes.push(self.byte());
        bytes.extend_from_slice(key);
        bytes
    }
}

/// Why views could not be kept or read.
#[derive(Debug, thiserror::Error)]
#[error("the views in {} failed; stop the engine and delete them, and they are rebuilt", .path.display())]
pub struct ViewError {
    path: PathBuf,
    #[source]
    source: Cause,
}

/// The indexes. Cheap to clone; read from any thread while one commits.
#[derive(Clone)]
pub struct Views {
    db: ::sled::Db,
    path: PathBuf,
}

const AS_OF: &[u8] = &[0, 0];
const VERSION: &[u8] = &[0, 1];
const CACHE_BYTES: u64 = 8 << 20;

impl Views {
    /// Opens the views in `dir`. Where they are absent, of another version, or do not open, they are made anew and
    /// [`Views::as_of`] is 0.
    ///
    /// # Errors
    /// [`ViewError`] where not even new ones can be made.
    pub fn open(dir: &Path, version: u32) -> Result<Self, ViewError> {
        let path = dir.join("index");
        let error = |source| ViewError { path: path.clone(), source };
        files::create_directory(dir).map_err(|source| error(source.into()))?;
        match Self::open_existing(&path, version) {
            Ok(Some(views)) => return Ok(views),
            Ok(None) => {}
            Err(cause) => tracing::warn!(path = %path.display(), error = %cause, "views do not open; made anew"),
        }
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(error(source.into())),
            _ => {}
        }
        let make = || {
            let db = open_database(&path, CACHE_BYTES)?;
            db.insert(VERSION, &version.to_be_bytes())?;
            Ok(Self { db, path: path.clone() })
        };
        guard(make).map_err(error)
    }

    fn open_existing(path: &Path, version: u32) -> Result<Option<Self>, Cause> {
        if !path.exists() {
            return Ok(None);
        }
        guard(|| {
            let db = open_database(path, CACHE_BYTES)?;
            let same = db.get(VERSION)?.is_some_and(|found| found == version.to_be_bytes());
            Ok(same.then(|| Self { db, path: path.to_owned() }))
        })
    }

    /// Up to which record the views tell; 0 for new ones. Where that is beyond the journal's head, they are of another
    /// journal: [`Views::clear`] them.
    ///
    /// # Errors
    /// [`ViewError`].
    pub fn as_of(&self) -> Result<Sequence, ViewError> {
        let found = self.db.get(AS_OF).map_err(|error| self.error(error))?;
        Ok(Sequence(found.and_then(|bytes| bytes.as_ref().try_into().ok()).map_or(0, u64::from_be_bytes)))
    }

    /// Puts values, and then moves [`Views::as_of`]. One thread commits. A value replaces the one before: after a crash
    /// the same commit may come again, so that it must not depend on what is there.
    ///
    /// # Errors
    /// [`ViewError`]; the views are then to be made anew at the next start.
    pub fn commit(&self, as_of: Sequence, puts: &[(Table, Vec<u8>, Vec<u8>)]) -> Result<(), ViewError> {
        // Not sled's atomic batch: each makes a log buffer of its own, which cost 900 MiB in a burst of 400,000.
        let commit = || {
            for (table, key, value) in puts {
                self.db.insert(table.key(key), value.as_slice())?;
            }
            self.db.insert(AS_OF, &as_of.0.to_be_bytes())?;
            Ok(())
        };
        commit().map_err(|error| self.error(error))
    }

    /// Empties the views, for a rebuild.
    ///
    /// # Errors
    /// [`ViewError`].
    pub fn clear(&self) -> Result<(), ViewError> {
        let clear = || {
            // First, so that a crash in between leaves no views that claim to be complete.
            self.db.remove(AS_OF)?;
            for key in self.db.range([Table::Runs.byte()]..).keys() {
                self.db.remove(key?)?;
            }
            Ok(())
        };
        clear().map_err(|error| self.error(error))
    }

    /// The value of a key.
    ///
    /// # Errors
    /// [`ViewError`].
    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ViewError> {
        let found = self.db.get(table.key(key)).map_err(|error| self.error(error))?;
        Ok(found.map(|value| value.to_vec()))
    }

    /// Visits keys and values in descending order, which is newest first, from below `before` or from the end, until
    /// `visit` breaks off.
    ///
    /// # Errors
    /// [`ViewError`].
    pub fn scan(
        &self,
        table: Table,
        before: Option<&[u8]>,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), ViewError> {
        let end = before.map_or_else(|| vec![table.byte() + 1], |before| table.key(before));
        for item in self.db.range(vec![table.byte()]..end).rev() {
            let (key, value) = item.map_err(|error| self.error(error))?;
            if visit(&key[1..], &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn error(&self, error: ::sled::Error) -> ViewError {
        ViewError { path: self.path.clone(), source: error.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(views: &Views, before: Option<&[u8]>, limit: usize) -> Vec<(u8, String)> {
        let mut found = Vec::new();
        views
            .scan(Table::Runs, before, |key, value| {
                found.push((key[15], String::from_utf8(value.to_vec()).unwrap()));
                if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .unwrap();
        found
    }

    fn put(table: Table, id: u8, value: &str) -> (Table, Vec<u8>, Vec<u8>) {
        let mut key = vec![0; 16];
        key[15] = id;
        (table, key, value.as_bytes().to_vec())
    }

    fn filled(dir: &Path) -> Views {
        let views = Views::open(dir, 1).unwrap();
        let puts: Vec<_> = (1..=5).map(|id| put(Table::Runs, id, &format!("run {id}"))).collect();
        views.commit(Sequence(40), &puts).unwrap();
        views.commit(Sequence(41), &[put(Table::Incidents, 255, "incident"), put(Table::Runs, 3, "changed")]).unwrap();
        views
    }

    #[test]
    fn scans_go_newest_first_within_their_table() {
        let dir = tempfile::tempdir().unwrap();
        let views = filled(dir.path());
        let ids = |found: Vec<(u8, String)>| found.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(runs(&views, None, 10)), [5, 4, 3, 2, 1]);
        assert_eq!(ids(runs(&views, None, 2)), [5, 4]);
        let cursor = put(Table::Runs, 4, "").1;
        assert_eq!(ids(runs(&views, Some(&cursor), 2)), [3, 2]);
        assert_eq!(views.get(Table::Runs, &put(Table::Runs, 3, "").1).unwrap().unwrap(), b"changed");
        assert_eq!(views.get(Table::Incidents, &cursor).unwrap(), None);
    }

    #[test]
    fn views_are_there_after_closing() {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(dir.path()));
        let views = Views::open(dir.path(), 1).unwrap();
        assert_eq!((views.as_of().unwrap(), runs(&views, None, 10).len()), (Sequence(41), 5));
    }

    #[test]
    fn views_of_another_version_are_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(dir.path()));
        let views = Views::open(dir.path(), 2).unwrap();
        assert_eq!((views.as_of().unwrap(), runs(&views, None, 10).len()), (Sequence(0), 0));
    }

    #[test]
    fn views_that_do_not_open_are_made_anew() {
        let damage: [&dyn Fn(&Path); 3] = [
            &|path| fs::remove_dir_all(path).unwrap(),
            &|path| fs::write(path.join("conf"), "what is this, it is no configuration").unwrap(),
            &|path| {
                fs::remove_dir_all(path).unwrap();
                fs::create_dir(path).unwrap();
                fs::create_dir(path.join("db")).unwrap();
            },
        ];
        for damage in damage {
            let dir = tempfile::tempdir().unwrap();
            drop(filled(dir.path()));
            damage(&dir.path().join("index"));
            let views = Views::open(dir.path(), 1).unwrap();
            assert_eq!((views.as_of().unwrap(), runs(&views, None, 10).len()), (Sequence(0), 0));
        }
    }

    #[test]
    fn what_a_killed_process_leaves_is_never_ahead_of_itself() {
        let dir = tempfile::tempdir().unwrap();
        let views = Views::open(dir.path(), 1).unwrap();
        let mut latest = 0;
        for at in 1..=200_u8 {
            views
                .commit(Sequence(at.into()), &[put(Table::Runs, at, "run"), put(Table::Incidents, at, "open")])
                .unwrap();
            if at % 7 == 0 {
                views.db.flush().unwrap();
            }
            if at % 20 == 0 {
                let left = tempfile::tempdir().unwrap();
                fs::create_dir_all(left.path().join("index/blobs")).unwrap();
                for item in fs::read_dir(dir.path().join("index")).unwrap().map(Result::unwrap) {
                    if item.file_type().unwrap().is_file() {
                        fs::copy(item.path(), left.path().join("index").join(item.file_name())).unwrap();
                    }
                }
                let left = Views::open(left.path(), 1).unwrap();
                latest = left.as_of().unwrap().0;
                // Of the commit after, some may be there.
                assert!((latest..=latest + 1).contains(&(runs(&left, None, 1_000).len() as u64)));
                let mut open = 0;
                left.scan(Table::Incidents, None, |_, _| {
                    open += 1;
                    ControlFlow::Continue(())
                })
                .unwrap();
                assert!((latest..=latest + 1).contains(&open));
            }
        }
        assert!(latest >= 196, "{latest}");
    }

    #[test]
    fn cleared_views_are_empty_and_keep_their_version() {
        let dir = tempfile::tempdir().unwrap();
        let views = filled(dir.path());
        views.clear().unwrap();
        assert_eq!((views.as_of().unwrap(), runs(&views, None, 10).len()), (Sequence(0), 0));
        views.commit(Sequence(7), &[put(Table::Runs, 9, "run")]).unwrap();
        drop(views);
        let views = Views::open(dir.path(), 1).unwrap();
        assert_eq!((views.as_of().unwrap(), runs(&views, None, 10).len()), (Sequence(7), 1));
    }
}
