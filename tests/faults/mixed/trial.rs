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
use super::limits::{Promise, bound_of_mixture};
use super::random::Random;
use super::scene::{FIRST_WITH_PROXIES, SIDECARS, Scene};
use super::strike::{Struck, Taken, strike};
use super::theft::had_not_let_go;
use super::verdict::{Seen, look_back};
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
    /// There was somebody to hit.
    pub has_hit: bool,
    /// The terms whose lock it took from whoever held it.
    pub locks: Vec<u64>,
    /// Before it struck.
    pub begin: Moment,
    /// Before it was healed.
    pub healing: Moment,
    /// After it was healed.
    pub end: Moment,
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
    /// Whether this moment is of the time that it looks back at.
    pub fn covers(&self, moment: Moment) -> bool {
        self.begin < moment && moment <= self.end
    }

    /// Whether a fault took the lock of this reign, whose key ended so, from a leader that had not let it go. Operators are
    /// asked which; an old server (#15247) does so after it has been woken up.
    pub fn took(&self, reign: &Reign, end: Option<KeyEnd>) -> bool {
        let Some(end) = end.filter(|_| self.promise == Promise::Bounded) else { return false };
        let woken = |part: &Part| {
            part.kind.wakes_up_late() && part.healing < end.gone && self.covers(end.gone) && had_not_let_go(reign, end)
        };
        self.parts.iter().any(|part| part.locks.contains(&reign.term.1) || woken(part))
    }

    /// Whether a fault keeps this sidecar from hearing or doing something.
    pub fn hits(&self, sidecar: &str) -> bool {
        // After the rotation of a certificate or a token everybody begins to watch anew.
        self.parts.iter().any(|part| part.kind.is_for_secured() || part.sidecars.contains(&sidecar))
    }

    /// Whether it had this fault, and the fault somebody to hit.
    pub fn was_struck_by(&self, kind: Kind) -> bool {
        self.parts.iter().any(|part| part.kind == kind && part.has_hit)
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
        let healing = Moment::now();
        heal(now, scene).await?;
        let sidecars = one.sidecars.iter().map(|place| SIDECARS[*place]).collect();
        let Struck { kind, whom, has_hit, locks, begin, .. } = one;
        parts.push(Part { kind, whom, sidecars, has_hit, locks, begin, healing, end: Moment::now() });
    }
    heal(later, scene).await?;
    Ok(parts)
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
