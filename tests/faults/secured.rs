//! etcd behind TLS, mutual TLS, and authentication with tokens that expire.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use support::Moment;
use support::etcd::{ClientTls, EtcdCluster, EtcdOptions, EtcdServer};

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

/// An etcd that wants client certificates, and the arguments for it: the authority, and the client's own.
async fn mutual_tls() -> Result<(EtcdServer, Vec<String>, Vec<String>)> {
    let etcd = EtcdServer::start_with(EtcdOptions { tls: ClientTls::Mutual, ..quick() }).await?;
    let ca = ["--etcd-ca-file", path(&etcd.ca_file())?].map(str::to_owned).to_vec();
    let (cert_file, key_file) = (etcd.client_cert_file(), etcd.client_key_file());
    let client = ["--etcd-cert-file", path(&cert_file)?, "--etcd-key-file", path(&key_file)?];
    let client = client.map(str::to_owned).to_vec();
    Ok((etcd, ca, client))
}

fn borrowed(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn an_election_over_mutual_tls() -> Result<()> {
    let (etcd, ca, client) = mutual_tls().await?;
    let timings = ["--lease-ttl", "5s", "--answer-validity", "0s"];
    one_leads_and_hands_over(Flock::new(etcd.endpoints(), &[&timings, &borrowed(&ca), &borrowed(&client)]))
}

#[tokio::test]
async fn a_sidecar_without_the_client_certificate_says_what_it_lacks_and_does_not_lead() -> Result<()> {
    let (etcd, ca, _) = mutual_tls().await?;
    let mut flock = Flock::new(etcd.endpoints(), &[&["--lease-ttl", "5s"], &borrowed(&ca)]);
    let begin = Moment::now();
    let options = flock.options("stranger");
    flock.join_as("stranger", &options)?;
    flock.wait_for_log("stranger", "--etcd-cert-file and --etcd-key-file")?;
    flock.nobody_led_since(begin)?;
    Ok(())
}

#[tokio::test]
async fn a_leader_keeps_its_term_when_its_certificate_is_rotated_and_it_is_told_by_sighup() -> Result<()> {
    let (etcd, ca, client) = mutual_tls().await?;
    let tls = [borrowed(&ca), borrowed(&client)].concat();
    let mut flock = Flock::new(etcd.endpoints(), &[&["--lease-ttl", "6s"], &VALID_UNTIL_UNTIL, &tls]);
    flock.join("only")?;
    let lead = flock.lead_since(Moment::now())?;
    let fresh = etcd.authority.as_ref().context("TLS is on")?.client("rotated")?;
    std::fs::write(etcd.client_cert_file(), fresh.cert_pem)?;
    std::fs::write(etcd.client_key_file(), fresh.key_pem)?;
    flock.sidecar("only")?.signal(Signal::SIGHUP)?;
    flock.wait_for_log("only", "being read again")?;
    flock.wait_for_renewals("only", 3)?;
    let answers = flock.poller("only")?.samples_since(lead.sample.sent);
    ensure!(answers.iter().all(|sample| sample.leading().is_some()), "it stood down");
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 1, "{audit}");
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

#[tokio::test]
async fn a_leader_keeps_its_term_while_each_of_three_members_forgets_its_tokens_and_a_standby_still_takes_over()
-> Result<()> {
    let mut etcd = EtcdCluster::start(EtcdOptions { members: 3, ..quick() }).await?;
    etcd.add_user("bellwether", "secret", LOCK_KEY).await?;
    etcd.enable_auth().await?;
    let password_file = etcd.path("password");
    std::fs::write(&password_file, "secret\n")?;
    let user = ["--etcd-user", "bellwether", "--etcd-password-file", path(&password_file)?];
    let lease = ["--lease-ttl", "9s", "--keepalive-interval", "1s"];
    let mut flock = Flock::new(etcd.endpoints(), &[&lease, &VALID_UNTIL_UNTIL, &user]);
    flock.join("leader")?;
    flock.join("standby")?;
    let lead = flock.lead_of_one("leader", Moment::now())?;
    for member in 0..3 {
        // Each member has tokens of its own, in memory.
        etcd.kill(member);
        etcd.restart(member)?;
        etcd.wait_until_ready().await?;
        flock.wait_for_renewals("leader", 2)?;
        flock.wait_for_renewals("standby", 2)?;
    }
    let answers = flock.poller("leader")?.samples_since(lead.sample.sent);
    ensure!(answers.iter().all(|sample| sample.leading().is_some()), "it stood down");
    flock.sidecar("leader")?.kill9()?;
    let next = flock.next_term(&lead)?;
    ensure!(next.name == "standby");
    flock.end()?;
    Ok(())
}
