//! Pods as objects in a namespace of their own, beside each a real sidecar that reaches the API server and etcd, both
//! real, through proxies of its own.

use std::fmt::Display;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use support::etcd::{EtcdOptions, EtcdServer, KeyTimeline};
use support::kubernetes::{ApiClient, ApiServer, PodOptions, PodSecurity, PodTimeline, TokenMount};
use support::{Moment, Poller, PollerOptions, Proxy, Sidecar, SidecarOptions};

mod rest;

pub use rest::Rest;

/// For conditions that must come true: far above what a loaded machine needs, reached only by failing tests.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The design's word: a wrong label is right within this time, once the API server can be reached.
pub const RIGHT_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks at something that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The label with the role.
pub const ROLE: &str = "bellwether.dev/role";
/// The label with the election's name.
pub const ELECTION: &str = "bellwether.dev/election";
/// The annotation with the term.
pub const TERM: &str = "bellwether.dev/term";
/// The service account of every pod of a stage.
pub const ACCOUNT: &str = "sidecar";
/// What the sidecar needs, and nothing else.
pub const RULES: &str = "[{apiGroups: [''], resources: [pods], verbs: [get, list, watch, patch]},
    {apiGroups: [events.k8s.io], resources: [events], verbs: [create]}]";

/// A lease that no test outlives: whatever happens did not happen because it expired.
pub const NEVER_EXPIRES: [&str; 2] = ["--lease-ttl", "60s"];
/// The shortest lease that etcd's defaults allow.
pub const EXPIRES_SOON: [&str; 2] = ["--lease-ttl", "2s"];
/// Answers that promise nothing: nothing but the label can hold a release up.
pub const PROMISES_NOTHING: [&str; 2] = ["--answer-validity", "0s"];
/// Answers that promise little: a lock is let go of soon.
pub const PROMISES_LITTLE: [&str; 2] = ["--answer-validity", "50ms"];

/// A figure for who reads the output; nothing is asserted of it.
pub fn figure(what: &str, value: impl Display) {
    // Nobody reading is no failure.
    writeln!(std::io::stderr(), "    figure: {what}: {value}").ok();
}

/// Waits until something is so.
pub fn wait_for(what: &str, within: Duration, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Moment::now().after(within);
    while !is_so()? {
        ensure!(!deadline.passed(), "not within {within:?}: {what}");
        thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// Waits until this moment, which is part of the story: a fault that lasts so long.
pub fn wait_until(moment: Moment) {
    while !moment.passed() {
        thread::sleep(moment.remaining());
    }
}

/// Something that somebody does again and again, until it is dropped.
pub struct Again {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Again {
    /// Begins.
    pub fn and_again(every: Duration, act: impl Fn() + Send + 'static) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let act = move || {
            while !stopped.load(Ordering::Relaxed) {
                act();
                thread::sleep(every);
            }
        };
        let thread = thread::Builder::new().name("again and again".to_owned()).spawn(act)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The thread's own panic has been printed already.
            thread.join().ok();
        }
    }
}

/// A pod's own part.
struct Actor {
    pod: String,
    mount: TokenMount,
    proxy: Arc<Proxy>,
    to_etcd: Proxy,
    poller: Option<Poller>,
    sidecar: Option<Sidecar>,
}

impl Actor {
    fn etcd_endpoint(&self) -> String {
        format!("http://{}", self.to_etcd.address())
    }
}

/// Whose API server.
enum Server {
    /// One of all tests, which nobody may break.
    Shared(&'static ApiServer),
    /// One for this test alone.
    Own(Box<ApiServer>),
}

/// The pods and sidecars of one election.
pub struct Stage {
    actors: Vec<Actor>,
    arguments: Vec<String>,
    /// Every change of the pods.
    pub timeline: PodTimeline,
    /// Every change of the lock key.
    pub lock: KeyTimeline,
    /// The namespace of the pods.
    pub namespace: String,
    /// The etcd of the election.
    pub etcd: EtcdServer,
    server: Server,
}

impl Stage {
    /// A stage on the API server of all tests. The sidecars are started with these arguments.
    pub async fn shared(arguments: &[&[&str]]) -> Result<Self> {
        Self::on(Server::Shared(ApiServer::shared()?), arguments).await
    }

    /// A stage with an API server of its own, to be broken.
    pub async fn alone(arguments: &[&[&str]]) -> Result<Self> {
        Self::on(Server::Own(Box::new(ApiServer::start()?)), arguments).await
    }

    async fn on(server: Server, arguments: &[&[&str]]) -> Result<Self> {
        let api = server.get();
        let namespace = api.admin().create_namespace("stage", PodSecurity::Restricted)?;
        api.admin().create_service_account(&namespace, ACCOUNT)?;
        api.admin().grant(&namespace, ACCOUNT, RULES)?;
        let etcd = EtcdServer::start_with(EtcdOptions {
            heartbeat_interval: Duration::from_millis(20),
            election_timeout: Duration::from_millis(200),
            // What is measured here is what the API server does to a handover, not what else is written to the disk,
            // its own log of a storm of patches for one: a sync would wait for all of that.
            arguments: vec!["--unsafe-no-fsync".to_owned()],
            ..EtcdOptions::default()
        });
        let etcd = etcd.await?;
        Ok(Self {
            actors: Vec::new(),
            arguments: arguments.concat().iter().map(ToString::to_string).collect(),
            timeline: PodTimeline::start(api, &namespace)?,
            lock: KeyTimeline::start(etcd.endpoint(), lock_key(&namespace))?,
            namespace,
            etcd,
            server,
        })
    }

    /// The API server.
    pub fn server(&self) -> &ApiServer {
        self.server.get()
    }

    /// The API server, to be broken.
    pub fn server_mut(&mut self) -> Result<&mut ApiServer> {
        match &mut self.server {
            Server::Shared(_) => bail!("nobody breaks what all tests share"),
            Server::Own(server) => Ok(server),
        }
    }

    /// Requests in the name of somebody who may do everything.
    pub fn admin(&self) -> &ApiClient {
        self.server().admin()
    }

    /// The lock key of the election.
    pub fn lock_key(&self) -> String {
        lock_key(&self.namespace)
    }

    // ---- pods and sidecars

    /// A pod as the chart would make it, with a sidecar that stands by or leads already: so they are in line in the
    /// order of joining.
    pub fn join(&mut self, pod: &str) -> Result<()> {
        self.create(&pod_options(pod))?;
        self.start(pod)
    }

    /// Creates a pod; its sidecar is not started.
    pub fn create(&mut self, pod: &PodOptions) -> Result<()> {
        self.admin().create_pod(&self.namespace, pod)?;
        self.adopt(&pod.name)
    }

    /// Takes in a pod that is there already, in the place of an earlier one of the same name. Its sidecar is not
    /// started.
    pub fn adopt(&mut self, pod: &str) -> Result<()> {
        let mount = self.server().mount_token(&self.namespace, pod)?;
        let proxy = Arc::new(Proxy::start(self.server().address())?);
        let to_etcd = Proxy::start(self.etcd.client_address(0).parse()?)?;
        self.actors.retain(|actor| actor.pod != pod);
        self.actors.push(Actor { pod: pod.to_owned(), mount, proxy, to_etcd, poller: None, sidecar: None });
        Ok(())
    }

    /// Starts the sidecar of a pod and waits until it stands by or leads.
    pub fn start(&mut self, pod: &str) -> Result<()> {
        self.start_with(pod, |options| options)?;
        self.wait_for(pod, |_, body| body["state"] != "starting").map(drop)
    }

    /// Starts the sidecar of a pod with options of its own; does not wait for anything.
    pub fn start_with(&mut self, pod: &str, change: impl FnOnce(SidecarOptions) -> SidecarOptions) -> Result<()> {
        let options = change(self.options(pod)?);
        self.actor_mut(pod)?.sidecar = Some(Sidecar::start(&options)?);
        Ok(())
    }

    /// How the sidecar of a pod is started.
    pub fn options(&self, pod: &str) -> Result<SidecarOptions> {
        let actor = self.actor(pod)?;
        let kubeconfig = actor.mount.kubeconfig(actor.proxy.address())?.display().to_string();
        let mut options = SidecarOptions::new(env!("CARGO_BIN_EXE_bellwether"), pod, &[actor.etcd_endpoint()]).with(&[
            "--kubeconfig",
            &kubeconfig,
            "--namespace",
            &self.namespace,
            "--pod-name",
            pod,
        ]);
        options.arguments.extend(self.arguments.iter().cloned());
        Ok(options)
    }

    /// How the sidecar of a pod is started as in the cluster: told by the environment and the mounted service account.
    pub fn options_in_cluster(&self, pod: &str) -> Result<SidecarOptions> {
        let actor = self.actor(pod)?;
        let binary = actor.mount.in_cluster(env!("CARGO_BIN_EXE_bellwether").as_ref(), actor.proxy.address())?;
        let mut options = SidecarOptions::new(binary, pod, &[actor.etcd_endpoint()]);
        options = options.with_env("BELLWETHER_POD_NAME", pod);
        options.arguments.extend(self.arguments.iter().cloned());
        Ok(options)
    }

    /// SIGTERM, and waits until it has stood down and gone.
    pub fn stop(&mut self, pod: &str) -> Result<()> {
        let sidecar = self.sidecar(pod)?;
        sidecar.signal(Signal::SIGTERM)?;
        let status = sidecar.wait_exit(PATIENCE)?;
        ensure!(status.code() == Some(0), "{pod}: {status}\n{}", sidecar.log_tail());
        Ok(())
    }

    fn actor(&self, pod: &str) -> Result<&Actor> {
        self.actors.iter().find(|actor| actor.pod == pod).with_context(|| format!("there is no {pod}"))
    }

    fn actor_mut(&mut self, pod: &str) -> Result<&mut Actor> {
        self.actors.iter_mut().find(|actor| actor.pod == pod).with_context(|| format!("there is no {pod}"))
    }

    /// The sidecar of a pod.
    pub fn sidecar(&mut self, pod: &str) -> Result<&mut Sidecar> {
        self.actor_mut(pod)?.sidecar.as_mut().with_context(|| format!("{pod} has no sidecar"))
    }

    /// What is between the sidecar of a pod and the API server.
    pub fn proxy(&self, pod: &str) -> Result<&Proxy> {
        Ok(&self.actor(pod)?.proxy)
    }

    /// What is between the sidecar of a pod and etcd.
    pub fn proxy_to_etcd(&self, pod: &str) -> Result<&Proxy> {
        Ok(&self.actor(pod)?.to_etcd)
    }

    /// Every proxy in front of the API server.
    pub fn proxies(&self) -> Vec<Arc<Proxy>> {
        self.actors.iter().map(|actor| Arc::clone(&actor.proxy)).collect()
    }

    /// What the kubelet mounts into the sidecar of a pod.
    pub fn mount(&self, pod: &str) -> Result<&TokenMount> {
        Ok(&self.actor(pod)?.mount)
    }

    /// The pods, in order of joining.
    pub fn names(&self) -> Vec<String> {
        self.actors.iter().map(|actor| actor.pod.clone()).collect()
    }

    /// Starts polling `/leader` of a pod's sidecar, and goes on through its restarts on the same ports.
    pub fn poll(&mut self, pod: &str, interval: Duration) -> Result<()> {
        let options = PollerOptions { interval, timeout: PATIENCE, ..PollerOptions::default() };
        let poller = self.sidecar(pod)?.poll(options)?;
        self.actor_mut(pod)?.poller = Some(poller);
        Ok(())
    }

    /// What polls the sidecar of a pod.
    pub fn poller(&self, pod: &str) -> Result<&Poller> {
        self.actor(pod)?.poller.as_ref().with_context(|| format!("{pod} is not polled"))
    }

    /// Waits until the `/leader` of a pod's sidecar answers something that `is_it`.
    pub fn wait_for(&self, pod: &str, is_it: impl Fn(u16, &Value) -> bool) -> Result<Value> {
        let sidecar = self.actor(pod)?.sidecar.as_ref().with_context(|| format!("{pod} has no sidecar"))?;
        sidecar.wait_for(PATIENCE, is_it)
    }
}

impl Server {
    fn get(&self) -> &ApiServer {
        match self {
            Self::Shared(server) => server,
            Self::Own(server) => server,
        }
    }
}

/// A pod as the chart would make it.
pub fn pod_options(name: &str) -> PodOptions {
    PodOptions::new(name, ACCOUNT).labelled(ELECTION, "test")
}

fn lock_key(namespace: &str) -> String {
    format!("/bellwether/{namespace}/test")
}
