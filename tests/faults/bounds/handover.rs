//! The leader goes of its own will, or dies.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use support::Moment;
use support::etcd::EtcdCluster;

use super::figures::{Figures, trials};
use super::scene::{five, three_members};
use crate::flock::{NEVER_EXPIRES, PATIENCE, VALID_UNTIL_UNTIL};

/// Beside the answers that have to expire: taking the label off and revoking, and the claim of the heir. What
/// remains of half a second is for the machine.
const HANDOVER: Duration = Duration::from_millis(500);
/// After an expired lease: etcd looks every 500 ms, revokes through its majority, and the heir claims; should it
/// not, the others wait 200 ms before they do. What remains of two seconds is for the machine.
const EXPIRY: Duration = Duration::from_secs(2);

/// The leader gets SIGTERM, and who led comes back at the end of the line.
async fn leaders_are_told_to_stop(validity: &str, bound: Duration) -> Result<()> {
    let etcd = EtcdCluster::start(three_members()).await?;
    let (mut flock, mut lead) = five(etcd.endpoints(), &[&NEVER_EXPIRES, &["--answer-validity", validity]])?;
    let what = format!("SIGTERM of the leader, answers valid for {validity}: time without a leader");
    let mut figures = Figures::new(&what, Duration::ZERO..=bound);
    for _ in 0..trials(4)? {
        let told = Moment::now();
        flock.sidecar(&lead.name)?.signal(Signal::SIGTERM)?;
        let next = flock.next_term(&lead)?;
        figures.add(flock.time_without_leader(&lead, &next)?, flock.circumstances(told, &[&lead, &next])?);
        let status = flock.sidecar(&lead.name)?.wait_exit(PATIENCE)?;
        ensure!(status.code() == Some(0), "{status}");
        flock.come_back(&lead.name)?;
        lead = next;
    }
    flock.end()?;
    figures.judge()
}

#[tokio::test]
async fn on_sigterm_nobody_leads_for_at_most_the_answer_validity_and_half_a_second() -> Result<()> {
    leaders_are_told_to_stop("1s", Duration::from_secs(1) + HANDOVER).await
}

#[tokio::test]
async fn on_sigterm_with_answers_that_promise_nothing_nobody_leads_for_at_most_half_a_second() -> Result<()> {
    leaders_are_told_to_stop("0s", HANDOVER).await
}

/// The leader is killed. Its last keep-alive is K old at most, so the lease has T − K left at least, and T at most.
async fn leaders_are_killed(ttl: u64, in_make_test: usize) -> Result<()> {
    let etcd = EtcdCluster::start(three_members()).await?;
    let lease = ["--lease-ttl", &format!("{ttl}s")];
    let (mut flock, mut lead) = five(etcd.endpoints(), &[&lease, &VALID_UNTIL_UNTIL])?;
    let (ttl, interval) = (Duration::from_secs(ttl), Duration::from_secs(ttl) / 3);
    let what = format!("kill -9 of the leader, lease {ttl:?}: to the next leader's 200");
    let mut figures = Figures::new(&what, ttl.saturating_sub(interval)..=ttl + EXPIRY);
    for _ in 0..trials(in_make_test)? {
        let killed = Moment::now();
        flock.sidecar(&lead.name)?.kill9()?;
        let next = flock.next_term(&lead)?;
        figures.add(next.sample.received.since(killed), flock.circumstances(killed, &[&next])?);
        flock.come_back(&lead.name)?;
        lead = next;
    }
    flock.end()?;
    figures.judge()
}

#[tokio::test]
async fn after_kill_9_another_leads_when_a_short_lease_has_expired_and_not_sooner() -> Result<()> {
    leaders_are_killed(3, 4).await
}

#[tokio::test]
async fn after_kill_9_another_leads_when_the_lease_of_15_s_has_expired_and_not_sooner() -> Result<()> {
    leaders_are_killed(15, 1).await
}
