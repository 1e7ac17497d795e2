//! Lifetimes of leases: kept by who leads, not in the log.

use std::collections::BTreeMap;

use bellwether::election::LeaseId;

use super::log::Proposal;
use super::members::{Part, Timer};
use super::store::Command;
use super::{Behaviour, Cluster, Extension, SECOND, nanos};

/// How often a server looks for what has expired.
pub(super) const EXPIRY_INTERVAL: u64 = SECOND / 2;
/// A revoke that has not come through is proposed again.
const REVOKE_AGAIN: u64 = 3 * SECOND;

/// When leases expire, as one server has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Lessor {
    /// Only a leader's lessor knows times.
    pub(super) primary: bool,
    expiry: BTreeMap<LeaseId, u64>,
    /// Leases whose revoke has been proposed, and when it would be proposed again.
    proposed: BTreeMap<LeaseId, u64>,
}

impl Lessor {
    pub(super) fn set(&mut self, lease: LeaseId, expires: u64) {
        self.expiry.insert(lease, expires);
        self.proposed.remove(&lease);
    }

    pub(super) fn remove(&mut self, lease: LeaseId) {
        self.expiry.remove(&lease);
        self.proposed.remove(&lease);
    }

    fn expires(&self, lease: LeaseId) -> Option<u64> {
        self.expiry.get(&lease).copied()
    }

    fn expired(&self, now: u64) -> Vec<LeaseId> {
        let due = |lease: &LeaseId| self.proposed.get(lease).is_none_or(|again| *again <= now);
        self.expiry.iter().filter(|(lease, at)| **at <= now && due(lease)).map(|(lease, _)| *lease).collect()
    }
}

/// What a lessor says to a keep-alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Renewed {
    /// For so long.
    For(i64),
    NotFound,
    /// It has expired, and is about to be revoked: wait until that is done.
    Expired,
    /// Not by this server.
    NotPrimary,
}

impl Cluster {
    /// Renews a lease at a member, which asks nobody.
    pub(super) fn renew(&mut self, member: usize, lease: LeaseId) -> Renewed {
        let now = self.now;
        let me = &self.members[member];
        if !me.lessor.primary {
            return Renewed::NotPrimary;
        }
        let Some(ttl) = me.store.leases.get(&lease).copied() else { return Renewed::NotFound };
        if me.lessor.expires(lease).is_none_or(|at| at <= now) {
            return Renewed::Expired;
        }
        self.members[member].lessor.set(lease, now + nanos(ttl));
        if self.leads_a_majority(member) {
            self.checkpoints.insert(lease, now);
        }
        Renewed::For(i64::try_from(ttl.as_secs()).expect("lifetimes fit"))
    }

    /// The leader has applied everything that was there before it: lifetimes are its own business now.
    pub(super) fn promote(&mut self, member: usize) {
        let now = self.now;
        let me = &mut self.members[member];
        me.lessor = Lessor { primary: true, ..Lessor::default() };
        for (lease, ttl) in &me.store.leases {
            let renewed = self.checkpoints.get(lease).copied().unwrap_or(now);
            let expires = match self.options.extension {
                Extension::Full => now + nanos(*ttl) + nanos(self.options.election_timeout),
                Extension::Checkpointed => renewed + nanos(*ttl),
            };
            me.lessor.set(*lease, expires);
        }
        let within = self.dice.between(0, EXPIRY_INTERVAL);
        self.members[member].timers.insert(Timer::Expiry, now + within);
    }

    /// It leads no more: it forgets all times.
    pub(super) fn demote(&mut self, member: usize) {
        let me = &mut self.members[member];
        me.lessor = Lessor::default();
        me.timers.remove(&Timer::Expiry);
    }

    /// A leader that hears from a majority: what it has renewed while it did not, or while its disk had stalled, counts.
    pub(super) fn note_renewals(&mut self, member: usize) {
        let me = &self.members[member];
        for (lease, expires) in &me.lessor.expiry {
            if let Some(ttl) = me.store.leases.get(lease) {
                let renewed = expires.saturating_sub(nanos(*ttl)).min(self.now);
                let known = self.checkpoints.entry(*lease).or_insert(renewed);
                *known = renewed.max(*known);
            }
        }
    }

    /// Proposes to revoke what has expired.
    pub(super) fn expire(&mut self, member: usize) {
        self.members[member].timers.insert(Timer::Expiry, self.now + EXPIRY_INTERVAL);
        let expired = self.members[member].lessor.expired(self.now);
        for lease in expired {
            self.members[member].lessor.proposed.insert(lease, self.now + REVOKE_AGAIN);
            self.expires(member, lease);
        }
    }

    fn expires(&mut self, member: usize, lease: LeaseId) {
        let me = &mut self.members[member];
        if me.is_moving() && !me.doubtful {
            self.propose_revoke(member, lease, false);
            return;
        }
        match self.options.behaviour {
            // Raft takes the proposal and cannot send it anywhere, for now.
            Behaviour::WithStaleLeases => me.queued_revokes.push(lease),
            // A current server finds that it cannot be sure to lead.
            Behaviour::Current => {}
        }
    }

    pub(super) fn propose_revoke(&mut self, member: usize, lease: LeaseId, stale: bool) {
        let command = Command::Revoke { lease, stale };
        self.propose(member, Proposal { command, origin: None, over_quota: false });
    }

    /// What an old server has queued goes to whoever leads now.
    pub(super) fn send_queued_revokes(&mut self, member: usize) {
        let stale = self.members[member].part == Part::Follower;
        for lease in std::mem::take(&mut self.members[member].queued_revokes) {
            self.propose_revoke(member, lease, stale);
        }
    }

    /// An old leader that was stopped wakes up: what has expired by its clock may be on its way before it hears that
    /// others lead.
    pub(super) fn wakes_with_expired_leases(&mut self, member: usize) {
        let replaced = self.members[member].term < self.term;
        if replaced && self.options.behaviour == Behaviour::WithStaleLeases && self.dice.one_in(2) {
            let expired = self.members[member].lessor.expired(self.now);
            self.members[member].queued_revokes.extend(expired);
        }
    }
}
