//! The playbooks and catalogues of a directory: read, checked, and read again when they change. A broken file never
//! replaces a good one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use stanch_core::Command;
use stanch_playbook::{Catalogue, Diagnostics, Plan, PlaybookName, StepKey, check_set, load_with};
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
    /// What is wrong with the others, and with catalogues.
    pub problems: Vec<PlaybookProblem>,
    /// Each catalogue's text as it was last good.
    catalogues: BTreeMap<PathBuf, String>,
    stamp: Stamp,
}

/// Every file with its size and time: when it differs, something changed.
type Stamp = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

/// Reads every catalogue and every playbook below a directory: `*.yaml` and `*.yml`, without `*.test.yaml`; and the
/// [catalogues above](catalogues_above) it.
///
/// # Errors
/// Where the directory cannot be read; a file that cannot is a problem of its own.
pub fn read(directory: &Path) -> std::io::Result<Library> {
    read_after(directory, &Library::default())
}

/// The same where the directory was read before: of a catalogue that is broken now, what it said then still holds.
fn read_after(directory: &Path, before: &Library) -> std::io::Result<Library> {
    let stamp = stamp(directory)?;
    let mut library = Library::default();
    let shown = |file: &Path| file.strip_prefix(directory).unwrap_or(file).display().to_string();
    let mut catalogue = Catalogue::new();
    let mut catalogues: Vec<&PathBuf> = stamp.keys().filter(|file| is_catalogue(file)).collect();
    // Of a name that two give, the one farther down is wrong: others may use what is shared.
    catalogues.sort_by_key(|file| (file.starts_with(directory), file.components().count()));
    for file in catalogues {
        let shown = shown(file);
        let read = read_text(file, &shown);
        let added = read.and_then(|text| catalogue.load(&shown, &text).map(|_| text).map_err(|bad| lines(&bad)));
        let text = added.or_else(|lines| {
            library.refuse(shown.clone(), None, lines);
            let last = before.catalogues.get(file).ok_or(())?;
            catalogue.load(&shown, last).map(|_| last.clone()).map_err(drop)
        });
        if let Ok(text) = text {
            library.catalogues.insert(file.clone(), text);
        }
    }
    let mut sources: BTreeMap<PlaybookName, (String, String)> = BTreeMap::new();
    for file in stamp.keys().filter(|file| is_playbook(file)) {
        let shown = shown(file);
        let text = match read_text(file, &shown) {
            Ok(text) => text,
            Err(lines) => {
                library.refuse(shown, None, lines);
                continue;
            }
        };
        match load_with(&shown, &text, &catalogue) {
            Ok(loaded) => {
                for plan in loaded.into_iter().map(|loaded| loaded.plan) {
                    if library.plans.iter().any(|other| other.name == plan.name) {
                        let line = format!(
                            "{shown}: error[duplicate-playbook]: another file has a playbook named {}",
                            plan.name
                        );
                        library.refuse(shown.clone(), None, vec![line]);
                    } else {
                        sources.insert(plan.name.clone(), (shown.clone(), text.clone()));
                        library.plans.push(Arc::new(plan));
                    }
                }
            }
            Err(diagnostics) => {
                let mut names = names_in(&text);
                let one = if names.len() == 1 { names.pop() } else { None };
                library.broken.extend(names);
                library.refuse(shown, one, lines(&diagnostics));
            }
        }
    }
    library.check_together(&sources);
    // A broken copy of a playbook that a good file has too keeps nothing back.
    library.broken.retain(|name| !library.plans.iter().any(|plan| plan.name == *name));
    library.stamp = stamp;
    Ok(library)
}

fn read_text(file: &Path, shown: &str) -> Result<String, Vec<String>> {
    std::fs::read_to_string(file).map_err(|error| vec![format!("{shown}: error[unreadable]: {error}")])
}

fn lines(diagnostics: &Diagnostics) -> Vec<String> {
    diagnostics.to_string().lines().map(str::to_owned).collect()
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

/// The names that a broken document seems to have: what its `playbook:` line says, or the keys under which several
/// playbooks would stand. One too many keeps nothing back that is not loaded.
fn names_in(text: &str) -> Vec<PlaybookName> {
    let written = |text: &str| {
        let name = text.split('#').next().unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned();
        (!name.is_empty()).then(|| PlaybookName::new(name))
    };
    if let Some(name) = text.lines().find_map(|line| line.strip_prefix("playbook:")) {
        return written(name).into_iter().collect();
    }
    let key = |line: &str| line.split_once(':').and_then(|(key, _)| written(key));
    let mut inside = text.lines().skip_while(|line| !line.starts_with("playbooks:")).skip(1).peekable();
    if inside.peek().is_none() {
        return text.lines().filter(|line| !line.starts_with([' ', '-', '#'])).filter_map(key).collect();
    }
    let lines: Vec<&str> = inside.filter(|line| !line.trim().is_empty()).collect();
    let indent = |line: &str| line.len() - line.trim_start().len();
    let first = lines.iter().map(|line| indent(line)).find(|indent| *indent > 0);
    lines.iter().filter(|line| Some(indent(line)) == first).filter_map(|line| key(line)).collect()
}

fn stamp(directory: &Path) -> std::io::Result<Stamp> {
    let mut stamp = Stamp::new();
    for path in catalogues_above(directory)? {
        if let Ok(metadata) = std::fs::metadata(&path) {
            stamp.insert(path, (metadata.len(), metadata.modified().ok()));
        }
    }
    let mut pending = vec![(directory.to_owned(), 0)];
    while let Some((directory, depth)) = pending.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            // Follows links, as a mounted ConfigMap has them; its `..data` directories are the same files again.
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            let Ok(metadata) = std::fs::metadata(&path) else { continue };
            if metadata.is_dir() && !hidden && depth < 8 {
                pending.push((path, depth + 1));
            } else if metadata.is_file() && !hidden && (is_playbook(&path) || is_catalogue(&path)) {
                stamp.insert(path, (metadata.len(), metadata.modified().ok()));
            }
        }
    }
    Ok(stamp)
}

/// The catalogues in the directories above one, absolute and sorted, up to the first directory that has none: so one
/// system's folder of a library can be used alone, with what the library shares.
///
/// # Errors
/// Where one of these directories cannot be read.
pub fn catalogues_above(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for above in directory.canonicalize()?.ancestors().skip(1) {
        let catalogues = catalogues_in(above)?;
        if catalogues.is_empty() {
            break;
        }
        found.extend(catalogues);
    }
    found.sort();
    Ok(found)
}

/// The catalogues that lie in a directory itself, sorted.
///
/// # Errors
/// Where it cannot be read.
pub fn catalogues_in(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory)?.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    let mut found: Vec<PathBuf> = entries.filter(|path| is_catalogue(path) && path.is_file()).collect();
    found.sort();
    Ok(found)
}

/// Whether a file is named as a playbook.
#[must_use]
pub fn is_playbook(path: &Path) -> bool {
    stem(path).is_some_and(|stem| !stem.ends_with(".test") && !stem.ends_with(".catalogue"))
}

/// Whether a file is named as a catalogue.
#[must_use]
pub fn is_catalogue(path: &Path) -> bool {
    stem(path).is_some_and(|stem| stem.ends_with(".catalogue"))
}

fn stem(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    let stem = name.strip_suffix(".yaml").or_else(|| name.strip_suffix(".yml"))?;
    (!name.starts_with('.')).then(|| stem.to_owned())
}

/// Loads the directory again whenever it changes, and says so on `problems` and `reloaded`.
pub(crate) async fn follow(
    directory: PathBuf,
    known: Library,
    handle: Handle,
    problems: watch::Sender<Arc<Vec<PlaybookProblem>>>,
    reloaded: watch::Sender<u64>,
    stop: CancellationToken,
) {
    let mut known = Arc::new(known);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let (look, before) = (directory.clone(), Arc::clone(&known));
        let read = tokio::task::spawn_blocking(move || match stamp(&look)? == before.stamp {
            true => Ok(None),
            false => read_after(&look, &before).map(Some),
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
                // Of those that are broken the last good version stays in force.
                let inforce = handle.state().playbooks.len();
                tracing::info!(playbooks = inforce, broken = library.problems.len(), "playbooks reloaded");
                problems.send_replace(Arc::new(library.problems.clone()));
                known = Arc::new(library);
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

    const CATALOGUE: &str = "actions:\n  tell:\n    uses: log\n    inputs: {text: {type: string}}\n    with: {message: \"{{ inputs.text }}\"}\n";

    #[test]
    fn one_folder_of_a_library_has_the_catalogues_above_it() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("shop/eu");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(home.path().join("z.catalogue.yaml"), "actions: {far: {uses: lgo}}\n").unwrap();
        std::fs::write(home.path().join("shop/a.catalogue.yaml"), CATALOGUE).unwrap();
        std::fs::write(folder.join("p.yaml"), "playbook: p\ndetect: {a: {uses: tell}}\n").unwrap();
        let library = read(&folder).unwrap();
        assert_eq!(library.plans.len(), 1, "{:?}", library.problems);
        assert!(
            library.problems[0].file.ends_with("z.catalogue.yaml"),
            "a broken one is told of: {:?}",
            library.problems
        );
        std::fs::write(folder.join("a.catalogue.yaml"), CATALOGUE).unwrap();
        let second = read(&folder).unwrap();
        assert_eq!(second.problems.last().unwrap().file, "a.catalogue.yaml", "others may use the shared one");
        std::fs::remove_file(home.path().join("shop/a.catalogue.yaml")).unwrap();
        assert!(catalogues_above(&folder).unwrap().is_empty(), "the way up ends where a directory has none");
        assert_ne!(stamp(&folder).unwrap(), library.stamp, "they are looked at for changes");
    }

    #[test]
    fn a_catalogue_gives_names_a_meaning_and_a_broken_one_keeps_what_it_said() {
        let home = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
        write("z.catalogue.yaml", CATALOGUE);
        write("a.yaml", "playbook: a\ndetect:\n  s: {uses: tell, with: {text: x}}\n");
        let first = read(home.path()).unwrap();
        assert_eq!((first.plans.len(), first.problems.as_slice()), (1, &[][..]));
        write("z.catalogue.yaml", "actions: {tell: {uses: lgo}}\n");
        write("b.yaml", "playbook: b\ndetect:\n  s: {uses: tell, with: {text: y}}\n");
        let second = read_after(home.path(), &first).unwrap();
        assert_eq!(second.plans.len(), 2);
        assert_eq!(second.problems.len(), 1);
        assert_eq!(second.problems[0].file, "z.catalogue.yaml");
        assert!(second.problems[0].diagnostics[0].contains("did you mean log?"), "{:?}", second.problems);
        let third = read_after(home.path(), &second).unwrap();
        assert_eq!(third.plans.len(), 2, "it stays what it was for as long as the file is broken");
        let fresh = read(home.path()).unwrap();
        let broken: Vec<_> = fresh.broken.iter().map(PlaybookName::as_str).collect();
        assert_eq!((fresh.plans.len(), broken.as_slice()), (0, &["a", "b"][..]), "what is loaded of them stays");
        std::fs::remove_file(home.path().join("z.catalogue.yaml")).unwrap();
        assert!(read_after(home.path(), &second).unwrap().plans.is_empty(), "a file that is gone says nothing");
    }

    #[test]
    fn one_document_may_hold_several_playbooks_and_all_are_kept_where_it_breaks() {
        let home = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(home.path().join("many.yaml"), text).unwrap();
        let one = "{detect: {s: {uses: log, with: {message: x}}}}";
        write(&format!("playbooks:\n  a: {one}\n  b: {one}\n"));
        assert_eq!(read(home.path()).unwrap().plans.len(), 2);
        for broken in [
            format!("playbooks:\n  a: {one}\n  b:\n    detcet: {{}}\n"),
            format!("playbooks:\n  # both\n\n  a: {one}\n  b: [\n"),
            "a:\n  steps: {s: {uses: nothing}}\nb:\n  steps: {s: {uses: log, with: {message: x}}}\n".to_owned(),
        ] {
            write(&broken);
            let library = read(home.path()).unwrap();
            let kept: Vec<_> = library.broken.iter().map(PlaybookName::as_str).collect();
            assert_eq!((library.plans.len(), kept.as_slice()), (0, &["a", "b"][..]), "{broken}");
        }
    }
}
