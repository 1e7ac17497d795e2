//! The one look at an election that the command line takes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bellwether::election::Identity;
use bellwether::etcd::read_election;

use crate::harness::{Adapter, LEASE, LOCK, ME, TTL, lock_key, plain, record, server};

const TIMEOUT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn it_shows_the_lock_its_remaining_time_and_the_candidates() -> Result<()> {
    let server = server().await?;
    let (_, lock, header) = Adapter::of(&server)?.claim(LEASE).await?;
    let snapshot = read_election(&plain(server.endpoints()), &lock_key(), TIMEOUT).await?;
    assert_eq!(snapshot.lock, Some(lock));
    assert_eq!(snapshot.revision, header.revision);
    let remaining = snapshot.lock_lease_remaining.context("a lease")?;
    ensure!(remaining <= TTL && remaining >= TTL - Duration::from_secs(5), "{remaining:?}");
    assert_eq!((snapshot.candidates.len(), snapshot.candidates_total), (1, 1));
    assert_eq!(snapshot.candidates[0].identity, Identity::new(ME));
    assert_eq!(snapshot.candidates[0].record, Some(record()));
    Ok(())
}

#[tokio::test]
async fn a_lock_without_a_lease_and_no_lock_have_no_remaining_time() -> Result<()> {
    let server = server().await?;
    let config = plain(server.endpoints());
    let nothing = read_election(&config, &lock_key(), TIMEOUT).await?;
    assert_eq!((nothing.lock, nothing.lock_lease_remaining), (None, None));
    server.put(LOCK, "by-hand", 0).await?;
    let stuck = read_election(&config, &lock_key(), TIMEOUT).await?;
    ensure!(stuck.lock.is_some_and(|lock| lock.lease.is_none()));
    assert_eq!(stuck.lock_lease_remaining, None);
    Ok(())
}

#[tokio::test]
async fn endpoints_are_asked_in_turn_and_all_reasons_told_when_none_answers() -> Result<()> {
    let mut server = server().await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let silent = format!("http://{}", listener.local_addr()?);
    let config = plain(vec![silent.clone(), server.endpoint()]);
    let timeout = Duration::from_millis(300);
    ensure!(read_election(&config, &lock_key(), timeout).await?.lock.is_none());
    server.kill();
    let error = read_election(&config, &lock_key(), timeout).await.err().context("nobody is there")?;
    let told = format!(
        "no etcd endpoint answered: {silent}: no answer within 300ms; {}: connection refused",
        server.endpoint()
    );
    assert_eq!(error.to_string(), told);
    Ok(())
}
