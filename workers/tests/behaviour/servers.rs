//! A real Prometheus and a real Alertmanager, where they are installed.

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server with its own data; ends with the value.
pub struct Server {
    pub url: String,
    process: Child,
    _home: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A Prometheus that scrapes nothing; none, with the reason printed, where it is not installed.
pub fn prometheus() -> Option<Server> {
    start("prometheus", "global: {scrape_interval: 1m}\n", &["--storage.tsdb.path"])
}

/// An Alertmanager that notifies nobody; none, with the reason printed, where it is not installed.
pub fn alertmanager() -> Option<Server> {
    let config = "route: {receiver: none}\nreceivers: [{name: none}]\n";
    // Without an empty cluster address it opens a port on all addresses.
    start("prometheus-alertmanager", config, &["--cluster.listen-address=", "--storage.path"])
}

fn start(name: &str, config: &str, flags: &[&str]) -> Option<Server> {
    let program = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|part| part.join(name)).find(|file: &PathBuf| file.is_file())
    });
    let Some(program) = program else {
        println!("skipped: no {name} in PATH");
        return None;
    };
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config.yml");
    std::fs::write(&file, config).unwrap();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (data, flags) = flags.split_last().unwrap();
    let process = Command::new(program)
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--web.listen-address={address}"))
        .arg(format!("{data}={}", home.path().join("data").display()))
        .args(flags)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server { url: format!("http://{address}"), process, _home: home };
    let started = Instant::now();
    while TcpStream::connect(address).is_err() || !is_ready(&server.url) {
        assert!(started.elapsed() < Duration::from_secs(30), "{name} did not get ready");
        std::thread::sleep(Duration::from_millis(50));
    }
    Some(server)
}

fn is_ready(url: &str) -> bool {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = TcpStream::connect(url.trim_start_matches("http://")) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let _ = stream.write_all(b"GET /-/ready HTTP/1.0\r\n\r\n");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.starts_with("HTTP/1.0 200")
}
