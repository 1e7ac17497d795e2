//! One look at an election, for the command line.

use std::time::Duration;

use super::calls::{observation, observed};
use super::credentials::Credentials;
use super::endpoint::{CONNECT_TIMEOUT_MAX, Endpoint, Link};
use super::error::{EtcdError, call_error, of_client};
use super::keys::Keys;
use crate::config::{EtcdConfig, LockKeyName};
use crate::election::{Body, CallError, CallErrorKind, CandidateKey, Identity, LeaseId, LockKey, Revision};

/// An election at one revision of the store.
#[derive(Clone, Debug, PartialEq)]
pub struct ElectionSnapshot {
    /// The lock key, if it exists.
    pub lock: Option<LockKey>,
    /// The oldest candidates, at most [`CANDIDATES_LISTED`](crate::election::CANDIDATES_LISTED), oldest first.
    pub candidates: Vec<CandidateKey>,
    /// How many candidates there are in all.
    pub candidates_total: u64,
    /// The store's revision.
    pub revision: Revision,
    /// How long the lock would stay without another keep-alive, in whole seconds; `None` without a lock,
    /// without a lease on it, and when it expired just now.
    pub lock_lease_remaining: Option<Duration>,
}

/// Reads an election, asking one endpoint after the other, each for at most `timeout`.
///
/// # Errors
/// When a file of the configuration cannot be used, and when no endpoint answered: what each of them said.
pub async fn read_election(
    config: &EtcdConfig,
    lock_key: &LockKeyName,
    timeout: Duration,
) -> Result<ElectionSnapshot, EtcdError> {
    let keys = Keys::new(lock_key, &Identity::new(""));
    let endpoints = Endpoint::all(config, &Credentials::read(config)?, timeout.min(CONNECT_TIMEOUT_MAX))?;
    let mut failures = Vec::new();
    for (url, endpoint) in config.endpoints.iter().zip(endpoints) {
        let failure = match tokio::time::timeout(timeout, read_from(&endpoint, &keys)).await {
            Ok(Ok(snapshot)) => return Ok(snapshot),
            Ok(Err(error)) => error,
            Err(_) => call_error(CallErrorKind::Timeout, format!("no answer within {timeout:?}")),
        };
        failures.push((url.clone(), failure));
    }
    Err(EtcdError::NoAnswer(failures))
}

async fn read_from(endpoint: &Endpoint, keys: &Keys) -> Result<ElectionSnapshot, CallError> {
    let link = endpoint.link().await?;
    read_over(&link, keys).await.map_err(|error| link.explain(error))
}

async fn read_over(link: &Link, keys: &Keys) -> Result<ElectionSnapshot, CallError> {
    let mut client = link.client().await?;
    let response = client.txn(observation(keys, None)).await.map_err(|error| of_client(&error))?;
    let answer = observed(keys, &response)?;
    let Body::Observed { lock, candidates, candidates_total, .. } = answer.body else {
        return Err(call_error(CallErrorKind::Other, "the answer is not an observation"));
    };
    let lock_lease_remaining = match lock.as_ref().and_then(|lock| lock.lease) {
        Some(lease) => remaining(&mut client, lease).await?,
        None => None,
    };
    Ok(ElectionSnapshot { lock, candidates, candidates_total, revision: answer.header.revision, lock_lease_remaining })
}

async fn remaining(client: &mut etcd_client::Client, lease: LeaseId) -> Result<Option<Duration>, CallError> {
    let response = client.lease_time_to_live(lease.0, None).await.map_err(|error| of_client(&error))?;
    Ok(u64::try_from(response.ttl()).ok().map(Duration::from_secs))
}
