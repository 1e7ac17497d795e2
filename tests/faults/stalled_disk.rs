//! The disk of the etcd leader stalls, for longer than a lease lives (etcd #15247).
//!
//! The others elect another leader. The stalled one does not get to hear of it: its raft waits for the disk, all else
//! goes on. An old etcd then does two things it must not. It acknowledges keep-alives of leases that the new leader has
//! expired; the confirming read is for that. And it revokes leases that were renewed with the new leader, as soon as
//! its disk is back; no client can prevent that, and two sidecars may then both lead for the delay of one watch event.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use support::etcd::{EtcdCluster, EtcdOptions, KeyTimeline, current_etcd_binary, etcd_binary};
use support::{Audit, DiskStall, Lab, Moment, lab};
use tokio::time::timeout;

use crate::flock::{Flock, LOCK_KEY, PATIENCE, VALID_UNTIL_UNTIL, figure, wait_until};

/// Long enough to ride out an election of these members.
const TTL: Duration = Duration::from_secs(6);
const TTL_FLAG: [&str; 2] = ["--lease-ttl", "6s"];
/// TTL − margin: no renewal lets a leader go on for longer.
const LEADS_ON: Duration = Duration::from_millis(6000 - 1200);
/// What each flush of a stalled disk takes: for ever, as far as these stories go.
const STALL: Duration = Duration::from_secs(3600);
/// For how long the disk stays stalled once there is another leader of the election. Long enough to see whether the old
/// one goes on: without the confirming read it does until the disk is back.
const BOTH: Duration = Duration::from_secs(4);
/// After a lease's life the stalled leader takes it for expired; it looks every 500 ms.
const TAKEN_FOR_EXPIRED: Duration = Duration::from_millis(6000 + 1500);
/// How often the queued revoke is tried for: the old leader may not have led for long enough to know the lease.
const EPISODES: usize = 3;

async fn members(count: usize, binary: PathBuf) -> Result<EtcdCluster> {
    let options = EtcdOptions {
        members: count,
        heartbeat_interval: Duration::from_millis(50),
        election_timeout: Duration::from_millis(500),
        binary: Some(binary),
        ..EtcdOptions::default()
    };
    EtcdCluster::start(options).await
}

/// Stalls the disks of these members, the etcd leader's among them, and has each of them write.
async fn stall(etcd: &EtcdCluster, stalled: &[usize], healthy: usize) -> Result<Vec<DiskStall>> {
    let begin = |member: &usize| DiskStall::begin(etcd.pid(*member).context("it runs")?, STALL);
    let stalls = stalled.iter().map(begin).collect::<Result<Vec<_>>>()?;
    // Its fate is open: the leader that would commit it is being replaced.
    let mut client = etcd.client(healthy).await?;
    timeout(PATIENCE, client.put("/unrelated", "x", None)).await.ok();
    Ok(stalls)
}

async fn end_of_stall(etcd: &mut EtcdCluster, stalls: Vec<DiskStall>) -> Result<()> {
    stalls.into_iter().try_for_each(DiskStall::end)?;
    etcd.wait_until_ready().await
}

/// By which member the keep-alives of the election's leader go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Through {
    /// By the etcd leader.
    Leader,
    /// By a follower that passes them on to it. Its disk stalls too, or it would hear of the new leader.
    Follower,
}

/// The etcd leader is replaced without knowing it, and keep-alives still reach it.
async fn keep_alives_to_a_stalled_leader(
    binary: PathBuf,
    through: Through,
    protection_taken: Option<&str>,
) -> Result<Audit> {
    let mut etcd = members(if through == Through::Leader { 3 } else { 5 }, binary).await?;
    let leader = etcd.wait_for_leader().await?;
    let mut followers = (0..etcd.size()).filter(|member| *member != leader);
    let first = followers.next().context("there are followers")?;
    let healthy = followers.next().context("there are two at least")?;
    let (stalled, reached) = match through {
        Through::Leader => (vec![leader], leader),
        Through::Follower => (vec![leader, first], first),
    };
    let mut flock = Flock::new(Vec::new(), &[&TTL_FLAG, &VALID_UNTIL_UNTIL]);
    for (name, member) in [("old", reached), ("heir", healthy)] {
        let mut options = flock.options(name);
        options.etcd_endpoints = vec![etcd.endpoint(member)];
        if let Some(protection) = protection_taken {
            options = options.with_env("BELLWETHER_SABOTAGE", protection);
        }
        flock.join_as(name, &options)?;
        flock.wait_for(name, |_, body| body["state"] != "starting")?;
    }
    flock.lead_of_one("old", Moment::now())?;
    let stalls = stall(&etcd, &stalled, healthy).await?;
    let new = flock.lead_of_one("heir", Moment::now())?;
    wait_until(new.sample.received.after(BOTH));
    end_of_stall(&mut etcd, stalls).await?;
    flock.wait_for("old", |status, body| status == 503 && body["name"] == "heir")?;
    let audit = flock.end_unjudged();
    ensure!(audit.reigns.len() == 2 && audit.terms_not_growing.is_empty(), "{audit}");
    Ok(audit)
}

/// How long two have certainly led at once.
fn both_led(audit: &Audit) -> Duration {
    let proven = audit
        .overlaps
        .iter()
        .map(|(one, other)| one.end_earliest.min(other.end_earliest).since(one.begin_latest.max(other.begin_latest)));
    proven.max().unwrap_or(Duration::ZERO)
}

/// Says and judges what came of [`keep_alives_to_a_stalled_leader`].
async fn one_leads_at_a_time(binary: PathBuf, through: Through, protection_taken: Option<&str>) -> Result<()> {
    let version = version_of(&binary)?;
    let audit = keep_alives_to_a_stalled_leader(binary, through, protection_taken).await?;
    let without = protection_taken.map_or(String::new(), |protection| format!(", {protection}"));
    figure(
        &format!("etcd {version}, disk of its leader stalled, keep-alives through the {through:?}{without}"),
        format_args!("two leaders for {:?}", both_led(&audit)),
    );
    ensure!(audit.keeps_the_promise(), "{audit}");
    Ok(())
}

fn version_of(binary: &PathBuf) -> Result<String> {
    let output = std::process::Command::new(binary).arg("--version").output()?;
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().find_map(|line| line.strip_prefix("etcd Version: "));
    Ok(line.with_context(|| format!("no version: {text}"))?.to_owned())
}

#[test]
fn keep_alives_that_a_stalled_etcd_leader_acknowledges_make_no_two_leaders() -> Result<()> {
    lab::inside("stalled_disk::keep_alives_that_a_stalled_etcd_leader_acknowledges_make_no_two_leaders", async || {
        let _loopback = Lab::new()?;
        one_leads_at_a_time(etcd_binary()?, Through::Leader, None).await
    })
}

#[test]
fn keep_alives_that_a_stalled_follower_passes_on_make_no_two_leaders() -> Result<()> {
    lab::inside("stalled_disk::keep_alives_that_a_stalled_follower_passes_on_make_no_two_leaders", async || {
        let _loopback = Lab::new()?;
        one_leads_at_a_time(etcd_binary()?, Through::Follower, None).await
    })
}
