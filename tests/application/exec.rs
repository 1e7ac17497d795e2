//! Probes that are commands leave nothing behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use support::Moment;

use crate::flock::{PATIENCE, wait_for};
use crate::scene::Scene;

/// The processes whose numbers were written into this file so far.
fn started(file: &Path) -> Vec<u32> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// A zombie is dead, whoever has to reap it.
fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// The children of a process, zombies included.
fn children(of: u32) -> Result<BTreeSet<u32>> {
    let mut children = BTreeSet::new();
    for thread in fs::read_dir(format!("/proc/{of}/task"))? {
        let list = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
        children.extend(list.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(children)
}

#[tokio::test]
async fn commands_that_are_too_slow_leave_no_process_behind_neither_while_it_runs_nor_after() -> Result<()> {
    let mut scene = Scene::new().await?;
    let folder = tempfile::TempDir::new()?;
    let pids = folder.path().join("pids");
    let switch = folder.path().join("slow");
    // Healthy until the switch is there; then too slow, in a way that SIGTERM would not end.
    let command = format!(
        "exec:[ -e {switch} ] || exit 0; trap '' TERM; sleep 60 & echo $! >> {pids}; echo $$ >> {pids}; wait",
        switch = switch.display(),
        pids = pids.display()
    );
    scene.join("probing", &command, &["--drain-timeout", "1h"])?;
    scene.flock.lead_of_one("probing", Moment::now())?;
    fs::write(&switch, "")?;
    scene.wait_for_reason("probing", "its application is not healthy")?;
    let sidecar = scene.flock.sidecar("probing")?.pid();
    wait_for("ten commands have been too slow", || started(&pids).len() >= 20)?;
    let children = children(sidecar)?;
    ensure!(children.len() <= 2, "one command at a time, and one that is being reaped: {children:?}");

    // In the midst of a probe: it does not lead, and so has nothing to wait for.
    scene.flock.sidecar("probing")?.signal(Signal::SIGTERM)?;
    let exit = scene.flock.sidecar("probing")?.wait_exit(PATIENCE)?;
    ensure!(exit.code() == Some(0), "{exit}");
    let all = started(&pids);
    wait_for("every command and what it started is dead", || !all.iter().any(|pid| lives(*pid)))?;
    scene.flock.end().context("the story")?;
    Ok(())
}

#[tokio::test]
async fn a_command_that_fails_is_an_application_that_is_gone_once_the_sidecar_stops() -> Result<()> {
    let mut scene = Scene::new().await?;
    let folder = tempfile::TempDir::new()?;
    let alive = folder.path().join("alive");
    fs::write(&alive, "")?;
    scene.join("old", &format!("exec:test -e {}", alive.display()), &["--drain-timeout", "1h"])?;
    scene.flock.lead_of_one("old", Moment::now())?;
    let lock = scene.lock_timeline()?;
    scene.flock.sidecar("old")?.signal(Signal::SIGTERM)?;
    scene.flock.wait_for("old", |_, body| body["state"] == "standing_down")?;
    let before = Moment::now();
    fs::remove_file(&alive)?;
    let released = lock.wait_for(PATIENCE, |change| change.value.is_none())?;
    ensure!(released.seen > before, "the lock is held while the command succeeds");
    scene.flock.sidecar("old")?.wait_exit(PATIENCE)?;
    scene.flock.end()?;
    Ok(())
}
