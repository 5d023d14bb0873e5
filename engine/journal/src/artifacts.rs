//! Payloads too large for a frame: files named by their salted digest, in one directory a segment.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::files;
use crate::hash::Hash;

pub(crate) fn path(directory: &Path, digest: Hash) -> PathBuf {
    directory.join(digest.to_string())
}

/// Writes the files of a batch, durable when this returns; where it fails none is left.
pub(crate) fn write(directory: &Path, payloads: &[(Hash, bytes::Bytes)]) -> io::Result<()> {
    let write = || {
        files::create_directory(directory)?;
        for (digest, bytes) in payloads {
            files::write_synced(&path(directory, *digest), bytes)?;
        }
        files::sync_directory(directory)
    };
    write().inspect_err(|_| {
        for (digest, _) in payloads {
            let _ = fs::remove_file(path(directory, *digest));
        }
    })
}
