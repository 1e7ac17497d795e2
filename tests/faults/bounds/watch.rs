//! The watches of every standby are dead and nobody is told: no event comes, nothing ends, all else works.

use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use support::Moment;
use support::etcd::EtcdCluster;

use super::figures::Figures;
use super::muffler::Muffler;
use super::scene::{five, three_members};
use crate::flock::{PATIENCE, wait_for};

/// "Re-read the lock key at least every TTL."
const TTL: Duration = Duration::from_secs(4);
/// After the read that finds the lock free: whoever is not the heir waits 200 ms, and then claims.
const CLAIM: Duration = Duration::from_millis(500);

/// How many times a watch had something to tell, and nobody heard it.
fn kept_back(mufflers: &[Muffler]) -> usize {
    mufflers.iter().map(Muffler::kept_back).sum()
}

#[tokio::test]
async fn a_standby_whose_watches_are_silently_dead_takes_over_when_it_reads_the_lock_again() -> Result<()> {
    let etcd = EtcdCluster::start(three_members()).await?;
    let in_front_of = |member| Muffler::start(etcd.client_address(member).parse()?);
    let mufflers: Vec<Muffler> = (0..3).map(in_front_of).collect::<Result<_>>()?;
    let muffled: Vec<String> = mufflers.iter().map(Muffler::url).collect();
    let (mut flock, mut lead) = five(muffled, &[&["--lease-ttl", "4s", "--answer-validity", "0s"]])?;
    let mut figures = Figures::new(
        "watches silently dead, SIGTERM of the leader, re-read every 4 s: time without a leader",
        Duration::ZERO..=TTL + CLAIM,
    );
    // Until one is left: with fewer standbys the next read is further away.
    let mut standbys = flock.names();
    while standbys.len() > 1 {
        standbys.retain(|name| *name != lead.name);
        // They have read the lock since it was claimed: the next read is up to a lease away.
        for name in &standbys {
            flock.wait_for(name, |_, body| body["name"] == lead.name.as_str())?;
        }
        let before = kept_back(&mufflers);
        let told = Moment::now();
        flock.sidecar(&lead.name)?.signal(Signal::SIGTERM)?;
        flock.sidecar(&lead.name)?.wait_exit(PATIENCE)?;
        let next = flock.next_term(&lead)?;
        figures.add(flock.time_without_leader(&lead, &next)?, flock.circumstances(told, &[&lead, &next])?);
        wait_for("each standby would have been told", || kept_back(&mufflers) >= before + standbys.len())?;
        lead = next;
    }
    flock.end()?;
    figures.judge()
}
