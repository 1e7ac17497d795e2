//! Three etcd members, of which one dies, freezes, or never was.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Result, ensure};
use support::Moment;
use support::etcd::{EtcdCluster, EtcdOptions};

use crate::flock::{Flock, Lead, VALID_UNTIL_UNTIL, figure, quick, wait_until};

/// Long enough to ride out an election of these members, which takes a second or two on a busy machine, and
/// renewed more often than by default, so that the stories need not wait.
const TTL: &[&str] = &["--lease-ttl", "12s", "--keepalive-interval", "3s"];
/// TTL − margin: from the last keep-alive that can have been answered.
const LEADS_ON: Duration = Duration::from_millis(12_000 - 2400);

async fn three_members() -> Result<EtcdCluster> {
    let calm = EtcdOptions {
        members: 3,
        heartbeat_interval: Duration::from_millis(50),
        election_timeout: Duration::from_millis(500),
        ..EtcdOptions::default()
    };
    EtcdCluster::start(calm).await
}

fn leader_and_standby(etcd: &EtcdCluster) -> Result<(Flock, Lead)> {
    let mut flock = Flock::new(etcd.endpoints(), &[TTL, &VALID_UNTIL_UNTIL]);
    flock.join("leader")?;
    flock.join("standby")?;
    let lead = flock.lead_of_one("leader", Moment::now())?;
    Ok((flock, lead))
}

fn led_all_along(flock: &Flock, lead: &Lead) -> Result<()> {
    let answers = flock.poller("leader")?.samples_since(lead.sample.sent);
    let interrupted = answers.iter().find(|sample| sample.leading().is_none());
    ensure!(interrupted.is_none(), "{interrupted:?}");
    Ok(())
}

#[tokio::test]
async fn the_term_goes_on_while_each_member_is_killed_and_restarted_in_turn() -> Result<()> {
    let mut etcd = three_members().await?;
    let (mut flock, lead) = leader_and_standby(&etcd)?;
    for member in 0..3 {
        // One of the three leads the cluster, and one is the one the sidecar is connected to.
        etcd.kill(member);
        flock.wait_for_renewals("leader", 1)?;
        etcd.restart(member)?;
        etcd.wait_until_ready().await?;
    }
    led_all_along(&flock, &lead)?;
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 1, "{audit}");
    Ok(())
}

#[tokio::test]
async fn the_term_goes_on_while_the_etcd_leader_is_frozen_and_after_it_has_thawed() -> Result<()> {
    let etcd = three_members().await?;
    let (mut flock, lead) = leader_and_standby(&etcd)?;
    let member = etcd.wait_for_leader().await?;
    etcd.freeze(member)?;
    // Shorter than the lease: when it thaws, the old etcd leader holds no lease for expired.
    flock.wait_for_renewals("leader", 1)?;
    etcd.thaw(member)?;
    flock.wait_for_renewals("leader", 1)?;
    led_all_along(&flock, &lead)?;
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 1, "{audit}");
    Ok(())
}

#[tokio::test]
async fn an_etcd_leader_frozen_for_longer_than_the_lease_makes_no_two_leaders_when_it_thaws() -> Result<()> {
    let etcd = EtcdCluster::start(EtcdOptions { members: 3, ..quick() }).await?;
    let mut flock = Flock::new(etcd.endpoints(), &[&["--lease-ttl", "2s"], &VALID_UNTIL_UNTIL]);
    flock.join("one")?;
    flock.join("two")?;
    let before = flock.lead_since(Moment::now())?;
    let member = etcd.wait_for_leader().await?;
    let frozen = Moment::now();
    etcd.freeze(member)?;
    wait_until(frozen.after(Duration::from_secs(4)));
    etcd.thaw(member)?;
    etcd.wait_for_leader().await?;
    // It wakes up with leases whose renewals it has not heard of; old versions then revoke them.
    flock.wait_for_renewals("one", 3)?;
    flock.wait_for_renewals("two", 3)?;
    let after = flock.lead_since(Moment::now())?;
    ensure!(after.term >= before.term);
    let audit =
        if etcd.trusts_a_stalled_leader().await? { flock.end_of_a_story_with_a_thief()? } else { flock.end()? };
    figure(
        "etcd leader frozen for two leases: longest time between two 200s",
        format_args!("{:?}", audit.longest_without_leader),
    );
    Ok(())
}

#[tokio::test]
async fn without_a_majority_the_leader_stops_by_until_and_its_term_resumes_with_the_majority() -> Result<()> {
    let mut etcd = three_members().await?;
    let (flock, lead) = leader_and_standby(&etcd)?;
    let before = Moment::now();
    etcd.kill(0);
    etcd.kill(1);
    let until = Moment::now().after(LEADS_ON);
    let no = flock.not_leading_since("leader", before)?;
    figure("majority lost to 503", format_args!("{:?}", no.received.since(before)));
    ensure!(flock.leads_so_far("leader")?.iter().all(|lead| lead.sample.sent < until), "it led beyond until");
    etcd.restart(0)?;
    etcd.restart(1)?;
    let again = flock.lead_since(no.received)?;
    ensure!(again.term == lead.term, "etcd extends leases when it elects: {again:?} after {lead:?}");
    flock.end()?;
    Ok(())
}

/// Somebody leads although the first endpoint is of no use, and stays.
fn one_endpoint_is_of_no_use(etcd: &EtcdCluster, useless: String, what: &str) -> Result<()> {
    let mut endpoints = etcd.endpoints();
    endpoints[0] = useless;
    let begin = Moment::now();
    let mut flock = Flock::new(endpoints, &[&["--lease-ttl", "6s"], &VALID_UNTIL_UNTIL]);
    flock.join("leader")?;
    let lead = flock.lead_since(begin)?;
    figure(
        &format!("{what}: start to the first 200, attempt timeout 1 s"),
        format_args!("{:?}", lead.sample.received.since(begin)),
    );
    flock.join("standby")?;
    flock.wait_for_renewals("leader", 4)?;
    led_all_along(&flock, &lead)?;
    flock.sidecar("leader")?.kill9()?;
    let next = flock.next_term(&lead)?;
    ensure!(next.name == "standby");
    flock.end()?;
    Ok(())
}

#[tokio::test]
async fn with_one_of_three_endpoints_dead_from_the_start_a_leader_is_elected_and_stays() -> Result<()> {
    let mut etcd = EtcdCluster::start(EtcdOptions { members: 3, ..quick() }).await?;
    etcd.kill(0);
    let dead = etcd.endpoint(0);
    one_endpoint_is_of_no_use(&etcd, dead, "one of three dead")
}

#[tokio::test]
async fn with_one_of_three_endpoints_black_holed_from_the_start_a_leader_is_elected_and_stays() -> Result<()> {
    let etcd = EtcdCluster::start(EtcdOptions { members: 3, ..quick() }).await?;
    // The kernel accepts, nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", silent.local_addr()?);
    one_endpoint_is_of_no_use(&etcd, url, "one of three black-holed")
}
