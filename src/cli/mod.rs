//! The command line: one file per subcommand.

mod client;
mod exec;
mod exit;
pub mod flags;
mod guard;
mod http_client;
mod output;
mod probe;
mod resign;
mod run;
mod status;

use std::ffi::OsString;
use std::future::Future;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use exit::Exit;

use crate::config::{ConfigFault, PASSWORD_VARIABLE, Sources, variable};
use crate::http::leave_continue_to_the_serving_thread;
use flags::{ExecFlags, RunFlags};
use guard::GuardFlags;
use output::complain;
use probe::ProbeFlags;
use resign::ResignFlags;
use status::StatusFlags;

/// Lines of help are no longer than this, however wide the terminal is.
const HELP_WIDTH: usize = 120;

/// Leader election for the replicas of an application, on etcd.
///
/// A sidecar next to every replica campaigns for a lock in etcd. The application asks
/// http://localhost:4040/leader: 200 means "you lead", everything else, also no answer, means "you do not".
#[expect(clippy::doc_markdown, reason = "this comment is shown on a terminal")]
#[derive(Parser)]
#[command(name = "bellwether", version, max_term_width = HELP_WIDTH, subcommand_required = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Take part in an election: what the sidecar's container runs
    #[command(after_help = run::AFTER_HELP, override_usage = run::USAGE)]
    Run(Box<RunFlags>),
    /// Take part in an election, and run a command only while leading
    #[command(after_help = exec::AFTER_HELP, override_usage = exec::USAGE)]
    Exec(Box<ExecFlags>),
    /// Show who leads, who stands by, and since when
    ///
    /// Asks a running sidecar, or reads etcd: only then the flags below "Election" and "etcd" matter.
    #[command(after_help = status::AFTER_HELP)]
    Status(Box<StatusFlags>),
    /// Ask a sidecar to give up its term
    #[command(after_help = resign::AFTER_HELP)]
    Resign(ResignFlags),
    /// Ask a sidecar one question and answer with the exit code
    #[command(after_help = probe::AFTER_HELP)]
    Probe(ProbeFlags),
    /// The guardian of one run of a command, started by bellwether itself
    #[command(hide = true)]
    Guard(GuardFlags),
}

/// Does what the arguments say.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let matches = match command().try_get_matches_from(with_subcommand(arguments.into_iter().collect())) {
        Ok(matches) => matches,
        Err(error) => return usage(&error),
    };
    let sources = sources(&matches);
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let (name, outcome) = match cli.command {
        Command::Run(flags) => ("run", run::run(&flags, &sources)),
        Command::Exec(flags) => ("exec", exec::exec(&flags, &sources)),
        Command::Guard(flags) => return guard::guard(&flags),
        Command::Status(flags) => ("status", in_runtime(status::run(&flags, &sources))),
        Command::Resign(flags) => ("resign", in_runtime(resign::run(&flags, &sources))),
        Command::Probe(flags) => ("probe", in_runtime(probe::run(&flags, &sources))),
    };
    outcome.unwrap_or_else(|faults| refuse(name, &faults))
}

/// The images of the sidecars that `--compat` stands in for have no subcommands: what a pod gives them as `args` begins
/// with a flag, and means `run`.
fn with_subcommand(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let asks = |argument: &OsString| {
        let text = argument.to_string_lossy();
        text == "--compat" || text.starts_with("--compat=")
    };
    let asked = std::env::var_os(variable("--compat")).is_some_and(|value| !value.is_empty());
    let begins_with_flag = arguments
        .get(1)
        .is_some_and(|first| first.to_string_lossy().starts_with("--") && first != "--help" && first != "--version");
    if begins_with_flag && (asked || arguments.iter().any(asks)) {
        arguments.insert(1, "run".into());
    }
    arguments
}

/// The command line without what the environment of the moment would add to its help.
fn command() -> clap::Command {
    Cli::command().mut_subcommands(|subcommand| subcommand.mut_args(|arg| arg.hide_env_values(true)))
}

/// Which flags of the subcommand were set by the environment.
fn sources(matches: &ArgMatches) -> Sources {
    let Some((_, matches)) = matches.subcommand() else {
        return Sources::default();
    };
    let from_environment =
        matches.ids().filter(|id| matches.value_source(id.as_str()) == Some(ValueSource::EnvVariable));
    Sources::new(from_environment.map(|id| format!("--{}", id.as_str().replace('_', "-"))))
}

/// One line per fault.
fn refuse(command: &str, faults: &[ConfigFault]) -> Exit {
    for fault in faults {
        complain(&format!("error: {fault}\n"));
    }
    complain(&format!("See bellwether {command} --help.\n"));
    Exit::Configuration
}

/// What clap has to say: help and version, or an error of usage.
fn usage(error: &clap::Error) -> Exit {
    if error.kind() == ErrorKind::UnknownArgument
        && matches!(error.get(ContextKind::InvalidArg), Some(ContextValue::String(flag)) if flag == "--etcd-password")
    {
        complain(&format!(
            "error: --etcd-password: does not exist, because everyone on the machine can read command lines; put the \
             password into a file and give --etcd-password-file, or set the environment variable {PASSWORD_VARIABLE}\n"
        ));
        return Exit::Configuration;
    }
    // That nobody reads it is no error of ours.
    let _reader_gone = error.print();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        Exit::Done
    } else {
        Exit::Configuration
    }
}

/// Runs one of the commands that ask and end.
fn in_runtime(outcome: impl Future<Output = Result<Exit, Vec<ConfigFault>>>) -> Result<Exit, Vec<ConfigFault>> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    match runtime.enable_all().on_thread_start(leave_continue_to_the_serving_thread).build() {
        Ok(runtime) => {
            let outcome = runtime.block_on(outcome);
            // Dropping the runtime would wait for threads in system calls: a silent name server would keep a
            // sidecar that has stood down until Kubernetes kills it.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => {
            complain(&format!("error: the system refused what a start needs: {error}\n"));
            Ok(Exit::CannotStart)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Span;
    use crate::election::{StopTime, Timings, TimingsRequest};

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn every_flag_has_its_environment_variable_and_a_help_text() {
        for subcommand in command().get_subcommands() {
            for flag in subcommand.get_arguments().filter(|flag| !flag.is_positional()) {
                let long = format!("--{}", flag.get_long().expect("every flag has a long name"));
                if long == "--help" || long == "--version" {
                    continue;
                }
                let from = flag.get_env().map(|name| name.to_string_lossy().into_owned());
                assert_eq!(from, Some(variable(&long)), "{long}");
                assert_eq!(format!("--{}", flag.get_id().as_str().replace('_', "-")), long, "sources() relies on it");
                assert!(flag.get_help().is_some(), "{long}");
            }
        }
    }

    #[test]
    fn help_tells_the_defaults_the_timings_have() {
        let request = TimingsRequest { stop_time: StopTime::Default, ..TimingsRequest::default() };
        let timings = Timings::new(request).expect("the defaults go together");
        let run = command().get_subcommands().find(|command| command.get_name() == "run").cloned();
        let run = run.expect("there is a subcommand run");
        for (flag, default) in [
            ("lease_ttl", timings.lease_ttl()),
            ("keepalive_interval", timings.keepalive_interval()),
            ("attempt_timeout", timings.attempt_timeout()),
            ("safety_margin", timings.safety_margin()),
            ("reconnect_window", timings.reconnect_window()),
            ("answer_validity", timings.answer_validity()),
            ("drain_timeout", timings.drain_timeout()),
            ("stop_timeout", timings.stop_time()),
        ] {
            let help = run.get_arguments().find(|arg| arg.get_id() == flag).and_then(|arg| arg.get_help());
            let help = help.expect("every timing has a help text").to_string();
            assert!(help.ends_with(&format!(" {}]", Span(default))), "{flag}: {help}");
        }
    }

    #[test]
    fn no_flag_takes_the_password() {
        let run = command().get_subcommands().find(|command| command.get_name() == "run").cloned();
        let run = run.expect("there is a subcommand run");
        assert!(!run.get_arguments().any(|flag| flag.get_long() == Some("etcd-password")));
    }
}
