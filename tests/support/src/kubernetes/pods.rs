//! Pods as objects: nothing runs in them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::api::{ApiClient, Content};

/// A pod to create. It meets the restricted standard.
#[derive(Clone, Debug)]
pub struct PodOptions {
    /// Its name.
    pub name: String,
    /// Its service account.
    pub service_account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The node that it is bound to, whether there is one or not.
    pub node: String,
}

impl PodOptions {
    /// A pod without labels.
    #[must_use]
    pub fn new(name: &str, service_account: &str) -> Self {
        Self {
            name: name.to_owned(),
            service_account: service_account.to_owned(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            node: "node".to_owned(),
        }
    }

    /// With one more label.
    #[must_use]
    pub fn labelled(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With one more annotation.
    #[must_use]
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    fn object(&self) -> Value {
        let container = json!({
            "name": "app",
            "image": "app:1",
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
        });
        json!({
            "metadata": {"name": self.name, "labels": self.labels, "annotations": self.annotations},
            "spec": {
                "nodeName": self.node,
                "serviceAccountName": self.service_account,
                "automountServiceAccountToken": false,
                "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [container],
            },
        })
    }
}

/// What the tests of labels want to know of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    /// Its name.
    pub name: String,
    /// Differs from that of an earlier pod of the same name.
    pub uid: String,
    /// Its resourceVersion. On one server the changes of all pods are in the order of these numbers.
    pub revision: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

impl PodView {
    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    /// The value of an annotation.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }

    pub(super) fn of(pod: &Value) -> Result<Self> {
        let metadata = &pod["metadata"];
        let text = |field: &str| metadata[field].as_str().with_context(|| format!("a pod without {field}: {pod}"));
        let map = |field: &str| -> BTreeMap<String, String> {
            let pairs = metadata[field].as_object().into_iter().flatten();
            pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
        };
        Ok(Self {
            name: text("name")?.to_owned(),
            uid: text("uid")?.to_owned(),
            revision: text("resourceVersion")?.parse()?,
            labels: map("labels"),
            annotations: map("annotations"),
        })
    }
}

/// The path of a pod.
fn path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}")
}

impl ApiClient {
    /// Creates a pod, bound to its node and pending.
    ///
    /// # Errors
    /// What the server says.
    pub fn create_pod(&self, namespace: &str, options: &PodOptions) -> Result<PodView> {
        PodView::of(&self.post(&format!("/api/v1/namespaces/{namespace}/pods"), &options.object())?.ok()?)
    }

    /// Deletes a pod, at once.
    ///
    /// # Errors
    /// What the server says.
    pub fn delete_pod(&self, namespace: &str, name: &str) -> Result<()> {
        self.delete(&path(namespace, name))?.ok()?;
        Ok(())
    }

    /// A pod as it is.
    ///
    /// # Errors
    /// What the server says, also when there is none.
    pub fn pod_object(&self, namespace: &str, name: &str) -> Result<Value> {
        self.get(&path(namespace, name))?.ok()
    }

    /// A pod's labels and annotations.
    ///
    /// # Errors
    /// What the server says, also when there is none.
    pub fn pod(&self, namespace: &str, name: &str) -> Result<PodView> {
        PodView::of(&self.pod_object(namespace, name)?)
    }

    /// The pods that a label selector selects; an empty one selects all.
    ///
    /// # Errors
    /// What the server says.
    pub fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<PodView>> {
        let selector = selector.replace('=', "%3D").replace(',', "%2C").replace('!', "%21");
        let list = self.get(&format!("/api/v1/namespaces/{namespace}/pods?labelSelector={selector}"))?.ok()?;
        list["items"].as_array().context("a list of pods")?.iter().map(PodView::of).collect()
    }

    /// Changes a pod: `{"metadata": {"labels": {…}}}`, null removes.
    ///
    /// # Errors
    /// What the server says.
    pub fn merge_patch_pod(&self, namespace: &str, name: &str, patch: &Value) -> Result<PodView> {
        PodView::of(&self.patch(&path(namespace, name), Content::MergePatch, patch)?.ok()?)
    }

    /// Creates a node, if there is none of this name. Endpoints need one: a pod whose node does not exist is left out.
    ///
    /// # Errors
    /// What the server says.
    pub fn create_node(&self, name: &str) -> Result<()> {
        self.apply_object("", &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}))?.ok()?;
        Ok(())
    }

    /// Binds a pending pod to a node, as the scheduler would.
    ///
    /// # Errors
    /// What the server says.
    pub fn bind_pod(&self, namespace: &str, name: &str, node: &str) -> Result<()> {
        let target = json!({"apiVersion": "v1", "kind": "Node", "name": node});
        let binding = json!({"metadata": {"name": name}, "target": target});
        self.post(&format!("{}/binding", path(namespace, name)), &binding)?.ok()?;
        Ok(())
    }

    /// Says of a pod what its kubelet would say once it runs: ready, at this address.
    ///
    /// # Errors
    /// What the server says.
    pub fn mark_pod_ready(&self, namespace: &str, name: &str, address: &str) -> Result<()> {
        let conditions = ["Initialized", "PodScheduled", "ContainersReady", "Ready"];
        let conditions = conditions.map(|kind| json!({"type": kind, "status": "True"}));
        let status = json!({"status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": conditions,
        }});
        let marked = self.patch(&format!("{}/status", path(namespace, name)), Content::MergePatch, &status)?.ok()?;
        ensure!(marked["status"]["phase"] == "Running", "not marked: {marked}");
        Ok(())
    }

    /// A token of the pod's service account that dies with the pod and tells the server which pod it belongs to: what
    /// a kubelet asks for and projects. Each call gives another one; earlier ones stay good.
    ///
    /// # Errors
    /// What the server says.
    pub fn pod_token(&self, namespace: &str, pod: &str) -> Result<String> {
        let object = self.pod_object(namespace, pod)?;
        let account = object["spec"]["serviceAccountName"].as_str().context("a pod has a service account")?;
        let bound_to = json!({"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": object["metadata"]["uid"]});
        self.token(namespace, account, &json!({"boundObjectRef": bound_to}))
    }

    /// A token of a service account that is bound to nothing else.
    ///
    /// # Errors
    /// What the server says.
    pub fn unbound_token(&self, namespace: &str, service_account: &str) -> Result<String> {
        self.token(namespace, service_account, &json!({}))
    }

    fn token(&self, namespace: &str, service_account: &str, spec: &Value) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token");
        let answer = self.post(&path, &json!({"spec": spec}))?.ok()?;
        Ok(answer["status"]["token"].as_str().context("a token")?.to_owned())
    }
}
