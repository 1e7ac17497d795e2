//! The driver: the one loop that does IO for the candidate.
//!
//! Each turn: wait for one occurrence or the deadline; read the clock; when the deadline has passed, let the
//! candidate handle that first; hand it the occurrence; **publish the view**; only then run the effects. So
//! whoever asks hears 503 before the lock is let go.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::GetRandomFailed;
use rustls::crypto::ring::default_provider;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tracing::{info, warn};

use crate::app_health::{self, AppHealthError, AppProbes};
use crate::clock;
use crate::config::{Config, Span};
use crate::election::{Application, Candidate, Effect, Event, Inheritance, Nonce, OpId, Part, Reading, Settings, View};
use crate::etcd::{Etcd, EtcdError};
use crate::http::{
    About, Bound, HttpError, LocalApi, Shared, Telemetry, allow_for_open_streams, cut_writes_that_were_stopped,
};
use crate::kubernetes::{KubernetesError, PodLabel, Report};
use crate::metrics::Metrics;
use crate::report::Reporter;
use crate::signals::{Signal, Signals, keep_ended_children};
use crate::state_dir::{StateDir, StateDirError};
use crate::work::{Orphans, Work, WorkError};

/// The loop turns at least this often: timers count a clock that stands still while the machine sleeps,
/// and `/livez` wants to see a turn now and then.
const TURN_AT_LEAST_EVERY: Duration = Duration::from_secs(1);
/// Resignations that wait for the loop. It takes one in microseconds; more at once are one too many.
const COMMANDS_MAX: usize = 4;

/// Why the driver ended without having stood down in order.
#[derive(Debug, Error)]
pub enum DriverError {
    /// etcd cannot even be tried, or its adapter has a bug.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// A listener cannot be had, or ended.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Signals cannot be listened for.
    #[error("cannot listen for signals: {0}")]
    Signals(#[source] io::Error),
    /// There are too many open files.
    #[error("no descriptor can be had: {0}")]
    Descriptors(#[source] io::Error),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
    /// What runs only while it leads is not looked after any more.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The pod is not looked after any more: a bug.
    #[error(transparent)]
    Kubernetes(#[from] KubernetesError),
    /// The application is not asked for its health any more: a bug.
    #[error(transparent)]
    AppHealth(#[from] AppHealthError),
    /// The folder for lease and term cannot be had.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// One of the driver's own tasks panicked: a bug.
    #[error("a task of the driver ended: {0}")]
    Task(#[from] JoinError),
}

/// Runs a candidate until it has stood down. What comes of it is the exit code of its command, when that was the reason.
///
/// # Errors
/// When it cannot start, or one of its parts dies: see [`DriverError`].
pub async fn run(config: Config) -> Result<Option<u8>, DriverError> {
    Driver::start(&config).await?.run().await
}

/// What can wake the loop.
enum Occurrence {
    /// The deadline, or nothing for a while.
    Tick,
    Event(Event),
    Label(Report),
    Signal(Signal),
}

struct Driver {
    candidate: Candidate,
    etcd: Etcd,
    pod_label: PodLabel,
    work: Work,
    orphans: Orphans,
    app_probes: AppProbes,
    shared: Arc<Shared>,
    view: watch::Sender<Arc<View>>,
    metrics: Arc<Metrics>,
    reporter: Reporter,
    signals: Signals,
    commands: mpsc::Receiver<Event>,
    /// The listeners. They never end by themselves.
    listeners: JoinSet<HttpError>,
    /// Answers given out, being waited for.
    settlements: JoinSet<OpId>,
    /// Where lease and term are kept for the next process.
    state_dir: Option<StateDir>,
}

impl Driver {
    async fn start(config: &Config) -> Result<Self, DriverError> {
        keep_ended_children().map_err(DriverError::Signals)?;
        let signals = Signals::listen(config.runs_a_command()).map_err(DriverError::Signals)?;
        cut_writes_that_were_stopped().map_err(DriverError::Signals)?;
        if let Err(error) = allow_for_open_streams() {
            warn!(%error, "there may be fewer event streams and waiting polls than usual: too few open files are allowed");
        }
        let mut state_dir = StateDir::of(config).await?;
        let local_api = LocalApi::bind(&config.http).await?;
        let telemetry = Telemetry::bind(config.telemetry).await?;
        let etcd = Etcd::new(&config.etcd, &config.election.lock_key, &config.election.identity, &config.timings)?;
        let pod_label = PodLabel::start(&config.pod_label, &config.election.identity);
        let lock = state_dir.as_ref().map(StateDir::try_clone_lock).transpose().map_err(DriverError::Descriptors)?;
        let work = Work::new(config, lock)?;
        let inheritance = state_dir.as_mut().map_or(Inheritance::Nothing, StateDir::inherit);
        let settings = Settings { inheritance, remembers: state_dir.is_some(), ..settings(config, pod_label.is_on())? };
        let candidate = Candidate::new(settings, clock::now());
        let metrics = Metrics::new(&config.election.name, &config.timings, pod_label.is_on());
        let metrics = Arc::new(metrics.expect("each metric has a name of its own"));
        let (view, published) = watch::channel(Arc::new(candidate.view().clone()));
        let (commander, commands) = mpsc::channel(COMMANDS_MAX);
        let shared = Shared::new(About::of(config), clock::now, published, commander, Arc::clone(&metrics));
        let app_probes = AppProbes::start(config.app_health.as_ref());
        announce(config, &local_api, &telemetry);
        Reporter::announce_label(config);
        let mut listeners = JoinSet::new();
        listeners.spawn(local_api.serve(Arc::clone(&shared)));
        listeners.spawn(telemetry.serve(Arc::clone(&shared)));
        let reporter = Reporter::to_stdout(config);
        let settlements = JoinSet::new();
        Ok(Self {
            candidate,
            etcd,
            pod_label,
            work,
            orphans: Orphans::new(clock::now().boot),
            app_probes,
            shared,
            view,
            metrics,
            reporter,
            signals,
            commands,
            listeners,
            settlements,
            state_dir,
        })
    }

    async fn run(mut self) -> Result<Option<u8>, DriverError> {
        self.shared.ready();
        let mut progress = self.run_effects(clock::now());
        while progress == Progress::GoOn {
            let occurrence = self.wait().await?;
            self.shared.heartbeat();
            progress = self.turn(clock::now(), occurrence);
        }
        self.pod_label.finish().await;
        if let Some(state_dir) = self.state_dir {
            state_dir.finish().await;
        }
        Ok(self.work.ending()?)
    }

    /// Waits for one occurrence. Every branch is cancel-safe.
    async fn wait(&mut self) -> Result<Occurrence, DriverError> {
        let patience = self.patience(clock::now());
        tokio::select! {
            event = self.etcd.next_event() => Ok(Occurrence::Event(event?)),
            signal = self.signals.next() => Ok(Occurrence::Signal(signal)),
            report = self.work.next_report() => Ok(Occurrence::Event(report)),
            report = self.app_probes.next_report() => Ok(Occurrence::Event(match report? {
                app_health::Report::Health(health) => Event::AppHealth(health),
                app_health::Report::Gone => Event::AppGone,
            })),
            report = self.pod_label.next_report() => Ok(Occurrence::Label(report?)),
            Some(command) = self.commands.recv() => Ok(Occurrence::Event(command)),
            Some(settled) = self.settlements.join_next() => Ok(Occurrence::Event(Event::AnswersSettled { id: settled? })),
            Some(ended) = self.listeners.join_next() => Err(ended?.into()),
            died = died(&mut self.state_dir) => Err(died.into()),
            () = tokio::time::sleep(patience) => Ok(Occurrence::Tick),
        }
    }

    fn patience(&self, now: Reading) -> Duration {
        let due_in = self.candidate.poll_timeout().map(|at| at.since(now.boot));
        due_in.map_or(TURN_AT_LEAST_EVERY, |due_in| due_in.min(TURN_AT_LEAST_EVERY))
    }

    fn turn(&mut self, now: Reading, occurrence: Occurrence) -> Progress {
        // A tick handles the timeout even before the deadline: the wall clock may have jumped, and no
        // timer tells.
        let due = self.candidate.poll_timeout().is_some_and(|at| now.boot >= at);
        if due || matches!(occurrence, Occurrence::Tick) {
            self.candidate.handle_timeout(now);
        }
        if matches!(
            occurrence,
            Occurrence::Signal(Signal::Stop(_)) | Occurrence::Event(Event::Stop | Event::WorkFinished { .. })
        ) {
            self.app_probes.stopping();
        }
        match occurrence {
            Occurrence::Tick => {}
            Occurrence::Event(event) => self.candidate.handle_event(now, event),
            Occurrence::Label(Report::Published(id)) => self.candidate.handle_event(now, Event::Published { id }),
            Occurrence::Label(report) => {
                self.metrics.observe_label(&report);
                self.reporter.report_label(&report);
            }
            Occurrence::Signal(signal) => self.take_signal(now, signal),
        }
        self.publish();
        let progress = self.run_effects(now);
        self.orphans.look(now.boot);
        progress
    }

    fn publish(&mut self) {
        let drawn = self.candidate.view();
        if self.view.borrow().version != drawn.version {
            self.view.send_replace(Arc::new(drawn.clone()));
        }
    }

    fn run_effects(&mut self, now: Reading) -> Progress {
        while let Some(effect) = self.candidate.poll_effect() {
            match effect {
                Effect::Request(request) => self.etcd.request(request),
                Effect::KeepAlive { stream, endpoint, lease } => self.etcd.keep_alive(stream, endpoint, lease),
                Effect::Redial(endpoint) => self.etcd.redial(endpoint),
                Effect::CloseStream(stream) => self.etcd.close_stream(stream),
                Effect::Watch { watch, endpoint, target, from } => self.etcd.watch(watch, endpoint, target, from),
                Effect::Unwatch(watch) => self.etcd.unwatch(watch),
                Effect::SettleAnswers(id) => self.settle_answers(id),
                Effect::Publish(publication) => self.pod_label.publish(publication),
                Effect::StartWork { id, term, until } => self.work.start(id, term, until),
                Effect::ExtendWork { id, until } => self.work.extend(id, until),
                Effect::StopWork { id, kill_at } => self.work.stop(id, kill_at),
                Effect::Remember(memory) => {
                    if let Some(state_dir) = &self.state_dir {
                        state_dir.remember(memory);
                    }
                }
                Effect::Forget => {
                    if let Some(state_dir) = &self.state_dir {
                        state_dir.forget();
                    }
                }
                Effect::Tell(notice) => {
                    self.metrics.observe(&notice);
                    self.reporter.report(&notice, now);
                }
                Effect::Exit => return Progress::Exit,
            }
        }
        Progress::GoOn
    }

    fn settle_answers(&mut self, id: OpId) {
        let promises = Arc::clone(self.shared.promises());
        self.settlements.spawn(async move {
            promises.settled().await;
            id
        });
    }

    /// The command has every signal, before what that means for bellwether.
    fn take_signal(&mut self, now: Reading, signal: Signal) {
        self.work.forward(signal.number(), matches!(signal, Signal::Stop(_)));
        match signal {
            Signal::Stop(_) => self.candidate.handle_event(now, Event::Stop),
            Signal::Reload => self.reload(),
            Signal::Other(_) => {}
        }
    }

    fn reload(&mut self) {
        match self.etcd.reload() {
            Ok(()) => info!("certificates and password are being read again"),
            Err(error) => warn!(%error, "the certificates and password in use stay: the new ones cannot be read"),
        }
    }
}

/// Completes only when the task that keeps the state has panicked.
async fn died(state_dir: &mut Option<StateDir>) -> JoinError {
    match state_dir {
        Some(state_dir) => state_dir.died().await,
        None => std::future::pending().await,
    }
}

/// The first line of a log: which version takes part in what, where it is asked, and whom it asks.
fn announce(config: &Config, local_api: &Bound, telemetry: &Bound) {
    let begins = match config.part {
        Part::Candidate => "campaigning",
        Part::Observer => "looking on (--never-lead)",
    };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        election = %format!("{}/{}", config.election.namespace, config.election.name),
        identity = %config.election.identity,
        epoch = config.election.epoch.0,
        lock_key = config.election.lock_key.as_str(),
        lease_ttl = %Span(config.timings.lease_ttl()),
        etcd_endpoints = config.etcd.endpoints.join(" "),
        local_api = local_api.addresses().join(" "),
        telemetry = telemetry.addresses().join(" "),
        app_health = config.app_health.as_ref().map(|it| it.target.to_string()),
        "{begins}"
    );
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    GoOn,
    Exit,
}

fn settings(config: &Config, publishes: bool) -> Result<Settings, DriverError> {
    let bare = Settings::bare(config.election.identity.clone(), config.timings, config.etcd.endpoints.len(), random()?);
    let application = config.app_health.as_ref().map_or(Application::NotChecked, |_| Application::Checked);
    let (epoch, part, works) = (config.election.epoch, config.part, config.work.is_some());
    Ok(Settings { epoch, nonce: Nonce(random()?), publishes, works, part, application, ..bare })
}

fn random() -> Result<u64, DriverError> {
    let mut bytes = [0; 8];
    default_provider().secure_random.fill(&mut bytes).map_err(|GetRandomFailed| DriverError::NoRandomness)?;
    Ok(u64::from_ne_bytes(bytes))
}
