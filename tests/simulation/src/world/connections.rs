//! Connections that break, and links that turn.

use std::time::Duration;

use bellwether::election::Event;

use super::wire::unavailable;
use super::{Happening, World};
use crate::etcd::Ticket;
use crate::network::Direction;

/// HTTP/2 pings leave every 6 s while something is open, and are waited for 2 s: a connection that carries nothing is
/// given up after this at most.
const PINGS_FAIL_MOST: Duration = Duration::from_secs(8);
const PINGS_FAIL_LEAST: Duration = Duration::from_secs(2);
/// What was held back comes this far apart.
const BURST_GAP: u64 = 20_000;

impl World {
    /// The connection breaks, and both ends are told: what is open on it ends. Requests on their way may still arrive.
    pub(crate) fn resets(&mut self, node: usize, member: usize) {
        self.held.retain(|held| held.node != node || held.member != member || held.direction == Direction::To);
        let life = self.nodes[node].life;
        let Some(process) = &self.nodes[node].process else { return };
        let error = || unavailable("connection reset");
        let streams = process.streams.iter().filter(|(_, open)| open.member == member);
        let calls = process.calls.iter().filter(|(_, open)| open.member == member);
        let watches = process.watches.iter().filter(|(_, open)| open.member == member);
        let tickets: Vec<Ticket> = watches.clone().map(|(_, open)| open.ticket).collect();
        let ends: Vec<Event> = streams
            .map(|(stream, _)| Event::StreamEnded { stream: *stream, error: error() })
            .chain(calls.map(|(id, _)| Event::Answered { id: *id, result: Err(error()) }))
            .chain(watches.map(|(watch, _)| Event::WatchEnded { watch: *watch, error: error() }))
            .collect();
        for ticket in tickets {
            self.flights.remove(&ticket);
            self.cluster.forget(ticket);
        }
        for event in ends {
            self.tells_soon(node, life, event);
        }
    }

    /// A cut begins: if it is still there when pings should have come back, the connection is given up.
    pub(crate) fn pings_begin_to_fail(&mut self, node: usize, member: usize) {
        let later = self.dice.nanos(PINGS_FAIL_LEAST, PINGS_FAIL_MOST);
        self.after(later, Happening::PingsFail { node, member, cut_at: self.now });
    }

    pub(super) fn pings_fail(&mut self, node: usize, member: usize, cut_at: u64) {
        let cut = |direction| self.network.was_cut_since(self.now, cut_at, node, member, direction);
        if cut(Direction::To) || cut(Direction::Back) || self.cluster.is_stopped(member) {
            self.resets(node, member);
        }
    }

    /// A condition of a link has ended: what nothing holds back any more comes in a burst.
    pub(super) fn link_turns(&mut self, node: usize, member: usize) {
        self.network.tidy(self.now, node, member);
        let free = |direction| !self.network.is_cut(self.now, node, member, direction);
        let (to, back) = (free(Direction::To), free(Direction::Back));
        let mut burst = Vec::new();
        for held in std::mem::take(&mut self.held) {
            let free = if held.direction == Direction::To { to } else { back };
            if held.node == node && held.member == member && free {
                burst.push(held.what);
            } else {
                self.held.push(held);
            }
        }
        for (place, what) in burst.into_iter().enumerate() {
            self.after(BURST_GAP * (1 + place as u64), what);
        }
    }
}
