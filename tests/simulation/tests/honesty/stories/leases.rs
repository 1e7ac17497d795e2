//! Lifetimes: what is granted, when it ends, what goes with it.

use std::time::Duration;

use anyhow::Result;
use bellwether::election::{Body, Call, Identity, WatchTarget};

use super::{LEASE, LONG, OTHER, QUIET};
use crate::party::{Heard, Party};
use crate::tale::{PATIENCE, Tale, ask, claim, grant, must, register};

/// How long after the end of a lifetime a server may look.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);

pub async fn a_grant_repeated_tells_the_first_lifetime(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    tale.begins(etcd, 0).await?;
    tale.asks(etcd, "web-0", 0, grant(LEASE, LONG)).await?.ok();
    tale.asks(etcd, "web-0", 0, grant(LEASE, 2 * LONG)).await?.ok();
    tale.keeps_alive(etcd, 0, LEASE).await?;
    // One and a half election timeouts, in whole seconds.
    tale.asks(etcd, "web-0", 0, grant(OTHER, 0)).await?.ok();
    Ok(())
}

pub async fn a_keep_alive_of_a_missing_lease_answers_zero(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    tale.begins(etcd, 0).await?;
    tale.keeps_alive(etcd, 0, LEASE).await?;
    tale.asks(etcd, "web-0", 0, grant(LEASE, LONG)).await?.ok();
    tale.keeps_alive(etcd, 0, LEASE).await?;
    tale.asks(etcd, "web-0", 0, claim(LEASE)).await?.ok();
    tale.keeps_alive(etcd, 0, LEASE).await?;
    tale.asks(etcd, "web-0", 0, Call::Revoke { lease: LEASE }).await?.ok();
    tale.keeps_alive(etcd, 0, LEASE).await?;
    Ok(())
}

pub async fn a_lease_lasts_its_lifetime_and_half_a_second_at_most(
    etcd: &mut impl Party,
    tale: &mut Tale,
) -> Result<()> {
    const LIFETIME: Duration = Duration::from_secs(2);
    let base = tale.begins(etcd, 0).await?;
    must(etcd, "web-0", 0, grant(LEASE, LIFETIME.as_secs())).await?;
    must(etcd, "web-0", 0, claim(LEASE)).await?;
    let watch = tale.watches_lock(etcd, 0, base).await?;
    tale.listens(etcd, watch, QUIET).await?;
    let renewed = etcd.clock();
    tale.keeps_alive(etcd, 0, LEASE).await?;
    let answered = etcd.clock();
    let latest = LIFETIME + EXPIRY_INTERVAL + etcd.slack();
    let heard = etcd.heard(watch, latest).await?;
    let gone = etcd.clock();
    let in_time = gone - renewed >= LIFETIME && gone - answered <= latest;
    let words = heard.map(|heard| tale.heard(&heard)).transpose()?;
    tale.notes(format!("gone within its window {in_time}: {words:?}"));
    tale.asks(etcd, "web-0", 0, Call::Observe { before: None }).await?.ok();
    tale.keeps_alive(etcd, 0, LEASE).await?;
    Ok(())
}

/// Not yet revoked, but expired: the keep-alive waits for the revoke, and does not save it.
pub async fn a_keep_alive_after_the_lifetime_finds_nothing(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    tale.begins(etcd, 0).await?;
    for round in 0..4 {
        must(etcd, "web-0", 0, grant(LEASE, 1)).await?;
        let renewed = etcd.keep_alive(0, PATIENCE, LEASE).await?.is_ok_and(|(_, seconds)| seconds == 1);
        etcd.rest(Duration::from_millis(1000 + 10 * round)).await?;
        let late = etcd.keep_alive(0, PATIENCE, LEASE).await?.map(|(_, seconds)| seconds).ok();
        tale.notes(format!("renewed in time {renewed}, afterwards {late:?}"));
    }
    Ok(())
}

pub async fn a_revoke_takes_all_keys_in_one_revision(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    let base = tale.begins(etcd, 0).await?;
    must(etcd, "web-0", 0, grant(LEASE, LONG)).await?;
    must(etcd, "web-0", 0, claim(LEASE)).await?;
    must(etcd, "web-1", 0, register(LEASE)).await?;
    let mut watches = vec![tale.watches_lock(etcd, 0, base).await?];
    for name in ["web-0", "web-1"] {
        watches.push(tale.watches(etcd, "web-2", 0, WatchTarget::Candidate(Identity::new(name)), base).await?);
    }
    tale.asks(etcd, "web-0", 0, Call::Revoke { lease: LEASE }).await?.ok();
    for watch in watches {
        tale.listens(etcd, watch, QUIET).await?;
    }
    tale.asks(etcd, "web-0", 0, Call::Revoke { lease: LEASE }).await?.ok();
    // One without keys writes nothing.
    must(etcd, "web-0", 0, grant(OTHER, LONG)).await?;
    tale.asks(etcd, "web-0", 0, Call::Revoke { lease: OTHER }).await?.ok();
    Ok(())
}

pub async fn a_full_store_refuses_puts_and_grants_and_does_the_rest(
    etcd: &mut impl Party,
    tale: &mut Tale,
) -> Result<()> {
    let base = tale.begins(etcd, 0).await?;
    for (who, lease) in [("web-0", LEASE), ("web-1", OTHER)] {
        must(etcd, who, 0, grant(lease, 3)).await?;
        must(etcd, who, 0, register(lease)).await?;
    }
    let claimed = must(etcd, "web-0", 0, claim(LEASE)).await?;
    let watch = tale.watches_lock(etcd, 0, base).await?;
    tale.listens(etcd, watch, QUIET).await?;
    etcd.fill().await?;
    // What the filling has written is nobody's business.
    tale.begins(etcd, 0).await?;
    tale.asks(etcd, "web-0", 0, Call::Probe).await?.ok();
    for call in [grant(super::LeaseId(1), LONG), claim(OTHER), register(OTHER), Call::Confirm] {
        let kind = ask(etcd, "web-1", 0, call.clone()).await?.map(|_| "fine").map_err(|error| error.kind);
        tale.notes(format!("{} when full: {kind:?}", call.operation().as_str()));
    }
    tale.keeps_alive(etcd, 0, LEASE).await?;
    tale.asks(etcd, "web-1", 0, Call::Unregister { create_revision: claimed.header.revision }).await?.ok();
    tale.asks(etcd, "web-1", 0, Call::Revoke { lease: OTHER }).await?.ok();
    let gone = etcd.heard(watch, Duration::from_secs(8)).await?;
    tale.notes(format!("expires when full: {}", matches!(gone, Some(Heard::Changed(..)))));
    etcd.make_room().await?;
    tale.begins(etcd, 0).await?;
    tale.asks(etcd, "web-0", 0, Call::Probe).await?.ok();
    tale.asks(etcd, "web-0", 0, grant(LEASE, LONG)).await?.ok();
    let again = must(etcd, "web-0", 0, claim(LEASE)).await?;
    tale.notes(format!("claims again: {}", matches!(again.body, Body::Claimed { won: true, .. })));
    Ok(())
}
