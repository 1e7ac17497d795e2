//! Both servers in this process, with a view and a clock that the test sets.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bellwether::config::{Compat, HttpConfig, HttpListen};
use bellwether::election::{
    CallErrorKind, CandidateRecord, CandidateView, EndpointHealth, EndpointView, Epoch, EtcdContact, Event, Identity,
    Instant, KnownLeader, Lead, NotLeading, Operation, Part, PublicState, Reading, RecentTerm, Revision, Term, Timings,
    TimingsRequest, Until, View, WallTime,
};
use bellwether::http::{About, Limits, LocalApi, Shared, Telemetry};
use bellwether::metrics::{Metrics, Push};
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::client::Client;

pub const ME: &str = "web-1";
pub const OTHER: &str = "web-0";
/// 2026-11-22T07:00:00Z
pub const WALL: i64 = 1_795_330_800;
/// How long a freshly renewed lead lasts.
pub const LEAD: Duration = Duration::from_secs(12);
const BOOT: Duration = Duration::from_secs(1000);

// Tests run side by side, each with its runtime on its own thread, and so with its own clock.
thread_local! {
    static PASSED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    static STOP: Cell<(u32, Duration)> = const { Cell::new((0, Duration::ZERO)) };
}

/// The clock of this test.
pub fn clock() -> Reading {
    let passed = PASSED.get();
    match STOP.get() {
        (0, _) => {}
        (1, by) => {
            STOP.take();
            advance(by);
        }
        (readings, by) => STOP.set((readings - 1, by)),
    }
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).expect("a test's clock stays small");
    let wall = i64::try_from(nanos(passed)).expect("a test's clock stays small");
    Reading {
        boot: Instant::from_nanos(nanos(BOOT + passed)),
        wall: WallTime::from_unix_nanos(WALL * 1_000_000_000 + wall),
    }
}

pub fn advance(by: Duration) {
    PASSED.set(PASSED.get() + by);
}

/// The process is stopped for this long right after it reads the clock next.
pub fn stop_after_next_reading(by: Duration) {
    stop_after_readings(1, by);
}

/// The process is stopped for this long right after it has read the clock so often.
pub fn stop_after_readings(readings: u32, by: Duration) {
    STOP.set((readings, by));
}

/// Waits until it holds, which something else that runs must make it do.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    for _ in 0..1000 {
        if holds() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!("not in time: {what}")
}

/// What a test may choose.
pub struct Options {
    pub limits: Limits,
    pub allow_remote_resign: bool,
    pub answer_validity: Duration,
    pub commands: usize,
    pub compat: Option<Compat>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            limits: LocalApi::LIMITS,
            allow_remote_resign: false,
            answer_validity: Duration::from_secs(1),
            commands: 4,
            compat: None,
        }
    }
}

pub struct Sidecar {
    pub api: SocketAddr,
    pub telemetry: SocketAddr,
    pub socket: PathBuf,
    pub shared: Arc<Shared>,
    pub metrics: Arc<Metrics>,
    pub commands: mpsc::Receiver<Event>,
    view: watch::Sender<Arc<View>>,
    // Dropping it ends both servers.
    _servers: JoinSet<()>,
    _folder: TempDir,
}

impl Sidecar {
    pub async fn start() -> Result<Self> {
        Self::start_with(Options::default()).await
    }

    pub async fn start_with(options: Options) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("api.sock");
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let http = HttpConfig {
            listen: vec![HttpListen::Tcp(any_port), HttpListen::Unix(socket.clone())],
            allow_remote_resign: options.allow_remote_resign,
        };
        let local_api = LocalApi::bind(&http).await?.with_limits(options.limits);
        let telemetry = Telemetry::bind(any_port).await?;
        let timings = Timings::new(TimingsRequest {
            answer_validity: Some(options.answer_validity),
            ..TimingsRequest::default()
        })
        .map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
        let about = About {
            identity: Identity::new(ME),
            election: "default/web".into(),
            part: Part::Candidate,
            timings,
            endpoints: vec!["https://etcd-0:2379".into(), "https://etcd-1:2379".into()],
            allow_remote_resign: options.allow_remote_resign,
            compat: options.compat,
        };
        let (view, seen) = watch::channel(Arc::new(starting()));
        let (sender, commands) = mpsc::channel(options.commands);
        let metrics = Arc::new(Metrics::new("web", &about.timings, true)?);
        let shared = Shared::new(about, clock, seen, sender, Arc::clone(&metrics));
        let api = *local_api.local_addrs().first().context("a TCP address")?;
        let telemetry_address = *telemetry.local_addrs().first().context("a TCP address")?;
        let mut servers = JoinSet::new();
        for bound in [local_api, telemetry] {
            let server = bound.serve(Arc::clone(&shared));
            servers.spawn(async { panic!("{}", server.await) });
        }
        let telemetry = telemetry_address;
        Ok(Self { api, telemetry, socket, shared, metrics, commands, view, _servers: servers, _folder: folder })
    }

    /// As the candidate draws it: a new version, and news only if it tells something else.
    pub fn publish(&self, view: View) {
        let last = Arc::clone(&self.view.borrow());
        let news = last.news + u64::from(!view.tells_the_same(&last));
        self.view.send_replace(Arc::new(View { version: last.version + 1, news, ..view }));
    }

    /// How many connections are event streams, or polls that wait.
    pub fn open(&self, push: Push) -> i64 {
        self.metrics.open_pushes(push).get()
    }

    pub async fn client(&self) -> Result<Client> {
        Client::tcp(self.api).await
    }
}

pub fn term(token: i64) -> Term {
    Term { epoch: Epoch(0), token: Revision(token) }
}

pub fn starting() -> View {
    View {
        version: 0,
        news: 0,
        state: PublicState::Starting,
        lead: None,
        leader: None,
        epoch: Epoch(0),
        since: WallTime::from_unix_nanos(WALL * 1_000_000_000),
        etcd: EtcdContact::Connecting,
        not_leading: Some(NotLeading::Starting),
        candidates: Vec::new(),
        candidates_total: 0,
        recent_terms: Vec::new(),
        endpoints: Vec::new(),
        jeopardy_episodes: 0,
    }
}

/// The other leads, and everything that `/status` can tell is there to be told.
pub fn standby() -> View {
    let wall = WallTime::from_unix_nanos(WALL * 1_000_000_000 + 999_999_999);
    let leader = KnownLeader { identity: Identity::new(OTHER), term: term(48_213) };
    let record = CandidateRecord { epoch: Epoch(0), registered_at: wall, leading_since: Some(wall), nonce: None };
    let failing = EndpointHealth::Failing { operation: Operation::KeepAlive, kind: CallErrorKind::Timeout };
    View {
        state: PublicState::Standby,
        leader: Some(leader.clone()),
        etcd: EtcdContact::Connected,
        not_leading: Some(NotLeading::LockHeld(Identity::new(OTHER))),
        candidates: vec![
            CandidateView { identity: Identity::new(OTHER), record: Some(record) },
            CandidateView { identity: Identity::new(ME), record: None },
        ],
        candidates_total: 2,
        recent_terms: vec![RecentTerm { leader, seen_at: wall }],
        endpoints: vec![
            EndpointView { health: EndpointHealth::Answering, version: Some("3.6.9".into()) },
            EndpointView { health: failing, version: None },
        ],
        jeopardy_episodes: 3,
        ..starting()
    }
}

/// This candidate leads for [`LEAD`] from now on.
pub fn leading() -> View {
    let margin = Duration::from_secs(3);
    let until = Until::of_renewal(clock(), LEAD + margin, margin);
    View {
        state: PublicState::Leading,
        lead: Some(Lead { term: term(48_300), until }),
        leader: Some(KnownLeader { identity: Identity::new(ME), term: term(48_300) }),
        not_leading: None,
        ..standby()
    }
}

/// Etcd is gone, and with it the knowledge of a leader.
pub fn jeopardy() -> View {
    View {
        state: PublicState::Jeopardy,
        leader: None,
        etcd: EtcdContact::Unreachable,
        not_leading: Some(NotLeading::Jeopardy),
        ..standby()
    }
}
