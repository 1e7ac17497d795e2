//! kill -9 at the worst moments of a life, and a restart on the same folder, again and again; everybody is asked all the
//! time.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::signal::Signal;
use support::etcd::EtcdServer;
use support::{Audit, Moment, Sidecar, SidecarOptions};

use super::{Folder, LEASE_TTL, TTL};
use crate::flock::{Flock, Lead, figure, quick, wait_until};
use crate::mixed::random::{Deck, Random};

/// How many trials `make test` has time for: three of each moment.
const TRIALS: usize = 18;
/// Elections side by side: more would only take the processors from each other.
const ELECTIONS: usize = 3;
/// How long a start takes at most, to the first confirmed renewal, on a machine that is not loaded.
const START: Duration = Duration::from_millis(300);
/// `--answer-validity` of these sidecars.
const VALIDITY: &str = "1s";

/// When a leader is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kill {
    /// While it leads; it is back before or after its lease has expired.
    Leading,
    /// While it leads, and once more in its next life: while that begins, reads, asks, resumes.
    Resuming,
    /// With the next life waiting at the folder already.
    Awaited,
    /// Right after it was asked to resign: while answers expire, the lock is deleted, the state forgotten.
    Resigning,
    /// While it stands down on SIGTERM.
    StandingDown,
    /// Everybody at once, and once more while all begin: between grant, registration and claim.
    Everybody,
}

impl Kill {
    const ALL: [Self; 6] =
        [Self::Leading, Self::Resuming, Self::Awaited, Self::Resigning, Self::StandingDown, Self::Everybody];
}

/// What came of the trials of one election.
#[derive(Debug, Default)]
struct Tally {
    trials: usize,
    /// The same sidecar led on in the same term.
    resumed: usize,
    /// From the death to the 200 in the same term.
    longest: Duration,
    audits: Vec<Audit>,
}

/// One election: its sidecars, each with a folder.
struct Stage {
    flock: Flock,
    folders: Vec<(String, Folder)>,
    random: Random,
}

impl Stage {
    fn new(etcd: &EtcdServer, number: usize) -> Result<Self> {
        let seed = Random::new_seed();
        figure(&format!("kills, election {number}"), format_args!("seed {seed}"));
        let flock = Flock::new(etcd.endpoints(), &[&LEASE_TTL, &["--answer-validity", VALIDITY]]);
        let flock = flock.in_election(&format!("kills-{number}"));
        let mut stage = Self { flock, folders: Vec::new(), random: Random::seeded(seed) };
        // Two contenders and three are not the same: with three there is one who is not the heir.
        for name in ["one", "two", "three"].iter().take(2 + number % 2) {
            stage.folders.push(((*name).to_owned(), Folder::new()?));
            let options = stage.options(name)?;
            stage.flock.join_as(name, &options)?;
        }
        Ok(stage)
    }

    fn folder(&self, name: &str) -> Result<&Folder> {
        let found = self.folders.iter().find(|(each, _)| each == name);
        Ok(&found.with_context(|| format!("there is no {name}"))?.1)
    }

    fn options(&self, name: &str) -> Result<SidecarOptions> {
        Ok(self.flock.options(name).with(&self.folder(name)?.flags()?))
    }

    /// A time up to this, to the millisecond.
    fn some(&mut self, most: Duration) -> Duration {
        let most = usize::try_from(most.as_millis()).expect("a trial lasts seconds");
        Duration::from_millis(u64::try_from(self.random.below(most + 1)).expect("a trial lasts seconds"))
    }

    /// Lets a time up to this pass.
    fn pause(&mut self, most: Duration) {
        let pause = self.some(most);
        wait_until(Moment::now().after(pause));
    }

    fn restart(&mut self, name: &str) -> Result<()> {
        self.flock.sidecar(name)?.restart()
    }

    /// Kills the leader at such a moment and has it back. Says when it died for the last time.
    fn kill(&mut self, kill: Kill, leader: &str) -> Result<Moment> {
        match kill {
            Kill::Leading => {
                self.flock.sidecar(leader)?.kill9()?;
                let dead = Moment::now();
                self.pause(TTL + TTL / 3);
                self.restart(leader)?;
                return Ok(dead);
            }
            Kill::Resuming => {
                self.restart(leader)?;
                self.pause(START);
            }
            Kill::Awaited => {
                let options = self.options(leader)?;
                let former = self.flock.sidecar(leader)?;
                let next = Sidecar::start_at(options, former.http(), former.telemetry())?;
                // Long enough for it to come to the folder, most of the time.
                self.pause(START);
                let former = self.flock.sidecar(leader)?;
                former.kill9()?;
                let dead = Moment::now();
                *former = next;
                return Ok(dead);
            }
            Kill::Resigning => {
                self.flock.sidecar(leader)?.resign("1s")?;
                self.pause(Duration::from_millis(1300));
            }
            Kill::StandingDown => {
                self.flock.sidecar(leader)?.signal(Signal::SIGTERM)?;
                self.pause(Duration::from_millis(1300));
            }
            Kill::Everybody => {
                for name in self.flock.names() {
                    self.flock.sidecar(&name)?.restart()?;
                    self.pause(START);
                }
                for name in self.flock.names().into_iter().filter(|name| name != leader) {
                    self.restart(&name)?;
                }
            }
        }
        let dead = Moment::now();
        self.restart(leader)?;
        Ok(dead)
    }

    fn trial(&mut self, kill: Kill, tally: &mut Tally) -> Result<()> {
        let before = self.settled()?;
        let dead = self.kill(kill, &before.name)?;
        let after = self.flock.lead_since(dead)?;
        tally.trials += 1;
        if (&after.name, after.term) == (&before.name, before.term) {
            tally.resumed += 1;
            tally.longest = tally.longest.max(after.sample.received.since(dead));
        }
        Ok(())
    }

    /// A leader that would be resumed.
    fn settled(&self) -> Result<Lead> {
        let deadline = Moment::now().after(crate::flock::PATIENCE);
        loop {
            let lead = self.flock.lead_since(Moment::now())?;
            if self.folder(&lead.name)?.lived() >= TTL {
                return Ok(lead);
            }
            ensure!(!deadline.passed(), "no leader lasts: {lead:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn one_election(etcd: &EtcdServer, number: usize, trials: usize) -> Result<Tally> {
    let mut stage = Stage::new(etcd, number)?;
    let mut tally = Tally::default();
    let mut moments = Deck::of(&Kill::ALL);
    for _ in 0..trials {
        let kill = moments.deal(&mut stage.random);
        stage.trial(kill, &mut tally).with_context(|| format!("{kill:?}, election {number}"))?;
    }
    tally.audits.push(stage.flock.end_unjudged());
    Ok(tally)
}

#[tokio::test]
async fn whenever_a_leader_is_killed_and_started_again_never_two_lead_and_terms_only_grow() -> Result<()> {
    let trials = match std::env::var("BELLWETHER_TRIALS") {
        Ok(text) => text.parse().context("BELLWETHER_TRIALS is a number")?,
        Err(_) => TRIALS,
    };
    let etcd = EtcdServer::start_with(quick()).await?;
    let results: Vec<Result<Tally>> = thread::scope(|scope| {
        let run = |number| {
            let etcd = &etcd;
            scope.spawn(move || one_election(etcd, number, trials.div_ceil(ELECTIONS)))
        };
        let running: Vec<_> = (0..ELECTIONS).map(run).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|_panic| Err(anyhow!("an election's thread panicked")))
        };
        running.into_iter().map(join).collect()
    });
    let mut total = Tally::default();
    for result in results {
        let tally = result?;
        total.trials += tally.trials;
        total.resumed += tally.resumed;
        total.longest = total.longest.max(tally.longest);
        total.audits.extend(tally.audits);
    }
    let said: Vec<String> = total.audits.iter().map(ToString::to_string).collect();
    figure(
        "killed and restarted leaders",
        format_args!(
            "{} trials, {} resumed in the same term (at most {:?} after the death)\n      {}",
            total.trials,
            total.resumed,
            total.longest,
            said.join("\n      ")
        ),
    );
    ensure!(total.trials >= trials);
    ensure!(total.audits.iter().all(Audit::keeps_the_promise), "{}", said.join("\n"));
    ensure!(total.resumed > total.trials / 10, "hardly any was resumed: {total:?}");
    Ok(())
}
