//! An etcd leader whose disk has stalled (etcd #15247): what it does while the others have moved on, and afterwards.

use std::time::Duration;

use anyhow::{Result, ensure};
use bellwether::election::{Body, Call};

use super::{LEASE, LONG, LeaseId, OTHER};
use crate::party::{Party, Shape};
use crate::tale::{PATIENCE, Tale, claim, grant, must};

/// Stalls the disk of who leads, makes it write, and returns it and who leads next.
async fn stalls_the_leader(etcd: &mut impl Party, lifetime: u64) -> Result<(usize, usize)> {
    let old = etcd.leader().await?;
    let follower = (old + 1) % Shape::THREE.members;
    must(etcd, "web-0", follower, grant(LEASE, lifetime)).await?;
    must(etcd, "web-0", follower, claim(LEASE)).await?;
    // What has been applied is flushed by the store a little later, which would hold up whoever reads it: a stalled
    // leader would be dumb, as a stopped one. This is of one that only its raft's log keeps waiting.
    etcd.rest(Duration::from_millis(500)).await?;
    etcd.keep_alive(old, PATIENCE, LEASE).await?.ok();
    etcd.stall(old).await?;
    // Written by a majority or not: whoever leads next may tell.
    let sent = etcd.send("web-1", follower, Duration::from_secs(1), grant(OTHER, LONG)).await?;
    etcd.outcome(sent).await?.ok();
    let next = etcd.leader().await?;
    ensure!(next != old, "the others elect one of them");
    Ok((old, next))
}

/// Old servers acknowledge them, current ones do not. No server answers a linearizable read.
pub async fn a_stalled_leader_answers_keep_alives_by_its_age(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    let (old, next) = stalls_the_leader(etcd, LONG).await?;
    for member in [old, next] {
        let renewed = etcd.keep_alive(member, PATIENCE, LEASE).await?;
        tale.notes(format!("keep-alive: {:?}", renewed.map(|(_, seconds)| seconds).map_err(|error| error.kind)));
    }
    let sent = etcd.send("web-0", old, PATIENCE, Call::Confirm).await?;
    let read = etcd.outcome(sent).await?;
    tale.notes(format!("read at the old one: {:?}", read.map(|_| ()).map_err(|error| error.kind)));
    etcd.end_stall(old).await?;
    etcd.rest(Duration::from_secs(2)).await?;
    tale.keeps_alive(etcd, old, LEASE).await?;
    Ok(())
}

/// Renewed by the new leader all the while; the old one believes it expired, and an old server says so when it can.
pub async fn a_thawed_leader_revokes_a_renewed_lease_by_its_age(etcd: &mut impl Party, tale: &mut Tale) -> Result<()> {
    const LIFETIME: u64 = 3;
    let (old, next) = stalls_the_leader(etcd, LIFETIME).await?;
    for _ in 0..8 {
        let renewed = etcd.keep_alive(next, PATIENCE, LEASE).await?.map(|(_, seconds)| seconds);
        tale.notes(format!("{:?}", renewed.map_err(|error| error.kind)));
        etcd.rest(Duration::from_millis(700)).await?;
    }
    let lock = must(etcd, "web-0", next, Call::Confirm).await?;
    tale.notes(format!("held {}", matches!(lock.body, Body::Confirmed { lock: Some(_), .. })));
    etcd.end_stall(old).await?;
    for _ in 0..2 {
        etcd.keep_alive(next, PATIENCE, LEASE).await?.ok();
        etcd.rest(Duration::from_secs(1)).await?;
    }
    let lock = must(etcd, "web-0", next, Call::Confirm).await?;
    tale.notes(format!("held after the thaw {}", matches!(lock.body, Body::Confirmed { lock: Some(_), .. })));
    let other = etcd.keep_alive(next, PATIENCE, LeaseId(1)).await?.map(|(_, seconds)| seconds);
    tale.notes(format!("one that never was {:?}", other.map_err(|error| error.kind)));
    Ok(())
}
