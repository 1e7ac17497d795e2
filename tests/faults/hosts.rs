//! Sidecars and etcd members on hosts of a laboratory network, cut off by cable and by firewall.

use std::time::Duration;

use anyhow::{Result, ensure};
use support::etcd::{EtcdCluster, EtcdOptions};
use support::lab::{self, Verdict};
use support::{Host, Lab, Moment, Proxy};

use crate::flock::{Flock, Lead, VALID_UNTIL_UNTIL, figure, quick};

/// Three etcd members and two sidecars, each on a host of its own; a leader and its heir.
struct Stage {
    lab: Lab,
    etcd: EtcdCluster,
    flock: Flock,
    old: Lead,
}

async fn stage(timings: &[&str]) -> Result<Stage> {
    let mut lab = Lab::new()?;
    let hosts = ["etcd-0", "etcd-1", "etcd-2"].into_iter().map(|name| lab.host(name)).collect::<Result<Vec<Host>>>()?;
    let etcd = EtcdCluster::start(EtcdOptions { members: 3, hosts, ..quick() }).await?;
    let mut flock = Flock::new(etcd.endpoints(), &[timings, &VALID_UNTIL_UNTIL]);
    for name in ["old", "heir"] {
        let options = flock.options(name).on(&lab.host(name)?);
        flock.join_as(name, &options)?;
        flock.wait_for(name, |_, body| body["state"] != "starting")?;
    }
    let old = flock.lead_of_one("old", Moment::now())?;
    Ok(Stage { lab, etcd, flock, old })
}

/// The leader's host is cut off in this way, and another leads; when it is back, it stands by.
async fn a_leader_on_a_host_that_is_cut_off(how: &str, cut: impl Fn(&Host) -> Result<()>) -> Result<()> {
    let Stage { lab, etcd: _etcd, flock, old } = stage(&["--lease-ttl", "2s"]).await?;
    let host = lab.hosts().iter().find(|host| host.name() == "old").expect("the stage has made it");
    let begin = Moment::now();
    cut(host)?;
    let new = flock.next_term(&old)?;
    ensure!(new.name == "heir", "{} leads", new.name);
    figure(
        &format!("{how}: to the next leader's 200, lease 2 s"),
        format_args!("{:?}", new.sample.received.since(begin)),
    );
    lab.heal()?;
    flock.wait_for("old", |_, body| body["state"] == "standby" && body["name"] == "heir")?;
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 2, "{audit}");
    Ok(())
}

#[test]
fn a_leader_whose_cable_is_pulled_stops_before_another_leads() -> Result<()> {
    lab::inside("hosts::a_leader_whose_cable_is_pulled_stops_before_another_leads", async || {
        a_leader_on_a_host_that_is_cut_off("cable pulled", Host::unplug).await
    })
}

#[test]
fn a_leader_behind_a_firewall_that_drops_stops_before_another_leads() -> Result<()> {
    lab::inside("hosts::a_leader_behind_a_firewall_that_drops_stops_before_another_leads", async || {
        a_leader_on_a_host_that_is_cut_off("firewall drops", |host| host.isolate(Verdict::Drop)).await
    })
}

#[test]
fn a_leader_behind_a_firewall_that_resets_stops_before_another_leads() -> Result<()> {
    lab::inside("hosts::a_leader_behind_a_firewall_that_resets_stops_before_another_leads", async || {
        a_leader_on_a_host_that_is_cut_off("firewall resets", |host| host.isolate(Verdict::Reset)).await
    })
}

#[test]
fn a_term_goes_on_when_the_etcd_leader_is_cut_off_from_the_other_members() -> Result<()> {
    lab::inside("hosts::a_term_goes_on_when_the_etcd_leader_is_cut_off_from_the_other_members", async || {
        // Longer than an election of these members takes, and renewed often, so that the story need not wait.
        let timings = ["--lease-ttl", "12s", "--keepalive-interval", "2s"];
        let Stage { lab, etcd, mut flock, old } = stage(&timings).await?;
        let member = etcd.wait_for_leader().await?;
        let cut = etcd.host(member).expect("each member has a host");
        for other in (0..3).filter(|other| *other != member).filter_map(|other| etcd.host(other)) {
            cut.cut_off_from(other, Verdict::Drop)?;
        }
        flock.wait_for_renewals("old", 3)?;
        lab.heal()?;
        flock.wait_for_renewals("old", 1)?;
        let answers = flock.poller("old")?.samples_since(old.sample.sent);
        let interrupted = answers.iter().find(|sample| sample.leading().is_none());
        ensure!(interrupted.is_none(), "{interrupted:?}");
        let audit = flock.end()?;
        ensure!(audit.reigns.len() == 1, "{audit}");
        Ok(())
    })
}

#[test]
fn a_leader_on_a_host_is_delayed_by_a_proxy_on_the_labs_own_address_and_goes_on() -> Result<()> {
    lab::inside("hosts::a_leader_on_a_host_is_delayed_by_a_proxy_on_the_labs_own_address_and_goes_on", async || {
        let Stage { mut lab, etcd, mut flock, old } = stage(&["--lease-ttl", "2s"]).await?;
        let proxy = Proxy::start_on(Lab::any_port(), etcd.client_address(0).parse()?)?;
        let mut options = flock.options("through").on(&lab.host("through")?);
        options.etcd_endpoints = vec![format!("http://{}", proxy.address())];
        flock.join_as("through", &options)?;
        flock.wait_for("through", |_, body| body["state"] == "standby")?;
        ensure!(proxy.accepted() > 0);
        for direction in [support::Direction::ToServer, support::Direction::ToClient] {
            proxy.set(direction, support::Flow::Delay(Duration::from_millis(20)));
        }
        for name in ["old", "heir"] {
            flock.sidecar(name)?.kill9()?;
        }
        let new = flock.next_term(&old)?;
        ensure!(new.name == "heir" || new.name == "through", "{} leads", new.name);
        flock.lead_of_one("through", old.sample.received)?;
        flock.end()?;
        Ok(())
    })
}
