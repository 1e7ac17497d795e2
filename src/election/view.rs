//! What the world may see of a candidate. Published before any effect of the same event runs.

use std::time::Duration;

use super::effect::{CandidateRecord, Operation};
use super::event::CallErrorKind;
use super::ids::{Epoch, Identity, Term};
use super::instant::{Reading, Until, WallTime};
use crate::protections::Protections;

/// A snapshot of the candidate, with what is needed to answer a request at any later instant.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Grows with every published change.
    pub version: u64,
    /// Grows when what `/leader` tells changes: not with a renewal, which moves `until` only.
    pub news: u64,
    /// The state of the candidate.
    pub state: PublicState,
    /// The term this candidate leads, and how long: present only while leading.
    pub lead: Option<Lead>,
    /// The known leader, itself or another; `None` when there is none, or when it cannot be known.
    pub leader: Option<KnownLeader>,
    /// `--epoch`.
    pub epoch: Epoch,
    /// Since when the leader is the one named (or there is none), as far as this sidecar saw.
    pub since: WallTime,
    /// Whether etcd answers.
    pub etcd: EtcdContact,
    /// Why this candidate does not lead; `None` while it does.
    pub not_leading: Option<NotLeading>,
    /// The oldest candidates, as of the last observation.
    pub candidates: Vec<CandidateView>,
    /// How many candidates there were in all at the last observation.
    pub candidates_total: u64,
    /// The last terms this sidecar saw, newest first, at most `RECENT_TERMS`.
    pub recent_terms: Vec<RecentTerm>,
    /// Health of each endpoint, in the order of `--etcd-endpoints`.
    pub endpoints: Vec<EndpointView>,
    /// How often this candidate fell into Jeopardy.
    pub jeopardy_episodes: u64,
}

/// How many terms `/status` tells of: a day of trouble at a glance, constant in memory.
pub const RECENT_TERMS: usize = 16;

/// The right to answer 200, with its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lead {
    /// The term.
    pub term: Term,
    /// The instant from which it must not be acted on.
    pub until: Until,
}

impl View {
    /// Whether this candidate leads at `now`. Decided by the clock at every request; a timer that fires
    /// late, or a process that was frozen, changes nothing.
    #[must_use]
    pub fn leads(&self, now: Reading) -> bool {
        self.lead.is_some_and(|lead| Protections::NO_REQUEST_CHECK.taken_away() || !lead.until.passed(now))
    }

    /// Whether `/leader` tells the same from both, apart from how long it holds.
    #[must_use]
    pub fn tells_the_same(&self, other: &Self) -> bool {
        let term = |view: &Self| view.lead.map(|lead| lead.term);
        (self.state, &self.leader, self.epoch, self.since, self.etcd, &self.not_leading)
            == (other.state, &other.leader, other.epoch, other.since, other.etcd, &other.not_leading)
            && term(self) == term(other)
    }

    /// How long an answer given at `now` may be relied on: `min(until − now, validity)`, zero when not leading.
    #[must_use]
    pub fn valid_for(&self, now: Reading, validity: Duration) -> Duration {
        match self.lead {
            Some(lead) if self.leads(now) => lead.until.remaining(now).min(validity),
            Some(_) | None => Duration::ZERO,
        }
    }
}

/// The state's public name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PublicState {
    /// Not registered yet: etcd not reached, or the identity is taken.
    Starting,
    /// In line for the lock.
    Standby,
    /// Leader, as long as the view's `until` has not passed.
    Leading,
    /// Held the lock, `until` has passed, not yet known whether the lease survived. Not a leader.
    Jeopardy,
    /// Answers 503 already, still holds the lock.
    StandingDown,
    /// Let go of everything.
    Stopped,
}

impl PublicState {
    /// Every state, for metrics that set one and clear the rest.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Standby, Self::Leading, Self::Jeopardy, Self::StandingDown, Self::Stopped];

    /// The name in JSON, logs and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Leading => "leading",
            Self::Jeopardy => "jeopardy",
            Self::StandingDown => "standing_down",
            Self::Stopped => "stopped",
        }
    }
}

/// The leader as this candidate knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownLeader {
    /// The value of the lock key.
    pub identity: Identity,
    /// Its term, with the epoch of this sidecar.
    pub term: Term,
}

/// Whether etcd answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtcdContact {
    /// No answer yet since the start.
    Connecting,
    /// The last attempts were answered.
    Connected,
    /// Nothing was answered for longer than an attempt may take.
    Unreachable,
}

impl EtcdContact {
    /// The name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Why a candidate does not lead, for `/status` and the table of `bellwether status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotLeading {
    /// Not registered yet.
    Starting,
    /// etcd has not answered what was asked for longer than an attempt may take.
    EtcdUnreachable,
    /// Another live candidate has this identity.
    IdentityTaken,
    /// Another candidate holds the lock.
    LockHeld(Identity),
    /// The lock key has no lease: it blocks everyone until an operator deletes it.
    LockWithoutLease(Identity),
    /// The lock is free, this candidate is about to claim it or lets the heir go first.
    LockFree,
    /// The lock key carries this candidate's lease, but no renewal is confirmed yet.
    Unconfirmed,
    /// Resigned, or removed by an operator, and stays away for a while.
    CoolingDown,
    /// `until` has passed.
    Jeopardy,
    /// On the way out.
    StandingDown,
    /// The store was wiped or restored: restart with a higher `--epoch`.
    StoreReset,
    /// The endpoints belong to more than one cluster.
    SeveralClusters,
    /// `--never-lead`.
    NeverLeads,
    /// The application has not been healthy yet.
    AppStarting,
    /// The application is not healthy.
    AppUnhealthy,
    /// What ran while it led has not ended yet.
    WorkStopping,
}

impl NotLeading {
    /// Every name, for metrics that set one and clear the rest.
    pub const NAMES: [&'static str; 16] = [
        "starting",
        "etcd_unreachable",
        "identity_taken",
        "lock_held",
        "lock_without_lease",
        "lock_free",
        "unconfirmed",
        "cooling_down",
        "jeopardy",
        "standing_down",
        "store_reset",
        "several_clusters",
        "never_leads",
        "app_starting",
        "app_unhealthy",
        "work_stopping",
    ];

    /// The name in metric labels: one of [`NAMES`](Self::NAMES).
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::EtcdUnreachable => "etcd_unreachable",
            Self::IdentityTaken => "identity_taken",
            Self::LockHeld(_) => "lock_held",
            Self::LockWithoutLease(_) => "lock_without_lease",
            Self::LockFree => "lock_free",
            Self::Unconfirmed => "unconfirmed",
            Self::CoolingDown => "cooling_down",
            Self::Jeopardy => "jeopardy",
            Self::StandingDown => "standing_down",
            Self::StoreReset => "store_reset",
            Self::SeveralClusters => "several_clusters",
            Self::NeverLeads => "never_leads",
            Self::AppStarting => "app_starting",
            Self::AppUnhealthy => "app_unhealthy",
            Self::WorkStopping => "work_stopping",
        }
    }

    /// One sentence for a person.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::Starting => "it has not registered in etcd yet".into(),
            Self::EtcdUnreachable => "etcd does not answer, or refuses; who holds the lock is not known".into(),
            Self::IdentityTaken => "another live candidate has the same identity".into(),
            Self::LockHeld(holder) => format!("{holder} holds the lock"),
            Self::LockWithoutLease(holder) => {
                format!("the lock key, with value {holder}, has no lease and blocks everyone until it is deleted")
            }
            Self::LockFree => "the lock is free; it claims it now or lets the heir go first".into(),
            Self::Unconfirmed => "it holds the lock, but no renewal has been confirmed yet".into(),
            Self::CoolingDown => "it resigned or was removed, and stays away for a while".into(),
            Self::Jeopardy => "it held the lock, but could not renew in time".into(),
            Self::StandingDown => "it is standing down".into(),
            Self::StoreReset => {
                "etcd was wiped or restored; stop all sidecars, then start them with a higher --epoch".into()
            }
            Self::SeveralClusters => "--etcd-endpoints names more than one cluster".into(),
            Self::NeverLeads => "it was started with --never-lead".into(),
            Self::AppStarting => "its application has not been healthy yet (--app-health)".into(),
            Self::AppUnhealthy => "its application is not healthy (--app-health)".into(),
            Self::WorkStopping => "what it ran as leader has not ended yet".into(),
        }
    }
}

/// A candidate of the election, as of the last observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateView {
    /// Its identity.
    pub identity: Identity,
    /// What it registered; `None` when another version wrote it.
    pub record: Option<CandidateRecord>,
}

/// A term this sidecar saw begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentTerm {
    /// Who led.
    pub leader: KnownLeader,
    /// When this sidecar first saw it.
    pub seen_at: WallTime,
}

/// An endpoint's health, as the candidate judges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointView {
    /// What it last did.
    pub health: EndpointHealth,
    /// The server's version, once it said so.
    pub version: Option<String>,
}

/// What an endpoint last did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointHealth {
    /// Nothing has been asked of it yet.
    Unknown,
    /// It answered.
    Answering,
    /// It failed.
    Failing {
        /// At what.
        operation: Operation,
        /// How.
        kind: CallErrorKind,
    },
    /// It belongs to another cluster and is not asked any more.
    Refused,
}
