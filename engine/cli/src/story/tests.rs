use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use stanch_core::attempt::{AttemptId, Purpose};
use stanch_core::event::Event;
use stanch_core::record::{
    Actor, ApprovalDecided, ApprovalEscalated, ApprovalRequested, ApprovalTarget, AttemptFailed, AttemptScheduled,
    AttemptSucceeded, AttemptUnknown, Cause, ContainmentStarted, Ending, ItemsEnded, ItemsFailure, ItemsStarted,
    RenderedCall, RunFinished, RunStarted, StepAnswered, StepEnded, StepWaiting, StepWoken, Then, UndoRequested,
    Unsettled, Verification, Waiting,
};
use stanch_core::{ApprovalId, Epoch, IncidentId, RunId, Sequence};
use stanch_playbook::plan::{Jitter, OnUnknown, Policy, Retry};
use stanch_playbook::{ActionName, PlanDigest, PlaybookName};

use super::*;

const PLAIN: Terminal = Terminal { live: false, color: false, columns: None };

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_795_000_000_000 + millis)
}

fn run() -> RunId {
    RunId(uuid::Uuid::from_u128(0x0123_4567_89ab))
}

fn attempt(step: &str, number: u32) -> AttemptId {
    AttemptId {
        run: run(),
        step: StepKey::new(step),
        item: None,
        purpose: Purpose::Do,
        generation: 0,
        number,
        epoch: Epoch(1),
    }
}

fn scheduled(step: &str, number: u32, action: &str) -> Body {
    let attempt = attempt(step, number);
    AttemptScheduled {
        idempotency_key: attempt.idempotency_key(),
        attempt,
        action: ActionName::new(action),
        with: Arc::new(json!({})),
        env: Arc::new(json!({})),
        timeout: Duration::from_secs(1),
    }
    .into()
}

fn started() -> Body {
    let event = Event {
        id: "1".into(),
        source: "api".into(),
        kind: "stanch.run.requested".into(),
        time: at(0),
        subject: None,
        data: Value::Null,
    };
    RunStarted {
        run: run(),
        playbook: PlaybookName::new("play"),
        plan: PlanDigest([0; 32]),
        incident: IncidentId(uuid::Uuid::nil()),
        cause: Cause { event: Arc::new(event), alerts: Arc::new([]) },
        inputs: Arc::new(json!({})),
        queued: false,
        parent: None,
        children: BTreeMap::new(),
        held: None,
        hold_until: None,
    }
    .into()
}

fn check(records: Vec<(i64, Body)>, expected: &str) -> Story {
    let mut story = Story::new(PLAIN, [("detect.look", "exec"), ("contain.stop", "http")]);
    let mut told = String::new();
    for (number, (millis, body)) in (1..).zip(records) {
        let actor = Actor::person("ann");
        told.push_str(&story.tell(&Record { sequence: Sequence(number), time: at(millis), actor, body }));
    }
    assert_eq!(told, expected, "\n{told}");
    story
}

#[test]
fn a_step_is_a_line_under_its_phase() {
    let output = Arc::new(json!({"exit_code": 0, "stdout": "one\ntwo\n"}));
    let succeeded = AttemptSucceeded {
        attempt: attempt("detect.look", 1),
        output,
        outputs: Arc::new(json!({})),
        unsettled: None,
        verification: None,
    };
    let skipped = StepEnded {
        item: None,
        run: run(),
        step: StepKey::new("contain.stop"),
        ending: Ending::Skipped,
        reason: "its condition is false".into(),
    };
    let finished = RunFinished { run: run(), outcome: RunOutcome::Succeeded };
    let story = check(
        vec![
            (0, started()),
            (1, scheduled("detect.look", 1, "exec")),
            (24, succeeded.into()),
            (24, skipped.into()),
            (1_500, finished.into()),
        ],
        "run 456789ab of play, started by stanch.run.requested from api\n\
         \ndetect\n  ✔ look      exec    23 ms  one …\n\
         \ncontain\n  - stop      http           skipped: its condition is false\n\
         \n✔ run 456789ab succeeded after 1.5 s\n",
    );
    assert_eq!(story.outcome(), Some(RunOutcome::Succeeded));
}

#[test]
fn a_retry_says_when_and_an_unknown_outcome_asks() {
    let failed = AttemptFailed {
        attempt: attempt("contain.stop", 1),
        error: "status 503\u{1b}[2J".into(),
        output: None,
        then: Then::Retry { at: at(610) },
    };
    let unknown = AttemptUnknown {
        attempt: attempt("contain.stop", 2),
        reason: "timed out".into(),
        then: Then::Ask,
        verification: None,
    };
    let answered = StepAnswered {
        item: None,
        run: run(),
        step: StepKey::new("contain.stop"),
        answer: Answer::Failed,
        tolerated: false,
        note: "saw it".to_owned(),
    };
    check(
        vec![
            (0, started()),
            (0, scheduled("contain.stop", 1, "http")),
            (10, failed.into()),
            (610, scheduled("contain.stop", 2, "http")),
            (1_610, unknown.into()),
            (61_610, answered.into()),
        ],
        "run 456789ab of play, started by stanch.run.requested from api\n\
         \ncontain\n  … stop      http    10 ms  attempt 1 failed: status 503\\u{1b}[2J; again in 600 ms\n  \
         ? stop      http    1.6 s  unknown: timed out\n      \
         stanch runs answer 456789ab stop succeeded|failed|retry\n  \
         ✘ stop      http    1m01s  ann says it failed: saw it\n",
    );
}

fn at_item(step: &str, item: u32) -> AttemptId {
    AttemptId { item: Some(item), ..attempt(step, 1) }
}

fn with(attempt: AttemptId, purpose: Purpose, number: u32) -> AttemptId {
    AttemptId { purpose, number, ..attempt }
}

fn claimed(attempt: AttemptId, action: &str) -> Body {
    AttemptScheduled {
        idempotency_key: attempt.idempotency_key(),
        attempt,
        action: ActionName::new(action),
        with: Arc::new(json!({})),
        env: Arc::new(json!({})),
        timeout: Duration::from_secs(1),
    }
    .into()
}

fn done(attempt: AttemptId, unsettled: Option<(&str, Then)>, verification: Option<Verification>) -> Body {
    AttemptSucceeded {
        attempt,
        output: Arc::new(json!({"status": 200})),
        outputs: Arc::new(Value::Null),
        unsettled: unsettled.map(|(reason, then)| Unsettled { reason: reason.into(), then }),
        verification: verification.map(Arc::new),
    }
    .into()
}

fn failed(attempt: AttemptId, then: Then) -> Body {
    AttemptFailed { attempt, error: "status 503".into(), output: None, then }.into()
}

fn held(item: Option<u32>, until: Option<Timestamp>) -> Body {
    let retry = Retry {
        max_attempts: 1,
        initial_interval: Duration::ZERO,
        backoff: 1.0,
        max_interval: Duration::ZERO,
        jitter: Jitter::None,
    };
    let (with, env) = (Arc::new(json!({})), Arc::new(json!({})));
    ContainmentStarted {
        containment: ContainmentId(uuid::Uuid::from_u128(0xc0_ffee)),
        run: run(),
        step: StepKey::new("contain.stop"),
        item,
        done: Arc::new(json!({})),
        undo: RenderedCall { action: ActionName::new("http"), with, env, timeout: Duration::from_secs(1) },
        policy: Policy { idempotent: true, retry, on_unknown: OnUnknown::Ask },
        until,
        certain: true,
    }
    .into()
}

#[test]
fn items_are_one_line_and_what_is_wrong_with_them_is_told_a_few_times() {
    let step = || StepKey::new("contain.stop");
    let items: Arc<[Value]> = (0..40).map(Value::from).collect();
    let mut records = vec![(0, ItemsStarted { run: run(), step: step(), items }.into())];
    for item in 0..40 {
        records.push((100, claimed(at_item("contain.stop", item), "http")));
    }
    for item in 0..12 {
        let body = match item {
            3 => failed(at_item("contain.stop", 3), Then::Fail),
            4 => {
                let attempt = at_item("contain.stop", 4);
                AttemptUnknown { attempt, reason: "reset".into(), then: Then::Ask, verification: None }.into()
            }
            item => done(at_item("contain.stop", item), None, None),
        };
        records.push((200, body));
        records.push((200, held(Some(item), None)));
    }
    let expected = "\ncontain\n  ▸ stop      http           40 items\n      \
                    stop is in force until it is taken back; stanch inforce list\n      \
                    ✘ stop[3]  failed: status 503\n      ? stop[4]  unknown: reset\n      \
                    stanch runs answer  stop --item 4 succeeded|failed|retry\n";
    let story = check(records.clone(), expected);
    assert_eq!(story.status(at(300)).as_deref(), Some("  ▸ stop 11/40, 1 failed, 1 unknown"));
    for item in 12..40 {
        records.push((400, failed(at_item("contain.stop", item), Then::Fail)));
    }
    let failure = Some(ItemsFailure { ending: Ending::Failed, reason: "29 of 40 items failed".into() });
    records.push((500, ItemsEnded { run: run(), step: step(), failure }.into()));
    let more = (12..15).map(|item| format!("      ✘ stop[{item}]  failed: status 503\n")).collect::<String>();
    check(
        records,
        &format!(
            "{expected}{more}      more items of stop are counted; stanch runs show \n  \
             ✘ stop      http   500 ms  39/40, 29 failed, 1 unknown: 29 of 40 items failed\n"
        ),
    );
}

#[test]
fn a_verification_is_told_once_and_its_looks_are_counted() {
    let (action, env) = (ActionName::new("http"), Arc::new(json!({})));
    let call = RenderedCall { action, with: env.clone(), env, timeout: Duration::from_secs(1) };
    let verification = Verification { call, every: Duration::from_secs(5), deadline: at(120_010) };
    let look = |number| with(attempt("contain.stop", 1), Purpose::Verify, number);
    let not_yet = Some(("the verification does not hold yet", Then::Retry { at: at(10_020) }));
    let mut records = vec![
        (0, scheduled("contain.stop", 1, "exec")),
        (10, done(attempt("contain.stop", 1), Some(("to be verified", Then::Verify)), Some(verification))),
        (10, claimed(look(1), "http")),
        (20, done(look(1), Some(("the verification does not hold yet", Then::Retry { at: at(5_020) })), None)),
        (5_020, claimed(look(2), "http")),
        (5_020, done(look(2), not_yet, None)),
    ];
    let begun = "\ncontain\n  ▸ stop      exec    10 ms  verifying: http looks every 5 s, for 2m00s at most\n  \
                 ▸ stop      exec    20 ms  verifying: the verification does not hold yet; looks again in 5.0 s\n";
    let story = check(records.clone(), begun);
    assert_eq!(story.status(at(6_020)).as_deref(), Some("  ▸ stop look 3 in 4.0 s"));
    records.extend([(10_020, claimed(look(3), "http")), (10_030, done(look(3), None, None))]);
    check(records, &format!("{begun}  ✔ stop      exec   10.0 s  verified at look 3\n"));
}

#[test]
fn a_question_shows_what_would_be_done_and_how_to_answer() {
    let (step, approval) = (StepKey::new("contain.approve"), ApprovalId(uuid::Uuid::from_u128(0xab_cdef_0123)));
    let target = |step, with| ApprovalTarget {
        step: StepKey::new(step),
        action: "http".into(),
        with: Arc::new(with),
        env: Arc::new(Value::Null),
    };
    let asked = ApprovalRequested {
        approval,
        run: run(),
        step: step.clone(),
        prompt: "Isolate\u{1b}?".into(),
        targets: Arc::new([target("contain.stop", json!([1, 2])), target("contain.block", json!({"url": "x"}))]),
        digest: "00".into(),
        from: vec!["group:sec".to_owned(), "bob".to_owned()],
        quorum: 2,
        excluded: None,
        expires_at: Some(at(900_000)),
        escalate: Vec::new(),
        replaces: None,
    };
    let escalated = ApprovalEscalated {
        approval,
        run: run(),
        step: step.clone(),
        people: vec!["group:leads".to_owned(), "zoe".to_owned()],
        level: 1,
        reason: "nobody decided within 5m".to_owned(),
    };
    let decided = ApprovalDecided {
        resumes: false,
        approval,
        run: run(),
        step: step.clone(),
        verdict: Verdict::Denied,
        digest: "00".into(),
        via: "token".to_owned(),
        reason: "a drill".to_owned(),
    };
    let ending = Ending::Failed;
    let reason = "denied by person:ann: a drill".into();
    let ended = StepEnded { run: run(), step, item: None, ending, reason };
    let story = check(
        vec![(0, asked.into()), (50, escalated.into()), (100, decided.into()), (100, ended.into())],
        &format!(
            "\ncontain\n  … approve   approval           Isolate\\u{{1b}}?\n      \
             asks group:sec, bob, 2 must agree, until {} UTC\n      stop  http  2 items\n      \
             block  http  {{\"url\":\"x\"}}\n      stanch approve cdef0123, or stanch deny cdef0123\n  \
             approve: nobody decided within 5m; told group:leads, zoe\n  \
             ann denies approve: a drill\n  ✘ approve   approval   100 ms  denied by person:ann: a drill\n",
            format::date_time(at(900_000))
        ),
    );
    assert_eq!(story.status(at(200)), None);
}

#[test]
fn what_is_taken_back_is_told_and_what_cannot_be_says_what_to_do() {
    let undo = |number| with(attempt("contain.stop", 1), Purpose::Undo, number);
    let ask = |reason: &str| UndoRequested {
        containments: vec![ContainmentId(uuid::Uuid::from_u128(0xc0_ffee))],
        run: Some(run()),
        step: None,
        reason: reason.to_owned(),
    };
    let mut records = vec![
        (0, scheduled("contain.stop", 1, "http")),
        (10, done(attempt("contain.stop", 1), None, None)),
        (10, held(None, Some(at(60_000)))),
        (20, ask("contain.other failed").into()),
        (20, claimed(undo(1), "http")),
        (30, failed(undo(1), Then::Retry { at: at(1_030) })),
    ];
    let begun = format!(
        "\ncontain\n  ✔ stop      http    10 ms  status 200\n      \
         stop is in force until {} UTC; stanch inforce list\n  \
         taking back what was done: contain.other failed\n  \
         undo of stop, attempt 1: status 503; again in 1.0 s\n",
        format::date_time(at(60_000))
    );
    let story = check(records.clone(), &begun);
    assert_eq!(story.status(at(40)).as_deref(), Some("  ▸ undo 0/1"));
    let mut succeeded = records.clone();
    succeeded.extend([(1_030, claimed(undo(2), "http")), (1_040, done(undo(2), None, None))]);
    check(succeeded, &format!("{begun}  took back stop\n"));
    records.extend([(1_030, claimed(undo(2), "http")), (1_040, failed(undo(2), Then::Fail))]);
    check(
        records,
        &format!(
            "{begun}  ✘ stop could not be taken back and stays in force: status 503\n      \
             stanch inforce undo 00c0ffee, or stanch inforce end 00c0ffee where it is over\n"
        ),
    );
}

#[test]
fn a_wait_says_for_what_and_how_long_it_still_is() {
    let wait = |settled_at| {
        let settle = Duration::from_secs(2);
        let wait = Waiting::Resolved { settle, settled_at, expires_at: None };
        Body::from(StepWaiting { run: run(), step: StepKey::new("recover.quiet"), item: None, wait })
    };
    let woken = StepWoken { run: run(), step: StepKey::new("recover.quiet"), item: None, outputs: Arc::new(json!({})) };
    let records = vec![(0, wait(None)), (500, wait(Some(at(2_500)))), (900, wait(None))];
    let story = check(
        records,
        "\nrecover\n  … quiet     wait           until the alerts have stayed resolved for 2 s\n  \
         … quiet     wait           all alerts are resolved; 2 s more to be sure\n  \
         … quiet     wait           an alert fires again\n",
    );
    assert_eq!(story.status(at(1_000)), None);
    let story = check(
        vec![(500, wait(Some(at(2_500)))), (500, scheduled("recover.other", 1, "http"))],
        "\nrecover\n  … quiet     wait           all alerts are resolved; 2 s more to be sure\n",
    );
    assert_eq!(story.status(at(1_000)).as_deref(), Some("  ▸ other 500 ms, quiet 1.5 s left"));
    check(
        vec![(500, wait(Some(at(2_500)))), (2_500, woken.into())],
        "\nrecover\n  … quiet     wait           all alerts are resolved; 2 s more to be sure\n  \
         ✔ quiet     wait    2.0 s  it is over\n",
    );
}
