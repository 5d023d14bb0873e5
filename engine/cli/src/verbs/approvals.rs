//! `stanch approvals`, `approve` and `deny`: questions to people, and their answers.

use std::io::{IsTerminal as _, Write as _};

use serde::Deserialize;
use serde_json::{Value, json};
use stanch_playbook::Timestamp;

use super::runs::{Page, read, show_list};
use crate::cli::{Approvals, Decide};
use crate::client::Client;
use crate::failure::{Exit, Failure, Outcome};
use crate::format::{self, Format, short};
use crate::terminal::{self, ERR, OUT, Style, Table, inert, note, plain};

const LIST: &str = "/api/v1/approvals";

/// A question with the run that asks it.
#[derive(Debug, Deserialize)]
struct Approval {
    run: String,
    playbook: String,
    step: String,
    #[serde(flatten)]
    question: Question,
}

/// A question: what would be done, and who may say so.
#[derive(Debug, Deserialize)]
pub struct Question {
    /// Its id.
    pub id: String,
    /// What is asked.
    pub prompt: String,
    targets: Vec<Target>,
    digest: String,
    from: Vec<String>,
    quorum: u32,
    excluded: Option<String>,
    /// The answers so far.
    pub answers: Vec<Answer>,
    asked_at: Timestamp,
    expires_at: Option<Timestamp>,
    replaces: Option<String>,
}

/// One answer.
#[derive(Debug, Deserialize)]
pub struct Answer {
    /// Who.
    pub by: String,
    /// approved or denied.
    pub verdict: String,
}

#[derive(Debug, Deserialize)]
struct Target {
    step: String,
    action: String,
    with: Value,
    #[serde(default)]
    env: Value,
}

/// What an answer led to.
#[derive(Debug, Deserialize)]
struct Decided {
    state: String,
    agreed: Option<u32>,
    quorum: u32,
    replaced_by: Option<String>,
}

/// Lists or shows questions.
pub async fn run(client: &Client, command: Approvals, format: Format) -> Outcome {
    match command {
        Approvals::List { playbook, limit } => {
            return show_list(client, LIST, &limit.query([("playbook", playbook)]), format, list).await;
        }
        Approvals::Show { approval } => {
            let id = client.whole_id("approval", LIST, &approval).await?;
            let answer = client.get(&format!("{LIST}/{id}")).await?;
            if !format.print(&answer)? {
                terminal::print(&read::<Approval>(answer)?.told())?;
            }
        }
    }
    Ok(Exit::Done)
}

/// Shows a question and answers it, for the targets that were shown.
pub async fn decide(client: &Client, arguments: Decide, approve: bool, format: Format) -> Outcome {
    let Decide { approval, reason, yes } = arguments;
    let id = client.whole_id("approval", LIST, &approval).await?;
    let approval: Approval = read(client.get(&format!("{LIST}/{id}")).await?)?;
    // Results for programs stand alone on the standard output.
    match format {
        Format::Json | Format::Yaml => note(approval.told().trim_end()),
        _ => terminal::print(&approval.told())?,
    }
    let (verb, verdict) = if approve { ("approve", "approved") } else { ("deny", "denied") };
    if !yes && !confirmed(verb)? {
        return Err(Failure::new("nothing was answered"));
    }
    let body = json!({"verdict": verdict, "digest": approval.question.digest, "reason": reason});
    let answer = client.post(&format!("{LIST}/{id}"), &body).await?;
    if format.print(&answer)? {
        return Ok(Exit::Done);
    }
    let decided: Decided = read(answer)?;
    let (_, style) = format::mark(verdict);
    let mut out = match (decided.state.as_str(), decided.agreed) {
        ("waiting", Some(agreed)) => {
            format!("{}; {agreed} of {} agree so far\n", OUT.paint(style, verdict), decided.quorum)
        }
        _ => format!("{}; stanch runs watch {} shows what follows\n", OUT.paint(style, verdict), short(&approval.run)),
    };
    if let Some(next) = &decided.replaced_by {
        out.push_str(&format!("it is asked again, since what would be done has changed: {}\n", inert(short(next))));
    }
    terminal::print(&out)?;
    Ok(Exit::Done)
}

/// Asks once more on a terminal.
fn confirmed(verb: &str) -> Result<bool, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage("there is no terminal to ask on").help(format!("--yes says {verb} without asking")));
    }
    let mut err = std::io::stderr().lock();
    // Where it cannot be shown, nothing is read either.
    write!(err, "{} [y/N] ", ERR.paint(Style::Bold, &format!("{verb}?"))).and_then(|()| err.flush()).ok();
    let mut line = String::new();
    stdin.read_line(&mut line).map_err(|error| Failure::because("the terminal cannot be read", &error))?;
    Ok(matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn list(page: &Page<Approval>) -> String {
    if page.items.is_empty() {
        return "no questions\n".to_owned();
    }
    let mut table = Table::new(["APPROVAL", "UNTIL (UTC)", "RUN", "AGREE", "QUESTION"]);
    for of in &page.items {
        let question = &of.question;
        table.row([
            plain(short(&question.id)),
            plain(question.expires_at.map_or("-".to_owned(), format::date_time)),
            plain(short(&of.run)),
            plain(format!("{} of {}", question.answers.len(), question.quorum)),
            plain(format!("{}: {}", of.playbook, question.prompt)),
        ]);
    }
    table.render(*OUT) + page.more()
}

/// What an action is given: its parameters, after its environment where it has one.
pub fn exactly(with: &Value, env: &Value) -> String {
    match env.as_object().filter(|env| !env.is_empty()) {
        Some(env) => {
            let set = |(name, value): (&String, &Value)| {
                format!("{name}={} ", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            };
            format!("{}{with}", env.iter().map(set).collect::<String>())
        }
        None => with.to_string(),
    }
}

impl Approval {
    fn told(&self) -> String {
        let asks = format!("run {} of {}, step {}, asks", short(&self.run), self.playbook, self.step);
        format!("{}\n{}", inert(&asks), self.question.told())
    }
}

impl Question {
    /// The prompt, every target, and who may decide.
    pub fn told(&self) -> String {
        let mut out = format!("  {}\n", OUT.paint(Style::Bold, &inert(&self.prompt)));
        for target in &self.targets {
            let head = format!("{}  {}", target.step, target.action);
            match &target.with {
                Value::Null => out.push_str(&format!("    {}  what exactly is not known yet\n", inert(&head))),
                Value::Array(items) => {
                    let count = if items.len() == 1 { "1 item".to_owned() } else { format!("{} items", items.len()) };
                    out.push_str(&format!("    {}  {count}\n", inert(&head)));
                    for (at, item) in items.iter().enumerate() {
                        out.push_str(&format!("      {}\n", inert(&exactly(item, &target.env[at]))));
                    }
                }
                with => {
                    out.push_str(&format!("    {}\n      {}\n", inert(&head), inert(&exactly(with, &target.env))));
                }
            }
        }
        if self.targets.is_empty() {
            out.push_str("    no step that it guards would do anything\n");
        }
        let mut line = |name: &str, text: String| out.push_str(&format!("  {name:<12}{}\n", inert(&text)));
        line("id", self.id.clone());
        let of = if self.from.is_empty() { "anybody".to_owned() } else { self.from.join(", ") };
        line("may decide", of);
        if let Some(excluded) = &self.excluded {
            line("may not", format!("{excluded}, who started the run"));
        }
        if self.quorum > 1 {
            line("must agree", self.quorum.to_string());
        }
        for answer in &self.answers {
            line(&answer.verdict, format!("by {}", answer.by));
        }
        line("asked", format!("{} UTC", format::date_time(self.asked_at)));
        if let Some(at) = self.expires_at {
            line("until", format!("{} UTC", format::date_time(at)));
        }
        if let Some(replaces) = &self.replaces {
            line("replaces", format!("{}: what would be done has changed", short(replaces)));
        }
        out
    }
}
