//! What runs only while this candidate leads: the child, the hooks. It is started after the view says so, and the lock
//! is neither let go of nor claimed anew before all of it is gone.

use std::time::Duration;

use super::Candidate;
use crate::election::effect::Effect;
use crate::election::ids::{OpId, Term};
use crate::election::instant::{Reading, Until};
use crate::election::lease::Lease;
use crate::election::notice::Reason;
use crate::election::state::State;
use crate::protections::Protections;

/// How long who gave the leadership back because a hook failed lets others go first: as long as somebody who resigned
/// without saying.
const GIVING_BACK: Duration = Duration::from_secs(30);

/// The work, as far as it has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Work {
    /// This candidate has none.
    None,
    /// Nothing of it is there.
    Idle,
    /// Started for this term, and told to be stopped from `until` on.
    Running { id: OpId, term: Term, until: Until },
    /// Told to stop, and not gone yet.
    Stopping { id: OpId },
}

impl Work {
    pub(super) const fn of(works: bool) -> Self {
        if works { Self::Idle } else { Self::None }
    }

    /// Whether something of it may still be there.
    pub(super) fn is_there(&self) -> bool {
        let there = match self {
            Self::None | Self::Idle => false,
            Self::Running { .. } | Self::Stopping { .. } => true,
        };
        there && !Protections::NO_WORK_WAIT.taken_away()
    }
}

impl Candidate {
    /// Starts, extends and stops what the state asks for. Effects come after the view, so the work starts when
    /// `/leader` says 200 and is told to stop when it says 503.
    pub(super) fn advance_work(&mut self, now: Reading) {
        let led = match self.state {
            State::Leading { term } => self.held().and_then(Lease::right).map(|until| (term, until)),
            State::Starting | State::Standby | State::Jeopardy { .. } | State::StandingDown(_) | State::Stopped => None,
        };
        match (self.work, led) {
            (Work::Idle, Some((term, until))) => {
                let id = self.fresh_op();
                self.work = Work::Running { id, term, until };
                self.effects.push_back(Effect::StartWork { id, term, until });
            }
            (Work::Running { id, term, until: old }, Some((led, until))) if term == led => {
                if old != until {
                    self.work = Work::Running { id, term, until };
                    self.effects.push_back(Effect::ExtendWork { id, until });
                }
            }
            (Work::Running { id, until, .. }, _) => {
                let stop_time = self.settings.timings.stop_time();
                let kill_at = now.boot.min(until.in_spite_of_jumps(now)).after(stop_time);
                self.work = Work::Stopping { id };
                self.effects.push_back(Effect::StopWork { id, kill_at });
            }
            (Work::None | Work::Stopping { .. }, _) | (Work::Idle, None) => {}
        }
    }

    pub(super) fn on_work_stopped(&mut self, stopped: OpId) {
        if self.work == (Work::Stopping { id: stopped }) {
            self.work = Work::Idle;
        }
    }

    pub(super) fn on_work_failed(&mut self, now: Reading, failed: OpId) {
        if self.is_working(failed) {
            self.on_resign(now, GIVING_BACK, Reason::WorkFailed);
        }
    }

    pub(super) fn on_work_finished(&mut self, now: Reading, finished: OpId) {
        if self.is_working(finished) {
            self.on_stop(now, Reason::WorkFinished);
        }
    }

    fn is_working(&self, work: OpId) -> bool {
        matches!(self.work, Work::Running { id, .. } if id == work)
    }
}
