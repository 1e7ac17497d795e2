//! Operators and foreign programs that touch the lock.
//!
//! Whoever deletes the key or revokes the lease takes the lock from a leader that has not let it go: for the
//! delay of one watch event two can lead. That is bounded by `until`, and measured.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use support::Moment;
use support::etcd::EtcdServer;
use tokio::sync::oneshot;

use crate::flock::{Flock, LOCK_KEY, Lead, NEVER_EXPIRES, VALID_UNTIL_UNTIL, figure, quick, wait_for};

/// TTL − margin of the stories in which the lock is taken away: no renewal lets a leader go on for longer.
const LEADS_ON: Duration = Duration::from_secs(30 - 6);

/// A leader and its heir, polled every millisecond.
async fn leader_and_heir() -> Result<(EtcdServer, Flock, Lead)> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let mut flock =
        Flock::new(etcd.endpoints(), &[&["--lease-ttl", "30s", "--safety-margin", "6s"], &VALID_UNTIL_UNTIL])
            .polled_every(Duration::from_millis(1));
    flock.join("old")?;
    flock.join("heir")?;
    let old = flock.lead_of_one("old", Moment::now())?;
    Ok((etcd, flock, old))
}

/// After the lock was taken away between these two moments.
fn the_old_leader_stops_and_the_heir_leads(
    flock: Flock,
    old: &Lead,
    how: &str,
    before: Moment,
    after: Moment,
) -> Result<()> {
    let no = flock.not_leading_since("old", before)?;
    figure(&format!("{how}: from its answer to the old leader's 503"), format_args!("{:?}", no.received.since(after)));
    let new = flock.next_term(old)?;
    ensure!(new.name == "heir", "{} leads", new.name);
    figure(
        &format!("{how}: from its answer to the heir's 200"),
        format_args!("{:?}", new.sample.received.since(after)),
    );
    let audit = flock.end_of_a_story_with_a_thief()?;
    let [first, second] = audit.reigns.as_slice() else { anyhow::bail!("{audit}") };
    let both = first.end_latest.since(second.begin_earliest);
    figure(&format!("{how}: both answered 200 for at most"), format_args!("{both:?}"));
    // The last renewal that can have been confirmed was sent before the lock was gone.
    let until = after.after(LEADS_ON);
    ensure!(first.end_earliest < until, "{first} went on beyond until");
    Ok(())
}

#[tokio::test]
async fn when_an_operator_deletes_the_lock_key_the_leader_stops_and_the_heir_leads_in_a_higher_term() -> Result<()> {
    let (etcd, flock, old) = leader_and_heir().await?;
    let before = Moment::now();
    etcd.delete(LOCK_KEY).await?;
    the_old_leader_stops_and_the_heir_leads(flock, &old, "lock key deleted", before, Moment::now())
}

#[tokio::test]
async fn when_an_operator_revokes_the_lease_the_leader_stops_and_the_heir_leads_in_a_higher_term() -> Result<()> {
    let (etcd, flock, old) = leader_and_heir().await?;
    let lease = etcd.get_kv(LOCK_KEY).await?.context("the lock is held")?.lease();
    let before = Moment::now();
    etcd.revoke(lease).await?;
    the_old_leader_stops_and_the_heir_leads(flock, &old, "lease revoked", before, Moment::now())
}

#[tokio::test]
async fn a_leader_whose_key_was_put_by_somebody_else_stops_and_leads_again_when_that_is_gone() -> Result<()> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let mut flock = Flock::new(etcd.endpoints(), &[&["--lease-ttl", "2s"]]);
    flock.join("only")?;
    let old = flock.lead_of_one("only", Moment::now())?;
    let before = Moment::now();
    etcd.put(LOCK_KEY, "by-hand", 0).await?;
    flock.not_leading_since("only", before)?;
    flock.wait_for("only", |status, body| status == 503 && body["state"] == "standby")?;
    flock.wait_for_log("only", &format!("etcdctl del {LOCK_KEY}"))?;
    etcd.delete(LOCK_KEY).await?;
    let again = flock.next_term(&old)?;
    ensure!(again.name == "only");
    flock.end()?;
    Ok(())
}

#[tokio::test]
async fn a_lock_key_without_a_lease_blocks_everybody_loudly_until_it_is_deleted() -> Result<()> {
    let etcd = EtcdServer::start_with(quick()).await?;
    etcd.put(LOCK_KEY, "left-behind", 0).await?;
    let begin = Moment::now();
    let mut flock = Flock::new(etcd.endpoints(), &[&["--lease-ttl", "2s"]]);
    for name in ["one", "two"] {
        flock.join(name)?;
        flock.wait_for_log(name, &format!("etcdctl del {LOCK_KEY}"))?;
        let status = flock.sidecar(name)?.status()?;
        ensure!(status["not_leading"].as_str().is_some_and(|why| why.contains("left-behind")), "{status}");
    }
    // Renewals go on, and the lock is read again and again: a lease's life of it.
    flock.wait_for_renewals("two", 3)?;
    flock.nobody_led_since(begin)?;
    etcd.delete(LOCK_KEY).await?;
    flock.lead_since(Moment::now())?;
    flock.end()?;
    Ok(())
}

#[tokio::test]
async fn a_second_sidecar_of_one_identity_is_refused_loudly_and_takes_over_when_the_first_is_gone() -> Result<()> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let mut flock = Flock::new(etcd.endpoints(), &[&["--lease-ttl", "3s"], &VALID_UNTIL_UNTIL]);
    flock.join("twin")?;
    let first = flock.lead_of_one("twin", Moment::now())?;
    let same = flock.options("twin");
    flock.join_as("other twin", &same)?;
    flock.wait_for_log("other twin", "another live candidate has this identity")?;
    let told = flock.wait_for("other twin", |status, _| status == 503)?;
    ensure!(told["leading"] == false && told["name"] == "", "it must not read its own name there: {told}");
    flock.sidecar("twin")?.kill9()?;
    let second = flock.next_term(&first)?;
    ensure!(second.name == "other twin");
    flock.end()?;
    Ok(())
}

/// A program that takes the lock with the same recipe and a library of its own.
struct Foreigner {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
    term: i64,
}

impl Foreigner {
    const NAME: &'static str = "foreign-program";

    /// Takes the lock and keeps its lease alive until it is stopped.
    fn start(endpoint: String) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (claimed, term) = std::sync::mpsc::channel();
        let thread = thread::Builder::new().name("foreigner".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(Self::reign(endpoint, &claimed, stopped))
        })?;
        let term = term.recv().context("the foreign program did not get the lock")?;
        Ok(Self { stop: Some(stop), thread: Some(thread), term })
    }

    async fn reign(
        endpoint: String,
        claimed: &std::sync::mpsc::Sender<i64>,
        mut stopped: oneshot::Receiver<()>,
    ) -> Result<()> {
        let mut client = etcd_client::Client::connect([endpoint], None).await?;
        let lease = client.lease_grant(2, None).await?.id();
        let put = TxnOp::put(LOCK_KEY, Self::NAME, Some(PutOptions::new().with_lease(lease)));
        let free = Compare::create_revision(LOCK_KEY, CompareOp::Equal, 0);
        let answer = client.txn(Txn::new().when([free]).and_then([put])).await?;
        ensure!(answer.succeeded(), "somebody else holds the lock");
        claimed.send(answer.header().context("an answer without a header")?.revision())?;
        let (mut keeper, mut answers) = client.lease_keep_alive(lease).await?;
        loop {
            keeper.keep_alive().await?;
            answers.message().await?;
            tokio::select! {
                _ = &mut stopped => return Ok(()),
                () = tokio::time::sleep(Duration::from_millis(300)) => {}
            }
        }
    }

    /// It goes without letting go: its lease has to expire.
    fn vanish(mut self) -> Result<()> {
        drop(self.stop.take());
        let thread = self.thread.take().context("vanishes once")?;
        thread.join().map_err(|_panic| anyhow::anyhow!("the foreign program panicked"))?
    }
}

#[tokio::test]
async fn a_foreign_program_that_holds_the_lock_is_named_and_followed_in_a_higher_term() -> Result<()> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let foreigner = Foreigner::start(etcd.endpoint())?;
    let begin = Moment::now();
    let mut flock = Flock::new(etcd.endpoints(), &[&["--lease-ttl", "2s"]]);
    flock.join("ours")?;
    let told = flock.wait_for("ours", |status, body| status == 503 && body["name"] == Foreigner::NAME)?;
    ensure!(told["term"].as_i64() == Some(foreigner.term), "{told}");
    // Longer than its lease lasts unless it is kept alive.
    flock.wait_for_renewals("ours", 5)?;
    flock.nobody_led_since(begin)?;
    let term = foreigner.term;
    foreigner.vanish()?;
    let ours = flock.lead_of_one("ours", begin)?;
    ensure!(i64::try_from(ours.term.1)? > term);
    flock.end()?;
    Ok(())
}

#[tokio::test]
async fn a_sidecar_keeps_out_a_foreign_program_that_uses_the_same_recipe() -> Result<()> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let mut flock = Flock::new(etcd.endpoints(), &[&NEVER_EXPIRES, &["--answer-validity", "0s"]]);
    flock.join("ours")?;
    let ours = flock.lead_of_one("ours", Moment::now())?;
    ensure!(Foreigner::start(etcd.endpoint()).is_err(), "it took a lock that is held");
    flock.sidecar("ours")?.signal(nix::sys::signal::Signal::SIGTERM)?;
    wait_for("the lock is free for the foreign program", || Foreigner::start(etcd.endpoint()).is_ok())?;
    let value = etcd.get_kv(LOCK_KEY).await?.context("the foreign program holds the lock")?;
    ensure!(value.value() == Foreigner::NAME.as_bytes() && value.create_revision() > i64::try_from(ours.term.1)?);
    flock.end()?;
    Ok(())
}
