//! What befalls candidates for what they have beside their election: restarts, applications that fall ill, work that ends,
//! a second process on a copy of a folder.

use std::time::Duration;

use bellwether::election::{Event, Instant};

use super::{Fault, Planned, Who};
use crate::clock::nanos;
use crate::dice::Dice;
use crate::scenario::{Scenario, Weather};
use crate::setup::Setup;
use crate::world::{Happening, World};

/// Beside the faults of every seed: those that only candidates with something beside their election can suffer. Drawn with
/// other dice, and numbered after the others, which stay what they are.
pub(super) fn plan_of_company(scenario: &Scenario, setup: &Setup) -> Vec<Planned> {
    let ttl = setup.timings.lease_ttl();
    let (least, most) = match scenario.weather {
        Weather::Storm | Weather::Operators | Weather::OldRevokes => (ttl / 3, ttl * 3 / 2),
        Weather::Handovers => (ttl / 2, ttl * 2),
        Weather::Fading => (ttl * 2, ttl * 4),
        // They have a plan of these alone.
        Weather::Restarts | Weather::Copies => return Vec::new(),
    };
    if scenario.bare {
        return Vec::new();
    }
    let mut draw = Draw::new(Dice::of(scenario.seed, "plan of company"), setup);
    let mut plan = Vec::new();
    let mut at = nanos(ttl.min(Duration::from_secs(5)));
    while at < nanos(setup.storm) {
        plan.push(Planned { at, fault: draw.fault() });
        at += draw.dice.nanos(least, most);
    }
    plan
}

/// Draws faults of this kind.
pub(super) struct Draw {
    pub(super) dice: Dice,
    ttl: Duration,
    candidates: usize,
}

impl Draw {
    pub(super) fn new(dice: Dice, setup: &Setup) -> Self {
        Self { dice, ttl: setup.timings.lease_ttl(), candidates: setup.candidates }
    }

    fn somebody(&mut self) -> Who {
        if self.dice.once_in(4) { Who::Candidate(self.dice.below(self.candidates)) } else { Who::Leader }
    }

    /// At once, within a lease's life, or beyond it.
    fn rest(&mut self) -> Duration {
        match self.dice.below(8) {
            0 | 1 => Duration::ZERO,
            2..5 => self.dice.between(Duration::from_millis(1), Duration::from_millis(300)),
            5 | 6 => self.dice.between(Duration::ZERO, self.ttl),
            _ => self.dice.between(self.ttl, self.ttl * 2),
        }
    }

    fn some_time(&mut self) -> Duration {
        self.dice.between(Duration::from_millis(20), self.ttl)
    }

    pub(super) fn restart(&mut self) -> Fault {
        match self.dice.below(8) {
            0..3 => Fault::Kill { who: self.somebody(), rest: self.rest() },
            3 | 4 => Fault::DiesAtRelease { who: self.somebody(), rest: self.rest() },
            5 => Fault::StopsHard {
                who: self.somebody(),
                after: self.dice.between(Duration::ZERO, Duration::from_secs(2)),
                rest: self.rest(),
            },
            6 => Fault::Terminate { who: self.somebody(), rest: self.rest() },
            _ => Fault::CrashLoop {
                who: Who::Leader,
                times: 2 + u32::try_from(self.dice.below(8)).expect("a handful"),
                lives: self.dice.between(Duration::from_millis(1), self.ttl / 2),
            },
        }
    }

    pub(super) fn fault(&mut self) -> Fault {
        match self.dice.below(12) {
            0 | 1 => Fault::AppIll { who: self.somebody(), lasts: self.some_time() },
            2 => Fault::AppIll { who: Who::Everybody, lasts: self.some_time() },
            3 => Fault::WorkEnds { who: Who::Leader, fails: true },
            4 => Fault::WorkEnds { who: Who::Leader, fails: false },
            _ => self.restart(),
        }
    }
}

impl World {
    pub(super) fn applications_fall_ill(&mut self, who: Who, lasts: Duration) -> bool {
        let lasts = nanos(lasts);
        let ill: Vec<bool> =
            self.each_node(who).into_iter().map(|node| self.application_falls_ill(node, lasts)).collect();
        ill.contains(&true)
    }

    /// SIGTERM, and SIGKILL when that takes too long.
    pub(super) fn stops_hard(&mut self, who: Who, after: Duration, rest: Duration) -> bool {
        let node = self.one_node(who);
        let life = self.nodes[node].life;
        self.nodes[node].rest = nanos(rest);
        self.after(nanos(after), Happening::Dies { node, life, rest: nanos(rest) });
        self.application_goes(node);
        self.is_told(node, Event::Stop)
    }

    /// Killed, and so often again that long after each start.
    pub(super) fn crashes_again_and_again(&mut self, who: Who, times: u32, lives: Duration) -> bool {
        let node = self.one_node(who);
        let killed = self.kills(Who::Candidate(node), Duration::ZERO);
        for time in 1..=times {
            self.after(nanos(lives * time), Happening::Crashes { node });
        }
        killed
    }

    pub(crate) fn crashes(&mut self, node: usize) {
        if !self.healed && self.kills(Who::Candidate(node), Duration::ZERO) {
            self.note(format!("{node} crashes again"));
        }
    }

    /// A process of this life is killed, unless it has ended or is in a stopped guest.
    pub(crate) fn dies(&mut self, node: usize, life: u64, rest: u64) {
        if self.nodes[node].life == life && !self.healed && self.kills(Who::Candidate(node), Duration::from_nanos(rest))
        {
            self.note(format!("{node} is killed, as it has not stopped"));
        }
    }

    /// Somebody starts a second process of the first candidate on a copy of its folder, in which the first has lasted
    /// long enough; or of the second's, for the first.
    pub(super) fn copies_folder(&mut self, back: bool) -> bool {
        let Some(twin) = self.setup.twin else { return false };
        let (from, to) = if back { (twin, 0) } else { (0, twin) };
        let Some(mut kept) = self.nodes[from].kept.clone() else { return false };
        kept.began = Instant::from_nanos(0);
        if self.nodes[to].pause.is_some() {
            return false;
        }
        self.nodes[to].kept = Some(kept);
        self.ends(to);
        self.after(1, Happening::Starts { node: to });
        true
    }
}
