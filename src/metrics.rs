//! Prometheus metrics: what is counted as it happens, and what is read off the view at a scrape.

mod label;

use std::time::Duration;

use axum::http::StatusCode;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::election::{
    CallErrorKind, ClaimResult, NotLeading, Notice, Operation, PublicState, Reading, Reason, RenewalFailure, Timings,
    View,
};
use crate::kubernetes::Report;
use label::LabelMetrics;

/// A confirmed renewal takes half a millisecond on loopback and ends with the attempt timeout, 3 s at most.
const RENEWAL_BUCKETS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0];
/// From a handover among neighbours (2 ms) over a wait for the heir (200 ms) to an etcd that is away for a while.
const FAILOVER_BUCKETS: [f64; 13] = [0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// The state's label is one of [`PublicState::ALL`], and so on: every label set is a table in this file, so
/// none can grow with what clients or servers send.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    scraped: Scraped,
    transitions: IntCounterVec,
    jeopardy_episodes: IntCounter,
    renewals: IntCounterVec,
    renewal_duration: Histogram,
    claims: IntCounterVec,
    failover: Histogram,
    etcd_errors: IntCounterVec,
    http_requests: IntCounterVec,
    http_streams: IntGaugeVec,
    /// While the pod is looked after.
    label: Option<LabelMetrics>,
}

/// Set from the view and the clock at every scrape: a gauge that something has to keep up to date lies after
/// a pause.
#[derive(Debug)]
struct Scraped {
    leading: IntGauge,
    state: IntGaugeVec,
    not_leading: IntGaugeVec,
    term: IntGauge,
    epoch: IntGauge,
    lease_remaining: Gauge,
    master_status: GaugeVec,
    election: String,
}

/// The paths that are counted by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// `/`
    Root,
    /// `/leader`
    Leader,
    /// `/events`
    Events,
    /// `/check`
    Check,
    /// `/status`
    Status,
    /// `/resign`
    Resign,
    /// `/livez`
    Livez,
    /// `/readyz`
    Readyz,
    /// `/metrics`
    Metrics,
    /// Any other: clients choose paths, so they cannot be labels.
    Other,
}

impl Path {
    const ALL: [(Self, &'static [&'static str]); 10] = [
        (Self::Root, &["200"]),
        (Self::Leader, &["200", "400", "503"]),
        (Self::Events, &["200", "503"]),
        (Self::Check, &["200", "400", "412"]),
        (Self::Status, &["200"]),
        (Self::Resign, &["202", "400", "403", "409", "503"]),
        (Self::Livez, &["200", "503"]),
        (Self::Readyz, &["200", "503"]),
        (Self::Metrics, &["200"]),
        (Self::Other, &["404"]),
    ];

    /// Which one a request asks for.
    #[must_use]
    pub fn of(path: &str) -> Self {
        Self::ALL.into_iter().map(|(each, _)| each).find(|each| each.as_str() == path).unwrap_or(Self::Other)
    }

    /// Every path that is served.
    pub fn served() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().map(|(each, _)| each).filter(|each| *each != Self::Other)
    }

    /// The label: the path itself, or `other`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "/",
            Self::Leader => "/leader",
            Self::Events => "/events",
            Self::Check => "/check",
            Self::Status => "/status",
            Self::Resign => "/resign",
            Self::Livez => "/livez",
            Self::Readyz => "/readyz",
            Self::Metrics => "/metrics",
            Self::Other => "other",
        }
    }
}

/// What a connection does that has left HTTP for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// It is an event stream.
    Events,
    /// It is a poll that waits.
    Polls,
}

impl Push {
    const ALL: [Self; 2] = [Self::Events, Self::Polls];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Polls => "polls",
        }
    }
}

impl Metrics {
    /// Every metric of this process, at zero. `election` is the election's name, a label of every series: several
    /// elections may share a namespace. `labels` says whether the pod is looked after.
    ///
    /// # Errors
    /// Two metrics of one name: a bug.
    pub fn new(election: &str, timings: &Timings, labels: bool) -> Result<Self, prometheus::Error> {
        let everywhere = [("election".to_owned(), election.to_owned())].into();
        let registry = Registry::new_custom(None, Some(everywhere))?;
        let made = Maker(&registry);
        made.constant_info()?;
        made.constant_timings(timings)?;
        let metrics = Self {
            scraped: Scraped::new(&made, election)?,
            transitions: made.counters(
                "bellwether_transitions_total",
                "Changes of this candidate's state, by the state it came to and the reason.",
                &["to", "reason"],
            )?,
            jeopardy_episodes: made.counter(
                "bellwether_jeopardy_episodes_total",
                "How often this candidate held the lock and could not renew in time.",
            )?,
            renewals: made.counters(
                "bellwether_renewals_total",
                "Attempts to renew the lease, by their result.",
                &["result"],
            )?,
            renewal_duration: made.histogram(
                "bellwether_renewal_duration_seconds",
                "From the sending of a keep-alive to its confirmation (a standby's: to its answer).",
                &RENEWAL_BUCKETS,
            )?,
            claims: made.counters("bellwether_claims_total", "Claims of the lock, by their result.", &["result"])?,
            failover: made.histogram(
                "bellwether_failover_seconds",
                "From the lock being seen gone to this candidate's own claim being confirmed.",
                &FAILOVER_BUCKETS,
            )?,
            etcd_errors: made.counters(
                "bellwether_etcd_errors_total",
                "Failed calls, streams and watches, by operation and kind of failure.",
                &["operation", "code"],
            )?,
            http_requests: made.counters(
                "bellwether_http_requests_total",
                "Requests answered, by path and status code.",
                &["path", "code"],
            )?,
            http_streams: made.gauges(
                "bellwether_http_open_streams",
                "Event streams and waiting polls, by kind: events, polls.",
                "kind",
            )?,
            label: labels.then(|| LabelMetrics::new(&made)).transpose()?,
            registry: registry.clone(),
        };
        registry.register(Box::new(ProcessCollector::for_self()))?;
        metrics.start_at_zero();
        Ok(metrics)
    }

    /// Series that appear only with their first event make every `rate()` miss that event.
    fn start_at_zero(&self) {
        for reason in REASONS {
            for to in leads_to(reason) {
                self.transitions.with_label_values(&[to.as_str(), reason.as_str()]);
            }
        }
        self.renewals.with_label_values(&["ok"]);
        for failure in RENEWAL_FAILURES {
            self.renewals.with_label_values(&[failure.as_str()]);
        }
        for result in CLAIM_RESULTS {
            self.claims.with_label_values(&[result.as_str()]);
        }
        for operation in OPERATIONS {
            for kind in [CallErrorKind::Unavailable, CallErrorKind::Timeout] {
                self.etcd_errors.with_label_values(&[operation.as_str(), kind.as_str()]);
            }
        }
        for push in Push::ALL {
            self.open_pushes(push);
        }
        for (path, codes) in Path::ALL {
            for code in codes {
                self.http_requests.with_label_values(&[path.as_str(), code]);
            }
        }
    }

    /// Counts what a notice tells.
    pub fn observe(&self, notice: &Notice) {
        match notice {
            Notice::Transition { to, reason, .. } => {
                self.transitions.with_label_values(&[to.as_str(), reason.as_str()]).inc();
                if *to == PublicState::Jeopardy {
                    self.jeopardy_episodes.inc();
                }
            }
            Notice::Renewed(took) => {
                self.renewals.with_label_values(&["ok"]).inc();
                self.renewal_duration.observe(took.as_secs_f64());
            }
            Notice::RenewalFailed(failure) => self.renewals.with_label_values(&[failure.as_str()]).inc(),
            Notice::ClaimAnswered(result) => self.claims.with_label_values(&[result.as_str()]).inc(),
            Notice::TookOver(took) => self.failover.observe(took.as_secs_f64()),
            Notice::EtcdFailed { operation, kind, .. } => {
                self.etcd_errors.with_label_values(&[operation.as_str(), kind.as_str()]).inc();
            }
            Notice::LeaderChanged { .. }
            | Notice::EtcdSilent
            | Notice::EtcdBack
            | Notice::IdentityTaken { .. }
            | Notice::LockWithoutLease { .. }
            | Notice::StoreReset { .. }
            | Notice::EndpointRefused { .. }
            | Notice::EndpointReadmitted { .. }
            | Notice::SeveralClusters { .. }
            | Notice::ServerVersion { .. }
            | Notice::NoSpace { .. }
            | Notice::StreamEnded { .. }
            | Notice::Resuming { .. }
            | Notice::NotResumed { .. }
            | Notice::Superseded
            | Notice::Released { .. } => {}
        }
    }

    /// Counts what happened to the pod's label.
    pub fn observe_label(&self, report: &Report) {
        if let Some(label) = &self.label {
            label.observe(report);
        }
    }

    /// Counts an answer of one of our listeners.
    pub fn count_request(&self, path: Path, code: StatusCode) {
        self.http_requests.with_label_values(&[path.as_str(), code.as_str()]).inc();
    }

    /// How many of a kind there are, for whoever opens and ends them.
    pub fn open_pushes(&self, push: Push) -> IntGauge {
        self.http_streams.with_label_values(&[push.as_str()])
    }

    /// The text of a scrape at `now`.
    ///
    /// # Errors
    /// A metric that cannot be written as text: a bug.
    pub fn render(&self, view: &View, now: Reading) -> Result<Vec<u8>, prometheus::Error> {
        self.scraped.set(view, now);
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl Scraped {
    fn new(made: &Maker<'_>, election: &str) -> Result<Self, prometheus::Error> {
        Ok(Self {
            leading: made.gauge("bellwether_leading", "1 while this candidate leads, else 0.")?,
            state: made.gauges("bellwether_state", "1 for the state of this candidate, 0 for the others.", "state")?,
            not_leading: made.gauges(
                "bellwether_not_leading",
                "1 for the reason why this candidate does not lead, 0 for the others.",
                "reason",
            )?,
            term: made.gauge("bellwether_term", "The token of the known leader's term; 0 when no leader is known.")?,
            epoch: made.gauge("bellwether_epoch", "The epoch of this sidecar; terms compare by epoch first.")?,
            lease_remaining: made.seconds(
                "bellwether_lease_remaining_seconds",
                "How long this candidate may go on leading without another renewal; 0 when it does not lead.",
            )?,
            master_status: made.float_gauges(
                "leader_election_master_status",
                "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates \
                 master. 'name' is the string used to identify the lease. Please make sure to group by name.",
                "name",
            )?,
            election: election.to_owned(),
        })
    }

    fn set(&self, view: &View, now: Reading) {
        let leads = view.leads(now);
        let expired = view.lead.is_some() && !leads;
        self.leading.set(i64::from(leads));
        self.master_status.with_label_values(&[&self.election]).set(if leads { 1.0 } else { 0.0 });
        let state = if expired { PublicState::Jeopardy } else { view.state };
        for each in PublicState::ALL {
            self.state.with_label_values(&[each.as_str()]).set(i64::from(each == state));
        }
        let reason = if expired { Some("jeopardy") } else { view.not_leading.as_ref().map(NotLeading::as_str) };
        for each in NotLeading::NAMES {
            self.not_leading.with_label_values(&[each]).set(i64::from(reason == Some(each)));
        }
        let leader = view.leader.as_ref().filter(|_| !expired);
        self.term.set(leader.map_or(0, |leader| leader.term.token.0));
        self.epoch.set(i64::try_from(view.epoch.0).unwrap_or(i64::MAX));
        self.lease_remaining.set(view.valid_for(now, Duration::MAX).as_secs_f64());
    }
}

/// The states a reason can lead to.
const fn leads_to(reason: Reason) -> &'static [PublicState] {
    match reason {
        Reason::Claimed | Reason::Adopted | Reason::Resumed | Reason::Inherited => &[PublicState::Leading],
        Reason::UntilPassed | Reason::ClockJumped | Reason::StreamEnded => &[PublicState::Jeopardy],
        Reason::Registered
        | Reason::LooksOn
        | Reason::Superseded
        | Reason::LeaseLost
        | Reason::LockDeleted
        | Reason::LockOverwritten
        | Reason::StoreReset
        | Reason::SeveralClusters => &[PublicState::Standby],
        Reason::Resigned | Reason::WorkFailed | Reason::AppUnhealthy => {
            &[PublicState::StandingDown, PublicState::Standby]
        }
        Reason::WorkFinished => &[PublicState::StandingDown],
        Reason::Stopped => &[PublicState::StandingDown, PublicState::Stopped],
    }
}

const REASONS: [Reason; 20] = [
    Reason::Registered,
    Reason::LooksOn,
    Reason::Inherited,
    Reason::Claimed,
    Reason::Adopted,
    Reason::Resumed,
    Reason::UntilPassed,
    Reason::ClockJumped,
    Reason::StreamEnded,
    Reason::LeaseLost,
    Reason::LockDeleted,
    Reason::LockOverwritten,
    Reason::Resigned,
    Reason::Stopped,
    Reason::WorkFinished,
    Reason::WorkFailed,
    Reason::AppUnhealthy,
    Reason::Superseded,
    Reason::StoreReset,
    Reason::SeveralClusters,
];

const RENEWAL_FAILURES: [RenewalFailure; 4] =
    [RenewalFailure::Timeout, RenewalFailure::Error, RenewalFailure::RaftTermChanged, RenewalFailure::LeaseGone];

const CLAIM_RESULTS: [ClaimResult; 4] =
    [ClaimResult::Won, ClaimResult::HeldAlready, ClaimResult::Lost, ClaimResult::LeaseGone];

const OPERATIONS: [Operation; 12] = [
    Operation::Resume,
    Operation::Probe,
    Operation::Grant,
    Operation::Observe,
    Operation::Register,
    Operation::Unregister,
    Operation::Claim,
    Operation::Confirm,
    Operation::DeleteLock,
    Operation::Revoke,
    Operation::KeepAlive,
    Operation::Watch,
];

/// Makes metrics that are registered.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn registered<T: prometheus::core::Collector + Clone + 'static>(&self, metric: T) -> Result<T, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.registered(IntCounter::new(name, help)?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.registered(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.registered(IntGauge::new(name, help)?)
    }

    fn gauges(&self, name: &str, help: &str, label: &str) -> Result<IntGaugeVec, prometheus::Error> {
        self.registered(IntGaugeVec::new(Opts::new(name, help), &[label])?)
    }

    fn float_gauges(&self, name: &str, help: &str, label: &str) -> Result<GaugeVec, prometheus::Error> {
        self.registered(GaugeVec::new(Opts::new(name, help), &[label])?)
    }

    fn seconds(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        self.registered(Gauge::new(name, help)?)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.registered(Histogram::with_opts(opts)?)
    }

    fn constant_info(&self) -> Result<(), prometheus::Error> {
        let opts = Opts::new("bellwether_build_info", "1, with the version of this sidecar.");
        let info = self.registered(IntGaugeVec::new(opts, &["version"])?)?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(())
    }

    /// What alerts compare with.
    fn constant_timings(&self, timings: &Timings) -> Result<(), prometheus::Error> {
        let seconds =
            self.float_gauges("bellwether_timing_seconds", "The timings this sidecar runs with.", "timing")?;
        let each = [
            ("lease_ttl", timings.lease_ttl()),
            ("keepalive_interval", timings.keepalive_interval()),
            ("attempt_timeout", timings.attempt_timeout()),
            ("safety_margin", timings.safety_margin()),
            ("reconnect_window", timings.reconnect_window()),
            ("answer_validity", timings.answer_validity()),
            ("drain_timeout", timings.drain_timeout()),
        ];
        for (timing, lasts) in each {
            seconds.with_label_values(&[timing]).set(lasts.as_secs_f64());
        }
        Ok(())
    }
}
