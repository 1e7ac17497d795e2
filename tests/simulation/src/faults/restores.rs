//! Stores that are restored: slowly, when nobody leads any more, or at once, under a leader.

use std::time::Duration;

use super::Restored;
use crate::clock::nanos;
use crate::etcd::Operation;
use crate::world::{Happening, MemberTurn, World};

/// How long after one candidate the next is restarted, when all are, one after the other.
const RESTARTS_APART: Duration = Duration::from_millis(700);

impl World {
    /// All members are down for as long as it takes to restore the store; who led before must have stopped by then.
    pub(super) fn wipes(&mut self, down: Duration, restart_after: Duration, to_backup: bool) -> bool {
        let with = if to_backup { Restored::EarlyBackup } else { Restored::Nothing };
        self.store_is_down_for(down, with);
        for node in 0..self.nodes.len() {
            let place = u32::try_from(node).expect("a handful");
            self.restarts_later(node, down + restart_after + RESTARTS_APART * place);
        }
        true
    }

    /// A backup is taken, and the store goes on for a while before it is restored.
    pub(super) fn restores(&mut self, age: Duration, down: Duration, restart_after: Duration) -> bool {
        self.backup = Some(self.cluster.backup());
        self.turns_later(age, MemberTurn::StoreGoes { down, restart_after });
        self.cluster.operate(self.now, Operation::PutElsewhere) && self.cluster.lock().is_some()
    }

    /// Only a backup with the lock key that is there is restored at once: then nobody has taken the lock away, and every
    /// promise must hold. With another key, or none, it would be an operator's deed of the kind that one must first stop
    /// the sidecars for. All are restarted together, so that none with the old epoch leads after one with the new.
    pub(super) fn store_goes(&mut self, down: Duration, restart_after: Duration) {
        let lock = self.backup.as_ref().and_then(|backup| backup.lock());
        if lock.is_none() || lock != self.cluster.lock() {
            self.note("etcd: the lock is another than in the backup, which is not restored");
            return;
        }
        self.note("etcd: the store is down, to be restored");
        self.store_is_down_for(down, Restored::BackupOfTheReign);
        for node in 0..self.nodes.len() {
            self.restarts_later(node, down + restart_after);
        }
    }

    fn store_is_down_for(&mut self, down: Duration, with: Restored) {
        for member in 0..self.setup.cluster.members {
            self.kills_member(member);
        }
        self.store_is_away = true;
        self.turns_later(down, MemberTurn::StoreIsBack { with });
    }

    fn restarts_later(&mut self, node: usize, later: Duration) {
        let epoch = self.epoch + 1;
        self.after(nanos(later), Happening::RestartsWithEpoch { node, epoch });
    }

    pub(super) fn store_is_back(&mut self, with: Restored) {
        self.store_is_away = false;
        self.epoch += 1;
        let backup = self.backup.as_ref().filter(|_| with != Restored::Nothing);
        // What the backup of a reign has is what there was, up to its lock key, and all later keys are of later revisions
        // than that one: to the judge it is the same history.
        if with != Restored::BackupOfTheReign {
            self.judge.store_is_wiped(self.now);
        }
        match backup {
            Some(backup) => self.cluster.restore(self.now, backup),
            None => self.cluster.wipe(self.now),
        }
        self.note("etcd: the store is back, with less than it had");
    }
}
