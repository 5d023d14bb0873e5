//! Tells people on Slack that a run asks them, that an incident waits for somebody, how it stands, and what was stopped.
//!
//! Best effort, and once for each: a question waits in any case, and lists, metrics and the log show all of it. What the
//! engine before this one was asked it has told, or not; it is not told again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use stanch_core::attempt::{AttemptId, Purpose};
use stanch_core::record::{ApprovalRequested, ApprovalTarget};
use stanch_core::{ApprovalId, Assignment, Body, Outcome, Record, RunId, State, notice};
use stanch_playbook::{ActionName, Plan, PlaybookName, StepKey};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::executor::{Dispatch, Handle};

/// How often a message is tried, and how long it waits before the second try; four times as long before each further one.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(2);
/// How long one try may take.
const LIMIT: Duration = Duration::from_secs(20);
/// The longest `Retry-After` that is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// How much of what would be done a message shows; Slack's sections take 3,000 characters.
const SHOWN: usize = 2_500;

/// The questions that wait in a state.
pub(crate) fn waiting(state: &State) -> BTreeSet<ApprovalId> {
    state.questions().map(|(_, _, question)| question.asked.approval).collect()
}

/// Posts each question that is not among the told ones, and each notice, until stopped. The notices begin before the engine
/// records its start: what fell due while none ran is among them.
pub(crate) async fn run<D: Dispatch>(
    worker: Arc<D>,
    handle: Handle,
    config: watch::Receiver<Arc<Config>>,
    mut told: BTreeSet<ApprovalId>,
    mut notices: broadcast::Receiver<Arc<Record>>,
    stop: CancellationToken,
) {
    let mut durable = handle.watch();
    let mut posts = JoinSet::new();
    loop {
        let state = Arc::clone(&durable.borrow_and_update());
        let now = waiting(&state);
        for (run, _, question) in state.questions() {
            if told.contains(&question.asked.approval) {
                continue;
            }
            let Some(plan) = state.plan(run.plan) else { continue };
            let asked = &question.asked;
            let with = message(asked, plan, &config.borrow(), &state.settings.external_url);
            // The low bits of the id tell apart what one step asks anew; no attempt of an approval exists.
            let generation = u32::try_from(asked.approval.0.as_u128() & u128::from(u32::MAX)).unwrap_or_default();
            let of = attempt(asked.run, asked.step.clone(), generation);
            let what = format!("question {}", asked.approval);
            posts.spawn(post(Arc::clone(&worker), what, of, run.playbook.clone(), with, stop.clone()));
        }
        told = now;
        tokio::select! {
            () = stop.cancelled() => break,
            changed = durable.changed() => if changed.is_err() { break },
            notice = notices.recv() => match notice {
                Ok(record) => {
                    if let Some(with) = notice_of(&record, &handle.state(), &config.borrow()) {
                        // Of an incident, or of the engine, no step is.
                        let generation = u32::try_from(record.sequence.0 & u64::from(u32::MAX)).unwrap_or_default();
                        let of = attempt(RunId(uuid::Uuid::nil()), StepKey::new("engine.notice"), generation);
                        let what = record.body.kind().to_owned();
                        let playbook = PlaybookName::new("stanch");
                        posts.spawn(post(Arc::clone(&worker), what, of, playbook, with, stop.clone()));
                    }
                }
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "too many notices at once for Slack"),
                Err(RecvError::Closed) => break,
            },
            Some(_) = posts.join_next(), if !posts.is_empty() => {}
        }
    }
    // What is on its way is not cut off in the middle of a request; what waits to be tried again is given up.
    while posts.join_next().await.is_some() {}
}

/// An attempt that stands for a message: it is in no record, and its key lets a second try be told from a second message.
fn attempt(run: RunId, step: StepKey, generation: u32) -> AttemptId {
    AttemptId { run, step, item: None, purpose: Purpose::Do, generation, number: 1, epoch: stanch_core::Epoch(0) }
}

async fn post<D: Dispatch>(
    worker: Arc<D>,
    what: String,
    attempt: AttemptId,
    playbook: PlaybookName,
    with: Value,
    stop: CancellationToken,
) {
    let with = Arc::new(with);
    let mut pause = PAUSE;
    for number in 1..=TRIES {
        let attempt = AttemptId { number, ..attempt.clone() };
        let assignment = Assignment {
            idempotency_key: attempt.idempotency_key(),
            attempt,
            playbook: playbook.clone(),
            action: ActionName::new("slack"),
            with: Arc::clone(&with),
            env: Arc::new(json!({})),
            timeout: LIMIT,
        };
        let wait = match worker.execute(assignment, stop.clone()).await {
            Outcome::Succeeded { output } => {
                tracing::info!(what, channel = %output["channel"], ts = %output["ts"], "posted to Slack");
                return;
            }
            Outcome::Failed { error, retry_after, retryable: true, .. } if number < TRIES => {
                tracing::debug!(what, error, "not posted to Slack yet");
                retry_after.map_or(pause, |asked| asked.min(PATIENCE))
            }
            Outcome::Failed { error: reason, .. } | Outcome::Unknown { reason } => {
                tracing::warn!(what, "not posted to Slack: {reason}; the lists of stanch show it");
                return;
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        pause *= 4;
    }
}

/// What a record that is a notice says on Slack; none where it is about nothing that is still there.
fn notice_of(record: &Record, state: &State, config: &Config) -> Option<Value> {
    let head = notice(record, state)?;
    let incident = match &record.body {
        Body::IncidentEscalated(body) => state.incidents.get(&body.incident),
        Body::IncidentUpdateDue(body) => state.incidents.get(&body.incident),
        _ => None,
    };
    let foot = match &record.body {
        Body::IncidentEscalated(body) => {
            let people = mentions(&body.people, config);
            let people = if people.is_empty() { String::new() } else { format!("{people}: ") };
            format!("{people}`stanch incidents ack {}`", short(body.incident))
        }
        Body::ApprovalEscalated(body) => {
            let short = short(body.approval);
            format!("{}: `stanch approve {short}` or `stanch deny {short}`", mentions(&body.people, config))
        }
        Body::IncidentUpdateDue(body) => format!("`stanch incidents show {}`", short(body.incident)),
        Body::WatchdogBarked(body) => format!("`stanch runs list --playbook {}`", inert(body.playbook.as_str())),
        Body::ClockJumped(_) => {
            "`stanch clock agree` follows it at once, `stanch inforce extend` keeps something for longer".to_owned()
        }
        Body::Frozen(_) => "`stanch unfreeze` lets them start again".to_owned(),
        _ => "`stanch runs list` shows what runs".to_owned(),
    };
    let mut with = blocks(&head, &head, &foot);
    let channel = match &record.body {
        // Where the question was posted.
        Body::ApprovalEscalated(body) => {
            let plan = state.runs.get(&body.run).and_then(|run| state.plan(run.plan));
            plan.and_then(|plan| plan.incident.slack_channel.as_deref())
        }
        _ => incident.and_then(|incident| incident.care.as_deref()?.slack_channel.as_deref()),
    };
    if let Some(channel) = channel {
        with["channel"] = channel.into();
    }
    Some(with)
}

/// The end of an id, which the verbs take for it.
fn short(id: impl ToString) -> String {
    let id = id.to_string();
    id.get(id.len().saturating_sub(8)..).unwrap_or(&id).to_owned()
}

/// A message whose head and body are plain text, where nothing is a mention, and whose foot may hold some.
fn blocks(head: &str, body: &str, foot: &str) -> Value {
    let shorten = |text: &str| crate::intake::shorten(text, SHOWN);
    json!({
        "text": shorten(head),
        "blocks": [
            {"type": "section", "text": {"type": "plain_text", "emoji": false, "text": shorten(body)}},
            {"type": "section", "text": {"type": "mrkdwn", "verbatim": true, "text": shorten(foot)}},
        ],
    })
}

/// The parameters of the `slack` action. Text from outside stands in `plain_text`, where nothing of it is a mention.
fn message(asked: &ApprovalRequested, plan: &Plan, config: &Config, url: &str) -> Value {
    let head = format!("Approval needed: {}", asked.prompt);
    let targets: Vec<String> = asked.targets.iter().map(target).collect();
    let until = asked.expires_at.map(|at| format!("\nuntil {at}")).unwrap_or_default();
    let body =
        format!("{head}\nrun {} of {}, step {}\n{}{until}", asked.run, plan.name, asked.step, targets.join("\n"));
    let short = short(asked.approval);
    let answer = format!(
        "May decide: {}\n`stanch approve {short}` or `stanch deny {short}` at {}",
        who(asked, config),
        inert(url)
    );
    let mut with = blocks(&head, &body, &answer);
    if let Some(channel) = &plan.incident.slack_channel {
        with["channel"] = channel.as_str().into();
    }
    with
}

fn target(target: &ApprovalTarget) -> String {
    let env = match &*target.env {
        Value::Null => String::new(),
        env => format!(" {env}"),
    };
    let with = match &*target.with {
        Value::Null => "what exactly is not known yet".to_owned(),
        Value::Array(items) => format!("{} items: {}", items.len(), target.with),
        with => with.to_string(),
    };
    format!("• {}: {} {with}{env}", target.step, target.action)
}

/// Who may decide, those whose Slack id is known as mentions.
fn who(asked: &ApprovalRequested, config: &Config) -> String {
    if asked.from.is_empty() {
        return "anybody".to_owned();
    }
    mentions(&asked.from, config)
}

/// People and groups by name, those whose Slack id is known as mentions.
fn mentions(names: &[String], config: &Config) -> String {
    let one = |from: &String| {
        let of = |(name, person): (&String, &crate::config::PersonConfig)| {
            let is = match from.strip_prefix("group:") {
                Some(group) => person.groups.iter().any(|of| of == group),
                None => from == name,
            };
            person.slack.as_ref().filter(|_| is).map(|id| format!("<@{id}>"))
        };
        let mentions: Vec<String> = config.people.iter().filter_map(of).collect();
        match mentions.is_empty() {
            true => inert(from),
            false => format!("{} ({})", inert(from), mentions.join(" ")),
        }
    };
    names.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Text as Slack's `mrkdwn` shows it and nothing else.
fn inert(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('`', "'")
}

#[cfg(test)]
mod tests {
    use stanch_core::command::Target;
    use stanch_core::{Actor, Command};

    use super::*;

    #[test]
    fn an_escalation_mentions_whom_the_playbook_names_and_shows_the_title_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("stanch.yaml");
        std::fs::write(&path, "people: {ann: {slack: U1, groups: [leads]}}\n").unwrap();
        let config = Config::read(&path).unwrap();
        let id = stanch_core::IncidentId(uuid::Uuid::from_u128(7));
        let record = |sequence, body: Body| Record {
            sequence: stanch_core::Sequence(sequence),
            time: stanch_playbook::Timestamp::EPOCH,
            actor: Actor::engine(),
            body,
        };
        let mut state = State::default();
        let opened = stanch_core::record::IncidentOpened {
            incident: id,
            key: "k".into(),
            severity: stanch_playbook::Severity::P0,
            title: "<!channel> disk".into(),
            alert: None,
            settle: None,
            escalation: None,
            slack_channel: Some("#sec".to_owned()),
        };
        state.apply(&record(1, opened.into())).unwrap();
        let escalated = stanch_core::record::IncidentEscalated {
            incident: id,
            people: vec!["group:leads".to_owned()],
            reason: "nobody acknowledged it within 5m".to_owned(),
        };
        let with = notice_of(&record(2, escalated.into()), &state, &config).unwrap();
        assert_eq!(with["channel"], "#sec");
        assert_eq!(with["blocks"][0]["text"]["type"], "plain_text");
        assert!(with["text"].as_str().unwrap().starts_with("P0 <!channel> disk is open"), "{with}");
        let foot = with["blocks"][1]["text"]["text"].as_str().unwrap();
        assert_eq!(foot, "group:leads (<@U1>): `stanch incidents ack 00000007`");
        let frozen = stanch_core::record::Frozen { reason: "a release".to_owned() };
        let with = notice_of(&record(3, frozen.into()), &state, &config).unwrap();
        assert!(with["text"].as_str().unwrap().contains("a release"));
        let jumped = |by_ms| record(4, stanch_core::record::ClockJumped { by_ms }.into());
        let with = notice_of(&jumped(-7_200_000), &state, &config).unwrap();
        assert!(with["text"].as_str().unwrap().starts_with("The wall clock is 2h behind the engine's: "), "{with}");
        assert_eq!(notice_of(&jumped(3), &state, &config), None, "it is right again");
    }

    #[test]
    fn a_question_that_nobody_answers_mentions_whom_it_is_escalated_to_where_it_was_posted() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("stanch.yaml");
        std::fs::write(&path, "people: {ann: {slack: U1, groups: [leads]}}\n").unwrap();
        let config = Config::read(&path).unwrap();
        let text = "playbook: ask\nincident: {slack: {channel: '#sec'}}\ndetect:\n  a:\n    uses: approval\n    \
                    with: {prompt: 'Isolate <!channel>?', escalate: [{after: 5m, people: 'group:leads'}]}\n";
        let plan = Arc::new(stanch_playbook::load("test.yaml", text).unwrap_or_else(|bad| panic!("{bad}")).plan);
        let event = stanch_core::event::Event {
            id: "1".into(),
            source: "test".into(),
            kind: "request".into(),
            time: stanch_playbook::Timestamp::EPOCH,
            subject: None,
            data: Value::Null,
        };
        let target = Target::Playbook { playbook: plan.name.clone(), inputs: serde_json::Map::new() };
        let commands = [
            Command::LoadPlaybooks { plans: vec![plan], keep: Vec::new() },
            Command::ReceiveEvent { actor: Actor::person("ann"), event: Arc::new(event), target },
            Command::FireTimers,
        ];
        let (mut state, mut records) = (State::default(), Vec::new());
        for (command, minutes) in commands.into_iter().zip([0, 0, 5]) {
            let now = stanch_playbook::Timestamp::EPOCH.plus(Duration::from_secs(minutes * 60));
            let decision = stanch_core::decide(&state, command, now).unwrap();
            (state, records) = (decision.state, decision.records);
        }
        let with = notice_of(&records[0], &state, &config).unwrap();
        assert_eq!(with["channel"], "#sec");
        assert_eq!(with["text"], "Approval still needed: Isolate <!channel>? (nobody decided within 5m)");
        assert_eq!(with["blocks"][0]["text"]["type"], "plain_text");
        let foot = with["blocks"][1]["text"]["text"].as_str().unwrap();
        assert!(foot.starts_with("group:leads (<@U1>): `stanch approve "), "{foot}");
        // Of a question that was answered meanwhile nobody is reminded.
        assert_eq!(notice_of(&records[0], &State::default(), &config), None);
    }

    #[test]
    fn a_message_mentions_those_asked_and_nothing_of_the_alert() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("stanch.yaml");
        std::fs::write(&path, "people: {ann: {slack: U1, groups: [sec]}, bob: {groups: [sec]}, eve: {slack: U9}}\n")
            .unwrap();
        let config = Config::read(&path).unwrap();
        let text = "playbook: ask\nincident: {slack: {channel: '#sec'}}\ndetect:\n  \
                    a: {uses: approval, with: {prompt: x}}\n  b: {needs: [a], uses: log, with: {message: x}}\n";
        let plan = stanch_playbook::load("test.yaml", text).unwrap_or_else(|bad| panic!("{bad}")).plan;
        let asked = ApprovalRequested {
            approval: ApprovalId(uuid::Uuid::from_u128(0xab_cdef_0123)),
            run: RunId(uuid::Uuid::nil()),
            step: plan.steps[0].key.clone(),
            prompt: "Isolate <!channel>?".into(),
            targets: Arc::new([]),
            digest: "00".into(),
            from: vec!["group:sec".to_owned(), "dan".to_owned()],
            quorum: 1,
            excluded: None,
            expires_at: None,
            escalate: Vec::new(),
            replaces: None,
        };
        let with = message(&asked, &plan, &config, "https://stanch.corp");
        assert_eq!(with["channel"], "#sec");
        let (plain, marked) = (&with["blocks"][0]["text"], &with["blocks"][1]["text"]);
        assert_eq!(plain["type"], "plain_text");
        assert!(plain["text"].as_str().unwrap().starts_with("Approval needed: Isolate <!channel>?\nrun "), "{plain}");
        assert_eq!(
            marked["text"],
            "May decide: group:sec (<@U1>), dan\n`stanch approve cdef0123` or `stanch deny cdef0123` at https://stanch.corp"
        );
        let anybody = message(&ApprovalRequested { from: Vec::new(), ..asked }, &plan, &config, "<x>");
        assert!(anybody["blocks"][1]["text"]["text"].as_str().unwrap().contains("anybody"), "{anybody}");
        assert!(!anybody["blocks"][1].to_string().contains("<x>"), "{anybody}");
    }
}
