//! The log that the members agree on.
//!
//! One log stands for everybody's: that of the member elected last. What of it a member has on its disk is a number,
//! and a new leader cuts off what it does not have itself. What a leader writes that has been replaced without knowing
//! it goes nowhere, and is not in here.

use std::collections::VecDeque;

use super::store::Command;

/// More than a lagging member is behind in any run; who is gone for longer gets the leader's store instead.
const ENTRIES_KEPT: usize = 2000;

/// Who waits for an entry: a member, and its number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) member: usize,
    pub(super) id: u64,
}

/// What is to become an entry.
#[derive(Clone, Debug)]
pub(super) struct Proposal {
    pub(super) command: Command,
    pub(super) origin: Option<Origin>,
    /// Let in before the server noticed that it is full: applied, and refused all the same.
    pub(super) over_quota: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) term: u64,
    pub(super) proposal: Proposal,
}

/// Indices count from 1.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    /// Those up to here have been forgotten.
    forgotten: u64,
    entries: VecDeque<Entry>,
    pub(super) commit: u64,
}

impl Log {
    pub(super) fn end(&self) -> u64 {
        self.forgotten + u64::try_from(self.entries.len()).expect("entries fit in memory")
    }

    pub(super) fn append(&mut self, entry: Entry) -> u64 {
        self.entries.push_back(entry);
        self.end()
    }

    /// `None` when it has been forgotten, or is not there yet.
    pub(super) fn get(&self, index: u64) -> Option<&Entry> {
        let place = index.checked_sub(self.forgotten + 1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// Cuts off what comes after.
    pub(super) fn truncate(&mut self, end: u64) {
        assert!(self.commit <= end, "a leader without a committed entry: {} of {}", end, self.commit);
        let keep = end.saturating_sub(self.forgotten);
        self.entries.truncate(usize::try_from(keep).expect("entries fit in memory"));
    }

    /// Forgets what everybody has applied, and what is old.
    pub(super) fn forget(&mut self, applied_by_all: u64) {
        while self.forgotten < self.commit
            && (self.forgotten < applied_by_all || self.entries.len() > ENTRIES_KEPT)
            && self.entries.pop_front().is_some()
        {
            self.forgotten += 1;
        }
    }
}
