//! An election as etcd has it.

use std::time::Duration;

use super::report::{Leader, Line, Report, ToldBy, rfc3339, with_roles};
use crate::config::{EtcdConfig, LockConfig};
use crate::election::{CandidateKey, LockKey};
use crate::etcd::{ElectionSnapshot, read_election};

/// Reads the lock key and the candidates, at one revision.
pub async fn look(lock: &LockConfig, etcd: &EtcdConfig, timeout: Duration) -> anyhow::Result<Report> {
    Ok(report(lock, read_election(etcd, &lock.lock_key, timeout).await?))
}

fn report(configured: &LockConfig, snapshot: ElectionSnapshot) -> Report {
    let ElectionSnapshot { lock, candidates, candidates_total, revision, lock_lease_remaining } = snapshot;
    let key = configured.lock_key.as_str();
    let holder = lock.as_ref().and_then(|lock| registered(lock, &candidates));
    let record = holder.and_then(|holder| holder.record.as_ref());
    let complete = u64::try_from(candidates.len()).is_ok_and(|listed| listed >= candidates_total);
    let notes = lock.as_ref().map(|lock| notes(key, lock, holder.is_none() && complete)).unwrap_or_default();
    let leader = lock.as_ref().map(|lock| Leader {
        identity: lock.holder.as_str().to_owned(),
        epoch: record.map(|record| record.epoch.0),
        term: lock.create_revision.0,
        lease_remaining_s: lock_lease_remaining.map(|left| left.as_secs()),
    });
    let since = record.and_then(|record| record.leading_since).and_then(rfc3339);
    let queue = candidates.iter().map(|candidate| {
        let registered_at = candidate.record.as_ref().and_then(|record| rfc3339(record.registered_at));
        (candidate.identity.as_str().to_owned(), registered_at)
    });
    Report {
        election: format!("{}/{}", configured.namespace, configured.name),
        since,
        candidates: with_roles(queue, leader.as_ref().map(|leader| leader.identity.as_str()), Line::Current),
        candidates_total,
        leader,
        told_by: ToldBy::Etcd { lock_key: key.to_owned(), revision: revision.0 },
        notes,
    }
}

/// The candidate that holds the lock: the name alone could be another program's.
fn registered<'a>(lock: &LockKey, candidates: &'a [CandidateKey]) -> Option<&'a CandidateKey> {
    candidates.iter().find(|candidate| candidate.identity == lock.holder && candidate.lease == lock.lease)
}

fn notes(key: &str, lock: &LockKey, holder_unknown: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if lock.lease.is_none() {
        notes.push(format!(
            "the lock key has no lease, so it never expires and blocks every candidate; when its holder is gone: etcdctl \
             del {key}"
        ));
    }
    if holder_unknown {
        notes.push(
            "whoever holds the lock is not registered as a candidate: another program, or one that just left".into(),
        );
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::report::Role;
    use crate::config::LockKeyName;
    use crate::election::{CandidateRecord, Epoch, Identity, LeaseId, Revision, WallTime};

    fn configured() -> LockConfig {
        let lock_key = LockKeyName("/bellwether/default/web".into());
        LockConfig { name: "web".into(), namespace: "default".into(), lock_key }
    }

    fn candidate(name: &str, lease: i64) -> CandidateKey {
        let record = CandidateRecord {
            epoch: Epoch(2),
            registered_at: WallTime::from_unix_nanos(0),
            leading_since: Some(WallTime::from_unix_nanos(61_000_000_000)),
            nonce: None,
        };
        CandidateKey {
            identity: Identity::new(name),
            lease: Some(LeaseId(lease)),
            create_revision: Revision(lease),
            record: Some(record),
        }
    }

    fn snapshot(lease: Option<i64>) -> ElectionSnapshot {
        let lock = LockKey {
            holder: Identity::new("web-1"),
            lease: lease.map(LeaseId),
            create_revision: Revision(7),
            mod_revision: Revision(7),
        };
        ElectionSnapshot {
            lock: Some(lock),
            candidates: vec![candidate("web-0", 10), candidate("web-1", 11), candidate("web-2", 12)],
            candidates_total: 3,
            revision: Revision(20),
            lock_lease_remaining: Some(Duration::from_secs(9)),
        }
    }

    #[test]
    fn the_holder_of_the_lock_is_the_leader_and_the_oldest_other_the_heir() {
        let report = report(&configured(), snapshot(Some(11)));
        let leader = Leader { identity: "web-1".into(), epoch: Some(2), term: 7, lease_remaining_s: Some(9) };
        assert_eq!(report.leader, Some(leader));
        assert_eq!(report.since.as_deref(), Some("1970-01-01T00:01:01Z"));
        let roles: Vec<Role> = report.candidates.iter().map(|candidate| candidate.role).collect();
        assert_eq!(roles, [Role::Heir, Role::Leader, Role::Standby]);
        assert!(report.notes.is_empty(), "{:?}", report.notes);
    }

    #[test]
    fn a_lock_without_a_lease_is_pointed_out_with_the_command_that_clears_it() {
        let report = report(&configured(), snapshot(None));
        assert!(report.notes[0].ends_with("etcdctl del /bellwether/default/web"), "{:?}", report.notes);
        assert_eq!(report.leader.and_then(|leader| leader.epoch), None, "what another registered says nothing of it");
    }

    #[test]
    fn a_foreign_holder_is_pointed_out_unless_the_list_is_cut() {
        assert_eq!(report(&configured(), snapshot(Some(99))).notes.len(), 1);
        let cut = ElectionSnapshot { candidates_total: 50, ..snapshot(Some(99)) };
        assert!(report(&configured(), cut).notes.is_empty());
    }
}
