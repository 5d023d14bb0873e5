//! `stanch serve`: an engine until a signal ends it.

use std::io::ErrorKind;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use stanch_server::warden::Warden;
use stanch_server::{Config, Options, StartupError};
use tracing_subscriber::EnvFilter;

use crate::cli::Serve;
use crate::failure::{Exit, Failure, Outcome, causes};
use crate::signals::Signals;
use crate::terminal::{ERR, inert};

/// Serves until SIGTERM or SIGINT; a second signal ends it at once.
pub async fn run(arguments: Serve) -> Outcome {
    let Serve { listen, data_dir, playbooks, config } = arguments;
    log_to_stderr("info,async_nats=warn");
    without_core_dumps();
    let config_file = config;
    let config = match &config_file {
        Some(path) => Config::read(path)
            .map_err(|error| Failure::new(inert(&causes(&error))).help("stanch schema config shows every key"))?,
        None => Config::default(),
    };
    readable(&playbooks)?;
    let mut signals = Signals::new()?;
    let options = Options { listen, data_dir, playbooks, config, config_file, warden: warden() };
    let server = tokio::select! {
        started = stanch_server::start(options) => started.map_err(|error| not_started(&error))?,
        signal = signals.next() => return Err(Failure::new(format!("{signal} came before the engine had started"))),
    };
    for lack in server.lacks() {
        tracing::warn!("{lack}: what uses it fails until stanch.yaml has it");
    }
    tracing::info!(address = %server.address(), version = env!("CARGO_PKG_VERSION"), "the engine serves");
    let signal = signals.next().await;
    tracing::info!(signal, "the engine ends; a second signal ends it at once");
    tokio::select! {
        () = server.stop(signal) => Ok(Exit::Done),
        signal = signals.next() => Err(Failure::new(format!("{signal} came before the engine had ended in good order"))
            .help("nothing that was acknowledged is lost; attempts that were under way will be unknown")),
    }
}

/// This program as the warden of its commands; by a path that also holds where a newer one has taken its place.
pub fn warden() -> Warden {
    Warden::by(vec!["/proc/self/exe".into(), "warden".into()])
}

/// A core dump would hold secrets. Commands inherit the limit, which they may raise.
fn without_core_dumps() {
    let none = getrlimit(Resource::RLIMIT_CORE).and_then(|(_, most)| setrlimit(Resource::RLIMIT_CORE, 0, most));
    if let Err(error) = none {
        tracing::warn!(%error, "core dumps cannot be turned off");
    }
}

/// Why an engine did not start, and what to do about it.
pub fn not_started(error: &StartupError) -> Failure {
    let failure = Failure::new(inert(&causes(error)));
    match error {
        StartupError::Listen { source, .. } if source.kind() == ErrorKind::AddrInUse => {
            failure.help("another program, perhaps another engine, listens there; name another address with --listen")
        }
        StartupError::Listen { .. } => {
            failure.help("name an address of this machine with --listen, such as 127.0.0.1:9190")
        }
        _ => failure,
    }
}

/// Refuses a directory that is not there, before anything is made.
fn readable(playbooks: &Path) -> Result<(), Failure> {
    let shown = inert(&playbooks.display().to_string());
    match std::fs::metadata(playbooks) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(Failure::new(format!("{shown} is no directory"))
            .help("name the directory that holds your playbooks with --playbooks")),
        Err(error) => Err(Failure::because(format!("the playbook directory {shown} cannot be read"), &error)
            .help(format!("make it with: mkdir -p {shown}; or name another with --playbooks"))),
    }
}

/// Lines for people on a terminal, JSON for everything else. `STANCH_LOG`, or `RUST_LOG`, says how much; `usual` where neither does.
pub fn log_to_stderr(usual: &str) {
    let asked = std::env::var("STANCH_LOG").or_else(|_| std::env::var("RUST_LOG")).ok();
    let filter = EnvFilter::new(asked.as_deref().unwrap_or(usual));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = if ERR.live {
        builder.with_target(false).with_ansi(ERR.color).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    // A second subscriber is only ever a test's.
    set.ok();
}
