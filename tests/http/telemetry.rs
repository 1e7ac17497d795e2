//! `/livez`, `/readyz` and `/metrics`.

use std::time::Duration;

use anyhow::Result;
use bellwether::election::{
    CallErrorKind, ClaimResult, EndpointId, Notice, Operation, PublicState, Reason, RenewalFailure,
};

use crate::client::Client;
use crate::sidecar::{LEAD, Sidecar, advance, jeopardy, leading, standby};

async fn scrape(sidecar: &Sidecar) -> Result<String> {
    let answer = Client::tcp(sidecar.telemetry).await?.ask("GET", "/metrics").await?;
    assert_eq!(answer.status, 200);
    Ok(answer.body)
}

/// The value of a series, named without the label that all have.
fn value(text: &str, series: &str) -> Option<f64> {
    support::without_election(text).lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test]
async fn it_is_alive_as_long_as_the_driver_turns() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    let mut client = Client::tcp(sidecar.telemetry).await?;
    assert_eq!(client.ask("GET", "/livez").await?.status, 200);
    advance(Duration::from_secs(10));
    assert_eq!(client.ask("GET", "/livez").await?.status, 200);
    advance(Duration::from_millis(1500));
    let stuck = client.ask("GET", "/livez").await?;
    assert_eq!((stuck.status, &stuck.json()["error"]), (503, &"the driver has made no turn for 11 s".into()));
    sidecar.shared.heartbeat();
    assert_eq!(client.ask("GET", "/livez").await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn it_is_ready_once_said_so_whatever_etcd_and_the_election_do() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    let mut client = Client::tcp(sidecar.telemetry).await?;
    assert_eq!(client.ask("GET", "/readyz").await?.status, 503);
    sidecar.shared.ready();
    for view in [standby(), leading(), jeopardy()] {
        sidecar.publish(view);
        assert_eq!(client.ask("GET", "/readyz").await?.status, 200);
    }
    Ok(())
}

#[tokio::test]
async fn the_telemetry_listener_tells_nothing_of_the_local_api() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let mut client = Client::tcp(sidecar.telemetry).await?;
    assert_eq!(client.ask("GET", "/leader").await?.status, 404);
    assert_eq!(client.ask("POST", "/resign").await?.status, 404);
    let wrong = client.ask("POST", "/metrics").await?;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET,HEAD")));
    assert_eq!(sidecar.client().await?.ask("GET", "/metrics").await?.status, 404);
    Ok(())
}

#[tokio::test]
async fn gauges_are_read_off_the_clock_at_the_scrape() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    advance(Duration::from_secs(2));
    let text = scrape(&sidecar).await?;
    assert_eq!(value(&text, "bellwether_leading"), Some(1.0));
    assert_eq!(value(&text, "bellwether_term"), Some(48_300.0));
    assert_eq!(value(&text, "bellwether_lease_remaining_seconds"), Some(10.0));
    assert_eq!(value(&text, "leader_election_master_status{name=\"web\"}"), Some(1.0));
    assert_eq!(value(&text, "bellwether_state{state=\"leading\"}"), Some(1.0));
    advance(LEAD);
    let text = scrape(&sidecar).await?;
    assert_eq!(value(&text, "bellwether_leading"), Some(0.0));
    assert_eq!(value(&text, "bellwether_term"), Some(0.0));
    assert_eq!(value(&text, "bellwether_lease_remaining_seconds"), Some(0.0));
    assert_eq!(value(&text, "leader_election_master_status{name=\"web\"}"), Some(0.0));
    assert_eq!(value(&text, "bellwether_state{state=\"leading\"}"), Some(0.0));
    assert_eq!(value(&text, "bellwether_state{state=\"jeopardy\"}"), Some(1.0));
    Ok(())
}

#[tokio::test]
async fn every_metric_is_there_before_its_first_event() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    let text = scrape(&sidecar).await?;
    for series in [
        "bellwether_transitions_total{reason=\"claimed\",to=\"leading\"}",
        "bellwether_transitions_total{reason=\"until_passed\",to=\"jeopardy\"}",
        "bellwether_jeopardy_episodes_total",
        "bellwether_renewals_total{result=\"ok\"}",
        "bellwether_renewals_total{result=\"raft_term_changed\"}",
        "bellwether_renewal_duration_seconds_count",
        "bellwether_claims_total{result=\"won\"}",
        "bellwether_failover_seconds_count",
        "bellwether_etcd_errors_total{code=\"timeout\",operation=\"keepalive\"}",
        "bellwether_http_requests_total{code=\"200\",path=\"/leader\"}",
        "bellwether_http_requests_total{code=\"404\",path=\"other\"}",
    ] {
        assert_eq!(value(&text, series), Some(0.0), "{series}");
    }
    let info = format!("bellwether_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(value(&text, &info), Some(1.0));
    assert!(value(&text, "process_resident_memory_bytes").is_some_and(|bytes| bytes > 0.0));
    Ok(())
}

#[tokio::test]
async fn what_happens_is_counted() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    let (endpoint, message) = (EndpointId(0), String::new());
    for notice in [
        Notice::Transition {
            from: PublicState::Standby,
            to: PublicState::Leading,
            reason: Reason::Claimed,
            term: None,
        },
        Notice::Transition {
            from: PublicState::Leading,
            to: PublicState::Jeopardy,
            reason: Reason::StreamEnded,
            term: None,
        },
        Notice::Renewed(Duration::from_millis(3)),
        Notice::RenewalFailed(RenewalFailure::Timeout),
        Notice::ClaimAnswered(ClaimResult::Lost),
        Notice::TookOver(Duration::from_millis(30)),
        Notice::EtcdFailed { endpoint, operation: Operation::Watch, kind: CallErrorKind::Compacted, message },
        Notice::EtcdSilent,
        Notice::EtcdBack,
    ] {
        sidecar.metrics.observe(&notice);
    }
    let text = scrape(&sidecar).await?;
    for (series, expected) in [
        ("bellwether_transitions_total{reason=\"claimed\",to=\"leading\"}", 1.0),
        ("bellwether_transitions_total{reason=\"stream_ended\",to=\"jeopardy\"}", 1.0),
        ("bellwether_jeopardy_episodes_total", 1.0),
        ("bellwether_renewals_total{result=\"ok\"}", 1.0),
        ("bellwether_renewals_total{result=\"timeout\"}", 1.0),
        ("bellwether_renewal_duration_seconds_sum", 0.003),
        ("bellwether_renewal_duration_seconds_bucket{le=\"0.0025\"}", 0.0),
        ("bellwether_renewal_duration_seconds_bucket{le=\"0.005\"}", 1.0),
        ("bellwether_claims_total{result=\"lost\"}", 1.0),
        ("bellwether_failover_seconds_sum", 0.03),
        ("bellwether_etcd_errors_total{code=\"compacted\",operation=\"watch\"}", 1.0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series}");
    }
    Ok(())
}

#[tokio::test]
async fn clients_cannot_make_new_series() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    let before = scrape(&sidecar).await?.lines().count();
    let mut client = sidecar.client().await?;
    for n in 0..50 {
        client.ask("GET", &format!("/{n}")).await?;
    }
    let text = scrape(&sidecar).await?;
    // The first scrape could not show its own 200; it had its series already.
    assert_eq!(text.lines().count(), before);
    assert_eq!(value(&text, "bellwether_http_requests_total{code=\"404\",path=\"other\"}"), Some(50.0));
    Ok(())
}
