//! `/leader`, `/` and `/status`: what they say, and when they stop saying it.

use std::time::Duration;

use anyhow::Result;
use bellwether::election::{EtcdContact, Identity, KnownLeader, PublicState, View};
#[cfg(feature = "sabotage")]
use bellwether::protections::Protections;

use crate::client::Client;
use crate::sidecar::{LEAD, ME, OTHER, Sidecar, advance, jeopardy, leading, standby, starting, term};

#[tokio::test]
async fn a_leader_answers_200_with_its_term_and_for_how_long() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let answer = sidecar.client().await?.ask("GET", "/leader").await?;
    assert_eq!(answer.status, 200);
    let version = answer.header("etag").map(|tag| tag.trim_matches('"')).expect("a version");
    let expected = format!(
        "{}{}\"{version}\"}}\n",
        r#"{"name":"web-1","identity":"web-1","election":"default/web","leading":true,"state":"leading","#,
        r#""epoch":0,"term":48300,"valid_for_ms":1000,"since":"2026-11-22T07:00:00Z","etcd":"connected","version":"#,
    );
    assert_eq!(answer.body, expected);
    assert_eq!(answer.header("bellwether-term"), Some("48300"));
    assert_eq!(answer.header("bellwether-epoch"), Some("0"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    Ok(())
}

#[tokio::test]
async fn a_standby_answers_503_with_the_leaders_name_and_term() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(standby());
    let answer = sidecar.client().await?.ask("GET", "/leader").await?;
    assert_eq!(answer.status, 503);
    let body = answer.json();
    assert_eq!((&body["name"], &body["leading"], &body["state"]), (&OTHER.into(), &false.into(), &"standby".into()));
    assert_eq!((&body["term"], &body["valid_for_ms"]), (&48_213.into(), &0.into()));
    assert_eq!(answer.header("bellwether-term"), Some("48213"));
    Ok(())
}

#[tokio::test]
async fn an_answer_is_valid_until_the_lead_ends_or_the_validity_whichever_is_less() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let mut client = sidecar.client().await?;
    advance(LEAD.saturating_sub(Duration::from_micros(400_900)));
    let answer = client.ask("GET", "/leader").await?;
    assert_eq!((answer.status, &answer.json()["valid_for_ms"]), (200, &400.into()), "whole milliseconds, never more");
    Ok(())
}

/// The status of `/leader` on a connection from before, asked when the lead has ended and nobody has said so:
/// the driver, too, may have been stopped.
async fn status_after_the_lead(client: &mut Client) -> Result<u16> {
    advance(LEAD);
    Ok(client.ask("GET", "/leader").await?.status)
}

#[tokio::test]
async fn a_lead_ends_by_the_clock_although_the_view_still_has_it() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let mut client = sidecar.client().await?;
    assert_eq!(client.ask("GET", "/leader").await?.status, 200);
    assert_eq!(status_after_the_lead(&mut client).await?, 503);
    let body = client.ask("GET", "/leader").await?.json();
    assert_eq!(
        (&body["leading"], &body["state"], &body["valid_for_ms"]),
        (&false.into(), &"jeopardy".into(), &0.into())
    );
    assert_eq!((&body["name"], &body["term"]), (&"".into(), &0.into()), "it does not name itself");
    assert_eq!(body["since"], "2026-11-22T07:00:12Z", "no leader since the lead ended");
    assert_eq!(client.ask("GET", "/").await?.json()["name"], "");
    let status = client.ask("GET", "/status").await?.json();
    assert_eq!((&status["leading"], &status["state"]), (&false.into(), &"jeopardy".into()));
    assert_eq!(status["not_leading"], "it held the lock, but could not renew in time");
    assert_eq!(status["not_leading_reason"], "jeopardy");
    Ok(())
}

/// The control of the test above: it fails when requests do not look at the clock.
#[cfg(feature = "sabotage")]
#[tokio::test]
async fn control_without_the_check_per_request_a_lead_would_not_end() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let mut client = sidecar.client().await?;
    assert_eq!(client.ask("GET", "/leader").await?.status, 200);
    Protections::take_away(Some(Protections::NO_REQUEST_CHECK));
    let status = status_after_the_lead(&mut client).await;
    Protections::take_away(None);
    assert_eq!(status?, 200);
    Ok(())
}

#[tokio::test]
async fn a_lead_ends_when_the_boot_clock_stood_still() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    let mut view = leading();
    let mut client = sidecar.client().await?;
    sidecar.publish(view.clone());
    assert_eq!(client.ask("GET", "/leader").await?.status, 200);
    // A renewal sent when the wall clock was 4 s behind what it is now, on the same boot clock.
    let lead = view.lead.as_mut().expect("it leads");
    let mut sent = crate::sidecar::clock();
    sent.wall = bellwether::election::WallTime::from_unix_nanos(sent.wall.unix_nanos() - 4_000_000_000);
    lead.until = bellwether::election::Until::of_renewal(sent, LEAD, Duration::from_secs(3));
    sidecar.publish(view);
    assert_eq!(client.ask("GET", "/leader").await?.status, 503);
    Ok(())
}

#[tokio::test]
async fn a_kept_connection_gets_fresh_answers() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    let mut client = sidecar.client().await?;
    for (view, status) in [(starting(), 503), (leading(), 200), (jeopardy(), 503), (leading(), 200), (standby(), 503)] {
        sidecar.publish(view);
        assert_eq!(client.ask("GET", "/leader").await?.status, status);
    }
    Ok(())
}

#[tokio::test]
async fn no_leader_and_no_etcd_are_told_apart() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    let mut client = sidecar.client().await?;
    for (etcd, word) in [
        (EtcdContact::Connecting, "connecting"),
        (EtcdContact::Connected, "connected"),
        (EtcdContact::Unreachable, "unreachable"),
    ] {
        sidecar.publish(View { etcd, leader: None, ..standby() });
        let answer = client.ask("GET", "/leader").await?;
        let body = answer.json();
        assert_eq!((answer.status, &body["name"], &body["etcd"]), (503, &"".into(), &word.into()));
        assert_eq!(answer.header("bellwether-term"), None);
    }
    Ok(())
}

#[tokio::test]
async fn nobody_is_told_that_a_candidate_which_answers_503_is_the_leader() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    let mut client = sidecar.client().await?;
    // It holds the lock but has not confirmed a renewal, stands down, or another candidate has its identity.
    let itself = KnownLeader { identity: Identity::new(ME), term: term(7) };
    for state in [PublicState::Starting, PublicState::Standby, PublicState::Jeopardy, PublicState::StandingDown] {
        sidecar.publish(View { state, leader: Some(itself.clone()), ..standby() });
        let answer = client.ask("GET", "/leader").await?;
        assert_eq!((answer.status, &answer.json()["name"]), (503, &"".into()));
        assert_eq!(client.ask("GET", "/").await?.json()["name"], "");
        assert_eq!(client.ask("GET", "/status").await?.json()["name"], "");
    }
    Ok(())
}

#[tokio::test]
async fn whoever_means_another_sidecar_hears_503() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let mut client = sidecar.client().await?;
    for (query, status) in [
        ("identity=web-1", 200),
        ("identity=web%2D1", 200),
        ("other=x", 200),
        ("identity=web-2", 503),
        ("identity=", 503),
        ("identity", 503),
        ("identity=web-1&identity=web-2", 503),
        ("identity=WEB-1", 503),
    ] {
        let answer = client.ask("GET", &format!("/leader?{query}")).await?;
        assert_eq!(answer.status, status, "{query}");
        let body = answer.json();
        assert_eq!(body["leading"], status == 200, "{query}");
        assert_eq!(body["valid_for_ms"].as_u64() > Some(0), status == 200, "{query}");
    }
    Ok(())
}

#[tokio::test]
async fn the_root_names_the_leader_and_is_never_503() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    let mut client = sidecar.client().await?;
    for (view, name) in [(starting(), ""), (standby(), OTHER), (leading(), ME), (jeopardy(), "")] {
        sidecar.publish(view);
        let answer = client.ask("GET", "/").await?;
        assert_eq!((answer.status, answer.body), (200, format!("{{\"name\":\"{name}\"}}\n")));
    }
    Ok(())
}

#[tokio::test]
async fn head_is_get_without_the_body() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    let mut client = sidecar.client().await?;
    for view in [leading(), standby()] {
        sidecar.publish(view);
        for path in ["/leader", "/", "/status"] {
            let get = client.ask("GET", path).await?;
            let head = client.ask("HEAD", path).await?;
            assert_eq!(head.status, get.status);
            let without_date = |headers: &[(String, String)]| {
                let mut kept: Vec<_> = headers.iter().filter(|(name, _)| name != "date").cloned().collect();
                kept.sort();
                kept
            };
            assert_eq!(without_date(&head.headers), without_date(&get.headers));
            assert_eq!(head.header("content-length"), Some(get.body.len().to_string().as_str()));
            assert!(!client.has_more(), "HEAD has no body");
        }
    }
    Ok(())
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_refused_in_json() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    let mut client = sidecar.client().await?;
    let answer = client.ask("GET", "/not-leader").await?;
    assert_eq!((answer.status, &answer.json()["error"]), (404, &"there is nothing at /not-leader".into()));
    for (method, path, allowed) in [
        ("POST", "/leader", "GET,HEAD"),
        ("DELETE", "/", "GET,HEAD"),
        ("PUT", "/status", "GET,HEAD"),
        ("GET", "/resign", "POST"),
        ("HEAD", "/resign", "POST"),
    ] {
        let answer = client.ask(method, path).await?;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{method} {path}");
        if method != "HEAD" {
            assert!(answer.json()["error"].as_str().is_some_and(|error| error.contains(method)), "{}", answer.body);
        }
    }
    Ok(())
}
