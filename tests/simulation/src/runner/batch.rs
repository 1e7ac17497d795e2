//! Many runs on all cores.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{Play, Summary, play_guarded};
use crate::{Control, Outcome, Scenario, Weather};

/// How often who watches is told: as often as an eye sees a bar move.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// Outcomes on their way to whoever adds them up: more than the cores have between two looks; a core waits beyond.
const UNDER_WAY_MOST: usize = 64;
/// A run takes a part of a second: one that takes this long has lost its way, and is named.
const ENDLESS: Duration = Duration::from_secs(30);
/// A world is a few thousand small objects and no deep recursion: the default of threads, said here since panics on
/// a stack that ran out cannot be caught.
const STACK: usize = 2 << 20;

/// Which runs.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Each seed is played once in each of these.
    pub weathers: Vec<Weather>,
    /// These seeds.
    pub seeds: Range<u64>,
    /// The faults that are left out of each.
    pub left_out: Vec<usize>,
    /// Candidates have nothing beside their election.
    pub bare: bool,
    /// What is taken away.
    pub control: Option<Control>,
    /// No run is begun after so many have broken something; at least one.
    pub failures_most: usize,
    /// How many at a time.
    pub jobs: NonZeroUsize,
}

impl Batch {
    /// The seeds in a weather, up to the first that breaks something, on all cores.
    pub fn of(weather: Weather, seeds: Range<u64>) -> Self {
        let jobs = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self {
            weathers: vec![weather],
            seeds,
            left_out: Vec::new(),
            bare: false,
            control: None,
            failures_most: 1,
            jobs,
        }
    }

    /// How many runs it has.
    pub fn runs(&self) -> u64 {
        (self.seeds.end - self.seeds.start).saturating_mul(self.weathers())
    }

    fn weathers(&self) -> u64 {
        u64::try_from(self.weathers.len()).expect("there are a handful")
    }

    /// What is played at a place.
    pub(super) fn scenario(&self, place: u64) -> Scenario {
        let weather = usize::try_from(place % self.weathers()).expect("there are a handful");
        let seed = self.seeds.start + place / self.weathers();
        Scenario { seed, weather: self.weathers[weather], left_out: self.left_out.clone(), bare: self.bare }
    }

    /// Plays them all, unless `stop` is set or enough have failed. Runs are begun in order, so the first of the
    /// failures is the same whatever the number of cores.
    pub fn play(&self, play: Play<'_>, stop: &AtomicBool, watch: &mut dyn FnMut(&Summary)) -> Summary {
        let began = Instant::now();
        let mut summary = Summary { planned: self.runs(), ..Summary::default() };
        let next = AtomicU64::new(0);
        let enough = AtomicBool::new(false);
        let over = || stop.load(Ordering::Relaxed) || enough.load(Ordering::Relaxed);
        thread::scope(|scope| {
            let (tell, told) = sync_channel(UNDER_WAY_MOST);
            for job in 0..self.jobs.get() {
                let (tell, next) = (tell.clone(), &next);
                let work = move || self.work(job, play, next, &over, &tell);
                let thread = thread::Builder::new().name(format!("run-{job}")).stack_size(STACK);
                thread.spawn_scoped(scope, work).expect("the system has a thread for each core");
            }
            drop(tell);
            let (mut looked, mut under_way) = (began, BTreeMap::new());
            loop {
                match told.recv_timeout(TELL_EVERY) {
                    Ok(Told::Begins { job, scenario }) => drop(under_way.insert(job, (scenario, Instant::now()))),
                    Ok(Told::Ends { job, place, scenario, outcome }) => {
                        under_way.remove(&job);
                        summary.take_in(place, scenario, outcome);
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                enough.store(summary.failures.len() >= self.failures_most, Ordering::Relaxed);
                if looked.elapsed() >= TELL_EVERY {
                    looked = Instant::now();
                    summary.took = began.elapsed();
                    summary.endless.extend(endless(&mut under_way));
                    watch(&summary);
                }
            }
        });
        summary.took = began.elapsed();
        // More may have failed meanwhile, on other cores.
        summary.failures.truncate(self.failures_most);
        summary
    }

    /// What one core does.
    fn work(&self, job: usize, play: Play<'_>, next: &AtomicU64, over: &dyn Fn() -> bool, tell: &SyncSender<Told>) {
        while !over() {
            let place = next.fetch_add(1, Ordering::Relaxed);
            if place >= self.runs() {
                return;
            }
            let scenario = self.scenario(place);
            // Nobody listens any more only when the batch is over.
            tell.send(Told::Begins { job, scenario: scenario.clone() }).ok();
            let mut outcome = play_guarded(play, &scenario, self.control);
            if outcome.verdict.is_ok() {
                outcome.story.clear();
            }
            tell.send(Told::Ends { job, place, scenario, outcome }).ok();
        }
    }
}

/// What a core says.
enum Told {
    Begins { job: usize, scenario: Scenario },
    Ends { job: usize, place: u64, scenario: Scenario, outcome: Outcome },
}

/// The runs that have been under way for too long, each once.
fn endless(under_way: &mut BTreeMap<usize, (Scenario, Instant)>) -> Vec<Scenario> {
    under_way.extract_if(.., |_, (_, began)| began.elapsed() >= ENDLESS).map(|(_, (scenario, _))| scenario).collect()
}
