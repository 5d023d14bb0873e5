//! Stand-ins for the commands that the library's playbooks run: they check their arguments as the real ones would, and answer
//! what was recorded.
//!
//! `tests/fixtures/commands/TOOL.yaml` has a tool's grammar, written from its own reference: verbs, flags, and how many
//! arguments each verb takes. What is not in it is refused with exit code 64 and a line in `refused` beside the stand-ins,
//! since a pipe in a shell's text hides exit codes.
//!
//! Absent: what the arguments mean. Whether a namespace, a JSONPath or an SQL statement is right, a stand-in cannot tell.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// What a stand-in ends with that refuses its arguments (`EX_USAGE`).
pub const REFUSED: i32 = 64;
/// The file beside the stand-ins with a line for each refusal.
pub const REFUSALS: &str = "refused";
/// The file beside the stand-ins with a line for each call.
pub const CALLS: &str = "called";
/// What shells' texts use as it is.
const PLAIN: &[&str] = &[
    "awk",
    "base64",
    "basename",
    "bash",
    "cat",
    "cp",
    "cut",
    "date",
    "dirname",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "grep",
    "gzip",
    "head",
    "jq",
    "ls",
    "mkdir",
    "mktemp",
    "mv",
    "printf",
    "ps",
    "rm",
    "sed",
    "seq",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "tail",
    "tee",
    "test",
    "timeout",
    "tr",
    "true",
    "uname",
    "uniq",
    "wc",
    "xargs",
];

/// How a tool writes its long flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Dash {
    /// `-enddate`, and `--enddate` for the same.
    One,
    /// `--all`; `-a` is a short one.
    #[default]
    Two,
}

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Takes {
    /// Nothing, or `=true` and `=false`.
    Switch,
    /// A text, once.
    Value,
    /// A text, as often as one likes.
    Values,
    /// One text or several, up to the next flag.
    List,
    /// A whole number.
    Int,
    /// As Go writes one: `1h30m`.
    Duration,
    /// JSON.
    Json,
}

/// How many arguments a verb takes beside its flags.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    least: usize,
    most: usize,
    /// Whether the first names the kind of an object.
    #[serde(default)]
    kinds: bool,
    /// Whether what follows `--` is a command of its own.
    #[serde(default)]
    command: bool,
}

/// A verb with what may follow it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Verb {
    #[serde(default)]
    flags: BTreeMap<String, Takes>,
    #[serde(default)]
    required: Vec<String>,
    #[serde(default)]
    commands: BTreeMap<String, Verb>,
    #[serde(default)]
    arguments: Arguments,
}

/// What a tool says to some of its calls; nothing, and exit code 0, where none is recorded.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    /// The verbs.
    of: Vec<String>,
    /// A part of the arguments, written with blanks between.
    #[serde(default)]
    with: String,
    #[serde(default)]
    stdout: String,
    #[serde(default)]
    stderr: String,
    #[serde(default)]
    exit: i32,
    /// The flag that names a file for it.
    file: Option<String>,
}

/// A tool's grammar.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    #[serde(default)]
    dash: Dash,
    /// With what the names of variables begin that stand for flags, and that no flag may be given beside.
    environment: Option<String>,
    #[serde(default)]
    kinds: Vec<String>,
    #[serde(default)]
    answers: Vec<Recorded>,
    #[serde(default)]
    flags: BTreeMap<String, Takes>,
    #[serde(default)]
    commands: BTreeMap<String, Verb>,
    #[serde(default)]
    arguments: Arguments,
}

/// A call that a tool would take.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Its verbs.
    pub verbs: Vec<String>,
    /// Its flags, by their names.
    pub flags: BTreeMap<String, Vec<String>>,
    /// Its arguments.
    pub arguments: Vec<String>,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/commands")
}

/// The names of the tools that there is a grammar of.
///
/// # Panics
/// Where the fixtures cannot be read.
#[must_use]
pub fn tools() -> Vec<String> {
    let files = std::fs::read_dir(fixtures()).expect("the fixtures are there");
    let stem = |file: std::io::Result<std::fs::DirEntry>| {
        Some(file.expect("the fixtures are there").path().file_stem()?.to_string_lossy().into_owned())
    };
    files.filter_map(stem).collect()
}

impl Tool {
    /// The grammar of a tool.
    ///
    /// # Errors
    /// Why there is none.
    pub fn named(name: &str) -> Result<Self, String> {
        let path = fixtures().join(format!("{name}.yaml"));
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_saphyr::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// What a call means, its own name left out.
    ///
    /// # Errors
    /// Why the tool would not take it.
    pub fn check(&self, arguments: &[String], variables: &dyn Fn(&str) -> bool) -> Result<Call, String> {
        let mut known: BTreeMap<&str, Takes> = self.flags.iter().map(|(name, takes)| (name.as_str(), *takes)).collect();
        let (mut commands, mut takes, mut required) = (&self.commands, self.arguments, &Vec::new());
        let mut call = Call::default();
        let mut command = 0;
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            if argument == "--" {
                let after: Vec<String> = rest.by_ref().cloned().collect();
                command = if takes.command { after.len() } else { 0 };
                call.arguments.extend(after.into_iter().take(if takes.command { 0 } else { usize::MAX }));
            } else if argument.len() > 1 && argument.starts_with('-') {
                let (name, value) = self.flag(argument, &known)?;
                let of = known.get(name.as_str()).copied().ok_or_else(|| format!("unknown flag {name}"))?;
                let values = values(&name, of, value, &mut rest)?;
                if call.flags.contains_key(&name) && !matches!(of, Takes::Values | Takes::List) {
                    return Err(format!("{name} is given twice"));
                }
                call.flags.entry(name).or_default().extend(values);
            } else if call.arguments.is_empty() && !commands.is_empty() {
                let verb = commands.get(argument).ok_or_else(|| format!("unknown command {argument}"))?;
                call.verbs.push(argument.clone());
                known.extend(verb.flags.iter().map(|(name, takes)| (name.as_str(), *takes)));
                (commands, takes, required) = (&verb.commands, verb.arguments, &verb.required);
            } else {
                call.arguments.push(argument.clone());
            }
        }
        self.complete(&call, commands.is_empty(), takes, required, command)?;
        let shadowed = |prefix: &String| {
            let variable =
                |name: &&String| format!("{prefix}{}", name.trim_matches('-').replace('-', "_").to_uppercase());
            call.flags.keys().find(|name| variables(&variable(name))).cloned()
        };
        match self.environment.as_ref().and_then(shadowed) {
            Some(name) => Err(format!("{name} is given beside the environment variable of the same meaning")),
            None => Ok(call),
        }
    }

    /// The name of a flag, and the value that is written in one with it.
    fn flag(&self, argument: &str, known: &BTreeMap<&str, Takes>) -> Result<(String, Option<String>), String> {
        let argument = match self.dash {
            Dash::One => argument.strip_prefix('-').filter(|rest| rest.starts_with('-')).unwrap_or(argument),
            Dash::Two => argument,
        };
        if let Some((name, value)) = argument.split_once('=').filter(|(name, _)| !name.is_empty()) {
            return Ok((name.to_owned(), Some(value.to_owned())));
        }
        if self.dash == Dash::One || argument.starts_with("--") || known.contains_key(argument) {
            return Ok((argument.to_owned(), None));
        }
        // -n5 is -n 5.
        let end = argument.char_indices().nth(2).map_or(argument.len(), |(at, _)| at);
        let (name, value) = argument.split_at(end);
        match known.get(name) {
            Some(Takes::Switch) if !value.is_empty() => Err(format!("unknown flag {argument}")),
            _ => Ok((name.to_owned(), Some(value.to_owned()).filter(|value| !value.is_empty()))),
        }
    }

    fn complete(
        &self,
        call: &Call,
        is_leaf: bool,
        takes: Arguments,
        required: &[String],
        command: usize,
    ) -> Result<(), String> {
        if !is_leaf {
            return Err("a command is missing".to_owned());
        }
        let given = call.arguments.len();
        if given < takes.least || given > takes.most {
            return Err(format!(
                "{given} arguments where {} to {} may be: {:?}",
                takes.least, takes.most, call.arguments
            ));
        }
        if takes.command && call.verbs.iter().any(|verb| verb == "exec") && command == 0 {
            return Err("the command to execute is missing".to_owned());
        }
        let whole = call.flags.contains_key("--cli-input-json");
        if let Some(name) = required.iter().find(|name| !whole && !call.flags.contains_key(*name)) {
            return Err(format!("{name} is missing"));
        }
        if !takes.kinds {
            return Ok(());
        }
        let is_kind = |name: &str| self.kinds.iter().any(|kind| kind == name);
        let all = call.arguments.iter().any(|argument| argument.contains('/'));
        for argument in call.arguments.iter().take(if all { usize::MAX } else { 1 }) {
            let (kinds, name) = argument.split_once('/').map_or((&**argument, None), |(kind, name)| (kind, Some(name)));
            if let Some(kind) = kinds.split(',').find(|kind| !is_kind(kind)) {
                return Err(format!("no kind of object is named {kind}"));
            }
            if name.is_some_and(str::is_empty) || (all && name.is_none()) {
                return Err(format!("{argument} names no object"));
            }
        }
        Ok(())
    }

    fn answer(&self, call: &Call, arguments: &[String], own: &[Recorded]) -> Option<Recorded> {
        let said = arguments.join(" ");
        let fits = |one: &&Recorded| call.verbs.starts_with(&one.of) && said.contains(&one.with);
        own.iter().chain(&self.answers).find(fits).cloned()
    }
}

fn values(
    name: &str,
    takes: Takes,
    written: Option<String>,
    rest: &mut std::slice::Iter<'_, String>,
) -> Result<Vec<String>, String> {
    let written = match (takes, written) {
        (Takes::Switch, Some(word)) if word != "true" && word != "false" => {
            return Err(format!("{name} takes no value"));
        }
        (Takes::Switch, _) => return Ok(Vec::new()),
        (_, Some(written)) => written,
        (_, None) => rest.next().cloned().ok_or_else(|| format!("{name} needs a value"))?,
    };
    let well = match takes {
        Takes::Int => written.parse::<i64>().is_ok(),
        Takes::Duration => is_duration(&written),
        Takes::Json => serde_json::from_str::<Value>(&written).is_ok(),
        _ => true,
    };
    if !well {
        return Err(format!("{name} does not take {written:?}"));
    }
    let mut values = vec![written];
    while takes == Takes::List
        && let Some(more) = rest.as_slice().first().filter(|more| !more.starts_with('-'))
    {
        values.push(more.clone());
        rest.next();
    }
    Ok(values)
}

fn is_duration(text: &str) -> bool {
    let units = text.split_inclusive(|c: char| c.is_ascii_alphabetic());
    let one = |part: &str| {
        let number = part.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        !number.is_empty() && number.parse::<f64>().is_ok() && ["h", "m", "s"].contains(&&part[number.len()..])
    };
    text == "0" || (!text.is_empty() && units.into_iter().all(one))
}

/// The command of this process, as what it is called, to its end; gives its exit code.
///
/// # Panics
/// Where the directory of the stand-ins cannot be written.
#[must_use]
pub fn stand_in() -> i32 {
    let mut words = std::env::args();
    let called = words.next().unwrap_or_default();
    let name = called.rsplit('/').next().unwrap_or_default().to_owned();
    let arguments: Vec<String> = words.collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::split_paths(&path).find(|directory| directory.join(&name).exists()).unwrap_or_default();
    let note = |file: &str, text: &str| {
        let mut file =
            OpenOptions::new().create(true).append(true).open(home.join(file)).expect("the test's directory");
        file.write_all(format!("{name} {}{text}\n", arguments.join(" ").replace('\n', "\\n")).as_bytes())
            .expect("the test's directory");
    };
    note(CALLS, "");
    let tool = Tool::named(&name);
    let checked = tool.as_ref().map_err(Clone::clone).and_then(|tool| {
        let call = tool.check(&arguments, &|name| std::env::var_os(name).is_some())?;
        read(&call)?;
        Ok((tool, call))
    });
    let (tool, call) = match checked {
        Ok(checked) => checked,
        Err(reason) => {
            eprintln!("{name}: {reason}");
            note(REFUSALS, &format!(": {reason}"));
            return REFUSED;
        }
    };
    let own = std::fs::read_to_string(home.join(format!("{name}.answers.yaml"))).unwrap_or_else(|_| "[]".to_owned());
    let own: Vec<Recorded> = serde_saphyr::from_str(&own).expect("a test's answers");
    let Some(answer) = tool.answer(&call, &arguments, &own) else { return 0 };
    match answer.file.as_ref().and_then(|flag| call.flags.get(flag)).and_then(|values| values.first()) {
        Some(file) => std::fs::write(file, &answer.stdout).expect("the attempt's directory"),
        None => {
            // Whoever reads it may have heard enough.
            writeln!(std::io::stdout(), "{}", answer.stdout.trim_end()).ok();
        }
    }
    if !answer.stderr.is_empty() {
        eprintln!("{}", answer.stderr);
    }
    answer.exit
}

/// What comes on standard input where a call says so; a manifest must be one.
fn read(call: &Call) -> Result<(), String> {
    let files = ["--filename", "-f"].iter().filter_map(|name| call.flags.get(*name)).flatten();
    let manifest = call.verbs.iter().any(|verb| verb == "apply") && files.into_iter().any(|file| file == "-");
    let said = call.flags.values().flatten().chain(&call.arguments);
    if !manifest && !said.into_iter().any(|value| value == "-" || value == "@-" || value.ends_with("=-")) {
        return Ok(());
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| format!("standard input: {error}"))?;
    if !manifest {
        return Ok(());
    }
    let object: Value = serde_saphyr::from_str(&text).map_err(|error| format!("no manifest: {error}"))?;
    let objects = object["items"].as_array().cloned().unwrap_or_else(|| vec![object.clone()]);
    let whole =
        |of: &Value| of["apiVersion"].is_string() && of["kind"].is_string() && of["metadata"]["name"].is_string();
    if objects.iter().all(whole) { Ok(()) } else { Err(format!("no manifest: {text}")) }
}

/// A `PATH` that has the stand-ins and what shells' texts use as it is, and nothing else.
///
/// # Panics
/// Where it cannot be made.
#[must_use]
pub fn path(directory: &Path, stand_in: &Path) -> OsString {
    for tool in tools() {
        symlink(stand_in, directory.join(tool)).expect("a directory of the test's own");
    }
    let found =
        |name: &str| ["/usr/bin", "/bin"].iter().map(|place| Path::new(place).join(name)).find(|path| path.exists());
    for name in PLAIN {
        if let Some(program) = found(name) {
            symlink(program, directory.join(name)).expect("a directory of the test's own");
        }
    }
    directory.as_os_str().to_owned()
}

/// The lines that the stand-ins of a directory have written into one of their files.
#[must_use]
pub fn lines(directory: &Path, file: &str) -> Vec<String> {
    std::fs::read_to_string(directory.join(file)).unwrap_or_default().lines().map(str::to_owned).collect()
}
