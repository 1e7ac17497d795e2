//! Unary calls under way: asked until the answer is definite, on more than one endpoint if need be.
//!
//! Every call here may be applied twice without harm (each is guarded, or names its own lease), so an
//! ambiguous failure is settled by asking again.

use std::time::Duration;

use super::backoff::Backoff;
use super::effect::{Call, Effect, Operation, Request};
use super::endpoints::Endpoints;
use super::ids::{EndpointId, LeaseId, OpId, Revision};
use super::instant::{Instant, Reading};
use super::random::Random;

/// While nobody leads, another endpoint is asked this soon: one slow member must not make a handover last half a second
/// longer. As long as the others in line wait for the heir, and far above what such a call takes (p99 12 ms).
const HANDOVER_HEDGE_DELAY: Duration = Duration::from_millis(100);

/// One request in flight.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) id: OpId,
    pub(super) endpoint: EndpointId,
    /// Taken before the request left.
    pub(super) at: Reading,
    /// The highest revision received before the request left: a linearizable answer below it means that
    /// the store was wiped or restored.
    pub(super) floor: Revision,
}

#[derive(Clone, Debug)]
struct Ask {
    call: Call,
    /// At most two: the first, and the hedge on another endpoint.
    sent: Vec<Sent>,
    /// When to send again: the hedge while one is in flight, the retry while none is.
    again_at: Option<Instant>,
    backoff: Backoff,
}

/// What is needed to send.
pub(super) struct Sender<'a> {
    pub(super) now: Reading,
    pub(super) floor: Revision,
    pub(super) attempt_timeout: Duration,
    pub(super) hedge_delay: Duration,
    pub(super) endpoints: &'a Endpoints,
    pub(super) next_id: &'a mut u64,
    pub(super) effects: &'a mut std::collections::VecDeque<Effect>,
}

impl Sender<'_> {
    /// Sends one request and says how.
    pub(super) fn send(&mut self, endpoint: EndpointId, call: Call) -> Sent {
        *self.next_id += 1;
        let id = OpId(*self.next_id);
        self.effects.push_back(Effect::Request(Request { id, endpoint, timeout: self.attempt_timeout, call }));
        Sent { id, endpoint, at: self.now, floor: self.floor }
    }

    /// How long this operation's first request is waited for before another endpoint is asked as well.
    fn hedge_delay_of(&self, operation: Operation) -> Duration {
        match operation {
            // What lies between one leader and the next.
            Operation::Claim | Operation::DeleteLock | Operation::Revoke | Operation::Resume => {
                self.hedge_delay.min(HANDOVER_HEDGE_DELAY)
            }
            Operation::Probe
            | Operation::Grant
            | Operation::Observe
            | Operation::Register
            | Operation::Unregister
            | Operation::Confirm
            | Operation::KeepAlive
            | Operation::Watch => self.hedge_delay,
        }
    }
}

/// The calls under way, at most one per operation: the state machine never needs two of a kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Asks(Vec<Ask>);

impl Asks {
    /// Starts asking, unless the very same question is under way; another one of its kind is given up.
    pub(super) fn ask(&mut self, sender: &mut Sender<'_>, call: Call) {
        if self.0.iter().any(|ask| ask.call == call) {
            return;
        }
        self.give_up(call.operation());
        let mut ask = Ask { call, sent: Vec::with_capacity(2), again_at: None, backoff: Backoff::default() };
        ask.send(sender);
        self.0.push(ask);
    }

    pub(super) fn is_asking(&self, operation: Operation) -> bool {
        self.0.iter().any(|ask| ask.call.operation() == operation)
    }

    /// Waits for this operation's answer no more. It may still be applied.
    pub(super) fn give_up(&mut self, operation: Operation) {
        self.0.retain(|ask| ask.call.operation() != operation);
    }

    pub(super) fn give_up_all(&mut self) {
        self.0.clear();
    }

    /// The request `id` was answered: the question and how it was sent, or nothing if nobody waits for it.
    pub(super) fn answered(&mut self, id: OpId) -> Option<(Call, Sent)> {
        let place = self.0.iter().position(|ask| ask.sent.iter().any(|sent| sent.id == id))?;
        let ask = self.0.swap_remove(place);
        let sent = ask.sent.into_iter().find(|sent| sent.id == id).expect("its place was found by this id");
        Some((ask.call, sent))
    }

    /// The lease that the request `id` attaches a key to, if somebody waits for its answer.
    pub(super) fn attached_lease(&self, id: OpId) -> Option<LeaseId> {
        self.0.iter().find(|ask| ask.sent.iter().any(|sent| sent.id == id))?.call.attached_lease()
    }

    /// The request `id` failed: it will be asked again. Says where and at what it failed.
    pub(super) fn failed(&mut self, now: Reading, random: &mut Random, id: OpId) -> Option<(EndpointId, Operation)> {
        let ask = self.0.iter_mut().find(|ask| ask.sent.iter().any(|sent| sent.id == id))?;
        let place = ask.sent.iter().position(|sent| sent.id == id).expect("the ask was found by this id");
        let sent = ask.sent.swap_remove(place);
        if ask.sent.is_empty() {
            ask.again_at = Some(now.boot.after(ask.backoff.next(random)));
        }
        Some((sent.endpoint, ask.call.operation()))
    }

    /// The requests that have had their time.
    pub(super) fn overdue(&self, now: Instant, attempt_timeout: Duration) -> Vec<OpId> {
        self.sent().filter(|sent| now >= sent.at.boot.after(attempt_timeout)).map(|sent| sent.id).collect()
    }

    /// Sends the hedges and retries that are due.
    pub(super) fn send_due(&mut self, sender: &mut Sender<'_>) {
        for ask in &mut self.0 {
            if ask.again_at.is_some_and(|at| sender.now.boot >= at) {
                ask.send(sender);
            }
        }
    }

    /// The next instant at which something here is due.
    pub(super) fn deadline(&self, attempt_timeout: Duration) -> Option<Instant> {
        let overdue = self.sent().map(|sent| sent.at.boot.after(attempt_timeout));
        overdue.chain(self.0.iter().filter_map(|ask| ask.again_at)).min()
    }

    fn sent(&self) -> impl Iterator<Item = &Sent> {
        self.0.iter().flat_map(|ask| &ask.sent)
    }
}

impl Ask {
    fn send(&mut self, sender: &mut Sender<'_>) {
        self.again_at = None;
        let endpoint = match self.sent.first() {
            None => sender.endpoints.preferred(),
            Some(first) => sender.endpoints.other_than(first.endpoint),
        };
        let Some(endpoint) = endpoint else {
            // Alone, or every endpoint refused: the first request's own end decides what comes next.
            if self.sent.is_empty() {
                self.again_at = Some(sender.now.boot.after(sender.attempt_timeout));
            }
            return;
        };
        self.sent.push(sender.send(endpoint, self.call.clone()));
        if self.sent.len() == 1 {
            let hedge_delay = sender.hedge_delay_of(self.call.operation());
            self.again_at = Some(sender.now.boot.after(hedge_delay));
        }
    }
}

#[cfg(test)]
#[expect(clippy::unchecked_time_subtraction, reason = "a test that subtracts too much should panic")]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::election::event::CallErrorKind;
    use crate::election::instant::WallTime;

    const TIMEOUT: Duration = Duration::from_secs(2);
    const HEDGE: Duration = Duration::from_millis(500);

    struct Stage {
        asks: Asks,
        endpoints: Endpoints,
        random: Random,
        effects: VecDeque<Effect>,
        next_id: u64,
        now: u64,
    }

    impl Stage {
        fn new(endpoints: usize) -> Self {
            let mut random = Random::from_seed(1);
            let endpoints = Endpoints::new(endpoints, &mut random);
            Self { asks: Asks::default(), endpoints, random, effects: VecDeque::new(), next_id: 0, now: 0 }
        }

        fn now(&self) -> Reading {
            Reading { boot: Instant::from_nanos(self.now), wall: WallTime::from_unix_nanos(0) }
        }

        fn pass(&mut self, duration: Duration) {
            self.now += u64::try_from(duration.as_nanos()).expect("a test's time");
        }

        fn with_sender(&mut self, act: impl FnOnce(&mut Asks, &mut Sender<'_>)) {
            let now = self.now();
            let mut sender = Sender {
                now,
                floor: Revision(5),
                attempt_timeout: TIMEOUT,
                hedge_delay: HEDGE,
                endpoints: &self.endpoints,
                next_id: &mut self.next_id,
                effects: &mut self.effects,
            };
            act(&mut self.asks, &mut sender);
        }

        fn ask(&mut self, call: Call) {
            self.with_sender(|asks, sender| asks.ask(sender, call));
        }

        fn send_due(&mut self) -> usize {
            let before = self.effects.len();
            self.with_sender(Asks::send_due);
            self.effects.len() - before
        }

        fn sent(&self) -> Vec<(OpId, EndpointId)> {
            let request = |effect: &Effect| {
                if let Effect::Request(request) = effect { Some((request.id, request.endpoint)) } else { None }
            };
            self.effects.iter().filter_map(request).collect()
        }
    }

    fn revoke(lease: i64) -> Call {
        Call::Revoke { lease: LeaseId(lease) }
    }

    #[test]
    fn what_lies_between_two_leaders_is_hedged_sooner_than_anything_else() {
        let mut stage = Stage::new(2);
        stage.ask(revoke(1));
        stage.ask(Call::Observe { before: None });
        stage.pass(HANDOVER_HEDGE_DELAY);
        assert_eq!(stage.send_due(), 1);
        stage.pass(HEDGE - HANDOVER_HEDGE_DELAY);
        assert_eq!(stage.send_due(), 1);
    }

    #[test]
    fn the_same_question_is_asked_once() {
        let mut stage = Stage::new(1);
        stage.ask(revoke(1));
        stage.ask(revoke(1));
        assert_eq!(stage.sent().len(), 1);
        assert!(stage.asks.is_asking(Operation::Revoke) && !stage.asks.is_asking(Operation::Grant));
    }

    #[test]
    fn another_question_of_its_kind_replaces_the_first_whose_answer_is_then_nobodys() {
        let mut stage = Stage::new(1);
        stage.ask(revoke(1));
        stage.ask(revoke(2));
        let sent = stage.sent();
        assert!(stage.asks.answered(sent[0].0).is_none());
        let (call, how) = stage.asks.answered(sent[1].0).expect("asked");
        assert_eq!((call, how.floor, how.id), (revoke(2), Revision(5), sent[1].0));
        assert!(stage.asks.answered(sent[1].0).is_none(), "once");
    }

    #[test]
    fn one_hedge_goes_to_another_endpoint_and_no_more() {
        let mut stage = Stage::new(3);
        stage.ask(revoke(1));
        stage.pass(HANDOVER_HEDGE_DELAY - Duration::from_nanos(1));
        assert_eq!(stage.send_due(), 0);
        stage.pass(Duration::from_nanos(1));
        assert_eq!(stage.send_due(), 1);
        let sent = stage.sent();
        assert_ne!(sent[0].1, sent[1].1);
        stage.pass(HEDGE * 2);
        assert_eq!(stage.send_due(), 0);
        assert!(stage.asks.answered(sent[0].0).is_some());
        assert!(stage.asks.answered(sent[1].0).is_none(), "the first answer settles it");
    }

    #[test]
    fn who_is_alone_is_not_hedged_and_does_not_spin() {
        let mut stage = Stage::new(1);
        stage.ask(revoke(1));
        stage.pass(HEDGE);
        assert_eq!(stage.send_due(), 0);
        assert_eq!(stage.asks.deadline(TIMEOUT), Some(Instant::from_nanos(0).after(TIMEOUT)));
    }

    #[test]
    fn a_failure_is_tried_again_after_a_wait_that_grows_to_half_a_second() {
        let mut stage = Stage::new(1);
        stage.ask(revoke(1));
        let mut waits = Vec::new();
        for _ in 0..8 {
            let (id, _) = *stage.sent().last().expect("sent");
            let now = stage.now();
            let failed = stage.asks.failed(now, &mut stage.random, id);
            assert_eq!(failed, Some((EndpointId(0), Operation::Revoke)));
            let again = stage.asks.deadline(TIMEOUT).expect("it will be asked again");
            let wait = again.since(stage.now().boot);
            waits.push(wait);
            stage.pass(wait);
            assert_eq!(stage.send_due(), 1);
        }
        assert!(waits[0] >= Duration::from_millis(25) && waits[0] <= Duration::from_millis(50), "{waits:?}");
        assert!(waits[7] >= Duration::from_millis(250) && waits[7] <= Duration::from_millis(500), "{waits:?}");
    }

    #[test]
    fn the_failure_of_one_of_two_leaves_the_other() {
        let mut stage = Stage::new(2);
        stage.ask(revoke(1));
        stage.pass(HEDGE);
        stage.send_due();
        let sent = stage.sent();
        let now = stage.now();
        stage.asks.failed(now, &mut stage.random, sent[0].0);
        assert_eq!(stage.send_due(), 0);
        assert!(stage.asks.answered(sent[1].0).is_some());
    }

    #[test]
    fn a_request_is_overdue_from_its_timeout_on() {
        let mut stage = Stage::new(1);
        stage.ask(revoke(1));
        let just_before = Instant::from_nanos(0).after(TIMEOUT - Duration::from_nanos(1));
        assert!(stage.asks.overdue(just_before, TIMEOUT).is_empty());
        assert_eq!(stage.asks.overdue(Instant::from_nanos(0).after(TIMEOUT), TIMEOUT), [stage.sent()[0].0]);
    }

    #[test]
    fn with_nobody_to_ask_it_looks_again_after_an_attempts_time() {
        let mut stage = Stage::new(1);
        stage.endpoints.answered(EndpointId(0), crate::election::ids::ClusterId(1));
        stage.endpoints.answered(EndpointId(0), crate::election::ids::ClusterId(2));
        stage.endpoints.failed(EndpointId(0), Operation::Probe, CallErrorKind::Other);
        stage.ask(revoke(1));
        assert!(stage.sent().is_empty());
        assert_eq!(stage.asks.deadline(TIMEOUT), Some(Instant::from_nanos(0).after(TIMEOUT)));
    }

    #[test]
    fn what_was_given_up_is_waited_for_no_more() {
        let mut stage = Stage::new(1);
        stage.ask(revoke(1));
        stage.ask(Call::Confirm);
        stage.asks.give_up(Operation::Revoke);
        assert!(!stage.asks.is_asking(Operation::Revoke) && stage.asks.is_asking(Operation::Confirm));
        stage.asks.give_up_all();
        assert_eq!(stage.asks.deadline(TIMEOUT), None);
    }
}
