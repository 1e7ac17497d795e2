//! What runs only while this candidate leads: the command of `bellwether exec`, and the hooks.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use thiserror::Error;

use super::app_health::SHELL;
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
    /// Nobody runs it.
    #[error("{flag}: is run by {SHELL}, which is not there; put a shell into this image, or leave {flag} out")]
    NoShell {
        /// The flag.
        flag: &'static str,
    },
    /// It would never run.
    #[error(
        "--never-lead: is set, and the command of bellwether exec would never run; leave it out, or use bellwether run"
    )]
    NeverLeads,
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
            Self::EmptyHook { flag } | Self::NoShell { flag } | Self::WithoutWork { flag, .. } => flag,
            Self::NeverLeads => "--never-lead",
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
    let on_lead = parse_hook("--on-lead", flags.on_lead.as_ref(), faults);
    let on_stand_down = parse_hook("--on-stand-down", flags.on_stand_down.as_ref(), faults);
    let hook_timeout = parse_hook_timeout(flags, faults);
    let stop_time = faults.duration_if_set("--stop-timeout", flags.stop_timeout.as_ref());
    let restart = command.map_or(Some(Restart::Never), |command| parse_restart(command, faults));
    // One with a fault is there as well.
    let has_hooks = on_lead != Ok(None) || on_stand_down != Ok(None);
    let has_work = has_hooks || command.is_some();
    if !has_hooks && faults.value("--hook-timeout", flags.hook_timeout.as_ref()).is_some() {
        let needs = "--on-lead or --on-stand-down";
        faults.push(FaultKind::Work(WorkFault::WithoutWork { flag: "--hook-timeout", needs }));
    }
    if !has_work && stop_time.is_some() {
        let needs = "--on-lead, --on-stand-down or a command (bellwether exec)";
        faults.push(FaultKind::Work(WorkFault::WithoutWork { flag: "--stop-timeout", needs }));
    }
    let (Ok(on_lead), Ok(on_stand_down)) = (on_lead, on_stand_down) else { return None };
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

fn parse_hook(
    flag: &'static str,
    given: Option<&String>,
    faults: &mut Faults<'_>,
) -> Result<Option<String>, OnTheList> {
    let Some(line) = faults.value(flag, given) else { return Ok(None) };
    let fault = if line.trim().is_empty() {
        WorkFault::EmptyHook { flag }
    } else if !Path::new(SHELL).exists() {
        WorkFault::NoShell { flag }
    } else {
        return Ok(Some(line.to_owned()));
    };
    faults.push(FaultKind::Work(fault));
    Err(OnTheList)
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

#[cfg(test)]
mod tests {
    use super::super::sources::Sources;
    use super::*;

    fn parse(flags: &WorkFlags, command: Option<&CommandFlags>) -> Result<(Option<WorkConfig>, StopTime), Vec<String>> {
        let sources = Sources::default();
        let mut faults = Faults::new(&sources);
        let parsed = parse_work(flags, command, &mut faults);
        faults.finish(parsed).map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    #[expect(clippy::unnecessary_wraps, reason = "as a flag is")]
    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn command(restart: Option<&str>) -> CommandFlags {
        CommandFlags { restart: restart.map(str::to_owned), command: vec!["server".into(), "-v".into()] }
    }

    #[test]
    fn without_hooks_and_command_there_is_no_work() {
        assert_eq!(parse(&WorkFlags::default(), None), Ok((None, StopTime::NoWork)));
    }

    #[test]
    fn a_command_has_its_defaults() {
        let (work, stop_time) = parse(&WorkFlags::default(), Some(&command(None))).expect("a command is enough");
        let work = work.expect("a command is work");
        assert_eq!(work.command, Some(vec!["server".into(), "-v".into()]));
        assert_eq!(
            (work.restart, work.hook_timeout, stop_time),
            (Restart::Never, HOOK_TIMEOUT_DEFAULT, StopTime::Default)
        );
    }

    #[test]
    fn everything_can_be_set() {
        let flags = WorkFlags {
            on_lead: some("up"),
            on_stand_down: some("down"),
            hook_timeout: some("3s"),
            stop_timeout: some("1s"),
        };
        for (word, restart) in
            [("never", Restart::Never), ("on-failure", Restart::OnFailure), ("always", Restart::Always)]
        {
            let (work, stop_time) = parse(&flags, Some(&command(Some(word)))).expect("all in order");
            let work = work.expect("work");
            assert_eq!((work.on_lead, work.on_stand_down), (some("up"), some("down")));
            assert_eq!((work.hook_timeout, work.restart), (Duration::from_secs(3), restart));
            assert_eq!(stop_time, StopTime::Given(Duration::from_secs(1)));
        }
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let flags = WorkFlags {
            on_lead: some(" "),
            on_stand_down: some("down"),
            hook_timeout: some("99ms"),
            stop_timeout: some("soon"),
        };
        assert_eq!(
            parse(&flags, Some(&command(Some("sometimes")))),
            Err(vec![
                "--on-lead: is empty; give a command line for /bin/sh, or leave --on-lead out".to_owned(),
                "--hook-timeout: 99ms is too short; choose at least 100ms".to_owned(),
                "--stop-timeout: \"soon\" is not a duration; write for example 15s, 500ms or 1m30s".to_owned(),
                "--restart: \"sometimes\" is unknown; choose one of never, on-failure, always".to_owned(),
            ])
        );
    }

    #[test]
    fn settings_of_what_is_not_there_are_refused() {
        let flags = WorkFlags { hook_timeout: some("3s"), stop_timeout: some("1s"), ..WorkFlags::default() };
        let faults = parse(&flags, None).expect_err("nothing to run");
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("--hook-timeout: is set without --on-lead or --on-stand-down"), "{faults:?}");
        assert!(faults[1].starts_with("--stop-timeout: is set without --on-lead, --on-stand-down or a command"));
    }
}
