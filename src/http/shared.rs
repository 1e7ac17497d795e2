//! What every request may look at, and the little that the driver tells it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::Clock;
use super::answer::Moment;
use super::handover::Places;
use super::promises::Promises;
use super::version::{Boot, Version};
use crate::config::{Compat, Config};
use crate::election::{Event, Identity, Instant, Part, Timings, View};
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
    boot: Boot,
    /// Rings when the version changes; carries nothing, so that nobody relies on what it said a moment ago.
    news: watch::Sender<()>,
    /// For event streams and waiting polls.
    places: Places,
}

/// What answers tell that does not change while the process runs.
#[derive(Clone, Debug)]
pub struct About {
    /// Who this candidate is.
    pub identity: Identity,
    /// `<namespace>/<election>`
    pub election: String,
    /// Whether it contends, or only looks on.
    pub part: Part,
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
            part: config.part,
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
            about,
            heartbeat: AtomicU64::new(clock().boot.nanos()),
            ready: AtomicBool::new(false),
            boot: Boot::draw(),
            news: watch::Sender::new(()),
            places: Places::new(Arc::clone(&metrics)),
            metrics,
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

    /// The view as it is published from now on.
    pub(super) fn views(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// What can be said of a view by the clock of now. Which is to be read after the view was borrowed.
    pub(super) fn moment<'a>(&'a self, view: &'a View) -> Moment<'a> {
        Moment::new(view, &self.about, self.boot, (self.clock)())
    }

    /// The version of what `/leader` would tell now. Nothing may be said from it: no guard is held.
    pub(super) fn version(&self) -> Version {
        Version::of(self.boot, &self.view.borrow(), (self.clock)())
    }

    /// Rings whenever [`Self::version`] may have changed.
    pub(super) fn bell(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    pub(super) fn ring(&self) {
        self.news.send_replace(());
    }

    pub(super) fn places(&self) -> &Places {
        &self.places
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
