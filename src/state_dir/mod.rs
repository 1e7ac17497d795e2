//! The folder in which one life of a sidecar leaves lease and term to the next.
//!
//! A sidecar that has died and is back before its lease has expired goes on with the same term: no failover. That two
//! lives never act at once does not rest on what the file says but on these:
//!
//! * The folder is locked (`flock`) for the life of the process, and of the guardian of its child if it has one.
//! * What was written in another boot, in a copy of the folder, for another election, lock key, identity or epoch is
//!   ignored.
//! * The core believes it no further than to try: see [`Inheritance`](crate::election::Inheritance).
//!
//! `docs/state-dir.md` has the whole argument and its limits.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::task::JoinError;
use tracing::{info, warn};

use crate::clock;
use crate::config::{Config, Span};
use crate::election::{Inheritance, LeaseId, Memory, Part};
use crate::protections::Protections;

mod folder;
mod keeper;
mod record;
mod verdict;

#[cfg(test)]
mod tests;

use folder::{Folder, LockFile};
use keeper::{Complaint, Keeper};
use record::{Legacy, Place};
use verdict::{Ignored, Life, Verdict};

/// The kernel's name of this boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// How long a lock that is held is waited for, beyond the time that the guardian of a killed life may need to end what
/// is left of it: a process that was killed is gone within milliseconds.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks at a lock that is held. It is part of every restart with a child.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Why the folder cannot be used, with the way out.
#[derive(Debug, Error)]
pub enum StateDirError {
    /// There, and something else.
    #[error("--state-dir: {0:?} is not a folder; choose another path")]
    NotAFolder(PathBuf),
    /// Not there, and no place to make it.
    #[error("--state-dir: {0:?} cannot be made, because the folder it would be in is missing; make that one first")]
    NoParent(PathBuf),
    /// The user may not, or the file system is read-only.
    #[error(
        "--state-dir: {folder:?} cannot be written to: {error}; give it to the user that runs bellwether, or leave \
         --state-dir out"
    )]
    NotWritable {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Two processes, one folder.
    #[error(
        "--state-dir: a live process holds {0:?}, and a folder is for one sidecar at a time; end that process, or give \
         this sidecar a folder of its own"
    )]
    Held(PathBuf),
    /// The file system cannot tell two processes apart.
    #[error("--state-dir: {folder:?} cannot be locked: {error}; choose a folder on a local file system, or in memory")]
    NoLocks {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Without it nothing of an earlier boot can be told apart.
    #[error("--state-dir: {BOOT_ID} cannot be read: {0}; mount /proc, or leave --state-dir out")]
    NoBootId(io::Error),
}

impl StateDirError {
    fn of_folder(path: &Path, error: &io::Error) -> Self {
        let kind = error.kind();
        // The path itself, or a part of it.
        if kind == io::ErrorKind::NotADirectory {
            Self::NotAFolder(path.to_owned())
        } else if kind == io::ErrorKind::NotFound {
            Self::NoParent(path.to_owned())
        } else {
            Self::NotWritable { folder: path.to_owned(), error: again(error) }
        }
    }

    fn of_lock_file(path: &Path, error: &io::Error) -> Self {
        Self::NotWritable { folder: path.to_owned(), error: again(error) }
    }
}

/// The same error once more: `io::Error` cannot be cloned.
fn again(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// What a sidecar needs to know about itself to inherit.
#[derive(Clone, Debug)]
pub struct Heir {
    /// `<namespace>/<election>`
    pub election: String,
    /// The key in etcd.
    pub lock_key: String,
    /// Who leads.
    pub identity: String,
    /// `--epoch`
    pub epoch: u64,
    /// `--lease-ttl`
    pub lease_ttl: Duration,
    /// `--answer-validity`
    pub answer_validity: Duration,
    /// Whether it may lead.
    pub part: Part,
}

impl Heir {
    /// The one of this configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            election: format!("{}/{}", config.election.namespace, config.election.name),
            lock_key: config.election.lock_key.as_str().to_owned(),
            identity: config.election.identity.as_str().to_owned(),
            epoch: config.election.epoch.0,
            lease_ttl: config.timings.lease_ttl(),
            answer_validity: config.timings.answer_validity(),
            part: config.part,
        }
    }
}

/// The folder, locked until this is dropped and everything that has [a copy of the lock](Self::try_clone_lock) has ended.
#[derive(Debug)]
pub struct StateDir {
    folder: Arc<Folder>,
    lock: LockFile,
    keeper: Keeper,
    life: Life,
    /// Of this lease answers of the life before may be out, which can be valid for so long.
    inherited: Option<(LeaseId, Duration)>,
}

impl StateDir {
    /// Takes the folder for this process. If another has it, waits `stop_time` and a second: the guardian of a life
    /// that was killed may still be ending what that has started.
    ///
    /// # Errors
    /// When it cannot be had: see [`StateDirError`].
    pub async fn open(path: &Path, heir: Heir, stop_time: Duration) -> Result<Self, StateDirError> {
        let folder = Folder::open(path)?;
        let lock = take_lock(&folder, stop_time.saturating_add(LOCK_PATIENCE)).await?;
        let no_locks = |error| StateDirError::NoLocks { folder: path.to_owned(), error };
        let place = Place {
            boot: fs::read_to_string(BOOT_ID).map_err(StateDirError::NoBootId)?.trim().to_owned(),
            lock: lock.id().map_err(no_locks)?,
            election: heir.election,
            lock_key: heir.lock_key,
            identity: heir.identity,
            epoch: heir.epoch,
        };
        let life = Life {
            place,
            began: clock::now().boot,
            lease_ttl: heir.lease_ttl,
            answer_validity: heir.answer_validity,
            part: heir.part,
        };
        let folder = Arc::new(folder);
        let keeper = Keeper::start(Arc::clone(&folder));
        Ok(Self { folder, lock, keeper, life, inherited: None })
    }

    /// The folder that the configuration names, if it names one, as [`open`](Self::open) takes it.
    ///
    /// # Errors
    /// See [`open`](Self::open).
    pub async fn of(config: &Config) -> Result<Option<Self>, StateDirError> {
        let Some(path) = &config.state_dir else { return Ok(None) };
        Self::open(path, Heir::of(config), config.timings.stop_time()).await.map(Some)
    }

    /// What this life inherits. To be called once, before anything is sent to etcd: from then on the file says that
    /// this life has begun.
    pub fn inherit(&mut self) -> Inheritance {
        let found = match self.folder.read() {
            Ok(None) => return Inheritance::Nothing,
            Ok(Some(bytes)) => Legacy::parse(&bytes),
            Err(error) => Err(error.to_string()),
        };
        let (verdict, legacy) = match found {
            Ok(legacy) => (self.life.judge(&legacy), legacy),
            Err(what) => return self.ignore(&Ignored::Damaged(what)),
        };
        match verdict {
            Verdict::Ignore(reason) => self.ignore(&reason),
            Verdict::Resume => {
                self.take_over(&legacy);
                Inheritance::Resume(legacy.memory)
            }
            Verdict::Release(why) => {
                self.take_over(&legacy);
                info!(
                    state_dir = %self.folder.path().display(),
                    term = legacy.memory.term.token.0,
                    epoch = legacy.memory.term.epoch.0,
                    "letting go of the lock of an earlier process: {why}"
                );
                let not_before = self.life.began.after(legacy.memory.validity);
                Inheritance::Release { memory: legacy.memory, not_before }
            }
        }
    }

    /// Has the next life know this. Returns at once.
    pub fn remember(&self, mut memory: Memory) {
        if let Some((lease, validity)) = self.inherited
            && lease == memory.lease
        {
            memory.validity = memory.validity.max(validity);
        }
        let Life { place, began, .. } = &self.life;
        self.keeper.write(Legacy { place: place.clone(), began: *began, memory });
    }

    /// Has the next life know nothing. When this returns the file is gone: what lets go of the lock may leave now, and
    /// be held up on its way for longer than this process lives.
    pub fn forget(&self) {
        self.keeper.forget();
    }

    /// The descriptor that the lock belongs to, once more. A process that inherits it (with `CLOEXEC` taken off) holds the
    /// lock as well, until it ends: the guardian of a child, never the child.
    ///
    /// # Errors
    /// When this process has too many descriptors.
    pub fn try_clone_lock(&self) -> io::Result<OwnedFd> {
        self.lock.as_fd().try_clone_to_owned()
    }

    /// Completes only when the task that writes has panicked: a bug. Cancel-safe.
    pub async fn died(&mut self) -> JoinError {
        self.keeper.died().await
    }

    /// Waits a moment for what is still to be written.
    pub async fn finish(self) {
        self.keeper.finish().await;
    }

    fn ignore(&self, reason: &Ignored) -> Inheritance {
        warn!(state_dir = %self.folder.path().display(), "what an earlier process left is not used: {reason}");
        // Else every later life would say so again.
        Complaint::default().take(&self.folder, self.folder.remove());
        Inheritance::Nothing
    }

    /// Writes down that this life has begun. Where that fails the file stays as it is, and what it says lasts no longer
    /// than its lease.
    fn take_over(&mut self, legacy: &Legacy) {
        let legacy = self.life.taken_over(legacy);
        self.inherited = Some((legacy.memory.lease, legacy.memory.validity));
        Complaint::default().take(&self.folder, self.folder.write(&legacy.to_bytes()));
    }
}

async fn take_lock(folder: &Folder, patience: Duration) -> Result<LockFile, StateDirError> {
    let deadline = clock::now().boot.after(patience);
    let mut told = false;
    loop {
        let lock = folder.lock_file()?;
        let taken =
            lock.try_take().map_err(|error| StateDirError::NoLocks { folder: folder.path().to_owned(), error })?;
        // A lock on a file that somebody has put another in place of is a lock on nothing.
        if (taken && folder.still_has(&lock)) || Protections::NO_STATE_LOCK.taken_away() {
            return Ok(lock);
        }
        if clock::now().boot >= deadline {
            return Err(StateDirError::Held(folder.path().to_owned()));
        }
        if !std::mem::replace(&mut told, true) {
            info!(
                state_dir = %folder.path().display(),
                "a live process holds the folder; waiting {} for its end", Span(patience)
            );
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
