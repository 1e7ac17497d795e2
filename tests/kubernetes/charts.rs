//! The chart, installed by real Helm into a real API server that enforces the restricted standard.
//!
//! There is no kubelet: nothing is started. Pods are created by the controllers and admitted, and what a kubelet would
//! report of them is reported by the test.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use support::kubernetes::{ApiClient, ApiServer, Content, ControllerManager, Manifest, PodSecurity};
use tempfile::TempDir;

use crate::helm::{Helm, Said, chart, ci_values};
use crate::pods::{nothing_was_refused, only_the_sidecar_has_the_token, wait_for_pods};
use crate::wait::wait_until;

/// What the chart makes, by API version.
const VERSIONS: [&str; 7] = [
    "v1",
    "apps/v1",
    "policy/v1",
    "rbac.authorization.k8s.io/v1",
    "networking.k8s.io/v1",
    "discovery.k8s.io/v1",
    "events.k8s.io/v1",
];
/// Kinds of an operator that is not installed here; a validator checks them against its schemas.
const NOT_SERVED: &str = "monitoring.coreos.com/v1";
const REPLICAS: &str = "app.kubernetes.io/component=replica";

/// A release called `demo`.
struct Release {
    helm: Helm,
    chart: PathBuf,
    admin: &'static ApiClient,
    namespace: String,
}

impl Release {
    /// A namespace that enforces the restricted standard, with nothing in it.
    fn new(major: u8) -> Result<Self> {
        Self::of(major, chart())
    }

    fn of(major: u8, chart: PathBuf) -> Result<Self> {
        let server = ApiServer::shared()?;
        ControllerManager::shared()?;
        let admin = server.admin();
        let namespace = admin.create_namespace("charts", PodSecurity::Restricted)?;
        Ok(Self { helm: Helm::new(major, server)?, chart, admin, namespace })
    }

    fn helm(&self, arguments: &[&str]) -> Result<Said> {
        self.helm.run(&self.namespace, arguments)
    }

    /// `helm install` or `helm upgrade`, which must be taken without a word against it.
    fn put(&self, command: &str, arguments: &[&str]) -> Result<Said> {
        let chart = self.chart.to_str().context("the path is text")?;
        let said = self.helm(&[&[command, "demo", chart], arguments].concat())?;
        ensure!(said.warnings().is_empty(), "{said:?}");
        Ok(said)
    }

    /// Waits for so many replicas, admitted as pods.
    fn replicas(&self, count: usize) -> Result<Vec<String>> {
        self.pods(REPLICAS, count)
    }

    fn pods(&self, selector: &str, count: usize) -> Result<Vec<String>> {
        wait_for_pods(self.admin, &self.namespace, selector, count)
    }

    fn nothing_was_refused(&self) -> Result<()> {
        nothing_was_refused(self.admin, &self.namespace)
    }

    fn only_the_sidecar_has_the_token(&self, pod: &str) -> Result<()> {
        only_the_sidecar_has_the_token(self.admin, &self.namespace, pod)
    }

    /// The pod that `helm test` makes is admitted, and Helm goes by how it ends. Nothing runs in it here: what the
    /// container would do, the test of the program's `status --from=etcd --require-leader` says.
    fn helm_test(&self, phase: &str) -> Result<Said> {
        let arguments = ["test", "demo", "--timeout", "60s"];
        let child = self.helm.start(&self.namespace, &arguments)?;
        let look = || self.admin.pods(&self.namespace, "app.kubernetes.io/component=test");
        // The pod of an earlier test is deleted first.
        let end = || -> Result<bool> {
            let pods = look()?;
            let Some(pod) = pods.first() else { return Ok(false) };
            let path = format!("/api/v1/namespaces/{}/pods/{}", self.namespace, pod.name);
            let now = self.admin.get(&path)?;
            if now.body["status"]["phase"] != "Pending" {
                return Ok(false);
            }
            let status = json!({"metadata": {"uid": pod.uid}, "status": {"phase": phase}});
            Ok(self.admin.patch(&format!("{path}/status"), Content::MergePatch, &status)?.status == 200)
        };
        wait_until("the pod of the test", end, |ended| *ended)?;
        Helm::end(child, &arguments)
    }
}

/// The life of a release, with the chart's own values.
fn a_bare_install(major: u8) -> Result<()> {
    let release = Release::new(major)?;
    let said = release.put("install", &[])?;
    ensure!(said.stdout.contains("STATUS: deployed"), "{said:?}");
    let pods = release.replicas(3)?;
    // And the trial etcd.
    release.pods("", 4)?;
    release.nothing_was_refused()?;
    for pod in &pods {
        release.only_the_sidecar_has_the_token(pod)?;
    }

    release.helm_test("Succeeded")?;
    let failed = release.helm_test("Failed").err().context("a pod that failed passes for a passed test")?;
    ensure!(format!("{failed}").to_lowercase().contains("failed"), "{failed}");

    release.put("upgrade", &["--set", "replicas=2"])?;
    release.replicas(2)?;
    release.put(
        "upgrade",
        &["--set", "replicas=2", "--set", "podAnnotations.changed=yes", "--set", "timings.leaseTtl=20s"],
    )?;
    // One pod of the new template; the others stay until it is ready, which it never is here.
    let look = || release.admin.pods(&release.namespace, REPLICAS);
    wait_until("a pod of the new template", look, |pods| pods.iter().any(|it| it.annotation("changed").is_some()))?;
    release.nothing_was_refused()?;

    release.helm(&["uninstall", "demo", "--wait"])?;
    let leftover = || {
        let contents = release.admin.contents(&release.namespace, &VERSIONS)?;
        Ok(contents.into_iter().filter(|it| !it.starts_with("events/")).collect::<Vec<_>>())
    };
    // The pod of `helm test` is a hook's, which Helm leaves for its log to be read.
    wait_until("nothing is left", leftover, |left| left.iter().all(|it| it == "pods/demo-bellwether-test"))?;
    let policies = release.admin.get("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies")?.ok()?;
    ensure!(!policies.to_string().contains(&format!(".{}.", release.namespace)), "{policies}");
    Ok(())
}

#[test]
fn helm_3_installs_tests_upgrades_and_uninstalls_under_the_restricted_standard() -> Result<()> {
    a_bare_install(3)
}

#[test]
fn helm_4_installs_tests_upgrades_and_uninstalls_under_the_restricted_standard() -> Result<()> {
    a_bare_install(4)
}

/// The control of what is said of warnings and events above.
fn a_violation_is_seen(major: u8) -> Result<()> {
    let release = Release::new(major)?;
    let violates = ["--set", "hostNetwork=true"];
    let denied = release.put("install", &violates).err().context("there is a warning")?;
    ensure!(format!("{denied}").contains("would violate PodSecurity"), "{denied}");
    let look = || Ok(release.nothing_was_refused().map_err(|error| error.to_string()));
    let refused = wait_until("pods are refused", look, Result::is_err)?;
    ensure!(refused.is_err_and(|events| events.contains("violates PodSecurity")));
    ensure!(release.admin.pods(&release.namespace, REPLICAS)?.is_empty());
    Ok(())
}

#[test]
fn what_violates_the_restricted_standard_is_warned_of_through_helm_3_and_refused() -> Result<()> {
    a_violation_is_seen(3)
}

#[test]
fn what_violates_the_restricted_standard_is_warned_of_through_helm_4_and_refused() -> Result<()> {
    a_violation_is_seen(4)
}

#[test]
fn the_example_of_the_library_installs_under_the_restricted_standard() -> Result<()> {
    let folder = TempDir::with_prefix("bellwether-shop-")?;
    let library = chart().join("../bellwether-lib");
    let copied = Command::new("cp").arg("-R").arg(library.join("examples/shop")).arg(folder.path()).status()?;
    ensure!(copied.success());
    // What `helm dependency update` would put there.
    let shop = folder.path().join("shop");
    fs::create_dir(shop.join("charts"))?;
    symlink(library.canonicalize()?, shop.join("charts/bellwether-lib"))?;
    let release = Release::of(4, shop)?;
    release.put("install", &[])?;
    for pod in release.pods("app.kubernetes.io/name=shop", 3)? {
        release.only_the_sidecar_has_the_token(&pod)?;
    }
    release.nothing_was_refused()
}

#[test]
fn the_leader_service_leads_to_the_pod_with_the_label_and_to_nobody_without() -> Result<()> {
    let release = Release::new(4)?;
    release.put("install", &[])?;
    let (admin, namespace) = (release.admin, release.namespace.as_str());
    let pods = release.replicas(3)?;
    admin.create_node("node")?;
    for (pod, address) in pods.iter().zip(["10.2.0.1", "10.2.0.2", "10.2.0.3"]) {
        admin.bind_pod(namespace, pod, "node")?;
        admin.mark_pod_ready(namespace, pod, address)?;
    }
    // Each with its own token, under the release's Role and policy.
    let label = |pod: &str, role: Option<&str>| -> Result<()> {
        let sidecar = ApiServer::shared()?.client(&admin.pod_token(namespace, pod)?)?;
        let patch = json!({"metadata": {
            "labels": {"bellwether.dev/role": role},
            "annotations": {"bellwether.dev/term": "0/1"},
        }});
        let of_pod = format!("/api/v1/namespaces/{namespace}/pods/{pod}");
        sidecar.patch(&of_pod, Content::MergePatch, &patch)?.ok()?;
        Ok(())
    };
    let leads_to = |expected: &[&str]| {
        let look = || admin.service_addresses(namespace, "demo-bellwether-leader");
        wait_until(&format!("the Service leads to {expected:?}"), look, |it| it == expected)
    };
    label(&pods[0], Some("leader"))?;
    label(&pods[1], Some("follower"))?;
    leads_to(&["10.2.0.1"])?;
    label(&pods[0], None)?;
    leads_to(&[])?;
    label(&pods[1], Some("leader"))?;
    leads_to(&["10.2.0.2"])?;
    Ok(())
}

#[test]
fn the_server_finds_nothing_wrong_in_the_expressions_of_the_policy() -> Result<()> {
    let release = Release::new(4)?;
    release.put("install", &[])?;
    let name = format!("demo-bellwether.{}.bellwether.dev", release.namespace);
    let path = format!("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/{name}");
    let checked = |policy: &Value| policy["status"]["observedGeneration"] == policy["metadata"]["generation"];
    let policy = wait_until("the types are checked", || release.admin.get(&path)?.ok(), checked)?;
    let warnings = &policy["status"]["typeChecking"]["expressionWarnings"];
    ensure!(warnings.is_null(), "{warnings:#}");
    Ok(())
}

/// Everything that the CI values render is taken by the server, without unknown fields and without warnings.
#[test]
fn what_is_rendered_from_each_ci_file_is_accepted() -> Result<()> {
    let server = ApiServer::shared()?;
    let helms = [Helm::new(3, server)?, Helm::new(4, server)?];
    let mut findings = Vec::new();
    for file in ci_values()? {
        let values = file.to_str().context("the path is text")?;
        let namespace = server.admin().create_namespace("ci", PodSecurity::Restricted)?;
        let mut rendered = Vec::new();
        for helm in &helms {
            let mut manifests = helm.template(&namespace, &["--values", values])?;
            manifests.sort_by_key(Manifest::title);
            rendered.push(manifests);
        }
        let [by_3, by_4] = rendered.as_slice() else { bail!("rendered by two") };
        ensure!(
            by_3.iter().map(|it| &it.object).eq(by_4.iter().map(|it| &it.object)),
            "Helm 3 and 4 differ on {values}"
        );
        for manifest in by_4.iter().filter(|it| it.api_version() != NOT_SERVED) {
            let answer = server.admin().dry_run(&namespace, manifest)?;
            let expected = |it: &String| values.ends_with("host-network-values.yaml") && it.contains("hostNetwork");
            let warnings: Vec<_> = answer.warnings.iter().filter(|it| !expected(it)).collect();
            if !(200..300).contains(&answer.status) || !warnings.is_empty() {
                findings.push(format!("{values}: {}: {answer} {warnings:?}", manifest.title()));
            }
        }
    }
    ensure!(findings.is_empty(), "{findings:#?}");
    Ok(())
}
