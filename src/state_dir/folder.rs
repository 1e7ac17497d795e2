//! The folder itself: its lock file, and one small file that is read, replaced and removed.
//!
//! Everything goes through the descriptor of the folder and never through a symbolic link in it: whoever can write
//! there could otherwise point us at somebody else's file.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

use super::StateDirError;

/// The file whose `flock` is the folder's.
pub const LOCK_FILE: &str = "lock";
/// What a life leaves to the next one.
pub const STATE_FILE: &str = "state.json";
/// What `state.json` is written as before it takes that name.
const STATE_FILE_NEW: &str = "state.json.new";
/// The longest that is read: twenty times what is written, with the longest names.
const STATE_FILE_MAX: u64 = 64 << 10;

/// Which file it is, wherever its folder has been moved to: a copy has another inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileId {
    /// The file system's device number.
    pub device: u64,
    /// The inode on it.
    pub inode: u64,
}

/// A folder that is there and can be written to.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    folder: OwnedFd,
}

impl Folder {
    /// Opens the folder, and makes it if it is missing (not its parents: a path with a slip of the pen would be made
    /// somewhere and found empty for ever).
    ///
    /// # Errors
    /// When it is not a folder, or cannot be made or opened.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let fault = |error: io::Error| StateDirError::of_folder(path, &error);
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // A folder that is there on a read-only file system is told apart below, by what is to be written.
            Err(_) if path.is_dir() => {}
            Err(error) => return Err(fault(error)),
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let folder = open(path, flags, Mode::empty()).map_err(|errno| fault(errno.into()))?;
        Ok(Self { path: path.to_owned(), folder })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the lock file, and makes it if it is missing. Nothing is ever written to it: opened for writing it would keep a
    /// file system from being made read-only for as long as the process lives.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn lock_file(&self) -> Result<LockFile, StateDirError> {
        let flags = OFlag::O_CREAT | OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = openat(&self.folder, LOCK_FILE, flags, mode());
        let file = file.map_err(|errno| StateDirError::of_lock_file(&self.path, &errno.into()))?;
        Ok(LockFile { file: File::from(file) })
    }

    /// Whether the lock file in the folder is this one, and not another that was put in its place.
    pub fn still_has(&self, lock: &LockFile) -> bool {
        let there =
            openat(&self.folder, LOCK_FILE, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty());
        match (there.map(|there| id_of(&File::from(there))), lock.id()) {
            (Ok(Ok(there)), Ok(id)) => there == id,
            (Ok(Ok(_) | Err(_)) | Err(_), _) => false,
        }
    }

    /// What is in the state file; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read, or is none that this program can have written.
    pub fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(&self.folder, STATE_FILE, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ELOOP) => return Err(io::Error::other("it is a symbolic link")),
            Err(errno) => return Err(errno.into()),
        };
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        // What is written there decides which lock is released: in a folder that others can write to, it must be ours.
        if about.uid() != geteuid().as_raw() || about.mode() & 0o022 != 0 {
            return Err(io::Error::other("others than this user can have written it"));
        }
        let mut bytes = Vec::new();
        file.take(STATE_FILE_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > STATE_FILE_MAX {
            return Err(io::Error::other("it is too long"));
        }
        Ok(Some(bytes))
    }

    /// Replaces the state file in one step. Whoever dies half way leaves the old one.
    ///
    /// It is not forced to the disk: what a crash of the machine could take with it, the next boot ignores anyway.
    ///
    /// # Errors
    /// What the file system says. The state file is then as it was.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        // A former life may have died half way. Nobody else writes here: that is what the lock is for.
        match unlinkat(&self.folder, STATE_FILE_NEW, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&self.folder, STATE_FILE_NEW, flags, mode())?);
        file.write_all(bytes)?;
        drop(file);
        Ok(renameat(&self.folder, STATE_FILE_NEW, &self.folder, STATE_FILE)?)
    }

    /// Removes the state file, if there is one.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self) -> io::Result<()> {
        match unlinkat(&self.folder, STATE_FILE, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// The open lock file. The `flock` belongs to the open file description: it ends when the last descriptor of it is
/// closed, so with the death of every process that has one.
#[derive(Debug)]
pub struct LockFile {
    file: File,
}

impl LockFile {
    /// Takes the lock if nobody has it; `false` when somebody does.
    ///
    /// # Errors
    /// When the file system has no locks.
    pub fn try_take(&self) -> io::Result<bool> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Which file it is.
    ///
    /// # Errors
    /// What the file system says.
    pub fn id(&self) -> io::Result<FileId> {
        id_of(&self.file)
    }
}

impl AsFd for LockFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn id_of(file: &File) -> io::Result<FileId> {
    let about: fs::Metadata = file.metadata()?;
    Ok(FileId { device: about.dev(), inode: about.ino() })
}

/// Read and written by this user alone, whatever the umask allows besides.
const fn mode() -> Mode {
    Mode::from_bits_truncate(0o600)
}
