//! Three contenders, struck again and again at the worst moments: no command is ever alive outside its term.
//!
//! `BELLWETHER_TRIALS=1000 make test ARGS='--test work nothing_is_ever_alive'` is the long run: about eight minutes.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::signal::Signal;
use support::etcd::EtcdServer;
use support::{Moment, Sidecar, SidecarOptions};
use tempfile::TempDir;

use crate::scene::{figure, guardian_of, quick, send, wait_for, wait_until};
use crate::witness::{Life, Manner, hook, lives, overlaps, witness};

/// How many strikes `make test` has time for.
const TRIALS: usize = 100;
/// As many as show, without a protection, that they would show it.
#[cfg(feature = "sabotage")]
const CONTROL_TRIALS: usize = 15;
/// Elections side by side: more would only take the processors from each other.
const LANES: usize = 5;
const NAMES: [&str; 3] = ["one", "two", "three"];
/// The shortest lease there is: K = 500 ms, R = 200 ms, M = 500 ms, G = 600 ms fill it to the brim.
const TTL: Duration = Duration::from_secs(2);
const MARGIN: Duration = Duration::from_millis(500);
const STOP_TIME: Duration = Duration::from_millis(600);
const TIMINGS: [&str; 10] = [
    "--lease-ttl",
    "2s",
    "--keepalive-interval",
    "500ms",
    "--attempt-timeout",
    "200ms",
    "--safety-margin",
    "500ms",
    "--stop-timeout",
    "600ms",
];

/// What is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// SIGKILL to bellwether.
    Kill,
    /// SIGSTOP to bellwether, until another leads.
    Freeze,
    /// SIGKILL to the guardian.
    KillGuardian,
}

/// When.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// As soon as it leads: around on-lead, and the start of the command.
    Start,
    /// While the command runs.
    Steady,
    /// Around the stop of the command, and on-stand-down.
    Stop,
}

/// One strike, and what it hit.
#[derive(Clone, Debug)]
struct Trial {
    blow: Blow,
    phase: Phase,
    term: u64,
    /// Whatever is left of this term is killed then.
    killed_at: Moment,
}

impl Trial {
    fn lateness(&self, life: &Life) -> Duration {
        life.last.since(self.killed_at)
    }
}

/// Numbers that look random, the same for the same seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % most
    }
}

/// One election.
struct Lane {
    folder: TempDir,
    contenders: Vec<Sidecar>,
    random: Random,
    trials: Vec<Trial>,
}

impl Lane {
    fn begin(etcd: &EtcdServer, number: u64, seed: u64, sabotage: Option<&str>) -> Result<Self> {
        let folder = TempDir::new()?;
        let book = folder.path().join("book");
        let mut contenders = Vec::new();
        for name in NAMES {
            let manner = if name == "one" { Manner::Mild } else { Manner::Deaf };
            let command = witness(&book, manner)?;
            let mut options = SidecarOptions::new(env!("CARGO_BIN_EXE_bellwether"), name, &etcd.endpoints())
                .with(&TIMINGS)
                // What undoes may run when the term is over; what it undoes may not.
                .with(&["--on-lead", &hook(&book)?, "--on-stand-down", "sleep 0.05"])
                .executing(&command.iter().map(String::as_str).collect::<Vec<_>>());
            options.election = format!("trials-{number}");
            if let Some(protection) = sabotage {
                options = options.with_env("BELLWETHER_SABOTAGE", protection);
            }
            contenders.push(Sidecar::start(&options)?);
        }
        Ok(Self { folder, contenders, random: Random(seed.wrapping_add(number)), trials: Vec::new() })
    }

    fn book(&self) -> PathBuf {
        self.folder.path().join("book")
    }

    /// Waits for a leader of a later term than this.
    fn leader_after(&self, term: u64) -> Result<(usize, u64)> {
        wait_for("somebody leads", || {
            for (number, contender) in self.contenders.iter().enumerate() {
                let Ok((200, body)) = contender.leader() else { continue };
                let led = body["term"].as_u64().context("a leader has a term")?;
                if led > term {
                    return Ok(Some((number, led)));
                }
            }
            Ok(None)
        })
        .with_context(|| self.logs())
    }

    fn logs(&self) -> String {
        self.contenders.iter().map(|one| [one.identity(), ":\n", &one.log_tail(), "\n"].concat()).collect()
    }

    fn wait_for_witness_of(&self, is_it: impl Fn(&Life) -> bool) -> Result<()> {
        wait_for("a witness", || Ok(lives(&self.book())?.iter().any(&is_it).then_some(())))
    }

    /// Waits for a witness of this term. `false`: there is none, and will be none. On a machine that is busy with other
    /// things a leader can lose a term this short before its command is there.
    fn witness_of(&self, leader: usize, term: u64) -> Result<bool> {
        wait_for("a witness, or the end of its term", || {
            if lives(&self.book())?.iter().any(|life| life.term == term) {
                return Ok(Some(true));
            }
            let over = self.contenders.iter().enumerate().any(|(number, contender)| match contender.leader() {
                Ok((200, body)) => body["term"].as_u64() > Some(term),
                Ok(_) => false,
                Err(_) => number == leader,
            });
            Ok(over.then_some(false))
        })
        .with_context(|| self.logs())
    }

    fn trial(&mut self) -> Result<()> {
        let last_term = self.trials.last().map_or(0, |trial| trial.term);
        let (leader, term) = self.leader_after(last_term)?;
        let blow = match self.random.below(5) {
            0 | 1 => Blow::Kill,
            2 | 3 => Blow::Freeze,
            _ => Blow::KillGuardian,
        };
        let phase = match self.random.below(3) {
            0 => Phase::Start,
            1 => Phase::Steady,
            _ => Phase::Stop,
        };
        let there = self.approach(leader, term, phase)?;
        let struck = Moment::now();
        if !there || !self.strike(leader, blow)? {
            // It, or its term, has ended by itself since: no trial.
            return self.heal(leader);
        }
        let grace = match blow {
            Blow::Kill => STOP_TIME,
            Blow::Freeze => TTL - MARGIN,
            // What bellwether has to sweep; a frozen machine has the lease's end for it.
            Blow::KillGuardian => Duration::ZERO,
        };
        self.trials.push(Trial { blow, phase, term, killed_at: struck.after(grace) });
        if blow == Blow::Freeze {
            // Until another's command is there: it would meet the frozen one's.
            self.leader_of_the_others(leader, term)?;
            self.wait_for_witness_of(|life| life.term > term)?;
        }
        self.heal(leader)
    }

    /// Who has been told to stop, or has lost its guardian, may have ended only after it was looked for: there must be
    /// somebody to lead.
    fn leader_of_the_others(&mut self, frozen: usize, term: u64) -> Result<()> {
        wait_for("another leads", || {
            self.revive()?;
            let others = self.contenders.iter().enumerate().filter(|(number, _)| *number != frozen);
            let mut terms = others.filter_map(|(_, other)| match other.leader() {
                Ok((200, body)) => body["term"].as_u64(),
                Ok(_) | Err(_) => None,
            });
            Ok(terms.any(|led| led > term).then_some(()))
        })
    }

    /// Waits for the moment. `false`: it will not come.
    fn approach(&mut self, leader: usize, term: u64, phase: Phase) -> Result<bool> {
        let delay = match phase {
            Phase::Start => self.random.below(180),
            Phase::Steady => {
                if !self.witness_of(leader, term)? {
                    return Ok(false);
                }
                self.random.below(400)
            }
            Phase::Stop => {
                if !self.witness_of(leader, term)? {
                    return Ok(false);
                }
                if self.random.below(2) == 0 {
                    self.contenders[leader].signal(Signal::SIGTERM).ok();
                } else {
                    self.contenders[leader].resign("1s").ok();
                }
                self.random.below(800)
            }
        };
        wait_until(Moment::now().after(Duration::from_millis(delay)));
        Ok(true)
    }

    /// Whether there was anything to strike.
    fn strike(&mut self, leader: usize, blow: Blow) -> Result<bool> {
        let contender = &mut self.contenders[leader];
        if contender.exited()?.is_some() {
            return Ok(false);
        }
        match blow {
            Blow::Kill => Ok(contender.kill9().is_ok()),
            Blow::Freeze => Ok(contender.freeze().is_ok()),
            Blow::KillGuardian => match guardian_of(contender) {
                Some(guardian) => Ok(send(guardian, Signal::SIGKILL).is_ok()),
                None => Ok(false),
            },
        }
    }

    /// Everybody is there again for the next.
    fn heal(&mut self, struck: usize) -> Result<()> {
        let contender = &mut self.contenders[struck];
        contender.thaw().ok();
        self.revive()
    }

    /// Starts again who has ended.
    fn revive(&mut self) -> Result<()> {
        for contender in &mut self.contenders {
            if contender.exited()?.is_some() {
                contender.restart()?;
            }
        }
        Ok(())
    }

    /// Who was alive outside of its term, one sentence each.
    fn judge(&self) -> Result<Vec<String>> {
        let lives = lives(&self.book())?;
        let mut found: Vec<String> =
            overlaps(&lives).iter().map(|(early, late)| format!("{early:?} beside {late:?}")).collect();
        for trial in &self.trials {
            // The margin is there for what a busy machine takes to kill; at its end another may lead.
            for life in lives.iter().filter(|life| life.term == trial.term && trial.lateness(life) >= MARGIN) {
                found.push(format!("{:?} late, {life:?}: {trial:?}", trial.lateness(life)));
            }
        }
        Ok(found)
    }

    /// How long after it was to be killed somebody was last seen alive.
    fn worst_lateness(&self) -> Result<Duration> {
        let lives = lives(&self.book())?;
        let of_term = |trial: &Trial| {
            let lives = lives.iter().filter(|life| life.term == trial.term);
            lives.map(|life| trial.lateness(life)).max().unwrap_or_default()
        };
        Ok(self.trials.iter().map(of_term).max().unwrap_or_default())
    }
}

/// What came of all lanes.
#[derive(Debug, Default)]
struct Tally {
    trials: Vec<Trial>,
    witnesses: usize,
    worst_lateness: Duration,
    /// Who was alive outside of its term, one sentence each.
    outside: Vec<String>,
}

/// All lanes side by side: the trials, and who was alive outside of its term.
fn strikes(trials: usize, etcd: &EtcdServer, seed: u64, sabotage: Option<&str>) -> Result<Tally> {
    let each = trials.div_ceil(LANES);
    let lane = |number: u64| -> Result<Lane> {
        let mut lane = Lane::begin(etcd, number, seed, sabotage)?;
        while lane.trials.len() < each {
            lane.trial().with_context(|| format!("lane {number}, seed {seed}, trials so far: {:#?}", lane.trials))?;
        }
        // Whoever is still alive beside the last leader's writes it down.
        lane.leader_after(lane.trials.last().map_or(0, |trial| trial.term))?;
        Ok(lane)
    };
    let lanes: Vec<Result<Lane>> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|number| scope.spawn(move || lane(u64::try_from(number)?))).collect();
        lanes.into_iter().map(|lane| lane.join().unwrap_or_else(|_panic| Err(anyhow!("a lane panicked")))).collect()
    });
    let mut tally = Tally::default();
    for lane in lanes {
        let lane = lane?;
        tally.witnesses += lives(&lane.book())?.len();
        tally.outside.extend(lane.judge()?);
        tally.worst_lateness = tally.worst_lateness.max(lane.worst_lateness()?);
        tally.trials.extend(lane.trials);
    }
    Ok(tally)
}

#[tokio::test]
async fn nothing_is_ever_alive_outside_its_term_whatever_is_struck_and_when() -> Result<()> {
    let trials = match std::env::var("BELLWETHER_TRIALS") {
        Ok(text) => text.parse().context("BELLWETHER_TRIALS is a number")?,
        Err(_) => TRIALS,
    };
    let etcd = EtcdServer::start_with(quick()).await?;
    let seed = Moment::now().nanos();
    let Tally { trials: all, witnesses, worst_lateness, outside } = strikes(trials, &etcd, seed, None)?;
    for blow in [Blow::Kill, Blow::Freeze, Blow::KillGuardian] {
        let count = |phase| all.iter().filter(|trial| (trial.blow, trial.phase) == (blow, phase)).count();
        let [start, steady, stop] = [Phase::Start, Phase::Steady, Phase::Stop].map(count);
        figure(&format!("{blow:?}"), format_args!("{start} at the start, {steady} while it ran, {stop} at the stop"));
    }
    figure(
        "strikes",
        format_args!("{}, {witnesses} witnesses, {} alive outside their term, seed {seed}", all.len(), outside.len()),
    );
    figure("last seen alive after the kill", format_args!("{worst_lateness:?}; the margin is {MARGIN:?}"));
    ensure!(all.len() >= trials && witnesses > trials, "too little happened");
    ensure!(outside.is_empty(), "{outside:#?}");
    Ok(())
}

#[cfg(feature = "sabotage")]
#[tokio::test]
async fn control_without_the_guardians_own_deadline_somebody_is_alive_outside_its_term() -> Result<()> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let tally = strikes(CONTROL_TRIALS, &etcd, Moment::now().nanos(), Some("no-guardian-deadline"))?;
    ensure!(tally.trials.iter().any(|trial| trial.blow == Blow::Freeze), "nobody was frozen: {tally:?}");
    figure("without the guardian's deadline", format_args!("{} alive outside their term", tally.outside.len()));
    ensure!(!tally.outside.is_empty(), "nobody was alive outside its term: {tally:?}");
    Ok(())
}
