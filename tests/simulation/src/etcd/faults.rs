//! What goes wrong with members, and what operators do.

use bellwether::election::{Identity, LeaseId, MemberId, Revision};

use super::agenda::Step;
use super::log::{Log, Proposal};
use super::members::{Disk, Member, Part, Process};
use super::store::{Command, Store};
use super::{Behaviour, Cluster, Snapshot};

/// What an operator does to the data, through whoever leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Deletes the lock key.
    DeleteLock,
    /// Puts the lock key: over one that is there it keeps the create revision, and detaches it from its lease.
    PutLock {
        /// The value.
        holder: Identity,
        /// To attach it to.
        lease: Option<LeaseId>,
    },
    /// Deletes somebody's candidate key.
    DeleteCandidate(Identity),
    /// Revokes a lease.
    Revoke(LeaseId),
    /// Forgets the history before this revision.
    Compact(Revision),
    /// Writes a key that has nothing to do with the election.
    PutElsewhere,
}

impl From<Operation> for Command {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::DeleteLock => Self::DropLock,
            Operation::PutLock { holder, lease } => Self::PutLock { holder, lease },
            Operation::DeleteCandidate(identity) => Self::DropCandidate { identity },
            Operation::Revoke(lease) => Self::Revoke { lease, stale: false },
            Operation::Compact(revision) => Self::Compact { revision },
            Operation::PutElsewhere => Self::PutElsewhere,
        }
    }
}

impl Cluster {
    /// SIGKILL: everybody who waits for an answer, a stream or a watch at this member has lost it, without a word here.
    pub fn kill(&mut self, now: u64, member: usize) {
        self.advance(now);
        self.members[member].loses_memory();
        self.recheck();
    }

    /// Starts a killed member again, with the data it has on its disk.
    pub fn restart(&mut self, now: u64, member: usize) {
        self.advance(now);
        let me = &mut self.members[member];
        if !me.is_running() && !me.removed {
            me.process = Process::Runs;
            self.recheck();
        }
    }

    /// SIGSTOP: what reaches it from now on waits.
    pub fn stop(&mut self, now: u64, member: usize) {
        self.advance(now);
        if self.members[member].is_running() {
            self.members[member].process = Process::Stopped;
            self.recheck();
        }
    }

    /// SIGCONT: it goes on with what it knew.
    pub fn cont(&mut self, now: u64, member: usize) {
        self.advance(now);
        if self.members[member].process != Process::Stopped {
            return;
        }
        self.members[member].process = Process::Runs;
        if self.members[member].part == Part::Leader {
            self.wakes_with_expired_leases(member);
            // Whether it notices that it has not ticked for a while depends on what it comes to first.
            let notices = self.dice.one_in(2);
            self.members[member].doubtful = notices && self.options.behaviour == Behaviour::Current;
        }
        self.recheck();
        self.release(member);
    }

    /// From now on, a write to this member's disk does not return; the first one stops its raft.
    pub fn stall(&mut self, now: u64, member: usize) {
        self.advance(now);
        let me = &mut self.members[member];
        if me.disk == Disk::Works {
            me.disk = Disk::Stalls;
        }
    }

    /// Its disk writes again, what had to wait first.
    pub fn end_stall(&mut self, now: u64, member: usize) {
        self.advance(now);
        let was_stuck = self.members[member].is_stuck();
        self.members[member].disk = Disk::Works;
        if was_stuck {
            if self.members[member].part == Part::Leader && self.members[member].term == self.term {
                self.send_queued_revokes(member);
            }
            self.unblock(member);
            self.recheck();
        }
    }

    /// Nothing gets from one member to another, in this direction.
    pub fn cut(&mut self, now: u64, from: usize, to: usize) {
        self.advance(now);
        self.cuts.insert((from, to));
        self.recheck();
    }

    /// It does again.
    pub fn mend(&mut self, now: u64, from: usize, to: usize) {
        self.advance(now);
        self.cuts.remove(&(from, to));
        self.recheck();
    }

    /// Cuts a member off from all others, both ways, or joins it to them again.
    pub fn isolate(&mut self, now: u64, member: usize, cut: bool) {
        self.advance(now);
        for other in (0..self.members.len()).filter(|other| *other != member) {
            for pair in [(member, other), (other, member)] {
                if cut {
                    self.cuts.insert(pair);
                } else {
                    self.cuts.remove(&pair);
                }
            }
        }
        self.recheck();
    }

    /// From now on this member applies what is committed so much later than others, in nanoseconds. One that leads does
    /// not lag.
    pub fn lag(&mut self, now: u64, member: usize, lag: u64) {
        self.advance(now);
        self.members[member].lag = lag;
    }

    /// The disks are full, as to etcd's quota: puts and grants are refused, and the alarm goes up with the first.
    pub fn fill(&mut self, now: u64) {
        self.advance(now);
        self.is_full = true;
    }

    /// An operator makes room and takes the alarm down. Whether there was a leader to do it through.
    pub fn make_room(&mut self, now: u64) -> bool {
        self.advance(now);
        self.is_full = false;
        self.propose_at_leader(Command::Alarm { raised: false })
    }

    /// An operator changes the data. Whether there was a leader to do it through; what comes of it takes a moment.
    pub fn operate(&mut self, now: u64, operation: Operation) -> bool {
        self.advance(now);
        self.propose_at_leader(operation.into())
    }

    fn propose_at_leader(&mut self, command: Command) -> bool {
        let leader = (0..self.members.len()).find(|member| self.leads_a_majority(*member));
        if let Some(leader) = leader {
            self.propose(leader, Proposal { command, origin: None, over_quota: false });
        }
        leader.is_some()
    }

    /// Takes a member out for good; its process ends. The last one stays.
    pub fn remove(&mut self, now: u64, member: usize) {
        self.advance(now);
        if self.members.iter().filter(|member| !member.removed).count() > 1 {
            self.members[member].loses_memory();
            self.members[member].removed = true;
            self.recheck();
        }
    }

    /// Puts a new member, with another id, into the place of one that was taken out. It has nothing but what the log began
    /// with.
    pub fn add(&mut self, now: u64, member: usize) {
        self.advance(now);
        if self.members[member].removed {
            let id = MemberId(self.members[member].id.0 + 1000);
            let lag = self.members[member].lag;
            self.members[member] = Member { lag, ..Member::new(id, self.base.clone()) };
            self.recheck();
        }
    }

    /// What a backup taken now holds.
    #[must_use]
    pub fn backup(&self) -> Snapshot {
        Snapshot(self.truth.clone())
    }

    /// All members go down, lose everything, and come up with an empty store: the revision starts anew, the ids stay.
    pub fn wipe(&mut self, now: u64) {
        let empty = self.empty_store();
        self.begin_history(now, &empty);
    }

    /// All members go down and come up with this backup: the revision is what it was then, and every lease in it has its
    /// whole life before it, as far as the backup knows.
    pub fn restore(&mut self, now: u64, backup: &Snapshot) {
        self.begin_history(now, &backup.0.clone());
    }

    /// Whoever waits for anything at any member has lost it.
    fn begin_history(&mut self, now: u64, store: &Store) {
        self.advance(now);
        self.agenda.clear();
        self.log = Log::default();
        self.term = 1;
        self.leader = None;
        self.checkpoints.clear();
        self.base = store.clone();
        self.truth = store.clone();
        for member in &mut self.members {
            let (removed, lag) = (member.removed, member.lag);
            let process = if removed { Process::Gone } else { Process::Runs };
            *member = Member { removed, lag, process, term: 1, ..Member::new(member.id, store.clone()) };
        }
        self.recheck();
    }

    /// Lets one step happen, to a process that is there.
    pub(super) fn perform(&mut self, step: Step) {
        let Some(step) = self.reach(step) else { return };
        match step {
            Step::Ask { member, ticket, asked } => self.take(member, ticket, asked),
            Step::Watch { member, ticket, target, from } => self.take_watch(member, ticket, target, from),
            Step::Forwarded { to, proposal } => self.propose(to, proposal),
            Step::Stored { member, term, upto } => self.stored(member, term, upto),
            Step::Learn { member, upto } => self.learn(member, upto),
            Step::ReadAsked { leader, asker, read } => self.read_asked(leader, asker, read),
            Step::ReadConfirmed { leader, term, index, asker, read } => {
                self.read_confirmed((leader, term), asker, read, index);
            }
            Step::ReadIndexed { asker, read, index } => self.read_indexed(asker, read, index),
            Step::ReadRetried { member, read } => self.read_retried(member, read),
            Step::ReadTimedOut { member, read } => self.read_timed_out(member, read),
            Step::ProposalTimedOut { member, id } => self.proposal_timed_out(member, id),
            Step::RenewalTried { member, lease, id } => self.try_renewal(member, lease, id),
            Step::RenewalForwarded { to, asker, lease, id } => self.renewal_forwarded(to, asker, lease, id),
            Step::RenewalReturned { asker, from, lease, id, seconds } => {
                self.renewal_returned((asker, from), lease, id, seconds);
            }
            Step::RenewalTimedOut { member, lease, id } => self.renewal_timed_out(member, lease, id),
            Step::WatchSynced { member, ticket } => self.sync_watch(member, ticket),
        }
    }
}
