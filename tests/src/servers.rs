//! The real Prometheus and Alertmanager, and an exporter whose gauges a test sets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tempfile::TempDir;

use crate::http::{Request, Response};
use crate::process::{Process, program};
use crate::stand_in::{Answer, StandIn};
use crate::{SOON, eventually, free_port, repository};

fn config(name: &str) -> String {
    let path = repository().join("tests/fixtures/config").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn directory() -> TempDir {
    tempfile::Builder::new().prefix("stanch-test-").tempdir().expect("the temporary directory is there")
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("the test's directory is writable");
}

fn wait_until_ready(name: &str, process: &mut Process, address: SocketAddr) {
    eventually(&format!("{name} is ready"), SOON, || {
        process.must_run();
        match Request::new("GET", "/-/ready").send(address) {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("{answer:?}")),
            Err(error) => Err(error.to_string()),
        }
    });
}

/// Serves gauges on `/metrics` for Prometheus to scrape.
#[derive(Debug)]
pub struct Exporter {
    server: StandIn,
    gauges: Arc<Mutex<BTreeMap<String, f64>>>,
}

impl Exporter {
    /// Starts it without any gauge.
    #[must_use]
    pub fn start() -> Self {
        let gauges = Arc::new(Mutex::new(BTreeMap::new()));
        let shared = Arc::clone(&gauges);
        let server = StandIn::start(move |_| {
            let mut text = String::new();
            for (name, value) in shared.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                let _ = writeln!(text, "{name} {value}");
            }
            Answer::Reply {
                status: 200,
                headers: vec![("Content-Type".into(), "text/plain; version=0.0.4".into())],
                body: text.into_bytes(),
            }
        });
        Self { server, gauges }
    }

    /// Sets a gauge such as `probe_single{instance="db-01:9100"}`.
    pub fn set(&self, gauge: &str, value: f64) {
        self.set_all(&[gauge], value);
    }

    /// Sets several gauges with nothing scraped in between.
    pub fn set_all(&self, gauges: &[&str], value: f64) {
        let mut known = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(gauges.iter().map(|&gauge| (gauge.to_owned(), value)));
    }
}

/// A running Alertmanager that notifies one URL.
#[derive(Debug)]
pub struct Alertmanager {
    /// Where it listens.
    pub address: SocketAddr,
    process: Process,
    home: TempDir,
}

impl Alertmanager {
    /// Starts it on an empty directory; every receiver of the configuration posts to `webhook`.
    #[must_use]
    pub fn start(webhook: &str) -> Self {
        let home = directory();
        let mut text = String::new();
        for (index, part) in config("alertmanager.yml").split("http://127.0.0.1:18080/hook/").enumerate() {
            if index == 0 {
                text.push_str(part);
            } else {
                text.push_str(webhook);
                text.push_str(part.find('\'').map_or("", |end| &part[end..]));
            }
        }
        write(&home.path().join("alertmanager.yml"), &text);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let process = Self::spawn(&home, address);
        let mut this = Self { address, process, home };
        wait_until_ready("alertmanager", &mut this.process, address);
        this
    }

    fn spawn(home: &TempDir, address: SocketAddr) -> Process {
        let mut command = Command::new(program("prometheus-alertmanager"));
        command
            .arg(format!("--config.file={}", home.path().join("alertmanager.yml").display()))
            .arg(format!("--storage.path={}", home.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            // Without this it opens a port on all addresses.
            .arg("--cluster.listen-address=");
        Process::start("alertmanager", command, &home.path().join("log"))
    }

    /// Kills it and starts it with an empty data directory.
    ///
    /// # Panics
    /// Where it does not come back.
    pub fn lose_data_and_restart(&mut self) {
        self.process.kill();
        std::fs::remove_dir_all(self.home.path().join("data")).expect("it kept its data there");
        self.process = Self::spawn(&self.home, self.address);
        wait_until_ready("alertmanager", &mut self.process, self.address);
    }

    /// Posts alerts to its API, as Prometheus does.
    ///
    /// # Panics
    /// Where it does not take them.
    pub fn post(&self, alerts: &Value) {
        let answer: Response =
            Request::post("/api/v2/alerts", alerts.to_string()).send(self.address).expect("alertmanager answers");
        assert!(answer.is_success(), "{answer:?}");
    }
}

/// A running Prometheus with the probe rules.
#[derive(Debug)]
pub struct Prometheus {
    /// Where it listens.
    pub address: SocketAddr,
    process: Process,
    _home: TempDir,
}

impl Prometheus {
    /// Starts it on an empty directory, scraping `exporter` and alerting through `alertmanager`.
    #[must_use]
    pub fn start(exporter: &Exporter, alertmanager: &Alertmanager) -> Self {
        Self::start_at(free_port(), exporter, alertmanager, &[("rules.yml".to_owned(), config("rules.yml"))])
    }

    /// The same on this port, with these files of rules.
    #[must_use]
    pub fn start_at(port: u16, exporter: &Exporter, alertmanager: &Alertmanager, rules: &[(String, String)]) -> Self {
        let home = directory();
        let names: Vec<&str> = rules.iter().map(|(name, _)| name.as_str()).collect();
        let text = config("prometheus.yml")
            .replace("[rules.yml]", &format!("[{}]", names.join(", ")))
            .replace("127.0.0.1:18080", &exporter.server.address.to_string())
            .replace("127.0.0.1:19093", &alertmanager.address.to_string());
        write(&home.path().join("prometheus.yml"), &text);
        for (name, text) in rules {
            write(&home.path().join(name), text);
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut command = Command::new(program("prometheus"));
        command
            .arg(format!("--config.file={}", home.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", home.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--rules.alert.resend-delay=2s");
        let process = Process::start("prometheus", command, &home.path().join("log"));
        let mut this = Self { address, process, _home: home };
        wait_until_ready("prometheus", &mut this.process, address);
        this
    }
}
