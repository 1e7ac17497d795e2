//! The two clocks of a machine, made of the true time that only the world knows.

use std::time::Duration;

use bellwether::election::{Instant, Reading, WallTime};

const MILLION: i128 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// Nanoseconds in `duration`.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("a run lasts minutes")
}

/// A boot clock that runs at its own rate and can be stopped with its guest, and a wall clock that is set.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    /// Parts in a million by which it runs faster than the true clock.
    drift: i64,
    boot_at_start: i128,
    stood_still: i128,
    wall_lead: i128,
    /// The hypervisor has stopped the guest, its boot clock included, since then.
    stopped_at: Option<u64>,
}

impl Clock {
    pub(crate) fn new(drift: i64) -> Self {
        Self {
            drift,
            // Booted an hour ago.
            boot_at_start: i128::from(3600 * SECOND),
            stood_still: 0,
            wall_lead: i128::from(1_700_000_000 * SECOND),
            stopped_at: None,
        }
    }

    fn run(&self, now: u64) -> i128 {
        i128::from(now) * (MILLION + i128::from(self.drift)) / MILLION
    }

    fn boot(&self, now: u64) -> i128 {
        self.boot_at_start + self.run(self.stopped_at.unwrap_or(now)) - self.stood_still
    }

    pub(crate) fn reading(&self, now: u64) -> Reading {
        let boot = self.boot(now);
        Reading {
            boot: Instant::from_nanos(u64::try_from(boot).expect("boot clocks start at 0")),
            wall: WallTime::from_unix_nanos(i64::try_from(boot + self.wall_lead).expect("this century")),
        }
    }

    /// The true time from which the boot clock shows `boot`, if it is not stopped meanwhile.
    pub(crate) fn true_time(&self, boot: Instant) -> u64 {
        let run = i128::from(boot.nanos()) - self.boot_at_start + self.stood_still;
        let speed = MILLION + i128::from(self.drift);
        u64::try_from((run * MILLION + speed - 1).div_euclid(speed).max(0)).expect("within the run") + 1
    }

    /// How much true time passes while the boot clock counts `span`.
    pub(crate) fn true_span(&self, span: Duration) -> u64 {
        u64::try_from(i128::from(nanos(span)) * MILLION / (MILLION + i128::from(self.drift))).expect("a run's span")
    }

    /// The guest is stopped.
    pub(crate) fn stop(&mut self, now: u64) {
        self.stopped_at.get_or_insert(now);
    }

    /// The guest goes on; its wall clock is set right by the hypervisor, its boot clock is not.
    /// For how long it stood still, in true time.
    pub(crate) fn go_on(&mut self, now: u64) -> u64 {
        let Some(since) = self.stopped_at.take() else { return 0 };
        self.stood_still += self.run(now) - self.run(since);
        // By the true time: the hypervisor knows no other.
        self.wall_lead += i128::from(now - since);
        now - since
    }

    /// Somebody sets the wall clock.
    pub(crate) fn wall_jumps(&mut self, by: i64) {
        self.wall_lead += i128::from(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_is_due_when_the_clock_shows_it_whatever_its_rate() {
        for drift in [-60_000, -1, 0, 1, 60_000] {
            let clock = Clock::new(drift);
            let boot = clock.reading(7 * SECOND).boot.after(Duration::from_millis(1234));
            let at = clock.true_time(boot);
            assert!(clock.reading(at).boot >= boot, "{drift}");
            assert!(clock.reading(at - 1000).boot < boot, "{drift}");
        }
    }

    #[test]
    fn a_stopped_guest_misses_time_and_its_wall_clock_does_not() {
        let mut clock = Clock::new(0);
        let before = clock.reading(SECOND);
        clock.stop(SECOND);
        assert_eq!(clock.reading(5 * SECOND), before);
        clock.go_on(5 * SECOND);
        let after = clock.reading(5 * SECOND);
        assert_eq!(after.boot, before.boot);
        assert_eq!(after.wall_lead() - before.wall_lead(), i128::from(4 * SECOND));
    }
}
