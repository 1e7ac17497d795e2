//! `bellwether status`: who leads, who stands by, and since when.

mod report;
mod sidecar;
mod store;

use std::time::Duration;

use clap::Args;

use self::report::Report;
use super::client::ApiFlags;
use super::exit::Exit;
use super::flags::{EtcdFlags, LockFlags};
use super::output::{complain, print};
use crate::clock;
use crate::config::{
    ApiAddress, ConfigFault, EtcdConfig, FaultKind, Faults, LockConfig, Sources, Surroundings, parse_lock_and_etcd,
};

/// Examples and exit codes, below the flags.
pub const AFTER_HELP: &str = "\
Roles: the leader holds the lock; the heir claims it first when it is free; the others stand by, in this order.
Observers (--never-lead), and candidates whose application is not healthy, are not in line. A sidecar tells the line as
it read it last, at most a lease TTL ago; etcd tells it as it is.

Exit codes:
  0   told, also when nobody leads
  1   told, and nobody leads: only with --require-leader
  2   no answer from the sidecar or from etcd
  64  the command line or the environment is wrong

Examples:
  bellwether status
  kubectl exec web-0 -c bellwether -- bellwether status --output json
  bellwether status --election web --etcd-endpoints http://localhost:2379";

/// On loopback an answer takes a millisecond.
const SIDECAR_TIMEOUT: Duration = Duration::from_secs(1);
/// For each endpoint: connection, TLS and the slow hash of a password, across a network.
const ETCD_TIMEOUT: Duration = Duration::from_secs(3);

/// The flags.
#[derive(Args, Clone, Debug, Default)]
pub struct StatusFlags {
    /// Where to look: api, a running sidecar; or etcd, with the flags below [default: etcd when --etcd-endpoints is on
    /// the command line, else api]
    #[arg(long, value_name = "SOURCE", env = "BELLWETHER_FROM")]
    pub from: Option<String>,

    /// table or json [default: table]
    #[arg(long, short, value_name = "FORMAT", env = "BELLWETHER_OUTPUT")]
    pub output: Option<String>,

    /// End with the exit code 1 when nobody leads, or nobody is known to [default: false]
    #[arg(
        long,
        value_name = "true|false",
        env = "BELLWETHER_REQUIRE_LEADER",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub require_leader: Option<String>,

    /// Where the local API is.
    #[command(flatten)]
    pub api: ApiFlags,

    /// How long to wait for an answer [default: 1s; from each etcd endpoint 3s]
    #[arg(long, value_name = "DURATION", env = "BELLWETHER_TIMEOUT")]
    pub timeout: Option<String>,

    /// Which lock, in etcd.
    #[command(flatten)]
    pub lock: LockFlags,

    /// How to reach etcd.
    #[command(flatten)]
    pub etcd: EtcdFlags,
}

/// Where to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Api,
    Etcd,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Table,
    Json,
}

/// What to do with what is told.
struct Manner {
    timeout: Duration,
    format: Format,
    leader_required: bool,
}

/// Whom to ask, with all it takes.
enum Place {
    Sidecar(ApiAddress),
    Etcd(Box<(LockConfig, EtcdConfig)>),
}

/// Asks and tells.
///
/// # Errors
/// The faults of the flags.
pub async fn run(flags: &StatusFlags, sources: &Sources) -> Result<Exit, Vec<ConfigFault>> {
    let (place, Manner { timeout, format, leader_required }) = parse(flags, sources)?;
    let report = match &place {
        Place::Sidecar(address) => sidecar::look(address, timeout).await,
        Place::Etcd(configured) => store::look(&configured.0, &configured.1, timeout).await,
    };
    Ok(match report {
        Ok(report) => {
            tell(&report, format);
            if leader_required && report.leader.is_none() { Exit::No } else { Exit::Done }
        }
        Err(error) => {
            complain(&format!("no answer: {error:#}\n"));
            Exit::NoAnswer
        }
    })
}

fn tell(report: &Report, format: Format) {
    match format {
        Format::Table => print(&report.table(clock::now().wall)),
        Format::Json => print(&report.json()),
    }
}

fn parse(flags: &StatusFlags, sources: &Sources) -> Result<(Place, Manner), Vec<ConfigFault>> {
    let mut faults = Faults::new(sources);
    let format = match faults.value("--output", flags.output.as_ref()) {
        Some(text) => {
            faults.choice("--output", text, "table, json", &[("table", Format::Table), ("json", Format::Json)])
        }
        None => Some(Format::Table),
    };
    let leader_required = match faults.value("--require-leader", flags.require_leader.as_ref()) {
        Some(text) => faults.choice("--require-leader", text, "true, false", &[("true", true), ("false", false)]),
        None => Some(false),
    };
    let place = match parse_from(flags, sources, &mut faults) {
        Some(From::Api) => flags.api.parse(&mut faults).map(Place::Sidecar).zip(Some(SIDECAR_TIMEOUT)),
        Some(From::Etcd) => {
            let configured = parse_lock_and_etcd(&flags.lock, &flags.etcd, &Surroundings::read(), &mut faults);
            configured.map(|configured| Place::Etcd(Box::new(configured))).zip(Some(ETCD_TIMEOUT))
        }
        None => None,
    };
    let default_timeout = place.as_ref().map_or(SIDECAR_TIMEOUT, |(_, timeout)| *timeout);
    let timeout = faults.duration("--timeout", flags.timeout.as_ref(), default_timeout);
    let manner = timeout.zip(format).zip(leader_required);
    let manner = manner.map(|((timeout, format), leader_required)| Manner { timeout, format, leader_required });
    let all = place.map(|(place, _)| place).zip(manner);
    faults.finish(all)
}

/// A sidecar's container has etcd's endpoints in its environment: those alone do not mean that etcd is to be read.
fn parse_from(flags: &StatusFlags, sources: &Sources, faults: &mut Faults<'_>) -> Option<From> {
    let typed = |flag: &str, given: bool| given && sources.variable_of(flag).is_none();
    let endpoints_typed = typed("--etcd-endpoints", !flags.etcd.etcd_endpoints.is_empty());
    if endpoints_typed && typed("--api", flags.api.api.is_some()) {
        faults.push(FaultKind::Both { one: "--api", other: "--etcd-endpoints" });
        return None;
    }
    match faults.value("--from", flags.from.as_ref()) {
        Some(text) => faults.choice("--from", text, "api, etcd", &[("api", From::Api), ("etcd", From::Etcd)]),
        None if endpoints_typed => Some(From::Etcd),
        None => Some(From::Api),
    }
}
