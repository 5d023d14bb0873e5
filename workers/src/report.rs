//! `report`: the run so far as a text for people, to be posted or put into a ticket.
//!
//! `format` (`markdown`, the default and the only one). Result `{title, markdown}`: the head, what is still in force, the
//! steps with their outcomes and durations, the files that they left behind, approvals and whatever else people did, and the timeline.
//!
//! It shows what is on record when it is made: the step that makes it is still running in it. Whatever comes from labels, inputs,
//! errors or people is inert: it cannot become markup, a link, HTML or a further row. Of long timelines the first and
//! the last lines are kept.
//!
//! What a run has done is the engine's knowledge, so the engine hands it over ([`Stories`]); a worker without it says so.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use stanch_core::attempt::{AttemptId, Purpose};
use stanch_core::containment::Containment;
use stanch_core::incident::Incident;
use stanch_core::record::{Body, Ending, Record, Then};
use stanch_core::{Assignment, Outcome, RunId};
use stanch_playbook::{PlaybookName, StepKey, Timestamp};

use crate::action::{Action, Context, failed, refused};
use crate::parameters::Parameters;

/// The longest text from elsewhere, in characters.
const LONGEST: usize = 300;
/// How many lines of a timeline are kept at its start and at its end.
const FIRST: usize = 300;
const LAST: usize = 200;
/// How many rows the other tables have.
const ROWS: usize = 200;

/// What is known of a run.
#[derive(Clone, Debug)]
pub struct Story {
    /// The run.
    pub run: RunId,
    /// Its playbook.
    pub playbook: PlaybookName,
    /// Its incident; none where it is forgotten.
    pub incident: Option<Incident>,
    /// Its records, oldest first.
    pub records: Vec<Record>,
    /// What it did and what is still in force.
    pub inforce: Vec<Containment>,
}

/// Whoever knows what a run has done.
pub trait Stories: Send + Sync {
    /// The story of a run so far; a sentence where it cannot be told.
    fn story(&self, run: RunId) -> BoxFuture<'_, Result<Story, String>>;
}

/// The action `report`.
#[derive(Debug, Clone, Copy)]
pub struct Report;

impl Action for Report {
    fn name(&self) -> &'static str {
        "report"
    }

    fn run<'a>(&'a self, context: &'a Context, assignment: &'a Assignment) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            context.preparing();
            match Parameters::of(assignment).optional_text("format") {
                Ok(None) => {}
                Ok(Some(format)) if format == "markdown" => {}
                Ok(Some(other)) => return refused(format!("{other:?} is no format of a report: write markdown")),
                Err(error) => return refused(error),
            }
            let Some(stories) = &context.shared.stories else {
                return refused("this worker does not know what runs have done: reports are the engine's own");
            };
            match stories.story(assignment.attempt.run).await {
                Ok(story) => {
                    Outcome::Succeeded { output: json!({ "title": title(&story), "markdown": markdown(&story) }) }
                }
                Err(error) => failed(error),
            }
        })
    }
}

/// The title, as plain text: for a subject, a heading or a ticket.
fn title(story: &Story) -> String {
    let about = match &story.incident {
        Some(incident) => format!("{}: {} ({})", severity(incident), plain(&incident.title), story.playbook.as_str()),
        None => story.playbook.as_str().to_owned(),
    };
    format!("Report of {about}")
}

fn markdown(story: &Story) -> String {
    let mut text = format!("# {}\n\n", inert(&title(story)));
    head(&mut text, story);
    inforce(&mut text, story);
    steps(&mut text, story);
    files(&mut text, story);
    approvals(&mut text, story);
    people(&mut text, story);
    timeline(&mut text, story);
    text
}

fn head(text: &mut String, story: &Story) {
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "- {name}: {value}");
    };
    row("Playbook", inert(story.playbook.as_str()));
    row("Run", story.run.0.to_string());
    if let Some(incident) = &story.incident {
        row("Incident", format!("{} ({}, {})", inert(&incident.key), severity(incident), incident.state()));
        row("Opened", at(incident.opened_at));
        if let Some((who, when)) = &incident.acknowledged {
            row("Acknowledged", format!("{} by {}", at(*when), inert(who.as_str())));
        }
        if let Some(when) = incident.resolved_at {
            row("Resolved", at(when));
        }
        let firing = incident.alerts.iter().filter(|(_, firing)| *firing).count();
        row("Alerts", format!("{}, of which {firing} fire", incident.alerts.len()));
    }
    let started = story.records.iter().find(|record| matches!(record.body, Body::RunStarted(_)));
    if let Some(started) = started {
        row("Started", format!("{} by {}", at(started.time), inert(started.actor.as_str())));
        let latest = story.records.last().map_or(started.time, |record| record.time);
        row("Lasted so far", lasted(latest.since(started.time)));
    }
    text.push('\n');
}

fn inforce(text: &mut String, story: &Story) {
    text.push_str("## Still in force\n\n");
    if story.inforce.is_empty() {
        text.push_str("Nothing that this run did and that could be taken back.\n\n");
        return;
    }
    text.push_str("| step | since | until | state |\n| --- | --- | --- | --- |\n");
    for held in story.inforce.iter().take(ROWS) {
        let until = held.until.map_or_else(|| "somebody takes it back".to_owned(), at);
        let item = held.value.as_ref().map(|value| format!(" {}", inert(&value.to_string()))).unwrap_or_default();
        let certain = if held.certain { "" } else { ", not known to have happened" };
        let step = inert(held.step.as_str());
        let _ = writeln!(text, "| {step}{item} | {} | {until} | {}{certain} |", at(held.since), held.state.as_str());
    }
    left_out(text, story.inforce.len());
    text.push('\n');
}

/// What a table says of a step.
struct StepLine {
    action: String,
    outcome: &'static str,
    items: Option<usize>,
    attempts: usize,
    began: Option<Timestamp>,
    ended: Option<Timestamp>,
    error: String,
}

fn steps(text: &mut String, story: &Story) {
    let mut order: Vec<StepKey> = Vec::new();
    let mut lines: HashMap<StepKey, StepLine> = HashMap::new();
    for record in &story.records {
        let Some((key, item)) = step_of(&record.body) else { continue };
        let line = lines.entry(key.clone()).or_insert_with(|| {
            order.push(key.clone());
            StepLine {
                action: String::new(),
                outcome: "pending",
                items: None,
                attempts: 0,
                began: None,
                ended: None,
                error: String::new(),
            }
        });
        line.apply(record, item);
    }
    text.push_str(
        "## Steps\n\n| step | action | outcome | attempts | took | |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for key in order.iter().take(ROWS) {
        let line = &lines[key];
        let took = match (line.began, line.ended) {
            (Some(began), Some(ended)) => lasted(ended.since(began)),
            _ => String::new(),
        };
        let items = line.items.map(|items| format!(" ({items} items)")).unwrap_or_default();
        let _ = writeln!(
            text,
            "| {}{items} | {} | {} | {} | {took} | {} |",
            inert(key.as_str()),
            inert(&line.action),
            line.outcome,
            line.attempts,
            inert(&line.error)
        );
    }
    left_out(text, order.len());
    text.push('\n');
}

impl StepLine {
    /// Items change the times and attempts of their step; how it came out, `ItemsEnded` says.
    fn apply(&mut self, record: &Record, item: Option<u32>) {
        let whole = item.is_none();
        let mut set = |outcome: &'static str, error: &str, over: bool| {
            self.ended = over.then_some(record.time);
            if whole {
                self.outcome = outcome;
                plain(error).clone_into(&mut self.error);
            }
        };
        match &record.body {
            Body::AttemptScheduled(body) if body.attempt.purpose == Purpose::Do => {
                set("running", "", false);
                body.action.as_str().clone_into(&mut self.action);
                self.attempts += 1;
                self.began.get_or_insert(record.time);
            }
            Body::AttemptSucceeded(body) => match &body.unsettled {
                None => set("succeeded", "", true),
                Some(unsettled) => follow(&mut set, unsettled.then, &unsettled.reason),
            },
            Body::AttemptFailed(body) => follow(&mut set, body.then, &body.error),
            Body::AttemptUnknown(body) => follow(&mut set, body.then, &body.reason),
            Body::StepWaiting(_) => {
                set("waiting", "", false);
                self.began.get_or_insert(record.time);
            }
            Body::StepWoken(_) => set("succeeded", "", true),
            Body::StepEnded(body) => {
                let reason = if body.ending == Ending::Skipped { "" } else { &*body.reason };
                set(body.ending.as_str(), reason, true);
            }
            Body::StepAnswered(body) => match body.answer {
                stanch_core::record::Answer::Succeeded => set("succeeded", "by a person's answer", true),
                stanch_core::record::Answer::Failed => set("failed", "by a person's answer", true),
                stanch_core::record::Answer::Retry => set("running", "", false),
            },
            Body::ItemsStarted(body) => {
                set("running", "", false);
                self.items = Some(body.items.len());
                self.began.get_or_insert(record.time);
            }
            Body::ItemsEnded(body) => match &body.failure {
                None => set("succeeded", "", true),
                Some(failure) => set(failure.ending.as_str(), &failure.reason, true),
            },
            _ => {}
        }
    }
}

fn follow(set: &mut impl FnMut(&'static str, &str, bool), then: Then, why: &str) {
    match then {
        Then::Retry { .. } | Then::Redo { .. } => set("tried again", why, false),
        Then::Verify => set("verifying", why, false),
        Then::Ask => set("unknown", why, false),
        Then::Fail => set("failed", why, true),
        Then::Tolerate => set("tolerated", why, true),
        Then::Cancel => set("cancelled", why, true),
    }
}

/// What the items of a run's steps are.
struct ItemValues<'a>(HashMap<&'a StepKey, &'a [Value]>);

impl<'a> ItemValues<'a> {
    fn of(story: &'a Story) -> Self {
        let started = story.records.iter().filter_map(|record| match &record.body {
            Body::ItemsStarted(body) => Some((&body.step, &*body.items)),
            _ => None,
        });
        Self(started.collect())
    }

    /// A step, or an item of it by what it is; by its number where that is not on record.
    fn place(&self, key: &StepKey, item: Option<u32>) -> String {
        let Some(item) = item else { return inert(key.as_str()) };
        match self.0.get(key).and_then(|items| items.get(item as usize)) {
            Some(Value::String(text)) => format!("{} {}", inert(key.as_str()), inert(text)),
            Some(value) => format!("{} {}", inert(key.as_str()), inert(&value.to_string())),
            None => format!("{} item {item}", inert(key.as_str())),
        }
    }
}

/// What the steps left behind and is kept.
fn files(text: &mut String, story: &Story) {
    let items = ItemValues::of(story);
    let mut rows = Vec::new();
    for record in &story.records {
        let (attempt, output) = match &record.body {
            Body::AttemptSucceeded(body) => (&body.attempt, Some(&body.output)),
            Body::AttemptFailed(body) => (&body.attempt, body.output.as_ref()),
            _ => continue,
        };
        let kept = output.and_then(|output| output["artifacts"].as_object());
        for (path, file) in kept.into_iter().flatten() {
            rows.push(format!(
                "| {} | {} | {} | {} |",
                items.place(&attempt.step, attempt.item),
                inert(path),
                file["size"].as_u64().unwrap_or_default(),
                inert(file["sha256"].as_str().unwrap_or_default())
            ));
        }
    }
    if rows.is_empty() {
        return;
    }
    let _ = write!(
        text,
        "## Files\n\n`stanch runs artifacts {} --out DIR` fetches them.\n\n| step | path | bytes | SHA-256 |\n| --- | --- | --- | --- |\n",
        story.run.0
    );
    rows.iter().take(ROWS).for_each(|row| {
        let _ = writeln!(text, "{row}");
    });
    left_out(text, rows.len());
    text.push('\n');
}

/// The step, and the item of it, that a record changes.
fn step_of(body: &Body) -> Option<(&StepKey, Option<u32>)> {
    let own = |attempt: &'_ AttemptId| attempt.purpose != Purpose::Undo;
    match body {
        Body::AttemptScheduled(body) => own(&body.attempt).then_some((&body.attempt.step, body.attempt.item)),
        Body::AttemptSucceeded(body) => own(&body.attempt).then_some((&body.attempt.step, body.attempt.item)),
        Body::AttemptFailed(body) => own(&body.attempt).then_some((&body.attempt.step, body.attempt.item)),
        Body::AttemptUnknown(body) => own(&body.attempt).then_some((&body.attempt.step, body.attempt.item)),
        Body::StepWaiting(body) => Some((&body.step, body.item)),
        Body::StepWoken(body) => Some((&body.step, body.item)),
        Body::StepEnded(body) => Some((&body.step, body.item)),
        Body::StepAnswered(body) => Some((&body.step, body.item)),
        Body::ItemsStarted(body) => Some((&body.step, None)),
        Body::ItemsEnded(body) => Some((&body.step, None)),
        _ => None,
    }
}

fn approvals(text: &mut String, story: &Story) {
    let mut rows = Vec::new();
    for record in &story.records {
        match &record.body {
            Body::ApprovalRequested(body) => rows.push(format!(
                "| {} | {} | asked | {} | |",
                at(record.time),
                inert(body.step.as_str()),
                inert(&body.prompt)
            )),
            Body::ApprovalEscalated(body) => rows.push(format!(
                "| {} | {} | escalated to {} | {} | |",
                at(record.time),
                inert(body.step.as_str()),
                inert(&body.people.join(", ")),
                inert(&body.reason)
            )),
            Body::ApprovalDecided(body) => rows.push(format!(
                "| {} | {} | {} by {} | {} | {} |",
                at(record.time),
                inert(body.step.as_str()),
                body.verdict.as_str(),
                inert(record.actor.as_str()),
                inert(&body.reason),
                inert(&body.via)
            )),
            _ => {}
        }
    }
    if !rows.is_empty() {
        text.push_str("## Approvals\n\n| when | step | what | | via |\n| --- | --- | --- | --- | --- |\n");
        table(text, &rows, ROWS, 0);
    }
}

fn people(text: &mut String, story: &Story) {
    let items = ItemValues::of(story);
    let by_people = story.records.iter().filter(|record| record.actor.as_str().starts_with("person:"));
    let rows: Vec<String> = by_people
        .filter_map(|record| {
            let line = line(&record.body, &items)?;
            Some(format!("| {} | {} | {line} |", at(record.time), inert(record.actor.as_str())))
        })
        .collect();
    if !rows.is_empty() {
        text.push_str("## What people did\n\n| when | who | what |\n| --- | --- | --- |\n");
        table(text, &rows, ROWS, 0);
    }
}

fn timeline(text: &mut String, story: &Story) {
    let items = ItemValues::of(story);
    let rows: Vec<String> = story
        .records
        .iter()
        .filter_map(|record| {
            let line = line(&record.body, &items)?;
            Some(format!("| {} | {} | {line} |", at(record.time), inert(record.actor.as_str())))
        })
        .collect();
    text.push_str("## Timeline\n\n| when | by | what |\n| --- | --- | --- |\n");
    table(text, &rows, FIRST, LAST);
}

/// One row of the timeline; none for what it does not show.
fn line(body: &Body, items: &ItemValues<'_>) -> Option<String> {
    let step = |key: &StepKey, item: Option<u32>| items.place(key, item);
    let attempt = |id: &AttemptId| {
        let purpose = match id.purpose {
            Purpose::Do => "",
            Purpose::Undo => "undo of ",
            Purpose::Verify => "verification of ",
        };
        format!("{purpose}{}", step(&id.step, id.item))
    };
    let because = |why: &str| if why.is_empty() { String::new() } else { format!(": {}", inert(why)) };
    Some(match body {
        Body::RunStarted(body) => format!("the run started{}", if body.queued { " and waits for another" } else { "" }),
        Body::RunReleased(_) => "the run went on".to_owned(),
        Body::RunCancelRequested(body) => format!("the run's end was asked for{}", because(&body.reason)),
        Body::RunFinished(body) => format!("the run {}", body.outcome.as_str()),
        Body::AttemptScheduled(body) => {
            format!("{}: attempt {} of {}", attempt(&body.attempt), body.attempt.number, inert(body.action.as_str()))
        }
        Body::AttemptSucceeded(body) => match &body.unsettled {
            None => format!("{} succeeded", attempt(&body.attempt)),
            Some(unsettled) => format!("{} is not done yet{}", attempt(&body.attempt), because(&unsettled.reason)),
        },
        Body::AttemptFailed(body) => format!("{} failed{}", attempt(&body.attempt), because(&body.error)),
        Body::AttemptUnknown(body) => format!("{} is unknown{}", attempt(&body.attempt), because(&body.reason)),
        Body::AttemptLate(body) => {
            format!("{}: a late result said {}", attempt(&body.attempt), inert(&body.outcome))
        }
        Body::StepWaiting(body) => format!("{} waits", step(&body.step, body.item)),
        Body::StepWoken(body) => format!("{} is over", step(&body.step, body.item)),
        Body::StepEnded(body) => {
            format!("{} {}{}", step(&body.step, body.item), body.ending.as_str(), because(&body.reason))
        }
        Body::StepAnswered(body) => {
            let said = match body.answer {
                stanch_core::record::Answer::Succeeded => "it succeeded",
                stanch_core::record::Answer::Failed => "it failed",
                stanch_core::record::Answer::Retry => "try again",
            };
            format!("{} was answered for: {said}{}", step(&body.step, body.item), because(&body.note))
        }
        Body::ItemsStarted(body) => format!("{} began with {} items", step(&body.step, None), body.items.len()),
        Body::ItemsEnded(body) => match &body.failure {
            None => format!("{} succeeded for all items", step(&body.step, None)),
            Some(failure) => {
                format!("{} {}{}", step(&body.step, None), failure.ending.as_str(), because(&failure.reason))
            }
        },
        Body::ContainmentStarted(body) => {
            let until = body.until.map(|until| format!(" until {}", at(until))).unwrap_or_default();
            format!("{} is in force{until}", step(&body.step, body.item))
        }
        Body::ContainmentExtended(body) => {
            let until = body.until.map_or_else(|| "without end".to_owned(), |until| format!("until {}", at(until)));
            format!("what is in force stays {until}{}", because(&body.reason))
        }
        Body::UndoRequested(body) => format!("taking back was asked for{}", because(&body.reason)),
        Body::ContainmentEnded(body) => format!("something is no longer in force{}", because(&body.reason)),
        Body::ApprovalRequested(body) => format!("{} asks{}", step(&body.step, None), because(&body.prompt)),
        Body::ApprovalEscalated(body) => {
            format!("{} was escalated to {}{}", step(&body.step, None), body.people.join(", "), because(&body.reason))
        }
        Body::ApprovalDecided(body) => {
            format!("{} was {}{}", step(&body.step, None), body.verdict.as_str(), because(&body.reason))
        }
        Body::IncidentAcknowledged(_) => "the incident was acknowledged".to_owned(),
        Body::Redacted(_) => "a record whose content was deleted".to_owned(),
        _ => return None,
    })
}

fn table(text: &mut String, rows: &[String], first: usize, last: usize) {
    let omitted = rows.len().saturating_sub(first + last);
    for (at, row) in rows.iter().enumerate() {
        if omitted > 0 && at == first {
            let _ = writeln!(text, "| … | | {omitted} rows left out |");
        }
        if omitted == 0 || at < first || at >= first + omitted {
            text.push_str(row);
            text.push('\n');
        }
    }
    text.push('\n');
}

fn left_out(text: &mut String, count: usize) {
    if count > ROWS {
        let _ = writeln!(text, "\n{} more are left out.", count - ROWS);
    }
}

fn severity(incident: &Incident) -> String {
    format!("{:?}", incident.severity)
}

/// A time as a reader wants it: UTC, to the second.
fn at(time: Timestamp) -> String {
    time.to_chrono().format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn lasted(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// A text in one line, without letters that steer a terminal or turn the direction of writing.
fn plain(text: &str) -> String {
    let steers = |letter: char| matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    let mut line: String = text
        .chars()
        .filter(|&letter| !steers(letter))
        .map(|letter| if letter.is_control() || letter.is_whitespace() { ' ' } else { letter })
        .take(LONGEST)
        .collect();
    if text.chars().count() > LONGEST {
        line.push('…');
    }
    line.trim().to_owned()
}

/// The same so that Markdown takes it as text: no markup, table cell, HTML, link or mention comes of it.
fn inert(text: &str) -> String {
    let mut escaped = String::new();
    for letter in plain(text).replace("www.", "www\\.").chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\\' if escaped.ends_with("www") => escaped.push('\\'),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '#' | '+' | '!' | '|' | '~' | '$' | '^'
            | '=' | ':' | '@' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_a_text() {
        for (given, expected) in [
            ("a | b", "a \\| b"),
            ("<img src=x>", "&lt;img src\\=x&gt;"),
            ("[x](http://evil)", "\\[x\\]\\(http\\://evil\\)"),
            ("one\n# two\r\n- three", "one \\# two  - three"),
            ("`rm` **now** ~~x~~", "\\`rm\\` \\*\\*now\\*\\* \\~\\~x\\~\\~"),
            ("www.evil.corp", "www\\.evil.corp"),
            ("ann@corp.example", "ann\\@corp.example"),
            ("a\u{202e}b\u{1b}[31m", "ab \\[31m"),
            ("a\\|b", "a\\\\\\|b"),
            ("&lt;", "&amp;lt;"),
        ] {
            assert_eq!(inert(given), expected);
        }
        assert_eq!(inert(&"x".repeat(1000)).chars().count(), LONGEST + 1);
    }

    #[test]
    fn a_long_table_keeps_its_start_and_its_end() {
        let rows: Vec<String> = (0..10).map(|number| format!("| {number} |")).collect();
        let mut text = String::new();
        table(&mut text, &rows, 2, 3);
        assert_eq!(text, "| 0 |\n| 1 |\n| … | | 5 rows left out |\n| 7 |\n| 8 |\n| 9 |\n\n");
    }
}
