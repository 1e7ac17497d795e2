//! etcd goes away while somebody leads, and comes back.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use support::etcd::EtcdServer;
use support::{HttpClient, Moment};

use crate::flock::{Flock, Lead, PATIENCE, VALID_UNTIL_UNTIL, figure, quick, wait_until};

/// One leader whose answers are valid for as long as it may lead.
async fn a_leader(arguments: &[&str]) -> Result<(EtcdServer, Flock, Lead)> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let mut flock = Flock::new(etcd.endpoints(), &[arguments, &VALID_UNTIL_UNTIL]);
    flock.join("only")?;
    let lead = flock.lead_of_one("only", Moment::now())?;
    Ok((etcd, flock, lead))
}

/// The latest `until` that any answer of the leader has told, as early as it can be.
fn until(flock: &Flock) -> Result<Moment> {
    let leads = flock.leads_so_far("only")?;
    leads.iter().map(Lead::promised_until).max().ok_or_else(|| anyhow::anyhow!("nobody led"))
}

/// Whether each of its 200s was asked for before this moment.
fn led_only_before(flock: &Flock, name: &str, end: Moment) -> Result<bool> {
    Ok(flock.leads_so_far(name)?.iter().all(|lead| lead.sample.sent < end))
}

/// etcd comes back with its data, and with the lease: the term goes on.
async fn the_same_term_resumes(etcd: &mut EtcdServer, flock: Flock, lead: &Lead) -> Result<()> {
    let back = Moment::now();
    etcd.restart().await?;
    let resumed = flock.lead_of_one("only", back)?;
    ensure!(resumed.term == lead.term, "{resumed:?} after {lead:?}");
    let status = flock.wait_for("only", |status, _| status == 200)?;
    ensure!(status["state"] == "leading", "{status}");
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 1, "{audit}");
    Ok(())
}

#[tokio::test]
async fn when_etcd_dies_the_leader_stops_when_the_reconnect_window_ends_before_until() -> Result<()> {
    let window = Duration::from_millis(1500);
    let (mut etcd, flock, lead) = a_leader(&["--lease-ttl", "20s", "--reconnect-window", "1500ms"]).await?;
    let killed = Moment::now();
    etcd.kill();
    let no = flock.not_leading_since("only", killed)?;
    ensure!(no.received >= killed.after(window), "it stopped before the window had passed");
    ensure!(no.received < until(&flock)?, "it stopped at until, not when the window had passed");
    figure("etcd killed to 503, reconnect window 1.5 s", format_args!("{:?}", no.received.since(killed)));
    the_same_term_resumes(&mut etcd, flock, &lead).await
}

#[tokio::test]
async fn when_etcd_dies_the_leader_stops_at_until_when_that_is_before_the_reconnect_windows_end() -> Result<()> {
    let (mut etcd, flock, lead) = a_leader(&["--lease-ttl", "4s", "--reconnect-window", "60s"]).await?;
    let killed = Moment::now();
    etcd.kill();
    let until_at_most = Moment::now().after(Duration::from_millis(4000 - 800));
    let no = flock.not_leading_since("only", killed)?;
    ensure!(no.received >= until(&flock)?, "it stopped before until, within the window");
    ensure!(led_only_before(&flock, "only", until_at_most)?, "it led beyond until");
    figure("etcd killed to 503, until at most 3.2 s ahead", format_args!("{:?}", no.received.since(killed)));
    the_same_term_resumes(&mut etcd, flock, &lead).await
}

#[tokio::test]
async fn without_a_reconnect_window_the_leader_stops_the_instant_the_stream_ends() -> Result<()> {
    let (mut etcd, flock, lead) = a_leader(&["--lease-ttl", "60s", "--reconnect-window", "0s"]).await?;
    let killed = Moment::now();
    etcd.kill();
    let no = flock.not_leading_since("only", killed)?;
    let ahead = until(&flock)?.since(no.received);
    ensure!(ahead > Duration::from_secs(1), "until was {ahead:?} ahead: that may have stopped it");
    figure("etcd killed to 503, reconnect window 0 s", format_args!("{:?}", no.received.since(killed)));
    the_same_term_resumes(&mut etcd, flock, &lead).await
}

#[tokio::test]
async fn a_restart_of_etcd_within_the_reconnect_window_goes_unnoticed() -> Result<()> {
    let (mut etcd, mut flock, lead) = a_leader(&["--lease-ttl", "60s", "--reconnect-window", "30s"]).await?;
    let killed = Moment::now();
    etcd.kill();
    etcd.restart().await?;
    flock.wait_for_renewals("only", 1)?;
    let answers = flock.poller("only")?.samples_since(killed);
    let interrupted = answers.iter().find(|sample| sample.leading().is_none());
    ensure!(interrupted.is_none(), "{interrupted:?}");
    let last = flock.lead_of_one("only", Moment::now())?;
    ensure!(last.term == lead.term);
    flock.end()?;
    Ok(())
}

#[tokio::test]
async fn while_etcd_is_frozen_the_leader_stops_by_until_and_somebody_leads_after_the_thaw() -> Result<()> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let mut flock = Flock::new(etcd.endpoints(), &[&["--lease-ttl", "2s"], &VALID_UNTIL_UNTIL]);
    flock.join("one")?;
    flock.join("two")?;
    let old = flock.lead_of_one("one", Moment::now())?;
    let frozen = Moment::now();
    etcd.freeze()?;
    let until_at_most = Moment::now().after(Duration::from_millis(2000 - 500));
    flock.not_leading_since("one", frozen)?;
    ensure!(led_only_before(&flock, "one", until_at_most)?, "it led beyond until");
    wait_until(frozen.after(Duration::from_secs(4)));
    // Who reads the log sees what it was, whatever etcd has failed at shortly before.
    flock.wait_for_log("one", "etcd gives no answer that can be used")?;
    let thawed = Moment::now();
    etcd.thaw()?;
    let new = flock.lead_since(thawed)?;
    ensure!(new.term >= old.term);
    flock.wait_for_log("one", "etcd answers again")?;
    flock.end()?;
    Ok(())
}

#[tokio::test]
async fn a_leader_that_is_told_to_stop_while_etcd_is_away_exits_0_and_says_that_the_lock_is_left_to_expire()
-> Result<()> {
    let (mut etcd, mut flock, lead) = a_leader(&["--lease-ttl", "3s", "--reconnect-window", "60s"]).await?;
    etcd.kill();
    flock.sidecar("only")?.signal(Signal::SIGTERM)?;
    let status = flock.sidecar("only")?.wait_exit(PATIENCE)?;
    ensure!(status.code() == Some(0), "{status}");
    flock.wait_for_log("only", "could not let go of the lock")?;
    etcd.restart().await?;
    flock.join("next")?;
    let next = flock.next_term(&lead)?;
    ensure!(next.name == "next");
    flock.end()?;
    Ok(())
}

#[tokio::test]
async fn a_sidecar_that_starts_before_etcd_is_ready_and_alive_and_leads_when_etcd_is_there() -> Result<()> {
    let mut etcd = EtcdServer::start_with(quick()).await?;
    etcd.kill();
    let begin = Moment::now();
    let mut flock = Flock::new(etcd.endpoints(), &[&["--lease-ttl", "2s"]]);
    let options = flock.options("early");
    flock.join_as("early", &options)?;
    flock.wait_for("early", |status, body| status == 503 && body["etcd"] == "unreachable")?;
    let telemetry = flock.sidecar("early")?.telemetry();
    for path in ["/livez", "/readyz"] {
        let status = HttpClient::new(telemetry, PATIENCE).get(path)?.status;
        ensure!(status == 200, "{path} answers {status}: an etcd outage would take the application down");
    }
    flock.nobody_led_since(begin)?;
    etcd.restart().await?;
    flock.lead_since(begin)?;
    flock.end()?;
    Ok(())
}
