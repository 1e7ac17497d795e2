//! Points in time as the core sees them: handed in, never read.

use std::fmt;
use std::time::Duration;

/// A point on the boot clock: nanoseconds since the machine started, time in suspend included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The instant `nanos` nanoseconds after boot.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since boot.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// This instant moved later; stays at the end of time instead of wrapping.
    #[must_use]
    pub const fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(nanos_of(by)))
    }

    /// This instant moved earlier; stays at boot instead of wrapping.
    #[must_use]
    pub const fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(nanos_of(by)))
    }

    /// The time from `earlier` to this instant, zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "boot+{:?}", Duration::from_nanos(self.0))
    }
}

/// A point on the wall clock: nanoseconds since 1970-01-01T00:00:00Z. For people, and to notice that
/// the boot clock stood still; never for expiry on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(i64);

impl WallTime {
    /// The wall time `nanos` nanoseconds after the Unix epoch.
    #[must_use]
    pub const fn from_unix_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds after the Unix epoch.
    #[must_use]
    pub const fn unix_nanos(self) -> i64 {
        self.0
    }
}

/// Both clocks, read at one moment by `clock.rs` and handed to the core with every input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The boot clock: what every deadline is measured on.
    pub boot: Instant,
    /// The wall clock at the same moment.
    pub wall: WallTime,
}

impl Reading {
    /// How far the wall clock is ahead of the boot clock, in nanoseconds. The number means nothing by
    /// itself; that it grew means the wall was set forward or the boot clock stood still.
    #[must_use]
    pub const fn wall_lead(&self) -> i128 {
        self.wall.0 as i128 - self.boot.0 as i128
    }
}

/// The instant from which a candidate must not act as leader any more (DESIGN: *until*).
///
/// It has passed when the boot clock says so, and also when the wall clock ran ahead of the boot clock
/// by more than the safety margin since the renewal was sent: a hypervisor can stop the guest's boot
/// clock together with the guest (live migration, snapshot), and the lease went on expiring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    boot: Instant,
    wall_lead: i128,
    wall_tolerance: Duration,
}

impl Until {
    /// `sent` is the reading taken *before* the keep-alive left, `ttl` the lifetime in its answer.
    #[must_use]
    pub fn of_renewal(sent: Reading, ttl: Duration, margin: Duration) -> Self {
        Self { boot: sent.boot.after(ttl).before(margin), wall_lead: sent.wall_lead(), wall_tolerance: margin }
    }

    /// The boot-clock part: when a timer should wake the loop.
    #[must_use]
    pub const fn boot(&self) -> Instant {
        self.boot
    }

    /// So much earlier.
    #[must_use]
    pub const fn earlier(self, by: Duration) -> Self {
        Self { boot: self.boot.before(by), ..self }
    }

    /// How far the wall clock may be ahead of the boot clock, and how far ahead of that makes it passed: nanoseconds.
    /// For a process that has to watch over the same instant by itself.
    #[must_use]
    pub const fn wall_bound(&self) -> i128 {
        self.wall_lead + nanos_of(self.wall_tolerance) as i128
    }

    /// The same instant, or `bound` when that is earlier.
    #[must_use]
    pub fn at_most(self, bound: Instant) -> Self {
        Self { boot: self.boot.min(bound), ..self }
    }

    /// Whether the candidate must have stopped acting by `now`.
    #[must_use]
    pub fn passed(&self, now: Reading) -> bool {
        now.boot >= self.boot || self.clock_jumped(now)
    }

    /// Whether the wall clock ran ahead of the boot clock by more than the margin.
    #[must_use]
    pub fn clock_jumped(&self, now: Reading) -> bool {
        now.wall_lead() - self.wall_lead > i128::from(nanos_of(self.wall_tolerance))
    }

    /// The instant at which it has passed for who did not stop with this machine: earlier by what the wall clock has run
    /// ahead, if that is more than the margin.
    #[must_use]
    pub fn in_spite_of_jumps(&self, now: Reading) -> Instant {
        if !self.clock_jumped(now) {
            return self.boot;
        }
        let ahead = u64::try_from(now.wall_lead() - self.wall_lead).unwrap_or(u64::MAX);
        self.boot.before(Duration::from_nanos(ahead))
    }

    /// The time left, zero once passed.
    #[must_use]
    pub fn remaining(&self, now: Reading) -> Duration {
        if self.passed(now) { Duration::ZERO } else { self.boot.since(now.boot) }
    }
}

/// Nanoseconds in `duration`, the largest number when it is longer than 584 years.
const fn nanos_of(duration: Duration) -> u64 {
    let whole = duration.as_secs().saturating_mul(1_000_000_000);
    whole.saturating_add(duration.subsec_nanos() as u64)
}

#[cfg(test)]
#[expect(clippy::unchecked_time_subtraction, reason = "a test that subtracts too much should panic")]
mod tests {
    use super::*;

    const NANO: Duration = Duration::from_nanos(1);
    const TTL: Duration = Duration::from_secs(15);
    const MARGIN: Duration = Duration::from_secs(3);

    fn reading(boot: u64, wall: i64) -> Reading {
        Reading { boot: Instant::from_nanos(boot), wall: WallTime::from_unix_nanos(wall) }
    }

    fn until() -> Until {
        Until::of_renewal(reading(1_000_000_000, 5_000_000_000), TTL, MARGIN)
    }

    /// The reading so long after the renewal was sent, with the wall clock so far ahead.
    fn later(by: Duration, wall_ahead: i64) -> Reading {
        let by = i64::try_from(by.as_nanos()).expect("a test's time");
        reading(1_000_000_000 + by.cast_unsigned(), 5_000_000_000 + by + wall_ahead)
    }

    #[test]
    fn until_is_sent_plus_ttl_minus_margin_to_the_nanosecond() {
        assert_eq!(until().boot(), Instant::from_nanos(13_000_000_000));
        assert!(!until().passed(later(TTL - MARGIN - NANO, 0)));
        assert!(until().passed(later(TTL - MARGIN, 0)));
        assert_eq!(until().remaining(later(TTL - MARGIN - NANO, 0)), NANO);
        assert_eq!(until().remaining(later(TTL, 0)), Duration::ZERO);
    }

    #[test]
    fn a_wall_clock_ahead_by_the_margin_is_allowed_for_and_by_more_is_not() {
        let margin = i64::try_from(MARGIN.as_nanos()).expect("3 s");
        assert!(!until().passed(later(Duration::ZERO, margin)));
        assert!(until().passed(later(Duration::ZERO, margin + 1)));
        assert_eq!(until().remaining(later(Duration::ZERO, margin + 1)), Duration::ZERO);
    }

    #[test]
    fn a_wall_clock_set_back_changes_nothing() {
        assert!(!until().passed(later(Duration::ZERO, i64::MIN / 2)));
        assert!(until().passed(later(TTL, i64::MIN / 2)));
    }

    #[test]
    fn a_ttl_shorter_than_the_margin_has_passed_from_the_start() {
        let sent = reading(10_000_000_000, 0);
        assert!(Until::of_renewal(sent, Duration::from_secs(2), MARGIN).passed(sent));
        let at_boot = reading(0, 0);
        assert!(Until::of_renewal(at_boot, Duration::from_secs(2), MARGIN).passed(at_boot), "before boot is at boot");
    }

    #[test]
    fn a_bound_only_ever_shortens() {
        let earlier = Instant::from_nanos(2_000_000_000);
        assert_eq!(until().at_most(earlier).boot(), earlier);
        assert_eq!(until().at_most(Instant::from_nanos(u64::MAX)).boot(), until().boot());
    }

    #[test]
    fn instants_stay_at_the_ends_of_time() {
        let end = Instant::from_nanos(u64::MAX);
        assert_eq!(end.after(NANO), end);
        assert_eq!(Instant::from_nanos(0).before(NANO), Instant::from_nanos(0));
        assert_eq!(Instant::from_nanos(1).after(Duration::MAX), end);
        assert_eq!(Instant::from_nanos(1).since(Instant::from_nanos(2)), Duration::ZERO);
    }
}
