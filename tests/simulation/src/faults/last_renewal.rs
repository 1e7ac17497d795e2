//! The leader's last renewal, in a congested network: after it there is none.

use std::time::Duration;

use crate::clock::nanos;
use crate::network::{Condition, Ways};
use crate::world::{Happening, MemberTurn, World};

/// How long after a hedge is due its keep-alive has been answered.
const HEDGED_WITHIN: Duration = Duration::from_millis(100);
/// How long a confirm takes on a network that is well, and not another renewal after it.
const CONFIRMED_WITHIN: Duration = Duration::from_millis(8);

/// Waits for a keep-alive of this candidate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastRenewal {
    node: usize,
    /// Keep-alives before this are let go.
    from: u64,
    /// How long nothing gets through afterwards.
    gone: Duration,
    /// This member's disk stalls so far into the attempt.
    stall: Option<(usize, Duration)>,
}

impl World {
    /// The leading candidate's network is slow, at least for so long, until it sends a keep-alive. Whether somebody leads.
    pub(super) fn last_renewal(
        &mut self,
        ways: Ways,
        slow: Duration,
        gone: Duration,
        stall: Option<(usize, Duration)>,
    ) -> bool {
        let Some(node) = self.judge.answering().first().map(|one| one.node) else { return false };
        let (interval, most) = (self.setup.timings.keepalive_interval(), self.setup.timings.attempt_timeout());
        let until_stalled = if stall.is_some() { interval + most * 2 } else { Duration::ZERO };
        for member in 0..self.setup.cluster.members {
            self.lay_one(node, member, 0, nanos(slow + until_stalled), Condition::Slow { ways, most });
        }
        self.last_renewal = Some(LastRenewal { node, from: self.now + nanos(slow), gone, stall });
        true
    }

    /// A keep-alive leaves. If it was waited for, the attempt it begins is the last. Either its answer, and the hedge's,
    /// wait in a queue, and when the confirm is through the candidate hears nobody any more; or etcd's leader comes to
    /// hang in a write, while answers to keep-alives go out, and the candidate hears nobody when the attempt is over.
    pub(crate) fn keep_alive_leaves(&mut self, node: usize) {
        let now = self.now;
        let Some(last) = self.last_renewal.take_if(|last| last.node == node && now >= last.from) else { return };
        let (most, hedge_delay) = (self.setup.timings.attempt_timeout(), self.setup.timings.hedge_delay());
        let queued = most * 3 / 4;
        let ends = if last.stall.is_some() { most } else { queued + CONFIRMED_WITHIN };
        for member in 0..self.setup.cluster.members {
            if last.stall.is_none() {
                let window = nanos(hedge_delay + HEDGED_WITHIN);
                self.lay_one(node, member, 0, window, Condition::Queued { delay: queued });
            }
            let cut = Condition::Cut { ways: Ways::Both, hold: false };
            self.lay_one(node, member, nanos(ends), nanos(last.gone), cut);
        }
        if let Some((member, into)) = last.stall {
            self.after(nanos(into), Happening::MemberTurns(MemberTurn::Stalls(member)));
            self.turns_later(into + last.gone, MemberTurn::DiskWrites(member));
        }
    }
}
