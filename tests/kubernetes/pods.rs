//! What must be true of the pods of every installation, as they were admitted.

use anyhow::{Result, ensure};
use serde_json::Value;
use support::kubernetes::ApiClient;

use crate::wait::wait_until;

/// Where a container finds a service account's token.
const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Waits until controllers have created so many pods that a selector selects; their names.
pub fn wait_for_pods(admin: &ApiClient, namespace: &str, selector: &str, count: usize) -> Result<Vec<String>> {
    let look = || admin.pods(namespace, selector);
    let pods = wait_until(&format!("{count} pods of {selector:?}"), look, |pods| pods.len() == count)?;
    Ok(pods.into_iter().map(|pod| pod.name).collect())
}

/// That no controller was refused a pod.
pub fn nothing_was_refused(admin: &ApiClient, namespace: &str) -> Result<()> {
    let events = admin.events(namespace)?;
    // The API server warns of an address that it is handing out at that very moment, and mends nothing by that.
    let of_the_server = |event: &Value| event["reportingController"] == "ipallocator-repair-controller";
    let warnings = events.iter().filter(|event| event["type"] == "Warning");
    let refused: Vec<&Value> = warnings.filter(|event| !of_the_server(event)).collect();
    ensure!(refused.is_empty(), "{refused:#?}");
    Ok(())
}

/// That the token is in the sidecar and in no other container of this pod.
pub fn only_the_sidecar_has_the_token(admin: &ApiClient, namespace: &str, pod: &str) -> Result<()> {
    let pod = admin.pod_object(namespace, pod)?;
    let containers = ["initContainers", "containers"].map(|list| pod["spec"][list].as_array().cloned());
    let mounts_it = |container: &Value| {
        let mounts = container["volumeMounts"].as_array();
        mounts.is_some_and(|mounts| mounts.iter().any(|mount| mount["mountPath"] == TOKEN_MOUNT))
    };
    let containers = containers.into_iter().flatten().flatten();
    let with_token: Vec<Value> = containers.filter(mounts_it).map(|container| container["name"].clone()).collect();
    ensure!(with_token == ["bellwether"], "{with_token:?} have the token: {:#}", pod["spec"]);
    Ok(())
}
