//! How a sidecar is started.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::lab::Host;

/// How to start a sidecar. Everything else stays at its default.
#[derive(Clone, Debug)]
pub struct SidecarOptions {
    /// The binary: `env!("CARGO_BIN_EXE_bellwether")` in an integration test.
    pub binary: PathBuf,
    /// `--identity`
    pub identity: String,
    /// `--election`
    pub election: String,
    /// `--etcd-endpoints`, joined with commas.
    pub etcd_endpoints: Vec<String>,
    /// More arguments.
    pub arguments: Vec<String>,
    /// More of the environment. Nothing called `BELLWETHER_…` is inherited.
    pub environment: Vec<(String, String)>,
    /// For `bellwether exec`; empty: `bellwether run`.
    pub command: Vec<String>,
    /// The host of a lab on which it runs, on the product's own ports. Without one, on free ports of loopback.
    pub host: Option<Host>,
}

impl SidecarOptions {
    /// A sidecar of this identity in the election `test`.
    #[must_use]
    pub fn new(binary: impl AsRef<Path>, identity: &str, etcd_endpoints: &[String]) -> Self {
        Self {
            binary: binary.as_ref().to_owned(),
            identity: identity.to_owned(),
            election: "test".to_owned(),
            etcd_endpoints: etcd_endpoints.to_vec(),
            arguments: Vec::new(),
            environment: Vec::new(),
            command: Vec::new(),
            host: None,
        }
    }

    /// With more arguments: `.with(&["--lease-ttl", "2s"])`.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// With one more environment variable.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// As `bellwether exec`, with this command.
    #[must_use]
    pub fn executing(mut self, command: &[&str]) -> Self {
        self.command = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// On a host of a lab.
    #[must_use]
    pub fn on(mut self, host: &Host) -> Self {
        self.host = Some(host.clone());
        self
    }

    pub(super) fn command(&self, http: SocketAddr, telemetry: SocketAddr) -> Result<Command> {
        let mut command = match &self.host {
            Some(host) => host.command(&self.binary)?,
            None => Command::new(&self.binary),
        };
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BELLWETHER_")) {
            command.env_remove(name);
        }
        command
            .arg(if self.command.is_empty() { "run" } else { "exec" })
            .args(["--identity", &self.identity, "--election", &self.election])
            .args(["--etcd-endpoints", &self.etcd_endpoints.join(",")])
            .args(["--http", &http.to_string(), "--telemetry", &telemetry.to_string()])
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .args((!self.command.is_empty()).then_some("--"))
            .args(&self.command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok(command)
    }

    /// Does something on the sidecar's host.
    pub(super) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        match &self.host {
            Some(host) => host.within(work),
            None => Ok(work()),
        }
    }
}
