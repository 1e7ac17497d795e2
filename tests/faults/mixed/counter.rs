//! What the term is for: an application beside each sidecar that counts in etcd while it is told that it leads.
//!
//! Guarded, each increment is a transaction that compares the lock key's `create_revision` with the term the
//! application was told; unguarded it is a plain put, as the control. Both are at times paused between reading and
//! writing until their term is over: what a garbage collection, a swapped page or a suspended machine does.
//!
//! The term guards against others, not against one's own late writes: a request that timed out may still come to be, in
//! the same term. So both kinds compare a key of their own as well, their *life*, and begin another life whenever they
//! do not know what came of a write.
//!
//! The store keeps count as well: a key's `version` is the number of puts that came to be since it was made. Each put
//! should add one, so what lacks between the two is lost, whichever answers were heard.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use etcd_client::{Compare, CompareOp, KvClient, Txn, TxnOp};
use support::{HttpClient, Moment};
use tokio::time::{sleep, timeout};

use super::access::Access;

/// Between two increments. Two hundred in a short reign are plenty, and etcd syncs its disk for each.
const PACE: Duration = Duration::from_millis(50);
/// How long a request may take before its outcome counts as unknown. Shorter than a failover.
const PATIENCE: Duration = Duration::from_millis(800);
/// Every so many increments, two seconds of them, the application is paused between reading and writing.
const PAUSES_EVERY: u64 = 40;
/// The longest pause. It is paused for three quarters of the time then: so most reigns end in a pause.
const PAUSED_MOST: Duration = Duration::from_secs(6);
/// How much longer than the term a pause lasts, so that the successor has counted on.
const BEYOND_THE_TERM: Duration = Duration::from_millis(800);

/// Whether increments are guarded by the term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// They are.
    Term,
    /// They are not: the control.
    None,
}

impl Guard {
    /// The counter's key.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Term => "/counter/guarded",
            Self::None => "/counter/unguarded",
        }
    }
}

/// What one application was told.
#[derive(Debug, Default)]
pub struct Tally {
    acknowledged: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
    pauses: AtomicU64,
}

/// What all applications of one kind were told, and what the store has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Increments that etcd has acknowledged.
    pub acknowledged: u64,
    /// Those that the guard has refused.
    pub refused: u64,
    /// Those of unknown outcome.
    pub unknown: u64,
    /// How often an application was paused between reading and writing.
    pub pauses: u64,
    /// Puts that came to be, says the store.
    pub applied: u64,
    /// The counter.
    pub value: u64,
}

impl Count {
    /// Increments that came to be and are not in the counter.
    pub const fn lost(&self) -> u64 {
        self.applied.saturating_sub(self.value)
    }

    /// Together with what has come of another store.
    pub const fn and(self, other: Self) -> Self {
        Self {
            acknowledged: self.acknowledged + other.acknowledged,
            refused: self.refused + other.refused,
            unknown: self.unknown + other.unknown,
            pauses: self.pauses + other.pauses,
            applied: self.applied + other.applied,
            value: self.value + other.value,
        }
    }

    /// What was acknowledged has come to be, and nothing has that was not at least tried.
    pub const fn adds_up(&self) -> bool {
        self.acknowledged <= self.applied && self.applied <= self.acknowledged + self.unknown
    }
}

/// Where an application finds what it needs.
#[derive(Clone)]
pub struct Place {
    /// Its sidecar's local API.
    pub sidecar: SocketAddr,
    /// etcd, as the sidecar reaches it.
    pub endpoints: Vec<String>,
    /// With what it may come in there.
    pub access: Access,
    /// The lock key, for the guard.
    pub lock_key: String,
    /// Where the application writes its life.
    pub life_key: String,
}

/// An application on a thread of its own. Dropping it ends it.
pub struct Application {
    guard: Guard,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Application {
    /// Starts counting. Its sockets are of the network that the caller is in.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(place: Place, guard: Guard) -> Result<Self> {
        let (tally, stop) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (book, stopped) = (Arc::clone(&tally), Arc::clone(&stop));
        let http = HttpClient::new(place.sidecar, PATIENCE);
        let app = App { place, guard, http, life: None, book, stopped };
        let thread = thread::Builder::new()
            .name(format!("application, {guard:?}"))
            .spawn(move || runtime.block_on(app.run()))
            .context("cannot start an application's thread")?;
        Ok(Self { guard, tally, stop, thread: Some(thread) })
    }
}

impl Application {
    /// Ends it: it counts no more, and every outcome that it will ever know is written down.
    pub fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The thread's own panic has been printed already.
            thread.join().ok();
        }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.finish();
    }
}

/// What the applications of one kind have come to. Exact once they rest.
///
/// # Errors
/// When etcd does not answer, or the key holds no number.
pub async fn count(applications: &[Application], guard: Guard, kv: &mut KvClient) -> Result<Count> {
    let mut count = Count::default();
    for tally in applications.iter().filter(|it| it.guard == guard).map(|it| &it.tally) {
        count.acknowledged += tally.acknowledged.load(Ordering::Relaxed);
        count.refused += tally.refused.load(Ordering::Relaxed);
        count.unknown += tally.unknown.load(Ordering::Relaxed);
        count.pauses += tally.pauses.load(Ordering::Relaxed);
    }
    let mut answer = kv.get(guard.key(), None).await?;
    if let Some(kv) = answer.take_kvs().into_iter().next() {
        count.applied = u64::try_from(kv.version())?;
        count.value = kv.value_str()?.parse().context("the counter is a number")?;
    }
    Ok(count)
}

struct App {
    place: Place,
    guard: Guard,
    http: HttpClient,
    /// The revision of its life; none yet, or none any more.
    life: Option<i64>,
    book: Arc<Tally>,
    stopped: Arc<AtomicBool>,
}

/// What came of an increment.
enum Outcome {
    Acknowledged,
    Refused,
    Unknown,
}

impl App {
    async fn run(mut self) {
        let mut client = None;
        let mut turns = 0;
        while !self.stopped.load(Ordering::Relaxed) {
            sleep(PACE).await;
            let Some(term) = self.led_term() else { continue };
            let Some(kv) = self.connected(&mut client).await else { continue };
            turns += 1;
            match self.increment(kv, term, turns % PAUSES_EVERY == 0).await {
                Ok(Outcome::Acknowledged) => add_one(&self.book.acknowledged),
                Ok(Outcome::Refused) => {
                    add_one(&self.book.refused);
                    // It may have been the life: one that was given up and came to be late.
                    self.life = None;
                }
                Ok(Outcome::Unknown) => {
                    add_one(&self.book.unknown);
                    (self.life, client) = (None, None);
                }
                // Nothing was written.
                Err(_unread) => client = None,
            }
        }
    }

    /// The term in which its sidecar says that it leads, as a replica asks.
    fn led_term(&mut self) -> Option<u64> {
        let answer = self.http.get("/leader").ok().filter(|answer| answer.status == 200)?;
        answer.json()["term"].as_u64()
    }

    async fn connected<'a>(&self, client: &'a mut Option<KvClient>) -> Option<&'a mut KvClient> {
        if client.is_none() {
            let connected = self.place.access.connect(&self.place.endpoints).await;
            *client = connected.ok().map(|client| client.kv_client());
        }
        client.as_mut()
    }

    /// Reads, and writes one more. An error: nothing was written.
    async fn increment(&mut self, kv: &mut KvClient, term: u64, pauses: bool) -> Result<Outcome> {
        let key = self.guard.key();
        let life = self.live(kv).await?;
        let mut answer = timeout(PATIENCE, kv.get(key, None)).await??;
        let value = match answer.take_kvs().into_iter().next() {
            Some(kv) => kv.value_str()?.parse::<u64>()?,
            None => 0,
        };
        if pauses {
            self.pause(term).await;
        }
        let put = TxnOp::put(key, (value + 1).to_string(), None);
        let mut compared = vec![Compare::mod_revision(self.place.life_key.as_str(), CompareOp::Equal, life)];
        if self.guard == Guard::Term {
            let lock = self.place.lock_key.as_str();
            compared.push(Compare::create_revision(lock, CompareOp::Equal, i64::try_from(term)?));
        }
        let transaction = Txn::new().when(compared).and_then([put]);
        Ok(match timeout(PATIENCE, kv.txn(transaction)).await {
            Ok(Ok(answer)) if answer.succeeded() => Outcome::Acknowledged,
            Ok(Ok(_)) => Outcome::Refused,
            Ok(Err(_)) | Err(_) => Outcome::Unknown,
        })
    }

    /// The revision of its life; begins another one if it has none. Whatever was sent in an earlier life is refused then.
    async fn live(&mut self, kv: &mut KvClient) -> Result<i64> {
        if self.life.is_none() {
            let answer = timeout(PATIENCE, kv.put(self.place.life_key.as_str(), "", None)).await??;
            self.life = answer.header().map(etcd_client::ResponseHeader::revision);
        }
        self.life.context("an answer without a header")
    }

    /// It does nothing until its term is over, and a while longer.
    async fn pause(&mut self, term: u64) {
        add_one(&self.book.pauses);
        let most = Moment::now().after(PAUSED_MOST);
        while self.led_term() == Some(term) && !most.passed() && !self.stopped.load(Ordering::Relaxed) {
            sleep(PACE).await;
        }
        sleep(BEYOND_THE_TERM).await;
    }
}

fn add_one(number: &AtomicU64) {
    number.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_that_adds_nothing_is_a_lost_increment() {
        let count = Count { acknowledged: 9, unknown: 1, applied: 10, value: 8, ..Count::default() };
        assert!(count.adds_up());
        assert_eq!(count.lost(), 2);
    }

    #[test]
    fn an_acknowledged_increment_that_never_came_to_be_does_not_add_up() {
        assert!(!Count { acknowledged: 10, applied: 9, value: 9, ..Count::default() }.adds_up());
        assert!(!Count { acknowledged: 9, unknown: 1, applied: 11, value: 11, ..Count::default() }.adds_up());
    }
}
