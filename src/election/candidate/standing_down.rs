//! Standing down of one's own will: 503 first, then wait for the answers given out, then let go.

use std::time::Duration;

use super::Candidate;
use crate::election::effect::{Call, Effect};
use crate::election::ids::{OpId, Revision};
use crate::election::instant::{Instant, Reading};
use crate::election::lease::LeaseState;
use crate::election::notice::{Notice, Reason};
use crate::election::settings::Application;
use crate::election::state::{Awaited, Goal, StandingDown, State, Step};

/// How many attempt timeouts a release on the way out may take: one that fails and one that works. After
/// that the process goes, and the lease expires by itself.
const RELEASE_ATTEMPTS: u32 = 2;

impl Candidate {
    pub(super) fn on_stop(&mut self, now: Reading, reason: Reason) {
        match &self.state {
            State::StandingDown(StandingDown { goal: Goal::Stop, .. }) | State::Stopped => {}
            State::Leading { .. } | State::Jeopardy { .. } => self.settle(now, Goal::Stop, reason),
            State::StandingDown(StandingDown { step: Step::Settling { .. }, .. }) => {
                self.settle(now, Goal::Stop, reason);
            }
            State::StandingDown(StandingDown { step: step @ Step::Unpublishing { .. }, .. }) => {
                let step = *step;
                self.transition(reason, |state| state.stand_down(Goal::Stop, step));
            }
            State::Starting | State::Standby
                if self.holds_for_answers() || self.work.is_there() || self.is_resuming() =>
            {
                self.settle(now, Goal::Stop, reason);
            }
            State::Starting | State::Standby | State::StandingDown(_) => {
                let deadline = now.boot;
                let step = Step::Releasing { deadline };
                self.unled_since = None;
                self.transition(reason, |state| state.stand_down(Goal::Stop, step));
                self.release(now);
            }
        }
    }

    pub(super) fn on_resign(&mut self, now: Reading, cooldown: Duration, reason: Reason) {
        if let State::Leading { .. } = self.state {
            self.settle(now, Goal::StandBy { cooldown, reason }, reason);
        }
    }

    /// Answers 503 from now on; waits until nobody acts on what was answered before.
    fn settle(&mut self, now: Reading, goal: Goal, reason: Reason) {
        let id = self.fresh_op();
        let application = match (goal, self.settings.application) {
            (Goal::Stop, Application::Checked) => self.state.term().is_some(),
            (Goal::Stop, Application::NotChecked) | (Goal::StandBy { .. }, _) => false,
        };
        let awaited = Awaited { answers: Some(id), application };
        let deadline = now.boot.after(self.settings.timings.drain_timeout());
        self.unled_since = None;
        self.transition(reason, |state| state.stand_down(goal, Step::Settling { awaited, deadline }));
        self.effects.push_back(Effect::SettleAnswers(id));
    }

    pub(super) fn on_answers_settled(&mut self, settled: OpId) {
        if let State::StandingDown(StandingDown { step: Step::Settling { awaited, deadline }, .. }) = self.state
            && awaited.answers == Some(settled)
        {
            self.state.step_to(Step::Settling { awaited: Awaited { answers: None, ..awaited }, deadline });
        }
    }

    pub(super) fn on_app_gone(&mut self) {
        if let State::StandingDown(StandingDown { step: Step::Settling { awaited, deadline }, .. }) = self.state {
            self.state.step_to(Step::Settling { awaited: Awaited { application: false, ..awaited }, deadline });
        }
    }

    /// Goes on once nothing is waited for any more. The answers of the process before this one, which nobody here can
    /// count, expire by the clock; the work is waited for beyond the deadline: it has been told to
    /// stop, and is killed in time.
    fn advance_settling(&mut self, now: Reading, awaited: Awaited, deadline: Instant) {
        let settled = now.boot >= deadline || awaited == Awaited::NOTHING;
        if settled && self.inherited_answers_until.is_none() && !self.work.is_there() {
            self.release_unseen(now);
        } else if settled {
            self.state.step_to(Step::Settling { awaited: Awaited::NOTHING, deadline });
        }
    }

    /// Lets go, once nobody is shown the leader's role any more, or that has had its time.
    pub(super) fn release_unseen(&mut self, now: Reading) {
        match self.taking_back_until().filter(|deadline| now.boot < *deadline) {
            Some(deadline) => self.state.step_to(Step::Unpublishing { deadline }),
            None => self.release(now),
        }
    }

    pub(super) fn advance_standing_down(&mut self, now: Reading) {
        let State::StandingDown(StandingDown { goal, step, .. }) = self.state else { return };
        match step {
            Step::Settling { awaited, deadline } => self.advance_settling(now, awaited, deadline),
            Step::Unpublishing { deadline } if now.boot >= deadline => self.release(now),
            Step::Releasing { deadline } if now.boot >= deadline => match (goal, &self.lease) {
                // The delete could not be settled within a lease's life: revoke, which cannot be ambiguous.
                (Goal::StandBy { .. }, LeaseState::Held(_)) => {
                    let deadline = now.boot.after(self.lease_ttl());
                    self.state.step_to(Step::Releasing { deadline });
                    self.revoke_lease(now);
                }
                // Nothing renews the lease any more: it is gone, or about to expire.
                (Goal::Stop | Goal::StandBy { .. }, _) => self.finish_release(now, goal, false),
            },
            Step::Unpublishing { .. } | Step::Releasing { .. } => {}
        }
    }

    /// Lets go: on the way out by revoking the lease, to stand by again by deleting the key.
    pub(super) fn release(&mut self, now: Reading) {
        let State::StandingDown(StandingDown { goal, term, .. }) = self.state else { return };
        match goal {
            Goal::Stop => {
                let deadline = now.boot.after(self.attempt_timeout() * RELEASE_ATTEMPTS);
                self.state.step_to(Step::Releasing { deadline });
                if let LeaseState::Granting(_) = self.lease {
                    // Nothing hangs on it yet; should it come to be, it expires by itself.
                    self.drop_lease();
                }
                self.revoke_lease(now);
                if matches!(self.lease, LeaseState::None) {
                    self.finish_release(now, goal, true);
                }
            }
            Goal::StandBy { .. } => {
                let deadline = now.boot.after(self.lease_ttl());
                self.state.step_to(Step::Releasing { deadline });
                match (term, self.held().map(|lease| lease.id)) {
                    (Some(term), Some(lease)) => {
                        self.ask(now, Call::DeleteLock { create_revision: term.token, lease });
                    }
                    (Some(_) | None, Some(_) | None) => self.finish_release(now, goal, true),
                }
            }
        }
    }

    /// The guarded delete is settled: the key of that claim is not there any more.
    pub(super) fn on_lock_deleted_by_me(&mut self, now: Reading, deleted: Revision) {
        // Whether the key was deleted just now or long ago, and what is there since, only a read can tell.
        if self.sight.lock().is_some_and(|lock| lock.create_revision == deleted) {
            self.sight.forget(self.revision_seen);
            self.unled_since = None;
        }
        if let State::StandingDown(StandingDown { goal: goal @ Goal::StandBy { .. }, .. }) = self.state {
            self.finish_release(now, goal, true);
        }
    }

    pub(super) fn finish_release(&mut self, now: Reading, goal: Goal, confirmed: bool) {
        if self.state.term().is_some() {
            self.tell(Notice::Released { confirmed });
        }
        match goal {
            Goal::Stop => {
                self.drop_watches();
                self.asks.give_up_all();
                self.transition(Reason::Stopped, State::stop);
                self.effects.push_back(Effect::Exit);
            }
            Goal::StandBy { cooldown, reason } => {
                if !confirmed {
                    self.drop_lease();
                }
                self.answers_hold_until = None;
                self.stay_away_until = Some(now.boot.after(cooldown));
                self.forget_place();
                self.leave_place();
                self.sight.forget(self.revision_seen);
                self.transition(reason, State::rejoin);
            }
        }
    }

    pub(super) fn standing_down_deadline(&self) -> Option<Instant> {
        match self.state {
            State::StandingDown(StandingDown { step, .. }) => match step {
                // The work is waited for, which tells, or the end of inherited answers, which has a deadline.
                Step::Settling { awaited: Awaited::NOTHING, .. } => None,
                Step::Settling { deadline, .. } | Step::Unpublishing { deadline } | Step::Releasing { deadline } => {
                    Some(deadline)
                }
            },
            State::Starting | State::Standby | State::Leading { .. } | State::Jeopardy { .. } | State::Stopped => None,
        }
    }
}
