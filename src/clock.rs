//! The only `now()` of the program.
//!
//! The boot clock (`CLOCK_BOOTTIME`) goes on while the machine sleeps, so a lease that expired in the
//! meantime is seen to have expired. Timers only wake the loop; expiry is decided here, at every request.

use nix::time::{ClockId, clock_gettime};

use crate::election::{Instant, Reading, WallTime};

/// Reads both clocks.
///
/// # Panics
/// Never on Linux, which has both clocks.
#[must_use]
pub fn now() -> Reading {
    Reading {
        boot: Instant::from_nanos(
            u64::try_from(nanos(ClockId::CLOCK_BOOTTIME)).expect("the boot clock starts at 0 and only grows"),
        ),
        wall: WallTime::from_unix_nanos(nanos(ClockId::CLOCK_REALTIME)),
    }
}

fn nanos(clock: ClockId) -> i64 {
    let time = clock_gettime(clock).expect("Linux has had both clocks since 2.6.39");
    time.tv_sec() * 1_000_000_000 + time.tv_nsec()
}
