//! Whether the judgement bites: the same scene with one protection taken away must be found guilty, and with every
//! protection in place innocent.
//!
//! The disk of the etcd leader stalls for longer than the lease lives. An old etcd leader then goes on acknowledging
//! keep-alives of leases that the next one has expired (#15247); the confirming read is what keeps a sidecar from
//! counting them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use support::lab::Verdict;
use support::lab::inside;
use support::{DiskStall, Moment};
use tokio::time::{sleep, timeout};

use super::access::Security;
use super::judge::{Judgement, Overlap};
use super::observers::Observers;
use super::scene::{FIRST_WITH_PROXIES, Ground, LEASE_TTL, Scene};
use super::trial::steer_to_proxies;
use crate::flock::{PATIENCE, figure};

/// The member whose disk stalls. Those with proxies reach no other, those without all but it.
const STALLED: usize = 0;
/// A member whose disk is well.
const HEALTHY: usize = 1;
/// What each flush takes: longer than the story.
const STALL: Duration = Duration::from_secs(600);
/// The lease expires with the new etcd leader, which has extended it; then two would lead for as long as is left of this.
const STALLED_FOR: Duration = LEASE_TTL.saturating_mul(3);
/// What is left of it by then, less what a busy machine takes.
const BOTH_LEAD_FOR: Duration = Duration::from_secs(3);
/// A disk that stalls while the store is being flushed stops the store, and what acknowledges keep-alives with it: a
/// milder fault. So nobody writes any more before it stalls, and the last flush has had several times what it takes.
const STORE_FLUSHED: Duration = Duration::from_millis(500);

/// One leads by way of the etcd leader, its heirs by way of another member: then the disk of the former stalls.
async fn stalled_below_the_leader(sabotage: Option<&str>) -> Result<Option<Judgement>> {
    let ground = Ground::new()?;
    let mut scene = Scene::begin(&ground, Security::Open, sabotage).await?;
    if !scene.etcd.trusts_a_stalled_leader().await? {
        figure("not shown", "this etcd does not have #15247: ETCD=etcd is Debian's, which may");
        return Ok(None);
    }
    let stalled_host = scene.etcd.host(STALLED).context("every member has a host")?;
    for station in &scene.stations[..FIRST_WITH_PROXIES] {
        station.host.cut_off_from(stalled_host, Verdict::Reset)?;
    }
    for station in &scene.stations[FIRST_WITH_PROXIES..] {
        let others = station.proxies.iter().enumerate().filter(|(member, _)| *member != STALLED);
        others.for_each(|(_, proxy)| proxy.cut_and_refuse());
    }
    ensure!(steer_to_proxies(&scene).await?, "nobody with proxies leads");
    scene.etcd.move_leader(STALLED).await?;
    scene.wait_until_well().await?;
    ensure!(scene.etcd.wait_for_leader().await? == STALLED, "another member has been elected meanwhile");
    scene.rest();
    sleep(STORE_FLUSHED).await;
    let stall = DiskStall::begin(scene.etcd.pid(STALLED).context("it runs")?, STALL)?;
    // With something to write it stalls at once. Its fate is open: the leader that would commit it is being replaced.
    let mut client = scene.etcd.client(HEALTHY).await?;
    timeout(PATIENCE, client.put("/unrelated", "x", None)).await.ok();
    let two_lead = |seen: &Observers| certain(&seen.judge()).filter(|overlap| overlap.certain > BOTH_LEAD_FOR).cloned();
    scene.observers.wait_for(Moment::now().after(STALLED_FOR), two_lead);
    let judgement = scene.observers.judge();
    stall.end()?;
    Ok(Some(judgement))
}

fn certain(judgement: &Judgement) -> Option<&Overlap> {
    judgement.overlaps.iter().filter(|overlap| overlap.is_certain).max_by_key(|overlap| overlap.certain)
}

#[test]
fn control_without_the_confirming_read_the_judgement_finds_two_leaders() -> Result<()> {
    inside("mixed::control::control_without_the_confirming_read_the_judgement_finds_two_leaders", async || {
        let Some(judgement) = stalled_below_the_leader(Some("no-confirm")).await? else { return Ok(()) };
        let overlap = certain(&judgement).with_context(|| format!("found innocent: {}", judgement.audit))?;
        figure("without the confirming read", format_args!("two leaders for {:?} at least", overlap.certain));
        ensure!(overlap.certain > BOTH_LEAD_FOR, "{overlap:?}");
        Ok(())
    })
}

#[test]
fn with_every_protection_in_place_the_same_scene_is_found_innocent() -> Result<()> {
    inside("mixed::control::with_every_protection_in_place_the_same_scene_is_found_innocent", async || {
        let Some(judgement) = stalled_below_the_leader(None).await? else { return Ok(()) };
        ensure!(judgement.audit.keeps_the_promise(), "{}", judgement.audit);
        let reigns = judgement.audit.reigns.len();
        ensure!(reigns > 1, "nobody else took over: so nothing was tried, {}", judgement.audit);
        Ok(())
    })
}
