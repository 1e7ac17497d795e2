//! Who leads has a healthy application.

use std::time::Duration;

use anyhow::{Result, ensure};
use support::Moment;

use crate::app::{Answers, App};
use crate::flock::{figure, wait_until};
use crate::scene::Scene;

const UNHEALTHY: &str = "its application is not healthy";
const STARTING: &str = "its application has not been healthy yet";
const NO_GRACE: [&str; 2] = ["--app-health-start-grace", "0s"];

#[tokio::test]
async fn an_unhealthy_leader_resigns_and_a_healthy_standby_leads() -> Result<()> {
    let mut scene = Scene::new().await?;
    let (ill, well) = (App::start(Answers::Well)?, App::start(Answers::Well)?);
    scene.join("old", &ill.http(), &[])?;
    let old = scene.flock.lead_of_one("old", Moment::now())?;
    scene.join("heir", &well.http(), &[])?;
    scene.wait_for_line(&["heir", "old"]).await?;

    let begin = Moment::now();
    ill.answer(Answers::Ill);
    let new = scene.flock.next_term(&old)?;
    ensure!(new.name == "heir", "{} leads", new.name);
    figure(
        "from the first failing probe's cause to the heir's 200",
        format_args!("{:?}", new.sample.received.since(begin)),
    );
    scene.wait_for_reason("old", UNHEALTHY)?;
    scene.flock.wait_for_log("old", "app_unhealthy")?;
    scene.flock.wait_for_log("old", "the application is unhealthy: answered 503 Service Unavailable")?;
    scene.wait_for_line(&["heir"]).await?;

    // Back in line, behind who leads now; and it may lead again, without a cool-down.
    ill.answer(Answers::Well);
    scene.wait_for_line(&["heir", "old"]).await?;
    let end = well.end();
    let again = scene.flock.next_term(&new)?;
    ensure!(again.name == "old" && again.sample.received > end, "{again:?}");
    scene.flock.end()?;
    Ok(())
}

/// One sidecar alone, whose application is ill: it does not lead until the application is well.
async fn alone_with_an_ill_application(sabotage: Option<&str>) -> Result<bool> {
    let mut scene = Scene::new().await?;
    let app = App::start(Answers::Ill)?;
    match sabotage {
        None => scene.join("alone", &app.http(), &NO_GRACE)?,
        Some(protection) => scene.join_without(protection, "alone", &app.http(), &NO_GRACE)?,
    }
    let lock = scene.lock_timeline()?;
    if sabotage.is_none() {
        scene.wait_for_reason("alone", UNHEALTHY)?;
    }
    // Ten times as long as a free lock is left to others.
    app.wait_until_asked(10)?;
    let claimed_while_ill = !lock.changes().is_empty();
    if !claimed_while_ill {
        ensure!(scene.in_line().await?.is_empty(), "who cannot lead is not in line");
        app.answer(Answers::Well);
        scene.flock.lead_of_one("alone", Moment::now())?;
    }
    scene.flock.end()?;
    Ok(claimed_while_ill)
}

#[tokio::test]
async fn an_unhealthy_sidecar_never_claims_though_it_is_alone() -> Result<()> {
    ensure!(!alone_with_an_ill_application(None).await?, "it claimed while its application was ill");
    Ok(())
}

#[cfg(feature = "sabotage")]
#[tokio::test]
async fn control_who_does_not_listen_to_its_application_claims() -> Result<()> {
    ensure!(alone_with_an_ill_application(Some("no-health-gate")).await?, "the test would not have seen it");
    Ok(())
}

#[tokio::test]
async fn when_all_are_unhealthy_nobody_leads_until_one_is_healthy_again() -> Result<()> {
    let mut scene = Scene::new().await?;
    let apps = [App::start(Answers::Well)?, App::start(Answers::Well)?];
    scene.join("a", &apps[0].http(), &[])?;
    let first = scene.flock.lead_of_one("a", Moment::now())?;
    scene.join("b", &apps[1].http(), &[])?;
    scene.wait_for_line(&["a", "b"]).await?;

    apps[1].answer(Answers::Ill);
    scene.wait_for_reason("b", UNHEALTHY)?;
    apps[0].answer(Answers::Ill);
    scene.wait_for_reason("a", UNHEALTHY)?;
    scene.wait_for_line(&[]).await?;
    ensure!(scene.holder().await?.is_none(), "nobody holds the lock");
    let nobody = Moment::now();
    for app in &apps {
        app.wait_until_asked(10)?;
    }
    scene.flock.nobody_led_since(nobody)?;

    apps[1].answer(Answers::Well);
    let next = scene.flock.next_term(&first)?;
    ensure!(next.name == "b", "{} leads", next.name);
    scene.flock.end()?;
    Ok(())
}

#[tokio::test]
async fn flapping_below_the_threshold_changes_nothing() -> Result<()> {
    let mut scene = Scene::new().await?;
    let app = App::start(Answers::Well)?;
    // One probe that a busy machine makes too slow would be one too many here.
    scene.join_as(
        "steady",
        &["--app-health", &app.http(), "--app-health-interval", "1s", "--app-health-failures", "3"],
    )?;
    scene.flock.lead_of_one("steady", Moment::now())?;
    app.answer(Answers::Flapping);
    app.wait_until_asked(9)?;
    app.answer(Answers::Well);
    app.wait_until_asked(1)?;
    let log = scene.flock.sidecar("steady")?.log();
    ensure!(!log.iter().any(|line| line.contains("unhealthy")), "{log:#?}");
    let audit = scene.flock.end()?;
    ensure!(audit.reigns.len() == 1, "{audit}");
    Ok(())
}

#[tokio::test]
async fn an_application_that_starts_slowly_is_waited_for_and_nobody_leads_meanwhile() -> Result<()> {
    let mut scene = Scene::new().await?;
    // A port that is free now and the application's later.
    let free = App::start(Answers::Well)?;
    let (address, target) = (free.address(), free.tcp());
    free.end();
    scene.join("patient", &target, &["--app-health-start-grace", "1h"])?;
    let told = scene.wait_for_reason("patient", STARTING)?;
    ensure!(told["leading"] == false && told["candidates_total"] == 0, "{told:#}");
    scene.flock.wait_for("patient", |_, body| body["state"] == "standby")?;
    let waiting = Moment::now();
    // As many failures as would make it unhealthy three times over.
    wait_until(waiting.after(Duration::from_secs(2)));
    scene.wait_for_reason("patient", STARTING)?;
    scene.flock.nobody_led_since(waiting)?;
    ensure!(scene.holder().await?.is_none() && scene.in_line().await?.is_empty(), "it is not in line");

    let app = App::start_at(address, Answers::Well)?;
    scene.flock.lead_of_one("patient", Moment::now())?;
    drop(app);
    scene.wait_for_reason("patient", UNHEALTHY)?;
    scene.flock.end()?;
    Ok(())
}

#[tokio::test]
async fn an_application_that_does_not_start_within_the_grace_is_unhealthy() -> Result<()> {
    let mut scene = Scene::new().await?;
    let free = App::start(Answers::Well)?;
    let target = free.tcp();
    free.end();
    scene.join("hopeless", &target, &["--app-health-start-grace", "500ms"])?;
    scene.wait_for_reason("hopeless", UNHEALTHY)?;
    scene.flock.end()?;
    Ok(())
}
