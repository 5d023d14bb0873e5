//! `log`: a line in the engine's log, at target `stanch::playbook`.
//!
//! `message` (text; anything else is shown as JSON), `level` (`trace`, `debug`, `info`, `warn`, `error`; default
//! `info`). Result `{message}`.

use std::borrow::Cow;

use futures::future::BoxFuture;
use serde_json::{Value, json};
use stanch_core::{Assignment, Outcome};

use crate::action::{Action, Context, refused};
use crate::parameters::{Parameters, text_or_json};

/// The action `log`.
#[derive(Debug, Clone, Copy)]
pub struct Log;

impl Action for Log {
    fn name(&self) -> &'static str {
        "log"
    }

    fn run<'a>(&'a self, context: &'a Context, assignment: &'a Assignment) -> BoxFuture<'a, Outcome> {
        let outcome = log(context, assignment).unwrap_or_else(refused);
        Box::pin(std::future::ready(outcome))
    }
}

fn log(context: &Context, assignment: &Assignment) -> Result<Outcome, String> {
    let parameters = Parameters::of(assignment);
    let message = text_or_json(parameters.get("message").unwrap_or(&Value::Null));
    let masked = context.secrets().mask_text(&message);
    let line = printable(&masked);
    let (playbook, run, step) =
        (assignment.playbook.as_str(), &assignment.attempt.run, assignment.attempt.step.as_str());
    macro_rules! emit {
        ($level:ident) => {
            tracing::$level!(target: "stanch::playbook", playbook, %run, step, "{line}")
        };
    }
    match parameters.optional_text("level")?.as_deref().unwrap_or("info") {
        "trace" => emit!(trace),
        "debug" => emit!(debug),
        "info" => emit!(info),
        "warn" | "warning" => emit!(warn),
        "error" => emit!(error),
        other => return Err(format!("`level` must be trace, debug, info, warn or error, not {other:?}")),
    }
    Ok(Outcome::Succeeded { output: json!({ "message": message }) })
}

/// The text with control characters escaped, so that a label cannot steer the terminal of whoever reads the log.
fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\nc"), "a\\u{1b}[31mb\\nc");
        assert_eq!(printable("plain"), "plain");
    }
}
