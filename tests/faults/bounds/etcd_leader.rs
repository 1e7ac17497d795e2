//! The leader among the etcd members is killed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use support::etcd::EtcdCluster;
use support::{Moment, Proxy};

use super::figures::{Figures, trials};
use super::scene::{five_with_the_leader_behind, proxies, three_members};
use crate::flock::{Flock, Lead, VALID_UNTIL_UNTIL, figure, wait_until};

/// TTL − margin of the default timings: a renewal that comes later is too late.
const LEADS_ON: Duration = Duration::from_secs(15 - 3);
/// The keep-alive interval of the default timings.
const RENEWS_EVERY: Duration = Duration::from_secs(5);

/// Five sidecars with the timings they come with, and the way of the leader's to each member.
struct Stage {
    etcd: EtcdCluster,
    proxies: Vec<Proxy>,
    flock: Flock,
    lead: Lead,
}

impl Stage {
    async fn set(arguments: &[&[&str]]) -> Result<Self> {
        let etcd = EtcdCluster::start(three_members()).await?;
        let (proxies, through_proxies) = proxies(&etcd)?;
        let (flock, lead) = five_with_the_leader_behind(&through_proxies, etcd.endpoints(), arguments)?;
        Ok(Self { etcd, proxies, flock, lead })
    }

    /// Hands etcd's leadership to this member.
    async fn make_leader(&self, member: usize) -> Result<()> {
        let now = self.etcd.wait_for_leader().await?;
        if now != member {
            let status = self.etcd.client(member).await?.status().await?;
            let id = status.header().context("an answer without a header")?.member_id();
            self.etcd.client(now).await?.move_leader(id).await?;
        }
        Ok(())
    }

    /// Shuts the ways to the other members until the leader has renewed with this one, with which it stays.
    fn let_it_renew_with(&mut self, member: usize) -> Result<()> {
        let others = self.proxies.iter().enumerate().filter(|(other, _)| *other != member);
        others.for_each(|(_, proxy)| proxy.cut_and_refuse());
        self.flock.wait_for_renewals(&self.lead.name, 1)?;
        self.proxies.iter().for_each(Proxy::heal);
        Ok(())
    }

    /// How often its keep-alive stream has ended.
    fn streams_ended(&mut self) -> Result<usize> {
        let log = self.flock.sidecar(&self.lead.name)?.log();
        Ok(log.iter().filter(|line| line.contains("the keep-alive stream ended")).count())
    }

    /// The member is back, and all three serve.
    async fn bring_back(&mut self, member: usize) -> Result<()> {
        self.etcd.restart(member)?;
        self.etcd.wait_until_ready().await
    }
}

/// How long after a renewal the kill of this trial comes: spread evenly over the time between two.
fn between_renewals(trial: usize, trials: usize) -> Result<Duration> {
    let (trial, trials) = (u32::try_from(trial)?, u32::try_from(trials)?);
    Ok(RENEWS_EVERY * (2 * trial + 1) / (2 * trials))
}

#[tokio::test]
async fn the_leader_goes_on_without_jeopardy_each_time_the_etcd_leader_is_killed() -> Result<()> {
    let mut stage = Stage::set(&[&VALID_UNTIL_UNTIL]).await?;
    let lead = stage.lead.clone();
    let what = "etcd leader killed, lease 15 s: to the next confirmed renewal";
    let mut figures = Figures::new(what, Duration::ZERO..=LEADS_ON);
    let (trials, mut struck) = (trials(3)?, 0);
    for trial in 0..trials {
        // Every other time it is the member that the leader renews with.
        let member = trial % 3;
        stage.make_leader(member).await?;
        stage.let_it_renew_with((member + trial % 2) % 3)?;
        // Each time later after a renewal: some are due while etcd has no leader.
        wait_until(Moment::now().after(between_renewals(trial, trials)?));
        let (member, streams) = (stage.etcd.wait_for_leader().await?, stage.streams_ended()?);
        let killed = Moment::now();
        stage.etcd.kill(member);
        stage.flock.wait_for_renewals(&lead.name, 1)?;
        figures.add(Moment::now().since(killed), stage.flock.circumstances(killed, &[&lead])?);
        struck += usize::from(stage.streams_ended()? > streams);
        stage.bring_back(member).await?;
        stage.flock.has_led_since(&lead, lead.sample.sent)?;
        let episodes = stage.flock.jeopardy_episodes()?;
        ensure!(episodes < 1.0, "{episodes} episodes of Jeopardy");
    }
    figure("etcd leader killed: ended the leader's keep-alive stream", format_args!("{struck} of {trials} times"));
    ensure!(struck > 0, "no kill has hit the member that the leader renewed with");
    let audit = stage.flock.end()?;
    ensure!(audit.reigns.len() == 1, "{audit}");
    figures.judge()
}

#[tokio::test]
async fn control_without_a_reconnect_window_the_kill_of_the_etcd_leader_is_jeopardy() -> Result<()> {
    let mut stage = Stage::set(&[&["--reconnect-window", "0s"]]).await?;
    let member = stage.etcd.wait_for_leader().await?;
    stage.let_it_renew_with(member)?;
    // Being led there may have cost it a stream already.
    let lead = stage.flock.lead_of_one(&stage.lead.name, Moment::now())?;
    let episodes = stage.flock.jeopardy_episodes()?;
    let killed = Moment::now();
    stage.etcd.kill(member);
    let no = stage.flock.not_leading_since(&lead.name, killed)?;
    ensure!(no.received.since(killed) < LEADS_ON, "it stood down because until had passed");
    stage.bring_back(member).await?;
    let again = stage.flock.lead_since(no.received)?;
    ensure!(again.term >= lead.term, "{again:?} after {lead:?}");
    ensure!(stage.flock.jeopardy_episodes()? > episodes, "it stood down without Jeopardy");
    stage.flock.end()?;
    Ok(())
}
