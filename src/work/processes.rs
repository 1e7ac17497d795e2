//! Processes by their ids: who descends from this one, sending signals, reaping.

use std::fs;
use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid};

use super::protocol::Ending;

/// How often what is being killed is killed again: it may have been about to start more.
const KILL_AGAIN: Duration = Duration::from_millis(5);
/// Who has outlived a second of that cannot be killed, as another user's or in the hands of the kernel: each try costs a look
/// at every process of the machine.
pub(super) const TRIES_IN_A_HURRY: u32 = 200;
/// How often it is tried from then on.
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// How long after so many kills the next one comes.
pub(super) const fn kill_again_after(tries: u32) -> Duration {
    if tries < TRIES_IN_A_HURRY { KILL_AGAIN } else { TRY_AGAIN }
}

/// A process as `/proc` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: Pid,
    pub(super) parent: Pid,
    pub(super) group: Pid,
    /// Dead, and not reaped yet.
    pub(super) zombie: bool,
}

/// In `/proc/<pid>/stat`, how many words stand between the group and the number of threads.
const FROM_GROUP_TO_THREADS: usize = 14;

impl Process {
    /// From `/proc/<pid>/stat`. The name in parentheses may hold anything, also parentheses, and what is no UTF-8.
    fn parse(stat: &[u8]) -> Option<Self> {
        let stat = String::from_utf8_lossy(stat);
        let pid = stat.split_once(' ')?.0.parse().ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut words = rest.split_ascii_whitespace();
        let ended = matches!(words.next()?, "Z" | "X" | "x");
        let mut id = || words.next()?.parse().ok().map(Pid::from_raw);
        let (parent, group) = (id()?, id()?);
        // The state is that of the first thread. Where others live on, so does the process.
        let threads: u32 = words.nth(FROM_GROUP_TO_THREADS)?.parse().ok()?;
        Some(Self { pid: Pid::from_raw(pid), parent, group, zombie: ended && threads <= 1 })
    }
}

/// Every process that this one is an ancestor of, as far as one look can tell: who changes parents meanwhile may be
/// missed, so only [`has_children`] says that there is none.
pub(super) fn descendants() -> io::Result<Vec<Process>> {
    descendants_of(getpid())
}

/// Every process that this one is an ancestor of, in the same way.
pub(super) fn descendants_of(ancestor: Pid) -> io::Result<Vec<Process>> {
    let mut others = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        // It may have ended since the folder was read.
        if let Some(process) = fs::read(entry.path().join("stat")).ok().as_deref().and_then(Process::parse) {
            others.push(process);
        }
    }
    Ok(family_of(ancestor, others))
}

fn family_of(ancestor: Pid, mut others: Vec<Process>) -> Vec<Process> {
    let mut family = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        let (children, rest): (Vec<_>, Vec<_>) = others.into_iter().partition(|process| process.parent == parent);
        parents.extend(children.iter().map(|child| child.pid));
        family.extend(children);
        others = rest;
    }
    family
}

/// Whether this process has any child, dead ones included. The children of a dead child have been given to this process,
/// if it takes in orphans, before the dead one can be reaped: with no child there is no descendant.
pub(super) fn has_children() -> bool {
    peek(libc::P_ALL, 0) != Err(Errno::ECHILD)
}

/// A child that has ended, if there is one. It stays a zombie.
pub(super) fn any_ended() -> Option<Pid> {
    peek(libc::P_ALL, 0).ok().flatten().map(|(pid, _)| pid)
}

/// How this child ended, if it has. It stays a zombie, so that its number, and that of its group, is not given to others.
pub(super) fn ending_of(child: Pid) -> Option<Ending> {
    let id = libc::id_t::try_from(child.as_raw()).ok()?;
    peek(libc::P_PID, id).ok().flatten().map(|(_, ending)| ending)
}

fn peek(kind: libc::idtype_t, id: libc::id_t) -> Result<Option<(Pid, Ending)>, Errno> {
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: all zeroes is a value of this struct of numbers, and waitid(2) writes to nothing else. Of what it writes the
    // fields that are read here are there for an ended child; without one the id stays 0.
    #[expect(unsafe_code, reason = "nix knows no ending by a real-time signal")]
    let (pid, code, status) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        Errno::result(libc::waitid(kind, id, &raw mut info, flags))?;
        (info.si_pid(), info.si_code, info.si_status())
    };
    let ending = if code == libc::CLD_EXITED {
        Ending::Code(u8::try_from(status & 0xff).unwrap_or(u8::MAX))
    } else {
        Ending::Signal(status)
    };
    Ok((pid != 0).then_some((Pid::from_raw(pid), ending)))
}

/// Reaps this child if it has ended.
pub(super) fn reap(child: Pid) {
    // Nothing to reap, or not mine: both are no reason to do anything else. A real-time signal is an error of nix's only.
    let _reaped: Result<WaitStatus, Errno> = waitpid(child, Some(WaitPidFlag::WNOHANG));
}

/// Sends a signal to one process. It may be gone already.
pub(super) fn signal(process: Pid, number: i32) {
    send(process.as_raw(), number);
}

/// Sends a signal to a whole group. It may be gone already.
pub(super) fn signal_group(group: Pid, number: i32) {
    send(-group.as_raw(), number);
}

fn send(to: libc::pid_t, number: i32) {
    assert!(to != 0 && to != -1, "0 and -1 stand for more than one process or group");
    // SAFETY: kill(2) takes two numbers and touches no memory.
    #[expect(unsafe_code, reason = "nix knows no real-time signals")]
    let _gone: i32 = unsafe { libc::kill(to, number) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32) -> Process {
        let [pid, parent, group] = [pid, parent, 1].map(Pid::from_raw);
        Process { pid, parent, group, zombie: false }
    }

    /// The words after the group, up to the number of threads.
    fn stat(begin: &[u8], threads: u32) -> Vec<u8> {
        [begin, b" 6 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 ", threads.to_string().as_bytes(), b" 0 99"].concat()
    }

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let expected = Process { group: Pid::from_raw(6), ..process(42, 7) };
        assert_eq!(Process::parse(&stat(b"42 (a) Z 1 (b) S 7 6", 1)), Some(expected));
        assert_eq!(Process::parse(&stat(b"42 (d\xe4mon) S 7 6", 1)), Some(expected), "no UTF-8");
        assert_eq!(Process::parse(b""), None);
    }

    #[test]
    fn a_process_is_dead_when_its_last_thread_is() {
        let is_dead = |threads| Process::parse(&stat(b"42 (name) Z 7 6", threads)).map(|process| process.zombie);
        assert_eq!((is_dead(0), is_dead(1), is_dead(2)), (Some(true), Some(true), Some(false)));
    }

    #[test]
    fn a_child_of_any_name_is_found_alive() {
        use std::os::unix::{ffi::OsStrExt as _, process::CommandExt as _};

        let folder = tempfile::TempDir::new().expect("a temporary folder");
        let program = folder.path().join(std::ffi::OsStr::from_bytes(b"d\xe4mon"));
        std::os::unix::fs::symlink("/bin/sleep", &program).expect("a fresh folder");
        let mut child =
            std::process::Command::new(&program).arg0("sleep").arg("60").spawn().expect("sleep can be started");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("an id"));
        let found = descendants().expect("/proc").into_iter().find(|process| process.pid == pid);
        child.kill().expect("it is mine");
        child.wait().expect("it is mine");
        assert_eq!(found.map(|process| process.zombie), Some(false));
    }

    #[test]
    fn what_cannot_be_killed_is_tried_less_often_after_a_second() {
        let hurry: Duration = (0..TRIES_IN_A_HURRY).map(kill_again_after).sum();
        assert_eq!((hurry, kill_again_after(TRIES_IN_A_HURRY)), (Duration::from_secs(1), TRY_AGAIN));
    }

    #[test]
    fn descendants_are_found_in_whatever_order_they_are_listed() {
        let others = vec![process(9, 5), process(5, 2), process(3, 1), process(2, 1), process(7, 6)];
        let mut found: Vec<i32> =
            family_of(Pid::from_raw(1), others).iter().map(|process| process.pid.as_raw()).collect();
        found.sort_unstable();
        assert_eq!(found, [2, 3, 5, 9]);
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "reaping is what is tested")]
    fn a_child_that_has_ended_says_how_again_and_again_until_it_is_reaped() {
        let child = std::process::Command::new("sh").args(["-c", "exit 3"]).spawn().expect("a shell");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("an id"));
        let ending = || ending_of(pid);
        while ending().is_none() {
            std::thread::yield_now();
        }
        assert_eq!((ending(), ending()), (Some(Ending::Code(3)), Some(Ending::Code(3))));
        assert!(descendants().expect("/proc").iter().any(|process| process.pid == pid && process.zombie));
        reap(pid);
        assert_eq!(ending(), None);
    }
}
