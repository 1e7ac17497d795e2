//! etcd behind TLS, mutual TLS, and authentication with tokens that expire.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use support::Moment;
use support::etcd::{ClientTls, EtcdOptions, EtcdServer};

use crate::flock::{Flock, LOCK_KEY, PATIENCE, VALID_UNTIL_UNTIL, quick, wait_until};

/// One leads, the other takes over when it stops.
fn one_leads_and_hands_over(mut flock: Flock) -> Result<()> {
    flock.join("old")?;
    flock.join("heir")?;
    let old = flock.lead_of_one("old", Moment::now())?;
    flock.wait_for_renewals("old", 2)?;
    flock.sidecar("old")?.signal(Signal::SIGTERM)?;
    ensure!(flock.sidecar("old")?.wait_exit(PATIENCE)?.code() == Some(0));
    let new = flock.next_term(&old)?;
    ensure!(new.name == "heir");
    flock.end()?;
    Ok(())
}

fn path(path: &std::path::Path) -> Result<&str> {
    path.to_str().context("a temporary path is UTF-8")
}

#[tokio::test]
async fn an_election_over_tls() -> Result<()> {
    let etcd = EtcdServer::start_with(EtcdOptions { tls: ClientTls::Server, ..quick() }).await?;
    let ca_file = etcd.ca_file();
    let arguments = ["--lease-ttl", "5s", "--answer-validity", "0s", "--etcd-ca-file", path(&ca_file)?];
    one_leads_and_hands_over(Flock::new(etcd.endpoints(), &[&arguments]))
}

#[tokio::test]
async fn an_election_over_mutual_tls() -> Result<()> {
    let etcd = EtcdServer::start_with(EtcdOptions { tls: ClientTls::Mutual, ..quick() }).await?;
    let (ca_file, cert_file, key_file) = (etcd.ca_file(), etcd.client_cert_file(), etcd.client_key_file());
    let timings = ["--lease-ttl", "5s", "--answer-validity", "0s"];
    let ca = ["--etcd-ca-file", path(&ca_file)?];
    let client = ["--etcd-cert-file", path(&cert_file)?, "--etcd-key-file", path(&key_file)?];
    one_leads_and_hands_over(Flock::new(etcd.endpoints(), &[&timings, &ca, &client]))?;

    let mut stranger = Flock::new(etcd.endpoints(), &[&timings, &ca]);
    let begin = Moment::now();
    let options = stranger.options("stranger");
    stranger.join_as("stranger", &options)?;
    stranger.wait_for_log("stranger", "--etcd-cert-file and --etcd-key-file")?;
    stranger.nobody_led_since(begin)?;
    Ok(())
}

#[tokio::test]
async fn a_leader_keeps_its_term_when_its_token_expires_and_a_standby_still_takes_over() -> Result<()> {
    let token_ttl = Duration::from_secs(1);
    let mut etcd = EtcdServer::start_with(EtcdOptions { auth_token_ttl: Some(token_ttl), ..quick() }).await?;
    etcd.add_user("bellwether", "secret", LOCK_KEY).await?;
    etcd.enable_auth().await?;
    let password_file = etcd.path("password");
    std::fs::write(&password_file, "secret\n")?;
    let user = ["--etcd-user", "bellwether", "--etcd-password-file", path(&password_file)?];
    let mut flock = Flock::new(etcd.endpoints(), &[&["--lease-ttl", "6s"], &VALID_UNTIL_UNTIL, &user]);
    flock.join("leader")?;
    flock.join("standby")?;
    let lead = flock.lead_of_one("leader", Moment::now())?;
    // Tokens are looked through every second; unused for longer than they live they are gone.
    wait_until(Moment::now().after(4 * token_ttl));
    flock.wait_for_renewals("leader", 3)?;
    let answers = flock.poller("leader")?.samples_since(lead.sample.sent);
    ensure!(answers.iter().all(|sample| sample.leading().is_some()), "it stood down");
    flock.sidecar("leader")?.kill9()?;
    let next = flock.next_term(&lead)?;
    ensure!(next.name == "standby");
    flock.end()?;
    Ok(())
}
