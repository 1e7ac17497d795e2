//! A run: trial after trial until its time is over, then the report. It has several acts, each with a scene of its own: in
//! turns the members let everybody in, and ask who comes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use support::Moment;

use super::access::Security;
use super::catalogue::{Kind, go_together};
use super::counter::{Count, Guard};
use super::judge::Judgement;
use super::lane::{Lane, Pace};
use super::random::{Deck, Random};
use super::scene::{Ground, Scene};
use super::trial::{Terms, Trial, trial};
use super::verdict::{Between, look_between};
use super::{report, timeline};
use crate::flock::figure;

/// Every third trial is a mixture.
const MIXES_EVERY: usize = 3;
/// How long an act is at the most: a scene then sees dozens of faults, and a long run many scenes.
const ACT_MOST: Duration = Duration::from_secs(600);
/// After so many a run is over: what is broken is broken, and each has its logs written down.
const VIOLATIONS_MOST: usize = 20;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// For how long trials are begun.
    pub duration: Duration,
    /// What decides order and parameters.
    pub seed: u64,
    /// Which faults.
    pub kinds: Vec<Kind>,
    /// Where the report goes.
    pub folder: PathBuf,
}

/// What was seen.
pub struct Story {
    pub plan: Plan,
    /// Before the first trial.
    pub begin: Moment,
    /// After the last.
    pub end: Moment,
    /// The same as a wall clock shows it.
    pub began_at: String,
    pub etcd_version: String,
    pub trials: Vec<Trial>,
    /// What belongs to none of them, of all acts.
    pub between: Between,
    /// What every sidecar answered.
    pub lanes: Vec<Lane>,
    pub pace: Pace,
    /// How many requests were answered with 200.
    pub leading: u64,
    pub guarded: Count,
    pub unguarded: Count,
    /// What must not be: the trial's number, if it was in one, and what.
    pub violations: Vec<String>,
}

/// The faults of one kind of act, as they are dealt.
struct Decks {
    security: Security,
    /// Those that only this kind of act has: each act begins with them.
    own: Vec<Kind>,
    alone: Deck<Kind>,
    mixed: Deck<Kind>,
}

impl Decks {
    fn of(security: Security, kinds: &[Kind]) -> Self {
        let (own, common): (Vec<_>, Vec<_>) = kinds.iter().partition(|kind| kind.is_for_secured());
        let own = if security == Security::Secured { own } else { Vec::new() };
        let mixed = [common.as_slice(), &own].concat();
        Self { security, own, alone: Deck::of(&common), mixed: Deck::of(&mixed) }
    }

    fn is_empty(&self) -> bool {
        self.mixed.is_empty()
    }

    /// Two or three that go together.
    fn mixture(&mut self, random: &mut Random) -> Vec<Kind> {
        let size = 2 + random.below(2);
        let mut kinds = Vec::new();
        while kinds.len() < size {
            kinds.push(self.mixed.deal(random));
            if !go_together(&kinds) {
                kinds.pop();
            }
        }
        kinds
    }
}

struct Run<'a> {
    plan: &'a Plan,
    random: Random,
    story: Story,
}

/// Runs, writes the report, and returns the violations.
///
/// # Errors
/// When the scene cannot be set up, or a part of it not be broken or mended as it should.
pub async fn run(plan: &Plan) -> Result<Vec<String>> {
    figure("faults", format_args!("for {:?}, seed {}", plan.duration, plan.seed));
    fs::create_dir_all(&plan.folder)?;
    // Those of an earlier run are not of this one.
    for number in 1..=2 * VIOLATIONS_MOST + 1 {
        fs::remove_file(violation_log(plan, number)).ok();
    }
    let mut run = Run { plan, random: Random::seeded(plan.seed), story: Story::begin(plan) };
    // What comes of it is reported in any case: a run that ends early has seen something as well.
    if let Err(error) = run.acts().await {
        run.found(&format!("the run ended early: {error:#}"), "")?;
    }
    let mut story = run.story;
    story.end = Moment::now();
    fs::write(plan.folder.join("report.md"), report::markdown(&story))?;
    fs::write(plan.folder.join("timeline.svg"), timeline::svg(&story))?;
    figure("report", plan.folder.join("report.md").display());
    figure("totals", report::totals(&story));
    Ok(story.violations)
}

impl Story {
    fn begin(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            begin: Moment::now(),
            end: Moment::now(),
            began_at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            etcd_version: String::new(),
            trials: Vec::new(),
            between: Between::default(),
            lanes: Vec::new(),
            pace: Pace::default(),
            leading: 0,
            guarded: Count::default(),
            unguarded: Count::default(),
            violations: Vec::new(),
        }
    }
}

impl Run<'_> {
    /// One act after the other, as long as each other, in turns without security and with.
    async fn acts(&mut self) -> Result<()> {
        let mut decks: Vec<_> = [Security::Open, Security::Secured].map(|it| Decks::of(it, &self.plan.kinds)).into();
        decks.retain(|decks| !decks.is_empty());
        let round = ACT_MOST * u32::try_from(decks.len())?;
        let rounds = self.plan.duration.as_millis().div_ceil(round.as_millis()).max(1);
        let acts = usize::try_from(rounds)? * decks.len();
        let ground = Ground::new()?;
        for act in 0..acts {
            let decks_of_act = act % decks.len();
            let over = self.story.begin.after(self.plan.duration * u32::try_from(act + 1)? / u32::try_from(acts)?);
            let mut scene = Scene::begin(&ground, decks[decks_of_act].security, None).await?;
            let ended = self.trials(&mut scene, &mut decks[decks_of_act], over).await;
            self.look_back(scene).await?;
            ended?;
            if self.story.violations.len() >= VIOLATIONS_MOST {
                bail!("{VIOLATIONS_MOST} violations are enough");
            }
        }
        Ok(())
    }

    async fn trials(&mut self, scene: &mut Scene, decks: &mut Decks, over: Moment) -> Result<()> {
        let security = decks.security;
        self.story.etcd_version =
            scene.etcd.ask(async |mut client| Ok(client.status().await?.version().to_owned())).await?;
        let revokes_live_leases = scene.etcd.trusts_a_stalled_leader().await?;
        let mut own = decks.own.clone();
        let mut lost_before = 0;
        while !over.passed() {
            let number = self.story.trials.len() + 1;
            let mixes = number.is_multiple_of(MIXES_EVERY) && self.plan.kinds.len() == Kind::ALL.len();
            let kinds = match own.pop() {
                Some(kind) => vec![kind],
                None if mixes => decks.mixture(&mut self.random),
                None if decks.alone.is_empty() => {
                    own.clone_from(&decks.own);
                    continue;
                }
                None => vec![decks.alone.deal(&mut self.random)],
            };
            let terms = Terms { number, security, revokes_live_leases, lost_before };
            let names = || kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" + ");
            let trial = trial(&kinds, &terms, scene, &mut self.random).await;
            let trial = match trial {
                Ok(trial) => trial,
                Err(error) => {
                    let what = format!("trial {number}, {}: {} ended the run: {error:#}", security.name(), names());
                    self.found(&what, &scene.logs())?;
                    bail!("trial {number} failed");
                }
            };
            lost_before += trial.seen.lost;
            self.tell(&trial);
            for violation in &trial.seen.violations {
                self.found(&format!("trial {number} ({}): {violation}", trial.story()), &scene.logs())?;
            }
            self.story.trials.push(trial);
            if self.story.violations.len() >= VIOLATIONS_MOST {
                bail!("{VIOLATIONS_MOST} violations are enough");
            }
        }
        Ok(())
    }

    fn tell(&self, trial: &Trial) {
        let seen = &trial.seen;
        let at = trial.begin.since(self.story.begin).as_secs();
        figure(
            &format!(
                "{at:>4} s of {}, trial {}, {}",
                self.plan.duration.as_secs(),
                trial.number,
                trial.security.name()
            ),
            format_args!(
                "{}; {} failovers, {:.2} s without a leader (bound {:.1} s)",
                trial.story(),
                seen.failovers,
                seen.leaderless.as_secs_f64(),
                trial.bound.as_secs_f64()
            ),
        );
    }

    /// Writes down a violation with all logs of its time.
    fn found(&mut self, what: &str, logs: &str) -> Result<()> {
        let number = self.story.violations.len() + 1;
        let at = Moment::now().since(self.story.begin);
        let now = jiff::Timestamp::now();
        let what = format!("by {at:.1?} of the run ({now:.3}), seed {}: {what}", self.plan.seed);
        let file = violation_log(self.plan, number);
        fs::write(&file, format!("{what}\n\n{logs}"))?;
        figure("VIOLATION", format_args!("{what}; logs: {}", file.display()));
        self.story.violations.push(what);
        Ok(())
    }

    /// What has come of an act.
    async fn look_back(&mut self, mut scene: Scene) -> Result<()> {
        scene.rest();
        let judgement = scene.observers.judge();
        self.look_between(&scene, &judgement)?;
        // After an act that ended early etcd may not answer: then there is nothing to count, which is no violation more.
        let guarded = scene.counted(Guard::Term).await.unwrap_or_default();
        let unguarded = scene.counted(Guard::None).await.unwrap_or_default();
        if !guarded.adds_up() && guarded.applied > 0 {
            self.found(&format!("the guarded counter does not add up: {guarded:?}"), &scene.logs())?;
        }
        if guarded.lost() > 0 && self.story.trials.iter().all(|trial| trial.seen.lost == 0) {
            self.found(&format!("guarded increments were lost: {guarded:?}"), &scene.logs())?;
        }
        let story = &mut self.story;
        story.guarded = story.guarded.and(guarded);
        story.unguarded = story.unguarded.and(unguarded);
        story.lanes.extend(scene.observers.lanes());
        story.leading += judgement.leading;
        story.pace = story.pace.and(scene.observers.pace());
        Ok(())
    }

    /// Whatever no trial has taken: between them, and what became of a pair after its trial.
    fn look_between(&mut self, scene: &Scene, judgement: &Judgement) -> Result<()> {
        let held_up = |begin: Moment, end: Moment| scene.observers.held_up_within(begin, end);
        let mut between = look_between(&self.story.trials, judgement, |reign| scene.key_end(reign), held_up);
        for (known, violation) in between.violations.drain(..).take(VIOLATIONS_MOST) {
            let at = known.since(self.story.begin);
            self.found(&format!("in no trial's time, {at:.3?} after the begin: {violation}"), &scene.logs())?;
        }
        self.story.between.add(&between);
        Ok(())
    }
}

fn violation_log(plan: &Plan, number: usize) -> PathBuf {
    plan.folder.join(format!("violation-{number}.log"))
}
