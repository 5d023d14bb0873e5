//! The playbook files: read, checked, and read again when they change. A broken one never replaces a good one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use stanch_core::Command;
use stanch_playbook::{Plan, PlaybookName, StepKey, check_set};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::app::PlaybookProblem;
use crate::executor::Handle;

/// How often the directory is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// A directory's playbooks.
#[derive(Debug, Default)]
pub struct Library {
    /// Those that are valid.
    pub plans: Vec<Arc<Plan>>,
    /// The names of those that are not, as far as they can be told.
    pub broken: Vec<PlaybookName>,
    /// What is wrong with the others.
    pub problems: Vec<PlaybookProblem>,
    stamp: Stamp,
}

/// Every file with its size and time: when it differs, something changed.
type Stamp = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

/// Reads every playbook below a directory: `*.yaml` and `*.yml`, without `*.test.yaml` and `*.catalogue.yaml`.
///
/// # Errors
/// Where the directory cannot be read; a file that cannot is a problem of its own.
pub fn read(directory: &Path) -> std::io::Result<Library> {
    let stamp = stamp(directory)?;
    let mut library = Library::default();
    let mut sources: BTreeMap<PlaybookName, (String, String)> = BTreeMap::new();
    for file in stamp.keys() {
        let shown = file.strip_prefix(directory).unwrap_or(file).display().to_string();
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => {
                library.refuse(shown.clone(), None, vec![format!("{shown}: error[unreadable]: {error}")]);
                continue;
            }
        };
        match stanch_playbook::load(&shown, &text) {
            Ok(loaded) => {
                let plan = loaded.plan;
                if library.plans.iter().any(|other| other.name == plan.name) {
                    let line =
                        format!("{shown}: error[duplicate-playbook]: another file has a playbook named {}", plan.name);
                    library.refuse(shown, None, vec![line]);
                } else {
                    sources.insert(plan.name.clone(), (shown, text));
                    library.plans.push(Arc::new(plan));
                }
            }
            Err(diagnostics) => {
                let name = name_in(&text);
                let lines = diagnostics.to_string().lines().map(str::to_owned).collect();
                library.refuse(shown, name, lines);
            }
        }
    }
    library.check_together(&sources);
    // A broken copy of a playbook that a good file has too keeps nothing back.
    library.broken.retain(|name| !library.plans.iter().any(|plan| plan.name == *name));
    library.stamp = stamp;
    Ok(library)
}

impl Library {
    fn refuse(&mut self, file: String, playbook: Option<PlaybookName>, diagnostics: Vec<String>) {
        self.broken.extend(playbook.clone());
        self.problems.push(PlaybookProblem { file, playbook, diagnostics });
    }

    /// Refuses those that do not go together: what one runs must be there, take its inputs, and not lead back to it.
    fn check_together(&mut self, sources: &BTreeMap<PlaybookName, (String, String)>) {
        loop {
            let plans: Vec<&Plan> = self.plans.iter().map(|plan| &**plan).collect();
            let mut lines: BTreeMap<PlaybookName, Vec<String>> = BTreeMap::new();
            for problem in check_set(&plans) {
                let Some((file, text)) = sources.get(&problem.playbook) else { continue };
                let Place { line, column, .. } = Place::of(text, &problem.step);
                let help = problem.help.iter().map(|help| format!("; {help}")).collect::<String>();
                let step = &problem.step;
                let told =
                    format!("{file}:{line}:{column}: error[{}]: {step}: {}{help}", problem.code, problem.message);
                lines.entry(problem.playbook).or_default().push(told);
            }
            if lines.is_empty() {
                return;
            }
            self.plans.retain(|plan| !lines.contains_key(&plan.name));
            for (name, diagnostics) in lines {
                let file = sources.get(&name).map(|(file, _)| file.clone()).unwrap_or_default();
                self.refuse(file, Some(name), diagnostics);
            }
            // What ran one of those that were refused cannot run it either.
        }
    }

    /// The command that makes these the playbooks of new runs.
    #[must_use]
    pub fn command(&self) -> Command {
        Command::LoadPlaybooks { plans: self.plans.clone(), keep: self.broken.clone() }
    }
}

/// Where a step stands in its playbook's text, for problems that only several playbooks together show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// The offset of the step's name, in bytes.
    pub offset: usize,
    /// Its length, in bytes.
    pub length: usize,
}

impl Place {
    /// The place of the step's name as a key; that of the first line where it does not stand as one.
    #[must_use]
    pub fn of(text: &str, step: &StepKey) -> Self {
        let name = step.as_str().split_once('.').map_or(step.as_str(), |(_, name)| name);
        let mut offset = 0;
        for (line, content) in text.split_inclusive('\n').enumerate() {
            let indent = content.len() - content.trim_start_matches(' ').len();
            let key = content[indent..].trim_start_matches(['"', '\'']);
            let rest = key.strip_prefix(name).map(|rest| rest.trim_start_matches(['"', '\'']));
            if indent > 0 && rest.is_some_and(|rest| rest.starts_with(':')) {
                return Self { line: line + 1, column: indent + 1, offset: offset + indent, length: name.len() };
            }
            offset += content.len();
        }
        Self { line: 1, column: 1, offset: 0, length: 0 }
    }
}

/// The name that a broken document seems to have: what its `playbook:` line says.
fn name_in(text: &str) -> Option<PlaybookName> {
    let line = text.lines().find_map(|line| line.strip_prefix("playbook:"))?;
    let name = line.split('#').next().unwrap_or_default().trim().trim_matches(['"', '\'']);
    (!name.is_empty()).then(|| PlaybookName::new(name))
}

fn stamp(directory: &Path) -> std::io::Result<Stamp> {
    let mut stamp = Stamp::new();
    let mut pending = vec![(directory.to_owned(), 0)];
    while let Some((directory, depth)) = pending.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            // Follows links, as a mounted ConfigMap has them; its `..data` directories are the same files again.
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            let Ok(metadata) = std::fs::metadata(&path) else { continue };
            if metadata.is_dir() && !hidden && depth < 8 {
                pending.push((path, depth + 1));
            } else if metadata.is_file() && !hidden && is_playbook(&path) {
                stamp.insert(path, (metadata.len(), metadata.modified().ok()));
            }
        }
    }
    Ok(stamp)
}

fn is_playbook(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Some(stem) = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml")) else { return false };
    !stem.ends_with(".test") && !stem.ends_with(".catalogue")
}

/// Loads the directory again whenever it changes, and says so on `problems` and `reloaded`.
pub(crate) async fn follow(
    directory: PathBuf,
    mut known: Library,
    handle: Handle,
    problems: watch::Sender<Arc<Vec<PlaybookProblem>>>,
    reloaded: watch::Sender<u64>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let (look, before) = (directory.clone(), known.stamp.clone());
        let read = tokio::task::spawn_blocking(move || match stamp(&look)? == before {
            true => Ok(None),
            false => read(&look).map(Some),
        })
        .await;
        match read {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(library))) => {
                for problem in library.problems.iter().filter(|problem| !known.problems.contains(problem)) {
                    for line in &problem.diagnostics {
                        tracing::warn!("{line}");
                    }
                }
                if let Err(error) = handle.submit_patiently(library.command()).await {
                    tracing::warn!(%error, "changed playbooks could not be loaded yet");
                    continue;
                }
                tracing::info!(playbooks = library.plans.len(), broken = library.problems.len(), "playbooks reloaded");
                problems.send_replace(Arc::new(library.problems.clone()));
                known = library;
                reloaded.send_modify(|count| *count += 1);
            }
            Ok(Err::<_, std::io::Error>(error)) => {
                tracing::warn!(%error, "the playbook directory cannot be read; what is loaded stays")
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn playbooks_that_do_not_go_together_are_refused_with_their_places() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
        write(
            "parent.yaml",
            "playbook: parent\ndetect:\n  first: {uses: log, with: {message: x}}\n  sub: {uses: playbook, with: {playbook: chidl}}\n",
        );
        write("top.yaml", "playbook: top\ndetect:\n  sub: {uses: playbook, with: {playbook: parent}}\n");
        write("child.yaml", "playbook: child\ndetect:\n  a: {uses: log, with: {message: x}}\n");
        write("loop.yaml", "playbook: loop\ndetect:\n  again:\n    uses: playbook\n    with: {playbook: loop}\n");
        let library = read(home.path()).unwrap();
        let loaded: Vec<_> = library.plans.iter().map(|plan| plan.name.as_str()).collect();
        assert_eq!(loaded, ["child"], "{:#?}", library.problems);
        let mut broken: Vec<_> = library.broken.iter().map(PlaybookName::as_str).collect();
        broken.sort_unstable();
        assert_eq!(broken, ["loop", "parent", "top"], "what is loaded of them stays");
        let lines: Vec<&str> =
            library.problems.iter().flat_map(|problem| &problem.diagnostics).map(String::as_str).collect();
        assert!(
            lines.contains(
                &"parent.yaml:4:3: error[unknown-playbook]: detect.sub: no playbook is named chidl; did you mean child?"
            ),
            "{lines:#?}"
        );
        assert!(lines.iter().any(|line| line.starts_with("loop.yaml:3:3: error[")), "{lines:#?}");
        assert!(lines.iter().any(|line| line.starts_with("top.yaml:3:3: error[unknown-playbook]")), "{lines:#?}");
        write("parent.yaml", "playbook: parent\ndetect:\n  sub: {uses: playbook, with: {playbook: child}}\n");
        assert_eq!(read(home.path()).unwrap().plans.len(), 3);
    }
}
