//! Servers that are dead, frozen or silent, and connections that swallow everything.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bellwether::election::{Call, CallErrorKind, Event, StreamId, WatchTarget};
use support::etcd::{EtcdCluster, EtcdOptions};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::harness::{Adapter, CALL_TIMEOUT, LEASE, ME, TTL, plain, quick, server};

/// A port on which the kernel accepts connections and nobody ever answers.
async fn black_hole() -> Result<(TcpListener, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    Ok((listener, url))
}

/// A port on which nobody listens.
async fn dead_endpoint() -> Result<String> {
    Ok(black_hole().await?.1)
}

#[tokio::test]
async fn a_dead_endpoint_is_refused_at_once() -> Result<()> {
    let mut adapter = Adapter::new(&plain(vec![dead_endpoint().await?]), ME)?;
    let asked = Instant::now();
    let error = adapter.refusal(Call::Confirm).await?;
    assert_eq!((error.kind, error.message.as_str()), (CallErrorKind::Unavailable, "connection refused"));
    ensure!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_named_as_the_reason() -> Result<()> {
    let mut adapter = Adapter::new(&plain(vec!["http://etcd.invalid:2379".to_owned()]), ME)?;
    let error = adapter.refusal(Call::Confirm).await?;
    assert_eq!(error.kind, CallErrorKind::Unavailable);
    ensure!(error.message.contains("lookup"), "{}", error.message);
    Ok(())
}

#[tokio::test]
async fn a_silent_endpoint_delays_no_other_and_each_request_has_its_own_timeout() -> Result<()> {
    let server = server().await?;
    let (_listener, silent) = black_hole().await?;
    let mut adapter = Adapter::new(&plain(vec![silent, server.endpoint()]), ME)?;
    let long = adapter.send(0, Duration::from_millis(900), Call::Confirm);
    let short = adapter.send(0, Duration::from_millis(300), Call::Confirm);
    let live = adapter.send(1, CALL_TIMEOUT, Call::Confirm);
    let mut order = Vec::new();
    while order.len() < 3 {
        match adapter.event().await? {
            Event::Answered { id, result } => order.push((id, result.map(drop).map_err(|error| error.kind))),
            other => bail!("{other:?}"),
        }
    }
    let timeout = Err(CallErrorKind::Timeout);
    assert_eq!(order, [(live, Ok(())), (short, timeout), (long, timeout)]);
    Ok(())
}

#[tokio::test]
async fn a_frozen_server_times_out_and_serves_again_once_thawed() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    adapter.lock().await?;
    server.freeze()?;
    for _ in 0..3 {
        let result = adapter.try_call_at(0, Duration::from_millis(200), Call::Confirm).await?;
        ensure!(result.is_err_and(|error| error.kind == CallErrorKind::Timeout));
    }
    server.thaw()?;
    adapter.lock().await?;
    Ok(())
}

#[tokio::test]
async fn calls_find_a_restarted_server() -> Result<()> {
    let mut server = server().await?;
    let mut adapter = Adapter::of(&server)?;
    adapter.lock().await?;
    server.kill();
    assert_eq!(adapter.refusal(Call::Confirm).await?.kind, CallErrorKind::Unavailable);
    server.restart().await?;
    adapter.lock().await?;
    Ok(())
}

/// Passes bytes on until `swallow`; the connections of before then carry nothing more, later ones work.
struct Swallower {
    url: String,
    swallow: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Swallower {
    async fn before(address: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (swallow, _) = watch::channel(false);
        let swallowing = swallow.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let (address, mut swallowed) = (address.clone(), swallowing.subscribe());
                swallowed.mark_unchanged();
                connections.spawn(async move {
                    let Ok(mut far) = TcpStream::connect(address).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                        _ = swallowed.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Ok(Self { url, swallow, _tasks: tasks })
    }
}

#[tokio::test]
async fn a_connection_that_swallows_everything_is_given_up_after_one_timeout() -> Result<()> {
    let server = server().await?;
    let swallower = Swallower::before(server.client_address(0)).await?;
    let mut adapter = Adapter::new(&plain(vec![swallower.url.clone()]), ME)?;
    adapter.lock().await?;
    swallower.swallow.send_replace(true);
    let result = adapter.try_call_at(0, Duration::from_millis(200), Call::Confirm).await?;
    ensure!(result.is_err_and(|error| error.kind == CallErrorKind::Timeout));
    let asked = Instant::now();
    adapter.lock().await?;
    ensure!(asked.elapsed() < Duration::from_secs(2), "no ping was needed: {:?}", asked.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_connection_on_which_a_stream_was_given_up_is_given_up_too() -> Result<()> {
    let server = server().await?;
    let swallower = Swallower::before(server.client_address(0)).await?;
    let mut adapter = Adapter::new(&plain(vec![swallower.url.clone()]), ME)?;
    adapter.grant(LEASE, TTL).await?;
    adapter.keep_alive(1, LEASE);
    adapter.renewal(1).await?;
    swallower.swallow.send_replace(true);
    adapter.keep_alive(1, LEASE);
    adapter.silence(Duration::from_millis(100)).await?;
    adapter.etcd.close_stream(StreamId(1));
    let asked = Instant::now();
    adapter.keep_alive(2, LEASE);
    assert_eq!(adapter.renewal(2).await?.1, 30);
    ensure!(asked.elapsed() < Duration::from_secs(2), "no ping was needed: {:?}", asked.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_member_without_a_leader_refuses_calls_and_ends_streams_and_watches() -> Result<()> {
    let mut cluster = EtcdCluster::start(EtcdOptions { members: 3, ..quick() }).await?;
    let mut adapter = Adapter::new(&plain(vec![cluster.endpoint(0)]), ME)?;
    adapter.grant(LEASE, TTL).await?;
    adapter.keep_alive(1, LEASE);
    adapter.renewal(1).await?;
    adapter.watch(1, WatchTarget::Lock, 1);
    adapter.watch_created(1).await?;
    cluster.kill(1);
    cluster.kill(2);
    let mut ended = Vec::new();
    while ended.len() < 2 {
        match adapter.event().await? {
            Event::StreamEnded { error, .. } | Event::WatchEnded { error, .. } => ended.push(error),
            other => bail!("{other:?}"),
        }
    }
    ended.push(adapter.refusal(Call::Confirm).await?);
    for error in ended {
        assert_eq!((error.kind, error.message.as_str()), (CallErrorKind::Unavailable, "etcdserver: no leader"));
    }
    Ok(())
}

#[tokio::test]
async fn requests_without_end_are_refused_beyond_the_ceiling() -> Result<()> {
    let (_listener, silent) = black_hole().await?;
    let mut adapter = Adapter::new(&plain(vec![silent]), ME)?;
    for _ in 0..257 {
        adapter.send(0, Duration::from_millis(500), Call::Confirm);
    }
    let mut kinds = Vec::new();
    for _ in 0..257 {
        match adapter.event().await? {
            Event::Answered { result: Err(error), .. } => kinds.push(error.kind),
            other => bail!("{other:?}"),
        }
    }
    assert_eq!(kinds[0], CallErrorKind::Other);
    ensure!(kinds[1..].iter().all(|kind| *kind == CallErrorKind::Timeout));
    let result = adapter.try_call_at(0, Duration::from_millis(10), Call::Confirm).await?;
    ensure!(result.is_err_and(|error| error.kind == CallErrorKind::Timeout), "there is room again");
    Ok(())
}
