//! How long to wait before trying again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use super::fault::{ApiCode, ApiFault};
use crate::config::LabelConfig;
use crate::election::Random;

/// After the first failure: short, because most failures are one cut connection.
const FIRST: Duration = Duration::from_millis(100);
/// At most: the label is to be right within 5 s after the API server is back, two calls of which one may be lost
/// included.
const MOST: Duration = Duration::from_secs(1);
/// At most, where only a person can mend it, or where the API server asks for less.
const MOST_UNHURRIED: Duration = Duration::from_secs(4);
/// At most, where nobody asked for the label: a pod whose service account has no rights is no fault of anybody's.
const MOST_UNASKED: Duration = Duration::from_secs(30);

/// Doubles from call to call, each wait spread over its upper half.
pub(super) struct Pace {
    random: Random,
    asked: bool,
    failures: u32,
}

impl Pace {
    /// Two pods do not share a pace.
    pub(super) fn of(config: &LabelConfig) -> Self {
        let mut hasher = DefaultHasher::new();
        config.pod.hash(&mut hasher);
        Self { random: Random::from_seed(hasher.finish()), asked: config.asked, failures: 0 }
    }

    pub(super) fn after(&mut self, fault: &ApiFault) -> Duration {
        let most = if fault.code == ApiCode::Forbidden && !self.asked {
            MOST_UNASKED
        } else if fault.code.needs_a_person() || fault.code == ApiCode::Throttled {
            MOST_UNHURRIED
        } else {
            MOST
        };
        let wait = self.next(most);
        fault.retry_after.map_or(wait, |asked| wait.max(asked.min(MOST_UNHURRIED)))
    }

    /// After a watch that ended before it was of use.
    pub(super) fn unhurried(&mut self) -> Duration {
        self.next(MOST_UNHURRIED)
    }

    pub(super) const fn reset(&mut self) {
        self.failures = 0;
    }

    pub(super) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        self.random.between(least, most)
    }

    fn next(&mut self, most: Duration) -> Duration {
        // 9 doublings of 100 ms pass the 30 s: more would only overflow.
        let wait = FIRST.saturating_mul(1 << self.failures.min(9)).min(most);
        self.failures = self.failures.saturating_add(1);
        self.between(wait / 2, wait)
    }
}
