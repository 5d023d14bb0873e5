//! One run as people follow it: each record that matters becomes a line, under the heading of its phase.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use stanch_core::attempt::AttemptId;
use stanch_core::record::{Answer, Body, Ending, Record, RunOutcome, RunStarted, Then, Waiting};
use stanch_playbook::{StepKey, Timestamp};

use crate::format::{self, mark};
use crate::terminal::{Style, Terminal, cut, inert, pad, width};

/// The columns of a duration, such as `999 ms` or `59.9 s`.
const DURATION: usize = 7;

/// What was told of a run so far.
#[derive(Debug)]
pub struct Story {
    terminal: Terminal,
    /// The columns of names and of actions.
    columns: (usize, usize),
    /// The end of the run's id.
    run: String,
    started_at: Timestamp,
    phase: String,
    steps: BTreeMap<StepKey, Told>,
    outcome: Option<RunOutcome>,
}

/// What was told of a step so far.
#[derive(Debug, Default)]
struct Told {
    action: Option<String>,
    /// When it first did something.
    since: Option<Timestamp>,
    /// Since when an attempt is under way.
    running: Option<Timestamp>,
    /// When an attempt is due, or a wait over, as far as that is known.
    until: Option<Timestamp>,
}

impl Story {
    /// The story of a run whose steps and actions are these, as far as they are known.
    pub fn new<'a>(terminal: Terminal, steps: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut columns = (8, 4);
        let mut told = BTreeMap::new();
        for (step, action) in steps {
            columns.0 = columns.0.max(width(&inert(name_of(step))));
            columns.1 = columns.1.max(width(&inert(action)));
            let action = Some(action.to_owned()).filter(|action| !action.is_empty());
            told.insert(StepKey::new(step), Told { action, ..Told::default() });
        }
        Self {
            terminal,
            columns,
            run: String::new(),
            started_at: Timestamp::EPOCH,
            phase: String::new(),
            steps: told,
            outcome: None,
        }
    }

    /// How the run ended; none while it is live.
    pub fn outcome(&self) -> Option<RunOutcome> {
        self.outcome
    }

    /// What a record adds: whole lines, or nothing.
    pub fn tell(&mut self, record: &Record) -> String {
        let at = record.time;
        match &record.body {
            Body::RunStarted(body) => self.start(body, at),
            Body::RunCancelRequested(body) => {
                let why = if body.reason.is_empty() { String::new() } else { format!(": {}", body.reason) };
                self.aside(Style::Yellow, &format!("{} asks for the run's end{why}", person(record)))
            }
            Body::RunReleased(_) => self.aside(Style::Dim, "its turn has come"),
            Body::RunFinished(body) => {
                self.outcome = Some(body.outcome);
                let (mark, style) = mark(body.outcome.as_str());
                let took = format::duration(at.since(self.started_at));
                let line = format!("{mark} run {} {} after {took}", self.run, body.outcome.as_str());
                format!("\n{}\n", self.terminal.paint(style, &line))
            }
            Body::AttemptScheduled(body) => {
                let told = self.steps.entry(body.attempt.step.clone()).or_default();
                told.action = Some(body.action.to_string());
                told.since.get_or_insert(at);
                told.running = Some(at);
                told.until = None;
                String::new()
            }
            Body::AttemptSucceeded(body) => match &body.unsettled {
                None => self.step(&body.attempt.step, "succeeded", at, &self.gist(&body.attempt.step, &body.output)),
                Some(unsettled) => self.lost(&body.attempt, unsettled.then, "succeeded", &unsettled.reason, at),
            },
            Body::AttemptFailed(body) => self.lost(&body.attempt, body.then, "failed", &body.error, at),
            Body::AttemptUnknown(body) => self.lost(&body.attempt, body.then, "unknown", &body.reason, at),
            Body::AttemptLate(body) => {
                let text = format!("a late result of {} says {}; it changes nothing", body.attempt.step, body.outcome);
                self.aside(Style::Yellow, &text)
            }
            Body::StepWaiting(body) => self.wait(&body.step, body.wait, at),
            Body::StepWoken(body) => {
                let text = if self.action(&body.step) == "wait" { "it is over" } else { "" };
                self.step(&body.step, "succeeded", at, text)
            }
            Body::StepEnded(body) => {
                let state = match body.ending {
                    Ending::Skipped => "skipped",
                    Ending::Blocked => "blocked",
                    Ending::Cancelled => "cancelled",
                    Ending::Failed => "failed",
                    Ending::Tolerated => "tolerated",
                };
                self.step(&body.step, state, at, &body.reason)
            }
            Body::StepAnswered(body) => {
                let note = if body.note.is_empty() { String::new() } else { format!(": {}", body.note) };
                let (state, said) = match body.answer {
                    Answer::Succeeded => ("succeeded", "it succeeded"),
                    Answer::Failed if body.tolerated => ("tolerated", "it failed"),
                    Answer::Failed => ("failed", "it failed"),
                    Answer::Retry => ("backoff", "try again"),
                };
                self.step(&body.step, state, at, &format!("{} says {said}{note}", person(record)))
            }
            // What is not about this run.
            _ => String::new(),
        }
    }

    /// What is under way, in one line for the moment.
    pub fn status(&self, now: Timestamp) -> Option<String> {
        let of = |(key, told): (&StepKey, &Told)| {
            let name = inert(name_of(key.as_str()));
            match (told.running, told.until) {
                (Some(since), _) => Some(format!("{name} {}", format::duration(now.since(since)))),
                (None, Some(until)) if until > now => {
                    Some(format!("{name} {} left", format::duration(until.since(now))))
                }
                (None, _) => None,
            }
        };
        let parts: Vec<String> = self.steps.iter().filter_map(of).collect();
        if parts.is_empty() || self.outcome.is_some() {
            return None;
        }
        let text = cut(&format!("  ▸ {}", parts.join(", ")), self.terminal.columns.unwrap_or(80).saturating_sub(1));
        Some(self.terminal.paint(Style::Cyan, &text))
    }

    fn start(&mut self, body: &RunStarted, at: Timestamp) -> String {
        let id = body.run.to_string();
        self.run = format::short(&id).to_owned();
        self.started_at = at;
        let by = match body.cause.alerts.first() {
            Some(alert) => {
                let label = |name| alert.labels.get(name).map(|value| inert(value));
                let parts = [label("alertname"), label("instance")].into_iter().flatten().collect::<Vec<_>>();
                format!("alert {} from {}", parts.join(" "), inert(&alert.key.source))
            }
            None => format!("{} from {}", inert(&body.cause.event.kind), inert(&body.cause.event.source)),
        };
        let head = format!("run {} of {}", self.run, inert(body.playbook.as_str()));
        let queued = if body.queued { "; it is queued" } else { "" };
        format!("{}, started by {by}{queued}\n", self.terminal.paint(Style::Bold, &head))
    }

    fn action(&self, step: &StepKey) -> &str {
        self.steps.get(step).and_then(|told| told.action.as_deref()).unwrap_or("")
    }

    /// A line about the run as a whole.
    fn aside(&self, style: Style, text: &str) -> String {
        format!("  {}\n", self.terminal.paint(style, &inert(text)))
    }

    /// An attempt that did not succeed.
    fn lost(&mut self, attempt: &AttemptId, then: Then, outcome: &str, why: &str, at: Timestamp) -> String {
        let step = &attempt.step;
        match then {
            Then::Fail => self.step(step, "failed", at, why),
            Then::Tolerate => self.step(step, "tolerated", at, why),
            Then::Cancel => self.step(step, "cancelled", at, why),
            Then::Verify => self.step(step, "verifying", at, why),
            Then::Retry { at: next } | Then::Redo { at: next } => {
                let again = format::duration(next.since(at));
                let text = format!("attempt {} {outcome}: {why}; again in {again}", attempt.number);
                let line = self.step(step, "backoff", at, &text);
                self.steps.entry(step.clone()).or_default().until = Some(next);
                line
            }
            Then::Ask => {
                let mut line = self.step(step, "unknown", at, why);
                let name = inert(name_of(step.as_str()));
                let ask = format!("stanch runs answer {} {name} succeeded|failed|retry", self.run);
                line.push_str(&format!("      {}\n", self.terminal.paint(Style::Yellow, &ask)));
                line
            }
        }
    }

    fn wait(&mut self, step: &StepKey, wait: Waiting, at: Timestamp) -> String {
        let told = self.steps.entry(step.clone()).or_default();
        let again = told.since.is_some();
        told.action = Some("wait".to_owned());
        told.since.get_or_insert(at);
        let (text, until) = match wait {
            Waiting::Time { until } => (format!("for {}", format::duration(until.since(at))), Some(until)),
            Waiting::Resolved { settle, settled_at: None, .. } => {
                let settle = if settle.is_zero() { String::new() } else { format!(" for {}", whole(settle)) };
                let what = if again { "an alert fires again" } else { "until the alerts have stayed resolved" };
                (format!("{what}{}", if again { "" } else { &settle }), None)
            }
            Waiting::Resolved { settled_at: Some(settled), .. } => {
                (format!("all alerts are resolved; {} more to be sure", whole(settled.since(at))), Some(settled))
            }
            Waiting::Event { .. } => ("for an event".to_owned(), None),
            Waiting::Approval { expires_at, .. } => ("for an approval".to_owned(), expires_at),
            Waiting::Run { child, .. } => (format!("for run {}", format::short(&child.to_string())), None),
            Waiting::Undo { .. } => ("for the undo".to_owned(), None),
        };
        let line = self.step(step, "waiting", at, &text);
        self.steps.entry(step.clone()).or_default().until = until;
        line
    }

    /// The line of a step, under its phase's heading where that is a new one.
    fn step(&mut self, key: &StepKey, state: &str, at: Timestamp, text: &str) -> String {
        let mut out = String::new();
        let phase = key.as_str().split('.').next().unwrap_or_default();
        if self.phase != phase {
            self.phase = phase.to_owned();
            out.push_str(&format!("\n{}\n", self.terminal.paint(Style::Bold, &inert(phase))));
        }
        let told = self.steps.entry(key.clone()).or_default();
        told.running = None;
        told.until = None;
        let took = told.since.map(|since| format::duration(at.since(since)));
        let took = took.filter(|_| state != "waiting").unwrap_or_default();
        let action = told.action.clone().unwrap_or_default();
        let (mark, style) = mark(state);
        let (names, actions) = self.columns;
        let text = match state {
            "succeeded" | "failed" | "waiting" | "backoff" => inert(text),
            _ if text.starts_with(state) => inert(text),
            _ => inert(&format!("{state}: {text}")),
        };
        let room = self
            .terminal
            .columns
            .map_or(usize::MAX, |columns| columns.saturating_sub(4 + names + 2 + actions + 2 + DURATION + 2).max(20));
        let fill = " ".repeat(DURATION.saturating_sub(width(&took)));
        let line = format!(
            "  {} {}  {}  {fill}{}  {}",
            self.terminal.paint(style, mark),
            pad(&inert(name_of(key.as_str())), names),
            self.terminal.paint(Style::Dim, &pad(&inert(&action), actions)),
            self.terminal.paint(Style::Dim, &took),
            cut(&text, room),
        );
        out.push_str(line.trim_end());
        out.push('\n');
        out
    }

    /// What of an action's result says most, in one line.
    fn gist(&self, step: &StepKey, output: &Value) -> String {
        gist(self.action(step), output)
    }
}

/// What of an action's result says most, in one line; not yet inert.
pub fn gist(action: &str, output: &Value) -> String {
    let text = |key: &str| output.get(key).and_then(Value::as_str).map(first_line).filter(|text| !text.is_empty());
    match action {
        "log" => text("message").unwrap_or_default(),
        "exec" => text("stdout").or_else(|| text("stderr")).unwrap_or_else(|| match output.get("exit_code") {
            Some(code) => format!("exit code {code}"),
            None => String::new(),
        }),
        "http" => output.get("status").map(|status| format!("status {status}")).unwrap_or_default(),
        "slack" => text("channel").map(|channel| format!("posted to {channel}")).unwrap_or_else(|| "posted".to_owned()),
        _ => match output {
            Value::Null => String::new(),
            Value::Object(map) if map.is_empty() => String::new(),
            other => cut(&other.to_string(), 200),
        },
    }
}

fn first_line(text: &str) -> String {
    let mut lines = text.trim().lines();
    let first = lines.next().unwrap_or_default().to_owned();
    if lines.next().is_some() { first + " …" } else { first }
}

fn name_of(step: &str) -> &str {
    step.split_once('.').map_or(step, |(_, name)| name)
}

/// A duration to the second where it is one, since records and playbooks are exact.
fn whole(length: Duration) -> String {
    let rounded = Duration::from_millis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX));
    match rounded.as_millis() {
        millis if (1_000..60_000).contains(&millis) && millis % 1_000 == 0 => format!("{} s", millis / 1_000),
        _ => format::duration(rounded),
    }
}

fn person(record: &Record) -> String {
    let actor = record.actor.as_str();
    actor.strip_prefix("person:").unwrap_or(actor).to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use stanch_core::attempt::Purpose;
    use stanch_core::event::Event;
    use stanch_core::record::{
        Actor, AttemptFailed, AttemptScheduled, AttemptSucceeded, AttemptUnknown, Cause, RunFinished, StepAnswered,
        StepEnded, StepWaiting, StepWoken,
    };
    use stanch_core::{Epoch, IncidentId, RunId, Sequence};
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

    #[test]
    fn a_wait_says_for_what_and_how_long_it_still_is() {
        let wait = |settled_at| {
            let settle = Duration::from_secs(2);
            let wait = Waiting::Resolved { settle, settled_at, expires_at: None };
            Body::from(StepWaiting { run: run(), step: StepKey::new("recover.quiet"), item: None, wait })
        };
        let woken =
            StepWoken { run: run(), step: StepKey::new("recover.quiet"), item: None, outputs: Arc::new(json!({})) };
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
}
