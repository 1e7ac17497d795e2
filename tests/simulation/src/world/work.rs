//! Commands that run only while their candidate leads, and the guardians that stop them.

use std::time::Duration;

use bellwether::election::{Event, Instant, OpId, Term, Until};

use super::{Happening, World};
use crate::clock::nanos;
use crate::guardian::{Fate, Guardian, Moment};
use crate::invariants::{stops_within_the_stop_time, the_news_stops_the_work};
use crate::scenario::Control;

/// From the order to start until the command runs.
const STARTS_WITHIN: Duration = Duration::from_millis(200);
/// By how much a guardian's timer is late at most. It does nothing but wait for it: a part of the smallest margin.
const TIMER_LATE_MOST: Duration = Duration::from_millis(20);
/// What nobody's timer tells, a guardian sees this late at most: that the wall clock has run ahead.
pub(super) const LOOKS_EVERY: Duration = Duration::from_secs(1);
/// One command in so many takes as long as it has, or longer.
const SLOW_ONE_IN: u64 = 4;

impl World {
    pub(super) fn starts_work(&mut self, node: usize, id: OpId, term: Term, until: Until) {
        let life = self.nodes[node].life;
        let stop_time = self.setup.working_timings.stop_time();
        let starts = self.now + self.company_dice.nanos(Duration::ZERO, STARTS_WITHIN);
        let earlier = self.nodes[node].guardians.iter().any(|guardian| guardian.life == life);
        assert!(!earlier, "{node} starts work before its earlier work has ended");
        self.nodes[node].guardians.push(Guardian::new(life, (id, term, until), stop_time, starts));
        self.guards(node);
    }

    pub(super) fn extends_work(&mut self, node: usize, id: OpId, until: Until) {
        let (life, at) = (self.nodes[node].life, self.moment(node));
        if let Some(guardian) = self.nodes[node].guardians.iter_mut().find(|it| it.life == life && it.id == id) {
            guardian.extend(at, until);
        }
        self.guards(node);
    }

    pub(super) fn stops_work(&mut self, node: usize, id: OpId, kill_at: Instant) {
        let (life, at) = (self.nodes[node].life, self.moment(node));
        let stop_time = self.setup.working_timings.stop_time();
        let kept = self.control == Some(Control::StopTimeKept);
        let kill_at = if kept { kill_at.after(stop_time) } else { kill_at };
        self.judged(stops_within_the_stop_time(node, at.reading.boot, kill_at, stop_time));
        if let Some(guardian) = self.nodes[node].guardians.iter_mut().find(|it| it.life == life && it.id == id) {
            guardian.stop(at, kill_at);
        }
        self.guards(node);
    }

    /// The process of this life is gone: its guardians see it at once.
    pub(super) fn orphans_work(&mut self, node: usize) {
        let at = self.moment(node);
        for guardian in &mut self.nodes[node].guardians {
            guardian.orphan(at);
        }
        self.guards(node);
    }

    /// The command ends by itself, and its guardian says so; or that what had to be done before it has failed. Whether one
    /// runs.
    pub(crate) fn work_ends(&mut self, node: usize, fails: bool) -> bool {
        let life = self.nodes[node].life;
        let running = self.nodes[node].guardians.iter_mut().find(|it| it.life == life && it.is_running());
        let Some(guardian) = running else { return false };
        guardian.ends_by_itself();
        let id = guardian.id;
        let event = if fails { Event::WorkFailed { id } } else { Event::WorkFinished { id } };
        if !fails {
            self.application_goes(node);
        }
        self.tells_soon(node, life, event);
        true
    }

    fn moment(&mut self, node: usize) -> Moment {
        let stop_time = self.setup.working_timings.stop_time();
        let takes = if self.company_dice.once_in(SLOW_ONE_IN) {
            self.company_dice.nanos(stop_time / 2, stop_time * 2)
        } else {
            self.company_dice.nanos(Duration::ZERO, stop_time / 4)
        };
        Moment { now: self.now, reading: self.nodes[node].clock.reading(self.now), takes }
    }

    /// The guardians of a machine look at its clocks, unless it is stopped as a whole.
    pub(super) fn guards(&mut self, node: usize) {
        if self.nodes[node].guardians.is_empty() || self.nodes[node].pause.is_some_and(|pause| pause.guest) {
            return;
        }
        let at = self.moment(node);
        let mut left = std::mem::take(&mut self.nodes[node].guardians);
        left.retain_mut(|guardian| match guardian.look(at) {
            Fate::Lives => {
                let (true_time, boot) = guardian.wakes_at();
                let boot = boot.map(|boot| self.nodes[node].clock.true_time(boot));
                if let Some(next) = true_time.into_iter().chain(boot).min().filter(|next| *next > self.now) {
                    let late = self.company_dice.nanos(Duration::ZERO, TIMER_LATE_MOST);
                    self.at(next + late, Happening::Guards { node });
                }
                true
            }
            Fate::Reports => {
                self.tells_soon(node, guardian.life, Event::WorkStopped { id: guardian.id });
                false
            }
            Fate::Vanishes => false,
        });
        self.nodes[node].guardians = left;
    }

    /// After a turn whose effects have been carried out.
    pub(super) fn looks_at_stopped_work(&mut self, node: usize) {
        let it = &self.nodes[node];
        let running = it.guardians.iter().find(|guardian| guardian.life == it.life && guardian.is_running());
        let told = self.judge.told(node);
        let verdict = the_news_stops_the_work(node, running.map(|guardian| guardian.term), told);
        self.judged(verdict);
    }

    /// The guest goes on after so long: its guardians look when their timers ring, or at the latest a moment later.
    pub(super) fn guest_went_on(&mut self, node: usize, stood_still: u64) {
        if self.nodes[node].guardians.is_empty() {
            return;
        }
        let margin = self.setup.working_timings.safety_margin();
        if stood_still > nanos(margin / 4) {
            let most = LOOKS_EVERY + self.setup.working_timings.stop_time() + TIMER_LATE_MOST;
            let it = &mut self.nodes[node];
            it.guest_excused_until = self.now + it.clock.true_span(most);
        }
        let soon = self.company_dice.nanos(Duration::ZERO, LOOKS_EVERY);
        self.after(soon, Happening::Guards { node });
    }
}
