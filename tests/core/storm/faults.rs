//! What goes wrong, and for how long.

use std::time::Duration;

use bellwether::election::{CallErrorKind, Event, LeaseId};

use super::node::Pause;
use super::world::{CANDIDATES, Happening, Link, Weather, World};
use crate::etcd::nanos;

impl World {
    /// One fault now, the next one soon.
    pub fn fault(&mut self) {
        if self.healed {
            return;
        }
        let ttl = self.timings.lease_ttl();
        let next = match self.weather {
            Weather::Storm | Weather::StormWithOperators => self.dice.between(ttl / 20, ttl / 3),
            // One after the other, not one into the other.
            Weather::Fading => self.dice.between(ttl * 2, ttl * 3),
        };
        self.after(next, Happening::Fault);
        let node = self.dice.below(CANDIDATES);
        let kinds = match self.weather {
            Weather::Fading => return self.fade(),
            Weather::Storm => 18,
            Weather::StormWithOperators => 22,
        };
        match self.dice.below(kinds) {
            0 => self.break_link(node, Link::Refused),
            1 | 2 => self.break_link(node, Link::BlackHole),
            3 => self.fade(),
            4 => self.break_endpoint(),
            5 => self.etcd_is_away(),
            6 | 7 => self.etcd_leader_is_stale(),
            8 => self.pause(node, false),
            9 => self.pause(node, true),
            10 => self.wall_jumps(node),
            11 => self.crash(node),
            12 => self.tell(node, Event::Stop),
            13 | 14 => self.resign(),
            15 => (0..self.links[node].len()).for_each(|endpoint| self.cut(node, endpoint)),
            16 => self.trouble_with_a_watch(node),
            17 => self.tell(node, Event::CredentialsRenewed),
            18 => self.etcd.operator_deletes_lock(),
            19 => self.operator_revokes(),
            20 => self.operator_puts(),
            _ => self.etcd.operator_deletes_candidate(&self.nodes[node].identity().clone()),
        }
    }

    fn some_time(&mut self) -> u64 {
        let ttl = self.timings.lease_ttl();
        let most = if self.dice.once_in(4) { ttl * 2 } else { ttl / 2 };
        self.dice.between(Duration::from_millis(20), most)
    }

    fn break_link(&mut self, node: usize, how: Link) {
        let endpoint = self.dice.below(self.links[node].len());
        let lasts = self.some_time();
        self.break_one(node, endpoint, how, lasts);
    }

    fn break_one(&mut self, node: usize, endpoint: usize, how: Link, lasts: u64) {
        self.links[node][endpoint] = how;
        if how == Link::Refused {
            self.cut(node, endpoint);
        }
        self.after(lasts, Happening::LinkTurns { node, endpoint, to: Link::Up });
    }

    /// A congested network, and then none: what was renewed last was renewed slowly.
    fn fade(&mut self) {
        let ttl = self.timings.lease_ttl();
        let slow = nanos(ttl / 2);
        let lasts = self.dice.between(ttl, ttl * 2);
        self.note("the network fades");
        for node in 0..CANDIDATES {
            if self.nodes[node].answers_200(self.now) {
                for endpoint in 0..self.stale.len() {
                    self.links[node][endpoint] = Link::Slow;
                    self.after(slow, Happening::LinkTurns { node, endpoint, to: Link::BlackHole });
                    self.after(slow + lasts, Happening::LinkTurns { node, endpoint, to: Link::Up });
                }
            }
        }
    }

    fn break_endpoint(&mut self) {
        let endpoint = self.dice.below(self.stale.len());
        let how = if self.dice.once_in(2) { Link::Refused } else { Link::BlackHole };
        let lasts = self.some_time();
        self.note(format!("endpoint {endpoint} is away"));
        (0..CANDIDATES).for_each(|node| self.break_one(node, endpoint, how, lasts));
    }

    fn etcd_is_away(&mut self) {
        let how = if self.dice.once_in(2) { Link::Refused } else { Link::BlackHole };
        let lasts = self.some_time();
        self.note("etcd is away");
        for endpoint in 0..self.stale.len() {
            (0..CANDIDATES).for_each(|node| self.break_one(node, endpoint, how, lasts));
        }
        if self.dice.once_in(2) {
            self.etcd.elects_a_leader(self.now);
        }
    }

    fn etcd_leader_is_stale(&mut self) {
        let endpoint = self.dice.below(self.stale.len());
        let lasts = self.some_time();
        self.note(format!("endpoint {endpoint} acknowledges what it has no right to"));
        self.depose(endpoint, lasts);
    }

    /// A stopped process; or a stopped guest, whose boot clock stops too: not for long, or for long enough
    /// to be seen.
    fn pause(&mut self, node: usize, guest: bool) {
        if self.nodes[node].paused.is_some() || !self.nodes[node].is_running() {
            return;
        }
        let margin = self.timings.safety_margin();
        let lasts = if !guest {
            self.some_time()
        } else if self.dice.once_in(2) {
            self.dice.between(Duration::from_millis(1), margin / 4)
        } else {
            self.dice.between(margin + Duration::from_millis(1), self.timings.lease_ttl() * 2)
        };
        self.note(format!("{node} is stopped for {:?}", Duration::from_nanos(lasts)));
        self.nodes[node].paused = Some(Pause { until: self.now + lasts, guest_since: guest.then_some(self.now) });
        self.after(lasts, Happening::Wakes { node });
    }

    fn wall_jumps(&mut self, node: usize) {
        let forward = self.dice.between(Duration::ZERO, self.timings.safety_margin() * 2);
        self.nodes[node].wall_jumps(forward);
    }

    fn crash(&mut self, node: usize) {
        self.note(format!("{node} crashes"));
        self.nodes[node].crash();
        let (life, rest) = (self.nodes[node].life, self.some_time());
        self.after(rest, Happening::Starts { node, life });
    }

    fn tell(&mut self, node: usize, event: Event) {
        self.note(format!("{node} is told {event:?}"));
        let life = self.nodes[node].life;
        self.after(1, Happening::Returns { node, life, event });
    }

    fn resign(&mut self) {
        let cooldown = Duration::from_nanos(self.some_time());
        let leader = (0..CANDIDATES).find(|place| self.nodes[*place].answers_200(self.now));
        if let Some(leader) = leader {
            self.tell(leader, Event::Resign { cooldown });
        }
    }

    fn trouble_with_a_watch(&mut self, node: usize) {
        let watches: Vec<_> = self.nodes[node].watches.keys().copied().collect();
        if watches.is_empty() {
            return;
        }
        let watch = watches[self.dice.below(watches.len())];
        match self.dice.below(3) {
            0 => self.end_watch(node, watch, CallErrorKind::Compacted),
            1 => self.end_watch(node, watch, CallErrorKind::Unavailable),
            _ => self.nodes[node].watches.get_mut(&watch).expect("it was listed").lossy = true,
        }
    }

    fn operator_revokes(&mut self) {
        if let Some(lease) = self.etcd.lock().and_then(|lock| lock.lease) {
            self.etcd.revoke(lease);
        }
    }

    /// Over the leader's key: with its lease, or with one that expires soon.
    fn operator_puts(&mut self) {
        let Some(lock) = self.etcd.lock().cloned() else { return };
        let own = LeaseId(1);
        self.etcd.grant(self.now, own, Duration::from_secs(1));
        let lease = if self.dice.once_in(2) { lock.lease } else { Some(own) };
        self.etcd.somebody_puts_lock("operator", lease);
    }
}
