//! `stanch incidents`: what people respond to.

use serde_json::{Value, json};
use stanch_server::summary::IncidentSummary;

use super::runs::{Page, read, show_list};
use crate::cli::Incidents;
use crate::client::Client;
use crate::failure::{Exit, Outcome};
use crate::format::{self, Format, short};
use crate::terminal::{self, OUT, Style, Table, inert, plain};

const LIST: &str = "/api/v1/incidents";

/// Lists, shows, acknowledges, takes on, notes, merges or closes.
pub async fn run(client: &Client, command: Incidents, format: Format) -> Outcome {
    let answer = match command {
        Incidents::List { state, limit } => {
            return show_list(client, LIST, &limit.query([("state", state)]), format, list).await;
        }
        Incidents::Show { incident } => {
            let id = client.whole_id("incident", LIST, &incident).await?;
            client.get(&format!("{LIST}/{id}")).await?
        }
        Incidents::Ack { incident } => {
            let id = client.whole_id("incident", LIST, &incident).await?;
            client.post(&format!("{LIST}/{id}/ack"), &json!({})).await?
        }
        Incidents::Take { incident, owner } => {
            let id = client.whole_id("incident", LIST, &incident).await?;
            client.post(&format!("{LIST}/{id}/take"), &json!({"owner": owner})).await?
        }
        Incidents::Note { incident, note } => {
            let id = client.whole_id("incident", LIST, &incident).await?;
            client.post(&format!("{LIST}/{id}/note"), &json!({"note": note})).await?
        }
        Incidents::Merge { incident, into } => {
            let id = client.whole_id("incident", LIST, &incident).await?;
            let into = client.whole_id("incident", LIST, &into).await?;
            client.post(&format!("{LIST}/{id}/merge"), &json!({"into": into})).await?
        }
        Incidents::Resolve { incident, reason } => {
            let id = client.whole_id("incident", LIST, &incident).await?;
            client.post(&format!("{LIST}/{id}/resolve"), &json!({"reason": reason})).await?
        }
    };
    show(answer, format)
}

fn state(incident: &IncidentSummary) -> (Style, String) {
    let style = match incident.state.as_str() {
        "open" => Style::Red,
        "acknowledged" => Style::Yellow,
        _ => Style::Green,
    };
    (style, incident.state.clone())
}

fn list(page: &Page<IncidentSummary>) -> String {
    if page.items.is_empty() {
        return "no incidents\n".to_owned();
    }
    let mut table = Table::new(["INCIDENT", "SEV", "STATE", "OPENED (UTC)", "ALERTS", "RUNS", "TITLE"]);
    for incident in &page.items {
        let firing = incident.alerts.iter().filter(|alert| alert.firing).count();
        table.row([
            plain(short(&incident.id.to_string())),
            plain(format!("{:?}", incident.severity)),
            state(incident),
            plain(format::date_time(incident.opened_at)),
            plain(match incident.alerts.len() {
                0 => "-".to_owned(),
                all => format!("{firing} of {all} firing"),
            }),
            plain(incident.runs.len().to_string()),
            plain(incident.title.clone()),
        ]);
    }
    table.render(*OUT) + page.more()
}

fn show(answer: Value, format: Format) -> Outcome {
    if format.print(&answer)? {
        return Ok(Exit::Done);
    }
    let incident: IncidentSummary = read(answer)?;
    let (style, state) = state(&incident);
    let title = format!("{:?} {}", incident.severity, inert(&incident.title));
    let mut out = format!("{}  {}\n", OUT.paint(Style::Bold, &title), OUT.paint(style, &inert(&state)));
    let mut line = |name: &str, value: String| out.push_str(&format!("  {name:<14}{}\n", inert(&value)));
    line("id", incident.id.to_string());
    line("key", incident.key.clone());
    line("opened", format::date_time(incident.opened_at));
    if let Some(who) = &incident.acknowledged_by {
        line("acknowledged", format!("by {}", who.strip_prefix("person:").unwrap_or(who)));
    }
    if let Some(owner) = &incident.owner {
        line("led by", owner.strip_prefix("person:").unwrap_or(owner).to_owned());
    }
    if let Some(into) = incident.merged_into {
        line("part of", into.to_string());
    }
    if let Some(at) = incident.settles_at {
        line("closes", format!("{} unless an alert fires again", format::date_time(at)));
    }
    if let Some(at) = incident.resolved_at {
        line("resolved", format::date_time(at));
    }
    for alert in &incident.alerts {
        let state = if alert.firing { "firing" } else { "resolved" };
        line("alert", format!("{}/{} {state}", alert.source, alert.fingerprint));
    }
    for run in &incident.runs {
        line("run", run.to_string());
    }
    for note in &incident.notes {
        let by = note.by.strip_prefix("person:").unwrap_or(&note.by);
        line("note", format!("{} {by}: {}", format::date_time(note.at), note.note));
    }
    if incident.failed_runs > 0 && incident.resolved_at.is_none() {
        line("held open by", format!("{} failed run(s); stanch incidents resolve closes it", incident.failed_runs));
    }
    terminal::print(&out)?;
    Ok(Exit::Done)
}
