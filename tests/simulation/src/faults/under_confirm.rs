//! A resignation while a confirm is under way: by the time its answer arrives, what it says was true once.

use std::time::Duration;

use bellwether::election::Event;

use crate::clock::nanos;
use crate::network::Condition;
use crate::world::World;

/// Waits for a confirm of this candidate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnderConfirm {
    node: usize,
    cooldown: Duration,
    /// How long that member's answers wait in a queue from then on.
    late: Duration,
}

impl World {
    /// The leading candidate will be told to resign when it confirms its next renewal. Whether somebody leads.
    pub(super) fn resigns_under_confirm(&mut self, cooldown: Duration, late: Duration) -> bool {
        let Some(node) = self.judge.answering().first().map(|one| one.node) else { return false };
        self.under_confirm = Some(UnderConfirm { node, cooldown, late });
        true
    }

    /// A confirm leaves.
    pub(crate) fn confirm_leaves(&mut self, node: usize, member: usize) {
        let Some(it) = self.under_confirm.take_if(|it| it.node == node) else { return };
        self.lay_one(node, member, 0, nanos(it.late), Condition::Queued { delay: it.late });
        self.is_told(node, Event::Resign { cooldown: it.cooldown });
    }
}
