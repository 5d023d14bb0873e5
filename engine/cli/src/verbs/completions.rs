//! `stanch completions`: what the shell needs to complete verbs and options.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::failure::{Exit, Outcome};
use crate::terminal;

/// Prints the completions of a shell.
pub fn run(shell: Shell) -> Outcome {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "stanch", &mut text);
    terminal::print(&String::from_utf8_lossy(&text)).map(|()| Exit::Done)
}
