//! Keeps the state file as new as the disk lets it. Nobody waits for what is written; what is removed is waited for.
//!
//! The mailbox holds the newest order only: what has been overtaken need not be written. An older file is safe as long as
//! its term is held: so it is removed before the lock is let go of, by who lets go of it. Should the disk stall then, the
//! sidecar stalls with it, as one that does not lead any more.
//!
//! Else an older file is always safe.
//! It is believed no further than to try: the next life leads only when a renewal of that lease is confirmed and the
//! lock key is of that term, hangs on that lease, and the candidate key has this process's nonce. An older `sent` makes
//! the next life give up sooner, an older term or lease is found to be gone. A *newer* file than the truth cannot be:
//! what is remembered has been confirmed before.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, warn};

use super::folder::Folder;
use super::record::Legacy;

/// How long the end of the process waits for what is still to be written. A file system in memory takes microseconds;
/// a disk that stalls must not keep a process that has let go of everything.
const FINISH_WITHIN: Duration = Duration::from_millis(200);

/// What the file is to say, unless it was to be forgotten meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Order {
    legacy: Legacy,
    /// How often it had been forgotten.
    forgotten: u64,
}

/// The task that writes. Dropping this ends it.
#[derive(Debug)]
pub struct Keeper {
    file: Arc<StateFile>,
    /// Empty before the first.
    orders: watch::Sender<Option<Order>>,
    task: JoinSet<()>,
}

/// The file, and how often it was forgotten: what was ordered before the last time is not written any more.
#[derive(Debug)]
struct StateFile {
    folder: Arc<Folder>,
    /// Changed only while [`changing`](Self::changing) is held, and read without it: who only orders must not wait for a
    /// disk that stalls.
    forgotten: AtomicU64,
    /// Held by whoever changes the file.
    changing: Mutex<()>,
}

impl StateFile {
    fn new(folder: Arc<Folder>) -> Self {
        Self { folder, forgotten: AtomicU64::new(0), changing: Mutex::new(()) }
    }

    fn carry_out(&self, order: &Order) -> io::Result<()> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if order.forgotten == self.forgotten() { self.folder.write(&order.legacy.to_bytes()) } else { Ok(()) }
    }

    fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::SeqCst)
    }

    fn forget(&self) -> io::Result<()> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.folder.remove()
    }
}

impl Keeper {
    /// Starts the task.
    pub fn start(folder: Arc<Folder>) -> Self {
        let file = Arc::new(StateFile::new(folder));
        let (orders, inbox) = watch::channel(None);
        let mut task = JoinSet::new();
        task.spawn(keep(Arc::clone(&file), inbox));
        Self { file, orders, task }
    }

    /// Has the file say this, in place of everything that is not written yet.
    pub fn write(&self, legacy: Legacy) {
        self.orders.send_replace(Some(Order { legacy, forgotten: self.file.forgotten() }));
    }

    /// Removes the file, and with it what is still to be written. When this returns it is gone, or the log says that it
    /// cannot be removed.
    pub fn forget(&self) {
        if let Err(error) = self.file.forget() {
            warn!(
                state_dir = %self.file.folder.path().display(),
                %error,
                "what the state folder says of a lock that is being let go of cannot be removed; a process that is \
                 started on it before the lease has expired may go on with that lock"
            );
        }
    }

    /// Completes only when the task panics: a bug. Cancel-safe.
    pub async fn died(&mut self) -> JoinError {
        loop {
            match self.task.join_next().await {
                Some(Err(error)) => return error,
                // It ends in order only when the mailbox is closed, which `finish` does.
                Some(Ok(())) | None => std::future::pending().await,
            }
        }
    }

    /// Waits until the last order has been carried out, or for a moment.
    pub async fn finish(self) {
        let Self { orders, mut task, .. } = self;
        drop(orders);
        if tokio::time::timeout(FINISH_WITHIN, task.join_next()).await.is_err() {
            debug!("the state file stays as it is: its disk does not answer");
        }
    }
}

/// The task. A closed mailbox is looked into once more, so that the last order is carried out.
async fn keep(file: Arc<StateFile>, mut inbox: watch::Receiver<Option<Order>>) {
    let mut complaint = Complaint::default();
    while inbox.changed().await.is_ok() {
        let Some(order) = inbox.borrow_and_update().clone() else { continue };
        let there = Arc::clone(&file);
        // In a thread of its own: a disk that stalls stalls whoever calls it.
        let done = tokio::task::spawn_blocking(move || there.carry_out(&order)).await;
        complaint.take(&file.folder, done.expect("writing a file does not panic, and nobody aborts it"));
    }
}

/// Says once that the file cannot be written, and again only after it could be.
#[derive(Debug, Default)]
pub struct Complaint {
    said: bool,
}

impl Complaint {
    /// Takes in how it went.
    pub fn take(&mut self, folder: &Folder, done: io::Result<()>) {
        match done {
            Ok(()) => self.said = false,
            Err(error) if !std::mem::replace(&mut self.said, true) => warn!(
                state_dir = %folder.path().display(),
                %error,
                "the state cannot be written: the election goes on as ever, but after a restart another may lead"
            ),
            Err(error) => debug!(%error, "the state cannot be written again"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::election::{ClusterId, Epoch, Instant, LeaseId, Memory, Revision, Term};
    use crate::state_dir::folder::FileId;
    use crate::state_dir::record::Place;

    fn legacy() -> Legacy {
        let term = Term { epoch: Epoch(0), token: Revision(7) };
        let (ttl, validity) = (Duration::from_secs(15), Duration::from_secs(1));
        let sent = Instant::from_nanos(1);
        Legacy {
            place: Place {
                boot: "boot".into(),
                lock: FileId { device: 1, inode: 2 },
                election: "default/web".into(),
                lock_key: "/web".into(),
                identity: "web-0".into(),
                epoch: 0,
            },
            began: sent,
            memory: Memory { cluster: ClusterId(1), lease: LeaseId(1), ttl, term, sent, validity },
        }
    }

    #[test]
    fn what_was_ordered_before_it_was_forgotten_is_not_written_after_it() {
        let place = tempfile::tempdir().expect("a folder for the test");
        let folder = Arc::new(Folder::open(place.path()).expect("it can be written to"));
        let file = StateFile::new(Arc::clone(&folder));
        let early = Order { legacy: legacy(), forgotten: file.forgotten() };
        file.carry_out(&early).expect("it is written");
        assert!(folder.read().is_ok_and(|bytes| bytes.is_some()));
        file.forget().expect("it is removed");
        file.carry_out(&early).expect("nothing is done");
        assert_eq!(folder.read().ok(), Some(None), "a thread that was late has not brought it back");
        file.carry_out(&Order { legacy: legacy(), forgotten: file.forgotten() }).expect("it is written");
        assert!(folder.read().is_ok_and(|bytes| bytes.is_some()));
    }

    #[tokio::test]
    async fn who_orders_does_not_wait_for_a_disk_that_stalls() {
        let place = tempfile::tempdir().expect("a folder for the test");
        let keeper = Keeper::start(Arc::new(Folder::open(place.path()).expect("it can be written to")));
        let file = Arc::clone(&keeper.file);
        // As the thread holds it that writes and does not come back.
        let stalled = file.changing.lock().expect("nobody panics");
        let (done, ordered) = std::sync::mpsc::channel();
        let ordering = std::thread::spawn(move || {
            keeper.write(legacy());
            done.send(()).ok();
            keeper
        });
        let in_time = ordered.recv_timeout(Duration::from_secs(10));
        drop(stalled);
        drop(ordering.join());
        assert_eq!(in_time, Ok(()), "the driver renews a lease meanwhile");
    }
}
