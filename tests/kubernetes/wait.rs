//! Waiting for what the server and its controllers do in their own time.

use std::fmt::Debug;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use support::Moment;

/// For conditions that must come true: far above what a loaded machine needs, reached only by failing tests.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Looks until what is seen is what is wanted, and returns it.
pub fn wait_until<T: Debug>(what: &str, look: impl Fn() -> Result<T>, is_it: impl Fn(&T) -> bool) -> Result<T> {
    let deadline = Moment::now().after(PATIENCE);
    loop {
        let seen = look()?;
        if is_it(&seen) {
            return Ok(seen);
        }
        ensure!(!deadline.passed(), "not within {PATIENCE:?}: {what}; last seen: {seen:#?}");
        thread::sleep(LOOK_AGAIN);
    }
}
