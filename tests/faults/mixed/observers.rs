//! Whoever looks at the sidecars: one poller each, all on one boot clock, condensed while they run.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use support::{Moment, Poller, PollerOptions};

use super::judge::{Judgement, judge};
use super::lane::{Lane, Look, Pace};

/// From one request to the next: with what waking up takes on top it stays below 4 ms.
const INTERVAL: Duration = Duration::from_micros(3500);
/// After this a request counts as unanswered. A lane shows silence that much late, and a request that was under way
/// while its sidecar was stopped leaves no wide interval behind: the next one tells.
const UNANSWERED: Duration = Duration::from_millis(400);
/// How often what came is condensed: what waits meanwhile are fifty samples a sidecar, and whoever waits for a leader
/// learns of it so much later.
const CONDENSE_EVERY: Duration = Duration::from_millis(50);

/// A sleep that is so much too long is the machine's doing: other programs have the processors.
const OVERSLEPT: Duration = Duration::from_millis(20);
/// How many of those are remembered: the newest, far more than one trial can have.
const OVERSLEPT_MOST: usize = 10_000;

/// How the sidecars are polled.
pub fn polling() -> PollerOptions {
    PollerOptions { interval: INTERVAL, timeout: UNANSWERED, ..PollerOptions::default() }
}

struct Book {
    lanes: Vec<Lane>,
    pollers: Vec<Poller>,
    /// When this process was not woken in time, and by how much.
    overslept: VecDeque<(Moment, Duration)>,
    stop: bool,
}

impl Book {
    fn condense(&mut self) {
        for (lane, poller) in self.lanes.iter_mut().zip(&self.pollers) {
            lane.extend(&poller.take());
        }
    }
}

struct Shared {
    book: Mutex<Book>,
    condensed: Condvar,
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A 200 of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// Whose.
    pub name: String,
    /// Epoch, then term.
    pub term: (u64, u64),
}

/// The pollers and what they saw. Dropping it ends them.
pub struct Observers {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Observers {
    /// Takes over these pollers, each with its sidecar's identity.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(pollers: Vec<(String, Poller)>) -> Result<Self> {
        let (names, pollers): (Vec<_>, Vec<_>) = pollers.into_iter().unzip();
        let lanes = names.iter().map(|name| Lane::new(name)).collect();
        let book = Mutex::new(Book { lanes, pollers, overslept: VecDeque::new(), stop: false });
        let shared = Arc::new(Shared { book, condensed: Condvar::new() });
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("condense what was seen".to_owned())
            .spawn(move || condense(&theirs))
            .context("cannot start the condensing thread")?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Who is leading, by requests sent since this moment: the highest term.
    pub fn lead_since(&self, since: Moment) -> Option<Lead> {
        let book = self.shared.book();
        let found = book.lanes.iter().filter_map(|lane| Some((lane.lead_since(since)?.term(), &lane.name)));
        found.max().map(|(term, name)| Lead { name: name.clone(), term })
    }

    /// How each sidecar looked last, in the order of the lanes.
    pub fn looks(&self) -> Vec<(String, Option<Look>)> {
        let book = self.shared.book();
        book.lanes.iter().map(|lane| (lane.name.clone(), lane.spans.last().map(|span| span.look))).collect()
    }

    /// Waits until what they see `is_it`; `None` at the deadline.
    pub fn wait_for<T>(&self, deadline: Moment, is_it: impl Fn(&Self) -> Option<T>) -> Option<T> {
        loop {
            if let Some(found) = is_it(self) {
                return Some(found);
            }
            let left = deadline.remaining();
            if left.is_zero() {
                return None;
            }
            let book = self.shared.book();
            drop(self.shared.condensed.wait_timeout(book, left.min(CONDENSE_EVERY)));
        }
    }

    /// Judges everything so far.
    pub fn judge(&self) -> Judgement {
        let mut book = self.shared.book();
        book.condense();
        judge(&book.lanes.iter().collect::<Vec<_>>())
    }

    /// For how long, all in all, the machine let this process wait since this moment. Sidecars and etcd wait likewise.
    pub fn held_up_since(&self, since: Moment) -> Duration {
        let book = self.shared.book();
        book.overslept.iter().filter(|(woken, _)| *woken > since).map(|(_, by)| *by).sum()
    }

    /// The same for the time up to this moment.
    pub fn held_up_within(&self, since: Moment, until: Moment) -> Duration {
        self.held_up_since(since).saturating_sub(self.held_up_since(until))
    }

    /// Everything seen so far.
    pub fn lanes(&self) -> Vec<Lane> {
        let mut book = self.shared.book();
        book.condense();
        book.lanes.clone()
    }

    /// How closely all were looked at, taken together.
    pub fn pace(&self) -> Pace {
        let book = self.shared.book();
        book.lanes.iter().map(|lane| lane.pace).fold(Pace::default(), Pace::and)
    }
}

impl Drop for Observers {
    fn drop(&mut self) {
        self.shared.book().stop = true;
        if let Some(thread) = self.thread.take() {
            // The thread's own panic has been printed already.
            thread.join().ok();
        }
    }
}

fn condense(shared: &Shared) {
    loop {
        {
            let mut book = shared.book();
            if book.stop {
                return;
            }
            book.condense();
        }
        shared.condensed.notify_all();
        let due = Moment::now().after(CONDENSE_EVERY);
        thread::sleep(CONDENSE_EVERY);
        let woken = Moment::now();
        let late = woken.since(due);
        if late > OVERSLEPT {
            let mut book = shared.book();
            book.overslept.push_back((woken, late));
            if book.overslept.len() > OVERSLEPT_MOST {
                book.overslept.pop_front();
            }
        }
    }
}
