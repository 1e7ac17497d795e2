//! The state machine: keys with their revisions, leases, the history of changes, the space alarm.
//!
//! It has no clock: when a lease expires is the lessor's business, and reaches the store as a revoke like any other.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bellwether::election::{
    Body, CANDIDATES_LISTED, CandidateKey, CandidateRecord, Change, Identity, LeaseId, LockKey, Revision, WatchTarget,
};

use super::Behaviour;

/// What the log carries.
#[derive(Clone, Debug)]
pub(super) enum Command {
    /// The first entry of a new etcd leader.
    Noop,
    Grant {
        lease: LeaseId,
        ttl: Duration,
    },
    /// `stale`: queued by a server that led no more when it was sent.
    Revoke {
        lease: LeaseId,
        stale: bool,
    },
    Register {
        identity: Identity,
        lease: LeaseId,
        record: CandidateRecord,
    },
    Unregister {
        identity: Identity,
        create_revision: Revision,
    },
    Claim {
        identity: Identity,
        lease: LeaseId,
        record: CandidateRecord,
    },
    Resume {
        identity: Identity,
        lease: LeaseId,
        token: Revision,
        record: CandidateRecord,
    },
    DeleteLock {
        create_revision: Revision,
        lease: LeaseId,
    },
    /// By an operator, as are those below.
    PutLock {
        holder: Identity,
        lease: Option<LeaseId>,
    },
    DropLock,
    DropCandidate {
        identity: Identity,
    },
    PutElsewhere,
    Compact {
        revision: Revision,
    },
    /// The space alarm, raised or lowered.
    Alarm {
        raised: bool,
    },
}

impl Command {
    /// Whether the server counts it against its quota: grants, and transactions with a put in any branch.
    pub(super) const fn takes_space(&self) -> bool {
        match self {
            Self::Grant { .. }
            | Self::Register { .. }
            | Self::Claim { .. }
            | Self::Resume { .. }
            | Self::PutLock { .. }
            | Self::PutElsewhere => true,
            Self::Noop
            | Self::Revoke { .. }
            | Self::Unregister { .. }
            | Self::DeleteLock { .. }
            | Self::DropLock
            | Self::DropCandidate { .. }
            | Self::Compact { .. }
            | Self::Alarm { .. } => false,
        }
    }
}

/// Why a command was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    LeaseNotFound,
    LeaseExists,
    NoSpace,
    /// A compaction of what has been compacted, or is yet to come.
    NotToCompact,
}

/// A change and its revision, which a [`Change`] of a candidate key does not carry.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    pub(super) revision: Revision,
    pub(super) target: WatchTarget,
    pub(super) change: Change,
}

/// One copy of the data.
#[derive(Clone, Debug)]
pub(super) struct Store {
    behaviour: Behaviour,
    lease_ttl_min: Duration,
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    pub(super) no_space: bool,
    pub(super) leases: BTreeMap<LeaseId, Duration>,
    pub(super) lock: Option<LockKey>,
    pub(super) candidates: BTreeMap<Identity, CandidateKey>,
    history: VecDeque<Recorded>,
}

impl Store {
    pub(super) const fn new(behaviour: Behaviour, lease_ttl_min: Duration) -> Self {
        Self {
            behaviour,
            lease_ttl_min,
            revision: Revision(1),
            compacted: Revision(0),
            no_space: false,
            leases: BTreeMap::new(),
            lock: None,
            candidates: BTreeMap::new(),
            history: VecDeque::new(),
        }
    }

    /// Carries out one entry of the log.
    pub(super) fn apply(&mut self, command: &Command) -> Result<Body, Refusal> {
        if self.no_space && command.takes_space() {
            return Err(Refusal::NoSpace);
        }
        match command {
            Command::Noop => {}
            Command::Grant { lease, ttl } => return self.grant(*lease, *ttl),
            Command::Revoke { lease, stale: _ } => self.revoke(*lease)?,
            Command::Register { identity, lease, record } => return self.register(identity, *lease, record),
            Command::Claim { identity, lease, record } => return self.claim(identity, *lease, record),
            Command::Resume { identity, lease, token, record } => return self.resume(identity, *lease, *token, record),
            Command::Unregister { identity, create_revision } => {
                if self.candidates.get(identity).is_some_and(|key| key.create_revision == *create_revision) {
                    self.drop_candidate(identity);
                }
            }
            Command::DeleteLock { create_revision, lease } => {
                let guarded = |lock: &LockKey| lock.create_revision == *create_revision && lock.lease == Some(*lease);
                if self.lock.as_ref().is_some_and(guarded) {
                    self.drop_lock();
                }
            }
            Command::PutLock { holder, lease } => self.operator_puts_lock(holder, *lease)?,
            Command::DropLock => self.drop_lock(),
            Command::DropCandidate { identity } => self.drop_candidate(identity),
            Command::PutElsewhere => self.bump(),
            Command::Compact { revision } => self.compact(*revision)?,
            Command::Alarm { raised } => self.no_space = *raised,
        }
        Ok(Body::Gone)
    }

    /// The changes of a key from a revision on.
    pub(super) fn changes(&self, target: &WatchTarget, from: Revision) -> Vec<Recorded> {
        let first = self.history.partition_point(|recorded| recorded.revision < from);
        self.history.range(first..).filter(|recorded| recorded.target == *target).cloned().collect()
    }

    /// What an observation reads.
    pub(super) fn observe(&self, before: Option<Revision>) -> Body {
        let mut candidates: Vec<CandidateKey> = self.candidates.values().cloned().collect();
        candidates.sort_by_key(|key| key.create_revision);
        let ahead = before.map_or_else(Vec::new, |before| {
            // The newest that it may have; 0 would be no bound.
            let newest = if before.0 > 1 { before.0 - 1 } else { i64::MAX };
            candidates.iter().rev().filter(|key| key.create_revision.0 <= newest).take(2).cloned().collect()
        });
        let candidates_total = u64::try_from(candidates.len()).expect("no more candidates than that");
        candidates.truncate(CANDIDATES_LISTED);
        Body::Observed { lock: self.lock.clone(), candidates, candidates_total, ahead }
    }

    fn bump(&mut self) {
        self.revision.0 += 1;
    }

    fn grant(&mut self, lease: LeaseId, ttl: Duration) -> Result<Body, Refusal> {
        if self.leases.contains_key(&lease) {
            return Err(Refusal::LeaseExists);
        }
        let ttl = ttl.max(self.lease_ttl_min);
        self.leases.insert(lease, ttl);
        Ok(Body::Granted { ttl })
    }

    /// Everything attached goes in one revision, in the order of the keys: the lock key's name is the shorter one.
    fn revoke(&mut self, lease: LeaseId) -> Result<(), Refusal> {
        self.leases.remove(&lease).ok_or(Refusal::LeaseNotFound)?;
        let holds_lock = self.lock.as_ref().is_some_and(|lock| lock.lease == Some(lease));
        let attached = self.candidates.values().filter(|key| key.lease == Some(lease));
        let candidates: Vec<Identity> = attached.map(|key| key.identity.clone()).collect();
        if holds_lock || !candidates.is_empty() {
            self.bump();
        }
        if holds_lock {
            self.lock = None;
            self.record(WatchTarget::Lock, Change::Deleted(self.revision));
        }
        for identity in candidates {
            self.candidates.remove(&identity);
            self.record(WatchTarget::Candidate(identity), Change::Deleted(self.revision));
        }
        Ok(())
    }

    fn register(&mut self, me: &Identity, lease: LeaseId, record: &CandidateRecord) -> Result<Body, Refusal> {
        if let Some(key) = self.candidates.get(me) {
            return Ok(Body::Registered(key.clone()));
        }
        self.require(lease)?;
        self.bump();
        Ok(Body::Registered(self.put_candidate(me, lease, record)))
    }

    fn claim(&mut self, me: &Identity, lease: LeaseId, record: &CandidateRecord) -> Result<Body, Refusal> {
        if let Some(lock) = &self.lock {
            return Ok(Body::Claimed { won: false, lock: lock.clone() });
        }
        self.require(lease)?;
        self.bump();
        let lock = LockKey {
            holder: me.clone(),
            lease: Some(lease),
            create_revision: self.revision,
            mod_revision: self.revision,
        };
        self.put_lock(lock.clone());
        self.put_candidate(me, lease, record);
        Ok(Body::Claimed { won: true, lock })
    }

    fn resume(
        &mut self,
        me: &Identity,
        lease: LeaseId,
        token: Revision,
        record: &CandidateRecord,
    ) -> Result<Body, Refusal> {
        let locked = |lock: &LockKey| lock.create_revision == token && lock.lease == Some(lease);
        let registered = self.candidates.get(me).is_some_and(|key| key.lease == Some(lease));
        let candidate = if self.lock.as_ref().is_some_and(locked) && registered {
            self.require(lease)?;
            self.bump();
            Some(self.put_candidate(me, lease, record))
        } else {
            None
        };
        Ok(Body::Resumed { candidate, lock: self.lock.clone() })
    }

    /// What a confirm reads.
    pub(super) fn lock_and_writer(&self, me: &Identity) -> Body {
        let record = self.candidates.get(me).and_then(|key| key.record.as_ref());
        Body::Confirmed { lock: self.lock.clone(), writer: record.and_then(|record| record.nonce) }
    }

    /// Only the branch that is taken needs the lease.
    fn require(&self, lease: LeaseId) -> Result<(), Refusal> {
        if self.leases.contains_key(&lease) { Ok(()) } else { Err(Refusal::LeaseNotFound) }
    }

    /// Over a key that is there it keeps the `create_revision`, and takes it off its lease.
    fn operator_puts_lock(&mut self, holder: &Identity, lease: Option<LeaseId>) -> Result<(), Refusal> {
        if let Some(lease) = lease {
            self.require(lease)?;
        }
        self.bump();
        let create_revision = self.lock.as_ref().map_or(self.revision, |lock| lock.create_revision);
        self.put_lock(LockKey { holder: holder.clone(), lease, create_revision, mod_revision: self.revision });
        Ok(())
    }

    fn put_lock(&mut self, lock: LockKey) {
        self.lock = Some(lock.clone());
        self.record(WatchTarget::Lock, Change::LockPut(lock));
    }

    fn put_candidate(&mut self, me: &Identity, lease: LeaseId, record: &CandidateRecord) -> CandidateKey {
        let create_revision = self.candidates.get(me).map_or(self.revision, |key| key.create_revision);
        let key =
            CandidateKey { identity: me.clone(), lease: Some(lease), create_revision, record: Some(record.clone()) };
        self.candidates.insert(me.clone(), key.clone());
        self.record(WatchTarget::Candidate(me.clone()), Change::CandidatePut(key.clone()));
        key
    }

    fn drop_lock(&mut self) {
        if self.lock.take().is_some() {
            self.bump();
            self.record(WatchTarget::Lock, Change::Deleted(self.revision));
        }
    }

    fn drop_candidate(&mut self, identity: &Identity) {
        if self.candidates.remove(identity).is_some() {
            self.bump();
            self.record(WatchTarget::Candidate(identity.clone()), Change::Deleted(self.revision));
        }
    }

    fn record(&mut self, target: WatchTarget, change: Change) {
        self.history.push_back(Recorded { revision: self.revision, target, change });
    }

    /// Forgets what was before. Old servers forget a deletion at the very revision as well, so that a watch from there
    /// does not hear of it.
    fn compact(&mut self, revision: Revision) -> Result<(), Refusal> {
        if revision <= self.compacted || revision > self.revision {
            return Err(Refusal::NotToCompact);
        }
        self.compacted = revision;
        let keeps_deletion = self.behaviour == Behaviour::Current;
        self.history.retain(|recorded| {
            let is_deletion = matches!(recorded.change, Change::Deleted(_));
            recorded.revision > revision || recorded.revision == revision && (keeps_deletion || !is_deletion)
        });
        Ok(())
    }
}
