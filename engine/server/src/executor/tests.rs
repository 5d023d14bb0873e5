use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use stanch_core::alert::{AlertChange, AlertKey, AlertSnapshot, AlertStatus};
use stanch_core::record::{Actor, DeadLetter};
use stanch_core::{JournalId, Settings};
use stanch_journal::{Fault, Faults, Journal as _, MemoryJournal, Reader};

use super::*;
use crate::clock::testing::Movable;

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
    wall: Movable,
    worker: Arc<Counting>,
    _directory: tempfile::TempDir,
}

fn clock(state: &State) -> (Clock, Movable) {
    let wall = Movable::at(Timestamp::from_millis(1_790_000_000_000));
    let read = wall.clone();
    (Clock::new(state, move || read.read()), wall)
}

async fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let journal = MemoryJournal::new();
    let (faults, reader, begin) = (journal.faults(), journal.reader(), start_engine(journal.id()));
    let (store, state) = Store::assemble(Box::new(journal), directory.path().to_owned()).unwrap();
    let worker = Arc::new(Counting::default());
    let (clock, wall) = clock(&state);
    let handle = start(store, state, clock, Arc::clone(&worker), 16);
    handle.submit(begin).await.unwrap();
    let text = "playbook: down\ntriggers:\n  - alertmanager: {matchers: ['alertname=\"Down\"']}\ncontain:\n  a: {uses: exec, with: {argv: [./a]}}\n  b: {needs: [a], uses: exec, with: {argv: [./b]}}\n";
    handle.submit(load(text)).await.unwrap();
    Bench { handle, faults, reader, wall, worker, _directory: directory }
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
    let (clock, _) = clock(&state);
    let handle = start(store, state, clock, Arc::clone(&worker), 16);
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

/// A containment that is leased for an hour, and a question that counts as denied after one.
const LEASED: &str = "playbook: down\ntriggers:\n  - alertmanager: {matchers: ['alertname=\"Down\"']}\ncontain:\n  \
                      a: {uses: exec, with: {argv: [./a]}, undo: {uses: exec, with: {argv: [./b]}, after: 1h}}\n\
                      recover:\n  ask: {uses: approval, with: {prompt: x}, timeout: 1h}\n";

async fn leased() -> Bench {
    let bench = bench().await;
    bench.handle.submit(load(LEASED)).await.unwrap();
    deliver(&bench, "a").await;
    until(&bench, |state| state.questions().next().is_some()).await;
    bench
}

async fn until(bench: &Bench, holds: impl Fn(&State) -> bool) {
    bench.handle.watch().wait_for(|state| holds(state)).await.unwrap();
}

/// The kinds of these, in their order, with the times of their records.
fn recorded(bench: &Bench, kinds: &[&str]) -> Vec<(String, Record)> {
    let entries = bench.reader.read(stanch_core::Sequence(1), 1000).unwrap();
    let records = entries.iter().map(|entry| entry.record().unwrap());
    let undo = |body: &Body| matches!(body, Body::AttemptScheduled(of) if of.attempt.purpose == Purpose::Undo);
    let kind = |record: &Record| match &record.body {
        body if undo(body) => "undo".to_owned(),
        body => body.kind().to_owned(),
    };
    records.map(|record| (kind(&record), record)).filter(|(kind, _)| kinds.contains(&&**kind)).collect()
}

const CLOCK: [&str; 4] = ["ClockJumped", "ClockAgreed", "undo", "RunFinished"];

fn kinds(records: &[(String, Record)]) -> Vec<&str> {
    records.iter().map(|(kind, _)| kind.as_str()).collect()
}

#[tokio::test]
async fn a_jump_of_the_wall_clock_ends_no_lease_and_no_question_before_a_person_agrees() {
    let bench = leased().await;
    let before = bench.handle.state();
    bench.wall.jump(2 * 3600);
    // Whatever comes next finds it; its own run may be as far by now.
    deliver(&bench, "b").await;
    let after = bench.handle.state();
    assert!(before.inforce.keys().all(|id| after.inforce.contains_key(id)));
    assert!(before.questions().all(|(_, _, of)| after.question(of.asked.approval).is_some()));
    assert_eq!((before.inforce.len(), before.questions().count()), (1, 1));
    assert_eq!(kinds(&recorded(&bench, &CLOCK)), ["ClockJumped"]);
    let jumped = recorded(&bench, &CLOCK)[0].1.time;
    bench.handle.submit(Command::AgreeToClock { actor: Actor::person("ann") }).await.unwrap();
    until(&bench, |state| state.inforce.is_empty() && state.runs.is_empty()).await;
    let records = recorded(&bench, &CLOCK);
    assert_eq!(kinds(&records)[..2], ["ClockJumped", "ClockAgreed"]);
    assert_eq!(records[1].1.actor, Actor::person("ann"));
    assert!(records.iter().skip(2).all(|(_, record)| record.time.since(jumped) >= Duration::from_secs(7000)));
    let again = bench.handle.submit(Command::AgreeToClock { actor: Actor::person("ann") }).await;
    assert!(matches!(again, Err(Refused::Rejected(stanch_core::Rejected::NoClockJump))), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_jump_that_nobody_agrees_to_is_followed_after_ten_minutes() {
    let bench = leased().await;
    bench.wall.jump(7 * 24 * 3600);
    bench.handle.submit(Command::FireTimers).await.unwrap();
    until(&bench, |state| state.inforce.is_empty() && state.runs.is_empty()).await;
    let records = recorded(&bench, &CLOCK);
    assert_eq!(kinds(&records)[..2], ["ClockJumped", "ClockAgreed"]);
    assert_eq!(records[1].1.actor, Actor::engine());
    assert!(records[1].1.time.since(records[0].1.time) >= Duration::from_secs(600));
    assert!(records.is_sorted_by_key(|(_, record)| record.time));
}

#[tokio::test(start_paused = true)]
async fn a_jump_that_could_not_be_written_is_recorded_once_it_can() {
    let bench = leased().await;
    bench.faults.fail_next(Fault::UnknownLost);
    bench.wall.jump(-7 * 24 * 3600);
    assert!(bench.handle.submit(Command::FireTimers).await.is_err());
    deliver(&bench, "b").await;
    // The state itself may have followed by then: paused time passes whenever nothing else happens.
    let jumps = || recorded(&bench, &["ClockJumped", "ClockAgreed"]);
    until(&bench, |_| !jumps().is_empty()).await;
    assert_eq!(kinds(&jumps())[0], "ClockJumped");
    // And it is over without anybody where the clock is right again.
    bench.wall.jump(7 * 24 * 3600);
    bench.handle.submit(Command::FireTimers).await.unwrap();
    until(&bench, |state| state.clock_jump.is_none()).await;
}
