//! The pod's label and events: what the cluster is shown of the candidate.
//!
//! A label is routing, not a fence: it follows the lock as closely as the API server allows, and nothing here can
//! hold the candidate up or change what it answers. Two tasks do the work: one keeps the label, the other creates
//! events. Every patch is made for the version of the pod that was read (`resourceVersion`) and refuses to overwrite
//! a higher term, so that a patch of an old leader that was held up on its way cannot land.

mod client;
mod events;
mod fault;
mod labeller;
mod others;
mod pace;
mod pod;
mod pods;
mod report;
mod war;

use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use crate::config::{LabelConfig, PodLabelConfig};
use crate::election::{Identity, Publication};
pub(crate) use client::read_kubeconfig;
use events::Announcer;
pub use fault::{ApiCode, ApiFault, ApiOperation};
use labeller::Labeller;
use pods::Pods;
pub use report::Report;
use report::Reports;

/// How long the end of the process waits for the last event. The lock has been let go of by then.
const FINISH_MOST: Duration = Duration::from_millis(500);

/// Why the pod is not looked after any more.
#[derive(Debug, Error)]
pub enum KubernetesError {
    /// A task panicked: a bug.
    #[error("the task that labels the pod died: {0}")]
    TaskDied(#[from] JoinError),
    /// A task ended although there was work: a bug.
    #[error("the task that labels the pod ended")]
    TaskEnded,
}

/// The pod of this candidate, or nothing.
#[derive(Debug)]
pub enum PodLabel {
    /// The pod is left alone.
    Off,
    /// The pod is looked after.
    On(Running),
}

/// The tasks and the ways to and from them.
#[derive(Debug)]
pub struct Running {
    wanted: watch::Sender<Option<Publication>>,
    reports: mpsc::Receiver<Report>,
    tasks: JoinSet<()>,
}

impl PodLabel {
    /// Starts to look after the pod. Nothing is sent before the first publication.
    #[must_use]
    pub fn start(config: &PodLabelConfig, identity: &Identity) -> Self {
        match config {
            PodLabelConfig::Off(_) => Self::Off,
            PodLabelConfig::On(config) => Self::On(Running::start(config, identity)),
        }
    }

    /// Whether publications are carried out.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        matches!(self, Self::On(_))
    }

    /// Has the pod show this, in place of whatever was published before. Never waits.
    pub fn publish(&self, publication: Publication) {
        match self {
            Self::Off => {}
            Self::On(running) => drop(running.wanted.send_replace(Some(publication))),
        }
    }

    /// The next thing that happened. Cancel-safe.
    ///
    /// # Errors
    /// When a task has died.
    pub async fn next_report(&mut self) -> Result<Report, KubernetesError> {
        match self {
            Self::Off => std::future::pending().await,
            Self::On(running) => running.next_report().await,
        }
    }

    /// Ends, once the last event is created, or that has had its time.
    pub async fn finish(self) {
        let Self::On(Running { wanted, mut reports, mut tasks }) = self else { return };
        drop(wanted);
        reports.close();
        timeout(FINISH_MOST, async { while tasks.join_next().await.is_some() {} }).await.ok();
    }
}

impl Running {
    fn start(config: &LabelConfig, identity: &Identity) -> Self {
        let (wanted, publications) = watch::channel(None);
        let (to_driver, reports) = Reports::new();
        let (announcer, events) = Announcer::new(identity.clone());
        let pods = || Pods::new(config.clone(), to_driver.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(labeller::run(Labeller::new(pods(), to_driver.clone(), announcer), publications));
        tasks.spawn(events::post(pods(), events));
        Self { wanted, reports, tasks }
    }

    async fn next_report(&mut self) -> Result<Report, KubernetesError> {
        tokio::select! {
            Some(report) = self.reports.recv() => Ok(report),
            Some(ended) = self.tasks.join_next() => ended.map_err(KubernetesError::from).and(Err(KubernetesError::TaskEnded)),
            else => Err(KubernetesError::TaskEnded),
        }
    }
}
