//! The lock key and the candidates'.

use anyhow::{Result, ensure};
use bellwether::election::{Body, Call, Identity, Revision};
use simulation::etcd::Operation;

use super::{LEASE, LONG, OTHER};
use crate::party::Party;
use crate::tale::{Tale, claim, grant, must, register};

pub async fn a_claim_is_won_once_and_shows_its_lease_to_who_repeats_it(
    etcd: &mut impl Party,
    tale: &mut Tale,
) -> Result<()> {
    tale.begins(etcd, 0).await?;
    tale.asks(etcd, "web-0", 0, Call::Probe).await?.ok();
    tale.asks(etcd, "web-0", 0, Call::Confirm).await?.ok();
    for (who, lease) in [("web-0", LEASE), ("web-1", OTHER)] {
        tale.asks(etcd, who, 0, grant(lease, LONG)).await?.ok();
        tale.asks(etcd, who, 0, register(lease)).await?.ok();
    }
    for (who, lease) in [("web-0", LEASE), ("web-1", OTHER), ("web-0", LEASE)] {
        tale.asks(etcd, who, 0, claim(lease)).await?.ok();
    }
    tale.asks(etcd, "web-1", 0, Call::Confirm).await?.ok();
    tale.asks(etcd, "web-1", 0, Call::Observe { before: None }).await?.ok();
    Ok(())
}

/// A claim that meets a held lock needs no lease: it shows the holder.
pub async fn a_lost_lease_claims_and_registers_nothing(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    tale.begins(etcd, 0).await?;
    tale.asks(etcd, "web-0", 0, claim(LEASE)).await?.ok();
    tale.asks(etcd, "web-0", 0, register(LEASE)).await?.ok();
    tale.asks(etcd, "web-0", 0, Call::Observe { before: None }).await?.ok();
    tale.asks(etcd, "web-1", 0, grant(OTHER, LONG)).await?.ok();
    tale.asks(etcd, "web-1", 0, claim(OTHER)).await?.ok();
    tale.asks(etcd, "web-0", 0, claim(LEASE)).await?.ok();
    tale.asks(etcd, "web-1", 0, register(LEASE)).await?.ok();
    Ok(())
}

pub async fn registrations_are_kept_guarded_and_counted(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    const NAMES: [&str; 4] = ["web-3", "web-1", "web-0", "web-2"];
    tale.begins(etcd, 0).await?;
    tale.asks(etcd, "web-0", 0, grant(LEASE, LONG)).await?.ok();
    tale.asks(etcd, "web-0", 0, grant(OTHER, LONG)).await?.ok();
    let mut last = Revision(0);
    for name in NAMES {
        if let Ok(answer) = tale.asks(etcd, name, 0, register(LEASE)).await? {
            last = answer.header.revision;
        }
    }
    // A twin with another lease sees who was first.
    tale.asks(etcd, "web-0", 0, register(OTHER)).await?.ok();
    for before in [None, Some(last), Some(Revision(last.0 + 1)), Some(Revision(1))] {
        tale.asks(etcd, "web-0", 0, Call::Observe { before }).await?.ok();
    }
    let wrong = Revision(last.0 - 1);
    for create_revision in [wrong, last, last] {
        tale.asks(etcd, "web-2", 0, Call::Unregister { create_revision }).await?.ok();
    }
    etcd.operate(Operation::DeleteCandidate(Identity::new("web-3"))).await?;
    tale.asks(etcd, "web-0", 0, Call::Observe { before: Some(last) }).await?.ok();
    Ok(())
}

pub async fn guarded_deletes_spare_another_revision(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    tale.begins(etcd, 0).await?;
    must(etcd, "web-0", 0, grant(LEASE, LONG)).await?;
    let won = must(etcd, "web-0", 0, claim(LEASE)).await?;
    let Body::Claimed { won: true, lock } = won.body else { anyhow::bail!("{won:?}") };
    let (before, made) = (Revision(lock.create_revision.0 - 1), lock.create_revision);
    for (create_revision, lease) in [(before, LEASE), (made, OTHER), (made, LEASE), (made, LEASE)] {
        tale.asks(etcd, "web-0", 0, Call::DeleteLock { create_revision, lease }).await?.ok();
        tale.asks(etcd, "web-0", 0, Call::Confirm).await?.ok();
    }
    tale.asks(etcd, "web-0", 0, claim(LEASE)).await?.ok();
    Ok(())
}

/// And a put keeps the `create_revision`, so the lease has to be guarded too.
pub async fn a_key_put_again_without_the_lease_outlives_it(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    tale.begins(etcd, 0).await?;
    must(etcd, "web-0", 0, grant(LEASE, LONG)).await?;
    must(etcd, "web-1", 0, grant(OTHER, LONG)).await?;
    let won = must(etcd, "web-0", 0, claim(LEASE)).await?;
    ensure!(matches!(won.body, Body::Claimed { won: true, .. }));
    for lease in [Some(OTHER), None] {
        etcd.operate(Operation::PutLock { holder: Identity::new("by-hand"), lease }).await?;
        tale.asks(etcd, "web-0", 0, Call::Confirm).await?.ok();
    }
    for lease in [LEASE, OTHER] {
        let create_revision = won.header.revision;
        tale.asks(etcd, "web-0", 0, Call::DeleteLock { create_revision, lease }).await?.ok();
        tale.asks(etcd, "web-0", 0, Call::Revoke { lease }).await?.ok();
        tale.asks(etcd, "web-0", 0, Call::Observe { before: None }).await?.ok();
    }
    tale.asks(etcd, "web-0", 0, Call::Confirm).await?.ok();
    Ok(())
}
