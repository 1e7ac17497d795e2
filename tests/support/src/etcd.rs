//! Real etcd servers: one, or a cluster of them, on free ports of the loopback interface.

use std::fs::{self, File};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use etcd_client::{Certificate, Client, ConnectOptions, Identity, Permission, PermissionType, TlsOptions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use crate::certificates::Authority;
use crate::process::spawn_bound;

/// How long a member may take until it answers: an election and a cold disk on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// Starts are tried again when another process took the port between our look and etcd's bind.
const START_ATTEMPTS: usize = 5;
/// The bytes of a member's log that an error message shows.
const LOG_TAIL: usize = 4000;

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

/// One etcd member for itself.
pub struct EtcdServer(EtcdCluster);

impl EtcdServer {
    /// Starts one with default options.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub async fn start() -> Result<Self> {
        Self::start_with(EtcdOptions::default()).await
    }

    /// Starts one with these options.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub async fn start_with(options: EtcdOptions) -> Result<Self> {
        Ok(Self(EtcdCluster::start(EtcdOptions { members: 1, ..options }).await?))
    }

    /// Its client URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.0.endpoint(0)
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.0.kill(0)
    }

    /// Starts it again after [`kill`](Self::kill), with the same ports and data, and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub async fn restart(&mut self) -> Result<()> {
        self.0.restart(0)?;
        self.0.wait_until_ready().await
    }

    /// SIGSTOP: its kernel still accepts connections, nothing answers.
    ///
    /// # Errors
    /// When it is not running.
    pub fn freeze(&self) -> Result<()> {
        self.0.freeze(0)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it is not running.
    pub fn thaw(&self) -> Result<()> {
        self.0.thaw(0)
    }
}

impl std::ops::Deref for EtcdServer {
    type Target = EtcdCluster;

    fn deref(&self) -> &EtcdCluster {
        &self.0
    }
}

impl std::ops::DerefMut for EtcdServer {
    fn deref_mut(&mut self) -> &mut EtcdCluster {
        &mut self.0
    }
}

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
    client_port: u16,
    peer_port: u16,
    child: Option<Child>,
    /// Counts starts, each with a log of its own.
    starts: usize,
}

impl EtcdCluster {
    /// Starts the members and waits until each answers a linearizable read.
    ///
    /// # Errors
    /// When one does not come up, with the end of its log.
    pub async fn start(options: EtcdOptions) -> Result<Self> {
        ensure!(options.members > 0, "a cluster has members");
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
        for _ in 0..options.members {
            members.push(Member { client_port: free_port()?, peer_port: free_port()?, child: None, starts: 0 });
        }
        let cluster = Self { options, binary, members, authority, root: None, directory };
        if let Some(authority) = &cluster.authority {
            fs::write(cluster.ca_file(), &authority.cert_pem)?;
            let server = authority.server(&["127.0.0.1", "localhost"])?;
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
        format!("{}://127.0.0.1:{}", self.scheme(), self.members[member].client_port)
    }

    /// The client URLs of all members, in order.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        (0..self.members.len()).map(|member| self.endpoint(member)).collect()
    }

    /// `127.0.0.1:<port>` of one member, for a proxy in front of it.
    #[must_use]
    pub fn client_address(&self, member: usize) -> String {
        format!("127.0.0.1:{}", self.members[member].client_port)
    }

    /// The process id of a running member.
    #[must_use]
    pub fn pid(&self, member: usize) -> Option<u32> {
        self.members[member].child.as_ref().map(Child::id)
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
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&mut self, member: usize) -> Result<()> {
        if let Some(mut child) = self.members[member].child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Starts a killed member again with the same ports and data. Does not wait until it answers.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn restart(&mut self, member: usize) -> Result<()> {
        ensure!(self.members[member].child.is_none(), "member {member} is running");
        self.members[member].starts += 1;
        let log = File::create(self.log_file(member))?;
        let mut command = Command::new(&self.binary);
        command.args(self.arguments(member)).stdin(std::process::Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        // The environment's ETCD_… variables would be options too.
        command.env_clear().env("GOMAXPROCS", "2");
        let child = spawn_bound(command).with_context(|| format!("starting {}", self.binary.display()))?;
        self.members[member].child = Some(child);
        Ok(())
    }

    /// Kills every member, deletes all data, starts anew on the same ports: a store whose history is lost.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub async fn wipe(&mut self) -> Result<()> {
        for member in 0..self.members.len() {
            self.kill(member)?;
            fs::remove_dir_all(self.data_directory(member))?;
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
            while self.members[member].child.is_some() {
                if let Some(child) = &mut self.members[member].child
                    && let Some(status) = child.try_wait()?
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

    /// The member that leads the cluster, if the running ones agree on one.
    ///
    /// # Errors
    /// When no running member answers.
    pub async fn leader(&self) -> Result<Option<usize>> {
        let mut leaders = Vec::new();
        let mut ids = Vec::new();
        for member in 0..self.members.len() {
            if self.members[member].child.is_none() {
                continue;
            }
            let status = async { anyhow::Ok(self.client(member).await?.status().await?) };
            if let Ok(Ok(status)) = timeout(Duration::from_secs(1), status).await {
                ids.push((member, status.header().map(etcd_client::ResponseHeader::member_id)));
                leaders.push(status.leader());
            }
        }
        ensure!(!leaders.is_empty(), "no member answers");
        if leaders.iter().any(|leader| *leader != leaders[0]) {
            return Ok(None);
        }
        Ok(ids.into_iter().find(|(_, id)| *id == Some(leaders[0])).map(|(member, _)| member))
    }

    /// Waits until the running members agree on a leader.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn wait_for_leader(&self) -> Result<usize> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Ok(Some(member)) = self.leader().await {
                return Ok(member);
            }
            ensure!(Instant::now() < deadline, "the members agree on no leader");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// A client of one member, as root once authentication is enabled.
    ///
    /// # Errors
    /// When it cannot connect or authenticate.
    pub async fn client(&self, member: usize) -> Result<Client> {
        let mut options = ConnectOptions::new().with_connect_timeout(Duration::from_secs(1));
        if let Some(authority) = &self.authority {
            let identity = Identity::from_pem(fs::read(self.client_cert_file())?, fs::read(self.client_key_file())?);
            options = options.with_tls(
                TlsOptions::new()
                    .ca_certificate(Certificate::from_pem(&authority.cert_pem))
                    .identity(identity)
                    .domain_name("localhost"),
            );
        }
        if let Some((user, password)) = &self.root {
            options = options.with_user(user, password);
        }
        Ok(Client::connect([self.endpoint(member)], Some(options)).await?)
    }

    /// A client of the first member that is running.
    ///
    /// # Errors
    /// When none is running, or it cannot be reached.
    pub async fn any_client(&self) -> Result<Client> {
        let running = self.members.iter().position(|member| member.child.is_some());
        self.client(running.context("no member is running")?).await
    }

    /// Puts a key, attached to `lease` when that is not 0. Returns the store's revision.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn put(&self, key: &str, value: &str, lease: i64) -> Result<i64> {
        let options = etcd_client::PutOptions::new().with_lease(lease);
        let response = self.any_client().await?.put(key, value, Some(options)).await?;
        revision(response.header())
    }

    /// A key's value.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn get(&self, key: &str) -> Result<Option<String>> {
        Ok(self.get_kv(key).await?.map(|kv| String::from_utf8_lossy(kv.value()).into_owned()))
    }

    /// A key with its revisions and lease.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn get_kv(&self, key: &str) -> Result<Option<etcd_client::KeyValue>> {
        Ok(self.any_client().await?.get(key, None).await?.take_kvs().into_iter().next())
    }

    /// Deletes a key. Returns the store's revision.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn delete(&self, key: &str) -> Result<i64> {
        revision(self.any_client().await?.delete(key, None).await?.header())
    }

    /// Revokes a lease.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn revoke(&self, lease: i64) -> Result<()> {
        self.any_client().await?.lease_revoke(lease).await?;
        Ok(())
    }

    /// Forgets every revision before this one.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn compact(&self, revision: i64) -> Result<()> {
        let options = etcd_client::CompactionOptions::new().with_physical();
        self.any_client().await?.compact(revision, Some(options)).await?;
        Ok(())
    }

    /// The store's revision now.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn revision(&self) -> Result<i64> {
        revision(self.any_client().await?.get("revision", None).await?.header())
    }

    /// Switches authentication on, with a root user that this cluster's own clients use from now on.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn enable_auth(&mut self) -> Result<()> {
        let root = ("root".to_owned(), "root-password".to_owned());
        let mut client = self.any_client().await?;
        client.user_add(root.0.as_str(), root.1.as_str(), None).await?;
        client.role_add("root").await?;
        client.user_grant_role("root", "root").await?;
        client.auth_enable().await?;
        self.root = Some(root);
        Ok(())
    }

    /// Adds a user that may read and write what starts with `prefix`.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn add_user(&self, user: &str, password: &str, prefix: &str) -> Result<()> {
        let mut client = self.any_client().await?;
        client.user_add(user, password, None).await?;
        client.role_add(user).await?;
        let permission = Permission::new(PermissionType::Readwrite, prefix).with_prefix();
        client.role_grant_permission(user, permission).await?;
        client.user_grant_role(user, user).await?;
        Ok(())
    }

    /// Sets a user's password, and makes etcd forget the user's tokens.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn change_password(&self, user: &str, password: &str) -> Result<()> {
        self.any_client().await?.user_change_password(user, password).await?;
        Ok(())
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

    fn arguments(&self, member: usize) -> Vec<String> {
        let peer = |member: usize| format!("http://127.0.0.1:{}", self.members[member].peer_port);
        let cluster: Vec<String> = (0..self.members.len()).map(|it| format!("etcd-{it}={}", peer(it))).collect();
        let mut arguments: Vec<String> = [
            ("--name", format!("etcd-{member}")),
            ("--data-dir", self.data_directory(member).display().to_string()),
            ("--listen-client-urls", self.endpoint(member)),
            ("--advertise-client-urls", self.endpoint(member)),
            ("--listen-peer-urls", peer(member)),
            ("--initial-advertise-peer-urls", peer(member)),
            ("--initial-cluster", cluster.join(",")),
            ("--initial-cluster-token", format!("bellwether-{}", self.members[0].peer_port)),
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

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        for member in 0..self.members.len() {
            // A process that is gone already is just as good.
            let _gone = self.kill(member);
        }
    }
}

fn revision(header: Option<&etcd_client::ResponseHeader>) -> Result<i64> {
    Ok(header.context("an answer without a header")?.revision())
}

fn all_threads_stopped(pid: u32) -> Result<bool> {
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

/// A port that nobody listens on, below those that the kernel gives to outgoing connections: a member
/// that is down for a while must find its port free again.
fn free_port() -> Result<u16> {
    const FIRST: u64 = 10_000;
    const COUNT: u64 = 22_000;
    let random = RandomState::new();
    for attempt in 0..1000_u64 {
        let mut hasher = random.build_hasher();
        hasher.write_u64(attempt);
        let port = u16::try_from(FIRST + hasher.finish() % COUNT)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port found")
}
