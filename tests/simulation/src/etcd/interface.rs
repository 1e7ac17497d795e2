//! What a modelled cluster is made of, what it is asked and what it says.

use std::time::Duration;

use bellwether::election::{Answer, Call, CallError, Change, Header, Identity, LeaseId};

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

impl Output {
    /// To whom it is said.
    #[must_use]
    pub const fn ticket(&self) -> Ticket {
        match self {
            Self::Answered { ticket, .. }
            | Self::KeptAlive { ticket, .. }
            | Self::StreamEnded { ticket, .. }
            | Self::WatchCreated { ticket, .. }
            | Self::WatchChanged { ticket, .. }
            | Self::WatchEnded { ticket, .. } => *ticket,
        }
    }
}

impl ClusterOptions {
    /// No lease lasts for less: one and a half election timeouts, in whole seconds.
    #[must_use]
    pub fn lease_ttl_min(&self) -> Duration {
        let timeouts = self.election_timeout * 3 / 2;
        Duration::from_secs(timeouts.as_secs() + u64::from(timeouts.subsec_nanos() > 0))
    }
}
