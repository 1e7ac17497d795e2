//! From a proposal to what every member has applied.

use bellwether::election::{Body, LeaseId};

use super::agenda::Step;
use super::elections::HOP;
use super::log::{Entry, Proposal};
use super::members::{Part, Timer};
use super::store::{Command, Refusal};
use super::{Cluster, StaleRevoke, nanos};

/// How long a write to a disk takes, in nanoseconds.
const WRITE: (u64, u64) = (300_000, 3_000_000);

impl Cluster {
    /// A member's raft takes a proposal: it appends it, passes it on, or keeps it until there is a leader.
    pub(super) fn propose(&mut self, member: usize, proposal: Proposal) {
        let me = &mut self.members[member];
        match (me.part, me.lead) {
            (Part::Leader, _) if me.term == self.term => self.append(member, proposal),
            // Into a log that nobody will follow.
            (Part::Leader, _) => {}
            // What raft has taken and cannot send yet.
            (Part::Follower, Some(_)) if me.is_stuck() => me.blocked.push_back(proposal),
            (Part::Follower, None) => me.blocked.push_back(proposal),
            (Part::Follower, Some(lead)) => {
                if self.gets_through(member, lead) {
                    let at = self.now + self.hop();
                    self.agenda.add(at, Step::Forwarded { to: lead, proposal });
                }
            }
        }
    }

    fn append(&mut self, leader: usize, proposal: Proposal) {
        self.log.append(Entry { term: self.term, proposal });
        self.replicate();
        // Its own write comes last: what it sent before, it has sent.
        if !self.members[leader].writes() {
            self.recheck();
        }
    }

    /// Sends to every member what it does not have, as the leader elected last would.
    pub(super) fn replicate(&mut self) {
        let Some(leader) = self.leader.filter(|leader| self.members[*leader].part == Part::Leader) else { return };
        if !self.members[leader].is_moving() {
            return;
        }
        let (term, end, commit) = (self.term, self.log.end(), self.log.commit);
        for member in 0..self.members.len() {
            let follows = self.members[member].lead == Some(leader) && self.members[member].term == term;
            if !follows || member != leader && !self.in_contact(leader, member) {
                continue;
            }
            let write = self.dice.between(WRITE.0, WRITE.1);
            let hop = self.hop();
            let me = &mut self.members[member];
            me.acknowledged = me.stored;
            if me.stored < end && me.storing < end {
                me.storing = end;
                self.agenda.add(self.now + write, Step::Stored { member, term, upto: end });
            }
            let learns = commit.min(me.stored);
            if me.applying < learns {
                me.applying = learns;
                self.agenda.add(self.now + hop + me.lag, Step::Learn { member, upto: learns });
            }
        }
        self.try_commit();
    }

    /// The end of a write.
    pub(super) fn stored(&mut self, member: usize, term: u64, upto: u64) {
        let lost = self.leader.is_none_or(|leader| leader != member && self.is_cut(leader, member));
        let me = &mut self.members[member];
        me.storing = me.stored;
        if term != self.term || me.term != term || lost {
            return;
        }
        if !me.writes() {
            self.recheck();
            return;
        }
        assert!(upto <= self.log.end(), "a member wrote {upto}, the log of its term ends at {}", self.log.end());
        me.stored = me.stored.max(upto);
        me.storing = me.stored;
        self.replicate();
    }

    /// A majority has written it, and the leader knows.
    fn try_commit(&mut self) {
        let Some(leader) = self.leader else { return };
        let voters = self.members.iter().filter(|member| !member.removed);
        let mut acknowledged: Vec<u64> = voters.map(|member| member.acknowledged).collect();
        acknowledged.sort_unstable();
        let commit = acknowledged[(acknowledged.len() - 1) / 2];
        if commit <= self.log.commit || self.log.get(commit).is_none_or(|entry| entry.term != self.term) {
            return;
        }
        for index in self.log.commit + 1..=commit {
            let entry = self.log.get(index).expect("uncommitted entries are kept").clone();
            self.happens(&entry);
        }
        self.log.commit = commit;
        self.members[leader].applying = commit;
        self.apply(leader, commit);
        self.replicate();
        let applied_by_all = self.members.iter().map(|member| member.applied).min().unwrap_or(0);
        self.log.forget(applied_by_all);
    }

    /// What is committed is the truth from here on, whoever knows it.
    fn happens(&mut self, entry: &Entry) {
        let done = self.truth.apply(&entry.proposal.command);
        if let (Command::Revoke { lease, stale }, Ok(_)) = (&entry.proposal.command, done) {
            self.checkpoints.remove(lease);
            if *stale {
                self.stale_revokes.push(StaleRevoke { at: self.now, lease: *lease });
            }
        }
    }

    /// A follower hears what is committed. Who has been told of a log that is not there any more has not.
    pub(super) fn learn(&mut self, member: usize, upto: u64) {
        let me = &mut self.members[member];
        if me.is_stuck() || upto > me.stored.min(self.log.commit) {
            me.applying = me.applied;
            return;
        }
        self.apply(member, upto);
    }

    /// A member applies what is committed, up to here.
    pub(super) fn apply(&mut self, member: usize, upto: u64) {
        while self.members[member].applied < upto {
            let index = self.members[member].applied + 1;
            match self.log.get(index).cloned() {
                Some(entry) => self.apply_entry(member, index, &entry),
                None => self.install_snapshot(member),
            }
        }
        let me = &mut self.members[member];
        me.applying = me.applying.max(me.applied);
        self.answer_reads(member);
    }

    fn apply_entry(&mut self, member: usize, index: u64, entry: &Entry) {
        let me = &mut self.members[member];
        let proposal = &entry.proposal;
        let before = me.store.revision;
        let mut result = me.store.apply(&proposal.command);
        me.applied = index;
        me.applied_term = entry.term;
        if proposal.over_quota && result.is_ok() {
            result = Err(Refusal::NoSpace);
        }
        let leads = me.part == Part::Leader && me.term == entry.term;
        match &proposal.command {
            Command::Noop if leads => self.promote(member),
            Command::Grant { lease, .. } => self.granted(member, *lease),
            Command::Revoke { lease, .. } => me.lessor.remove(*lease),
            Command::Noop
            | Command::Register { .. }
            | Command::Unregister { .. }
            | Command::Claim { .. }
            | Command::Resume { .. }
            | Command::DeleteLock { .. }
            | Command::PutLock { .. }
            | Command::DropLock
            | Command::DropCandidate { .. }
            | Command::PutElsewhere
            | Command::Compact { .. }
            | Command::Alarm { .. } => {}
        }
        if self.members[member].store.revision != before {
            self.tell_watches(member, before);
        }
        self.settle(member, proposal, result);
        if let Command::Revoke { lease, .. } = &proposal.command {
            self.turn_to_renewal(member, *lease);
        }
    }

    fn granted(&mut self, member: usize, lease: LeaseId) {
        let now = self.now;
        let me = &mut self.members[member];
        if let (true, Some(ttl)) = (me.lessor.primary, me.store.leases.get(&lease)) {
            me.lessor.set(lease, now + nanos(*ttl));
            self.checkpoints.entry(lease).or_insert(now);
        }
    }

    /// Answers who waits for this entry, if that is here.
    fn settle(&mut self, member: usize, proposal: &Proposal, result: Result<Body, Refusal>) {
        let Some(origin) = proposal.origin.filter(|origin| origin.member == member) else { return };
        if let Some(ticket) = self.members[member].waiting.remove(&origin.id) {
            self.answer_applied(member, ticket, &proposal.command, result);
        }
    }

    /// It has been away for too long: it gets what the others have.
    fn install_snapshot(&mut self, member: usize) {
        let me = &mut self.members[member];
        me.store = self.truth.clone();
        me.applied = self.log.commit;
        me.applied_term = self.log.get(self.log.commit).map_or(self.term, |entry| entry.term);
        let watching: Vec<_> = me.watches.iter_mut().map(|(ticket, watch)| (*ticket, &mut watch.synced)).collect();
        for (ticket, synced) in watching {
            *synced = false;
            self.agenda.add(self.now + HOP.1, Step::WatchSynced { member, ticket });
        }
    }

    /// What waited for a leader goes to it.
    pub(super) fn unblock(&mut self, member: usize) {
        for proposal in std::mem::take(&mut self.members[member].blocked) {
            self.propose(member, proposal);
        }
    }

    /// A new leader's first entry, which says what of the log is there to stay.
    pub(super) fn begin_term(&mut self, leader: usize) {
        self.log.truncate(self.members[leader].stored);
        let end = self.log.end();
        for member in &mut self.members {
            member.stored = member.stored.min(end);
            member.storing = member.stored;
            member.acknowledged = 0;
            member.applying = member.applied;
        }
        self.members[leader].timers.remove(&Timer::Expiry);
        self.append(leader, Proposal { command: Command::Noop, origin: None, over_quota: false });
    }
}
