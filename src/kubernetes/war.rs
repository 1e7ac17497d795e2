//! What to do when somebody else undoes what was done, again and again.

use std::time::Duration;

use crate::clock;
use crate::election::Instant;

/// After the first repair.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// Doublings of the pause: 4 s, for what is changed by hand is to be right within 5 s.
const DOUBLINGS_MAX: u32 = 3;
/// Whoever has left the label alone for this long is no enemy.
const PEACE: Duration = Duration::from_mins(1);
/// From this battle on, somebody does it on purpose.
const DECLARED_AT: u32 = 5;

/// Two writers that each repair what the other has done must not do so as fast as they can.
#[derive(Debug, Default)]
pub(super) struct War {
    battles: u32,
    last: Option<Instant>,
}

impl War {
    /// One more repair; how long to leave things as they are after it.
    pub(super) fn battle(&mut self) -> Duration {
        let now = clock::now().boot;
        if self.last.is_none_or(|last| now.since(last) > PEACE) {
            self.battles = 0;
        }
        self.last = Some(now);
        let pause = PAUSE_FIRST * (1 << self.battles.min(DOUBLINGS_MAX));
        self.battles = self.battles.saturating_add(1);
        pause
    }

    /// Whether a repair is still worth a line.
    pub(super) const fn is_new(&self) -> bool {
        self.battles < DECLARED_AT
    }

    /// Whether it is time to say that somebody does it on purpose: once.
    pub(super) const fn is_declared(&self) -> bool {
        self.battles == DECLARED_AT
    }
}
