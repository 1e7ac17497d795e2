//! The timings of an election. A value of [`Timings`] is consistent: the relations hold by construction.

use std::time::Duration;

use thiserror::Error;

/// Shortest lease: etcd's own minimum with its default election timeout of 1 s is ceil(1.5 × 1 s).
pub const LEASE_TTL_MIN: Duration = Duration::from_secs(2);
/// Longest lease: an hour without a leader after a crash is never what was meant.
pub const LEASE_TTL_MAX: Duration = Duration::from_hours(1);
/// Below this an etcd leader election (2 to 3 s, once in twelve 3.03 s) cannot be ridden out.
pub const LEASE_TTL_RIDES_OUT_ELECTION: Duration = Duration::from_secs(8);
/// Shortest of the intervals below a lease: under it the timers cost more than they protect.
const STEP_MIN: Duration = Duration::from_millis(10);

const LEASE_TTL_DEFAULT: Duration = Duration::from_secs(15);
const ATTEMPT_TIMEOUT_MOST: Duration = Duration::from_secs(3);
const SAFETY_MARGIN_LEAST: Duration = Duration::from_millis(500);
const RECONNECT_WINDOW_DEFAULT: Duration = Duration::from_secs(5);
const ANSWER_VALIDITY_DEFAULT: Duration = Duration::from_secs(1);
const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// The longest time to stop that is taken by default: Kubernetes gives a pod 30 s in all.
const STOP_TIME_MOST: Duration = Duration::from_secs(10);
/// The shortest time to stop that is taken by default: less is no chance to end in order, and must be asked for.
const STOP_TIME_LEAST: Duration = Duration::from_millis(100);
/// A hedge goes out after this, or half the attempt timeout when that is shorter.
const HEDGE_DELAY_MOST: Duration = Duration::from_millis(500);

/// What the user set; `None` takes the default, which follows from the lease TTL.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimingsRequest {
    /// `--lease-ttl`
    pub lease_ttl: Option<Duration>,
    /// `--keepalive-interval`
    pub keepalive_interval: Option<Duration>,
    /// `--attempt-timeout`
    pub attempt_timeout: Option<Duration>,
    /// `--safety-margin`
    pub safety_margin: Option<Duration>,
    /// `--reconnect-window`
    pub reconnect_window: Option<Duration>,
    /// `--answer-validity`
    pub answer_validity: Option<Duration>,
    /// `--drain-timeout`
    pub drain_timeout: Option<Duration>,
    /// `--stop-timeout`
    pub stop_time: StopTime,
}

/// How long what runs only while the candidate leads may take to end once it is told to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StopTime {
    /// There is nothing of the kind: zero.
    #[default]
    NoWork,
    /// What the other timings leave of the lease, 10 s at most.
    Default,
    /// This.
    Given(Duration),
}

/// Timings whose relations hold. Fields are private so that they stay so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    lease_ttl: Duration,
    keepalive_interval: Duration,
    attempt_timeout: Duration,
    safety_margin: Duration,
    reconnect_window: Duration,
    answer_validity: Duration,
    drain_timeout: Duration,
    stop_time: Duration,
}

/// One relation that does not hold, with both sides in the text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TimingFault {
    /// Too short or too long.
    #[error("--lease-ttl: {0:?} is out of range; choose {LEASE_TTL_MIN:?} to {LEASE_TTL_MAX:?}")]
    LeaseTtlRange(Duration),
    /// etcd counts leases in whole seconds.
    #[error(
        "--lease-ttl: {0:?} is not a whole number of seconds, and etcd counts leases in seconds; choose {1}s or {2}s"
    )]
    LeaseTtlFraction(Duration, u64, u64),
    /// A step of the renewal that is too small to keep.
    #[error("{flag}: {value:?} is too short; choose at least {STEP_MIN:?}")]
    StepTooShort {
        /// The flag that set it.
        flag: &'static str,
        /// What was set.
        value: Duration,
    },
    /// K + 2R + M ≤ T fails: two attempts must fit between a renewal and `until`.
    #[error(
        "--lease-ttl: {lease_ttl:?} is too short for two renewal attempts: --keepalive-interval {keepalive_interval:?} + \
         2 × --attempt-timeout {attempt_timeout:?} + --safety-margin {safety_margin:?} = {sum:?} > {lease_ttl:?}; \
         raise --lease-ttl or lower one of the others"
    )]
    RenewalDoesNotFit {
        /// T
        lease_ttl: Duration,
        /// K
        keepalive_interval: Duration,
        /// R
        attempt_timeout: Duration,
        /// M
        safety_margin: Duration,
        /// K + 2R + M
        sum: Duration,
    },
    /// K + 2R + G + M ≤ T fails: what runs as leader must be able to end before others may lead.
    #[error(
        "--stop-timeout: {stop_time:?} does not fit into the lease: --keepalive-interval {keepalive_interval:?} + 2 × \
         --attempt-timeout {attempt_timeout:?} + --stop-timeout {stop_time:?} + --safety-margin {safety_margin:?} = {sum:?} > \
         --lease-ttl {lease_ttl:?}; raise --lease-ttl or lower one of the others"
    )]
    StopDoesNotFit {
        /// T
        lease_ttl: Duration,
        /// K
        keepalive_interval: Duration,
        /// R
        attempt_timeout: Duration,
        /// M
        safety_margin: Duration,
        /// G
        stop_time: Duration,
        /// K + 2R + G + M
        sum: Duration,
    },
    /// An answer's promise must be able to run out before a voluntary release.
    #[error(
        "--answer-validity: {answer_validity:?} > --drain-timeout {drain_timeout:?}: a release waits until the last answer \
         has expired, so the drain must be able to last as long; lower --answer-validity or raise --drain-timeout"
    )]
    ValidityOutlastsDrain {
        /// V
        answer_validity: Duration,
        /// the drain
        drain_timeout: Duration,
    },
}

impl Timings {
    /// Fills in the defaults and checks every relation; returns all faults at once.
    ///
    /// # Errors
    /// One [`TimingFault`] per relation that fails. Nothing is adjusted.
    pub fn new(request: TimingsRequest) -> Result<Self, Vec<TimingFault>> {
        let lease_ttl = request.lease_ttl.unwrap_or(LEASE_TTL_DEFAULT);
        let mut timings = Self {
            lease_ttl,
            keepalive_interval: request.keepalive_interval.unwrap_or(lease_ttl / 3),
            attempt_timeout: request.attempt_timeout.unwrap_or((lease_ttl / 6).min(ATTEMPT_TIMEOUT_MOST)),
            safety_margin: request.safety_margin.unwrap_or((lease_ttl / 5).max(SAFETY_MARGIN_LEAST)),
            reconnect_window: request.reconnect_window.unwrap_or(RECONNECT_WINDOW_DEFAULT),
            answer_validity: request.answer_validity.unwrap_or(ANSWER_VALIDITY_DEFAULT),
            drain_timeout: request.drain_timeout.unwrap_or(DRAIN_TIMEOUT_DEFAULT),
            stop_time: Duration::ZERO,
        };
        timings.stop_time = match request.stop_time {
            StopTime::NoWork => Duration::ZERO,
            StopTime::Given(stop_time) => stop_time,
            StopTime::Default => lease_ttl.saturating_sub(timings.renewal_sum()).clamp(STOP_TIME_LEAST, STOP_TIME_MOST),
        };
        let faults = timings.faults();
        if faults.is_empty() { Ok(timings) } else { Err(faults) }
    }

    fn faults(&self) -> Vec<TimingFault> {
        let mut faults = Vec::new();
        if !(LEASE_TTL_MIN..=LEASE_TTL_MAX).contains(&self.lease_ttl) {
            faults.push(TimingFault::LeaseTtlRange(self.lease_ttl));
            return faults;
        }
        if self.lease_ttl.subsec_nanos() != 0 {
            let below = self.lease_ttl.as_secs();
            faults.push(TimingFault::LeaseTtlFraction(self.lease_ttl, below, below + 1));
        }
        for (flag, value) in [
            ("--keepalive-interval", self.keepalive_interval),
            ("--attempt-timeout", self.attempt_timeout),
            ("--safety-margin", self.safety_margin),
        ] {
            if value < STEP_MIN {
                faults.push(TimingFault::StepTooShort { flag, value });
            }
        }
        let sum = self.renewal_sum();
        let stopped = sum.saturating_add(self.stop_time);
        if sum > self.lease_ttl {
            faults.push(TimingFault::RenewalDoesNotFit {
                lease_ttl: self.lease_ttl,
                keepalive_interval: self.keepalive_interval,
                attempt_timeout: self.attempt_timeout,
                safety_margin: self.safety_margin,
                sum,
            });
        } else if stopped > self.lease_ttl {
            faults.push(TimingFault::StopDoesNotFit {
                lease_ttl: self.lease_ttl,
                keepalive_interval: self.keepalive_interval,
                attempt_timeout: self.attempt_timeout,
                safety_margin: self.safety_margin,
                stop_time: self.stop_time,
                sum: stopped,
            });
        }
        if self.answer_validity > self.drain_timeout {
            faults.push(TimingFault::ValidityOutlastsDrain {
                answer_validity: self.answer_validity,
                drain_timeout: self.drain_timeout,
            });
        }
        faults
    }

    /// K + 2R + M: what two attempts at a renewal take of a lease.
    const fn renewal_sum(&self) -> Duration {
        self.keepalive_interval
            .saturating_add(self.attempt_timeout.saturating_mul(2))
            .saturating_add(self.safety_margin)
    }

    /// T: how long etcd keeps the lock after the last keep-alive. Whole seconds.
    #[must_use]
    pub const fn lease_ttl(&self) -> Duration {
        self.lease_ttl
    }

    /// K: from the sending of one keep-alive to the sending of the next.
    #[must_use]
    pub const fn keepalive_interval(&self) -> Duration {
        self.keepalive_interval
    }

    /// R: how long one attempt (keep-alive and confirm together) may take.
    #[must_use]
    pub const fn attempt_timeout(&self) -> Duration {
        self.attempt_timeout
    }

    /// M: taken off every lease, for clocks that run at different rates.
    #[must_use]
    pub const fn safety_margin(&self) -> Duration {
        self.safety_margin
    }

    /// G: how long what runs only while the candidate leads may take to end. `until` is this much earlier, so that it has
    /// ended when others may lead. Zero when there is nothing of the kind.
    #[must_use]
    pub const fn stop_time(&self) -> Duration {
        self.stop_time
    }

    /// How long a leader may go on after its keep-alive stream ended, never beyond `until`.
    #[must_use]
    pub const fn reconnect_window(&self) -> Duration {
        self.reconnect_window
    }

    /// V: the longest `valid_for_ms` an answer carries.
    #[must_use]
    pub const fn answer_validity(&self) -> Duration {
        self.answer_validity
    }

    /// The longest wait for answers given out, and for the application, before a voluntary release.
    #[must_use]
    pub const fn drain_timeout(&self) -> Duration {
        self.drain_timeout
    }

    /// After this without an answer another endpoint is asked as well: min(500 ms, R/2).
    #[must_use]
    pub fn hedge_delay(&self) -> Duration {
        HEDGE_DELAY_MOST.min(self.attempt_timeout / 2)
    }

    /// Whether an etcd leader election can pass without this candidate losing its lease.
    #[must_use]
    pub fn rides_out_an_etcd_election(&self) -> bool {
        self.lease_ttl >= LEASE_TTL_RIDES_OUT_ELECTION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "as a request wants it")]
    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    fn faults(request: TimingsRequest) -> Vec<TimingFault> {
        Timings::new(request).err().unwrap_or_default()
    }

    #[test]
    fn the_defaults_are_those_of_the_manual() {
        let timings = Timings::new(TimingsRequest::default()).expect("the defaults hold together");
        assert_eq!(timings.lease_ttl(), Duration::from_secs(15));
        assert_eq!(timings.keepalive_interval(), Duration::from_secs(5));
        assert_eq!(timings.attempt_timeout(), Duration::from_millis(2500));
        assert_eq!(timings.safety_margin(), Duration::from_secs(3));
        assert_eq!(timings.reconnect_window(), Duration::from_secs(5));
        assert_eq!(timings.answer_validity(), Duration::from_secs(1));
        assert_eq!(timings.drain_timeout(), Duration::from_secs(10));
        assert_eq!(timings.hedge_delay(), Duration::from_millis(500));
        assert!(timings.rides_out_an_etcd_election());
    }

    #[test]
    fn the_defaults_of_every_lease_hold_together() {
        for ttl in 2..=3600 {
            let timings = Timings::new(TimingsRequest { lease_ttl: seconds(ttl), ..TimingsRequest::default() });
            let timings = timings.unwrap_or_else(|faults| panic!("{ttl} s: {faults:?}"));
            assert_eq!(timings.rides_out_an_etcd_election(), ttl >= 8);
        }
    }

    #[test]
    fn two_attempts_must_fit_to_the_nanosecond() {
        let fits = TimingsRequest {
            lease_ttl: seconds(10),
            keepalive_interval: seconds(3),
            attempt_timeout: seconds(2),
            safety_margin: seconds(3),
            ..TimingsRequest::default()
        };
        assert_eq!(faults(fits), []);
        let over = Duration::from_secs(3) + Duration::from_nanos(1);
        let found = faults(TimingsRequest { safety_margin: Some(over), ..fits });
        assert!(matches!(found.as_slice(), [TimingFault::RenewalDoesNotFit { .. }]), "{found:?}");
        let text = found[0].to_string();
        assert!(text.contains("10.000000001s > 10s") && text.contains("--attempt-timeout 2s"), "{text}");
    }

    #[test]
    fn a_lease_outside_its_range_is_refused_at_the_edges() {
        for (ttl, good) in [(1, false), (2, true), (3600, true), (3601, false)] {
            let found = faults(TimingsRequest { lease_ttl: seconds(ttl), ..TimingsRequest::default() });
            assert_eq!(found.is_empty(), good, "{ttl} s: {found:?}");
        }
        let found = faults(TimingsRequest { lease_ttl: Some(Duration::ZERO), ..TimingsRequest::default() });
        assert_eq!(found, [TimingFault::LeaseTtlRange(Duration::ZERO)]);
    }

    #[test]
    fn a_fraction_of_a_second_is_refused_and_the_neighbours_named() {
        let ttl = Duration::from_millis(10_500);
        let found = faults(TimingsRequest { lease_ttl: Some(ttl), ..TimingsRequest::default() });
        assert_eq!(found, [TimingFault::LeaseTtlFraction(ttl, 10, 11)]);
        assert!(found[0].to_string().ends_with("choose 10s or 11s"));
    }

    #[test]
    fn steps_too_short_to_keep_are_refused_by_name() {
        let short = Some(Duration::from_millis(9));
        let request = TimingsRequest { keepalive_interval: short, safety_margin: short, ..TimingsRequest::default() };
        let flags: Vec<String> = faults(request).iter().map(ToString::to_string).collect();
        assert_eq!(flags.len(), 2);
        assert!(flags[0].starts_with("--keepalive-interval") && flags[1].starts_with("--safety-margin"));
        let least = Some(STEP_MIN);
        assert_eq!(faults(TimingsRequest { attempt_timeout: least, ..TimingsRequest::default() }), []);
    }

    #[test]
    fn an_answer_may_not_promise_longer_than_a_drain_waits() {
        let request =
            TimingsRequest { answer_validity: seconds(2), drain_timeout: seconds(2), ..TimingsRequest::default() };
        assert_eq!(faults(request), []);
        let found = faults(TimingsRequest { drain_timeout: seconds(1), ..request });
        assert!(matches!(found.as_slice(), [TimingFault::ValidityOutlastsDrain { .. }]));
    }

    #[test]
    fn all_faults_are_told_at_once_and_nothing_overflows() {
        let request = TimingsRequest {
            lease_ttl: Some(Duration::from_millis(2500)),
            keepalive_interval: Some(Duration::MAX),
            attempt_timeout: Some(Duration::MAX),
            safety_margin: Some(Duration::ZERO),
            answer_validity: Some(Duration::MAX),
            ..TimingsRequest::default()
        };
        assert_eq!(faults(request).len(), 4);
    }

    #[test]
    fn the_hedge_comes_after_half_a_second_at_most_and_half_an_attempt() {
        let with = |attempt: u64| {
            let attempt_timeout = Some(Duration::from_millis(attempt));
            let timings = Timings::new(TimingsRequest { attempt_timeout, ..TimingsRequest::default() });
            timings.expect("the timings hold together").hedge_delay()
        };
        assert_eq!(with(999), Duration::from_micros(499_500));
        assert_eq!(with(1000), Duration::from_millis(500));
        assert_eq!(with(3000), Duration::from_millis(500));
    }
}
