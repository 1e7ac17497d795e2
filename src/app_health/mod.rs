//! Whether the application is healthy, and, when the process is stopping, whether it has gone.
//!
//! One task asks the application at its interval. The driver hears of changes only: a judgement that differs from the
//! one before, and the application's end, once somebody waits for that.

mod answer;
mod connect;
mod exec;
mod file;
mod http;
mod prober;
#[cfg(test)]
mod tests;
mod verdict;

use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, info, warn};

use crate::clock;
use crate::config::AppHealthConfig;
use crate::election::AppHealth;
use crate::protections::Protections;
use prober::Prober;
use verdict::Verdict;

/// While the lock waits for the application to be gone: what comes after is waited for by everybody else.
const LOOK_FOR_ABSENCE_EVERY: Duration = Duration::from_millis(100);
/// Reports that wait for the driver. It takes one in microseconds, and the next is a probe away.
const REPORTS_MAX: usize = 4;

/// What the driver hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// A judgement, other than the one before.
    Health(AppHealth),
    /// Nobody is there any more. Only after [`AppProbes::stopping`], once, and the last report.
    Gone,
}

/// Why the application is not asked any more.
#[derive(Debug, Error)]
pub enum AppHealthError {
    /// The task panicked: a bug.
    #[error("the task that asks for the application's health died: {0}")]
    TaskDied(#[from] JoinError),
    /// The task ended although there was work: a bug.
    #[error("the task that asks for the application's health ended")]
    TaskEnded,
}

/// The probes of the application, or nothing.
#[derive(Debug)]
pub enum AppProbes {
    /// The application is not asked.
    Off,
    /// It is.
    On(Running),
}

/// The task and the ways to and from it.
#[derive(Debug)]
pub struct Running {
    stopping: watch::Sender<bool>,
    reports: mpsc::Receiver<Report>,
    tasks: JoinSet<()>,
}

impl AppProbes {
    /// Starts to ask, at once. Needs a Tokio runtime.
    #[must_use]
    pub fn start(config: Option<&AppHealthConfig>) -> Self {
        config.map_or(Self::Off, |config| Self::On(Running::start(config)))
    }

    /// The next thing that happened. Cancel-safe.
    ///
    /// # Errors
    /// When the task has died.
    pub async fn next_report(&mut self) -> Result<Report, AppHealthError> {
        match self {
            Self::Off => std::future::pending().await,
            Self::On(running) => running.next_report().await,
        }
    }

    /// This process is to stop: from now on only the application's end is looked for, and more often. Never waits.
    pub fn stopping(&self) {
        match self {
            Self::Off => {}
            Self::On(running) => drop(running.stopping.send_replace(true)),
        }
    }
}

impl Running {
    fn start(config: &AppHealthConfig) -> Self {
        let (stopping, told_to_stop) = watch::channel(false);
        let (to_driver, reports) = mpsc::channel(REPORTS_MAX);
        let mut tasks = JoinSet::new();
        tasks.spawn(look_after(config.clone(), told_to_stop, to_driver));
        Self { stopping, reports, tasks }
    }

    async fn next_report(&mut self) -> Result<Report, AppHealthError> {
        tokio::select! {
            Some(report) = self.reports.recv() => Ok(report),
            Some(ended) = self.tasks.join_next() => ended.map_err(AppHealthError::from).and(Err(AppHealthError::TaskEnded)),
            else => Err(AppHealthError::TaskEnded),
        }
    }
}

async fn look_after(config: AppHealthConfig, mut stopping: watch::Receiver<bool>, reports: mpsc::Sender<Report>) {
    let mut prober = Prober::new(&config);
    tokio::select! {
        driver_gone = judge(&config, &mut prober, &reports) => return driver_gone,
        told = stopping.wait_for(|stopping| *stopping) => if told.is_err() { return },
    }
    wait_for_absence(&mut prober).await;
    info!(probe = %config.target, "the application is gone");
    if reports.send(Report::Gone).await.is_ok() {
        // Whoever holds the task's end takes it for a bug.
        std::future::pending::<()>().await;
    }
}

/// Asks for ever, or until nobody wants to know.
async fn judge(config: &AppHealthConfig, prober: &mut Prober, reports: &mpsc::Sender<Report>) {
    let mut verdict = Verdict::new(config.thresholds, clock::now().boot);
    loop {
        let begun = clock::now().boot;
        let answer = prober.probe().await;
        let ended = clock::now().boot;
        if let Err(failure) = &answer {
            debug!(probe = %config.target, "a probe of the application failed: {failure}");
        }
        if let Some(judgement) = verdict.hear(ended, answer.is_ok() || Protections::NO_HEALTH_GATE.taken_away()) {
            match (judgement, &answer) {
                (AppHealth::Unhealthy, Err(failure)) => {
                    warn!(probe = %config.target, "the application is unhealthy: {failure}");
                }
                (AppHealth::Unhealthy | AppHealth::Healthy, Ok(()) | Err(_)) => {
                    info!(probe = %config.target, "the application is healthy");
                }
            }
            if reports.send(Report::Health(judgement)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(config.interval.saturating_sub(ended.since(begun))).await;
    }
}

async fn wait_for_absence(prober: &mut Prober) {
    loop {
        let begun = clock::now().boot;
        match prober.probe().await {
            Ok(()) | Err(_) if Protections::NO_APP_WAIT.taken_away() => return,
            Err(failure) if failure.is_absence() => return,
            Ok(()) | Err(_) => {}
        }
        tokio::time::sleep(LOOK_FOR_ABSENCE_EVERY.saturating_sub(clock::now().boot.since(begun))).await;
    }
}
