//! The modelled etcd: members, one of which leads; a log they agree on; leases, watches, and what goes wrong.
//!
//! Time is handed in, in true nanoseconds. Nothing here delays or loses a message between a client and a member: that is the
//! network's. What takes time inside a cluster (replication, elections, expiry every 500 ms, a member that lags) does take it,
//! and what comes of it is put out when [`Cluster::advance`] gets there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bellwether::election::{CallError, CallErrorKind, ClusterId, LeaseId, MemberId, Revision, WatchTarget};

mod agenda;
mod dice;
mod elections;
mod faults;
mod interface;
mod lessor;
mod log;
mod members;
mod renewals;
mod replication;
mod requests;
mod store;
#[cfg(test)]
mod tests;
mod truth;
mod watches;

pub use faults::Operation;
pub use interface::{Asked, Behaviour, ClusterOptions, Extension, Output, Ticket};

use agenda::{Agenda, Step};
use dice::Dice;
use log::{Entry, Log, Proposal};
use members::{Member, Part};
use store::{Command, Store};

/// In nanoseconds.
const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;
/// Of the first leader of a new cluster: its members' own beginnings were the first.
const FIRST_TERM: u64 = 2;

/// A lease that an old server revoked of its own (#15247, second half): it had queued the revoke when it led no more, and
/// whoever led by then carried it out, whether or not the lease had been renewed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleRevoke {
    /// When it took effect.
    pub at: u64,
    /// Which.
    pub lease: LeaseId,
}

/// What a backup holds.
#[derive(Clone, Debug)]
pub struct Snapshot(Store);

/// A cluster of servers.
#[derive(Debug)]
pub struct Cluster {
    options: ClusterOptions,
    id: ClusterId,
    dice: Dice,
    now: u64,
    members: Vec<Member>,
    /// Pairs between which nothing gets through, from the first to the second.
    cuts: BTreeSet<(usize, usize)>,
    log: Log,
    /// That of the leader elected last.
    term: u64,
    leader: Option<usize>,
    elections: u64,
    /// What there was before the first entry of the log: nothing, or a backup.
    base: Store,
    /// What the committed log comes to.
    truth: Store,
    /// When each lease was last renewed, or granted, by a leader with a majority.
    checkpoints: BTreeMap<LeaseId, u64>,
    stale_revokes: Vec<StaleRevoke>,
    /// Over quota.
    is_full: bool,
    agenda: Agenda,
    outputs: VecDeque<Output>,
    ids: u64,
}

impl Cluster {
    /// A healthy cluster with an empty store and a leader.
    #[must_use]
    pub fn new(options: ClusterOptions) -> Self {
        let empty = Store::new(options.behaviour, options.lease_ttl_min());
        let members = (1..).take(options.members).map(|id| Member::new(MemberId(id), empty.clone())).collect();
        let mut cluster = Self {
            id: ClusterId(7),
            dice: Dice::new(options.seed),
            options,
            now: 0,
            members,
            cuts: BTreeSet::new(),
            log: Log::default(),
            term: 0,
            leader: None,
            elections: 0,
            base: empty.clone(),
            truth: empty,
            checkpoints: BTreeMap::new(),
            stale_revokes: Vec::new(),
            is_full: false,
            agenda: Agenda::default(),
            outputs: VecDeque::new(),
            ids: 0,
        };
        cluster.starts_healthy();
        cluster
    }

    /// A request reaches a member: one whose process runs or is stopped, not one that is gone.
    pub fn ask(&mut self, now: u64, member: usize, ticket: Ticket, asked: Asked) {
        self.advance(now);
        self.perform(Step::Ask { member, ticket, asked });
    }

    /// A watch reaches a member: one key, from this revision on.
    pub fn watch(&mut self, now: u64, member: usize, ticket: Ticket, target: WatchTarget, from: Revision) {
        self.advance(now);
        self.perform(Step::Watch { member, ticket, target, from });
    }

    /// Its client has gone: nothing more is said of this watch, call or stream. What has been asked may still happen.
    pub fn forget(&mut self, ticket: Ticket) {
        for member in 0..self.members.len() {
            self.members[member].forgets(ticket);
            self.forget_renewal(member, ticket);
        }
        self.outputs.retain(|output| output.ticket() != ticket);
    }

    /// The next instant at which something happens in there by itself.
    #[must_use]
    pub fn next_at(&self) -> Option<u64> {
        let timers = self.members.iter().filter(|member| member.is_awake()).flat_map(|member| member.timers.values());
        timers.copied().chain(self.agenda.next_at()).min()
    }

    /// Lets happen what is due at `now`.
    pub fn advance(&mut self, now: u64) {
        while let Some(at) = self.next_at().filter(|at| *at <= now) {
            self.now = self.now.max(at);
            if self.agenda.next_at() == Some(at) {
                let step = self.agenda.take_first().expect("seen just now");
                self.perform(step);
            } else {
                self.fire_due(at);
            }
        }
        self.now = self.now.max(now);
    }

    /// What members have said up to now, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn fire_due(&mut self, at: u64) {
        let due = |member: &Member| {
            let due = member.timers.iter().find(|(_, due)| **due == at).map(|(timer, _)| *timer);
            due.filter(|_| member.is_awake())
        };
        let found = self.members.iter().enumerate().find_map(|(place, member)| Some((place, due(member)?)));
        let (member, timer) = found.expect("a timer of a running member is due");
        self.members[member].timers.remove(&timer);
        self.fire(member, timer);
    }

    /// As it is some time after the start: somebody leads, and everybody knows.
    fn starts_healthy(&mut self) {
        let members = u64::try_from(self.members.len()).expect("a handful");
        let leader = usize::try_from(self.dice.between(0, members)).expect("a handful");
        self.term = FIRST_TERM;
        self.leader = Some(leader);
        let proposal = Proposal { command: Command::Noop, origin: None, over_quota: false };
        let end = self.log.append(Entry { term: self.term, proposal });
        self.log.commit = end;
        for member in &mut self.members {
            (member.term, member.applied_term, member.lead) = (self.term, self.term, Some(leader));
            (member.stored, member.storing, member.acknowledged) = (end, end, end);
            (member.applied, member.applying) = (end, end);
        }
        self.members[leader].part = Part::Leader;
        self.promote(leader);
    }

    fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    fn empty_store(&self) -> Store {
        Store::new(self.options.behaviour, self.options.lease_ttl_min())
    }
}

/// A [`CallError`] of this kind, in the server's words.
fn error(kind: CallErrorKind, words: &str) -> CallError {
    CallError { kind, message: words.to_owned() }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("no run lasts 584 years")
}
