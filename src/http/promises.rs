//! Answers are promises: the bookkeeping that lets a voluntary release wait for them.
//!
//! A 200 says "no other candidate is elected for `valid_for_ms`". Before the lock is let go of one's own will,
//! two things must be over: every answer that was computed from a view in which this candidate led must have
//! left for its socket, and the promise of each must have run out.
//!
//! The order carries the proof. A request (1) takes an [`AnswerGuard`], (2) borrows the view, (3) reads the
//! clock, (4) records what it promises, and gives the guard back when its answer has been handed to the socket.
//! The driver (1) publishes a view that does not lead, then (2) calls [`Promises::settled`]. Guard and call go
//! through one mutex, so a request either took its guard before the call, and is waited for, or after it, and
//! then it borrows the published view or a newer one and promises nothing.
//!
//! Who is told when something changes takes part in the same way: a poll that waits holds no guard and takes one when
//! it is answered (`handover.rs`), an event stream takes one for each write and gives it back with it (`events.rs`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::Clock;
use crate::election::Instant;

/// While a promise runs, the boot clock is looked at this often at least. Timers count the monotonic clock,
/// which stands still while the machine is suspended; the promise does not, and need not be waited out twice.
const CLOCK_LOOK: Duration = Duration::from_millis(50);
/// And no sooner than this: below a millisecond a timer fires at once and the wait would spin.
const CLOCK_LOOK_LEAST: Duration = Duration::from_millis(1);

/// The promises given out by the answers of one process.
#[derive(Debug)]
pub struct Promises {
    clock: Clock,
    book: Mutex<Book>,
    /// Rung when the last guard of a generation is given back.
    released: Notify,
}

#[derive(Debug)]
struct Book {
    /// Grows with each call of `settled`, so that it need not wait for requests that came later: under a
    /// steady load there is never an instant without one.
    generation: u64,
    /// Guards out, per generation, oldest first. Never longer than the number of guards, which the limit on
    /// connections bounds.
    in_flight: VecDeque<(u64, usize)>,
    /// When the last promise runs out; `None` before the first.
    promised: Option<Instant>,
}

impl Promises {
    /// Nothing promised yet. `clock` is what promises are measured on.
    #[must_use]
    pub fn new(clock: Clock) -> Arc<Self> {
        let book = Book { generation: 0, in_flight: VecDeque::new(), promised: None };
        Arc::new(Self { clock, book: Mutex::new(book), released: Notify::new() })
    }

    /// To be called before the view is borrowed; to be dropped when the answer has been handed to its socket.
    #[must_use]
    pub fn guard(self: &Arc<Self>) -> AnswerGuard {
        let mut book = self.book();
        let generation = book.generation;
        match book.in_flight.back_mut() {
            Some((last, count)) if *last == generation => *count += 1,
            Some(_) | None => book.in_flight.push_back((generation, 1)),
        }
        drop(book);
        AnswerGuard { promises: Arc::clone(self), generation }
    }

    /// Completes when every guard taken before this call has been given back and the boot clock has reached
    /// the end of the last promise. How long that can take is bounded: a guard by the limit on the time of a
    /// request, a promise by `--answer-validity`.
    pub async fn settled(&self) {
        let before = self.next_generation();
        loop {
            // Registered before the look, so that a guard given back in between is not missed.
            let mut released = std::pin::pin!(self.released.notified());
            released.as_mut().enable();
            if !self.book().has_in_flight_before(before) {
                break;
            }
            released.await;
        }
        let Some(promised) = self.book().promised else { return };
        loop {
            let left = promised.since((self.clock)().boot);
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.clamp(CLOCK_LOOK_LEAST, CLOCK_LOOK)).await;
        }
    }

    fn next_generation(&self) -> u64 {
        let mut book = self.book();
        book.generation += 1;
        book.generation
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Every critical section leaves the book consistent at each step, so a poisoned one is as good.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn has_in_flight_before(&self, generation: u64) -> bool {
        self.in_flight.front().is_some_and(|(oldest, _)| *oldest < generation)
    }

    /// Whether that was the last guard of its generation.
    fn give_back(&mut self, generation: u64) -> bool {
        let Some(place) = self.in_flight.iter().position(|(each, _)| *each == generation) else {
            return false;
        };
        self.in_flight[place].1 -= 1;
        let last = self.in_flight[place].1 == 0;
        if last {
            self.in_flight.remove(place);
        }
        last
    }
}

/// One answer on its way: taken before the view is borrowed, dropped when the socket has the answer.
#[derive(Debug)]
pub struct AnswerGuard {
    promises: Arc<Promises>,
    generation: u64,
}

impl AnswerGuard {
    /// Records that this answer may be relied on until `end`.
    pub fn promise(&self, end: Instant) {
        let mut book = self.promises.book();
        book.promised = book.promised.max(Some(end));
    }
}

impl Drop for AnswerGuard {
    fn drop(&mut self) {
        if self.promises.book().give_back(self.generation) {
            self.promises.released.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;
    use crate::election::{Reading, WallTime};

    thread_local! {
        static BOOT: Cell<u64> = const { Cell::new(0) };
    }

    fn clock() -> Reading {
        let nanos = BOOT.get();
        Reading { boot: Instant::from_nanos(nanos), wall: WallTime::from_unix_nanos(0) }
    }

    fn set_clock(at: Duration) {
        BOOT.set(u64::try_from(at.as_nanos()).expect("a test's clock stays below 584 years"));
    }

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(0).after(Duration::from_millis(millis))
    }

    #[test]
    fn nothing_promised_is_settled_at_once() {
        let promises = Promises::new(clock);
        assert!(promises.settled().now_or_never().is_some());
    }

    /// An answer has read a view that leads and is not given yet; the driver publishes 503 and settles. Says
    /// whether the lock would have been let go before the 200 left.
    fn lock_is_let_go_before_the_answer_leaves(counted: bool) -> bool {
        let promises = Promises::new(clock);
        let guard = counted.then(|| promises.guard());
        let mut settled = std::pin::pin!(promises.settled());
        let overtaken = settled.as_mut().now_or_never().is_some();
        drop(guard);
        overtaken
    }

    #[test]
    fn an_answer_in_flight_is_waited_for() {
        assert!(!lock_is_let_go_before_the_answer_leaves(true));
    }

    #[test]
    fn control_an_answer_that_is_not_counted_is_overtaken() {
        assert!(lock_is_let_go_before_the_answer_leaves(false));
    }

    #[test]
    fn the_last_guard_given_back_wakes_who_waits() {
        let promises = Promises::new(clock);
        let (first, second) = (promises.guard(), promises.guard());
        let mut settled = std::pin::pin!(promises.settled());
        drop(first);
        assert!(settled.as_mut().now_or_never().is_none());
        drop(second);
        assert!(settled.now_or_never().is_some());
    }

    #[test]
    fn a_promise_made_by_an_answer_in_flight_is_waited_for_too() {
        let promises = Promises::new(clock);
        set_clock(Duration::ZERO);
        let guard = promises.guard();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
        runtime.block_on(async {
            let mut settled = std::pin::pin!(promises.settled());
            assert!(settled.as_mut().now_or_never().is_none());
            guard.promise(at(1000));
            drop(guard);
            assert!(settled.as_mut().now_or_never().is_none(), "the promise of 1 s has not run out");
            set_clock(Duration::from_millis(999));
            let early = tokio::time::timeout(CLOCK_LOOK * 2, settled.as_mut()).await;
            assert!(early.is_err(), "1 ms is left");
            set_clock(Duration::from_secs(1));
            settled.await;
        });
    }

    #[test]
    fn answers_that_begin_later_are_not_waited_for() {
        let promises = Promises::new(clock);
        let before = promises.guard();
        let mut settled = std::pin::pin!(promises.settled());
        assert!(settled.as_mut().now_or_never().is_none());
        let _after = promises.guard();
        drop(before);
        assert!(settled.now_or_never().is_some());
    }

    #[test]
    fn the_longest_promise_counts_not_the_last() {
        let promises = Promises::new(clock);
        set_clock(Duration::from_millis(500));
        promises.guard().promise(at(800));
        promises.guard().promise(at(300));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts");
        runtime.block_on(async {
            let settled = promises.settled();
            assert!(tokio::time::timeout(CLOCK_LOOK * 2, settled).await.is_err());
            set_clock(Duration::from_millis(800));
            promises.settled().await;
        });
    }

    #[test]
    fn the_book_forgets_generations_without_guards() {
        let promises = Promises::new(clock);
        for _ in 0..100 {
            drop(promises.guard());
            assert!(promises.settled().now_or_never().is_some());
        }
        assert!(promises.book().in_flight.is_empty());
    }
}
