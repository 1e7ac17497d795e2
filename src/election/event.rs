//! What happened: the shell's words to the core.

use std::time::Duration;

use super::effect::CandidateRecord;
use super::ids::{ClusterId, Identity, LeaseId, MemberId, Nonce, OpId, RaftTerm, Revision, StreamId, WatchId};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A request ended. Every request ends exactly once.
    Answered {
        /// The request's id.
        id: OpId,
        /// What etcd said, or why it could not.
        result: Result<Answer, CallError>,
    },
    /// A keep-alive was answered. Answers carry no request id: the core matches them to its sends first
    /// in, first out.
    KeepAliveAnswered {
        /// The stream it came on.
        stream: StreamId,
        /// The header: filled before the renewal, so its raft term is that of then.
        header: Header,
        /// Seconds in the answer; 0 or less says the lease is gone.
        ttl_seconds: i64,
    },
    /// A keep-alive stream ended, or could not be opened.
    StreamEnded {
        /// The stream.
        stream: StreamId,
        /// Why.
        error: CallError,
    },
    /// etcd has acknowledged a watch.
    WatchCreated {
        /// The watch.
        watch: WatchId,
        /// The header of the acknowledgement.
        header: Header,
    },
    /// The watched key changed. One event per change, in order of revision.
    WatchChanged {
        /// The watch.
        watch: WatchId,
        /// The header of the response that carried it.
        header: Header,
        /// The change.
        change: Change,
    },
    /// A watch ended: cancelled, compacted, connection gone.
    WatchEnded {
        /// The watch.
        watch: WatchId,
        /// Why.
        error: CallError,
    },
    /// Every answer from before the request has been sent and has expired.
    AnswersSettled {
        /// The request's id.
        id: OpId,
    },
    /// The role of this publication is seen.
    Published {
        /// The publication's id.
        id: OpId,
    },
    /// The work cannot do what it is there for (a hook failed): another shall lead.
    WorkFailed {
        /// Which.
        id: OpId,
    },
    /// The work has ended by itself and is not to run again: the process ends.
    WorkFinished {
        /// Which.
        id: OpId,
    },
    /// Nothing of the work that was to be stopped is left.
    WorkStopped {
        /// Which.
        id: OpId,
    },
    /// The application's health is known, or has changed.
    AppHealth(AppHealth),
    /// After `Stop`: the application has ended, and nobody acts on what it was told.
    AppGone,
    /// SIGTERM or SIGINT: stand down in order and stop.
    Stop,
    /// `POST /resign`: stand down, release, and stay away for the cool-down.
    Resign {
        /// Do not claim for this long, unless the lock has been free for a second.
        cooldown: Duration,
    },
    /// Certificates, password or token changed: replace streams and watches, the new before the old.
    CredentialsRenewed,
}

impl Event {
    /// The header of the response that this tells of, if it tells of one.
    #[must_use]
    pub const fn header(&self) -> Option<Header> {
        match self {
            Self::Answered { result: Ok(Answer { header, .. }), .. }
            | Self::KeepAliveAnswered { header, .. }
            | Self::WatchCreated { header, .. }
            | Self::WatchChanged { header, .. } => Some(*header),
            Self::Answered { result: Err(_), .. }
            | Self::StreamEnded { .. }
            | Self::WatchEnded { .. }
            | Self::AnswersSettled { .. }
            | Self::Published { .. }
            | Self::WorkFailed { .. }
            | Self::WorkFinished { .. }
            | Self::WorkStopped { .. }
            | Self::AppHealth(_)
            | Self::AppGone
            | Self::Stop
            | Self::Resign { .. }
            | Self::CredentialsRenewed => None,
        }
    }
}

/// What the application's health is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppHealth {
    /// It may act as leader.
    Healthy,
    /// It may not.
    Unhealthy,
}

/// What a response header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which cluster answered.
    pub cluster: ClusterId,
    /// Which member answered.
    pub member: MemberId,
    /// The store's revision when it answered.
    pub revision: Revision,
    /// The raft term of the last entry the member had applied.
    pub raft_term: RaftTerm,
}

/// A response of etcd.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its header.
    pub header: Header,
    /// What it says, one variant per [`Call`](super::Call).
    pub body: Body,
}

/// The part of a response that depends on the call.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// To `Probe`.
    Probed {
        /// The server's version, as it says it: `3.5.28`.
        version: String,
        /// The space alarm is raised: writes are refused.
        no_space: bool,
    },
    /// To `Grant`: the lifetime etcd gave, or the one asked for when the lease existed.
    Granted {
        /// Whole seconds.
        ttl: Duration,
    },
    /// To `Observe`.
    Observed {
        /// The lock key, if it exists.
        lock: Option<LockKey>,
        /// The oldest candidates, at most `CANDIDATES_LISTED`, oldest first.
        candidates: Vec<CandidateKey>,
        /// How many candidates there are in all.
        candidates_total: u64,
        /// At most two: those registered last before the asked revision, newest first.
        ahead: Vec<CandidateKey>,
    },
    /// To `Register`: my candidate key as it is now, whoever's lease it carries.
    Registered(CandidateKey),
    /// To `Claim`: the lock key as it is now, whoever holds it. `won` is false for an ELSE branch, also
    /// when that shows my own lease.
    Claimed {
        /// Whether this very transaction created it.
        won: bool,
        /// The key.
        lock: LockKey,
    },
    /// To `Resume`.
    Resumed {
        /// My candidate key, when the transaction put it; `None` when its guards did not hold.
        candidate: Option<CandidateKey>,
        /// The lock key as it is now.
        lock: Option<LockKey>,
    },
    /// To `Confirm`.
    Confirmed {
        /// The lock key.
        lock: Option<LockKey>,
        /// Who wrote my candidate key last, if it is there and says so.
        writer: Option<Nonce>,
    },
    /// To `DeleteLock`, `Unregister` and `Revoke`: after this, what was to go is not there.
    Gone,
}

/// The lock key as etcd shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockKey {
    /// The value: the bare identity of the holder.
    pub holder: Identity,
    /// The lease it is attached to; `None` when it never expires.
    pub lease: Option<LeaseId>,
    /// The token of the term.
    pub create_revision: Revision,
    /// Equal to `create_revision` unless somebody put the key again.
    pub mod_revision: Revision,
}

/// A candidate key as etcd shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateKey {
    /// The last part of the key.
    pub identity: Identity,
    /// The lease it is attached to.
    pub lease: Option<LeaseId>,
    /// The place in the queue: lowest claims first.
    pub create_revision: Revision,
    /// The value; `None` when it cannot be read (another version wrote it).
    pub record: Option<CandidateRecord>,
}

/// A change of a watched key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The lock key was put.
    LockPut(LockKey),
    /// A candidate key was put.
    CandidatePut(CandidateKey),
    /// The watched key was deleted, or expired, at this revision.
    Deleted(Revision),
}

impl Change {
    /// The revision of the change.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        match self {
            Self::LockPut(lock) => lock.mod_revision,
            Self::CandidatePut(candidate) => candidate.create_revision,
            Self::Deleted(revision) => *revision,
        }
    }
}

/// Why a call, a stream or a watch failed, in words for a log line and a kind for decisions and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    /// The kind.
    pub kind: CallErrorKind,
    /// For people: the status message, or the cause dug out of a transport error.
    pub message: String,
}

/// The kinds of failure: what the core or an operator would do differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallErrorKind {
    /// No connection, connection cut, no etcd leader. The call may have been applied.
    Unavailable,
    /// No answer in time. The call may have been applied.
    Timeout,
    /// etcd says the lease is not there: definite.
    LeaseNotFound,
    /// The watch asked for a revision that has been compacted away: read afresh.
    Compacted,
    /// No credentials, or not valid (any more).
    Unauthenticated,
    /// The user lacks a permission.
    PermissionDenied,
    /// The server is out of space. The call may have been applied.
    NoSpace,
    /// TLS failed: certificate, name or trust.
    Tls,
    /// Anything else.
    Other,
}

impl CallErrorKind {
    /// The name in logs and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::LeaseNotFound => "lease_not_found",
            Self::Compacted => "compacted",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied => "permission_denied",
            Self::NoSpace => "no_space",
            Self::Tls => "tls",
            Self::Other => "other",
        }
    }
}
