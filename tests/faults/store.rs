//! Stores that are not the one they should be: two clusters in one list, an address that changed hands, a store
//! that was wiped.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etcd_client::{AlarmAction, AlarmOptions, AlarmType};
use support::Moment;
use support::etcd::{EtcdOptions, EtcdServer};

use crate::flock::{Flock, VALID_UNTIL_UNTIL, quick, wait_until};
use crate::network::proxy_to;

/// A refused endpoint is asked every 30 s which cluster it belongs to.
const REFUSED_FOR: Duration = Duration::from_secs(40);

#[tokio::test]
async fn a_list_with_endpoints_of_two_clusters_is_told_loudly_and_elects_nobody() -> Result<()> {
    let (one, other) = (EtcdServer::start_with(quick()).await?, EtcdServer::start_with(quick()).await?);
    let begin = Moment::now();
    let endpoints = vec![one.endpoint(), other.endpoint()];
    let mut flock = Flock::new(endpoints.clone(), &[&["--lease-ttl", "2s"]]);
    let names = ["one", "two", "three", "four"];
    for name in names {
        let options = flock.options(name);
        flock.join_as(name, &options)?;
    }
    for name in names {
        flock.wait_for_log(name, "names more than one cluster")?;
        let status = flock.sidecar(name)?.status()?;
        ensure!(status["leading"] == false, "{status}");
        ensure!(status["not_leading"].as_str().is_some_and(|why| why.contains("more than one cluster")), "{status}");
    }
    flock.nobody_led_since(begin)?;
    // A sidecar whose list is right is not hindered by them, so none of them holds the lock.
    flock.join_through("right", &endpoints[..1])?;
    let lead = flock.lead_since(begin)?;
    ensure!(lead.name == "right");
    flock.end()?;
    Ok(())
}

#[tokio::test]
async fn an_address_that_comes_to_lead_to_another_cluster_is_refused_loudly() -> Result<()> {
    let (mut ours, other) = (EtcdServer::start_with(quick()).await?, EtcdServer::start_with(quick()).await?);
    let (proxy, through_proxy) = proxy_to(&ours)?;
    let endpoints = [ours.endpoints(), through_proxy].concat();
    let mut flock = Flock::new(endpoints, &[&["--lease-ttl", "3s"], &VALID_UNTIL_UNTIL]);
    flock.join("only")?;
    let lead = flock.lead_since(Moment::now())?;
    proxy.retarget(other.client_address(0).parse()?);
    let gone = Moment::now();
    ours.kill();
    flock.wait_for_log("only", "answers for another cluster")?;
    let no = flock.not_leading_since("only", gone)?;
    ensure!(other.get(crate::flock::LOCK_KEY).await?.is_none(), "it took the lock of another cluster");
    ours.restart().await?;
    let again = flock.lead_since(no.received)?;
    ensure!(again.term >= lead.term, "{again:?}");
    flock.end()?;
    Ok(())
}

/// As behind a Service, or a balancer: the connection that there is leads to the stranger for as long as that one lives.
#[tokio::test]
async fn an_address_that_led_to_another_cluster_is_believed_again_when_it_leads_home() -> Result<()> {
    let (home, stranger) = (EtcdServer::start_with(quick()).await?, EtcdServer::start_with(quick()).await?);
    let (address, through_it) = proxy_to(&home)?;
    let mut flock = Flock::new(through_it, &[&["--lease-ttl", "2s"], &VALID_UNTIL_UNTIL]);
    flock.join("only")?;
    let old = flock.lead_since(Moment::now())?;
    address.retarget(stranger.client_address(0).parse()?);
    flock.wait_for_log("only", "answers for another cluster")?;
    address.balance_to(home.client_address(0).parse()?);
    flock.sidecar("only")?.wait_for_log("answers for our cluster again", REFUSED_FOR)?;
    let new = flock.next_term(&old)?;
    ensure!(stranger.get(crate::flock::LOCK_KEY).await?.is_none(), "{new:?}, and the stranger's lock is taken");
    flock.end()?;
    Ok(())
}

#[tokio::test]
async fn after_the_store_was_wiped_nobody_leads_until_restarted_with_a_higher_epoch() -> Result<()> {
    let mut etcd = EtcdServer::start_with(quick()).await?;
    // So that the wiped store's revisions stay below what was seen, whatever the sidecars write.
    for _ in 0..100 {
        etcd.put("/unrelated", "x", 0).await?;
    }
    let mut flock = Flock::new(etcd.endpoints(), &[&["--lease-ttl", "2s"], &VALID_UNTIL_UNTIL]);
    flock.join("one")?;
    flock.join("two")?;
    let old = flock.lead_of_one("one", Moment::now())?;
    etcd.wipe().await?;
    for name in ["one", "two"] {
        let line = flock.wait_for_log(name, "history went back")?;
        ensure!(line.contains("--epoch 1"), "{line}");
        let why = flock.sidecar(name)?.status()?["not_leading"].to_string();
        ensure!(why.contains("--epoch"), "{why}");
    }
    // Both know. Nobody leads in the new store, however long it has been there: renewals and claims would be due.
    let known = Moment::now();
    wait_until(known.after(Duration::from_secs(2)));
    flock.nobody_led_since(known)?;
    // And nobody did before they knew, except the old leader, by its old term.
    for name in ["one", "two"] {
        ensure!(flock.leads_so_far(name)?.iter().all(|lead| lead.term == old.term), "{name} led anew");
    }

    // Who only starts cannot know: the operator raises the epoch of each, and terms grow again.
    for name in ["one", "two"] {
        flock.restart_with(name, &["--epoch", "1"])?;
    }
    let new = flock.next_term(&old)?;
    ensure!(new.term.0 == 1, "{new:?}");
    ensure!(new.term.1 < old.term.1, "the token alone would not have grown");
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 2, "{audit}");
    Ok(())
}

#[tokio::test]
async fn when_etcd_is_out_of_space_the_leader_stays_and_the_next_one_leads_once_there_is_space_again() -> Result<()> {
    let etcd = EtcdServer::start_with(EtcdOptions { quota_bytes: Some(16 << 20), ..quick() }).await?;
    let mut flock = Flock::new(etcd.endpoints(), &[&["--lease-ttl", "3s"], &VALID_UNTIL_UNTIL]);
    flock.join("leader")?;
    flock.join("standby")?;
    let lead = flock.lead_of_one("leader", Moment::now())?;
    let megabyte = "x".repeat(1 << 20);
    while etcd.put("/unrelated", &megabyte, 0).await.is_ok() {}
    flock.wait_for_renewals("leader", 4)?;
    ensure!(flock.lead_of_one("leader", Moment::now())?.term == lead.term, "leases live on without space");

    flock.sidecar("leader")?.kill9()?;
    flock.wait_for_log("standby", "nobody can claim until an operator makes space")?;
    let mut operator = etcd.any_client().await?;
    etcd.compact(etcd.revision().await?).await?;
    operator.defragment().await?;
    let member = operator.status().await?.header().context("an answer without a header")?.member_id();
    let mut of_member = AlarmOptions::new();
    of_member.with_member(member);
    operator.alarm(AlarmAction::Deactivate, AlarmType::Nospace, Some(of_member)).await?;
    let next = flock.next_term(&lead)?;
    ensure!(next.name == "standby");
    flock.end()?;
    Ok(())
}
