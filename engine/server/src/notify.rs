//! Tells people on Slack that a run asks them.
//!
//! Best effort, and once for each question: it waits in any case, and lists, metrics and the log show it. What the engine
//! before this one was asked it has told, or not; it is not told again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use stanch_core::attempt::{AttemptId, Purpose};
use stanch_core::record::{ApprovalRequested, ApprovalTarget};
use stanch_core::{ApprovalId, Assignment, Outcome, State};
use stanch_playbook::{ActionName, Plan, PlaybookName};
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

/// Posts each question that is not among the told ones, until stopped.
pub(crate) async fn run<D: Dispatch>(
    worker: Arc<D>,
    handle: Handle,
    config: Arc<Config>,
    mut told: BTreeSet<ApprovalId>,
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
            let with = message(&question.asked, plan, &config, &state.settings.external_url);
            let work = post(Arc::clone(&worker), question.asked.clone(), run.playbook.clone(), with, stop.clone());
            posts.spawn(work);
        }
        told = now;
        tokio::select! {
            () = stop.cancelled() => break,
            changed = durable.changed() => if changed.is_err() { break },
            Some(_) = posts.join_next(), if !posts.is_empty() => {}
        }
    }
    // What is on its way is not cut off in the middle of a request; what waits to be tried again is given up.
    while posts.join_next().await.is_some() {}
}

async fn post<D: Dispatch>(
    worker: Arc<D>,
    asked: ApprovalRequested,
    playbook: PlaybookName,
    with: Value,
    stop: CancellationToken,
) {
    let with = Arc::new(with);
    let mut pause = PAUSE;
    for number in 1..=TRIES {
        // The low bits of the id tell apart what one step asks anew; no attempt of an approval exists.
        let generation = u32::try_from(asked.approval.0.as_u128() & u128::from(u32::MAX)).unwrap_or_default();
        let attempt = AttemptId {
            run: asked.run,
            step: asked.step.clone(),
            item: None,
            purpose: Purpose::Do,
            generation,
            number,
            epoch: stanch_core::Epoch(0),
        };
        let assignment = Assignment {
            idempotency_key: attempt.idempotency_key(),
            attempt,
            playbook: playbook.clone(),
            action: ActionName::new("slack"),
            with: Arc::clone(&with),
            env: Arc::new(json!({})),
            timeout: LIMIT,
        };
        let approval = asked.approval;
        let wait = match worker.execute(assignment, stop.clone()).await {
            Outcome::Succeeded { output } => {
                tracing::info!(%approval, channel = %output["channel"], ts = %output["ts"], "a question was posted to Slack");
                return;
            }
            Outcome::Failed { error, retry_after, retryable: true, .. } if number < TRIES => {
                tracing::debug!(%approval, error, "a question could not be posted to Slack yet");
                retry_after.map_or(pause, |asked| asked.min(PATIENCE))
            }
            Outcome::Failed { error: reason, .. } | Outcome::Unknown { reason } => {
                tracing::warn!(%approval, "a question was not posted to Slack: {reason}; stanch approvals list shows it");
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

/// The parameters of the `slack` action. Text from outside stands in `plain_text`, where nothing of it is a mention.
fn message(asked: &ApprovalRequested, plan: &Plan, config: &Config, url: &str) -> Value {
    let head = format!("Approval needed: {}", asked.prompt);
    let targets: Vec<String> = asked.targets.iter().map(target).collect();
    let until = asked.expires_at.map(|at| format!("\nuntil {at}")).unwrap_or_default();
    let body =
        format!("{head}\nrun {} of {}, step {}\n{}{until}", asked.run, plan.name, asked.step, targets.join("\n"));
    let short = asked.approval.to_string();
    let short = short.get(short.len().saturating_sub(8)..).unwrap_or(&short);
    let answer = format!(
        "May decide: {}\n`stanch approve {short}` or `stanch deny {short}` at {}",
        who(asked, config),
        inert(url)
    );
    let mut with = json!({
        "text": crate::intake::shorten(&head, SHOWN),
        "blocks": [
            {"type": "section", "text": {"type": "plain_text", "emoji": false, "text": crate::intake::shorten(&body, SHOWN)}},
            {"type": "section", "text": {"type": "mrkdwn", "verbatim": true, "text": crate::intake::shorten(&answer, SHOWN)}},
        ],
    });
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
    asked.from.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Text as Slack's `mrkdwn` shows it and nothing else.
fn inert(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('`', "'")
}

#[cfg(test)]
mod tests {
    use super::*;

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
            run: stanch_core::RunId(uuid::Uuid::nil()),
            step: plan.steps[0].key.clone(),
            prompt: "Isolate <!channel>?".into(),
            targets: Arc::new([]),
            digest: "00".into(),
            from: vec!["group:sec".to_owned(), "dan".to_owned()],
            quorum: 1,
            excluded: None,
            expires_at: None,
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
