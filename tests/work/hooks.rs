//! The hooks: their order, their time, and what becomes of one that fails.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use support::{Moment, Sidecar, SidecarOptions};

use crate::scene::{KILL_LATENCY, LOCK_KEY, PATIENCE, STOP_TIME, Scene, wait_for};

/// A command line that notes its beginning and its end in the file `order`, and takes a while.
fn noting(scene: &Scene, what: &str, seconds: &str) -> String {
    let order = scene.path("order").display().to_string();
    format!("echo begin {what} $BELLWETHER_TERM >> {order}; sleep {seconds}; echo end {what} >> {order}")
}

fn words(scene: &Scene) -> Vec<String> {
    scene.lines("order").iter().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

/// `bellwether run` with the hooks alone.
fn hooks_alone(scene: &Scene, on_lead: &str, on_stand_down: &str) -> SidecarOptions {
    scene.options("one", &[]).with(&["--on-lead", on_lead, "--on-stand-down", on_stand_down])
}

#[tokio::test]
async fn on_lead_then_the_command_then_on_stand_down_never_overlapping_and_the_lock_last() -> Result<()> {
    let scene = Scene::new().await?;
    let command = format!(
        "trap '{}; exit' TERM; echo begin command >> {order}; while :; do sleep 0.01; done",
        format_args!("sleep 0.2; echo end command >> {}", scene.path("order").display()),
        order = scene.path("order").display(),
    );
    let hooks = [noting(&scene, "on-lead", "0.3"), noting(&scene, "on-stand-down", "0.3")];
    let options = scene.options("one", &["sh", "-c", &command]);
    let mut one = Sidecar::start(&options.with(&["--on-lead", &hooks[0], "--on-stand-down", &hooks[1]]))?;
    wait_for("the command", || Ok(words(&scene).contains(&"begin command".to_owned()).then_some(())))?;
    one.signal(Signal::SIGTERM)?;
    wait_for("the second hook", || Ok(words(&scene).contains(&"begin on-stand-down".to_owned()).then_some(())))?;
    ensure!(scene.etcd.get(LOCK_KEY).await?.is_some(), "the lock is held as long as a hook runs");
    ensure!(one.wait_exit(PATIENCE)?.code() == Some(0), "{}", one.log_tail());
    ensure!(scene.etcd.get(LOCK_KEY).await?.is_none());
    let expected =
        ["begin on-lead", "end on-lead", "begin command", "end command", "begin on-stand-down", "end on-stand-down"];
    ensure!(words(&scene) == expected, "{:?}", scene.lines("order"));
    Ok(())
}

#[tokio::test]
async fn run_has_hooks_too_and_a_resignation_runs_them() -> Result<()> {
    let scene = Scene::new().await?;
    let mut one =
        Sidecar::start(&hooks_alone(&scene, &noting(&scene, "on-lead", "0"), &noting(&scene, "on-stand-down", "0")))?;
    wait_for("on-lead", || Ok((words(&scene).len() == 2).then_some(())))?;
    ensure!(one.resign("1s")? == 202);
    wait_for("both, twice", || Ok((words(&scene).len() >= 6).then_some(())))?;
    ensure!(words(&scene)[2..5] == ["begin on-stand-down", "end on-stand-down", "begin on-lead"]);
    ensure!(one.stdout().contains(&"one is the leader".to_owned()), "stdout is bellwether's here");
    one.signal(Signal::SIGTERM)?;
    ensure!(one.wait_exit(PATIENCE)?.code() == Some(0), "{}", one.log_tail());
    Ok(())
}

#[tokio::test]
async fn a_failing_on_lead_gives_the_leadership_back_and_the_command_never_runs() -> Result<()> {
    for (on_lead, timeout) in [("exit 3", "10s"), ("sleep 60", "200ms")] {
        let scene = Scene::new().await?;
        let ran = scene.path("ran").display().to_string();
        let options = scene.options("bad", &["touch", &ran]).with(&["--on-lead", on_lead, "--hook-timeout", timeout]);
        let bad = Sidecar::start(&options.with(&["--on-stand-down", &noting(&scene, "undo", "0")]))?;
        wait_for("it is undone", || Ok((words(&scene) == ["begin undo", "end undo"]).then_some(())))?;
        let good = Sidecar::start(&scene.options("good", &["sleep", "60"]))?;
        good.wait_until_leading(PATIENCE)?;
        bad.wait_for(PATIENCE, |_, body| body["state"] == "standby")?;
        ensure!(!scene.path("ran").exists());
    }
    Ok(())
}

#[tokio::test]
async fn an_on_lead_that_still_runs_is_stopped_before_on_stand_down() -> Result<()> {
    let scene = Scene::new().await?;
    let order = scene.path("order").display().to_string();
    let deaf = format!("trap '' TERM; echo begin on-lead >> {order}; sleep 60; echo end on-lead >> {order}");
    let mut one = Sidecar::start(&hooks_alone(&scene, &deaf, &noting(&scene, "on-stand-down", "0")))?;
    wait_for("on-lead", || Ok((!words(&scene).is_empty()).then_some(())))?;
    let begin = Moment::now();
    one.signal(Signal::SIGTERM)?;
    wait_for("on-stand-down", || Ok((words(&scene).len() >= 2).then_some(())))?;
    ensure!(begin.after(STOP_TIME / 2).passed(), "on-lead was given time to end");
    ensure!(one.wait_exit(PATIENCE)?.code() == Some(0), "{}", one.log_tail());
    ensure!(words(&scene) == ["begin on-lead", "begin on-stand-down", "end on-stand-down"]);
    Ok(())
}

#[tokio::test]
async fn an_on_stand_down_that_fails_or_hangs_is_told_of_and_keeps_nobody() -> Result<()> {
    for (on_stand_down, told) in [("exit 5", "exit code 5"), ("trap '' TERM; sleep 60", "its time was up")] {
        let scene = Scene::new().await?;
        let options = hooks_alone(&scene, "true", on_stand_down).with(&["--hook-timeout", "300ms"]);
        let mut one = Sidecar::start(&options)?;
        one.wait_for_log("the on-lead hook has ended", PATIENCE)?;
        let begin = Moment::now();
        one.signal(Signal::SIGTERM)?;
        ensure!(one.wait_exit(PATIENCE)?.code() == Some(0), "{}", one.log_tail());
        ensure!(one.log_tail().contains(told), "{}", one.log_tail());
        ensure!(scene.etcd.get(LOCK_KEY).await?.is_none());
        // Answers given out are waited for beside it: a second.
        let most = STOP_TIME + KILL_LATENCY + std::time::Duration::from_millis(1300 + 2000);
        ensure!(!begin.after(most).passed(), "it took {:?}", Moment::now().since(begin));
    }
    Ok(())
}
