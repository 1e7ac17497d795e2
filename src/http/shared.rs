//! What every request may look at, and the little that the driver tells it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::Clock;
use super::promises::Promises;
use crate::config::{Compat, Config};
use crate::election::{Event, Identity, Instant, Timings, View};
use crate::metrics::Metrics;

/// The driver wakes at least once a second; ten misses in a row are a driver that does not come back.
const DRIVER_STUCK: Duration = Duration::from_secs(10);

/// What the listeners share. One per process.
#[derive(Debug)]
pub struct Shared {
    clock: Clock,
    view: watch::Receiver<Arc<View>>,
    commands: mpsc::Sender<Event>,
    promises: Arc<Promises>,
    metrics: Arc<Metrics>,
    about: About,
    /// Nanoseconds on the boot clock of the driver's last turn.
    heartbeat: AtomicU64,
    ready: AtomicBool,
}

/// What answers tell that does not change while the process runs.
#[derive(Clone, Debug)]
pub struct About {
    /// Who this candidate is.
    pub identity: Identity,
    /// `<namespace>/<election>`
    pub election: String,
    /// The timings.
    pub timings: Timings,
    /// The URLs of `--etcd-endpoints`, as they may be shown to anybody.
    pub endpoints: Vec<String>,
    /// `--allow-remote-resign`
    pub allow_remote_resign: bool,
    /// `--compat`
    pub compat: Option<Compat>,
}

impl About {
    /// The part of the configuration that answers tell.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            identity: config.election.identity.clone(),
            election: format!("{}/{}", config.election.namespace, config.election.name),
            timings: config.timings,
            endpoints: config.etcd.endpoints.iter().map(|url| without_credentials(url)).collect(),
            allow_remote_resign: config.http.allow_remote_resign,
            compat: config.compat,
        }
    }
}

impl Shared {
    /// `view` is the channel the driver publishes through, `commands` the driver's bounded queue of events
    /// from outside, `clock` is [`crate::clock::now`] outside of tests.
    #[must_use]
    pub fn new(
        about: About,
        clock: Clock,
        view: watch::Receiver<Arc<View>>,
        commands: mpsc::Sender<Event>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            clock,
            view,
            commands,
            promises: Promises::new(clock),
            metrics,
            about,
            heartbeat: AtomicU64::new(clock().boot.nanos()),
            ready: AtomicBool::new(false),
        })
    }

    /// The promises of the answers given through the local API.
    #[must_use]
    pub fn promises(&self) -> &Arc<Promises> {
        &self.promises
    }

    /// The driver's turn: to be called at every turn of its loop, which comes at least once a second.
    pub fn heartbeat(&self) {
        self.heartbeat.store((self.clock)().boot.nanos(), Ordering::Relaxed);
    }

    /// The listeners are up and the driver runs: `/readyz` says 200 from now on.
    pub fn ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// How long ago the driver's last turn was, when that is too long.
    pub(super) fn driver_stuck_for(&self) -> Option<Duration> {
        let last = Instant::from_nanos(self.heartbeat.load(Ordering::Relaxed));
        let silent = (self.clock)().boot.since(last);
        (silent > DRIVER_STUCK).then_some(silent)
    }

    /// The view as it is published now. A request borrows it only after it has taken its guard.
    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    pub(super) fn commands(&self) -> &mpsc::Sender<Event> {
        &self.commands
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn about(&self) -> &About {
        &self.about
    }
}

/// `https://user:password@host:2379` as `https://host:2379`: should the configuration ever let one through, it is
/// still not shown.
fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::without_credentials;

    #[test]
    fn urls_are_shown_without_credentials() {
        assert_eq!(without_credentials("https://etcd-0:2379"), "https://etcd-0:2379");
        assert_eq!(without_credentials("https://root:s3cret@etcd-0:2379"), "https://etcd-0:2379");
        assert_eq!(without_credentials("http://a:b@c@etcd-0:2379/x@y"), "http://etcd-0:2379/x@y");
    }
}
