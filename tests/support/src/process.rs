//! A child process that dies with its parent and is reaped when it is dropped.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

use crate::moment::Moment;

/// How often an awaited exit is looked for: fine enough to measure with, cheap enough not to matter.
const EXIT_POLL: Duration = Duration::from_millis(1);

/// A running child.
#[derive(Debug)]
pub struct Process {
    child: Child,
    exited: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`. The kernel kills the child when the *thread* that called this ends, however it ends:
    /// call it from one that lives as long as the child shall, not from a blocking pool.
    ///
    /// # Errors
    /// When the command cannot be started.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let parent = nix::unistd::getpid();
        let die_with_parent = move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before the line above: then nobody will send the signal.
            if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
        };
        #[expect(unsafe_code, reason = "a child can be tied to its parent only between fork and exec")]
        // SAFETY: the closure calls prctl and getppid only, which are async-signal-safe, and allocates nothing.
        unsafe {
            command.pre_exec(die_with_parent);
        }
        let child =
            command.spawn().with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        Ok(Self { child, exited: None })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child's pipes, for whoever reads them.
    pub fn child_mut(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends a signal. A child that has been reaped gets none: its number may belong to another process by now.
    ///
    /// # Errors
    /// When the child has exited, or the signal cannot be sent.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.exited()? {
            bail!("cannot send {signal}: process {} has exited with {status}", self.pid());
        }
        let pid = i32::try_from(self.pid()).context("a process id is positive and fits")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot send {signal} to process {pid}"))
    }

    /// How it exited, if it has.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().context("cannot ask for the child's exit")?;
        }
        Ok(self.exited)
    }

    /// Waits for the exit.
    ///
    /// # Errors
    /// When it has not exited `within` this time.
    pub fn wait_exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Moment::now().after(within);
        loop {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            if deadline.passed() {
                bail!("process {} has not exited within {within:?}", self.pid());
            }
            thread::sleep(EXIT_POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exited.is_none() {
            // Both fail only when it is gone already, which is what we want.
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn sleeper() -> Process {
        Process::spawn(Command::new("sleep").arg("3600")).unwrap()
    }

    fn is_there(pid: u32) -> bool {
        PathBuf::from(format!("/proc/{pid}")).exists()
    }

    #[test]
    fn a_dropped_process_is_gone_and_reaped_even_when_it_was_frozen() {
        let mut process = sleeper();
        let pid = process.pid();
        process.signal(Signal::SIGSTOP).unwrap();
        assert!(is_there(pid));
        drop(process);
        assert!(!is_there(pid));
    }

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        let mut process = thread::scope(|scope| scope.spawn(sleeper).join().unwrap());
        let status = process.wait_exit(Duration::from_secs(10)).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::SIGKILL as i32));
    }

    #[test]
    fn a_process_that_has_exited_gets_no_signal() {
        let mut process = Process::spawn(&mut Command::new("true")).unwrap();
        assert!(process.wait_exit(Duration::from_secs(10)).unwrap().success());
        process.signal(Signal::SIGTERM).unwrap_err();
    }

    #[test]
    fn waiting_for_an_exit_ends_at_its_deadline() {
        sleeper().wait_exit(Duration::from_millis(20)).unwrap_err();
    }
}
