//! What the labeller tells the driver: for the candidate, for the log, for the metrics.

use tokio::sync::mpsc;

use super::fault::{ApiCode, ApiFault, ApiOperation};
use crate::election::{OpId, Term};

/// Reports that wait for the driver, which takes each in microseconds. A full queue makes the labeller wait, and
/// the labeller may.
pub(super) const REPORTS_MAX: usize = 32;

/// One thing that happened to the pod's label or events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The pod shows the role of this publication.
    Published(OpId),
    /// Whether the pod shows what it should, when that changes.
    Synced(bool),
    /// A patch was sent; `None` when it landed.
    Patched(Option<ApiCode>),
    /// A call failed.
    Failed(ApiFault),
    /// Such calls work again.
    Recovered(ApiOperation),
    /// The label of another pod, which passed for the leader, was taken off.
    Stripped {
        /// The pod.
        pod: String,
    },
    /// Somebody else had changed this pod's label; it is as it should be again.
    Repaired,
    /// Somebody changes labels again and again; repairs are made at longer intervals and not told any more.
    Contended,
    /// The pod is another than the one this process was started in: same name, other life.
    Replaced,
    /// A pod has seen a higher term than this candidate leads, so its label is left alone.
    Newer {
        /// The pod.
        pod: String,
        /// The term it has seen.
        seen: Term,
        /// The term this candidate leads.
        mine: Term,
    },
    /// The pod carries the label of another election, so its labels are left alone.
    Foreign {
        /// The other election.
        election: String,
    },
}

/// Where reports go.
#[derive(Clone)]
pub(super) struct Reports(mpsc::Sender<Report>);

impl Reports {
    pub(super) fn new() -> (Self, mpsc::Receiver<Report>) {
        let (sender, receiver) = mpsc::channel(REPORTS_MAX);
        (Self(sender), receiver)
    }

    /// When the driver has gone, nobody needs to know any more.
    pub(super) async fn send(&self, report: Report) {
        self.0.send(report).await.ok();
    }
}
