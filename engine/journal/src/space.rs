//! A full disk: told before a batch is written, and survived where it was not told.
//!
//! Appends stop while less than a reserve is free. Where the disk fills all the same (another program, a quota), the
//! ballast file is given up, so that the database can be opened and what is there be read and finished.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tells the bytes that are free on the file system of a path.
pub(crate) type FreeSpace = Arc<dyn Fn(&Path) -> io::Result<u64> + Send + Sync>;

pub(crate) struct Space {
    directory: PathBuf,
    ballast: PathBuf,
    ballast_bytes: u64,
    reserve_bytes: u64,
    free: FreeSpace,
}

impl Space {
    pub(crate) fn new(directory: &Path, ballast_bytes: u64, reserve_bytes: u64, free: FreeSpace) -> Self {
        Self { directory: directory.to_owned(), ballast: directory.join("ballast"), ballast_bytes, reserve_bytes, free }
    }

    /// Whether a batch of so many bytes may be written; makes the ballast again where it is gone and space is back.
    ///
    /// # Errors
    /// `StorageFull` where less than the reserve would stay free.
    pub(crate) fn admit(&self, bytes: u64) -> io::Result<()> {
        // A file system that does not tell what is free must not stop the engine.
        let free = (self.free)(&self.directory).unwrap_or(u64::MAX);
        if free < self.reserve_bytes.saturating_add(bytes) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        if free >= self.ballast_bytes.saturating_add(2 * self.reserve_bytes) {
            self.restore_ballast();
        }
        Ok(())
    }

    /// Gives the ballast up.
    pub(crate) fn release_ballast(&self) {
        if fs::remove_file(&self.ballast).is_ok() {
            tracing::warn!(path = %self.ballast.display(), "the disk is full; gave up the ballast file");
        }
    }

    fn restore_ballast(&self) {
        if self.ballast_bytes == 0 || self.ballast.exists() {
            return;
        }
        let length = i64::try_from(self.ballast_bytes).unwrap_or(i64::MAX);
        let make = || {
            let file = File::create(&self.ballast)?;
            nix::fcntl::posix_fallocate(&file, 0, length)?;
            file.sync_all()
        };
        if let Err(error) = make() {
            let _ = fs::remove_file(&self.ballast);
            tracing::debug!(%error, "no ballast file could be made");
        }
    }
}

/// What the file system says is free to this process.
pub(crate) fn free_space() -> FreeSpace {
    Arc::new(|path| {
        let stat = nix::sys::statvfs::statvfs(path)?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
    })
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
