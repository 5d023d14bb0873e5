//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use stanch_journal::Hash;
use stanch_playbook::Timestamp;

use crate::format::Format;
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
        value_enum,
        default_value_t,
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
    /// Checks playbooks and shows every problem with its place, with --format sarif or github for other tools
    Validate(Validate),
    /// Runs the tests of playbooks, `*.test.yaml`, on a virtual clock
    Test(Test),
    /// Says why each playbook would start from an event or not, with the values seen
    Explain(Explain),
    /// Shows what an event would do to a playbook; nothing is done
    Plan(Plan),
    /// Draws a playbook's steps and their order, with --format ascii, mermaid, dot or svg
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
    /// Where to listen; a loopback address, since nothing authenticates yet
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

/// `stanch validate`
#[derive(Debug, Args)]
pub struct Validate {
    /// Playbooks, and directories with playbooks
    #[arg(required = true, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub paths: Vec<PathBuf>,
    /// Exits with 1 where there is a warning too
    #[arg(long)]
    pub deny_warnings: bool,
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
    /// Where to write; the standard output unless given
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Where the playbooks lie
    #[arg(long, env = "STANCH_PLAYBOOKS", default_value = "playbooks", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub playbooks: PathBuf,
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

/// `stanch runs`
#[derive(Debug, Subcommand)]
pub enum Runs {
    /// Lists runs, newest first
    List {
        /// queued, running, waiting, succeeded, failed or cancelled
        #[arg(long)]
        state: Option<String>,
        /// A playbook's name
        #[arg(long)]
        playbook: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
        limit: u16,
    },
    /// Shows a run with its steps
    Show {
        /// The run's id, or the beginning or the end of it
        run: String,
    },
    /// Shows a run as it happens, until it is over; Ctrl-C leaves it running
    Watch {
        /// The run's id, or the beginning or the end of it
        run: String,
    },
    /// Ends a run early
    Cancel {
        /// The run's id, or the beginning or the end of it
        run: String,
        /// Why; stands in the record
        #[arg(long, default_value = "")]
        reason: String,
        /// Takes back what it did, the last first
        #[arg(long)]
        undo: bool,
    },
    /// Says what became of a step whose outcome is unknown
    Answer {
        /// The run's id, or the beginning or the end of it
        run: String,
        /// The step: its name, or phase.name; with an item, name[3]
        step: String,
        /// The item of it, from 0, where it is done for each of several
        #[arg(long, value_name = "NUMBER")]
        item: Option<u32>,
        /// What became of it: succeeded or failed; retry tries it again
        #[arg(value_enum, hide_possible_values = true)]
        answer: Answer,
        /// What else is to stand in the record
        #[arg(long, default_value = "")]
        note: String,
    },
}

/// What became of an unknown attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Answer {
    /// It happened.
    Succeeded,
    /// It did not, or it went wrong.
    Failed,
    /// It is to be tried again.
    Retry,
}

/// `stanch incidents`
#[derive(Debug, Subcommand)]
pub enum Incidents {
    /// Lists incidents, newest first
    List {
        /// open, acknowledged or resolved
        #[arg(long)]
        state: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
        limit: u16,
    },
    /// Shows an incident with its alerts and runs
    Show {
        /// The incident's id, or the beginning or the end of it
        incident: String,
    },
    /// Takes notice of an incident
    Ack {
        /// The incident's id, or the beginning or the end of it
        incident: String,
    },
    /// Takes an incident on, or gives it to somebody
    Take {
        /// The incident's id, or the beginning or the end of it
        incident: String,
        /// Who leads it from now on; you, unless somebody is named
        #[arg(long)]
        owner: Option<String>,
    },
    /// Writes something down
    Note {
        /// The incident's id, or the beginning or the end of it
        incident: String,
        /// What
        note: String,
    },
    /// Makes an incident part of another one
    Merge {
        /// The incident's id, or the beginning or the end of it
        incident: String,
        /// The incident that it becomes part of
        #[arg(long)]
        into: String,
    },
    /// Closes an incident by hand
    Resolve {
        /// The incident's id, or the beginning or the end of it
        incident: String,
        /// Why; stands in the record
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// `stanch maintenance`
#[derive(Debug, Subcommand)]
pub enum Maintenance {
    /// Lists the windows that are not over
    List,
    /// Plans a window; runs for its alerts wait until it is over
    Add {
        /// Alertmanager's matchers, such as 'cluster="eu"'; all must match
        #[arg(required = true)]
        matchers: Vec<String>,
        /// For how long, such as 2h
        #[arg(long = "for", value_name = "DURATION")]
        length: String,
        /// From when, such as 2026-11-21T09:00:00Z; from now on unless given
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Why; stands in the record
        #[arg(long)]
        reason: String,
    },
    /// Ends a window before its time; the runs that it held go on
    End {
        /// The window's id, or the beginning or the end of it
        window: String,
    },
}

/// `stanch clock`
#[derive(Debug, Subcommand)]
pub enum Clock {
    /// Follows the wall clock now; what is due by it comes about at once
    Agree,
}

/// `stanch approvals`
#[derive(Debug, Subcommand)]
pub enum Approvals {
    /// Lists the questions that wait for an answer, newest first
    List {
        /// A playbook's name
        #[arg(long)]
        playbook: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
        limit: u16,
    },
    /// Shows a question with exactly what would be done
    Show {
        /// The question's id, or the beginning or the end of it
        approval: String,
    },
}

/// `stanch approve` and `stanch deny`
#[derive(Debug, Args)]
pub struct Decide {
    /// The question's id, or the beginning or the end of it
    pub approval: String,
    /// Why; stands in the record
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Answers without asking once more; needed where no terminal is
    #[arg(long, short)]
    pub yes: bool,
}

/// `stanch inforce`
#[derive(Debug, Subcommand)]
pub enum Inforce {
    /// Lists what is in force, newest first, and until when
    List {
        /// inforce, requested, undoing, backoff, unknown or failed
        #[arg(long)]
        state: Option<String>,
        /// A playbook's name
        #[arg(long)]
        playbook: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
        limit: u16,
    },
    /// Shows what was done, and what takes it back
    Show {
        /// Its id, or the beginning or the end of it
        containment: String,
    },
    /// Keeps it in force for longer
    #[command(group = clap::ArgGroup::new("length").required(true).args(["for", "until", "no_end"]))]
    Extend {
        /// Its id, or the beginning or the end of it
        containment: String,
        /// For how long from now on, such as 4h
        #[arg(long = "for", id = "for", value_name = "DURATION", value_parser = duration)]
        length: Option<Duration>,
        /// Until when, such as 2026-11-21T18:00:00Z
        #[arg(long, value_name = "TIME", value_parser = time)]
        until: Option<Timestamp>,
        /// Until somebody takes it back
        #[arg(long)]
        no_end: bool,
        /// Why; stands in the record
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Takes it back
    Undo {
        /// Its id, or the beginning or the end of it
        containment: String,
        /// Why; stands in the record
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Says that it is not in force any more, or never was; nothing is done about it
    End {
        /// Its id, or the beginning or the end of it
        containment: String,
        /// Why; stands in the record
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// `stanch events`
#[derive(Debug, Subcommand)]
pub enum Events {
    /// Lists what came in and could not be read, or shows one of them with its body
    DeadLetters {
        /// The dead letter's id, or the beginning or the end of it
        id: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
        limit: u16,
    },
    /// Writes the next alert or event that comes in, in the form that explain, plan and test read
    Capture {
        /// Only alerts that these matchers take, such as alertname="InstanceDown"; may be given several times
        #[arg(long = "matcher", value_name = "MATCHER")]
        matchers: Vec<String>,
        /// Only events on this NATS subject; * and > as NATS has them
        #[arg(long, value_name = "SUBJECT", conflicts_with = "matchers")]
        subject: Option<String>,
        /// Where to write; the standard output unless given
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
        /// How long to wait for it (30s, 5m); without end unless given
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        timeout: Option<Duration>,
    },
    /// Gives a dead letter to the engine again
    Replay {
        /// The dead letter's id, or the beginning or the end of it
        id: String,
    },
}

/// `stanch audit`
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Shows records, the last ones unless told otherwise
    Show {
        /// Only those of this run
        #[arg(long, conflicts_with = "from")]
        run: Option<String>,
        /// From this sequence on
        #[arg(long, value_name = "SEQUENCE")]
        from: Option<u64>,
        /// How many at most
        #[arg(long, default_value_t = 50)]
        limit: u64,
    },
    /// Checks an export offline; names the first record that does not hold
    Verify {
        /// The export; - is the standard input
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// It holds some records only, such as those of one run
        #[arg(long)]
        excerpt: bool,
        /// The hash of a head that was noted before; fails where no record has it, so that a cut-off end is found
        #[arg(long, value_name = "HASH")]
        head: Option<Hash>,
    },
    /// Writes every record as a line of JSON, from the running engine or from the directory of a stopped one
    Export {
        /// The data directory of a stopped engine
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        data_dir: Option<PathBuf>,
        /// Only the records of this run; verify them with --excerpt
        #[arg(long, conflicts_with = "data_dir")]
        run: Option<String>,
        /// Where to write; the standard output unless given
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        output: Option<PathBuf>,
    },
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
