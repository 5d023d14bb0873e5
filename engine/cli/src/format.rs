//! Times, durations and ids as people read them; results as programs do.

use std::time::Duration;

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::Value;
use stanch_playbook::Timestamp;

use crate::failure::Failure;
use crate::terminal::{self, Style};

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    #[value(alias = "text")]
    Table,
    /// As the engine answers.
    Json,
    /// The same as YAML.
    Yaml,
    /// SARIF 2.1.0, of `validate`.
    Sarif,
    /// Commands of a GitHub workflow, of `validate`.
    Github,
    /// A picture for a terminal, of `graph`.
    Ascii,
    /// A picture for Markdown, of `graph`.
    Mermaid,
    /// A picture for Graphviz, of `graph`.
    Dot,
    /// A picture for a browser, of `graph`.
    Svg,
}

/// What most verbs write.
pub const RESULTS: &[Format] = &[Format::Table, Format::Json, Format::Yaml];
/// What `validate` writes.
pub const FINDINGS: &[Format] = &[Format::Table, Format::Json, Format::Yaml, Format::Sarif, Format::Github];
/// What `graph` draws.
pub const PICTURES: &[Format] = &[Format::Ascii, Format::Mermaid, Format::Dot, Format::Svg];

/// Takes these alone, and offers no others.
pub fn one_of(offered: &'static [Format]) -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(offered.iter().filter_map(ValueEnum::to_possible_value))
        .try_map(|name| Format::from_str(&name, false))
}

impl Format {
    /// Writes a result for programs; false where people read and the caller has to.
    pub fn print(self, value: &Value) -> Result<bool, Failure> {
        let text = match self {
            Self::Table | Self::Sarif | Self::Github | Self::Ascii | Self::Mermaid | Self::Dot | Self::Svg => {
                return Ok(false);
            }
            Self::Json => format!("{value:#}\n"),
            Self::Yaml => {
                let text = serde_saphyr::to_string(value)
                    .map_err(|error| Failure::because("the result cannot be written as YAML", &error))?;
                if text.ends_with('\n') { text } else { text + "\n" }
            }
        };
        terminal::print(&text).map(|()| true)
    }
}

/// The end of an id, which is its random part: enough to tell runs apart, and what the verbs take.
pub fn short(id: &str) -> &str {
    id.get(id.len().saturating_sub(8)..).unwrap_or(id)
}

/// `2026-11-21 05:03:12`, UTC.
pub fn date_time(at: Timestamp) -> String {
    at.to_chrono().format("%Y-%m-%d %H:%M:%S").to_string()
}

/// `05:03:12.345`, UTC.
pub fn clock(at: Timestamp) -> String {
    at.to_chrono().format("%H:%M:%S%.3f").to_string()
}

/// Two figures where it is short, whole units where it is long: `3 ms`, `1.4 s`, `2m05s`, `3h00m`.
pub fn duration(length: Duration) -> String {
    let millis = length.as_millis();
    let seconds = length.as_secs();
    match millis {
        0 => "<1 ms".to_owned(),
        1..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{}.{} s", seconds, millis % 1_000 / 100),
        60_000..3_600_000 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// The mark and the style of a run's or a step's state.
pub fn mark(state: &str) -> (&'static str, Style) {
    match state {
        "succeeded" | "resolved" | "approved" => ("✔", Style::Green),
        "failed" | "denied" => ("✘", Style::Red),
        "tolerated" => ("!", Style::Yellow),
        "unknown" => ("?", Style::Yellow),
        "skipped" | "cancelled" | "blocked" | "pending" => ("-", Style::Dim),
        "waiting" | "backoff" | "queued" => ("…", Style::Cyan),
        _ => ("▸", Style::Cyan),
    }
}

/// How far a step with items is: `12/40, 1 failed, 1 unknown`. What is over counts, and what is not green is named.
pub fn progress<'a>(count: usize, states: impl IntoIterator<Item = (&'a str, usize)>) -> String {
    let (mut over, mut parts) = (0, Vec::new());
    for (state, many) in states {
        if matches!(state, "succeeded" | "skipped" | "tolerated" | "failed" | "cancelled" | "blocked") {
            over += many;
        }
        if many > 0 && !matches!(state, "succeeded" | "skipped" | "pending" | "running") {
            parts.push(format!(", {many} {state}"));
        }
    }
    format!("{over}/{count}{}", parts.concat())
}

/// A state as a cell of a table.
pub fn state(state: &str) -> (Style, String) {
    let (mark, style) = mark(state);
    (style, format!("{mark} {state}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_at_a_glance() {
        for (millis, shown) in [
            (0, "<1 ms"),
            (7, "7 ms"),
            (999, "999 ms"),
            (1_449, "1.4 s"),
            (59_999, "59.9 s"),
            (60_000, "1m00s"),
            (125_000, "2m05s"),
            (10_800_000, "3h00m"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), shown);
        }
    }

    #[test]
    fn progress_counts_what_is_over_and_names_what_is_not_green() {
        assert_eq!(progress(3, [("pending", 2), ("running", 1)]), "0/3");
        let states = [("failed", 1), ("pending", 20), ("succeeded", 11), ("unknown", 1), ("running", 7)];
        assert_eq!(progress(40, states), "12/40, 1 failed, 1 unknown");
    }

    #[test]
    fn short_takes_any_text() {
        assert_eq!(short("01890000-0000-7000-8000-0123456789ab"), "456789ab");
        assert_eq!(short("ab"), "ab");
        assert_eq!(short("東京東京東京"), "東京東京東京");
    }
}
