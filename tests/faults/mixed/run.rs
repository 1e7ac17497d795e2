//! A run: trial after trial until its time is over, then the report.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use support::Moment;

use super::catalogue::{Kind, go_together};
use super::counter::{Count, Guard};
use super::judge::Judgement;
use super::lane::{Lane, Pace};
use super::random::{Deck, Random};
use super::scene::Scene;
use super::trial::{Terms, Trial, trial};
use super::{report, timeline};
use crate::flock::figure;

/// Every third trial is a mixture.
const MIXES_EVERY: usize = 3;
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
    /// What every sidecar answered.
    pub lanes: Vec<Lane>,
    pub judgement: Judgement,
    pub pace: Pace,
    pub guarded: Count,
    pub unguarded: Count,
    /// What must not be: the trial's number, if it was in one, and what.
    pub violations: Vec<String>,
}

struct Run<'a> {
    plan: &'a Plan,
    scene: Scene,
    random: Random,
    alone: Deck<Kind>,
    mixed: Deck<Kind>,
    begin: Moment,
    began_at: String,
    trials: Vec<Trial>,
    violations: Vec<String>,
}

/// Runs, writes the report, and returns the violations.
///
/// # Errors
/// When the scene cannot be set up, or a part of it not be broken or mended as it should.
pub async fn run(plan: &Plan) -> Result<Vec<String>> {
    figure("faults", format_args!("for {:?}, seed {}", plan.duration, plan.seed));
    fs::create_dir_all(&plan.folder)?;
    // Those of an earlier run are not of this one.
    for number in 1..=VIOLATIONS_MOST + 1 {
        fs::remove_file(violation_log(plan, number)).ok();
    }
    let scene = Scene::begin(&[], None).await?;
    let etcd_version = scene.etcd.ask(async |mut client| Ok(client.status().await?.version().to_owned())).await?;
    let mut run = Run {
        plan,
        scene,
        random: Random::seeded(plan.seed),
        alone: Deck::of(&plan.kinds),
        mixed: Deck::of(&plan.kinds),
        begin: Moment::now(),
        began_at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        trials: Vec::new(),
        violations: Vec::new(),
    };
    // What comes of it is reported in any case: a run that ends early has seen something as well.
    let ended = run.trials(revokes_live_leases(&etcd_version)?).await;
    if let Err(error) = &ended {
        run.found(&format!("the run ended early: {error:#}"))?;
    }
    let story = run.end(etcd_version).await?;
    fs::write(plan.folder.join("report.md"), report::markdown(&story))?;
    fs::write(plan.folder.join("timeline.svg"), timeline::svg(&story))?;
    figure("report", plan.folder.join("report.md").display());
    figure("totals", report::totals(&story));
    Ok(story.violations)
}

impl Run<'_> {
    async fn trials(&mut self, revokes_live_leases: bool) -> Result<()> {
        let over = self.begin.after(self.plan.duration);
        let mut lost_before = 0;
        while !over.passed() {
            let number = self.trials.len() + 1;
            let mixes = number.is_multiple_of(MIXES_EVERY) && self.plan.kinds.len() == Kind::ALL.len();
            let kinds = if mixes { self.mixture() } else { vec![self.alone.deal(&mut self.random)] };
            let terms = Terms { number, revokes_live_leases, lost_before };
            let names = || kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" + ");
            let trial = trial(&kinds, &terms, &mut self.scene, &mut self.random).await;
            let trial = trial.with_context(|| format!("trial {number}: {}", names()))?;
            lost_before += trial.seen.lost;
            self.tell(&trial);
            for violation in &trial.seen.violations {
                self.found(&format!("trial {number} ({}): {violation}", trial.story()))?;
            }
            self.trials.push(trial);
            if self.violations.len() >= VIOLATIONS_MOST {
                bail!("{VIOLATIONS_MOST} violations are enough");
            }
        }
        Ok(())
    }

    /// Two or three that go together.
    fn mixture(&mut self) -> Vec<Kind> {
        let size = 2 + self.random.below(2);
        let mut kinds = Vec::new();
        while kinds.len() < size {
            kinds.push(self.mixed.deal(&mut self.random));
            if !go_together(&kinds) {
                kinds.pop();
            }
        }
        kinds
    }

    fn tell(&self, trial: &Trial) {
        let seen = &trial.seen;
        let at = trial.begin.since(self.begin).as_secs();
        figure(
            &format!("{at:>4} s of {}, trial {}", self.plan.duration.as_secs(), trial.number),
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
    fn found(&mut self, what: &str) -> Result<()> {
        let number = self.violations.len() + 1;
        let at = Moment::now().since(self.begin);
        let now = jiff::Timestamp::now();
        let what = format!("by {at:.1?} of the run ({now:.3}), seed {}: {what}", self.plan.seed);
        let file = violation_log(self.plan, number);
        fs::write(&file, format!("{what}\n\n{}", self.scene.logs()))?;
        figure("VIOLATION", format_args!("{what}; logs: {}", file.display()));
        self.violations.push(what);
        Ok(())
    }

    async fn end(mut self, etcd_version: String) -> Result<Story> {
        let end = Moment::now();
        self.scene.rest();
        // After a run that ended early etcd may not answer: then there is nothing to count, which is no violation more.
        let guarded = self.scene.counted(Guard::Term).await.unwrap_or_default();
        let unguarded = self.scene.counted(Guard::None).await.unwrap_or_default();
        if !guarded.adds_up() && guarded.applied > 0 {
            self.found(&format!("the guarded counter does not add up: {guarded:?}"))?;
        }
        if guarded.lost() > 0 && self.trials.iter().all(|trial| trial.seen.lost == 0) {
            self.found(&format!("guarded increments were lost: {guarded:?}"))?;
        }
        Ok(Story {
            plan: self.plan.clone(),
            begin: self.begin,
            end,
            began_at: self.began_at,
            etcd_version,
            lanes: self.scene.observers.lanes(),
            judgement: self.scene.observers.judge(),
            pace: self.scene.observers.pace(),
            trials: self.trials,
            guarded,
            unguarded,
            violations: self.violations,
        })
    }
}

fn violation_log(plan: &Plan, number: usize) -> PathBuf {
    plan.folder.join(format!("violation-{number}.log"))
}

/// Whether this etcd may revoke a lease that is alive (etcd #15247): fixed in 3.4.31 and 3.5.13.
pub fn revokes_live_leases(version: &str) -> Result<bool> {
    let mut numbers = version.split('.').skip(1).map(str::parse::<u32>);
    let (Some(Ok(minor)), Some(Ok(patch))) = (numbers.next(), numbers.next()) else { bail!("version {version}?") };
    Ok(match minor {
        ..=4 => patch < 31,
        5 => patch < 13,
        6.. => false,
    })
}
