//! The disk of the etcd leader stalls, for longer than a lease lives (etcd #15247).
//!
//! The others elect another leader. The stalled one does not get to hear of it: its raft waits for the disk, all else
//! goes on. An old etcd then does two things it must not. It acknowledges keep-alives of leases that the new leader has
//! expired; the confirming read is for that. And it revokes leases that were renewed with the new leader, as soon as
//! its disk is back; no client can prevent that, and two sidecars may then both lead for the delay of one watch event.
//!
//! A current etcd does neither, with one exception: keep-alives that a follower passes on, as one with a stalled disk of
//! its own does to the leader it remembers, are acknowledged unchecked. So the confirming read is needed there, too.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use support::etcd::{EtcdCluster, EtcdOptions, KeyTimeline, current_etcd_binary, etcd_binary};
use support::{Audit, DiskStall, Lab, Moment, Sidecar, lab};
use tokio::time::timeout;

use crate::flock::{Flock, LOCK_KEY, Lead, PATIENCE, VALID_UNTIL_UNTIL, figure, wait_for, wait_until};

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
/// How often a queued revoke is waited for: on a busy machine its member may elect once more, and not queue it.
const EPISODES: usize = 3;

/// Confirming reads that were not answered.
const CONFIRMS_FAILED: &str = "bellwether_etcd_errors_total{code=\"timeout\",operation=\"confirm\"}";

async fn members(count: usize, binary: PathBuf) -> Result<EtcdCluster> {
    let options = EtcdOptions {
        members: count,
        heartbeat_interval: Duration::from_millis(50),
        election_timeout: Duration::from_millis(500),
        // Its store is flushed with each write. Otherwise that comes up to 100 ms later, and if it is that which stalls,
        // the member acknowledges nothing, because of a lock.
        arguments: ["--backend-batch-limit", "1"].map(str::to_owned).to_vec(),
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
    let etcd = members(if through == Through::Leader { 3 } else { 5 }, binary).await?;
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
    for name in ["old", "heir"] {
        // By then nothing is left to write.
        flock.wait_for_renewals(name, 1)?;
    }
    let stalls = stall(&etcd, &stalled, healthy).await?;
    let new = flock.lead_of_one("heir", Moment::now())?;
    wait_until(new.sample.received.after(BOTH));
    let acknowledges = through == Through::Follower || etcd.trusts_a_stalled_leader().await?;
    if acknowledges && protection_taken.is_none() {
        // So a keep-alive had been acknowledged: without the confirming read it would have counted.
        let confirms_failed = |old: &Sidecar| matches!(old.metric(CONFIRMS_FAILED), Ok(Some(count)) if count > 0.0);
        let old = flock.sidecar("old")?;
        wait_for("a confirming read of the old leader fails", || confirms_failed(old))?;
    }
    // Before the disk is back, and with it the other half of the story.
    let audit = flock.end_unjudged();
    drop(stalls);
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

/// Runs [`keep_alives_to_a_stalled_leader`] and says what came of it.
async fn say(binary: PathBuf, through: Through, protection_taken: Option<&str>) -> Result<Audit> {
    let version = version_of(&binary)?;
    let audit = keep_alives_to_a_stalled_leader(binary, through, protection_taken).await?;
    let protection = protection_taken.unwrap_or("every protection");
    figure(
        &format!("etcd {version}, keep-alives through its stalled {through:?}, {protection}"),
        format_args!("two leaders for {:?}", both_led(&audit)),
    );
    Ok(audit)
}

/// One leads at a time, whatever this etcd acknowledges.
async fn one_leads_at_a_time(binary: PathBuf, through: Through, protection_taken: Option<&str>) -> Result<()> {
    let audit = say(binary, through, protection_taken).await?;
    ensure!(audit.keeps_the_promise(), "{audit}");
    Ok(())
}

/// What `etcd --version` says.
fn version_of(binary: &PathBuf) -> Result<String> {
    let output = std::process::Command::new(binary).arg("--version").output()?;
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().find_map(|line| line.strip_prefix("etcd Version: "));
    Ok(line.with_context(|| format!("no version: {text}"))?.to_owned())
}

/// The old etcd, if the one that is tested against is old enough to have #15247.
async fn old_etcd() -> Result<Option<PathBuf>> {
    let binary = etcd_binary()?;
    let probe = members(1, binary.clone()).await?;
    if probe.trusts_a_stalled_leader().await? {
        return Ok(Some(binary));
    }
    figure(
        "not shown",
        format_args!("etcd {} does not have #15247: BELLWETHER_ETCD names another", version_of(&binary)?),
    );
    Ok(None)
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

#[test]
fn keep_alives_that_a_stalled_follower_of_a_current_etcd_passes_on_make_no_two_leaders() -> Result<()> {
    const TEST: &str =
        "stalled_disk::keep_alives_that_a_stalled_follower_of_a_current_etcd_passes_on_make_no_two_leaders";
    lab::inside(TEST, async || {
        let _loopback = Lab::new()?;
        one_leads_at_a_time(current_etcd_binary()?, Through::Follower, None).await
    })
}

/// The control: two lead, for as long as the disk stalls.
#[cfg(feature = "sabotage")]
async fn two_lead_without_the_confirming_read(binary: PathBuf, through: Through) -> Result<()> {
    let audit = say(binary, through, Some("no-confirm")).await?;
    ensure!(both_led(&audit) > BOTH / 2, "without the confirming read, and nothing was wrong: {audit}");
    Ok(())
}

#[cfg(feature = "sabotage")]
#[test]
fn control_without_the_confirming_read_two_lead_through_a_stalled_etcd_leader() -> Result<()> {
    lab::inside(
        "stalled_disk::control_without_the_confirming_read_two_lead_through_a_stalled_etcd_leader",
        async || {
            let _loopback = Lab::new()?;
            let Some(old) = old_etcd().await? else { return Ok(()) };
            two_lead_without_the_confirming_read(old, Through::Leader).await
        },
    )
}

#[cfg(feature = "sabotage")]
#[test]
fn control_without_the_confirming_read_two_lead_through_a_stalled_follower() -> Result<()> {
    lab::inside("stalled_disk::control_without_the_confirming_read_two_lead_through_a_stalled_follower", async || {
        let _loopback = Lab::new()?;
        // Whatever its version.
        two_lead_without_the_confirming_read(etcd_binary()?, Through::Follower).await?;
        two_lead_without_the_confirming_read(current_etcd_binary()?, Through::Follower).await
    })
}

#[cfg(feature = "sabotage")]
#[test]
fn a_stalled_leader_of_a_current_etcd_acknowledges_nothing_that_makes_two_leaders() -> Result<()> {
    lab::inside(
        "stalled_disk::a_stalled_leader_of_a_current_etcd_acknowledges_nothing_that_makes_two_leaders",
        async || {
            let _loopback = Lab::new()?;
            // Its own check is what is shown here: ours is taken away.
            one_leads_at_a_time(current_etcd_binary()?, Through::Leader, Some("no-confirm")).await
        },
    )
}

/// A leader and its heir on members whose disks are well, while that of the etcd leader stalls and comes back.
struct Revoke {
    etcd: EtcdCluster,
    flock: Flock,
    /// Independent watches of the lock key, one on the member of each sidecar.
    watches: [KeyTimeline; 2],
    /// After the disk was let go.
    back: Moment,
    old: Lead,
}

async fn leases_renewed_elsewhere_while_the_etcd_leader_stalls(binary: PathBuf) -> Result<Revoke> {
    let mut etcd = members(3, binary).await?;
    let leader = etcd.wait_for_leader().await?;
    let followers: Vec<usize> = (0..3).filter(|member| *member != leader).collect();
    let mut flock = Flock::new(Vec::new(), &[&TTL_FLAG, &VALID_UNTIL_UNTIL]).polled_every(Duration::from_millis(1));
    flock.join_through("old", &[etcd.endpoint(followers[0])])?;
    let watch = |member: usize| KeyTimeline::start(etcd.endpoint(member), LOCK_KEY.to_owned());
    let watches = [watch(followers[0])?, watch(followers[1])?];
    flock.lead_of_one("old", Moment::now())?;
    let stalls = stall(&etcd, &[leader], followers[0]).await?;
    // The new etcd leader extends the lease; from here on it is renewed with that one alone.
    flock.wait_for_renewals("old", 1)?;
    // Of the heir's lease the stalled leader does not know: it is not revoked, and claims the instant the lock is free.
    flock.join_through("heir", &[etcd.endpoint(followers[1])])?;
    wait_until(Moment::now().after(TAKEN_FOR_EXPIRED));
    let old = flock.lead_since(Moment::now())?;
    let back = Moment::now();
    stalls.into_iter().try_for_each(DiskStall::end)?;
    etcd.wait_until_ready().await?;
    Ok(Revoke { etcd, flock, watches, back, old })
}

#[test]
fn a_queued_revoke_makes_two_leaders_for_one_watch_event_at_most() -> Result<()> {
    lab::inside("stalled_disk::a_queued_revoke_makes_two_leaders_for_one_watch_event_at_most", async || {
        let _loopback = Lab::new()?;
        let Some(binary) = old_etcd().await? else { return Ok(()) };
        for _ in 0..EPISODES {
            let revoke = leases_renewed_elsewhere_while_the_etcd_leader_stalls(binary.clone()).await?;
            if judge_revoke(revoke)? {
                return Ok(());
            }
        }
        anyhow::bail!("a live lease was not revoked once in {EPISODES} stalls")
    })
}

/// Whether the lease was revoked. If so, what came of it is within its bound.
fn judge_revoke(revoke: Revoke) -> Result<bool> {
    let Revoke { etcd: _etcd, flock, watches, back, old } = revoke;
    let mut seen = Vec::new();
    for watch in &watches {
        match watch.wait_for(TTL, |change| change.value.is_none() && change.seen >= back) {
            Ok(change) => seen.push(change.seen.since(back)),
            Err(_nothing_revoked) => return Ok(false),
        }
    }
    let slowest = seen.iter().max().copied().unwrap_or(Duration::ZERO);
    let new = flock.next_term(&old)?;
    let no = flock.not_leading_since(&old.name, back)?;
    let until = back.after(slowest).after(LEADS_ON);
    let audit = flock.end_of_a_story_with_a_thief()?;
    let reign = |lead: &Lead| audit.reigns.iter().find(|reign| reign.term == lead.term);
    let first = reign(&old).context("it led")?;
    let second = reign(&new).context("it led")?;
    let overlap = first.end_latest.since(second.begin_earliest);
    figure(
        "live lease revoked by a stalled etcd leader: from its disk's return to",
        format_args!(
            "the DELETE at two independent watches {seen:?}, the old leader's 503 {:?}, the 200 of {} {:?}",
            no.received.since(back),
            if new.name == old.name { "itself again" } else { "the other" },
            new.sample.received.since(back),
        ),
    );
    figure("live lease revoked by a stalled etcd leader: two leaders for at most", format_args!("{overlap:?}"));
    ensure!(overlap <= slowest, "longer than it took the DELETE to be seen, {slowest:?}: {audit}");
    ensure!(first.end_latest < until, "{first} went on beyond until");
    Ok(true)
}

#[test]
fn a_stalled_leader_of_a_current_etcd_revokes_no_live_lease() -> Result<()> {
    lab::inside("stalled_disk::a_stalled_leader_of_a_current_etcd_revokes_no_live_lease", async || {
        let _loopback = Lab::new()?;
        let revoke = leases_renewed_elsewhere_while_the_etcd_leader_stalls(current_etcd_binary()?).await?;
        let Revoke { etcd: _etcd, mut flock, watches, back, old } = revoke;
        // What was queued has come through by then: the member with the stall behind it answers already.
        for name in ["old", "heir"] {
            flock.wait_for_renewals(name, 3)?;
        }
        let changed: Vec<_> =
            watches.iter().flat_map(KeyTimeline::changes).filter(|change| change.seen >= back).collect();
        ensure!(changed.is_empty(), "the lock key changed: {changed:?}");
        let answers = flock.poller(&old.name)?.samples_since(back);
        let interrupted = answers.iter().find(|sample| sample.leading().is_none());
        ensure!(interrupted.is_none(), "{interrupted:?}");
        flock.end()?;
        Ok(())
    })
}
