//! A thousand who are told at once, beside those who ask.

use std::time::Duration;

use anyhow::Result;
use bellwether::clock;
use bellwether::http::{Limits, LocalApi, PLACES_MOST};
use bellwether::metrics::Push;
use futures_util::FutureExt;

use crate::client::{Client, Events, request};
use crate::sidecar::{Options, Sidecar, advance, eventually, leading, standby};

/// A polling client hears within this, whatever others do: far above what an answer takes on a busy machine, far
/// below every limit.
const PROMPT: Duration = Duration::from_secs(1);

async fn assert_prompt(client: &mut Client, status: u16) -> Result<()> {
    let asked = clock::now().boot;
    assert_eq!(client.ask("GET", "/leader").await?.status, status);
    let took = clock::now().boot.since(asked);
    assert!(took < PROMPT, "{took:?}");
    Ok(())
}

/// All streams there can be; the first hundred never read.
struct Crowd {
    _never_reading: Vec<Client>,
    reading: Vec<Events>,
}

impl Crowd {
    async fn gather(sidecar: &Sidecar) -> Result<Self> {
        let mut never_reading = Vec::new();
        for _ in 0..100 {
            let mut client = Client::unix(&sidecar.socket).await?;
            client.send(request("GET", "/events", &["Host: localhost"]).as_bytes()).await?;
            never_reading.push(client);
        }
        let mut reading = Vec::new();
        for _ in 100..PLACES_MOST {
            let mut events = Events::open(sidecar.api, &[]).await?;
            events.next_event().await?;
            reading.push(events);
        }
        eventually("all are open", || usize::try_from(sidecar.open(Push::Events)) == Ok(PLACES_MOST)).await?;
        Ok(Self { _never_reading: never_reading, reading })
    }
}

#[tokio::test]
async fn a_thousand_streams_of_which_a_hundred_never_read_push_out_no_poll() -> Result<()> {
    let limits = Limits { connections: 4, ..LocalApi::LIMITS };
    let sidecar = Sidecar::start_with(Options { limits, ..Options::default() }).await?;
    let mut polling = sidecar.client().await?;
    assert_prompt(&mut polling, 503).await?;
    let mut crowd = Crowd::gather(&sidecar).await?;
    for round in 0..30 {
        sidecar.publish(leading());
        assert_prompt(&mut polling, 200).await?;
        sidecar.publish(standby());
        assert_prompt(&mut polling, 503).await?;
        assert_prompt(&mut sidecar.client().await?, 503).await?;
        // A release waits for the promise of a second, and for nothing else.
        advance(Duration::from_secs(1));
        assert!(sidecar.shared.promises().settled().now_or_never().is_some(), "round {round}");
    }
    for events in &mut crowd.reading {
        while events.next_event().await?.json()["state"] != "standby" {}
    }
    Ok(())
}

#[tokio::test]
async fn one_stream_too_many_is_refused_until_another_ends() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let mut crowd = Crowd::gather(&sidecar).await?;
    let mut late = sidecar.client().await?;
    let refused = late.ask("GET", "/events").await?;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    // A poll that cannot wait hears the truth: 503 would tell a leader that it does not lead.
    let version = late.ask("GET", "/leader").await?.version();
    let at_once = late.ask("GET", &format!("/leader?wait=1m&seen={version}")).await?;
    assert_eq!((at_once.status, at_once.header("retry-after")), (200, Some("1")));
    crowd.reading.pop();
    eventually("a place is free", || usize::try_from(sidecar.open(Push::Events)) == Ok(PLACES_MOST - 1)).await?;
    Events::on(late, "/events", &[]).await?.next_event().await?;
    Ok(())
}

#[tokio::test]
async fn polls_that_are_all_woken_at_once_push_nobody_out() -> Result<()> {
    let limits = Limits { connections: 4, ..LocalApi::LIMITS };
    let sidecar = Sidecar::start_with(Options { limits, ..Options::default() }).await?;
    sidecar.publish(standby());
    let mut ordinary = Vec::new();
    for _ in 0..3 {
        let mut client = sidecar.client().await?;
        assert_prompt(&mut client, 503).await?;
        ordinary.push(client);
    }
    let mut waiting = Vec::new();
    let query = format!("wait=1m&seen={}", ordinary[0].ask("GET", "/leader").await?.version());
    for _ in 0..200 {
        let mut client = sidecar.client().await?;
        client.wait(&sidecar, "GET", &query).await?;
        waiting.push(client);
    }
    sidecar.publish(leading());
    let mut stay = 0;
    for client in &mut waiting {
        let answer = client.answer(false).await?;
        assert_eq!(answer.status, 200);
        stay += usize::from(answer.header("connection").is_none());
    }
    assert_eq!(stay, 1, "there was room for one; the others are closed after their answer");
    for client in &mut ordinary {
        assert_prompt(client, 200).await?;
    }
    eventually("their places are free", || sidecar.open(Push::Polls) == 0).await
}
