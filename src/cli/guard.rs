//! `bellwether guard`: the guardian of one run of a command. Bellwether starts it itself.

use std::ffi::OsString;
use std::os::fd::RawFd;

use clap::Args;

use super::exit::Exit;
use super::output::complain;
use super::run::sabotage;
use crate::work;

/// What to guard.
#[derive(Args, Clone, Debug)]
pub struct GuardFlags {
    /// Held open as long as the guardian lives, and no longer by the command.
    #[arg(value_name = "NUMBER")]
    pub lock_descriptor: Option<RawFd>,

    /// Program and arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// Runs the command until nothing of it is left.
pub fn guard(flags: &GuardFlags) -> Exit {
    if let Err(fault) = sabotage() {
        complain(&format!("error: {fault}\n"));
        return Exit::Configuration;
    }
    match work::guard(&flags.command, flags.lock_descriptor) {
        Ok(()) => Exit::Done,
        Err(error @ work::GuardianError::NoSocket) => {
            complain(&format!("error: {error}\n"));
            Exit::Configuration
        }
        Err(error @ (work::GuardianError::System(_) | work::GuardianError::Order(_))) => {
            complain(&format!("error: {error}\n"));
            Exit::Internal
        }
    }
}
