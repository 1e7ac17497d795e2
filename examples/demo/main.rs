//! `make demo`: three sidecars elect a leader on a real etcd; break something and watch another take over.
//!
//! On a terminal it shows a live view and takes key presses. With `--scenario` it plays one breakage unattended
//! and exits 0 only if the election did what it promises. Whatever ends it, nothing stays behind.

mod keys;
mod scenario;
mod screen;
mod stage;
mod statistics;
mod story;
mod table;
mod terminal;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bellwether::config::parse_duration;
use clap::Parser;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use crate::scenario::Scenario;
use crate::screen::Screen;
use crate::stage::{Interrupted, Stage, StageOptions};
use crate::statistics::Statistics;
use crate::story::Story;

/// What a shell reports for a program ended by Ctrl-C.
const EXIT_INTERRUPTED: u8 = 130;
/// Between two trials: long enough for everyone to have renewed and registered again.
const BETWEEN_TRIALS: Duration = Duration::from_secs(1);

/// Three Bellwether sidecars on a real etcd, and ways to break them.
#[derive(Debug, Parser)]
struct Arguments {
    /// Break this, unattended, and exit 0 only if the election kept its promise.
    #[arg(long, value_enum, value_name = "NAME")]
    scenario: Option<Scenario>,
    /// The sidecars' `--lease-ttl`.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = |text: &str| parse_duration(text))]
    ttl: Duration,
    /// The sidecars' `--answer-validity`.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = |text: &str| parse_duration(text))]
    answer_validity: Duration,
    /// Play the scenario this often and print how the takeover times are distributed.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    trials: u32,
    /// The sidecar's binary: beside this program's folder when not given.
    #[arg(long, value_name = "FILE", env = "BELLWETHER_BIN")]
    binary: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => ExitCode::from(EXIT_INTERRUPTED),
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the last word of a program for people")]
            {
                eprintln!("demo: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let options = StageOptions {
        binary: sidecar_binary(arguments)?,
        ttl: arguments.ttl,
        answer_validity: arguments.answer_validity,
        interrupted: interrupted_by_signals()?,
    };
    match arguments.scenario {
        Some(scenario) => unattended(options, scenario, arguments.trials),
        None if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() => live(options),
        None => bail!("without a terminal there is nobody to press a key: choose --scenario (make demo SCENARIO=kill)"),
    }
}

/// A first signal ends the demo in order, a second one at once.
fn interrupted_by_signals() -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_shutdown(signal, i32::from(EXIT_INTERRUPTED), Arc::clone(&interrupted))?;
        flag::register(signal, Arc::clone(&interrupted))?;
    }
    Ok(interrupted)
}

/// `target/debug/bellwether` for `target/debug/examples/demo`.
fn sidecar_binary(arguments: &Arguments) -> Result<PathBuf> {
    let binary = if let Some(binary) = &arguments.binary {
        binary.clone()
    } else {
        let demo = std::env::current_exe()?;
        demo.ancestors().nth(2).context("this program lies in target/<profile>/examples")?.join("bellwether")
    };
    ensure!(binary.is_file(), "no sidecar at {}: `cargo build` makes one, or set BELLWETHER_BIN", binary.display());
    Ok(binary)
}

fn unattended(options: StageOptions, scenario: Scenario, trials: u32) -> Result<()> {
    let story = Story::plain();
    let mut stage = Stage::start(options, story.clone())?;
    let mut takeovers = Vec::new();
    for trial in 1..=trials {
        if trials > 1 {
            story.tell(&format!("--- trial {trial} of {trials}"));
        }
        takeovers.push(scenario::play_and_judge(&mut stage, scenario)?);
        if trial < trials {
            stage.pause(BETWEEN_TRIALS)?;
        }
    }
    if let Some(statistics) = Statistics::of(&takeovers).filter(|_| trials > 1) {
        story.tell(&format!("{} over {trials} trials: {statistics}", scenario.measures()));
    }
    story.tell(&format!("PASS {}", scenario.name()));
    Ok(())
}

/// Until `q` or a signal, which is the way out and no failure.
fn live(options: StageOptions) -> Result<()> {
    match play_by_keys(options) {
        Err(error) if error.is::<Interrupted>() => Ok(()),
        ended => ended,
    }
}

fn play_by_keys(options: StageOptions) -> Result<()> {
    let interrupted = Arc::clone(&options.interrupted);
    let (story, lines) = Story::live();
    let mut stage = Stage::start(options, story.clone())?;
    // The order matters at the end: the screen gives the terminal back before the stage is taken down.
    let keys = keys::Keys::read(interrupted)?;
    let _screen = Screen::start(stage.watched().to_vec(), lines)?;
    loop {
        stage.check_interrupted()?;
        stage.forget_old_samples();
        let Some(scenario) = keys.next().and_then(Scenario::of_key) else { continue };
        match scenario::play_and_judge(&mut stage, scenario) {
            Err(error) if !error.is::<Interrupted>() => story.tell(&format!("FAILED: {error:#}")),
            result => drop(result?),
        }
    }
}
