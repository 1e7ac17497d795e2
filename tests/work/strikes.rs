//! Bellwether, its guardian or the way to etcd is struck, and nothing of the command is alive afterwards.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use support::etcd::EtcdServer;
use support::{Moment, Proxy, Sidecar};

use crate::scene::{
    KILL_LATENCY, LOCK_KEY, MARGIN, PATIENCE, STOP_TIME, Scene, TTL, figure, guardian_of, is_there, send, wait_for,
    wait_until,
};
#[cfg(feature = "sabotage")]
use crate::witness;
use crate::witness::{Life, Manner};

/// A leader whose command with its family is there, and a standby.
async fn leader_and_standby(manner: Manner, sabotage: Option<&str>) -> Result<(Scene, Sidecar, Sidecar, u64)> {
    let scene = Scene::new().await?;
    let join = |name: &str| {
        let mut options = scene.with_witness(name, manner)?;
        if let Some(protection) = sabotage {
            options = options.with_env("BELLWETHER_SABOTAGE", protection);
        }
        Sidecar::start(&options)
    };
    let one = join("one")?;
    let term = scene.wait_for_family("one", 0)?;
    let two = join("two")?;
    two.wait_for(PATIENCE, |_, body| body["state"] == "standby")?;
    Ok((scene, one, two, term))
}

/// The last sign of life of this term came no later than so long after `struck`.
fn dead_within(scene: &Scene, term: u64, struck: Moment, most: Duration, how: &str) -> Result<()> {
    let last = scene.wait_for_the_end_of(term)?;
    figure(&format!("{how}: last sign of life after it"), format_args!("{:?}, at most {most:?}", last.since(struck)));
    ensure!(last <= struck.after(most + KILL_LATENCY), "alive {:?} after it", last.since(struck));
    Ok(())
}

#[tokio::test]
async fn when_bellwether_is_killed_its_command_with_all_descendants_is_dead_within_the_stop_time() -> Result<()> {
    let (scene, mut one, _two, term) = leader_and_standby(Manner::Deaf, None).await?;
    let struck = Moment::now();
    one.kill9()?;
    dead_within(&scene, term, struck, STOP_TIME, "bellwether killed")?;
    scene.wait_for_family("two", term)?;
    scene.nobody_overlapped()
}

#[tokio::test]
async fn when_bellwether_is_killed_its_command_is_asked_to_end_at_once() -> Result<()> {
    let (scene, mut one, _two, term) = leader_and_standby(Manner::Mild, None).await?;
    let struck = Moment::now();
    one.kill9()?;
    dead_within(&scene, term, struck, STOP_TIME / 3, "bellwether killed, a mild command")
}

#[tokio::test]
async fn a_bellwether_that_is_back_at_once_with_the_same_term_waits_for_what_the_one_before_has_left() -> Result<()> {
    let scene = Scene::new().await?;
    let state = scene.path("state").display().to_string();
    let options = scene.with_witness("one", Manner::Deaf)?.with(&["--state-dir", &state]);
    let mut one = Sidecar::start(&options)?;
    let term = scene.wait_for_family("one", 0)?;
    // A life that has not lasted a lease is no life to go on with.
    wait_until(Moment::now().after(TTL + TTL / 2));
    let struck = Moment::now();
    one.restart()?;
    let commands = || -> Result<Vec<Life>> {
        let lives = scene.lives_of(term)?;
        Ok(lives.into_iter().filter(|life| life.role == "command").collect())
    };
    wait_for("a second command in the same term", || Ok((commands()?.len() == 2).then_some(())))?;
    let [first, second] = &commands()?[..] else { anyhow::bail!("{:?}", commands()?) };
    figure("killed and back: from one command to the next", format_args!("{:?}", second.first.since(struck)));
    let before = scene.lives_of(term)?.into_iter().filter(|life| life.first <= first.last);
    let last = before.map(|life| life.last).max().context("a command")?;
    ensure!(last < second.first, "{:?} together", last.since(second.first));
    Ok(())
}

#[tokio::test]
async fn when_the_guardian_is_killed_bellwether_kills_the_command_and_ends_with_the_reason() -> Result<()> {
    let (scene, mut one, _two, term) = leader_and_standby(Manner::Deaf, None).await?;
    let guardian = guardian_of(&one).context("a guardian")?;
    let name = std::fs::read_to_string(format!("/proc/{guardian}/comm"))?;
    ensure!(name == "bw-guardian\n", "{name}: who kills all of that name must not kill both");
    let struck = Moment::now();
    send(guardian, Signal::SIGKILL)?;
    dead_within(&scene, term, struck, Duration::ZERO, "guardian killed")?;
    ensure!(one.wait_exit(PATIENCE)?.code() == Some(70), "{}", one.log_tail());
    ensure!(one.log_tail().contains("the guardian of the command was killed"), "{}", one.log_tail());
    scene.wait_for_family("two", term)?;
    scene.nobody_overlapped()
}

#[tokio::test]
async fn when_the_guardian_is_frozen_bellwether_still_kills_in_time() -> Result<()> {
    let (scene, mut one, _two, term) = leader_and_standby(Manner::Deaf, None).await?;
    let guardian = guardian_of(&one).context("a guardian")?;
    send(guardian, Signal::SIGSTOP)?;
    let struck = Moment::now();
    one.signal(Signal::SIGTERM)?;
    dead_within(&scene, term, struck, STOP_TIME, "guardian frozen")?;
    ensure!(one.wait_exit(PATIENCE)?.code() == Some(70), "{}", one.log_tail());
    ensure!(!is_there(guardian.as_raw().unsigned_abs()));
    scene.wait_for_family("two", term)?;
    scene.nobody_overlapped()
}

/// Freezes the leader until another leads.
async fn a_frozen_leader(sabotage: Option<&str>) -> Result<(Scene, u64, Moment)> {
    let (scene, mut one, _two, term) = leader_and_standby(Manner::Deaf, sabotage).await?;
    let struck = Moment::now();
    one.freeze()?;
    scene.wait_for_family("two", term)?;
    // Once more around: whoever is still alive writes it down.
    wait_until(Moment::now().after(KILL_LATENCY));
    let now = Moment::now();
    one.thaw()?;
    one.wait_for(PATIENCE, |_, body| body["state"] == "standby")?;
    figure("bellwether frozen for", format_args!("{:?}", now.since(struck)));
    Ok((scene, term, struck))
}

#[tokio::test]
async fn while_bellwether_is_frozen_its_command_is_dead_before_another_can_lead() -> Result<()> {
    let (scene, term, struck) = a_frozen_leader(None).await?;
    dead_within(&scene, term, struck, TTL - MARGIN, "bellwether frozen")?;
    scene.nobody_overlapped()
}

#[cfg(feature = "sabotage")]
#[tokio::test]
async fn control_without_the_guardians_own_deadline_the_command_of_a_frozen_leader_lives_on() -> Result<()> {
    let (scene, term, _) = a_frozen_leader(Some("no-guardian-deadline")).await?;
    let overlaps = witness::overlaps(&witness::lives(&scene.book())?);
    ensure!(overlaps.iter().any(|(early, _)| early.term == term), "nobody overlapped");
    Ok(())
}

fn through_a_proxy(etcd: &EtcdServer) -> Result<Proxy> {
    let address: SocketAddr = etcd.client_address(0).parse()?;
    Proxy::start(address)
}

#[tokio::test]
async fn when_etcd_is_out_of_reach_the_command_is_dead_before_another_can_lead() -> Result<()> {
    let scene = Scene::new().await?;
    let proxy = through_a_proxy(&scene.etcd)?;
    let mut options = scene.with_witness("one", Manner::Deaf)?;
    options.etcd_endpoints = vec![format!("http://{}", proxy.address())];
    let one = Sidecar::start(&options)?;
    let term = scene.wait_for_family("one", 0)?;
    let two = Sidecar::start(&scene.with_witness("two", Manner::Deaf)?)?;
    two.wait_for(PATIENCE, |_, body| body["state"] == "standby")?;
    let struck = Moment::now();
    proxy.black_hole();
    scene.wait_for_family("two", term)?;
    dead_within(&scene, term, struck, TTL - MARGIN, "etcd out of reach")?;
    proxy.heal();
    one.wait_for(PATIENCE, |_, body| body["state"] == "standby")?;
    scene.nobody_overlapped()
}

#[tokio::test]
async fn when_an_operator_deletes_the_lock_the_command_is_dead_within_the_stop_time() -> Result<()> {
    let (scene, one, _two, term) = leader_and_standby(Manner::Deaf, None).await?;
    scene.etcd.delete(LOCK_KEY).await?;
    let struck = Moment::now();
    dead_within(&scene, term, struck, STOP_TIME, "lock deleted")?;
    one.wait_for(PATIENCE, |_, body| body["state"] == "standby")?;
    scene.wait_for_family("two", term)?;
    Ok(())
}

#[tokio::test]
async fn a_term_that_goes_on_after_jeopardy_has_its_command_again() -> Result<()> {
    let scene = Scene::new().await?;
    let proxy = through_a_proxy(&scene.etcd)?;
    let mut options = scene.with_witness("one", Manner::Mild)?.with(&["--reconnect-window", "0s"]);
    options.etcd_endpoints = vec![format!("http://{}", proxy.address())];
    let one = Sidecar::start(&options)?;
    let term = scene.wait_for_family("one", 0)?;
    let commands =
        || -> Result<usize> { Ok(scene.lives_of(term)?.iter().filter(|life| life.role == "command").count()) };
    ensure!(commands()? == 1);
    proxy.cut();
    wait_for("a second command in the same term", || Ok((commands()? == 2).then_some(())))?;
    let [first, second] =
        &scene.lives_of(term)?.into_iter().filter(|life| life.role == "command").collect::<Vec<_>>()[..]
    else {
        anyhow::bail!("two commands");
    };
    ensure!(first.last < second.first, "{first:?} {second:?}");
    ensure!(one.leader()?.1["term"] == term);
    Ok(())
}
