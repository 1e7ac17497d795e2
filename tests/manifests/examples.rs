//! Each example is complete: what it refers to is in it.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::kustomize::{Objects, kustomize, manifests, named, names, pod_spec};

fn examples() -> Result<Vec<(String, Objects)>> {
    let mut examples = Vec::new();
    for entry in fs::read_dir(manifests().join("examples"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        examples.push((name.clone(), kustomize(&entry.path()).context(name)?));
    }
    ensure!(examples.len() > 2, "the examples and their etcd");
    Ok(examples)
}

fn workloads(objects: &Objects) -> impl Iterator<Item = &Value> {
    objects.all().iter().filter(|object| object["kind"] == "Deployment" || object["kind"] == "StatefulSet")
}

#[test]
fn what_the_examples_refer_to_is_in_them() -> Result<()> {
    for (example, objects) in examples()? {
        for workload in workloads(&objects) {
            let spec = pod_spec(workload);
            if let Some(account) = spec["serviceAccountName"].as_str() {
                objects.get("ServiceAccount", account).context(example.clone())?;
            }
            if let Some(service) = workload["spec"]["serviceName"].as_str() {
                objects.get("Service", service).context(example.clone())?;
            }
            for container in
                ["initContainers", "containers"].iter().flat_map(|list| spec[list].as_array().into_iter().flatten())
            {
                for source in container["envFrom"].as_array().into_iter().flatten() {
                    let settings = source["configMapRef"]["name"].as_str().context("only ConfigMaps")?;
                    let settings = objects.get("ConfigMap", settings).context(example.clone())?;
                    let endpoint = settings["data"]["BELLWETHER_ETCD_ENDPOINTS"].as_str().context("endpoints")?;
                    let host = endpoint.trim_start_matches("http://").trim_end_matches(":2379");
                    objects.get("Service", host).context(example.clone())?;
                }
                let mut volumes: BTreeSet<&str> = names(&spec["volumes"]).into_iter().collect();
                for claim in workload["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten() {
                    volumes.extend(claim["metadata"]["name"].as_str());
                }
                for mount in names(&container["volumeMounts"]) {
                    ensure!(volumes.contains(mount), "{example}: no volume {mount}");
                }
            }
        }
        for service in objects.all().iter().filter(|object| object["kind"] == "Service") {
            let selects = |workload: &Value| {
                let labels = &workload["spec"]["template"]["metadata"]["labels"];
                let selector = service["spec"]["selector"].as_object();
                // The role is what the sidecar adds.
                selector.is_some_and(|it| {
                    it.iter().all(|(key, value)| key == "bellwether.dev/role" || labels[key] == *value)
                })
            };
            ensure!(workloads(&objects).any(selects), "{example}: {} selects no pod", service["metadata"]["name"]);
        }
    }
    Ok(())
}

#[test]
fn the_application_asks_the_sidecar_that_is_next_to_it() -> Result<()> {
    for (example, workload) in [("cron-worker", "reports"), ("stateful-set", "store")] {
        let objects = kustomize(&manifests().join("examples").join(example))?;
        let workload = workloads(&objects).find(|it| it["metadata"]["name"] == workload).context(workload)?;
        let spec = pod_spec(workload);
        ensure!(names(&spec["initContainers"]).last() == Some(&"bellwether"));
        let script = spec["containers"][0]["args"][0].as_str().context("a script")?;
        ensure!(script.contains("http://localhost:4040/leader?identity=$POD_NAME"), "{script}");
        let name = named(&spec["containers"][0]["env"], "POD_NAME")?;
        let identity = named(&named(&spec["initContainers"], "bellwether")?["env"], "BELLWETHER_IDENTITY")?;
        ensure!(name["valueFrom"] == identity["valueFrom"], "they name the pod differently");
    }
    Ok(())
}

#[test]
fn the_stateful_set_s_leader_has_a_service_with_an_address_of_its_own() -> Result<()> {
    let objects = kustomize(&manifests().join("examples/stateful-set"))?;
    let service = objects.get("Service", "store-leader")?;
    ensure!(service["spec"]["clusterIP"].is_null(), "{service:#}");
    let container = &pod_spec(objects.get("StatefulSet", "store")?)["containers"][0];
    let port = named(&container["ports"], service["spec"]["ports"][0]["targetPort"].as_str().context("by name")?)?;
    ensure!(port["containerPort"] == 8080, "{port}");
    Ok(())
}
