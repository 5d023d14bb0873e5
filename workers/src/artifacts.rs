//! The files that a command leaves behind and that are kept with its step.
//!
//! Regular files below the attempt's own directory or the command's alone: no path and no link leads out of them. Their content is masked like
//! everything else that a command says, byte by byte, so that a secret in an archive's plain parts does not stay; size and
//! digest are those of what is kept.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::fcntl::OFlag;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::mask::Mask;

/// The most bytes of one file.
const ONE: u64 = 1024 * 1024;
/// The most bytes of all files of a step.
const ALL: u64 = 4 * 1024 * 1024;

/// `{path: {size, sha256, content_base64}}` of these files, each from the first of the directories that has it; the sentence
/// says which of them is missing or cannot be kept.
pub(crate) fn collect(directories: &[PathBuf], paths: &[String], mask: &Mask) -> Result<Value, String> {
    let root = |directory: &PathBuf| directory.canonicalize();
    let roots: Vec<PathBuf> = directories
        .iter()
        .map(root)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("artifacts: the directory is gone: {error}"))?;
    let mut found = Map::new();
    let mut room = ALL;
    for path in paths {
        let root = roots.iter().find(|root| root.join(path).symlink_metadata().is_ok()).or(roots.last());
        let root = root.ok_or("artifacts: there is no directory")?;
        let bytes = read(root, path, room).map_err(|why| format!("artifact {path:?} {why}"))?;
        room = room.saturating_sub(bytes.len() as u64);
        let bytes = mask.bytes(bytes);
        let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        let file = json!({ "size": bytes.len(), "sha256": sha256, "content_base64": STANDARD.encode(&bytes) });
        found.insert(path.clone(), file);
    }
    Ok(Value::Object(found))
}

fn read(root: &Path, path: &str, room: u64) -> Result<Vec<u8>, String> {
    let relative = Path::new(path);
    if path.is_empty() || !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err("is no path below the command's directory".to_owned());
    }
    let place = root.join(relative).canonicalize().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => "was not left behind".to_owned(),
        _ => format!("cannot be read: {error}"),
    })?;
    if !place.starts_with(root) {
        return Err("leads out of the command's directory".to_owned());
    }
    // A pipe would block whoever opens it; a link that took the place since is not followed.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits()).open(&place);
    let file: File = opened.map_err(|error| format!("cannot be read: {error}"))?;
    let metadata = file.metadata().map_err(|error| format!("cannot be read: {error}"))?;
    if !metadata.is_file() {
        return Err("is no regular file".to_owned());
    }
    let most = ONE.min(room);
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    match bytes.len() as u64 {
        length if length <= most => Ok(bytes),
        length if length > ONE => Err("exceeds 1 MiB".to_owned()),
        _ => Err("does not fit: all artifacts of a step together may have 4 MiB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn collected(directory: &Path, paths: &[&str]) -> Result<Value, String> {
        let paths: Vec<String> = paths.iter().map(|&path| path.to_owned()).collect();
        collect(&[directory.to_owned()], &paths, &Mask::default())
    }

    #[test]
    fn files_are_kept_with_their_digest() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("out")).unwrap();
        std::fs::write(home.path().join("out/a.txt"), "abc").unwrap();
        symlink("out/a.txt", home.path().join("link")).unwrap();
        let found = collected(home.path(), &["out/a.txt", "link"]).unwrap();
        let expected = json!({
            "size": 3,
            "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "content_base64": "YWJj",
        });
        assert_eq!(found, json!({"out/a.txt": expected, "link": expected}));
    }

    #[test]
    fn what_is_missing_too_large_or_elsewhere_is_named() {
        let home = tempfile::tempdir().unwrap();
        let inside = home.path().join("inside");
        std::fs::create_dir_all(inside.join("directory")).unwrap();
        std::fs::write(home.path().join("outside"), "x").unwrap();
        symlink("../outside", inside.join("link")).unwrap();
        symlink("..", inside.join("up")).unwrap();
        std::fs::write(inside.join("large"), vec![b'x'; 1024 * 1024 + 1]).unwrap();
        nix::unistd::mkfifo(&inside.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (path, expected) in [
            ("none", "\"none\" was not left behind"),
            ("../outside", "no path below"),
            ("/etc/passwd", "no path below"),
            ("", "no path below"),
            ("link", "leads out"),
            ("up/outside", "leads out"),
            ("directory", "is no regular file"),
            ("pipe", "is no regular file"),
            ("large", "exceeds 1 MiB"),
        ] {
            let error = collected(&inside, &[path]).unwrap_err();
            assert!(error.contains(expected), "{path}: {error}");
        }
    }

    #[test]
    fn all_together_have_a_bound_too() {
        let home = tempfile::tempdir().unwrap();
        let names = ["a", "b", "c", "d", "e"];
        for name in names {
            std::fs::write(home.path().join(name), vec![b'x'; 1024 * 1024]).unwrap();
        }
        assert_eq!(collected(home.path(), &names[..4]).unwrap().as_object().unwrap().len(), 4);
        assert!(collected(home.path(), &names).unwrap_err().contains("artifact \"e\" does not fit"));
    }

    #[test]
    fn secrets_are_taken_out_of_any_bytes() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("a"), b"\xff\x00topsecret\xfetopsecret").unwrap();
        let mut mask = Mask::default();
        mask.add("topsecret");
        let found = collect(&[home.path().to_owned()], &["a".to_owned()], &mask).unwrap();
        let kept = STANDARD.decode(found["a"]["content_base64"].as_str().unwrap()).unwrap();
        assert_eq!(kept, b"\xff\x00***\xfe***");
        assert_eq!(found["a"]["size"], kept.len());
    }
}
