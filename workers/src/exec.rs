//! `exec`: one command.
//!
//! `argv` (list; no shell), `stdin` (a text as it is; anything else as JSON), `cwd`; the step's `env`. Result
//! `{exit_code, stdout, stderr}`, each stream at most 64 KiB of its start and end, with `truncated: true` where some of it
//! was left out.
//!
//! `artifacts` (list of paths): files that a success leaves behind in `$STANCH_ARTIFACTS`, a directory of the attempt's own
//! that is gone afterwards, or else below the command's directory; at most 1 MiB each and 4 MiB together. The result then has `artifacts: {path: {size, sha256, content_base64}}`. One that is missing makes the attempt
//! *failed*, though the command has done its work.
//!
//! The command gets a clean environment (`PATH`, `HOME`, `LANG`, the `STANCH_*` of the attempt, the step's `env`) and its
//! own process group. The whole group ends with the attempt, however it ends, and with the engine ([`crate::warden`]):
//! background processes that should outlive it must leave the group (`setsid`, `systemd-run`).
//!
//! How it comes out: exit code 0 is success; any other is *failed*; not started is *failed* and not tried again; a time-out,
//! a cancellation or somebody's signal is *unknown*.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures::future::BoxFuture;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use stanch_core::attempt::standard_environment;
use stanch_core::{Assignment, Outcome};
use stanch_playbook::time::said_duration;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{sleep_until, timeout};

use crate::action::{Action, Context, refused, unknown};
use crate::artifacts;
use crate::bound::Stream;
use crate::mask::Mask;
use crate::parameters::{Parameters, kind, scalar, text_or_json};
use crate::warden::Warden;

/// Between SIGTERM and SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// How long descendants may hold the output after the command itself has ended.
const PIPE_GRACE: Duration = Duration::from_secs(1);

/// How `exec` runs commands.
#[derive(Debug, Clone)]
pub struct ExecConfig {
    /// Where a command runs that has no `cwd`, and what a relative `cwd` is relative to. None: where the worker runs.
    pub directory: Option<PathBuf>,
    /// The `PATH` of commands.
    pub path: OsString,
    /// Who ends commands where the engine cannot.
    pub warden: Warden,
}

impl Default for ExecConfig {
    fn default() -> Self {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into();
        Self { directory: None, path, warden: Warden::default() }
    }
}

/// The action `exec`.
#[derive(Debug, Clone, Copy)]
pub struct Exec;

impl Action for Exec {
    fn name(&self) -> &'static str {
        "exec"
    }

    fn run<'a>(&'a self, context: &'a Context, assignment: &'a Assignment) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            context.preparing();
            match prepare(context, assignment) {
                Ok(Prepared { mut command, stdin, artifacts, left }) => {
                    context.shared.exec.warden.is_needed();
                    context.sending();
                    let outcome = match command.spawn() {
                        Ok(child) => attend(context, assignment, child, stdin).await,
                        Err(error) => refused(not_started(&command, &error)),
                    };
                    let directory = command.as_std().get_current_dir().unwrap_or(Path::new("."));
                    let places = left.iter().map(|left| left.path().to_owned()).chain([directory.to_owned()]).collect();
                    keep(context, places, artifacts, outcome).await
                }
                Err(error) => refused(error),
            }
        })
    }

    fn keeps_artifacts(&self) -> bool {
        true
    }

    fn grace(&self) -> Duration {
        TERM_GRACE + PIPE_GRACE + Duration::from_secs(2)
    }
}

/// A command that is ready to start.
struct Prepared {
    command: Command,
    stdin: Option<Vec<u8>>,
    artifacts: Vec<String>,
    /// Where it can leave them without meeting another attempt's.
    left: Option<TempDir>,
}

fn prepare(context: &Context, assignment: &Assignment) -> Result<Prepared, String> {
    let parameters = Parameters::of(assignment);
    let argv = match parameters.get("argv") {
        Some(Value::Array(argv)) => argv,
        Some(other) => return Err(format!("`argv` must be a list of texts, not {}", kind(other))),
        None => return Err("`argv` is missing".to_owned()),
    };
    let argv = argv
        .iter()
        .map(|argument| scalar(argument).ok_or_else(|| format!("`argv` must hold texts, not {}", kind(argument))))
        .collect::<Result<Vec<_>, _>>()?;
    let (program, arguments) =
        argv.split_first().filter(|(program, _)| !program.is_empty()).ok_or("`argv` names no command")?;
    let config = &context.shared.exec;

    let mut command = Command::new(&**program);
    command.args(arguments.iter().map(AsRef::as_ref)).env_clear().env("PATH", &config.path).env("LANG", "C.UTF-8");
    if let Some(home) = std::env::var_os("HOME") {
        command.env("HOME", home);
    }
    if let Some(env) = assignment.env.as_object() {
        for (name, value) in env {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(format!("{name:?} is no name of an environment variable"));
            }
            let rendered = context.secrets().render(value, None).map_err(|error| format!("env {name}: {error}"))?;
            command.env(name, &*rendered.text);
        }
    }
    command.envs(standard_environment(assignment));
    let cwd = parameters.optional_text("cwd")?.filter(|cwd| !cwd.is_empty()).map(|cwd| PathBuf::from(&*cwd));
    if let Some(directory) = match (&config.directory, cwd) {
        (Some(base), Some(cwd)) => Some(base.join(cwd)),
        (base, cwd) => cwd.or_else(|| base.clone()),
    } {
        command.current_dir(directory);
    }
    let stdin = parameters.get("stdin").map(|stdin| text_or_json(stdin).into_owned().into_bytes());
    command
        .process_group(0)
        .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let artifacts = match parameters.get("artifacts") {
        None => Vec::new(),
        Some(Value::Array(paths)) => {
            let path = |path: &Value| path.as_str().map(str::to_owned);
            paths.iter().map(path).collect::<Option<_>>().ok_or("`artifacts` must hold texts")?
        }
        Some(other) => return Err(format!("`artifacts` must be a list of paths, not {}", kind(other))),
    };
    let left = (!artifacts.is_empty()).then(tempfile::tempdir).transpose();
    let left = left.map_err(|error| format!("cannot make a directory for artifacts: {error}"))?;
    if let Some(left) = &left {
        command.env("STANCH_ARTIFACTS", left.path());
    }
    Ok(Prepared { command, stdin, artifacts, left })
}

/// Adds the files that a success left behind.
async fn keep(context: &Context, places: Vec<PathBuf>, paths: Vec<String>, outcome: Outcome) -> Outcome {
    let Outcome::Succeeded { mut output } = outcome else { return outcome };
    if paths.is_empty() {
        return Outcome::Succeeded { output };
    }
    let mask = context.secrets().mask();
    let collected = tokio::task::spawn_blocking(move || artifacts::collect(&places, &paths, &mask)).await;
    match collected.unwrap_or_else(|error| Err(format!("artifacts cannot be read: {error}"))) {
        Ok(found) => {
            output["artifacts"] = found;
            Outcome::Succeeded { output }
        }
        Err(error) => Outcome::Failed { error, output: Some(output), retry_after: None, retryable: true },
    }
}

fn not_started(command: &Command, error: &io::Error) -> String {
    let command = command.as_std();
    let program = command.get_program().to_string_lossy();
    let directory = command.get_current_dir();
    match (error.kind(), directory) {
        (_, Some(directory)) if !directory.is_dir() => {
            format!("cannot start {program:?}: its directory {} does not exist", directory.display())
        }
        (io::ErrorKind::NotFound, _) => {
            format!("cannot start {program:?}: not found, give its full path or one relative to `cwd`")
        }
        (io::ErrorKind::PermissionDenied, _) => format!("cannot start {program:?}: not executable by this user"),
        _ => format!("cannot start {program:?}: {error}"),
    }
}

/// How the attendance of a command ended.
enum Ending {
    Exited(io::Result<ExitStatus>),
    Stopped(String),
}

async fn attend(context: &Context, assignment: &Assignment, mut child: Child, stdin: Option<Vec<u8>>) -> Outcome {
    let group = Group::of(&child, &context.shared.exec.warden);
    let mask = context.secrets().mask();
    let mut stdout = Stream::new(&mask);
    let mut stderr = Stream::new(&mask);
    let ending = {
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let pipes = async {
            tokio::join!(feed(streams.0, stdin), drain(streams.1, &mut stdout), drain(streams.2, &mut stderr));
        };
        tokio::pin!(pipes);
        let mut open = true;
        let ending = loop {
            tokio::select! {
                status = child.wait() => break Ending::Exited(status),
                () = &mut pipes, if open => open = false,
                () = context.cancel.cancelled() => break Ending::Stopped("cancelled".to_owned()),
                () = sleep_until(context.deadline) => {
                    break Ending::Stopped(format!("timed out after {}", said_duration(assignment.timeout)));
                }
            }
        };
        if let Ending::Stopped(_) = &ending {
            group.signal(Signal::SIGTERM);
            // The pipes are read on: a command that is blocked on a full one could not end.
            let end = async {
                loop {
                    tokio::select! {
                        _ = child.wait() => break,
                        () = &mut pipes, if open => open = false,
                    }
                }
            };
            if timeout(TERM_GRACE, end).await.is_err() {
                group.signal(Signal::SIGKILL);
                // Uninterruptible sleep outlives even SIGKILL; the outcome is unknown in any case.
                let _ = timeout(Duration::from_secs(1), child.wait()).await;
            }
        }
        if open {
            let _ = timeout(PIPE_GRACE, &mut pipes).await;
        }
        ending
    };
    drop(group);
    match ending {
        Ending::Exited(Ok(status)) => outcome(status, stdout, stderr, &mask),
        Ending::Exited(Err(error)) => unknown(format!("the command's end was not seen: {error}")),
        Ending::Stopped(why) => unknown(format!("{why}, and its processes were killed")),
    }
}

fn outcome(status: ExitStatus, stdout: Stream, stderr: Stream, mask: &Mask) -> Outcome {
    if let Some(signal) = status.signal() {
        let name = Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string());
        return unknown(format!("the command was killed by {name}"));
    }
    let code = status.code().unwrap_or(-1);
    let (stdout, cut_stdout) = stdout.finish(mask);
    let (stderr, cut_stderr) = stderr.finish(mask);
    let last_line = stderr.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let error = match last_line {
        Some(line) => format!("exit code {code}: {}", line.chars().take(200).collect::<String>()),
        None => format!("exit code {code}"),
    };
    let mut output = json!({ "exit_code": code, "stdout": stdout, "stderr": stderr });
    if cut_stdout || cut_stderr {
        output["truncated"] = Value::Bool(true);
    }
    if code == 0 {
        Outcome::Succeeded { output }
    } else {
        Outcome::Failed { error, output: Some(output), retry_after: None, retryable: true }
    }
}

/// Writes standard input. A command that does not read it to the end is no error.
async fn feed(pipe: Option<ChildStdin>, content: Option<Vec<u8>>) {
    if let (Some(mut pipe), Some(content)) = (pipe, content) {
        let _ = pipe.write_all(&content).await;
    }
}

async fn drain(pipe: Option<impl AsyncRead + Unpin>, stream: &mut Stream) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        stream.push(&buffer[..length]);
    }
}

/// A command's process group; killed when the attendance ends, in whatever way.
struct Group(Option<(Pid, Warden)>);

impl Group {
    /// The group of a child that leads one.
    fn of(child: &Child, warden: &Warden) -> Self {
        let group = child.id().and_then(|id| i32::try_from(id).ok()).filter(|&id| id > 1).map(Pid::from_raw);
        Self(group.map(|group| {
            warden.begins(group);
            (group, warden.clone())
        }))
    }

    fn signal(&self, signal: Signal) {
        if let Some((group, _)) = self.0 {
            // It fails where nobody is left, which is what is wanted.
            let _ = killpg(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        if let Some((group, warden)) = &self.0 {
            warden.is_over(*group);
        }
    }
}
