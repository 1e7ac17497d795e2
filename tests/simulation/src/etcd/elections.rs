//! Who hears whom, who believes to lead, and who comes next.
//!
//! Heartbeats are not played one by one: whenever something changes, it is worked out who hears from a leader and
//! which leader from a majority, and what follows after how long.

use super::agenda::Step;
use super::members::{Disk, Member, Part, Process, Timer};
use super::{Behaviour, CallErrorKind, Cluster, error, nanos};

/// How long a message between members takes, in nanoseconds.
pub(super) const HOP: (u64, u64) = (100_000, 800_000);
/// How long it takes at most until members hear from each other again when they can: sooner than a heartbeat, since
/// their connections are kept.
const HEARD_WITHIN: u64 = 10_000_000;

impl Cluster {
    pub(super) fn hop(&mut self) -> u64 {
        self.dice.between(HOP.0, HOP.1)
    }

    /// Between one and two election timeouts.
    fn patience(&mut self) -> u64 {
        let timeout = nanos(self.options.election_timeout);
        self.dice.between(timeout, 2 * timeout)
    }

    pub(super) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.contains(&(from, to))
    }

    /// Whether what raft sends at one arrives at the other.
    pub(super) fn reaches(&self, from: usize, to: usize) -> bool {
        let moving = |member: &Member| member.is_moving() && !member.removed;
        moving(&self.members[from]) && moving(&self.members[to]) && !self.is_cut(from, to)
    }

    pub(super) fn in_contact(&self, one: usize, other: usize) -> bool {
        one == other || self.reaches(one, other) && self.reaches(other, one)
    }

    fn is_majority(&self, count: usize) -> bool {
        2 * count > self.members.iter().filter(|member| !member.removed).count()
    }

    /// Whether a leader hears from a majority that takes it for one.
    fn has_majority(&self, leader: usize) -> bool {
        let term = self.members[leader].term;
        let hears = |other: &usize| self.in_contact(leader, *other) && self.members[*other].term <= term;
        self.members[leader].is_moving() && self.is_majority((0..self.members.len()).filter(hears).count())
    }

    /// Whether it is the leader elected last, and hears from a majority.
    pub(super) fn leads_a_majority(&self, member: usize) -> bool {
        let me = &self.members[member];
        me.part == Part::Leader && me.term == self.term && self.has_majority(member)
    }

    /// The leader of the latest term that a member hears from.
    fn heard(&self, member: usize) -> Option<usize> {
        let leads = |other: &usize| {
            let other = &self.members[*other];
            other.part == Part::Leader && other.term >= self.members[member].term
        };
        let others = (0..self.members.len()).filter(|other| *other != member);
        others.filter(leads).filter(|leader| self.reaches(*leader, member)).max_by_key(|it| self.members[*it].term)
    }

    /// Works out what everybody waits for, after anything that bears on who hears whom.
    pub(super) fn recheck(&mut self) {
        for member in 0..self.members.len() {
            self.recheck_hearing(member);
            self.recheck_patience(member);
        }
        self.replicate();
    }

    fn recheck_hearing(&mut self, member: usize) {
        let heard = self.heard(member).filter(|leader| {
            let me = &self.members[member];
            me.is_moving() && (me.lead != Some(*leader) || me.term < self.members[*leader].term)
        });
        self.arm(member, Timer::Hear, heard.is_some(), (HOP.0, HEARD_WITHIN));
        let outvoted = (0..self.members.len())
            .any(|other| self.members[other].term > self.members[member].term && self.in_contact(member, other));
        let leads = self.members[member].part == Part::Leader;
        self.arm(member, Timer::Outvoted, leads && outvoted, (HOP.0, HEARD_WITHIN));
    }

    fn recheck_patience(&mut self, member: usize) {
        let timeout = nanos(self.options.election_timeout);
        let me = &self.members[member];
        let moving = me.is_moving() && !me.removed;
        let (follows, leads) = (me.part == Part::Follower, me.part == Part::Leader);
        let unheard = moving && follows && self.heard(member).is_none();
        self.arm(member, Timer::Election, unheard, (timeout, 2 * timeout));
        let alone = moving && leads && !self.has_majority(member);
        self.arm(member, Timer::Quorum, alone, (timeout, 2 * timeout));
        if self.leads_a_majority(member) {
            self.note_renewals(member);
            self.members[member].doubtful = false;
        }
    }

    /// Starts a timer that is needed and does not run, stops one that is not needed.
    fn arm(&mut self, member: usize, timer: Timer, needed: bool, (low, high): (u64, u64)) {
        match (needed, self.members[member].timers.contains_key(&timer)) {
            (true, false) => {
                let at = self.now + self.dice.between(low, high);
                self.members[member].timers.insert(timer, at);
            }
            (false, true) => {
                self.members[member].timers.remove(&timer);
            }
            (true, true) | (false, false) => {}
        }
    }

    /// A member's time has come.
    pub(super) fn fire(&mut self, member: usize, timer: Timer) {
        match timer {
            Timer::Election => self.stand(member),
            Timer::Quorum => self.step_down(member),
            Timer::Hear => {
                if let Some(leader) = self.heard(member) {
                    self.follow(member, leader);
                }
            }
            Timer::Outvoted => {
                let others = (0..self.members.len()).filter(|other| self.in_contact(member, *other));
                let term = others.map(|other| self.members[other].term).max();
                self.members[member].term = term.unwrap_or(0).max(self.members[member].term);
                self.step_down(member);
            }
            Timer::Expiry => {
                self.expire(member);
                return;
            }
            Timer::Leaderless => {
                self.end_streams(member);
                return;
            }
        }
        self.recheck();
    }

    /// Asks for votes. Who hears from a leader gives none, nor who has more of the log.
    fn stand(&mut self, member: usize) {
        self.set_lead(member, None);
        // A vote, its own included, is written down first.
        if !self.members[member].writes() {
            return;
        }
        let asks_first = self.options.behaviour == Behaviour::Current;
        if !asks_first {
            self.members[member].term += 1;
        }
        let voters: Vec<usize> = (0..self.members.len()).filter(|voter| self.votes_for(member, *voter)).collect();
        let term = voters.iter().map(|voter| self.members[*voter].term).max().unwrap_or(0);
        let has_most = |voter: &&usize| self.members[**voter].stored <= self.members[member].stored;
        let won = self.is_majority(voters.iter().filter(has_most).count());
        let term = if won && asks_first { term + 1 } else { term };
        if won || !asks_first {
            for voter in voters {
                // A leader that is asked for its vote in a later term is none any more.
                if voter != member && self.members[voter].part == Part::Leader {
                    self.step_down(voter);
                }
                self.members[voter].term = term.max(self.members[voter].term);
            }
        }
        if won {
            self.lead(member, term);
        }
    }

    /// Whether it listens to who stands for election.
    fn votes_for(&self, member: usize, voter: usize) -> bool {
        if voter == member {
            return true;
        }
        let hears_another = self.heard(voter).is_some() || self.leads_a_majority(voter);
        self.in_contact(member, voter) && self.members[voter].disk == Disk::Works && !hears_another
    }

    fn lead(&mut self, member: usize, term: u64) {
        let term = term.max(self.term + 1);
        self.term = term;
        self.leader = Some(member);
        self.elections += 1;
        let me = &mut self.members[member];
        me.term = term;
        me.part = Part::Leader;
        me.timers.clear();
        self.set_lead(member, Some(member));
        // Its own first entry, which cuts the log, comes before what has waited for a leader.
        self.begin_term(member);
        self.unblock(member);
        for other in 0..self.members.len() {
            if other != member && self.reaches(member, other) {
                let at = self.now + self.hop();
                self.members[other].timers.insert(Timer::Hear, at);
            }
        }
    }

    fn follow(&mut self, member: usize, leader: usize) {
        self.leave_office(member);
        self.members[member].term = self.members[leader].term;
        self.set_lead(member, Some(leader));
        self.unblock(member);
        self.send_queued_revokes(member);
    }

    /// Leads no more, and knows nobody who does.
    fn step_down(&mut self, member: usize) {
        self.leave_office(member);
        self.set_lead(member, None);
    }

    fn leave_office(&mut self, member: usize) {
        let me = &mut self.members[member];
        me.timers.retain(|timer, _| *timer == Timer::Leaderless);
        me.doubtful = false;
        if me.part == Part::Leader {
            me.part = Part::Follower;
            self.demote(member);
        }
    }

    /// What a member does when it learns who leads, or that nobody does.
    fn set_lead(&mut self, member: usize, lead: Option<usize>) {
        let changed = self.members[member].lead != lead;
        self.members[member].lead = lead;
        if lead.is_none() {
            if !self.members[member].timers.contains_key(&Timer::Leaderless) {
                // It looks every election timeout, and the third time in a row is enough.
                let timeout = nanos(self.options.election_timeout);
                let at = self.now + timeout + self.patience();
                self.members[member].timers.insert(Timer::Leaderless, at);
            }
            return;
        }
        self.members[member].timers.remove(&Timer::Leaderless);
        if changed {
            for (_, read) in std::mem::take(&mut self.members[member].reads) {
                self.answer(read.ticket, Err(error(CallErrorKind::Unavailable, "etcdserver: leader changed")));
            }
        }
    }

    /// Once a process runs again, what reached it in the meantime reaches it.
    pub(super) fn release(&mut self, member: usize) {
        for step in std::mem::take(&mut self.members[member].held) {
            self.agenda.add(self.now, step);
        }
    }

    /// Whether a message that is under way gets there: cut in the meantime, or no process.
    pub(super) fn gets_through(&self, from: usize, to: usize) -> bool {
        from == to || !self.is_cut(from, to) && self.members[to].is_running()
    }

    /// Puts off what has reached a stopped process; drops what was for one that is gone.
    pub(super) fn reach(&mut self, step: Step) -> Option<Step> {
        let member = &mut self.members[step.member()];
        match member.process {
            Process::Runs => Some(step),
            Process::Stopped => {
                member.held.push(step);
                None
            }
            Process::Gone => None,
        }
    }
}
