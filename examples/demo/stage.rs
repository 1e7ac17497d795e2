//! One etcd, three sidecars, and a poller on each.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use support::etcd::EtcdServer;
use support::{Answer, Audit, Moment, Poller, PollerOptions, Sidecar, SidecarOptions, audit};
use tokio::runtime::Runtime;

use crate::story::Story;

/// How many sidecars: one leads, one is the heir, one shows that the others wait.
const SIDECARS: usize = 3;
/// From one request to `/leader` to the next: fine enough to measure a takeover of some milliseconds with.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// Longer than any freeze of the demo, so that the answer after it, on the connection from before, is seen.
const POLL_TIMEOUT: Duration = Duration::from_mins(2);
/// How often a wait looks whether it was interrupted.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// What a loaded machine may add to any wait of the demo.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long samples are kept while nothing is played: for the first look of the next audit.
const SAMPLES_KEPT: Duration = Duration::from_secs(10);

/// The demo was ended by a signal or by `q`: not a failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// What to put on stage.
#[derive(Clone, Debug)]
pub(crate) struct StageOptions {
    pub(crate) binary: PathBuf,
    pub(crate) ttl: Duration,
    pub(crate) answer_validity: Duration,
    /// Set from outside to end every wait.
    pub(crate) interrupted: Arc<AtomicBool>,
}

/// A sidecar as seen from outside.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) identity: String,
    pub(crate) http: std::net::SocketAddr,
    pub(crate) telemetry: std::net::SocketAddr,
    pub(crate) pid: AtomicU32,
    pub(crate) poller: Poller,
}

/// Who answers 200, and in which term (epoch first).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    /// Its place among the sidecars.
    pub(crate) place: usize,
    pub(crate) term: (u64, u64),
    /// When the 200 came in.
    pub(crate) received: Moment,
}

impl Leader {
    fn of(place: usize, answer: Answer, received: Moment) -> Self {
        Self { place, term: (answer.epoch, answer.term), received }
    }
}

/// The whole arrangement. Fields are dropped in this order: whoever asks goes before who answers.
pub(crate) struct Stage {
    watched: Vec<Arc<Watched>>,
    sidecars: Vec<Sidecar>,
    etcd: EtcdServer,
    runtime: Runtime,
    options: StageOptions,
    pub(crate) story: Story,
}

impl Stage {
    /// Starts everything and waits for the first leader.
    pub(crate) fn start(options: StageOptions, story: Story) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let etcd = runtime.block_on(EtcdServer::start()).context("cannot start etcd")?;
        let endpoint = etcd.endpoint();
        story.tell(&format!("etcd serves on {endpoint}, with throw-away data"));
        let mut stage = Self { watched: Vec::new(), sidecars: Vec::new(), etcd, runtime, options, story };
        for number in 0..SIDECARS {
            stage.check_interrupted()?;
            stage.add_sidecar(&format!("web-{number}"), &endpoint)?;
        }
        let leader = stage.wait_for_leader()?;
        stage.story.tell(&format!("{} leads, term {}", stage.name(leader.place), leader.term.1));
        let url = format!("http://{}", stage.watched[leader.place].http);
        stage.story.tell(&format!("try: curl -si {url}/leader   curl -s {url}/status   curl -s {url}/"));
        Ok(stage)
    }

    fn add_sidecar(&mut self, identity: &str, endpoint: &str) -> Result<()> {
        let mut options = SidecarOptions::new(&self.options.binary, identity, &[endpoint.to_owned()]).with(&[
            "--lease-ttl",
            &format!("{}ms", self.options.ttl.as_millis()),
            "--answer-validity",
            &format!("{}ms", self.options.answer_validity.as_millis()),
        ]);
        "demo".clone_into(&mut options.election);
        let sidecar = Sidecar::start(&options)?;
        let poller = sidecar.poll(PollerOptions {
            interval: POLL_INTERVAL,
            timeout: POLL_TIMEOUT,
            ..PollerOptions::default()
        })?;
        let (http, telemetry, pid) = (sidecar.http(), sidecar.telemetry(), AtomicU32::new(sidecar.pid()));
        self.story.tell(&format!("{identity} serves on http://{http}, metrics on http://{telemetry}/metrics"));
        self.watched.push(Arc::new(Watched { identity: identity.to_owned(), http, telemetry, pid, poller }));
        self.sidecars.push(sidecar);
        Ok(())
    }

    pub(crate) fn watched(&self) -> &[Arc<Watched>] {
        &self.watched
    }

    pub(crate) const fn ttl(&self) -> Duration {
        self.options.ttl
    }

    pub(crate) fn name(&self, place: usize) -> &str {
        &self.watched[place].identity
    }

    pub(crate) fn sidecar(&mut self, place: usize) -> &mut Sidecar {
        &mut self.sidecars[place]
    }

    /// Ends a wait when somebody wants out.
    pub(crate) fn check_interrupted(&self) -> Result<()> {
        if self.options.interrupted.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
    }

    /// Lets time pass.
    pub(crate) fn pause(&self, time: Duration) -> Result<()> {
        let end = Moment::now().after(time);
        while !end.passed() {
            self.check_interrupted()?;
            thread::sleep(LOOK_AGAIN.min(end.remaining()));
        }
        Ok(())
    }

    /// The first who answered 200 at or after `since`, a request sent after it included, apart from `except`.
    pub(crate) fn first_leading(&self, since: Moment, except: Option<usize>) -> Option<Leader> {
        let now = Moment::now();
        self.watched
            .iter()
            .enumerate()
            .filter(|(place, _)| Some(*place) != except)
            .filter_map(|(place, watched)| {
                let sample = watched.poller.wait_for(since, now, |sample| sample.leading().is_some())?;
                Some(Leader::of(place, sample.leading()?, sample.received))
            })
            .min_by_key(|leader| leader.received)
    }

    /// Waits for somebody to answer 200 at or after `since`, apart from `except`.
    pub(crate) fn wait_for_leading(&self, since: Moment, except: Option<usize>, within: Duration) -> Result<Leader> {
        let deadline = Moment::now().after(within + PATIENCE);
        loop {
            self.check_interrupted()?;
            if let Some(leader) = self.first_leading(since, except) {
                return Ok(leader);
            }
            if deadline.passed() {
                let tails: Vec<_> = self
                    .sidecars
                    .iter()
                    .map(|sidecar| format!("--- log of {}:\n{}", sidecar.identity(), sidecar.log_tail()))
                    .collect();
                bail!("nobody leads after {:?}\n{}", within + PATIENCE, tails.join("\n"));
            }
            // The moment that counts is the sample's, so this may be coarse.
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Waits for whoever leads now.
    pub(crate) fn wait_for_leader(&self) -> Result<Leader> {
        self.wait_for_leading(Moment::now(), None, self.options.ttl)
    }

    /// Starts a sidecar again that has ended.
    pub(crate) fn restart_sidecar(&mut self, place: usize) -> Result<()> {
        self.sidecars[place].restart()?;
        self.watched[place].pid.store(self.sidecars[place].pid(), Ordering::Relaxed);
        self.story.tell(&format!("{} started again, pid {}", self.name(place), self.sidecars[place].pid()));
        Ok(())
    }

    /// Waits until every sidecar leads or stands by.
    pub(crate) fn wait_until_all_take_part(&self) -> Result<()> {
        let deadline = Moment::now().after(self.options.ttl + PATIENCE);
        loop {
            self.check_interrupted()?;
            let states: Vec<_> = self.sidecars.iter().map(state_of).collect();
            if states.iter().all(|state| ["leading", "standby"].contains(&state.as_str())) {
                return Ok(());
            }
            if deadline.passed() {
                bail!("not every sidecar takes part again: {states:?}");
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    pub(crate) fn kill_etcd(&mut self) {
        self.etcd.kill();
    }

    /// Starts etcd again with its data, and waits until it answers.
    pub(crate) fn restart_etcd(&mut self) -> Result<()> {
        self.runtime.block_on(self.etcd.restart())
    }

    /// How many renewals this sidecar has had confirmed.
    pub(crate) fn renewals(&self, place: usize) -> Option<f64> {
        self.sidecars[place].metric("bellwether_renewals_total{result=\"ok\"}").ok().flatten()
    }

    /// Judges everything the pollers saw since this moment.
    pub(crate) fn audit_since(&self, since: Moment) -> Audit {
        let samples: Vec<_> = self
            .watched
            .iter()
            .map(|watched| (watched.identity.as_str(), watched.poller.samples_since(since)))
            .collect();
        audit(samples.iter().map(|(identity, samples)| (*identity, samples.as_slice())))
    }

    /// Keeps the memory of a demo that runs for hours small.
    pub(crate) fn forget_old_samples(&self) {
        for watched in &self.watched {
            if let Some(last) = watched.poller.last() {
                watched.poller.forget_before(last.sent.before(SAMPLES_KEPT));
            }
        }
    }
}

fn state_of(sidecar: &Sidecar) -> String {
    match sidecar.leader() {
        Ok((_, body)) => body["state"].as_str().unwrap_or_default().to_owned(),
        Err(error) => format!("{error:#}"),
    }
}
