//! A leader that is stopped (SIGSTOP) for two leases and goes on has lost its term, and must not say otherwise
//! once: not to requests that waited in its sockets, not in the middle of what it was doing.
//!
//! `BELLWETHER_TRIALS=500 make test ARGS='--test faults a_thawed_leader'` is the long run: about seven minutes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use support::etcd::EtcdServer;
use support::{Moment, Poller, PollerOptions, Sample};

use crate::flock::{Flock, Lead, PATIENCE, VALID_UNTIL_UNTIL, figure, quick, wait_until};

/// The shortest lease there is.
const TTL: Duration = Duration::from_secs(2);
/// How many freezes `make test` has time for.
const TRIALS: usize = 20;
/// Elections side by side: more would only take the processors from each other.
const ELECTIONS: usize = 5;
/// Connections that keep the leader busy when it is stopped, with requests that it has read, that it has not read,
/// and that come while it is stopped. A leader stopped while idle sees its timers first when it goes on, and hides
/// what the check at every request is for.
const FLOODS: usize = 12;
/// Requests in one write on each of them.
const PIPELINED: usize = 8;
/// Connections from before the stop that are idle then, and ask while the leader is stopped.
const LATE: usize = 4;
/// How often those ask: many times within the stop.
const LATE_INTERVAL: Duration = Duration::from_millis(500);

/// What came of all trials.
#[derive(Debug, Default)]
struct Tally {
    trials: usize,
    /// Answers after a thaw, whatever they say.
    answered: usize,
    /// 200s after a thaw, in the term of before.
    wrong: Vec<Sample>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.trials += other.trials;
        self.answered += other.answered;
        self.wrong.extend(other.wrong);
    }

    /// Takes in what one connection was answered.
    fn take_in(&mut self, samples: &[Sample], term: (u64, u64), thawed: Moment) {
        for sample in samples.iter().filter(|sample| sample.received >= thawed) {
            self.answered += 1;
            if sample.leading().is_some_and(|answer| (answer.epoch, answer.term) <= term) {
                self.wrong.push(*sample);
            }
        }
    }
}

/// Stops the leader for two leases while it is busy, and lets it go on.
fn freeze_and_thaw(flock: &mut Flock, lead: &Lead, tally: &mut Tally) -> Result<()> {
    let patient = PollerOptions { timeout: PATIENCE, ..PollerOptions::default() };
    let flood = PollerOptions { interval: Duration::ZERO, pipelined: PIPELINED, ..patient };
    let late = PollerOptions { interval: LATE_INTERVAL, ..patient };
    let fresh = PollerOptions { fresh_connections: true, ..patient };
    let all = [&[flood; FLOODS][..], &[late; LATE], &[fresh]].concat();
    let begin = Moment::now();
    let sidecar = flock.sidecar(&lead.name)?;
    let pollers = all.into_iter().map(|options| sidecar.poll(options)).collect::<Result<Vec<Poller>>>()?;
    let answered_since = |poller: &Poller, since: Moment| {
        let found = poller.wait_for(since, since.after(PATIENCE), |sample| sample.sent >= since);
        found.map(|_| ()).context("a poller was not answered")
    };
    for poller in &pollers {
        answered_since(poller, begin)?;
    }
    flock.sidecar(&lead.name)?.freeze()?;
    let frozen = Moment::now();
    wait_until(frozen.after(2 * TTL));
    let thawed = Moment::now();
    flock.sidecar(&lead.name)?.thaw()?;
    for poller in pollers.iter().chain([flock.poller(&lead.name)?]) {
        answered_since(poller, thawed)?;
    }
    judge(flock, lead, pollers, [begin, frozen, thawed], tally)
}

fn judge(flock: &mut Flock, lead: &Lead, pollers: Vec<Poller>, times: [Moment; 3], tally: &mut Tally) -> Result<()> {
    let [begin, frozen, thawed] = times;
    let polled = flock.poller(&lead.name)?.samples_since(begin);
    // A busy machine may have cost it its term before: then this was no trial.
    let last_before = polled.iter().rev().find(|sample| sample.received <= frozen);
    tally.trials += usize::from(last_before.and_then(Sample::leading).is_some());
    tally.take_in(&polled, lead.term, thawed);
    for poller in pollers {
        let samples = poller.stop();
        tally.take_in(&samples, lead.term, thawed);
        flock.also_seen(&lead.name, samples);
    }
    Ok(())
}

/// One election of two, of which the leader is frozen again and again.
fn one_election(
    etcd: &EtcdServer,
    number: usize,
    trials: usize,
    sabotage: Option<&str>,
    enough: &AtomicBool,
) -> Result<Tally> {
    let mut flock = Flock::new(etcd.endpoints(), &[&["--lease-ttl", "2s"], &VALID_UNTIL_UNTIL]);
    flock = flock.in_election(&format!("thaw-{number}"));
    for name in ["one", "two"] {
        let mut options = flock.options(name);
        if let Some(protection) = sabotage {
            options = options.with_env("BELLWETHER_SABOTAGE", protection);
        }
        flock.join_as(name, &options)?;
    }
    let mut tally = Tally::default();
    while tally.trials < trials && !enough.load(Ordering::Relaxed) {
        let lead = flock.lead_since(Moment::now())?;
        for name in flock.names().iter().filter(|name| **name != lead.name) {
            flock.wait_for(name, |_, body| body["state"] == "standby")?;
        }
        freeze_and_thaw(&mut flock, &lead, &mut tally)?;
        if sabotage.is_some() && !tally.wrong.is_empty() {
            enough.store(true, Ordering::Relaxed);
        }
    }
    if sabotage.is_none() {
        flock.end()?;
    }
    Ok(tally)
}

/// All elections side by side.
fn freezes(etcd: &EtcdServer, trials: usize, sabotage: Option<&str>) -> Result<Tally> {
    let enough = AtomicBool::new(false);
    let each = trials.div_ceil(ELECTIONS);
    let results: Vec<Result<Tally>> = thread::scope(|scope| {
        let run = |number| {
            let enough = &enough;
            scope.spawn(move || one_election(etcd, number, each, sabotage, enough))
        };
        let running: Vec<_> = (0..ELECTIONS).map(run).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_panic| Err(anyhow!("an election's thread panicked")))
        };
        running.into_iter().map(join).collect()
    });
    let mut total = Tally::default();
    for result in results {
        total.add(result?);
    }
    Ok(total)
}

#[tokio::test]
async fn a_thawed_leader_never_answers_200() -> Result<()> {
    let trials = match std::env::var("BELLWETHER_TRIALS") {
        Ok(text) => text.parse().context("BELLWETHER_TRIALS is a number")?,
        Err(_) => TRIALS,
    };
    let etcd = EtcdServer::start_with(quick()).await?;
    let tally = freezes(&etcd, trials, None)?;
    figure(
        "thawed leaders",
        format_args!(
            "{} trials, {} answers after the thaw, {} of them 200",
            tally.trials,
            tally.answered,
            tally.wrong.len()
        ),
    );
    ensure!(tally.trials >= trials);
    ensure!(tally.answered >= trials * FLOODS, "the requests that waited were not answered");
    ensure!(tally.wrong.is_empty(), "{:?}", tally.wrong);
    Ok(())
}

#[cfg(feature = "sabotage")]
#[tokio::test]
async fn control_without_the_check_at_every_request_a_thawed_leader_answers_200() -> Result<()> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let tally = freezes(&etcd, TRIALS, Some("no-request-check"))?;
    figure("thawed leaders without the check", format_args!("{} × 200 in {} trials", tally.wrong.len(), tally.trials));
    ensure!(!tally.wrong.is_empty(), "{TRIALS} trials without the check, and nothing was wrong: {tally:?}");
    Ok(())
}
