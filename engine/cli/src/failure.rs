//! How a verb ends: an exit code, and where it went wrong what and what to do about it.

use std::fmt;
use std::process::ExitCode;

/// What the process says to whoever started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// It failed, or there are findings.
    Failed,
    /// It was asked for wrongly; clap's own code too.
    Usage,
    /// The time was over before it was.
    TimedOut,
    /// Whoever asked may not.
    NotAllowed,
    /// No engine, or no NATS server, answers.
    Unreachable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::TimedOut => 3,
            Self::NotAllowed => 4,
            Self::Unreachable => 5,
        }
    }
}

/// Why a verb did not do what it was asked for.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What went wrong; empty where nobody is there to read it.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// What a verb comes to.
pub type Outcome = Result<Exit, Failure>;

impl Failure {
    /// It failed.
    pub fn new(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, message: message.into(), help: None }
    }

    /// It was asked for wrongly.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(message) }
    }

    /// It failed for a reason that has reasons of its own.
    pub fn because(what: impl fmt::Display, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(format!("{what}: {}", causes(error)))
    }

    /// What to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With another exit code.
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The reader of the output went away; there is nobody to tell, and nothing is wrong.
    pub fn nobody_reads() -> Self {
        Self { exit: Exit::Done, message: String::new(), help: None }
    }
}

/// An error and what is behind it, in one line.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Many errors already repeat what is behind them.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_manual() {
        let all = [Exit::Done, Exit::Failed, Exit::Usage, Exit::TimedOut, Exit::NotAllowed, Exit::Unreachable];
        assert_eq!(all.map(Exit::code), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn causes_are_named_once_each() {
        #[derive(Debug)]
        struct Outer(std::io::Error, &'static str);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.1)
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        let io = || std::io::Error::other("no such host");
        assert_eq!(causes(&Outer(io(), "cannot connect")), "cannot connect: no such host");
        assert_eq!(causes(&Outer(io(), "cannot connect: no such host")), "cannot connect: no such host");
    }
}
