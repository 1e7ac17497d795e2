//! The terminal while the live view has it, and its return, whatever happens.

use std::io::{self, Write as _};
use std::panic;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

/// How the terminal was, while it is not so. Kept here for the panic hook.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
/// A line longer than the terminal is wide would wrap, and the next view be drawn in the wrong place.
const NO_WRAP: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

/// The terminal without echo and without waiting for Enter; Ctrl-C still sends its signal. Dropping it, or a
/// panic anywhere, restores it.
#[derive(Debug)]
pub(crate) struct Terminal(());

impl Terminal {
    pub(crate) fn take() -> Result<Self> {
        let before = tcgetattr(io::stdin()).context("cannot read the terminal's settings")?;
        let mut settings = before.clone();
        settings.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let terminal = Self(());
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            restore();
            report(panic);
        }));
        tcsetattr(io::stdin(), SetArg::TCSANOW, &settings).context("cannot change the terminal's settings")?;
        draw(&format!("{HIDE_CURSOR}{NO_WRAP}"));
        Ok(terminal)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        draw(&format!("{WRAP}{SHOW_CURSOR}"));
        // Fails when the terminal is gone, and then nothing needs it.
        tcsetattr(io::stdin(), SetArg::TCSANOW, &before).ok();
    }
}

/// Writes at once. A terminal that is gone sends SIGHUP, which ends the demo.
pub(crate) fn draw(text: &str) {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).ok();
}
