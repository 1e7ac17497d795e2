//! How long to wait before trying again.

use std::collections::BTreeMap;
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
    /// Under each of the three bounds above for itself: an API server that comes up refuses for a moment what it will
    /// grant, and hours without any answer are no reason to wait half a minute then.
    failures: BTreeMap<Duration, u32>,
}

impl Pace {
    /// Two pods do not share a pace.
    pub(super) fn of(config: &LabelConfig) -> Self {
        let mut hasher = DefaultHasher::new();
        config.pod.hash(&mut hasher);
        Self { random: Random::from_seed(hasher.finish()), asked: config.asked, failures: BTreeMap::new() }
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

    pub(super) fn reset(&mut self) {
        self.failures.clear();
    }

    pub(super) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        self.random.between(least, most)
    }

    fn next(&mut self, most: Duration) -> Duration {
        // 9 doublings of 100 ms pass the 30 s: more would only overflow.
        let failures = self.failures.entry(most).or_default();
        let wait = FIRST.saturating_mul(1 << (*failures).min(9)).min(most);
        *failures = failures.saturating_add(1);
        self.between(wait / 2, wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ApiServer, Labels};
    use crate::kubernetes::ApiOperation;

    fn pace(asked: bool) -> Pace {
        let labels = Labels {
            role_key: "role".into(),
            leader: "leader".into(),
            follower: None,
            election_key: "election".into(),
            election: "web".into(),
            term_key: "term".into(),
        };
        let (api_server, pod) = (ApiServer::InCluster, "web-0".to_owned());
        Pace::of(&LabelConfig { api_server, asked, pod, namespace: None, labels })
    }

    fn fault(code: ApiCode) -> ApiFault {
        ApiFault::new(ApiOperation::Patch, code, "no")
    }

    /// The longest of many waits after the same fault, which all come to lie in the upper half of it.
    fn longest(pace: &mut Pace, code: ApiCode) -> Duration {
        let waits: Vec<_> = (0..50).map(|_| pace.after(&fault(code))).collect();
        let longest = waits.iter().copied().max().expect("fifty");
        assert!(waits[20..].iter().all(|wait| *wait >= longest / 2 - FIRST), "{waits:?}");
        longest
    }

    #[test]
    fn where_nobody_asked_for_the_label_a_missing_right_is_asked_for_twice_a_minute() {
        let unasked = longest(&mut pace(false), ApiCode::Forbidden);
        assert!((MOST_UNASKED * 3 / 4..=MOST_UNASKED).contains(&unasked), "{unasked:?}");
        let asked = longest(&mut pace(true), ApiCode::Forbidden);
        assert!((MOST_UNHURRIED * 3 / 4..=MOST_UNHURRIED).contains(&asked), "{asked:?}");
        let unavailable = longest(&mut pace(false), ApiCode::Unavailable);
        assert!((MOST * 3 / 4..=MOST).contains(&unavailable), "{unavailable:?}");
    }

    #[test]
    fn a_right_that_is_missing_for_a_moment_after_an_outage_is_asked_for_again_at_once() {
        let mut pace = pace(false);
        longest(&mut pace, ApiCode::Unavailable);
        // As an API server answers that has come up, and has not yet read who may do what.
        let refused: Duration = (0..4).map(|_| pace.after(&fault(ApiCode::Forbidden))).sum();
        assert!(refused <= FIRST * 15, "{refused:?}");
    }

    #[test]
    fn a_server_that_is_out_of_order_in_two_ways_is_not_asked_more_for_it() {
        let mut pace = pace(true);
        longest(&mut pace, ApiCode::Unavailable);
        longest(&mut pace, ApiCode::Throttled);
        let next = pace.after(&fault(ApiCode::Unavailable)).min(pace.after(&fault(ApiCode::Throttled)));
        assert!(next >= MOST / 2, "{next:?}");
        pace.reset();
        assert!(pace.after(&fault(ApiCode::Unavailable)) <= FIRST, "all is well again");
    }

    #[test]
    fn what_the_server_asks_for_is_granted_within_bounds() {
        let asks_for = |seconds| {
            let mut fault = fault(ApiCode::Throttled);
            fault.retry_after = Some(Duration::from_secs(seconds));
            fault
        };
        assert!(pace(true).after(&asks_for(2)) >= Duration::from_secs(2));
        assert!(pace(true).after(&asks_for(3600)) <= MOST_UNHURRIED, "the label is to be right soon after it is over");
    }
}
