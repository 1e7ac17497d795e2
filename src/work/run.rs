//! One run of a command, from bellwether's side: its guardian, and what that tells.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::{Pid, read, write};
use signal_hook::consts::SIGKILL;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::sleep;
use tracing::{debug, error};

use super::course::Outcome;
use super::processes::{
    TRIES_IN_A_HURRY, descendants, descendants_of, has_children, kill_again_after, reap, signal, signal_group,
};
use super::protocol::{Deadline, Lines, Order, Told};
use crate::clock;
use crate::config::PASSWORD_VARIABLE;
use crate::election::Instant;

/// This very program, also when its file has been replaced since.
pub(super) const THIS_PROGRAM: &str = "/proc/self/exe";
/// A guardian that bellwether has waited for this long after the instant of the kill is frozen or dead. It takes a millisecond;
/// a machine that is too busy for that for a second is no place to lead on.
const GUARDIAN_PATIENCE: Duration = Duration::from_secs(1);
/// How often what a guardian does not kill is killed until then.
const KILL_AGAIN: Duration = Duration::from_millis(50);
/// What a shell says of a command that is there but cannot be executed.
pub(super) const NOT_EXECUTABLE: u8 = 126;
/// What a shell says of a command that is not there.
pub(super) const NOT_FOUND: u8 = 127;

/// What comes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happening {
    /// It is a process now.
    Started(Pid),
    /// Nothing is left of it.
    Ended(Outcome),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its guardian looks after it.
    Guarded,
    /// Nothing is left but the guardian, which ends.
    Gone,
    /// The guardian is dead. What it looked after is killed.
    Orphaned,
}

/// Has the guardian hold the lock of `--state-dir` as well: the next life of a bellwether that was killed then begins
/// when nothing is left of this one's command.
fn inherit(guardian: &mut Command, lock: RawFd) {
    let keep_open = move || {
        // SAFETY: the descriptor is open in this copy of the process, as it is in the one that was copied.
        #[expect(unsafe_code, reason = "the number of a descriptor is all that may be handed over a fork")]
        let lock = unsafe { BorrowedFd::borrow_raw(lock) };
        fcntl(lock, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(())
    };
    // SAFETY: the closure makes one system call, which is async-signal-safe, and allocates nothing.
    #[expect(unsafe_code, reason = "a descriptor is left open for one child only between fork and exec")]
    unsafe {
        guardian.pre_exec(keep_open);
    }
}

/// One run of a command.
#[derive(Debug)]
pub(super) struct Run {
    guardian: Child,
    socket: UnixStream,
    lines: Lines,
    group: Option<Pid>,
    kill_at: Instant,
    /// Since when, as far as bellwether saw, the end is overdue. Bellwether may itself have been frozen.
    overdue_since: Option<Instant>,
    phase: Phase,
    outcome: Outcome,
    expired: bool,
}

impl Run {
    /// Starts a guardian that starts the command.
    pub(super) fn start(
        command: &[OsString],
        environment: &[(&'static str, String)],
        lock: Option<BorrowedFd<'_>>,
        deadline: Deadline,
    ) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let socket = UnixStream::from_std(ours)?;
        let mut guardian = Command::new(THIS_PROGRAM);
        guardian
            .arg0("bellwether")
            .arg("guard")
            .args(lock.map(|lock| lock.as_raw_fd().to_string()))
            .arg("--")
            .args(command)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env_remove(PASSWORD_VARIABLE)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .process_group(0);
        if let Some(lock) = lock {
            inherit(&mut guardian, lock.as_raw_fd());
        }
        let mut run = Self {
            guardian: guardian.spawn()?,
            socket,
            lines: Lines::default(),
            group: None,
            kill_at: deadline.kill_at,
            overdue_since: None,
            phase: Phase::Guarded,
            outcome: Outcome::GuardianDied,
            expired: false,
        };
        run.say(Order::Until(deadline));
        Ok(run)
    }

    /// The end has moved.
    pub(super) fn extend(&mut self, deadline: Deadline) {
        self.kill_at = deadline.kill_at;
        self.overdue_since = None;
        self.say(Order::Until(deadline));
    }

    /// Sends a signal to the command's group.
    pub(super) fn signal(&mut self, number: i32) {
        self.say(Order::Signal(number));
    }

    /// Stops it, beginning with this signal.
    pub(super) fn stop(&mut self, first: i32, kill_at: Instant) {
        self.kill_at = self.kill_at.min(kill_at);
        self.say(Order::Stop { first, kill_at });
    }

    fn say(&mut self, order: Order) {
        if self.phase != Phase::Guarded {
            return;
        }
        let line = order.to_string();
        // Past the runtime, which does not know yet that a fresh socket can be written to. A line fits unless hundreds
        // before it have not been read.
        match write(&self.socket, line.as_bytes()) {
            Ok(count) if count == line.len() => {}
            // Its end is in the socket: it is read there.
            Err(Errno::EPIPE | Errno::ECONNRESET) => {}
            Ok(_) | Err(_) => {
                error!("the guardian of the command does not listen any more");
                self.kill_guardian();
            }
        }
    }

    /// Kills the guardian; the command's own process goes with it, and the rest is swept.
    fn kill_guardian(&mut self) {
        // It fails only when it is dead already.
        self.guardian.start_kill().ok();
        self.phase = Phase::Orphaned;
    }

    /// What comes next of it. Cancel-safe.
    pub(super) async fn next(&mut self) -> Happening {
        loop {
            match self.phase {
                Phase::Guarded => {
                    if let Some(happening) = self.listen().await {
                        return happening;
                    }
                }
                Phase::Gone => {
                    self.guardian_ends().await;
                    return Happening::Ended(self.outcome);
                }
                Phase::Orphaned => {
                    self.guardian_ends().await;
                    self.sweep().await;
                    return Happening::Ended(Outcome::GuardianDied);
                }
            }
        }
    }

    async fn guardian_ends(&mut self) {
        if let Err(error) = self.guardian.wait().await {
            debug!(%error, "how the guardian ended is not known");
        }
    }

    async fn listen(&mut self) -> Option<Happening> {
        while let Some(told) = self.lines.next::<Told>() {
            let Ok(told) = told else {
                self.kill_guardian();
                return None;
            };
            let happening = self.understand(told);
            if happening.is_some() || self.phase != Phase::Guarded {
                return happening;
            }
        }
        tokio::select! {
            biased;
            ready = self.socket.readable() => match ready {
                Ok(()) => self.read(),
                Err(_broken) => self.kill_guardian(),
            },
            () = sleep(self.patience(clock::now().boot)) => self.enforce(clock::now().boot),
        }
        None
    }

    fn read(&mut self) {
        let mut bytes = [0; 256];
        match self.socket.try_read(&mut bytes) {
            Ok(0) => self.kill_guardian(),
            Ok(count) => self.lines.push(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_broken) => self.kill_guardian(),
        }
    }

    fn understand(&mut self, told: Told) -> Option<Happening> {
        match told {
            Told::Started(pid) => {
                self.group = Some(Pid::from_raw(pid));
                return Some(Happening::Started(Pid::from_raw(pid)));
            }
            Told::Refused(errno) => {
                let code = if errno == Errno::ENOENT as i32 { NOT_FOUND } else { NOT_EXECUTABLE };
                error!(error = %io::Error::from_raw_os_error(errno), "the command cannot be executed");
                self.outcome = Outcome::Refused(code);
            }
            Told::Stopping => self.expired = true,
            Told::Late => self.outcome = Outcome::CutShort,
            Told::Exited(_) if self.expired => self.outcome = Outcome::CutShort,
            Told::Exited(ending) => self.outcome = Outcome::Exited(ending),
            Told::Gone => self.phase = Phase::Gone,
        }
        None
    }

    fn patience(&self, now: Instant) -> Duration {
        if now < self.kill_at { self.kill_at.since(now) } else { KILL_AGAIN }
    }

    /// The guardian has killed by now; that it cannot is no reason not to. Nothing else has the group's number as long as
    /// the guardian has not reported the end.
    fn enforce(&mut self, now: Instant) {
        if now < self.kill_at || self.has_said_more() {
            return;
        }
        if let Some(group) = self.group {
            signal_group(group, SIGKILL);
        }
        self.kill_strays();
        let overdue_since = *self.overdue_since.get_or_insert(now);
        if now.since(overdue_since) >= GUARDIAN_PATIENCE {
            error!("the guardian of the command does nothing any more, and is killed");
            self.kill_guardian();
        }
    }

    /// Past the runtime, which may not know it yet: a bellwether that was frozen has the end in its socket, and the group's
    /// number may belong to others by now.
    fn has_said_more(&mut self) -> bool {
        let mut bytes = [0; 256];
        match read(&self.socket, &mut bytes) {
            Ok(count) if count > 0 => {
                self.lines.push(&bytes[..count]);
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// Who has left the group is killed as well.
    fn kill_strays(&self) {
        // Without an id the guardian has ended.
        let Some(guardian) = self.guardian.id().and_then(|id| i32::try_from(id).ok()) else { return };
        // What cannot be seen now can be when the guardian is given up.
        for stray in descendants_of(Pid::from_raw(guardian)).unwrap_or_default() {
            signal(stray.pid, SIGKILL);
        }
    }

    /// Kills what a dead guardian has left behind, until nothing is left. It came to bellwether, which takes in orphans.
    /// Other children of bellwether cannot be told from it and are killed as well: the process is about to end.
    async fn sweep(&mut self) {
        if let Some(group) = self.group.take() {
            signal_group(group, SIGKILL);
        }
        let mut tries = 0;
        while has_children() {
            match descendants() {
                Ok(family) => {
                    for process in family {
                        if tries == TRIES_IN_A_HURRY && !process.zombie {
                            error!(
                                pid = process.pid.as_raw(),
                                "a process of the command cannot be killed, and is waited for"
                            );
                        }
                        if process.zombie { reap(process.pid) } else { signal(process.pid, SIGKILL) }
                    }
                }
                Err(error) if tries == 0 => error!(%error, "cannot see what the dead guardian has left behind"),
                Err(error) => debug!(%error, "cannot see what the dead guardian has left behind"),
            }
            sleep(kill_again_after(tries)).await;
            tries = tries.saturating_add(1);
        }
    }
}
