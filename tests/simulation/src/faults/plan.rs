//! The plan of a seed: which faults, when, with every parameter, drawn before anything happens. So one can be left out
//! and the others stay what they are.

use std::time::Duration;

use super::restarts::{Draw as DrawRestarts, plan_of_company};
use super::{Fault, MemberFault, OperatorFault, WatchTrouble, Which, Who};
use crate::clock::nanos;
use crate::dice::Dice;
use crate::network::Ways;
use crate::node::Place;
use crate::scenario::{Scenario, Weather};
use crate::setup::Setup;

/// However short the lease: faults that follow one another faster than this leave nothing that could break.
const APART_LEAST: Duration = Duration::from_millis(300);
/// A store that is restored under a leader is back before the etcd election that follows takes the rest of its lease.
const RESTORED_WITHIN: Duration = Duration::from_millis(500);

/// A fault and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Planned {
    /// In true nanoseconds.
    pub(crate) at: u64,
    pub(crate) fault: Fault,
}

/// The whole plan of a scenario, left out ones included.
pub(crate) fn plan(scenario: &Scenario, setup: &Setup) -> Vec<Planned> {
    let mut planner = Planner {
        dice: Dice::of(scenario.seed, "plan"),
        company: DrawRestarts::new(Dice::of(scenario.seed, "plan of restarts"), setup),
        setup: setup.clone(),
        weather: scenario.weather,
    };
    let mut plan = Vec::new();
    // First let somebody lead.
    let mut at = nanos(setup.timings.lease_ttl().min(Duration::from_secs(5)));
    let end = nanos(setup.storm);
    while at < end {
        plan.push(Planned { at, fault: planner.fault() });
        at += planner.pause();
    }
    planner.at_most_one_wipe(&mut plan, end);
    plan.extend(plan_of_company(scenario, setup));
    plan
}

struct Planner {
    dice: Dice,
    company: DrawRestarts,
    setup: Setup,
    weather: Weather,
}

type Draw = fn(&mut Planner) -> Fault;

/// How often each kind comes, of the sum of all.
const STORM: [(usize, Draw); 20] = [
    (8, Planner::cut),
    (3, Planner::refuse),
    (3, Planner::reset),
    (3, Planner::slow),
    (2, Planner::lossy),
    (1, Planner::repeat),
    (2, Planner::fade),
    (3, Planner::watch),
    (3, Planner::pause_process),
    (3, Planner::pause_in_turn),
    (3, Planner::stop_guest),
    (2, Planner::wall_jump),
    (2, Planner::starve),
    (3, Planner::kill),
    (2, Planner::terminate),
    (3, Planner::resign),
    (1, Planner::renew_credentials),
    (10, Planner::member),
    (2, Planner::api_server),
    (1, Planner::etcd_away),
];

/// The lock goes round, and answers come late.
const HANDOVERS: [(usize, Draw); 9] = [
    (4, Planner::resign_for_a_moment),
    (4, Planner::resign_under_confirm),
    (8, Planner::late_answers),
    (2, Planner::slow),
    (2, Planner::cut),
    (2, Planner::terminate),
    (2, Planner::pause_process),
    (1, Planner::pause_in_turn),
    (1, Planner::reset),
];

/// Candidates die and come back, and what they have sent is slow.
const RESTARTS: [(usize, Draw); 13] = [
    (12, Planner::restart),
    (4, Planner::company),
    (3, Planner::resign_for_a_moment),
    (2, Planner::resign_under_confirm),
    (4, Planner::slow),
    (3, Planner::late_answers),
    (2, Planner::cut),
    (1, Planner::repeat),
    (1, Planner::lossy),
    (1, Planner::reset),
    (2, Planner::pause_process),
    (2, Planner::pause_in_turn),
    (3, Planner::member),
];

/// The same without what strikes clocks, which two processes of one machine share, and with the copies.
const COPIES: [(usize, Draw); 11] = [
    (10, Planner::copy_folder),
    (3, Planner::restart),
    (2, Planner::company),
    (2, Planner::resign_for_a_moment),
    (3, Planner::slow),
    (2, Planner::late_answers),
    (2, Planner::cut),
    (1, Planner::repeat),
    (1, Planner::reset),
    (2, Planner::pause_process),
    (1, Planner::pause_in_turn),
];

impl Planner {
    fn restart(&mut self) -> Fault {
        self.company.restart()
    }

    fn company(&mut self) -> Fault {
        self.company.fault()
    }

    fn copy_folder(&mut self) -> Fault {
        Fault::CopyFolder { back: self.dice.once_in(3) }
    }

    fn ttl(&self) -> Duration {
        self.setup.timings.lease_ttl()
    }

    fn pause(&mut self) -> u64 {
        let ttl = self.ttl();
        let (least, most) = match self.weather {
            // Now and then a lull, in which somebody leads for a while.
            Weather::Storm | Weather::Operators | Weather::OldRevokes if self.dice.once_in(12) => (ttl, ttl * 2),
            Weather::Storm | Weather::Operators => (ttl / 20, ttl / 3),
            Weather::OldRevokes => (ttl / 4, ttl),
            // One after the other, not one into the other.
            Weather::Fading => (ttl * 2, ttl * 3),
            Weather::Handovers => (ttl / 40, ttl / 4),
            // A life must outlast a lease to be gone on with.
            Weather::Restarts | Weather::Copies if self.dice.once_in(3) => (ttl, ttl * 2),
            Weather::Restarts | Weather::Copies => (ttl / 20, ttl / 2),
        };
        self.dice.nanos(least.max(APART_LEAST), most.max(APART_LEAST))
    }

    fn fault(&mut self) -> Fault {
        match self.weather {
            Weather::Fading => match self.dice.below(2) {
                0 => self.stall_under_load(),
                _ => self.fade(),
            },
            Weather::Handovers => self.drawn_from(&HANDOVERS),
            Weather::Restarts => self.drawn_from(&RESTARTS),
            Weather::Copies => self.drawn_from(&COPIES),
            Weather::Operators if self.dice.once_in(4) => self.operator(),
            Weather::OldRevokes if self.dice.once_in(3) => self.stall_disk(),
            Weather::Storm | Weather::Operators | Weather::OldRevokes => self.drawn_from(&STORM),
        }
    }

    fn drawn_from(&mut self, weights: &[(usize, Draw)]) -> Fault {
        let sum: usize = weights.iter().map(|(weight, _)| weight).sum();
        let mut place = self.dice.below(sum);
        for (weight, draw) in weights {
            if place < *weight {
                return draw(self);
            }
            place -= weight;
        }
        unreachable!("the place is below the sum of all weights")
    }

    fn some_time(&mut self) -> Duration {
        let ttl = self.ttl();
        let most = if self.dice.once_in(4) { ttl * 2 } else { ttl / 2 };
        self.dice.between(Duration::from_millis(20), most)
    }

    fn who(&mut self) -> Who {
        match self.dice.below(8) {
            0 => Who::Everybody,
            1..4 => Who::Leader,
            _ => Who::Candidate(self.dice.below(self.setup.candidates)),
        }
    }

    fn somebody(&mut self) -> Who {
        if self.dice.coin() { Who::Leader } else { Who::Candidate(self.dice.below(self.setup.candidates)) }
    }

    fn which(&mut self) -> Which {
        match self.dice.below(4) {
            0 => Which::All,
            1 => Which::EtcdLeader,
            _ => Which::Member(self.dice.below(self.setup.cluster.members)),
        }
    }

    fn one_member(&mut self) -> Which {
        if self.dice.coin() { Which::EtcdLeader } else { Which::Member(self.dice.below(self.setup.cluster.members)) }
    }

    fn ways(&mut self) -> Ways {
        [Ways::Both, Ways::Both, Ways::OnlyTo, Ways::OnlyBack][self.dice.below(4)]
    }

    fn cut(&mut self) -> Fault {
        let (who, which, ways) = (self.who(), self.which(), self.ways());
        Fault::Cut { who, which, ways, hold: self.dice.coin(), lasts: self.some_time() }
    }

    fn refuse(&mut self) -> Fault {
        Fault::Refuse { who: self.who(), which: self.which(), lasts: self.some_time() }
    }

    fn reset(&mut self) -> Fault {
        Fault::Reset { who: self.who(), which: self.which() }
    }

    fn slow(&mut self) -> Fault {
        let most = self.dice.between(Duration::from_millis(50), self.setup.timings.attempt_timeout());
        Fault::Slow { who: self.who(), which: self.which(), ways: self.ways(), most, lasts: self.some_time() }
    }

    fn lossy(&mut self) -> Fault {
        let one_in = 2 + self.dice.below(6) as u64;
        Fault::Lossy { who: self.who(), which: self.which(), one_in, lasts: self.some_time() }
    }

    fn repeat(&mut self) -> Fault {
        Fault::Repeat { who: self.who(), which: Which::All, lasts: self.some_time() * 2 }
    }

    fn fade(&mut self) -> Fault {
        let ttl = self.ttl();
        let ways = if self.dice.once_in(4) { Ways::OnlyTo } else { Ways::OnlyBack };
        Fault::Fade { ways, slow: ttl / 2, gone: self.dice.between(ttl, ttl * 2) }
    }

    fn watch(&mut self) -> Fault {
        let troubles = [WatchTrouble::Compacted, WatchTrouble::Ends, WatchTrouble::LosesNext, WatchTrouble::Silent];
        Fault::Watch { who: self.somebody(), trouble: troubles[self.dice.below(4)], nth: self.dice.below(4) }
    }

    fn pause_process(&mut self) -> Fault {
        Fault::Pause { who: self.somebody(), lasts: self.some_time() }
    }

    fn pause_in_turn(&mut self) -> Fault {
        let place = if self.dice.once_in(3) { Place::BeforeAnything } else { Place::InBetween };
        Fault::PauseInTurn { who: self.somebody(), place, lasts: self.some_time() }
    }

    /// Not long enough to be noticed, and a part of what the margin is for; or long enough.
    fn stop_guest(&mut self) -> Fault {
        let margin = self.setup.timings.safety_margin();
        let (least, most) = if self.dice.coin() {
            (Duration::from_millis(1), margin / 4)
        } else {
            // By the machine's own clocks, the slowest of which count less than a tenth less than the truth.
            (margin * 10 / 9, self.ttl() * 2)
        };
        Fault::StopGuest { who: self.somebody(), lasts: self.dice.between(least, most) }
    }

    fn wall_jump(&mut self) -> Fault {
        let by = self.dice.nanos(Duration::ZERO, self.setup.timings.safety_margin() * 2);
        let by = i64::try_from(by).expect("seconds");
        Fault::WallJump { who: self.somebody(), by: if self.dice.coin() { by } else { -by } }
    }

    fn starve(&mut self) -> Fault {
        let most = self.dice.between(Duration::from_millis(20), Duration::from_millis(800));
        Fault::Starve { who: self.somebody(), most, lasts: self.some_time() }
    }

    fn kill(&mut self) -> Fault {
        Fault::Kill { who: self.somebody(), rest: self.some_time() }
    }

    fn terminate(&mut self) -> Fault {
        Fault::Terminate { who: self.somebody(), rest: self.some_time() }
    }

    fn resign(&mut self) -> Fault {
        let who = if self.dice.once_in(4) { self.somebody() } else { Who::Leader };
        Fault::Resign { who, cooldown: self.some_time() }
    }

    /// Back in line before what was asked before is answered.
    fn resign_for_a_moment(&mut self) -> Fault {
        let attempt = self.setup.timings.attempt_timeout();
        let cooldown = if self.dice.coin() { Duration::ZERO } else { self.dice.between(Duration::ZERO, attempt) };
        Fault::Resign { who: Who::Leader, cooldown }
    }

    /// And while one of the answers is under way.
    fn resign_under_confirm(&mut self) -> Fault {
        let attempt = self.setup.timings.attempt_timeout();
        let cooldown = if self.dice.coin() { Duration::ZERO } else { self.dice.between(Duration::ZERO, attempt) };
        Fault::ResignUnderConfirm { cooldown, late: self.dice.between(attempt / 20, attempt) }
    }

    /// Of one member, as late as they can be and still be waited for.
    fn late_answers(&mut self) -> Fault {
        let attempt = self.setup.timings.attempt_timeout();
        let (which, lasts) = (self.one_member(), self.dice.between(attempt / 2, attempt * 4));
        Fault::Slow { who: Who::Leader, which, ways: Ways::OnlyBack, most: attempt, lasts }
    }

    fn renew_credentials(&mut self) -> Fault {
        Fault::RenewCredentials { who: self.who() }
    }

    fn etcd_away(&mut self) -> Fault {
        if self.dice.coin() {
            Fault::Refuse { who: Who::Everybody, which: Which::All, lasts: self.some_time() }
        } else {
            let (ways, hold) = (self.ways(), self.dice.coin());
            Fault::Cut { who: Who::Everybody, which: Which::All, ways, hold, lasts: self.some_time() }
        }
    }

    fn api_server(&mut self) -> Fault {
        Fault::ApiServerAway { lasts: self.some_time() }
    }

    fn stall_disk(&mut self) -> Fault {
        let ttl = self.ttl();
        let lasts = self.dice.between(ttl / 2, ttl * 2);
        Fault::Member(MemberFault::StallDisk { which: Which::EtcdLeader, lasts })
    }

    fn stall_under_load(&mut self) -> Fault {
        let lasts = self.dice.between(self.ttl(), self.ttl() * 2);
        let (ways, most) = if self.dice.coin() {
            // What leaves together arrives before and after the stall.
            (Ways::OnlyTo, self.setup.timings.attempt_timeout() / 2)
        } else {
            // The answer arrives when there is another leader.
            (Ways::OnlyBack, Duration::from_millis(5))
        };
        let into = self.dice.between(Duration::ZERO, most);
        Fault::Member(MemberFault::StallUnderLoad { ways, into, lasts })
    }

    fn member(&mut self) -> Fault {
        let (which, lasts) = (self.one_member(), self.some_time());
        let members = self.setup.cluster.members;
        Fault::Member(match self.dice.below(26) {
            0..3 => MemberFault::Kill { which, rest: lasts },
            3..6 => MemberFault::Stop { which, lasts },
            6..10 => return self.stall_disk(),
            10..14 => MemberFault::Isolate { which, lasts },
            14..16 => MemberFault::Elect,
            16 => MemberFault::Compact,
            17 | 18 => MemberFault::NoSpace { lasts },
            19 | 20 => MemberFault::CutOneWay { from: self.dice.below(members), to: self.dice.below(members), lasts },
            21 | 22 => {
                let lag = self.dice.between(Duration::from_millis(5), Duration::from_secs(1));
                MemberFault::Lag { which, lag, lasts }
            }
            23 | 24 => MemberFault::Replace { member: self.dice.below(members), rest: lasts },
            _ if !self.dice.once_in(3) => self.restore(),
            _ => {
                // As long as it takes to restore a store: no answer from before is good any more.
                let down = self.ttl() + self.dice.between(Duration::ZERO, self.ttl());
                MemberFault::Wipe { down, restart_after: self.some_time(), to_backup: self.dice.coin() }
            }
        })
    }

    /// Old enough for a leader to have heard of something that is not in the backup, and back before its lease has ended.
    fn restore(&mut self) -> MemberFault {
        let (ttl, interval) = (self.ttl(), self.setup.timings.keepalive_interval());
        let age = self.dice.between(interval, interval * 3 / 2);
        let down = self.dice.between(Duration::ZERO, (ttl / 4).min(RESTORED_WITHIN));
        MemberFault::Restore { age, down, restart_after: ttl + self.some_time() }
    }

    fn operator(&mut self) -> Fault {
        Fault::Operator(match self.dice.below(6) {
            0 | 1 => OperatorFault::DeleteLock,
            2 => OperatorFault::PutOverLock { keep_lease: self.dice.coin() },
            3 => OperatorFault::RevokeLease,
            4 => OperatorFault::DeleteCandidate { who: self.somebody() },
            _ => OperatorFault::PutWithoutLease { clear_after: self.some_time() },
        })
    }

    /// A store is restored once in a run at most, and in time for everybody to be restarted with a higher epoch.
    fn at_most_one_wipe(&mut self, plan: &mut [Planned], end: u64) {
        let mut wiped = false;
        for planned in plan {
            let Fault::Member(fault) = planned.fault else { continue };
            if let Some(back_after) = fault.store_is_back_after() {
                if wiped || planned.at + nanos(back_after) + nanos(self.ttl()) > end {
                    planned.fault = Fault::Member(MemberFault::Compact);
                } else {
                    wiped = true;
                }
            }
        }
    }
}
