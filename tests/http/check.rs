//! `/check`: whether a term is the one held now.

use std::time::Duration;

use anyhow::Result;
use futures_util::FutureExt;

use crate::sidecar::{LEAD, Sidecar, advance, jeopardy, leading, standby};

#[tokio::test]
async fn only_the_term_that_is_led_is_200() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    let mut client = sidecar.client().await?;
    for (query, while_leading) in [
        ("term=48300", 200),
        ("term=48300&epoch=0", 200),
        ("term=48300&identity=web-1", 200),
        ("term=48300&other=x", 200),
        ("term=48300&term=48300", 200),
        ("term=48299", 412),
        ("term=48301", 412),
        // The other's, when it leads.
        ("term=48213", 412),
        ("term=0", 412),
        ("term=48300&term=48299", 412),
        ("term=48300&epoch=1", 412),
        ("term=48300&identity=web-2", 412),
    ] {
        sidecar.publish(leading());
        let target = format!("/check?{query}");
        let answer = client.ask("GET", &target).await?;
        assert_eq!(answer.status, while_leading, "{query}");
        let body = answer.json();
        assert_eq!((&body["leading"], &body["name"]), (&(while_leading == 200).into(), &"web-1".into()), "{query}");
        assert_eq!(body["valid_for_ms"], if while_leading == 200 { 1000 } else { 0 }, "{query}");
        assert_eq!(client.ask("HEAD", &target).await?.status, while_leading, "{query}");
        for view in [standby(), jeopardy()] {
            sidecar.publish(view);
            assert_eq!(client.ask("GET", &target).await?.status, 412, "{query}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_term_ends_by_the_clock() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let mut client = sidecar.client().await?;
    advance(LEAD.saturating_sub(Duration::from_millis(300)));
    assert_eq!(client.ask("GET", "/check?term=48300").await?.json()["valid_for_ms"], 300);
    advance(Duration::from_millis(300));
    let answer = client.ask("GET", "/check?term=48300").await?;
    assert_eq!((answer.status, &answer.json()["name"]), (412, &"".into()));
    Ok(())
}

#[tokio::test]
async fn a_200_is_a_promise_and_a_412_is_none() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    let mut client = sidecar.client().await?;
    let promises = sidecar.shared.promises();
    sidecar.publish(leading());
    client.ask("GET", "/check?term=48299").await?;
    sidecar.publish(standby());
    assert!(promises.settled().now_or_never().is_some());
    sidecar.publish(leading());
    client.ask("GET", "/check?term=48300").await?;
    sidecar.publish(standby());
    advance(Duration::from_millis(999));
    assert!(promises.settled().now_or_never().is_none(), "it promised a second");
    advance(Duration::from_millis(1));
    assert!(promises.settled().now_or_never().is_some());
    Ok(())
}

#[tokio::test]
async fn what_is_no_term_is_refused_with_a_way_out() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let mut client = sidecar.client().await?;
    for (query, why) in [
        ("", "term is missing"),
        ("?epoch=0", "term is missing"),
        ("?term=", "term: \"\" is not a number from 0 up"),
        ("?term=web-1", "term: \"web-1\" is not a number from 0 up"),
        ("?term=-1", "term: \"-1\" is not a number from 0 up"),
        ("?term=48300.0", "term: \"48300.0\" is not a number from 0 up"),
        ("?term=%2B48300", "term: \"+48300\" is not a number from 0 up"),
        ("?term=9223372036854775808", "term: \"9223372036854775808\" is not a number from 0 up"),
        ("?term=48300&epoch=x", "epoch: \"x\" is not a number from 0 up"),
    ] {
        let answer = client.ask("GET", &format!("/check{query}")).await?;
        assert_eq!(answer.status, 400, "{query}");
        let expected = format!("{why}; write it like ?term=48213, with the term that /leader told");
        assert_eq!(answer.json()["error"], expected, "{query}");
    }
    Ok(())
}
