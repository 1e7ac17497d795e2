//! Two processes of one candidate, on copies of one folder: what is excused of whom, and for how long.

use std::time::Duration;

use bellwether::election::Revision;

use super::{Answering, Judge, Verdict, broken};
use crate::node::Node;

impl Judge {
    /// Two processes of one candidate are one sidecar to everybody else.
    pub(super) fn sidecar(&self, node: usize) -> usize {
        if self.twin == Some(node) { 0 } else { node }
    }

    /// Who has written the key of the candidate that has a twin, which of the two processes that is.
    pub(crate) fn is_written_by(&mut self, now: u64, writer: usize) {
        let Some(twin) = self.twin else { return };
        let other = if writer == twin { 0 } else { twin };
        self.superseded[writer] = None;
        if self.superseded[other].is_none() {
            self.superseded[other] = Some(now);
            self.promises[other] = None;
        }
    }

    /// Of two processes with one lease each can let go of it under the other, which is what they share a folder for: no
    /// guard of a revoke tells them apart.
    pub(super) fn may_rob_its_twin(&mut self, node: usize, token: Option<Revision>) {
        if self.twin.is_some() && node == 0 {
            self.touched.extend(token);
        }
    }
}

/// Another process goes on with the lease of this one, which finds out with its next confirm. It cannot before, but none of
/// its renewals counts from then on: it answers no longer than the last one before had given it.
pub(super) fn superseded_ends_by_until(now: u64, one: Answering, since: u64, node: &Node) -> Verdict {
    let timings = node.timings;
    let most = node.clock.true_span(timings.lease_ttl() - timings.safety_margin() * 3 / 4);
    if now <= since + most {
        return Ok(());
    }
    let ago = Duration::from_nanos(now - since);
    broken(
        "superseded_ends_by_until",
        format!("{} leads {}, which another process took over {ago:?} ago", one.node, one.term),
    )
}
