//! The guardian: a small process of its own that runs one command and sees to it that nothing of that outlives its time,
//! whatever becomes of bellwether: frozen, it stops the command at the deadline; dead, at once.
//!
//! One thread, no runtime: it waits for bellwether's orders, for its children, and for the clock. Orphans of the command
//! come to it (it is their subreaper), so that its own last child is the last of all.

use std::ffi::{CStr, OsString};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, SockaddrLike as _, SockaddrStorage, getsockname};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::{Pid, getpid, getppid};
use signal_hook::consts::{SIGCONT, SIGKILL, SIGTERM};
use thiserror::Error;

use super::plan::{Act, Plan};
use super::processes::{
    Process, any_ended, descendants, ending_of, has_children, kill_again_after, reap, signal, signal_group,
};
use super::protocol::{Lines, Order, Told};
use crate::clock;
use crate::election::{Instant, Reading};

/// What the system calls it. Not bellwether: a `pkill bellwether` or `killall -9 bellwether` must leave it to its work.
const NAME: &CStr = c"bw-guardian";
/// The longest a number is: 2^31 has ten digits.
const DIGITS_MOST: usize = 10;

/// Why a guardian cannot do its work.
#[derive(Debug, Error)]
pub enum GuardianError {
    /// Not started by bellwether.
    #[error("bellwether guard: is started by bellwether itself, with a socket in place of a terminal")]
    NoSocket,
    /// The system refused something.
    #[error("bellwether guard: {0}")]
    System(#[from] io::Error),
    /// The other side of the socket is another program.
    #[error("bellwether guard: {0}")]
    Order(String),
}

impl From<Errno> for GuardianError {
    fn from(errno: Errno) -> Self {
        Self::System(errno.into())
    }
}

/// Runs the command as it is told on stdin, until nothing is left of it.
///
/// # Errors
/// When it cannot; then the command is not running.
pub fn guard(command: &[OsString], lock: Option<RawFd>) -> Result<(), GuardianError> {
    let bellwether = the_socket()?;
    let _held_until_the_end = lock.map(hold).transpose()?;
    // Whatever comes, comes through bellwether: what else is sent here stays pending.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)?;
    prctl::set_child_subreaper(true)?;
    prctl::set_name(NAME)?;
    Guardian::new(bellwether, command)?.run()
}

/// Keeps a descriptor that bellwether has left open, and keeps it from the command.
fn hold(descriptor: RawFd) -> Result<OwnedFd, GuardianError> {
    // SAFETY: bellwether says that it is open and for nobody else in this process. Were it not, the next call would say so.
    #[expect(unsafe_code, reason = "an inherited descriptor is a number")]
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(descriptor)
}

fn the_socket() -> Result<UnixStream, GuardianError> {
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let address: SockaddrStorage = getsockname(stdin.as_raw_fd()).map_err(|_not_a_socket| GuardianError::NoSocket)?;
    if address.family() != Some(AddressFamily::Unix) {
        return Err(GuardianError::NoSocket);
    }
    let socket = UnixStream::from(stdin);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not started: no deadline yet.
    Waiting,
    /// The command runs. It leads a group of its own.
    Running(Pid),
    /// The command has ended, and is kept as a zombie, so that the number of its group stays its own.
    Leftovers(Pid),
    /// The command is reaped; who is left has left its group.
    Strays,
    /// It was never started, or nothing is left.
    Over,
}

struct Guardian {
    bellwether: UnixStream,
    lines: Lines,
    /// The other end has been closed.
    alone: bool,
    children: SignalFd,
    timer: TimerFd,
    command: Command,
    plan: Option<Plan>,
    /// How often it has killed.
    kills: u32,
    phase: Phase,
}

impl Guardian {
    fn new(bellwether: UnixStream, argv: &[OsString]) -> Result<Self, GuardianError> {
        let mut child_signal = SigSet::empty();
        child_signal.add(Signal::SIGCHLD);
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let Some((program, arguments)) = argv.split_first() else { return Err(GuardianError::NoSocket) };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).process_group(0);
        Ok(Self {
            bellwether,
            lines: Lines::default(),
            alone: false,
            children: SignalFd::with_flags(&child_signal, flags)?,
            timer: TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?,
            command,
            plan: None,
            kills: 0,
            phase: Phase::Waiting,
        })
    }

    fn run(mut self) -> Result<(), GuardianError> {
        while self.phase != Phase::Over {
            self.wait()?;
            self.listen()?;
            self.start_if_due();
            self.look_after_children();
            self.act();
            self.arm()?;
        }
        Ok(())
    }

    /// Until bellwether says something, a child changes, or it is time.
    fn wait(&self) -> Result<(), GuardianError> {
        let orders = if self.alone { PollFlags::empty() } else { PollFlags::POLLIN };
        let mut sources = [
            PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.bellwether.as_fd(), orders),
        ];
        // A closed socket is always ready: nobody is left to listen to.
        let count = if self.alone { 2 } else { 3 };
        match poll(&mut sources[..count], PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        while self.children.read_signal()?.is_some() {}
        Ok(())
    }

    fn listen(&mut self) -> Result<(), GuardianError> {
        let mut bytes = [0; 512];
        while !self.alone {
            match self.bellwether.read(&mut bytes) {
                Ok(0) => self.alone = true,
                Ok(count) => self.lines.push(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Reset: bellwether died with something unread.
                Err(_gone) => self.alone = true,
            }
        }
        while let Some(order) = self.lines.next::<Order>() {
            self.obey(order.map_err(|error| GuardianError::Order(error.to_string()))?);
        }
        if self.alone {
            let now = clock::now();
            match (&mut self.plan, self.phase) {
                (_, Phase::Waiting) | (None, _) => self.phase = Phase::Over,
                (Some(plan), Phase::Running(_) | Phase::Leftovers(_) | Phase::Strays | Phase::Over) => {
                    plan.abandon(now);
                }
            }
        }
        Ok(())
    }

    fn obey(&mut self, order: Order) {
        let now = clock::now();
        match (order, &mut self.plan) {
            (Order::Until(deadline), None) => self.plan = Some(Plan::new(deadline)),
            (Order::Until(deadline), Some(plan)) => plan.extend(deadline),
            (Order::Signal(number), _) => {
                if let Phase::Running(leader) = self.phase {
                    signal_group(leader, number);
                }
            }
            (Order::Stop { first, kill_at }, Some(plan)) => plan.stop(now, first, kill_at),
            (Order::Stop { .. }, None) => self.phase = Phase::Over,
        }
    }

    fn tell(&mut self, told: Told) {
        // Who does not read is dead or frozen: neither is waited for.
        let _dead_or_frozen = self.bellwether.write_all(told.to_string().as_bytes());
    }

    fn start_if_due(&mut self) {
        let (Phase::Waiting, Some(plan)) = (self.phase, &self.plan) else { return };
        if plan.is_stopping() || plan.has_expired(clock::now()) {
            self.never_started(Told::Late);
            return;
        }
        let (last_moment, socket) = (plan.start_before(), self.bellwether.as_raw_fd());
        let guardian = getpid();
        // SAFETY: the closure makes system calls only, each async-signal-safe, on memory of its own stack; it allocates
        // nothing and takes no lock.
        #[expect(unsafe_code, reason = "a child can be tied to its parent only between fork and exec")]
        unsafe {
            self.command.pre_exec(move || become_the_command(guardian, last_moment, socket));
        }
        match self.command.spawn() {
            // An id of a process is positive and fits.
            Ok(child) => self.phase = Phase::Running(Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))),
            Err(error) if error.raw_os_error() == Some(Errno::ETIME as i32) => self.never_started(Told::Late),
            Err(error) => self.never_started(Told::Refused(error.raw_os_error().unwrap_or(0))),
        }
    }

    fn never_started(&mut self, why: Told) {
        self.tell(why);
        self.tell(Told::Gone);
        self.phase = Phase::Over;
    }

    /// Where `/proc` cannot be read, for want of descriptors or memory, it is not known who is left: it is looked again.
    fn look_after_children(&mut self) {
        if let Phase::Running(leader) = self.phase {
            while let Some(ended) = any_ended() {
                if ended == leader {
                    self.command_ended(leader);
                    break;
                }
                reap(ended);
            }
        }
        if let Phase::Leftovers(leader) = self.phase
            && let Ok(family) = descendants()
        {
            for dead in family.iter().filter(|process| process.zombie && process.pid != leader) {
                reap(dead.pid);
            }
            if family.iter().all(|process| process.zombie) {
                reap(leader);
                self.phase = Phase::Strays;
            }
        }
        if self.phase == Phase::Strays {
            while let Some(ended) = any_ended() {
                reap(ended);
            }
            if !has_children() {
                self.tell(Told::Gone);
                self.phase = Phase::Over;
            }
        }
    }

    fn command_ended(&mut self, leader: Pid) {
        if let Some(ending) = ending_of(leader) {
            self.tell(Told::Exited(ending));
        }
        self.phase = Phase::Leftovers(leader);
        if let Some(plan) = &mut self.plan {
            plan.abandon(clock::now());
        }
    }

    fn act(&mut self) {
        while let Some(act) = self.next_act(clock::now()) {
            match act {
                Act::Expire => self.tell(Told::Stopping),
                Act::Ask(number) => {
                    self.send_to_all(number);
                    // What was stopped (SIGSTOP, SIGTSTP) hears of it only when it goes on.
                    self.send_to_all(SIGCONT);
                }
                Act::Kill => {
                    self.kills = self.kills.saturating_add(1);
                    self.send_to_all(SIGKILL);
                    break;
                }
            }
        }
    }

    fn next_act(&mut self, now: Reading) -> Option<Act> {
        match self.phase {
            Phase::Running(_) | Phase::Leftovers(_) | Phase::Strays => self.plan.as_mut()?.next_act(now),
            Phase::Waiting | Phase::Over => None,
        }
    }

    /// To the group at once, and to each who has left it, as far as that can be seen: who is missed is killed at the end,
    /// when it is looked again and again. Other signals than those that end are for the group only.
    fn send_to_all(&self, number: i32) {
        let group = match self.phase {
            Phase::Running(leader) | Phase::Leftovers(leader) => Some(leader),
            Phase::Waiting | Phase::Strays | Phase::Over => None,
        };
        if let Some(group) = group {
            signal_group(group, number);
        }
        if [SIGTERM, SIGKILL, SIGCONT].contains(&number) {
            let has_left = |process: &Process| !process.zombie && Some(process.group) != group;
            for stray in descendants().unwrap_or_default().into_iter().filter(has_left) {
                signal(stray.pid, number);
            }
        }
    }

    fn arm(&self) -> Result<(), GuardianError> {
        let Some(plan) = &self.plan else { return Ok(()) };
        let now = clock::now();
        let at = if self.kills > 0 { now.boot.after(kill_again_after(self.kills)) } else { plan.wake_at(now) };
        // 0 would disarm it.
        let at = TimeSpec::from_duration(at.since(Instant::from_nanos(0)).max(Duration::from_nanos(1)));
        Ok(self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?)
    }
}

/// What the child does between fork and exec.
fn become_the_command(guardian: Pid, last_moment: Instant, socket: RawFd) -> io::Result<()> {
    for number in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default action is no function of ours.
        #[expect(unsafe_code, reason = "what is ignored stays ignored across exec, unless it is set back")]
        unsafe {
            nix::sys::signal::signal(number, SigHandler::SigDfl)?;
        }
    }
    SigSet::empty().thread_set_mask()?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // It may have died before the line above: then nobody will send the signal.
    if getppid() != guardian {
        return Err(Errno::ESRCH.into());
    }
    if clock::now().boot >= last_moment {
        return Err(Errno::ETIME.into());
    }
    announce(socket)
}

/// The group's number is known to bellwether before there is anybody in it who could outlive the guardian. It is written
/// without the heap: the process is a copy of one that may have held its lock.
fn announce(socket: RawFd) -> io::Result<()> {
    const WORD: &[u8] = b"started ";
    let mut line = [0; WORD.len() + DIGITS_MOST + 1];
    let mut at = line.len() - 1;
    line[at] = b'\n';
    let mut rest = getpid().as_raw().unsigned_abs();
    while at > WORD.len() {
        at -= 1;
        line[at] = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let begin = at - WORD.len();
    line[begin..at].copy_from_slice(WORD);
    // SAFETY: the socket is open in this copy of the process, and given back below.
    #[expect(unsafe_code, reason = "the number of a socket is all that may be handed over a fork")]
    let mut socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(socket) });
    let written = socket.write_all(&line[begin..]);
    let _open_until_exec: RawFd = socket.into_raw_fd();
    written
}
