//! How long a command that has ended waits before it runs again.

use std::time::Duration;

/// The first pause: not felt by who waits for the command, and long enough for a processor to do other things between
/// two that end at once.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause: half a minute after its cause has been mended the command is back.
const MOST: Duration = Duration::from_secs(30);
/// A run this long was a good one, and the next failure starts anew. At least the longest pause, so that what fails after
/// each pause is not taken for good.
const GOOD_RUN: Duration = MOST;

/// The pauses of one course of work: each twice as long as the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// The pause after a run that lasted so long.
    pub(super) fn after(&mut self, lasted: Duration) -> Duration {
        if lasted >= GOOD_RUN {
            self.next = FIRST;
        }
        let pause = self.next;
        self.next = (pause * 2).min(MOST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_half_a_minute_and_begin_anew_after_a_good_run() {
        let mut backoff = Backoff::new();
        let mut pauses: Vec<u128> = (0..11).map(|_| backoff.after(Duration::ZERO).as_millis()).collect();
        pauses.push(backoff.after(GOOD_RUN).as_millis());
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 100]);
    }
}
