//! Unary calls under way: asked until the answer is definite, on more than one endpoint if need be.
//!
//! Every call here may be applied twice without harm (each is guarded, or names its own lease), so an
//! ambiguous failure is settled by asking again.

use std::time::Duration;

use super::backoff::Backoff;
use super::effect::{Call, Effect, Operation, Request};
use super::endpoints::Endpoints;
use super::ids::{EndpointId, OpId, Revision};
use super::instant::{Instant, Reading};
use super::random::Random;

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
            self.again_at = Some(sender.now.boot.after(sender.hedge_delay));
        }
    }
}
