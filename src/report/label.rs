//! The log lines of the pod's label: what a person should know of, each once while it lasts.

use std::collections::HashSet;

use tracing::{debug, error, info, warn};

use crate::config::{LabelConfig, LabelOff, PodLabelConfig};
use crate::kubernetes::{ApiCode, ApiFault, ApiOperation, Report};

/// Writes the log lines of one pod's label.
pub(super) struct LabelReporter {
    /// For the words that grant a right; `None` while the pod is left alone, when there is nothing to report.
    config: Option<Box<LabelConfig>>,
    /// What has been said and has not been mended since. As many as there are operations and codes, and two.
    said: HashSet<Said>,
    synced: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Said {
    Failed(ApiOperation, ApiCode),
    Newer,
    Foreign,
    Replaced,
}

impl LabelReporter {
    pub(super) fn new(config: &PodLabelConfig) -> Self {
        let config = match config {
            PodLabelConfig::Off(_) => None,
            PodLabelConfig::On(config) => Some(config.clone()),
        };
        Self { config, said: HashSet::new(), synced: None }
    }

    pub(super) fn report(&mut self, report: &Report) {
        match report {
            Report::Published(_) => {}
            Report::Patched(result) => debug!(result = result.map_or("ok", ApiCode::as_str), "a label was patched"),
            Report::Synced(synced) => self.synced(*synced),
            Report::Failed(fault) => self.failed(fault),
            Report::Recovered(operation) => self.recovered(*operation),
            Report::Stripped { pod } => info!(%pod, "took the leader's label off another pod"),
            Report::Repaired => info!("somebody had changed this pod's label; it is as it should be again"),
            Report::Contended => warn!(
                "somebody keeps changing the labels of this election's pods; they are repaired every few seconds from \
                 now on, without another line: find out who with kubectl get pod --show-managed-fields -o yaml"
            ),
            Report::Replaced => {
                if self.said.insert(Said::Replaced) {
                    error!(
                        "there is another pod of this one's name now, and this process still runs: the new pod is left \
                         alone, and so is this election's label until this process has ended"
                    );
                }
            }
            Report::Newer { pod, seen, mine } => {
                if self.said.insert(Said::Newer) {
                    warn!(
                        %pod, seen = %format_args!("{}/{}", seen.epoch, seen.token),
                        mine = %format_args!("{}/{}", mine.epoch, mine.token),
                        "a pod has seen a higher term than this sidecar leads, so its label is left alone; if no other \
                         leads, the annotation was written by hand or by an election before etcd was wiped: kubectl \
                         annotate pod {pod} {}-", self.config.as_ref().map_or("", |config| &config.labels.term_key),
                    );
                }
            }
            Report::Foreign { election } => self.foreign(election),
        }
    }

    fn synced(&mut self, synced: bool) {
        if synced {
            self.said.remove(&Said::Newer);
            self.said.remove(&Said::Foreign);
            if self.synced == Some(false) {
                info!("the pod's label is right");
            }
        }
        self.synced = Some(synced);
    }

    fn failed(&mut self, fault: &ApiFault) {
        let (operation, code) = (fault.operation.as_str(), fault.code.as_str());
        if !self.said.insert(Said::Failed(fault.operation, fault.code)) {
            debug!(operation, code, error = fault.message, "the API server failed again");
            return;
        }
        let what = match fault.operation {
            ApiOperation::Event => "events are not created",
            ApiOperation::Get | ApiOperation::List | ApiOperation::Watch | ApiOperation::Patch => {
                "the pod's label may be wrong"
            }
        };
        match fault.code {
            ApiCode::Forbidden => {
                let grant = self.grant(fault.operation);
                error!(operation, code, error = fault.message, "{what}, because a right is missing; {grant}");
            }
            ApiCode::Unusable => error!(
                operation,
                code,
                error = fault.message,
                "{what}, because no client for the API server can be made; what it is made of is read again at every \
                 attempt"
            ),
            ApiCode::Rejected if fault.operation != ApiOperation::Patch => {
                error!(operation, code, error = fault.message, "{what}, because the API server refuses the call");
            }
            ApiCode::Rejected => error!(
                operation,
                code,
                error = fault.message,
                "{what}, because the API server refuses the change; if an admission policy does, let it allow this \
                 sidecar its label and annotation"
            ),
            ApiCode::Unauthorized => error!(
                operation,
                code,
                error = fault.message,
                "{what}, because the token is not accepted; it is read again at every attempt"
            ),
            ApiCode::NotFound => error!(
                operation,
                code,
                error = fault.message,
                "{what}; check --pod-name and --pod-namespace, or the pod is being deleted"
            ),
            ApiCode::Conflict | ApiCode::Throttled | ApiCode::Timeout | ApiCode::Unavailable | ApiCode::Other => warn!(
                operation,
                code,
                error = fault.message,
                "{what}, trying again: the API server does not answer as it should; leadership and /leader do not \
                 depend on it"
            ),
        }
    }

    /// How to give what an operation needs.
    fn grant(&self, operation: ApiOperation) -> String {
        let namespace = self.config.as_ref().and_then(|config| config.namespace.as_deref());
        let place = namespace.map_or_else(|| "the pod's namespace".to_owned(), |name| format!("namespace {name}"));
        let rule = match operation {
            ApiOperation::Event => r#"{apiGroups: ["events.k8s.io"], resources: ["events"], verbs: ["create"]}"#,
            ApiOperation::Get | ApiOperation::List | ApiOperation::Watch | ApiOperation::Patch => {
                r#"{apiGroups: [""], resources: ["pods"], verbs: ["get", "list", "watch", "patch"]}"#
            }
        };
        format!("give the pod's service account a Role in {place} with the rule {rule}, or set --pod-label off")
    }

    fn recovered(&mut self, operation: ApiOperation) {
        self.said.retain(|said| !matches!(said, Said::Failed(failed, _) if *failed == operation));
        debug!(operation = operation.as_str(), "the API server does this again");
    }

    fn foreign(&mut self, election: &str) {
        if self.said.insert(Said::Foreign) {
            let key = self.config.as_ref().map_or("", |config| &config.labels.election_key);
            error!(
                election,
                "this pod carries the label {key} of another election, so its labels are left alone; when it takes \
                 part in both, give one sidecar its own --label-key, --election-label-key and --term-annotation-key, \
                 else correct the label or --election"
            );
        }
    }
}

/// Says at the start whether the pod is looked after, and if not, why.
pub(super) fn announce(config: &PodLabelConfig) {
    match config {
        PodLabelConfig::On(config) => {
            let LabelConfig { pod, labels, .. } = &**config;
            info!(pod, label = labels.role_key, leader = labels.leader, "labelling the pod");
        }
        PodLabelConfig::Off(LabelOff::Asked) => info!("the pod is not labelled: --pod-label off"),
        PodLabelConfig::Off(LabelOff::OutsideCluster) => debug!("no pod is labelled: this is not Kubernetes"),
        PodLabelConfig::Off(LabelOff::NoToken) => {
            info!("the pod is not labelled: no service account token is mounted into this container");
        }
    }
}
