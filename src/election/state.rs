//! The states of a candidate and the ways between them.
//!
//! ```text
//! Starting → Standby ⇄ Leading → Jeopardy → (Leading, same term | Standby)
//! Starting → Leading                                (the term of an earlier process)
//! any but Stopped → StandingDown → Stopped          (stop)
//! Leading → StandingDown → Standby                  (resign)
//! ```

use std::time::Duration;

use super::ids::{OpId, Term};
use super::instant::Instant;
use super::notice::Reason;
use super::view::PublicState;

/// Where the candidate is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    /// Not registered yet.
    Starting,
    /// In line for the lock.
    Standby,
    /// Leader of this term, until the lease's `until`.
    Leading { term: Term },
    /// Held the lock for this term, `until` has passed, not yet known whether the lease survived.
    Jeopardy { term: Term },
    /// Answers 503, still holds what it held.
    StandingDown(StandingDown),
    /// Let go of everything.
    Stopped,
}

/// The way down: settle the answers given out, see the role taken back, then release.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StandingDown {
    pub(super) goal: Goal,
    pub(super) step: Step,
    /// The term that was led, if one was.
    pub(super) term: Option<Term>,
}

/// What comes after standing down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// The process ends.
    Stop,
    /// Back in line, at its end, not to claim for the cool-down.
    StandBy { cooldown: Duration, reason: Reason },
}

/// How far standing down has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Waiting, at most until the deadline, for what may still act on the term, and beyond it for what certainly does: the
    /// work. Renewing meanwhile.
    Settling { awaited: Awaited, deadline: Instant },
    /// Waiting until nobody is shown the leader's role any more, at most until the deadline; renewing meanwhile.
    Unpublishing { deadline: Instant },
    /// Letting go of the lock; from the deadline on, by the next harder means.
    Releasing { deadline: Instant },
}

/// What may still act on a term that is being given up, and can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Awaited {
    /// The answers given out, until they have expired.
    pub(super) answers: Option<OpId>,
    /// The application, until somebody says that it has ended.
    pub(super) application: bool,
}

impl Awaited {
    pub(super) const NOTHING: Self = Self { answers: None, application: false };
}

impl State {
    pub(super) const fn public(&self) -> PublicState {
        match self {
            Self::Starting => PublicState::Starting,
            Self::Standby => PublicState::Standby,
            Self::Leading { .. } => PublicState::Leading,
            Self::Jeopardy { .. } => PublicState::Jeopardy,
            Self::StandingDown(_) => PublicState::StandingDown,
            Self::Stopped => PublicState::Stopped,
        }
    }

    /// The term that this candidate leads, led a moment ago, or is about to let go.
    pub(super) const fn term(&self) -> Option<Term> {
        match self {
            Self::Leading { term } | Self::Jeopardy { term } => Some(*term),
            Self::StandingDown(down) => down.term,
            Self::Starting | Self::Standby | Self::Stopped => None,
        }
    }

    pub(super) fn register(&mut self) {
        self.assert_from(PublicState::Standby, matches!(self, Self::Starting));
        *self = Self::Standby;
    }

    pub(super) fn lead(&mut self, term: Term) {
        self.assert_from(PublicState::Leading, matches!(self, Self::Standby));
        *self = Self::Leading { term };
    }

    /// Goes on with the term of an earlier process of this candidate.
    pub(super) fn inherit(&mut self, term: Term) {
        self.assert_from(PublicState::Leading, matches!(self, Self::Starting));
        *self = Self::Leading { term };
    }

    pub(super) fn fall_into_jeopardy(&mut self) {
        let Self::Leading { term } = *self else { self.illegal(PublicState::Jeopardy) };
        *self = Self::Jeopardy { term };
    }

    pub(super) fn resume(&mut self) {
        let Self::Jeopardy { term } = *self else { self.illegal(PublicState::Leading) };
        *self = Self::Leading { term };
    }

    pub(super) fn lose(&mut self) {
        self.assert_from(PublicState::Standby, matches!(self, Self::Leading { .. } | Self::Jeopardy { .. }));
        *self = Self::Standby;
    }

    pub(super) fn stand_down(&mut self, goal: Goal, step: Step) {
        let legal = match goal {
            Goal::Stop => match self {
                Self::Starting | Self::Standby | Self::Leading { .. } | Self::Jeopardy { .. } => true,
                Self::StandingDown(down) => down.goal != Goal::Stop,
                Self::Stopped => false,
            },
            Goal::StandBy { .. } => matches!(self, Self::Leading { .. }),
        };
        self.assert_from(PublicState::StandingDown, legal);
        *self = Self::StandingDown(StandingDown { goal, step, term: self.term() });
    }

    pub(super) fn step_to(&mut self, step: Step) {
        let public = self.public();
        let Self::StandingDown(down) = self else { illegal(public, PublicState::StandingDown) };
        down.step = step;
    }

    /// Back in line after a resignation.
    pub(super) fn rejoin(&mut self) {
        let legal = matches!(self, Self::StandingDown(StandingDown { goal: Goal::StandBy { .. }, .. }));
        self.assert_from(PublicState::Standby, legal);
        *self = Self::Standby;
    }

    pub(super) fn stop(&mut self) {
        let legal = matches!(self, Self::StandingDown(StandingDown { goal: Goal::Stop, .. }));
        self.assert_from(PublicState::Stopped, legal);
        *self = Self::Stopped;
    }

    fn assert_from(&self, to: PublicState, legal: bool) {
        if !legal {
            self.illegal(to);
        }
    }

    fn illegal(&self, to: PublicState) -> ! {
        illegal(self.public(), to)
    }
}

fn illegal(from: PublicState, to: PublicState) -> ! {
    panic!("illegal transition: {} → {}", from.as_str(), to.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::ids::{Epoch, Revision};

    const TERM: Term = Term { epoch: Epoch(0), token: Revision(7) };
    const STAND_BY: Goal = Goal::StandBy { cooldown: Duration::from_secs(30), reason: Reason::Resigned };

    fn settling() -> Step {
        Step::Settling { awaited: Awaited::NOTHING, deadline: Instant::from_nanos(9) }
    }

    fn down(goal: Goal) -> State {
        State::StandingDown(StandingDown { goal, step: settling(), term: Some(TERM) })
    }

    fn every_state() -> [State; 7] {
        [
            State::Starting,
            State::Standby,
            State::Leading { term: TERM },
            State::Jeopardy { term: TERM },
            down(Goal::Stop),
            down(STAND_BY),
            State::Stopped,
        ]
    }

    /// Tries the transition from every state: `legal` are those it must be possible from, and everywhere else it
    /// must panic with both states named.
    fn check(to: PublicState, legal: &[State], transition: impl Fn(&mut State) + std::panic::RefUnwindSafe) {
        for from in every_state() {
            let result = std::panic::catch_unwind(|| {
                let mut state = from.clone();
                transition(&mut state);
                state
            });
            match result {
                Ok(state) => {
                    assert!(legal.contains(&from), "{from:?} → {to:?} is illegal and went through");
                    assert_eq!(state.public(), to);
                }
                Err(panic) => {
                    let words = panic.downcast_ref::<String>().expect("a panic with words");
                    assert!(!legal.contains(&from), "{from:?} → {to:?} is legal: {words}");
                    let expected = format!("illegal transition: {} → {}", from.public().as_str(), to.as_str());
                    assert_eq!(*words, expected);
                }
            }
        }
    }

    #[test]
    fn only_who_starts_registers() {
        check(PublicState::Standby, &[State::Starting], State::register);
    }

    #[test]
    fn only_a_standby_comes_to_lead() {
        check(PublicState::Leading, &[State::Standby], |state| state.lead(TERM));
    }

    #[test]
    fn only_who_starts_inherits_a_term() {
        check(PublicState::Leading, &[State::Starting], |state| state.inherit(TERM));
    }

    #[test]
    fn only_a_leader_falls_into_jeopardy() {
        check(PublicState::Jeopardy, &[State::Leading { term: TERM }], State::fall_into_jeopardy);
    }

    #[test]
    fn only_jeopardy_resumes() {
        check(PublicState::Leading, &[State::Jeopardy { term: TERM }], State::resume);
    }

    #[test]
    fn only_who_held_the_lock_loses_it() {
        check(PublicState::Standby, &[State::Leading { term: TERM }, State::Jeopardy { term: TERM }], State::lose);
    }

    #[test]
    fn everyone_stops_once() {
        let legal = [
            State::Starting,
            State::Standby,
            State::Leading { term: TERM },
            State::Jeopardy { term: TERM },
            down(STAND_BY),
        ];
        check(PublicState::StandingDown, &legal, |state| state.stand_down(Goal::Stop, settling()));
    }

    #[test]
    fn only_a_leader_resigns() {
        let legal = [State::Leading { term: TERM }];
        check(PublicState::StandingDown, &legal, |state| state.stand_down(STAND_BY, settling()));
    }

    #[test]
    fn only_who_stands_down_goes_a_step_further() {
        let legal = [down(Goal::Stop), down(STAND_BY)];
        check(PublicState::StandingDown, &legal, |state| state.step_to(settling()));
    }

    #[test]
    fn only_who_resigned_rejoins() {
        check(PublicState::Standby, &[down(STAND_BY)], State::rejoin);
    }

    #[test]
    fn only_who_stands_down_to_stop_stops() {
        check(PublicState::Stopped, &[down(Goal::Stop)], State::stop);
    }

    #[test]
    #[should_panic(expected = "illegal transition: standby → jeopardy")]
    fn an_illegal_transition_names_both_states() {
        State::Standby.fall_into_jeopardy();
    }

    #[test]
    fn the_term_lives_through_jeopardy_and_standing_down() {
        let mut state = State::Leading { term: TERM };
        state.fall_into_jeopardy();
        assert_eq!(state.term(), Some(TERM));
        state.resume();
        assert_eq!(state, State::Leading { term: TERM });
        state.stand_down(STAND_BY, settling());
        assert_eq!(state.term(), Some(TERM));
        state.stand_down(Goal::Stop, settling());
        assert_eq!(state.term(), Some(TERM));
        state.stop();
        assert_eq!(state.term(), None);
    }
}
