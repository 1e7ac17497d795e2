//! `POST /resign`: what it does, and whom it does it for.

use std::time::Duration;

use anyhow::Result;
use bellwether::election::Event;

use crate::client::Client;
use crate::sidecar::{LEAD, Options, Sidecar, advance, leading, standby};

#[tokio::test]
async fn a_leader_that_is_asked_to_resign_will() -> Result<()> {
    let mut sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let answer = sidecar.client().await?.ask("POST", "/resign?cooldown=45s").await?;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.body, "{\"resigning\":true,\"identity\":\"web-1\",\"term\":48300,\"cooldown_ms\":45000}\n");
    assert_eq!(sidecar.commands.try_recv()?, Event::Resign { cooldown: Duration::from_secs(45) });
    Ok(())
}

#[tokio::test]
async fn the_cooldown_is_30_s_unless_given() -> Result<()> {
    let mut sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    assert_eq!(sidecar.client().await?.ask("POST", "/resign").await?.status, 202);
    assert_eq!(sidecar.commands.try_recv()?, Event::Resign { cooldown: Duration::from_secs(30) });
    Ok(())
}

#[tokio::test]
async fn who_does_not_lead_cannot_resign() -> Result<()> {
    let mut sidecar = Sidecar::start().await?;
    let mut client = sidecar.client().await?;
    sidecar.publish(standby());
    let answer = client.ask("POST", "/resign").await?;
    assert_eq!((answer.status, &answer.json()["error"]), (409, &"web-1 does not lead: web-0 holds the lock".into()));
    sidecar.publish(leading());
    advance(LEAD);
    assert_eq!(client.ask("POST", "/resign").await?.status, 409, "its lead has ended by the clock");
    assert!(sidecar.commands.try_recv().is_err());
    Ok(())
}

#[tokio::test]
async fn a_cooldown_that_cannot_be_is_refused_with_one_that_can() -> Result<()> {
    let mut sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let mut client = sidecar.client().await?;
    for query in ["cooldown=soon", "cooldown=30", "cooldown=-1s", "cooldown=2h", "cooldown=", "cooldow=5s"] {
        let answer = client.ask("POST", &format!("/resign?{query}")).await?;
        assert_eq!(answer.status, 400, "{query}");
        let error = answer.json()["error"].to_string();
        let (name, value) = query.split_once('=').expect("each has a value");
        assert!(error.contains(name) && error.contains("30s"), "{error}");
        assert!(name != "cooldown" || error.contains(&format!("\\\"{value}\\\"")), "{error}");
    }
    assert!(sidecar.commands.try_recv().is_err());
    Ok(())
}

#[tokio::test]
async fn a_web_page_cannot_make_a_leader_resign() -> Result<()> {
    let mut sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let mut client = sidecar.client().await?;
    let foreign: [&[&str]; 9] = [
        &["Host: evil.example"],
        &["Host: evil.example:4040"],
        &["Host: localhost.evil.example"],
        &["Host: 10.0.0.7:4040"],
        &["Host: localhost", "Host: evil.example"],
        &[],
        &["Host: localhost:4040", "Origin: https://evil.example"],
        &["Host: localhost:4040", "Origin: null"],
        &["Host: localhost:4040", "Origin: http://localhost:3000"],
    ];
    for headers in foreign {
        assert_eq!(client.ask_with("POST", "/resign", headers).await?.status, 403, "{headers:?}");
    }
    let answer = client.ask_with("POST", "http://evil.example/resign", &["Host: localhost"]).await?;
    assert_eq!(answer.status, 403, "the host can also be in the target");
    assert!(sidecar.commands.try_recv().is_err());
    for host in ["localhost:4040", "127.0.0.1", "[::1]:4040"] {
        let (header, origin) = (format!("Host: {host}"), format!("Origin: http://{host}"));
        assert_eq!(client.ask_with("POST", "/resign", &[&header, &origin]).await?.status, 202, "{host}");
    }
    Ok(())
}

#[tokio::test]
async fn the_unix_socket_needs_no_host() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let mut client = Client::unix(&sidecar.socket).await?;
    assert_eq!(client.ask_with("POST", "/resign", &[]).await?.status, 202);
    assert_eq!(client.ask_with("POST", "/resign", &["Host: evil.example"]).await?.status, 403);
    Ok(())
}

#[tokio::test]
async fn a_driver_that_is_busy_or_gone_is_503_and_try_again() -> Result<()> {
    let mut sidecar = Sidecar::start_with(Options { commands: 1, ..Options::default() }).await?;
    sidecar.publish(leading());
    let mut client = sidecar.client().await?;
    assert_eq!(client.ask("POST", "/resign").await?.status, 202);
    let busy = client.ask("POST", "/resign").await?;
    assert_eq!((busy.status, busy.header("retry-after")), (503, Some("1")));
    sidecar.commands.close();
    while sidecar.commands.try_recv().is_ok() {}
    assert_eq!(client.ask("POST", "/resign").await?.status, 503);
    Ok(())
}

#[tokio::test]
async fn a_request_with_a_body_is_refused_and_its_connection_closed() -> Result<()> {
    let mut sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let mut client = sidecar.client().await?;
    let answer = client.ask_with("POST", "/resign", &["Host: localhost", "Content-Length: 12"]).await?;
    assert_eq!(answer.status, 413);
    assert!(answer.json()["error"].is_string());
    client.until_closed().await?;
    assert!(sidecar.commands.try_recv().is_err());
    let mut client = sidecar.client().await?;
    let answer = client.ask_with("POST", "/resign", &["Host: localhost", "Content-Length: 0"]).await?;
    assert_eq!(answer.status, 202, "an empty body is none");
    Ok(())
}
