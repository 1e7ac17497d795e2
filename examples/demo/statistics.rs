//! How takeover times are distributed.

use std::fmt;
use std::time::Duration;

/// Median, 95th percentile and maximum, each a time that was measured (nearest rank).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Statistics {
    median: Duration,
    p95: Duration,
    max: Duration,
}

impl Statistics {
    /// Of at least one time.
    pub(crate) fn of(times: &[Duration]) -> Option<Self> {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        Some(Self { median: at(50)?, p95: at(95)?, max: at(100)? })
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let (median, p95, max) = (millis(self.median), millis(self.p95), millis(self.max));
        write!(f, "median {median:.1} ms, p95 {p95:.1} ms, max {max:.1} ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times: Vec<_> = (1..=20).rev().map(Duration::from_millis).collect();
        let statistics = Statistics::of(&times).unwrap();
        assert_eq!(statistics.to_string(), "median 10.0 ms, p95 19.0 ms, max 20.0 ms");
    }

    #[test]
    fn one_time_is_all_of_them_and_none_is_nothing() {
        let one = Statistics::of(&[Duration::from_millis(7)]).unwrap();
        assert_eq!(one.to_string(), "median 7.0 ms, p95 7.0 ms, max 7.0 ms");
        assert_eq!(Statistics::of(&[]), None);
    }
}
