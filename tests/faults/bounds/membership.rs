//! Members come and go, while five sidecars have them all in their lists.

use anyhow::{Context as _, Result, ensure};
use support::Proxy;
use support::etcd::{EtcdCluster, EtcdOptions};
use support::ports::free_loopback_address;

use super::newcomer::{Newcomer, Role, remove};
use super::scene::{five, proxies, three_members};
use crate::flock::{Flock, Lead, VALID_UNTIL_UNTIL, quick, wait_for};

/// Long enough for the time in which a learner is all that there is, and renewed often.
const TTL: [&str; 4] = ["--lease-ttl", "20s", "--keepalive-interval", "1s"];

/// They elect within half a second: much happens here, and no time is measured.
fn quick_members() -> EtcdOptions {
    let EtcdOptions { heartbeat_interval, election_timeout, .. } = quick();
    EtcdOptions { heartbeat_interval, election_timeout, ..three_members() }
}

/// All renew, and the leader has led in all its answers.
fn goes_on(flock: &mut Flock, lead: &Lead) -> Result<()> {
    let renewals = flock.renewals()?;
    flock.wait_until_all_renew(&renewals)?;
    flock.has_led_since(lead, lead.sample.sent)
}

/// How an endpoint does, in the eyes of the leader.
fn endpoint(flock: &mut Flock, lead: &Lead, url: &str) -> Result<serde_json::Value> {
    let status = flock.sidecar(&lead.name)?.status()?;
    let endpoints = status["endpoints"].as_array().context("/status tells of endpoints")?;
    endpoints.iter().find(|endpoint| endpoint["url"] == url).cloned().with_context(|| format!("no {url} in {status}"))
}

#[tokio::test]
async fn the_leader_goes_on_while_a_learner_is_added_promoted_and_removed() -> Result<()> {
    let options = quick_members();
    let etcd = EtcdCluster::start(options.clone()).await?;
    let (proxies, mut endpoints) = proxies(&etcd)?;
    let address = free_loopback_address()?;
    let to_newcomer = Proxy::start(address)?;
    let url = format!("http://{}", to_newcomer.address());
    endpoints.push(url.clone());
    let (mut flock, lead) = five(endpoints, &[&TTL, &VALID_UNTIL_UNTIL])?;

    let newcomer = Newcomer::join(&etcd, &options, address, Role::Learner).await?;
    goes_on(&mut flock, &lead)?;
    // The others are away for a moment: all that the sidecars find is a member that refuses everything.
    let connections = to_newcomer.accepted();
    to_newcomer.cut();
    proxies.iter().for_each(Proxy::cut_and_refuse);
    wait_for("all have turned to the learner", || to_newcomer.accepted() >= connections + flock.names().len())?;
    proxies.iter().for_each(Proxy::heal);
    goes_on(&mut flock, &lead)?;

    newcomer.promote(&etcd).await?;
    goes_on(&mut flock, &lead)?;
    // Now the newcomer alone carries them.
    proxies.iter().for_each(Proxy::cut_and_refuse);
    goes_on(&mut flock, &lead)?;
    let seen = endpoint(&mut flock, &lead, &url)?;
    ensure!(seen["health"] == "answering", "{seen}");
    proxies.iter().for_each(Proxy::heal);

    // The streams of all five are on it when it goes.
    newcomer.remove(&etcd).await?;
    goes_on(&mut flock, &lead)?;
    ensure!(flock.jeopardy_episodes()? < 1.0, "Jeopardy");
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 1, "{audit}");
    Ok(())
}

#[tokio::test]
async fn the_leader_goes_on_while_a_member_that_lost_its_disk_is_replaced() -> Result<()> {
    let options = quick_members();
    let mut etcd = EtcdCluster::start(options.clone()).await?;
    let (mut flock, lead) = five(etcd.endpoints(), &[&TTL, &VALID_UNTIL_UNTIL])?;
    let lost = etcd.wait_for_leader().await?;
    let id = etcd.client(lost).await?.status().await?.header().context("an answer without a header")?.member_id();
    etcd.kill(lost);
    goes_on(&mut flock, &lead)?;
    remove(&etcd, id).await?;
    let _newcomer = Newcomer::join(&etcd, &options, etcd.client_address(lost).parse()?, Role::Voter).await?;
    goes_on(&mut flock, &lead)?;
    // With another of the old members away it takes the new one to make a majority.
    let other = (lost + 1) % 3;
    etcd.kill(other);
    goes_on(&mut flock, &lead)?;
    etcd.restart(other)?;
    etcd.wait_until_ready().await?;
    flock.sidecar(&lead.name)?.kill9()?;
    let next = flock.next_term(&lead)?;
    ensure!(next.name != lead.name, "it was killed");
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 2, "{audit}");
    Ok(())
}
