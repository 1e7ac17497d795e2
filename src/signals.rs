//! Signals, as events.
//!
//! As the first process of a container nothing happens by default on a signal: every end is explicit here.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::StreamExt;
use nix::libc::{SIGPWR, SIGRTMAX, SIGRTMIN, SIGSTKFLT};
use signal_hook::consts::{
    SIGALRM, SIGCONT, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGTSTP, SIGURG, SIGUSR1, SIGUSR2, SIGVTALRM,
    SIGWINCH, SIGXCPU, SIGXFSZ,
};
use signal_hook::flag;
use signal_hook::low_level::unregister;
use signal_hook::{SigId, iterator::backend::Handle};

/// What a command gets besides those that bellwether listens to anyway. Left out: what cannot be caught; SIGCHLD and
/// SIGPIPE, which tell of bellwether's own children and pipes; the faults and SIGABRT, which are bellwether's own; SIGTTIN
/// and SIGTTOU, which the terminal sends to whoever uses it from the background.
const FOR_THE_COMMAND: [i32; 15] = [
    SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT, SIGTSTP, SIGURG, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGWINCH,
    SIGIO, SIGPWR, SIGSTKFLT,
];

/// Has the kernel keep children that have ended until they are waited for, in this process and in all that it starts. Who
/// started it may have said otherwise, and that outlasts an `exec`: then nobody would hear of a command's end, and the
/// number that signals are sent to would be another's. To be called before anything listens for SIGCHLD.
///
/// # Errors
/// None that the kernel is known to have.
pub fn keep_ended_children() -> io::Result<()> {
    // SAFETY: the default action is no function of ours.
    #[expect(unsafe_code, reason = "a signal action is set; this one runs no code")]
    unsafe {
        nix::sys::signal::signal(nix::sys::signal::Signal::SIGCHLD, nix::sys::signal::SigHandler::SigDfl)?;
    }
    Ok(())
}

/// What an operator, or Kubernetes, asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT, and SIGQUIT while there is a command: stand down in order and stop.
    Stop(i32),
    /// SIGHUP: read certificates and password again.
    Reload,
    /// Another, for the command.
    Other(i32),
}

impl Signal {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> i32 {
        match self {
            Self::Stop(number) | Self::Other(number) => number,
            Self::Reload => SIGHUP,
        }
    }
}

/// Listens for signals until it is dropped.
///
/// The first SIGTERM or SIGINT is reported by [`Signals::next`]; the second, of either kind, ends the
/// process at once with 128 + its number, from within the signal's context, so that it works also
/// when nobody calls `next` any more.
pub struct Signals {
    stream: signal_hook_tokio::Signals,
    handle: Handle,
    actions: Vec<SigId>,
}

impl Signals {
    /// Starts to listen, with a command to every signal that it should get. Needs a Tokio runtime.
    ///
    /// # Errors
    /// When the system refuses a signal action or the pipe that wakes the runtime.
    pub fn listen(for_a_command: bool) -> io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        let mut actions = Vec::new();
        for signal in [SIGTERM, SIGINT] {
            // In this order: a signal looks first whether another came before it, and only then counts itself.
            actions.push(flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stopping))?);
            actions.push(flag::register(signal, Arc::clone(&stopping))?);
        }
        let mut wanted = vec![SIGTERM, SIGINT, SIGHUP];
        if for_a_command {
            wanted.extend(FOR_THE_COMMAND);
            wanted.extend(SIGRTMIN()..=SIGRTMAX());
        }
        let stream = signal_hook_tokio::Signals::new(wanted)?;
        let handle = stream.handle();
        Ok(Self { stream, handle, actions })
    }

    /// The next signal. Cancel-safe: a signal that was not returned is returned next time. Several of one
    /// kind that arrive together are returned once.
    pub async fn next(&mut self) -> Signal {
        match self.stream.next().await {
            Some(number @ (SIGTERM | SIGINT | SIGQUIT)) => Signal::Stop(number),
            Some(SIGHUP) => Signal::Reload,
            Some(number) => Signal::Other(number),
            // Only `drop` closes the handle.
            None => std::future::pending().await,
        }
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").field("handle", &self.handle).finish_non_exhaustive()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
        for action in self.actions.drain(..) {
            unregister(action);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use signal_hook::low_level::raise;

    use super::*;

    /// Set in the process that a test starts from its own program, because signals are the whole process's.
    const IN_CHILD: &str = "BELLWETHER_TEST_SIGNALS";

    /// Runs `script` in a child process, as the test of that name.
    fn in_a_child(test: &str, script: impl AsyncFnOnce(Signals)) -> Option<Output> {
        if std::env::var_os(IN_CHILD).is_none() {
            let program = std::env::current_exe().expect("a running program has a path");
            let test = format!("signals::tests::{test}");
            let mut child = Command::new(program);
            child.args(["--exact", &test, "--nocapture", "--test-threads=1"]).env(IN_CHILD, "1");
            return Some(child.output().expect("this very program can be started"));
        }
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts").block_on(async {
            script(Signals::listen(true).expect("signals can be listened for")).await;
        });
        None
    }

    fn ran_to_its_end(child: &Output) -> bool {
        child.status.success() && String::from_utf8_lossy(&child.stdout).contains("1 passed")
    }

    fn send(signal: i32) {
        raise(signal).expect("a process can signal itself");
    }

    #[test]
    fn a_child_that_has_ended_is_kept_although_sigchld_was_ignored() {
        let child = in_a_child("a_child_that_has_ended_is_kept_although_sigchld_was_ignored", async |_signals| {
            // SAFETY: to ignore a signal runs no code.
            #[expect(unsafe_code, reason = "a process is set up as its caller may have done it")]
            unsafe {
                use nix::sys::signal::{SigHandler, Signal, signal};
                signal(Signal::SIGCHLD, SigHandler::SigIgn).expect("SIGCHLD can be ignored");
            }
            let run = || Command::new("sh").args(["-c", "exit 3"]).status().map(|status| status.code());
            assert!(run().is_err(), "else this test shows nothing");
            keep_ended_children().expect("the kernel lets it");
            assert_eq!(run().ok(), Some(Some(3)));
        });
        assert!(child.is_none_or(|child| ran_to_its_end(&child)));
    }

    #[test]
    fn signals_are_told_apart_and_the_first_stop_does_not_end_the_process() {
        let child =
            in_a_child("signals_are_told_apart_and_the_first_stop_does_not_end_the_process", async |mut signals| {
                send(SIGHUP);
                assert_eq!(signals.next().await, Signal::Reload);
                send(SIGHUP);
                assert_eq!(signals.next().await, Signal::Reload);
                send(SIGTERM);
                assert_eq!(signals.next().await, Signal::Stop(SIGTERM));
            });
        assert!(child.is_none_or(|child| ran_to_its_end(&child)));
    }

    #[test]
    fn a_second_sigterm_ends_the_process_at_once_with_143() {
        let child = in_a_child("a_second_sigterm_ends_the_process_at_once_with_143", async |mut signals| {
            send(SIGTERM);
            assert_eq!(signals.next().await, Signal::Stop(SIGTERM));
            send(SIGTERM);
            panic!("still alive after the second SIGTERM");
        });
        assert!(child.is_none_or(|child| child.status.code() == Some(143)));
    }

    #[test]
    fn a_sigint_after_a_sigterm_nobody_took_ends_the_process_with_130() {
        let child = in_a_child("a_sigint_after_a_sigterm_nobody_took_ends_the_process_with_130", async |_signals| {
            send(SIGTERM);
            send(SIGINT);
            panic!("still alive after SIGTERM and SIGINT");
        });
        assert!(child.is_none_or(|child| child.status.code() == Some(130)));
    }

    #[test]
    fn a_signal_that_was_not_taken_is_there_for_the_next_who_asks() {
        let child = in_a_child("a_signal_that_was_not_taken_is_there_for_the_next_who_asks", async |mut signals| {
            tokio::select! {
                biased;
                signal = signals.next() => panic!("{signal:?} before any was sent"),
                () = std::future::ready(()) => {}
            }
            send(SIGINT);
            assert_eq!(signals.next().await, Signal::Stop(SIGINT));
        });
        assert!(child.is_none_or(|child| ran_to_its_end(&child)));
    }
}
