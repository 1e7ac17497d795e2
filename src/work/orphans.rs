//! Orphans come to this process where it is the first of a container, and where it takes them in for its guardians: what
//! a health probe left behind in a session of its own, what somebody ran in the container by hand. Nobody waits for
//! them, and each that is dead would keep its number for ever.

use std::mem::take;
use std::time::Duration;

use nix::unistd::{Pid, getpid};

use super::processes::{any_ended, descendants, reap};
use crate::election::Instant;

/// Between two looks. Children of our own are waited for within milliseconds of their end: who is dead in two looks is not
/// one of them.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Reaps dead orphans.
#[derive(Debug)]
pub struct Orphans {
    look_at: Instant,
    /// Who was dead at the last look.
    dead: Vec<Pid>,
}

impl Orphans {
    /// Nobody is reaped before the second look.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { look_at: now, dead: Vec::new() }
    }

    /// Looks, if it is time. Costs one system call as long as nobody is dead.
    pub fn look(&mut self, now: Instant) {
        if now < self.look_at {
            return;
        }
        self.look_at = now.after(LOOK_EVERY);
        let before = take(&mut self.dead);
        if any_ended().is_none() {
            return;
        }
        // What cannot be seen now can be at the next look.
        let family = descendants().unwrap_or_default();
        let dead = family.iter().filter(|process| process.zombie && process.parent == getpid());
        let (old, new): (Vec<Pid>, _) = dead.map(|process| process.pid).partition(|pid| before.contains(pid));
        old.into_iter().for_each(reap);
        self.dead = new;
    }
}
