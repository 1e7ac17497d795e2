//! The leader goes of its own will, or dies.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use support::Moment;
use support::etcd::{EtcdCluster, KeyTimeline};

use super::figures::{Figures, trials};
use super::scene::{five, three_members, three_members_on_disk};
use crate::flock::{Flock, LOCK_KEY, Lead, NEVER_EXPIRES, PATIENCE, VALID_UNTIL_UNTIL, figure};

/// Beside the answers that have to expire: taking the label off and revoking, and the claim of the heir. What
/// remains of half a second is for the machine.
const HANDOVER: Duration = Duration::from_millis(500);
/// The default.
const ANSWER_VALIDITY: Duration = Duration::from_secs(1);
/// After an expired lease: etcd looks every 500 ms, revokes through its majority, and the heir claims; should it
/// not, the others wait 200 ms before they do. What remains of two seconds is for the machine.
const EXPIRY: Duration = Duration::from_secs(2);

/// The leader gets SIGTERM, and who led comes back at the end of the line.
async fn leaders_are_told_to_stop(etcd: &EtcdCluster, how: &str, validity: Duration) -> Result<()> {
    let observed = KeyTimeline::start(etcd.endpoint(etcd.wait_for_leader().await?), LOCK_KEY.to_owned())?;
    let validity_text = format!("{}ms", validity.as_millis());
    let (mut flock, mut lead) = five(etcd.endpoints(), &[&NEVER_EXPIRES, &["--answer-validity", &validity_text]])?;
    let what = format!("SIGTERM of the leader, answers valid for {validity:?}{how}: time without a leader");
    let mut figures = Figures::new(&what, Duration::ZERO..=validity + HANDOVER);
    let mut splits = Vec::new();
    for _ in 0..trials(4)? {
        let told = Moment::now();
        flock.sidecar(&lead.name)?.signal(Signal::SIGTERM)?;
        let next = flock.next_term(&lead)?;
        let split = Split::of(&flock, &observed, &lead, &next)?;
        let why = format!("{split:.0?}\n{}", flock.circumstances(told, &[&lead, &next])?);
        figures.add(flock.time_without_leader(&lead, &next)?, why);
        splits.push(split);
        let status = flock.sidecar(&lead.name)?.wait_exit(PATIENCE)?;
        ensure!(status.code() == Some(0), "{status}");
        flock.come_back(&lead.name)?;
        lead = next;
    }
    flock.end()?;
    Split::tell(&what, &splits);
    figures.judge()
}

/// Where the time without a leader goes once the answers have expired, by what an observer's watch of the lock key saw.
#[derive(Clone, Copy, Debug)]
struct Split {
    /// From the last answer's expiry until the key is gone.
    released: Duration,
    /// From there until it is there again.
    claimed: Duration,
    /// From there to the first 200.
    answered: Duration,
}

impl Split {
    fn of(flock: &Flock, observed: &KeyTimeline, old: &Lead, next: &Lead) -> Result<Self> {
        let last = flock.last_of_reign(old)?;
        let expired = last.sent.after(last.leading().map_or(Duration::ZERO, |answer| answer.valid_for));
        let claimed = observed.wait_for(PATIENCE, |change| u64::try_from(change.revision) == Ok(next.term.1))?;
        let changes = observed.changes();
        let gone = changes.iter().rfind(|change| change.value.is_none() && change.revision < claimed.revision);
        let gone = gone.context("the lock was let go of")?.seen;
        Ok(Self {
            released: gone.since(expired),
            claimed: claimed.seen.since(gone),
            answered: next.sample.received.since(claimed.seen),
        })
    }

    fn tell(what: &str, splits: &[Self]) {
        let tell = |part: fn(&Self) -> Duration| {
            let mut all: Vec<_> = splits.iter().map(part).collect();
            all.sort_unstable();
            let longest = all.last().copied().unwrap_or_default();
            format!("{:.1?} (longest {longest:.1?})", all.get(all.len() / 2).copied().unwrap_or_default())
        };
        let (released, claimed, answered) = (tell(|it| it.released), tell(|it| it.claimed), tell(|it| it.answered));
        let split = format!("answers expired to key gone {released}, to claimed {claimed}, to the next 200 {answered}");
        figure(&format!("{what}, of which medians"), split);
    }
}

#[tokio::test]
async fn on_sigterm_nobody_leads_for_at_most_the_answer_validity_and_half_a_second() -> Result<()> {
    let etcd = EtcdCluster::start(three_members()).await?;
    leaders_are_told_to_stop(&etcd, "", ANSWER_VALIDITY).await
}

#[tokio::test]
async fn on_sigterm_with_answers_that_promise_nothing_nobody_leads_for_at_most_half_a_second() -> Result<()> {
    let etcd = EtcdCluster::start(three_members()).await?;
    leaders_are_told_to_stop(&etcd, "", Duration::ZERO).await
}

#[tokio::test]
async fn on_sigterm_the_bound_holds_with_members_that_wait_for_their_disks() -> Result<()> {
    let etcd = EtcdCluster::start(three_members_on_disk()).await?;
    leaders_are_told_to_stop(&etcd, ", disks waited for", ANSWER_VALIDITY).await
}

/// The leader is killed. Its last keep-alive is K old at most, so the lease has T − K left at least, and T at most.
async fn leaders_are_killed(ttl: u64, in_make_test: usize) -> Result<()> {
    let etcd = EtcdCluster::start(three_members()).await?;
    let lease = ["--lease-ttl", &format!("{ttl}s")];
    let (mut flock, mut lead) = five(etcd.endpoints(), &[&lease, &VALID_UNTIL_UNTIL])?;
    let (ttl, interval) = (Duration::from_secs(ttl), Duration::from_secs(ttl) / 3);
    let what = format!("kill -9 of the leader, lease {ttl:?}: to the next leader's 200");
    let mut figures = Figures::new(&what, ttl.saturating_sub(interval)..=ttl + EXPIRY);
    for _ in 0..trials(in_make_test)? {
        let killed = Moment::now();
        flock.sidecar(&lead.name)?.kill9()?;
        let next = flock.next_term(&lead)?;
        figures.add(next.sample.received.since(killed), flock.circumstances(killed, &[&next])?);
        flock.come_back(&lead.name)?;
        lead = next;
    }
    flock.end()?;
    figures.judge()
}

#[tokio::test]
async fn after_kill_9_another_leads_when_a_short_lease_has_expired_and_not_sooner() -> Result<()> {
    leaders_are_killed(3, 4).await
}

#[tokio::test]
async fn after_kill_9_another_leads_when_the_lease_of_15_s_has_expired_and_not_sooner() -> Result<()> {
    leaders_are_killed(15, 1).await
}
