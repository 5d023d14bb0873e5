//! `stanch maintenance`: times in which runs for some alerts are held back.

use serde::Deserialize;
use serde_json::{Value, json};
use stanch_playbook::Timestamp;

use super::runs::read;
use crate::cli::Maintenance;
use crate::client::Client;
use crate::failure::{Exit, Outcome};
use crate::format::{self, Format, short};
use crate::terminal::{self, OUT, Style, Table, plain};

const LIST: &str = "/api/v1/maintenance";

#[derive(Deserialize)]
struct Windows {
    items: Vec<Window>,
}

#[derive(Deserialize)]
struct Window {
    id: String,
    matchers: Vec<String>,
    from: Timestamp,
    to: Timestamp,
    reason: String,
    by: String,
    active: bool,
}

/// Lists, plans or ends windows; each answers with those that are left.
pub async fn run(client: &Client, command: Maintenance, format: Format) -> Outcome {
    let answer = match command {
        Maintenance::List => client.get(LIST).await?,
        Maintenance::Add { matchers, length, from, reason } => {
            let body = json!({"matchers": matchers, "for": length, "from": from, "reason": reason});
            client.post(LIST, &body).await?
        }
        Maintenance::End { window } => {
            let id = client.whole_id("maintenance window", LIST, &window).await?;
            client.post(&format!("{LIST}/{id}/end"), &json!({})).await?
        }
    };
    show(answer, format)
}

fn show(answer: Value, format: Format) -> Outcome {
    if format.print(&answer)? {
        return Ok(Exit::Done);
    }
    let Windows { items } = read(answer)?;
    if items.is_empty() {
        terminal::print("no maintenance window\n")?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(["WINDOW", "STATE", "FROM (UTC)", "TO (UTC)", "BY", "MATCHERS", "REASON"]);
    for window in &items {
        let state = if window.active { (Style::Yellow, "active") } else { (Style::Dim, "planned") };
        table.row([
            plain(short(&window.id)),
            (state.0, state.1.to_owned()),
            plain(format::date_time(window.from)),
            plain(format::date_time(window.to)),
            plain(window.by.strip_prefix("person:").unwrap_or(&window.by).to_owned()),
            plain(window.matchers.join(", ")),
            plain(window.reason.clone()),
        ]);
    }
    terminal::print(&table.render(*OUT))?;
    Ok(Exit::Done)
}
