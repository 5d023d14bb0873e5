//! `stanch runs`: executions of playbooks.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stanch_playbook::Timestamp;
use stanch_server::summary::RunSummary;

use crate::cli::{Answer, Runs};
use crate::client::Client;
use crate::failure::{Exit, Failure, Outcome};
use crate::format::{self, Format, short};
use crate::story::gist;
use crate::terminal::{self, OUT, Style, Table, inert, plain};
use crate::watch;

const LIST: &str = "/api/v1/runs";

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

/// Lists, shows, watches, cancels or answers.
pub async fn run(client: &Client, command: Runs, format: Format) -> Outcome {
    match command {
        Runs::List { state, playbook, limit } => {
            let mut query = vec![("limit", limit.to_string())];
            query.extend(state.map(|state| ("state", state)));
            query.extend(playbook.map(|playbook| ("playbook", playbook)));
            let answer = client.list(LIST, &query).await?;
            if !format.print(&answer)? {
                terminal::print(&list(&read(answer)?))?;
            }
            Ok(Exit::Done)
        }
        Runs::Show { run } => {
            let id = client.whole_id("run", LIST, &run).await?;
            let answer = client.get(&format!("{LIST}/{id}")).await?;
            if !format.print(&answer)? {
                terminal::print(&show(&read(answer)?))?;
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
        Runs::Cancel { run, reason } => {
            let id = client.whole_id("run", LIST, &run).await?;
            let answer = client.post(&format!("{LIST}/{id}/cancel"), &json!({"reason": reason})).await?;
            acted(&answer, format, "the run is asked to end")
        }
        Runs::Answer { run, step, answer, note } => {
            let id = client.whole_id("run", LIST, &run).await?;
            let word = match answer {
                Answer::Succeeded => "succeeded",
                Answer::Failed => "failed",
                Answer::Retry => "retry",
            };
            let warning = match answer {
                Answer::Retry => retry_warning(&read(client.get(&format!("{LIST}/{id}")).await?)?, &step),
                Answer::Succeeded | Answer::Failed => None,
            };
            let body = json!({"step": step, "answer": word, "note": note});
            let answer = client.post(&format!("{LIST}/{id}/answer"), &body).await?;
            if let Some(warning) = warning {
                terminal::note(&warning);
            }
            acted(&answer, format, "the answer is recorded")
        }
    }
}

/// What trying a step again may do, where that is not known to be harmless. One line.
fn retry_warning(run: &Detail, named: &str) -> Option<String> {
    let is = |key: &str| key == named || key.split_once('.').is_some_and(|(_, name)| name == named);
    let (key, step) = run.steps.iter().find(|(key, _)| is(key))?;
    if step.state != "unknown" || step.idempotent == Some(true) {
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
            plain(run.playbook.as_str()),
        ]);
    }
    table.render(*OUT) + page.more()
}

/// A run's state, and beside it that somebody is asked.
fn state(run: &RunSummary) -> (Style, String) {
    let (style, state) = format::state(&run.state);
    match run.asks {
        0 => (style, state),
        asks => (format::mark("unknown").1, format!("{state} ({asks} unknown: answer)")),
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
}

#[derive(Debug, Deserialize)]
struct Step {
    state: String,
    #[serde(default)]
    position: usize,
    uses: Option<String>,
    idempotent: Option<bool>,
    output: Option<Value>,
    error: Option<String>,
    #[serde(default)]
    attempts: Vec<Attempt>,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
}

#[derive(Debug, Deserialize)]
struct Attempt {
    number: u32,
    outcome: String,
    error: Option<String>,
}

fn show(run: &Detail) -> String {
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
        line("input", format!("{name}={value}"));
    }
    if let Some(cancelled) = &run.cancelled {
        let why = if cancelled.reason.is_empty() { String::new() } else { format!(": {}", cancelled.reason) };
        line("cancelled", format!("by {}{why}", cancelled.by));
    }
    out.push('\n');
    out.push_str(&steps(run));
    out
}

fn steps(run: &Detail) -> String {
    let mut steps: Vec<(&String, &Step)> = run.steps.iter().collect();
    steps.sort_by_key(|(_, step)| step.position);
    let mut table = Table::new(["STEP", "STATE", "ACTION", "TRIES", "TOOK", "RESULT"]);
    for (key, step) in &steps {
        let uses = step.uses.as_deref().unwrap_or("-");
        let took = step.started_at.zip(step.finished_at).map(|(from, until)| format::duration(until.since(from)));
        let result = match (&step.error, &step.output) {
            (Some(error), _) => error.clone(),
            (None, Some(output)) => gist(uses, output),
            (None, None) => String::new(),
        };
        table.row([
            plain((*key).clone()),
            format::state(&step.state),
            plain(uses),
            plain(if step.attempts.is_empty() { "-".to_owned() } else { step.attempts.len().to_string() }),
            plain(took.unwrap_or_else(|| "-".to_owned())),
            plain(result),
        ]);
    }
    let mut out = table.render(*OUT);
    for (key, step) in &steps {
        if step.attempts.len() > 1 {
            out.push_str(&format!("\nattempts of {}\n", inert(key)));
            for attempt in &step.attempts {
                let (mark, style) = format::mark(&attempt.outcome);
                let text = attempt.error.as_deref().unwrap_or(&attempt.outcome);
                out.push_str(&format!("  {} {}  {}\n", OUT.paint(style, mark), attempt.number, inert(text)));
            }
        }
        if step.state == "unknown" {
            let (id, name) = (run.summary.id.to_string(), key.split_once('.').map_or(&***key, |(_, name)| name));
            let ask = format!("stanch runs answer {} {} succeeded|failed|retry", short(&id), inert(name));
            out.push_str(&format!("\n{}\n", OUT.paint(Style::Yellow, &ask)));
        }
    }
    out
}
