//! The guardian of a command that runs only while its candidate leads: a process of its own, which goes on when the
//! candidate's is stopped or dead. It knows what it was told last, and the machine's clocks.

use std::time::Duration;

use bellwether::election::{Instant, OpId, Reading, Term, Until};

use crate::clock::nanos;

/// A command whose time was up before anybody said anything, and which may run again after all, starts this much later.
const STARTS_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A guardian, from the order to start until nothing of its command is left.
#[derive(Clone, Debug)]
pub(crate) struct Guardian {
    /// The life of the candidate that it belongs to.
    pub(crate) life: u64,
    pub(crate) id: OpId,
    pub(crate) term: Term,
    until: Until,
    stop_time: Duration,
    phase: Phase,
    /// It is to say when nothing is left.
    told_to_stop: bool,
    /// Its candidate's process is gone.
    is_orphan: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The command starts then, in true time, if it may.
    Waiting {
        starts: u64,
    },
    Running,
    /// Told to end. It does so then, in true time, unless it is killed before, on the boot clock.
    Stopping {
        ends: u64,
        kill_at: Instant,
    },
    /// Its time was up by itself.
    CutShort,
    /// It has ended by itself, and somebody was told.
    Ended,
}

/// What has come of a guardian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Lives,
    /// Nothing is left, and its candidate wants to know.
    Reports,
    /// Nothing is left, and nobody wants to know.
    Vanishes,
}

/// When and where something happens to a guardian.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// True time.
    pub(crate) now: u64,
    pub(crate) reading: Reading,
    /// How long a command that is told to end now takes to do so.
    pub(crate) takes: u64,
}

impl Guardian {
    /// Told to start its command, which does so a moment later.
    pub(crate) const fn new(
        life: u64,
        (id, term, until): (OpId, Term, Until),
        stop_time: Duration,
        starts: u64,
    ) -> Self {
        let phase = Phase::Waiting { starts };
        Self { life, id, term, until, stop_time, phase, told_to_stop: false, is_orphan: false }
    }

    /// Whether its command, or a part of it, is there.
    pub(crate) const fn is_alive(&self) -> bool {
        match self.phase {
            Phase::Running | Phase::Stopping { .. } => true,
            Phase::Waiting { .. } | Phase::CutShort | Phase::Ended => false,
        }
    }

    /// Whether its command runs and has not been told to end.
    pub(crate) fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// The right to act has another end.
    pub(crate) fn extend(&mut self, at: Moment, until: Until) {
        self.until = until;
        if self.phase == Phase::CutShort && !self.told_to_stop && !until.passed(at.reading) {
            self.phase = Phase::Waiting { starts: at.now + nanos(STARTS_AGAIN_AFTER) };
        }
    }

    /// Told to stop its command, and to kill what is left of it then.
    pub(crate) fn stop(&mut self, at: Moment, kill_at: Instant) {
        self.told_to_stop = true;
        self.begins_to_stop(at, kill_at);
    }

    /// The candidate's process is gone.
    pub(crate) fn orphan(&mut self, at: Moment) {
        self.is_orphan = true;
        self.begins_to_stop(at, at.reading.boot.after(self.stop_time));
    }

    fn begins_to_stop(&mut self, at: Moment, kill_at: Instant) {
        let kill_at = kill_at.min(self.until.boot().after(self.stop_time));
        match &mut self.phase {
            Phase::Waiting { .. } => self.phase = Phase::CutShort,
            Phase::Running => self.phase = Phase::Stopping { ends: at.now + at.takes, kill_at },
            Phase::Stopping { kill_at: before, .. } => *before = kill_at.min(*before),
            Phase::CutShort | Phase::Ended => {}
        }
    }

    /// Its command has ended by itself, if it runs.
    pub(crate) fn ends_by_itself(&mut self) -> bool {
        let runs = self.phase == Phase::Running;
        if runs {
            self.phase = Phase::Ended;
        }
        runs
    }

    /// Looks at the clocks, and says what has come of it.
    pub(crate) fn look(&mut self, at: Moment) -> Fate {
        match self.phase {
            Phase::Waiting { starts } if at.now >= starts => {
                self.phase = if self.until.passed(at.reading) { Phase::CutShort } else { Phase::Running };
            }
            Phase::Running if self.until.passed(at.reading) => {
                let jumped = self.until.clock_jumped(at.reading);
                // The boot clock stood still: nobody knows for how long, so the command has no time left.
                let kill_at = if jumped { at.reading.boot } else { at.reading.boot.after(self.stop_time) };
                self.begins_to_stop(at, kill_at);
            }
            Phase::Stopping { ends, kill_at } if at.now >= ends || at.reading.boot >= kill_at => {
                self.phase = Phase::CutShort;
            }
            Phase::Waiting { .. } | Phase::Running | Phase::Stopping { .. } | Phase::CutShort | Phase::Ended => {}
        }
        match (self.is_alive() || matches!(self.phase, Phase::Waiting { .. }), self.is_orphan, self.told_to_stop) {
            (true, _, _) | (false, false, false) => Fate::Lives,
            (false, true, _) => Fate::Vanishes,
            (false, false, true) => Fate::Reports,
        }
    }

    /// When it looks at the clocks next by itself: on the true clock, or on the boot clock.
    pub(crate) const fn wakes_at(&self) -> (Option<u64>, Option<Instant>) {
        match self.phase {
            Phase::Waiting { starts } => (Some(starts), None),
            Phase::Running => (None, Some(self.until.boot())),
            Phase::Stopping { ends, kill_at } => (Some(ends), Some(kill_at)),
            Phase::CutShort | Phase::Ended => (None, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use bellwether::election::{Epoch, Revision, WallTime};

    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const STOP_TIME: Duration = Duration::from_secs(2);
    const TERM: Term = Term { epoch: Epoch(0), token: Revision(7) };

    /// At so many seconds of every clock; a command told to end takes so many to do so.
    fn at(seconds: u64, takes: u64) -> Moment {
        let boot = Instant::from_nanos(seconds * SECOND);
        let wall = WallTime::from_unix_nanos(i64::try_from(seconds * SECOND).expect("a test's time"));
        Moment { now: seconds * SECOND, reading: Reading { boot, wall }, takes: takes * SECOND }
    }

    /// Its command runs from second 1 on, until second 10.
    fn running() -> Guardian {
        let until = Until::of_renewal(at(0, 0).reading, Duration::from_secs(10), Duration::ZERO);
        let mut guardian = Guardian::new(0, (OpId(1), TERM, until), STOP_TIME, SECOND);
        assert!(!guardian.is_alive());
        assert_eq!(guardian.look(at(1, 0)), Fate::Lives);
        assert!(guardian.is_running());
        guardian
    }

    #[test]
    fn it_begins_to_stop_at_until_by_itself_and_kills_after_the_stop_time() {
        let mut guardian = running();
        guardian.look(at(9, 60));
        assert!(guardian.is_running());
        guardian.look(at(10, 60));
        assert!(guardian.is_alive() && !guardian.is_running());
        guardian.look(at(11, 60));
        assert!(guardian.is_alive());
        assert_eq!(guardian.look(at(12, 60)), Fate::Lives, "its candidate may yet say something");
        assert!(!guardian.is_alive());
    }

    #[test]
    fn told_to_stop_it_says_when_nothing_is_left() {
        let mut guardian = running();
        guardian.stop(at(3, 1), at(5, 0).reading.boot);
        assert_eq!(guardian.look(at(3, 0)), Fate::Lives);
        assert_eq!(guardian.look(at(4, 0)), Fate::Reports);
    }

    #[test]
    fn an_orphan_is_killed_by_until_and_the_stop_time_whatever_comes_first() {
        for (orphaned, killed) in [(3, 5), (9, 11)] {
            let mut guardian = running();
            guardian.orphan(at(orphaned, 60));
            assert_eq!(guardian.look(at(killed - 1, 0)), Fate::Lives);
            assert_eq!(guardian.look(at(killed, 0)), Fate::Vanishes);
        }
    }

    #[test]
    fn what_was_cut_short_starts_again_when_it_may_run_longer_after_all() {
        let mut guardian = running();
        guardian.look(at(10, 0));
        guardian.look(at(10, 0));
        assert!(!guardian.is_alive());
        guardian.extend(at(11, 0), Until::of_renewal(at(0, 0).reading, Duration::from_secs(20), Duration::ZERO));
        guardian.look(at(12, 0));
        assert!(guardian.is_running());
    }
}
