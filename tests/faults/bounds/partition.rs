//! The leader's sidecar alone is cut off from etcd. A userland proxy does it: the kernel goes on accepting.

use std::time::Duration;

use anyhow::{Result, ensure};
use support::etcd::EtcdCluster;
use support::{Direction, Flow, Moment, Proxy};

use super::figures::{Figures, trials};
use super::scene::{five_with_the_leader_behind, proxies, three_members};
use crate::flock::VALID_UNTIL_UNTIL;

const TTL: Duration = Duration::from_secs(4);
/// Attempts that last as long as they may, so that each is hedged before it ends, as with the default lease.
const TIMINGS: [&str; 6] = ["--lease-ttl", "4s", "--keepalive-interval", "1s", "--attempt-timeout", "1100ms"];
/// TTL − margin (T/5).
const LEADS_ON: Duration = Duration::from_millis(4000 - 800);
/// etcd expires a lease up to 500 ms late, revokes it through its majority, and somebody claims.
const EXPIRY: Duration = Duration::from_secs(2);

async fn the_leader_is_cut_off(how: &str, bound: Duration, cut: impl Fn(&Proxy)) -> Result<()> {
    let mut figures = Figures::new(&format!("{how}: to the next leader's 200, lease 4 s"), Duration::ZERO..=bound);
    let mut stopped = Figures::new(&format!("{how}: to the last 200 of the one cut off"), Duration::ZERO..=LEADS_ON);
    let etcd = EtcdCluster::start(three_members()).await?;
    for _ in 0..trials(1)? {
        let (proxies, through_proxies) = proxies(&etcd)?;
        let (mut flock, old) =
            five_with_the_leader_behind(&through_proxies, etcd.endpoints(), &[&TIMINGS, &VALID_UNTIL_UNTIL])?;
        let begin = Moment::now();
        proxies.iter().for_each(&cut);
        let no = flock.not_leading_since(&old.name, begin)?;
        let new = flock.next_term(&old)?;
        ensure!(new.name != old.name, "{} leads though cut off", new.name);
        ensure!(no.received < new.sample.sent, "it had not answered 503 before {new:?}");
        figures.add(new.sample.received.since(begin), flock.circumstances(begin, &[&old, &new])?);
        stopped.add(flock.last_of_reign(&old)?.sent.since(begin), flock.circumstances(begin, &[&old, &new])?);
        proxies.iter().for_each(Proxy::heal);
        flock.wait_for(&old.name, |_, body| body["state"] == "standby" && body["name"] == new.name.as_str())?;
        // What the proxies held back has arrived now, and takes nothing from the new leader.
        flock.has_led_since(&new, new.sample.sent)?;
        let audit = flock.end()?;
        ensure!(audit.reigns.len() == 2, "{audit}");
    }
    stopped.judge()?;
    figures.judge()
}

#[tokio::test]
async fn a_leader_cut_off_both_ways_has_stopped_when_another_leads_within_a_lease_and_two_seconds() -> Result<()> {
    the_leader_is_cut_off("partition of the leader's sidecar, both ways", TTL + EXPIRY, Proxy::black_hole).await
}

/// Here its keep-alives arrive, and hold the lease: nobody but the sidecar itself can end that. It hears nothing,
/// and sends none any more when that has lasted for a lease; the last one keeps the lock for another.
#[tokio::test]
async fn a_leader_that_hears_nothing_has_stopped_when_another_leads_within_two_leases_and_two_seconds() -> Result<()> {
    let silence = |proxy: &Proxy| proxy.set(Direction::ToClient, Flow::Silent);
    the_leader_is_cut_off("partition of the leader's sidecar, answers lost", 2 * TTL + EXPIRY, silence).await
}

/// Here nothing arrives, as with both ways.
#[tokio::test]
async fn a_leader_that_is_not_heard_has_stopped_when_another_leads_within_a_lease_and_two_seconds() -> Result<()> {
    let silence = |proxy: &Proxy| proxy.set(Direction::ToServer, Flow::Silent);
    the_leader_is_cut_off("partition of the leader's sidecar, requests lost", TTL + EXPIRY, silence).await
}
