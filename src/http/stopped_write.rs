//! A process can be stopped (SIGSTOP) between the last look at the clock and the write it was for, and go on
//! (SIGCONT) long after the answer has expired. The promise excludes that; this closes it all the same.
//!
//! The kernel runs the action for SIGCONT before the stopped code goes on. So the socket about to be written to is
//! noted before the look, and the action shuts it down: the write that follows fails, and the client sees a closed
//! connection, which says "not leader". What stops a process without SIGCONT (a frozen cgroup, a paused machine)
//! is not covered.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{Shutdown, shutdown};
use signal_hook::SigId;
use signal_hook::consts::SIGCONT;

/// No socket has this number.
const NONE: RawFd = -1;

/// The socket that is being written to. One is enough: the program serves on one thread.
static WRITING_TO: AtomicI32 = AtomicI32::new(NONE);

/// Held from before the last look at the clock until the write has returned.
#[derive(Debug)]
pub(super) struct StoppableWrite;

impl StoppableWrite {
    pub(super) fn to(socket: RawFd) -> Self {
        WRITING_TO.store(socket, Ordering::SeqCst);
        Self
    }
}

impl Drop for StoppableWrite {
    fn drop(&mut self) {
        WRITING_TO.store(NONE, Ordering::SeqCst);
    }
}

/// From now on a write that was stopped on its way does not happen when the process goes on. To be called on the
/// thread that serves, once.
///
/// # Errors
/// When the system refuses the signal action.
pub fn cut_writes_that_were_stopped() -> io::Result<SigId> {
    // SAFETY: the action does what signal-safety(7) allows: it reads an atomic and calls shutdown(2), and it leaves
    // errno as it was. It allocates nothing, takes no lock and cannot panic.
    #[expect(unsafe_code, reason = "a signal action; why it may run at any point is said above")]
    unsafe {
        signal_hook::low_level::register(SIGCONT, cut_the_write)
    }
}

fn cut_the_write() {
    let socket = WRITING_TO.load(Ordering::SeqCst);
    if socket != NONE {
        let errno = Errno::last_raw();
        // It fails only when the other side has closed it already.
        let _already_closed = shutdown(socket, Shutdown::Both);
        Errno::set_raw(errno);
    }
}

/// To be called first on every other thread: were SIGCONT delivered there, the thread that serves could go on
/// before the action has run.
pub fn leave_continue_to_the_serving_thread() {
    let mut only = SigSet::empty();
    only.add(Signal::SIGCONT);
    only.thread_block().expect("a set with one valid signal can be blocked");
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_write_that_was_stopped_fails_and_others_do_not() {
        let (mut stopped, mut its_client) = UnixStream::pair().expect("a pair of sockets");
        let (mut other, mut others_client) = UnixStream::pair().expect("a pair of sockets");
        let write = StoppableWrite::to(stopped.as_raw_fd());
        cut_the_write();
        let error = stopped.write_all(b"200").expect_err("the socket was shut down");
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        drop(write);
        cut_the_write();
        other.write_all(b"200").expect("it was not being written to");
        drop((stopped, other));
        let (mut nothing, mut something) = (String::new(), String::new());
        its_client.read_to_string(&mut nothing).expect("the end");
        others_client.read_to_string(&mut something).expect("an answer");
        assert_eq!((nothing.as_str(), something.as_str()), ("", "200"));
    }
}
