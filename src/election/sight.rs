//! What a candidate knows of the lock key, of its place in the line, and since when.

use super::event::{CandidateKey, LockKey};
use super::ids::{EndpointId, Identity, LeaseId, Revision, WatchId};
use super::instant::Instant;

/// The lock key as of a revision.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    known: Option<Known>,
    /// What the lock key was before this revision is of no interest any more.
    floor: Revision,
}

#[derive(Clone, Debug)]
struct Known {
    at: Revision,
    lock: Option<LockKey>,
    /// Since when the lock has been seen free; of a lock that is held, since when it was before.
    freed_at: Option<Instant>,
}

impl Sight {
    pub(super) const fn nothing() -> Self {
        Self { known: None, floor: Revision(0) }
    }

    /// Takes in what the lock key was at revision `at`, unless something newer is known. True when taken.
    pub(super) fn take_in(&mut self, now: Instant, at: Revision, lock: Option<LockKey>) -> bool {
        if at < self.floor || self.known.as_ref().is_some_and(|known| known.at > at) {
            return false;
        }
        let freed_at = match (&self.known, &lock) {
            (Some(Known { lock: None, freed_at, .. }), _) => *freed_at,
            (Some(Known { lock: Some(old), freed_at, .. }), Some(new)) if old.is_same_claim(new) => *freed_at,
            (_, None) => Some(now),
            (_, Some(_)) => None,
        };
        self.known = Some(Known { at, lock, freed_at });
        true
    }

    /// Knows nothing, and takes in nothing that was before this revision: an answer that was on its way while the
    /// lock was let go of shows it still held.
    pub(super) fn forget(&mut self, before: Revision) {
        *self = Self { known: None, floor: before };
    }

    pub(super) const fn is_known(&self) -> bool {
        self.known.is_some()
    }

    /// The revision up to which everything is known.
    pub(super) fn at(&self) -> Option<Revision> {
        self.known.as_ref().map(|known| known.at)
    }

    pub(super) fn lock(&self) -> Option<&LockKey> {
        self.known.as_ref().and_then(|known| known.lock.as_ref())
    }

    /// Since when the lock has been seen free; `None` when it is held or nothing is known.
    pub(super) fn free_since(&self) -> Option<Instant> {
        self.known.as_ref().filter(|known| known.lock.is_none()).and_then(|known| known.freed_at)
    }

    /// Since when the lock was seen free before its present holder took it, if it was.
    pub(super) fn freed_at(&self) -> Option<Instant> {
        self.known.as_ref().and_then(|known| known.freed_at)
    }

    /// The lock key, if it carries this lease.
    pub(super) fn carrying(&self, lease: LeaseId) -> Option<&LockKey> {
        self.lock().filter(|lock| lock.lease == Some(lease))
    }
}

impl LockKey {
    /// Whether nobody has put the key again since it was created.
    pub(super) fn is_untouched(&self) -> bool {
        self.mod_revision == self.create_revision
    }

    fn is_same_claim(&self, other: &Self) -> bool {
        self.create_revision == other.create_revision
    }
}

/// Who is just before this candidate in the line, the leader left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ahead {
    /// Not known (any more): the next turn asks.
    Unknown,
    /// Nobody: this candidate is the heir.
    Nobody,
    /// This one.
    Candidate { identity: Identity, create_revision: Revision },
}

impl Ahead {
    /// From the two candidates registered last before this one, newest first, and the lock.
    pub(super) fn from_observation(newest_first: &[CandidateKey], lock: Option<&LockKey>) -> Self {
        let leads = |candidate: &CandidateKey| {
            lock.is_some_and(|lock| lock.holder == candidate.identity && lock.lease == candidate.lease)
        };
        newest_first.iter().find(|candidate| !leads(candidate)).map_or(Self::Nobody, |candidate| Self::Candidate {
            identity: candidate.identity.clone(),
            create_revision: candidate.create_revision,
        })
    }

    pub(super) fn is(&self, other: &Identity) -> bool {
        match self {
            Self::Candidate { identity, .. } => identity == other,
            Self::Unknown | Self::Nobody => false,
        }
    }
}

/// This candidate's own registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Registration {
    /// None: the next turn registers, not before `retry_at`.
    None,
    /// In line, at this place.
    Registered { create_revision: Revision },
    /// Another live candidate has the identity; tried again from this instant on.
    Taken { lease: Option<LeaseId>, retry_at: Instant },
    /// Being taken off, to register anew at the end.
    Leaving { create_revision: Revision },
}

/// A watch under way.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub(super) id: WatchId,
    pub(super) endpoint: EndpointId,
    /// etcd must have acknowledged it by then; `None` once it has.
    pub(super) created_by: Option<Instant>,
}
