//! Answers are promises: what a voluntary release has to wait for.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::Result;
use bellwether::http::{Limits, LocalApi};
#[cfg(feature = "sabotage")]
use bellwether::protections::Protections;
use futures_util::FutureExt;

use crate::client::{Client, request};
use crate::sidecar::{LEAD, Options, Sidecar, advance, leading, standby, stop_after_next_reading};

#[tokio::test]
async fn every_answer_that_says_it_leads_is_waited_for() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    let mut client = sidecar.client().await?;
    let promises = sidecar.shared.promises();
    for path in ["/leader", "/status", "/", "/leader?identity=web-1"] {
        sidecar.publish(leading());
        assert_eq!(client.ask("GET", path).await?.status, 200);
        sidecar.publish(standby());
        assert!(promises.settled().now_or_never().is_none(), "{path} promised a second");
        advance(Duration::from_millis(999));
        assert!(promises.settled().now_or_never().is_none(), "{path} promised a second");
        advance(Duration::from_millis(1));
        assert!(promises.settled().now_or_never().is_some(), "the promise of {path} has run out");
    }
    Ok(())
}

#[tokio::test]
async fn other_answers_promise_nothing() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    let mut client = sidecar.client().await?;
    sidecar.publish(leading());
    assert_eq!(client.ask("GET", "/leader?identity=web-2").await?.status, 503);
    assert_eq!(client.ask("GET", "/nothing").await?.status, 404);
    assert_eq!(Client::tcp(sidecar.telemetry).await?.ask("GET", "/metrics").await?.status, 200);
    sidecar.publish(standby());
    for path in ["/leader", "/status", "/"] {
        client.ask("GET", path).await?;
    }
    assert!(sidecar.shared.promises().settled().now_or_never().is_some());
    Ok(())
}

#[tokio::test]
async fn without_validity_there_is_nothing_to_wait_for_once_an_answer_has_left() -> Result<()> {
    let sidecar = Sidecar::start_with(Options { answer_validity: Duration::ZERO, ..Options::default() }).await?;
    sidecar.publish(leading());
    let answer = sidecar.client().await?.ask("GET", "/leader").await?;
    assert_eq!((answer.status, &answer.json()["valid_for_ms"]), (200, &0.into()));
    assert!(sidecar.shared.promises().settled().now_or_never().is_some());
    Ok(())
}

/// Sends requests and reads no answer until the socket is full and an answer waits behind it.
async fn fill(socket: &UnixStream) -> Result<()> {
    let requests = request("GET", "/status", &["Host: localhost"]).repeat(16);
    let mut idle = 0;
    while idle < 10 {
        match (&mut &*socket).write(requests.as_bytes()) {
            Ok(_) => idle = 0,
            Err(error) if error.kind() == ErrorKind::WouldBlock => idle += 1,
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// What has been written so far, without letting the server write more: it runs on this very thread.
fn read_written(mut socket: &UnixStream) -> Result<String> {
    let mut written = Vec::new();
    match socket.read_to_end(&mut written) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(String::from_utf8_lossy(&written).into_owned()),
        ended => anyhow::bail!("the connection is closed already: {ended:?}"),
    }
}

/// The drain timeout does not wait for a client that does not read. What it reads later is no 200.
#[tokio::test]
async fn an_answer_that_a_client_was_too_slow_to_take_does_not_leave_once_the_view_does_not_lead() -> Result<()> {
    // So that the server closes soon what has nothing more to say.
    let soon = Duration::from_millis(500);
    let limits = Limits { head: soon, idle: soon, ..LocalApi::LIMITS };
    let sidecar = Sidecar::start_with(Options { limits, ..Options::default() }).await?;
    sidecar.publish(leading());
    let socket = UnixStream::connect(&sidecar.socket)?;
    socket.set_nonblocking(true)?;
    fill(&socket).await?;
    advance(Duration::from_secs(1));
    assert!(sidecar.shared.promises().settled().now_or_never().is_none(), "an answer waits to be written");
    sidecar.publish(standby());
    let before = read_written(&socket)?;
    assert!(before.contains(r#""leading":true"#));
    let after = Client::unix_of(socket)?.until_closed().await?;
    assert!(!String::from_utf8_lossy(&after).contains(r#""leading":true"#));
    Ok(())
}

/// What a client hears when the process is stopped, for longer than it leads, between looking at the clock and
/// writing its answer.
async fn heard_after_a_stop() -> Result<Vec<u8>> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let mut client = sidecar.client().await?;
    assert_eq!(client.ask("GET", "/leader").await?.status, 200);
    stop_after_next_reading(LEAD);
    client.send(b"GET /leader HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
    client.until_closed().await
}

#[tokio::test]
async fn a_200_that_expired_before_it_was_written_is_not_written() -> Result<()> {
    assert_eq!(String::from_utf8(heard_after_a_stop().await?)?, "");
    Ok(())
}

/// The control of the test above.
#[cfg(feature = "sabotage")]
#[tokio::test]
async fn control_without_the_check_an_expired_200_would_be_written() -> Result<()> {
    Protections::take_away(Some(Protections::NO_REQUEST_CHECK));
    let heard = heard_after_a_stop().await;
    Protections::take_away(None);
    assert!(heard?.starts_with(b"HTTP/1.1 200"));
    Ok(())
}
