//! `--compat`: what another sidecar's clients are told is held to the same rules as what ours are told.

use std::time::Duration;

use anyhow::Result;
use bellwether::config::Compat;
#[cfg(feature = "sabotage")]
use bellwether::protections::Protections;
use futures_util::FutureExt;

use crate::client::Events;
use crate::sidecar::{LEAD, ME, OTHER, Options, Sidecar, advance, jeopardy, leading, standby, stop_after_next_reading};

/// Every kind of answer that can name this replica.
const NAMING: [(Compat, &str); 5] = [
    (Compat::LeaderElector, "/any/path"),
    (Compat::Instana, "/health"),
    (Compat::Instana, "/any/path"),
    (Compat::Nais, "/"),
    (Compat::Nais, "/any/path"),
];

async fn start(compat: Compat) -> Result<Sidecar> {
    Sidecar::start_with(Options { compat: Some(compat), ..Options::default() }).await
}

#[tokio::test]
async fn every_answer_that_names_this_replica_is_waited_for() -> Result<()> {
    for (compat, path) in NAMING {
        let sidecar = start(compat).await?;
        sidecar.publish(leading());
        let answer = sidecar.client().await?.ask("GET", path).await?;
        assert!(answer.status == 200 && answer.body.contains(ME), "{compat:?} {path}: {answer:?}");
        sidecar.publish(standby());
        let promises = sidecar.shared.promises();
        advance(Duration::from_millis(999));
        assert!(promises.settled().now_or_never().is_none(), "{compat:?} {path} promised a second");
        advance(Duration::from_millis(1));
        assert!(promises.settled().now_or_never().is_some(), "{compat:?} {path}: its promise has run out");
    }
    Ok(())
}

#[tokio::test]
async fn answers_that_name_another_promise_nothing() -> Result<()> {
    for (compat, path) in NAMING {
        let sidecar = start(compat).await?;
        sidecar.publish(standby());
        let answer = sidecar.client().await?.ask("GET", path).await?;
        assert!(answer.status == 200 && answer.body.contains(OTHER), "{compat:?} {path}: {answer:?}");
        assert!(sidecar.shared.promises().settled().now_or_never().is_some(), "{compat:?} {path}");
    }
    Ok(())
}

/// What `path` says once `until` has passed, of which the driver has not said anything yet.
async fn told_when_expired(compat: Compat, path: &str) -> Result<String> {
    let sidecar = start(compat).await?;
    sidecar.publish(leading());
    advance(LEAD);
    Ok(sidecar.client().await?.ask("GET", path).await?.body)
}

#[tokio::test]
async fn once_until_has_passed_no_path_names_this_replica() -> Result<()> {
    for (compat, path) in NAMING {
        let told = told_when_expired(compat, path).await?;
        assert!(!told.contains(ME), "{compat:?} {path}: {told}");
    }
    Ok(())
}

/// The control of the test above.
#[cfg(feature = "sabotage")]
#[tokio::test]
async fn control_without_the_check_every_path_would_name_this_replica() -> Result<()> {
    Protections::take_away(Some(Protections::NO_REQUEST_CHECK));
    for (compat, path) in NAMING {
        let told = told_when_expired(compat, path).await;
        assert!(told?.contains(ME), "{compat:?} {path}");
    }
    Protections::take_away(None);
    Ok(())
}

/// What a client hears when the process is stopped, for longer than it leads, between looking at the clock and writing.
async fn heard_after_a_stop(compat: Compat, path: &str) -> Result<String> {
    let sidecar = start(compat).await?;
    sidecar.publish(leading());
    let mut client = sidecar.client().await?;
    stop_after_next_reading(LEAD);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    Ok(String::from_utf8(client.until_closed().await?)?)
}

#[tokio::test]
async fn what_named_this_replica_and_expired_before_it_was_written_is_not_written() -> Result<()> {
    for (compat, path) in NAMING {
        assert_eq!(heard_after_a_stop(compat, path).await?, "", "{compat:?} {path}");
    }
    Ok(())
}

/// The control of the test above.
#[cfg(feature = "sabotage")]
#[tokio::test]
async fn control_without_the_check_it_would_be_written() -> Result<()> {
    Protections::take_away(Some(Protections::NO_REQUEST_CHECK));
    for (compat, path) in NAMING {
        let heard = heard_after_a_stop(compat, path).await;
        assert!(heard?.contains(ME), "{compat:?} {path}");
    }
    Protections::take_away(None);
    Ok(())
}

#[tokio::test]
async fn instanas_health_is_500_while_no_leader_is_known() -> Result<()> {
    let sidecar = start(Compat::Instana).await?;
    sidecar.publish(jeopardy());
    let answer = sidecar.client().await?.ask("GET", "/health").await?;
    assert_eq!((answer.status, answer.body.as_str()), (500, "Invalid leader"));
    Ok(())
}

#[tokio::test]
async fn nais_stream_tells_the_leader_and_then_each_other_and_promises_what_it_says() -> Result<()> {
    let sidecar = start(Compat::Nais).await?;
    sidecar.publish(leading());
    let mut stream = Events::on(sidecar.client().await?, "/sse", &[]).await?;
    let own = stream.next().await?;
    assert_eq!(
        (own.kind.as_str(), own.data.as_str()),
        ("", r#"{"name":"web-1","last_update":"2026-11-22T07:00:00Z"}"#)
    );
    assert!(sidecar.shared.promises().settled().now_or_never().is_none(), "the event promised a second");
    sidecar.publish(standby());
    assert_eq!(stream.next().await?.json()["name"], OTHER);
    sidecar.publish(jeopardy());
    assert_eq!(stream.next().await?.json()["name"], "");
    advance(Duration::from_secs(1));
    assert!(sidecar.shared.promises().settled().now_or_never().is_some());
    Ok(())
}

/// Clients of nais' elector never met a comment: an empty line after it would be an event without data to some.
#[tokio::test]
async fn a_heartbeat_of_nais_stream_ends_no_event() -> Result<()> {
    let mut limits = bellwether::http::LocalApi::LIMITS;
    limits.heartbeat = Duration::from_millis(20);
    let options = Options { compat: Some(Compat::Nais), limits, ..Options::default() };
    let sidecar = Sidecar::start_with(options).await?;
    sidecar.publish(standby());
    let mut stream = Events::on(sidecar.client().await?, "/sse", &[]).await?;
    assert_eq!(stream.next().await?.json()["name"], OTHER);
    // Time for several heartbeats; the test does not depend on how many.
    tokio::time::sleep(Duration::from_millis(200)).await;
    sidecar.publish(leading());
    assert_eq!(stream.next().await?.json()["name"], ME, "the next block is the next event");
    assert!(stream.answer().body.contains("\n\n:\n"), "there were heartbeats: {:?}", stream.answer().body);
    Ok(())
}
