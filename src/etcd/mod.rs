//! The etcd adapter: turns effects of the core into calls, streams and watches, and what comes of them
//! into events. It decides nothing: each effect is done once, on the endpoint it names, and reported.

mod calls;
mod connect;
mod credentials;
mod endpoint;
mod error;
mod keep_alive;
mod keys;
mod snapshot;
mod watch;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::{AbortHandle, JoinError, JoinSet};

use self::credentials::{Credentials, FILES_CHECK_INTERVAL};
use self::endpoint::{CONNECT_TIMEOUT_MAX, Endpoint, Mark};
use self::error::call_error;
use self::keep_alive::KeepAliveRequest;
use self::keys::Keys;
use crate::config::{EtcdConfig, LockKeyName};
use crate::election::{
    CallError, CallErrorKind, EndpointId, Event, Identity, LeaseId, Request, Revision, StreamId, Timings, WatchId,
    WatchTarget,
};

pub use self::error::EtcdError;
pub use self::snapshot::{ElectionSnapshot, read_election};

/// Requests, streams and watches at the same time, of each. The core has a handful: more is a bug that
/// must not grow into an outage of etcd.
const CONCURRENT_MAX: usize = 256;

/// Reports that wait for the driver. It takes them faster than etcd can send; who reports waits.
const REPORTS_MAX: usize = 256;

/// Executes effects on etcd and reports events.
pub struct Etcd {
    config: EtcdConfig,
    keys: Arc<Keys>,
    connect_timeout: Duration,
    credentials: Credentials,
    endpoints: Vec<Arc<Endpoint>>,
    /// Every task of this adapter, so that none dies unnoticed or outlives it.
    tasks: JoinSet<()>,
    requests_in_flight: usize,
    streams: HashMap<StreamId, Stream>,
    watches: HashMap<WatchId, AbortHandle>,
    reports: mpsc::Sender<Report>,
    inbox: mpsc::Receiver<Report>,
    /// Events that needed no task.
    ready: VecDeque<Event>,
}

struct Stream {
    endpoint: Arc<Endpoint>,
    sends: mpsc::Sender<KeepAliveRequest>,
    /// Its connection when the last keep-alive was sent.
    last_sent: Mark,
    task: AbortHandle,
}

/// What tasks say to the adapter.
enum Report {
    Event(Event),
    FilesRead(Result<Credentials, EtcdError>),
}

/// Reports an event. Fails only when the adapter is gone, and then nobody wants to know.
async fn report(reports: &mpsc::Sender<Report>, event: Event) {
    let _adapter_gone = reports.send(Report::Event(event)).await;
}

impl Etcd {
    /// Reads certificates and password. Nothing is connected yet. Needs a Tokio runtime.
    ///
    /// # Errors
    /// When a file cannot be read or does not hold what it should, or an endpoint is no URL.
    pub fn new(
        config: &EtcdConfig,
        lock_key: &LockKeyName,
        identity: &Identity,
        timings: &Timings,
    ) -> Result<Self, EtcdError> {
        let credentials = Credentials::read(config)?;
        let connect_timeout = timings.attempt_timeout().min(CONNECT_TIMEOUT_MAX);
        let endpoints = Endpoint::all(config, &credentials, connect_timeout)?;
        let (reports, inbox) = mpsc::channel(REPORTS_MAX);
        let mut tasks = JoinSet::new();
        if credentials::names_files(config) {
            tasks.spawn(watch_files(config.clone(), credentials.clone(), reports.clone()));
        }
        Ok(Self {
            config: config.clone(),
            keys: Arc::new(Keys::new(lock_key, identity)),
            connect_timeout,
            credentials,
            endpoints,
            tasks,
            requests_in_flight: 0,
            streams: HashMap::new(),
            watches: HashMap::new(),
            reports,
            inbox,
            ready: VecDeque::new(),
        })
    }

    /// `Effect::Request`: makes the call and reports `Event::Answered`, once.
    pub fn request(&mut self, request: Request) {
        if self.requests_in_flight >= CONCURRENT_MAX {
            self.ready.push_back(Event::Answered { id: request.id, result: Err(too_many("requests")) });
            return;
        }
        self.requests_in_flight += 1;
        let (endpoint, keys, reports) = (self.endpoint(request.endpoint), self.keys.clone(), self.reports.clone());
        self.tasks.spawn(async move {
            let result = calls::execute(&endpoint, &keys, &request).await;
            report(&reports, Event::Answered { id: request.id, result }).await;
        });
    }

    /// `Effect::KeepAlive`: sends one keep-alive, opening the stream first if it is not open.
    pub fn keep_alive(&mut self, stream: StreamId, endpoint: EndpointId, lease: LeaseId) {
        if !self.streams.contains_key(&stream) && !self.open_stream(stream, endpoint) {
            return;
        }
        let Some(open) = self.streams.get_mut(&stream) else { return };
        open.last_sent = open.endpoint.mark();
        match open.sends.try_send(KeepAliveRequest::of(lease)) {
            // A stream that has ended has its end in the inbox.
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            Err(TrySendError::Full(_)) => {
                self.close_stream(stream);
                self.ready.push_back(Event::StreamEnded { stream, error: too_many("keep-alives") });
            }
        }
    }

    fn open_stream(&mut self, stream: StreamId, endpoint: EndpointId) -> bool {
        if self.streams.len() >= CONCURRENT_MAX {
            self.ready.push_back(Event::StreamEnded { stream, error: too_many("keep-alive streams") });
            return false;
        }
        let (sends, to_send) = mpsc::channel(keep_alive::QUEUED_MAX);
        let endpoint = self.endpoint(endpoint);
        let (serving, ends) =
            (Arc::clone(&endpoint), keep_alive::Ends { sends: to_send, reports: self.reports.clone() });
        let task = self.tasks.spawn(async move { keep_alive::run(&serving, stream, ends).await });
        let last_sent = endpoint.mark();
        self.streams.insert(stream, Stream { endpoint, sends, last_sent, task });
        true
    }

    /// `Effect::Redial`: the next call to this endpoint dials anew.
    pub fn redial(&self, endpoint: EndpointId) {
        self.endpoint(endpoint).give_up();
    }

    /// `Effect::CloseStream`: drops the stream; nothing more is reported of it.
    pub fn close_stream(&mut self, stream: StreamId) {
        if let Some(open) = self.streams.remove(&stream) {
            open.task.abort();
            // The core drops a stream that does not answer. Its next one is not to wait on the same connection.
            open.endpoint.give_up_if_silent(&open.last_sent);
        }
    }

    /// `Effect::Watch`: watches one key and reports until it ends.
    pub fn watch(&mut self, watch: WatchId, endpoint: EndpointId, target: WatchTarget, from: Revision) {
        if self.watches.len() >= CONCURRENT_MAX {
            self.ready.push_back(Event::WatchEnded { watch, error: too_many("watches") });
            return;
        }
        let (endpoint, keys) = (self.endpoint(endpoint), self.keys.clone());
        let it = watch::Watch { id: watch, target, from, reports: self.reports.clone() };
        let task = self.tasks.spawn(async move { watch::run(&endpoint, &keys, it).await });
        self.watches.insert(watch, task);
    }

    /// `Effect::Unwatch`: drops the watch; nothing more is reported of it.
    pub fn unwatch(&mut self, watch: WatchId) {
        if let Some(task) = self.watches.remove(&watch) {
            task.abort();
        }
    }

    /// The next event. Cancel-safe: an event that was not returned is returned next time.
    ///
    /// # Errors
    /// When one of the adapter's tasks panicked: a bug that must end the process.
    pub async fn next_event(&mut self) -> Result<Event, EtcdError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            tokio::select! {
                Some(ended) = self.tasks.join_next() => task_ended(ended)?,
                Some(report) = self.inbox.recv() => {
                    if let Some(event) = self.take(report) {
                        return Ok(event);
                    }
                }
            }
        }
    }

    /// What a report comes to: nothing when it is of a stream or watch that has been dropped.
    fn take(&mut self, report: Report) -> Option<Event> {
        let event = match report {
            Report::Event(event) => event,
            Report::FilesRead(read) => return self.take_files(read),
        };
        let wanted = match &event {
            Event::Answered { .. } => {
                self.requests_in_flight = self.requests_in_flight.saturating_sub(1);
                true
            }
            Event::KeepAliveAnswered { stream, .. } => self.streams.contains_key(stream),
            Event::StreamEnded { stream, .. } => self.streams.remove(stream).is_some(),
            Event::WatchCreated { watch, .. } | Event::WatchChanged { watch, .. } => self.watches.contains_key(watch),
            Event::WatchEnded { watch, .. } => self.watches.remove(watch).is_some(),
            Event::AnswersSettled { .. }
            | Event::Published { .. }
            | Event::WorkFailed { .. }
            | Event::WorkFinished { .. }
            | Event::WorkStopped { .. }
            | Event::AppHealth(_)
            | Event::AppGone
            | Event::Stop
            | Event::Resign { .. }
            | Event::CredentialsRenewed => true,
        };
        wanted.then_some(event)
    }

    fn take_files(&mut self, read: Result<Credentials, EtcdError>) -> Option<Event> {
        if read.as_ref().is_ok_and(|read| *read == self.credentials) {
            return None;
        }
        match read.and_then(|credentials| self.renew(credentials)) {
            Ok(()) => Some(Event::CredentialsRenewed),
            Err(error) => {
                tracing::warn!("etcd credentials have changed and cannot be used, the old ones stay: {error}");
                None
            }
        }
    }

    /// Reads certificates and password again and uses them for whatever is connected from now on. Streams
    /// and watches stay; `Event::CredentialsRenewed` tells the core to replace them.
    ///
    /// # Errors
    /// When a file cannot be read or does not hold what it should: then the old ones stay.
    pub fn reload(&mut self) -> Result<(), EtcdError> {
        self.renew(Credentials::read(&self.config)?)?;
        self.ready.push_back(Event::CredentialsRenewed);
        Ok(())
    }

    fn renew(&mut self, credentials: Credentials) -> Result<(), EtcdError> {
        self.endpoints = Endpoint::all(&self.config, &credentials, self.connect_timeout)?;
        self.credentials = credentials;
        Ok(())
    }

    fn endpoint(&self, id: EndpointId) -> Arc<Endpoint> {
        self.endpoints.get(id.0).expect("the core counts the endpoints of this very configuration").clone()
    }
}

fn task_ended(ended: Result<(), JoinError>) -> Result<(), EtcdError> {
    match ended {
        Ok(()) => Ok(()),
        Err(error) if error.is_cancelled() => Ok(()),
        Err(error) => Err(EtcdError::TaskDied(error)),
    }
}

fn too_many(what: &str) -> CallError {
    call_error(CallErrorKind::Other, format!("more than {CONCURRENT_MAX} {what} at once"))
}

/// Reports each change of the files' contents, and each new reason why they cannot be read, once.
/// Contents are compared, because a Kubernetes Secret is replaced by moving a symbolic link.
async fn watch_files(config: EtcdConfig, mut known: Credentials, reports: mpsc::Sender<Report>) {
    let mut known_error = None;
    loop {
        tokio::time::sleep(FILES_CHECK_INTERVAL).await;
        let config = config.clone();
        let Ok(read) = tokio::task::spawn_blocking(move || Credentials::read(&config)).await else {
            return; // The runtime is shutting down.
        };
        let news = match &read {
            Ok(credentials) => {
                known_error = None;
                let changed = *credentials != known;
                known.clone_from(credentials);
                changed
            }
            Err(error) => known_error.replace(error.to_string()) != Some(error.to_string()),
        };
        if news && reports.send(Report::FilesRead(read)).await.is_err() {
            return;
        }
    }
}
