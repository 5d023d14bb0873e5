//! A power cut: the engine works on a file system of its own in an image, and the image is copied while it works. What
//! was not synced lives in memory alone and is not in the copy. On the copy, everything acknowledged must be there.
//!
//! `STANCH_SEED` repeats the moments; `STANCH_LONG=1` does 20 cuts.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use stanch_tests::engine::stanch;
use stanch_tests::{AlertBody, Engine, Ledger, Load, Random, Setup, eventually, long};

const PLAYBOOK: &str = r#"
playbook: cut
triggers:
  - alertmanager: {matchers: ['alertname="Cut"']}
    key: "{{ alert.fingerprint }}"
    inputs: {fingerprint: alert.fingerprint, text: alert.annotations.summary}
inputs:
  fingerprint: {type: string, required: true}
  text: {type: string, required: true}
detect:
  a: {uses: log, with: {message: "{{ inputs.fingerprint }}"}}
  b: {needs: [a], uses: log, with: {message: b}}
"#;

/// Every so many alerts one has a body of 600 KB.
const LARGE_EVERY: u64 = 40;
const IMAGE: u64 = 512 << 20;

/// A file system in an image, mounted. Unmounted when dropped.
struct Mount {
    image: PathBuf,
    at: PathBuf,
    device: String,
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

impl Mount {
    fn make(image: PathBuf, at: PathBuf) -> Result<Self, String> {
        let file = File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(IMAGE).map_err(|error| error.to_string())?;
        run("mkfs.ext4", &["-q", "-F", &image.to_string_lossy()])?;
        Self::existing(image, at)
    }

    fn existing(image: PathBuf, at: PathBuf) -> Result<Self, String> {
        std::fs::create_dir_all(&at).map_err(|error| error.to_string())?;
        let (from, to) = (image.to_string_lossy().into_owned(), at.to_string_lossy().into_owned());
        // A long commit interval: the file system writes what it is asked to sync, and nothing by itself meanwhile.
        run("mount", &["-o", "loop,commit=300", &from, &to])?;
        let device = run("losetup", &["-n", "-O", "NAME", "-j", &from])?;
        let device = device.lines().next().unwrap_or_default().trim_start_matches("/dev/").to_owned();
        Ok(Self { image, at, device })
    }

    /// What the device was asked to write and flush so far.
    fn writes(&self) -> String {
        let stat = std::fs::read_to_string(format!("/sys/block/{}/stat", self.device)).expect("a block device has it");
        // reads.. | writes, merged, sectors, ms | in flight .. | .. discards .. | flushes, ms
        let fields: Vec<&str> = stat.split_whitespace().collect();
        format!("{} {} {} {}", fields[4], fields[6], fields[8], fields.get(15).unwrap_or(&""))
    }

    /// Copies the image as it is on the device while nothing writes to it.
    fn copy(&self, to: &Path) {
        eventually("the device is quiet during a copy", Duration::from_secs(60), || {
            let before = self.writes();
            copy_sparse(&self.image, to);
            let after = self.writes();
            if before == after { Ok(()) } else { Err(format!("{before}, then {after}")) }
        });
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if run("umount", &[&self.at.to_string_lossy()]).is_err() {
            let _ = run("umount", &["-l", &self.at.to_string_lossy()]);
        }
    }
}

fn copy_sparse(from: &Path, to: &Path) {
    let mut from = File::open(from).expect("the image is there");
    let mut to = File::create(to).expect("the test's directory is writable");
    let mut block = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let length = from.read(&mut block).expect("the image can be read");
        if length == 0 {
            break;
        }
        if block[..length].iter().any(|&byte| byte != 0) {
            to.seek(SeekFrom::Start(offset)).expect("a file can be sought in");
            to.write_all(&block[..length]).expect("there is space for a copy");
        }
        offset += u64::try_from(length).expect("a block's length fits");
    }
    to.set_len(offset).expect("the length can be set");
}

#[test]
fn everything_acknowledged_is_there_after_a_power_cut() {
    let home = tempfile::Builder::new().prefix("stanch-cut-").tempdir().unwrap();
    let disk = match Mount::make(home.path().join("disk.img"), home.path().join("disk")) {
        Ok(disk) => disk,
        Err(reason) => {
            println!("SKIPPED: no loop mount here: {reason}");
            return;
        }
    };
    let seed = Random::seed();
    let rounds = if long() { 20 } else { 4 };
    println!("seed {seed}, {rounds} cuts");
    let mut random = Random::new(seed);
    let engine = Setup::new().playbook("cut", PLAYBOOK).data_dir(&disk.at.join("data")).start();
    let ledger = Arc::new(Ledger::default());
    let load = Load::start(engine.address(), &ledger, |number, fingerprint| {
        let body = AlertBody::firing(fingerprint, &[("alertname", "Cut")]).annotated("summary", &summary(number));
        if number.is_multiple_of(LARGE_EVERY) { body.annotated("large", &"l".repeat(300_000)) } else { body }
    });
    for round in 0..rounds {
        let moment = random.between(Duration::from_millis(200), Duration::from_millis(1500));
        std::thread::sleep(moment);
        std::fs::write(disk.at.join("never-synced"), vec![b'x'; 100_000]).unwrap();
        engine.signal(Signal::SIGSTOP);
        let acknowledged = ledger.acknowledged();
        let image = home.path().join("cut.img");
        disk.copy(&image);
        engine.signal(Signal::SIGCONT);
        std::fs::remove_file(disk.at.join("never-synced")).unwrap();

        let cut = Mount::existing(image, home.path().join("cut")).unwrap();
        let unsynced = std::fs::read(cut.at.join("never-synced")).unwrap_or_default();
        assert_ne!(unsynced, vec![b'x'; 100_000], "the cut is no cut: what was never synced is there");
        check(&cut.at.join("data"), &acknowledged, round, moment);
        drop(cut);
    }
    drop(load);
    drop(engine);
    assert!(ledger.acknowledged().len() > 100, "too little load to show anything");
}

fn summary(number: u64) -> String {
    if number.is_multiple_of(LARGE_EVERY) {
        number.to_string().repeat(300_000 / number.to_string().len())
    } else {
        number.to_string()
    }
}

fn check(data: &Path, acknowledged: &std::collections::BTreeSet<String>, round: usize, moment: Duration) {
    let mut engine: Engine = Setup::new().playbook("cut", PLAYBOOK).data_dir(data).start();
    let started: std::collections::BTreeMap<String, usize> = engine
        .records("RunStarted")
        .iter()
        .map(|run| {
            let text = run["inputs"]["text"].as_str().expect("the playbook takes it");
            (run["inputs"]["fingerprint"].as_str().expect("the playbook takes it").to_owned(), text.len())
        })
        .collect();
    let lost: Vec<&String> = acknowledged.iter().filter(|&one| !started.contains_key(one)).collect();
    assert!(lost.is_empty(), "cut {round} after {moment:?}: acknowledged and lost: {lost:?}");
    let large = acknowledged.iter().filter(|&one| started[one] > 200_000).count();
    println!("cut {round} after {moment:?}: {} acknowledged, {large} of them large, all there", acknowledged.len());
    assert!(large > 0, "no large body was acknowledged before the cut");
    // And it goes on from there.
    let runs = eventually("all runs are over", Duration::from_secs(60), || {
        let runs = engine.runs();
        let over = runs.iter().filter(|run| run["state"] == "succeeded").count();
        if over == runs.len() { Ok(over) } else { Err(format!("{over} of {}", runs.len())) }
    });
    assert!(runs >= acknowledged.len());
    assert!(engine.terminate().success());
    let export = engine.export();
    let verified = stanch(&["audit", "verify", export.to_str().expect("a plain path")]);
    assert!(verified.status.success(), "cut {round}: {}", String::from_utf8_lossy(&verified.stderr));
}
