//! A sidecar with `--state-dir` that dies and comes back.
//!
//! `BELLWETHER_TRIALS=100 make test ARGS='--test faults resume'` is the long run of the kills at the worst moments.

mod disk;
mod ignored;
mod kills;
mod second;
#[cfg(feature = "sabotage")]
mod unlocked;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use support::etcd::EtcdServer;
use support::{Direction, Flow, Moment};
use tempfile::TempDir;

use crate::flock::{Flock, LOCK_KEY, Lead, NEVER_EXPIRES, VALID_UNTIL_UNTIL, figure, quick, wait_for};
use crate::network::proxy_to;

/// The lease of these stories: a sidecar must have lived for as long before it is killed, and be back sooner.
const TTL: Duration = Duration::from_secs(3);
/// The same as a flag.
const LEASE_TTL: [&str; 2] = ["--lease-ttl", "3s"];

/// What the log says of a term that may go on.
const RESUMING: &str = "an earlier process led this term";

/// A folder for `--state-dir`.
struct Folder {
    root: TempDir,
}

impl Folder {
    fn new() -> Result<Self> {
        Ok(Self { root: TempDir::with_prefix("bellwether-state-")? })
    }

    fn path(&self) -> &Path {
        self.root.path()
    }

    /// As arguments.
    fn flags(&self) -> Result<[&str; 2]> {
        Ok(["--state-dir", self.path().to_str().context("a path of ASCII")?])
    }

    fn file(&self) -> PathBuf {
        self.path().join("state.json")
    }

    /// What the file says, if there is one.
    fn state(&self) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(self.file()).ok()?).ok()
    }

    /// For how long the life that wrote the file has renewed its lease.
    fn lived(&self) -> Duration {
        let number = |name: &str| self.state().and_then(|state| state[name].as_u64()).unwrap_or(0);
        Duration::from_nanos(number("sent_ns").saturating_sub(number("began_ns")))
    }

    /// Waits until the next life may go on with the term of this one.
    fn wait_until_resumable(&self) -> Result<()> {
        wait_for("a life has outlasted its lease", || self.lived() >= TTL)
    }
}

/// A leader with a folder that has outlasted its lease, and who stands by.
async fn leader_and_standby(more: &[&str]) -> Result<(EtcdServer, Flock, Folder, Lead)> {
    leader_in(Folder::new()?, more).await
}

/// As [`leader_and_standby`], in this folder.
async fn leader_in(folder: Folder, more: &[&str]) -> Result<(EtcdServer, Flock, Folder, Lead)> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let mut flock = Flock::new(etcd.endpoints(), &[&LEASE_TTL, more]);
    let options = flock.options("leader").with(&folder.flags()?);
    flock.join_as("leader", &options)?;
    let lead = flock.lead_of_one("leader", Moment::now())?;
    flock.join("standby")?;
    folder.wait_until_resumable()?;
    Ok((etcd, flock, folder, lead))
}

/// Kills a sidecar and starts it again on the same ports, with the arguments that it had and more.
fn kill_and_restart(flock: &mut Flock, name: &str) -> Result<Moment> {
    let sidecar = flock.sidecar(name)?;
    sidecar.kill9()?;
    let dead = Moment::now();
    sidecar.restart()?;
    Ok(dead)
}

#[tokio::test]
async fn a_leader_that_is_killed_and_back_before_its_lease_has_expired_goes_on_with_its_term() -> Result<()> {
    let (etcd, mut flock, folder, before) = leader_and_standby(&VALID_UNTIL_UNTIL).await?;
    let key = etcd.get_kv(LOCK_KEY).await?.context("the lock is held")?;
    for life in 1..=3 {
        let dead = kill_and_restart(&mut flock, "leader")?;
        let after = flock.lead_of_one("leader", dead)?;
        ensure!(after.term == before.term, "{after:?}");
        figure(
            &format!("kill -9 and restart, life {life}: from its death to its 200 in the same term"),
            format_args!("{:?}", after.sample.received.since(dead)),
        );
        let now = etcd.get_kv(LOCK_KEY).await?.context("the lock is held")?;
        ensure!((now.lease(), now.create_revision()) == (key.lease(), key.create_revision()), "{now:?}");
        flock.wait_for_log("leader", RESUMING)?;
        folder.wait_until_resumable()?;
    }
    ensure!(flock.leads_so_far("standby")?.is_empty());
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 1 && audit.takeovers.is_empty(), "{audit}");
    figure(
        "three restarts of a leader: longest time without a 200",
        format_args!("{:?}", audit.longest_without_leader),
    );
    Ok(())
}

#[tokio::test]
async fn a_resumed_leader_that_is_stopped_lets_go_of_the_lock_as_any_other_and_leaves_nothing() -> Result<()> {
    let (_etcd, mut flock, folder, before) = leader_and_standby(&["--answer-validity", "300ms"]).await?;
    let dead = kill_and_restart(&mut flock, "leader")?;
    flock.lead_of_one("leader", dead)?;
    flock.sidecar("leader")?.signal(Signal::SIGTERM)?;
    let after = flock.next_term(&before)?;
    ensure!(after.name == "standby");
    let status = flock.sidecar("leader")?.wait_exit(Duration::from_secs(10))?;
    ensure!(status.code() == Some(0), "{status}");
    ensure!(!folder.file().exists(), "{:?}", folder.state());
    flock.end()?;
    Ok(())
}

/// Answers are valid for a second after the death of who gave them. The next life is stopped within that, while it is still
/// asking etcd, which is far away, whether its term goes on.
#[tokio::test]
async fn answers_of_the_life_before_are_waited_for_by_the_next_that_is_stopped_before_it_answers() -> Result<()> {
    const FAR: Duration = Duration::from_millis(100);
    let etcd = EtcdServer::start_with(quick()).await?;
    let (proxy, through_proxy) = proxy_to(&etcd)?;
    let mut flock = Flock::new(etcd.endpoints(), &[&LEASE_TTL, &["--answer-validity", "1s"]]);
    let folder = Folder::new()?;
    let mut options = flock.options("leader").with(&folder.flags()?);
    options.etcd_endpoints = through_proxy;
    flock.join_as("leader", &options)?;
    let before = flock.lead_of_one("leader", Moment::now())?;
    flock.join("standby")?;
    folder.wait_until_resumable()?;
    proxy.set(Direction::ToClient, Flow::Delay(FAR));
    kill_and_restart(&mut flock, "leader")?;
    flock.wait_for_log("leader", RESUMING)?;
    let asked = flock.sidecar("leader")?.leader()?;
    flock.sidecar("leader")?.signal(Signal::SIGTERM)?;
    ensure!(asked.1["state"] == "starting", "stopped too late to show anything: {asked:?}");
    let after = flock.next_term(&before)?;
    ensure!(after.name == "standby");
    // The judgement compares the end of the last answer's validity with the first 200 of the standby.
    flock.end()?;
    Ok(())
}

#[tokio::test]
async fn a_leader_that_is_back_too_late_follows_who_has_taken_over() -> Result<()> {
    let (_etcd, mut flock, _folder, before) = leader_and_standby(&VALID_UNTIL_UNTIL).await?;
    flock.sidecar("leader")?.kill9()?;
    let after = flock.next_term(&before)?;
    flock.sidecar("leader")?.restart()?;
    flock.wait_for("leader", |status, body| status == 503 && body["name"] == "standby")?;
    ensure!(after.name == "standby");
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 2, "{audit}");
    Ok(())
}

#[tokio::test]
async fn a_leader_that_dies_again_and_again_gives_the_lock_to_another() -> Result<()> {
    let (_etcd, mut flock, _folder, before) = leader_and_standby(&VALID_UNTIL_UNTIL).await?;
    let dead = kill_and_restart(&mut flock, "leader")?;
    let resumed = flock.lead_of_one("leader", dead)?;
    ensure!(resumed.term == before.term);
    // This life has not lasted for three seconds.
    kill_and_restart(&mut flock, "leader")?;
    flock.wait_for_log("leader", "letting go of the lock of an earlier process")?;
    let after = flock.next_term(&before)?;
    ensure!(after.name == "standby", "{after:?}");
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 2, "{audit}");
    Ok(())
}

/// Once a lease that lasts for a minute would otherwise have kept everybody waiting.
async fn a_former_leader_lets_go_at_once(flags: &[&str], line: &str) -> Result<()> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let mut flock = Flock::new(etcd.endpoints(), &[&NEVER_EXPIRES, &["--answer-validity", "300ms"]]);
    let folder = Folder::new()?;
    let options = flock.options("leader").with(&folder.flags()?);
    flock.join_as("leader", &options)?;
    let before = flock.lead_of_one("leader", Moment::now())?;
    flock.join("standby")?;
    wait_for("the state is written", || folder.state().is_some())?;
    let sidecar = flock.sidecar("leader")?;
    sidecar.kill9()?;
    let dead = Moment::now();
    let (http, telemetry) = (sidecar.http(), sidecar.telemetry());
    *sidecar = support::Sidecar::start_at(options.with(flags), http, telemetry)?;
    flock.wait_for_log("leader", line)?;
    let after = flock.next_term(&before)?;
    ensure!(after.name == "standby");
    let took = after.sample.received.since(dead);
    ensure!(took < Duration::from_secs(30), "the lease had to expire: {took:?}");
    figure(
        &format!("restart with {flags:?}: from the death of the leader to the next one's 200"),
        format_args!("{took:?}"),
    );
    flock.end()?;
    Ok(())
}

#[tokio::test]
async fn who_never_leads_any_more_lets_go_of_the_lock_of_its_former_life() -> Result<()> {
    a_former_leader_lets_go_at_once(&["--never-lead"], "with --never-lead this sidecar does not lead").await
}

#[tokio::test]
async fn who_died_young_lets_go_of_the_lock_although_its_lease_would_last_for_a_minute() -> Result<()> {
    a_former_leader_lets_go_at_once(&[], "ended before it had lasted one lease").await
}
