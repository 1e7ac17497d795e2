//! `bellwether run`: takes part in an election until it is told to stop.

use super::exit::Exit;
use super::flags::{CommandFlags, RunFlags};
use super::in_runtime;
use super::output::complain;
use crate::config::{Config, ConfigFault, FaultKind, Faults, Sources, Surroundings};
use crate::driver::{self, DriverError};
use crate::etcd::EtcdError;
use crate::http::HttpError;
use crate::logs;
#[cfg(feature = "sabotage")]
use crate::protections::Protections;
use crate::work::WorkError;

/// The two flags without a default first.
pub const USAGE: &str = "bellwether run --election <NAME> --etcd-endpoints <URL,…> [OPTIONS]";

/// Examples, signals and exit codes, below the flags.
pub const AFTER_HELP: &str = "\
Every flag can be given as its environment variable; the flag wins, and an empty variable counts as not set.

Signals:
  TERM, INT  stand down in order, release the lock and exit 0; a second one exits at once
  HUP        read certificates and password again

Exit codes:
  0    stood down in order
  64   the configuration is wrong: every fault is on stderr, one per line
  70   a bug in bellwether: it stopped at once and left the lock to its lease
  75   the system refused something at the start, such as a listen address that is taken or a
       --state-dir that another process holds; starting again may help
  130  a second signal came, and it was INT
  143  a second signal came, and it was TERM

Examples:
  bellwether run --election web --etcd-endpoints http://localhost:2379
  bellwether run --election web --ttl 15s --etcd-endpoints https://etcd-0:2379,https://etcd-1:2379 \\
    --etcd-ca-file ca.pem --etcd-cert-file web.pem --etcd-key-file web-key.pem
  curl -i localhost:4040/leader";

/// Parses, then runs until a signal.
///
/// # Errors
/// Every fault of the configuration.
pub fn run(flags: &RunFlags, sources: &Sources) -> Result<Exit, Vec<ConfigFault>> {
    parse(flags, None, sources).and_then(drive_to_the_end)
}

/// Everything there is to know, with a command for `bellwether exec`.
///
/// # Errors
/// Every fault of the configuration.
pub fn parse(flags: &RunFlags, command: Option<&CommandFlags>, sources: &Sources) -> Result<Config, Vec<ConfigFault>> {
    let mut faults = Faults::new(sources);
    let sabotaged = faults.keep(sabotage());
    match (Config::parse_with(flags, command, sources, &Surroundings::read()), faults.finish(sabotaged)) {
        (Ok(config), Ok(())) => Ok(config),
        (Ok(_), Err(faults)) | (Err(faults), Ok(())) => Err(faults),
        (Err(mut faults), Err(more)) => {
            faults.extend(more);
            Err(faults)
        }
    }
}

/// Takes part until it has stood down.
///
/// # Errors
/// None: what is wrong from here on is an exit code.
pub fn drive_to_the_end(config: Config) -> Result<Exit, Vec<ConfigFault>> {
    exit_on_panic();
    in_runtime(async { Ok(drive(config).await) })
}

async fn drive(config: Config) -> Exit {
    if let Err(error) = logs::init(config.log) {
        complain(&format!("error: {error}\n"));
        return Exit::Internal;
    }
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match driver::run(config).await {
        Ok(None) => Exit::Done,
        Ok(Some(code)) => Exit::Command(code),
        Err(error) => {
            let exit = exit_of(&error);
            tracing::error!(exit_code = exit.code(), "{error}");
            exit
        }
    }
}

/// Whether starting again may help, or a bug has to be reported.
fn exit_of(error: &DriverError) -> Exit {
    match error {
        DriverError::Etcd(EtcdError::TaskDied(_))
        | DriverError::Http(HttpError::Ended { .. })
        | DriverError::Kubernetes(_)
        | DriverError::Work(WorkError::GuardianDied)
        | DriverError::AppHealth(_)
        | DriverError::Task(_) => Exit::Internal,
        DriverError::Etcd(EtcdError::File { .. } | EtcdError::Endpoint { .. } | EtcdError::NoAnswer(_))
        | DriverError::Http(
            HttpError::Bind { .. } | HttpError::SocketInUse(_) | HttpError::NotASocket(_) | HttpError::NoAddress,
        )
        | DriverError::Work(WorkError::NoSubreaper(_) | WorkError::NoProc)
        | DriverError::Signals(_)
        | DriverError::StateDir(_)
        | DriverError::Descriptors(_)
        | DriverError::NoRandomness => Exit::CannotStart,
    }
}

/// Whatever thread or task has a bug: the process is gone, nobody answers 200 any more, and etcd gives the
/// lock to another when the lease ends.
#[expect(clippy::exit, clippy::disallowed_methods, reason = "after a bug no destructor is to be trusted")]
fn exit_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        std::process::exit(Exit::Internal.code().into());
    }));
}

/// Takes the protection away that `BELLWETHER_SABOTAGE` names.
#[cfg(feature = "sabotage")]
pub(super) fn sabotage() -> Result<(), FaultKind> {
    let Some(value) = sabotage_asked_for() else { return Ok(()) };
    let Some(protection) = Protections::ALL.into_iter().find(|protection| protection.name() == value) else {
        let known: Vec<&str> = Protections::ALL.iter().map(|protection| protection.name()).collect();
        return Err(FaultKind::Sabotage { value, way_out: format!("choose one of {}", known.join(", ")) });
    };
    complain(&format!("BELLWETHER_SABOTAGE={value}: this process is unsafe on purpose\n"));
    Protections::take_away(Some(protection));
    Ok(())
}

/// Nothing can be taken away from this build, and a test that asks for it must not pass for that.
#[cfg(not(feature = "sabotage"))]
pub(super) fn sabotage() -> Result<(), FaultKind> {
    let way_out = || "unset it: it is for tests only".to_owned();
    sabotage_asked_for().map_or(Ok(()), |value| Err(FaultKind::Sabotage { value, way_out: way_out() }))
}

fn sabotage_asked_for() -> Option<String> {
    let value = std::env::var_os("BELLWETHER_SABOTAGE")?.to_string_lossy().into_owned();
    (!value.is_empty()).then_some(value)
}
