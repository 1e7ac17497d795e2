//! Keeps the state file as new as the disk lets it, without anybody waiting for the disk.
//!
//! The mailbox holds the newest order only: what has been overtaken need not be written. An older file is always safe.
//! It is believed no further than to try: the next life leads only when a renewal of that lease is confirmed and the
//! lock key is of that term, hangs on that lease, and the candidate key has this process's nonce. An older `sent` makes
//! the next life give up sooner, an older term or lease is found to be gone. A *newer* file than the truth cannot be:
//! what is remembered has been confirmed before.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, warn};

use super::folder::Folder;
use super::record::Legacy;

/// How long the end of the process waits for what is still to be written. A file system in memory takes microseconds;
/// a disk that stalls must not keep a process that has let go of everything.
const FINISH_WITHIN: Duration = Duration::from_millis(200);

/// What the file is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Order {
    /// As it is: the first word in the mailbox.
    Leave,
    /// This.
    Write(Legacy),
    /// Gone.
    Remove,
}

/// The task that writes. Dropping this ends it.
#[derive(Debug)]
pub struct Keeper {
    orders: watch::Sender<Order>,
    task: JoinSet<()>,
}

impl Keeper {
    /// Starts the task.
    pub fn start(folder: Arc<Folder>) -> Self {
        let (orders, inbox) = watch::channel(Order::Leave);
        let mut task = JoinSet::new();
        task.spawn(keep(folder, inbox));
        Self { orders, task }
    }

    /// Has the file say this, in place of everything that is not written yet.
    pub fn write(&self, legacy: Legacy) {
        self.orders.send_replace(Order::Write(legacy));
    }

    /// Has the file removed.
    pub fn remove(&self) {
        self.orders.send_replace(Order::Remove);
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
        let Self { orders, mut task } = self;
        drop(orders);
        if tokio::time::timeout(FINISH_WITHIN, task.join_next()).await.is_err() {
            debug!("the state file stays as it is: its disk does not answer");
        }
    }
}

/// The task. A closed mailbox is looked into once more, so that the last order is carried out.
async fn keep(folder: Arc<Folder>, mut inbox: watch::Receiver<Order>) {
    let mut complaint = Complaint::default();
    while inbox.changed().await.is_ok() {
        let order = inbox.borrow_and_update().clone();
        let there = Arc::clone(&folder);
        // In a thread of its own: a disk that stalls stalls whoever calls it.
        let done = tokio::task::spawn_blocking(move || carry_out(&there, &order)).await;
        complaint.take(&folder, done.expect("writing a file does not panic, and nobody aborts it"));
    }
}

fn carry_out(folder: &Folder, order: &Order) -> io::Result<()> {
    match order {
        Order::Leave => Ok(()),
        Order::Write(legacy) => folder.write(&legacy.to_bytes()),
        Order::Remove => folder.remove(),
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
