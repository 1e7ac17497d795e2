//! Every connection between the sidecars and etcd is reset at the same time.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use support::etcd::EtcdCluster;
use support::{Moment, Proxy, Sample};

use super::figures::{Figures, trials};
use super::scene::{five, proxies, three_members};
use crate::flock::{Flock, Lead, PATIENCE, VALID_UNTIL_UNTIL, wait_for};

/// TTL − margin of the default timings: what a renewal gives, from its sending on.
const LEADS_ON: Duration = Duration::from_secs(15 - 3);

/// Resets all at once; returns how many connections had been made until then.
fn reset_all(proxies: &[Proxy]) -> usize {
    let before = proxies.iter().map(Proxy::accepted).sum();
    proxies.iter().for_each(Proxy::cut);
    before
}

impl Flock {
    /// Waits for an answer of the leader that is good until then: so late no renewal sent before allows it.
    fn wait_until_promised(&self, lead: &Lead, until: Moment) -> Result<()> {
        let good = |sample: &Sample| {
            let valid_for = sample.leading().map(|answer| answer.valid_for);
            valid_for.is_some_and(|valid_for| sample.sent.after(valid_for) >= until)
        };
        let now = Moment::now();
        let found = self.poller(&lead.name)?.wait_for(now, now.after(PATIENCE), good);
        found.map(|_| ()).with_context(|| format!("{} has not renewed", lead.name))
    }
}

#[tokio::test]
async fn the_leader_answers_200_throughout_each_time_all_connections_are_reset() -> Result<()> {
    let etcd = EtcdCluster::start(three_members()).await?;
    let (proxies, through_proxies) = proxies(&etcd)?;
    let (mut flock, lead) = five(through_proxies, &[&VALID_UNTIL_UNTIL])?;
    let what = "all connections reset: until all five have renewed over new ones";
    let mut figures = Figures::new(what, Duration::ZERO..=LEADS_ON);
    for _ in 0..trials(100)? {
        let renewals = flock.renewals()?;
        let reset = Moment::now();
        let made = reset_all(&proxies);
        let enough = made + flock.names().len();
        wait_for("all connect again", || proxies.iter().map(Proxy::accepted).sum::<usize>() >= enough)?;
        flock.wait_until_all_renew(&renewals)?;
        flock.wait_until_promised(&lead, reset.after(LEADS_ON))?;
        figures.add(Moment::now().since(reset), flock.circumstances(reset, &[&lead])?);
        flock.has_led_since(&lead, reset)?;
    }
    flock.has_led_since(&lead, lead.sample.sent)?;
    let episodes = flock.jeopardy_episodes()?;
    ensure!(episodes < 1.0, "{episodes} episodes of Jeopardy");
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 1, "{audit}");
    figures.judge()
}

#[tokio::test]
async fn control_without_a_reconnect_window_a_reset_of_all_connections_stands_the_leader_down() -> Result<()> {
    let etcd = EtcdCluster::start(three_members()).await?;
    let (proxies, through_proxies) = proxies(&etcd)?;
    let (mut flock, lead) = five(through_proxies, &[&["--reconnect-window", "0s"]])?;
    let reset = Moment::now();
    reset_all(&proxies);
    // From the books: it may be back within a few answers.
    flock.wait_for_log(&lead.name, "in jeopardy")?;
    flock.lead_since(Moment::now())?;
    ensure!(flock.jeopardy_episodes()? >= 1.0, "it stood down without Jeopardy");
    ensure!(flock.has_led_since(&lead, reset).is_err(), "nobody saw it stand down");
    flock.end()?;
    Ok(())
}
