//! The load generator of the *Performance* section: posts one-alert webhooks over loopback HTTP, each of which starts
//! a playbook of four `log` steps in a row, waits for the run's end (`Prefer: wait=30`), and prints what that takes
//! beside bare append and fdatasync of as many bytes on the same disk in the same minute.
//!
//! `cargo build --release -p stanch && cargo run --release -p stanch-tests --bin stanch-bench`
//!
//! Bounded in time and in count, and on loopback alone. Figures are of the engine's process, from `/proc`.

use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stanch_tests::process::Process;
use stanch_tests::{Request, SOON, fixture, free_port, repository};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PLAYBOOK: &str = r#"
playbook: bench
triggers:
  - alertmanager: {matchers: ['alertname="ProbeInstanceDown"']}
    inputs: {instance: alert.labels.instance}
inputs:
  instance: {type: string, required: true}
detect:
  one: {uses: log, with: {message: "{{ inputs.instance }} one"}}
contain:
  two: {uses: log, with: {message: "{{ inputs.instance }} two"}}
eradicate:
  three: {uses: log, with: {message: "{{ inputs.instance }} three"}}
recover:
  four: {uses: log, with: {message: "{{ inputs.instance }} four"}}
"#;

/// A run of four steps in a row is at least this many commits, one after the other: the alert with the first claim,
/// three results each with the next claim, and the last result with the run's end.
const COMMITS: u64 = 5;

const USAGE: &str = "usage: stanch-bench [--seconds N] [--stored N] [--dir DIR] [--unresolved]
  --seconds N     how long each load lasts at most (10)
  --stored N      finished runs in the store for the second start-up time (100000); 0 leaves it out
  --dir DIR       where the engine's data goes; must be a real disk (target/)
  --unresolved    leave all alerts of the store firing";

struct Options {
    seconds: u64,
    stored: u64,
    directory: PathBuf,
    resolve: bool,
}

fn options() -> Result<Options, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    let mut options = Options { seconds: 10, stored: 100_000, directory: target, resolve: true };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse().ok()).ok_or_else(|| USAGE.to_owned());
        match argument.as_str() {
            "--seconds" => options.seconds = number()?,
            "--stored" => options.stored = number()?,
            "--dir" => options.directory = arguments.next().ok_or_else(|| USAGE.to_owned())?.into(),
            "--unresolved" => options.resolve = false,
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let outcome = options().and_then(|options| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(bench(&options)).map_err(|error| error.to_string())
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

async fn bench(options: &Options) -> io::Result<()> {
    let home = tempfile::Builder::new().prefix("bench-").tempdir_in(&options.directory)?;
    let mut engine = Engine::new(home.path())?;
    let limit = Duration::from_secs(options.seconds);
    let empty = engine.start();
    println!("engine            {} on {}", engine.binary.display(), home.path().display());
    println!("ready, empty      {} after start", millis(empty));
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("resident, idle    {:.1} MiB", engine.status("VmRSS:"));

    let alerts = Alerts::new();
    // Warm: pages, connections, the first segment.
    load(&engine, &alerts, 16, 500, limit).await?;

    let one = load(&engine, &alerts, 1, 4000, limit).await?;
    let share = (one.bytes_per_run() / COMMITS).max(64);
    let bare = append(home.path(), share, 4000, limit)?;
    println!("\n1 in flight       {} runs, POST to run finished", one.runs);
    println!("  latency         p50 {}, p99 {}", millis(one.quantile(0.5)), millis(one.quantile(0.99)));
    println!(
        "  bare            append of {share} bytes and fdatasync: p50 {}, p99 {}",
        millis(bare.p50),
        millis(bare.p99)
    );
    let bound = bare.p50 * 12 + Duration::from_millis(1);
    println!("  bound           12 x bare p50 + 1 ms = {}: {}", millis(bound), verdict(one.quantile(0.5) <= bound));
    one.print(&engine);

    for flight in [64, 512] {
        let many = load(&engine, &alerts, flight, 1_000_000, limit).await?;
        let batch = many.bytes_per_run() / COMMITS * flight;
        let bare = append(home.path(), batch, 100_000, Duration::from_secs(2))?;
        println!("\n{flight} in flight      {} runs in {:.1} s", many.runs, many.elapsed.as_secs_f64());
        println!("  throughput      {:.0} runs/s", many.rate());
        println!("  latency         p50 {}, p99 {}", millis(many.quantile(0.5)), millis(many.quantile(0.99)));
        let ceiling = bare.rate * flight as f64 / COMMITS as f64;
        println!(
            "  bare            append of {batch} bytes and fdatasync: {:.0}/s, which would be {ceiling:.0} runs/s",
            bare.rate
        );
        many.print(&engine);
        let resident = engine.status("VmRSS:");
        println!("  bound           150 MiB resident under this load: {}", verdict(resident <= 150.0));
        if flight == 64 {
            let cpu = many.engine_cpu / many.runs as f64 * 1000.0;
            println!("  bound           0.4 ms CPU a run: {}", verdict(cpu <= 0.4));
            println!("  bound           2,500 runs/s: {}", verdict(many.rate() >= 2500.0));
        }
    }
    println!("\nresident, at most {:.1} MiB", engine.status("VmHWM:"));

    if options.stored > 0 {
        stored(options, &mut engine, &alerts).await?;
    }
    engine.stop();
    Ok(())
}

async fn stored(options: &Options, engine: &mut Engine, alerts: &Alerts) -> io::Result<()> {
    let missing = options.stored.saturating_sub(alerts.made());
    load(engine, alerts, 64, missing, Duration::from_secs(300)).await?;
    let made = alerts.made();
    if options.resolve {
        for first in (0..made).step_by(500) {
            let answer = Request::post("/webhooks/alertmanager/bench", alerts.resolved(first, (first + 500).min(made)))
                .send(engine.address)?;
            if !answer.is_success() {
                return Err(io::Error::other(format!("resolved alerts were not taken: {answer:?}")));
            }
        }
        // The incidents close by their own timer.
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let firing = if options.resolve { "their alerts resolved" } else { "all alerts firing" };
    println!("\nstore             {made} finished runs, {firing}, {:.0} MiB on disk", megabytes(engine.home.as_path()));
    println!("  resident        {:.1} MiB", engine.status("VmRSS:"));
    for (what, kill) in [("SIGTERM", false), ("kill -9", true)] {
        if kill {
            // Something must have happened since the snapshot.
            load(engine, alerts, 64, 2000, Duration::from_secs(10)).await?;
            engine.kill();
        } else {
            engine.stop();
        }
        let ready = engine.start();
        println!(
            "  ready           {} after start, stopped by {what}: {}",
            millis(ready),
            verdict(ready.as_secs() < 1)
        );
        println!("  resident        {:.1} MiB", engine.status("VmRSS:"));
    }
    Ok(())
}

fn verdict(holds: bool) -> &'static str {
    if holds { "held" } else { "MISSED" }
}

fn millis(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}

/// The bodies: the captured alert, each with a fingerprint and an instance of its own.
struct Alerts {
    parts: Vec<String>,
    next: AtomicU64,
}

impl Alerts {
    fn new() -> Self {
        let body = String::from_utf8(fixture("single-firing")).expect("the captured body is UTF-8");
        let marked = body.replace("d7823c29edb44cc9", "\u{0}").replace("db-01:9100", "\u{0}");
        Self { parts: marked.split('\u{0}').map(str::to_owned).collect(), next: AtomicU64::new(0) }
    }

    fn made(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Appends the next request to `buffer`.
    fn request(&self, host: SocketAddr, buffer: &mut Vec<u8>) {
        let fingerprint = format!("{:016x}", self.next.fetch_add(1, Ordering::Relaxed));
        let length = self.parts.iter().map(String::len).sum::<usize>() + (self.parts.len() - 1) * fingerprint.len();
        let _ = write!(
            buffer,
            "POST /webhooks/alertmanager/bench HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Prefer: wait=30\r\nContent-Length: {length}\r\n\r\n"
        );
        for (index, part) in self.parts.iter().enumerate() {
            if index > 0 {
                buffer.extend_from_slice(fingerprint.as_bytes());
            }
            buffer.extend_from_slice(part.as_bytes());
        }
    }

    /// One body that says of the alerts from `first` to before `last` that they are resolved.
    fn resolved(&self, first: u64, last: u64) -> Vec<u8> {
        let mut body = serde_json::from_slice::<serde_json::Value>(&fixture("single-resolved")).expect("it is JSON");
        let alert = body["alerts"][0].clone();
        let alerts = (first..last).map(|number| {
            let mut alert = alert.clone();
            alert["fingerprint"] = format!("{number:016x}").into();
            alert["labels"]["instance"] = format!("{number:016x}").into();
            alert
        });
        body["alerts"] = alerts.collect();
        body.to_string().into_bytes()
    }
}

/// What a load took.
struct Measured {
    runs: u64,
    elapsed: Duration,
    latencies: Vec<Duration>,
    engine_cpu: f64,
    own_cpu: f64,
    written: u64,
}

impl Measured {
    fn rate(&self) -> f64 {
        self.runs as f64 / self.elapsed.as_secs_f64()
    }

    fn bytes_per_run(&self) -> u64 {
        self.written / self.runs.max(1)
    }

    fn quantile(&self, quantile: f64) -> Duration {
        quantile_of(&self.latencies, quantile)
    }

    fn print(&self, engine: &Engine) {
        let runs = self.runs as f64;
        println!(
            "  cost            {:.3} ms CPU a run (the generator: {:.3}), {} bytes written a run",
            self.engine_cpu / runs * 1000.0,
            self.own_cpu / runs * 1000.0,
            self.bytes_per_run()
        );
        println!("  resident        {:.1} MiB", engine.status("VmRSS:"));
    }
}

/// The value below which a share of the sorted values lies.
fn quantile_of(sorted: &[Duration], quantile: f64) -> Duration {
    let index = (sorted.len() as f64 * quantile) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// Keeps `flight` webhooks in flight until `count` are answered or `limit` has passed.
async fn load(engine: &Engine, alerts: &Alerts, flight: u64, count: u64, limit: Duration) -> io::Result<Measured> {
    let mut connections = Vec::new();
    for _ in 0..flight {
        let stream = TcpStream::connect(engine.address).await?;
        stream.set_nodelay(true)?;
        connections.push(stream);
    }
    let left = AtomicU64::new(count);
    let (cpu, own, written) = (cpu_seconds(engine.pid()), cpu_seconds(std::process::id()), engine.written());
    let started = Instant::now();
    let senders = connections.into_iter().map(|mut stream| {
        let left = &left;
        async move {
            let mut latencies = Vec::new();
            let (mut request, mut answer) = (Vec::with_capacity(2048), Vec::with_capacity(2048));
            while started.elapsed() < limit
                && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            {
                request.clear();
                alerts.request(engine.address, &mut request);
                let sent = Instant::now();
                stream.write_all(&request).await?;
                read_answer(&mut stream, &mut answer).await?;
                latencies.push(sent.elapsed());
            }
            Ok::<_, io::Error>(latencies)
        }
    });
    let all: Vec<Vec<Duration>> = futures::future::try_join_all(senders).await?;
    let elapsed = started.elapsed();
    let mut latencies = all.concat();
    latencies.sort_unstable();
    Ok(Measured {
        runs: u64::try_from(latencies.len()).expect("counts fit"),
        elapsed,
        latencies,
        engine_cpu: cpu_seconds(engine.pid()) - cpu,
        own_cpu: cpu_seconds(std::process::id()) - own,
        written: engine.written() - written,
    })
}

async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> io::Result<()> {
    answer.clear();
    let mut end = None;
    loop {
        if stream.read_buf(answer).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the engine closed the connection"));
        }
        if end.is_none() {
            let mut headers = [httparse::EMPTY_HEADER; 32];
            let mut head = httparse::Response::new(&mut headers);
            if let httparse::Status::Complete(length) = head.parse(answer).map_err(io::Error::other)? {
                let content = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
                let content = content.and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok());
                end = Some(length + content.ok_or_else(|| io::Error::other("an answer without a length"))?);
            }
        }
        if end.is_some_and(|end| answer.len() >= end) {
            break;
        }
    }
    // An answer before the run's end would make everything look faster than it is.
    let over = answer.starts_with(b"HTTP/1.1 2") && answer.windows(9).any(|part| part == b"succeeded");
    if over { Ok(()) } else { Err(io::Error::other(format!("no finished run: {}", String::from_utf8_lossy(answer)))) }
}

struct Bare {
    p50: Duration,
    p99: Duration,
    rate: f64,
}

/// Appends `bytes` and syncs the file, again and again.
fn append(directory: &Path, bytes: u64, count: u64, limit: Duration) -> io::Result<Bare> {
    let mut file = tempfile::tempfile_in(directory)?;
    let block = vec![b'x'; usize::try_from(bytes).map_err(io::Error::other)?];
    let started = Instant::now();
    let mut latencies = Vec::new();
    for _ in 0..count {
        let before = Instant::now();
        file.write_all(&block)?;
        File::sync_data(&file)?;
        latencies.push(before.elapsed());
        if started.elapsed() > limit {
            break;
        }
    }
    let rate = latencies.len() as f64 / started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    Ok(Bare { p50: quantile_of(&latencies, 0.5), p99: quantile_of(&latencies, 0.99), rate })
}

/// The engine's process.
struct Engine {
    binary: PathBuf,
    home: PathBuf,
    address: SocketAddr,
    process: Option<Process>,
}

impl Engine {
    fn new(home: &Path) -> io::Result<Self> {
        let binary =
            std::env::var_os("STANCH_BIN").map_or_else(|| repository().join("target/release/stanch"), PathBuf::from);
        if !binary.exists() {
            return Err(io::Error::other(format!(
                "{} is missing; make it: cargo build --release -p stanch",
                binary.display()
            )));
        }
        std::fs::create_dir(home.join("playbooks"))?;
        std::fs::write(home.join("playbooks/bench.yaml"), PLAYBOOK)?;
        std::fs::write(home.join("stanch.yaml"), "incidents: {settle: 1s}\n")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        Ok(Self { binary, home: home.to_owned(), address, process: None })
    }

    /// Starts it and says how long it took to be ready.
    fn start(&mut self) -> Duration {
        let mut command = Command::new(&self.binary);
        command
            .current_dir(&self.home)
            .args(["serve", "--listen", &self.address.to_string()])
            .args(["--data-dir", "data", "--playbooks", "playbooks", "--config", "stanch.yaml"])
            // What a log step says goes to the log too; writing it to a file is not what is measured.
            .env("RUST_LOG", "warn");
        let started = Instant::now();
        let mut process = Process::start("stanch", command, &self.home.join("log"));
        // Asked every millisecond: the time itself is what is measured.
        while !Request::new("GET", "/readyz").send(self.address).is_ok_and(|answer| answer.status == 200) {
            process.must_run();
            assert!(started.elapsed() < SOON * 3, "stanch is not ready after {:?}", started.elapsed());
            std::thread::sleep(Duration::from_millis(1));
        }
        let ready = started.elapsed();
        self.process = Some(process);
        ready
    }

    fn running(&self) -> &Process {
        self.process.as_ref().expect("it was started")
    }

    fn pid(&self) -> u32 {
        self.running().id()
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.terminate(SOON * 3);
        }
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// A size of `/proc/PID/status`, in MiB.
    fn status(&self, name: &str) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
    }

    /// Bytes that it made the kernel write to storage.
    fn written(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/io", self.pid())).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap_or_default();
        line.trim().parse().unwrap_or(0)
    }
}

/// User and system time of a process, in seconds.
fn cpu_seconds(pid: u32) -> f64 {
    // Linux reports in ticks of 10 ms on every architecture that Rust runs on here.
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn megabytes(path: &Path) -> f64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0.0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => megabytes(&entry.path()),
            Ok(meta) => meta.len() as f64 / 1_048_576.0,
            Err(_) => 0.0,
        })
        .sum()
}
