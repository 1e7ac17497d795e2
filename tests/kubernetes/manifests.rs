//! manifests/, applied by real kubectl to a real API server that enforces the restricted standard.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use support::kubernetes::{ApiClient, ApiServer, ControllerManager, PodSecurity, kubernetes_binary};
use tempfile::TempDir;

use crate::pods::{nothing_was_refused, only_the_sidecar_has_the_token, wait_for_pods};

/// A namespace in which something of manifests/ has been applied without a word against it.
struct Applied {
    admin: &'static ApiClient,
    namespace: String,
}

/// `kubectl apply`, with `--filename` or `--kustomize`, as the files themselves say. Twice: the second replaces no pod.
fn apply(how: &str, what: &str) -> Result<Applied> {
    let server = ApiServer::shared()?;
    ControllerManager::shared()?;
    let namespace = server.admin().create_namespace("manifests", PodSecurity::Restricted)?;
    let cache = TempDir::with_prefix("bellwether-kubectl-")?;
    let mut templates = Vec::new();
    for _ in 0..2 {
        let mut kubectl = Command::new(kubernetes_binary("kubectl")?);
        kubectl.arg("--kubeconfig").arg(server.admin_kubeconfig()?).arg("--cache-dir").arg(cache.path());
        kubectl.args(["apply", "--namespace", &namespace, how]);
        kubectl.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests").join(what));
        let output = kubectl.output()?;
        let (said, complaint) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        ensure!(output.status.success() && complaint.is_empty(), "{what}: {said}{complaint}");
        templates.push(generations(server.admin(), &namespace)?);
    }
    ensure!(!templates[0].is_empty() && templates[0] == templates[1], "{what}: {templates:?}");
    Ok(Applied { admin: server.admin(), namespace })
}

/// The workloads, with a number that counts their changes.
fn generations(admin: &ApiClient, namespace: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for kind in ["deployments", "statefulsets"] {
        let list = admin.get(&format!("/apis/apps/v1/namespaces/{namespace}/{kind}"))?.ok()?;
        for workload in list["items"].as_array().into_iter().flatten() {
            found.push(format!("{} {}", workload["metadata"]["name"], workload["metadata"]["generation"]));
        }
    }
    Ok(found)
}

impl Applied {
    /// That so many pods with the sidecar are admitted, and each has the token in it alone.
    fn runs(&self, with_sidecar: &str, count: usize) -> Result<()> {
        for pod in wait_for_pods(self.admin, &self.namespace, with_sidecar, count)? {
            only_the_sidecar_has_the_token(self.admin, &self.namespace, &pod)?;
        }
        nothing_was_refused(self.admin, &self.namespace)
    }
}

#[test]
fn the_trial_runs_in_a_restricted_namespace() -> Result<()> {
    let trial = apply("--filename", "trial.yaml")?;
    trial.runs("bellwether.dev/election=trial-bellwether", 3)?;
    wait_for_pods(trial.admin, &trial.namespace, "", 4)?;
    nothing_was_refused(trial.admin, &trial.namespace)
}

#[test]
fn the_manifest_for_an_etcd_of_ones_own_runs_in_a_restricted_namespace() -> Result<()> {
    apply("--filename", "external-etcd.yaml")?.runs("bellwether.dev/election", 3)
}

#[test]
fn the_cron_worker_runs_in_a_restricted_namespace() -> Result<()> {
    apply("--kustomize", "examples/cron-worker")?.runs("bellwether.dev/election=reports", 3)
}

#[test]
fn the_stateful_set_runs_in_a_restricted_namespace() -> Result<()> {
    apply("--kustomize", "examples/stateful-set")?.runs("bellwether.dev/election=store", 3)
}
