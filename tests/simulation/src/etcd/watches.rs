//! Watches: what a member has applied, in order, to whom it concerns.

use bellwether::election::{CallErrorKind, Revision, WatchTarget};

use super::agenda::Step;
use super::members::Watch;
use super::{Cluster, MILLISECOND, Output, Ticket, error};

/// A server looks this often after watches from the past.
const SYNC_INTERVAL: u64 = 100 * MILLISECOND;

impl Cluster {
    /// A watch reaches a running process.
    pub(super) fn take_watch(&mut self, member: usize, ticket: Ticket, target: WatchTarget, from: Revision) {
        let header = self.header(member);
        if self.members[member].lead.is_none() {
            let error = error(CallErrorKind::Unavailable, "etcdserver: no leader");
            self.outputs.push_back(Output::WatchEnded { ticket, error });
            return;
        }
        self.outputs.push_back(Output::WatchCreated { ticket, header });
        let synced = from > header.revision;
        self.members[member].watches.insert(ticket, Watch { target, from, synced });
        if !synced {
            let at = self.now + self.dice.between(1, SYNC_INTERVAL);
            self.agenda.add(at, Step::WatchSynced { member, ticket });
        }
    }

    /// Tells a watch from the past what it has missed.
    pub(super) fn sync_watch(&mut self, member: usize, ticket: Ticket) {
        let me = &mut self.members[member];
        let compacted = me.store.compacted;
        let Some(watch) = me.watches.get_mut(&ticket) else { return };
        if watch.from < compacted {
            me.watches.remove(&ticket);
            let words = format!("revisions before {compacted} have been compacted");
            let error = error(CallErrorKind::Compacted, &words);
            self.outputs.push_back(Output::WatchEnded { ticket, error });
            return;
        }
        watch.synced = true;
        let (target, from) = (watch.target.clone(), watch.from);
        self.tell(member, ticket, &target, from);
    }

    /// Tells the watches that are up to date what has just been applied.
    pub(super) fn tell_watches(&mut self, member: usize, before: Revision) {
        let synced = self.members[member].watches.iter().filter(|(_, watch)| watch.synced);
        let told: Vec<(Ticket, WatchTarget, Revision)> =
            synced.map(|(ticket, watch)| (*ticket, watch.target.clone(), watch.from)).collect();
        for (ticket, target, from) in told {
            self.tell(member, ticket, &target, from.max(Revision(before.0 + 1)));
        }
    }

    fn tell(&mut self, member: usize, ticket: Ticket, target: &WatchTarget, from: Revision) {
        let header = self.header(member);
        let me = &mut self.members[member];
        for recorded in me.store.changes(target, from) {
            self.outputs.push_back(Output::WatchChanged { ticket, header, change: recorded.change });
        }
        if let Some(watch) = me.watches.get_mut(&ticket) {
            watch.from = watch.from.max(Revision(me.store.revision.0 + 1));
        }
    }
}
