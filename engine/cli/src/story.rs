//! One run as people follow it: each record that matters becomes a line, under the heading of its phase.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use stanch_core::ContainmentId;
use stanch_core::attempt::{AttemptId, Purpose};
use stanch_core::record::{
    Answer, ApprovalRequested, Body, Ending, ItemsStarted, Record, RunOutcome, RunStarted, Then, UndoRequested,
    Verdict, Verification, Waiting,
};
use stanch_playbook::{StepKey, Timestamp};

use crate::format::{self, mark};
use crate::terminal::{Style, Terminal, cut, inert, pad, width};

/// The columns of a duration, such as `999 ms` or `59.9 s`.
const DURATION: usize = 7;

/// How many items of a step are told of one by one where something is wrong with them; the others are counted.
const TOLD_ITEMS: usize = 5;

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
    /// What the run put in force, by the step and the item.
    inforce: BTreeMap<(StepKey, Option<u32>), ContainmentId>,
    undo: Undoing,
    outcome: Option<RunOutcome>,
}

/// What is being taken back.
#[derive(Debug, Default)]
struct Undoing {
    asked: usize,
    done: usize,
}

/// The items of a step.
#[derive(Debug, Default)]
struct Items {
    states: Vec<&'static str>,
    counts: BTreeMap<&'static str, usize>,
    /// How many were told of.
    told: usize,
}

impl Items {
    fn enter(&mut self, item: u32, state: &'static str) {
        if let Some(known) = self.states.get_mut(item as usize) {
            let before = std::mem::replace(known, state);
            self.counts.entry(before).and_modify(|count| *count = count.saturating_sub(1));
            *self.counts.entry(state).or_insert(0) += 1;
        }
    }

    fn progress(&self) -> String {
        format::progress(self.states.len(), self.counts.iter().map(|(state, count)| (*state, *count)))
    }
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
    /// How often it was looked whether it holds.
    looks: u32,
    items: Option<Items>,
    /// Whether it was told that it is in force.
    contained: bool,
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
            inforce: BTreeMap::new(),
            undo: Undoing::default(),
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
                let undo = if body.undo { ", and for what it did to be taken back" } else { "" };
                self.aside(Style::Yellow, &format!("{} asks for the run's end{undo}{why}", person(record)))
            }
            Body::RunReleased(_) => self.aside(Style::Dim, "its turn has come"),
            Body::RunFinished(body) => {
                self.outcome = Some(body.outcome);
                let (mark, style) = mark(body.outcome.as_str());
                let took = format::duration(at.since(self.started_at));
                let line = format!("{mark} run {} {} after {took}", self.run, body.outcome.as_str());
                format!("\n{}\n", self.terminal.paint(style, &line))
            }
            Body::AttemptScheduled(body) if body.attempt.purpose == Purpose::Undo => String::new(),
            Body::AttemptScheduled(body) => {
                let told = self.steps.entry(body.attempt.step.clone()).or_default();
                if body.attempt.purpose == Purpose::Do {
                    told.action = Some(body.action.to_string());
                }
                told.since.get_or_insert(at);
                match (&mut told.items, body.attempt.item) {
                    (Some(items), Some(item)) => items.enter(item, "running"),
                    _ => {
                        told.running = Some(at);
                        told.until = None;
                    }
                }
                String::new()
            }
            Body::AttemptSucceeded(body) if body.attempt.purpose == Purpose::Undo => self.undone(&body.attempt),
            Body::AttemptSucceeded(body) => match &body.unsettled {
                None => {
                    let text = match body.attempt.purpose {
                        Purpose::Verify => self.verified(&body.attempt),
                        _ => self.gist(&body.attempt.step, &body.output),
                    };
                    self.moved(&body.attempt.step, body.attempt.item, "succeeded", at, &text)
                }
                Some(unsettled) => {
                    let reason = match &body.verification {
                        Some(verification) => looks_of(verification, at),
                        None => unsettled.reason.to_string(),
                    };
                    self.lost(&body.attempt, unsettled.then, "succeeded", &reason, at)
                }
            },
            Body::AttemptFailed(body) => self.lost(&body.attempt, body.then, "failed", &body.error, at),
            Body::AttemptUnknown(body) => {
                let reason = match &body.verification {
                    Some(verification) => format!("{}; {}", body.reason, looks_of(verification, at)),
                    None => body.reason.to_string(),
                };
                self.lost(&body.attempt, body.then, "unknown", &reason, at)
            }
            Body::AttemptLate(body) => {
                let step = place(&body.attempt.step, body.attempt.item);
                let text = format!("a late result of {step} says {}; it changes nothing", body.outcome);
                self.aside(Style::Yellow, &text)
            }
            Body::StepWaiting(body) => self.wait(&body.step, body.item, body.wait, at),
            Body::StepWoken(body) => {
                let text = match self.action(&body.step) {
                    "wait" => "it is over".to_owned(),
                    "approval" => "approved".to_owned(),
                    "undo" => "taken back".to_owned(),
                    "playbook" => "its run succeeded".to_owned(),
                    _ => String::new(),
                };
                self.moved(&body.step, body.item, "succeeded", at, &text)
            }
            Body::StepEnded(body) => {
                let state = ended(body.ending);
                self.moved(&body.step, body.item, state, at, &body.reason)
            }
            Body::StepAnswered(body) => {
                let note = if body.note.is_empty() { String::new() } else { format!(": {}", body.note) };
                let (state, said) = match body.answer {
                    Answer::Succeeded => ("succeeded", "it succeeded"),
                    Answer::Failed if body.tolerated => ("tolerated", "it failed"),
                    Answer::Failed => ("failed", "it failed"),
                    Answer::Retry => ("backoff", "try again"),
                };
                let text = format!("{} says {said}{note}", person(record));
                match body.item {
                    None => self.step(&body.step, state, at, &text),
                    Some(item) => {
                        self.count(&body.step, item, state);
                        self.aside(Style::Plain, &format!("{}: {text}", place(&body.step, body.item)))
                    }
                }
            }
            Body::ItemsStarted(body) => self.start_items(body, at),
            Body::ItemsEnded(body) => {
                let progress = self.steps.get(&body.step).and_then(|told| told.items.as_ref()).map(Items::progress);
                let progress = progress.unwrap_or_default();
                match &body.failure {
                    None => self.step(&body.step, "succeeded", at, &progress),
                    Some(failure) => {
                        let text = format!("{progress}: {}", failure.reason);
                        self.step(&body.step, ended(failure.ending), at, &text)
                    }
                }
            }
            Body::ApprovalRequested(body) => self.ask(body, at),
            Body::ApprovalEscalated(body) => {
                let name = name_of(body.step.as_str());
                self.aside(Style::Yellow, &format!("{name}: {}; told {}", body.reason, body.people.join(", ")))
            }
            Body::ApprovalDecided(body) => {
                let verb = match body.verdict {
                    Verdict::Approved => "approves",
                    Verdict::Denied => "denies",
                };
                let why = if body.reason.is_empty() { String::new() } else { format!(": {}", body.reason) };
                let style = mark(body.verdict.as_str()).1;
                self.aside(style, &format!("{} {verb} {}{why}", person(record), name_of(body.step.as_str())))
            }
            Body::ContainmentStarted(body) => {
                self.inforce.insert((body.step.clone(), body.item), body.containment);
                let told = self.steps.entry(body.step.clone()).or_default();
                if std::mem::replace(&mut told.contained, true) {
                    return String::new();
                }
                let until = match body.until {
                    Some(until) => format!("until {} UTC", format::date_time(until)),
                    None => "until it is taken back".to_owned(),
                };
                let name = name_of(body.step.as_str());
                self.remark(Style::Dim, &format!("{name} is in force {until}; stanch inforce list"))
            }
            Body::UndoRequested(body) => self.take_back(body),
            // What is not about this run.
            _ => String::new(),
        }
    }

    /// What is under way, in one line for the moment.
    pub fn status(&self, now: Timestamp) -> Option<String> {
        let under_way = |items: &Items| items.counts.iter().any(|(state, count)| *count > 0 && is_live(state));
        let with_items = self.steps.values().any(|told| told.items.as_ref().is_some_and(under_way));
        let of = |(key, told): (&StepKey, &Told)| {
            let name = inert(name_of(key.as_str()));
            if let Some(items) = told.items.as_ref().filter(|items| under_way(items)) {
                return Some(format!("{name} {}", items.progress()));
            }
            if let (true, Some(until)) = (told.looks > 0, told.until) {
                let left = format::duration(until.since(now));
                return Some(format!("{name} look {} in {left}", told.looks + 1));
            }
            match (told.running, told.until) {
                (Some(since), _) => Some(format!("{name} {}", format::duration(now.since(since)))),
                (None, Some(until)) if until > now => {
                    Some(format!("{name} {} left", format::duration(until.since(now))))
                }
                (None, _) => None,
            }
        };
        let mut parts: Vec<String> = self.steps.iter().filter_map(of).collect();
        if self.undo.done < self.undo.asked {
            parts.push(format!("undo {}/{}", self.undo.done, self.undo.asked));
        }
        if parts.is_empty() || self.outcome.is_some() {
            return None;
        }
        let text = cut(
            &format!("  ▸ {}", parts.join(if with_items { "; " } else { ", " })),
            self.terminal.columns.unwrap_or(80).saturating_sub(1),
        );
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

    /// A line that belongs to the one before it.
    fn remark(&self, style: Style, text: &str) -> String {
        let room = self.terminal.columns.map_or(usize::MAX, |columns| columns.saturating_sub(6).max(20));
        format!("      {}\n", self.terminal.paint(style, &cut(&inert(text), room)))
    }

    /// A command to type, which is never cut.
    fn command(&self, text: &str) -> String {
        format!("      {}\n", self.terminal.paint(Style::Yellow, &inert(text)))
    }

    /// A step, or an item of it, came into a state. Of items what is wrong is told, and not of too many.
    fn moved(&mut self, step: &StepKey, item: Option<u32>, state: &'static str, at: Timestamp, text: &str) -> String {
        let Some(item) = item else { return self.step(step, state, at, text) };
        self.count(step, item, state);
        if !matches!(state, "failed" | "tolerated" | "unknown") {
            return String::new();
        }
        let Some(items) = self.steps.get_mut(step).and_then(|told| told.items.as_mut()) else { return String::new() };
        items.told += 1;
        let told = items.told;
        let name = place(step, Some(item));
        match told {
            told if told <= TOLD_ITEMS => {
                let (mark, style) = mark(state);
                let word = if text.starts_with(state) { "" } else { state };
                let text = cut(
                    &inert(&format!("{name}  {word}{}{text}", if word.is_empty() { "" } else { ": " })),
                    self.room(8),
                );
                format!("      {} {text}\n", self.terminal.paint(style, mark))
            }
            told if told == TOLD_ITEMS + 1 => {
                let text =
                    format!("more items of {} are counted; stanch runs show {}", name_of(step.as_str()), self.run);
                self.remark(Style::Dim, &text)
            }
            _ => String::new(),
        }
    }

    fn room(&self, before: usize) -> usize {
        self.terminal.columns.map_or(usize::MAX, |columns| columns.saturating_sub(before).max(20))
    }

    fn count(&mut self, step: &StepKey, item: u32, state: &'static str) {
        if let Some(items) = self.steps.get_mut(step).and_then(|told| told.items.as_mut()) {
            items.enter(item, state);
        }
    }

    fn start_items(&mut self, body: &ItemsStarted, at: Timestamp) -> String {
        let count = body.items.len();
        let told = self.steps.entry(body.step.clone()).or_default();
        told.since.get_or_insert(at);
        told.items =
            Some(Items { states: vec!["pending"; count], counts: BTreeMap::from([("pending", count)]), told: 0 });
        let text = if count == 1 { "1 item".to_owned() } else { format!("{count} items") };
        self.step(&body.step, "running", at, &text)
    }

    fn ask(&mut self, body: &ApprovalRequested, at: Timestamp) -> String {
        let told = self.steps.entry(body.step.clone()).or_default();
        told.action = Some("approval".to_owned());
        told.since.get_or_insert(at);
        let again = if body.replaces.is_some() { "asked again, what would be done has changed: " } else { "" };
        let mut out = self.step(&body.step, "waiting", at, &format!("{again}{}", body.prompt));
        self.steps.entry(body.step.clone()).or_default().until = body.expires_at;
        let of = if body.from.is_empty() { "anybody".to_owned() } else { body.from.join(", ") };
        let quorum = if body.quorum > 1 { format!(", {} must agree", body.quorum) } else { String::new() };
        let until = body.expires_at.map(|at| format!(", until {} UTC", format::date_time(at))).unwrap_or_default();
        out.push_str(&self.remark(Style::Dim, &format!("asks {of}{quorum}{until}")));
        for target in &*body.targets {
            let name = name_of(target.step.as_str());
            let what = match &*target.with {
                Value::Array(items) => format!("{} items", items.len()),
                Value::Null => "what exactly is not known yet".to_owned(),
                with => with.to_string(),
            };
            out.push_str(&self.remark(Style::Plain, &format!("{name}  {}  {what}", target.action)));
        }
        let id = body.approval.to_string();
        let id = format::short(&id);
        out.push_str(&self.command(&format!("stanch approve {id}, or stanch deny {id}")));
        out
    }

    fn take_back(&mut self, body: &UndoRequested) -> String {
        if self.undo.done >= self.undo.asked {
            self.undo = Undoing::default();
        }
        self.undo.asked += body.containments.len();
        let what = match body.containments.len() {
            1 => "what was done".to_owned(),
            count => format!("{count} things, the last first"),
        };
        self.aside(Style::Yellow, &format!("taking back {what}: {}", body.reason))
    }

    /// Something was taken back; of many only that all were.
    fn undone(&mut self, attempt: &AttemptId) -> String {
        self.inforce.remove(&(attempt.step.clone(), attempt.item));
        self.undo.done += 1;
        let Undoing { asked, done } = self.undo;
        if asked > TOLD_ITEMS {
            return if done == asked {
                self.aside(Style::Green, &format!("took back all {asked}"))
            } else {
                String::new()
            };
        }
        self.aside(Style::Green, &format!("took back {}", place(&attempt.step, attempt.item)))
    }

    /// Something that was not taken back, or not yet.
    fn not_undone(&mut self, attempt: &AttemptId, then: Then, why: &str, at: Timestamp) -> String {
        let what = place(&attempt.step, attempt.item);
        match then {
            Then::Retry { at: next } | Then::Redo { at: next } => {
                let again = format::duration(next.since(at));
                self.aside(
                    Style::Yellow,
                    &format!("undo of {what}, attempt {}: {why}; again in {again}", attempt.number),
                )
            }
            Then::Ask | Then::Verify => {
                self.undo.done += 1;
                let told = self.aside(Style::Yellow, &format!("? whether {what} was taken back is unknown: {why}"));
                told + &self.after_undo(attempt)
            }
            Then::Fail | Then::Tolerate | Then::Cancel => {
                self.undo.done += 1;
                let told =
                    self.aside(Style::Red, &format!("✘ {what} could not be taken back and stays in force: {why}"));
                told + &self.after_undo(attempt)
            }
        }
    }

    fn after_undo(&self, attempt: &AttemptId) -> String {
        let id = self.inforce.get(&(attempt.step.clone(), attempt.item)).map(ToString::to_string);
        let id = id.as_deref().map_or("ID", format::short);
        self.command(&format!("stanch inforce undo {id}, or stanch inforce end {id} where it is over"))
    }

    fn verified(&mut self, attempt: &AttemptId) -> String {
        let told = self.steps.entry(attempt.step.clone()).or_default();
        let looks = std::mem::take(&mut told.looks);
        match looks {
            0 => "verified".to_owned(),
            looks => format!("verified at look {}", looks + 1),
        }
    }

    /// An attempt that did not succeed, or did not settle its step.
    fn lost(&mut self, attempt: &AttemptId, then: Then, outcome: &str, why: &str, at: Timestamp) -> String {
        let step = &attempt.step;
        if attempt.purpose == Purpose::Undo {
            return self.not_undone(attempt, then, why, at);
        }
        match then {
            Then::Fail => self.moved(step, attempt.item, "failed", at, why),
            Then::Tolerate => self.moved(step, attempt.item, "tolerated", at, why),
            Then::Cancel => self.moved(step, attempt.item, "cancelled", at, why),
            Then::Verify => self.moved(step, attempt.item, "verifying", at, why),
            // A look that did not show yet what is waited for: told once, then counted.
            Then::Retry { at: next } if attempt.purpose == Purpose::Verify || outcome == "succeeded" => {
                let told = self.steps.entry(step.clone()).or_default();
                told.running = None;
                if let Some(item) = attempt.item {
                    self.count(step, item, if attempt.purpose == Purpose::Verify { "verifying" } else { "backoff" });
                    return String::new();
                }
                told.looks += 1;
                let first = told.looks == 1;
                let line = match first {
                    true => {
                        let state = if attempt.purpose == Purpose::Verify { "verifying" } else { "backoff" };
                        let again = format::duration(next.since(at));
                        self.step(step, state, at, &format!("{why}; looks again in {again}"))
                    }
                    false => String::new(),
                };
                self.steps.entry(step.clone()).or_default().until = Some(next);
                line
            }
            Then::Retry { at: next } | Then::Redo { at: next } => {
                let again = format::duration(next.since(at));
                let text = format!("attempt {} {outcome}: {why}; again in {again}", attempt.number);
                let line = self.moved(step, attempt.item, "backoff", at, &text);
                if attempt.item.is_none() {
                    self.steps.entry(step.clone()).or_default().until = Some(next);
                }
                line
            }
            Then::Ask => {
                let mut line = self.moved(step, attempt.item, "unknown", at, why);
                let name = name_of(step.as_str());
                let item = attempt.item.map(|item| format!(" --item {item}")).unwrap_or_default();
                let ask = format!("stanch runs answer {} {name}{item} succeeded|failed|retry", self.run);
                let counted = attempt.item.is_some() && line.is_empty();
                let more =
                    self.steps.get(step).and_then(|told| told.items.as_ref()).is_some_and(|of| of.told > TOLD_ITEMS);
                if !counted && !more {
                    line.push_str(&self.command(&ask));
                }
                line
            }
        }
    }

    fn wait(&mut self, step: &StepKey, item: Option<u32>, wait: Waiting, at: Timestamp) -> String {
        let told = self.steps.entry(step.clone()).or_default();
        if let Some(item) = item {
            self.count(step, item, "waiting");
            return String::new();
        }
        let again = told.since.is_some();
        let action = match wait {
            Waiting::Time { .. } | Waiting::Resolved { .. } | Waiting::Event { .. } => "wait",
            Waiting::Approval { .. } => "approval",
            Waiting::Run { .. } => "playbook",
            Waiting::Undo { .. } => "undo",
        };
        told.action = Some(action.to_owned());
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
            Waiting::Event { expires_at } => ("for an event".to_owned(), expires_at),
            Waiting::Approval { expires_at, .. } => ("for an approval".to_owned(), expires_at),
            Waiting::Run { .. } if again => ("it took too long and was cancelled; for its end".to_owned(), None),
            Waiting::Run { child, .. } => {
                let child = child.to_string();
                (format!("for its run; stanch runs watch {}", format::short(&child)), None)
            }
            Waiting::Undo { .. } => ("for what was done to be taken back".to_owned(), None),
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
        if state != "verifying" && state != "backoff" {
            told.looks = 0;
        }
        let took = told.since.map(|since| format::duration(at.since(since)));
        let took = took.filter(|_| !matches!(state, "waiting" | "running")).unwrap_or_default();
        let action = told.action.clone().unwrap_or_default();
        let (mark, style) = mark(state);
        let (names, actions) = self.columns;
        let text = match state {
            "succeeded" | "failed" | "waiting" | "backoff" | "running" => inert(text),
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

/// A step by its name alone, or an item of it.
pub fn place(step: &StepKey, item: Option<u32>) -> String {
    let name = name_of(step.as_str());
    item.map_or_else(|| name.to_owned(), |item| format!("{name}[{item}]"))
}

/// How a step is verified, in words.
fn looks_of(verification: &Verification, at: Timestamp) -> String {
    let (every, within) = (whole(verification.every), whole(verification.deadline.since(at)));
    format!("{} looks every {every}, for {within} at most", verification.call.action)
}

const fn ended(ending: Ending) -> &'static str {
    match ending {
        Ending::Skipped => "skipped",
        Ending::Blocked => "blocked",
        Ending::Cancelled => "cancelled",
        Ending::Failed => "failed",
        Ending::Tolerated => "tolerated",
    }
}

/// Whether a state of an item is one in which something goes on.
fn is_live(state: &str) -> bool {
    matches!(state, "running" | "backoff" | "verifying" | "waiting" | "unknown")
}

fn person(record: &Record) -> String {
    let actor = record.actor.as_str();
    actor.strip_prefix("person:").unwrap_or(actor).to_owned()
}

#[cfg(test)]
mod tests;
