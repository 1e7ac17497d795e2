//! A sidecar that is started as the pod of another sidecar starts its own: with that one's arguments and ours of the
//! environment.

use std::fs::File;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use support::etcd::EtcdServer;
use support::ports::free_loopback_address;
use support::{HttpClient, HttpResponse, Moment, Process};
use tempfile::TempDir;

use crate::script::PATIENCE;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The exit code for a configuration that is refused.
pub const REFUSED: i32 = 64;

pub struct Peer {
    pub http: SocketAddr,
    pub telemetry: SocketAddr,
    pub process: Process,
    folder: TempDir,
}

/// What a pod says: `{http}` and `{telemetry}` stand for ports.
#[derive(Clone, Copy)]
pub struct Pod<'a> {
    pub compat: &'a str,
    pub args: &'a [&'a str],
    pub env: &'a [(&'a str, &'a str)],
}

impl Pod<'_> {
    fn command(&self, endpoint: &str, http: SocketAddr, telemetry: SocketAddr) -> Command {
        let fill = |text: &str| {
            text.replace("{http}", &http.port().to_string()).replace("{telemetry}", &telemetry.port().to_string())
        };
        let mut command = bellwether();
        command
            .args(self.args.iter().map(|text| fill(text)))
            .env("BELLWETHER_COMPAT", self.compat)
            .env("BELLWETHER_ETCD_ENDPOINTS", endpoint)
            .envs(self.env.iter().map(|(name, value)| (name, fill(value))));
        if !self.args.iter().any(|text| text.starts_with("--probe-address")) {
            command.env("BELLWETHER_TELEMETRY", telemetry.to_string());
        }
        command
    }
}

/// The binary with an environment that says nothing of elections.
pub fn bellwether() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellwether"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("BELLWETHER_") || text.starts_with("ELECTOR_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

impl Peer {
    pub fn start(pod: &Pod<'_>, etcd: &EtcdServer) -> Result<Self> {
        Self::start_with_endpoint(pod, &etcd.endpoint())
    }

    pub fn start_with_endpoint(pod: &Pod<'_>, endpoint: &str) -> Result<Self> {
        let (http, telemetry, folder) = (free_loopback_address()?, free_loopback_address()?, TempDir::new()?);
        let mut command = pod.command(endpoint, http, telemetry);
        let file = |name: &str| File::create(folder.path().join(name));
        command.stdout(file("out")?).stderr(file("log")?);
        let process = Process::spawn(command)?;
        let mut peer = Self { http, telemetry, process, folder };
        let deadline = Moment::now().after(PATIENCE);
        while HttpClient::new(http, REQUEST_TIMEOUT).connect().is_err() {
            if let Some(status) = peer.process.exited()? {
                bail!("it exited at its start, {status}:\n{}", peer.log()?);
            }
            ensure!(!deadline.passed(), "it does not listen on {http}:\n{}", peer.log()?);
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(peer)
    }

    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.folder.path().join("log"))?)
    }

    pub fn out(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.folder.path().join("out"))?)
    }

    pub fn client(&self) -> HttpClient {
        HttpClient::new(self.http, REQUEST_TIMEOUT)
    }

    pub fn request(&self, method: &str, path: &str) -> Result<HttpResponse> {
        self.client().request(method, path, &[]).with_context(|| format!("{method} {path}"))
    }

    /// The name that `path` tells.
    pub fn name_at(&self, path: &str) -> Result<String> {
        let response = self.request("GET", path)?;
        ensure!(response.status == 200, "{path}: {}", response.status);
        Ok(response.json()["name"].as_str().context("a name")?.to_owned())
    }

    /// Waits until `/` names this one.
    pub fn wait_for_name(&self, name: &str) -> Result<()> {
        let deadline = Moment::now().after(PATIENCE);
        while self.name_at("/").ok().as_deref() != Some(name) {
            ensure!(!deadline.passed(), "{name} is not named at {}:\n{}", self.http, self.log()?);
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Waits for another sidecar's registration, so that it stands by.
    pub fn wait_until_standby(&self) -> Result<()> {
        let deadline = Moment::now().after(PATIENCE);
        loop {
            let body: Value = self.request("GET", "/leader")?.json();
            if body["state"] == "standby" {
                return Ok(());
            }
            ensure!(!deadline.passed(), "it does not stand by: {body}\n{}", self.log()?);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }
}
