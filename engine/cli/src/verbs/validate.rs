//! `stanch validate`: every problem of every playbook, with its place.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use stanch_playbook::diagnostic::{self, Diagnostic, Level};
use stanch_playbook::{BROKEN_CATALOGUE, Catalogue, Diagnostics, Plan, PlaybookName, check_set, load_with};
use stanch_server::playbooks::{Place, catalogues_above, catalogues_in, is_catalogue, is_playbook};

use crate::cli::Validate;
use crate::failure::{Exit, Failure, Outcome};
use crate::format::Format;
use crate::terminal::{self, OUT, Style, inert};

/// What is said of one file.
struct Report {
    file: String,
    plans: Vec<Plan>,
    list: Vec<Diagnostic>,
    source: Arc<str>,
}

/// Checks files, and the playbooks and catalogues below directories. Exits with 1 where one has an error.
pub fn run(arguments: &Validate) -> Outcome {
    let mut files = Vec::new();
    for path in &arguments.paths {
        collect(path, &mut files)?;
    }
    files.dedup();
    if files.is_empty() {
        return Err(Failure::new("there is no playbook to check")
            .help("playbooks are files named *.yaml or *.yml; name one, or a directory that holds some"));
    }
    let mut reports = check(&files)?;
    name_twice(&mut reports);
    let broken = reports.iter().any(|report| is_catalogue(Path::new(&report.file)) && report.has_errors());
    if !broken {
        check_together(&mut reports, arguments.paths.iter().all(|path| path.is_dir()));
    }
    let of_level = |level| reports.iter().flat_map(|report| &report.list).filter(|one| one.level == level).count();
    let (errors, warnings) = (of_level(Level::Error), of_level(Level::Warning));
    let result = || {
        json!({
            "files": reports.len(),
            "errors": errors,
            "warnings": warnings,
            "playbooks": reports.iter().map(Report::json).collect::<Vec<_>>(),
        })
    };
    match arguments.format {
        Format::Sarif => terminal::print(&format!("{:#}\n", sarif(&reports)))?,
        Format::Github => terminal::print(&github(&reports))?,
        Format::Table => terminal::print(&people(&reports, errors, warnings, broken))?,
        _ => {
            arguments.format.print(&result())?;
        }
    }
    let denied = arguments.deny_warnings && warnings > 0;
    Ok(if errors == 0 && !denied { Exit::Done } else { Exit::Failed })
}

/// The files that a path names: itself, or what an engine would load from the directory.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    below(path, 0, |path| is_playbook(path) || is_catalogue(path), files)
}

/// A file that is named, or those below a directory that are wanted; what is hidden is left out.
pub fn below(path: &Path, depth: usize, wanted: fn(&Path) -> bool, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let unreadable = |error: std::io::Error| {
        Failure::because(format!("{} cannot be read", inert(&path.display().to_string())), &error)
    };
    if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let entries = std::fs::read_dir(path).map_err(unreadable)?;
    let mut paths =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    paths.sort();
    for path in paths {
        if path.is_dir() && depth < 8 && !is_hidden(&path) {
            below(&path, depth + 1, wanted, files)?;
        } else if path.is_file() && !is_hidden(&path) && wanted(&path) {
            files.push(path);
        }
    }
    Ok(())
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

/// The catalogues first: what they name has a meaning in every playbook. Beside a playbook that is named alone, those
/// of its directory and of those above it count too.
fn check(files: &[PathBuf]) -> Result<Vec<Report>, Failure> {
    let mut catalogues: Vec<PathBuf> = files.iter().filter(|file| is_catalogue(file)).cloned().collect();
    let canonical = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
    let mut known: BTreeSet<PathBuf> = catalogues.iter().map(canonical).collect();
    for file in files {
        catalogues.extend(beside(file)?.into_iter().filter(|path| known.insert(canonical(path))));
    }
    // Of a name that two give, the one farther down is wrong: others may use what is shared.
    catalogues.sort_by_key(|path| canonical(path).components().count());
    let mut catalogue = Catalogue::new();
    let mut reports = BTreeMap::new();
    for path in catalogues {
        let (file, source) = read(&path)?;
        let list = catalogue.load(&file, &source).unwrap_or_else(|Diagnostics { list, .. }| list);
        if files.contains(&path) || !list.is_empty() {
            reports.insert(path, Report { file, plans: Vec::new(), list, source });
        }
    }
    for path in files.iter().filter(|file| !is_catalogue(file)) {
        let (file, source) = read(path)?;
        let (plans, list) = match load_with(&file, &source, &catalogue) {
            Ok(loaded) => {
                let (plans, lists): (_, Vec<_>) = loaded.into_iter().map(|one| (one.plan, one.warnings)).unzip();
                (plans, lists.concat())
            }
            Err(Diagnostics { list, .. }) => (Vec::new(), list),
        };
        // The catalogue's own errors say it once.
        let list = list.into_iter().filter(|one| one.code != BROKEN_CATALOGUE).collect();
        reports.insert(path.clone(), Report { file, plans, list, source });
    }
    Ok(reports.into_values().collect())
}

/// The catalogues in the directory of a file, and [above](catalogues_above) it.
pub fn beside(file: &Path) -> Result<Vec<PathBuf>, Failure> {
    let directory = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let unreadable = |error: std::io::Error| {
        Failure::because(format!("{} cannot be read", inert(&directory.display().to_string())), &error)
    };
    let here = catalogues_in(directory).map_err(unreadable)?;
    Ok(here.into_iter().chain(catalogues_above(directory).map_err(unreadable)?).collect())
}

fn read(path: &Path) -> Result<(String, Arc<str>), Failure> {
    let file = inert(&path.display().to_string());
    let bytes = std::fs::read(path).map_err(|error| Failure::because(format!("{file} cannot be read"), &error))?;
    Ok((file, Arc::from(&*String::from_utf8_lossy(&bytes))))
}

/// An engine loads one playbook of a name.
fn name_twice(reports: &mut [Report]) {
    let mut first: BTreeMap<PlaybookName, String> = BTreeMap::new();
    for report in reports {
        for name in report.plans.iter().map(|plan| plan.name.clone()) {
            let Some(other) = first.get(&name) else {
                first.insert(name, report.file.clone());
                continue;
            };
            let line = report.source.lines().position(|line| line.starts_with("playbook:")).unwrap_or(0);
            let offset = report.source.split_inclusive('\n').take(line).map(str::len).sum();
            let length = report.source.lines().nth(line).map_or(0, str::len);
            report.list.push(Diagnostic {
                level: Level::Error,
                code: "duplicate-playbook",
                message: format!("{other} has a playbook named {name} too"),
                help: Some("give one of them another name, or check them one by one".to_owned()),
                file: report.file.as_str().into(),
                line: line + 1,
                column: 1,
                span: (offset, length),
            });
        }
    }
}

/// What only several playbooks together show. Where not whole directories are checked, a child that is missing may be
/// in another one.
fn check_together(reports: &mut [Report], whole: bool) {
    let plans: Vec<&Plan> = reports.iter().flat_map(|report| &report.plans).collect();
    for problem in check_set(&plans) {
        let of = |report: &&mut Report| report.plans.iter().any(|plan| plan.name == problem.playbook);
        let Some(report) = reports.iter_mut().find(of) else { continue };
        let place = Place::of(&report.source, &problem.step);
        let elsewhere = !whole && problem.code == "unknown-playbook";
        let help = match problem.help {
            None if elsewhere => {
                Some("check its directory too, or the whole directory that an engine loads".to_owned())
            }
            help => help,
        };
        report.list.push(Diagnostic {
            level: if elsewhere { Level::Warning } else { Level::Error },
            code: problem.code,
            message: problem.message,
            help,
            file: report.file.as_str().into(),
            line: place.line,
            column: place.column,
            span: (place.offset, place.length),
        });
    }
}

impl Report {
    fn has_errors(&self) -> bool {
        self.list.iter().any(|one| one.level == Level::Error)
    }

    fn json(&self) -> Value {
        let one = |one: &Diagnostic| {
            json!({
                "level": level(one),
                "code": one.code,
                "message": one.message,
                "help": one.help,
                "line": one.line,
                "column": one.column,
                "offset": one.span.0,
                "length": one.span.1,
            })
        };
        json!({
            "file": self.file,
            "playbook": self.plans.first().map(|plan| &plan.name),
            "playbooks": self.plans.iter().map(|plan| &plan.name).collect::<Vec<_>>(),
            "diagnostics": self.list.iter().map(one).collect::<Vec<_>>(),
        })
    }
}

fn people(reports: &[Report], errors: usize, warnings: usize, broken: bool) -> String {
    let mut out = String::new();
    for report in reports.iter().filter(|report| !report.list.is_empty()) {
        // What is shown of the source is from outside too.
        let source: Arc<str> = harmless(&report.source).into();
        for one in &report.list {
            out.push_str(&diagnostic::render(std::slice::from_ref(one), &source, OUT.color));
            out.push('\n');
        }
    }
    // A file that cannot be used holds at least one.
    let playbooks = reports.iter().filter(|report| !is_catalogue(Path::new(&report.file)));
    let catalogues = reports.iter().filter(|report| is_catalogue(Path::new(&report.file))).count();
    let mut files = plural(playbooks.map(|report| report.plans.len().max(1)).sum(), "playbook");
    if catalogues > 0 {
        files.push_str(&format!(" and {}", plural(catalogues, "catalogue")));
    }
    let (style, verdict) = match (errors, warnings) {
        (0, 0) => (Style::Green, format!("✔ {files}, no problems")),
        (0, _) => (Style::Yellow, format!("✔ {files}, {}", plural(warnings, "warning"))),
        (_, 0) => (Style::Red, format!("✘ {files}, {}", plural(errors, "error"))),
        _ => (Style::Red, format!("✘ {files}, {}, {}", plural(errors, "error"), plural(warnings, "warning"))),
    };
    out.push_str(&OUT.paint(style, &verdict));
    out.push_str(if broken {
        "; what uses a catalogue with errors is only checked once that is mended\n"
    } else {
        "\n"
    });
    out
}

/// SARIF 2.1.0, as code scanning reads it.
fn sarif(reports: &[Report]) -> Value {
    let mut rules: Vec<&str> = reports.iter().flat_map(|report| &report.list).map(|one| one.code).collect();
    rules.sort_unstable();
    rules.dedup();
    let result = |report: &Report, one: &Diagnostic| {
        let (end_line, end_column) = end(one, &report.source);
        let help = one.help.as_ref().map(|help| format!("\n{help}")).unwrap_or_default();
        json!({
            "ruleId": one.code,
            "level": level(one),
            "message": {"text": format!("{}{help}", one.message)},
            "locations": [{"physicalLocation": {
                "artifactLocation": {"uri": uri(&report.file)},
                "region": {
                    "startLine": one.line,
                    "startColumn": one.column,
                    "endLine": end_line,
                    "endColumn": end_column,
                },
            }}],
        })
    };
    let results = reports.iter().flat_map(|report| report.list.iter().map(move |one| result(report, one)));
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "stanch",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.iter().map(|code| json!({"id": code})).collect::<Vec<_>>(),
            }},
            "columnKind": "unicodeCodePoints",
            "results": results.collect::<Vec<_>>(),
        }],
    })
}

/// Commands of a GitHub workflow, which marks the lines with them.
fn github(reports: &[Report]) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let mut out = String::new();
    for report in reports {
        for one in &report.list {
            let (end_line, end_column) = end(one, &report.source);
            let help = one.help.as_ref().map(|help| format!("\n{help}")).unwrap_or_default();
            out.push_str(&format!(
                "::{} file={},line={},col={},endLine={end_line},endColumn={end_column},title={}::{}\n",
                level(one),
                property(&report.file),
                one.line,
                one.column,
                property(one.code),
                data(&inert_lines(&format!("{}{help}", one.message))),
            ));
        }
    }
    out
}

/// Text from outside without what could steer the reader, its line breaks kept.
fn inert_lines(text: &str) -> String {
    text.split('\n').map(inert).collect::<Vec<_>>().join("\n")
}

fn level(one: &Diagnostic) -> &'static str {
    match one.level {
        Level::Error => "error",
        Level::Warning => "warning",
    }
}

/// The line and the column just after a diagnostic's place, both from 1.
fn end(one: &Diagnostic, source: &str) -> (usize, usize) {
    let shown = source.get(one.span.0..one.span.0 + one.span.1).unwrap_or("");
    match shown.rsplit_once('\n') {
        Some((before, last)) => (one.line + before.matches('\n').count() + 1, last.chars().count() + 1),
        None => (one.line, one.column + shown.chars().count()),
    }
}

/// A relative path as the reference that SARIF wants.
fn uri(file: &str) -> String {
    let mut shown = String::new();
    for byte in file.bytes() {
        match byte {
            byte if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) => shown.push(char::from(byte)),
            b'\\' if cfg!(windows) => shown.push('/'),
            byte => shown.push_str(&format!("%{byte:02X}")),
        }
    }
    shown
}

/// The text with each control byte but line breaks replaced by a space: places stay where they are.
pub fn harmless(source: &str) -> String {
    let mut shown = String::with_capacity(source.len());
    for letter in source.chars() {
        if letter == '\n' || inert(letter.encode_utf8(&mut [0; 4])).chars().eq([letter]) {
            shown.push(letter);
        } else {
            shown.extend(std::iter::repeat_n(' ', letter.len_utf8()));
        }
    }
    shown
}

pub fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_source_keeps_its_places_and_loses_what_steers() {
        let source = "a: \u{1b}[2J\r\nb: \u{202e}x\tü\n";
        let shown = harmless(source);
        assert_eq!(shown.len(), source.len());
        assert_eq!(shown, "a:  [2J \nb:    x ü\n");
    }
}
