//! A real kube-apiserver on an etcd of its own, and what tests do to it and through it.
//!
//! There is no kubelet and no scheduler: a pod is an object, bound and marked ready by the test. Everything else is
//! real: role-based access control, pod security admission, admission policies, service account tokens bound to pods,
//! priority and fairness, watches. [`ControllerManager`] adds the controllers that turn a Deployment into pods and let
//! `EndpointSlices` follow labels.
//!
//! Calls block, also within a runtime of the test's: the clients run on threads of their own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use nix::sys::signal::Signal;
use rcgen::KeyPair;
use tempfile::TempDir;

use crate::certificates::Authority;
use crate::etcd::{EtcdOptions, EtcdServer, all_threads_stopped};
use crate::moment::Moment;
use crate::ports::free_loopback_address;
use crate::process::Process;

mod api;
mod audit_log;
mod binaries;
mod controllers;
mod credentials;
mod janitor;
mod objects;
mod pods;
mod runtime;
mod throttle;
mod timeline;

pub use api::{ApiAnswer, ApiClient, Content};
pub use audit_log::LoggedRequest;
pub use binaries::{etcd_current_binary, helm_binary, kubernetes_binary};
pub use controllers::ControllerManager;
pub use credentials::TokenMount;
pub use objects::{Manifest, PodSecurity, manifests};
pub use pods::{PodOptions, PodView};
pub use throttle::Throttle;
pub use timeline::{LabelChange, PodChange, PodTimeline};

/// How long a server may take until it is ready: 2 to 4 s on an idle machine, of which a second is of the processor.
const START_DEADLINE: Duration = Duration::from_secs(90);
/// Starts are tried again when another process took the port between our look and the server's bind.
const START_ATTEMPTS: usize = 5;
/// Between two looks at something that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The bytes of a log that an error message shows.
const LOG_TAIL: usize = 4000;
/// The admin's token. Nobody but this machine's loopback interface can use it, for as long as the test runs.
const ADMIN_TOKEN: &str = "the-admin-of-a-test";
/// What the server calls itself in tokens.
const ISSUER: &str = "https://kubernetes.default.svc";

/// What the server logs of requests: those of service accounts, with the body that was sent. See
/// [`ApiServer::requests`].
const AUDIT_POLICY: &str = r#"{
  "apiVersion": "audit.k8s.io/v1",
  "kind": "Policy",
  "omitStages": ["RequestReceived"],
  "rules": [
    {"level": "Request", "userGroups": ["system:serviceaccounts"], "omitManagedFields": true},
    {"level": "None"}
  ]
}"#;

/// A kube-apiserver and its etcd. Dropping it kills both and deletes their data.
pub struct ApiServer {
    address: SocketAddr,
    arguments: Vec<String>,
    admin: ApiClient,
    process: Option<Process>,
    /// Counts starts, each with a log of its own.
    starts: usize,
    etcd: EtcdServer,
    directory: TempDir,
}

impl ApiServer {
    /// Starts one and waits until it is ready.
    ///
    /// # Errors
    /// When a program is missing, with what to do, or does not come up, with the end of its log.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// Starts one with further arguments.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(arguments: &[&str]) -> Result<Self> {
        let etcd_options = EtcdOptions {
            binary: Some(etcd_current_binary()?),
            // A single member elects itself; the sooner the better.
            heartbeat_interval: Duration::from_millis(20),
            election_timeout: Duration::from_millis(200),
            // Only the API server is killed in tests. What it has written survives that without a sync.
            arguments: vec!["--unsafe-no-fsync".to_owned()],
            ..EtcdOptions::default()
        };
        let mut etcd = runtime::block_on(EtcdServer::start_with(etcd_options))?;
        let mut failure = anyhow!("never tried");
        for _ in 0..START_ATTEMPTS {
            let mut server = Self::prepare(etcd, arguments)?;
            server.spawn()?;
            match server.wait_until_ready() {
                Ok(()) => return Ok(server),
                Err(error) if format!("{error:#}").contains("address already in use") => failure = error,
                Err(error) => return Err(error),
            }
            etcd = server.etcd;
        }
        Err(failure)
    }

    /// One server for all tests of a process that do not break it: each works in a namespace of its own. It lives
    /// until the process ends.
    ///
    /// # Errors
    /// When it could not be started; it is tried once.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<ApiServer, String>> = OnceLock::new();
        let start = || {
            let server = Self::start()?;
            // What is static is never dropped.
            janitor::delete_after_exit(&[server.directory.path(), &server.etcd.path("")])?;
            anyhow::Ok(server)
        };
        SHARED
            .get_or_init(|| start().map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|error| anyhow!("{error}"))
    }

    fn prepare(etcd: EtcdServer, arguments: &[&str]) -> Result<Self> {
        let directory = TempDir::with_prefix("bellwether-kubernetes-")?;
        let file = |name: &str| directory.path().join(name);
        let authority = Authority::new("Kubernetes test authority")?;
        let certificate = authority.server(&["127.0.0.1", "localhost", "kubernetes.default.svc"])?;
        fs::write(file("ca.crt"), &authority.cert_pem)?;
        fs::write(file("server.crt"), certificate.cert_pem)?;
        fs::write(file("server.key"), certificate.key_pem)?;
        write_service_account_keys(directory.path())?;
        fs::write(file("tokens.csv"), format!("{ADMIN_TOKEN},admin,admin,system:masters\n"))?;
        fs::write(file("audit-policy.yaml"), AUDIT_POLICY)?;
        let address = free_loopback_address()?;
        let admin = ApiClient::new(address, &file("ca.crt"), ADMIN_TOKEN)?;
        let arguments = arguments.iter().map(ToString::to_string).collect();
        Ok(Self { address, arguments, admin, process: None, starts: 0, etcd, directory })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The certificate of the authority that signed the server's.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.path("ca.crt")
    }

    /// Requests in the name of somebody who may do everything.
    #[must_use]
    pub const fn admin(&self) -> &ApiClient {
        &self.admin
    }

    /// Requests in the name of whom the token belongs to.
    ///
    /// # Errors
    /// When the client cannot be set up.
    pub fn client(&self, token: &str) -> Result<ApiClient> {
        ApiClient::new(self.address, &self.ca_file(), token)
    }

    /// A kubeconfig for helm and kubectl: somebody who may do everything.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn admin_kubeconfig(&self) -> Result<PathBuf> {
        let file = self.path("admin.kubeconfig");
        let user = serde_json::json!({"token": ADMIN_TOKEN});
        credentials::write_kubeconfig(&file, &self.url(), &self.ca_file(), "default", &user)?;
        Ok(file)
    }

    /// A place for a test's own files, deleted with the server.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again after [`kill`](Self::kill), on the same port and data, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub fn restart(&mut self) -> Result<()> {
        self.spawn()?;
        self.wait_until_ready()
    }

    /// Kills it and starts it again with another key for service accounts: every token given out so far is worthless.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub fn restart_with_a_new_service_account_key(&mut self) -> Result<()> {
        self.kill();
        write_service_account_keys(self.directory.path())?;
        self.restart()
    }

    /// SIGSTOP: the kernel still accepts connections for it, nothing answers.
    ///
    /// # Errors
    /// When it is not running.
    pub fn freeze(&mut self) -> Result<()> {
        let process = self.running()?;
        process.signal(Signal::SIGSTOP)?;
        // The signal is on its way; its threads stop one after the other.
        while !all_threads_stopped(process.pid())? {
            thread::yield_now();
        }
        Ok(())
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it is not running.
    pub fn thaw(&mut self) -> Result<()> {
        self.running()?.signal(Signal::SIGCONT)
    }

    fn running(&mut self) -> Result<&mut Process> {
        self.process.as_mut().ok_or_else(|| anyhow!("the API server is not running"))
    }

    fn spawn(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the API server is running");
        self.starts += 1;
        let log = File::create(self.log_file())?;
        let mut command = Command::new(kubernetes_binary("kube-apiserver")?);
        command.args(self.command_line()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.process = Some(Process::spawn(command)?);
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Moment::now().after(START_DEADLINE);
        loop {
            if let Some(status) = self.running()?.exited()? {
                bail!("kube-apiserver ended with {status}:\n{}", self.log_tail());
            }
            if self.admin.get("/readyz").is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            ensure!(!deadline.passed(), "kube-apiserver is not ready:\n{}", self.log_tail());
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// The end of what it has logged since its last start.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log_file())
    }

    fn log_file(&self) -> PathBuf {
        self.path(&format!("kube-apiserver.{}.log", self.starts))
    }

    fn command_line(&self) -> Vec<String> {
        let file = |name: &str| self.path(name).display().to_string();
        [
            ("etcd-servers", self.etcd.endpoint()),
            ("bind-address", self.address.ip().to_string()),
            ("secure-port", self.address.port().to_string()),
            ("tls-cert-file", file("server.crt")),
            ("tls-private-key-file", file("server.key")),
            ("authorization-mode", "RBAC".to_owned()),
            ("token-auth-file", file("tokens.csv")),
            ("service-account-issuer", ISSUER.to_owned()),
            ("service-account-key-file", file("service-accounts.pub")),
            ("service-account-signing-key-file", file("service-accounts.key")),
            ("service-cluster-ip-range", "10.0.0.0/24".to_owned()),
            // Off by default; every cluster has it on and leaves it to pod security.
            ("allow-privileged", "true".to_owned()),
            ("audit-policy-file", file("audit-policy.yaml")),
            ("audit-log-path", file(audit_log::FILE)),
            // There is one of it, and nobody reaches it through the Service `kubernetes`.
            ("endpoint-reconciler-type", "none".to_owned()),
            ("profiling", "false".to_owned()),
        ]
        .into_iter()
        .map(|(flag, value)| format!("--{flag}={value}"))
        .chain(self.arguments.iter().cloned())
        .collect()
    }
}

/// The keys that tokens are signed with and judged by.
fn write_service_account_keys(folder: &Path) -> Result<()> {
    let key = KeyPair::generate()?;
    fs::write(folder.join("service-accounts.key"), key.serialize_pem())?;
    fs::write(folder.join("service-accounts.pub"), key.public_key_pem())?;
    Ok(())
}

/// The end of a log.
fn tail(file: &Path) -> String {
    let log = fs::read(file).unwrap_or_default();
    String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL)..]).into_owned()
}
