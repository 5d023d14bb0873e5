//! `stanch audit`: the record of everything, shown, exported and verified.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use reqwest::Method;
use stanch_core::Sequence;
use stanch_journal::verify::{ExportError, Reason};
use stanch_journal::{Hash, ReadError, Scope, Verified};

use crate::cli::Audit;
use crate::client::Client;
use crate::failure::{Exit, Failure, Outcome, causes};
use crate::format::Format;
use crate::terminal::{self, OUT, Style, inert, note};
use crate::trail;

/// Shows, exports or verifies.
pub async fn run(client: impl FnOnce() -> Result<Client, Failure>, command: Audit, format: Format) -> Outcome {
    match command {
        Audit::Show { run, from, limit } => show(&client()?, run, from, limit, format).await,
        Audit::Verify { file, excerpt, head } => {
            verify(&file, if excerpt { Scope::Excerpt } else { Scope::Whole }, head)
        }
        Audit::Export { data_dir: Some(data_dir), output, .. } => export_stopped(&data_dir, output.as_deref()),
        Audit::Export { data_dir: None, run, output } => export_running(&client()?, run, output.as_deref()).await,
    }
}

async fn show(client: &Client, run: Option<String>, from: Option<u64>, limit: u64, format: Format) -> Outcome {
    let request = match run {
        Some(run) => {
            let id = client.whole_id("run", "/api/v1/runs", &run).await?;
            client.request(Method::GET, &format!("/api/v1/runs/{id}/records"))
        }
        None => {
            let from = match from {
                Some(from) => from,
                None => head(client).await?.saturating_sub(limit.saturating_sub(1)).max(1),
            };
            let query = [("from", from.to_string()), ("limit", limit.to_string())];
            client.query("/api/v1/audit", &query)
        }
    };
    let export = client.send(request).await?.bytes().await.map_err(|error| client.lost(&error))?;
    let mut entries = trail::entries(&export)?;
    if usize::try_from(limit).is_ok_and(|limit| entries.len() > limit) {
        entries.drain(..entries.len() - usize::try_from(limit).unwrap_or(0));
    }
    if format == Format::Table {
        terminal::print(&trail::table(&entries, *OUT)?)?;
        return Ok(Exit::Done);
    }
    let values: Result<Vec<serde_json::Value>, _> =
        export.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(serde_json::from_slice).collect();
    let values = values.map_err(|error| Failure::because("the engine sent a line that is no record", &error))?;
    format.print(&serde_json::Value::Array(values))?;
    Ok(Exit::Done)
}

/// The last record's sequence, as the engine's metrics have it.
pub async fn head(client: &Client) -> Result<u64, Failure> {
    let response = client.send(client.request(Method::GET, "/metrics")).await?;
    let text = response.text().await.map_err(|error| client.lost(&error))?;
    let line = text.lines().find_map(|line| line.strip_prefix("stanch_journal_sequence "));
    Ok(line.and_then(|number| number.trim().parse().ok()).unwrap_or(1))
}

/// Checks an export without an engine. Exits with 1 where it does not hold, naming the first record that does not, and
/// where no record of it has the hash that was noted.
fn verify(file: &Path, scope: Scope, noted: Option<Hash>) -> Outcome {
    let export: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        let opened = File::open(file).map_err(|error| {
            Failure::because(format!("{} cannot be read", inert(&file.display().to_string())), &error)
        })?;
        Box::new(BufReader::with_capacity(1 << 20, opened))
    };
    match stanch_journal::verify(export, scope, noted) {
        Ok(verified) => {
            let (style, text) = verdict(&verified, scope);
            let end = match (noted, verified.noted) {
                (Some(noted), None) => {
                    let last = verified.last;
                    return Err(Failure::new(format!("the records up to {last} hold, and none of them has the hash {noted}"))
                        .help("the end was cut off before it, or all was rewritten; compare it with another export"));
                }
                (Some(_), Some(at)) => format!("the noted head is record {at}; what was cut off after the last cannot be seen"),
                (None, _) => {
                    "an end that was cut off cannot be seen: keep the count and this hash elsewhere, and give the hash with --head"
                        .to_owned()
                }
            };
            terminal::print(&format!("{}\n{}\n", OUT.paint(style, &text), OUT.paint(Style::Dim, &end)))?;
            Ok(Exit::Done)
        }
        Err(broken) => Err(Failure::new(inert(&causes(&broken))).help(match broken.reason {
            Reason::Missing(_) => "if it holds the records of one run alone, verify it with --excerpt",
            Reason::Unreadable(_) | Reason::Empty => "export it again: stanch audit export --output FILE",
            _ => "compare it with another export or a backup; trust nothing from that record on",
        })),
    }
}

/// What verification found, in one line: what it shows and what it cannot.
pub fn verdict(verified: &Verified, scope: Scope) -> (Style, String) {
    let Verified { first, last, count, head_hash, redacted, contiguous, from_start, noted: _ } = verified;
    let mut text = format!("✔ {count} records ({first} to {last})");
    text.push_str(if *contiguous {
        ", chain verified, head "
    } else {
        " hold one by one; between them some are left out, so the chain is not verified; last hash "
    });
    text.push_str(&head_hash.to_string());
    if !*from_start {
        text.push_str("; what lay before is taken on trust");
    }
    if *redacted > 0 {
        text.push_str(&format!("; the content of {redacted} was deleted"));
    }
    let style = if *contiguous || scope == Scope::Excerpt { Style::Green } else { Style::Yellow };
    (style, text)
}

fn export_stopped(data_dir: &Path, output: Option<&Path>) -> Outcome {
    let reader = stanch_journal::open_read_only(data_dir).map_err(|error| Failure::new(inert(&causes(&error))))?;
    let count = to(output, |out| {
        stanch_journal::export(&*reader, Sequence(1), out).map_err(|error| match error {
            ExportError::Write(error) => unwritable(&error),
            ExportError::Read(error) => unreadable(&error),
        })
    })?;
    note(&format!("exported {count} records"));
    Ok(Exit::Done)
}

pub fn unreadable(error: &ReadError) -> Failure {
    Failure::new(inert(&causes(error)))
}

fn unwritable(error: &std::io::Error) -> Failure {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::nobody_reads(),
        _ => Failure::because("the export cannot be written", error),
    }
}

async fn export_running(client: &Client, run: Option<String>, output: Option<&Path>) -> Outcome {
    let path = match run {
        Some(run) => format!("/api/v1/runs/{}/records", client.whole_id("run", "/api/v1/runs", &run).await?),
        None => "/api/v1/audit".to_owned(),
    };
    let mut response = client.send(client.request(Method::GET, &path)).await?;
    let mut sink = Sink::open(output)?;
    let mut count = 0;
    while let Some(chunk) = response.chunk().await.map_err(|error| client.lost(&error))? {
        count += chunk.iter().filter(|byte| **byte == b'\n').count();
        sink.write_all(&chunk).map_err(|error| unwritable(&error))?;
    }
    sink.finish()?;
    note(&format!("exported {count} records"));
    Ok(Exit::Done)
}

fn to<T>(output: Option<&Path>, write: impl FnOnce(&mut Sink) -> Result<T, Failure>) -> Result<T, Failure> {
    let mut sink = Sink::open(output)?;
    let written = write(&mut sink)?;
    sink.finish()?;
    Ok(written)
}

/// Where an export goes. A file is there under its name only once it is whole.
struct Sink {
    out: Box<dyn Write>,
    names: Option<(std::path::PathBuf, std::path::PathBuf)>,
}

impl Sink {
    fn open(output: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = output.filter(|path| *path != Path::new("-")) else {
            let out = Box::new(BufWriter::with_capacity(1 << 16, std::io::stdout()));
            return Ok(Self { out, names: None });
        };
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = std::path::PathBuf::from(partial);
        let file = File::create(&partial).map_err(|error| {
            Failure::because(format!("{} cannot be written", inert(&partial.display().to_string())), &error)
        })?;
        Ok(Self { out: Box::new(BufWriter::with_capacity(1 << 16, file)), names: Some((partial, path.to_owned())) })
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| unwritable(&error))?;
        match &self.names {
            Some((partial, path)) => std::fs::rename(partial, path).map_err(|error| unwritable(&error)),
            None => Ok(()),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}
