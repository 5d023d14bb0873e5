//! `stanch clock`: how the engine's clock goes, and an agreement to a jump of the wall clock.

use serde::Deserialize;
use serde_json::json;
use stanch_playbook::Timestamp;

use super::runs::read;
use crate::cli::Clock;
use crate::client::Client;
use crate::failure::{Exit, Outcome};
use crate::format::{self, Format};
use crate::terminal::{self, OUT, Style};

#[derive(Deserialize)]
struct View {
    now: Timestamp,
    jump: Option<Jump>,
}

#[derive(Deserialize)]
struct Jump {
    by_ms: i64,
    until: Timestamp,
}

/// Shows the clock, or lets it follow the wall clock.
pub async fn run(client: &Client, command: Option<Clock>, format: Format) -> Outcome {
    let answer = match command {
        Some(Clock::Agree) => client.post("/api/v1/clock/agree", &json!({})).await?,
        None => client.get("/api/v1/clock").await?,
    };
    if format.print(&answer)? {
        return Ok(Exit::Done);
    }
    let View { now, jump } = read(answer)?;
    let now = format::date_time(now);
    let text = match jump {
        None => format!("{}\n", OUT.paint(Style::Green, &format!("{now} UTC, by the wall clock"))),
        Some(Jump { by_ms, until }) => {
            let length = format::duration(std::time::Duration::from_millis(by_ms.unsigned_abs()));
            let side = if by_ms < 0 { "behind" } else { "ahead" };
            let line = format!("{now} UTC; the wall clock has jumped and is {length} {side}");
            format!(
                "{}\n  until {} UTC by this clock what is in force and the deadlines go by it; then the wall clock is followed\n  \
                 stanch clock agree follows it now; stanch inforce extend keeps something for longer\n",
                OUT.paint(Style::Yellow, &line),
                format::date_time(until)
            )
        }
    };
    terminal::print(&text)?;
    Ok(Exit::Done)
}
