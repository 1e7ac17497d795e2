//! What can be wrong with a configuration, in words that name the flag, the value and the way out.

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use super::api::ApiFault;
use super::app_health::AppHealthFault;
use super::compat::CompatFault;
use super::credentials::FileFault;
use super::duration::DurationFault;
use super::endpoints::EndpointFault;
use super::listen::ListenFault;
use super::names::NameFault;
use super::part::PartFault;
use super::sources::Sources;
use super::state_dir::StateDirFault;
use super::work::WorkFault;
use crate::election::TimingFault;

/// One fault, and the environment variables that the settings concerned came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigFault {
    /// The fault.
    pub kind: FaultKind,
    /// `BELLWETHER_…`, for each of the flags in [`FaultKind::flags`] that was set by the environment.
    pub set_by: Vec<String>,
}

impl ConfigFault {
    pub(super) fn new(kind: FaultKind, sources: &Sources) -> Self {
        let set_by = kind.flags().into_iter().filter_map(|flag| sources.variable_of(flag)).collect();
        Self { kind, set_by }
    }
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        if !self.set_by.is_empty() {
            write!(f, " (set by {})", self.set_by.join(", "))?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigFault {}

/// The faults.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FaultKind {
    /// A flag without a default was not given.
    #[error("{flag}: is missing; {hint}")]
    Missing {
        /// The flag.
        flag: &'static str,
        /// What to give.
        hint: &'static str,
    },
    /// A duration that cannot be read.
    #[error("{flag}: {value:?} {fault}")]
    Duration {
        /// The flag.
        flag: &'static str,
        /// What was set.
        value: String,
        /// What is wrong with it.
        fault: DurationFault,
    },
    /// A value outside a short list.
    #[error("{flag}: {value:?} is unknown; choose one of {choices}")]
    Choice {
        /// The flag.
        flag: &'static str,
        /// What was set.
        value: String,
        /// What could be.
        choices: &'static str,
    },
    /// Not a number.
    #[error("--epoch: {0:?} is not a whole number from 0 to {max}; write for example 1", max = u64::MAX)]
    Epoch(String),
    /// The flags of another sidecar.
    #[error(transparent)]
    Compat(CompatFault),
    /// A relation between timings.
    #[error(transparent)]
    Timing(TimingFault),
    /// How the application is asked for its health.
    #[error(transparent)]
    AppHealth(AppHealthFault),
    /// What goes with the part that a sidecar takes.
    #[error(transparent)]
    Part(PartFault),
    /// A name that does not fit where it goes.
    #[error("{flag}: {value:?} {fault}")]
    Name {
        /// The flag.
        flag: &'static str,
        /// What was set.
        value: String,
        /// What is wrong with it.
        fault: NameFault,
    },
    /// The default identity cannot be used.
    #[error("--identity: is missing, and the host name {value:?}, its default, {fault}; set --identity")]
    HostName {
        /// The host name.
        value: String,
        /// What is wrong with it.
        fault: NameFault,
    },
    /// The default namespace cannot be read.
    #[error("--namespace: is missing, and {path:?}, which holds its default, cannot be read: {error}; set --namespace")]
    NamespaceFile {
        /// The service account's file.
        path: PathBuf,
        /// Why not.
        error: String,
    },
    /// The default namespace cannot be used.
    #[error("--namespace: is missing, and {value:?}, its default from the service account, {fault}; set --namespace")]
    NamespaceDefault {
        /// The content of the file.
        value: String,
        /// What is wrong with it.
        fault: NameFault,
    },
    /// The list of endpoints.
    #[error("--etcd-endpoints: {0}")]
    Endpoints(EndpointFault),
    /// A listen address.
    #[error("{flag}: {value:?} {fault}")]
    Listen {
        /// The flag.
        flag: &'static str,
        /// What was set.
        value: String,
        /// What is wrong with it.
        fault: ListenFault,
    },
    /// An address to ask.
    #[error("{flag}: {value:?} {fault}")]
    Api {
        /// The flag.
        flag: &'static str,
        /// What was set.
        value: String,
        /// What is wrong with it.
        fault: ApiFault,
    },
    /// The command and the hooks.
    #[error(transparent)]
    Work(WorkFault),
    /// The pod is to be labelled, and nothing tells through whom.
    #[error(
        "--pod-label: on, but {token_file:?}, the token for the API server, is not there; mount the service account \
         token into this container, or give --kubeconfig"
    )]
    NoApiServer {
        /// Where the token would be.
        token_file: PathBuf,
    },
    /// A kubeconfig of no use.
    #[error("--kubeconfig: {path:?} cannot be used: {error}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: String,
    },
    /// The default pod name cannot be used.
    #[error("--pod-name: is missing, and the host name {value:?}, its default, {fault}; set --pod-name")]
    PodHostName {
        /// The host name.
        value: String,
        /// What is wrong with it.
        fault: NameFault,
    },
    /// One label for two things.
    #[error("--label-key: {key:?} is also the value of --election-label-key; choose another for one of them")]
    SameLabelKey {
        /// The key.
        key: String,
    },
    /// One value for two roles.
    #[error(
        "--label-follower: {value:?} is also the value of --label-leader, and nobody could tell who leads; choose \
         another for one of them"
    )]
    SameLabelValue {
        /// The value.
        value: String,
    },
    /// Two listeners on one address.
    #[error("{flag}: {address} collides with {other_flag} {other}; choose another address or port for one of them")]
    Collision {
        /// The flag.
        flag: &'static str,
        /// Its address.
        address: String,
        /// The flag of the other listener.
        other_flag: &'static str,
        /// Its address.
        other: String,
    },
    /// A certificate, key or password file.
    #[error("{flag}: {path:?} {fault}")]
    File {
        /// The flag.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: FileFault,
    },
    /// TLS flags and endpoints in clear text.
    #[error("{flag}: is set, but --etcd-endpoints is not https; write https:// there or leave {flag} out")]
    TlsWithoutHttps {
        /// The flag.
        flag: &'static str,
    },
    /// One half of a pair.
    #[error("{given}: is set without {missing}; give both or neither")]
    HalfAPair {
        /// The flag that is there.
        given: &'static str,
        /// The flag that is not.
        missing: &'static str,
    },
    /// The certificate and the key are not of one pair.
    #[error(
        "--etcd-cert-file: {certificate:?} does not belong to --etcd-key-file {key:?}; give the key it was issued for"
    )]
    KeyMismatch {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// Not a name a certificate can have.
    #[error("--etcd-server-name: {0:?} is not a host name or IP address; write for example etcd.example.com")]
    ServerName(String),
    /// A user and nothing to prove it with.
    #[error(
        "--etcd-user: is set without a password; give --etcd-password-file or the environment variable \
         BELLWETHER_ETCD_PASSWORD"
    )]
    UserWithoutPassword,
    /// A password and nobody it belongs to.
    #[error("{0}: is set without --etcd-user; give both or neither")]
    PasswordWithoutUser(&'static str),
    /// Which one?
    #[error("{one}: is set, and so is {other}; keep one of them")]
    Both {
        /// A flag.
        one: &'static str,
        /// One that excludes it.
        other: &'static str,
    },
    /// The folder for lease and term.
    #[error("--state-dir: {path:?} {fault}")]
    StateDir {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        fault: StateDirFault,
    },
    /// `BELLWETHER_SABOTAGE`, which is for tests.
    #[error("BELLWETHER_SABOTAGE: {value:?} cannot be taken away in this build; {way_out}")]
    Sabotage {
        /// What was set.
        value: String,
        /// What to do.
        way_out: String,
    },
    /// Which one?
    #[error("--etcd-password-file: is set, and so is BELLWETHER_ETCD_PASSWORD; keep one of them")]
    TwoPasswords,
    /// etcd's API takes text only.
    #[error("BELLWETHER_ETCD_PASSWORD: is not UTF-8; set another password")]
    PasswordNotText,
}

impl FaultKind {
    /// The flags whose values took part.
    #[must_use]
    pub fn flags(&self) -> Vec<&'static str> {
        match self {
            Self::Compat(fault) => fault.flags(),
            Self::Timing(fault) => timing_flags(fault),
            Self::AppHealth(fault) => fault.flags(),
            Self::Part(fault) => fault.flags(),
            Self::Endpoints(_) => vec!["--etcd-endpoints"],
            Self::Collision { flag, other_flag, .. } if flag == other_flag => vec![flag],
            Self::Collision { flag, other_flag, .. } => vec![flag, other_flag],
            Self::TlsWithoutHttps { flag } => vec![flag, "--etcd-endpoints"],
            Self::KeyMismatch { .. } => vec!["--etcd-cert-file", "--etcd-key-file"],
            Self::Epoch(_) => vec!["--epoch"],
            Self::Work(fault) => vec![fault.flag()],
            Self::ServerName(_) => vec!["--etcd-server-name"],
            Self::UserWithoutPassword => vec!["--etcd-user"],
            Self::Both { one, other } => vec![one, other],
            Self::TwoPasswords => vec!["--etcd-password-file"],
            Self::Duration { flag, .. }
            | Self::Choice { flag, .. }
            | Self::Name { flag, .. }
            | Self::Listen { flag, .. }
            | Self::Api { flag, .. }
            | Self::File { flag, .. }
            | Self::HalfAPair { given: flag, .. }
            | Self::PasswordWithoutUser(flag) => vec![flag],
            Self::NoApiServer { .. } => vec!["--pod-label"],
            Self::StateDir { .. } => vec!["--state-dir"],
            Self::Kubeconfig { .. } => vec!["--kubeconfig"],
            Self::SameLabelKey { .. } => vec!["--label-key", "--election-label-key"],
            Self::SameLabelValue { .. } => vec!["--label-follower", "--label-leader"],
            Self::PodHostName { .. }
            | Self::Missing { .. }
            | Self::HostName { .. }
            | Self::NamespaceFile { .. }
            | Self::NamespaceDefault { .. }
            | Self::Sabotage { .. }
            | Self::PasswordNotText => Vec::new(),
        }
    }
}

/// The flags on the two sides of a relation.
pub(super) fn timing_flags(fault: &TimingFault) -> Vec<&'static str> {
    match fault {
        TimingFault::LeaseTtlRange(_) | TimingFault::LeaseTtlFraction(..) => vec!["--lease-ttl"],
        TimingFault::StepTooShort { flag, .. } => vec![flag],
        TimingFault::RenewalDoesNotFit { .. } => {
            vec!["--lease-ttl", "--keepalive-interval", "--attempt-timeout", "--safety-margin"]
        }
        TimingFault::StopDoesNotFit { .. } => {
            vec!["--stop-timeout", "--lease-ttl", "--keepalive-interval", "--attempt-timeout", "--safety-margin"]
        }
        TimingFault::ValidityOutlastsDrain { .. } => vec!["--answer-validity", "--drain-timeout"],
    }
}
