//! The binary under test, and an engine that it serves.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

/// What a verb came to.
pub struct Ended {
    pub exit: i32,
    pub out: String,
    pub err: String,
}

/// Runs a verb to its end, without a terminal and with nothing from the environment.
pub fn stanch(arguments: &[&str]) -> Ended {
    stanch_reading(arguments, "")
}

/// The same, with this on its standard input.
pub fn stanch_reading(arguments: &[&str], input: &str) -> Ended {
    let mut child = command().args(arguments).stdin(Stdio::piped()).spawn().expect("the binary under test starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    // A verb that does not read its input closes it.
    stdin.write_all(input.as_bytes()).ok();
    drop(stdin);
    let output = child.wait_with_output().expect("it can be waited for");
    let text = |bytes| String::from_utf8(bytes).expect("what it prints is UTF-8");
    Ended { exit: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stanch"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("STANCH_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Asks until it holds, for 20 s at most; then panics with what is seen.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool, seen: impl Fn() -> String) {
    let started = std::time::Instant::now();
    while !holds() {
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "{what}: {}", seen());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The path of a file of the tests.
pub fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    path.to_str().expect("the repository's path is UTF-8").to_owned()
}

/// `stanch serve` on a free port, ended with the test.
pub struct Engine {
    child: Child,
    address: String,
    home: TempDir,
    log: Log,
}

/// What an engine logs once it serves.
type Log = Arc<Mutex<String>>;

impl Engine {
    /// Starts it with these playbooks and waits until it says where it listens.
    pub fn start(playbooks: &[&str]) -> Self {
        Self::start_with(playbooks, "")
    }

    /// The same with this `stanch.yaml`, in which HOME is its directory; ann's token stands in the file `ann`.
    pub fn start_with(playbooks: &[&str], config: &str) -> Self {
        let home = tempfile::tempdir().expect("the temporary directory is writable");
        let directory = home.path().join("playbooks");
        std::fs::create_dir(&directory).expect("the test's directory is writable");
        for name in playbooks {
            std::fs::copy(fixture(name), directory.join(name)).expect("the fixture is there");
        }
        let text = config.replace("HOME", home.path().to_str().expect("temporary paths are UTF-8"));
        std::fs::write(home.path().join("stanch.yaml"), text).expect("the test's directory is writable");
        std::fs::write(home.path().join("ann"), "ann-s-token").expect("the test's directory is writable");
        let log = Log::default();
        let (child, address) = serve(&home, "127.0.0.1:0", &log);
        Self { child, address, home, log }
    }

    /// Kills it as a power cut would, and starts it again where it was.
    pub fn crash_and_restart(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it can be waited for");
        (self.child, self.address) = serve(&self.home, &self.address, &self.log);
    }

    /// Starts a verb against it and gives its output line by line; the child is to be waited for.
    pub fn follow(&self, arguments: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
        let mut child =
            command().args(["--server", &self.address]).args(arguments).spawn().expect("the binary under test starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        (child, lines)
    }

    /// Runs a verb against it.
    pub fn stanch(&self, arguments: &[&str]) -> Ended {
        self.stanch_reading(arguments, "")
    }

    /// The same, with this on its standard input.
    pub fn stanch_reading(&self, arguments: &[&str], input: &str) -> Ended {
        stanch_reading(&[&["--server", &self.address], arguments].concat(), input)
    }

    /// The id of the newest of a list.
    pub fn first(&self, list: &str) -> String {
        let verb: &[&str] = match list {
            "dead-letters" => &["events", "dead-letters", "-o", "json"],
            "incidents" => &["incidents", "list", "-o", "json"],
            "approvals" => &["approvals", "list", "-o", "json"],
            "inforce" => &["inforce", "list", "-o", "json"],
            _ => &["runs", "list", "-o", "json"],
        };
        let answer: Value = serde_json::from_str(&self.stanch(verb).out).expect("it is JSON");
        answer["items"][0]["id"].as_str().expect("there is one").to_owned()
    }

    /// What it has logged since it serves.
    pub fn log(&self) -> String {
        self.log.lock().expect("no holder of this lock can panic").clone()
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> String {
        let path: PathBuf = self.home.path().join(name);
        path.to_str().expect("temporary paths are UTF-8").to_owned()
    }

    /// Its data directory.
    pub fn data(&self) -> String {
        self.path("data")
    }

    /// Ends it in good order.
    pub fn terminate(&mut self) {
        let id = self.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &id]).status().expect("there is a kill");
        assert!(killed.success());
        assert_eq!(self.child.wait().expect("it can be waited for").code(), Some(0), "SIGTERM ends it in good order");
    }
}

/// Serves what is in the directory, and gives the address once the log says it.
fn serve(home: &TempDir, listen: &str, kept: &Log) -> (Child, String) {
    let mut child = command()
        .args(["serve", "--listen", listen, "--data-dir"])
        .arg(home.path().join("data"))
        .arg("--playbooks")
        .arg(home.path().join("playbooks"))
        .arg("--config")
        .arg(home.path().join("stanch.yaml"))
        .spawn()
        .expect("the binary under test starts");
    let mut log = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut line = String::new();
    let address = loop {
        line.clear();
        assert_ne!(log.read_line(&mut line).expect("its log is text"), 0, "the engine ended");
        let entry: Value = serde_json::from_str(&line).expect("its log is JSON where no terminal is");
        if let Some(address) = entry["address"].as_str() {
            break address.to_owned();
        }
    };
    // It must be able to go on logging.
    let kept = Arc::clone(kept);
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            kept.lock().expect("no holder of this lock can panic").push_str(&(line + "\n"));
        }
    });
    (child, address)
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
