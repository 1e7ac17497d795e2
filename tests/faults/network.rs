//! The network between the leader and etcd is cut, in every way; the standby's is whole.

use std::time::Duration;

use anyhow::{Result, ensure};
use support::etcd::EtcdServer;
use support::{Direction, Flow, Moment, Proxy};

use crate::flock::{Flock, VALID_UNTIL_UNTIL, figure, quick};

/// A proxy in front of one etcd, and its URL.
pub fn proxy_to(etcd: &EtcdServer) -> Result<(Proxy, Vec<String>)> {
    let proxy = Proxy::start(etcd.client_address(0).parse()?)?;
    let url = format!("http://{}", proxy.address());
    Ok((proxy, vec![url]))
}

/// The leader is cut off this way, loses its lease, and is let back in.
async fn a_leader_that_is_cut_off(how: &str, cut: impl Fn(&Proxy)) -> Result<()> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let (proxy, through_proxy) = proxy_to(&etcd)?;
    let mut flock = Flock::new(etcd.endpoints(), &[&["--lease-ttl", "2s"], &VALID_UNTIL_UNTIL]);
    flock.join_through("cut off", &through_proxy)?;
    flock.join("heir")?;
    let old = flock.lead_of_one("cut off", Moment::now())?;
    let begin = Moment::now();
    cut(&proxy);
    let new = flock.next_term(&old)?;
    ensure!(new.name == "heir", "{} leads", new.name);
    figure(
        &format!("{how}: to the next leader's 200, lease 2 s"),
        format_args!("{:?}", new.sample.received.since(begin)),
    );
    let told = flock.wait_for("cut off", |status, body| status == 503 && body["etcd"] != "connected")?;
    ensure!(told["leading"] == false, "{told}");
    proxy.heal();
    flock.wait_for("cut off", |_, body| body["state"] == "standby" && body["name"] == "heir")?;
    // Until the last answer of the one has expired none of the other is a 200: the judgement says so.
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 2, "{audit}");
    Ok(())
}

#[tokio::test]
async fn a_leader_whose_words_do_not_reach_etcd_stops_before_another_leads() -> Result<()> {
    a_leader_that_is_cut_off("silence towards etcd", |proxy| proxy.set(Direction::ToServer, Flow::Silent)).await
}

#[tokio::test]
async fn a_leader_that_does_not_hear_etcd_stops_before_another_leads() -> Result<()> {
    // Its keep-alives arrive at first and keep the lease: the heir has to wait until they stop.
    a_leader_that_is_cut_off("silence from etcd", |proxy| proxy.set(Direction::ToClient, Flow::Silent)).await
}

#[tokio::test]
async fn a_leader_in_a_black_hole_stops_before_another_leads() -> Result<()> {
    a_leader_that_is_cut_off("black hole", Proxy::black_hole).await
}

#[tokio::test]
async fn a_leader_whose_connections_are_reset_stops_before_another_leads() -> Result<()> {
    a_leader_that_is_cut_off("connections reset and refused", Proxy::cut_and_refuse).await
}

#[tokio::test]
async fn a_leader_goes_on_in_its_term_when_its_connections_are_reset_once() -> Result<()> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let (proxy, through_proxy) = proxy_to(&etcd)?;
    let mut flock = Flock::new(through_proxy, &[&["--lease-ttl", "6s"], &VALID_UNTIL_UNTIL]);
    flock.join("only")?;
    let lead = flock.lead_of_one("only", Moment::now())?;
    for _ in 0..3 {
        let before = Moment::now();
        proxy.cut();
        flock.wait_for_renewals("only", 1)?;
        let answers = flock.poller("only")?.samples_since(before);
        ensure!(answers.iter().all(|sample| sample.leading().is_some()), "the window was not used");
    }
    let last = flock.lead_of_one("only", Moment::now())?;
    ensure!(last.term == lead.term);
    flock.end()?;
    Ok(())
}

#[tokio::test]
async fn a_leader_of_a_slow_etcd_keeps_leading() -> Result<()> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let (proxy, through_proxy) = proxy_to(&etcd)?;
    for direction in [Direction::ToServer, Direction::ToClient] {
        proxy.set(direction, Flow::Delay(Duration::from_millis(75)));
    }
    let mut flock = Flock::new(through_proxy, &[&["--lease-ttl", "6s"], &VALID_UNTIL_UNTIL]);
    flock.join("only")?;
    let lead = flock.lead_since(Moment::now())?;
    flock.wait_for_renewals("only", 4)?;
    let answers = flock.poller("only")?.samples_since(lead.sample.sent);
    ensure!(answers.iter().all(|sample| sample.leading().is_some()), "150 ms there and back are not too slow");
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 1, "{audit}");
    Ok(())
}

#[tokio::test]
async fn a_standby_whose_watch_meets_a_compacted_revision_still_takes_over() -> Result<()> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let (proxy, through_proxy) = proxy_to(&etcd)?;
    let mut flock = Flock::new(etcd.endpoints(), &[&["--lease-ttl", "10s", "--answer-validity", "0s"]]);
    flock.join("leader")?;
    flock.join_through("standby", &through_proxy)?;
    let old = flock.lead_of_one("leader", Moment::now())?;
    // The standby reads the lock, then watches from the revision of that read on; in between, the delay lets
    // the store go on and forget that revision.
    proxy.set(Direction::ToServer, Flow::Delay(Duration::from_millis(250)));
    proxy.cut();
    let deadline = Moment::now().after(crate::flock::PATIENCE);
    while !flock.sidecar("standby")?.log().iter().any(|line| line.contains("have been compacted")) {
        ensure!(
            !deadline.passed(),
            "the watch did not meet a compacted revision:\n{}",
            flock.sidecar("standby")?.log_tail()
        );
        let revision = etcd.put("/unrelated", "x", 0).await?;
        etcd.compact(revision).await?;
    }
    proxy.heal();
    flock.sidecar("leader")?.signal(nix::sys::signal::Signal::SIGTERM)?;
    let new = flock.next_term(&old)?;
    ensure!(new.name == "standby");
    flock.end()?;
    Ok(())
}
