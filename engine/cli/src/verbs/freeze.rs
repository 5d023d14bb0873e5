//! `stanch freeze` and `stanch unfreeze`: no new steps with side effects, for a while.

use serde_json::{Value, json};

use crate::client::Client;
use crate::failure::{Exit, Outcome};
use crate::format::Format;
use crate::terminal::{self, OUT, Style, inert};

/// Stops new steps with side effects, or says whether they are stopped.
pub async fn freeze(client: &Client, reason: Option<&str>, format: Format) -> Outcome {
    let answer = match reason {
        Some(reason) => client.post("/api/v1/freeze", &json!({"reason": reason})).await?,
        None => client.get("/api/v1/freeze").await?,
    };
    show(&answer, format)
}

/// Lets them start again.
pub async fn unfreeze(client: &Client, reason: &str, format: Format) -> Outcome {
    show(&client.post("/api/v1/unfreeze", &json!({"reason": reason})).await?, format)
}

fn show(answer: &Value, format: Format) -> Outcome {
    if format.print(answer)? {
        return Ok(Exit::Done);
    }
    let text = if answer["frozen"] == true {
        let why = inert(answer["reason"].as_str().unwrap_or_default());
        let line = format!("frozen: {why}");
        format!(
            "{}\n  no new step with side effects starts; what is under way ends, and leases still run out\n  stanch unfreeze ends it\n",
            OUT.paint(Style::Yellow, &line)
        )
    } else {
        format!("{}\n", OUT.paint(Style::Green, "not frozen: steps with side effects start"))
    };
    terminal::print(&text)?;
    Ok(Exit::Done)
}
