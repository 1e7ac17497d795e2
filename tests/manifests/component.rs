//! components/sidecar goes into whatever workload there is, and changes nothing else about it.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::kustomize::{Kustomization, Objects, manifests, named, names, pod_spec};

const SETTINGS: &str = "
resources: [workload.yaml]
components: [sidecar]
configMapGenerator:
  - name: web-app-bellwether
    literals: [BELLWETHER_ETCD_ENDPOINTS=http://etcd:2379]
";

/// A workload as it may have been before, of this kind, with these fields of its pod.
fn workload(kind: &str, pod_fields: &str) -> String {
    format!(
        "{{apiVersion: apps/v1, kind: {kind}, metadata: {{name: web-app}}, spec: {{selector: {{matchLabels: {{app: web}}}}, \
         template: {{metadata: {{labels: {{app: web}}, annotations: {{a: b}}}}, \
         spec: {{containers: [{{name: app, image: app}}, {{name: proxy, image: proxy}}], {pod_fields}}}}}}}}}"
    )
}

const ACCOUNT: &str = "serviceAccountName: web";

fn build(kind: &str, pod_fields: &str) -> Result<Objects> {
    Kustomization::with(&[("kustomization.yaml", SETTINGS), ("workload.yaml", &workload(kind, pod_fields))])?.build()
}

#[test]
fn the_sidecar_is_the_last_init_container_whatever_there_was() -> Result<()> {
    let one_and_two = "initContainers: [{name: one, image: one}, {name: two, image: two}]";
    let before: [(&str, &[&str]); 6] = [
        ("", &["bellwether"]),
        ("initContainers: []", &["bellwether"]),
        ("initContainers: [{name: zero, image: zero}]", &["zero", "bellwether"]),
        (one_and_two, &["one", "two", "bellwether"]),
        // Put there by hand before: it becomes the component's, in the component's place.
        ("initContainers: [{name: one}, {name: bellwether}, {name: two}]", &["one", "two", "bellwether"]),
        ("initContainers: [{name: mesh, image: mesh, restartPolicy: Always}]", &["mesh", "bellwether"]),
    ];
    for kind in ["Deployment", "StatefulSet"] {
        for (init_containers, expected) in before {
            let objects = build(kind, &format!("{ACCOUNT}, {init_containers}"))?;
            let spec = pod_spec(objects.only(kind)?);
            ensure!(
                names(&spec["initContainers"]) == expected,
                "{kind}, {init_containers}: {}",
                spec["initContainers"]
            );
            ensure!(names(&spec["containers"]) == ["app", "proxy"], "{kind}: {}", spec["containers"]);
        }
    }
    Ok(())
}

#[test]
fn nothing_else_about_the_workload_changes() -> Result<()> {
    for kind in ["Deployment", "StatefulSet"] {
        let fields = format!(
            "{ACCOUNT}, initContainers: [{{name: one, image: one}}], volumes: [{{name: data, emptyDir: {{}}}}], \
             securityContext: {{fsGroup: 7}}, terminationGracePeriodSeconds: 99"
        );
        let mut after = build(kind, &fields)?.only(kind)?.clone();
        let before = Objects::parse(&workload(kind, &fields))?.only(kind)?.clone();
        let template = &mut after["spec"]["template"];
        ensure!(template["spec"]["automountServiceAccountToken"] == json!(false));
        for list in ["initContainers", "volumes"] {
            retain(&mut template["spec"][list], |name| !name.starts_with("bellwether"));
        }
        remove(&mut template["spec"], "automountServiceAccountToken");
        remove(&mut template["metadata"]["labels"], "bellwether.dev/election");
        ensure!(after == before, "{kind}\n{after:#}\n{before:#}");
    }
    Ok(())
}

fn retain(list: &mut Value, keeps: impl Fn(&str) -> bool) {
    if let Some(items) = list.as_array_mut() {
        items.retain(|item| keeps(item["name"].as_str().unwrap_or_default()));
    }
}

fn remove(map: &mut Value, key: &str) {
    if let Some(map) = map.as_object_mut() {
        map.remove(key);
    }
}

#[test]
fn everything_is_named_after_the_workload_and_refers_to_each_other() -> Result<()> {
    for kind in ["Deployment", "StatefulSet"] {
        let objects = build(kind, ACCOUNT)?;
        let workload = objects.only(kind)?;
        ensure!(workload["spec"]["template"]["metadata"]["labels"]["bellwether.dev/election"] == "web-app");

        let selector = &objects.get("Service", "web-app-leader")?["spec"]["selector"];
        ensure!(
            *selector == json!({"bellwether.dev/election": "web-app", "bellwether.dev/role": "leader"}),
            "{selector}"
        );

        objects.get("Role", "web-app-pod-label")?;
        let binding = objects.get("RoleBinding", "web-app-pod-label")?;
        ensure!(binding["roleRef"]["name"] == "web-app-pod-label");
        // Without a namespace: the binding's own.
        ensure!(binding["subjects"] == json!([{"kind": "ServiceAccount", "name": "web"}]), "{binding}");

        let sidecar = named(&pod_spec(workload)["initContainers"], "bellwether")?;
        let settings = &objects.only("ConfigMap")?["metadata"]["name"];
        ensure!(sidecar["envFrom"] == json!([{"configMapRef": {"name": settings}}]), "{}", sidecar["envFrom"]);
        ensure!(settings.as_str().is_some_and(|name| name.starts_with("web-app-bellwether-")), "{settings}: no hash");
        let election = named(&sidecar["env"], "BELLWETHER_ELECTION")?;
        ensure!(election["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['bellwether.dev/election']");

        let etcd = named(&pod_spec(workload)["volumes"], "bellwether-etcd")?;
        let secret = json!([{"secret": {"name": "web-app-bellwether-etcd", "optional": true}}]);
        ensure!(etcd["projected"]["sources"] == secret, "{etcd}");
        for object in objects.all() {
            ensure!(!object.to_string().contains("WORKLOAD"), "{object:#}");
        }
    }
    Ok(())
}

#[test]
fn the_token_is_mounted_into_the_sidecar_alone() -> Result<()> {
    let objects = build("Deployment", &format!("{ACCOUNT}, initContainers: [{{name: one, image: one}}]"))?;
    let spec = pod_spec(objects.only("Deployment")?);
    ensure!(spec["automountServiceAccountToken"] == json!(false));
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array().into_iter().flatten() {
            let mounts = names(&container["volumeMounts"]);
            ensure!(mounts.contains(&"bellwether-token") == (container["name"] == "bellwether"), "{container:#}");
        }
    }
    Ok(())
}

#[test]
fn names_and_namespaces_of_layers_above_reach_everything() -> Result<()> {
    let account = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: web}}";
    let objects = Kustomization::with(&[
        ("kustomization.yaml", "{resources: [app], namespace: shop, namePrefix: eu-}"),
        ("app/kustomization.yaml", &SETTINGS.replace("components: [sidecar]", "components: [../sidecar]")),
        ("app/workload.yaml", &format!("{}\n---\n{account}", workload("StatefulSet", ACCOUNT))),
    ])?
    .build()?;
    for object in objects.all() {
        ensure!(object["metadata"]["namespace"] == "shop", "{object:#}");
        ensure!(object["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("eu-")), "{object:#}");
    }
    let binding = objects.only("RoleBinding")?;
    ensure!(
        binding["subjects"] == json!([{"kind": "ServiceAccount", "name": "eu-web", "namespace": "shop"}]),
        "{binding}"
    );
    ensure!(binding["roleRef"]["name"] == objects.only("Role")?["metadata"]["name"], "{binding}");
    let workload = objects.only("StatefulSet")?;
    ensure!(pod_spec(workload)["serviceAccountName"] == "eu-web");
    let sidecar = named(&pod_spec(workload)["initContainers"], "bellwether")?;
    ensure!(sidecar["envFrom"][0]["configMapRef"]["name"] == objects.only("ConfigMap")?["metadata"]["name"]);
    // The election keeps its name, and whoever goes by it goes by the same.
    let election = &workload["spec"]["template"]["metadata"]["labels"]["bellwether.dev/election"];
    ensure!(objects.only("Service")?["spec"]["selector"]["bellwether.dev/election"] == *election);
    ensure!(objects.only("ServiceAccount")?["metadata"]["labels"]["bellwether.dev/election"] == *election);
    Ok(())
}

/// The message of a kustomization that must not build.
fn refusal(kustomization: &str, workloads: &str) -> Result<String> {
    let files = [("kustomization.yaml", kustomization), ("workload.yaml", workloads)];
    match Kustomization::with(&files)?.build() {
        Ok(objects) => anyhow::bail!("it builds: {:?}", objects.names()),
        Err(error) => Ok(format!("{error:#}")),
    }
}

#[test]
fn what_the_component_cannot_do_right_it_does_not_do() -> Result<()> {
    let one = workload("Deployment", ACCOUNT);
    let cases = [
        ("two workloads", SETTINGS, format!("{one}\n---\n{}", one.replace("web-app", "other")), "multiple matches"),
        ("two of two kinds", SETTINGS, format!("{one}\n---\n{}", workload("StatefulSet", ACCOUNT)), "multiple matches"),
        ("none", SETTINGS, "{apiVersion: v1, kind: ConfigMap, metadata: {name: x}}".to_owned(), "nothing selected"),
        ("a kind that has no replicas", SETTINGS, workload("DaemonSet", ACCOUNT), "unable to find field"),
        ("no service account", SETTINGS, workload("Deployment", ""), "serviceAccountName"),
        (
            "the component twice",
            &SETTINGS.replace("[sidecar]", "[sidecar, sidecar]"),
            one.clone(),
            "already registered",
        ),
    ];
    for (what, kustomization, workloads, reason) in cases {
        let message = refusal(kustomization, &workloads).map_err(|error| error.context(what))?;
        ensure!(message.contains(reason), "{what}: {message}");
    }
    // Without these faults it does.
    Kustomization::with(&[("kustomization.yaml", SETTINGS), ("workload.yaml", &one)])?.build()?;
    Ok(())
}

#[test]
fn the_component_s_sidecar_is_the_chart_s() -> Result<()> {
    let read = |file: &str| Objects::parse(&std::fs::read_to_string(manifests().join(file))?);
    let (component, chart) = (read("components/sidecar/sidecar.yaml")?, read("trial.yaml")?);
    let (our_spec, their_spec) = (pod_spec(component.only("Deployment")?), pod_spec(chart.only("Deployment")?));
    let (ours, theirs) =
        (named(&our_spec["initContainers"], "bellwether")?, named(&their_spec["initContainers"], "bellwether")?);
    // What comes from settings is compared below, as far as it is the same for all.
    let fields = |container: &Value| {
        let mut fields = container.as_object().cloned().unwrap_or_default();
        fields.retain(|field, _| !["env", "envFrom", "volumeMounts"].contains(&field.as_str()));
        fields
    };
    ensure!(fields(ours) == fields(theirs), "{ours:#}\n{theirs:#}");
    for variable in names(&ours["env"]).into_iter().filter(|name| *name != "BELLWETHER_ELECTION") {
        ensure!(named(&ours["env"], variable)? == named(&theirs["env"], variable)?, "{variable}");
    }
    for volume in ["bellwether-token", "bellwether-state"] {
        ensure!(named(&ours["volumeMounts"], volume)? == named(&theirs["volumeMounts"], volume)?);
        ensure!(named(&our_spec["volumes"], volume)? == named(&their_spec["volumes"], volume)?);
    }
    // The state is where the program is told that it is, and in memory.
    let state = named(&ours["volumeMounts"], "bellwether-state")?;
    ensure!(named(&ours["env"], "BELLWETHER_STATE_DIR")?["value"] == state["mountPath"], "{state}");
    ensure!(named(&our_spec["volumes"], "bellwether-state")?["emptyDir"]["medium"] == "Memory");
    ensure!(read("components/sidecar/role.yaml")?.only("Role")?["rules"] == chart.only("Role")?["rules"]);
    Ok(())
}
