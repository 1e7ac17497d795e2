//! How long to wait before trying again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::fault::ApiFault;
use crate::election::Random;

/// After the first failure: short, because most failures are one cut connection.
const FIRST: Duration = Duration::from_millis(100);
/// At most: the label is to be right within 5 s after the API server is back, two calls of which one may be lost
/// included.
const MOST: Duration = Duration::from_secs(1);
/// At most, where only a person can mend it.
const MOST_FOR_A_PERSON: Duration = Duration::from_secs(4);

/// Doubles from call to call, each wait spread over its upper half.
pub(super) struct Pace {
    random: Random,
    failures: u32,
}

impl Pace {
    /// Two pods do not share a pace.
    pub(super) fn of(pod: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        pod.hash(&mut hasher);
        Self { random: Random::from_seed(hasher.finish()), failures: 0 }
    }

    pub(super) fn after(&mut self, fault: &ApiFault) -> Duration {
        let most = if fault.code.needs_a_person() { MOST_FOR_A_PERSON } else { MOST };
        // 6 doublings of 100 ms pass the 4 s: more would only overflow.
        let wait = FIRST.saturating_mul(1 << self.failures.min(6)).min(most);
        self.failures = self.failures.saturating_add(1);
        let wait = self.between(wait / 2, wait);
        fault.retry_after.map_or(wait, |asked| wait.max(asked.min(MOST_FOR_A_PERSON)))
    }

    pub(super) const fn reset(&mut self) {
        self.failures = 0;
    }

    pub(super) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        self.random.between(least, most)
    }
}
