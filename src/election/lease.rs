//! The etcd lease: its keep-alive streams, the renewal attempts under way, and `until`.

use std::time::Duration;

use super::backoff::Backoff;
use super::ids::{EndpointId, LeaseId, OpId, RaftTerm, Revision, StreamId};
use super::instant::{Instant, Reading, Until};
use crate::protections::Protections;

/// What there is of a lease.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one, and it is held nearly all of the time")]
pub(super) enum LeaseState {
    /// None: the next turn asks for one.
    None,
    /// Asked for with this id.
    Granting(LeaseId),
    /// Granted, and not known to be gone.
    Held(Lease),
    /// To be revoked; nothing renews it any more.
    Revoking(LeaseId),
}

/// A granted lease.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) id: LeaseId,
    /// The last keep-alive that was answered with TTL > 0, confirmed or not.
    pub(super) kept: Option<Kept>,
    /// The last keep-alive that was confirmed.
    pub(super) counted: Option<Kept>,
    /// The end of the last confirmed renewal. Only moves forward; a new lease starts without one.
    pub(super) until: Option<Until>,
    /// The stream of the last successful renewal.
    pub(super) stream: Option<Stream>,
    /// Renewal attempts under way: at most two, the second a hedge on another endpoint.
    pub(super) attempts: Vec<Attempt>,
    /// When the next attempt is due.
    pub(super) renew_at: Instant,
    /// When to hedge, while one attempt is under way.
    pub(super) hedge_at: Option<Instant>,
    /// The keep-alive stream ended, and this is when the reconnect window closes.
    pub(super) reconnect_by: Option<Instant>,
    /// Streams older than this one have outdated credentials: attempts open a new one instead, and the old
    /// one is closed when that has worked.
    pub(super) oldest_stream: StreamId,
    pub(super) backoff: Backoff,
}

/// A keep-alive stream. At most one keep-alive is outstanding on it, and it is dropped when that one has
/// timed out: an answer, which carries no request id, can belong to no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) endpoint: EndpointId,
}

/// An answered keep-alive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    /// Before the request left.
    pub(super) sent: Reading,
    /// When the answer had arrived.
    pub(super) arrived: Instant,
    /// The lifetime in the answer.
    pub(super) ttl: Duration,
    pub(super) raft_term: RaftTerm,
}

impl Kept {
    /// Until when a leader may act on this keep-alive, once it is confirmed. What runs in its name needs `stop_time` to
    /// end, and has ended when others may lead.
    pub(super) fn until(&self, margin: Duration, stop_time: Duration) -> Until {
        Until::of_renewal(self.sent, self.ttl, margin).earlier(stop_time)
    }

    /// Whether what confirms it was answered under the raft term of this keep-alive. If not, an etcd leader that had
    /// been deposed may have acknowledged it.
    pub(super) fn is_of_raft_term(&self, confirming: RaftTerm) -> bool {
        self.raft_term == confirming || Protections::NO_RAFT_TERM_CHECK.taken_away()
    }
}

/// One renewal attempt: a keep-alive and, for a leader, the confirm sent after its answer.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) stream: Stream,
    pub(super) sent: Reading,
    pub(super) stage: Stage,
}

/// What an attempt waits for.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// The keep-alive's answer.
    KeepAlive,
    /// The linearizable read that shows that lease and key are still there.
    Confirm { id: OpId, kept: Kept, floor: Revision },
}

impl Lease {
    pub(super) fn granted(id: LeaseId, now: Instant) -> Self {
        Self {
            id,
            kept: None,
            counted: None,
            until: None,
            stream: None,
            attempts: Vec::with_capacity(2),
            renew_at: now,
            hedge_at: None,
            reconnect_by: None,
            oldest_stream: StreamId(0),
            backoff: Backoff::default(),
        }
    }

    /// Moves `until` forward, to that of a renewal that counts; never back, whatever order answers arrive in. The later
    /// of two that are the same replaces the other: it knows the newer wall time.
    pub(super) fn extend(&mut self, kept: Kept, until: Until) {
        if self.until.is_none_or(|old| until.boot() >= old.boot()) {
            self.until = Some(until);
            self.counted = Some(kept);
        }
    }

    /// The right to act: `until`, cut at the end of the reconnect window.
    pub(super) fn right(&self) -> Option<Until> {
        self.until.map(|until| self.reconnect_by.map_or(until, |bound| until.at_most(bound)))
    }

    /// Notes an answered keep-alive.
    pub(super) fn keep(&mut self, kept: Kept) {
        if self.kept.is_none_or(|old| kept.sent.boot >= old.sent.boot) {
            self.kept = Some(kept);
        }
    }

    /// Renew now instead of at the next interval. An attempt under way is left to finish.
    pub(super) fn renew_at_once(&mut self, now: Instant) {
        self.renew_at = self.renew_at.min(now);
    }

    /// Takes out the attempt that waits for a keep-alive's answer on this stream.
    pub(super) fn take_awaiting_keep_alive(&mut self, stream: StreamId) -> Option<Attempt> {
        let waits = |attempt: &Attempt| attempt.stream.id == stream && matches!(attempt.stage, Stage::KeepAlive);
        let place = self.attempts.iter().position(waits)?;
        Some(self.attempts.swap_remove(place))
    }

    /// Takes out the attempt that waits for this confirm.
    pub(super) fn take_awaiting_confirm(&mut self, op: OpId) -> Option<(Attempt, Kept, Revision)> {
        let waits = |attempt: &Attempt| matches!(attempt.stage, Stage::Confirm { id, .. } if id == op);
        let place = self.attempts.iter().position(waits)?;
        let attempt = self.attempts.swap_remove(place);
        let Stage::Confirm { kept, floor, .. } = attempt.stage else {
            unreachable!("the attempt was found by its confirm")
        };
        Some((attempt, kept, floor))
    }

    /// Takes out the attempts that have had their time.
    pub(super) fn take_overdue(&mut self, now: Instant, attempt_timeout: Duration) -> Vec<Attempt> {
        let (overdue, under_way) =
            self.attempts.drain(..).partition(|attempt| now >= attempt.sent.boot.after(attempt_timeout));
        self.attempts = under_way;
        overdue
    }

    /// Every stream there is, the one in use and those of attempts under way.
    pub(super) fn streams(&self) -> Vec<Stream> {
        let mut streams: Vec<Stream> = self.stream.into_iter().collect();
        for attempt in &self.attempts {
            if !streams.contains(&attempt.stream) {
                streams.push(attempt.stream);
            }
        }
        streams
    }

    /// The next instant at which something here is due, apart from `until`.
    pub(super) fn deadline(&self, attempt_timeout: Duration) -> Option<Instant> {
        let overdue = self.attempts.iter().map(|attempt| attempt.sent.boot.after(attempt_timeout));
        let start = if self.attempts.is_empty() { Some(self.renew_at) } else { self.hedge_at };
        overdue.chain(start).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::instant::WallTime;

    const MARGIN: Duration = Duration::from_secs(3);
    const TIMEOUT: Duration = Duration::from_secs(2);

    fn reading(seconds: u64) -> Reading {
        let nanos = seconds * 1_000_000_000;
        let wall = WallTime::from_unix_nanos(i64::try_from(nanos).expect("a test's time"));
        Reading { boot: Instant::from_nanos(nanos), wall }
    }

    fn kept(sent: u64) -> Kept {
        let arrived = reading(sent + 1).boot;
        Kept { sent: reading(sent), arrived, ttl: Duration::from_secs(15), raft_term: RaftTerm(2) }
    }

    fn until(sent: u64) -> Until {
        kept(sent).until(MARGIN, Duration::ZERO)
    }

    fn lease() -> Lease {
        Lease::granted(LeaseId(1), reading(100).boot)
    }

    fn attempt(stream: u64, sent: u64, stage: Stage) -> Attempt {
        Attempt { stream: Stream { id: StreamId(stream), endpoint: EndpointId(0) }, sent: reading(sent), stage }
    }

    #[test]
    fn until_only_moves_forward() {
        let mut lease = lease();
        assert_eq!(lease.right(), None, "a new lease starts without");
        lease.extend(kept(120), until(120));
        lease.extend(kept(110), until(110));
        assert_eq!(lease.right(), Some(until(120)));
        lease.extend(kept(121), until(121));
        assert_eq!(lease.right(), Some(until(121)));
    }

    #[test]
    fn the_right_is_cut_by_the_reconnect_window_and_never_prolonged() {
        let mut lease = lease();
        lease.extend(kept(120), until(120));
        lease.reconnect_by = Some(reading(125).boot);
        assert_eq!(lease.right().map(|right| right.boot()), Some(reading(125).boot));
        lease.reconnect_by = Some(reading(500).boot);
        assert_eq!(lease.right(), Some(until(120)));
    }

    #[test]
    fn the_last_keep_alive_is_the_last_sent_whatever_order_answers_come_in() {
        let mut lease = lease();
        lease.keep(kept(120));
        lease.keep(kept(110));
        assert_eq!(lease.kept.map(|kept| kept.sent), Some(reading(120)));
    }

    #[test]
    fn an_attempt_is_overdue_from_its_timeout_on() {
        let mut lease = lease();
        lease.attempts.push(attempt(1, 100, Stage::KeepAlive));
        lease.attempts.push(attempt(2, 101, Stage::KeepAlive));
        let just_before = Instant::from_nanos(reading(102).boot.nanos() - 1);
        assert_eq!(lease.take_overdue(just_before, TIMEOUT).len(), 0);
        let overdue = lease.take_overdue(reading(102).boot, TIMEOUT);
        assert_eq!(overdue.iter().map(|attempt| attempt.stream.id).collect::<Vec<_>>(), [StreamId(1)]);
        assert_eq!(lease.attempts.len(), 1);
    }

    #[test]
    fn an_answer_is_matched_to_the_stream_and_the_stage_it_belongs_to() {
        let mut lease = lease();
        let confirm = Stage::Confirm { id: OpId(9), kept: kept(100), floor: Revision(5) };
        lease.attempts.push(attempt(1, 100, confirm));
        assert!(lease.take_awaiting_keep_alive(StreamId(1)).is_none(), "its keep-alive has been answered");
        assert!(lease.take_awaiting_confirm(OpId(8)).is_none());
        let (taken, _, floor) = lease.take_awaiting_confirm(OpId(9)).expect("it waits for this");
        assert_eq!((taken.stream.id, floor), (StreamId(1), Revision(5)));
        assert!(lease.attempts.is_empty());
    }

    #[test]
    fn the_next_deadline_is_the_renewal_or_the_end_of_an_attempt_or_its_hedge() {
        let mut lease = lease();
        assert_eq!(lease.deadline(TIMEOUT), Some(reading(100).boot));
        lease.attempts.push(attempt(1, 100, Stage::KeepAlive));
        assert_eq!(lease.deadline(TIMEOUT), Some(reading(102).boot), "no renewal while one is under way");
        lease.hedge_at = Some(reading(101).boot);
        assert_eq!(lease.deadline(TIMEOUT), Some(reading(101).boot));
    }

    #[test]
    fn streams_are_listed_once() {
        let mut lease = lease();
        lease.stream = Some(attempt(1, 0, Stage::KeepAlive).stream);
        lease.attempts.push(attempt(1, 100, Stage::KeepAlive));
        lease.attempts.push(attempt(2, 100, Stage::KeepAlive));
        assert_eq!(lease.streams().iter().map(|stream| stream.id).collect::<Vec<_>>(), [StreamId(1), StreamId(2)]);
    }
}
