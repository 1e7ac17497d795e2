//! How long to wait before trying again.

use std::time::Duration;

use super::random::Random;

/// After the first failure: short, because most failures are one cut connection.
const FIRST: Duration = Duration::from_millis(50);
/// At most: a leader that has lost etcd must find it again well within its lease.
const MOST: Duration = Duration::from_millis(500);

/// Doubles from [`FIRST`] to [`MOST`], each wait spread over its upper half.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(super) fn next(&mut self, random: &mut Random) -> Duration {
        // 4 doublings of 50 ms pass the 500 ms: more would only overflow.
        let wait = FIRST.saturating_mul(1 << self.failures.min(4)).min(MOST);
        self.failures = self.failures.saturating_add(1);
        random.between(wait / 2, wait)
    }

    pub(super) const fn reset(&mut self) {
        self.failures = 0;
    }
}
