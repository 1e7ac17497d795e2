//! How to start etcd, and which one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::lab::Host;

/// Whether clients come with TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientTls {
    /// Plain HTTP.
    #[default]
    Off,
    /// The server has a certificate.
    Server,
    /// The client needs one too.
    Mutual,
}

/// How to start etcd.
#[derive(Clone, Debug)]
pub struct EtcdOptions {
    /// Members of the cluster: 1 or 3.
    pub members: usize,
    /// `--heartbeat-interval`; etcd's own default is 100 ms.
    pub heartbeat_interval: Duration,
    /// `--election-timeout`; etcd's own default is 1 s.
    pub election_timeout: Duration,
    /// TLS for clients. Members talk in the clear among themselves.
    pub tls: ClientTls,
    /// `--auth-token-ttl`, whole seconds.
    pub auth_token_ttl: Option<Duration>,
    /// `--quota-backend-bytes`
    pub quota_bytes: Option<u64>,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// The program; `None` takes [`etcd_binary`].
    pub binary: Option<PathBuf>,
    /// Hosts of a lab, one for each member in order. Without any, members are on loopback.
    pub hosts: Vec<Host>,
}

impl Default for EtcdOptions {
    fn default() -> Self {
        Self {
            members: 1,
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            tls: ClientTls::Off,
            auth_token_ttl: None,
            quota_bytes: None,
            arguments: Vec::new(),
            binary: None,
            hosts: Vec::new(),
        }
    }
}

/// Which etcd to start: `BELLWETHER_ETCD`, else `etcd` on the PATH, else `.cache/bin/etcd` of the repository.
///
/// # Errors
/// When there is none, with what to do.
pub fn etcd_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("BELLWETHER_ETCD") {
        return Ok(path.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join("etcd"));
    let cached = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|directory| directory.join(".cache/bin/etcd"));
    on_path
        .chain(cached)
        .find(|candidate| candidate.is_file())
        .context("no etcd: install etcd-server, or set BELLWETHER_ETCD to the program")
}

/// A current etcd, whatever the rest is tested against: `BELLWETHER_ETCD_CURRENT`.
///
/// # Errors
/// When it is not set, with what to do.
pub fn current_etcd_binary() -> Result<PathBuf> {
    std::env::var_os("BELLWETHER_ETCD_CURRENT")
        .map(PathBuf::from)
        .context("no current etcd: run this with `scripts/tools.sh with faults -- …`, or set BELLWETHER_ETCD_CURRENT")
}
