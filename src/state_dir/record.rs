//! What the state file says, as JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::folder::FileId;
use crate::election::{ClusterId, Epoch, Instant, LEASE_TTL_MAX, LeaseId, Memory, Revision, Term};

/// Raised whenever an older program would misread what a newer one writes.
const VERSION: u32 = 1;

/// Who wrote it, where and when on the boot clock. What stands here must be equal for the next life to inherit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The kernel's id of this boot: the boot clock of another one says nothing here.
    pub boot: String,
    /// The lock file: in a copy of the folder it is another one.
    pub lock: FileId,
    /// `<namespace>/<election>`
    pub election: String,
    /// The key in etcd.
    pub lock_key: String,
    /// Who leads.
    pub identity: String,
    /// `--epoch`
    pub epoch: u64,
}

/// What one life leaves to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Legacy {
    /// Who wrote it, and where.
    pub place: Place,
    /// When the life that wrote it began.
    pub began: Instant,
    /// The lease and the term.
    pub memory: Memory,
}

/// The file. Times are nanoseconds on the boot clock.
#[derive(Deserialize, Serialize)]
struct File {
    version: u32,
    boot: String,
    lock_device: u64,
    lock_inode: u64,
    election: String,
    lock_key: String,
    identity: String,
    epoch: u64,
    began_ns: u64,
    answer_validity_ns: u64,
    cluster: u64,
    lease: i64,
    lease_ttl_ns: u64,
    term: i64,
    sent_ns: u64,
}

/// All that is looked at before the rest is believed to be of that form.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl Legacy {
    /// As a file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let Self { place, began, memory } = self;
        let file = File {
            version: VERSION,
            boot: place.boot.clone(),
            lock_device: place.lock.device,
            lock_inode: place.lock.inode,
            election: place.election.clone(),
            lock_key: place.lock_key.clone(),
            identity: place.identity.clone(),
            epoch: place.epoch,
            began_ns: began.nanos(),
            answer_validity_ns: nanos(memory.validity),
            cluster: memory.cluster.0,
            lease: memory.lease.0,
            lease_ttl_ns: nanos(memory.ttl),
            term: memory.term.token.0,
            sent_ns: memory.sent.nanos(),
        };
        let mut bytes = serde_json::to_vec(&file).expect("numbers and texts can be written");
        bytes.push(b'\n');
        bytes
    }

    /// From a file.
    ///
    /// # Errors
    /// Why it cannot be one of ours, as a clause.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let Versioned { version } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if version != VERSION {
            return Err(format!("its version is {version}, and this program knows {VERSION}"));
        }
        let file: File = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let ttl = Duration::from_nanos(file.lease_ttl_ns);
        if file.lease <= 0 || file.term <= 0 {
            return Err("lease and term are positive numbers".to_owned());
        }
        if ttl.is_zero() || ttl > LEASE_TTL_MAX {
            return Err(format!("no lease lasts {ttl:?}"));
        }
        let lock = FileId { device: file.lock_device, inode: file.lock_inode };
        Ok(Self {
            began: Instant::from_nanos(file.began_ns),
            memory: Memory {
                cluster: ClusterId(file.cluster),
                lease: LeaseId(file.lease),
                ttl,
                term: Term { epoch: Epoch(file.epoch), token: Revision(file.term) },
                sent: Instant::from_nanos(file.sent_ns),
                validity: Duration::from_nanos(file.answer_validity_ns),
            },
            place: Place {
                boot: file.boot,
                lock,
                election: file.election,
                lock_key: file.lock_key,
                identity: file.identity,
                epoch: file.epoch,
            },
        })
    }
}

/// As a number; what does not fit is longer than any machine runs.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
