//! `/leader?wait=…&seen=…`: told when there is something to tell.

use std::time::Duration;

use anyhow::Result;
use bellwether::clock;
use bellwether::http::{Limits, LocalApi};
use bellwether::metrics::Push;
use futures_util::FutureExt;

use crate::client::{Answer, Client, request};
use crate::sidecar::{LEAD, Options, Sidecar, advance, eventually, jeopardy, leading, standby};

async fn now(sidecar: &Sidecar) -> Result<Answer> {
    sidecar.client().await?.ask("GET", "/leader").await
}

/// The query of a poll that waits for something else than there is now.
async fn for_news(sidecar: &Sidecar) -> Result<String> {
    Ok(format!("wait=1m&seen={}", now(sidecar).await?.version()))
}

#[tokio::test]
async fn a_change_wakes_a_poll_that_waits() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    let mut client = sidecar.client().await?;
    sidecar.publish(standby());
    for (view, status) in [(leading(), 200), (standby(), 503), (jeopardy(), 503)] {
        client.wait(&sidecar, "GET", &for_news(&sidecar).await?).await?;
        sidecar.publish(view);
        let answer = client.answer(false).await?;
        assert_eq!(answer.status, status);
        assert_eq!(answer.body, now(&sidecar).await?.body, "the same as at once");
        assert_eq!(answer.header("connection"), None, "there is room for it to stay");
    }
    assert_eq!(sidecar.open(Push::Polls), 0);
    Ok(())
}

#[tokio::test]
async fn a_head_request_waits_as_well() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(standby());
    let mut client = sidecar.client().await?;
    client.wait(&sidecar, "HEAD", &for_news(&sidecar).await?).await?;
    sidecar.publish(leading());
    assert_eq!(client.answer(true).await?.status, 200);
    assert_eq!(client.ask("GET", "/leader").await?.status, 200);
    assert!(!client.has_more());
    Ok(())
}

#[tokio::test]
async fn who_has_seen_something_else_or_nothing_is_answered_at_once() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(standby());
    let before = now(&sidecar).await?.version();
    sidecar.publish(leading());
    let mut client = sidecar.client().await?;
    let present = now(&sidecar).await?.version();
    for query in [
        "wait=1m".to_owned(),
        "wait=1m&seen=".to_owned(),
        format!("wait=1m&seen={before}"),
        format!("wait=1m&seen={present}0"),
        format!("seen={present}"),
        format!("wait=0s&seen={present}"),
    ] {
        let asked = clock::now().boot;
        assert_eq!(client.ask("GET", &format!("/leader?{query}")).await?.status, 200, "{query}");
        assert!(clock::now().boot.since(asked) < Duration::from_secs(5), "{query}");
    }
    Ok(())
}

#[tokio::test]
async fn the_etag_in_its_quotes_is_a_version_that_was_seen() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(standby());
    let answer = now(&sidecar).await?;
    assert_eq!(
        answer.header("etag"),
        Some(format!("\"{}\"", answer.json()["version"].as_str().unwrap_or("")).as_str())
    );
    let mut client = sidecar.client().await?;
    client.wait(&sidecar, "GET", &format!("wait=1m&seen=%22{}%22", answer.version())).await?;
    sidecar.publish(leading());
    assert_eq!(client.answer(false).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_leader_is_never_told_304() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let seen = format!("If-None-Match: \"{}\"", now(&sidecar).await?.version());
    let answer = sidecar.client().await?.ask_with("GET", "/leader", &["Host: localhost", &seen]).await?;
    assert_eq!(answer.status, 200);
    Ok(())
}

#[tokio::test]
async fn at_the_end_of_the_wait_the_answer_is_the_present_one() -> Result<()> {
    let limits = Limits { request: Duration::from_millis(100), ..LocalApi::LIMITS };
    let sidecar = Sidecar::start_with(Options { limits, ..Options::default() }).await?;
    sidecar.publish(leading());
    let version = now(&sidecar).await?.version();
    let mut client = sidecar.client().await?;
    let asked = clock::now().boot;
    let answer = client.ask("GET", &format!("/leader?wait=400ms&seen={version}")).await?;
    let waited = clock::now().boot.since(asked);
    assert!(waited >= Duration::from_millis(400), "{waited:?}: the time of a request does not run while it waits");
    assert_eq!((answer.status, answer.version()), (200, version));
    Ok(())
}

#[tokio::test]
async fn a_renewal_wakes_nobody() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let mut client = sidecar.client().await?;
    let before = now(&sidecar).await?.version();
    client.wait(&sidecar, "GET", &format!("wait=1m&seen={before}")).await?;
    for _ in 0..5 {
        advance(Duration::from_secs(5));
        sidecar.publish(leading());
        assert_eq!(now(&sidecar).await?.version(), before);
        assert_eq!(sidecar.open(Push::Polls), 1);
    }
    sidecar.publish(standby());
    assert_eq!(client.answer(false).await?.status, 503);
    Ok(())
}

#[tokio::test]
async fn until_wakes_a_poll_although_the_driver_is_stuck() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let mut client = sidecar.client().await?;
    let before = now(&sidecar).await?.version();
    client.wait(&sidecar, "GET", &format!("wait=1m&seen={before}")).await?;
    advance(LEAD);
    let answer = client.answer(false).await?;
    assert_eq!((answer.status, &answer.json()["state"]), (503, &"jeopardy".into()));
    assert_ne!(answer.version(), before);
    // Having seen that, it is not told again.
    client.wait(&sidecar, "GET", &format!("wait=1m&seen={}", answer.version())).await
}

#[tokio::test]
async fn a_poll_that_waits_holds_up_no_release() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let mut client = sidecar.client().await?;
    client.wait(&sidecar, "GET", &for_news(&sidecar).await?).await?;
    // The promise of the answer before it.
    advance(Duration::from_secs(1));
    assert!(sidecar.shared.promises().settled().now_or_never().is_some());
    sidecar.publish(standby());
    assert!(sidecar.shared.promises().settled().now_or_never().is_some());
    assert_eq!(client.answer(false).await?.status, 503);
    Ok(())
}

#[tokio::test]
async fn the_answer_to_a_poll_that_has_waited_is_a_promise_like_any() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(standby());
    let mut client = sidecar.client().await?;
    client.wait(&sidecar, "GET", &for_news(&sidecar).await?).await?;
    sidecar.publish(leading());
    assert_eq!(client.answer(false).await?.json()["valid_for_ms"], 1000);
    sidecar.publish(standby());
    advance(Duration::from_millis(999));
    assert!(sidecar.shared.promises().settled().now_or_never().is_none(), "it promised a second");
    advance(Duration::from_millis(1));
    assert!(sidecar.shared.promises().settled().now_or_never().is_some());
    Ok(())
}

#[tokio::test]
async fn whoever_means_another_sidecar_hears_503_after_its_wait() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(standby());
    let mut client = sidecar.client().await?;
    let query = for_news(&sidecar).await?;
    client.wait(&sidecar, "GET", &format!("identity=web-2&{query}")).await?;
    sidecar.publish(leading());
    assert_eq!(client.answer(false).await?.status, 503);
    assert_eq!(client.ask("GET", "/leader").await?.status, 200, "the next request on the connection is another");
    Ok(())
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place_at_once() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(standby());
    let query = for_news(&sidecar).await?;
    let mut alone = sidecar.client().await?;
    alone.wait(&sidecar, "GET", &query).await?;
    let mut with_more_to_say = Client::unix(&sidecar.socket).await?;
    with_more_to_say.wait(&sidecar, "GET", &query).await?;
    with_more_to_say.send(request("GET", "/status", &["Host: localhost"]).as_bytes()).await?;
    drop((alone, with_more_to_say));
    eventually("the places are free", || sidecar.open(Push::Polls) == 0).await
}

#[tokio::test]
async fn requests_sent_during_a_wait_are_answered_after_it_in_order() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(standby());
    let mut client = sidecar.client().await?;
    let wait = format!("/leader?{}", for_news(&sidecar).await?);
    let requests = [("GET", "/"), ("GET", wait.as_str()), ("GET", "/status"), ("GET", "/nothing")];
    let requests: String =
        requests.iter().map(|(method, target)| request(method, target, &["Host: localhost"])).collect();
    client.send(requests.as_bytes()).await?;
    assert_eq!(client.answer(false).await?.json()["name"], "web-0");
    eventually("the poll waits", || sidecar.open(Push::Polls) == 1).await?;
    client.send(request("GET", "/check?term=48300", &["Host: localhost"]).as_bytes()).await?;
    sidecar.publish(leading());
    assert_eq!(client.answer(false).await?.status, 200);
    assert_eq!(client.answer(false).await?.json()["candidates_total"], 2);
    assert_eq!(client.answer(false).await?.status, 404);
    assert_eq!(client.answer(false).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn who_sends_more_than_a_request_during_a_wait_does_not_wait() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(standby());
    let mut client = sidecar.client().await?;
    client.wait(&sidecar, "GET", &for_news(&sidecar).await?).await?;
    client.send(request("GET", "/", &["Host: localhost"]).repeat(400).as_bytes()).await?;
    assert_eq!(client.answer(false).await?.status, 503);
    for _ in 0..400 {
        assert_eq!(client.answer(false).await?.status, 200);
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_says_close_gets_it_after_its_wait() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(standby());
    for head in ["HTTP/1.1\r\nHost: localhost\r\nConnection: Close", "HTTP/1.0"] {
        sidecar.publish(standby());
        let mut client = sidecar.client().await?;
        client.send(format!("GET /leader?{} {head}\r\n\r\n", for_news(&sidecar).await?).as_bytes()).await?;
        eventually("the poll waits", || sidecar.open(Push::Polls) == 1).await?;
        sidecar.publish(leading());
        assert_eq!(client.answer(false).await?.status, 200);
        assert!(client.until_closed().await?.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn a_restarted_sidecar_never_repeats_a_version() -> Result<()> {
    let mut versions = Vec::new();
    for _ in 0..20 {
        let sidecar = Sidecar::start().await?;
        sidecar.publish(leading());
        let version = now(&sidecar).await?.version();
        assert!(!versions.contains(&version));
        // What somebody saw of its predecessor is not what this one tells, though view and clock are the same.
        for seen in &versions {
            assert_eq!(
                sidecar.client().await?.ask("GET", &format!("/leader?wait=1m&seen={seen}")).await?.version(),
                version
            );
        }
        versions.push(version);
    }
    Ok(())
}

#[tokio::test]
async fn a_wait_that_cannot_be_is_refused_with_one_that_can() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let mut client = sidecar.client().await?;
    for (wait, why) in [
        ("soon", "wait: \"soon\" is not a duration; write for example 15s, 500ms or 1m30s"),
        ("30", "wait: \"30\" has no unit; write 30s for seconds or 30ms for milliseconds"),
        ("", "wait: \"\" is empty; write for example 15s"),
        ("5m1ms", "wait: \"5m1ms\" is longer than 5m"),
    ] {
        let answer = client.ask("GET", &format!("/leader?seen=x&wait={wait}")).await?;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.json()["error"], format!("{why}; write it like ?wait=30s&seen=<version>"));
    }
    Ok(())
}
