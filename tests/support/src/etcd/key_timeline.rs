//! What became of one key, change by change.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, bail};
use etcd_client::{Client, EventType, WatchOptions};
use tokio::sync::oneshot;

use crate::moment::Moment;

/// A key that was put or deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// When etcd's message was read. The order is exact, by revision; this comes after the change.
    pub seen: Moment,
    /// The store's revision of the change.
    pub revision: i64,
    /// The value; `None` when it was deleted.
    pub value: Option<String>,
}

#[derive(Default)]
struct Shared {
    changes: Mutex<Vec<KeyChange>>,
    trouble: Mutex<Option<String>>,
    more: Condvar,
}

impl Shared {
    fn changes(&self) -> MutexGuard<'_, Vec<KeyChange>> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A watch of one key, on a thread of its own. Ends when etcd ends it; dropping it ends it too.
pub struct KeyTimeline {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl KeyTimeline {
    /// Follows the key, from the first change that the store remembers.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(endpoint: String, key: String) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let follow = move || {
            runtime.block_on(async {
                tokio::select! {
                    // Why it ended is told to whoever waits for a change in vain.
                    ended = follow(endpoint, key, &theirs) => *theirs.trouble() = ended.err().map(|error| format!("{error:#}")),
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name("timeline of a key".to_owned()).spawn(follow)?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// Every change so far, in order.
    #[must_use]
    pub fn changes(&self) -> Vec<KeyChange> {
        self.shared.changes().clone()
    }

    /// Waits for the first change that `is_it`.
    ///
    /// # Errors
    /// When there is none `within` this time, with the changes so far.
    pub fn wait_for(&self, within: Duration, is_it: impl Fn(&KeyChange) -> bool) -> Result<KeyChange> {
        let deadline = Moment::now().after(within);
        let mut changes = self.shared.changes();
        loop {
            if let Some(found) = changes.iter().find(|change| is_it(change)) {
                return Ok(found.clone());
            }
            let left = deadline.remaining();
            if left.is_zero() {
                bail!("no such change within {within:?}; watch: {:?}; changes: {changes:#?}", self.shared.trouble());
            }
            changes = self.shared.more.wait_timeout(changes, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for KeyTimeline {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread's own panic has been printed already.
            thread.join().ok();
        }
    }
}

async fn follow(endpoint: String, key: String, shared: &Shared) -> Result<()> {
    let mut client = Client::connect([endpoint], None).await?;
    let mut stream = client.watch(key, Some(WatchOptions::new().with_start_revision(1))).await?;
    while let Some(answer) = stream.message().await? {
        let seen = Moment::now();
        for event in answer.events() {
            let Some(kv) = event.kv() else { continue };
            let value = match event.event_type() {
                EventType::Put => Some(String::from_utf8_lossy(kv.value()).into_owned()),
                EventType::Delete => None,
            };
            shared.changes().push(KeyChange { seen, revision: kv.mod_revision(), value });
        }
        shared.more.notify_all();
    }
    bail!("etcd ended the watch")
}
