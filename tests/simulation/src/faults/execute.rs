//! Faults of networks, processes, machines and labels, as they strike.

use std::time::Duration;

use bellwether::election::{CallError, CallErrorKind, Event};

use super::{Fault, WatchTrouble, Which, Who};
use crate::clock::nanos;
use crate::network::{Condition, Ways};
use crate::node::Pause;
use crate::world::{Happening, World, unavailable};

impl World {
    /// The fault of this number in the plan, whatever has become of its target.
    pub(crate) fn strikes(&mut self, number: usize) {
        let fault = self.plan[number].fault;
        self.backup.get_or_insert_with(|| self.cluster.backup());
        if self.carry_out_fault(fault) {
            self.note(format!("fault {number}: {fault:?}"));
            *self.tally.faults.entry(fault.kind()).or_default() += 1;
        }
    }

    /// Whether there was anything to strike.
    fn carry_out_fault(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::Cut { who, which, ways, hold, lasts } => self.cuts(who, which, ways, hold, lasts),
            Fault::Refuse { who, which, lasts } => {
                self.lay(who, which, lasts, Condition::Refused);
                self.resets_each(who, which)
            }
            Fault::Reset { who, which } => self.resets_each(who, which),
            Fault::Slow { who, which, ways, most, lasts } => {
                self.lay(who, which, lasts, Condition::Slow { ways, most })
            }
            Fault::Lossy { who, which, one_in, lasts } => self.lay(who, which, lasts, Condition::Lossy { one_in }),
            Fault::Repeat { who, which, lasts } => self.lay(who, which, lasts, Condition::Repeating),
            Fault::Fade { ways, slow, gone } => self.last_renewal(ways, slow, gone, None),
            Fault::Watch { who, trouble, nth } => self.troubles_a_watch(who, trouble, nth),
            Fault::Pause { who, lasts } => self.pauses(self.one_node(who), lasts, false),
            Fault::PauseInTurn { who, place, lasts } => {
                let node = self.one_node(who);
                self.nodes[node].pause_in_turn = Some((place, nanos(lasts)));
                true
            }
            Fault::StopGuest { who, lasts } => self.stops_guest(who, lasts),
            Fault::WallJump { who, by } => self.wall_jumps(who, by),
            Fault::Starve { who, most, lasts } => {
                let node = self.one_node(who);
                self.nodes[node].starved = Some((self.now + nanos(lasts), most));
                true
            }
            Fault::Kill { who, rest } => self.kills(who, rest),
            Fault::Terminate { who, rest } => {
                let node = self.one_node(who);
                self.nodes[node].rest = nanos(rest);
                self.application_goes(node);
                self.is_told(node, Event::Stop)
            }
            Fault::DiesAtRelease { who, rest } => {
                let node = self.one_node(who);
                self.nodes[node].dies_at_release = Some(nanos(rest));
                self.nodes[node].process.is_some()
            }
            Fault::StopsHard { who, after, rest } => self.stops_hard(who, after, rest),
            Fault::CrashLoop { who, times, lives } => self.crashes_again_and_again(who, times, lives),
            Fault::CopyFolder { back } => self.copies_folder(back),
            Fault::AppIll { who, lasts } => self.applications_fall_ill(who, lasts),
            Fault::WorkEnds { who, fails } => self.work_ends(self.one_node(who), fails),
            Fault::Resign { who, cooldown } => self.is_told(self.one_node(who), Event::Resign { cooldown }),
            Fault::ResignUnderConfirm { cooldown, late } => self.resigns_under_confirm(cooldown, late),
            Fault::RenewCredentials { who } => {
                for node in self.each_node(who) {
                    self.is_told(node, Event::CredentialsRenewed);
                }
                true
            }
            Fault::Member(fault) => self.member_fault(fault),
            Fault::Operator(fault) => self.operator_fault(fault),
            Fault::ApiServerAway { lasts } => {
                self.labels.api_server_goes_away(self.now + nanos(lasts));
                true
            }
        }
    }

    // ---- whom

    pub(super) fn one_node(&self, who: Who) -> usize {
        match who {
            Who::Leader => self.judge.answering().first().map_or(0, |one| one.node),
            Who::Candidate(node) => node,
            Who::Everybody => 0,
        }
    }

    pub(super) fn each_node(&self, who: Who) -> Vec<usize> {
        match who {
            Who::Everybody => (0..self.nodes.len()).collect(),
            Who::Leader | Who::Candidate(_) => vec![self.one_node(who)],
        }
    }

    pub(super) fn each_member(&self, which: Which) -> Vec<usize> {
        match which {
            Which::All => (0..self.setup.cluster.members).collect(),
            Which::EtcdLeader => vec![self.cluster.leader().unwrap_or(0)],
            Which::Member(member) => vec![member],
        }
    }

    fn each_link(&self, who: Who, which: Which) -> Vec<(usize, usize)> {
        let members = self.each_member(which);
        self.each_node(who).into_iter().flat_map(|node| members.iter().map(move |member| (node, *member))).collect()
    }

    // ---- links

    fn lay(&mut self, who: Who, which: Which, lasts: Duration, condition: Condition) -> bool {
        for (node, member) in self.each_link(who, which) {
            self.lay_one(node, member, 0, nanos(lasts), condition);
        }
        true
    }

    /// From so much later on, for so long.
    pub(super) fn lay_one(&mut self, node: usize, member: usize, later: u64, lasts: u64, condition: Condition) {
        self.network.lay(self.now + later, node, member, lasts, condition);
        self.after(later + lasts, Happening::LinkTurns { node, member });
    }

    fn resets_each(&mut self, who: Who, which: Which) -> bool {
        for (node, member) in self.each_link(who, which) {
            self.resets(node, member);
        }
        true
    }

    fn cuts(&mut self, who: Who, which: Which, ways: Ways, hold: bool, lasts: Duration) -> bool {
        self.lay(who, which, lasts, Condition::Cut { ways, hold });
        for (node, member) in self.each_link(who, which) {
            self.pings_begin_to_fail(node, member);
        }
        true
    }

    fn troubles_a_watch(&mut self, who: Who, trouble: WatchTrouble, nth: usize) -> bool {
        let node = self.one_node(who);
        let life = self.nodes[node].life;
        let Some(process) = &mut self.nodes[node].process else { return false };
        let count = process.watches.len();
        if count == 0 {
            return false;
        }
        let (watch, open) = process.watches.iter_mut().nth(nth % count).expect("it was counted");
        let watch = *watch;
        let error = match trouble {
            WatchTrouble::Compacted => CallError { kind: CallErrorKind::Compacted, message: String::new() },
            WatchTrouble::Ends => unavailable("the watch was cancelled"),
            WatchTrouble::LosesNext => {
                open.loses_next = true;
                return true;
            }
            WatchTrouble::Silent => {
                open.silent = true;
                return true;
            }
        };
        let ticket = open.ticket;
        self.cluster.forget(ticket);
        self.after(1, Happening::Tells { node, life, event: Event::WatchEnded { watch, error } });
        true
    }

    // ---- processes and machines

    pub(super) fn is_told(&mut self, node: usize, event: Event) -> bool {
        let life = self.nodes[node].life;
        self.after(1, Happening::Tells { node, life, event });
        self.nodes[node].process.is_some()
    }

    fn pauses(&mut self, node: usize, lasts: Duration, guest: bool) -> bool {
        let it = &mut self.nodes[node];
        if it.pause.is_some() || it.process.is_none() {
            return false;
        }
        it.pause = Some(Pause { until: self.now + nanos(lasts), guest });
        self.after(nanos(lasts), Happening::Wakes { node });
        true
    }

    /// The boot clock stops with the guest. Not soon after another fault of the same clocks: the margin is for one, and
    /// a wall clock that is set back meanwhile hides what it would have told.
    fn stops_guest(&mut self, who: Who, lasts: Duration) -> bool {
        let node = self.one_node(who);
        if self.nodes[node].clock_trouble_until > self.now || !self.pauses(node, lasts, true) {
            return false;
        }
        let it = &mut self.nodes[node];
        it.clock.stop(self.now);
        it.clock_trouble_until = self.now + nanos(lasts) + 2 * it.lease_life();
        true
    }

    fn wall_jumps(&mut self, who: Who, by: i64) -> bool {
        let node = self.one_node(who);
        let it = &mut self.nodes[node];
        if it.clock_trouble_until > self.now {
            return false;
        }
        it.clock.wall_jumps(by);
        it.clock_trouble_until = self.now + 2 * it.lease_life();
        true
    }

    pub(super) fn kills(&mut self, who: Who, rest: Duration) -> bool {
        let node = self.one_node(who);
        let it = &mut self.nodes[node];
        // In a stopped guest nothing is killed.
        if it.process.is_none() || it.pause.is_some_and(|pause| pause.guest) {
            return false;
        }
        it.pause = None;
        self.ends(node);
        self.after(nanos(rest), Happening::Starts { node });
        true
    }
}
