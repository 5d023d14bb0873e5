//! `stanch inforce`: what runs did that can be taken back, until when, and who keeps it or ends it.

use serde::Deserialize;
use serde_json::{Value, json};
use stanch_playbook::Timestamp;

use super::approvals::exactly;
use super::runs::{Page, read, show_list};
use crate::cli::Inforce;
use crate::client::Client;
use crate::failure::{Exit, Outcome};
use crate::format::{self, Format, short};
use crate::terminal::{self, OUT, Style, Table, cut, inert, plain};

const LIST: &str = "/api/v1/inforce";
/// How many columns of an item's value a list shows.
const VALUE: usize = 24;

#[derive(Debug, Deserialize)]
struct InForce {
    id: String,
    state: String,
    run: String,
    playbook: String,
    step: String,
    item: Option<u32>,
    value: Option<Value>,
    done: Value,
    undo: Undo,
    since: Timestamp,
    until: Option<Timestamp>,
    certain: bool,
    error: Option<String>,
    next_attempt_at: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
struct Undo {
    action: String,
    with: Value,
    #[serde(default)]
    env: Value,
}

/// Lists, shows, extends, takes back or ends.
pub async fn run(client: &Client, command: Inforce, format: Format) -> Outcome {
    let answer = match command {
        Inforce::List { state, playbook, limit } => {
            let query = limit.query([("state", state), ("playbook", playbook)]);
            return show_list(client, LIST, &query, format, list).await;
        }
        Inforce::Show { containment } => {
            let id = client.whole_id("containment", LIST, &containment).await?;
            client.get(&format!("{LIST}/{id}")).await?
        }
        Inforce::Extend { containment, length, until, no_end: _, reason } => {
            let length = length.map(|length| format!("{}ms", length.as_millis()));
            let body = json!({"for": length, "until": until, "reason": reason});
            act(client, &containment, "extend", &body).await?
        }
        Inforce::Undo { containment, reason } => act(client, &containment, "undo", &json!({"reason": reason})).await?,
        Inforce::End { containment, reason } => act(client, &containment, "end", &json!({"reason": reason})).await?,
    };
    if !format.print(&answer)? {
        terminal::print(&show(&read(answer)?))?;
    }
    Ok(Exit::Done)
}

async fn act(client: &Client, given: &str, verb: &str, body: &Value) -> Result<Value, crate::failure::Failure> {
    let id = client.whole_id("containment", LIST, given).await?;
    client.post(&format!("{LIST}/{id}/{verb}"), body).await
}

fn state(of: &InForce) -> (Style, String) {
    match of.state.as_str() {
        "inforce" if of.certain => (Style::Plain, "in force".to_owned()),
        "inforce" => (Style::Yellow, "perhaps".to_owned()),
        "failed" => (Style::Red, "undo failed".to_owned()),
        "unknown" => (Style::Yellow, "undo unknown".to_owned()),
        "ended" => (Style::Green, "ended".to_owned()),
        _ => (Style::Cyan, "undoing".to_owned()),
    }
}

fn step(of: &InForce) -> String {
    match of.item {
        Some(item) => format!("{}[{item}]", of.step),
        None => of.step.clone(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn list(page: &Page<InForce>) -> String {
    if page.items.is_empty() {
        return "nothing is in force\n".to_owned();
    }
    let mut table = Table::new(["ID", "STATE", "UNTIL (UTC)", "RUN", "WHAT"]);
    for of in &page.items {
        let value = of.value.as_ref().map(|value| format!(" {}", cut(&inert(&text(value)), VALUE))).unwrap_or_default();
        let name = of.step.split_once('.').map_or(&*of.step, |(_, name)| name);
        table.row([
            plain(short(&of.id)),
            state(of),
            plain(of.until.map_or("no end".to_owned(), format::date_time)),
            plain(short(&of.run)),
            plain(format!("{name}{value} of {}", of.playbook)),
        ]);
    }
    table.render(*OUT) + page.more()
}

fn show(of: &InForce) -> String {
    let (style, state) = state(of);
    let head = format!("{} of {}", step(of), of.playbook);
    let mut out = format!("{}  {}\n", OUT.paint(Style::Bold, &inert(&head)), OUT.paint(style, &inert(&state)));
    let mut line = |name: &str, value: String| out.push_str(&format!("  {name:<12}{}\n", inert(&value)));
    line("id", of.id.clone());
    line("run", of.run.clone());
    if let Some(value) = &of.value {
        line("value", text(value));
    }
    line("since", format!("{} UTC", format::date_time(of.since)));
    if of.state != "ended" {
        let until = of.until.map_or("somebody takes it back".to_owned(), |at| format!("{} UTC", format::date_time(at)));
        line("until", until);
    }
    if let Some(error) = &of.error {
        line("undo", error.clone());
    }
    if let Some(at) = of.next_attempt_at {
        line("undo again", format!("{} UTC", format::date_time(at)));
    }
    line("done", of.done.to_string());
    line("undo by", format!("{} {}", of.undo.action, exactly(&of.undo.with, &of.undo.env)));
    out
}
