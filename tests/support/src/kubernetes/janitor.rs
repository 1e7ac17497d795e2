//! Deletes what a test process leaves behind.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};

/// Waits for the end of its input, which comes when the test process has ended, however that came about. The servers
/// are killed at the same moment and may write for a little longer.
const SCRIPT: &str = r#"cat; for _ in 1 2 3 4 5; do rm -rf -- "$@" && exit; sleep 1; done"#;

/// The other ends of the janitors' inputs: closed by the kernel.
static OPEN: Mutex<Vec<ChildStdin>> = Mutex::new(Vec::new());

/// Deletes these directories when this process has ended.
///
/// # Errors
/// When the process that does it cannot be started.
pub(super) fn delete_after_exit(directories: &[&Path]) -> Result<()> {
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "janitor"]).args(directories);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // Ctrl-C on a terminal is not for it.
    command.process_group(0);
    let mut janitor = command.spawn().context("cannot start sh")?;
    let input = janitor.stdin.take().context("its input is piped")?;
    OPEN.lock().unwrap_or_else(PoisonError::into_inner).push(input);
    Ok(())
}
