//! `stanch test`: playbooks against what their authors expect of them, on a virtual clock.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use stanch_playbook::diagnostic::{self, Diagnostic};
use stanch_playbook::test_file::{TestCase, TestFile};
use stanch_playbook::time::shown_duration;
use stanch_playbook::{Plan, PlaybookName, load_tests};
use stanch_simulator::coverage::{Coverage, Share, Way};
use stanch_simulator::testing::{self, Engines, TestReport};

use super::validate::{below, harmless, plural};
use crate::cases::{Beside, Shelves, named, playbooks_in};
use crate::cli::Test;
use crate::failure::{Exit, Failure, Outcome};
use crate::format::{self, Format};
use crate::replay;
use crate::terminal::{self, OUT, Style, inert};
use crate::xml::escape;

/// What is said of one file.
struct FileReport {
    file: String,
    source: Arc<str>,
    /// Why its tests could not be run.
    problems: Vec<Diagnostic>,
    tests: Vec<(TestCase, TestReport)>,
}

/// Runs the tests. Exits with 1 where one fails or a file cannot be used.
pub fn run(arguments: &Test, format: Format) -> Outcome {
    if let Some(recorded) = &arguments.replay {
        return replay::run(recorded, &arguments.playbooks, arguments.filter.as_deref(), format);
    }
    let started = Instant::now();
    let mut files = Vec::new();
    let here = [PathBuf::from(".")];
    for path in if arguments.paths.is_empty() { &here[..] } else { &arguments.paths } {
        below(path, 0, is_test, &mut files)?;
    }
    files.dedup();
    if files.is_empty() {
        return Err(Failure::new("there is no test to run")
            .help("tests are files named *.test.yaml; name one, or a directory that holds some"));
    }
    let shelves = Shelves::default();
    let mut engines = Engines::default();
    let mut coverage = Coverage::default();
    let mut reports = Vec::new();
    for file in &files {
        reports.push(run_file(file, arguments.filter.as_deref(), &shelves, &mut engines, &mut coverage)?);
    }
    if let Some(path) = &arguments.junit {
        let written = std::fs::write(path, junit(&reports));
        written.map_err(|error| Failure::because(format!("{} cannot be written", path.display()), &error))?;
    }
    let tests = || reports.iter().flat_map(|report| &report.tests);
    let failed = tests().filter(|(_, report)| !report.failures.is_empty()).count();
    let unusable = reports.iter().filter(|report| !report.problems.is_empty()).count();
    if format == Format::Table {
        let mut out = people(&reports, arguments.coverage.then_some(&coverage));
        let took = format::duration(started.elapsed());
        let count = tests().count();
        let (style, mark) = if failed + unusable == 0 { (Style::Green, "✔") } else { (Style::Red, "✘") };
        let mut verdict = format!("{mark} {} in {took}", plural(count, "test"));
        if failed > 0 {
            write!(verdict, ", {failed} failed").expect("a string takes all");
        }
        if unusable > 0 {
            write!(verdict, ", {} cannot be used", plural(unusable, "file")).expect("a string takes all");
        }
        out.push_str(&OUT.paint(style, &verdict));
        out.push_str(&format!(
            "; reached {} and {}\n",
            share(coverage.steps(), "step"),
            share(coverage.ways(), "branch")
        ));
        terminal::print(&out)?;
    } else {
        format.print(&result(&reports, &coverage, failed))?;
    }
    if tests().next().is_none() && unusable == 0 {
        return Err(Failure::new("no test has this text in its file or name").help("leave --filter out, or shorten it"));
    }
    Ok(if failed + unusable == 0 { Exit::Done } else { Exit::Failed })
}

fn is_test(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".test.yaml") || name.ends_with(".test.yml")
}

fn run_file(
    path: &Path,
    filter: Option<&str>,
    shelves: &Shelves,
    engines: &mut Engines,
    coverage: &mut Coverage,
) -> Result<FileReport, Failure> {
    let file = inert(path.display().to_string().trim_start_matches("./"));
    let bytes = std::fs::read(path).map_err(|error| Failure::because(format!("{file} cannot be read"), &error))?;
    let tests = match load_tests(&file, &String::from_utf8_lossy(&bytes)) {
        Ok(tests) => tests,
        Err(diagnostics) => {
            return Ok(FileReport { file, source: diagnostics.source, problems: diagnostics.list, tests: Vec::new() });
        }
    };
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let (plans, broken) = plans_of(&tests, directory, shelves)?;
    let known: Vec<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
    let mut problems = tests.check_names(|name| named(&plans, name).map(|plan| &**plan), &known);
    for problem in problems.iter_mut().filter(|problem| problem.code == "unknown-playbook") {
        if let Some(name) = broken.iter().find(|name| problem.message.ends_with(&format!(" {name}"))) {
            problem.message = format!("the playbook {name} has errors");
            problem.help = Some(format!("see them: stanch validate {}", inert(&directory.display().to_string())));
        }
    }
    let source = Arc::clone(&tests.source);
    if !problems.is_empty() {
        return Ok(FileReport { file, source, problems, tests: Vec::new() });
    }
    if filter.is_none() {
        // A playbook that has no test at all is what an author most needs to see.
        plans.iter().for_each(|plan| coverage.add(plan));
    }
    let beside = Beside(directory);
    let mut reports = Vec::new();
    for test in tests.tests {
        let wanted = |text: &str| file.contains(text) || test.name.contains(text);
        let Some(plan) = named(&plans, &test.playbook).filter(|_| filter.is_none_or(wanted)) else { continue };
        coverage.add(plan);
        let report = testing::run(engines, plan, &plans, &test, &beside);
        coverage.observe(&report.records);
        reports.push((test, report));
    }
    Ok(FileReport { file, source, problems, tests: reports })
}

/// The playbooks that a file's tests are about, and the names of those that cannot be used.
fn plans_of(
    tests: &TestFile,
    directory: &Path,
    shelves: &Shelves,
) -> Result<(Vec<Arc<Plan>>, Vec<PlaybookName>), Failure> {
    if tests.playbooks.is_empty() {
        let library = shelves.directory(directory)?;
        return Ok((library.plans.clone(), library.broken.clone()));
    }
    let (mut plans, mut broken) = (Vec::new(), Vec::new());
    for path in &tests.playbooks {
        let path = directory.join(path);
        if path.is_dir() {
            let library = shelves.directory(&path)?;
            plans.extend(library.plans.iter().cloned());
            broken.extend(library.broken.iter().cloned());
            continue;
        }
        plans.extend(playbooks_in(&path)?);
    }
    Ok((plans, broken))
}

fn people(reports: &[FileReport], coverage: Option<&Coverage>) -> String {
    let mut out = String::new();
    for report in reports {
        if !report.problems.is_empty() {
            let source: Arc<str> = harmless(&report.source).into();
            for one in &report.problems {
                out.push_str(&diagnostic::render(std::slice::from_ref(one), &source, OUT.color));
                out.push('\n');
            }
            continue;
        }
        let failed: Vec<_> = report.tests.iter().filter(|(_, report)| !report.failures.is_empty()).collect();
        if failed.is_empty() {
            let line = format!("✔ {}  {}", report.file, plural(report.tests.len(), "test"));
            if !report.tests.is_empty() {
                out.push_str(&OUT.paint(Style::Dim, &line));
                out.push('\n');
            }
            continue;
        }
        for (test, seen) in failed {
            failure(&mut out, &report.file, test, seen);
        }
    }
    if let Some(coverage) = coverage {
        missed(&mut out, coverage);
    }
    out
}

fn failure(out: &mut String, file: &str, test: &TestCase, report: &TestReport) {
    let place = OUT.paint(Style::Dim, &format!("{file}:{}", test.place.line()));
    out.push_str(&format!("{} {}  {place}\n", OUT.paint(Style::Red, "✘"), OUT.paint(Style::Bold, &inert(&test.name))));
    for one in &report.failures {
        let at = one.at.map(|at| format!(" at {}", shown_duration(at))).unwrap_or_default();
        let place = OUT.paint(Style::Dim, &format!("{file}:{}:{}", one.place.line(), one.place.column()));
        out.push_str(&format!("    {}{at}  {place}\n", inert(&one.path)));
        out.push_str(&format!("      expected {}\n", OUT.paint(Style::Green, &inert(&one.expected))));
        out.push_str(&format!("      saw      {}\n", OUT.paint(Style::Red, &inert(&one.seen))));
    }
    let Some(run) = &report.seen else {
        out.push_str("    no run started\n\n");
        return;
    };
    let at = report.seen_at.map(|at| format!("at {} ", shown_duration(at))).unwrap_or_default();
    out.push_str(&format!("    {at}the run was {}:\n", run.state));
    let width = run.steps.iter().map(|step| terminal::width(step.step.as_str())).max().unwrap_or(0);
    for step in &run.steps {
        let (mark, style) = format::mark(step.state);
        let attempts = if step.attempts > 1 { format!(", {} attempts", step.attempts) } else { String::new() };
        let why = step.error.as_ref().map(|error| format!(": {}", inert(error))).unwrap_or_default();
        let name = terminal::pad(step.step.as_str(), width);
        out.push_str(&format!("      {} {name}  {}{attempts}{why}\n", OUT.paint(style, mark), step.state));
    }
    out.push('\n');
}

fn missed(out: &mut String, coverage: &Coverage) {
    for covered in coverage.playbooks() {
        let missed = covered.missed();
        if missed.is_empty() {
            out.push_str(&format!("{}: everything was reached\n", covered.plan.name));
            continue;
        }
        out.push_str(&format!("{}: no test reaches that\n", OUT.paint(Style::Bold, covered.plan.name.as_str())));
        let width = missed.iter().map(|(step, _)| terminal::width(step.as_str())).max().unwrap_or(0);
        for (step, ways) in missed {
            let shown: Vec<String> = if ways.contains(&Way::Starts) {
                vec!["never starts".to_owned()]
            } else {
                ways.iter().map(ToString::to_string).collect()
            };
            out.push_str(&format!("  {}  {}\n", terminal::pad(step.as_str(), width), shown.join(", ")));
        }
    }
}

fn share(share: Share, what: &str) -> String {
    let all =
        if what.ends_with('h') && share.all != 1 { format!("{} {what}es", share.all) } else { plural(share.all, what) };
    format!("{} of {all}", share.reached)
}

fn result(reports: &[FileReport], coverage: &Coverage, failed: usize) -> Value {
    let test = |(test, report): &(TestCase, TestReport)| {
        let failures = report.failures.iter().map(|one| {
            json!({
                "expectation": one.path,
                "line": one.place.line(),
                "column": one.place.column(),
                "at_seconds": one.at.map(|at| at.as_secs_f64()),
                "expected": one.expected,
                "seen": one.seen,
            })
        });
        let steps = |run: &testing::RunSeen| {
            let steps = run.steps.iter().map(|step| {
                (step.step.to_string(), json!({"state": step.state, "error": step.error, "attempts": step.attempts}))
            });
            json!({"state": run.state, "steps": steps.collect::<serde_json::Map<_, _>>()})
        };
        json!({
            "name": test.name,
            "line": test.place.line(),
            "playbook": test.playbook,
            "passed": report.failures.is_empty(),
            "failures": failures.collect::<Vec<_>>(),
            "run": report.seen.as_ref().map(steps),
            "virtual_seconds": report.virtual_time.as_secs_f64(),
        })
    };
    let files = reports.iter().map(|report| {
        json!({
            "file": report.file,
            "problems": report.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "tests": report.tests.iter().map(test).collect::<Vec<_>>(),
        })
    });
    let share = |share: Share| json!({"reached": share.reached, "all": share.all});
    let missed = coverage.playbooks().map(|covered| {
        let steps = covered
            .missed()
            .into_iter()
            .map(|(step, ways)| (step.to_string(), ways.iter().map(ToString::to_string).collect::<Vec<_>>().into()));
        (covered.plan.name.to_string(), Value::Object(steps.collect()))
    });
    json!({
        "tests": reports.iter().map(|report| report.tests.len()).sum::<usize>(),
        "failed": failed,
        "files": files.collect::<Vec<_>>(),
        "coverage": {
            "steps": share(coverage.steps()),
            "branches": share(coverage.ways()),
            "missed": missed.collect::<serde_json::Map<_, _>>(),
        },
    })
}

/// JUnit's XML, as CI systems read it: a suite a file, a case a test.
fn junit(reports: &[FileReport]) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"stanch\">\n");
    for report in reports {
        let failures = report.tests.iter().filter(|(_, report)| !report.failures.is_empty()).count();
        let errors = usize::from(!report.problems.is_empty());
        out.push_str(&format!(
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\">\n",
            escape(&report.file),
            report.tests.len() + errors,
        ));
        if errors > 0 {
            let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
            out.push_str(&format!(
                "    <testcase name=\"the file can be used\" classname=\"{}\"><error message=\"{}\">{}</error></testcase>\n",
                escape(&report.file),
                escape(problems.first().map_or("", String::as_str)),
                escape(&problems.join("\n")),
            ));
        }
        for (test, seen) in &report.tests {
            let name = format!("name=\"{}\" classname=\"{}\"", escape(&test.name), escape(&test.playbook));
            if seen.failures.is_empty() {
                out.push_str(&format!("    <testcase {name}/>\n"));
                continue;
            }
            let lines: Vec<String> =
                seen.failures.iter().map(|one| format!("{}:{}: {one}", report.file, one.place.line())).collect();
            out.push_str(&format!(
                "    <testcase {name}><failure message=\"{}\">{}</failure></testcase>\n",
                escape(lines.first().map_or("", String::as_str)),
                escape(&lines.join("\n")),
            ));
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}
