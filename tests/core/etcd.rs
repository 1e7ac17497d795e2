//! What etcd promises of one lock, in one linearizable store with leases: the other side of every test here.

use std::collections::BTreeMap;
use std::time::Duration;

use bellwether::election::{
    Answer, Body, CANDIDATES_LISTED, Call, CallError, CallErrorKind, CandidateKey, CandidateRecord, Change, ClusterId,
    EndpointId, Header, Identity, LeaseId, LockKey, MemberId, RaftTerm, Revision, WatchTarget,
};

/// etcd's own extension of every lease when a new etcd leader takes over: its election timeout.
pub const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// The store. Its clock is handed in, in nanoseconds, like everybody's here.
#[derive(Clone)]
pub struct Etcd {
    pub cluster: ClusterId,
    pub raft_term: u64,
    revision: i64,
    leases: BTreeMap<LeaseId, Granted>,
    lock: Option<LockKey>,
    candidates: BTreeMap<Identity, CandidateKey>,
    log: Vec<(WatchTarget, Change)>,
}

#[derive(Clone, Copy)]
struct Granted {
    ttl: Duration,
    expires: u64,
}

impl Etcd {
    pub fn new() -> Self {
        Self {
            cluster: ClusterId(7),
            raft_term: 2,
            revision: 100,
            leases: BTreeMap::new(),
            lock: None,
            candidates: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    pub fn header(&self, endpoint: EndpointId) -> Header {
        Header {
            cluster: self.cluster,
            member: MemberId(1 + endpoint.0 as u64),
            revision: Revision(self.revision),
            raft_term: RaftTerm(self.raft_term),
        }
    }

    pub fn lock(&self) -> Option<&LockKey> {
        self.lock.as_ref()
    }

    pub fn candidate(&self, identity: &Identity) -> Option<&CandidateKey> {
        self.candidates.get(identity)
    }

    pub fn has_lease(&self, lease: LeaseId) -> bool {
        self.leases.contains_key(&lease)
    }

    /// Applies one call of `me` and answers it.
    pub fn call(&mut self, now: u64, me: &Identity, endpoint: EndpointId, call: &Call) -> Result<Answer, CallError> {
        self.expire(now);
        let body = match call {
            Call::Probe => Body::Probed { version: "3.5.28".into(), no_space: false },
            Call::Grant { lease, ttl } => {
                self.grant(now, *lease, *ttl);
                Body::Granted { ttl: *ttl }
            }
            Call::Observe { before } => self.observe(*before),
            Call::Register { lease, record } => Body::Registered(self.register(me, *lease, record)?),
            Call::Unregister { create_revision } => {
                if self.candidates.get(me).is_some_and(|key| key.create_revision == *create_revision) {
                    self.revision += 1;
                    self.delete_candidate(me);
                }
                Body::Gone
            }
            Call::Claim { lease, record } => self.claim(me, *lease, record)?,
            Call::Resume { lease, token, record } => self.resume(me, *lease, *token, record)?,
            Call::Confirm => {
                let record = self.candidates.get(me).and_then(|key| key.record.as_ref());
                Body::Confirmed { lock: self.lock.clone(), writer: record.and_then(|record| record.nonce) }
            }
            Call::DeleteLock { create_revision, lease } => {
                let guarded = |lock: &LockKey| lock.create_revision == *create_revision && lock.lease == Some(*lease);
                if self.lock.as_ref().is_some_and(guarded) {
                    self.operator_deletes_lock();
                }
                Body::Gone
            }
            Call::Revoke { lease } => {
                self.revoke(*lease);
                Body::Gone
            }
        };
        Ok(Answer { header: self.header(endpoint), body })
    }

    /// The TTL in the answer to a keep-alive: 0 when the lease is not there.
    pub fn keep_alive(&mut self, now: u64, lease: LeaseId) -> i64 {
        self.expire(now);
        self.leases.get_mut(&lease).map_or(0, |granted| {
            granted.expires = now + nanos(granted.ttl);
            seconds(granted.ttl)
        })
    }

    pub fn grant(&mut self, now: u64, lease: LeaseId, ttl: Duration) {
        self.leases.entry(lease).or_insert(Granted { ttl, expires: now + nanos(ttl) });
    }

    /// Removes what has expired by `now`.
    pub fn expire(&mut self, now: u64) {
        let expired: Vec<LeaseId> =
            self.leases.iter().filter(|(_, granted)| granted.expires <= now).map(|(id, _)| *id).collect();
        for lease in expired {
            self.revoke(lease);
        }
    }

    /// Down from now on, as to the clocks of its leases: they do not run.
    pub fn stop_expiring(&mut self) {
        for granted in self.leases.values_mut() {
            granted.expires = u64::MAX;
        }
    }

    pub fn revoke(&mut self, lease: LeaseId) {
        if self.leases.remove(&lease).is_none() {
            return;
        }
        let candidates: Vec<Identity> =
            self.candidates.values().filter(|key| key.lease == Some(lease)).map(|key| key.identity.clone()).collect();
        let holds_lock = self.lock.as_ref().is_some_and(|lock| lock.lease == Some(lease));
        if holds_lock || !candidates.is_empty() {
            self.revision += 1;
        }
        if holds_lock {
            self.lock = None;
            self.log.push((WatchTarget::Lock, Change::Deleted(Revision(self.revision))));
        }
        for identity in candidates {
            self.delete_candidate(&identity);
        }
    }

    /// A new etcd leader: a higher raft term, and every lease starts anew.
    pub fn elects_a_leader(&mut self, now: u64) {
        self.raft_term += 1;
        for granted in self.leases.values_mut() {
            granted.expires = now + nanos(granted.ttl + ELECTION_TIMEOUT);
        }
    }

    /// Other keys are written: the revision grows.
    pub fn is_busy(&mut self) {
        self.revision += 1;
    }

    /// Everything is gone, the cluster's id stays: restored or wiped.
    pub fn is_wiped(&mut self) {
        *self = Self { cluster: self.cluster, revision: 1, ..Self::new() };
    }

    /// The lock key is as it was in a backup; no watch tells of it.
    pub fn restores_lock(&mut self, lock: LockKey) {
        self.lock = Some(lock);
    }

    pub fn operator_deletes_lock(&mut self) {
        if self.lock.take().is_some() {
            self.revision += 1;
            self.log.push((WatchTarget::Lock, Change::Deleted(Revision(self.revision))));
        }
    }

    pub fn operator_deletes_candidate(&mut self, identity: &Identity) {
        if self.candidates.contains_key(identity) {
            self.revision += 1;
            self.delete_candidate(identity);
        }
    }

    /// `etcdctl put`: over a key that is there it keeps the `create_revision`.
    pub fn somebody_puts_lock(&mut self, holder: &str, lease: Option<LeaseId>) {
        self.revision += 1;
        let revision = Revision(self.revision);
        let create_revision = self.lock.as_ref().map_or(revision, |lock| lock.create_revision);
        self.put_lock(LockKey { holder: Identity::new(holder), lease, create_revision, mod_revision: revision });
    }

    /// What a watch from `from` on reports.
    pub fn changes(&self, target: &WatchTarget, from: Revision) -> Vec<Change> {
        let wanted = |(changed, change): &&(WatchTarget, Change)| changed == target && change.revision() >= from;
        self.log.iter().filter(wanted).map(|(_, change)| change.clone()).collect()
    }

    fn observe(&self, before: Option<Revision>) -> Body {
        let mut candidates: Vec<CandidateKey> = self.candidates.values().cloned().collect();
        candidates.sort_by_key(|key| key.create_revision);
        let ahead = before.map_or_else(Vec::new, |before| {
            candidates.iter().rev().filter(|key| key.create_revision < before).take(2).cloned().collect()
        });
        let candidates_total = candidates.len() as u64;
        candidates.truncate(CANDIDATES_LISTED);
        Body::Observed { lock: self.lock.clone(), candidates, candidates_total, ahead }
    }

    fn register(&mut self, me: &Identity, lease: LeaseId, record: &CandidateRecord) -> Result<CandidateKey, CallError> {
        if let Some(key) = self.candidates.get(me) {
            return Ok(key.clone());
        }
        self.require(lease)?;
        self.revision += 1;
        Ok(self.put_candidate(me, lease, record))
    }

    fn claim(&mut self, me: &Identity, lease: LeaseId, record: &CandidateRecord) -> Result<Body, CallError> {
        if let Some(lock) = &self.lock {
            return Ok(Body::Claimed { won: false, lock: lock.clone() });
        }
        self.require(lease)?;
        self.revision += 1;
        let revision = Revision(self.revision);
        let lock =
            LockKey { holder: me.clone(), lease: Some(lease), create_revision: revision, mod_revision: revision };
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
    ) -> Result<Body, CallError> {
        let locked = |lock: &LockKey| lock.create_revision == token && lock.lease == Some(lease);
        let registered = self.candidates.get(me).is_some_and(|key| key.lease == Some(lease));
        let candidate = if self.lock.as_ref().is_some_and(locked) && registered {
            self.require(lease)?;
            self.revision += 1;
            Some(self.put_candidate(me, lease, record))
        } else {
            None
        };
        Ok(Body::Resumed { candidate, lock: self.lock.clone() })
    }

    fn require(&self, lease: LeaseId) -> Result<(), CallError> {
        if self.has_lease(lease) { Ok(()) } else { Err(error(CallErrorKind::LeaseNotFound)) }
    }

    fn put_lock(&mut self, lock: LockKey) {
        self.lock = Some(lock.clone());
        self.log.push((WatchTarget::Lock, Change::LockPut(lock)));
    }

    fn put_candidate(&mut self, me: &Identity, lease: LeaseId, record: &CandidateRecord) -> CandidateKey {
        let create_revision = self.candidates.get(me).map_or(Revision(self.revision), |key| key.create_revision);
        let key =
            CandidateKey { identity: me.clone(), lease: Some(lease), create_revision, record: Some(record.clone()) };
        self.candidates.insert(me.clone(), key.clone());
        self.log.push((WatchTarget::Candidate(me.clone()), Change::CandidatePut(key.clone())));
        key
    }

    fn delete_candidate(&mut self, identity: &Identity) {
        self.candidates.remove(identity);
        let change = Change::Deleted(Revision(self.revision));
        self.log.push((WatchTarget::Candidate(identity.clone()), change));
    }
}

pub fn error(kind: CallErrorKind) -> CallError {
    CallError { kind, message: kind.as_str().into() }
}

pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("tests do not last 584 years")
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).expect("tests do not last that long")
}
