//! What authors of playbooks can type.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use crate::format::{self, Format};
use crate::input::Input;

/// `stanch validate`
#[derive(Debug, Args)]
pub struct Validate {
    /// Playbooks, and directories with playbooks
    #[arg(required = true, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// Exits with 1 where there is a warning too
    #[arg(long)]
    pub deny_warnings: bool,
    /// How problems are written: table, json or yaml; sarif or github for other tools
    #[arg(short = 'o', long, value_parser = format::one_of(format::FINDINGS), default_value = "table", value_name = "FORMAT",
        hide_possible_values = true)]
    pub format: Format,
}

/// `stanch test`
#[derive(Debug, Args)]
pub struct Test {
    /// Test files, and directories with some; the present directory unless given
    #[arg(value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// Only tests whose file or name holds this text; of recorded runs, whose id or playbook does
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// Shows every step and branch that no test reached
    #[arg(long)]
    pub coverage: bool,
    /// Writes the results as JUnit XML too
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub junit: Option<PathBuf>,
    /// Plays recorded runs again with the present playbooks instead, and says what would change: the data directory of a
    /// stopped engine, or an export of its audit trail
    #[arg(long, value_name = "PATH", conflicts_with_all = ["paths", "coverage", "junit"], value_hint = ValueHint::AnyPath)]
    pub replay: Option<PathBuf>,
    /// Where the present playbooks lie, for --replay
    #[arg(long, env = "STANCH_PLAYBOOKS", default_value = "playbooks", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub playbooks: PathBuf,
}

/// `stanch explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// An Alertmanager webhook's body, a CloudEvent, or JSON with --subject; - is the standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub event: PathBuf,
    /// The NATS subject that it came in on
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Option<String>,
    /// Where the playbooks lie
    #[arg(long, env = "STANCH_PLAYBOOKS", default_value = "playbooks", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub playbooks: PathBuf,
}

/// `stanch plan`
#[derive(Debug, Args)]
pub struct Plan {
    /// The playbook: its name, or its file
    pub playbook: String,
    /// What starts it: an Alertmanager webhook's body, a CloudEvent, or JSON with --subject; a person unless given
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub event: Option<PathBuf>,
    /// The NATS subject that it came in on
    #[arg(long, value_name = "SUBJECT", requires = "event")]
    pub subject: Option<String>,
    /// An input that a person gives, as JSON or as text; may be given several times
    #[arg(short, long = "input", value_name = "NAME=VALUE", conflicts_with = "event")]
    pub inputs: Vec<Input>,
    /// Where the playbooks lie
    #[arg(long, env = "STANCH_PLAYBOOKS", default_value = "playbooks", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub playbooks: PathBuf,
}

/// `stanch graph`
#[derive(Debug, Args)]
pub struct Graph {
    /// The playbook: its name, or its file
    pub playbook: String,
    /// How it is drawn: ascii, mermaid, dot or svg
    #[arg(short = 'o', long, value_parser = format::one_of(format::PICTURES), default_value = "ascii", value_name = "FORMAT",
        hide_possible_values = true)]
    pub format: Format,
    /// Where to write; the standard output unless given
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Where the playbooks lie
    #[arg(long, env = "STANCH_PLAYBOOKS", default_value = "playbooks", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub playbooks: PathBuf,
}
