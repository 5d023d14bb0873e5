use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use stanch_core::alert::{AlertChange, AlertKey, AlertSnapshot, AlertStatus};
use stanch_core::record::{Actor, DeadLetter};
use stanch_core::{JournalId, Settings};
use stanch_journal::{Fault, Faults, Journal as _, MemoryJournal, Reader};

use super::*;

/// A worker that does at once whatever it is given, and counts.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Dispatch for Counting {
    fn execute(&self, _: Assignment, _: CancellationToken) -> impl Future<Output = Outcome> + Send + 'static {
        self.0.fetch_add(1, Ordering::SeqCst);
        async { Outcome::Succeeded { output: json!({"exit_code": 0}) } }
    }
}

fn start_engine(journal: JournalId) -> Command {
    Command::StartEngine { journal, version: "test".to_owned(), settings: Settings::default() }
}

fn load(text: &str) -> Command {
    let plan = Arc::new(stanch_playbook::load("test.yaml", text).unwrap_or_else(|bad| panic!("{bad}")).plan);
    Command::LoadPlaybooks { plans: vec![plan], keep: Vec::new() }
}

struct Bench {
    handle: Handle,
    faults: Faults,
    reader: Arc<dyn Reader>,
    worker: Arc<Counting>,
    _directory: tempfile::TempDir,
}

async fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let journal = MemoryJournal::new();
    let (faults, reader, begin) = (journal.faults(), journal.reader(), start_engine(journal.id()));
    let (store, state) = Store::assemble(Box::new(journal), directory.path().to_owned()).unwrap();
    let worker = Arc::new(Counting::default());
    let handle = start(store, state, Arc::clone(&worker), 16);
    handle.submit(begin).await.unwrap();
    let text = "playbook: down\ntriggers:\n  - alertmanager: {matchers: ['alertname=\"Down\"']}\ncontain:\n  a: {uses: exec, with: {argv: [./a]}}\n  b: {needs: [a], uses: exec, with: {argv: [./b]}}\n";
    handle.submit(load(text)).await.unwrap();
    Bench { handle, faults, reader, worker, _directory: directory }
}

fn fire(host: &str) -> Command {
    let alert = AlertSnapshot {
        key: AlertKey { source: "test".into(), fingerprint: host.into() },
        labels: [("alertname".to_owned(), "Down".to_owned()), ("host".to_owned(), host.to_owned())].into(),
        annotations: [].into(),
        starts_at: Timestamp::from_millis(1_789_999_000_000),
        generator_url: String::new(),
    };
    let changes = vec![AlertChange { alert: Arc::new(alert), status: AlertStatus::Firing }];
    Command::ReceiveAlerts { actor: Actor::source("test"), changes }
}

/// Sends until it is taken, as Alertmanager does.
async fn deliver(bench: &Bench, host: &str) -> Receipt {
    loop {
        match bench.handle.submit(fire(host)).await {
            Ok(receipt) => return receipt,
            Err(Refused::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(500)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_is_in_the_journal() {
    let bench = bench().await;
    let receipt = deliver(&bench, "a").await;
    let entries = bench.reader.read(stanch_core::Sequence(1), 1000).unwrap();
    let started = |body: &Body| matches!(body, Body::RunStarted(body) if body.run == receipt.runs[0]);
    assert!(entries.iter().any(|entry| started(&entry.record().unwrap().body)));
    assert!(bench.handle.state().incidents.contains_key(&receipt.incidents[0]));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_run_ends_with_it() {
    let bench = bench().await;
    let receipt = deliver(&bench, "a").await;
    bench.handle.finished(receipt.runs.clone()).await;
    assert!(!bench.handle.state().runs.contains_key(&receipt.runs[0]));
    bench.handle.finished(receipt.runs).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_happens_before_the_start_is_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = MemoryJournal::new();
    let id = journal.id();
    let text = "playbook: down\ntriggers:\n  - alertmanager: {matchers: ['alertname=\"Down\"']}\ncontain:\n  \
                a: {uses: wait, with: {duration: 1s}}\n  b: {needs: [a], uses: exec, with: {argv: [./b]}}\n";
    // An engine of long ago, killed while it waited.
    let then = Timestamp::from_millis(1_789_999_000_000);
    let mut before = State::default();
    for command in [start_engine(id), load(text), fire("a")] {
        let decision = decide(&before, command, then).unwrap();
        journal.append(before.sequence, &decision.records).unwrap();
        before = decision.state;
    }
    let reader = journal.reader();
    let (store, state) = Store::assemble(Box::new(journal), directory.path().to_owned()).unwrap();
    let run = *state.runs.keys().next().unwrap();
    let worker = Arc::new(Counting::default());
    let handle = start(store, state, Arc::clone(&worker), 16);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(reader.head().sequence, before.sequence);
    assert!(matches!(handle.submit(fire("b")).await, Err(Refused::Unavailable(_))));
    handle.submit(start_engine(id)).await.unwrap();
    handle.finished(vec![run]).await;
    let records = reader.read(before.sequence.next(), 1000).unwrap();
    let kinds: Vec<String> = records.iter().map(|entry| entry.record().unwrap().body.kind().to_owned()).collect();
    assert!(!kinds.iter().any(|kind| kind == "AttemptUnknown"), "{kinds:?}");
    assert_eq!((kinds[0].as_str(), worker.0.load(Ordering::SeqCst)), ("EngineStarted", 1), "{kinds:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failed_append_is_refused_and_the_engine_recovers_by_itself() {
    for fault in [Fault::Full, Fault::UnknownLost, Fault::UnknownWritten] {
        let bench = bench().await;
        bench.faults.fail_next(fault);
        let first = bench.handle.submit(fire("a")).await;
        assert!(matches!(first, Err(Refused::Unavailable(_))), "{fault:?}: {first:?}");
        assert!(bench.handle.health().journal.is_some());
        deliver(&bench, "a").await;
        let live: Vec<_> = bench.handle.state().runs.keys().copied().collect();
        bench.handle.finished(live).await;
        deliver(&bench, "b").await;
        assert!(bench.handle.health().journal.is_none(), "{fault:?}");
        let records = bench.reader.read(stanch_core::Sequence(1), 1000).unwrap();
        let starts = records.iter().filter(|entry| entry.record().unwrap().body.kind() == "RunStarted").count();
        assert_eq!(starts, 2, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_that_fails_under_way_dispatches_no_attempt_twice() {
    for fault in [Fault::Full, Fault::UnknownLost, Fault::UnknownWritten] {
        for skip in 0..4 {
            let bench = bench().await;
            let receipt = deliver(&bench, "a").await;
            let mut watch = bench.handle.watch();
            for _ in 0..skip {
                tokio::time::timeout(Duration::from_millis(1), watch.changed()).await.ok();
            }
            bench.faults.fail_next(fault);
            bench.handle.finished(receipt.runs).await;
            assert_eq!(bench.worker.0.load(Ordering::SeqCst), 2, "{fault:?} after {skip} states");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_in_good_order_is_recorded() {
    let bench = bench().await;
    bench.handle.stop("SIGTERM").await;
    let records = bench.reader.read(stanch_core::Sequence(1), 1000).unwrap();
    assert_eq!(records.last().unwrap().record().unwrap().body.kind(), "EngineStopped");
    assert!(matches!(bench.handle.submit(fire("a")).await, Err(Refused::Unavailable(_))));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_what_cannot_be_read_is_kept_in_part() {
    let bench = bench().await;
    let keep = async || {
        let letter = DeadLetter {
            via: "/webhooks/alertmanager".to_owned(),
            reason: "no JSON".to_owned(),
            code: "alertmanager.invalid-json".to_owned(),
            content_type: None,
            body: "A".repeat(16 << 20),
            size: 12 << 20,
            complete: true,
        };
        let command = Command::KeepDeadLetter { actor: Actor::source("test"), letter };
        bench.handle.submit(command).await.unwrap();
        let last = bench.reader.read(bench.handle.state().sequence, 1).unwrap();
        match last[0].record().unwrap().body {
            Body::DeadLettered(body) => body.letter.complete,
            other => panic!("{other:?}"),
        }
    };
    let mut kept = Vec::new();
    for _ in 0..6 {
        kept.push(keep().await);
    }
    assert_eq!(kept, [true, true, true, true, false, false]);
}
