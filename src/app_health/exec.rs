//! A command that tells with its exit code. It runs as a process group of its own, of which nothing is left when the
//! probe is over: neither when it has ended, nor when it was too slow, nor when this process stops.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::task::JoinSet;

use super::answer::Failure;
use crate::config::{PASSWORD_VARIABLE, SHELL};

/// Runs commands, one at a time: one that cannot even be killed, because the kernel does not let go of it, is not
/// joined by others.
#[derive(Debug, Default)]
pub(super) struct Commands {
    runs: JoinSet<io::Result<WaitStatus>>,
}

impl Commands {
    /// Whether the command exits with 0. Dropping the future kills it.
    ///
    /// # Errors
    /// [`Failure::Absent`] when it has ended in any other way: of an application that is known by its command only,
    /// this is all that can be known.
    pub(super) async fn run(&mut self, command: &str) -> Result<(), Failure> {
        while self.runs.try_join_next().is_some() {}
        if !self.runs.is_empty() {
            return Err(Failure::Hanging);
        }
        let group = Arc::new(
            Group::start(command).map_err(|error| Failure::Unwell(format!("{SHELL} cannot be started: {error}")))?,
        );
        let _kill_when_dropped = KillOnDrop(Arc::clone(&group));
        self.runs.spawn_blocking(move || group.wait());
        let ended = self.runs.join_next().await.expect("it was begun just now");
        match ended.map_err(io::Error::other).and_then(|ended| ended) {
            Ok(WaitStatus::Exited(_, 0)) => Ok(()),
            Ok(WaitStatus::Exited(_, code)) => Err(Failure::Absent(format!("the command exited with {code}"))),
            Ok(other) => Err(Failure::Absent(format!("the command ended: {other:?}"))),
            Err(error) => Err(Failure::Unwell(format!("the command cannot be waited for: {error}"))),
        }
    }
}

/// A command and what it has started, as far as that has not left its process group.
#[derive(Debug)]
struct Group {
    leader: Pid,
    /// Whether it has been killed to the last. From then on its number may belong to others.
    over: Mutex<bool>,
}

impl Group {
    fn start(command: &str) -> io::Result<Self> {
        let child = Command::new(SHELL)
            .args(["-c", command])
            .env_remove(PASSWORD_VARIABLE)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let leader = i32::try_from(child.id()).map_err(io::Error::other)?;
        // It is reaped by `wait`, below, together with all that is in its group.
        Ok(Self { leader: Pid::from_raw(leader), over: Mutex::new(false) })
    }

    /// Waits for the end of the command, kills what it has left behind, and reaps what is ours to reap.
    fn wait(&self) -> io::Result<WaitStatus> {
        // While it is not reaped its number stays its own, and so can be killed by.
        let ended = retry(|| waitid(Id::Pid(self.leader), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT));
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        if !*over {
            // The command itself, dead already, is still in the group.
            killpg(self.leader, Signal::SIGKILL).ok();
        }
        *over = true;
        drop(over);
        // As the first process of a container this one inherits the orphans, and must reap them too. Elsewhere
        // somebody else does.
        while retry(|| waitid(Id::PGid(self.leader), WaitPidFlag::WEXITED)).is_ok() {}
        Ok(ended?)
    }

    fn kill(&self) {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        if !*over {
            // It fails only when there is nobody left.
            killpg(self.leader, Signal::SIGKILL).ok();
        }
    }
}

fn retry<T>(call: impl Fn() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

struct KillOnDrop(Arc<Group>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        self.0.kill();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use tempfile::TempDir;
    use tokio::time::{sleep, timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// The process whose number a command wrote into this file, once it has.
    async fn written(file: &Path) -> i32 {
        let read = async {
            loop {
                if let Some(pid) = fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()) {
                    return pid;
                }
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, read).await.expect("the command runs")
    }

    /// Waits until a process is dead; a zombie is, whoever has to reap it.
    async fn is_dead(pid: i32) {
        let dead = async {
            while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, dead).await.unwrap_or_else(|_elapsed| panic!("{pid} lives on"));
    }

    #[tokio::test]
    async fn the_exit_code_decides_and_the_next_command_runs_after_it() {
        let mut commands = Commands::default();
        assert_eq!(commands.run("true").await, Ok(()));
        let failed = commands.run("exit 3").await.expect_err("it exits with 3");
        assert_eq!(failed, Failure::Absent("the command exited with 3".into()));
        assert!(commands.run("kill -9 $$").await.expect_err("it is killed").is_absence());
        assert_eq!(commands.run("test 1 -lt 2 && true").await, Ok(()));
    }

    #[tokio::test]
    async fn what_a_command_leaves_behind_is_killed() {
        let folder = TempDir::new().expect("a temporary folder");
        let file = folder.path().join("pid");
        let mut commands = Commands::default();
        let command = format!("sleep 60 & echo $! > {}", file.display());
        assert_eq!(commands.run(&command).await, Ok(()));
        is_dead(written(&file).await).await;
    }

    #[tokio::test]
    async fn what_is_left_behind_to_the_first_process_of_a_container_is_reaped() {
        // As that process inherits orphans. Those of other tests that are still alive are reaped at the end of this process.
        nix::sys::prctl::set_child_subreaper(true).expect("the kernel knows subreapers");
        let folder = TempDir::new().expect("a temporary folder");
        let file = folder.path().join("pid");
        let mut commands = Commands::default();
        let command = format!("sleep 60 & echo $! > {}", file.display());
        assert_eq!(commands.run(&command).await, Ok(()));
        let orphan = written(&file).await;
        assert!(!Path::new(&format!("/proc/{orphan}")).exists(), "it is not even a zombie");
    }

    #[tokio::test]
    async fn a_command_that_is_not_waited_for_any_more_is_killed_with_all_it_started() {
        let folder = TempDir::new().expect("a temporary folder");
        let files = ["child", "itself"].map(|name| folder.path().join(name));
        let [child, itself] = files.each_ref().map(|file| file.display());
        let mut commands = Commands::default();
        let command = format!("trap '' TERM; sleep 60 & echo $! > {child}; echo $$ > {itself}; wait");
        let pids = tokio::select! {
            ended = commands.run(&command) => panic!("{ended:?}"),
            pids = async { [written(&files[0]).await, written(&files[1]).await] } => pids,
        };
        for pid in pids {
            is_dead(pid).await;
        }
        let reaped = async { while commands.run("true").await == Err(Failure::Hanging) {} };
        timeout(PATIENCE, reaped).await.expect("the next one can run once it is reaped");
        assert!(!Path::new(&format!("/proc/{}", pids[1])).exists(), "it is not even a zombie");
    }
}
