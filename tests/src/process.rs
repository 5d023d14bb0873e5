//! Child processes that do not outlive their test.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::eventually;

/// A running program, its output in a file. Killed when dropped; its output is printed where the test failed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, appending both its outputs to `log`.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let open = || File::options().create(true).append(true).open(log).expect("the test's directory is writable");
        let child =
            command.stdin(Stdio::null()).stdout(open()).stderr(open()).spawn().unwrap_or_else(|error| {
                panic!("{name} does not start: {error}; tests/install installs what tests need")
            });
        Self { name: name.to_owned(), child, log: log.to_owned() }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All it has said so far.
    #[must_use]
    pub fn output(&self) -> Vec<u8> {
        std::fs::read(&self.log).unwrap_or_default()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// Where the process is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("process ids are small"));
        kill(pid, signal).unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Panics
    /// Where it cannot be waited for.
    pub fn kill(&mut self) {
        self.child.kill().unwrap_or_else(|error| panic!("SIGKILL to {}: {error}", self.name));
        self.child.wait().unwrap_or_else(|error| panic!("waiting for {}: {error}", self.name));
    }

    /// SIGTERM, and waits at most `deadline` until it is gone.
    ///
    /// # Panics
    /// Where it stays.
    pub fn terminate(&mut self, deadline: Duration) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        let name = self.name.clone();
        eventually(&format!("{name} ends after SIGTERM"), deadline, || self.exited().ok_or("it runs".to_owned()))
    }

    /// How it ended, where it has.
    ///
    /// # Panics
    /// Where it cannot be asked.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        let status: io::Result<Option<ExitStatus>> = self.child.try_wait();
        status.unwrap_or_else(|error| panic!("asking for {}: {error}", self.name))
    }

    /// Panics where it has ended.
    ///
    /// # Panics
    /// See there.
    pub fn must_run(&mut self) {
        if let Some(status) = self.exited() {
            panic!("{} ended by itself ({status}):\n{}", self.name, tail(&self.output()));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- end of the output of {} ----\n{}", self.name, tail(&self.output()));
        }
    }
}

fn tail(output: &[u8]) -> String {
    String::from_utf8_lossy(&output[output.len().saturating_sub(6000)..]).into_owned()
}

/// The path of a program: `.tools/bin` first, then `PATH` (by its bare name).
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let tool = crate::repository().join(".tools/bin").join(name);
    if tool.exists() { tool } else { PathBuf::from(name) }
}
