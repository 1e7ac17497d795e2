//! Faults of etcd's members, and how they end.

use std::time::Duration;

use super::{MemberFault, Which};
use crate::clock::nanos;
use crate::etcd::{Behaviour, Operation};
use crate::scenario::Weather;
use crate::world::{Happening, MemberTurn, World};

/// Without its leader for this long, etcd has elected another, whatever its chances: two election timeouts and a bit.
const ELECTED_WITHIN: Duration = Duration::from_millis(2300);
/// How long after the end of a fault all members have what the others have.
const WELL_WITHIN: Duration = Duration::from_secs(3);
/// How long a process takes to start.
const STARTS_WITHIN: Duration = Duration::from_millis(300);

impl World {
    /// Whether there was anything to strike.
    pub(super) fn member_fault(&mut self, fault: MemberFault) -> bool {
        match fault {
            MemberFault::Kill { which, rest } => self.each(which, rest, Self::kills_member, MemberTurn::Starts),
            MemberFault::Stop { which, lasts } => self.each(which, lasts, Self::stops_member, MemberTurn::GoesOn),
            MemberFault::StallDisk { which, lasts } => {
                self.each(which, lasts, Self::stalls_member, MemberTurn::DiskWrites)
            }
            MemberFault::Isolate { which, lasts } => {
                self.each(which, lasts, |world, member| world.isolates(member, true), MemberTurn::Rejoins)
            }
            MemberFault::CutOneWay { from, to, lasts } => {
                self.cluster.cut(self.now, from, to);
                self.turns_later(lasts, MemberTurn::Mends { from, to });
                from != to
            }
            MemberFault::Lag { which, lag, lasts } => {
                let lag = nanos(lag);
                let slows = move |world: &mut Self, member: usize| world.cluster.lag(world.now, member, lag);
                self.each(which, lasts, slows, MemberTurn::KeepsUp)
            }
            MemberFault::Replace { member, rest } => self.replaces(member, rest),
            MemberFault::StallUnderLoad { ways, into, lasts } => self
                .cluster
                .leader()
                .is_some_and(|member| self.last_renewal(ways, Duration::ZERO, lasts, Some((member, into)))),
            MemberFault::Elect => {
                let isolates = |world: &mut Self, member| world.isolates(member, true);
                self.each(Which::EtcdLeader, ELECTED_WITHIN, isolates, MemberTurn::Rejoins)
            }
            MemberFault::Compact => self.cluster.operate(self.now, Operation::Compact(self.cluster.revision())),
            MemberFault::NoSpace { lasts } => {
                self.cluster.fill(self.now);
                self.turns_later(lasts, MemberTurn::SpaceIsBack);
                true
            }
            MemberFault::Wipe { down, restart_after, to_backup } => self.wipes(down, restart_after, to_backup),
            MemberFault::Restore { age, down, restart_after } => self.restores(age, down, restart_after),
        }
    }

    fn each(
        &mut self,
        which: Which,
        lasts: Duration,
        strike: impl Fn(&mut Self, usize),
        turn: impl Fn(usize) -> MemberTurn,
    ) -> bool {
        for member in self.each_member(which) {
            strike(self, member);
            self.turns_later(lasts, turn(member));
        }
        true
    }

    pub(super) fn turns_later(&mut self, later: Duration, turn: MemberTurn) {
        let well_again = self.now + nanos(later + WELL_WITHIN);
        self.members_struck_until = self.members_struck_until.max(well_again);
        self.after(nanos(later), Happening::MemberTurns(turn));
    }

    pub(super) fn kills_member(&mut self, member: usize) {
        self.cluster.kill(self.now, member);
        for node in 0..self.nodes.len() {
            self.resets(node, member);
        }
    }

    fn stops_member(&mut self, member: usize) {
        self.cluster.stop(self.now, member);
        for node in 0..self.nodes.len() {
            self.pings_begin_to_fail(node, member);
        }
    }

    /// A disk stalls at a write, so there is one.
    fn stalls_member(&mut self, member: usize) {
        self.cluster.stall(self.now, member);
        self.cluster.operate(self.now, Operation::PutElsewhere);
    }

    fn isolates(&mut self, member: usize, cut: bool) {
        self.cluster.isolate(self.now, member, cut);
    }

    fn replaces(&mut self, member: usize, rest: Duration) -> bool {
        // etcd refuses to take one out while another is not well: with it could go what only it and the sick one have.
        if self.setup.cluster.members == 1 || self.now < self.members_struck_until {
            return false;
        }
        self.cluster.remove(self.now, member);
        for node in 0..self.nodes.len() {
            self.resets(node, member);
        }
        self.turns_later(rest, MemberTurn::Joins(member));
        true
    }

    // ---- how they end

    pub(crate) fn member_turns(&mut self, turn: MemberTurn) {
        let everything_is_repaired = self.healed;
        match turn {
            MemberTurn::LockIsCleared => self.clears_lock_without_lease(),
            MemberTurn::SpaceIsBack => {
                if !self.cluster.make_room(self.now) {
                    self.turns_later(Duration::from_millis(100), turn);
                }
            }
            MemberTurn::StoreGoes { down, restart_after } => self.store_goes(down, restart_after),
            MemberTurn::StoreIsBack { with } => self.store_is_back(with),
            MemberTurn::Starts(_)
            | MemberTurn::GoesOn(_)
            | MemberTurn::Stalls(_)
            | MemberTurn::DiskWrites(_)
            | MemberTurn::Rejoins(_)
            | MemberTurn::Mends { .. }
            | MemberTurn::KeepsUp(_)
            | MemberTurn::Joins(_)
                if everything_is_repaired => {}
            MemberTurn::Starts(member) => self.member_starts(member),
            MemberTurn::GoesOn(member) => self.ends_standstill(member),
            MemberTurn::Stalls(member) => self.stalls_member(member),
            MemberTurn::DiskWrites(member) => self.ends_standstill(member),
            MemberTurn::Rejoins(member) => self.isolates(member, false),
            MemberTurn::Mends { from, to } => self.cluster.mend(self.now, from, to),
            MemberTurn::KeepsUp(member) => self.cluster.lag(self.now, member, 0),
            MemberTurn::Joins(member) => self.cluster.add(self.now, member),
        }
    }

    fn member_starts(&mut self, member: usize) {
        if !self.store_is_away {
            self.cluster.restart(self.now, member);
        }
    }

    /// A server that stood still goes on. An old one then revokes leases that it believes expired: where that is not what
    /// the run is about, it is killed instead and started again.
    fn ends_standstill(&mut self, member: usize) {
        let old = self.setup.cluster.behaviour == Behaviour::WithStaleLeases;
        if old && self.weather != Weather::OldRevokes {
            self.kills_member(member);
            self.cluster.end_stall(self.now, member);
            self.turns_later(STARTS_WITHIN, MemberTurn::Starts(member));
        } else {
            self.cluster.end_stall(self.now, member);
            self.cluster.cont(self.now, member);
        }
    }

    /// All of etcd is in order again.
    pub(crate) fn cluster_heals(&mut self) {
        for member in 0..self.setup.cluster.members {
            self.cluster.add(self.now, member);
            self.isolates(member, false);
            self.cluster.lag(self.now, member, 0);
            let old = self.setup.cluster.behaviour == Behaviour::WithStaleLeases;
            if old && self.weather != Weather::OldRevokes {
                self.kills_member(member);
            }
            self.cluster.end_stall(self.now, member);
            self.cluster.cont(self.now, member);
            self.cluster.restart(self.now, member);
        }
        self.last_renewal = None;
        self.under_confirm = None;
        self.member_turns(MemberTurn::SpaceIsBack);
        self.member_turns(MemberTurn::LockIsCleared);
        for node in 0..self.nodes.len() {
            let epoch = self.epoch;
            self.after(0, Happening::RestartsWithEpoch { node, epoch });
        }
    }
}
