//! What scripts/render-manifests.sh has taken from the chart and changed. That it is what the chart renders today,
//! `scripts/render-manifests.sh --check` says.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::kustomize::{Objects, manifests};

fn rendered(file: &str) -> Result<Objects> {
    Objects::parse(&fs::read_to_string(manifests().join(file))?)
}

#[test]
fn the_manifests_go_into_any_namespace() -> Result<()> {
    for file in ["trial.yaml", "external-etcd.yaml", "examples/etcd/etcd.yaml"] {
        let objects = rendered(file)?;
        for object in objects.all() {
            ensure!(object["metadata"]["namespace"].is_null(), "{file}: {object:#}");
            // Without a namespace the subject is in the binding's own.
            for subject in object["subjects"].as_array().into_iter().flatten() {
                ensure!(subject["namespace"].is_null(), "{file}: {subject}");
            }
            let kind = object["kind"].as_str().context("a kind")?;
            ensure!(!kind.starts_with("Cluster") && !kind.contains("Admission"), "{file}: {kind} has no namespace");
        }
    }
    Ok(())
}

#[test]
fn the_policy_finds_the_accounts_and_their_elections() -> Result<()> {
    let policy = rendered("policy.yaml")?;
    let selector =
        &policy.only("ValidatingAdmissionPolicyBinding")?["spec"]["paramRef"]["selector"]["matchExpressions"][0];
    let key = selector["key"].as_str().context("a key")?;
    for file in ["trial.yaml", "external-etcd.yaml"] {
        let objects = rendered(file)?;
        let template = &objects.only("Deployment")?["spec"]["template"];
        let account = objects.only("ServiceAccount")?;
        ensure!(template["spec"]["serviceAccountName"] == account["metadata"]["name"], "{file}");
        ensure!(account["metadata"]["labels"][key].is_string(), "{file}: the policy does not see {account}");
        ensure!(account["metadata"]["labels"][key] == template["metadata"]["labels"][key], "{file}");
    }
    Ok(())
}

#[test]
fn the_policy_names_no_account_no_election_and_no_namespace() -> Result<()> {
    let policy = rendered("policy.yaml")?;
    let spec = &policy.only("ValidatingAdmissionPolicy")?["spec"];
    ensure!(spec["matchConstraints"]["namespaceSelector"].is_null(), "{spec:#}");
    ensure!(spec["paramKind"]["kind"] == "ServiceAccount");
    let condition = spec["matchConditions"][0]["expression"].as_str().context("who asks")?;
    let account = "'system:serviceaccount:' + params.metadata.namespace + ':' + params.metadata.name";
    ensure!(condition == format!("request.userInfo.username == {account}"), "{condition}");
    let text = spec["validations"].to_string();
    ensure!(text.matches("params.metadata.labels['bellwether.dev/election']").count() == 2, "{text}");
    Ok(())
}
