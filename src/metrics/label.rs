//! Metrics of the pod's label: there only while the pod is looked after.

use prometheus::{IntCounterVec, IntGauge};

use super::Maker;
use crate::kubernetes::{ApiCode, ApiOperation, Report};

/// What became of patches and calls, and whether the label is right.
#[derive(Debug)]
pub(super) struct LabelMetrics {
    synced: IntGauge,
    patches: IntCounterVec,
    errors: IntCounterVec,
}

const OPERATIONS: [ApiOperation; 5] =
    [ApiOperation::Get, ApiOperation::List, ApiOperation::Watch, ApiOperation::Patch, ApiOperation::Event];

/// The codes that an alert asks for: series that appear only with their first event make `rate()` miss it.
const CODES_FROM_THE_START: [ApiCode; 5] =
    [ApiCode::Forbidden, ApiCode::Unauthorized, ApiCode::Rejected, ApiCode::Unavailable, ApiCode::Timeout];

impl LabelMetrics {
    pub(super) fn new(made: &Maker<'_>) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            synced: made.gauge(
                "bellwether_label_synced",
                "1 while the pod's label is what this sidecar wants it to be, else 0.",
            )?,
            patches: made.counters(
                "bellwether_label_patches_total",
                "Patches of the label of this pod or of one that passed for the leader, by their result.",
                &["result"],
            )?,
            errors: made.counters(
                "bellwether_kubernetes_errors_total",
                "Failed calls to the Kubernetes API server, by operation and kind of failure.",
                &["operation", "code"],
            )?,
        };
        metrics.patches.with_label_values(&["ok"]);
        for code in [ApiCode::Conflict].into_iter().chain(CODES_FROM_THE_START) {
            metrics.patches.with_label_values(&[code.as_str()]);
        }
        for operation in OPERATIONS {
            for code in CODES_FROM_THE_START {
                metrics.errors.with_label_values(&[operation.as_str(), code.as_str()]);
            }
        }
        Ok(metrics)
    }

    pub(super) fn observe(&self, report: &Report) {
        match report {
            Report::Patched(result) => {
                self.patches.with_label_values(&[result.map_or("ok", ApiCode::as_str)]).inc();
            }
            Report::Synced(synced) => self.synced.set(i64::from(*synced)),
            Report::Failed(fault) => {
                self.errors.with_label_values(&[fault.operation.as_str(), fault.code.as_str()]).inc();
            }
            Report::Published(_)
            | Report::Recovered(_)
            | Report::Stripped { .. }
            | Report::Repaired
            | Report::Contended
            | Report::Replaced
            | Report::Newer { .. }
            | Report::Foreign { .. } => {}
        }
    }
}
