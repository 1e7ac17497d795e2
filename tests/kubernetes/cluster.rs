//! That the server of these tests is what they take it for.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use support::kubernetes::{
    ApiClient, ApiServer, Content, ControllerManager, PodOptions, PodSecurity, PodTimeline, Throttle,
    kubernetes_binary, manifests,
};
use support::{Moment, Proxy};

use crate::wait::{PATIENCE, wait_until};

const ROLE: &str = "bellwether.dev/role";
const READ_PODS: &str = "[{apiGroups: [''], resources: [pods], verbs: [get, list]}]";

/// A namespace with a service account `sidecar` and a pod `web-0`.
fn namespace_with_a_pod(server: &ApiServer) -> Result<String> {
    let namespace = server.admin().create_namespace("cluster", PodSecurity::Restricted)?;
    server.admin().create_service_account(&namespace, "sidecar")?;
    server.admin().create_pod(&namespace, &PodOptions::new("web-0", "sidecar"))?;
    Ok(namespace)
}

fn pods_path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

fn wait_for_status(client: &ApiClient, path: &str, status: u16) -> Result<()> {
    wait_until(&format!("{status} for {path}"), || Ok(client.get(path)?.status), |it| *it == status)?;
    Ok(())
}

#[test]
fn a_token_of_a_pod_tells_the_server_which_pod_it_belongs_to() -> Result<()> {
    let server = ApiServer::shared()?;
    let namespace = namespace_with_a_pod(server)?;
    let review = |token: &str| {
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        Ok::<_, anyhow::Error>(server.client(token)?.post(path, &json!({}))?.ok()?["status"]["userInfo"].clone())
    };
    let bound = review(&server.admin().pod_token(&namespace, "web-0")?)?;
    ensure!(bound["username"] == format!("system:serviceaccount:{namespace}:sidecar"), "{bound}");
    ensure!(bound["extra"]["authentication.kubernetes.io/pod-name"] == json!(["web-0"]), "{bound}");
    let unbound = review(&server.admin().unbound_token(&namespace, "sidecar")?)?;
    ensure!(unbound["username"] == bound["username"], "{unbound}");
    ensure!(unbound["extra"]["authentication.kubernetes.io/pod-name"].is_null(), "{unbound}");
    Ok(())
}

#[test]
fn a_service_account_may_do_what_is_granted_and_nothing_else() -> Result<()> {
    let server = ApiServer::shared()?;
    let namespace = namespace_with_a_pod(server)?;
    let sidecar = server.client(&server.admin().pod_token(&namespace, "web-0")?)?;
    let pods = pods_path(&namespace);
    ensure!(sidecar.get(&pods)?.status == 403);
    server.admin().grant(&namespace, "sidecar", READ_PODS)?;
    ensure!(sidecar.get(&pods)?.status == 200);
    ensure!(sidecar.delete(&format!("{pods}/web-0"))?.status == 403);
    ensure!(sidecar.get("/api/v1/namespaces/default/pods")?.status == 403);
    server.admin().grant(&namespace, "sidecar", "[]")?;
    ensure!(sidecar.get(&pods)?.status == 403);
    Ok(())
}

#[test]
fn a_throttled_service_account_is_answered_429_and_nobody_else() -> Result<()> {
    let server = ApiServer::shared()?;
    let namespace = namespace_with_a_pod(server)?;
    server.admin().create_service_account(&namespace, "other")?;
    for account in ["sidecar", "other"] {
        server.admin().grant(&namespace, account, READ_PODS)?;
    }
    let sidecar = server.client(&server.admin().pod_token(&namespace, "web-0")?)?;
    let other = server.client(&server.admin().unbound_token(&namespace, "other")?)?;
    let pods = pods_path(&namespace);
    let throttle = Throttle::start(server, &namespace, "sidecar")?;
    for _ in 0..10 {
        ensure!(sidecar.get(&pods)?.status == 429);
        ensure!(other.get(&pods)?.status == 200);
    }
    throttle.lift()?;
    ensure!(sidecar.get(&pods)?.status == 200);
    Ok(())
}

#[test]
fn the_restricted_standard_refuses_pods_and_warns_of_templates() -> Result<()> {
    let server = ApiServer::shared()?;
    let namespace = namespace_with_a_pod(server)?;
    let spec = json!({"containers": [{"name": "app", "image": "app:1", "securityContext": {"privileged": true}}]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "rude"}, "spec": spec});
    let refused = server.admin().apply_object(&namespace, &pod)?;
    ensure!(refused.status == 403 && refused.message().contains("violates PodSecurity"), "{refused}");
    let labels = json!({"app": "rude"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "rude"},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
    });
    let [deployment] = &manifests(&deployment.to_string())?[..] else { bail!("one document") };
    let warned = server.admin().dry_run(&namespace, deployment)?;
    ensure!(warned.status == 201, "{warned}");
    ensure!(warned.warnings.iter().any(|warning| warning.contains("would violate PodSecurity")), "{warned:?}");
    ensure!(server.admin().contents(&namespace, &["apps/v1"])?.is_empty(), "a dry run leaves nothing");
    Ok(())
}

#[test]
fn the_timeline_has_every_change_of_a_label_in_order() -> Result<()> {
    let server = ApiServer::shared()?;
    let namespace = namespace_with_a_pod(server)?;
    let timeline = PodTimeline::start(server, &namespace)?;
    let label = |pod: &str, role: Option<&str>| {
        let patch = json!({"metadata": {"labels": {ROLE: role}}});
        server.admin().merge_patch_pod(&namespace, pod, &patch)
    };
    let begin = Moment::now();
    label("web-0", Some("leader"))?;
    server.admin().create_pod(&namespace, &PodOptions::new("web-1", "sidecar").labelled(ROLE, "follower"))?;
    label("web-1", Some("leader"))?;
    label("web-0", None)?;
    server.admin().delete_pod(&namespace, "web-1")?;
    timeline.catch_up(PATIENCE)?;
    let changes = timeline.label_changes(ROLE);
    let told: Vec<_> = changes.iter().map(|it| (it.pod.as_str(), it.from.as_deref(), it.to.as_deref())).collect();
    let expected = [
        ("web-0", None, Some("leader")),
        ("web-1", None, Some("follower")),
        ("web-1", Some("follower"), Some("leader")),
        ("web-0", Some("leader"), None),
        ("web-1", Some("leader"), None),
    ];
    ensure!(told == expected, "{told:?}");
    ensure!(changes.is_sorted_by(|a, b| a.revision < b.revision && a.seen <= b.seen));
    ensure!(changes.iter().all(|it| it.seen >= begin && it.seen.passed()));
    let carriers: Vec<_> = timeline.carriers(ROLE, "leader").into_iter().map(|(_, pods)| pods).collect();
    ensure!(carriers == [vec!["web-0"], vec!["web-0", "web-1"], vec!["web-1"], vec![]], "{carriers:?}");
    Ok(())
}

#[test]
fn the_audit_log_has_what_a_pod_asked_for() -> Result<()> {
    let server = ApiServer::shared()?;
    let namespace = namespace_with_a_pod(server)?;
    let sidecar = server.client(&server.admin().pod_token(&namespace, "web-0")?)?;
    let patch = json!({"metadata": {"labels": {ROLE: "leader"}}});
    let web_0 = format!("{}/web-0", pods_path(&namespace));
    ensure!(sidecar.patch(&web_0, Content::MergePatch, &patch)?.status == 403);
    server.admin().grant(&namespace, "sidecar", "[{apiGroups: [''], resources: [pods], verbs: [patch]}]")?;
    ensure!(sidecar.patch(&web_0, Content::MergePatch, &patch)?.status == 200);
    let requests = server.requests(&namespace)?;
    let told: Vec<_> = requests.iter().map(|it| (it.verb.as_str(), it.uri.as_str(), it.code)).collect();
    ensure!(told == [("patch", web_0.as_str(), 403), ("patch", web_0.as_str(), 200)], "{told:?}");
    let last = &requests[1];
    ensure!((last.resource.as_str(), last.name.as_str(), last.pod.as_deref()) == ("pods", "web-0", Some("web-0")));
    ensure!(last.body == patch, "{last:?}");
    Ok(())
}

#[test]
fn a_kubeconfig_works_through_a_proxy_and_its_token_can_be_replaced() -> Result<()> {
    let server = ApiServer::shared()?;
    let namespace = namespace_with_a_pod(server)?;
    server.admin().grant(&namespace, "sidecar", READ_PODS)?;
    let mount = server.mount_token(&namespace, "web-0")?;
    let proxy = Proxy::start(server.address())?;
    let kubeconfig = mount.kubeconfig(proxy.address())?;
    let get_pods = || {
        let mut kubectl = Command::new(kubernetes_binary("kubectl")?);
        kubectl.arg("--kubeconfig").arg(&kubeconfig).args(["get", "pods", "--output=name", "--cache-dir"]);
        let output = kubectl.arg(mount.folder().join("cache")).output()?;
        let texts = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        anyhow::Ok((output.status.success(), texts))
    };
    let (worked, texts) = get_pods()?;
    ensure!(worked && texts.0 == "pod/web-0\n", "{texts:?}");
    ensure!(proxy.accepted() > 0);
    mount.replace_token("nobody's")?;
    let (worked, texts) = get_pods()?;
    ensure!(!worked && texts.1.contains("Unauthorized"), "{texts:?}");
    Ok(())
}

#[test]
fn a_program_started_as_in_the_cluster_finds_the_service_account() -> Result<()> {
    let server = ApiServer::shared()?;
    let namespace = namespace_with_a_pod(server)?;
    let mount = server.mount_token(&namespace, "web-0")?;
    let shell = mount.in_cluster("/bin/sh".as_ref(), server.address())?;
    let script = "cd /var/run/secrets/kubernetes.io/serviceaccount && cat token && echo && cat namespace && echo &&
        grep -c BEGIN ca.crt && echo $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT $0 $$";
    let child = Command::new(shell).args(["-c", script, "an argument"]).stdout(std::process::Stdio::piped()).spawn()?;
    let pid = child.id();
    let output = child.wait_with_output()?;
    let text = String::from_utf8(output.stdout)?;
    let token = std::fs::read_to_string(mount.token_file())?;
    let expected = format!("{token}\n{namespace}\n1\n{} an argument {pid}\n", server.address());
    ensure!(text == expected, "{text}");
    ensure!(!std::path::Path::new("/var/run/secrets/kubernetes.io/serviceaccount").exists(), "nobody else sees it");
    Ok(())
}

#[test]
fn a_deployment_becomes_pods_and_a_service_follows_their_labels() -> Result<()> {
    let server = ApiServer::shared()?;
    ControllerManager::shared()?;
    let admin = server.admin();
    let namespace = admin.create_namespace("cluster", PodSecurity::Privileged)?;
    admin.apply(
        &namespace,
        "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: app, image: 'app:1'}]}
---
apiVersion: v1
kind: Service
metadata: {name: web-leader}
spec:
  selector: {app: web, bellwether.dev/role: leader}
  ports: [{port: 80}]
",
    )?;
    let pods = wait_until("two pods", || admin.pods(&namespace, "app=web"), |pods| pods.len() == 2)?;
    admin.create_node("node")?;
    for (pod, address) in pods.iter().zip(["10.1.0.1", "10.1.0.2"]) {
        admin.bind_pod(&namespace, &pod.name, "node")?;
        admin.mark_pod_ready(&namespace, &pod.name, address)?;
    }
    for (leader, follower, address) in [(&pods[0], &pods[1], "10.1.0.1"), (&pods[1], &pods[0], "10.1.0.2")] {
        admin.merge_patch_pod(&namespace, &follower.name, &json!({"metadata": {"labels": {ROLE: null}}}))?;
        admin.merge_patch_pod(&namespace, &leader.name, &json!({"metadata": {"labels": {ROLE: "leader"}}}))?;
        let look = || admin.service_addresses(&namespace, "web-leader");
        wait_until("the Service has the leader's address", look, |it| *it == [address])?;
    }
    Ok(())
}

#[test]
fn a_server_that_is_killed_comes_back_where_it_was_with_what_it_had() -> Result<()> {
    let mut server = ApiServer::start()?;
    let namespace = namespace_with_a_pod(&server)?;
    server.admin().grant(&namespace, "sidecar", READ_PODS)?;
    let timeline = PodTimeline::start(&server, &namespace)?;
    let sidecar = server.client(&server.admin().pod_token(&namespace, "web-0")?)?;
    let before = server.admin().pod(&namespace, "web-0")?;
    server.kill();
    ensure!(sidecar.get("/readyz").is_err());
    server.restart()?;
    ensure!(server.admin().pod(&namespace, "web-0")? == before);
    ensure!(sidecar.get(&pods_path(&namespace))?.status == 200, "tokens stay good");

    server.freeze()?;
    let frozen = server.admin().clone();
    let asked = std::thread::scope(|scope| {
        let answer = scope.spawn(|| frozen.get("/readyz"));
        std::thread::sleep(Duration::from_millis(300));
        ensure!(!answer.is_finished(), "a frozen server answers");
        server.thaw()?;
        answer.join().ok().context("the thread that asked panicked")?
    })?;
    ensure!(asked.status == 200, "{asked}");

    server.restart_with_a_new_service_account_key()?;
    ensure!(sidecar.get(&pods_path(&namespace))?.status == 401, "an old token");
    let sidecar = server.client(&server.admin().pod_token(&namespace, "web-0")?)?;
    ensure!(sidecar.get(&pods_path(&namespace))?.status == 200, "a new token");
    server.admin().merge_patch_pod(&namespace, "web-0", &json!({"metadata": {"labels": {ROLE: "leader"}}}))?;
    timeline.catch_up(PATIENCE)?;
    ensure!(timeline.label_changes(ROLE).len() == 1, "the timeline goes on");
    Ok(())
}

#[test]
fn a_token_is_refused_once_its_pod_or_its_service_account_is_gone() -> Result<()> {
    let server = ApiServer::shared()?;
    let namespace = namespace_with_a_pod(server)?;
    let admin = server.admin();
    admin.create_pod(&namespace, &PodOptions::new("web-1", "sidecar"))?;
    let [first, second] = ["web-0", "web-1"].map(|pod| server.client(&admin.pod_token(&namespace, pod)?));
    let (first, second) = (first?, second?);
    let pods = pods_path(&namespace);
    ensure!((first.get(&pods)?.status, second.get(&pods)?.status) == (403, 403), "known, without rights");
    admin.delete_pod(&namespace, "web-0")?;
    wait_for_status(&first, &pods, 401)?;
    ensure!(second.get(&pods)?.status == 403, "the other pod's token stays good");
    admin.delete_service_account(&namespace, "sidecar")?;
    wait_for_status(&second, &pods, 401)?;
    admin.create_service_account(&namespace, "sidecar")?;
    let third = server.client(&admin.pod_token(&namespace, "web-1")?)?;
    ensure!((second.get(&pods)?.status, third.get(&pods)?.status) == (401, 403), "another of the same name");
    Ok(())
}
