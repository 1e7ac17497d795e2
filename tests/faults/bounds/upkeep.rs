//! What an operator does to a store that an election lives in: compaction, defragmentation, space.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etcd_client::{AlarmAction, AlarmOptions, AlarmType};
use nix::sys::signal::Signal;
use support::Moment;
use support::etcd::{EtcdCluster, EtcdOptions};

use super::figures::Figures;
use super::scene::{NAMES, five, three_members};
use crate::flock::{Flock, Lead, NEVER_EXPIRES, PATIENCE};

/// A refused claim is sent again after half a second at most; the rest is for the claim itself and the machine.
const CLAIMED_AGAIN: Duration = Duration::from_secs(1);
/// Small enough to be full soon.
const QUOTA: u64 = 16 << 20;
/// Below what one request may have.
const MEGABYTE: usize = 1 << 20;

/// Forgets all revisions but the last, and gives the space back, member by member.
async fn compact_and_defragment(etcd: &EtcdCluster) -> Result<()> {
    etcd.compact(etcd.revision().await?).await?;
    for member in 0..3 {
        etcd.client(member).await?.defragment().await?;
    }
    Ok(())
}

#[tokio::test]
async fn nothing_changes_while_the_store_is_compacted_and_defragmented_and_a_standby_hears_of_the_lock_afterwards()
-> Result<()> {
    let etcd = EtcdCluster::start(three_members()).await?;
    // Nobody reads the lock again of its own accord: the watch alone tells in time.
    let (mut flock, lead) =
        five(etcd.endpoints(), &[&NEVER_EXPIRES, &["--keepalive-interval", "1s", "--answer-validity", "0s"]])?;
    for _ in 0..5 {
        for _ in 0..20 {
            etcd.put("/unrelated", &"x".repeat(MEGABYTE / 16), 0).await?;
        }
        compact_and_defragment(&etcd).await?;
        let renewals = flock.renewals()?;
        flock.wait_until_all_renew(&renewals)?;
    }
    flock.has_led_since(&lead, lead.sample.sent)?;
    ensure!(flock.jeopardy_episodes()? < 1.0, "Jeopardy");
    let told = Moment::now();
    flock.sidecar(&lead.name)?.signal(Signal::SIGTERM)?;
    let next = flock.next_term(&lead)?;
    let mut figures =
        Figures::new("SIGTERM after compactions: time without a leader", Duration::ZERO..=Duration::from_millis(500));
    figures.add(flock.time_without_leader(&lead, &next)?, flock.circumstances(told, &[&lead, &next])?);
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 2, "{audit}");
    figures.judge()
}

/// Takes the alarm off each member that has raised it.
async fn disarm(etcd: &EtcdCluster) -> Result<()> {
    let mut operator = etcd.any_client().await?;
    let raised = operator.alarm(AlarmAction::Get, AlarmType::None, None).await?;
    ensure!(!raised.alarms().is_empty(), "no alarm was raised");
    for alarm in raised.alarms() {
        let mut of_member = AlarmOptions::new();
        of_member.with_member(alarm.member_id());
        operator.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(of_member)).await?;
    }
    Ok(())
}

/// Everybody goes on renewing, and the leader leads.
fn goes_on(flock: &mut Flock, lead: &Lead) -> Result<()> {
    for _ in 0..2 {
        let renewals = flock.renewals()?;
        flock.wait_until_all_renew(&renewals)?;
    }
    flock.has_led_since(lead, lead.sample.sent)
}

#[tokio::test]
async fn without_space_the_leader_goes_on_nobody_else_can_claim_and_with_space_the_next_one_leads_in_a_second()
-> Result<()> {
    let options = EtcdOptions { quota_bytes: Some(QUOTA), ..three_members() };
    let etcd = EtcdCluster::start(options).await?;
    let arguments = ["--keepalive-interval", "1s", "--answer-validity", "0s"];
    let (mut flock, lead) = five(etcd.endpoints(), &[&NEVER_EXPIRES, &arguments])?;
    while etcd.put("/unrelated", &"x".repeat(MEGABYTE), 0).await.is_ok() {}
    goes_on(&mut flock, &lead)?;

    flock.sidecar(&lead.name)?.signal(Signal::SIGTERM)?;
    let status = flock.sidecar(&lead.name)?.wait_exit(PATIENCE)?;
    ensure!(status.code() == Some(0), "a lease can be revoked without space: {status}");
    let released = Moment::now();
    for name in &NAMES[1..] {
        flock.wait_for_log(name, "nobody can claim until an operator makes space")?;
    }
    flock.nobody_led_since(released)?;

    compact_and_defragment(&etcd).await?;
    flock.nobody_led_since(released)?;
    let space = Moment::now();
    disarm(&etcd).await.context("the operator's part")?;
    let next = flock.next_term(&lead)?;
    let mut figures = Figures::new("NOSPACE disarmed: to the next leader's 200", Duration::ZERO..=CLAIMED_AGAIN);
    figures.add(next.sample.received.since(space), flock.circumstances(space, &[&next])?);
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 2, "{audit}");
    figures.judge()
}
