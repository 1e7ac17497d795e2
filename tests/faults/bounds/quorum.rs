//! etcd loses its majority for a minute.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use support::Moment;
use support::etcd::EtcdCluster;

use super::figures::Figures;
use super::scene::{five, three_members};
use crate::flock::{Flock, Lead, VALID_UNTIL_UNTIL, figure, wait_until};

/// The default lease.
const TTL: Duration = Duration::from_secs(15);
/// TTL − margin: from the last keep-alive that can have been answered.
const LEADS_ON: Duration = Duration::from_secs(15 - 3);
/// Without a majority for so long: four leases.
const OUTAGE: Duration = Duration::from_secs(60);

/// What one event of a watch takes on a busy machine: old versions of etcd revoke leases that are alive when they thaw.
const WATCH_EVENT: Duration = Duration::from_millis(100);

/// One way to lose a majority and get it back.
#[derive(Clone, Copy)]
enum Way {
    Killed,
    Frozen,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Frozen => "frozen",
        }
    }
}

struct Story {
    way: Way,
    etcd: EtcdCluster,
    /// The leader of etcd, and one who follows it.
    lost: [usize; 2],
    flock: Flock,
    lead: Lead,
    lost_before: Moment,
    until_at_most: Moment,
    back: Moment,
}

impl Story {
    async fn begin(way: Way) -> Result<Self> {
        let etcd = EtcdCluster::start(three_members()).await?;
        let (flock, lead) = five(etcd.endpoints(), &[&VALID_UNTIL_UNTIL])?;
        let leader = etcd.wait_for_leader().await?;
        let lost = [leader, (leader + 1) % 3];
        let now = Moment::now();
        Ok(Self { way, etcd, lost, flock, lead, lost_before: now, until_at_most: now, back: now })
    }

    fn lose_the_majority(&mut self) -> Result<()> {
        self.lost_before = Moment::now();
        for member in self.lost {
            match self.way {
                Way::Killed => self.etcd.kill(member),
                Way::Frozen => self.etcd.freeze(member)?,
            }
        }
        self.until_at_most = Moment::now().after(LEADS_ON);
        Ok(())
    }

    fn bring_it_back(&mut self) -> Result<()> {
        self.back = Moment::now();
        for member in self.lost {
            match self.way {
                Way::Killed => self.etcd.restart(member)?,
                Way::Frozen => self.etcd.thaw(member)?,
            }
        }
        Ok(())
    }

    async fn judge(mut self) -> Result<()> {
        let way = self.way.name();
        let again = self.flock.lead_since(self.back)?;
        let mut figures = Figures::new(
            &format!("majority {way} for {OUTAGE:?}: back to the next 200"),
            Duration::ZERO..=TTL + Duration::from_secs(2),
        );
        figures.add(again.sample.received.since(self.back), self.flock.circumstances(self.back, &[&again])?);
        ensure!(again.term >= self.lead.term, "{again:?} after {:?}", self.lead);
        let last = self.flock.last_before(&self.lead.name, self.back)?.since(self.lost_before);
        figure(&format!("majority {way}: to the last 200 of before"), format_args!("{last:.3?}"));
        let how = if again.term == self.lead.term { "the same term" } else { "a higher term" };
        figure(&format!("majority {way} for {OUTAGE:?}"), format_args!("{how} afterwards"));
        for name in self.flock.names() {
            ensure!(self.flock.sidecar(&name)?.exited()?.is_none(), "{name} has exited");
            let led_beyond = self
                .flock
                .leads_so_far(&name)?
                .into_iter()
                .find(|lead| self.until_at_most <= lead.sample.sent && lead.sample.received < self.back);
            ensure!(led_beyond.is_none(), "{led_beyond:?} comes after until");
        }
        // It is to stay so: everybody renews, so that what thawed members had queued has come through.
        self.etcd.wait_until_ready().await?;
        let renewals = self.flock.renewals()?;
        self.flock.wait_until_all_renew(&renewals)?;
        let may_overlap = matches!(self.way, Way::Frozen) && self.etcd.trusts_a_stalled_leader().await?;
        let audit = if may_overlap { self.flock.end_of_a_story_with_a_thief()? } else { self.flock.end()? };
        figure(&format!("majority {way}"), &audit);
        for (first, second) in &audit.overlaps {
            let both = first.end_latest.since(second.begin_earliest);
            ensure!(both <= WATCH_EVENT, "both led for {both:?}: {first} and {second}");
        }
        figures.judge()
    }
}

impl Flock {
    /// When its last 200 before this moment came in.
    fn last_before(&self, name: &str, moment: Moment) -> Result<Moment> {
        let received = self.leads_so_far(name)?.into_iter().map(|lead| lead.sample.received);
        received.filter(|received| *received < moment).max().context("it led before")
    }
}

#[tokio::test]
async fn after_a_minute_without_a_majority_somebody_leads_again_and_nobody_did_beyond_until() -> Result<()> {
    let mut killed = Story::begin(Way::Killed).await?;
    let mut frozen = Story::begin(Way::Frozen).await?;
    killed.lose_the_majority()?;
    frozen.lose_the_majority()?;
    wait_until(Moment::now().after(OUTAGE));
    killed.bring_it_back()?;
    frozen.bring_it_back()?;
    killed.judge().await?;
    frozen.judge().await
}
