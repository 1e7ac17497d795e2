//! What no client sees: for the judge.

use bellwether::election::{CandidateKey, Identity, LeaseId, LockKey, Revision};

use super::members::{Part, Process};
use super::{Cluster, Snapshot, StaleRevoke};

impl Snapshot {
    /// The lock key in it.
    #[must_use]
    pub fn lock(&self) -> Option<&LockKey> {
        self.0.lock.as_ref()
    }
}

impl Cluster {
    /// The lock key as the majority has it.
    #[must_use]
    pub fn lock(&self) -> Option<&LockKey> {
        self.truth.lock.as_ref()
    }

    /// A candidate key as the majority has it.
    #[must_use]
    pub fn candidate(&self, identity: &Identity) -> Option<&CandidateKey> {
        self.truth.candidates.get(identity)
    }

    /// Whether the majority knows this lease.
    #[must_use]
    pub fn has_lease(&self, lease: LeaseId) -> bool {
        self.truth.leases.contains_key(&lease)
    }

    /// The store's revision as the majority has it.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.truth.revision
    }

    /// How many members there have ever been places for, those that were taken out included.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// The member that leads and hears from a majority.
    #[must_use]
    pub fn leader(&self) -> Option<usize> {
        (0..self.members.len()).find(|member| self.leads_a_majority(*member))
    }

    /// The members that believe to lead: more than one while a replaced leader does not know.
    pub fn self_styled_leaders(&self) -> impl Iterator<Item = usize> + '_ {
        let leads = |member: &usize| self.members[*member].part == Part::Leader && self.members[*member].is_running();
        (0..self.members.len()).filter(leads)
    }

    /// Whether the member's process exists, stopped or not: if not, its kernel refuses connections.
    #[must_use]
    pub fn is_running(&self, member: usize) -> bool {
        self.members[member].is_running()
    }

    /// Whether the member's process exists and is stopped: its kernel accepts, nothing answers.
    #[must_use]
    pub fn is_stopped(&self, member: usize) -> bool {
        self.members[member].process == Process::Stopped
    }

    /// How often a leader has been elected since the start.
    #[must_use]
    pub fn elections(&self) -> u64 {
        self.elections
    }

    /// The live leases that old servers have revoked of their own.
    #[must_use]
    pub fn stale_revokes(&self) -> &[StaleRevoke] {
        &self.stale_revokes
    }
}
