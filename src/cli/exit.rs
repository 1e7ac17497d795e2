//! How a command ends.

use std::process::ExitCode;

/// Exit codes; the numbers above 63 are those of sysexits.h. `AFTER_HELP` of `run` lists them for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// `run` stood down in order; the others: yes, or done.
    Done,
    /// The answer is no: not alive, not ready, not leading.
    No,
    /// Nobody answered, or nothing that can be understood.
    NoAnswer,
    /// The command line or the environment is wrong. Starting again does not help.
    Configuration,
    /// Bellwether has a bug. It stopped at once and left the lock to its lease.
    Internal,
    /// The system refused something at the start, such as a listen address that is taken. Starting again may help.
    CannotStart,
    /// `exec`: the command's own, or what a shell says of one that cannot be run.
    Command(u8),
}

impl Exit {
    /// The number the parent process sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::No => 1,
            Self::NoAnswer => 2,
            Self::Configuration => 64,
            Self::Internal => 70,
            Self::CannotStart => 75,
            Self::Command(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}
