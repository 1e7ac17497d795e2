//! Watches: acknowledged, every change once and in order, one end.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bellwether::election::{CallErrorKind, Change, Event, Identity, LeaseId, Revision, WatchId, WatchTarget};

use crate::harness::{Adapter, LEASE, LOCK, TTL, eventually, metric, record, server};

const QUIET: Duration = Duration::from_millis(300);

async fn change(adapter: &mut Adapter, wanted: u64) -> Result<Change> {
    match adapter.event().await? {
        Event::WatchChanged { watch, header, change } if watch == WatchId(wanted) => {
            ensure!(header.revision >= change.revision());
            Ok(change)
        }
        other => bail!("expected a change on watch {wanted}, got {other:?}"),
    }
}

#[tokio::test]
async fn the_lock_key_s_changes_are_reported_in_order() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    adapter.watch(1, WatchTarget::Lock, 1);
    adapter.watch_created(1).await?;
    let created = server.put(LOCK, "web-1", 0).await?;
    let again = server.put(LOCK, "by-hand", 0).await?;
    let deleted = server.delete(LOCK).await?;
    let Change::LockPut(first) = change(&mut adapter, 1).await? else { bail!("no put") };
    assert_eq!(first.holder, Identity::new("web-1"));
    assert_eq!((first.create_revision, first.mod_revision), (Revision(created), Revision(created)));
    let Change::LockPut(second) = change(&mut adapter, 1).await? else { bail!("no second put") };
    assert_eq!(second.holder, Identity::new("by-hand"));
    assert_eq!((second.create_revision, second.mod_revision), (Revision(created), Revision(again)));
    assert_eq!(change(&mut adapter, 1).await?, Change::Deleted(Revision(deleted)));
    adapter.silence(QUIET).await
}

#[tokio::test]
async fn a_watch_from_the_past_catches_up() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    server.put(LOCK, "web-1", 0).await?;
    let second = server.put(LOCK, "web-2", 0).await?;
    let deleted = server.delete(LOCK).await?;
    adapter.watch(1, WatchTarget::Lock, second);
    adapter.watch_created(1).await?;
    assert_eq!(change(&mut adapter, 1).await?.revision(), Revision(second));
    assert_eq!(change(&mut adapter, 1).await?, Change::Deleted(Revision(deleted)));
    Ok(())
}

#[tokio::test]
async fn a_candidate_s_watch_sees_that_candidate_only() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::named(&server, "web-1")?;
    adapter.watch(1, WatchTarget::Candidate(Identity::new("web-1")), 1);
    adapter.watch_created(1).await?;
    server.put(LOCK, "web-9", 0).await?;
    server.put(&format!("{LOCK}/candidates/web-10"), "", 0).await?;
    adapter.grant(LEASE, TTL).await?;
    let id = adapter.send(0, TTL, bellwether::election::Call::Register { lease: LEASE, record: record() });
    let registered = loop {
        match adapter.event().await? {
            Event::WatchChanged { change: Change::CandidatePut(candidate), .. } => break candidate,
            Event::Answered { id: answered, .. } if answered == id => {}
            other => bail!("{other:?}"),
        }
    };
    assert_eq!((registered.identity, registered.record), (Identity::new("web-1"), Some(record())));
    server.revoke(LEASE.0).await?;
    loop {
        match adapter.event().await? {
            Event::WatchChanged { change: Change::Deleted(_), .. } => return Ok(()),
            Event::Answered { id: answered, .. } if answered == id => {}
            other => bail!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn an_expired_lease_shows_as_a_deletion() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    adapter.grant(LeaseId(1), Duration::from_secs(1)).await?;
    let put = server.put(LOCK, "web-1", 1).await?;
    adapter.watch(1, WatchTarget::Lock, put + 1);
    adapter.watch_created(1).await?;
    ensure!(matches!(change(&mut adapter, 1).await?, Change::Deleted(Revision(at)) if at > put));
    Ok(())
}

#[tokio::test]
async fn a_watch_from_a_compacted_revision_ends_as_compacted() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    let first = server.put(LOCK, "web-1", 0).await?;
    let last = server.put(LOCK, "web-2", 0).await?;
    server.compact(last).await?;
    adapter.watch(1, WatchTarget::Lock, first);
    let error = loop {
        match adapter.event().await? {
            Event::WatchCreated { .. } => {}
            Event::WatchEnded { watch: WatchId(1), error } => break error,
            other => bail!("{other:?}"),
        }
    };
    assert_eq!(error.kind, CallErrorKind::Compacted);
    assert_eq!(error.message, format!("revisions before {last} have been compacted"));
    adapter.silence(QUIET).await
}

#[tokio::test]
async fn a_killed_server_ends_the_watch_once() -> Result<()> {
    let mut server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    adapter.watch(1, WatchTarget::Lock, 1);
    adapter.watch_created(1).await?;
    server.kill();
    let error = adapter.watch_end(1).await?;
    assert_eq!(error.kind, CallErrorKind::Unavailable, "{}", error.message);
    adapter.silence(QUIET).await
}

#[tokio::test]
async fn a_dropped_watch_reports_nothing_and_ends_at_the_server() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    adapter.watch(1, WatchTarget::Lock, 1);
    adapter.watch_created(1).await?;
    adapter.etcd.unwatch(WatchId(1));
    server.put(LOCK, "web-1", 0).await?;
    adapter.silence(QUIET).await?;
    eventually("the watch ends at the server", async || {
        Ok(metric(&server, "grpc_server_handled_total", "Watch").await? == 1)
    })
    .await
}
