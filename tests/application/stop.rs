//! SIGTERM: the lock is held until the application is gone, at most for `--drain-timeout`, and it is 503 meanwhile.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use support::Moment;
use support::etcd::KeyChange;

use crate::app::{Answers, App};
use crate::flock::{PATIENCE, figure};
use crate::scene::Scene;

/// How long the application takes to end: ten times as long as answers hold.
const ENDS_AFTER: Duration = Duration::from_secs(1);

fn is_released(change: &KeyChange) -> bool {
    change.value.is_none()
}

/// A leader whose application goes on for a while after SIGTERM. Whether the lock was held until its end.
async fn the_lock_outlasts_the_application(sabotage: Option<&str>) -> Result<bool> {
    let mut scene = Scene::new().await?;
    let app = App::start(Answers::Well)?;
    match sabotage {
        None => scene.join("old", &app.http(), &["--drain-timeout", "1h"])?,
        Some(protection) => scene.join_without(protection, "old", &app.http(), &["--drain-timeout", "1h"])?,
    }
    let old = scene.flock.lead_of_one("old", Moment::now())?;
    let lock = scene.lock_timeline()?;
    lock.wait_for(PATIENCE, |change| change.value.as_deref() == Some("old"))?;

    let told = Moment::now();
    scene.flock.sidecar("old")?.signal(Signal::SIGTERM)?;
    let no = scene.flock.not_leading_since("old", told)?;
    figure("SIGTERM to 503", format_args!("{:?}", no.received.since(told)));
    crate::flock::wait_until(told.after(ENDS_AFTER));
    if sabotage.is_none() {
        let (status, body) = scene.flock.sidecar("old")?.leader()?;
        ensure!((status, &body["state"]) == (503, &"standing_down".into()), "{status}: {body}");
        ensure!(scene.holder().await?.as_deref() == Some("old"), "the lock is held");
    }
    let app_may_be_gone = Moment::now();
    app.end();
    let released = lock.wait_for(PATIENCE, is_released)?;
    let held_until_the_end = released.seen > app_may_be_gone;
    if held_until_the_end {
        figure("the application's end to the lock's", format_args!("{:?}", released.seen.since(app_may_be_gone)));
    }
    let exit = scene.flock.sidecar("old")?.wait_exit(PATIENCE)?;
    ensure!(exit.code() == Some(0), "{exit}");
    let audit = scene.flock.end()?;
    ensure!(audit.reigns.len() == 1 && audit.reigns[0].end_latest > old.sample.sent, "{audit}");
    Ok(held_until_the_end)
}

#[tokio::test]
async fn the_lock_is_held_while_the_application_answers_and_released_once_it_is_gone() -> Result<()> {
    ensure!(the_lock_outlasts_the_application(None).await?, "it was released before");
    Ok(())
}

#[cfg(feature = "sabotage")]
#[tokio::test]
async fn control_without_waiting_for_the_application_the_lock_is_released_before_its_end() -> Result<()> {
    ensure!(!the_lock_outlasts_the_application(Some("no-app-wait")).await?, "the test would not have seen it");
    Ok(())
}

#[tokio::test]
async fn an_application_that_never_ends_is_waited_for_as_long_as_the_drain_may_last() -> Result<()> {
    const DRAIN: Duration = Duration::from_secs(2);
    let mut scene = Scene::new().await?;
    let (app, next) = (App::start(Answers::Well)?, App::start(Answers::Well)?);
    scene.join("old", &app.tcp(), &["--drain-timeout", "2s"])?;
    let old = scene.flock.lead_of_one("old", Moment::now())?;
    scene.join("heir", &next.tcp(), &[])?;
    scene.wait_for_line(&["heir", "old"]).await?;
    let lock = scene.lock_timeline()?;
    let told = Moment::now();
    scene.flock.sidecar("old")?.signal(Signal::SIGTERM)?;
    let released = lock.wait_for(PATIENCE, is_released)?;
    let held = released.seen.since(told);
    ensure!(held >= DRAIN, "released after {held:?} already");
    figure("SIGTERM to the release, with a drain of 2 s and an application that stays", format_args!("{held:?}"));
    let new = scene.flock.next_term(&old)?;
    ensure!(new.name == "heir", "{} leads", new.name);
    let exit = scene.flock.sidecar("old")?.wait_exit(PATIENCE)?;
    ensure!(exit.code() == Some(0), "{exit}");
    scene.flock.end()?;
    drop(app);
    Ok(())
}

#[tokio::test]
async fn an_application_that_is_gone_before_sigterm_is_not_waited_for() -> Result<()> {
    let mut scene = Scene::new().await?;
    let app = App::start(Answers::Well)?;
    // So seldom that the sidecar hears of the end only because it looks when it is told to stop.
    scene.join_as("old", &["--app-health", &app.http(), "--app-health-interval", "1h", "--drain-timeout", "1h"])?;
    scene.flock.lead_of_one("old", Moment::now())?;
    let lock = scene.lock_timeline()?;
    app.end();
    let told = Moment::now();
    scene.flock.sidecar("old")?.signal(Signal::SIGTERM)?;
    let released = lock.wait_for(PATIENCE, is_released)?;
    figure("SIGTERM to the release, with an application that is gone", format_args!("{:?}", released.seen.since(told)));
    let exit = scene.flock.sidecar("old")?.wait_exit(PATIENCE)?;
    ensure!(exit.code() == Some(0), "{exit}");
    scene.flock.end().context("the story")?;
    Ok(())
}
