//! Three members: who answers for whom, and what a change of etcd's leader does.

use std::time::Duration;

use anyhow::Result;
use bellwether::election::{Body, Call, CallErrorKind};

use super::{LEASE, LONG, OTHER, QUIET};
use crate::party::{Heard, Party, Shape};
use crate::tale::{PATIENCE, Tale, ask, claim, grant, must};

fn other_than(members: &[usize]) -> usize {
    (0..Shape::THREE.members).find(|member| !members.contains(member)).unwrap_or_default()
}

pub async fn a_follower_passes_keep_alives_on(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    let leader = etcd.leader().await?;
    let follower = other_than(&[leader]);
    let base = tale.begins(etcd, follower).await?;
    tale.asks(etcd, "web-0", follower, grant(LEASE, 3)).await?.ok();
    tale.asks(etcd, "web-0", follower, claim(LEASE)).await?.ok();
    let third = other_than(&[leader, follower]);
    tale.asks(etcd, "web-2", third, Call::Confirm).await?.ok();
    let watched = tale.watches_lock(etcd, third, base).await?;
    for _ in 0..5 {
        tale.keeps_alive(etcd, follower, LEASE).await?;
        etcd.rest(Duration::from_secs(1)).await?;
    }
    tale.asks(etcd, "web-1", leader, Call::Confirm).await?.ok();
    tale.keeps_alive(etcd, follower, OTHER).await?;
    // A lifetime of 3 s after the last.
    tale.listens(etcd, watched, Duration::from_secs(4)).await?;
    tale.keeps_alive(etcd, follower, LEASE).await?;
    Ok(())
}

/// By its lifetime and an election timeout, from its election on.
pub async fn a_new_etcd_leader_extends_every_lease(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    // Longer than a busy machine takes to get to the keep-alive.
    const LIFETIME: Duration = Duration::from_secs(6);
    let leader = etcd.leader().await?;
    let follower = other_than(&[leader]);
    let base = tale.begins(etcd, follower).await?;
    must(etcd, "web-0", follower, grant(LEASE, LIFETIME.as_secs())).await?;
    must(etcd, "web-0", follower, claim(LEASE)).await?;
    let watch = tale.watches_lock(etcd, follower, base).await?;
    tale.listens(etcd, watch, QUIET).await?;
    tale.keeps_alive(etcd, leader, LEASE).await?;
    let renewed = etcd.clock();
    etcd.kill(leader).await?;
    let next = etcd.leader().await?;
    let elected = etcd.clock();
    let timeout = Shape::THREE.election_timeout;
    // Who is seen to lead has yet to write the first entry of its term, on a disk that others use too.
    let latest = LIFETIME + timeout + Duration::from_millis(500) + 5 * etcd.slack();
    let heard = etcd.heard(watch, latest).await?;
    let gone = etcd.clock();
    // Nobody is elected before an election timeout has passed, but for what had passed since the last heartbeat.
    let earliest = renewed + timeout + LIFETIME + timeout - Duration::from_millis(200);
    let words = heard.map(|heard| tale.heard(&heard)).transpose()?;
    tale.notes(format!("another leads {}, {words:?}", next != leader));
    tale.notes(format!("not before {}, outlasted its own lifetime {}", gone >= earliest, elected < gone));
    tale.asks(etcd, "web-0", next, Call::Confirm).await?.ok();
    Ok(())
}

pub async fn a_member_without_a_majority_answers_nothing(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    let leader = etcd.leader().await?;
    let alone = other_than(&[leader]);
    let base = tale.begins(etcd, alone).await?;
    must(etcd, "web-0", alone, grant(LEASE, LONG)).await?;
    must(etcd, "web-0", alone, claim(LEASE)).await?;
    let watch = tale.watches_lock(etcd, alone, base).await?;
    tale.listens(etcd, watch, QUIET).await?;
    let others: Vec<usize> = (0..Shape::THREE.members).filter(|member| *member != alone).collect();
    for member in &others {
        etcd.kill(*member).await?;
    }
    let sent = etcd.send("web-1", alone, PATIENCE, Call::Confirm).await?;
    let ended = etcd.heard(watch, Duration::from_secs(10)).await?;
    let words = ended.map(|heard| tale.heard(&heard)).transpose()?;
    tale.notes(format!("the watch: {words:?}"));
    let kind = etcd.outcome(sent).await?.map(|_| ()).map_err(|error| error.kind);
    tale.notes(format!("a read that waits: {kind:?}"));
    for call in [Call::Probe, Call::Confirm, claim(LEASE), grant(OTHER, LONG)] {
        tale.asks(etcd, "web-0", alone, call).await?.ok();
    }
    let refused = etcd.keep_alive(alone, PATIENCE, LEASE).await?.map(|_| ()).map_err(|error| error.kind);
    tale.notes(format!("a keep-alive: {refused:?}"));
    let again = tale.watches_lock(etcd, alone, base).await?;
    tale.listens(etcd, again, QUIET).await?;
    for member in others {
        etcd.restart(member).await?;
    }
    etcd.leader().await?;
    let read = must(etcd, "web-0", alone, Call::Confirm).await?;
    tale.notes(format!("back: {}", matches!(read.body, Body::Confirmed { lock: Some(_), .. })));
    tale.keeps_alive(etcd, alone, LEASE).await?;
    Ok(())
}

pub async fn a_stopped_leader_is_replaced_and_learns_of_it(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    let old = etcd.leader().await?;
    let follower = other_than(&[old]);
    tale.begins(etcd, follower).await?;
    must(etcd, "web-0", follower, grant(LEASE, LONG)).await?;
    must(etcd, "web-0", follower, claim(LEASE)).await?;
    etcd.stop(old).await?;
    let silent = etcd.keep_alive(old, Duration::from_secs(1), LEASE).await?.map(|_| ()).map_err(|error| error.kind);
    tale.notes(format!("a stopped member is silent: {}", silent == Err(CallErrorKind::Timeout)));
    let next = etcd.leader().await?;
    tale.notes(format!("another leads {}", next != old));
    tale.keeps_alive(etcd, next, LEASE).await?;
    must(etcd, "web-1", next, Call::Revoke { lease: LEASE }).await?;
    etcd.cont(old).await?;
    etcd.rest(Duration::from_secs(3)).await?;
    tale.keeps_alive(etcd, old, LEASE).await?;
    tale.asks(etcd, "web-0", old, Call::Confirm).await?.ok();
    Ok(())
}

pub async fn a_claim_through_a_follower_survives_the_kill_of_the_leader(
    etcd: &mut impl Party,
    tale: &mut Tale,
) -> Result<()> {
    let leader = etcd.leader().await?;
    let follower = other_than(&[leader]);
    let base = tale.begins(etcd, follower).await?;
    must(etcd, "web-0", follower, grant(LEASE, LONG)).await?;
    let watch = tale.watches_lock(etcd, follower, base).await?;
    let sent = etcd.send("web-0", follower, PATIENCE, claim(LEASE)).await?;
    etcd.kill(leader).await?;
    // Granted just in time, or not known: both are fine.
    etcd.outcome(sent).await?.ok();
    etcd.leader().await?;
    let mut locks = Vec::new();
    for _ in 0..2 {
        if let Ok(answer) = ask(etcd, "web-0", follower, claim(LEASE)).await?
            && let Body::Claimed { lock, .. } = answer.body
        {
            locks.push(lock);
        }
    }
    let one = locks.len() == 2 && locks[0] == locks[1] && locks[0].create_revision.0 == base.0 + 1;
    tale.notes(format!("one claim, whoever was told of it: {one}"));
    while let Some(heard) = etcd.heard(watch, QUIET).await? {
        if let Heard::Changed(..) = heard {
            let words = tale.heard(&heard)?;
            tale.notes(words);
        }
    }
    Ok(())
}
