//! Clients that are slow, greedy or broken cannot delay another.

use std::time::Duration;

use anyhow::Result;
use bellwether::clock;
use bellwether::election::Instant;
use bellwether::http::{HEAD_BYTES_MOST, Limits, LocalApi};

use crate::client::{Client, request};
use crate::sidecar::{Options, Sidecar, leading};

/// A polling client hears within this, whatever others do: far above what an answer takes on a busy machine, far
/// below every limit.
const PROMPT: Duration = Duration::from_secs(1);

fn elapsed(since: Instant) -> Duration {
    clock::now().boot.since(since)
}

async fn with(limits: Limits) -> Result<Sidecar> {
    let sidecar = Sidecar::start_with(Options { limits, ..Options::default() }).await?;
    sidecar.publish(leading());
    Ok(sidecar)
}

async fn assert_prompt(client: &mut Client) -> Result<()> {
    let asked = clock::now().boot;
    assert_eq!(client.ask("GET", "/leader").await?.status, 200);
    assert!(elapsed(asked) < PROMPT, "{:?}", elapsed(asked));
    Ok(())
}

#[tokio::test]
async fn a_client_that_sends_its_request_byte_by_byte_is_cut_off() -> Result<()> {
    let limits = Limits { head: Duration::from_millis(300), ..LocalApi::LIMITS };
    let sidecar = with(limits).await?;
    let mut polling = sidecar.client().await?;
    let mut slow = sidecar.client().await?;
    let began = clock::now().boot;
    for byte in request("GET", "/leader", &["Host: localhost", "X: never ending"]).as_bytes() {
        if slow.send(&[*byte]).await.is_err() {
            break;
        }
        assert_prompt(&mut polling).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(slow.until_closed().await?.is_empty(), "it gets no answer");
    assert!(elapsed(began) >= limits.head);
    assert_prompt(&mut polling).await
}

#[tokio::test]
async fn a_client_that_connects_and_says_nothing_is_cut_off() -> Result<()> {
    let sidecar = with(Limits { head: Duration::from_millis(100), ..LocalApi::LIMITS }).await?;
    assert!(sidecar.client().await?.until_closed().await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_a_while_and_not_sooner() -> Result<()> {
    let limits = Limits { head: Duration::from_millis(50), idle: Duration::from_millis(400), ..LocalApi::LIMITS };
    let sidecar = with(limits).await?;
    let mut client = sidecar.client().await?;
    // Before the request: the server may be idle long before this task hears its answer.
    let idle = clock::now().boot;
    client.ask("GET", "/leader").await?;
    client.until_closed().await?;
    assert!(elapsed(idle) >= limits.idle, "{:?}: the time to send a request does not run while idle", elapsed(idle));
    Ok(())
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() -> Result<()> {
    let sidecar = with(LocalApi::LIMITS).await?;
    let fits = format!("X: {}", "x".repeat(HEAD_BYTES_MOST / 2));
    assert_eq!(sidecar.client().await?.ask_with("GET", "/leader", &["Host: localhost", &fits]).await?.status, 200);
    let large = format!("X: {}", "x".repeat(HEAD_BYTES_MOST));
    let many: Vec<String> = (0..100).map(|n| format!("X-{n}: x")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for headers in [vec![large.as_str()], many] {
        let mut client = sidecar.client().await?;
        assert_eq!(client.ask_with("GET", "/leader", &headers).await?.status, 431);
        client.until_closed().await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_is_not_http_is_refused() -> Result<()> {
    let sidecar = with(LocalApi::LIMITS).await?;
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut client = sidecar.client().await?;
        client.send(garbage).await?;
        let answer = String::from_utf8_lossy(&client.until_closed().await?).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    assert_prompt(&mut sidecar.client().await?).await
}

#[tokio::test]
async fn a_thousand_connections_that_do_nothing_lock_nobody_out() -> Result<()> {
    // They would not go by themselves.
    let sidecar = with(Limits { head: Duration::from_hours(1), ..LocalApi::LIMITS }).await?;
    let mut polling = sidecar.client().await?;
    let mut hoard = Vec::new();
    for n in 0..1000 {
        hoard.push(sidecar.client().await?);
        if n % 50 == 0 {
            assert_prompt(&mut polling).await?;
            assert_prompt(&mut sidecar.client().await?).await?;
        }
    }
    assert_prompt(&mut polling).await?;
    assert_prompt(&mut sidecar.client().await?).await?;
    // Of the hoard only the last are left, and the first have been closed.
    for client in &mut hoard[..1000 - LocalApi::LIMITS.connections] {
        client.until_closed().await?;
    }
    Ok(())
}

#[tokio::test]
async fn bytes_do_not_keep_a_place_only_requests_do() -> Result<()> {
    let sidecar = with(Limits { connections: 4, head: Duration::from_hours(1), ..LocalApi::LIMITS }).await?;
    let mut hoard = Vec::new();
    for _ in 0..3 {
        hoard.push(sidecar.client().await?);
    }
    let mut polling = sidecar.client().await?;
    assert_prompt(&mut polling).await?;
    for client in &mut hoard {
        client.send(b"GET /leader HTTP/1.1\r\n").await?;
    }
    for _ in 0..3 {
        assert_prompt(&mut sidecar.client().await?).await?;
    }
    // Dropped clients free their places, so one more round with connections that stay.
    let mut staying = Vec::new();
    for _ in 0..3 {
        let mut client = sidecar.client().await?;
        assert_prompt(&mut client).await?;
        staying.push(client);
    }
    assert_prompt(&mut polling).await?;
    for client in &mut hoard {
        client.until_closed().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_delays_no_release_for_longer() -> Result<()> {
    let limits = Limits { request: Duration::from_millis(500), ..LocalApi::LIMITS };
    let options = Options { limits, answer_validity: Duration::ZERO, ..Options::default() };
    let sidecar = Sidecar::start_with(options).await?;
    sidecar.publish(leading());
    let mut greedy = Client::unix(&sidecar.socket).await?;
    let asked = clock::now().boot;
    greedy.send(request("GET", "/status", &["Host: localhost"]).repeat(1000).as_bytes()).await?;
    let mut polling = sidecar.client().await?;
    assert_prompt(&mut polling).await?;
    let promises = sidecar.shared.promises();
    let at_once = tokio::time::timeout(limits.request / 5, promises.settled()).await;
    assert!(at_once.is_err(), "an answer is still on its way");
    assert_prompt(&mut polling).await?;
    tokio::time::timeout(limits.request + PROMPT, promises.settled()).await?;
    assert!(elapsed(asked) >= limits.request, "{:?}: until then it could still have read them", elapsed(asked));
    assert_prompt(&mut polling).await
}

#[tokio::test]
async fn pipelined_requests_are_each_answered() -> Result<()> {
    let sidecar = with(LocalApi::LIMITS).await?;
    let mut client = sidecar.client().await?;
    client.send(request("GET", "/leader", &["Host: localhost"]).repeat(10).as_bytes()).await?;
    for _ in 0..10 {
        assert_eq!(client.answer(false).await?.status, 200);
    }
    Ok(())
}
