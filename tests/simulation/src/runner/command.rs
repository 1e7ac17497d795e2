//! `make simulate`.

use std::io::{Write as _, stdout};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clap::{ArgGroup, CommandFactory as _, Parser, error::ErrorKind};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::numbers::{grouped, parse_seeds};
use super::progress::Progress;
use super::report::{self, Told};
use super::{Batch, Coverage, Play, SAFETY, Summary, TRIALS, Trial, WEATHERS};
use super::{parse_left_out, play_guarded, shrink, weather_name, weather_named};
use crate::Weather;

/// What a shell reports for a program ended by Ctrl-C.
const EXIT_INTERRUPTED: u8 = 130;

/// Plays simulated elections: the shipped candidates, a modelled etcd, networks, clocks and operators that fail, each
/// run decided by one number, its seed. Every promise is looked at at every instant of every run.
///
/// Exit code 0: nothing broke. 1: something did, or an edge of the state machine was never gone, and the output says
/// which. With --control it is the other way round: 0 when the missing protection was found out.
#[derive(Debug, Parser)]
#[command(name = "simulate", group = ArgGroup::new("which").required(true).args(["seeds", "seed"]))]
struct Arguments {
    /// How many seeds, from 0 on, or which: 10000 or 100..200. Each is played once in each weather.
    #[arg(long, value_name = "NUMBER|FROM..TO", value_parser = parse_seeds)]
    seeds: Option<Range<u64>>,
    /// One seed, with its story.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// What goes wrong: storm (networks, processes, machines, clocks, etcd), operators (who delete keys and revoke
    /// leases as well), old-revokes (an old etcd that revokes live leases), fading (networks that get slow, then silent),
    /// handovers (the lock goes round while answers come late), restarts (candidates die and come back, with what they
    /// remember), copies (two processes with one memory). All of them when not given.
    #[arg(long, value_name = "NAME", value_parser = weather_named)]
    weather: Option<Weather>,
    /// Faults of the seed's plan to leave out, by number: 3,7-9. Shrinking prints such lists.
    #[arg(long, value_name = "NUMBERS", value_parser = parse_faults, requires = "seed", requires = "weather")]
    leave_out: Option<LeftOut>,
    /// Candidates have nothing beside their election: no work, no memory, no application. Old kept seeds are of this kind.
    #[arg(long)]
    bare: bool,
    /// Take a protection away, and see that it is found out: no-request-check, no-margin, no-confirm, latest-send,
    /// no-raft-term-check, no-release-floor, view-after-effects, confirm-beside, no-work-wait, no-nonce-check, stop-time-kept. The weather is the control's own when none is given.
    #[arg(long, value_name = "NAME", value_parser = trial_named)]
    control: Option<Trial>,
    /// Show the whole story of a run that breaks something, not only its end.
    #[arg(long)]
    whole_story: bool,
    /// How many lines of the end of a story to show.
    #[arg(long, value_name = "LINES", default_value_t = 40, conflicts_with = "whole_story")]
    story: usize,
    /// Stop after so many runs that broke something.
    #[arg(long, value_name = "NUMBER", default_value = "1")]
    failures: NonZeroUsize,
    /// Do not look for the fewest faults that break the same.
    #[arg(long)]
    no_shrink: bool,
    /// How many runs at a time: as many as there are cores when not given.
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<NonZeroUsize>,
}

#[derive(Clone, Debug)]
struct LeftOut(Vec<usize>);

fn parse_faults(text: &str) -> Result<LeftOut, String> {
    parse_left_out(text).map(LeftOut)
}

fn trial_named(name: &str) -> Result<Trial, String> {
    let found = TRIALS.into_iter().find(|trial| trial.name == name);
    let trial = found
        .ok_or_else(|| format!("'{name}' is no control: there are {}", TRIALS.map(|trial| trial.name).join(", ")))?;
    if trial.is_possible() {
        Ok(trial)
    } else {
        Err("this build cannot take it away: `make simulate CONTROL=…` builds one that can (feature sabotage)".into())
    }
}

impl Arguments {
    fn batch(&self) -> Batch {
        let all = || match &self.control {
            Some(trial) => vec![trial.weather],
            None => WEATHERS.to_vec(),
        };
        let one = |seed: u64| seed..seed.saturating_add(1);
        Batch {
            weathers: self.weather.map_or_else(all, |weather| vec![weather]),
            seeds: self.seeds.clone().or(self.seed.map(one)).expect("clap asks for one of the two"),
            left_out: self.leave_out.clone().map(|LeftOut(numbers)| numbers).unwrap_or_default(),
            bare: self.bare,
            control: self.control.map(|trial| trial.control),
            failures_most: self.failures.get(),
            jobs: self.jobs.or(thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN),
        }
    }

    fn told(&self) -> Told {
        if self.whole_story { Told::Whole } else { Told::Last(self.story) }
    }
}

/// The program: parses the command line, plays, prints, and says with its exit code whether everything held.
pub fn command(play: Play<'_>) -> ExitCode {
    let arguments = Arguments::parse();
    let batch = arguments.batch();
    if batch.seeds.is_empty() {
        Arguments::command().error(ErrorKind::ValueValidation, "--seed is the largest number there is").exit();
    }
    let stop = match stopped_by_signals() {
        Ok(stop) => stop,
        Err(error) => Arguments::command().error(ErrorKind::Io, format!("no signals: {error}")).exit(),
    };
    let summary = if arguments.seed.is_some() {
        replay(&arguments, &batch, play)
    } else {
        let mut progress = Progress::new();
        let summary = batch.play(play, &stop, &mut |so_far| progress.show(so_far));
        progress.end();
        summary
    };
    let interrupted = stop.load(Ordering::Relaxed);
    let failed = tell(&arguments, &batch, &summary, play, &stop);
    if interrupted && !failed { ExitCode::from(EXIT_INTERRUPTED) } else { ExitCode::from(u8::from(failed)) }
}

/// The first signal ends the batch with the figures so far, a second one at once.
fn stopped_by_signals() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, i32::from(EXIT_INTERRUPTED), Arc::clone(&stop))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// One seed: its story is what is wanted, also when everything held.
fn replay(arguments: &Arguments, batch: &Batch, play: Play<'_>) -> Summary {
    let mut summary = Summary { planned: batch.runs(), ..Summary::default() };
    for place in 0..batch.runs() {
        let scenario = batch.scenario(place);
        let outcome = play_guarded(play, &scenario, batch.control);
        if outcome.verdict.is_ok() {
            print(&format!("Seed {} in {}:\n", scenario.seed, weather_name(scenario.weather)));
            print(&report::story(&outcome.story, arguments.told()));
        }
        summary.take_in(place, scenario, outcome);
    }
    summary
}

/// Prints what came of it. Whether that is a failure.
fn tell(arguments: &Arguments, batch: &Batch, summary: &Summary, play: Play<'_>, stop: &AtomicBool) -> bool {
    let is_whole = summary.runs() == summary.planned;
    let seeds = batch.seeds.end - batch.seeds.start;
    let many = format!("{} seeds in {} weathers", grouped(seeds), batch.weathers.len());
    let one = arguments.seed.is_some();
    if !one {
        print(&format!("{many}{}\n", if is_whole { "" } else { ", not all played" }));
        print(&report::figures(summary));
    }
    let control = arguments.control.map(|trial| trial.name);
    for failure in &summary.failures {
        print(&format!("\n{}", report::failure(failure, control, arguments.told())));
        if !arguments.no_shrink {
            let shrunk = shrink(play, failure, batch.control, stop);
            print(&format!("\n{}", report::shrunk(&shrunk, control, arguments.told())));
        }
    }
    if let Some(trial) = &arguments.control {
        return !found_out(trial, summary);
    }
    let mut uncovered = false;
    if !one {
        let (text, failed) = report::coverage(&Coverage::of(summary), seeds, is_whole);
        print(&text);
        uncovered = failed;
    }
    print(&format!("\nviolations: {} in {} runs\n", summary.failures.len(), grouped(summary.runs())));
    uncovered || !summary.failures.is_empty()
}

/// Only by what it is to protect: that something else broke on the way is another finding.
fn found_out(trial: &Trial, summary: &Summary) -> bool {
    let unsafe_ones = summary.failures.iter().filter(|failure| SAFETY.contains(&failure.violation.invariant));
    let Some(first) = unsafe_ones.min_by_key(|failure| failure.place) else {
        print(&format!("\n{} was not found out in {} runs\n", trial.name, grouped(summary.runs())));
        return false;
    };
    let seeds = grouped(first.place + 1);
    print(&format!("\n{} was found out by {} in run {seeds}\n", trial.name, first.violation.invariant));
    true
}

/// Nobody reads any more when this fails: the exit code still tells.
fn print(text: &str) {
    stdout().lock().write_all(text.as_bytes()).ok();
}
