//! Keep-alive streams: one answer for each send, and one end.

use std::time::Duration;

use anyhow::{Result, ensure};
use bellwether::election::{CallErrorKind, LeaseId, StreamId};
use tokio::time::Instant;

use crate::harness::{Adapter, LEASE, TTL, eventually, metric, plain, server};

const QUIET: Duration = Duration::from_millis(300);

#[tokio::test]
async fn each_send_is_answered_once_the_first_included() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    let granted = adapter.grant(LEASE, TTL).await?;
    for _ in 0..3 {
        adapter.keep_alive(1, LEASE);
    }
    for _ in 0..3 {
        let (header, seconds) = adapter.renewal(1).await?;
        assert_eq!(seconds, 30);
        assert_eq!(header, granted.header, "nothing has changed since the grant");
    }
    adapter.silence(QUIET).await?;
    adapter.keep_alive(1, LEASE);
    assert_eq!(adapter.renewal(1).await?.1, 30);
    adapter.silence(QUIET).await
}

#[tokio::test]
async fn a_lease_that_is_gone_answers_zero_and_leaves_the_stream_open() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    for _ in 0..2 {
        adapter.keep_alive(1, LEASE);
        let (header, seconds) = adapter.renewal(1).await?;
        assert_eq!(seconds, 0);
        ensure!(header.raft_term.0 > 0);
    }
    adapter.grant(LEASE, TTL).await?;
    adapter.keep_alive(1, LEASE);
    assert_eq!(adapter.renewal(1).await?.1, 30);
    server.revoke(LEASE.0).await?;
    adapter.keep_alive(1, LEASE);
    assert_eq!(adapter.renewal(1).await?.1, 0);
    Ok(())
}

#[tokio::test]
async fn two_streams_serve_one_lease_independently() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    adapter.grant(LEASE, TTL).await?;
    for stream in [1, 2, 1] {
        adapter.keep_alive(stream, LEASE);
        assert_eq!(adapter.renewal(stream).await?.1, 30);
    }
    Ok(())
}

#[tokio::test]
async fn a_killed_server_ends_the_stream_at_once_and_once() -> Result<()> {
    let mut server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    adapter.grant(LEASE, TTL).await?;
    adapter.keep_alive(1, LEASE);
    adapter.renewal(1).await?;
    server.kill();
    let killed = Instant::now();
    let error = adapter.stream_end(1).await?;
    ensure!(killed.elapsed() < Duration::from_millis(500), "took {:?}", killed.elapsed());
    assert_eq!(error.kind, CallErrorKind::Unavailable);
    ensure!(error.message.starts_with("connection "), "{}", error.message);
    adapter.keep_alive(2, LEASE);
    let error = adapter.stream_end(2).await?;
    assert_eq!((error.kind, error.message.as_str()), (CallErrorKind::Unavailable, "connection refused"));
    adapter.silence(QUIET).await
}

#[tokio::test]
async fn a_frozen_server_ends_the_stream_after_an_unanswered_ping() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    adapter.grant(LEASE, TTL).await?;
    adapter.keep_alive(1, LEASE);
    adapter.renewal(1).await?;
    server.freeze()?;
    adapter.keep_alive(1, LEASE);
    adapter.silence(Duration::from_secs(1)).await?;
    let error = adapter.stream_end(1).await?;
    assert_eq!((error.kind, error.message.as_str()), (CallErrorKind::Unavailable, "connection closed"));
    Ok(())
}

#[tokio::test]
async fn a_closed_stream_reports_nothing_and_ends_at_the_server() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    adapter.grant(LEASE, TTL).await?;
    adapter.keep_alive(1, LEASE);
    adapter.renewal(1).await?;
    adapter.keep_alive(1, LEASE);
    adapter.etcd.close_stream(StreamId(1));
    adapter.silence(QUIET).await?;
    eventually("the stream ends at the server", async || {
        Ok(metric(&server, "grpc_server_handled_total", "LeaseKeepAlive").await? == 1)
    })
    .await
}

#[tokio::test]
async fn a_closed_stream_takes_no_other_along() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    adapter.grant(LEASE, TTL).await?;
    for stream in [1, 2] {
        adapter.keep_alive(stream, LEASE);
        adapter.renewal(stream).await?;
    }
    adapter.etcd.close_stream(StreamId(1));
    adapter.keep_alive(2, LEASE);
    assert_eq!(adapter.renewal(2).await?.1, 30);
    Ok(())
}

#[tokio::test]
async fn sends_without_end_to_a_stream_that_never_opens_end_it() -> Result<()> {
    let nowhere = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let mut adapter = Adapter::new(&plain(vec![format!("http://{}", nowhere.local_addr()?)]), "web-0")?;
    for _ in 0..1000 {
        adapter.keep_alive(1, LeaseId(1));
    }
    let error = adapter.stream_end(1).await?;
    assert_eq!(error.kind, CallErrorKind::Other);
    Ok(())
}
