//! `stanch events`: what came in and could not be read, and what comes in next.

use serde::Deserialize;
use serde_json::json;
use stanch_server::summary::DeadLetterSummary;

use super::runs::{Page, read, show_list};
use crate::capture;
use crate::cli::Events;
use crate::client::Client;
use crate::failure::{Exit, Outcome};
use crate::format::{self, Format, short};
use crate::terminal::{self, OUT, Style, Table, inert, plain};

const LIST: &str = "/api/v1/dead-letters";

/// How much of a body is shown.
const BODY: usize = 4_000;

/// A dead letter with its body.
#[derive(Deserialize)]
struct Detail {
    #[serde(flatten)]
    summary: DeadLetterSummary,
    content_type: Option<String>,
    complete: bool,
    body: Option<String>,
}

/// Lists or shows dead letters, or gives one to the engine again.
pub async fn run(client: &Client, command: Events, format: Format) -> Outcome {
    match command {
        Events::DeadLetters { id: None, limit } => show_list(client, LIST, &limit.query([]), format, list).await,
        Events::DeadLetters { id: Some(id), .. } => {
            let id = client.whole_id("dead letter", LIST, &id).await?;
            let answer = client.get(&format!("{LIST}/{id}")).await?;
            if !format.print(&answer)? {
                terminal::print(&show(&read(answer)?))?;
            }
            Ok(Exit::Done)
        }
        Events::Capture { matchers, subject, output, timeout } => {
            let wanted = capture::Wanted::new(&matchers, subject)?;
            capture::run(client, &wanted, output.as_deref(), timeout).await
        }
        Events::Replay { id } => {
            let id = client.whole_id("dead letter", LIST, &id).await?;
            let started = client.post(&format!("{LIST}/{id}/replay"), &json!({})).await?;
            super::emit::show(&started, format)
        }
    }
}

fn list(page: &Page<DeadLetterSummary>) -> String {
    if page.items.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let mut table = Table::new(["LETTER", "CAME (UTC)", "VIA", "BYTES", "REPLAYED", "CODE", "REASON"]);
    for letter in &page.items {
        table.row([
            plain(short(&letter.id.to_string())),
            plain(format::date_time(letter.at)),
            plain(letter.via.clone()),
            plain(letter.size.to_string()),
            plain(letter.replayed_at.map_or("-".to_owned(), format::date_time)),
            plain(letter.code.clone()),
            plain(letter.reason.clone()),
        ]);
    }
    table.render(*OUT) + page.more()
}

fn show(letter: &Detail) -> String {
    let summary = &letter.summary;
    let mut out = format!("{}\n", OUT.paint(Style::Bold, &inert(&summary.reason)));
    let mut line = |name: &str, value: String| out.push_str(&format!("  {name:<14}{}\n", inert(&value)));
    line("id", summary.id.to_string());
    line("code", summary.code.clone());
    line("came", format::date_time(summary.at));
    line("via", summary.via.clone());
    line("content type", letter.content_type.clone().unwrap_or_else(|| "none".to_owned()));
    let kept = if letter.complete { "" } else { ", of which the beginning is kept; it cannot be replayed" };
    line("size", format!("{} bytes{kept}", summary.size));
    if let Some(at) = summary.replayed_at {
        line("replayed", format::date_time(at));
    }
    match &letter.body {
        None => out.push_str("\nnot UTF-8; -o json has it as body_base64\n"),
        Some(body) => {
            out.push('\n');
            let shown: String = body.chars().take(BODY).collect();
            for line in shown.lines() {
                out.push_str(&inert(line));
                out.push('\n');
            }
            if shown.len() < body.len() {
                out.push_str(&OUT.paint(Style::Dim, "… -o json has all of it"));
                out.push('\n');
            }
        }
    }
    out
}
