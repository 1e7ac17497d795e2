//! Key presses.

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::terminal::Terminal;

/// How long a wait for a key lasts before it is looked whether to go on.
const WAIT: Duration = Duration::from_millis(100);

/// A thread that reads keys: `q` sets the flag that ends every wait, the others are handed out one at a time; what is
/// pressed while one is being worked on is forgotten.
#[derive(Debug)]
pub(crate) struct Keys {
    pressed: Receiver<u8>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _terminal: Terminal,
}

impl Keys {
    pub(crate) fn read(interrupted: Arc<AtomicBool>) -> Result<Self> {
        let terminal = Terminal::take()?;
        // No room: a key is taken while somebody waits for it, or not at all.
        let (press, pressed) = sync_channel(0);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let read = move || {
            while !stopped.load(Ordering::Relaxed) {
                match next_key() {
                    Some(b'q' | b'Q') => interrupted.store(true, Ordering::Relaxed),
                    Some(key) => press.try_send(key).unwrap_or(()),
                    None => {}
                }
            }
        };
        let thread = thread::Builder::new().name("keys".to_owned()).spawn(read).context("cannot read keys")?;
        Ok(Self { pressed, stop, thread: Some(thread), _terminal: terminal })
    }

    /// The next key, if one is pressed within a short time.
    pub(crate) fn next(&self) -> Option<u8> {
        self.pressed.recv_timeout(WAIT).ok()
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The thread's own panic has been printed already.
            thread.join().ok();
        }
    }
}

fn next_key() -> Option<u8> {
    let stdin = io::stdin();
    let mut asked = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(WAIT).unwrap_or(PollTimeout::ZERO);
    // An error is a signal that came in between: look again.
    if poll(&mut asked, timeout).ok()? == 0 {
        return None;
    }
    let mut key = [0];
    stdin.lock().read_exact(&mut key).ok()?;
    Some(key[0])
}
