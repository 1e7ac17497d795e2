//! What watches tell, and when they end.

use anyhow::Result;
use bellwether::election::{Call, Identity, Revision, WatchTarget};
use simulation::etcd::Operation;

use super::{LEASE, LONG, QUIET};
use crate::party::Party;
use crate::tale::{Tale, claim, grant, must};

fn by_hand() -> Operation {
    Operation::PutLock { holder: Identity::new("by-hand"), lease: None }
}

pub async fn a_watch_from_the_past_tells_everything_in_order(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    let base = tale.begins(etcd, 0).await?;
    must(etcd, "web-0", 0, grant(LEASE, LONG)).await?;
    let first = must(etcd, "web-0", 0, claim(LEASE)).await?.header.revision;
    etcd.operate(by_hand()).await?;
    etcd.operate(Operation::DeleteLock).await?;
    etcd.operate(Operation::PutElsewhere).await?;
    let past = tale.watches_lock(etcd, 0, base).await?;
    let middle = tale.watches_lock(etcd, 0, Revision(first.0 + 1)).await?;
    let future = tale.watches_lock(etcd, 0, Revision(first.0 + 6)).await?;
    let candidate = tale.watches(etcd, "web-1", 0, WatchTarget::Candidate(Identity::new("web-0")), base).await?;
    tale.listens(etcd, past, QUIET).await?;
    tale.asks(etcd, "web-0", 0, claim(LEASE)).await?.ok();
    tale.asks(etcd, "web-0", 0, Call::Revoke { lease: LEASE }).await?.ok();
    etcd.operate(by_hand()).await?;
    for watch in [past, middle, future, candidate] {
        tale.listens(etcd, watch, QUIET).await?;
    }
    Ok(())
}

pub async fn a_watch_from_before_a_compaction_is_told_so(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    let base = tale.begins(etcd, 0).await?;
    for _ in 0..3 {
        etcd.operate(by_hand()).await?;
    }
    let open = tale.watches_lock(etcd, 0, base).await?;
    tale.listens(etcd, open, QUIET).await?;
    etcd.operate(Operation::Compact(Revision(base.0 + 2))).await?;
    for from in 1..=4 {
        let watch = tale.watches_lock(etcd, 0, Revision(base.0 + from)).await?;
        tale.listens(etcd, watch, QUIET).await?;
    }
    // One that is up to date does not mind.
    etcd.operate(Operation::DeleteLock).await?;
    tale.listens(etcd, open, QUIET).await?;
    Ok(())
}

pub async fn a_watch_from_a_compacted_deletion_depends_on_the_server_s_age(
    etcd: &mut impl Party,
    tale: &mut Tale,
) -> Result<()> {
    let base = tale.begins(etcd, 0).await?;
    etcd.operate(by_hand()).await?;
    etcd.operate(Operation::DeleteLock).await?;
    etcd.operate(Operation::PutElsewhere).await?;
    etcd.operate(Operation::Compact(Revision(base.0 + 2))).await?;
    let watch = tale.watches_lock(etcd, 0, Revision(base.0 + 2)).await?;
    tale.listens(etcd, watch, QUIET).await?;
    etcd.operate(by_hand()).await?;
    tale.listens(etcd, watch, QUIET).await?;
    Ok(())
}
