//! The engine under test, as a process: started, asked, killed and started again on the same data.

use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::{Request, Response};
use crate::process::Process;
use crate::{SOON, eventually, free_port, repository};

/// The binary under test: `STANCH_BIN`, or else the newest of `target/{debug,release}`.
///
/// # Panics
/// Where there is none.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("STANCH_BIN") {
        return std::path::absolute(path).expect("STANCH_BIN names a file");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    ["debug", "release"]
        .map(|profile| target.join(profile).join("stanch"))
        .into_iter()
        .filter(|path| path.exists())
        .max_by_key(|path| path.metadata().and_then(|meta| meta.modified()).ok())
        .expect("no stanch binary; make one (cargo build -p stanch) or name one in STANCH_BIN")
}

/// The library that moves a process's clock, where Debian's `faketime` is installed.
fn faketime() -> Option<PathBuf> {
    let libraries = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    libraries.map(|entry| entry.path().join("faketime/libfaketime.so.1")).find(|path| path.exists())
}

/// Runs a verb of the command line to its end.
///
/// # Panics
/// Where it cannot be started.
#[must_use]
pub fn stanch(arguments: &[&str]) -> Output {
    Command::new(binary()).args(arguments).output().expect("the binary under test starts")
}

/// What an engine is started with.
#[derive(Debug)]
pub struct Setup {
    playbooks: Vec<(String, String)>,
    scripts: Vec<(String, String)>,
    config: String,
    environment: Vec<(String, String)>,
    data: Option<PathBuf>,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// No playbooks, an empty `stanch.yaml`.
    #[must_use]
    pub const fn new() -> Self {
        Self { playbooks: Vec::new(), scripts: Vec::new(), config: String::new(), environment: Vec::new(), data: None }
    }

    /// With this playbook.
    #[must_use]
    pub fn playbook(mut self, name: &str, text: impl Into<String>) -> Self {
        self.playbooks.push((format!("{name}.yaml"), text.into()));
        self
    }

    /// With this program in the engine's working directory, for `exec`.
    #[must_use]
    pub fn script(mut self, name: &str, text: impl Into<String>) -> Self {
        self.scripts.push((name.to_owned(), text.into()));
        self
    }

    /// With this `stanch.yaml`.
    #[must_use]
    pub fn config(mut self, text: impl Into<String>) -> Self {
        self.config = text.into();
        self
    }

    /// With this in the engine's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With its data in this directory, which outlives the engine.
    #[must_use]
    pub fn data_dir(mut self, path: &Path) -> Self {
        self.data = Some(path.to_owned());
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// Where it does not become ready.
    #[must_use]
    pub fn start(self) -> Engine {
        let home = tempfile::Builder::new().prefix("stanch-test-").tempdir().expect("the temporary directory is there");
        let playbooks = home.path().join("playbooks");
        std::fs::create_dir(&playbooks).expect("the test's directory is writable");
        for (name, text) in &self.playbooks {
            std::fs::write(playbooks.join(name), text).expect("the test's directory is writable");
        }
        for (name, text) in &self.scripts {
            let path = home.path().join(name);
            std::fs::write(&path, text).expect("the test's directory is writable");
            std::fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("it was written a moment ago");
        }
        std::fs::write(home.path().join("stanch.yaml"), &self.config).expect("the test's directory is writable");
        let data = self.data.unwrap_or_else(|| home.path().join("data"));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let process = spawn(&home, &data, address, &self.environment);
        let mut engine = Engine { process, home, data, address, environment: self.environment };
        engine.wait_until_ready();
        engine
    }
}

fn spawn(home: &TempDir, data: &Path, address: SocketAddr, environment: &[(String, String)]) -> Process {
    let mut command = Command::new(binary());
    command
        .current_dir(home.path())
        .arg("serve")
        .args(["--listen", &address.to_string()])
        .arg("--data-dir")
        .arg(data)
        .arg("--playbooks")
        .arg(home.path().join("playbooks"))
        .arg("--config")
        .arg(home.path().join("stanch.yaml"))
        .envs(environment.iter().map(|(name, value)| (name, value)));
    Process::start("stanch", command, &home.path().join("stanch.log"))
}

/// A running engine. Killed when dropped.
#[derive(Debug)]
pub struct Engine {
    /// The process.
    pub process: Process,
    home: TempDir,
    data: PathBuf,
    address: SocketAddr,
    environment: Vec<(String, String)>,
}

impl Engine {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Its playbook directory.
    #[must_use]
    pub fn playbook_dir(&self) -> PathBuf {
        self.home.path().join("playbooks")
    }

    /// A path in the test's own directory.
    #[must_use]
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Waits until `/readyz` answers 200 and says how long that took.
    ///
    /// # Panics
    /// Where it does not within 20 s, or the engine ends.
    pub fn wait_until_ready(&mut self) -> Duration {
        let started = Instant::now();
        eventually("stanch is ready", SOON, || {
            self.process.must_run();
            match Request::new("GET", "/readyz").timeout(Duration::from_secs(5)).send(self.address) {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(format!("{answer:?}")),
                Err(error) => Err(error.to_string()),
            }
        });
        started.elapsed()
    }

    /// SIGKILL, at once.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM; it must end in good order within 20 s.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process.terminate(SOON)
    }

    /// SIGSTOP or SIGCONT and the like.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Starts it again, after [`Engine::kill`] or [`Engine::terminate`], at the same place on the same data.
    pub fn start_again(&mut self) -> Duration {
        self.spawn_again();
        self.wait_until_ready()
    }

    /// As [`Engine::start_again`], `later` than now: the engine's clock is moved where `faketime` is installed, and waited for
    /// where it is not. It stays moved over further starts.
    pub fn start_again_later(&mut self, later: Duration) -> Duration {
        match faketime() {
            Some(library) => {
                let library = library.to_str().expect("its path is UTF-8").to_owned();
                let moved = format!("+{}s", later.as_secs());
                // What files and the monotonic clock say stays as it is.
                let environment = [
                    ("LD_PRELOAD", library),
                    ("FAKETIME", moved),
                    ("DONT_FAKE_MONOTONIC", "1".to_owned()),
                    ("NO_FAKE_STAT", "1".to_owned()),
                ];
                self.environment.extend(environment.map(|(name, value)| (name.to_owned(), value)));
            }
            None => std::thread::sleep(later),
        }
        self.start_again()
    }

    /// As [`Engine::start_again`], without waiting.
    pub fn spawn_again(&mut self) {
        self.process = spawn(&self.home, &self.data, self.address, &self.environment);
    }

    /// Sends a request.
    ///
    /// # Panics
    /// Where no whole answer comes.
    #[must_use]
    pub fn send(&self, request: &Request) -> Response {
        request.send(self.address).unwrap_or_else(|error| panic!("{request:?}: {error}"))
    }

    /// GETs a path.
    #[must_use]
    pub fn get(&self, path: &str) -> Response {
        self.send(&Request::new("GET", path))
    }

    /// GETs a path that must answer 200 with JSON.
    ///
    /// # Panics
    /// Where it does not.
    #[must_use]
    pub fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "GET {path}: {answer:?}");
        answer.json()
    }

    /// Posts a body as Alertmanager `source` would.
    #[must_use]
    pub fn webhook(&self, source: &str, body: impl Into<Vec<u8>>) -> Response {
        let path = format!("/webhooks/alertmanager/{source}");
        self.send(&Request::post(&path, body).header("User-Agent", "Alertmanager/0.25.0"))
    }

    /// Posts a body to `/webhooks/alertmanager/eu`, which must be taken.
    ///
    /// # Panics
    /// Where it is not.
    pub fn deliver(&self, body: impl Into<Vec<u8>>) {
        let answer = self.webhook("eu", body);
        assert!(answer.is_success(), "the webhook was not taken: {answer:?}");
    }

    /// All items of a listing, over all its pages, newest first.
    ///
    /// # Panics
    /// Where the listing is no listing.
    #[must_use]
    pub fn list(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor = None::<String>;
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let page = match &cursor {
                None => self.json(path),
                Some(cursor) => self.json(&format!("{path}{joint}cursor={cursor}")),
            };
            items.extend(page["items"].as_array().unwrap_or_else(|| panic!("no items in {page}")).iter().cloned());
            match page["next"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => return items,
            }
        }
    }

    /// All runs, newest first.
    #[must_use]
    pub fn runs(&self) -> Vec<Value> {
        self.list("/api/v1/runs")
    }

    /// All incidents.
    #[must_use]
    pub fn incidents(&self) -> Vec<Value> {
        self.list("/api/v1/incidents")
    }

    /// All dead letters.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<Value> {
        self.list("/api/v1/dead-letters")
    }

    /// One run with its steps.
    #[must_use]
    pub fn run(&self, id: &str) -> Value {
        self.json(&format!("/api/v1/runs/{id}"))
    }

    /// The whole journal: one record a line, each with `envelope` and `payload`.
    ///
    /// # Panics
    /// Where a line is none.
    #[must_use]
    pub fn audit(&self) -> Vec<Value> {
        let answer = self.get("/api/v1/audit");
        assert_eq!(answer.status, 200, "{answer:?}");
        lines(&answer.body)
    }

    /// The payloads of the journal's records of one kind.
    #[must_use]
    pub fn records(&self, kind: &str) -> Vec<Value> {
        of_kind(&self.audit(), kind)
    }

    /// Waits until `count` runs exist and all are over, and gives them, newest first.
    ///
    /// # Panics
    /// Where that does not come about, or more runs come up.
    #[must_use]
    pub fn finished_runs(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} runs are over"), SOON, || {
            let runs = self.runs();
            assert!(runs.len() <= count, "{} runs, not {count}: {runs:#?}", runs.len());
            if runs.len() == count && runs.iter().all(is_over) { Ok(runs) } else { Err(format!("{runs:#?}")) }
        })
    }

    /// Waits until one run's state is `state`.
    ///
    /// # Panics
    /// Where it does not come about.
    #[must_use]
    pub fn run_in_state(&self, id: &str, state: &str) -> Value {
        eventually(&format!("run {id} is {state}"), SOON, || {
            let run = self.run(id);
            if run["state"] == state { Ok(run) } else { Err(format!("{run:#}")) }
        })
    }

    /// Waits until all incidents are in `state`, there being `count` of them.
    ///
    /// # Panics
    /// Where that does not come about.
    #[must_use]
    pub fn incidents_in_state(&self, count: usize, state: &str) -> Vec<Value> {
        eventually(&format!("{count} incidents are {state}"), SOON, || {
            let incidents = self.incidents();
            let all = incidents.len() == count && incidents.iter().all(|incident| incident["state"] == state);
            if all { Ok(incidents) } else { Err(format!("{incidents:#?}")) }
        })
    }

    /// Waits until somebody is asked something, and gives the question.
    ///
    /// # Panics
    /// Where nobody is.
    #[must_use]
    pub fn question(&self) -> Value {
        eventually("a question waits", SOON, || self.list("/api/v1/approvals").pop().ok_or_else(|| "none".to_owned()))
    }

    /// Says yes to a question, as whoever has the token.
    ///
    /// # Panics
    /// Where it is no question.
    #[must_use]
    pub fn approve(&self, question: &Value, token: Option<&str>) -> Response {
        let path = format!("/api/v1/approvals/{}", question["id"].as_str().expect("a question has an id"));
        let body = json!({"verdict": "approved", "digest": question["digest"], "reason": "seen"}).to_string();
        let request = Request::post(&path, body);
        self.send(&match token {
            Some(token) => request.header("Authorization", &format!("Bearer {token}")),
            None => request,
        })
    }

    /// Waits until a step of a run is in `state`, and gives the run.
    ///
    /// # Panics
    /// Where it does not come there.
    #[must_use]
    pub fn step_in_state(&self, run: &str, step: &str, state: &str) -> Value {
        eventually(&format!("{step} is {state}"), SOON, || {
            let run = self.run(run);
            if run["steps"][step]["state"] == state { Ok(run) } else { Err(format!("{run:#}")) }
        })
    }

    /// Exports the journal of the stopped engine and gives the file.
    ///
    /// # Panics
    /// Where the export fails.
    #[must_use]
    pub fn export(&self) -> PathBuf {
        let output = Command::new(binary())
            .args(["audit", "export", "--data-dir"])
            .arg(&self.data)
            .output()
            .expect("the binary under test starts");
        assert!(output.status.success(), "audit export: {}", String::from_utf8_lossy(&output.stderr));
        let file = self.scratch("audit.jsonl");
        std::fs::write(&file, &output.stdout).expect("the test's directory is writable");
        file
    }
}

/// Whether a run has ended, one way or another.
#[must_use]
pub fn is_over(run: &Value) -> bool {
    matches!(run["state"].as_str(), Some("succeeded" | "failed" | "cancelled"))
}

/// Parses JSON lines.
///
/// # Panics
/// Where a line is none.
#[must_use]
pub fn lines(bytes: &[u8]) -> Vec<Value> {
    bytes
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap_or_else(|error| panic!("not a JSON line: {error}")))
        .collect()
}

/// The payloads of the records of one kind.
#[must_use]
pub fn of_kind(records: &[Value], kind: &str) -> Vec<Value> {
    let found = records.iter().filter(|record| record["envelope"]["kind"] == kind);
    found.map(|record| record["payload"].clone()).collect()
}
