//! The controllers that turn a Deployment into pods and let `EndpointSlices` follow labels.

use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};

use super::{ApiServer, LOOK_AGAIN, PodSecurity, kubernetes_binary, tail};
use crate::moment::Moment;
use crate::process::Process;

/// How long it may take until its controllers work.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// What the tests need; each costs watches and memory.
const CONTROLLERS: [&str; 10] = [
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "disruption-controller",
    "endpointslice-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    // Deletes what belonged to something that is deleted.
    "garbage-collector-controller",
    "namespace-controller",
    // Checks the types in a policy's expressions and says what it found in the policy's status.
    "validatingadmissionpolicy-status-controller",
];

/// A kube-controller-manager. Dropping it kills it.
pub struct ControllerManager {
    _process: Process,
}

impl ControllerManager {
    /// Starts one and waits until its controllers work.
    ///
    /// # Errors
    /// When the program is missing, with what to do, or does not come up, with the end of its log.
    pub fn start(server: &ApiServer) -> Result<Self> {
        let log_file = server.path("kube-controller-manager.log");
        let log = File::create(&log_file)?;
        let mut command = Command::new(kubernetes_binary("kube-controller-manager")?);
        command
            .arg(format!("--kubeconfig={}", server.admin_kubeconfig()?.display()))
            .arg(format!("--root-ca-file={}", server.ca_file().display()))
            .arg(format!("--controllers={}", CONTROLLERS.join(",")))
            // There is one of it, and nobody asks it anything.
            .args(["--leader-elect=false", "--secure-port=0", "--profiling=false"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut process = Process::spawn(command)?;
        let namespace = server.admin().create_namespace("controllers", PodSecurity::Privileged)?;
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
        let deadline = Moment::now().after(START_DEADLINE);
        // Written by one of them.
        while server.admin().get(&path)?.status != 200 {
            if let Some(status) = process.exited()? {
                bail!("kube-controller-manager ended with {status}:\n{}", tail(&log_file));
            }
            ensure!(!deadline.passed(), "the controllers do not work:\n{}", tail(&log_file));
            thread::sleep(LOOK_AGAIN);
        }
        Ok(Self { _process: process })
    }

    /// One for [`ApiServer::shared`], which lives as long.
    ///
    /// # Errors
    /// When it could not be started; it is tried once.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<ControllerManager, String>> = OnceLock::new();
        let start = || Self::start(ApiServer::shared()?);
        SHARED
            .get_or_init(|| start().map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|error| anyhow!("{error}"))
    }
}
