//! Measures the journal: `append [DIR] [RUNS]`. Batches of 12 records, as one run of four `log` steps makes them, each
//! batch durable before the next; then the time to open the journal again, and to read it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use stanch_core::attempt::{AttemptId, Purpose};
use stanch_core::id::{Epoch, IncidentId, RunId, Sequence};
use stanch_core::record::{Actor, AttemptScheduled, Body, Firing, Record, RunFinished, RunOutcome, StepWoken};
use stanch_core::{alert, record};
use stanch_journal::{Journal, Options, SledJournal};
use stanch_playbook::{ActionName, StepKey, Timestamp};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let parent: PathBuf = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let runs: u64 = arguments.next().map_or(Ok(20_000), |text| text.parse())?;
    let dir = parent.join(format!("stanch-append-{}", std::process::id()));
    let result = measure(&dir, runs);
    fs::remove_dir_all(&dir)?;
    result
}

fn measure(dir: &Path, runs: u64) -> Result<(), Box<dyn std::error::Error>> {
    fs::create_dir_all(dir)?;
    for runs_per_batch in [1, 16] {
        let dir = dir.join(runs_per_batch.to_string());
        let mut journal = SledJournal::open(&dir, &Options::default())?;
        let (cpu, written, began) = (cpu_time()?, bytes_written()?, Instant::now());
        let (mut head, mut latencies) = (Sequence(0), Vec::new());
        for first in (0..runs).step_by(runs_per_batch) {
            let mut batch = Vec::new();
            for run in first..first + runs_per_batch as u64 {
                run_records(run, head.0 + batch.len() as u64 + 1, &mut batch);
            }
            let began = Instant::now();
            head = journal.append(head, &batch)?.sequence;
            latencies.push(began.elapsed());
        }
        let (took, cpu) = (began.elapsed(), cpu_time()? - cpu);
        latencies.sort_unstable();
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
        println!("append: p50 {:.0?}, p99 {:.0?}, longest {:.0?}", at(0.5), at(0.99), at(1.0));
        println!(
            "{runs_per_batch:2} runs a batch: {:.0} batches/s, {:.0} runs/s, {:.1} us CPU a record (making it included), \
             {:.1} KiB written a run, {} MiB resident",
            runs as f64 / runs_per_batch as f64 / took.as_secs_f64(),
            runs as f64 / took.as_secs_f64(),
            cpu.as_secs_f64() * 1e6 / head.0 as f64,
            (bytes_written()? - written) as f64 / 1024.0 / runs as f64,
            resident()?,
        );
        drop(journal);
        let began = Instant::now();
        let journal = SledJournal::open(&dir, &Options::default())?;
        let opened = began.elapsed();
        let (reader, began, mut next) = (journal.reader(), Instant::now(), Sequence(1));
        let mut bytes = 0;
        loop {
            let entries = reader.read(next, 1_000)?;
            let Some(last) = entries.last() else { break };
            bytes += entries.iter().map(|entry| entry.envelope.len() + 16).sum::<usize>();
            bytes += entries.iter().flat_map(|entry| &entry.payload).map(|payload| payload.bytes.len()).sum::<usize>();
            next = last.record()?.sequence.next();
        }
        println!(
            "   opened in {opened:.1?}, read {} records of {} bytes on average in {:.1?}, {} MiB on disk, {} MiB resident",
            next.0 - 1,
            bytes as u64 / next.0,
            began.elapsed(),
            disk(&dir.join("journal"))? >> 20,
            resident()?,
        );
    }
    bare(dir, runs)
}

/// Bare append and fdatasync of equal bytes, for comparison.
fn bare(dir: &Path, runs: u64) -> Result<(), Box<dyn std::error::Error>> {
    let mut file = File::create(dir.join("bare"))?;
    let bytes = vec![7; 9 * 1024];
    let began = Instant::now();
    for _ in 0..runs {
        file.write_all(&bytes)?;
        file.sync_data()?;
    }
    println!("bare append and fdatasync of 9 KiB: {:.0}/s", runs as f64 / began.elapsed().as_secs_f64());
    Ok(())
}

fn run_records(run: u64, first: u64, out: &mut Vec<Record>) {
    let run_id = RunId(uuid::Uuid::from_u128(u128::from(run) << 64 | 0x7000_8000_0000_0000_0000));
    let labels: Vec<_> = ["alertname", "cluster", "instance", "job", "namespace", "pod", "severity"]
        .iter()
        .map(|name| ((*name).to_owned(), format!("{name}-value-{run}")))
        .collect();
    let snapshot = Arc::new(alert::AlertSnapshot {
        key: alert::AlertKey { source: "default".into(), fingerprint: format!("{run:016x}").into() },
        labels: labels.into_iter().collect(),
        annotations: [("summary".to_owned(), "The instance has been down for more than five minutes".to_owned())]
            .into(),
        starts_at: Timestamp::from_millis(1_790_000_000_000),
        generator_url: "http://prometheus:9090/graph?g0.expr=up+%3D%3D+0&g0.tab=1".to_owned(),
    });
    let fired = record::AlertFired { alert: Arc::clone(&snapshot), firing: Firing::New };
    let joined = record::IncidentJoined {
        incident: IncidentId(run_id.0),
        alert: snapshot.key.clone(),
        severity: stanch_playbook::Severity::P2,
    };
    let mut bodies: Vec<Body> = vec![fired.clone().into(), joined.into(), fired.into()];
    for step in ["detect.look", "contain.stop", "eradicate.clean", "recover.restore"] {
        let attempt = AttemptId {
            run: run_id,
            step: StepKey::new(step),
            item: None,
            purpose: Purpose::Do,
            generation: 0,
            number: 1,
            epoch: Epoch(3),
        };
        let idempotency_key = attempt.idempotency_key();
        bodies.push(
            AttemptScheduled {
                attempt: attempt.clone(),
                action: ActionName::new("log"),
                with: Arc::new(json!({"message": format!("instance-value-{run} is being looked after")})),
                env: Arc::new(json!({})),
                idempotency_key,
                timeout: Duration::from_secs(120),
            }
            .into(),
        );
        // Of the size of an attempt's success.
        let outputs = Arc::new(json!({"purpose": "do", "generation": 0, "number": 1, "epoch": 3, "output": {}}));
        bodies.push(StepWoken { run: run_id, step: attempt.step, item: None, outputs }.into());
    }
    bodies.push(RunFinished { run: run_id, outcome: RunOutcome::Succeeded }.into());
    let time = Timestamp::from_nanos(1_790_000_000_000_000_000 + i64::try_from(first).unwrap_or(0) * 333_333);
    out.extend((first..).zip(bodies).map(|(sequence, body)| Record {
        sequence: Sequence(sequence),
        time,
        actor: Actor::engine(),
        body,
    }));
}

fn field(path: &str, name: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such field")?;
    Ok(line.split_whitespace().next().ok_or("an empty field")?.parse()?)
}

fn resident() -> Result<u64, Box<dyn std::error::Error>> {
    Ok(field("/proc/self/status", "VmRSS:")? >> 10)
}

fn bytes_written() -> Result<u64, Box<dyn std::error::Error>> {
    field("/proc/self/io", "write_bytes:")
}

fn cpu_time() -> Result<Duration, Box<dyn std::error::Error>> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let of = |time: nix::sys::time::TimeVal| {
        Duration::from_micros(u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap_or(0))
    };
    Ok(of(usage.user_time()) + of(usage.system_time()))
}

fn disk(dir: &Path) -> Result<u64, Box<dyn std::error::Error>> {
    let mut bytes = 0;
    for item in fs::read_dir(dir)? {
        let item = item?;
        bytes += if item.file_type()?.is_dir() { disk(&item.path())? } else { item.metadata()?.len() };
    }
    Ok(bytes)
}
