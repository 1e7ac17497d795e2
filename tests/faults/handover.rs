//! Who leads, who stands by, and how one takes over from the other: the leader goes of its own will, or dies.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use support::Moment;
use support::etcd::EtcdServer;

use crate::flock::{Flock, NEVER_EXPIRES, PATIENCE, VALID_UNTIL_UNTIL, figure, quick};

#[tokio::test]
async fn the_first_leads_and_the_second_stands_by_and_names_it() -> Result<()> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let mut flock = Flock::new(etcd.endpoints(), &[&NEVER_EXPIRES]);
    flock.join("first")?;
    let lead = flock.lead_since(Moment::now())?;
    flock.join("second")?;
    let told = flock
        .wait_for("second", |status, body| status == 503 && body["name"] == "first" && body["state"] == "standby")?;
    ensure!(told["term"].as_u64() == Some(lead.term.1), "{told} and {lead:?}");
    for name in ["first", "second"] {
        let sidecar = flock.sidecar(name)?;
        ensure!(sidecar.request("GET", "/", &[])?.json()["name"] == "first");
        ensure!(sidecar.stdout() == ["first is the leader"], "{:?}", sidecar.stdout());
    }
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 1, "{audit}");
    Ok(())
}

/// The leader is stopped by this signal; the heir leads although the lease would have lasted on.
async fn the_leader_stops_in_order(signal: Signal, answer_validity: &str) -> Result<()> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let mut flock = Flock::new(etcd.endpoints(), &[&NEVER_EXPIRES, &["--answer-validity", answer_validity]]);
    flock.join("old")?;
    flock.join("heir")?;
    flock.join("last")?;
    let old = flock.lead_of_one("old", Moment::now())?;
    let begin = Moment::now();
    flock.sidecar("old")?.signal(signal)?;
    let new = flock.next_term(&old)?;
    ensure!(new.name == "heir", "the first in line takes over, not {}", new.name);
    let status = flock.sidecar("old")?.wait_exit(PATIENCE)?;
    ensure!(status.code() == Some(0), "{status}");
    let what = format!("{signal} to the next leader's 200, with answers valid for {answer_validity}");
    figure(&what, format_args!("{:?}", new.sample.received.since(begin)));
    // In the judgement: the last 200 of the old leader comes, and expires, before the first of the new.
    let audit = flock.end()?;
    ensure!(audit.takeovers.len() == 1, "{audit}");
    Ok(())
}

#[tokio::test]
async fn on_sigterm_the_leader_exits_0_and_the_heir_leads_when_the_last_answer_has_expired() -> Result<()> {
    the_leader_stops_in_order(Signal::SIGTERM, "1s").await
}

#[tokio::test]
async fn on_sigterm_with_answers_that_promise_nothing_the_heir_leads_at_once() -> Result<()> {
    the_leader_stops_in_order(Signal::SIGTERM, "0s").await
}

#[tokio::test]
async fn on_sigint_the_leader_stands_down_as_on_sigterm() -> Result<()> {
    the_leader_stops_in_order(Signal::SIGINT, "300ms").await
}

#[tokio::test]
async fn a_second_signal_ends_the_sidecar_while_it_waits_for_its_answers_to_expire() -> Result<()> {
    let etcd = EtcdServer::start_with(quick()).await?;
    for (second, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let election = format!("ends-with-{code}");
        let mut flock = Flock::new(etcd.endpoints(), &[&NEVER_EXPIRES, &VALID_UNTIL_UNTIL]).in_election(&election);
        flock.join("old")?;
        flock.lead_of_one("old", Moment::now())?;
        flock.sidecar("old")?.signal(Signal::SIGTERM)?;
        flock.wait_for("old", |status, body| status == 503 && body["state"] == "standing_down")?;
        ensure!(flock.sidecar("old")?.exited()?.is_none(), "answers are out that have not expired");
        flock.sidecar("old")?.signal(second)?;
        let status = flock.sidecar("old")?.wait_exit(PATIENCE)?;
        let gone = Moment::now();
        ensure!(status.code() == Some(code), "{status}");
        let promised = flock.end()?.reigns[0].promised_until;
        ensure!(gone < promised, "it waited until its answers had expired");
    }
    Ok(())
}

#[tokio::test]
async fn after_kill_9_another_leads_once_the_lease_has_expired_and_not_before_the_last_answer_has() -> Result<()> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let mut flock = Flock::new(etcd.endpoints(), &[&["--lease-ttl", "2s"], &VALID_UNTIL_UNTIL]);
    flock.join("old")?;
    flock.join("heir")?;
    let old = flock.lead_of_one("old", Moment::now())?;
    let begin = Moment::now();
    flock.sidecar("old")?.kill9()?;
    let new = flock.next_term(&old)?;
    ensure!(new.name == "heir");
    figure("kill -9 to the next leader's 200, lease 2 s", format_args!("{:?}", new.sample.received.since(begin)));
    // Answers were valid until `until`: the judgement compares that with the first 200 of the heir.
    flock.end()?;
    Ok(())
}

#[tokio::test]
async fn who_resigns_stays_away_until_nobody_else_has_wanted_the_lock_for_a_second() -> Result<()> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let mut flock = Flock::new(etcd.endpoints(), &[&NEVER_EXPIRES, &["--answer-validity", "100ms"]]);
    flock.join("old")?;
    flock.join("heir")?;
    let old = flock.lead_of_one("old", Moment::now())?;
    let begin = Moment::now();
    ensure!(flock.sidecar("old")?.resign("1h")? == 202);
    let new = flock.next_term(&old)?;
    ensure!(new.name == "heir");
    figure(
        "resign to the next leader's 200, answers valid for 100 ms",
        format_args!("{:?}", new.sample.received.since(begin)),
    );
    flock.wait_for("old", |_, body| body["state"] == "standby" && body["name"] == "heir")?;
    ensure!(flock.sidecar("old")?.resign("1h")? == 409, "who does not lead cannot resign");

    // The other goes: the cool-down of an hour has just begun, but nobody else is there.
    flock.sidecar("heir")?.signal(Signal::SIGTERM)?;
    flock.sidecar("heir")?.wait_exit(PATIENCE)?;
    let again = flock.next_term(&new)?;
    ensure!(again.name == "old");
    let audit = flock.end()?;
    let free = audit.takeovers[1].gap;
    ensure!(free >= Duration::from_secs(1), "it leads again after {free:?}, before the lock was free for 1 s");
    figure("last 200 of the one to first 200 of the one that is cooling down", format_args!("{free:?}"));
    Ok(())
}

#[tokio::test]
async fn a_standby_that_stops_disturbs_nobody_and_the_line_closes_behind_it() -> Result<()> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let mut flock = Flock::new(etcd.endpoints(), &[&NEVER_EXPIRES, &["--answer-validity", "100ms"]]);
    for name in ["first", "second", "third"] {
        flock.join(name)?;
    }
    let first = flock.lead_of_one("first", Moment::now())?;
    flock.sidecar("second")?.signal(Signal::SIGTERM)?;
    ensure!(flock.sidecar("second")?.wait_exit(PATIENCE)?.code() == Some(0));
    flock.sidecar("first")?.signal(Signal::SIGTERM)?;
    let next = flock.next_term(&first)?;
    ensure!(next.name == "third");
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 2, "{audit}");
    Ok(())
}
