//! The modelled etcd: members, one of which leads; a log they agree on; leases, watches, and what goes wrong.
//!
//! Time is handed in, in true nanoseconds. Nothing here delays or loses a message between a client and a member: that is the
//! network's. What takes time inside a cluster (replication, elections, expiry every 500 ms, a member that lags) does take it,
//! and what comes of it is put out when [`Cluster::advance`] gets there.

use std::time::Duration;

use bellwether::election::{
    Answer, Call, CallError, Change, Header, Identity, LeaseId, LockKey, Revision, WatchTarget,
};

/// Who asked, and as what: chosen by the caller, comes back with what is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// One, three or five.
    pub members: usize,
    /// How old the servers are.
    pub behaviour: Behaviour,
    /// What a new etcd leader does to leases.
    pub extension: Extension,
    /// After one to two of these without a leader the members elect one.
    pub election_timeout: Duration,
    /// Of its own chances.
    pub seed: u64,
}

/// How old the servers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// With both halves of etcd #15247: before 3.4.31 and 3.5.13.
    WithStaleLeases,
    /// A leader asks the majority before it acknowledges a keep-alive or revokes what it believes expired.
    Current,
}

/// What a new etcd leader does to leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// They all start anew, and last an election timeout longer: etcd's default.
    Full,
    /// They go on from their last renewal: what lease checkpoints come to. The protocol must not need more.
    Checkpointed,
}

/// What a client asks of a member.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// One unary call, by this candidate.
    Call {
        /// Whose candidate key is meant.
        identity: Identity,
        /// What.
        call: Call,
    },
    /// One keep-alive on a stream.
    KeepAlive {
        /// Of this lease.
        lease: LeaseId,
    },
}

/// What a member says, at the moment it does.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// To [`Asked::Call`]. A call that waits for a majority in vain is not answered at all, or with an error after the
    /// server's own timeout.
    Answered {
        /// Of the call.
        ticket: Ticket,
        /// What.
        result: Result<Answer, CallError>,
    },
    /// To [`Asked::KeepAlive`].
    KeptAlive {
        /// Of the keep-alive.
        ticket: Ticket,
        /// Filled before the renewal.
        header: Header,
        /// 0 when there is no such lease.
        ttl_seconds: i64,
    },
    /// To [`Asked::KeepAlive`]: the stream ends with an error (no leader).
    StreamEnded {
        /// Of the keep-alive.
        ticket: Ticket,
        /// Why.
        error: CallError,
    },
    /// To [`Cluster::watch`].
    WatchCreated {
        /// Of the watch.
        ticket: Ticket,
        /// The acknowledgement's.
        header: Header,
    },
    /// A change of the watched key, as this member has applied it.
    WatchChanged {
        /// Of the watch.
        ticket: Ticket,
        /// The response's.
        header: Header,
        /// What.
        change: Change,
    },
    /// The watch is over: compacted, or the member has no leader.
    WatchEnded {
        /// Of the watch.
        ticket: Ticket,
        /// Why.
        error: CallError,
    },
}

/// A cluster of servers.
#[derive(Debug)]
pub struct Cluster {}

impl Cluster {
    /// A healthy cluster with an empty store and a leader.
    #[must_use]
    pub fn new(_options: ClusterOptions) -> Self {
        Self {}
    }

    /// A request reaches a member. A member that is down or cannot hear is not asked: the network knows.
    pub fn ask(&mut self, _now: u64, _member: usize, _ticket: Ticket, _asked: Asked) {}

    /// A watch reaches a member: one key, from this revision on.
    pub fn watch(&mut self, _now: u64, _member: usize, _ticket: Ticket, _target: WatchTarget, _from: Revision) {}

    /// Its client has gone: nothing more is said of this watch, call or stream.
    pub fn forget(&mut self, _ticket: Ticket) {}

    /// The next instant at which something happens in there by itself.
    #[must_use]
    pub fn next_at(&self) -> Option<u64> {
        None
    }

    /// Lets happen what is due at `now`, never later than [`next_at`](Self::next_at).
    pub fn advance(&mut self, _now: u64) {}

    /// What members have said up to now, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// The lock key as the majority has it: the truth that no client sees.
    #[must_use]
    pub fn lock(&self) -> Option<&LockKey> {
        None
    }

    /// Whether the majority knows this lease.
    #[must_use]
    pub fn has_lease(&self, _lease: LeaseId) -> bool {
        false
    }
}
