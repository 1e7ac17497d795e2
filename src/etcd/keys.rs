//! The keys of an election and what is stored under them.

use etcd_client::{KeyValue, ResponseHeader};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::incomplete;
use crate::config::LockKeyName;
use crate::election::{
    CallError, CandidateKey, CandidateRecord, ClusterId, Epoch, Header, Identity, LeaseId, LockKey, MemberId, Nonce,
    RaftTerm, Revision, WallTime, WatchTarget,
};

/// The only version of the record there is.
const RECORD_VERSION: u32 = 1;

/// The keys of one election, as seen by one candidate.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    lock: LockKeyName,
    /// Who I am.
    pub(super) me: Identity,
}

impl Keys {
    pub(super) fn new(lock: &LockKeyName, me: &Identity) -> Self {
        Self { lock: lock.clone(), me: me.clone() }
    }

    pub(super) fn lock(&self) -> &str {
        self.lock.as_str()
    }

    pub(super) fn candidates_prefix(&self) -> String {
        self.lock.candidates_prefix()
    }

    pub(super) fn my_candidate(&self) -> String {
        self.lock.candidate(&self.me)
    }

    pub(super) fn watched(&self, target: &WatchTarget) -> String {
        match target {
            WatchTarget::Lock => self.lock().to_owned(),
            WatchTarget::Candidate(identity) => self.lock.candidate(identity),
        }
    }

    pub(super) fn candidate_key(&self, kv: &KeyValue) -> CandidateKey {
        let key = String::from_utf8_lossy(kv.key());
        let identity = key.strip_prefix(&self.candidates_prefix()).unwrap_or(&key);
        CandidateKey {
            identity: Identity::new(identity),
            lease: lease_of(kv),
            create_revision: Revision(kv.create_revision()),
            record: parse_record(kv.value()),
        }
    }
}

pub(super) fn lock_key(kv: &KeyValue) -> LockKey {
    LockKey {
        holder: Identity::new(&String::from_utf8_lossy(kv.value())),
        lease: lease_of(kv),
        create_revision: Revision(kv.create_revision()),
        mod_revision: Revision(kv.mod_revision()),
    }
}

pub(super) fn header(header: Option<&ResponseHeader>) -> Result<Header, CallError> {
    let header = header.ok_or_else(|| incomplete("its header"))?;
    Ok(Header {
        cluster: ClusterId(header.cluster_id()),
        member: MemberId(header.member_id()),
        revision: Revision(header.revision()),
        raft_term: RaftTerm(header.raft_term()),
    })
}

/// etcd writes 0 for "no lease".
fn lease_of(kv: &KeyValue) -> Option<LeaseId> {
    (kv.lease() != 0).then(|| LeaseId(kv.lease()))
}

#[derive(Deserialize, Serialize)]
struct RecordJson {
    version: u32,
    epoch: u64,
    registered_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leading_since: Option<Timestamp>,
    /// Hexadecimal: 64 bits are more than a JSON number is sure to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nonce: Option<String>,
}

/// A candidate key's value.
pub(super) fn record_json(record: &CandidateRecord) -> Vec<u8> {
    let json = RecordJson {
        version: RECORD_VERSION,
        epoch: record.epoch.0,
        registered_at: timestamp(record.registered_at),
        leading_since: record.leading_since.map(timestamp),
        nonce: record.nonce.map(|nonce| format!("{:016x}", nonce.0)),
    };
    serde_json::to_vec(&json).expect("numbers and timestamps always serialize")
}

/// `None` for another version and for garbage: somebody else's value must never stop an election.
fn parse_record(value: &[u8]) -> Option<CandidateRecord> {
    let json: RecordJson = serde_json::from_slice(value).ok()?;
    (json.version == RECORD_VERSION).then_some(())?;
    Some(CandidateRecord {
        epoch: Epoch(json.epoch),
        registered_at: wall_time(json.registered_at)?,
        leading_since: match json.leading_since {
            Some(since) => Some(wall_time(since)?),
            None => None,
        },
        nonce: match json.nonce {
            Some(nonce) => Some(Nonce(u64::from_str_radix(&nonce, 16).ok()?)),
            None => None,
        },
    })
}

fn timestamp(time: WallTime) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(time.unix_nanos())).expect("64 bits of nanoseconds end in the year 2262")
}

fn wall_time(time: Timestamp) -> Option<WallTime> {
    i64::try_from(time.as_nanosecond()).ok().map(WallTime::from_unix_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(leading_since: Option<i64>) -> CandidateRecord {
        CandidateRecord {
            epoch: Epoch(3),
            registered_at: WallTime::from_unix_nanos(1_700_000_000_123_456_789),
            leading_since: leading_since.map(WallTime::from_unix_nanos),
            nonce: Some(Nonce(0xfedc_ba98_7654_3210)),
        }
    }

    #[test]
    fn a_record_survives_the_way_through_json() {
        for record in [record(None), record(Some(1_800_000_000_000_000_000))] {
            assert_eq!(parse_record(&record_json(&record)), Some(record));
        }
    }

    #[test]
    fn a_record_is_readable_json() {
        assert_eq!(
            String::from_utf8(record_json(&record(Some(1_800_000_000_000_000_000)))).as_deref(),
            Ok(concat!(
                r#"{"version":1,"epoch":3,"registered_at":"2023-11-14T22:13:20.123456789Z","#,
                r#""leading_since":"2027-01-15T08:00:00Z","nonce":"fedcba9876543210"}"#
            ))
        );
    }

    #[test]
    fn what_is_no_record_of_version_1_reads_as_none() {
        for value in [
            "",
            "web-0",
            "{}",
            r#"{"version":2,"epoch":0,"registered_at":"2023-11-14T22:13:20Z"}"#,
            r#"{"version":1,"epoch":-1,"registered_at":"2023-11-14T22:13:20Z"}"#,
            r#"{"version":1,"epoch":0,"registered_at":"9999-01-01T00:00:00Z"}"#,
            "\u{0}\u{ff}",
        ] {
            assert_eq!(parse_record(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn a_record_may_carry_fields_of_later_programs() {
        let value = br#"{"version":1,"epoch":0,"registered_at":"2023-11-14T22:13:20Z","zone":"b"}"#;
        assert!(parse_record(value).is_some());
    }
}
