//! A second process that goes on with the lease of a first, and confirms that show it.

use anyhow::{Result, bail};
use bellwether::election::{Body, Call, Identity, Revision};
use simulation::etcd::Operation;

use super::{LEASE, LONG, OTHER};
use crate::party::Party;
use crate::tale::{Tale, claim, grant, must, register, resume};

/// `web-0` leads with its lease, and `web-1` is in line with another. The token.
async fn led(etcd: &mut impl Party, tale: &mut Tale) -> Result<Revision> {
    tale.begins(etcd, 0).await?;
    for (who, lease) in [("web-0", LEASE), ("web-1", OTHER)] {
        must(etcd, who, 0, grant(lease, LONG)).await?;
        must(etcd, who, 0, register(lease)).await?;
    }
    let won = must(etcd, "web-0", 0, claim(LEASE)).await?;
    let Body::Claimed { won: true, lock } = won.body else { bail!("{won:?}") };
    Ok(lock.create_revision)
}

/// Resumes, confirms as both candidates, and looks at the line.
async fn tries(etcd: &mut impl Party, tale: &mut Tale, call: Call) -> Result<()> {
    tale.asks(etcd, "web-0", 0, call).await?.ok();
    tale.asks(etcd, "web-0", 0, Call::Confirm).await?.ok();
    tale.asks(etcd, "web-1", 0, Call::Confirm).await?.ok();
    tale.asks(etcd, "web-0", 0, Call::Observe { before: None }).await?.ok();
    Ok(())
}

/// And once more, as a request that arrives twice does.
pub async fn a_resume_under_lock_and_lease_is_won_and_every_confirm_shows_it(
    etcd: &mut impl Party,
    tale: &mut Tale,
) -> Result<()> {
    let token = led(etcd, tale).await?;
    tale.asks(etcd, "web-0", 0, Call::Confirm).await?.ok();
    tries(etcd, tale, resume(LEASE, token)).await?;
    tries(etcd, tale, resume(LEASE, token)).await
}

pub async fn a_resume_of_another_term_or_lease_changes_nothing(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    let token = led(etcd, tale).await?;
    for (lease, token) in [(OTHER, token), (LEASE, Revision(token.0 - 1)), (LEASE, Revision(token.0 + 1))] {
        tries(etcd, tale, resume(lease, token)).await?;
    }
    // Somebody else's lock, with this one's lease still alive.
    tale.asks(etcd, "web-0", 0, Call::DeleteLock { create_revision: token, lease: LEASE }).await?.ok();
    tries(etcd, tale, resume(LEASE, token)).await?;
    must(etcd, "web-1", 0, claim(OTHER)).await?;
    tries(etcd, tale, resume(LEASE, token)).await
}

pub async fn a_resume_without_the_candidate_key_changes_nothing(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    let token = led(etcd, tale).await?;
    etcd.operate(Operation::DeleteCandidate(Identity::new("web-0"))).await?;
    tries(etcd, tale, resume(LEASE, token)).await?;
    // One of another process with another lease is in its place.
    must(etcd, "web-0", 0, register(OTHER)).await?;
    tries(etcd, tale, resume(LEASE, token)).await
}

/// Where the guards fail no key is put, so that nobody asks for the lease: that it is gone shows in the lock.
pub async fn a_resume_with_a_lease_that_is_gone_changes_nothing(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    let token = led(etcd, tale).await?;
    tale.asks(etcd, "web-0", 0, Call::Revoke { lease: LEASE }).await?.ok();
    tries(etcd, tale, resume(LEASE, token)).await
}

pub async fn a_lock_that_was_put_again_with_its_lease_is_resumed_and_without_it_is_not(
    etcd: &mut impl Party,
    tale: &mut Tale,
) -> Result<()> {
    let token = led(etcd, tale).await?;
    for lease in [Some(LEASE), None] {
        etcd.operate(Operation::PutLock { holder: Identity::new("by-hand"), lease }).await?;
        tries(etcd, tale, resume(LEASE, token)).await?;
    }
    Ok(())
}
