//! What was said, so that two etcds' words can be laid side by side.
//!
//! Revisions are told from a base that the story sets, raft terms as the same as before or later, members by number: what
//! differs from one cluster to the next by nature, and nothing else.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use bellwether::election::{
    Answer, Body, Call, CallError, CallErrorKind, CandidateKey, CandidateRecord, Change, Epoch, Header, LeaseId,
    LockKey, Nonce, Revision, WallTime, WatchTarget,
};

use crate::party::{Heard, Party, Sent};

/// Longer than anything takes that is answered.
pub const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
pub struct Tale {
    pub lines: Vec<String>,
    base: i64,
    raft_term: u64,
}

impl Tale {
    /// From here on revisions count from the store's revision now.
    pub async fn begins(&mut self, etcd: &mut impl Party, member: usize) -> Result<Revision> {
        let answer = ask(etcd, "web-0", member, Call::Confirm).await?.map_err(|error| anyhow!("{error:?}"))?;
        self.base = answer.header.revision.0;
        self.raft_term = answer.header.raft_term.0;
        Ok(answer.header.revision)
    }

    /// # Errors
    /// When this one, which a model told, differs from that of a real etcd: with both.
    pub fn agrees(&self, truth: &Self, real: &str, seed: u64) -> Result<()> {
        let (said, true_words) = (self.lines.join("\n  "), truth.lines.join("\n  "));
        ensure!(said == true_words, "{real} says\n  {true_words}\nand the model, with seed {seed},\n  {said}");
        Ok(())
    }

    pub fn notes(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Makes a call and writes down what came of it.
    pub async fn asks(
        &mut self,
        etcd: &mut impl Party,
        who: &'static str,
        member: usize,
        call: Call,
    ) -> Result<Result<Answer, CallError>> {
        let operation = call.operation().as_str();
        let result = ask(etcd, who, member, call).await?;
        let words = self.outcome(&result);
        self.notes(format!("{who} {operation}: {words}"));
        Ok(result)
    }

    pub async fn keeps_alive(&mut self, etcd: &mut impl Party, member: usize, lease: LeaseId) -> Result<()> {
        let words = match etcd.keep_alive(member, PATIENCE, lease).await? {
            Ok((header, seconds)) => format!("{seconds} s, {}", self.header(&header)),
            Err(error) => self.error(&error),
        };
        self.notes(format!("keep-alive of {lease}: {words}"));
        Ok(())
    }

    /// Writes down what the watch reports, until it has been quiet for so long, or is over.
    pub async fn listens(&mut self, etcd: &mut impl Party, watch: Sent, quiet: Duration) -> Result<()> {
        while let Some(heard) = etcd.heard(watch, quiet).await? {
            let words = self.heard(&heard)?;
            self.notes(format!("watch: {words}"));
            if matches!(heard, Heard::Ended(_)) {
                break;
            }
        }
        Ok(())
    }

    /// Starts a watch, and writes down its acknowledgement: what is changed from then on is changed after it.
    pub async fn watches(
        &mut self,
        etcd: &mut impl Party,
        who: &'static str,
        member: usize,
        target: WatchTarget,
        from: Revision,
    ) -> Result<Sent> {
        let watch = etcd.watch(who, member, target, from).await?;
        let first = etcd.heard(watch, PATIENCE).await?.ok_or_else(|| anyhow!("the watch is not acknowledged"))?;
        let words = self.heard(&first)?;
        self.notes(format!("watch: {words}"));
        Ok(watch)
    }

    /// The lock key, as `web-0` watches it.
    pub async fn watches_lock(&mut self, etcd: &mut impl Party, member: usize, from: Revision) -> Result<Sent> {
        self.watches(etcd, "web-0", member, WatchTarget::Lock, from).await
    }

    pub fn heard(&mut self, heard: &Heard) -> Result<String> {
        Ok(match heard {
            Heard::Created(header) => format!("created, {}", self.header(header)),
            Heard::Changed(header, change) => {
                ensure!(header.revision >= change.revision(), "a change from the future: {heard:?}");
                self.change(change)
            }
            Heard::Ended(error) => format!("over: {}", self.error(error)),
        })
    }

    pub fn revision(&self, revision: Revision) -> String {
        format!("r{:+}", revision.0 - self.base)
    }

    fn header(&mut self, header: &Header) -> String {
        let term = match header.raft_term.0.cmp(&self.raft_term) {
            std::cmp::Ordering::Less => "an earlier raft term",
            std::cmp::Ordering::Equal => "same raft term",
            std::cmp::Ordering::Greater => "a later raft term",
        };
        self.raft_term = header.raft_term.0;
        format!("at {}, {term}", self.revision(header.revision))
    }

    pub fn outcome(&mut self, result: &Result<Answer, CallError>) -> String {
        match result {
            Ok(answer) => {
                let body = self.body(&answer.body);
                format!("{body}, {}", self.header(&answer.header))
            }
            Err(error) => self.error(error),
        }
    }

    fn error(&self, error: &CallError) -> String {
        match error.kind {
            // The words tell a revision.
            CallErrorKind::Compacted => {
                let number = error.message.split(' ').find_map(|word| word.parse::<i64>().ok());
                let revision = number.map(|number| self.revision(Revision(number)));
                format!("compacted up to {}", revision.unwrap_or_default())
            }
            kind => kind.as_str().to_owned(),
        }
    }

    fn body(&self, body: &Body) -> String {
        match body {
            Body::Probed { version: _, no_space } => format!("here, out of space {no_space}"),
            Body::Granted { ttl } => format!("granted {ttl:?}"),
            Body::Observed { lock, candidates, candidates_total, ahead } => {
                let list = |keys: &[CandidateKey]| keys.iter().map(|key| self.candidate(key)).collect::<Vec<_>>();
                let lock = lock.as_ref().map(|lock| self.lock(lock));
                format!("{lock:?}, {candidates_total}: {:?}, ahead {:?}", list(candidates), list(ahead))
            }
            Body::Registered(key) => format!("registered {}", self.candidate(key)),
            Body::Claimed { won, lock } => format!("won {won}: {}", self.lock(lock)),
            Body::Resumed { candidate, lock } => {
                let candidate = candidate.as_ref().map(|key| self.candidate(key));
                format!("resumed {candidate:?}: {:?}", lock.as_ref().map(|lock| self.lock(lock)))
            }
            Body::Confirmed { lock, writer } => {
                let lock = lock.as_ref().map_or_else(|| "free".to_owned(), |lock| self.lock(lock));
                format!("{lock}, written by {writer:?}")
            }
            Body::Gone => "gone".to_owned(),
        }
    }

    fn lock(&self, lock: &LockKey) -> String {
        let (created, put) = (self.revision(lock.create_revision), self.revision(lock.mod_revision));
        format!("lock of {} with {:?} from {created}/{put}", lock.holder, lock.lease.map(|lease| lease.0))
    }

    fn candidate(&self, key: &CandidateKey) -> String {
        let record = key.record.as_ref().map(|record| (record.epoch.0, record.leading_since.is_some()));
        let created = self.revision(key.create_revision);
        format!("{} with {:?} from {created} {record:?}", key.identity, key.lease.map(|lease| lease.0))
    }

    fn change(&self, change: &Change) -> String {
        match change {
            Change::LockPut(lock) => format!("put: {}", self.lock(lock)),
            Change::CandidatePut(key) => format!("put: {}", self.candidate(key)),
            Change::Deleted(revision) => format!("deleted at {}", self.revision(*revision)),
        }
    }
}

/// Makes a call.
pub async fn ask(
    etcd: &mut impl Party,
    who: &'static str,
    member: usize,
    call: Call,
) -> Result<Result<Answer, CallError>> {
    let sent = etcd.send(who, member, PATIENCE, call).await?;
    etcd.outcome(sent).await
}

/// Makes a call that must be granted.
pub async fn must(etcd: &mut impl Party, who: &'static str, member: usize, call: Call) -> Result<Answer> {
    let operation = call.operation().as_str();
    ask(etcd, who, member, call).await?.map_err(|error| anyhow!("{operation}: {error:?}"))
}

pub fn grant(lease: LeaseId, seconds: u64) -> Call {
    Call::Grant { lease, ttl: Duration::from_secs(seconds) }
}

pub fn claim(lease: LeaseId) -> Call {
    Call::Claim { lease, record: record(true) }
}

/// By another process of the candidate.
pub fn resume(lease: LeaseId, token: Revision) -> Call {
    Call::Resume { lease, token, record: CandidateRecord { nonce: Some(Nonce(7)), ..record(true) } }
}

pub fn register(lease: LeaseId) -> Call {
    Call::Register { lease, record: record(false) }
}

fn record(leads: bool) -> CandidateRecord {
    let at = WallTime::from_unix_nanos(1_000_000_000);
    CandidateRecord { epoch: Epoch(2), registered_at: at, leading_since: leads.then_some(at), nonce: Some(Nonce(6)) }
}
