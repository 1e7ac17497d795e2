//! One server: its process, its disk, whom it believes to lead, and who waits for what at it.

use std::collections::{BTreeMap, VecDeque};

use bellwether::election::{Header, Identity, LeaseId, MemberId, Revision, WatchTarget};

use super::Ticket;
use super::agenda::Step;
use super::lessor::Lessor;
use super::log::Proposal;
use super::store::Store;

/// What the kernel knows of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    Runs,
    /// SIGSTOP.
    Stopped,
    Gone,
}

/// What a server's disk does with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    Works,
    /// The next write will not return.
    Stalls,
    /// One has not returned: raft does not move, while everything that needs none goes on.
    Holds,
}

/// What a server believes of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Follows, or looks for a leader.
    Follower,
    /// Leads, as far as it knows.
    Leader,
}

/// What a server does by itself when the time has come. One at a time of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Has not heard from a leader for too long: stands for election.
    Election,
    /// Leads, and has not heard from a majority for too long.
    Quorum,
    /// Hears from a leader it does not follow yet.
    Hear,
    /// Leads, and is told by a member of a later raft term.
    Outvoted,
    /// Looks for expired leases.
    Expiry,
    /// Has had no leader for so long that streams which require one are ended.
    Leaderless,
}

/// A linearizable read on its way.
#[derive(Clone, Debug)]
pub(super) struct Read {
    pub(super) ticket: Ticket,
    pub(super) what: What,
    /// What must have been applied before it is answered, once that is known.
    pub(super) index: Option<u64>,
}

/// What is read.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// The lock key and this candidate's.
    LockAndCandidate(Identity),
    Observation(Option<Revision>),
    /// After a grant of what exists.
    Lifetime(LeaseId),
    /// After a revoke of what does not exist.
    Nothing,
}

/// A keep-alive in progress or in line.
#[derive(Clone, Debug)]
pub(super) struct Renewal {
    pub(super) id: u64,
    pub(super) ticket: Ticket,
    /// Once it is in progress: filled before the renewal.
    pub(super) header: Option<Header>,
}

#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub(super) target: WatchTarget,
    /// What comes next is of this revision or later.
    pub(super) from: Revision,
    /// Has been told everything up to what the member has applied.
    pub(super) synced: bool,
}

/// One server.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) id: MemberId,
    pub(super) process: Process,
    pub(super) disk: Disk,
    /// Not of the cluster any more.
    pub(super) removed: bool,
    /// Leads, but has been stopped and not ticked yet: a current server looks twice before it acts on a lease.
    pub(super) doubtful: bool,
    pub(super) part: Part,
    /// The latest raft term it has heard of.
    pub(super) term: u64,
    pub(super) lead: Option<usize>,
    /// Up to where it has the log on its disk, and up to where that is being written.
    pub(super) stored: u64,
    pub(super) storing: u64,
    /// What the leader knows of `stored`.
    pub(super) acknowledged: u64,
    /// Up to where it has applied the log, and up to where it is about to.
    pub(super) applied: u64,
    pub(super) applying: u64,
    pub(super) applied_term: u64,
    /// By how much it is slower than others to apply what is committed, in nanoseconds.
    pub(super) lag: u64,
    pub(super) store: Store,
    pub(super) lessor: Lessor,
    pub(super) timers: BTreeMap<Timer, u64>,
    /// Proposals whose outcome somebody waits for.
    pub(super) waiting: BTreeMap<u64, Ticket>,
    /// Proposals that wait for a leader.
    pub(super) blocked: VecDeque<Proposal>,
    pub(super) reads: BTreeMap<u64, Read>,
    /// One in progress for each lease, the others in line: they come on one stream.
    pub(super) renewals: BTreeMap<LeaseId, VecDeque<Renewal>>,
    pub(super) watches: BTreeMap<Ticket, Watch>,
    /// What reached it while it was stopped.
    pub(super) held: Vec<Step>,
    /// Revokes that an old server sends when its disk writes again, whoever leads by then.
    pub(super) queued_revokes: Vec<LeaseId>,
}

impl Member {
    /// One that has nothing on its disk.
    pub(super) fn new(id: MemberId, store: Store) -> Self {
        Self {
            id,
            process: Process::Runs,
            disk: Disk::Works,
            removed: false,
            doubtful: false,
            part: Part::Follower,
            term: 0,
            lead: None,
            stored: 0,
            storing: 0,
            acknowledged: 0,
            applied: 0,
            applying: 0,
            applied_term: 0,
            lag: 0,
            store,
            lessor: Lessor::default(),
            timers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            blocked: VecDeque::new(),
            reads: BTreeMap::new(),
            renewals: BTreeMap::new(),
            watches: BTreeMap::new(),
            held: Vec::new(),
            queued_revokes: Vec::new(),
        }
    }

    /// Whether there is a process, stopped or not.
    pub(super) fn is_running(&self) -> bool {
        self.process != Process::Gone
    }

    /// Whether it is a process that runs.
    pub(super) fn is_awake(&self) -> bool {
        self.process == Process::Runs
    }

    /// Whether raft waits for its disk.
    pub(super) fn is_stuck(&self) -> bool {
        self.disk == Disk::Holds
    }

    /// Whether its raft moves.
    pub(super) fn is_moving(&self) -> bool {
        self.is_awake() && !self.is_stuck()
    }

    /// Writes to its disk; whether that returns.
    pub(super) fn writes(&mut self) -> bool {
        if self.disk == Disk::Stalls {
            self.disk = Disk::Holds;
        }
        self.disk == Disk::Works
    }

    /// What the process knew is gone; what is on the disk stays.
    pub(super) fn loses_memory(&mut self) {
        self.process = Process::Gone;
        if self.is_stuck() {
            self.disk = Disk::Stalls;
        }
        self.doubtful = false;
        self.part = Part::Follower;
        self.lead = None;
        self.storing = self.stored;
        self.applying = self.applied;
        self.lessor = Lessor::default();
        self.timers.clear();
        self.waiting.clear();
        self.blocked.clear();
        self.reads.clear();
        self.renewals.clear();
        self.watches.clear();
        self.held.clear();
        self.queued_revokes.clear();
    }

    /// Says nothing more to this ticket.
    pub(super) fn forgets(&mut self, ticket: Ticket) {
        self.waiting.retain(|_, waiting| *waiting != ticket);
        self.reads.retain(|_, read| read.ticket != ticket);
        self.watches.remove(&ticket);
        self.held.retain(|step| step.ticket() != Some(ticket));
    }
}
