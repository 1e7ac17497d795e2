//! What must be done: the core's words to its shell.
//!
//! Effects are drained in order with [`poll_effect`](super::Candidate::poll_effect) *after* the view has
//! been published. Each request carries an id; its completion comes back as one [`Event`](super::Event)
//! with the same id. Ids the core no longer waits for are ignored, so a late answer can do no harm.

use std::time::Duration;

use super::ids::{EndpointId, Identity, LeaseId, Nonce, OpId, Revision, StreamId, Term, WatchId};
use super::instant::{Instant, Until, WallTime};
use super::notice::Notice;
use super::settings::Memory;

/// One thing the shell must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Call etcd once, on this endpoint, and report with `Event::Answered`, whatever the outcome.
    Request(Request),
    /// Send one keep-alive on this stream, opening it on `endpoint` if it is not open yet. An answer is
    /// reported with `Event::KeepAliveAnswered`; the end of the stream, a failure to open it included,
    /// with `Event::StreamEnded`.
    KeepAlive {
        /// The stream to send on. A stream serves one lease and one endpoint.
        stream: StreamId,
        /// Where the stream leads.
        endpoint: EndpointId,
        /// The lease to keep alive.
        lease: LeaseId,
    },
    /// Drop this stream and report nothing more of it.
    CloseStream(StreamId),
    /// Drop this endpoint's connection: it leads to another cluster. The next call dials anew, and may be led elsewhere.
    Redial(EndpointId),
    /// Watch one key from a revision on; report with `Event::Watch…`.
    Watch {
        /// The id to report with.
        watch: WatchId,
        /// Which endpoint to watch through.
        endpoint: EndpointId,
        /// Which key.
        target: WatchTarget,
        /// The first revision to report.
        from: Revision,
    },
    /// Drop this watch and report nothing more of it.
    Unwatch(WatchId),
    /// Report `Event::AnswersSettled` once every answer that was computed from an older view has been
    /// sent and the last promise given out (`valid_for_ms`) has expired.
    SettleAnswers(OpId),
    /// Show this role where the cluster can see it, in place of every role before; report
    /// `Event::Published` once it is seen there.
    Publish(Publication),
    /// Start the work: what runs only while this candidate leads. There is none at this time.
    StartWork {
        /// The id to report with.
        id: OpId,
        /// In whose term.
        term: Term,
        /// From when on it must be being stopped, whether anybody says so or not.
        until: Until,
    },
    /// The right to act of this work has another end: a later one after a renewal, an earlier one once the keep-alive
    /// stream has ended.
    ExtendWork {
        /// Which.
        id: OpId,
        /// From when on it must be being stopped.
        until: Until,
    },
    /// Stop this work now; report `Event::WorkStopped` when all of it is gone.
    StopWork {
        /// Which.
        id: OpId,
        /// From when on what is left of it must be killed.
        kill_at: Instant,
    },
    /// Keep this in place of what was kept before, for the next process of this candidate.
    Remember(Memory),
    /// What was kept is of no use any more. It must be gone before the next effect is carried out, which may let go of the
    /// lock: a request that is under way when the process dies may be applied after the next one has gone on.
    Forget,
    /// Log it, count it.
    Tell(Notice),
    /// The candidate has stopped: end the driver.
    Exit,
}

/// What a candidate's pod is to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Comes back in `Event::Published`.
    pub id: OpId,
    /// The role.
    pub role: Role,
}

/// What a candidate is to those who route by it. Not a right: only the view's `until` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nobody may rely on it: starting, in Jeopardy, standing down.
    Unknown,
    /// In line for the lock.
    Follower,
    /// Leads this term.
    Leader {
        /// The term. Whoever shows a lower one is not to be believed.
        term: Term,
        /// Who held the lock before, as far as this candidate saw: its pod may still say that it leads.
        predecessor: Option<Identity>,
    },
}

impl Role {
    /// Whether whoever looks sees no difference.
    pub(super) fn looks_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Leader { term, .. }, Self::Leader { term: others, .. }) => term == others,
            (Self::Leader { .. } | Self::Follower | Self::Unknown, _) => self == other,
        }
    }
}

/// One unary call to etcd.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Comes back in `Event::Answered`.
    pub id: OpId,
    /// The only endpoint this request may go to.
    pub endpoint: EndpointId,
    /// After this the shell gives up and reports a timeout; the core may have stopped waiting earlier.
    pub timeout: Duration,
    /// What to call.
    pub call: Call,
}

/// The calls. "My candidate key" is `<lock key>/candidates/<identity>`. Every read is linearizable.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Maintenance status: who is there, which version.
    Probe,
    /// Grant a lease with this id. "lease already exists" is success: an earlier attempt was applied.
    Grant {
        /// The chosen id.
        lease: LeaseId,
        /// Whole seconds.
        ttl: Duration,
    },
    /// One transaction that reads: the lock key, the candidates (the `CANDIDATES_LISTED` oldest, and how
    /// many there are), and, when `before` is set, the two candidates registered last before that
    /// revision (`max_create_revision = before − 1`, newest first).
    Observe {
        /// My own candidate key's `create_revision`.
        before: Option<Revision>,
    },
    /// `TXN IF create_revision(my candidate key)==0 THEN put(it, record, lease) ELSE get(it)`.
    Register {
        /// The lease to attach it to.
        lease: LeaseId,
        /// The value.
        record: CandidateRecord,
    },
    /// Delete my candidate key if its `create_revision` is this one.
    Unregister {
        /// The guard.
        create_revision: Revision,
    },
    /// `TXN IF create_revision(lock)==0 THEN put(lock, identity, lease), put(my candidate key, record,
    /// lease) ELSE get(lock)`. The record says since when this term is led, for `bellwether status`.
    Claim {
        /// The lease to attach both keys to.
        lease: LeaseId,
        /// The candidate key's new value.
        record: CandidateRecord,
    },
    /// `TXN IF create_revision(lock)==token AND lease(lock)==lease AND lease(my candidate key)==lease THEN put(my candidate
    /// key, record, lease)`, and the lock key as it is now in both branches. From then on the confirms of every other
    /// process that holds this lease show that it was replaced.
    Resume {
        /// The lease that an earlier process left.
        lease: LeaseId,
        /// The token of the term it led.
        token: Revision,
        /// The candidate key's new value.
        record: CandidateRecord,
    },
    /// Read the lock key and my candidate key in one transaction: the second half of a confirmed renewal.
    Confirm,
    /// Delete the lock key if its `create_revision` is this one and it hangs on this lease. The revision alone would
    /// not do: a store that was wiped gives the same one to somebody else's key.
    DeleteLock {
        /// The guard.
        create_revision: Revision,
        /// The guard's other half: mine.
        lease: LeaseId,
    },
    /// Revoke the lease, and with it every key attached. A lease that is not there is success.
    Revoke {
        /// The lease.
        lease: LeaseId,
    },
}

impl Call {
    /// The operation's name in logs and metrics: a bounded label set.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        match self {
            Self::Probe => Operation::Probe,
            Self::Grant { .. } => Operation::Grant,
            Self::Observe { .. } => Operation::Observe,
            Self::Register { .. } => Operation::Register,
            Self::Unregister { .. } => Operation::Unregister,
            Self::Claim { .. } => Operation::Claim,
            Self::Resume { .. } => Operation::Resume,
            Self::Confirm => Operation::Confirm,
            Self::DeleteLock { .. } => Operation::DeleteLock,
            Self::Revoke { .. } => Operation::Revoke,
        }
    }

    /// The lease that this call attaches a key to. Only then does "lease not found" say that a lease that was
    /// held is gone; anywhere else the call has merely failed.
    #[must_use]
    pub const fn attached_lease(&self) -> Option<LeaseId> {
        match self {
            Self::Register { lease, .. } | Self::Claim { lease, .. } | Self::Resume { lease, .. } => Some(*lease),
            Self::Probe
            | Self::Grant { .. }
            | Self::Observe { .. }
            | Self::Unregister { .. }
            | Self::Confirm
            | Self::DeleteLock { .. }
            | Self::Revoke { .. } => None,
        }
    }
}

/// Every kind of talk with etcd, for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`Call::Probe`]
    Probe,
    /// [`Call::Grant`]
    Grant,
    /// [`Call::Observe`]
    Observe,
    /// [`Call::Register`]
    Register,
    /// [`Call::Unregister`]
    Unregister,
    /// [`Call::Claim`]
    Claim,
    /// [`Call::Resume`]
    Resume,
    /// [`Call::Confirm`]
    Confirm,
    /// [`Call::DeleteLock`]
    DeleteLock,
    /// [`Call::Revoke`]
    Revoke,
    /// [`Effect::KeepAlive`]
    KeepAlive,
    /// [`Effect::Watch`]
    Watch,
}

impl Operation {
    /// The name in logs and metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Probe => "probe",
            Self::Grant => "grant",
            Self::Observe => "observe",
            Self::Register => "register",
            Self::Unregister => "unregister",
            Self::Claim => "claim",
            Self::Resume => "resume",
            Self::Confirm => "confirm",
            Self::DeleteLock => "delete_lock",
            Self::Revoke => "revoke",
            Self::KeepAlive => "keepalive",
            Self::Watch => "watch",
        }
    }
}

/// How many candidates an observation lists: enough to look at, constant however many stand by.
pub const CANDIDATES_LISTED: usize = 32;

/// Which key a watch is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchTarget {
    /// The lock key.
    Lock,
    /// This candidate's key.
    Candidate(Identity),
}

/// What a candidate key holds, as JSON with `"version": 1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateRecord {
    /// `--epoch` of that candidate.
    pub epoch: super::ids::Epoch,
    /// When it registered.
    pub registered_at: WallTime,
    /// When it claimed the lock it holds, if it holds it.
    pub leading_since: Option<WallTime>,
    /// Which process of that candidate wrote it; programs before this one wrote none.
    pub nonce: Option<Nonce>,
}
