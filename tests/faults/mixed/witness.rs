//! What a sidecar can know of its lock, and when: watches of the lock key on its host, by way of each member. Its own watch
//! goes by one of them, nobody outside knows which; news that has come by all of them has come to it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use etcd_client::{EventType, WatchOptions};
use support::Moment;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::access::Access;
use crate::flock::LOCK_KEY;

/// How long a watch may take until it is there.
const PATIENCE: Duration = Duration::from_millis(800);
/// Between a watch's end and the next one: a fraction of what a trial waits until all is well.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// News that takes longer to some than to others came by a way that is disturbed, and the sidecar's own watch may be too.
const PROMPT: Duration = Duration::from_millis(250);

/// The lock key was gone.
#[derive(Clone, Copy, Debug)]
struct Deletion {
    revision: i64,
    /// When the event was read.
    seen: Moment,
    /// Since when the watch that brought it had been there.
    watched_since: Moment,
}

/// The watch by way of one member, and those before it.
#[derive(Debug, Default)]
struct Route {
    deletions: Vec<Deletion>,
    /// Where the next watch begins; 0 for now.
    next: i64,
}

impl Route {
    /// The end of the lock key that was created at this revision.
    fn end_of(&self, term: i64) -> Option<&Deletion> {
        self.deletions.iter().find(|deletion| deletion.revision > term)
    }
}

/// How the lock key of a reign ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyEnd {
    /// When anybody first heard of it: no sooner than it was gone.
    pub gone: Moment,
    /// When the leader's host had heard of it by every way, if all ways were as they should be.
    pub news: Option<Moment>,
}

/// What is heard on one host. Dropping it ends it.
pub struct Witness {
    routes: Arc<Mutex<Vec<Route>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Witness {
    /// Watches by way of each of these. Its sockets are of the network that the caller is in.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(endpoints: Vec<String>, access: Access) -> Result<Self> {
        let routes = Arc::new(Mutex::new(endpoints.iter().map(|_| Route::default()).collect()));
        let theirs = Arc::clone(&routes);
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let follow = async move {
            let mut ways = tokio::task::JoinSet::new();
            for (place, endpoint) in endpoints.into_iter().enumerate() {
                ways.spawn(follow(endpoint, access.clone(), Arc::clone(&theirs), place));
            }
            // Only a dropped sender, or an order to stop, ends it.
            stopped.await.ok();
        };
        let thread = thread::Builder::new()
            .name("witness".to_owned())
            .spawn(move || runtime.block_on(follow))
            .context("cannot start a witness's thread")?;
        Ok(Self { routes, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread's own panic has been printed already.
            thread.join().ok();
        }
    }
}

/// How the lock key of this term ended, whose leader is on the host of the witness in this place; nothing if nobody has
/// heard of its end.
pub fn end_of(term: u64, place: usize, witnesses: &[&Witness]) -> Option<KeyEnd> {
    let term = i64::try_from(term).ok()?;
    let routes: Vec<_> = witnesses.iter().map(|witness| locked(&witness.routes)).collect();
    let ends = || routes.iter().flat_map(|routes| routes.iter()).filter_map(|route| route.end_of(term));
    let revision = ends().map(|end| end.revision).min()?;
    let gone = ends().filter(|end| end.revision == revision).map(|end| end.seen).min()?;
    let heard = |route: &Route| {
        let end = route.end_of(term).filter(|end| end.revision == revision)?;
        (end.watched_since < gone && end.seen.since(gone) <= PROMPT).then_some(end.seen)
    };
    let news: Option<Vec<Moment>> = routes[place].iter().map(heard).collect();
    Some(KeyEnd { gone, news: news.and_then(|news| news.into_iter().max()) })
}

fn locked(routes: &Mutex<Vec<Route>>) -> MutexGuard<'_, Vec<Route>> {
    routes.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn follow(endpoint: String, access: Access, routes: Arc<Mutex<Vec<Route>>>, place: usize) {
    loop {
        // Whatever ended it: members die, and networks are cut here.
        watch(&endpoint, &access, &routes, place).await.ok();
        sleep(AGAIN_AFTER).await;
    }
}

/// One watch, until it ends.
async fn watch(endpoint: &str, access: &Access, routes: &Mutex<Vec<Route>>, place: usize) -> Result<()> {
    let mut client = access.connect(&[endpoint.to_owned()]).await?;
    let next = locked(routes)[place].next;
    let options = WatchOptions::new().with_start_revision(next);
    let mut stream = timeout(PATIENCE, client.watch(LOCK_KEY, Some(options))).await??;
    let watched_since = Moment::now();
    while let Some(answer) = stream.message().await? {
        let seen = Moment::now();
        let mut routes = locked(routes);
        if answer.canceled() {
            // Compacted, most likely: what was missed is lost.
            routes[place].next = 0;
            bail!("cancelled: {}", answer.cancel_reason());
        }
        for event in answer.events() {
            let revision = event.kv().context("an event without its key")?.mod_revision();
            ensure!(revision > 0, "an event without its revision");
            routes[place].next = revision + 1;
            if event.event_type() == EventType::Delete {
                routes[place].deletions.push(Deletion { revision, seen, watched_since });
            }
        }
    }
    bail!("etcd ended the watch")
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    /// Ways by which these deletions were heard of: revision, when, and since when it was watched.
    fn witness(ways: &[&[(i64, u64, u64)]]) -> Witness {
        let deletion = |(revision, seen, since): &(i64, u64, u64)| Deletion {
            revision: *revision,
            seen: at(*seen),
            watched_since: at(*since),
        };
        let route = |way: &&[(i64, u64, u64)]| Route { deletions: way.iter().map(deletion).collect(), next: 0 };
        Witness { routes: Arc::new(Mutex::new(ways.iter().map(route).collect())), stop: None, thread: None }
    }

    #[test]
    fn news_has_come_when_it_has_come_by_every_way() {
        let (a, b) = (witness(&[&[(9, 1004, 1)], &[(9, 1007, 1)]]), witness(&[&[(9, 1001, 1)], &[(9, 1002, 1)]]));
        assert_eq!(end_of(5, 0, &[&a, &b]), Some(KeyEnd { gone: at(1001), news: Some(at(1007)) }));
        assert_eq!(end_of(5, 1, &[&a, &b]), Some(KeyEnd { gone: at(1001), news: Some(at(1002)) }));
        assert_eq!(end_of(9, 0, &[&a, &b]), None, "that key is still there");
    }

    #[test]
    fn a_way_that_is_late_silent_or_new_brings_no_news() {
        let b = witness(&[&[(9, 1001, 1)], &[(9, 1002, 1)]]);
        for way in [&[(9, 1400, 1)][..], &[], &[(9, 1010, 1003)], &[(12, 1010, 1)]] {
            let a = witness(&[&[(9, 1004, 1)], way]);
            assert_eq!(end_of(5, 0, &[&a, &b]), Some(KeyEnd { gone: at(1001), news: None }), "{way:?}");
        }
    }
}
