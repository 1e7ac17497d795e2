//! What faults may cost: how long nobody may lead, and what is promised of answers meanwhile.

use std::time::Duration;

use super::catalogue::{Kind, Leaderless};
use super::scene::{ANSWER_VALIDITY, ETCD_ELECTION, LEASE_TTL};

/// What is promised of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Never two leaders, and no answer's promise broken.
    Whole,
    /// The same, but for the leader that has not let the lock go when somebody takes it: for that one the bound of
    /// DESIGN.md, section 8.
    Bounded,
}

/// Polling, scheduling, and a busy machine.
const UNNOTICED: Duration = Duration::from_millis(1000);
/// What the issue grants a SIGTERM on top of the answers' validity.
const HANDOVER: Duration = Duration::from_millis(500);
/// What the issue grants a `kill -9` on top of the lease.
const EXPIRY: Duration = Duration::from_secs(2);
/// How long nobody may lead between trials, when all is well but for leaders that are asked to resign: whatever is left of
/// a fault may cost one lease more.
pub const BETWEEN_TRIALS: Duration = LEASE_TTL.saturating_add(EXPIRY);
/// Elections of etcd with a split vote, and an attempt after it.
const ELECTIONS: u32 = 6;

impl Kind {
    /// How long nobody may lead when it strikes alone and lasts so long.
    pub fn bound(self, lasted: Duration) -> Duration {
        match self.leaderless() {
            Leaderless::Unnoticed => UNNOTICED,
            Leaderless::Handover => ANSWER_VALIDITY + HANDOVER,
            Leaderless::EtcdElection => ETCD_ELECTION * ELECTIONS,
            Leaderless::Expiry => LEASE_TTL + EXPIRY,
            Leaderless::LateExpiry => 2 * LEASE_TTL + EXPIRY,
            Leaderless::WhileItLasts => lasted + LEASE_TTL + EXPIRY,
        }
    }

    /// What is promised while it lasts, and until all is well again. `revokes_live_leases`: this etcd has #15247, and
    /// revokes leases that are alive when its leader wakes up.
    pub const fn promise(self, revokes_live_leases: bool) -> Promise {
        if matches!(self, Self::KeyDeleted | Self::LeaseRevoked) || (self.wakes_up_late() && revokes_live_leases) {
            Promise::Bounded
        } else {
            Promise::Whole
        }
    }

    /// Whether it ends with the waking up of a member that may take itself for the etcd leader of before.
    pub const fn wakes_up_late(self) -> bool {
        matches!(self, Self::EtcdLeaderStopped | Self::EtcdLeaderStalled | Self::MemberStopped)
    }
}

/// How long nobody may lead in a mixture that lasted so long, from the first fault to the last healing: whatever they
/// do to each other, then a lease that a new etcd leader has extended, and etcd's own election.
pub fn bound_of_mixture(kinds: &[Kind], lasted: Duration) -> Duration {
    let alone = kinds.iter().map(|kind| kind.bound(lasted)).max().unwrap_or_default();
    alone.max(lasted + LEASE_TTL + EXPIRY + ETCD_ELECTION * ELECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_the_lock_away_is_held_to_the_bound_only() {
        assert_eq!(Kind::KeyDeleted.promise(false), Promise::Bounded);
        assert_eq!(Kind::EtcdLeaderStalled.promise(false), Promise::Whole);
        assert_eq!(Kind::EtcdLeaderStalled.promise(true), Promise::Bounded);
    }
}
