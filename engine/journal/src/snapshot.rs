//! The engine's state as of a sequence, so that a start need not read all of history. Disposable.
//!
//! A file `state-<sequence>.json`: a line that says what it is, and the state. The last two are kept: where one is cut
//! short, damaged or of another version, the one before serves, or none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use stanch_core::id::Sequence;

use crate::files;
use crate::hash::Hash;

const KEPT: usize = 2;

#[derive(Serialize, Deserialize)]
struct Heading {
    version: u32,
    sequence: Sequence,
    sha256: Hash,
}

/// Writes a snapshot of the state after `sequence`; durable when this returns. Older ones but the last are removed.
///
/// # Errors
/// What the file system said, or `InvalidData` where the state does not serialise. A failure costs nothing but time at
/// the next start.
pub fn write_snapshot(dir: &Path, version: u32, sequence: Sequence, state: &impl Serialize) -> io::Result<()> {
    files::create_directory(dir)?;
    let state = serde_json::to_vec(state)?;
    let mut bytes = serde_json::to_vec(&Heading { version, sequence, sha256: Hash::of(&state) })?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&state);
    files::replace(&dir.join(format!("state-{:020}.json", sequence.0)), &bytes)?;
    for path in list(dir).into_iter().skip(KEPT) {
        let _ = fs::remove_file(path);
    }
    Ok(())
}

/// The latest snapshot of this version that is whole and not later than `at_most` (the journal's head).
#[must_use]
pub fn read_snapshot<S: DeserializeOwned>(dir: &Path, version: u32, at_most: Sequence) -> Option<(Sequence, S)> {
    list(dir).into_iter().find_map(|path| {
        let bytes = fs::read(&path).ok()?;
        let end = bytes.iter().position(|&byte| byte == b'\n')?;
        let heading: Heading = serde_json::from_slice(&bytes[..end]).ok()?;
        let state = &bytes[end + 1..];
        if heading.version != version || heading.sequence > at_most || heading.sha256 != Hash::of(state) {
            return None;
        }
        Some((heading.sequence, serde_json::from_slice(state).ok()?))
    })
}

/// The snapshots that are there, newest first.
fn list(dir: &Path) -> Vec<PathBuf> {
    let Ok(items) = fs::read_dir(dir) else { return Vec::new() };
    let is_snapshot = |path: &PathBuf| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| name.starts_with("state-") && name.ends_with(".json"))
    };
    let mut paths: Vec<_> = items.filter_map(|item| Some(item.ok()?.path())).filter(is_snapshot).collect();
    paths.sort_unstable_by(|a, b| b.cmp(a));
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dir: &Path) -> Option<(u64, String)> {
        read_snapshot::<String>(dir, 3, Sequence(100)).map(|(sequence, state)| (sequence.0, state))
    }

    #[test]
    fn the_latest_snapshot_is_read_and_two_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for sequence in [7, 9, 10] {
            write_snapshot(dir.path(), 3, Sequence(sequence), &format!("state {sequence}")).unwrap();
        }
        assert_eq!(read(dir.path()), Some((10, "state 10".into())));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_snapshot_that_does_not_hold_gives_way_to_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        write_snapshot(dir.path(), 3, Sequence(9), &"state 9").unwrap();
        let damage: [&dyn Fn(Vec<u8>) -> Vec<u8>; 4] = [
            &|bytes| bytes[..bytes.len() - 2].to_vec(),
            &|_| Vec::new(),
            &|bytes| String::from_utf8(bytes).unwrap().replace("state 10", "state 11").into(),
            &|bytes| String::from_utf8(bytes).unwrap().replace("\"version\":3", "\"version\":2").into(),
        ];
        for damage in damage {
            write_snapshot(dir.path(), 3, Sequence(10), &"state 10").unwrap();
            let path = list(dir.path()).remove(0);
            fs::write(&path, damage(fs::read(&path).unwrap())).unwrap();
            assert_eq!(read(dir.path()), Some((9, "state 9".into())));
        }
    }

    #[test]
    fn a_snapshot_from_beyond_the_head_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        write_snapshot(dir.path(), 3, Sequence(100), &"good").unwrap();
        write_snapshot(dir.path(), 3, Sequence(101), &"of a lost history").unwrap();
        assert_eq!(read(dir.path()), Some((100, "good".into())));
    }

    #[test]
    fn no_directory_and_other_versions_give_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(&dir.path().join("absent")), None);
        write_snapshot(dir.path(), 2, Sequence(10), &"old").unwrap();
        assert_eq!(read(dir.path()), None);
    }
}
