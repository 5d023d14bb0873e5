//! The binary `stanch`. [`cli`] is what can be typed, `verbs` has one file a verb, and what they share lies beside them:
//! [`client`] (the engine's HTTP API), [`cases`], [`capture`], [`replay`] and [`graph`] (what authors of playbooks use),
//! [`follow`], [`story`] and [`watch`] (a run as it happens), [`terminal`] and [`mod@format`] (what people see), [`failure`]
//! (how a verb ends).
//!
//! Absent: anything that an engine decides. Invariant: no text from outside reaches the terminal but through
//! [`terminal::inert`].

mod capture;
mod cases;
mod cli;
mod client;
mod failure;
mod follow;
mod format;
mod graph;
mod input;
mod replay;
mod signals;
mod story;
mod terminal;
mod trail;
mod verbs;
mod watch;
mod xml;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;

use cli::{Cli, Command};
use failure::{Failure, Outcome};
use terminal::{ERR, Style};

/// Half the resident memory of a loaded engine and a tenth less CPU than the C library's allocator; its settings stand in
/// `.cargo/config.toml`, the figures in the README.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    install_crypto();
    match run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            if !failure.message.is_empty() {
                terminal::note(&format!("{} {}", ERR.paint(Style::Red, "error:"), failure.message));
            }
            if let Some(help) = &failure.help {
                terminal::note(&format!("{}  {help}", ERR.paint(Style::Cyan, "help:")));
            }
            failure.exit.into()
        }
    }
}

/// Names the cryptography that TLS uses; without it the first connection panics.
fn install_crypto() {
    // Where it is already named, it is the same.
    rustls::crypto::ring::default_provider().install_default().ok();
}

fn run(cli: Cli) -> Outcome {
    let Cli { server, token, format, command } = cli;
    // What needs no runtime first; an engine takes every core, a client needs one.
    let runtime = match &command {
        Command::Validate(arguments) => return verbs::validate::run(arguments),
        Command::Test(arguments) => return verbs::test::run(arguments, format),
        Command::Explain(arguments) => return verbs::explain::run(arguments, format),
        Command::Plan(arguments) => return verbs::plan::run(arguments, format),
        Command::Graph(arguments) => return verbs::graph::run(arguments),
        Command::Schema(arguments) => return verbs::schema::run(arguments),
        Command::Warden => {
            stanch_server::warden::keep_watch(std::io::stdin().lock());
            return Ok(failure::Exit::Done);
        }
        Command::Completions { shell } => return verbs::completions::run(*shell),
        Command::Serve(_) | Command::Demo(_) => tokio::runtime::Builder::new_multi_thread().enable_all().build(),
        _ => tokio::runtime::Builder::new_current_thread().enable_all().build(),
    };
    let runtime = runtime.map_err(|error| Failure::because("no runtime can be started", &error))?;
    let outcome = runtime.block_on(Box::pin(async move {
        let client = || client::Client::new(&server, token.as_deref());
        match command {
            Command::Serve(arguments) => verbs::serve::run(arguments).await,
            Command::Demo(arguments) => verbs::demo::run(arguments).await,
            Command::Run(arguments) => verbs::run::run(&client()?, arguments, format).await,
            Command::Emit(arguments) => verbs::emit::run(client, arguments, format).await,
            Command::Runs(command) => verbs::runs::run(&client()?, command, format).await,
            Command::Incidents(command) => verbs::incidents::run(&client()?, command, format).await,
            Command::Freeze { reason } => verbs::freeze::freeze(&client()?, reason.as_deref(), format).await,
            Command::Unfreeze { reason } => verbs::freeze::unfreeze(&client()?, &reason, format).await,
            Command::Clock { command } => verbs::clock::run(&client()?, command, format).await,
            Command::Maintenance(command) => verbs::maintenance::run(&client()?, command, format).await,
            Command::Approvals(command) => verbs::approvals::run(&client()?, command, format).await,
            Command::Approve(arguments) => verbs::approvals::decide(&client()?, arguments, true, format).await,
            Command::Deny(arguments) => verbs::approvals::decide(&client()?, arguments, false, format).await,
            Command::Inforce(command) => verbs::inforce::run(&client()?, command, format).await,
            Command::Events(command) => verbs::events::run(&client()?, command, format).await,
            Command::Audit(command) => verbs::audit::run(client, command, format).await,
            Command::Validate(_)
            | Command::Test(_)
            | Command::Explain(_)
            | Command::Plan(_)
            | Command::Graph(_)
            | Command::Schema(_)
            | Command::Completions { .. }
            | Command::Warden => Ok(failure::Exit::Done),
        }
    }));
    // Ends the processes of attempts, and waits for nothing that could hang.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}
