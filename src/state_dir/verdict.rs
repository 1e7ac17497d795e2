//! What a life does with what the one before has left.

use std::time::Duration;

use thiserror::Error;

use super::record::{Legacy, Place};
use crate::config::Span;
use crate::election::{Instant, Memory, Part};

/// The life that begins.
#[derive(Clone, Debug)]
pub struct Life {
    /// Who and where.
    pub place: Place,
    /// When it began.
    pub began: Instant,
    /// `--lease-ttl`
    pub lease_ttl: Duration,
    /// `--answer-validity`
    pub answer_validity: Duration,
    /// Whether it may lead.
    pub part: Part,
}

/// What is to be done with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on with lease and term.
    Resume,
    /// Let go of both, for this reason.
    Release(Why),
    /// Nothing, for this reason.
    Ignore(Ignored),
}

/// Why a lock is let go of instead of being kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Why {
    /// Whoever dies young again and again is no leader, and would keep others from leading.
    #[error("it ended before it had lasted one lease, {}", Span(*.0))]
    CrashLoop(Duration),
    /// It must not lead.
    #[error("with --never-lead this sidecar does not lead")]
    NeverLeads,
}

/// Why what was found is of no use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Ignored {
    /// It cannot be read, or says what cannot be.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// It belongs to somebody else, or another time.
    #[error("it is foreign: {0}")]
    Foreign(Difference),
    /// The lease has expired.
    #[error("it is stale: the lease was renewed {} ago for the last time, and lasts {}", Span(*.age), Span(*.ttl))]
    Stale {
        /// Since the last renewal.
        age: Duration,
        /// The lease's.
        ttl: Duration,
    },
    /// The relations between the timings would not hold.
    #[error("its lease lasts {}, less than --lease-ttl {}", Span(*.recorded), Span(*.wanted))]
    SmallerTtl {
        /// The lease's.
        recorded: Duration,
        /// `--lease-ttl`
        wanted: Duration,
    },
}

/// In what it differs from the life that looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Difference {
    /// The boot clock has begun anew.
    #[error("the machine was started again since")]
    Boot,
    /// `cp -a` of the folder, or a lock file that was replaced.
    #[error("the folder is a copy, or its lock file was replaced")]
    LockFile,
    /// `--election` or `--namespace`
    #[error("it is of another election")]
    Election,
    /// `--lock-key`
    #[error("it is of another lock key")]
    LockKey,
    /// `--identity`
    #[error("it is of another identity")]
    Identity,
    /// `--epoch`
    #[error("it is of another epoch")]
    Epoch,
}

impl Life {
    /// What this life does with `legacy`, which it looks at as it begins.
    ///
    /// Only the order of the reasons is a choice: what is damaged or foreign says nothing, so it comes first; an observer
    /// lets go of a lease whatever its TTL.
    pub fn judge(&self, legacy: &Legacy) -> Verdict {
        let memory = &legacy.memory;
        if let Some(difference) = self.place.difference(&legacy.place) {
            return Verdict::Ignore(Ignored::Foreign(difference));
        }
        if memory.sent > self.began || legacy.began > self.began {
            return Verdict::Ignore(Ignored::Damaged("it is from the future".to_owned()));
        }
        let age = self.began.since(memory.sent);
        if age >= memory.ttl {
            return Verdict::Ignore(Ignored::Stale { age, ttl: memory.ttl });
        }
        match self.part {
            Part::Observer => return Verdict::Release(Why::NeverLeads),
            Part::Candidate => {}
        }
        if memory.ttl < self.lease_ttl {
            return Verdict::Ignore(Ignored::SmallerTtl { recorded: memory.ttl, wanted: self.lease_ttl });
        }
        // `sent` is before `began` while a life has renewed nothing.
        if memory.sent.since(legacy.began) < memory.ttl {
            return Verdict::Release(Why::CrashLoop(memory.ttl));
        }
        Verdict::Resume
    }

    /// What is remembered of `legacy` before anything is sent: it is this life's now. So a life that dies before its
    /// first renewal counts as a short one, and does not seem to have lasted since the beginning of the one before.
    pub fn taken_over(&self, legacy: &Legacy) -> Legacy {
        Legacy {
            place: self.place.clone(),
            began: self.began,
            // Answers of the life before are out as well, and may be valid for longer than ours.
            memory: Memory { validity: self.answer_validity.max(legacy.memory.validity), ..legacy.memory.clone() },
        }
    }
}

impl Place {
    fn difference(&self, other: &Self) -> Option<Difference> {
        let Self { boot, lock, election, lock_key, identity, epoch } = other;
        let differs = [
            (self.boot != *boot, Difference::Boot),
            (self.lock != *lock, Difference::LockFile),
            (self.election != *election, Difference::Election),
            (self.lock_key != *lock_key, Difference::LockKey),
            (self.identity != *identity, Difference::Identity),
            (self.epoch != *epoch, Difference::Epoch),
        ];
        differs.into_iter().find_map(|(differs, difference)| differs.then_some(difference))
    }
}
