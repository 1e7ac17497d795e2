//! The work: what runs only while this candidate leads. The command of `bellwether exec`, and the hooks.
//!
//! Each run of a command has a *guardian*, a small process of its own that stops it in time whatever becomes of
//! bellwether. What comes after what is decided in `course.rs`, when which signal is sent in `plan.rs`.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::future::pending;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::sys::prctl;
use signal_hook::consts::SIGTERM;
use thiserror::Error;
use tokio::time::sleep;
use tracing::{error, info, warn};

mod backoff;
mod course;
mod guardian;
mod orphans;
mod plan;
mod processes;
mod protocol;
mod run;

use self::course::{Act, Course, Outcome, Part};
use self::protocol::Deadline;
use self::run::{Happening, NOT_EXECUTABLE, Run, THIS_PROGRAM};
use crate::clock;
use crate::config::{Config, SHELL, WorkConfig};
use crate::election::{Event, Instant, OpId, Term, Until};

pub use self::guardian::{GuardianError, guard};
pub use self::orphans::Orphans;

/// Why the work, and with it the process, cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WorkError {
    /// Killed by somebody, or a bug.
    #[error(
        "the guardian of the command was killed, or froze; the command was killed, and this candidate has stood down"
    )]
    GuardianDied,
    /// The system does not let this process take in orphans.
    #[error("orphans cannot be taken in: {0}")]
    NoSubreaper(nix::errno::Errno),
    /// Guardians are this very program, and look for processes there.
    #[error("{THIS_PROGRAM} cannot be used: is /proc mounted?")]
    NoProc,
}

/// Carries out what the core says about the work.
#[derive(Debug)]
pub struct Work {
    config: Option<WorkConfig>,
    stop_time: Duration,
    environment: Vec<(&'static str, String)>,
    /// The lock of `--state-dir`.
    lock: Option<OwnedFd>,
    stretch: Option<Stretch>,
    /// What bellwether was told to stop with, and the command is to be stopped with.
    first_signal: Option<i32>,
    reports: VecDeque<Event>,
    exit_code: Option<u8>,
    failure: Option<WorkError>,
}

/// One stretch of leading.
#[derive(Debug)]
struct Stretch {
    id: OpId,
    term: Term,
    until: Until,
    /// From [`Work::stop`].
    kill_at: Option<Instant>,
    course: Course,
    run: Option<Run>,
    /// The end of the hook that runs, whatever becomes of the lease.
    bound: Option<Deadline>,
}

impl Work {
    /// Starts nothing yet. Guardians hold `lock` open as long as they live. Needs a Tokio runtime with processes.
    ///
    /// # Errors
    /// When the system lacks what guardians need.
    pub fn new(config: &Config, lock: Option<OwnedFd>) -> Result<Self, WorkError> {
        if config.work.is_some() {
            // For the case that a guardian is killed: what it has left behind comes here.
            prctl::set_child_subreaper(true).map_err(WorkError::NoSubreaper)?;
            fs::metadata(THIS_PROGRAM).map_err(|_error| WorkError::NoProc)?;
        }
        let election = &config.election;
        let environment = vec![
            ("BELLWETHER_EPOCH", election.epoch.0.to_string()),
            ("BELLWETHER_LOCK_KEY", election.lock_key.as_str().to_owned()),
            ("BELLWETHER_ELECTION", election.name.clone()),
            ("BELLWETHER_NAMESPACE", election.namespace.clone()),
            ("BELLWETHER_IDENTITY", election.identity.as_str().to_owned()),
        ];
        Ok(Self {
            config: config.work.clone(),
            stop_time: config.timings.stop_time(),
            environment,
            lock,
            stretch: None,
            first_signal: None,
            reports: VecDeque::new(),
            exit_code: None,
            failure: None,
        })
    }

    /// `Effect::StartWork`: begins with the first part.
    pub fn start(&mut self, id: OpId, term: Term, until: Until) {
        let Some(config) = &self.config else { return };
        assert!(self.stretch.is_none(), "no work is started before the one before has ended");
        let course = Course::begin(config, clock::now().boot);
        // What came of an earlier stretch that was over before anybody could be told is not why this process will end.
        self.exit_code = None;
        self.stretch = Some(Stretch { id, term, until, kill_at: None, course, run: None, bound: None });
        self.act();
    }

    /// `Effect::ExtendWork`: the right to act has another end.
    pub fn extend(&mut self, id: OpId, until: Until) {
        let Some(stretch) = self.stretch_of(id) else { return };
        stretch.until = until;
        let deadline = self.deadline();
        if let Some(stretch) = self.stretch_of(id)
            && matches!(stretch.course.running(), Some(Part::OnLead | Part::Command))
            && let Some(run) = &mut stretch.run
            && let Some(deadline) = deadline
        {
            run.extend(deadline);
        }
    }

    /// `Effect::StopWork`: stops it; what is left at `kill_at` is killed.
    pub fn stop(&mut self, id: OpId, kill_at: Instant) {
        let Some(stretch) = self.stretch_of(id) else { return };
        stretch.kill_at = Some(kill_at);
        stretch.course.stop(clock::now().boot);
        self.act();
    }

    /// Hands on a signal that bellwether got. One that stops bellwether is what the command is stopped with first.
    pub fn forward(&mut self, number: i32, stops: bool) {
        if self.config.as_ref().is_none_or(|config| config.command.is_none()) {
            return;
        }
        let stretch = self.stretch.as_mut().filter(|stretch| stretch.course.running() == Some(Part::Command));
        match stretch {
            Some(Stretch { course, run: Some(run), .. }) if !stops || course.is_stopping() => run.signal(number),
            Some(_) | None if stops => self.first_signal = Some(number),
            Some(_) | None => {}
        }
    }

    /// What came of it. Cancel-safe.
    pub async fn next_report(&mut self) -> Event {
        loop {
            if let Some(report) = self.reports.pop_front() {
                return report;
            }
            match &mut self.stretch {
                Some(Stretch { run: Some(run), .. }) => {
                    let happening = run.next().await;
                    self.take_in(happening);
                }
                Some(Stretch { course, .. }) => match course.pause_left(clock::now().boot) {
                    Some(pause) => {
                        sleep(pause).await;
                        course.due(clock::now().boot);
                        self.act();
                    }
                    None => return pending().await,
                },
                None => return pending().await,
            }
        }
    }

    /// The command's own exit code, when its end ended the process; or why the process could not go on.
    ///
    /// # Errors
    /// When nobody watched over the work any more.
    pub fn ending(&self) -> Result<Option<u8>, WorkError> {
        self.failure.map_or(Ok(self.exit_code), Err)
    }

    fn stretch_of(&mut self, id: OpId) -> Option<&mut Stretch> {
        self.stretch.as_mut().filter(|stretch| stretch.id == id)
    }

    fn take_in(&mut self, happening: Happening) {
        let Some(stretch) = &mut self.stretch else { return };
        let part = stretch.course.running().map_or("", Part::as_str);
        match happening {
            Happening::Started(pid) => {
                info!(pid = pid.as_raw(), term = stretch.term.token.0, "{part} runs");
                stretch.course.started();
            }
            Happening::Ended(outcome) => {
                stretch.run = None;
                stretch.bound = None;
                let (stopping, now) = (stretch.course.is_stopping(), clock::now().boot);
                stretch.course.ended(now, outcome);
                let again_in = stretch.course.pause_left(now);
                tell_of_the_end(part, outcome, stopping, again_in);
                self.act();
            }
        }
    }

    /// Does what the course says.
    fn act(&mut self) {
        while let Some(stretch) = &mut self.stretch {
            let Some(act) = stretch.course.next_act() else { break };
            let id = stretch.id;
            match act {
                Act::Begin(part) => self.begin(part),
                Act::Stop => self.stop_the_run(),
                Act::Failed => self.reports.push_back(Event::WorkFailed { id }),
                Act::Finished(code) => {
                    self.exit_code = Some(code);
                    self.reports.push_back(Event::WorkFinished { id });
                }
                Act::Unguarded => {
                    self.failure = Some(WorkError::GuardianDied);
                    // Also when the work was to be stopped anyway, and the candidate would have gone on.
                    self.reports.push_back(Event::Stop);
                }
                Act::Stopped => {
                    self.stretch = None;
                    self.reports.push_back(Event::WorkStopped { id });
                }
            }
        }
    }

    fn begin(&mut self, part: Part) {
        let Some(config) = &self.config else { return };
        let command = match part {
            Part::OnLead => shell(config.on_lead.as_deref()),
            Part::Command => config.command.clone().unwrap_or_default(),
            Part::OnStandDown => shell(config.on_stand_down.as_deref()),
        };
        let bound = Deadline::within(clock::now().boot, config.hook_timeout, self.stop_time);
        let Some(stretch) = &mut self.stretch else { return };
        stretch.bound = match part {
            Part::OnLead | Part::OnStandDown => Some(bound),
            Part::Command => None,
        };
        let mut environment = self.environment.clone();
        environment.push(("BELLWETHER_TERM", stretch.term.token.0.to_string()));
        let Some(deadline) = self.deadline() else { return };
        let Some(stretch) = &mut self.stretch else { return };
        match Run::start(&command, &environment, self.lock.as_ref().map(AsFd::as_fd), deadline) {
            Ok(run) => stretch.run = Some(run),
            Err(error) => {
                error!(%error, "no guardian can be started for {}", part.as_str());
                stretch.course.ended(clock::now().boot, Outcome::Refused(NOT_EXECUTABLE));
            }
        }
    }

    /// Until when what runs, or is about to, may run. What undoes the work is not bound to the right to act.
    fn deadline(&self) -> Option<Deadline> {
        let stretch = self.stretch.as_ref()?;
        let until = Deadline::of(&stretch.until, self.stop_time);
        match (stretch.course.running()?, stretch.bound) {
            (Part::OnStandDown, Some(bound)) => Some(bound),
            (Part::OnLead, Some(bound)) => Some(until.at_most(&bound)),
            (Part::OnLead | Part::OnStandDown, None) | (Part::Command, _) => Some(until),
        }
    }

    fn stop_the_run(&mut self) {
        let Some(stretch) = &mut self.stretch else { return };
        let part = stretch.course.running();
        let first = self.first_signal.take().filter(|_| part == Some(Part::Command)).unwrap_or(SIGTERM);
        if let (Some(run), Some(kill_at)) = (&mut stretch.run, stretch.kill_at) {
            let left_ms = kill_at.since(clock::now().boot).as_millis();
            info!(signal = first, left_ms, "stopping {}", part.map_or("", Part::as_str));
            run.stop(first, kill_at);
        }
    }
}

/// A hook's command line.
fn shell(line: Option<&str>) -> Vec<OsString> {
    [SHELL, "-c", line.unwrap_or_default()].map(OsString::from).to_vec()
}

fn tell_of_the_end(part: &str, outcome: Outcome, stopping: bool, again_in: Option<Duration>) {
    let next = again_in.map_or_else(String::new, |pause| format!("; it runs again in {pause:?}"));
    match outcome {
        Outcome::Exited(ending) if stopping || ending.exit_code() == 0 => info!("{part} has ended, {ending}{next}"),
        Outcome::Exited(ending) => warn!("{part} has failed, {ending}{next}"),
        Outcome::Refused(_) => warn!("{part} could not be started{next}"),
        Outcome::CutShort => warn!("{part} was stopped, because its time was up{next}"),
        Outcome::GuardianDied => error!("the guardian of {part} is dead; what it looked after was killed"),
    }
}
