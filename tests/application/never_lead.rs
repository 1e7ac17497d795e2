//! `--never-lead`: observers know who leads and leave no trace.

use std::time::Duration;

use anyhow::{Result, ensure};
use etcd_client::{Permission, PermissionType};
use nix::sys::signal::Signal;
use support::Moment;
use support::etcd::EtcdServer;

use crate::flock::{Flock, LOCK_KEY, NEVER_EXPIRES, PATIENCE, figure, quick, wait_until};
use crate::scene::Scene;

const NEVER_LEAD: [&str; 1] = ["--never-lead"];

/// The lock is read anew after a lease's life at the latest, which in these tests is a minute: what is known sooner came
/// by the watch.
const BY_THE_WATCH: Duration = Duration::from_secs(20);

async fn scene() -> Result<Scene> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let flock = Flock::new(etcd.endpoints(), &[&NEVER_EXPIRES, &["--answer-validity", "100ms"]]);
    Ok(Scene { etcd, flock })
}

fn observe(scene: &mut Scene, name: &str) -> Result<()> {
    let options = scene.flock.options(name).with(&NEVER_LEAD);
    scene.flock.join_as(name, &options)?;
    scene.flock.wait_for(name, |_, body| body["state"] == "standby" && body["etcd"] == "connected")?;
    Ok(())
}

#[tokio::test]
async fn an_observer_alone_never_leads_and_leaves_no_trace_in_etcd() -> Result<()> {
    let mut scene = scene().await?;
    observe(&mut scene, "watcher")?;
    let alone = Moment::now();
    // Ten times as long as a free lock is left to others.
    wait_until(alone.after(Duration::from_secs(2)));
    ensure!(scene.traces().await? == (0, 0), "keys and leases: {:?}", scene.traces().await?);
    let status = scene.wait_for_reason("watcher", "it was started with --never-lead")?;
    ensure!(status["name"] == "" && status["candidates_total"] == 0, "{status:#}");
    scene.flock.nobody_led_since(alone)?;

    // It stops at once: there is nothing to let go of.
    scene.flock.sidecar("watcher")?.signal(Signal::SIGTERM)?;
    let exit = scene.flock.sidecar("watcher")?.wait_exit(PATIENCE)?;
    ensure!(exit.code() == Some(0), "{exit}");
    ensure!(scene.flock.end()?.reigns.is_empty());
    Ok(())
}

#[tokio::test]
async fn an_observer_names_each_leader_as_soon_as_the_watch_tells() -> Result<()> {
    let mut scene = scene().await?;
    observe(&mut scene, "watcher")?;
    let lock = scene.lock_timeline()?;
    for name in ["first", "second"] {
        scene.flock.join(name)?;
    }
    let first = scene.flock.lead_since(Moment::now())?;
    ensure!(first.name == "first");
    scene.flock.wait_for("watcher", |status, body| status == 503 && body["name"] == "first")?;
    ensure!(scene.in_line().await? == ["first", "second"], "{:?}", scene.in_line().await?);
    let (_, leases) = scene.traces().await?;
    ensure!(leases == 2, "{leases} leases for two candidates and an observer");

    scene.flock.sidecar("first")?.signal(Signal::SIGTERM)?;
    let put = lock.wait_for(PATIENCE, |change| change.value.as_deref() == Some("second"))?;
    let told = scene.flock.wait_for("watcher", |status, body| status == 503 && body["name"] == "second")?;
    let delay = Moment::now().since(put.seen);
    figure(
        "the lock key's change to the observer's naming of the new leader, polled every 5 ms",
        format_args!("{delay:?}"),
    );
    ensure!(delay < BY_THE_WATCH, "{delay:?}");
    let new = scene.flock.next_term(&first)?;
    ensure!(told["term"].as_u64() == Some(new.term.1), "{told} and {new:?}");
    ensure!(scene.flock.sidecar("watcher")?.stdout() == ["first is the leader", "second is the leader"]);

    scene.flock.sidecar("second")?.signal(Signal::SIGTERM)?;
    scene.flock.wait_for("watcher", |status, body| status == 503 && body["name"] == "")?;
    ensure!(scene.flock.leads_so_far("watcher")?.is_empty(), "an observer led");
    scene.flock.end()?;
    Ok(())
}

#[tokio::test]
async fn a_leader_that_comes_back_as_an_observer_leaves_its_old_lock_to_expire_and_names_nobody_meanwhile() -> Result<()>
{
    let etcd = EtcdServer::start_with(quick()).await?;
    let flock = Flock::new(etcd.endpoints(), &[&["--lease-ttl", "3s"]]);
    let mut scene = Scene { etcd, flock };
    scene.flock.join("old")?;
    scene.flock.lead_of_one("old", Moment::now())?;
    let lock = scene.lock_timeline()?;
    let dead = Moment::now();
    scene.flock.restart_with("old", &NEVER_LEAD)?;
    let back = Moment::now();
    let told = scene.flock.wait_for("old", |status, body| status == 503 && body["state"] == "standby")?;
    let held = lock.changes().iter().all(|change| change.value.is_some());
    ensure!(told["name"] == "", "nobody is to take the name in the lock for a leader's (held: {held}): {told}");
    let gone = lock.wait_for(PATIENCE, |change| change.value.is_none())?;
    figure(
        "kill -9 to the lock's end, lease 3 s, restarted with --never-lead",
        format_args!("{:?}", gone.seen.since(dead)),
    );
    ensure!(scene.in_line().await?.is_empty(), "the old registration expires with the lease");
    scene.flock.nobody_led_since(back)?;
    Ok(())
}

#[tokio::test]
async fn an_observer_needs_to_read_and_nothing_else() -> Result<()> {
    let mut scene = scene().await?;
    scene.etcd.add_user("candidate", "secret", LOCK_KEY).await?;
    let mut client = scene.etcd.any_client().await?;
    client.user_add("observer", "secret", None).await?;
    client.role_add("observer").await?;
    for permission in [
        Permission::new(PermissionType::Read, LOCK_KEY),
        Permission::new(PermissionType::Read, format!("{LOCK_KEY}/candidates/")).with_prefix(),
    ] {
        client.role_grant_permission("observer", permission).await?;
    }
    client.user_grant_role("observer", "observer").await?;
    scene.etcd.enable_auth().await?;

    for (name, user, more) in [("leader", "candidate", &[][..]), ("watcher", "observer", &NEVER_LEAD)] {
        let options = scene.flock.options(name).with(&["--etcd-user", user]).with(more);
        scene.flock.join_as(name, &options.with_env("BELLWETHER_ETCD_PASSWORD", "secret"))?;
    }
    scene.flock.lead_of_one("leader", Moment::now())?;
    scene.flock.wait_for("watcher", |status, body| status == 503 && body["name"] == "leader")?;
    scene.flock.sidecar("leader")?.signal(Signal::SIGTERM)?;
    scene.flock.wait_for("watcher", |status, body| status == 503 && body["name"] == "")?;
    let log = scene.flock.sidecar("watcher")?.log();
    ensure!(!log.iter().any(|line| line.contains("permission")), "{log:#?}");
    scene.flock.end()?;
    Ok(())
}

#[tokio::test]
async fn status_tells_an_observer_from_a_candidate() -> Result<()> {
    let mut scene = scene().await?;
    observe(&mut scene, "watcher")?;
    scene.flock.join("leader")?;
    scene.flock.wait_for("watcher", |_, body| body["name"] == "leader")?;
    let at = scene.flock.sidecar("watcher")?.http().to_string();
    let said = std::process::Command::new(env!("CARGO_BIN_EXE_bellwether")).args(["status", "--api", &at]).output()?;
    let table = String::from_utf8(said.stdout)?;
    ensure!(table.contains(&format!("Told by   observer watcher at http://{at} (etcd connected)\n")), "{table}");
    ensure!(table.contains("watcher does not lead: it was started with --never-lead\n"), "{table}");
    ensure!(!table.lines().any(|line| line.starts_with("watcher ")), "it is not in line: {table}");
    scene.flock.end()?;
    Ok(())
}
