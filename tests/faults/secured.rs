//! etcd behind TLS, mutual TLS, and authentication with tokens that expire.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use support::certificates::Authority;
use support::etcd::{ClientTls, EtcdCluster, EtcdOptions, EtcdServer};
use support::{Moment, Proxy};

use crate::certificates::{authority, renew_the_clients, renew_the_servers};
use crate::flock::{Flock, LOCK_KEY, Lead, PATIENCE, VALID_UNTIL_UNTIL, quick, wait_for, wait_until};

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

/// The same of three members, each of which can be restarted while the others go on.
async fn three_with_mutual_tls() -> Result<(EtcdCluster, Flock, Lead)> {
    let etcd = EtcdCluster::start(EtcdOptions { members: 3, tls: ClientTls::Mutual, ..quick() }).await?;
    let files = [etcd.ca_file(), etcd.client_cert_file(), etcd.client_key_file()];
    let [ca, certificate, key] = [path(&files[0])?, path(&files[1])?, path(&files[2])?];
    let tls = ["--etcd-ca-file", ca, "--etcd-cert-file", certificate, "--etcd-key-file", key];
    let (flock, lead) = leader_and_standby(&etcd, &tls)?;
    Ok((etcd, flock, lead))
}

/// Asks for renewals so often that each step of a story has some.
const RENEWED_OFTEN: [&str; 4] = ["--lease-ttl", "9s", "--keepalive-interval", "500ms"];

fn leader_and_standby(etcd: &EtcdCluster, arguments: &[&str]) -> Result<(Flock, Lead)> {
    let mut flock = Flock::new(etcd.endpoints(), &[&RENEWED_OFTEN, &VALID_UNTIL_UNTIL, arguments]);
    flock.join("leader")?;
    flock.join("standby")?;
    let lead = flock.lead_of_one("leader", Moment::now())?;
    Ok((flock, lead))
}

/// Both renew.
fn both_go_on(flock: &mut Flock) -> Result<()> {
    flock.wait_for_renewals("leader", 2)?;
    flock.wait_for_renewals("standby", 2)
}

/// As operators do: the next one when the last one is back.
async fn restart_one_after_the_other(etcd: &mut EtcdCluster, flock: &mut Flock) -> Result<()> {
    for member in 0..etcd.size() {
        etcd.kill(member);
        etcd.restart(member)?;
        etcd.wait_until_ready().await?;
        both_go_on(flock)?;
    }
    Ok(())
}

/// Both sidecars are told that their files have changed, and go on with those.
fn tell_both(flock: &mut Flock) -> Result<()> {
    for name in ["leader", "standby"] {
        let told = |log: &[String]| log.iter().filter(|line| line.contains("being read again")).count();
        let sidecar = flock.sidecar(name)?;
        let before = told(&sidecar.log());
        sidecar.signal(Signal::SIGHUP)?;
        let sidecar = &*sidecar;
        wait_for(&format!("{name} reads its files again"), || told(&sidecar.log()) > before)?;
    }
    both_go_on(flock)
}

/// The leader has answered 200 all the time, in one term and without Jeopardy; then it dies, and the standby leads.
fn it_led_all_the_time_and_the_standby_takes_over(mut flock: Flock, lead: &Lead) -> Result<()> {
    flock.has_led_since(lead, lead.sample.sent)?;
    let episodes = flock.jeopardy_episodes()?;
    ensure!(episodes == 0.0, "{episodes} episodes of Jeopardy");
    flock.sidecar("leader")?.kill9()?;
    let next = flock.next_term(lead)?;
    ensure!(next.name == "standby");
    flock.end()?;
    Ok(())
}

#[tokio::test]
async fn a_leader_keeps_its_term_while_the_members_get_new_server_certificates() -> Result<()> {
    let (mut etcd, mut flock, lead) = three_with_mutual_tls().await?;
    renew_the_servers(&etcd, authority(&etcd)?, 3)?;
    restart_one_after_the_other(&mut etcd, &mut flock).await?;
    it_led_all_the_time_and_the_standby_takes_over(flock, &lead)
}

#[tokio::test]
async fn a_leader_keeps_its_term_from_one_authority_to_the_next() -> Result<()> {
    let (mut etcd, mut flock, lead) = three_with_mutual_tls().await?;
    let next = Authority::new("the next authority")?;
    // Everybody comes to trust both.
    let both = format!("{}{}", authority(&etcd)?.cert_pem, next.cert_pem);
    trust(&mut etcd, both)?;
    tell_both(&mut flock)?;
    restart_one_after_the_other(&mut etcd, &mut flock).await?;
    // Then the certificates change: the members', which they take at once, and the clients'.
    renew_the_servers(&etcd, &next, 3)?;
    restart_one_after_the_other(&mut etcd, &mut flock).await?;
    renew_the_clients(&etcd, &next)?;
    tell_both(&mut flock)?;
    // Then nobody trusts the old authority any more.
    trust(&mut etcd, next.cert_pem.clone())?;
    tell_both(&mut flock)?;
    restart_one_after_the_other(&mut etcd, &mut flock).await?;
    it_led_all_the_time_and_the_standby_takes_over(flock, &lead)
}

#[tokio::test]
async fn who_is_not_told_of_the_next_authority_says_what_it_does_not_trust_and_stands_down() -> Result<()> {
    let etcd = EtcdServer::start_with(EtcdOptions { tls: ClientTls::Mutual, ..quick() }).await?;
    let own_ca = etcd.path("own-ca.crt");
    std::fs::copy(etcd.ca_file(), &own_ca)?;
    let files = [own_ca, etcd.client_cert_file(), etcd.client_key_file()];
    let [ca, certificate, key] = [path(&files[0])?, path(&files[1])?, path(&files[2])?];
    let tls = ["--etcd-ca-file", ca, "--etcd-cert-file", certificate, "--etcd-key-file", key];
    let proxy = Proxy::start(etcd.client_address(0).parse()?)?;
    let endpoints = vec![format!("https://{}", proxy.address())];
    let mut flock = Flock::new(endpoints, &[&["--lease-ttl", "3s"], &tls]);
    flock.join("only")?;
    let lead = flock.lead_since(Moment::now())?;
    renew_the_servers(&etcd, &Authority::new("the next authority")?, 1)?;
    proxy.cut();
    flock.wait_for_log("only", "check --etcd-ca-file")?;
    flock.not_leading_since("only", lead.sample.sent)?;
    flock.end()?;
    Ok(())
}

/// From now on members that start, sidecars that are told and this test's own clients trust these.
fn trust(etcd: &mut EtcdCluster, authorities: String) -> Result<()> {
    std::fs::write(etcd.ca_file(), &authorities)?;
    etcd.authority.as_mut().context("TLS is on")?.cert_pem = authorities;
    Ok(())
}

#[tokio::test]
async fn a_leader_keeps_its_term_when_its_certificate_is_rotated_and_it_is_told_by_sighup() -> Result<()> {
    let (etcd, ca, client) = mutual_tls().await?;
    let tls = [borrowed(&ca), borrowed(&client)].concat();
    let mut flock = Flock::new(etcd.endpoints(), &[&["--lease-ttl", "6s"], &VALID_UNTIL_UNTIL, &tls]);
    flock.join("only")?;
    let lead = flock.lead_since(Moment::now())?;
    renew_the_clients(&etcd, authority(&etcd)?)?;
    flock.sidecar("only")?.signal(Signal::SIGHUP)?;
    flock.wait_for_log("only", "being read again")?;
    flock.wait_for_renewals("only", 3)?;
    let answers = flock.poller("only")?.samples_since(lead.sample.sent);
    ensure!(answers.iter().all(|sample| sample.leading().is_some()), "it stood down");
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 1, "{audit}");
    Ok(())
}

/// A user that may touch what is the election's, and the arguments for it.
async fn with_a_user(etcd: &mut EtcdCluster) -> Result<Vec<String>> {
    etcd.add_user("bellwether", "secret", LOCK_KEY).await?;
    etcd.enable_auth().await?;
    let password_file = etcd.path("password");
    std::fs::write(&password_file, "secret\n")?;
    Ok(["--etcd-user", "bellwether", "--etcd-password-file", path(&password_file)?].map(str::to_owned).to_vec())
}

#[tokio::test]
async fn a_leader_keeps_its_term_when_its_token_expires_and_a_standby_still_takes_over() -> Result<()> {
    let token_ttl = Duration::from_secs(1);
    let mut etcd = EtcdServer::start_with(EtcdOptions { auth_token_ttl: Some(token_ttl), ..quick() }).await?;
    let user = with_a_user(&mut etcd).await?;
    let mut flock = Flock::new(etcd.endpoints(), &[&["--lease-ttl", "6s"], &VALID_UNTIL_UNTIL, &borrowed(&user)]);
    flock.join("leader")?;
    flock.join("standby")?;
    let lead = flock.lead_of_one("leader", Moment::now())?;
    // Tokens are looked through every second; unused for longer than they live they are gone.
    wait_until(Moment::now().after(4 * token_ttl));
    flock.wait_for_renewals("leader", 3)?;
    it_led_all_the_time_and_the_standby_takes_over(flock, &lead)
}

#[tokio::test]
async fn a_leader_keeps_its_term_while_each_of_three_members_forgets_its_tokens_and_a_standby_still_takes_over()
-> Result<()> {
    let mut etcd = EtcdCluster::start(EtcdOptions { members: 3, ..quick() }).await?;
    let user = with_a_user(&mut etcd).await?;
    let (mut flock, lead) = leader_and_standby(&etcd, &borrowed(&user))?;
    // Each member has tokens of its own, in memory.
    restart_one_after_the_other(&mut etcd, &mut flock).await?;
    it_led_all_the_time_and_the_standby_takes_over(flock, &lead)
}
