//! The order of things in one stretch of leading: on-lead, the command, on-stand-down, one after the other, never two at
//! once. It decides; it starts and stops nothing itself.

use std::collections::VecDeque;
use std::time::Duration;

use super::backoff::Backoff;
use super::protocol::Ending;
use crate::config::{Restart, WorkConfig};
use crate::election::Instant;

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// `--on-lead`
    OnLead,
    /// What `bellwether exec` runs.
    Command,
    /// `--on-stand-down`
    OnStandDown,
}

impl Part {
    /// For log lines.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::OnLead => "the on-lead hook",
            Self::Command => "the command",
            Self::OnStandDown => "the on-stand-down hook",
        }
    }
}

/// What came of a run of which nothing is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It ended by itself, or because it was told to.
    Exited(Ending),
    /// The system would not start it; the exit code that says why.
    Refused(u8),
    /// Its time was up before bellwether said anything.
    CutShort,
    /// Its guardian was killed, and it with that.
    GuardianDied,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Run this. Nothing runs at this time.
    Begin(Part),
    /// Stop what runs.
    Stop,
    /// The work cannot be done here.
    Failed,
    /// The command has ended for good, with this exit code.
    Finished(u8),
    /// Nobody watches over the work any more.
    Unguarded,
    /// All of it is over.
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// One part runs.
    Running(Part),
    /// The command is started again then.
    Pausing {
        until: Instant,
    },
    /// Nothing runs, and nothing is to run before the stop.
    Idle,
    Over,
}

/// Which parts there are.
#[derive(Clone, Copy, Debug)]
struct Parts {
    on_lead: bool,
    command: bool,
    on_stand_down: bool,
    restart: Restart,
}

/// One stretch of leading.
#[derive(Debug)]
pub(super) struct Course {
    parts: Parts,
    step: Step,
    /// Told to stop.
    stopping: bool,
    /// What on-stand-down undoes has begun.
    began: bool,
    run_began: Instant,
    backoff: Backoff,
    acts: VecDeque<Act>,
}

impl Course {
    /// Begins with its first part.
    pub(super) fn begin(config: &WorkConfig, now: Instant) -> Self {
        let parts = Parts {
            on_lead: config.on_lead.is_some(),
            command: config.command.is_some(),
            on_stand_down: config.on_stand_down.is_some(),
            restart: config.restart,
        };
        let (backoff, acts) = (Backoff::new(), VecDeque::new());
        let (stopping, began) = (false, !parts.on_lead);
        let mut course = Self { parts, step: Step::Idle, stopping, began, run_began: now, backoff, acts };
        if parts.on_lead {
            course.run(now, Part::OnLead);
        } else {
            course.run_command(now);
        }
        course
    }

    /// What is to be done next, until there is nothing more.
    pub(super) fn next_act(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    /// When [`due`](Self::due) is to be called.
    pub(super) const fn wake_at(&self) -> Option<Instant> {
        match self.step {
            Step::Pausing { until } => Some(until),
            Step::Running(_) | Step::Idle | Step::Over => None,
        }
    }

    /// What runs.
    pub(super) const fn running(&self) -> Option<Part> {
        match self.step {
            Step::Running(part) => Some(part),
            Step::Pausing { .. } | Step::Idle | Step::Over => None,
        }
    }

    pub(super) const fn is_stopping(&self) -> bool {
        self.stopping
    }

    fn run(&mut self, now: Instant, part: Part) {
        self.step = Step::Running(part);
        self.run_began = now;
        self.acts.push_back(Act::Begin(part));
    }

    fn run_command(&mut self, now: Instant) {
        if self.parts.command {
            self.run(now, Part::Command);
        } else {
            self.step = Step::Idle;
        }
    }

    /// What was begun is a process now.
    pub(super) fn started(&mut self) {
        self.began = true;
    }

    /// Nothing is left of what ran.
    pub(super) fn ended(&mut self, now: Instant, outcome: Outcome) {
        let Step::Running(part) = self.step else { return };
        match part {
            Part::OnStandDown => {
                if outcome == Outcome::GuardianDied {
                    self.acts.push_back(Act::Unguarded);
                }
                self.over();
            }
            Part::OnLead | Part::Command if outcome == Outcome::GuardianDied => {
                self.acts.push_back(Act::Unguarded);
                self.idle_or_stand_down(now);
            }
            Part::OnLead | Part::Command if self.stopping => self.stand_down(now),
            Part::OnLead if outcome == Outcome::Exited(Ending::Code(0)) => self.run_command(now),
            Part::OnLead => self.idle(Act::Failed),
            Part::Command => self.command_ended(now, outcome),
        }
    }

    fn command_ended(&mut self, now: Instant, outcome: Outcome) {
        let code = match outcome {
            Outcome::Exited(ending) => ending.exit_code(),
            Outcome::Refused(code) => code,
            // It is still led, or the order to stop is on its way: the command has not ended of its own will.
            Outcome::CutShort | Outcome::GuardianDied => return self.pause(now),
        };
        match (self.parts.restart, code) {
            (Restart::Never, _) | (Restart::OnFailure, 0) => self.idle(Act::Finished(code)),
            (Restart::OnFailure | Restart::Always, _) => self.pause(now),
        }
    }

    fn idle(&mut self, why: Act) {
        self.step = Step::Idle;
        self.acts.push_back(why);
    }

    fn idle_or_stand_down(&mut self, now: Instant) {
        if self.stopping {
            self.stand_down(now);
        } else {
            self.step = Step::Idle;
        }
    }

    fn pause(&mut self, now: Instant) {
        let pause = self.backoff.after(now.since(self.run_began));
        self.step = Step::Pausing { until: now.after(pause) };
    }

    /// How long the command pauses from now, if it does.
    pub(super) fn pause_left(&self, now: Instant) -> Option<Duration> {
        self.wake_at().map(|at| at.since(now))
    }

    /// A pause may be over.
    pub(super) fn due(&mut self, now: Instant) {
        if self.wake_at().is_some_and(|at| now >= at) {
            self.run_command(now);
        }
    }

    /// Stop all of it.
    pub(super) fn stop(&mut self, now: Instant) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        match self.step {
            Step::Running(Part::OnLead | Part::Command) => self.acts.push_back(Act::Stop),
            Step::Pausing { .. } | Step::Idle => self.stand_down(now),
            Step::Running(Part::OnStandDown) | Step::Over => {}
        }
    }

    fn stand_down(&mut self, now: Instant) {
        if self.parts.on_stand_down && self.began {
            self.run(now, Part::OnStandDown);
        } else {
            self.over();
        }
    }

    fn over(&mut self) {
        self.step = Step::Over;
        self.acts.push_back(Act::Stopped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_nanos(1_000_000_000);
    const DONE: Outcome = Outcome::Exited(Ending::Code(0));
    const FAILED: Outcome = Outcome::Exited(Ending::Code(3));

    fn config(on_lead: bool, command: bool, on_stand_down: bool, restart: Restart) -> WorkConfig {
        let hook = |there: bool| there.then(|| "true".to_owned());
        WorkConfig {
            command: command.then(|| vec!["server".into()]),
            on_lead: hook(on_lead),
            on_stand_down: hook(on_stand_down),
            hook_timeout: Duration::from_secs(10),
            restart,
        }
    }

    fn all(restart: Restart) -> Course {
        Course::begin(&config(true, true, true, restart), NOW)
    }

    fn acts(course: &mut Course) -> Vec<Act> {
        std::iter::from_fn(|| course.next_act()).collect()
    }

    /// What is done when what runs has started, and then ended like this.
    fn after(course: &mut Course, outcome: Outcome) -> Vec<Act> {
        course.started();
        course.ended(NOW, outcome);
        acts(course)
    }

    fn stop(course: &mut Course) -> Vec<Act> {
        course.stop(NOW);
        acts(course)
    }

    #[test]
    fn on_lead_then_the_command_then_on_stand_down_each_when_the_one_before_is_gone() {
        let mut course = all(Restart::Never);
        assert_eq!(acts(&mut course), [Act::Begin(Part::OnLead)]);
        assert_eq!(after(&mut course, DONE), [Act::Begin(Part::Command)]);
        assert_eq!(stop(&mut course), [Act::Stop]);
        assert_eq!(after(&mut course, Outcome::Exited(Ending::Signal(15))), [Act::Begin(Part::OnStandDown)]);
        assert_eq!(after(&mut course, DONE), [Act::Stopped]);
    }

    #[test]
    fn an_on_lead_that_still_runs_is_stopped_before_on_stand_down_and_the_command_never_runs() {
        let mut course = all(Restart::Always);
        assert_eq!(acts(&mut course), [Act::Begin(Part::OnLead)]);
        assert_eq!(stop(&mut course), [Act::Stop]);
        assert_eq!(after(&mut course, DONE), [Act::Begin(Part::OnStandDown)]);
        assert_eq!(after(&mut course, FAILED), [Act::Stopped], "a failing on-stand-down keeps nobody");
    }

    #[test]
    fn a_failing_on_lead_gives_the_leadership_back_and_is_undone() {
        for outcome in [FAILED, Outcome::Refused(127), Outcome::CutShort, Outcome::Exited(Ending::Signal(9))] {
            let mut course = all(Restart::Always);
            assert_eq!(acts(&mut course), [Act::Begin(Part::OnLead)]);
            assert_eq!(after(&mut course, outcome), [Act::Failed]);
            assert_eq!(stop(&mut course), [Act::Begin(Part::OnStandDown)]);
            assert_eq!(after(&mut course, DONE), [Act::Stopped]);
        }
    }

    #[test]
    fn what_was_never_started_is_not_undone() {
        let mut course = all(Restart::Never);
        assert_eq!(acts(&mut course), [Act::Begin(Part::OnLead)]);
        course.ended(NOW, Outcome::CutShort);
        assert_eq!(acts(&mut course), [Act::Failed]);
        assert_eq!(stop(&mut course), [Act::Stopped]);
    }

    #[test]
    fn a_hook_alone_is_enough() {
        let mut course = Course::begin(&config(true, false, false, Restart::Never), NOW);
        assert_eq!(acts(&mut course), [Act::Begin(Part::OnLead)]);
        assert_eq!(after(&mut course, DONE), []);
        assert_eq!(stop(&mut course), [Act::Stopped]);
        let mut course = Course::begin(&config(false, false, true, Restart::Never), NOW);
        assert_eq!(acts(&mut course), []);
        assert_eq!(stop(&mut course), [Act::Begin(Part::OnStandDown)]);
        assert_eq!(after(&mut course, DONE), [Act::Stopped]);
    }

    #[test]
    fn a_command_that_ends_finishes_or_runs_again_as_the_policy_says() {
        for (restart, outcome, finished) in [
            (Restart::Never, DONE, Some(0)),
            (Restart::Never, FAILED, Some(3)),
            (Restart::Never, Outcome::Refused(127), Some(127)),
            (Restart::Never, Outcome::Exited(Ending::Signal(9)), Some(137)),
            (Restart::OnFailure, DONE, Some(0)),
            (Restart::OnFailure, FAILED, None),
            (Restart::OnFailure, Outcome::Refused(126), None),
            (Restart::Always, DONE, None),
            (Restart::Never, Outcome::CutShort, None),
        ] {
            let mut course = Course::begin(&config(false, true, false, restart), NOW);
            assert_eq!(acts(&mut course), [Act::Begin(Part::Command)]);
            let expected: Vec<Act> = finished.map(Act::Finished).into_iter().collect();
            assert_eq!(after(&mut course, outcome), expected, "{restart:?} {outcome:?}");
            assert_eq!(course.wake_at().is_some(), finished.is_none());
            if let Some(at) = course.wake_at() {
                course.due(at);
                assert_eq!(acts(&mut course), [Act::Begin(Part::Command)], "on-lead does not run again");
            } else {
                assert_eq!(stop(&mut course), [Act::Stopped]);
            }
        }
    }

    #[test]
    fn a_stop_during_a_pause_starts_nothing_but_on_stand_down() {
        let mut course = all(Restart::Always);
        assert_eq!(acts(&mut course), [Act::Begin(Part::OnLead)]);
        assert_eq!(after(&mut course, DONE), [Act::Begin(Part::Command)]);
        assert_eq!(after(&mut course, FAILED), []);
        let pause = course.wake_at().expect("it pauses");
        assert_eq!(stop(&mut course), [Act::Begin(Part::OnStandDown)]);
        course.due(pause);
        assert_eq!(acts(&mut course), []);
        assert_eq!(after(&mut course, DONE), [Act::Stopped]);
    }

    #[test]
    fn without_a_guardian_it_is_over_and_still_undone() {
        let mut course = all(Restart::Always);
        assert_eq!(acts(&mut course), [Act::Begin(Part::OnLead)]);
        assert_eq!(after(&mut course, DONE), [Act::Begin(Part::Command)]);
        assert_eq!(after(&mut course, Outcome::GuardianDied), [Act::Unguarded]);
        assert_eq!(stop(&mut course), [Act::Begin(Part::OnStandDown)]);
    }

    #[test]
    fn being_told_twice_is_being_told_once() {
        let mut course = all(Restart::Never);
        assert_eq!(acts(&mut course), [Act::Begin(Part::OnLead)]);
        assert_eq!(stop(&mut course), [Act::Stop]);
        assert_eq!(stop(&mut course), []);
    }
}
