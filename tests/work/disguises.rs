//! Commands and callers that make it hard to see what is there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Result, ensure};
use support::{Moment, Sidecar, SidecarOptions};

use crate::scene::{KILL_LATENCY, PATIENCE, STOP_TIME, Scene, TIMINGS, is_there, wait_for};

/// A daemon in a session of its own, deaf to SIGTERM, whose name is no UTF-8: writes its number into `file`.
fn oddly_named(file: &str) -> String {
    format!(
        "setsid sh -c 'trap \"\" TERM; printf \"d\\344mon\" > /proc/self/comm; echo $$ > {file}; while :; do sleep 1; done' & \
         exec sleep 600"
    )
}

#[tokio::test]
async fn a_daemon_whose_name_is_no_utf_8_is_dead_within_the_stop_time() -> Result<()> {
    let scene = Scene::new().await?;
    let command = oddly_named(&scene.path("pid").display().to_string());
    let mut one = Sidecar::start(&scene.options("one", &["sh", "-c", &command]))?;
    let pid: u32 = wait_for("the daemon", || Ok(scene.lines("pid").first().and_then(|line| line.parse().ok())))?;
    let name = fs::read(format!("/proc/{pid}/comm"))?;
    ensure!(name == b"d\xe4mon\n", "{name:?}");
    let struck = Moment::now();
    one.kill9()?;
    wait_for("the daemon is dead", || {
        let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        Ok((name.is_empty() || struck.after(PATIENCE / 2).passed()).then_some(()))
    })?;
    let took = Moment::now().since(struck);
    ensure!(took <= STOP_TIME + KILL_LATENCY, "it lived on for {took:?}");
    Ok(())
}

#[tokio::test]
async fn the_end_of_a_command_is_heard_of_also_when_bellwether_was_started_with_sigchld_ignored() -> Result<()> {
    let scene = Scene::new().await?;
    let caller = scene.path("caller");
    let bellwether = env!("CARGO_BIN_EXE_bellwether");
    fs::write(&caller, format!("#!/bin/sh\nexec env --ignore-signal=CHLD {bellwether} \"$@\"\n"))?;
    fs::set_permissions(&caller, fs::Permissions::from_mode(0o755))?;
    let options = SidecarOptions::new(&caller, "one", &scene.etcd.endpoints()).with(&TIMINGS);
    let pid = scene.path("pid").display().to_string();
    let mut one = Sidecar::start(&options.executing(&["sh", "-c", &format!("echo $$ > {pid}; exit 7")]))?;
    let ended = one.wait_exit(PATIENCE)?;
    ensure!(ended.code() == Some(7), "{ended}\n{}", one.log_tail());
    let pid: u32 = scene.lines("pid")[0].parse()?;
    ensure!(!is_there(pid));
    Ok(())
}
