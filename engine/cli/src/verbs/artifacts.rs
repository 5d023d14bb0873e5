//! `stanch runs artifacts`: the files that the steps of a run left behind.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Component, Path, PathBuf};

use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use stanch_playbook::test_file::item_text;

use super::runs::read;
use crate::client::Client;
use crate::failure::{Exit, Failure, Outcome};
use crate::format::Format;
use crate::terminal::{self, OUT, Style, Table, inert};

/// A file that an attempt of a step left behind.
#[derive(Debug, Deserialize)]
struct Artifact {
    step: String,
    item: Option<u32>,
    value: Option<Value>,
    generation: u32,
    attempt: u32,
    path: String,
    size: u64,
    sha256: String,
}

/// Lists them; with a directory writes each of the last attempt that left it behind. Exits with 1 where one was not written.
pub async fn run(client: &Client, run: &str, out: Option<&Path>, format: Format) -> Outcome {
    let answer = client.get(&format!("/api/v1/runs/{run}/artifacts")).await?;
    let Some(out) = out else {
        if !format.print(&answer)? {
            terminal::print(&table(&read::<Vec<Artifact>>(answer)?))?;
        }
        return Ok(Exit::Done);
    };
    let all: Vec<Artifact> = read(answer)?;
    fs::create_dir_all(out).map_err(|error| Failure::because(format!("{} cannot be made", out.display()), &error))?;
    let mut left = 0;
    for (index, one) in all.iter().enumerate() {
        if all[index + 1..]
            .iter()
            .any(|later| (&later.step, later.item, &later.path) == (&one.step, one.item, &one.path))
        {
            continue;
        }
        match write(client, run, out, one).await? {
            Ok(path) => terminal::print(&format!("{}\n", inert(&path.display().to_string())))?,
            Err(why) => {
                left += 1;
                terminal::note(&format!("{} of {} was not written: {why}", inert(&one.path), inert(&one.step)));
            }
        }
    }
    match left {
        0 => Ok(Exit::Done),
        left => Err(Failure::new(format!("{left} of the files were not written"))
            .help("nothing is overwritten: name an empty directory with --out")),
    }
}

fn table(all: &[Artifact]) -> String {
    if all.is_empty() {
        return "no step of this run left a file behind\n".to_owned();
    }
    let mut table = Table::new(["STEP", "ATTEMPT", "SIZE", "SHA256", "PATH"]);
    for one in all {
        let item = one.value.as_ref().map(|value| format!("[{}]", item_text(value))).unwrap_or_default();
        let attempt = match one.generation {
            0 => one.attempt.to_string(),
            again => format!("{again}.{}", one.attempt),
        };
        table.row([
            (Style::Plain, format!("{}{item}", one.step)),
            (Style::Plain, attempt),
            (Style::Plain, one.size.to_string()),
            (Style::Dim, one.sha256.clone()),
            (Style::Bold, one.path.clone()),
        ]);
    }
    table.render(*OUT)
}

/// Writes one file; the sentence says why that was refused.
async fn write(client: &Client, run: &str, out: &Path, one: &Artifact) -> Result<Result<PathBuf, String>, Failure> {
    let Some(below) = place(one) else { return Ok(Err("its path leads out of the directory".to_owned())) };
    let encoded: Vec<String> = one.path.split('/').map(encode).collect();
    let item = one.item.map(|item| format!("&item={item}")).unwrap_or_default();
    let path = format!(
        "/api/v1/runs/{run}/steps/{}/artifacts/{}?generation={}&attempt={}{item}",
        encode(&one.step),
        encoded.join("/"),
        one.generation,
        one.attempt
    );
    let response = client.send(client.request(Method::GET, &path)).await?;
    let bytes = response.bytes().await.map_err(|error| client.lost(&error))?;
    Ok(save(out, &below, &bytes).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => format!("{} is there already", out.join(&below).display()),
        _ => error.to_string(),
    }))
}

/// Where a file goes below the directory: its step, its item where it has one, its path.
fn place(one: &Artifact) -> Option<PathBuf> {
    let mut place = PathBuf::from(&one.step);
    if let Some(item) = one.item {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
        let text = one.value.as_ref().map(item_text).unwrap_or_default();
        let name: String = text.chars().take(64).map(|letter| if plain(letter) { letter } else { '_' }).collect();
        place.push(format!("{item}-{name}"));
    }
    place.push(one.path.trim_start_matches("./"));
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    let stays = Path::new(&one.path).components().all(inside) && place.components().all(inside);
    (stays && !one.path.is_empty() && Path::new(&one.step).components().count() == 1).then_some(place)
}

/// Writes a new file below a directory, through no link and over nothing.
fn save(out: &Path, below: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let mut place = out.to_owned();
    let parts: Vec<Component<'_>> = below.components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let Some((name, directories)) = parts.split_last() else { return Err(io::ErrorKind::InvalidInput.into()) };
    for directory in directories {
        place.push(directory);
        match fs::create_dir(&place) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ if fs::symlink_metadata(&place)?.is_dir() => {}
            _ => return Err(io::Error::other(format!("{} is no directory of its own", place.display()))),
        }
    }
    place.push(name);
    File::create_new(&place)?.write_all(bytes)?;
    Ok(place)
}

fn encode(part: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    part.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(step: &str, path: &str) -> Artifact {
        let (step, path) = (step.to_owned(), path.to_owned());
        Artifact { step, item: None, value: None, generation: 0, attempt: 1, path, size: 1, sha256: String::new() }
    }

    #[test]
    fn a_file_goes_below_its_step_and_never_out_of_the_directory() {
        assert_eq!(place(&artifact("detect.keep", "out/a.txt")), Some("detect.keep/out/a.txt".into()));
        for (step, path) in
            [("a.b", "../x"), ("a.b", "/etc/passwd"), ("a.b", "x/../../y"), ("..", "x"), ("a/b", "x"), ("a.b", "")]
        {
            assert_eq!(place(&artifact(step, path)), None, "{step} {path}");
        }
        let item = Artifact { item: Some(3), value: Some("../web 1".into()), ..artifact("a.b", "x") };
        assert_eq!(place(&item), Some("a.b/3-___web_1/x".into()));
    }

    #[test]
    fn nothing_is_overwritten_and_no_link_is_followed() {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("out");
        fs::create_dir(&out).unwrap();
        assert_eq!(fs::read(save(&out, Path::new("a/x"), b"1").unwrap()).unwrap(), b"1");
        assert_eq!(save(&out, Path::new("a/x"), b"2").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(out.join("a/x")).unwrap(), b"1");
        std::os::unix::fs::symlink(home.path(), out.join("b")).unwrap();
        assert!(save(&out, Path::new("b/x"), b"2").unwrap_err().to_string().contains("no directory of its own"));
        std::os::unix::fs::symlink("../elsewhere", out.join("c")).unwrap();
        assert!(save(&out, Path::new("c"), b"2").is_err());
        assert!(!home.path().join("elsewhere").exists() && !home.path().join("x").exists());
    }
}
