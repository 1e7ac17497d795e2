//! Two hundred failovers in many ways, three sidecars, one etcd, one API server: at rest exactly one pod carries the
//! leader's label, and it is the one whose sidecar answers 200.
//!
//! `BELLWETHER_FAILOVERS=<n>` is how many, `BELLWETHER_FAILOVERS_SEED=<n>` repeats the order that a run has printed.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use support::audit::Reign;
use support::kubernetes::{LoggedRequest, PodView};
use support::{Direction, Flow, Moment, Sample, audit};

use crate::stage::{
    ELECTION, EXPIRES_SOON, PATIENCE, PROMISES_LITTLE, RIGHT_WITHIN, ROLE, Rest, Stage, TERM, figure, wait_for,
    wait_until,
};

/// How many failovers a run has unless it is told otherwise.
const FAILOVERS: usize = 200;
/// After so many failovers nothing is done for a while.
const RESTS_EVERY: usize = 10;
const RESTS_FOR: Duration = Duration::from_millis(500);
const PODS: [&str; 3] = ["web-0", "web-1", "web-2"];

/// How the leader goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    Terminated,
    Resigned,
    KeyDeleted,
    LeaseRevoked,
    /// It cannot reach etcd, and an operator deletes its key: for a while it does not know.
    Deposed,
    Killed,
    /// The same process name and pod, at once.
    KilledAndStartedAnew,
    Frozen,
    CutOffFromEtcd,
}

/// Those that take a lease's life are a third as frequent.
const WAYS: [Way; 19] = [
    Way::Terminated,
    Way::Terminated,
    Way::Terminated,
    Way::Resigned,
    Way::Resigned,
    Way::Resigned,
    Way::KeyDeleted,
    Way::KeyDeleted,
    Way::KeyDeleted,
    Way::LeaseRevoked,
    Way::LeaseRevoked,
    Way::LeaseRevoked,
    Way::Deposed,
    Way::Deposed,
    Way::Deposed,
    Way::Killed,
    Way::KilledAndStartedAnew,
    Way::Frozen,
    Way::CutOffFromEtcd,
];

impl Way {
    /// The lock is taken from a leader that has not let it go.
    const fn steals(self) -> bool {
        match self {
            Self::KeyDeleted | Self::LeaseRevoked | Self::Deposed => true,
            Self::Terminated
            | Self::Resigned
            | Self::Killed
            | Self::KilledAndStartedAnew
            | Self::Frozen
            | Self::CutOffFromEtcd => false,
        }
    }
}

/// What befalls the ways to the API server, until the next one leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    None,
    Reset,
    Refused,
    Silent,
    Slow,
}

/// Every second failover has none.
const TROUBLES: [Trouble; 8] = [
    Trouble::None,
    Trouble::Reset,
    Trouble::None,
    Trouble::Refused,
    Trouble::None,
    Trouble::Silent,
    Trouble::None,
    Trouble::Slow,
];

impl Trouble {
    fn begin(self, stage: &Stage) {
        for proxy in stage.proxies() {
            match self {
                Self::None => {}
                Self::Reset => proxy.cut(),
                Self::Refused => proxy.cut_and_refuse(),
                Self::Silent => proxy.black_hole(),
                Self::Slow => {
                    proxy.set(Direction::ToServer, Flow::Delay(Duration::from_millis(100)));
                    proxy.set(Direction::ToClient, Flow::Delay(Duration::from_millis(100)));
                }
            }
        }
    }
}

/// Cards that are all dealt before any is dealt again.
struct Deck<T: 'static> {
    cards: &'static [T],
    left: Vec<T>,
}

impl<T: Copy> Deck<T> {
    const fn of(cards: &'static [T]) -> Self {
        Self { cards, left: Vec::new() }
    }

    fn deal(&mut self, random: &mut Random) -> Result<T> {
        if self.left.is_empty() {
            self.left = self.cards.to_vec();
        }
        let index = random.below(self.left.len())?;
        Ok(self.left.swap_remove(index))
    }
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> Result<usize> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok(usize::try_from((word ^ (word >> 31)) % u64::try_from(bound)?)?)
    }
}

/// What a run has seen.
#[derive(Default)]
struct Ledger {
    /// From the first 200 of each leader that came in to its label.
    lag: Vec<Duration>,
    /// The same with the ways to the API server in trouble.
    lag_in_trouble: Vec<Duration>,
    /// From the last 200 of each leader that came in to its label gone.
    stale: Vec<Duration>,
    /// From when everybody had settled to when the labels were right.
    mending: Vec<Duration>,
    /// What was wrong at rest.
    wrong: Vec<String>,
    /// Terms that ended by theft.
    stolen: BTreeSet<(u64, u64)>,
}

struct Run {
    stage: Stage,
    rest: Rest,
    ledger: Ledger,
}

impl Run {
    async fn begin() -> Result<Self> {
        let mut stage = Stage::shared(&[&EXPIRES_SOON, &PROMISES_LITTLE]).await?;
        for pod in PODS {
            stage.join(pod)?;
            stage.poll(pod, Duration::from_millis(10))?;
        }
        let rest = stage.at_rest()?;
        Ok(Self { stage, rest, ledger: Ledger::default() })
    }

    async fn fail_over(&mut self, way: Way, trouble: Trouble) -> Result<()> {
        let begin = Moment::now();
        let old = self.rest.clone();
        if way.steals() {
            self.ledger.stolen.insert(old.term);
        }
        trouble.begin(&self.stage);
        self.strike(way, &old.leader).await?;
        let lead = self.next_lead(begin, old.term)?;
        for proxy in self.stage.proxies() {
            proxy.heal();
        }
        self.raise(way, &old.leader)?;
        wait_for("everybody has settled", PATIENCE, || Ok(self.stage.settled() > Some(old.term)))?;
        self.come_to_rest()?;
        if self.rest.term == lead.1 {
            self.measure(begin, &old, &lead.0, trouble)?;
        }
        Ok(())
    }

    async fn strike(&mut self, way: Way, leader: &str) -> Result<()> {
        let lock = self.stage.lock_key();
        match way {
            Way::Terminated => self.stage.sidecar(leader)?.signal(Signal::SIGTERM)?,
            Way::Resigned => ensure!(self.stage.sidecar(leader)?.resign("1s")? == 202),
            Way::KeyDeleted => drop(self.stage.etcd.delete(&lock).await?),
            Way::LeaseRevoked => {
                let held = self.stage.etcd.get_kv(&lock).await?.context("the lock is held")?;
                self.stage.etcd.revoke(held.lease()).await?;
            }
            Way::Deposed => {
                self.stage.proxy_to_etcd(leader)?.black_hole();
                self.stage.etcd.delete(&lock).await?;
            }
            Way::Killed => self.stage.sidecar(leader)?.kill9()?,
            Way::KilledAndStartedAnew => {
                self.stage.sidecar(leader)?.kill9()?;
                self.stage.sidecar(leader)?.restart()?;
            }
            Way::Frozen => self.stage.sidecar(leader)?.freeze()?,
            Way::CutOffFromEtcd => self.stage.proxy_to_etcd(leader)?.black_hole(),
        }
        Ok(())
    }

    /// The leader of before is brought back.
    fn raise(&mut self, way: Way, leader: &str) -> Result<()> {
        match way {
            Way::Terminated => {
                self.stage.sidecar(leader)?.wait_exit(PATIENCE)?;
                self.stage.sidecar(leader)?.restart()
            }
            Way::Killed => self.stage.sidecar(leader)?.restart(),
            Way::Frozen => self.stage.sidecar(leader)?.thaw(),
            Way::Deposed | Way::CutOffFromEtcd => {
                self.stage.proxy_to_etcd(leader)?.heal();
                Ok(())
            }
            Way::Resigned | Way::KeyDeleted | Way::LeaseRevoked | Way::KilledAndStartedAnew => Ok(()),
        }
    }

    /// Waits for the first 200 in a higher term.
    fn next_lead(&self, since: Moment, after: (u64, u64)) -> Result<(Sample, (u64, u64))> {
        let find = || {
            PODS.iter().find_map(|pod| {
                let samples = self.stage.poller(pod).ok()?.samples_since(since);
                let term = |sample: &Sample| sample.leading().map(|answer| (answer.epoch, answer.term));
                samples.iter().find_map(|it| term(it).filter(|term| *term > after).map(|term| (*it, term)))
            })
        };
        let found = wait_for("the next one leads", PATIENCE, || Ok(find().is_some()));
        found.with_context(|| self.stage.what_they_say())?;
        find().context("just seen")
    }

    fn come_to_rest(&mut self) -> Result<()> {
        let settled = Moment::now();
        match self.stage.at_rest_within(RIGHT_WITHIN) {
            Ok(rest) => self.rest = rest,
            Err(error) => {
                self.ledger.wrong.push(format!("{error:#}"));
                self.rest = self.stage.at_rest()?;
            }
        }
        self.ledger.mending.push(Moment::now().since(settled));
        Ok(())
    }

    fn measure(&mut self, begin: Moment, old: &Rest, lead: &Sample, trouble: Trouble) -> Result<()> {
        self.stage.timeline.catch_up(PATIENCE)?;
        let changes = self.stage.timeline.changes();
        let of = |pod: &str| changes.iter().filter(|it| it.seen >= begin && it.pod.name == pod).collect::<Vec<_>>();
        let leads = |pod: &PodView, term: (u64, u64)| {
            pod.label(ROLE) == Some("leader") && pod.annotation(TERM) == Some(&format!("{}/{}", term.0, term.1))
        };
        let labelled = of(&self.rest.leader).into_iter().find(|it| leads(&it.pod, self.rest.term));
        let lag = labelled.context("the leader is labelled")?.seen.since(lead.received);
        match trouble {
            Trouble::None => self.ledger.lag.push(lag),
            Trouble::Reset | Trouble::Refused | Trouble::Silent | Trouble::Slow => self.ledger.lag_in_trouble.push(lag),
        }
        let last = self
            .stage
            .poller(&old.leader)?
            .samples()
            .into_iter()
            .rev()
            .find(|sample| sample.leading().is_some_and(|answer| (answer.epoch, answer.term) == old.term));
        let gone = of(&old.leader).into_iter().find(|it| !leads(&it.pod, old.term));
        let (last, gone) = (last.context("it led")?, gone.context("its label is gone, or in another term")?);
        self.ledger.stale.push(gone.seen.since(last.received));
        Ok(())
    }

    /// Nothing is done for a while, and nothing changes.
    fn is_still_at_rest(&mut self) {
        wait_until(Moment::now().after(RESTS_FOR));
        match self.stage.look() {
            Ok(rest) if rest == self.rest => {}
            Ok(rest) => self.ledger.wrong.push(format!("{:?} without cause, then {rest:?}", self.rest)),
            Err(error) => self.ledger.wrong.push(format!("{error:#}")),
        }
    }
}

/// Only what the contract names, and never the leader's label for another pod.
fn is_within_the_contract(request: &LoggedRequest) -> bool {
    match (request.verb.as_str(), request.resource.as_str()) {
        ("get" | "list" | "watch", "pods") => true,
        ("create", "events") => true,
        ("patch", "pods") => {
            let keys =
                |part: &Value| part.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect::<Vec<_>>();
            let metadata = &request.body["metadata"];
            let own = request.pod.as_deref() == Some(request.name.as_str());
            let labels = if own { &[ROLE, ELECTION][..] } else { &[ROLE] };
            keys(&request.body) == ["metadata"]
                && keys(metadata).iter().all(|key| ["resourceVersion", "labels", "annotations"].contains(&key.as_str()))
                && metadata["resourceVersion"].is_string()
                && keys(&metadata["labels"]).iter().all(|key| labels.contains(&key.as_str()))
                && keys(&metadata["annotations"]).iter().all(|key| key == TERM)
                && (own || metadata["labels"][ROLE].is_null())
        }
        _ => false,
    }
}

fn distribution(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a place in a list of a few hundred"
        )]
        let index = (times.len() as f64 * part) as usize;
        times.get(index.min(times.len().saturating_sub(1))).copied().unwrap_or_default()
    };
    let values = format!("p50 {:?}, p90 {:?}, p99 {:?}, max {:?}", at(0.5), at(0.9), at(0.99), at(1.0));
    figure(&format!("{what}, {} times", times.len()), values);
}

fn from_environment(name: &str) -> Result<Option<u64>> {
    std::env::var(name).ok().map(|text| text.parse().with_context(|| format!("{name}={text}"))).transpose()
}

#[tokio::test]
async fn at_rest_after_each_of_200_failovers_exactly_the_leaders_pod_carries_the_label() -> Result<()> {
    let count = from_environment("BELLWETHER_FAILOVERS")?.map_or(Ok(FAILOVERS), usize::try_from)?;
    let seed =
        from_environment("BELLWETHER_FAILOVERS_SEED")?.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    figure("failovers", format_args!("{count} in the order of BELLWETHER_FAILOVERS_SEED={seed}"));
    let mut random = Random(seed);
    let (mut ways, mut troubles) = (Deck::of(&WAYS), Deck::of(&TROUBLES));
    let mut run = Run::begin().await?;
    for number in 1..=count {
        let (way, trouble) = (ways.deal(&mut random)?, troubles.deal(&mut random)?);
        let what = || format!("failover {number} of {count}, seed {seed}: {way:?}, API server {trouble:?}");
        run.fail_over(way, trouble).await.with_context(what)?;
        if number % RESTS_EVERY == 0 {
            run.is_still_at_rest();
        }
    }
    let Run { stage, ledger, .. } = run;
    distribution("label behind the first 200 of a leader", ledger.lag);
    distribution("the same with the ways to the API server in trouble", ledger.lag_in_trouble);
    distribution("label on its pod after a leader's last 200", ledger.stale);
    distribution("labels right after everybody had settled", ledger.mending);
    figure("wrong labels at rest", ledger.wrong.len());
    ensure!(ledger.wrong.is_empty(), "seed {seed}: {:#?}", ledger.wrong);
    nobody_overstepped(&stage)?;
    two_pods_carried_the_label_at_most_for_a_moment(&stage)?;
    let judgement = nobody_was_labelled_in_a_term_that_it_did_not_lead(&stage, &ledger.stolen);
    judgement.with_context(|| format!("seed {seed}"))
}

fn nobody_overstepped(stage: &Stage) -> Result<()> {
    let requests = stage.server().requests(&stage.namespace)?;
    let beyond: Vec<_> = requests.iter().filter(|it| it.code == 403 || !is_within_the_contract(it)).collect();
    ensure!(beyond.is_empty(), "{beyond:#?}");
    figure("requests to the API server, all within the contract", requests.len());
    Ok(())
}

fn two_pods_carried_the_label_at_most_for_a_moment(stage: &Stage) -> Result<()> {
    stage.timeline.catch_up(PATIENCE)?;
    let carriers = stage.timeline.carriers(ROLE, "leader");
    let together = carriers.windows(2).filter_map(|pair| match pair {
        [(begin, pods), (end, _)] if pods.len() > 1 => Some(end.since(*begin)),
        _ => None,
    });
    let together: Vec<_> = together.collect();
    figure("times that two pods carried the label", format_args!("{}: {together:?}", together.len()));
    ensure!(together.iter().all(|lasted| *lasted < RIGHT_WITHIN), "{together:?}");
    Ok(())
}

/// And the promise of `/leader` was kept, except by those whose lock was stolen.
fn nobody_was_labelled_in_a_term_that_it_did_not_lead(stage: &Stage, stolen: &BTreeSet<(u64, u64)>) -> Result<()> {
    let mut seen = Vec::new();
    for pod in PODS {
        seen.push((pod, stage.poller(pod)?.samples()));
    }
    let audit = audit(seen.iter().map(|(pod, samples)| (*pod, samples.as_slice())));
    ensure!(audit.terms_not_growing.is_empty(), "{audit}");
    let is_stolen = |reign: &Reign| stolen.contains(&reign.term);
    let broken = audit.overlaps.iter().chain(&audit.broken_promises);
    let broken: Vec<_> = broken.filter(|(first, second)| !is_stolen(first) && !is_stolen(second)).collect();
    ensure!(broken.is_empty(), "{broken:?}");
    for change in stage.timeline.changes().iter().filter(|it| !it.deleted && it.pod.label(ROLE) == Some("leader")) {
        let is_its = |it: &Reign| {
            it.leader == change.pod.name && change.pod.annotation(TERM) == Some(&format!("{}/{}", it.term.0, it.term.1))
        };
        ensure!(audit.reigns.iter().any(is_its), "{change:?} is in no term that it led");
    }
    figure("reigns", audit.reigns.len());
    Ok(())
}
