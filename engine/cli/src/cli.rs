//! What can be typed.

mod authors;
mod operate;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use stanch_playbook::Timestamp;

pub use self::authors::{Explain, Graph, Plan, Test, Validate};
pub use self::operate::{Answer, Approvals, Audit, Clock, Decide, Events, Incidents, Inforce, Maintenance, Runs};
use crate::format::{self, Format};
use crate::input::Input;

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed or findings, 2 usage, 3 timed out, 4 not allowed, 5 unreachable";

/// Runs incident playbooks.
#[derive(Debug, Parser)]
#[command(name = "stanch", version, after_help = EXIT_CODES, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// The engine to talk to
    #[arg(long, global = true, env = "STANCH_SERVER", default_value = "http://127.0.0.1:9190", value_name = "URL")]
    pub server: String,
    /// Who you are: your token of the engine's stanch.yaml; better in STANCH_TOKEN, since others see arguments
    #[arg(long, global = true, env = "STANCH_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// How results are written: table, json or yaml
    #[arg(
        short = 'o',
        long,
        global = true,
        value_parser = format::one_of(format::RESULTS),
        default_value = "table",
        value_name = "FORMAT",
        hide_possible_values = true
    )]
    pub format: Format,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Starts an engine
    Serve(Serve),
    /// Shows an engine at work on a real alert, on a temporary directory
    Demo(Demo),
    /// Checks playbooks and shows every problem with its place
    Validate(Validate),
    /// Runs the tests of playbooks, `*.test.yaml`, on a virtual clock
    Test(Test),
    /// Says why each playbook would start from an event or not, with the values seen
    Explain(Explain),
    /// Shows what an event would do to a playbook; nothing is done
    Plan(Plan),
    /// Draws a playbook's steps and their order
    Graph(Graph),
    /// Starts a playbook by hand
    Run(Run),
    /// Sends an event: a webhook's body or a CloudEvent over HTTP, or a message over NATS
    Emit(Emit),
    /// Looks at runs and acts on them
    #[command(subcommand)]
    Runs(Runs),
    /// Looks at incidents and acts on them
    #[command(subcommand)]
    Incidents(Incidents),
    /// Looks at the questions that wait for an answer
    #[command(subcommand)]
    Approvals(Approvals),
    /// Approves what a run asks for, after showing exactly what would be done
    Approve(Decide),
    /// Denies what a run asks for, after showing exactly what would be done
    Deny(Decide),
    /// Looks at what is in force and can be taken back, and acts on it
    #[command(subcommand)]
    Inforce(Inforce),
    /// Looks at what came in and could not be read, and captures what comes in
    #[command(subcommand)]
    Events(Events),
    /// Stops new steps with side effects, in all runs, until `unfreeze`; without a reason, says whether they are stopped
    Freeze {
        /// Why; stands in the record
        reason: Option<String>,
    },
    /// Lets steps with side effects start again
    Unfreeze {
        /// Why; stands in the record
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Holds runs for some alerts back for a time
    #[command(subcommand)]
    Maintenance(Maintenance),
    /// Says how the engine's clock goes, and after a jump of the wall clock agrees to it
    Clock {
        /// What to do; shows it unless given
        #[command(subcommand)]
        command: Option<Clock>,
    },
    /// Shows, exports and verifies the record of everything
    #[command(subcommand)]
    Audit(Audit),
    /// Prints a JSON Schema, or writes or checks all of them
    Schema(Schema),
    /// Ends the commands of an engine that was killed; engines start it themselves
    #[command(hide = true)]
    Warden,
    /// Prints completions for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// `stanch serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// Where to listen: a loopback address, where no token is needed and one says who somebody is; any other is refused,
    /// so put a proxy with authentication before it where others are to reach it
    #[arg(long, env = "STANCH_LISTEN", default_value = "127.0.0.1:9190", value_name = "ADDRESS", value_parser = address)]
    pub listen: SocketAddr,
    /// Where the journal lies; made where it is not there
    #[arg(long, env = "STANCH_DATA_DIR", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data_dir: PathBuf,
    /// Where the playbooks lie; read again when they change
    #[arg(long, env = "STANCH_PLAYBOOKS", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub playbooks: PathBuf,
    /// The configuration, stanch.yaml; all of it can be left out
    #[arg(long, env = "STANCH_CONFIG", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

/// `stanch demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// Ends after the first run; otherwise the engine serves until Ctrl-C
    #[arg(long)]
    pub once: bool,
    /// Where to listen; 127.0.0.1:9190, or any free port where that is taken
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub listen: Option<SocketAddr>,
}

/// `stanch run`
#[derive(Debug, Args)]
pub struct Run {
    /// The playbook's name
    pub playbook: String,
    /// An input, as JSON or as text; may be given several times
    #[arg(short, long = "input", value_name = "NAME=VALUE")]
    pub inputs: Vec<Input>,
    /// Shows the run until it is over, or for so long (30s, 5m)
    #[arg(long, value_name = "DURATION", num_args = 0..=1, value_parser = duration)]
    pub wait: Option<Option<Duration>>,
    /// Makes a request that is sent again count once
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

/// `stanch emit`
#[derive(Debug, Args)]
pub struct Emit {
    /// The file with the event; - is the standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// What it is, alertmanager or cloudevent; told from its content unless given
    #[arg(long = "as", value_enum, value_name = "KIND", hide_possible_values = true)]
    pub kind: Option<EventKind>,
    /// The sender's name, for alerts
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub source: String,
    /// Publishes it on this NATS server instead
    #[arg(long, value_name = "URL", requires = "subject")]
    pub nats: Option<String>,
    /// The NATS subject
    #[arg(long, value_name = "SUBJECT", requires = "nats")]
    pub subject: Option<String>,
}

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EventKind {
    /// The body of an Alertmanager webhook.
    Alertmanager,
    /// A CloudEvent in its JSON form.
    #[value(name = "cloudevent", alias = "cloudevents")]
    CloudEvent,
}

/// `stanch schema`
#[derive(Debug, Args)]
pub struct Schema {
    /// Which: playbook, test, record, event, config or openapi; lists them where none is given
    #[arg(conflicts_with_all = ["write", "check"])]
    pub name: Option<String>,
    /// Writes all of them into a directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub write: Option<PathBuf>,
    /// Compares all of them with those in a directory
    #[arg(long, value_name = "DIR", conflicts_with = "write", value_hint = ValueHint::DirPath)]
    pub check: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, stanch_playbook::InvalidDuration> {
    stanch_playbook::parse_duration(text)
}

fn time(text: &str) -> Result<Timestamp, stanch_playbook::time::InvalidTimestamp> {
    Timestamp::parse(text)
}

fn address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "give an IP address and a port up to 65535, such as 127.0.0.1:9190")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn what_can_be_typed_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_verb_offers_what_it_writes_and_nothing_else() {
        let format = |arguments: &[&str]| {
            Cli::try_parse_from([&["stanch"], arguments].concat()).map(|cli| match cli.command {
                Command::Validate(verb) => verb.format,
                Command::Graph(verb) => verb.format,
                _ => cli.format,
            })
        };
        assert_eq!(format(&["runs", "list"]).unwrap(), Format::Table);
        assert_eq!(format(&["runs", "list", "-o", "text"]).unwrap(), Format::Table);
        assert_eq!(format(&["-o", "json", "runs", "list"]).unwrap(), Format::Json);
        assert_eq!(format(&["-o", "json", "validate", "x"]).unwrap(), Format::Json);
        assert_eq!(format(&["validate", "x"]).unwrap(), Format::Table);
        assert_eq!(format(&["validate", "x", "-o", "sarif"]).unwrap(), Format::Sarif);
        assert_eq!(format(&["graph", "x"]).unwrap(), Format::Ascii);
        for (verb, offered) in [
            (&["runs", "list"][..], "[possible values: table, json, yaml]"),
            (&["validate", "x"], "[possible values: table, json, yaml, sarif, github]"),
            (&["graph", "x"], "[possible values: ascii, mermaid, dot, svg]"),
        ] {
            let refused = format(&[verb, &["-o", "xml"]].concat()).unwrap_err().to_string();
            assert!(refused.contains(offered), "{refused}");
        }
    }

    #[test]
    fn a_wait_may_have_a_length_or_none() {
        let wait = |arguments: &[&str]| match Cli::try_parse_from(arguments).unwrap().command {
            Command::Run(run) => run.wait,
            _ => None,
        };
        assert_eq!(wait(&["stanch", "run", "x"]), None);
        assert_eq!(wait(&["stanch", "run", "x", "--wait"]), Some(None));
        assert_eq!(wait(&["stanch", "run", "x", "--wait", "30s"]), Some(Some(Duration::from_secs(30))));
        assert!(Cli::try_parse_from(["stanch", "run", "x", "--wait", "soon"]).is_err());
    }
}
