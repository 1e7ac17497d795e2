//! Each call: what it does, that doing it twice is safe, and how it is refused.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bellwether::election::{Body, CANDIDATES_LISTED, Call, CallErrorKind, CandidateKey, Identity, LeaseId, Revision};
use support::etcd::{EtcdOptions, EtcdServer};

use crate::harness::{Adapter, LEASE, LOCK, ME, TTL, quick, record, server};

fn my_candidate() -> String {
    format!("{LOCK}/candidates/{ME}")
}

#[tokio::test]
async fn a_probe_tells_the_version_and_who_answered() -> Result<()> {
    let server = server().await?;
    let answer = Adapter::of(&server)?.call(Call::Probe).await?;
    let Body::Probed { version, no_space } = answer.body else { bail!("{answer:?}") };
    ensure!(version.starts_with("3."), "{version}");
    ensure!(!no_space);
    ensure!(answer.header.cluster.0 != 0 && answer.header.member.0 != 0 && answer.header.raft_term.0 != 0);
    Ok(())
}

#[tokio::test]
async fn a_grant_may_be_repeated_and_tells_the_lifetime_of_the_first() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    let revision = server.put("/elsewhere", "x", 0).await?;
    for asked in [TTL, TTL * 2] {
        let answer = adapter.grant(LEASE, asked).await?;
        assert_eq!(answer.body, Body::Granted { ttl: TTL });
        assert_eq!(answer.header.revision, Revision(revision), "a grant writes no key, and its header is current");
    }
    Ok(())
}

#[tokio::test]
async fn the_lifetime_of_a_lease_is_what_etcd_gives_not_what_was_asked() -> Result<()> {
    let slow = EtcdOptions { election_timeout: Duration::from_secs(4), ..EtcdOptions::default() };
    let server = EtcdServer::start_with(slow).await?;
    let answer = Adapter::of(&server)?.grant(LEASE, Duration::from_secs(2)).await?;
    assert_eq!(answer.body, Body::Granted { ttl: Duration::from_secs(6) });
    Ok(())
}

#[tokio::test]
async fn a_claim_of_a_free_lock_wins_and_names_the_term() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    let (won, lock, header) = adapter.claim(LEASE).await?;
    ensure!(won);
    assert_eq!(lock.holder, Identity::new(ME));
    assert_eq!(lock.lease, Some(LEASE));
    assert_eq!((lock.create_revision, lock.mod_revision), (header.revision, header.revision));
    assert_eq!(adapter.lock().await?, Some(lock), "what was reported is what is stored");
    assert_eq!(server.get(LOCK).await?.as_deref(), Some(ME), "the value is the bare identity");
    let candidate = server.get_kv(&my_candidate()).await?;
    ensure!(candidate.is_some_and(|kv| kv.lease() == LEASE.0), "the record hangs on the same lease");
    Ok(())
}

#[tokio::test]
async fn a_claim_repeated_shows_that_this_lease_holds_the_lock_and_changes_nothing() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    let (_, first, _) = adapter.claim(LEASE).await?;
    let (won, again, _) = adapter.claim(LEASE).await?;
    ensure!(!won);
    assert_eq!(again, first);
    Ok(())
}

#[tokio::test]
async fn a_claim_of_a_held_lock_shows_the_holder() -> Result<()> {
    let server = server().await?;
    let (_, held, _) = Adapter::of(&server)?.claim(LEASE).await?;
    let (won, seen, _) = Adapter::named(&server, "web-1")?.claim(LeaseId(4712)).await?;
    ensure!(!won);
    assert_eq!(seen, held);
    Ok(())
}

#[tokio::test]
async fn a_lock_key_without_a_lease_has_none() -> Result<()> {
    let server = server().await?;
    server.put(LOCK, "by-hand", 0).await?;
    let (won, lock, _) = Adapter::of(&server)?.claim(LEASE).await?;
    ensure!(!won);
    assert_eq!((lock.holder, lock.lease), (Identity::new("by-hand"), None));
    Ok(())
}

#[tokio::test]
async fn claim_and_register_with_a_lease_that_is_gone_say_so() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    for call in [Call::Claim { lease: LEASE, record: record() }, Call::Register { lease: LEASE, record: record() }] {
        assert_eq!(adapter.refusal(call).await?.kind, CallErrorKind::LeaseNotFound);
    }
    assert_eq!(adapter.lock().await?, None);
    Ok(())
}

#[tokio::test]
async fn a_registration_is_there_once_and_shown_to_who_comes_second() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    adapter.grant(LEASE, TTL).await?;
    adapter.grant(LeaseId(4712), TTL).await?;
    let answer = adapter.call(Call::Register { lease: LEASE, record: record() }).await?;
    let mine = CandidateKey {
        identity: Identity::new(ME),
        lease: Some(LEASE),
        create_revision: answer.header.revision,
        record: Some(record()),
    };
    assert_eq!(answer.body, Body::Registered(mine.clone()));
    let twin = adapter.call(Call::Register { lease: LeaseId(4712), record: record() }).await?;
    assert_eq!(twin.body, Body::Registered(mine));
    Ok(())
}

#[tokio::test]
async fn an_unreadable_record_is_none_and_no_error() -> Result<()> {
    let server = server().await?;
    server.put(&my_candidate(), "{\"version\":99}", 0).await?;
    let mut adapter = Adapter::of(&server)?;
    adapter.grant(LEASE, TTL).await?;
    let answer = adapter.call(Call::Register { lease: LEASE, record: record() }).await?;
    let Body::Registered(candidate) = answer.body else { bail!("{answer:?}") };
    assert_eq!((candidate.record, candidate.lease), (None, None));
    Ok(())
}

#[tokio::test]
async fn guarded_deletes_spare_a_key_of_another_revision_or_lease() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    let (_, lock, _) = adapter.claim(LEASE).await?;
    let candidate = server.get_kv(&my_candidate()).await?.map_or(0, |kv| kv.create_revision());
    let other = Revision(lock.create_revision.0 - 1);
    let mine = lock.create_revision;
    for call in [
        Call::DeleteLock { create_revision: other, lease: LEASE },
        Call::DeleteLock { create_revision: mine, lease: LeaseId(LEASE.0 + 1) },
        Call::Unregister { create_revision: other },
    ] {
        assert_eq!(adapter.call(call).await?.body, Body::Gone);
    }
    assert_eq!(adapter.lock().await?, Some(lock.clone()));
    ensure!(server.get(&my_candidate()).await?.is_some());
    for call in [
        Call::DeleteLock { create_revision: mine, lease: LEASE },
        Call::Unregister { create_revision: Revision(candidate) },
    ] {
        for _ in 0..2 {
            assert_eq!(adapter.call(call.clone()).await?.body, Body::Gone);
        }
    }
    assert_eq!(adapter.lock().await?, None);
    assert_eq!(server.get(&my_candidate()).await?, None);
    Ok(())
}

#[tokio::test]
async fn a_revoked_lease_takes_its_keys_along_and_may_be_revoked_again() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    adapter.claim(LEASE).await?;
    let first = adapter.call(Call::Revoke { lease: LEASE }).await?;
    assert_eq!(first.body, Body::Gone);
    assert_eq!(adapter.lock().await?, None);
    let second = adapter.call(Call::Revoke { lease: LEASE }).await?;
    assert_eq!(second.body, Body::Gone);
    ensure!(second.header.revision >= first.header.revision && second.header.cluster == first.header.cluster);
    Ok(())
}

#[tokio::test]
async fn an_observation_lists_the_oldest_counts_all_and_names_the_two_just_ahead() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    let mut revisions = Vec::new();
    for place in 0..40 {
        // Names that sort the other way round than they registered.
        let name = format!("web-{:02}", 99 - place);
        revisions.push(server.put(&format!("{LOCK}/candidates/{name}"), "", 0).await?);
    }
    server.put(&format!("{LOCK}/candidatesX"), "not one of them", 0).await?;
    server.put(LOCK, "web-99", 0).await?;
    let answer = adapter.call(Call::Observe { before: Some(Revision(revisions[35])) }).await?;
    let Body::Observed { lock, candidates, candidates_total, ahead } = answer.body else { bail!("{answer:?}") };
    ensure!(lock.is_some_and(|lock| lock.holder == Identity::new("web-99")));
    assert_eq!((candidates.len(), candidates_total), (CANDIDATES_LISTED, 40));
    let listed: Vec<i64> = candidates.iter().map(|candidate| candidate.create_revision.0).collect();
    assert_eq!(listed, revisions[..CANDIDATES_LISTED]);
    assert_eq!(candidates[0].identity, Identity::new("web-99"));
    let ahead: Vec<i64> = ahead.iter().map(|candidate| candidate.create_revision.0).collect();
    assert_eq!(ahead, [revisions[34], revisions[33]]);
    Ok(())
}

#[tokio::test]
async fn an_observation_of_nothing_is_empty() -> Result<()> {
    let server = server().await?;
    let answer = Adapter::of(&server)?.call(Call::Observe { before: None }).await?;
    let nothing = Body::Observed { lock: None, candidates: Vec::new(), candidates_total: 0, ahead: Vec::new() };
    assert_eq!(answer.body, nothing);
    Ok(())
}

#[tokio::test]
async fn a_full_store_is_told_from_other_failures_and_shown_by_a_probe() -> Result<()> {
    let server = EtcdServer::start_with(EtcdOptions { quota_bytes: Some(200_000), ..quick() }).await?;
    let mut adapter = Adapter::of(&server)?;
    adapter.grant(LEASE, TTL).await?;
    let filler = "x".repeat(100_000);
    while server.put("/filler", &filler, 0).await.is_ok() {}
    let refused = adapter.refusal(Call::Claim { lease: LEASE, record: record() }).await?;
    assert_eq!(refused.kind, CallErrorKind::NoSpace, "{}", refused.message);
    let answer = adapter.call(Call::Probe).await?;
    ensure!(matches!(answer.body, Body::Probed { no_space: true, .. }), "{answer:?}");
    Ok(())
}
