//! Child processes that cannot outlive the tests.

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};

use crate::moment::Moment;

/// How often an awaited exit is looked for: fine enough to measure with, cheap enough not to matter.
const EXIT_POLL: Duration = Duration::from_millis(1);

/// A command, and where to send what came of it.
type Order = (Command, SyncSender<io::Result<Child>>);

/// Starts a process that the kernel kills when this one dies, however that comes about.
///
/// The kernel counts the *thread* that started a process as its parent here, and a test's thread ends
/// with the test: so one thread that lives as long as the process starts them all.
///
/// # Errors
/// When the program cannot be started.
pub fn spawn_bound(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<SyncSender<Order>>> = OnceLock::new();
    let parent = nix::unistd::getpid();
    let die_with_parent = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the line above: then nobody will send the signal.
        if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
    };
    // Ctrl-C on a terminal is for this process, which ends its children in its own order.
    command.process_group(0);
    #[expect(unsafe_code, reason = "a child can be tied to its parent only between fork and exec")]
    // SAFETY: the closure calls prctl and getppid only, which are async-signal-safe, and allocates nothing.
    unsafe {
        command.pre_exec(die_with_parent);
    }
    let spawner = SPAWNER.get_or_init(|| Mutex::new(start_spawner()));
    let gone = || io::Error::other("the thread that starts processes has ended");
    let (answer, started) = sync_channel(1);
    spawner.lock().unwrap_or_else(PoisonError::into_inner).send((command, answer)).map_err(|_gone| gone())?;
    started.recv().map_err(|_gone| gone())?
}

fn start_spawner() -> SyncSender<Order> {
    let (orders, inbox) = sync_channel::<Order>(1);
    let serve = move || {
        while let Ok((mut command, answer)) = inbox.recv() {
            // Fails when the asker is gone, and then nobody misses the child: it is killed as it is dropped.
            if let Err(unsent) = answer.send(command.spawn())
                && let Ok(mut child) = unsent.0
            {
                child.kill().ok();
                child.wait().ok();
            }
        }
    };
    // If no thread can be started `serve` is dropped, and with it the inbox: whoever asks gets an error.
    thread::Builder::new().name("starts processes".to_owned()).spawn(serve).ok();
    orders
}

/// Writes a program that can be started at once.
///
/// A process of its own opens the file for writing. Were this one to do it, a child that another thread starts in that
/// moment would hold it open until its own `exec`, and the kernel starts no file that is open for writing (`ETXTBSY`).
///
/// # Errors
/// When the file cannot be written.
pub fn write_program(file: &Path, text: &str) -> Result<()> {
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(file).stdin(Stdio::piped());
    let mut writer = install.spawn().context("cannot start install")?;
    writer.stdin.take().context("its input is a pipe")?.write_all(text.as_bytes())?;
    let status = writer.wait()?;
    ensure!(status.success(), "cannot write {}: install has ended with {status}", file.display());
    Ok(())
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    exited: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`. The child dies with this process, however that comes about.
    ///
    /// # Errors
    /// When the command cannot be started.
    pub fn spawn(command: Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = spawn_bound(command).with_context(|| format!("cannot start {program}"))?;
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
        let mut command = Command::new("sleep");
        command.arg("3600");
        Process::spawn(command).unwrap()
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
    fn a_child_outlives_the_thread_that_asked_for_it() {
        let mut process = thread::scope(|scope| scope.spawn(sleeper).join().unwrap());
        process.wait_exit(Duration::from_millis(20)).unwrap_err();
    }

    #[test]
    fn a_process_that_has_exited_gets_no_signal() {
        let mut process = Process::spawn(Command::new("true")).unwrap();
        assert!(process.wait_exit(Duration::from_secs(10)).unwrap().success());
        process.signal(Signal::SIGTERM).unwrap_err();
    }

    #[test]
    fn a_program_just_written_can_be_started_while_others_are_written_and_started() {
        let folder = tempfile::TempDir::new().unwrap();
        let write_and_start = |lane: usize| {
            for turn in 0..50 {
                let program = folder.path().join(format!("{lane}-{turn}"));
                write_program(&program, "#!/bin/sh\nexit 7\n").unwrap();
                assert_eq!(Command::new(&program).status().unwrap().code(), Some(7));
            }
        };
        thread::scope(|scope| {
            for lane in 0..8 {
                scope.spawn(move || write_and_start(lane));
            }
        });
    }

    #[test]
    fn waiting_for_an_exit_ends_at_its_deadline() {
        sleeper().wait_exit(Duration::from_millis(20)).unwrap_err();
    }
}
