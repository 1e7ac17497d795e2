//! The unary calls, one function each.

use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, GetOptions, LeaseGrantOptions, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
    TxnOpResponse, TxnResponse,
};

use super::endpoint::{Endpoint, Link};
use super::error::{call_error, incomplete, is_lease_exists, of_client};
use super::keys::{Keys, header, lock_key, record_json};
use crate::election::{
    Answer, Body, CANDIDATES_LISTED, Call, CallError, CallErrorKind, CandidateKey, CandidateRecord, Header, LeaseId,
    LockKey, Request, Revision,
};

/// Of the candidates that registered before me, how many an observation names.
const AHEAD_LISTED: i64 = 2;

/// Makes one call within its timeout, connecting and authenticating included.
pub(super) async fn execute(endpoint: &Endpoint, keys: &Keys, request: &Request) -> Result<Answer, CallError> {
    let before = endpoint.mark();
    tokio::time::timeout(request.timeout, with_fresh_token(endpoint, keys, &request.call)).await.unwrap_or_else(
        |_elapsed| {
            endpoint.give_up_if_silent(&before);
            Err(call_error(CallErrorKind::Timeout, format!("no answer within {:?}", request.timeout)))
        },
    )
}

/// Makes the call, and once more with a new token when etcd refuses the one there was. A refused call
/// has not been applied.
async fn with_fresh_token(endpoint: &Endpoint, keys: &Keys, call: &Call) -> Result<Answer, CallError> {
    let link = endpoint.link().await?;
    match perform(&link, keys, call).await {
        Err(error) if endpoint.wants_new_token(error.kind) => {
            perform(&endpoint.renewed_link(&link).await?, keys, call).await
        }
        result => result,
    }
}

async fn perform(link: &Link, keys: &Keys, call: &Call) -> Result<Answer, CallError> {
    // Boxed: the largest of the calls makes this 18 KiB, which the stack should not carry.
    let answer = Box::pin(dispatch(link.client().await?, keys, call));
    answer.await.map_err(|error| link.explain(error))
}

async fn dispatch(client: Client, keys: &Keys, call: &Call) -> Result<Answer, CallError> {
    match call {
        Call::Probe => probe(client).await,
        Call::Grant { lease, ttl } => grant(client, keys, *lease, *ttl).await,
        Call::Observe { before } => observe(client, keys, *before).await,
        Call::Register { lease, record } => register(client, keys, *lease, record).await,
        Call::Unregister { create_revision } => {
            let key = keys.my_candidate();
            let guards = vec![created_at(&key, *create_revision)];
            delete(client, key, guards).await
        }
        Call::Claim { lease, record } => claim(client, keys, *lease, record).await,
        Call::Resume { lease, token, record } => resume(client, keys, *lease, *token, record).await,
        Call::Confirm => confirm(client, keys).await,
        Call::DeleteLock { create_revision, lease } => {
            let key = keys.lock();
            let guards = vec![created_at(key, *create_revision), Compare::lease(key, CompareOp::Equal, lease.0)];
            delete(client, key.to_owned(), guards).await
        }
        Call::Revoke { lease } => revoke(client, keys, *lease).await,
    }
}

async fn probe(mut client: Client) -> Result<Answer, CallError> {
    let status = client.status().await.map_err(|error| of_client(&error))?;
    Ok(Answer {
        header: header(status.header())?,
        body: Body::Probed {
            version: status.version().to_owned(),
            // An alarm is listed as `memberID:… alarm:NOSPACE`.
            no_space: status.errors().iter().any(|error| error.contains("NOSPACE")),
        },
    })
}

async fn grant(mut client: Client, keys: &Keys, lease: LeaseId, ttl: Duration) -> Result<Answer, CallError> {
    let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
    match client.lease_grant(seconds, Some(LeaseGrantOptions::new().with_id(lease.0))).await {
        Ok(granted) => granted_answer(header(granted.header())?, granted.ttl()),
        Err(error) if is_lease_exists(&error) => {
            let existing = client.lease_time_to_live(lease.0, None).await.map_err(|error| of_client(&error))?;
            granted_answer(linearizable_header(&mut client, keys).await?, existing.granted_ttl())
        }
        Err(error) => Err(of_client(&error)),
    }
}

/// A lease that has expired in the meantime has no lifetime.
fn granted_answer(header: Header, seconds: i64) -> Result<Answer, CallError> {
    match u64::try_from(seconds) {
        Ok(seconds) if seconds > 0 => Ok(Answer { header, body: Body::Granted { ttl: Duration::from_secs(seconds) } }),
        _ => Err(call_error(CallErrorKind::LeaseNotFound, "the lease expired while it was granted again")),
    }
}

/// A header whose revision is as good as any read's: errors carry none, and a lease's time to live is
/// answered from local state.
async fn linearizable_header(client: &mut Client, keys: &Keys) -> Result<Header, CallError> {
    let options = GetOptions::new().with_count_only();
    let read = client.get(keys.lock(), Some(options)).await.map_err(|error| of_client(&error))?;
    header(read.header())
}

/// The reads of an observation. A transaction that only reads is linearizable in etcd.
pub(super) fn observation(keys: &Keys, before: Option<Revision>) -> Txn {
    let listed = i64::try_from(CANDIDATES_LISTED).expect("a small constant");
    let oldest = GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend).with_limit(listed);
    let mut reads = vec![TxnOp::get(keys.lock(), None), TxnOp::get(keys.candidates_prefix(), Some(oldest))];
    if let Some(before) = before {
        let ahead = GetOptions::new()
            .with_prefix()
            .with_max_create_revision(before.0 - 1)
            .with_sort(SortTarget::Create, SortOrder::Descend)
            .with_limit(AHEAD_LISTED);
        reads.push(TxnOp::get(keys.candidates_prefix(), Some(ahead)));
    }
    Txn::new().and_then(reads)
}

async fn observe(mut client: Client, keys: &Keys, before: Option<Revision>) -> Result<Answer, CallError> {
    let response = client.txn(observation(keys, before)).await.map_err(|error| of_client(&error))?;
    observed(keys, &response)
}

/// What an observation saw.
pub(super) fn observed(keys: &Keys, response: &TxnResponse) -> Result<Answer, CallError> {
    let mut reads = response.op_responses().into_iter().map(|read| match read {
        TxnOpResponse::Get(read) => Ok(read),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => Err(incomplete("a read")),
    });
    let lock = reads.next().ok_or_else(|| incomplete("the lock key"))??;
    let oldest = reads.next().ok_or_else(|| incomplete("the candidates"))??;
    let ahead = reads.next().transpose()?;
    let candidates = |kvs: &[etcd_client::KeyValue]| kvs.iter().map(|kv| keys.candidate_key(kv)).collect::<Vec<_>>();
    Ok(Answer {
        header: header(response.header())?,
        body: Body::Observed {
            lock: lock.kvs().first().map(lock_key),
            candidates: candidates(oldest.kvs()),
            candidates_total: u64::try_from(oldest.count()).unwrap_or(0),
            ahead: ahead.map(|read| candidates(read.kvs())).unwrap_or_default(),
        },
    })
}

async fn register(
    mut client: Client,
    keys: &Keys,
    lease: LeaseId,
    record: &CandidateRecord,
) -> Result<Answer, CallError> {
    let key = keys.my_candidate();
    let put = TxnOp::put(key.as_str(), record_json(record), Some(PutOptions::new().with_lease(lease.0)));
    let txn = Txn::new()
        .when([Compare::create_revision(key.as_str(), CompareOp::Equal, 0)])
        .and_then([put])
        .or_else([TxnOp::get(key.as_str(), None)]);
    let response = client.txn(txn).await.map_err(|error| of_client(&error))?;
    let header = header(response.header())?;
    let candidate = if response.succeeded() {
        CandidateKey {
            identity: keys.me.clone(),
            lease: Some(lease),
            create_revision: header.revision,
            record: Some(record.clone()),
        }
    } else {
        keys.candidate_key(&existing(&response)?)
    };
    Ok(Answer { header, body: Body::Registered(candidate) })
}

async fn claim(mut client: Client, keys: &Keys, lease: LeaseId, record: &CandidateRecord) -> Result<Answer, CallError> {
    let attached = || Some(PutOptions::new().with_lease(lease.0));
    let txn = Txn::new()
        .when([Compare::create_revision(keys.lock(), CompareOp::Equal, 0)])
        .and_then([
            TxnOp::put(keys.lock(), keys.me.as_str(), attached()),
            TxnOp::put(keys.my_candidate(), record_json(record), attached()),
        ])
        .or_else([TxnOp::get(keys.lock(), None)]);
    let response = client.txn(txn).await.map_err(|error| of_client(&error))?;
    let header = header(response.header())?;
    let won = response.succeeded();
    let lock = if won {
        LockKey {
            holder: keys.me.clone(),
            lease: Some(lease),
            create_revision: header.revision,
            mod_revision: header.revision,
        }
    } else {
        lock_key(&existing(&response)?)
    };
    Ok(Answer { header, body: Body::Claimed { won, lock } })
}

/// The key that an ELSE branch read. It is there: the comparison failed because it is.
fn existing(response: &TxnResponse) -> Result<etcd_client::KeyValue, CallError> {
    match response.op_responses().into_iter().next() {
        Some(TxnOpResponse::Get(mut read)) => read.take_kvs().into_iter().next(),
        Some(TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_)) | None => None,
    }
    .ok_or_else(|| incomplete("the existing key"))
}

async fn resume(
    mut client: Client,
    keys: &Keys,
    lease: LeaseId,
    token: Revision,
    record: &CandidateRecord,
) -> Result<Answer, CallError> {
    let candidate = keys.my_candidate();
    let attached = Some(PutOptions::new().with_lease(lease.0));
    let reads = [TxnOp::get(keys.lock(), None), TxnOp::get(candidate.as_str(), None)];
    let txn = Txn::new()
        .when([
            created_at(keys.lock(), token),
            Compare::lease(keys.lock(), CompareOp::Equal, lease.0),
            Compare::lease(candidate.as_str(), CompareOp::Equal, lease.0),
        ])
        .and_then([TxnOp::put(candidate.as_str(), record_json(record), attached), reads[0].clone(), reads[1].clone()])
        .or_else(reads);
    let response = client.txn(txn).await.map_err(|error| of_client(&error))?;
    let [lock, candidate] = lock_and_candidate(&response)?;
    let candidate = candidate.filter(|_| response.succeeded()).map(|kv| keys.candidate_key(&kv));
    Ok(Answer {
        header: header(response.header())?,
        body: Body::Resumed { candidate, lock: lock.as_ref().map(lock_key) },
    })
}

/// One transaction, so that both are of one revision. One that only reads is linearizable.
async fn confirm(mut client: Client, keys: &Keys) -> Result<Answer, CallError> {
    let reads = [TxnOp::get(keys.lock(), None), TxnOp::get(keys.my_candidate(), None)];
    let response = client.txn(Txn::new().and_then(reads)).await.map_err(|error| of_client(&error))?;
    let [lock, candidate] = lock_and_candidate(&response)?;
    let record = candidate.and_then(|kv| keys.candidate_key(&kv).record);
    Ok(Answer {
        header: header(response.header())?,
        body: Body::Confirmed { lock: lock.as_ref().map(lock_key), writer: record.and_then(|record| record.nonce) },
    })
}

/// The two reads of a transaction, whatever it wrote.
fn lock_and_candidate(response: &TxnResponse) -> Result<[Option<etcd_client::KeyValue>; 2], CallError> {
    let mut reads = response.op_responses().into_iter().filter_map(|read| match read {
        TxnOpResponse::Get(mut read) => Some(read.take_kvs().into_iter().next()),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
    });
    let lock = reads.next().ok_or_else(|| incomplete("the lock key"))?;
    let candidate = reads.next().ok_or_else(|| incomplete("the candidate key"))?;
    Ok([lock, candidate])
}

fn created_at(key: &str, create_revision: Revision) -> Compare {
    Compare::create_revision(key, CompareOp::Equal, create_revision.0)
}

/// A guard that does not hold says that the key in question is not there any more: just as good.
async fn delete(mut client: Client, key: String, guards: Vec<Compare>) -> Result<Answer, CallError> {
    let txn = Txn::new().when(guards).and_then([TxnOp::delete(key, None)]);
    let response = client.txn(txn).await.map_err(|error| of_client(&error))?;
    Ok(Answer { header: header(response.header())?, body: Body::Gone })
}

async fn revoke(mut client: Client, keys: &Keys, lease: LeaseId) -> Result<Answer, CallError> {
    let header = match client.lease_revoke(lease.0).await {
        Ok(response) => header(response.header())?,
        Err(error) => {
            let error = of_client(&error);
            if error.kind != CallErrorKind::LeaseNotFound {
                return Err(error);
            }
            linearizable_header(&mut client, keys).await?
        }
    };
    Ok(Answer { header, body: Body::Gone })
}
