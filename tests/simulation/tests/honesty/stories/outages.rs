//! Members that go while they are asked.

use std::time::Duration;

use anyhow::Result;
use bellwether::election::{Body, Call, CallErrorKind};

use super::{LEASE, LONG};
use crate::party::Party;
use crate::tale::{PATIENCE, Tale, ask, claim, grant, must};

/// The answer was lost, or the request: repeating it tells, and there is one claim either way.
async fn settles(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    let Body::Claimed { lock, .. } = must(etcd, "web-0", 0, claim(LEASE)).await?.body else {
        anyhow::bail!("a claim is answered as one");
    };
    let Body::Claimed { won, lock: again } = must(etcd, "web-0", 0, claim(LEASE)).await?.body else {
        anyhow::bail!("a claim is answered as one");
    };
    let mine = lock.lease == Some(LEASE) && lock.create_revision == lock.mod_revision;
    tale.notes(format!("mine {mine}, the same again {}, won twice {won}", lock == again));
    Ok(())
}

pub async fn a_claim_whose_member_was_killed_is_settled_by_repeating_it(
    etcd: &mut impl Party,
    tale: &mut Tale,
) -> Result<()> {
    let base = tale.begins(etcd, 0).await?;
    must(etcd, "web-0", 0, grant(LEASE, LONG)).await?;
    let sent = etcd.send("web-0", 0, PATIENCE, claim(LEASE)).await?;
    etcd.kill(0).await?;
    let unanswered = etcd.outcome(sent).await?.map_err(|error| error.kind);
    tale.notes(format!("{:?}", unanswered.map(|_| "answered")));
    etcd.restart(0).await?;
    settles(etcd, tale).await?;
    let answer = ask(etcd, "web-0", 0, Call::Confirm).await?;
    tale.notes(format!("written once: {}", answer.is_ok_and(|answer| answer.header.revision.0 == base.0 + 1)));
    Ok(())
}

/// Its kernel has taken the request: it may act on it once it runs again.
pub async fn a_claim_whose_member_was_stopped_is_settled_by_repeating_it(
    etcd: &mut impl Party,
    tale: &mut Tale,
) -> Result<()> {
    let base = tale.begins(etcd, 0).await?;
    must(etcd, "web-0", 0, grant(LEASE, LONG)).await?;
    etcd.stop(0).await?;
    let sent = etcd.send("web-0", 0, Duration::from_secs(1), claim(LEASE)).await?;
    let outcome = etcd.outcome(sent).await?.map_err(|error| error.kind);
    tale.notes(format!("stopped: {}", outcome == Err(CallErrorKind::Timeout)));
    etcd.cont(0).await?;
    settles(etcd, tale).await?;
    let answer = ask(etcd, "web-0", 0, Call::Confirm).await?;
    tale.notes(format!("written once: {}", answer.is_ok_and(|answer| answer.header.revision.0 == base.0 + 1)));
    Ok(())
}

pub async fn a_wiped_store_begins_anew_under_the_same_ids(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    let base = tale.begins(etcd, 0).await?;
    must(etcd, "web-0", 0, grant(LEASE, LONG)).await?;
    let before = must(etcd, "web-0", 0, claim(LEASE)).await?;
    etcd.wipe().await?;
    let after = must(etcd, "web-0", 0, Call::Confirm).await?;
    tale.notes(format!(
        "free {}, same cluster {}, same member {}, as in the beginning {}",
        matches!(after.body, Body::Confirmed { lock: None, .. }),
        before.header.cluster == after.header.cluster,
        before.header.member == after.header.member,
        after.header.revision == base,
    ));
    tale.keeps_alive(etcd, 0, LEASE).await?;
    Ok(())
}
