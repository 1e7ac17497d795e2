//! Commands and callers that make it hard to see what is there.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::libc::{RLIMIT_NOFILE, prlimit, rlim_t, rlimit};
use nix::unistd::Pid;
use support::process::write_program;
use support::{Moment, Sidecar, SidecarOptions};

use crate::scene::{KILL_LATENCY, PATIENCE, STOP_TIME, Scene, TIMINGS, guardian_of, is_there, wait_for, wait_until};
use crate::witness::Manner;

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
    write_program(&caller, &format!("#!/bin/sh\nexec env --ignore-signal=CHLD {bellwether} \"$@\"\n"))?;
    let options = SidecarOptions::new(&caller, "one", &scene.etcd.endpoints()).with(&TIMINGS);
    let pid = scene.path("pid").display().to_string();
    let mut one = Sidecar::start(&options.executing(&["sh", "-c", &format!("echo $$ > {pid}; exit 7")]))?;
    let ended = one.wait_exit(PATIENCE)?;
    ensure!(ended.code() == Some(7), "{ended}\n{}", one.log_tail());
    let pid: u32 = scene.lines("pid")[0].parse()?;
    ensure!(!is_there(pid));
    Ok(())
}

/// Lets a process open files up to this number.
fn allow_files(pid: Pid, most: rlim_t) -> Result<()> {
    let limit = rlimit { rlim_cur: most, rlim_max: 64 };
    // SAFETY: the limit is read by the call and by nobody after it, and nothing is written.
    #[expect(unsafe_code, reason = "nix sets limits of this process only")]
    let done = unsafe { prlimit(pid.as_raw(), RLIMIT_NOFILE, &raw const limit, std::ptr::null_mut()) };
    ensure!(done == 0, "prlimit: {}", std::io::Error::last_os_error());
    Ok(())
}

#[tokio::test]
async fn a_guardian_that_cannot_see_processes_kills_the_group_in_time_and_the_others_when_it_can() -> Result<()> {
    let scene = Scene::new().await?;
    let mut one = Sidecar::start(&scene.with_witness("one", Manner::Deaf)?)?;
    let term = scene.wait_for_family("one", 0)?;
    let guardian = guardian_of(&one).context("a guardian")?;
    allow_files(guardian, 3)?;
    let struck = Moment::now();
    one.kill9()?;
    wait_until(struck.after(STOP_TIME + KILL_LATENCY));
    let alive = scene.lives_of(term)?.into_iter().filter(|life| is_there(life.pid)).map(|life| life.role);
    let alive: Vec<String> = alive.collect();
    ensure!(alive == ["orphan"], "it has left the group and cannot be seen, all others can: {alive:?}");
    allow_files(guardian, 64)?;
    scene.wait_for_the_end_of(term)?;
    Ok(())
}

/// A dead child that nobody has waited for.
fn zombie_of(parent: u32) -> Result<Option<u32>> {
    for entry in fs::read_dir("/proc")? {
        let stat = fs::read(entry?.path().join("stat")).unwrap_or_default();
        let stat = String::from_utf8_lossy(&stat).into_owned();
        let Some((name, rest)) = stat.rsplit_once(") ") else { continue };
        if rest.starts_with(&format!("Z {parent} ")) {
            return Ok(name.split(' ').next().and_then(|pid| pid.parse().ok()));
        }
    }
    Ok(None)
}

#[tokio::test]
async fn what_a_health_probe_leaves_behind_in_a_session_of_its_own_is_reaped() -> Result<()> {
    let scene = Scene::new().await?;
    let probe = "exec:setsid sleep 0.1 & sleep 0.05";
    let options = scene.options("one", &["sleep", "600"]).with(&["--app-health", probe, "--app-health-interval", "1s"]);
    let mut one = Sidecar::start(&options)?;
    // One that is dead for longer than a child of bellwether's own is.
    let zombie = wait_for("a dead orphan", || {
        let Some(zombie) = zombie_of(one.pid())? else { return Ok(None) };
        wait_until(Moment::now().after(Duration::from_millis(100)));
        Ok(fs::exists(format!("/proc/{zombie}"))?.then_some(zombie))
    })?;
    wait_for("it is reaped", || Ok((!fs::exists(format!("/proc/{zombie}"))?).then_some(())))?;
    ensure!(one.exited()?.is_none());
    Ok(())
}
