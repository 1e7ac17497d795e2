//! Standing down in order, signals, ends of the command, exit codes.

use anyhow::{Result, ensure};
use nix::libc::SIGRTMIN;
use nix::sys::signal::Signal;
use support::etcd::KeyTimeline;
use support::{Moment, Sidecar};

use crate::scene::{KILL_LATENCY, LOCK_KEY, PATIENCE, STOP_TIME, Scene, figure, is_there, wait_for};
use crate::witness::Manner;

#[tokio::test]
async fn a_command_runs_only_while_its_candidate_leads_and_moves_with_the_lock() -> Result<()> {
    let scene = Scene::new().await?;
    let mut one = Sidecar::start(&scene.with_witness("one", Manner::Mild)?)?;
    let first = scene.wait_for_family("one", 0)?;
    let two = Sidecar::start(&scene.with_witness("two", Manner::Mild)?)?;
    two.wait_for(PATIENCE, |_, body| body["state"] == "standby")?;
    ensure!(one.leader()?.1["term"] == first);
    ensure!(one.stdout().iter().all(|line| !line.contains("is the leader")), "stdout is the command's");
    one.wait_for_log("one is the leader", PATIENCE)?;
    one.signal(Signal::SIGTERM)?;
    ensure!(one.wait_exit(PATIENCE)?.code() == Some(0), "{}", one.log_tail());
    let second = scene.wait_for_family("two", first)?;
    ensure!(two.resign("1s")? == 202);
    scene.wait_for_the_end_of(second)?;
    scene.wait_for_family("two", second)?;
    scene.nobody_overlapped()
}

/// Stops a leader whose command does not hear SIGTERM. When the lock was seen free, and the last sign of life.
async fn slow_to_stop(sabotage: Option<&str>) -> Result<(Moment, Moment)> {
    let scene = Scene::new().await?;
    let timeline = KeyTimeline::start(scene.etcd.endpoint(), LOCK_KEY.to_owned())?;
    let mut options = scene.with_witness("one", Manner::Deaf)?;
    if let Some(protection) = sabotage {
        options = options.with_env("BELLWETHER_SABOTAGE", protection);
    }
    let mut one = Sidecar::start(&options)?;
    let term = scene.wait_for_family("one", 0)?;
    let begin = Moment::now();
    one.signal(Signal::SIGTERM)?;
    let released = timeline.wait_for(PATIENCE, |change| change.value.is_none())?.seen;
    let last = scene.wait_for_the_end_of(term)?;
    figure("SIGTERM to a deaf command: last sign of life", format_args!("{:?}", last.since(begin)));
    figure("SIGTERM to a deaf command: lock let go of", format_args!("{:?}", released.since(begin)));
    if sabotage.is_none() {
        ensure!(one.wait_exit(PATIENCE)?.code() == Some(0), "{}", one.log_tail());
        ensure!(last >= begin.after(STOP_TIME / 2), "it was given no time");
        ensure!(last <= begin.after(STOP_TIME + KILL_LATENCY), "it was given too much time");
    }
    Ok((released, last))
}

#[tokio::test]
async fn the_lock_is_let_go_of_only_when_all_of_a_command_that_is_slow_to_stop_is_gone() -> Result<()> {
    let (released, last) = slow_to_stop(None).await?;
    ensure!(released > last, "released {:?} before the last sign of life", last.since(released));
    Ok(())
}

#[cfg(feature = "sabotage")]
#[tokio::test]
async fn control_without_waiting_for_the_work_the_lock_is_let_go_of_while_the_command_lives() -> Result<()> {
    let (released, last) = slow_to_stop(Some("no-work-wait")).await?;
    ensure!(released < last, "released {:?} after the last sign of life", released.since(last));
    Ok(())
}

#[tokio::test]
async fn a_second_sigterm_ends_bellwether_at_once_and_the_guardian_ends_the_command() -> Result<()> {
    let scene = Scene::new().await?;
    let mut one = Sidecar::start(&scene.with_witness("one", Manner::Deaf)?)?;
    let term = scene.wait_for_family("one", 0)?;
    let begin = Moment::now();
    one.signal(Signal::SIGTERM)?;
    one.wait_for_log("standing down", PATIENCE)?;
    one.signal(Signal::SIGTERM)?;
    let code = wait_for("bellwether exits", || one.exited())?.code();
    ensure!(code == Some(143), "{code:?}");
    let last = scene.wait_for_the_end_of(term)?;
    ensure!(last <= begin.after(STOP_TIME + KILL_LATENCY), "alive {:?} later", last.since(begin));
    Ok(())
}

/// A shell that writes every signal it gets to the file `heard`, and ends on none.
fn listener(scene: &Scene) -> String {
    let heard = scene.path("heard").display().to_string();
    let trap = |name: &str| format!("trap 'echo {name} >> {heard}' {name}; ");
    let names = ["HUP", "INT", "QUIT", "USR1", "USR2", "ALRM", "TERM", "CONT", "WINCH", "IO", "34", "64"];
    let traps: String = names.iter().map(|name| trap(name)).collect();
    format!("{traps} echo ready >> {heard}; while :; do sleep 0.02; done")
}

#[tokio::test]
async fn every_signal_that_can_be_caught_reaches_the_command() -> Result<()> {
    let scene = Scene::new().await?;
    let one = Sidecar::start(&scene.options("one", &["bash", "-c", &listener(&scene)]))?;
    let heard = |what: &str| wait_for(what, || Ok(scene.lines("heard").contains(&what.to_owned()).then_some(())));
    heard("ready")?;
    let pid = one.pid().to_string();
    for name in ["HUP", "USR1", "USR2", "ALRM", "CONT", "WINCH", "IO", "34", "64"] {
        let sent = std::process::Command::new("kill").args([&format!("-{name}"), &pid]).status()?;
        ensure!(sent.success());
        heard(name)?;
    }
    ensure!(SIGRTMIN() == 34);
    one.wait_for_log("certificates and password are being read again", PATIENCE)?;
    Ok(())
}

#[tokio::test]
async fn the_command_is_stopped_with_the_signal_that_bellwether_got_and_then_with_sigterm() -> Result<()> {
    for (signal, name) in [(Signal::SIGINT, "INT"), (Signal::SIGQUIT, "QUIT"), (Signal::SIGTERM, "TERM")] {
        let scene = Scene::new().await?;
        let mut one = Sidecar::start(&scene.options("one", &["bash", "-c", &listener(&scene)]))?;
        wait_for("it listens", || Ok((!scene.lines("heard").is_empty()).then_some(())))?;
        one.signal(signal)?;
        ensure!(one.wait_exit(PATIENCE)?.code() == Some(0), "{}", one.log_tail());
        let heard: Vec<String> = scene.lines("heard").into_iter().filter(|line| line != "CONT").collect();
        let expected = if name == "TERM" { vec!["ready", "TERM"] } else { vec!["ready", name, "TERM"] };
        ensure!(heard == expected, "{heard:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_command_that_ends_by_itself_ends_bellwether_with_its_exit_code_and_lets_go_of_the_lock() -> Result<()> {
    let scene = Scene::new().await?;
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill -34 $$", 162)] {
        let mut one = Sidecar::start(&scene.options("one", &["sh", "-c", &format!("sleep 0.5; {script}")]))?;
        let exit = one.wait_exit(PATIENCE)?.code();
        ensure!(exit == Some(code), "{script}: {exit:?} {}", one.log_tail());
        ensure!(scene.etcd.get(LOCK_KEY).await?.is_none(), "{script}");
    }
    Ok(())
}

#[tokio::test]
async fn what_a_command_leaves_behind_when_it_ends_is_gone_before_the_lock_is_let_go_of() -> Result<()> {
    let scene = Scene::new().await?;
    let pids = scene.path("pids").display().to_string();
    let daemon = format!("(trap '' TERM; echo $BASHPID >> {pids}; exec sleep 300)");
    let script = format!("sleep 0.5; {daemon} & setsid bash -c \"{}\" & sleep 0.5; exit 3", daemon.replace('$', "\\$"));
    let mut one = Sidecar::start(&scene.options("one", &["bash", "-c", &script]))?;
    ensure!(one.wait_exit(PATIENCE)?.code() == Some(3), "{}", one.log_tail());
    let left: Vec<u32> = scene.lines("pids").iter().map(|pid| pid.parse()).collect::<Result<_, _>>()?;
    ensure!(left.len() == 2, "{left:?}");
    ensure!(left.iter().all(|pid| !is_there(*pid)));
    Ok(())
}

#[tokio::test]
async fn a_failing_command_runs_again_in_the_same_term_as_the_policy_says() -> Result<()> {
    let scene = Scene::new().await?;
    let runs = scene.path("runs").display().to_string();
    let fails_thrice =
        format!("sleep 0.2; echo $BELLWETHER_TERM >> {runs}; [ $(wc -l < {runs}) -lt 4 ] && exit 9; exit 0");
    let options = scene.options("one", &["sh", "-c", &fails_thrice]).with(&["--restart", "on-failure"]);
    let mut one = Sidecar::start(&options)?;
    ensure!(one.wait_exit(PATIENCE)?.code() == Some(0), "{}", one.log_tail());
    let terms = scene.lines("runs");
    ensure!(terms.len() == 4 && terms.iter().all(|term| *term == terms[0]), "{terms:?}");
    let ends = format!("sleep 0.1; echo >> {runs}");
    let mut one = Sidecar::start(&scene.options("one", &["sh", "-c", &ends]).with(&["--restart", "always"]))?;
    wait_for("it runs again and again", || Ok((scene.lines("runs").len() >= 8).then_some(())))?;
    one.signal(Signal::SIGTERM)?;
    ensure!(one.wait_exit(PATIENCE)?.code() == Some(0), "{}", one.log_tail());
    Ok(())
}

#[tokio::test]
async fn the_command_has_the_lock_in_its_environment_and_no_secret_default_signals_and_no_stdin() -> Result<()> {
    let scene = Scene::new().await?;
    let found = scene.path("found").display().to_string();
    let looks = ["env", "cat", "grep '^Sig[BC]' /proc/self/status", "ps -o pgid= $$", "echo $$", "sleep 0.5"];
    let script = looks.map(|look| format!("{look} >> {found}")).join("; ");
    let options = scene.options("one", &["sh", "-c", &script]).with_env("BELLWETHER_ETCD_PASSWORD", "sesame");
    let user = options.with(&["--etcd-user", "nobody", "--epoch", "4"]);
    let mut one = Sidecar::start(&user)?;
    ensure!(one.wait_exit(PATIENCE)?.code() == Some(0), "{}", one.log_tail());
    let found = scene.lines("found");
    let has = |line: &str| found.iter().any(|found| found == line);
    for line in [
        "BELLWETHER_EPOCH=4",
        "BELLWETHER_LOCK_KEY=/bellwether/default/test",
        "BELLWETHER_ELECTION=test",
        "BELLWETHER_NAMESPACE=default",
        "BELLWETHER_IDENTITY=one",
        "SigBlk:\t0000000000000000",
    ] {
        ensure!(has(line), "{line} in {found:?}");
    }
    ensure!(found.iter().any(|line| line.starts_with("BELLWETHER_TERM=")), "{found:?}");
    ensure!(!found.iter().any(|line| line.contains("sesame")), "{found:?}");
    let [.., group, pid] = &found[..] else { anyhow::bail!("{found:?}") };
    ensure!(group.trim() == pid, "it leads a group of its own: {found:?}");
    ensure!(one.stdout().is_empty(), "stdout is the command's");
    Ok(())
}
