//! The lines that records add to a story.

use std::collections::BTreeMap;

use serde_json::Value;
use stanch_core::attempt::{AttemptId, Purpose};
use stanch_core::record::{ApprovalRequested, ItemsStarted, RunStarted, Then, UndoRequested, Waiting};
use stanch_playbook::{StepKey, Timestamp};

use super::words::{gist, name_of, place, whole};
use super::{DURATION, Items, Story, TOLD_ITEMS, Undoing};
use crate::format::{self, mark};
use crate::terminal::{Style, cut, inert, pad, width};

impl Story {
    pub(super) fn start(&mut self, body: &RunStarted, at: Timestamp) -> String {
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

    pub(super) fn action(&self, step: &StepKey) -> &str {
        self.steps.get(step).and_then(|told| told.action.as_deref()).unwrap_or("")
    }

    /// A line about the run as a whole.
    pub(super) fn aside(&self, style: Style, text: &str) -> String {
        format!("  {}\n", self.terminal.paint(style, &inert(text)))
    }

    /// A line that belongs to the one before it.
    pub(super) fn remark(&self, style: Style, text: &str) -> String {
        let room = self.terminal.columns.map_or(usize::MAX, |columns| columns.saturating_sub(6).max(20));
        format!("      {}\n", self.terminal.paint(style, &cut(&inert(text), room)))
    }

    /// A command to type, which is never cut.
    pub(super) fn command(&self, text: &str) -> String {
        format!("      {}\n", self.terminal.paint(Style::Yellow, &inert(text)))
    }

    /// A step, or an item of it, came into a state. Of items what is wrong is told, and not of too many.
    pub(super) fn moved(
        &mut self,
        step: &StepKey,
        item: Option<u32>,
        state: &'static str,
        at: Timestamp,
        text: &str,
    ) -> String {
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

    pub(super) fn room(&self, before: usize) -> usize {
        self.terminal.columns.map_or(usize::MAX, |columns| columns.saturating_sub(before).max(20))
    }

    pub(super) fn count(&mut self, step: &StepKey, item: u32, state: &'static str) {
        if let Some(items) = self.steps.get_mut(step).and_then(|told| told.items.as_mut()) {
            items.enter(item, state);
        }
    }

    pub(super) fn start_items(&mut self, body: &ItemsStarted, at: Timestamp) -> String {
        let count = body.items.len();
        let told = self.steps.entry(body.step.clone()).or_default();
        told.since.get_or_insert(at);
        told.items =
            Some(Items { states: vec!["pending"; count], counts: BTreeMap::from([("pending", count)]), told: 0 });
        let text = if count == 1 { "1 item".to_owned() } else { format!("{count} items") };
        self.step(&body.step, "running", at, &text)
    }

    pub(super) fn ask(&mut self, body: &ApprovalRequested, at: Timestamp) -> String {
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

    pub(super) fn take_back(&mut self, body: &UndoRequested) -> String {
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
    pub(super) fn undone(&mut self, attempt: &AttemptId) -> String {
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
    pub(super) fn not_undone(&mut self, attempt: &AttemptId, then: Then, why: &str, at: Timestamp) -> String {
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

    pub(super) fn after_undo(&self, attempt: &AttemptId) -> String {
        let id = self.inforce.get(&(attempt.step.clone(), attempt.item)).map(ToString::to_string);
        let id = id.as_deref().map_or("ID", format::short);
        self.command(&format!("stanch inforce undo {id}, or stanch inforce end {id} where it is over"))
    }

    pub(super) fn verified(&mut self, attempt: &AttemptId) -> String {
        let told = self.steps.entry(attempt.step.clone()).or_default();
        let looks = std::mem::take(&mut told.looks);
        match looks {
            0 => "verified".to_owned(),
            looks => format!("verified at look {}", looks + 1),
        }
    }

    /// An attempt that did not succeed, or did not settle its step.
    pub(super) fn lost(&mut self, attempt: &AttemptId, then: Then, outcome: &str, why: &str, at: Timestamp) -> String {
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

    pub(super) fn wait(&mut self, step: &StepKey, item: Option<u32>, wait: Waiting, at: Timestamp) -> String {
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
    pub(super) fn step(&mut self, key: &StepKey, state: &str, at: Timestamp, text: &str) -> String {
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
    pub(super) fn gist(&self, step: &StepKey, output: &Value) -> String {
        gist(self.action(step), output)
    }
}
