//! What runs only while this candidate leads: the command of `bellwether exec`, and the hooks.

use std::ffi::OsString;
use std::time::Duration;

use thiserror::Error;

use super::duration::Span;
use super::fault::FaultKind;
use super::faults::{Faults, OnTheList};
use crate::cli::flags::{CommandFlags, WorkFlags};
use crate::election::StopTime;

/// How long a hook may take unless told otherwise: long enough to move an address or to promote a database, short enough
/// that a hook that hangs does not leave the election without a leader that acts.
const HOOK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Less than it takes to start a shell on a busy machine.
const HOOK_TIMEOUT_LEAST: Duration = Duration::from_millis(100);

/// What runs only while this candidate leads. At least one of the three is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkConfig {
    /// Program and arguments of `bellwether exec`.
    pub command: Option<Vec<OsString>>,
    /// `--on-lead`: a command line for `/bin/sh`.
    pub on_lead: Option<String>,
    /// `--on-stand-down`: a command line for `/bin/sh`.
    pub on_stand_down: Option<String>,
    /// `--hook-timeout`
    pub hook_timeout: Duration,
    /// `--restart`
    pub restart: Restart,
}

/// What becomes of a command that ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Bellwether ends with it.
    Never,
    /// It runs again, unless its exit code is 0.
    OnFailure,
    /// It runs again.
    Always,
}

/// What can be wrong with the work.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WorkFault {
    /// A hook without a command line.
    #[error("{flag}: is empty; give a command line for /bin/sh, or leave {flag} out")]
    EmptyHook {
        /// The flag.
        flag: &'static str,
    },
    /// A hook that could never end in time.
    #[error("--hook-timeout: {} is too short; choose at least {}", Span(*.0), Span(HOOK_TIMEOUT_LEAST))]
    HookTimeoutTooShort(Duration),
    /// A setting for something that is not there.
    #[error("{flag}: is set without {needs}, and has no meaning then; leave it out")]
    WithoutWork {
        /// The flag.
        flag: &'static str,
        /// What it would be for.
        needs: &'static str,
    },
}

impl WorkFault {
    /// The flag that set it.
    pub(super) const fn flag(&self) -> &'static str {
        match self {
            Self::EmptyHook { flag } | Self::WithoutWork { flag, .. } => flag,
            Self::HookTimeoutTooShort(_) => "--hook-timeout",
        }
    }
}

/// The work, and how long it has to end.
pub(super) fn parse_work(
    flags: &WorkFlags,
    command: Option<&CommandFlags>,
    faults: &mut Faults<'_>,
) -> Option<(Option<WorkConfig>, StopTime)> {
    let on_lead = parse_hook("--on-lead", flags.on_lead.as_ref(), faults)?;
    let on_stand_down = parse_hook("--on-stand-down", flags.on_stand_down.as_ref(), faults)?;
    let hook_timeout = parse_hook_timeout(flags, faults);
    let stop_time = faults.duration_if_set("--stop-timeout", flags.stop_timeout.as_ref());
    let restart = command.map_or(Some(Restart::Never), |command| parse_restart(command, faults));
    let (has_hooks, has_work) =
        (on_lead.is_some() || on_stand_down.is_some(), on_lead.is_some() || on_stand_down.is_some() || command.is_some());
    if !has_hooks && faults.value("--hook-timeout", flags.hook_timeout.as_ref()).is_some() {
        let needs = "--on-lead or --on-stand-down";
        faults.push(FaultKind::Work(WorkFault::WithoutWork { flag: "--hook-timeout", needs }));
    }
    if !has_work && stop_time.is_some() {
        let needs = "--on-lead, --on-stand-down or a command (bellwether exec)";
        faults.push(FaultKind::Work(WorkFault::WithoutWork { flag: "--stop-timeout", needs }));
    }
    let (hook_timeout, restart) = (hook_timeout?, restart?);
    if !has_work {
        return Some((None, StopTime::NoWork));
    }
    let stop_time = match stop_time {
        None => StopTime::Default,
        Some(Ok(time)) => StopTime::Given(time),
        Some(Err(OnTheList)) => return None,
    };
    let command = command.map(|flags| flags.command.clone());
    Some((Some(WorkConfig { command, on_lead, on_stand_down, hook_timeout, restart }), stop_time))
}

fn parse_hook(flag: &'static str, given: Option<&String>, faults: &mut Faults<'_>) -> Option<Option<String>> {
    match faults.value(flag, given) {
        None => Some(None),
        Some(line) if line.trim().is_empty() => {
            faults.push(FaultKind::Work(WorkFault::EmptyHook { flag }));
            None
        }
        Some(line) => Some(Some(line.to_owned())),
    }
}

fn parse_hook_timeout(flags: &WorkFlags, faults: &mut Faults<'_>) -> Option<Duration> {
    let timeout = faults.duration("--hook-timeout", flags.hook_timeout.as_ref(), HOOK_TIMEOUT_DEFAULT)?;
    if timeout < HOOK_TIMEOUT_LEAST {
        faults.push(FaultKind::Work(WorkFault::HookTimeoutTooShort(timeout)));
        return None;
    }
    Some(timeout)
}

fn parse_restart(flags: &CommandFlags, faults: &mut Faults<'_>) -> Option<Restart> {
    let policies = [("never", Restart::Never), ("on-failure", Restart::OnFailure), ("always", Restart::Always)];
    match faults.value("--restart", flags.restart.as_ref()) {
        Some(text) => faults.choice("--restart", text, "never, on-failure, always", &policies),
        None => Some(Restart::Never),
    }
}
