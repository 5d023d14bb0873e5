//! What people on call can type.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use stanch_journal::Hash;
use stanch_playbook::Timestamp;

use super::{duration, time};

/// How much of a list is shown.
#[derive(Debug, Args)]
pub struct Limit {
    /// How many at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
}

impl Limit {
    /// The query of a list, with what else narrows it.
    pub fn query<const N: usize>(self, filters: [(&'static str, Option<String>); N]) -> Vec<(&'static str, String)> {
        let filters = filters.into_iter().filter_map(|(name, value)| Some((name, value?)));
        std::iter::once(("limit", self.limit.to_string())).chain(filters).collect()
    }
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
        #[command(flatten)]
        limit: Limit,
    },
    /// Shows a run with its steps
    Show {
        /// The run's id, or the beginning or the end of it
        run: String,
        /// Shows every item of each step; otherwise the first of those that have begun and not succeeded
        #[arg(long)]
        all_items: bool,
    },
    /// Shows a run as it happens, until it is over; Ctrl-C leaves it running
    Watch {
        /// The run's id, or the beginning or the end of it
        run: String,
    },
    /// Lists the files that its steps left behind, or fetches them
    Artifacts {
        /// The run's id, or the beginning or the end of it
        run: String,
        /// Writes them into this directory, each below its step; overwrites nothing
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
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
        #[command(flatten)]
        limit: Limit,
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
        #[command(flatten)]
        limit: Limit,
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
        #[command(flatten)]
        limit: Limit,
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
        #[command(flatten)]
        limit: Limit,
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
