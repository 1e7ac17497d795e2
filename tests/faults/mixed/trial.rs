//! One trial: everybody is well; faults strike; they are healed; everybody is well again; what was seen meanwhile is
//! judged.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use support::Moment;
use support::audit::Reign;

use super::access::Security;
use super::catalogue::Kind;
use super::counter::Guard;
use super::heal::heal;
use super::judge::{Judgement, Overlap};
use super::limits::{Promise, bound_of_mixture};
use super::random::Random;
use super::scene::{FIRST_WITH_PROXIES, SIDECARS, Scene};
use super::strike::{Struck, Taken, strike};
use super::theft::{Last, Theft};
use super::witness::KeyEnd;

/// In a mixture one fault follows another within this.
const STAGGER: Duration = Duration::from_millis(1500);
/// How long the next leader is waited for before a trial is given up. Above every bound.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a leader without proxies is asked to resign until one with proxies leads: four times round the line.
const RESIGNATIONS: usize = 20;

/// A fault of a trial.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which.
    pub kind: Kind,
    /// Whom, and with what parameters.
    pub whom: String,
    /// The sidecars whose process, host or way to etcd it hit.
    pub sidecars: Vec<&'static str>,
    /// Before it struck.
    pub begin: Moment,
    /// After it was healed.
    pub end: Moment,
}

/// What was seen in a trial.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Reigns that began.
    pub failovers: usize,
    /// For how long two led, proven.
    pub certain: Duration,
    /// For how long two may have led, for all that was seen.
    pub possible: Duration,
    /// The longest time in which nobody was seen to lead.
    pub leaderless: Duration,
    /// For how long the machine had no processor for this process: so much longer it may take.
    pub held_up: Duration,
    /// Guarded increments lost.
    pub lost: u64,
    /// The lock, taken from a leader that had not let it go.
    pub thefts: Vec<Theft>,
    /// What must not be.
    pub violations: Vec<String>,
}

/// A trial that is over.
#[derive(Clone, Debug)]
pub struct Trial {
    /// From 1.
    pub number: usize,
    /// Whether the members asked who comes.
    pub security: Security,
    /// What struck.
    pub parts: Vec<Part>,
    /// Before the first fault.
    pub begin: Moment,
    /// After the last was healed.
    pub healed: Moment,
    /// All is well again.
    pub end: Moment,
    /// How long nobody may lead.
    pub bound: Duration,
    /// What is promised.
    pub promise: Promise,
    /// What was seen.
    pub seen: Seen,
}

impl Trial {
    /// Whether a fault keeps this sidecar from hearing or doing something.
    fn hits(&self, sidecar: &str) -> bool {
        // After the rotation of a certificate or a token everybody begins to watch anew.
        self.parts.iter().any(|part| part.kind.is_for_secured() || part.sidecars.contains(&sidecar))
    }

    /// The faults, in words.
    pub fn title(&self) -> String {
        self.parts.iter().map(|part| part.kind.name()).collect::<Vec<_>>().join(" + ")
    }

    /// The faults with whom they hit, in words.
    pub fn story(&self) -> String {
        self.parts.iter().map(|part| format!("{}: {}", part.kind.name(), part.whom)).collect::<Vec<_>>().join(" + ")
    }
}

/// What a trial needs to know of its run.
pub struct Terms {
    /// Its number.
    pub number: usize,
    /// Whether the members ask who comes.
    pub security: Security,
    /// This etcd revokes leases that are alive when its leader wakes up (#15247).
    pub revokes_live_leases: bool,
    /// Guarded increments lost before this trial.
    pub lost_before: u64,
}

/// Has one trial of these kinds.
///
/// # Errors
/// When a fault cannot be made or mended, or not all is well again in time.
pub async fn trial(kinds: &[Kind], terms: &Terms, scene: &mut Scene, random: &mut Random) -> Result<Trial> {
    scene.wait_until_well().await?;
    if kinds.iter().any(|kind| kind.is_for_proxies()) {
        let steered = steer_to_proxies(scene).await?;
        ensure!(steered, "nobody with proxies leads after {RESIGNATIONS} resignations");
    }
    let begin = Moment::now();
    let struck = strike_all(kinds, scene, random).await?;
    let parts = heal_in_time(struck, scene, random).await?;
    let healed = Moment::now();
    let next = scene.observers.wait_for(healed.after(PATIENCE), |seen| seen.lead_since(healed));
    next.with_context(|| format!("nobody leads within {PATIENCE:?} after the healing"))?;
    scene.wait_until_well().await?;
    let lasted = healed.since(begin);
    let bound = match kinds {
        [kind] => kind.bound(lasted),
        kinds => bound_of_mixture(kinds, lasted),
    };
    let promises = kinds.iter().map(|kind| kind.promise(terms.revokes_live_leases));
    let promise = if promises.into_iter().any(|it| it == Promise::Bounded) { Promise::Bounded } else { Promise::Whole };
    let seen = Seen::default();
    let (number, security, end) = (terms.number, terms.security, Moment::now());
    let mut trial = Trial { number, security, parts, begin, healed, end, bound, promise, seen };
    let key_end = |reign: &Reign| scene.key_end(reign);
    trial.seen = look_back(&trial, &scene.observers.judge(), key_end, scene.observers.held_up_since(begin));
    count_losses(&mut trial, terms, scene).await?;
    Ok(trial)
}

/// Has leaders resign until one with proxies leads. Whether one does.
///
/// # Errors
/// When not all is well, or a leader does not answer.
pub async fn steer_to_proxies(scene: &Scene) -> Result<bool> {
    for _ in 0..RESIGNATIONS {
        scene.wait_until_well().await?;
        let leader = scene.leader().context("somebody leads when all is well")?;
        if leader >= FIRST_WITH_PROXIES {
            return Ok(true);
        }
        // Not for longer, so that it is in line again before the trial begins.
        let status = scene.stations[leader].sidecar.resign("1s")?;
        ensure!(matches!(status, 202 | 409), "resign: {status}");
    }
    Ok(false)
}

async fn strike_all(kinds: &[Kind], scene: &mut Scene, random: &mut Random) -> Result<Vec<Struck>> {
    let mut taken = Taken::default();
    let mut struck = Vec::new();
    for kind in kinds {
        if !struck.is_empty() {
            tokio::time::sleep(random.between(Duration::ZERO, STAGGER)).await;
        }
        let one = strike(*kind, scene, random, &mut taken).await;
        struck.push(one.with_context(|| format!("striking: {}", kind.name()))?);
    }
    Ok(struck)
}

/// Heals each in its time, those that are over first.
async fn heal_in_time(struck: Vec<Struck>, scene: &mut Scene, random: &mut Random) -> Result<Vec<Part>> {
    let mut due = Vec::new();
    for one in struck {
        let (least, most) = one.kind.lasts();
        due.push((one.end.after(random.between(least, most)), one));
    }
    due.sort_by_key(|(end, _)| *end);
    let mut parts = Vec::new();
    let mut later = Vec::new();
    for (end, one) in due {
        tokio::time::sleep(end.remaining()).await;
        let (now, for_the_end): (Vec<_>, Vec<_>) = one.undo.into_iter().partition(|undo| !undo.needs_a_quorum());
        later.extend(for_the_end);
        heal(now, scene).await?;
        let sidecars = one.sidecars.iter().map(|place| SIDECARS[*place]).collect();
        parts.push(Part { kind: one.kind, whom: one.whom, sidecars, begin: one.begin, end: Moment::now() });
    }
    heal(later, scene).await?;
    Ok(parts)
}

/// What the judgement says of the time of this trial, and when the key of each reign was gone.
pub fn look_back(
    trial: &Trial,
    judgement: &Judgement,
    key_end: impl Fn(&Reign) -> Option<KeyEnd>,
    held_up: Duration,
) -> Seen {
    let within = |moment: Moment| trial.begin < moment && moment <= trial.end;
    let failovers = judgement.audit.reigns.iter().filter(|reign| within(reign.begin_latest)).count();
    let mut seen = Seen { failovers, held_up, ..Seen::default() };
    for overlap in judgement.overlaps.iter().filter(|overlap| within(overlap.second.begin_latest)) {
        seen.certain += overlap.certain;
        seen.possible += overlap.possible;
        seen.violations.extend(excess(trial, overlap, key_end(&overlap.first).is_some()));
    }
    for reign in &judgement.audit.reigns {
        if let Some(end) = key_end(reign).filter(|end| within(end.gone)) {
            let last = Last::of(reign, end, trial.hits(&reign.leader), held_up);
            seen.violations.extend(last.excess());
            seen.thefts.extend(last.theft());
        }
    }
    if trial.promise == Promise::Whole {
        let broken = judgement.audit.broken_promises.iter().filter(|(_, second)| within(second.begin_latest));
        seen.violations.extend(broken.map(|(first, second)| {
            let early = first.promised_until.since(second.begin_latest);
            let (first, second) = (who(first), who(second));
            format!("a promise was broken: {second} came {early:?} before the last answer of {first} had expired")
        }));
    }
    let fallen = judgement.audit.terms_not_growing.iter().filter(|(_, second)| within(second.begin_latest));
    let say = |(first, second): &(Reign, Reign)| format!("the term did not grow: {}, then {}", who(first), who(second));
    seen.violations.extend(fallen.map(say));
    let gaps = judgement.gaps.iter().filter(|gap| within(gap.end));
    seen.leaderless = gaps.map(super::judge::Gap::lasted).max().unwrap_or_default();
    if seen.leaderless > trial.bound + held_up {
        seen.violations.push(format!(
            "nobody led for {:?}, and the bound is {:?}, the machine having held us up for {held_up:?}",
            seen.leaderless, trial.bound
        ));
    }
    seen
}

/// A reign, in words.
pub fn who(reign: &Reign) -> String {
    format!("{} in term {}.{}", reign.leader, reign.term.0, reign.term.1)
}

/// What is too much about an overlap. How long it may be, where the lock was taken away, the end of the key decides.
fn excess(trial: &Trial, overlap: &Overlap, key_ended: bool) -> Option<String> {
    let certain = &overlap.certain;
    let (first, second) = (who(&overlap.first), who(&overlap.second));
    if !overlap.is_certain {
        return None;
    }
    match trial.promise {
        Promise::Whole => Some(format!("two leaders at one instant, for {certain:?} at least: {first} and {second}")),
        Promise::Bounded if !key_ended => Some(format!(
            "two leaders for {certain:?} at least, and nobody heard that the first one's key was gone: {first} and {second}"
        )),
        Promise::Bounded => None,
    }
}

async fn count_losses(trial: &mut Trial, terms: &Terms, scene: &Scene) -> Result<()> {
    let counted = scene.counted(Guard::Term).await?;
    trial.seen.lost = counted.lost().saturating_sub(terms.lost_before);
    if trial.seen.lost > 0 {
        trial.seen.violations.push(format!("{} guarded increments were lost: {counted:?}", trial.seen.lost));
    }
    if counted.acknowledged > counted.applied {
        trial.seen.violations.push(format!("acknowledged increments never came to be: {counted:?}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use support::Sample;

    use super::*;
    use crate::mixed::judge::judge;
    use crate::mixed::judge::tests::yes;
    use crate::mixed::lane::Lane;

    /// A trial of everything up to the 100th second.
    fn trial_of(kinds: &[Kind], promise: Promise) -> Trial {
        let at = |seconds: u64| Moment::from_nanos(seconds * 1_000_000_000);
        let hit = |kind: &Kind| if *kind == Kind::SidecarDeaf { vec!["a"] } else { Vec::new() };
        let part =
            |kind: &Kind| Part { kind: *kind, whom: String::new(), sidecars: hit(kind), begin: at(0), end: at(90) };
        let parts = kinds.iter().map(part).collect();
        let bound = Duration::from_secs(7);
        let (security, seen) = (Security::Open, Seen::default());
        Trial { number: 1, security, parts, begin: at(0), healed: at(90), end: at(100), bound, promise, seen }
    }

    /// 200s every 50 ms between these milliseconds.
    fn reign(term: u64, begin: u64, end: u64, valid_for: u64) -> Vec<Sample> {
        (begin..end).step_by(50).map(|sent| yes(term, sent, sent + 1, valid_for)).collect()
    }

    fn look(trial: &Trial, first: &[Sample], second: &[Sample]) -> Seen {
        look_with(trial, first, second, None)
    }

    /// The first one's key was gone after so many milliseconds, and so many later it was known everywhere.
    fn look_with(trial: &Trial, first: &[Sample], second: &[Sample], gone: Option<(u64, Option<u64>)>) -> Seen {
        let at = |millis: u64| Moment::from_nanos(millis * 1_000_000);
        let key_end = |reign: &Reign| {
            let (gone, news) = gone.filter(|_| reign.leader == "a")?;
            Some(KeyEnd { gone: at(gone), news: news.map(|news| at(gone + news)) })
        };
        let lanes = ["a", "b"].into_iter().zip([first, second]).map(|(name, samples)| {
            let mut lane = Lane::new(name);
            lane.extend(samples);
            lane
        });
        let lanes: Vec<_> = lanes.collect();
        look_back(trial, &judge(&lanes.iter().collect::<Vec<_>>()), key_end, Duration::ZERO)
    }

    #[test]
    fn one_after_the_other_within_the_bound_is_no_violation() {
        let trial = trial_of(&[Kind::SidecarKilled], Promise::Whole);
        let seen = look(&trial, &reign(5, 1000, 2000, 1000), &reign(7, 8000, 9000, 1000));
        assert!(seen.violations.is_empty(), "{seen:?}");
        assert_eq!((seen.failovers, seen.leaderless), (2, Duration::from_millis(8001 - 1951)));
    }

    #[test]
    fn two_leaders_are_a_violation_in_any_trial_without_a_theft() {
        let trial = trial_of(&[Kind::SidecarKilled], Promise::Whole);
        let seen = look(&trial, &reign(5, 1000, 2000, 0), &reign(7, 1800, 3000, 0));
        assert!(seen.violations[0].starts_with("two leaders at one instant"), "{seen:?}");
        assert!(seen.certain > Duration::ZERO && seen.possible > seen.certain);
    }

    #[test]
    fn a_thief_is_granted_the_delay_of_the_news() {
        let (short, long) = (reign(5, 1000, 3100, 0), reign(5, 1000, 3200, 0));
        let second = reign(7, 3000, 7000, 0);
        let alone = trial_of(&[Kind::KeyDeleted], Promise::Bounded);
        let seen = look_with(&alone, &short, &second, Some((2995, Some(10))));
        assert!(seen.violations.is_empty(), "{seen:?}");
        let [theft] = seen.thefts.as_slice() else { panic!("{seen:?}") };
        assert_eq!((theft.news, theft.bound), (Some(Duration::from_millis(10)), Duration::from_millis(60)));
        let seen = look_with(&alone, &long, &second, Some((2995, Some(10))));
        assert!(seen.violations[0].contains("after its key was gone"), "{seen:?}");
        assert_eq!(look_with(&alone, &long, &second, None).violations.len(), 1, "nobody stole anything");
    }

    #[test]
    fn whom_the_news_does_not_reach_leads_on_until_until_and_no_longer() {
        let second = reign(7, 3000, 9000, 0);
        let deaf = trial_of(&[Kind::KeyDeleted, Kind::SidecarDeaf], Promise::Bounded);
        let alone = trial_of(&[Kind::KeyDeleted], Promise::Bounded);
        for (trial, news) in [(&deaf, Some(10)), (&alone, None)] {
            let gone = Some((2990, news));
            assert!(look_with(trial, &reign(5, 1000, 6900, 0), &second, gone).violations.is_empty());
            assert_eq!(look_with(trial, &reign(5, 1000, 7200, 0), &second, gone).violations.len(), 1);
        }
    }

    #[test]
    fn a_broken_promise_a_fallen_term_and_too_long_a_time_without_a_leader_are_violations() {
        let trial = trial_of(&[Kind::SidecarKilled], Promise::Whole);
        let broken = look(&trial, &reign(5, 1000, 2000, 1000), &reign(7, 2500, 3000, 1000));
        assert!(broken.violations[0].starts_with("a promise was broken"), "{broken:?}");
        let fallen = look(&trial, &reign(7, 1000, 2000, 0), &reign(5, 2500, 3000, 0));
        assert!(fallen.violations[0].starts_with("the term did not grow"), "{fallen:?}");
        let leaderless = look(&trial, &reign(5, 1000, 2000, 0), &reign(7, 10_000, 11_000, 0));
        assert!(leaderless.violations[0].starts_with("nobody led for"), "{leaderless:?}");
    }
}
