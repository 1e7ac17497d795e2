//! The whole configuration, parsed: nothing in here can be inconsistent.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::election::{Epoch, Identity, Part, Timings};

mod api;
mod app_health;
mod compat;
mod credentials;
mod duration;
mod endpoints;
mod fault;
mod faults;
mod labels;
mod listen;
mod names;
mod parse;
mod part;
mod sources;
mod state_dir;
mod work;

pub use api::{ApiAddress, ApiFault};
pub(crate) use app_health::SHELL;
pub use app_health::{AppHealthConfig, AppHealthFault, HostPort, Target, TargetFault, Thresholds};
pub use compat::{Compat, CompatFault};
pub use credentials::{FileFault, read_password};
pub(crate) use credentials::{read_certificates, read_key};
pub use duration::{COOLDOWN_DEFAULT, DurationFault, Span, parse_cooldown, parse_duration};
pub use endpoints::{ENDPOINTS_MAX, EndpointFault};
pub use fault::{ConfigFault, FaultKind};
pub(crate) use faults::Faults;
pub use labels::{ApiServer, LabelConfig, LabelOff, Labels, PodLabelConfig};
pub(crate) use listen::parse_http_item;
pub use listen::{HTTP_PORT, ListenFault, TELEMETRY_PORT, default_http, default_telemetry};
pub use names::NameFault;
pub(crate) use names::check_pod_name;
pub(crate) use parse::parse_lock_and_etcd;
pub use part::PartFault;
pub use sources::{PASSWORD_VARIABLE, Sources, Surroundings, variable};
pub use state_dir::StateDirFault;
pub use work::{Restart, WorkConfig, WorkFault};

/// Everything `bellwether run` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who contends for what.
    pub election: ElectionConfig,
    /// How to reach etcd.
    pub etcd: EtcdConfig,
    /// The timings; their relations hold.
    pub timings: Timings,
    /// Whether it contends, or only looks on.
    pub part: Part,
    /// How the application is asked for its health; `None`: not at all, and it counts as healthy.
    pub app_health: Option<AppHealthConfig>,
    /// The local API.
    pub http: HttpConfig,
    /// Where `/livez`, `/readyz` and `/metrics` listen.
    pub telemetry: SocketAddr,
    /// What runs only while this candidate leads, if anything.
    pub work: Option<WorkConfig>,
    /// `--compat`: the sidecar whose place this one takes.
    pub compat: Option<Compat>,
    /// The pod's label and events.
    pub pod_label: PodLabelConfig,
    /// `--state-dir`: an absolute path.
    pub state_dir: Option<PathBuf>,
    /// Logs.
    pub log: LogConfig,
    /// What is allowed but should be known: one sentence each, to be logged at the start.
    pub warnings: Vec<String>,
}

impl Config {
    /// Whether this is `bellwether exec`: stdout and the signals belong to the command.
    #[must_use]
    pub fn runs_a_command(&self) -> bool {
        self.work.as_ref().is_some_and(|work| work.command.is_some())
    }
}

/// Which lock: enough to look at an election from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockConfig {
    /// `--election`
    pub name: String,
    /// `--namespace`
    pub namespace: String,
    /// `--lock-key`, default `/bellwether/<namespace>/<election>`.
    pub lock_key: LockKeyName,
}

/// Who contends for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectionConfig {
    /// `--election`: a label value without a slash.
    pub name: String,
    /// `--namespace`
    pub namespace: String,
    /// `--identity`
    pub identity: Identity,
    /// `--lock-key`, default `/bellwether/<namespace>/<election>`.
    pub lock_key: LockKeyName,
    /// `--epoch`
    pub epoch: Epoch,
}

/// The etcd key that is the lock. Not empty, does not end in a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockKeyName(pub(crate) String);

impl std::str::FromStr for LockKeyName {
    type Err = NameFault;

    fn from_str(text: &str) -> Result<Self, NameFault> {
        names::check_lock_key(text).map(|()| Self(text.to_owned()))
    }
}

impl LockKeyName {
    /// The key itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What every candidate key starts with: `<lock key>/candidates/`.
    #[must_use]
    pub fn candidates_prefix(&self) -> String {
        format!("{}/candidates/", self.0)
    }

    /// The key a candidate registers.
    #[must_use]
    pub fn candidate(&self, identity: &Identity) -> String {
        format!("{}/candidates/{identity}", self.0)
    }
}

/// How to reach etcd.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// `--etcd-endpoints`: at least one, all `http` or all `https`, e.g. `https://etcd-0:2379`, no two the same.
    pub endpoints: Vec<String>,
    /// Present when the endpoints are `https`.
    pub tls: Option<TlsConfig>,
    /// Present when `--etcd-user` is set.
    pub auth: Option<AuthConfig>,
}

/// TLS, all from files that are read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// `--etcd-ca-file`: PEM; without it the web's roots are of no use to etcd, so it is required for `https`.
    pub ca_file: PathBuf,
    /// `--etcd-cert-file` and `--etcd-key-file`, together or not at all.
    pub client: Option<ClientCertificate>,
    /// `--etcd-server-name`: the name to check the server's certificate against.
    pub server_name: Option<String>,
}

/// A client certificate for mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM chain.
    pub cert_file: PathBuf,
    /// PEM key.
    pub key_file: PathBuf,
}

/// User and password for etcd.
#[derive(Clone)]
pub struct AuthConfig {
    /// `--etcd-user`
    pub user: String,
    /// `--etcd-password-file`, or `BELLWETHER_ETCD_PASSWORD`; never a flag, which everyone on the machine can read.
    pub password: PasswordSource,
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Where the password comes from.
#[derive(Clone)]
pub enum PasswordSource {
    /// Read at every authentication, trailing newline removed.
    File(PathBuf),
    /// From the environment.
    Given(String),
}

/// The local API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// `--http`: where it listens. With the default, an `[::1]` that the machine does not have is left out.
    pub listen: Vec<HttpListen>,
    /// `--allow-remote-resign`: take `POST /resign` from other addresses than loopback.
    pub allow_remote_resign: bool,
}

/// One address of the local API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpListen {
    /// Must be had, or the start fails.
    Tcp(SocketAddr),
    /// Left out where the machine has no such address (IPv6 switched off).
    TcpIfAvailable(SocketAddr),
    /// `unix:<path>`. A stale socket file is replaced, a live one is an error.
    Unix(PathBuf),
}

/// Logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `--log-format`
    pub format: LogFormat,
    /// `--log-level`
    pub level: LogLevel,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// What needs a person.
    Error,
    /// What a person should know of.
    Warn,
    /// One line per transition: the default.
    Info,
    /// Every renewal and call.
    Debug,
}
