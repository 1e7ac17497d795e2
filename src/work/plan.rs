//! When a guardian sends which signal: decided by the clock, from the deadline and from what it was told.

use std::time::Duration;

use signal_hook::consts::SIGTERM;

use super::protocol::Deadline;
use crate::election::{Instant, Reading};
use crate::protections::Protections;

/// The wall clock is looked at at least this often: no timer tells of its jumps.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// What is to be done to the processes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// The deadline has passed: the stop begins without an order.
    Expire,
    /// Send them this signal, with which the stop begins.
    Ask(i32),
    /// Kill them, again and again until they are gone.
    Kill,
}

/// The plan of one run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    deadline: Deadline,
    stop: Option<Stop>,
}

#[derive(Clone, Copy, Debug)]
struct Stop {
    /// Not sent yet.
    first: Option<i32>,
    /// SIGTERM as well, for programs that do not listen to another first signal.
    second_at: Option<Instant>,
    kill_at: Instant,
}

impl Plan {
    pub(super) fn new(deadline: Deadline) -> Self {
        Self { deadline, stop: None }
    }

    /// Whether it has begun to stop.
    pub(super) const fn is_stopping(&self) -> bool {
        self.stop.is_some()
    }

    /// The run begins before this or not at all.
    pub(super) const fn start_before(&self) -> Instant {
        self.deadline.stop_at
    }

    /// Whether the run must be being stopped by `now`, whoever lives.
    pub(super) fn has_expired(&self, now: Reading) -> bool {
        !Protections::NO_GUARDIAN_DEADLINE.taken_away() && self.deadline.passed(now)
    }

    /// The end has moved. What is being stopped does not come back to life.
    pub(super) fn extend(&mut self, deadline: Deadline) {
        if self.stop.is_none() {
            self.deadline = deadline;
        }
    }

    /// Told to stop.
    pub(super) fn stop(&mut self, now: Reading, first: i32, kill_at: Instant) {
        let kill_at = kill_at.min(self.deadline.kill_at);
        match &mut self.stop {
            Some(stop) => stop.kill_at = stop.kill_at.min(kill_at),
            None => self.begin(now, first, kill_at),
        }
    }

    /// Nobody needs it any more: bellwether has died, or the command has ended and left processes behind.
    pub(super) fn abandon(&mut self, now: Reading) {
        self.stop(now, SIGTERM, now.boot.after(self.stop_time()));
    }

    fn stop_time(&self) -> Duration {
        self.deadline.kill_at.since(self.deadline.stop_at)
    }

    fn begin(&mut self, now: Reading, first: i32, kill_at: Instant) {
        let half = kill_at.since(now.boot) / 2;
        let second_at = (first != SIGTERM).then(|| now.boot.after(half));
        self.stop = Some(Stop { first: Some(first), second_at, kill_at });
    }

    /// What is to be done now, one thing at a time, until there is nothing more.
    pub(super) fn next_act(&mut self, now: Reading) -> Option<Act> {
        if self.stop.is_none() && self.has_expired(now) {
            self.begin(now, SIGTERM, self.deadline.kill_at.min(now.boot.after(self.stop_time())));
            return Some(Act::Expire);
        }
        let outlived = self.must_be_dead(now);
        let stop = self.stop.as_mut()?;
        if outlived || now.boot >= stop.kill_at {
            return Some(Act::Kill);
        }
        if let Some(first) = stop.first.take() {
            return Some(Act::Ask(first));
        }
        stop.second_at.take_if(|at| now.boot >= *at).map(|_at| Act::Ask(SIGTERM))
    }

    /// Also when the boot clock stood still while the lease went on expiring.
    fn must_be_dead(&self, now: Reading) -> bool {
        !Protections::NO_GUARDIAN_DEADLINE.taken_away() && self.deadline.true_time(now) >= self.deadline.kill_at
    }

    /// When to look again.
    pub(super) fn wake_at(&self, now: Reading) -> Instant {
        let next = match self.stop {
            None => self.deadline.stop_at,
            Some(Stop { second_at, kill_at, .. }) => second_at.unwrap_or(kill_at).min(kill_at),
        };
        next.min(now.boot.after(LOOK_AT_LEAST_EVERY))
    }
}

#[cfg(test)]
mod tests {
    use signal_hook::consts::SIGINT;

    use super::super::protocol::reading;
    use super::*;
    use crate::election::Until;

    const BEGIN: Instant = Instant::from_nanos(100_000_000_000);
    const SECOND: Duration = Duration::from_secs(1);

    /// Stopped 10 s after the beginning, killed 2 s later, clocks 3 s apart at most.
    fn plan() -> Plan {
        Plan::new(deadline(10))
    }

    fn deadline(seconds: u32) -> Deadline {
        let margin = 3 * SECOND;
        let until = Until::of_renewal(reading(BEGIN, 0), seconds * SECOND + margin, margin);
        Deadline::of(&until, 2 * SECOND)
    }

    fn at(seconds: u32) -> Reading {
        reading(BEGIN.after(seconds * SECOND), 0)
    }

    fn acts(plan: &mut Plan, now: Reading) -> Vec<Act> {
        let mut acts = Vec::new();
        while let Some(act) = plan.next_act(now) {
            acts.push(act);
            if act == Act::Kill {
                break;
            }
        }
        acts
    }

    #[test]
    fn without_an_extension_it_stops_at_the_deadline_and_kills_after_the_stop_time() {
        let mut plan = plan();
        assert_eq!(acts(&mut plan, at(9)), []);
        assert_eq!(plan.wake_at(at(9)), at(10).boot);
        assert_eq!(acts(&mut plan, at(10)), [Act::Expire, Act::Ask(SIGTERM)]);
        assert_eq!(acts(&mut plan, at(11)), []);
        assert_eq!(plan.wake_at(at(11)), at(12).boot);
        assert_eq!(acts(&mut plan, at(12)), [Act::Kill]);
        assert_eq!(acts(&mut plan, at(13)), [Act::Kill], "until nothing is left");
    }

    #[test]
    fn an_extension_moves_the_end_but_not_that_of_a_stop() {
        let mut plan = plan();
        plan.extend(deadline(20));
        assert_eq!(acts(&mut plan, at(19)), []);
        assert_eq!(acts(&mut plan, at(20)), [Act::Expire, Act::Ask(SIGTERM)]);
        plan.extend(deadline(60));
        assert_eq!(acts(&mut plan, at(22)), [Act::Kill]);
    }

    #[test]
    fn a_guardian_that_was_frozen_past_the_whole_stop_time_kills_at_once() {
        assert_eq!(acts(&mut plan(), at(12)), [Act::Expire, Act::Kill]);
    }

    #[test]
    fn a_stop_never_lasts_beyond_the_deadlines_own() {
        let mut plan = plan();
        plan.stop(at(9), SIGTERM, at(60).boot);
        assert_eq!(acts(&mut plan, at(9)), [Act::Ask(SIGTERM)]);
        assert_eq!(acts(&mut plan, at(12)), [Act::Kill]);
    }

    #[test]
    fn what_was_told_to_stop_gets_sigterm_half_way_when_another_signal_came_first() {
        let mut plan = plan();
        plan.stop(at(2), SIGINT, at(4).boot);
        assert_eq!(acts(&mut plan, at(2)), [Act::Ask(SIGINT)]);
        assert_eq!(plan.wake_at(at(2)), at(3).boot);
        assert_eq!(acts(&mut plan, at(3)), [Act::Ask(SIGTERM)]);
        assert_eq!(plan.wake_at(at(3)), at(4).boot);
        assert_eq!(acts(&mut plan, at(4)), [Act::Kill]);
    }

    #[test]
    fn a_second_order_to_stop_can_only_shorten() {
        let mut plan = plan();
        plan.stop(at(2), SIGTERM, at(6).boot);
        plan.stop(at(3), SIGTERM, at(5).boot);
        plan.stop(at(3), SIGTERM, at(9).boot);
        assert_eq!(acts(&mut plan, at(4)), [Act::Ask(SIGTERM)]);
        assert_eq!(acts(&mut plan, at(5)), [Act::Kill]);
    }

    #[test]
    fn an_abandoned_run_has_the_stop_time_from_then_and_never_more_than_the_deadline_leaves() {
        let mut early = plan();
        early.abandon(at(1));
        assert_eq!(acts(&mut early, at(1)), [Act::Ask(SIGTERM)]);
        assert_eq!(early.wake_at(at(2)), at(3).boot);
        assert_eq!(acts(&mut early, at(3)), [Act::Kill]);
        let mut late = plan();
        assert_eq!(acts(&mut late, at(10)), [Act::Expire, Act::Ask(SIGTERM)]);
        late.abandon(at(11));
        assert_eq!(acts(&mut late, at(12)), [Act::Kill]);
    }

    #[test]
    fn a_wall_clock_that_jumps_ahead_by_more_than_the_margin_ends_it_and_by_more_than_is_left_kills_it() {
        let ahead = |seconds: i64| reading(at(5).boot, seconds * 1_000_000_000);
        assert_eq!(acts(&mut plan(), ahead(3)), []);
        assert_eq!(acts(&mut plan(), ahead(4)), [Act::Expire, Act::Ask(SIGTERM)]);
        assert_eq!(acts(&mut plan(), ahead(9)), [Act::Expire, Act::Ask(SIGTERM)], "6 s of 7 that are left");
        assert_eq!(acts(&mut plan(), ahead(10)), [Act::Expire, Act::Kill]);
    }

    #[test]
    fn the_clocks_are_looked_at_at_least_once_a_second() {
        assert_eq!(plan().wake_at(at(0)), at(1).boot);
    }
}
