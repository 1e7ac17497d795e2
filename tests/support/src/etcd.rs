//! Real etcd servers: one, or a cluster of them, on free ports of the loopback interface.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use crate::certificates::Authority;
use crate::lab::Host;
use crate::ports::free_loopback_address;
use crate::process::Process;

mod key_timeline;
mod membership;
mod options;
mod single;
mod store;

pub use key_timeline::{KeyChange, KeyTimeline};
pub use options::{ClientTls, EtcdOptions, current_etcd_binary, etcd_binary};
pub use single::EtcdServer;

/// How long a member may take until it answers: an election and a cold disk on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// Starts are tried again when another process took the port between our look and etcd's bind.
const START_ATTEMPTS: usize = 5;
/// etcd's own ports, for a member that has a host to itself.
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
/// The bytes of a member's log that an error message shows.
const LOG_TAIL: usize = 4000;

/// The members of one cluster. Dropping it kills them and deletes their data.
pub struct EtcdCluster {
    options: EtcdOptions,
    binary: PathBuf,
    members: Vec<Member>,
    /// The authority that both sides trust, with TLS.
    pub authority: Option<Authority>,
    root: Option<(String, String)>,
    directory: TempDir,
}

struct Member {
    /// Where it runs; nowhere in particular without a lab.
    host: Option<Host>,
    client: SocketAddr,
    peer: SocketAddr,
    process: Option<Process>,
    /// The cluster as it was when this member joined, for `--initial-cluster`; `None` when they began together.
    joined: Option<String>,
    /// Counts starts, each with a log of its own.
    starts: usize,
}

impl Member {
    fn new(host: Option<Host>) -> Result<Self> {
        let (client, peer) = match &host {
            Some(host) => ((host.address(), CLIENT_PORT).into(), (host.address(), PEER_PORT).into()),
            None => (free_loopback_address()?, free_loopback_address()?),
        };
        Ok(Self { host, client, peer, process: None, joined: None, starts: 0 })
    }

    fn peer_url(&self) -> String {
        format!("http://{}", self.peer)
    }
}

impl EtcdCluster {
    /// Starts the members and waits until each answers a linearizable read.
    ///
    /// # Errors
    /// When one does not come up, with the end of its log.
    pub async fn start(options: EtcdOptions) -> Result<Self> {
        ensure!(options.members > 0, "a cluster has members");
        ensure!(options.hosts.is_empty() || options.hosts.len() == options.members, "each member has a host");
        let mut failure = anyhow!("never tried");
        for _ in 0..START_ATTEMPTS {
            let mut cluster = Self::prepare(options.clone())?;
            for member in 0..options.members {
                cluster.restart(member)?;
            }
            match cluster.wait_until_ready().await {
                Ok(()) => return Ok(cluster),
                Err(error) if format!("{error:#}").contains("address already in use") => failure = error,
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }

    fn prepare(options: EtcdOptions) -> Result<Self> {
        let directory = TempDir::with_prefix("bellwether-etcd-")?;
        let authority = match options.tls {
            ClientTls::Off => None,
            ClientTls::Server | ClientTls::Mutual => Some(Authority::new("etcd test authority")?),
        };
        let binary = match &options.binary {
            Some(binary) => binary.clone(),
            None => etcd_binary()?,
        };
        let mut members = Vec::new();
        for member in 0..options.members {
            members.push(Member::new(options.hosts.get(member).cloned())?);
        }
        let cluster = Self { options, binary, members, authority, root: None, directory };
        if let Some(authority) = &cluster.authority {
            fs::write(cluster.ca_file(), &authority.cert_pem)?;
            let hosts = cluster.members.iter().map(|member| member.client.ip().to_string());
            let names: Vec<String> =
                ["127.0.0.1".to_owned(), "localhost".to_owned()].into_iter().chain(hosts).collect();
            let server = authority.server(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
            fs::write(cluster.path("server.crt"), server.cert_pem)?;
            fs::write(cluster.path("server.key"), server.key_pem)?;
            let client = authority.client("bellwether")?;
            fs::write(cluster.client_cert_file(), client.cert_pem)?;
            fs::write(cluster.client_key_file(), client.key_pem)?;
        }
        Ok(cluster)
    }

    /// The client URL of one member.
    #[must_use]
    pub fn endpoint(&self, member: usize) -> String {
        format!("{}://{}", self.scheme(), self.members[member].client)
    }

    /// The client URLs of all members, in order.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.members.len()).map(|member| self.endpoint(member)).collect()
    }

    /// `<address>:<port>` of one member, for a proxy in front of it.
    #[must_use]
    pub fn client_address(&self, member: usize) -> String {
        self.members[member].client.to_string()
    }

    /// The process id of a running member.
    #[must_use]
    pub fn pid(&self, member: usize) -> Option<u32> {
        self.members[member].process.as_ref().map(Process::pid)
    }

    /// The certificate of the authority that signed the server's, with TLS.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.path("ca.crt")
    }

    /// A client certificate that the server accepts, with TLS.
    #[must_use]
    pub fn client_cert_file(&self) -> PathBuf {
        self.path("client.crt")
    }

    /// Its key.
    #[must_use]
    pub fn client_key_file(&self) -> PathBuf {
        self.path("client.key")
    }

    /// A place for a test's own files, deleted with the cluster.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&mut self, member: usize) {
        self.members[member].process = None;
    }

    /// Starts a killed member again with the same ports and data. Does not wait until it answers.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn restart(&mut self, member: usize) -> Result<()> {
        ensure!(self.members[member].process.is_none(), "member {member} is running");
        self.members[member].starts += 1;
        let log = File::create(self.log_file(member))?;
        let mut command = match &self.members[member].host {
            Some(host) => host.command(&self.binary)?,
            None => Command::new(&self.binary),
        };
        command.args(self.arguments(member)).stdin(std::process::Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        // The environment's ETCD_… variables would be options too.
        command.env_clear().env("GOMAXPROCS", "2");
        self.members[member].process = Some(Process::spawn(command)?);
        Ok(())
    }

    /// Kills every member, deletes all data, starts anew on the same ports: a store whose history is lost.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub async fn wipe(&mut self) -> Result<()> {
        for member in 0..self.members.len() {
            self.kill(member);
            fs::remove_dir_all(self.data_directory(member))?;
            self.members[member].joined = None;
        }
        self.root = None;
        for member in 0..self.members.len() {
            self.restart(member)?;
        }
        self.wait_until_ready().await
    }

    /// SIGSTOP: the kernel still accepts connections for it, nothing answers.
    ///
    /// # Errors
    /// When it is not running.
    pub fn freeze(&self, member: usize) -> Result<()> {
        self.signal(member, Signal::SIGSTOP)?;
        let pid = self.pid(member).context("signalled just now")?;
        // The signal is on its way; its threads stop one after the other.
        while !all_threads_stopped(pid)? {
            std::thread::yield_now();
        }
        Ok(())
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it is not running.
    pub fn thaw(&self, member: usize) -> Result<()> {
        self.signal(member, Signal::SIGCONT)
    }

    fn signal(&self, member: usize, signal: Signal) -> Result<()> {
        let pid = self.pid(member).with_context(|| format!("member {member} is not running"))?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// Waits until every running member answers a linearizable read.
    ///
    /// # Errors
    /// When one does not in time or has exited, with the end of its log.
    pub async fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        for member in 0..self.members.len() {
            while self.members[member].process.is_some() {
                if let Some(process) = &mut self.members[member].process
                    && let Some(status) = process.exited()?
                {
                    bail!("etcd {member} ended with {status}:\n{}", self.log_tail(member));
                }
                if self.answers(member).await {
                    break;
                }
                ensure!(Instant::now() < deadline, "etcd {member} does not answer:\n{}", self.log_tail(member));
                sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    async fn answers(&self, member: usize) -> bool {
        let read = async { self.client(member).await?.get("ready", None).await.map_err(anyhow::Error::from) };
        matches!(timeout(Duration::from_secs(2), read).await, Ok(Ok(_)))
    }

    /// The last lines of what a member has logged since its last start.
    #[must_use]
    pub fn log_tail(&self, member: usize) -> String {
        let log = fs::read(self.log_file(member)).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL)..]).into_owned()
    }

    fn scheme(&self) -> &'static str {
        match self.options.tls {
            ClientTls::Off => "http",
            ClientTls::Server | ClientTls::Mutual => "https",
        }
    }

    fn log_file(&self, member: usize) -> PathBuf {
        self.path(&format!("etcd-{member}.{}.log", self.members[member].starts))
    }

    fn data_directory(&self, member: usize) -> PathBuf {
        self.path(&format!("etcd-{member}.data"))
    }

    /// `--initial-cluster` of members that begin together. A member that has data looks at none of it.
    fn initial_cluster(&self) -> String {
        let members = self.members.iter().enumerate();
        members.map(|(it, member)| format!("etcd-{it}={}", member.peer_url())).collect::<Vec<_>>().join(",")
    }

    fn arguments(&self, member: usize) -> Vec<String> {
        let (state, cluster) = match &self.members[member].joined {
            Some(cluster) => ("existing", cluster.clone()),
            None => ("new", self.initial_cluster()),
        };
        let peer = self.members[member].peer_url();
        let mut arguments: Vec<String> = [
            ("--name", format!("etcd-{member}")),
            ("--data-dir", self.data_directory(member).display().to_string()),
            ("--listen-client-urls", self.endpoint(member)),
            ("--advertise-client-urls", self.endpoint(member)),
            ("--listen-peer-urls", peer.clone()),
            ("--initial-advertise-peer-urls", peer),
            ("--initial-cluster", cluster),
            ("--initial-cluster-state", state.to_owned()),
            ("--initial-cluster-token", format!("bellwether-{}", self.members[0].peer)),
            ("--heartbeat-interval", self.options.heartbeat_interval.as_millis().to_string()),
            ("--election-timeout", self.options.election_timeout.as_millis().to_string()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect();
        let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        if self.options.tls != ClientTls::Off {
            add("--cert-file", self.path("server.crt").display().to_string());
            add("--key-file", self.path("server.key").display().to_string());
        }
        if self.options.tls == ClientTls::Mutual {
            add("--trusted-ca-file", self.ca_file().display().to_string());
            arguments.push("--client-cert-auth".to_owned());
        }
        let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        if let Some(ttl) = self.options.auth_token_ttl {
            add("--auth-token-ttl", ttl.as_secs().to_string());
        }
        if let Some(bytes) = self.options.quota_bytes {
            add("--quota-backend-bytes", bytes.to_string());
        }
        arguments.extend(self.options.arguments.iter().cloned());
        arguments
    }
}

/// Whether a SIGSTOP has reached every thread of a process.
pub(crate) fn all_threads_stopped(pid: u32) -> Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(thread?.path().join("stat"))?;
        // `pid (name) state …`, and the name may hold anything.
        let state = stat.rsplit(") ").next().unwrap_or_default();
        if !state.starts_with('T') {
            return Ok(false);
        }
    }
    Ok(true)
}
