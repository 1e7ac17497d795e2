//! Deeds of operators: what they do to the keys by hand.

use std::time::Duration;

use bellwether::election::{Call, Identity, LeaseId};

use super::OperatorFault;
use crate::clock::nanos;
use crate::etcd::{Asked, Operation, Ticket};
use crate::world::{Happening, MemberTurn, World};

/// The lease that an operator puts a lock with.
const OPERATORS_LEASE: LeaseId = LeaseId(1);
/// The shortest that etcd grants.
const OPERATORS_LEASE_LASTS: Duration = Duration::from_secs(2);
/// Nobody waits for what etcd says to an operator.
const NOBODYS: Ticket = Ticket(0);

impl World {
    /// Whether there was anything to do, and an etcd to do it with.
    pub(super) fn operator_fault(&mut self, fault: OperatorFault) -> bool {
        let lock = self.cluster.lock().cloned();
        let holder = Identity::new("operator");
        match (fault, lock) {
            (OperatorFault::DeleteLock, Some(_)) => self.operates_on_lock(Operation::DeleteLock),
            (OperatorFault::RevokeLease, Some(lock)) => {
                lock.lease.is_some_and(|lease| self.operates_on_lock(Operation::Revoke(lease)))
            }
            (OperatorFault::PutOverLock { keep_lease: true }, Some(lock)) => {
                self.operates_on_lock(Operation::PutLock { holder, lease: lock.lease })
            }
            (OperatorFault::PutOverLock { keep_lease: false }, Some(_)) => {
                let Some(leader) = self.cluster.leader() else { return false };
                let call = Call::Grant { lease: OPERATORS_LEASE, ttl: OPERATORS_LEASE_LASTS };
                self.cluster.ask(self.now, leader, NOBODYS, Asked::Call { identity: holder.clone(), call });
                self.operates_on_lock(Operation::PutLock { holder, lease: Some(OPERATORS_LEASE) })
            }
            (OperatorFault::PutWithoutLease { clear_after }, _) => {
                self.after(nanos(clear_after), Happening::MemberTurns(MemberTurn::LockIsCleared));
                self.operates_on_lock(Operation::PutLock { holder, lease: None })
            }
            (OperatorFault::DeleteCandidate { who }, _) => {
                let identity = self.nodes[self.one_node(who)].identity.clone();
                self.cluster.operate(self.now, Operation::DeleteCandidate(identity))
            }
            (OperatorFault::DeleteLock | OperatorFault::RevokeLease | OperatorFault::PutOverLock { .. }, None) => false,
        }
    }

    fn operates_on_lock(&mut self, operation: Operation) -> bool {
        self.judge.operator_touches_lock(self.now);
        self.cluster.operate(self.now, operation)
    }

    /// A lock without a lease blocks everybody until somebody deletes it. Tried until it is gone.
    pub(super) fn clears_lock_without_lease(&mut self) {
        if self.cluster.lock().is_none_or(|lock| lock.lease.is_some()) {
            return;
        }
        self.operates_on_lock(Operation::DeleteLock);
        self.after(nanos(Duration::from_millis(200)), Happening::MemberTurns(MemberTurn::LockIsCleared));
    }
}
