//! Five sidecars of one election, and the three members of etcd that they elect by.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use support::etcd::{EtcdCluster, EtcdOptions};
use support::{Moment, Proxy, Sample};

use crate::flock::{Flock, Lead, PATIENCE, wait_for};

/// In the order of joining, so in line.
pub const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// How often a candidate held the lock and could not renew in time.
const JEOPARDY: &str = "bellwether_jeopardy_episodes_total";
/// Confirmed renewals.
const RENEWALS: &str = "bellwether_renewals_total{result=\"ok\"}";

/// What a candidate says of one change of leader.
const LAST_LINES: usize = 8;

/// Three members with etcd's own timings: heartbeats every 100 ms, an election after 1 s without. They do not wait for
/// the disk, which the members of all other tests keep busy: killed processes lose nothing by it, and what is measured
/// is not its queue.
pub fn three_members() -> EtcdOptions {
    EtcdOptions { arguments: vec!["--unsafe-no-fsync".to_owned()], ..three_members_on_disk() }
}

/// The same, and each write waits for the disk, as in production.
pub fn three_members_on_disk() -> EtcdOptions {
    EtcdOptions { members: 3, ..EtcdOptions::default() }
}

/// A proxy in front of each member, and their URLs.
pub fn proxies(etcd: &EtcdCluster) -> Result<(Vec<Proxy>, Vec<String>)> {
    let to = |member| Proxy::start(etcd.client_address(member).parse()?);
    let proxies: Vec<Proxy> = (0..3).map(to).collect::<Result<_>>()?;
    let urls = proxies.iter().map(|proxy| format!("http://{}", proxy.address())).collect();
    Ok((proxies, urls))
}

/// Five sidecars join, the first of which leads.
pub fn five(endpoints: Vec<String>, arguments: &[&[&str]]) -> Result<(Flock, Lead)> {
    five_with_the_leader_behind(&endpoints.clone(), endpoints, arguments)
}

/// Five sidecars join, the first of which leads and reaches etcd in a way of its own.
pub fn five_with_the_leader_behind(
    its_endpoints: &[String],
    endpoints: Vec<String>,
    arguments: &[&[&str]],
) -> Result<(Flock, Lead)> {
    let mut flock = Flock::new(endpoints, arguments);
    flock.join_through(NAMES[0], its_endpoints)?;
    let lead = flock.lead_of_one(NAMES[0], Moment::now())?;
    for name in &NAMES[1..] {
        flock.join(name)?;
    }
    Ok((flock, lead))
}

impl Flock {
    /// The last 200 of this reign so far.
    pub fn last_of_reign(&self, lead: &Lead) -> Result<Sample> {
        let leads = self.leads_so_far(&lead.name)?;
        let last = leads.iter().filter(|later| later.term == lead.term).max_by_key(|later| later.sample.received);
        Ok(last.context("whoever led has answered 200")?.sample)
    }

    /// From the last 200 of the one to the first 200 of the other, as they came in.
    pub fn time_without_leader(&self, old: &Lead, new: &Lead) -> Result<Duration> {
        Ok(new.sample.received.since(self.last_of_reign(old)?.received))
    }

    /// That whoever leads has done so in every answer since, in the same term; one more is waited for.
    pub fn has_led_since(&mut self, lead: &Lead, since: Moment) -> Result<()> {
        let now = Moment::now();
        let asked = self.poller(&lead.name)?.wait_for(now, now.after(PATIENCE), |sample| sample.sent >= now);
        ensure!(asked.is_some(), "{} does not answer", lead.name);
        let answers = self.poller(&lead.name)?.samples_since(since);
        let in_term = |sample: &Sample| sample.leading().is_some_and(|it| (it.epoch, it.term) == lead.term);
        let interrupted = answers.iter().find(|sample| !in_term(sample));
        ensure!(interrupted.is_none(), "{lead:?}, then {interrupted:?}\n{}", self.sidecar(&lead.name)?.log_tail());
        Ok(())
    }

    /// How often anybody fell into Jeopardy.
    pub fn jeopardy_episodes(&mut self) -> Result<f64> {
        let mut episodes = 0.0;
        for name in self.names() {
            episodes += self.sidecar(&name)?.metric(JEOPARDY)?.with_context(|| format!("{name} lacks {JEOPARDY}"))?;
        }
        Ok(episodes)
    }

    /// How often each has renewed so far.
    pub fn renewals(&mut self) -> Result<Vec<f64>> {
        let mut renewals = Vec::new();
        for name in self.names() {
            renewals.push(self.sidecar(&name)?.metric(RENEWALS)?.unwrap_or(0.0));
        }
        Ok(renewals)
    }

    /// Waits until each has renewed more often than then.
    pub fn wait_until_all_renew(&mut self, than: &[f64]) -> Result<()> {
        let names = self.names();
        for (name, before) in names.iter().zip(than) {
            let sidecar = &*self.sidecar(name)?;
            let more = || sidecar.metric(RENEWALS).ok().flatten().is_some_and(|now| now > *before);
            wait_for(&format!("{name} renews again"), more)?;
        }
        Ok(())
    }

    /// Starts a sidecar again that has exited or was killed, and waits until it is back in line.
    pub fn come_back(&mut self, name: &str) -> Result<()> {
        self.sidecar(name)?.restart()?;
        self.wait_for(name, |_, body| body["state"] == "standby")?;
        Ok(())
    }

    /// For when a bound is missed: the longest time that each poller heard nothing since then (when that is about as
    /// long, it is the machine that stood still), and what those who changed places say.
    pub fn circumstances(&mut self, since: Moment, actors: &[&Lead]) -> Result<String> {
        let mut text = "longest time between two answers of each:".to_owned();
        for name in self.names() {
            let samples = self.poller(&name)?.samples_since(since);
            let apart = samples.windows(2).map(|pair| pair[1].received.since(pair[0].received)).max();
            write!(text, " {name} {:.1?}", apart.unwrap_or_default())?;
        }
        for actor in actors {
            let log = self.sidecar(&actor.name)?.log();
            let last = &log[log.len().saturating_sub(LAST_LINES)..];
            write!(text, "\n{}:\n{}", actor.name, last.join("\n"))?;
        }
        Ok(text)
    }
}
