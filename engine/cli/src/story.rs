//! One run as people follow it: each record that matters becomes a line, under the heading of its phase.

mod lines;
mod words;

use std::collections::BTreeMap;

use stanch_core::ContainmentId;
use stanch_core::attempt::Purpose;
use stanch_core::record::{Answer, Body, Record, RunOutcome, Verdict};
use stanch_playbook::{StepKey, Timestamp};

use self::words::{ended, is_live, looks_of, name_of, person};
pub use self::words::{gist, place};
use crate::format::{self, mark};
use crate::terminal::{Style, Terminal, cut, inert, width};

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
}

#[cfg(test)]
mod tests;
