//! `stanch runs`: executions of playbooks.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stanch_playbook::Timestamp;
use stanch_server::held::{HeldBack, Holder};
use stanch_server::summary::RunSummary;

use super::approvals::Question;
use super::artifacts;
use super::validate::plural;
use crate::cli::{Answer, Runs};
use crate::client::Client;
use crate::failure::{Exit, Failure, Outcome};
use crate::format::{self, Format, short};
use crate::story::gist;
use crate::terminal::{self, OUT, Style, Table, inert, plain};
use crate::watch;

const LIST: &str = "/api/v1/runs";
/// How many items of a step are shown one by one unless all are asked for.
const ITEMS: usize = 20;
/// How many characters of an input are shown.
const INPUT: usize = 160;

/// Which items of a step are shown one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// The first of those that have begun and are not green.
    Some,
    /// Every one.
    All,
}

impl Shown {
    /// How many.
    const fn most(self) -> usize {
        match self {
            Self::Some => ITEMS,
            Self::All => usize::MAX,
        }
    }

    /// Whether items in this state are worth a line.
    fn takes(self, state: &str) -> bool {
        self == Self::All || !matches!(state, "succeeded" | "pending" | "skipped")
    }
}

/// One page of a list.
#[derive(Debug, Deserialize)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    next: Option<String>,
}

impl<T> Page<T> {
    /// A line that says that there are more, where there are.
    pub fn more(&self) -> &'static str {
        if self.next.is_some() { "there are more; --limit shows up to 500\n" } else { "" }
    }
}

/// An answer as what it should be.
pub fn read<T: DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer).map_err(|error| {
        Failure::because("the engine's answer cannot be read", &error)
            .help("is it of another version? -o json shows the answer as it is")
    })
}

/// Shows a page of a list.
pub async fn show_list<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    query: &[(&str, String)],
    format: Format,
    list: impl FnOnce(&Page<T>) -> String,
) -> Outcome {
    let answer = client.list(path, query).await?;
    if !format.print(&answer)? {
        terminal::print(&list(&read(answer)?))?;
    }
    Ok(Exit::Done)
}

/// Lists, shows, watches, cancels or answers.
pub async fn run(client: &Client, command: Runs, format: Format) -> Outcome {
    match command {
        Runs::List { state, playbook, limit } => {
            let query = limit.query([("state", state), ("playbook", playbook)]);
            show_list(client, LIST, &query, format, list).await
        }
        Runs::Show { run, all_items } => {
            let id = client.whole_id("run", LIST, &run).await?;
            let shown = if all_items { Shown::All } else { Shown::Some };
            let query: &[_] = if all_items { &[("items", "all".to_owned())] } else { &[] };
            let answer = client.list(&format!("{LIST}/{id}"), query).await?;
            if !format.print(&answer)? {
                terminal::print(&show(&read(answer)?, shown))?;
            }
            Ok(Exit::Done)
        }
        Runs::Watch { run } => {
            let id = client.whole_id("run", LIST, &run).await?;
            let quiet = format != Format::Table;
            let watched = watch::run(client, &id, quiet, None, |_| None).await?;
            if quiet {
                format.print(&client.get(&format!("{LIST}/{id}")).await?)?;
            }
            watch::outcome(watched, &id)
        }
        Runs::Artifacts { run, out } => {
            let id = client.whole_id("run", LIST, &run).await?;
            artifacts::run(client, &id, out.as_deref(), format).await
        }
        Runs::Cancel { run, reason, undo } => {
            let id = client.whole_id("run", LIST, &run).await?;
            let answer = client.post(&format!("{LIST}/{id}/cancel"), &json!({"reason": reason, "undo": undo})).await?;
            acted(&answer, format, "the run is asked to end")
        }
        Runs::Answer { run, step, item, answer, note } => {
            let (step, item) = with_item(step, item)?;
            let id = client.whole_id("run", LIST, &run).await?;
            let word = match answer {
                Answer::Succeeded => "succeeded",
                Answer::Failed => "failed",
                Answer::Retry => "retry",
            };
            let warning = match answer {
                Answer::Retry => retry_warning(&read(client.get(&format!("{LIST}/{id}")).await?)?, &step, item),
                Answer::Succeeded | Answer::Failed => None,
            };
            let body = json!({"step": step, "item": item, "answer": word, "note": note});
            let answer = client.post(&format!("{LIST}/{id}/answer"), &body).await?;
            if let Some(warning) = warning {
                terminal::note(&warning);
            }
            acted(&answer, format, "the answer is recorded")
        }
    }
}

/// A step and its item, of which `step[3]` names both.
fn with_item(step: String, item: Option<u32>) -> Result<(String, Option<u32>), Failure> {
    let Some((name, number)) = step.strip_suffix(']').and_then(|text| text.split_once('[')) else {
        return Ok((step, item));
    };
    match (number.parse(), item) {
        (Ok(number), None) => Ok((name.to_owned(), Some(number))),
        (Ok(_), Some(_)) => Err(Failure::usage("the item is named twice").help("leave out --item, or the brackets")),
        (Err(_), _) => Err(Failure::usage(format!("{} names no item", inert(&step)))
            .help("write the item's number, from 0, in the brackets: isolate[3]")),
    }
}

/// What trying a step again may do, where that is not known to be harmless. One line.
fn retry_warning(run: &Detail, named: &str, item: Option<u32>) -> Option<String> {
    let is = |key: &str| key == named || key.split_once('.').is_some_and(|(_, name)| name == named);
    let (key, step) = run.steps.iter().find(|(key, _)| is(key))?;
    if (item.is_none() && step.doing.state != "unknown") || step.idempotent == Some(true) {
        return None;
    }
    let look = match step.uses.as_deref() {
        Some("exec") => "; look whether the process of the attempt before still runs",
        _ => "",
    };
    Some(format!("warning: {} is not idempotent: if it happened before, it now happens twice{look}", inert(key)))
}

fn acted(answer: &Value, format: Format, what: &str) -> Outcome {
    if !format.print(answer)? {
        let state = inert(answer["state"].as_str().unwrap_or("in an unknown state"));
        terminal::print(&format!("{what}; it is {state}\n"))?;
    }
    Ok(Exit::Done)
}

fn list(page: &Page<RunSummary>) -> String {
    if page.items.is_empty() {
        return "no runs\n".to_owned();
    }
    let mut table = Table::new(["RUN", "STATE", "PHASE", "STARTED (UTC)", "TOOK", "INCIDENT", "PLAYBOOK"]);
    for run in &page.items {
        table.row([
            plain(short(&run.id.to_string())),
            state(run),
            plain(run.phase.map_or("-", |phase| phase.as_str())),
            plain(format::date_time(run.started_at)),
            plain(run.finished_at.map_or("-".to_owned(), |at| format::duration(at.since(run.started_at)))),
            plain(short(&run.incident.to_string())),
            plain(match &run.parent {
                Some(parent) => format!("{} (of {})", run.playbook, short(&parent.run.to_string())),
                None => run.playbook.to_string(),
            }),
        ]);
    }
    table.render(*OUT) + page.more()
}

/// A run's state, and beside it what holds it back or that somebody is asked.
fn state(run: &RunSummary) -> (Style, String) {
    let (style, state) = format::state(&run.state);
    if let Some(held) = run.held.as_ref().filter(|held| held.by != Holder::Budget) {
        return (Style::Yellow, format!("{state} ({})", held.by.as_str()));
    }
    match (run.asks, run.approvals) {
        (0, 0) => (style, state),
        (0, approvals) => (format::mark("unknown").1, format!("{state} ({approvals} to approve)")),
        (asks, 0) => (format::mark("unknown").1, format!("{state} ({asks} unknown: answer)")),
        (asks, approvals) => {
            (format::mark("unknown").1, format!("{state} ({asks} unknown: answer, {approvals} to approve)"))
        }
    }
}

/// A run as it is shown.
#[derive(Debug, Deserialize)]
struct Detail {
    #[serde(flatten)]
    summary: RunSummary,
    #[serde(default)]
    inputs: BTreeMap<String, Value>,
    trigger: Option<Trigger>,
    cancelled: Option<Cancelled>,
    steps: BTreeMap<String, Step>,
}

#[derive(Debug, Deserialize)]
struct Trigger {
    event: Event,
    #[serde(default)]
    alerts: Vec<Alert>,
}

#[derive(Debug, Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    source: String,
}

#[derive(Debug, Deserialize)]
struct Alert {
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
struct Cancelled {
    by: String,
    reason: String,
    #[serde(default)]
    undo: bool,
}

#[derive(Debug, Deserialize)]
struct Step {
    #[serde(flatten)]
    doing: Doing,
    #[serde(default)]
    position: usize,
    uses: Option<String>,
    idempotent: Option<bool>,
    items: Option<Items>,
    question: Option<Question>,
}

#[derive(Debug, Deserialize)]
struct Doing {
    state: String,
    output: Option<Value>,
    error: Option<String>,
    #[serde(default)]
    attempts: Vec<Attempt>,
    verifying: Option<Verifying>,
    child: Option<String>,
    containment: Option<Containment>,
    next_attempt_at: Option<Timestamp>,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
struct Items {
    count: usize,
    states: BTreeMap<String, usize>,
    shown: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    item: u32,
    value: Value,
    #[serde(flatten)]
    doing: Doing,
}

#[derive(Debug, Deserialize)]
struct Verifying {
    action: String,
    deadline: Timestamp,
}

#[derive(Debug, Deserialize)]
struct Containment {
    id: String,
    state: String,
    until: Option<Timestamp>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Attempt {
    purpose: String,
    number: u32,
    outcome: String,
    error: Option<String>,
}

fn show(run: &Detail, shown: Shown) -> String {
    let summary = &run.summary;
    let (style, state) = state(summary);
    let head = format!("run of {}", inert(summary.playbook.as_str()));
    let mut out = format!("{}  {}\n", OUT.paint(Style::Bold, &head), OUT.paint(style, &inert(&state)));
    let mut line = |name: &str, value: String| out.push_str(&format!("  {name:<12}{}\n", inert(&value)));
    line("id", summary.id.to_string());
    line("incident", summary.incident.to_string());
    line("started", format::date_time(summary.started_at));
    if let Some(at) = summary.finished_at {
        line("took", format::duration(at.since(summary.started_at)));
    }
    if let Some(trigger) = &run.trigger {
        line("trigger", format!("{} from {}", trigger.event.kind, trigger.event.source));
        for alert in trigger.alerts.iter().take(5) {
            let labels: Vec<String> = alert.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            line("alert", labels.join(" "));
        }
        if trigger.alerts.len() > 5 {
            line("", format!("and {} more alerts", trigger.alerts.len() - 5));
        }
    }
    for (name, value) in &run.inputs {
        line("input", format!("{name}={}", shortened(value)));
    }
    if let Some(cancelled) = &run.cancelled {
        let why = if cancelled.reason.is_empty() { String::new() } else { format!(": {}", cancelled.reason) };
        let undo = if cancelled.undo { ", taking back what it did" } else { "" };
        line("cancelled", format!("by {}{undo}{why}", cancelled.by));
    }
    if let Some(parent) = &summary.parent {
        let item = parent.item.map(|item| format!("[{item}]")).unwrap_or_default();
        line("part of", format!("{}{item} of run {}", parent.step, parent.run));
    }
    if let Some(held) = &summary.held {
        out.push_str(&format!("  {}\n", OUT.paint(Style::Yellow, &waits_because(held))));
    }
    out.push('\n');
    out.push_str(&steps(run, shown));
    out
}

/// An input as JSON in about [`INPUT`] characters, with how much of it is left out; of a list the first items, whole.
fn shortened(value: &Value) -> String {
    let text = value.to_string();
    let Some((end, _)) = text.char_indices().nth(INPUT) else { return text };
    let mut first = String::new();
    let mut count = 0;
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    for item in items.iter().map(Value::to_string) {
        if first.len() + item.len() > INPUT {
            break;
        }
        first.push_str(&item);
        first.push_str(", ");
        count += 1;
    }
    match count {
        0 => format!("{}… and {}; -o json shows them", &text[..end], plural(text.len() - end, "more byte")),
        _ if count == items.len() => text,
        _ => format!("[{first}… and {}; -o json shows them]", plural(items.len() - count, "more item")),
    }
}

/// What keeps a run from going on, and what to do about it, in one line.
pub fn waits_because(held: &HeldBack) -> String {
    inert(&format!("waits because {}; {}", held.why, held.remedy))
}

fn steps(run: &Detail, shown: Shown) -> String {
    let mut steps: Vec<(&String, &Step)> = run.steps.iter().collect();
    steps.sort_by_key(|(_, step)| step.position);
    let mut table = Table::new(["STEP", "STATE", "ACTION", "TRIES", "TOOK", "RESULT"]);
    for (key, step) in &steps {
        let uses = step.uses.as_deref().unwrap_or("-");
        let Doing { state, attempts, started_at, finished_at, .. } = &step.doing;
        let took = started_at.zip(*finished_at).map(|(from, until)| format::duration(until.since(from)));
        let tries = attempts.iter().filter(|attempt| attempt.purpose == "do").map(|attempt| attempt.number).max();
        table.row([
            plain((*key).clone()),
            format::state(state),
            plain(uses),
            plain(tries.map_or("-".to_owned(), |tries| tries.to_string())),
            plain(took.unwrap_or_else(|| "-".to_owned())),
            plain(result(step)),
        ]);
    }
    let mut out = table.render(*OUT);
    for (key, step) in &steps {
        out.push_str(&details(run, key, step, shown));
    }
    out
}

/// What a step came to, or is at, in one line.
fn result(step: &Step) -> String {
    let doing = &step.doing;
    if let Some(items) = &step.items {
        let states = items.states.iter().map(|(state, count)| (state.as_str(), *count));
        let progress = format::progress(items.count, states);
        return match &doing.error {
            Some(error) => format!("{progress}: {error}"),
            None => progress,
        };
    }
    if let Some(verifying) = &doing.verifying {
        let deadline = format::date_time(verifying.deadline);
        return format!("{} looks whether it holds, until {deadline}", inert(&verifying.action));
    }
    match (&doing.error, &doing.output, &step.question, &doing.child) {
        (Some(error), ..) => error.clone(),
        (None, Some(output), ..) => gist(step.uses.as_deref().unwrap_or("-"), output),
        (None, None, Some(question), _) => question.prompt.clone(),
        (None, None, None, Some(child)) => format!("run {}", short(child)),
        (None, None, None, None) => {
            doing.next_attempt_at.map(|at| format!("again at {}", format::date_time(at))).unwrap_or_default()
        }
    }
}

/// What there is to say of a step below the table: questions, items, tries, what is in force.
fn details(run: &Detail, key: &str, step: &Step, shown: Shown) -> String {
    let mut out = String::new();
    let id = run.summary.id.to_string();
    let name = key.split_once('.').map_or(key, |(_, name)| name);
    let answer = |item: &str| {
        let ask = format!("stanch runs answer {} {}{item} succeeded|failed|retry", short(&id), inert(name));
        format!("{}\n", OUT.paint(Style::Yellow, &ask))
    };
    if step.doing.attempts.len() > 1 {
        out.push_str(&format!("\nattempts of {}\n", inert(key)));
        for attempt in &step.doing.attempts {
            let (mark, style) = format::mark(&attempt.outcome);
            let text = attempt.error.as_deref().unwrap_or(&attempt.outcome);
            let purpose = if attempt.purpose == "do" { String::new() } else { format!("{} ", inert(&attempt.purpose)) };
            out.push_str(&format!("  {} {purpose}{}  {}\n", OUT.paint(style, mark), attempt.number, inert(text)));
        }
    }
    if let Some(items) = &step.items {
        out.push_str(&items_of(key, items, shown));
        for item in items.shown.iter().filter(|item| item.doing.state == "unknown").take(shown.most()) {
            out.push_str(&answer(&format!(" --item {}", item.item)));
        }
    }
    if step.doing.state == "unknown" {
        out.push_str(&format!("\n{}", answer("")));
    }
    if let Some(question) = step.question.as_ref().filter(|_| step.doing.state == "waiting") {
        out.push_str(&format!("\n{} asks\n{}", inert(key), question.told()));
        let id = short(&question.id);
        let ask = format!("stanch approve {id}, or stanch deny {id}");
        out.push_str(&format!("{}\n", OUT.paint(Style::Yellow, &inert(&ask))));
    } else if let Some(question) = &step.question {
        let said = question.answers.iter().map(|answer| format!("{} by {}", answer.verdict, answer.by));
        let said = said.collect::<Vec<_>>().join(", ");
        if !said.is_empty() {
            out.push_str(&format!("\n{}: {}\n", inert(key), inert(&said)));
        }
    }
    if let Some(containment) = &step.doing.containment {
        out.push_str(&format!("\n{}: {}\n", inert(key), inert(&containment.told())));
    }
    if let Some(child) = &step.doing.child {
        out.push_str(&format!("\n{}: stanch runs show {}\n", inert(key), inert(short(child))));
    }
    out
}

/// The items that are worth a line.
fn items_of(key: &str, items: &Items, shown: Shown) -> String {
    let worth: Vec<&Item> = items.shown.iter().filter(|item| shown.takes(&item.doing.state)).collect();
    // The engine may have left some out, but counts them all.
    let all: usize = items.states.iter().filter(|(state, _)| shown.takes(state)).map(|(_, count)| count).sum();
    let held = items.shown.iter().filter_map(|item| item.doing.containment.as_ref());
    let held = held.filter(|containment| containment.state != "over").count();
    let mut out = String::new();
    if !worth.is_empty() {
        let mut table = Table::new(["ITEM", "STATE", "VALUE", "RESULT"]);
        for item in worth.iter().take(shown.most()) {
            let Doing { state, error, child, containment, .. } = &item.doing;
            let held = containment.as_ref().filter(|of| of.error.is_some()).map(Containment::told);
            let child = child.as_ref().map(|child| format!("run {}", short(child)));
            let result = error.clone().or(held).or(child).unwrap_or_default();
            let value = item.value.as_str().map_or_else(|| item.value.to_string(), str::to_owned);
            table.row([
                plain(item.item.to_string()),
                format::state(state),
                plain(terminal::cut(&inert(&value), 30)),
                plain(result),
            ]);
        }
        out.push_str(&format!("\nitems of {}\n{}", inert(key), table.render(*OUT)));
        let more = all.saturating_sub(worth.len().min(shown.most()));
        if more > 0 {
            out.push_str(&format!("and {more} more; --all-items shows them\n"));
        }
    }
    if held > 0 {
        out.push_str(&format!("\n{}: {held} of the items shown in force; stanch inforce list\n", inert(key)));
    }
    out
}

impl Containment {
    /// How it stands, in one line.
    fn told(&self) -> String {
        let until = match self.until {
            Some(until) => format!("until {} UTC", format::date_time(until)),
            None => "until it is taken back".to_owned(),
        };
        let why = self.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        match self.state.as_str() {
            "over" => "not in force any more".to_owned(),
            "inforce" => format!("in force {until} ({})", short(&self.id)),
            state => format!("in force, undo {state}{why} ({})", short(&self.id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_may_stand_in_brackets_or_after_its_flag() {
        let of = |step: &str, item| with_item(step.to_owned(), item).map_err(|failure| failure.exit);
        assert_eq!(of("isolate", None), Ok(("isolate".to_owned(), None)));
        assert_eq!(of("isolate", Some(3)), Ok(("isolate".to_owned(), Some(3))));
        assert_eq!(of("contain.isolate[3]", None), Ok(("contain.isolate".to_owned(), Some(3))));
        assert_eq!(of("isolate[3]", Some(3)), Err(Exit::Usage));
        for wrong in ["isolate[]", "isolate[x]", "isolate[-1]", "isolate[1][2]"] {
            assert_eq!(of(wrong, None), Err(Exit::Usage), "{wrong}");
        }
    }
    #[test]
    fn a_long_input_is_shortened_and_says_what_is_left_out() {
        assert_eq!(shortened(&json!(["a", 1, {"b": null}])), r#"["a",1,{"b":null}]"#);
        let hosts: Vec<String> = (0..10_000).map(|host| format!("host-{host:05}")).collect();
        let shown = shortened(&json!(hosts));
        assert!(shown.starts_with(r#"["host-00000", "host-00001", "#), "{shown}");
        assert!(shown.ends_with(r#""host-00010", … and 9989 more items; -o json shows them]"#), "{shown}");
        for (value, left) in [
            (json!("東".repeat(1_000)), "東… and 2524 more bytes; -o json shows them"),
            (json!({"a": "x".repeat(1_000)}), "x… and 848 more bytes; -o json shows them"),
            (json!(["x".repeat(1_000)]), "x… and 844 more bytes; -o json shows them"),
            (json!(["x".repeat(158)]), "x\"]"),
        ] {
            let shown = shortened(&value);
            assert!(shown.ends_with(left), "{shown}");
            assert!(shown.chars().count() < INPUT + 50, "{shown}");
        }
    }

    #[test]
    fn items_that_are_not_shown_are_counted_also_those_that_the_engine_left_out() {
        let item = |number: usize, state: &str| json!({"item": number, "value": format!("h{number}"), "state": state});
        let of = |shown: Vec<Value>, states: Value| -> Items {
            read(json!({"count": 300, "states": states, "shown": shown})).unwrap()
        };
        let states = json!({"failed": 250, "succeeded": 50});
        let first = of((0..100).map(|number| item(number, "failed")).collect(), states.clone());
        let told = items_of("contain.isolate", &first, Shown::Some);
        assert!(told.contains("h19") && !told.contains("h20"), "{told}");
        assert!(told.contains("and 230 more; --all-items shows them"), "{told}");
        let mixed = (0..300).map(|number| item(number, if number < 250 { "failed" } else { "succeeded" })).collect();
        let told = items_of("contain.isolate", &of(mixed, states), Shown::All);
        assert!(told.contains("h249") && told.contains("h299") && !told.contains("more;"), "{told}");
    }
}
