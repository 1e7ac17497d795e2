//! What a log line or a metric is made of. The core says what happened; the shell chooses the words' form.

use std::time::Duration;

use super::effect::Operation;
use super::event::CallErrorKind;
use super::ids::{ClusterId, EndpointId, Identity, LeaseId, Revision, Term};
use super::view::PublicState;

/// Something worth a log line, a metric, or both.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The candidate changed its state.
    Transition {
        /// From.
        from: PublicState,
        /// To.
        to: PublicState,
        /// Why.
        reason: Reason,
        /// The term that begins, goes on or ends with it.
        term: Option<Term>,
    },
    /// The known leader changed; `None` says that there is none.
    LeaderChanged {
        /// The leader.
        leader: Option<Identity>,
        /// Its term.
        term: Option<Term>,
    },
    /// A renewal was confirmed (a standby's: answered), this long after it was sent.
    Renewed(Duration),
    /// A renewal attempt failed.
    RenewalFailed(RenewalFailure),
    /// A claim was answered.
    ClaimAnswered(ClaimResult),
    /// The lock was seen gone, and this candidate's claim was confirmed this much later.
    TookOver(Duration),
    /// A call, stream or watch failed on an endpoint.
    EtcdFailed {
        /// Where.
        endpoint: EndpointId,
        /// At what.
        operation: Operation,
        /// How.
        kind: CallErrorKind,
        /// The words.
        message: String,
    },
    /// For an attempt timeout etcd has given no answer that can be used, at any endpoint.
    EtcdSilent,
    /// etcd answers again, after [`EtcdSilent`](Self::EtcdSilent).
    EtcdBack,
    /// Another live candidate registered this candidate's identity.
    IdentityTaken {
        /// The other's lease.
        lease: Option<LeaseId>,
    },
    /// The lock key has no lease, so it never expires.
    LockWithoutLease {
        /// Its value.
        holder: Identity,
    },
    /// The store's revision went back: wiped or restored.
    StoreReset {
        /// The highest revision received before the request was sent.
        seen: Revision,
        /// What the answer said.
        now: Revision,
    },
    /// An endpoint answered for another cluster.
    EndpointRefused {
        /// Which.
        endpoint: EndpointId,
        /// The pinned cluster.
        pinned: ClusterId,
        /// The other one.
        found: ClusterId,
    },
    /// A refused endpoint answers for the pinned cluster again.
    EndpointReadmitted {
        /// Which.
        endpoint: EndpointId,
    },
    /// Endpoints of several clusters were found at the start: this candidate will not lead.
    SeveralClusters {
        /// Which endpoint disagrees with the ones before it.
        endpoint: EndpointId,
        /// The cluster of the others.
        pinned: ClusterId,
        /// Its cluster.
        found: ClusterId,
    },
    /// A server said its version.
    ServerVersion {
        /// Where.
        endpoint: EndpointId,
        /// What it said.
        version: String,
    },
    /// The server is out of space: leases live on, but nobody can claim.
    NoSpace {
        /// Where.
        endpoint: EndpointId,
    },
    /// The keep-alive stream of a leader ended; it has this long to reopen it.
    StreamEnded {
        /// The reconnect window, cut at `until`.
        window: Duration,
    },
    /// An earlier process left a term behind, which this one goes on with if it still holds.
    Resuming {
        /// The term.
        term: Term,
    },
    /// What an earlier process left behind is of no use: the lock is another's or free, or it is in another cluster.
    NotResumed {
        /// The term it led.
        term: Term,
    },
    /// Another process of this candidate has gone on with this lease: this one has lost it.
    Superseded,
    /// The candidate let go of the lock, or could not and leaves it to expire.
    Released {
        /// Whether etcd confirmed it.
        confirmed: bool,
    },
}

/// Why a transition happened: the `reason` label of `bellwether_transitions_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Registered and the lock key read.
    Registered,
    /// Read the lock key, and is not in line: it never leads, or its application is not healthy.
    LooksOn,
    /// Goes on with the term of an earlier process.
    Inherited,
    /// Won the lock, and the keep-alive before it counts.
    Claimed,
    /// Holds the lock from an earlier claim, and a renewal is confirmed now.
    Adopted,
    /// A confirmed renewal showed that lease and key survived.
    Resumed,
    /// `until` passed.
    UntilPassed,
    /// The wall clock ran ahead of the boot clock by more than the safety margin.
    ClockJumped,
    /// The keep-alive stream ended and was not back within the reconnect window.
    StreamEnded,
    /// etcd says the lease is gone.
    LeaseLost,
    /// The lock key was deleted.
    LockDeleted,
    /// Somebody else put the lock key.
    LockOverwritten,
    /// Asked to resign.
    Resigned,
    /// Asked to stop.
    Stopped,
    /// The command ended by itself.
    WorkFinished,
    /// A hook failed.
    WorkFailed,
    /// The application is not healthy.
    AppUnhealthy,
    /// Another process of this candidate goes on with its lease.
    Superseded,
    /// The store was wiped or restored.
    StoreReset,
    /// The endpoints belong to several clusters.
    SeveralClusters,
}

impl Reason {
    /// The name in logs and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::LooksOn => "looks_on",
            Self::Inherited => "inherited",
            Self::Claimed => "claimed",
            Self::Adopted => "adopted",
            Self::Resumed => "resumed",
            Self::UntilPassed => "until_passed",
            Self::ClockJumped => "clock_jumped",
            Self::StreamEnded => "stream_ended",
            Self::LeaseLost => "lease_lost",
            Self::LockDeleted => "lock_deleted",
            Self::LockOverwritten => "lock_overwritten",
            Self::Resigned => "resigned",
            Self::Stopped => "stopped",
            Self::WorkFinished => "work_finished",
            Self::WorkFailed => "work_failed",
            Self::AppUnhealthy => "app_unhealthy",
            Self::Superseded => "superseded",
            Self::StoreReset => "store_reset",
            Self::SeveralClusters => "several_clusters",
        }
    }
}

/// How a renewal attempt failed: the `result` label of `bellwether_renewals_total`, beside `ok`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RenewalFailure {
    /// Not answered and confirmed within the attempt timeout.
    Timeout,
    /// The stream or the confirm failed.
    Error,
    /// Answered under one raft term, confirmed under another.
    RaftTermChanged,
    /// etcd says the lease is gone.
    LeaseGone,
}

impl RenewalFailure {
    /// The name in metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Error => "error",
            Self::RaftTermChanged => "raft_term_changed",
            Self::LeaseGone => "lease_gone",
        }
    }
}

/// How a claim was answered: the `result` label of `bellwether_claims_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimResult {
    /// This transaction created the key.
    Won,
    /// An earlier, ambiguous transaction of ours had created it.
    HeldAlready,
    /// Another candidate holds it.
    Lost,
    /// The claim's own lease was gone.
    LeaseGone,
}

impl ClaimResult {
    /// The name in metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::HeldAlready => "held_already",
            Self::Lost => "lost",
            Self::LeaseGone => "lease_gone",
        }
    }
}
