//! Going on with the lease of an earlier process, and finding out that another does.

use anyhow::{Result, bail, ensure};
use bellwether::election::{
    Body, Call, CallErrorKind, CandidateKey, CandidateRecord, LeaseId, LockKey, Nonce, Revision,
};
use support::etcd::EtcdServer;

use crate::harness::{Adapter, LEASE, LOCK, ME, TTL, record, server};

const OTHER: LeaseId = LeaseId(4712);

fn of_process(nonce: u64) -> CandidateRecord {
    CandidateRecord { nonce: Some(Nonce(nonce)), ..record() }
}

fn candidate_key() -> String {
    format!("{LOCK}/candidates/{ME}")
}

/// A first process has claimed the lock.
async fn claimed(server: &EtcdServer) -> Result<(Adapter, LockKey)> {
    let mut adapter = Adapter::of(server)?;
    adapter.grant(LEASE, TTL).await?;
    let answer = adapter.call(Call::Claim { lease: LEASE, record: of_process(1) }).await?;
    let Body::Claimed { won: true, lock } = answer.body else { bail!("{answer:?}") };
    Ok((adapter, lock))
}

async fn resume(
    adapter: &mut Adapter,
    lease: LeaseId,
    token: Revision,
) -> Result<(Option<CandidateKey>, Option<LockKey>)> {
    let answer = adapter.call(Call::Resume { lease, token, record: of_process(2) }).await?;
    let Body::Resumed { candidate, lock } = answer.body else { bail!("{answer:?}") };
    Ok((candidate, lock))
}

async fn writer(adapter: &mut Adapter) -> Result<Option<Nonce>> {
    let answer = adapter.call(Call::Confirm).await?;
    let Body::Confirmed { writer, .. } = answer.body else { bail!("{answer:?}") };
    Ok(writer)
}

#[tokio::test]
async fn a_confirm_shows_the_lock_and_which_process_wrote_the_candidate_key() -> Result<()> {
    let server = server().await?;
    let (mut adapter, lock) = claimed(&server).await?;
    let answer = adapter.call(Call::Confirm).await?;
    assert_eq!(answer.body, Body::Confirmed { lock: Some(lock.clone()), writer: Some(Nonce(1)) });
    ensure!(answer.header.revision >= lock.mod_revision && answer.header.raft_term.0 > 0, "a header to compare with");
    server.put(&candidate_key(), "not a record", 0).await?;
    assert_eq!(writer(&mut adapter).await?, None, "somebody else's value says nothing");
    Ok(())
}

#[tokio::test]
async fn who_resumes_keeps_place_and_term_and_is_the_writer_from_then_on() -> Result<()> {
    let server = server().await?;
    let (mut adapter, lock) = claimed(&server).await?;
    let place = server.get_kv(&candidate_key()).await?.map(|kv| kv.create_revision());
    for _ in 0..2 {
        let (candidate, seen) = resume(&mut adapter, LEASE, lock.create_revision).await?;
        assert_eq!(seen, Some(lock.clone()), "the lock key is untouched");
        let candidate = candidate.ok_or_else(|| anyhow::anyhow!("the guards hold, also for a repetition"))?;
        assert_eq!(Some(candidate.create_revision.0), place);
        assert_eq!((candidate.lease, candidate.record), (Some(LEASE), Some(of_process(2))));
    }
    assert_eq!(writer(&mut adapter).await?, Some(Nonce(2)));
    Ok(())
}

#[tokio::test]
async fn nobody_resumes_a_term_that_is_over() -> Result<()> {
    let server = server().await?;
    let (mut adapter, lock) = claimed(&server).await?;
    server.delete(LOCK).await?;
    assert_eq!(resume(&mut adapter, LEASE, lock.create_revision).await?, (None, None));
    let (won, next, _) = Adapter::named(&server, "web-1")?.claim(OTHER).await?;
    ensure!(won);
    assert_eq!(resume(&mut adapter, LEASE, lock.create_revision).await?, (None, Some(next.clone())));
    assert_eq!(resume(&mut adapter, LEASE, next.create_revision).await?, (None, Some(next)));
    assert_eq!(writer(&mut adapter).await?, Some(Nonce(1)), "nothing was written");
    Ok(())
}

#[tokio::test]
async fn nobody_resumes_with_another_lease_or_over_the_candidate_key_of_another() -> Result<()> {
    let server = server().await?;
    let (mut adapter, lock) = claimed(&server).await?;
    adapter.grant(OTHER, TTL).await?;
    assert_eq!(resume(&mut adapter, OTHER, lock.create_revision).await?, (None, Some(lock.clone())));
    server.put(&candidate_key(), "a twin's", OTHER.0).await?;
    assert_eq!(resume(&mut adapter, LEASE, lock.create_revision).await?, (None, Some(lock)));
    assert_eq!(server.get(&candidate_key()).await?.as_deref(), Some("a twin's"));
    Ok(())
}

#[tokio::test]
async fn a_resume_after_the_lease_has_ended_changes_nothing() -> Result<()> {
    let server = server().await?;
    let (mut adapter, lock) = claimed(&server).await?;
    adapter.call(Call::Revoke { lease: LEASE }).await?;
    match adapter.try_call(Call::Resume { lease: LEASE, token: lock.create_revision, record: of_process(2) }).await? {
        Ok(answer) => assert_eq!(answer.body, Body::Resumed { candidate: None, lock: None }),
        Err(error) => assert_eq!(error.kind, CallErrorKind::LeaseNotFound),
    }
    assert_eq!(server.get(&candidate_key()).await?, None);
    Ok(())
}
