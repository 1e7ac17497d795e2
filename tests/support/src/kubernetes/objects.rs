//! Objects of any kind, from YAML, and the few kinds that every test needs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde_json::{Value, json};

use super::LOOK_AGAIN;
use super::api::{ApiAnswer, ApiClient, Content};
use crate::moment::Moment;

/// How long a change of rights may take until requests are judged by it: the authorizer follows a watch.
const RIGHTS_PATIENCE: Duration = Duration::from_secs(30);

/// What pod security admission does in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodSecurity {
    /// Nothing.
    Privileged,
    /// Refuses pods that do not meet the restricted standard, and warns of templates that do not.
    Restricted,
}

/// A document of a YAML text. The server gets the text: its YAML is an older one than ours, in which `0444` is octal.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// As it was written.
    pub text: String,
    /// As it is read here: numbers with a leading zero are texts.
    pub object: Value,
}

impl Manifest {
    /// Its API version.
    #[must_use]
    pub fn api_version(&self) -> &str {
        self.object["apiVersion"].as_str().unwrap_or_default()
    }

    /// `Kind name`.
    #[must_use]
    pub fn title(&self) -> String {
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        format!("{} {}", text(&self.object["kind"]), text(&self.object["metadata"]["name"]))
    }
}

/// The documents of a YAML text, which are separated by lines of `---`; empty ones are left out.
///
/// # Errors
/// When it is not YAML.
pub fn manifests(yaml: &str) -> Result<Vec<Manifest>> {
    let mut documents = vec![String::new()];
    for line in yaml.lines() {
        if line.trim_end() == "---" {
            documents.push(String::new());
        } else if let Some(last) = documents.last_mut() {
            last.push_str(line);
            last.push('\n');
        }
    }
    let mut manifests = Vec::new();
    for text in documents {
        let object: Value = serde_norway::from_str(&text).with_context(|| format!("not YAML: {text}"))?;
        if !object.is_null() {
            manifests.push(Manifest { text, object });
        }
    }
    Ok(manifests)
}

impl ApiClient {
    /// Creates a namespace whose name begins so and is not taken on this server. Returns the name.
    ///
    /// # Errors
    /// What the server says.
    pub fn create_namespace(&self, prefix: &str, security: PodSecurity) -> Result<String> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{prefix}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let labels = match security {
            PodSecurity::Privileged => json!({}),
            PodSecurity::Restricted => json!({
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/warn": "restricted",
            }),
        };
        self.post("/api/v1/namespaces", &json!({"metadata": {"name": name, "labels": labels}}))?.ok()?;
        Ok(name)
    }

    /// Creates a service account.
    ///
    /// # Errors
    /// What the server says.
    pub fn create_service_account(&self, namespace: &str, name: &str) -> Result<()> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        self.post(&path, &json!({"metadata": {"name": name}}))?.ok()?;
        Ok(())
    }

    /// Deletes a service account: its tokens are refused from then on, at the latest after the ten seconds for which
    /// the server remembers that a token was good. One of the same name that is created later is another.
    ///
    /// # Errors
    /// What the server says.
    pub fn delete_service_account(&self, namespace: &str, name: &str) -> Result<()> {
        self.delete(&format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}"))?.ok()?;
        Ok(())
    }

    /// Binds a Role of these rules (a list, as in YAML) to a service account, in place of what
    /// [`grant`](Self::grant) bound before, and waits until requests are judged by it. No rules: no rights.
    ///
    /// # Errors
    /// What the server says, or when the rights do not come into force.
    pub fn grant(&self, namespace: &str, service_account: &str, rules: &str) -> Result<()> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let mut rules: Value = serde_norway::from_str(rules).context("rules are a list")?;
        // A change takes time until it is in force, and nothing says when: so it comes with a right that no other has.
        let sign = format!("sign-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let signs = json!({"apiGroups": ["test.bellwether.dev"], "resources": [sign], "verbs": ["get"]});
        rules.as_array_mut().context("rules are a list")?.push(signs);
        let name = format!("{service_account}-granted");
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": name}, "rules": rules,
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": service_account, "namespace": namespace}],
        });
        self.apply_object(namespace, &role)?.ok()?;
        self.apply_object(namespace, &binding)?.ok()?;
        let deadline = Moment::now().after(RIGHTS_PATIENCE);
        while !self.may(namespace, service_account, "get", "test.bellwether.dev", &sign)? {
            ensure!(!deadline.passed(), "the rights of {service_account} are not in force");
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Whether a service account has a right in its namespace.
    ///
    /// # Errors
    /// What the server says.
    pub fn may(&self, namespace: &str, service_account: &str, verb: &str, group: &str, resource: &str) -> Result<bool> {
        let review = json!({"spec": {
            "user": format!("system:serviceaccount:{namespace}:{service_account}"),
            "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{namespace}"), "system:authenticated"],
            "resourceAttributes": {"namespace": namespace, "verb": verb, "group": group, "resource": resource},
        }});
        let review = self.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review)?.ok()?;
        Ok(review["status"]["allowed"] == true)
    }

    /// Applies every document of a YAML text. Those of namespaced kinds that name no namespace go to this one.
    ///
    /// # Errors
    /// When one is refused.
    pub fn apply(&self, namespace: &str, yaml: &str) -> Result<()> {
        for manifest in manifests(yaml)? {
            self.apply_with(namespace, &manifest, "")?.ok().with_context(|| manifest.title())?;
        }
        Ok(())
    }

    /// Server-side apply of one object. Fields that the server does not know are an error.
    ///
    /// # Errors
    /// When it is not answered, or the server does not know the kind.
    pub fn apply_object(&self, namespace: &str, object: &Value) -> Result<ApiAnswer> {
        let manifest = Manifest { text: object.to_string(), object: object.clone() };
        self.apply_with(namespace, &manifest, "")
    }

    /// What applying it would be answered; everything is judged, nothing is stored.
    ///
    /// # Errors
    /// When it is not answered, or the server does not know the kind.
    pub fn dry_run(&self, namespace: &str, manifest: &Manifest) -> Result<ApiAnswer> {
        self.apply_with(namespace, manifest, "&dryRun=All")
    }

    fn apply_with(&self, namespace: &str, manifest: &Manifest, more: &str) -> Result<ApiAnswer> {
        let path = self.path_of(namespace, &manifest.object)?;
        let query = format!("?fieldManager=test&force=true&fieldValidation=Strict{more}");
        self.request(Method::PATCH, &format!("{path}{query}"), Content::Apply, manifest.text.clone())
    }

    /// The path of an object, from its kind and name; the server is asked how the kind is called in paths.
    ///
    /// # Errors
    /// When the server does not know the kind.
    pub fn path_of(&self, namespace: &str, object: &Value) -> Result<String> {
        let (collection, namespaced) = self.collection_of(object)?;
        let name = object["metadata"]["name"].as_str().with_context(|| format!("no name: {object}"))?;
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(namespace);
        let (root, plural) = collection.rsplit_once('/').context("a path has slashes")?;
        Ok(if namespaced {
            format!("{root}/namespaces/{namespace}/{plural}/{name}")
        } else {
            format!("{collection}/{name}")
        })
    }

    fn collection_of(&self, object: &Value) -> Result<(String, bool)> {
        let version = object["apiVersion"].as_str().with_context(|| format!("no apiVersion: {object}"))?;
        let kind = object["kind"].as_str().with_context(|| format!("no kind: {object}"))?;
        let root = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
        let known = self.get(&root)?.ok().with_context(|| format!("the server does not serve {version}"))?;
        let resources = known["resources"].as_array().context("a list of resources")?;
        let is_it = |resource: &&Value| {
            resource["kind"] == kind && resource["name"].as_str().is_some_and(|name| !name.contains('/'))
        };
        let resource = resources.iter().find(is_it).with_context(|| format!("{version} has no {kind}"))?;
        let plural = resource["name"].as_str().context("a resource has a name")?;
        Ok((format!("{root}/{plural}"), resource["namespaced"] == true))
    }

    /// The names of everything in a namespace, as `kind/name`, without what the control plane itself puts there.
    ///
    /// # Errors
    /// What the server says.
    pub fn contents(&self, namespace: &str, versions: &[&str]) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for version in versions {
            let root = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
            let known = self.get(&root)?.ok()?;
            for resource in known["resources"].as_array().context("a list of resources")? {
                let plural = resource["name"].as_str().context("a resource has a name")?;
                let verbs = resource["verbs"].as_array();
                let listed = verbs.is_some_and(|verbs| verbs.contains(&json!("list")));
                if listed && resource["namespaced"] == true {
                    let list = self.get(&format!("{root}/namespaces/{namespace}/{plural}"))?.ok()?;
                    let items = list["items"].as_array().cloned().unwrap_or_default();
                    found.extend(
                        items
                            .iter()
                            .filter_map(|item| Some(format!("{plural}/{}", item["metadata"]["name"].as_str()?))),
                    );
                }
            }
        }
        found.retain(|it| it != "serviceaccounts/default" && it != "configmaps/kube-root-ca.crt");
        Ok(found)
    }

    /// The addresses behind a Service that are ready, from its `EndpointSlices`, sorted.
    ///
    /// # Errors
    /// What the server says.
    pub fn service_addresses(&self, namespace: &str, service: &str) -> Result<Vec<String>> {
        let selector = format!("labelSelector=kubernetes.io/service-name%3D{service}");
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?{selector}");
        let list = self.get(&path)?.ok()?;
        let slices = list["items"].as_array().context("a list of slices")?;
        let endpoints = slices.iter().filter_map(|slice| slice["endpoints"].as_array()).flatten();
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
        let addresses = ready.filter_map(|endpoint| endpoint["addresses"].as_array()).flatten();
        let mut addresses: Vec<String> = addresses.filter_map(|it| it.as_str().map(str::to_owned)).collect();
        addresses.sort();
        Ok(addresses)
    }

    /// The events of a namespace, as `events.k8s.io/v1` has them, oldest first.
    ///
    /// # Errors
    /// What the server says.
    pub fn events(&self, namespace: &str) -> Result<Vec<Value>> {
        let list = self.get(&format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events"))?.ok()?;
        let mut events = list["items"].as_array().cloned().context("a list of events")?;
        events.sort_by_key(|event| event["metadata"]["resourceVersion"].as_str().and_then(|it| it.parse::<u64>().ok()));
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_their_text_and_what_holds_nothing_is_left_out() {
        let yaml =
            "---\n# only a comment\n---\nkind: A\nmetadata: {name: a}\nmode: 0444\n--- \ntext: |\n  ---\n  more\n";
        let found = manifests(yaml).unwrap();
        let [first, second] = found.as_slice() else { panic!("two documents: {found:?}") };
        assert_eq!(first.text, "kind: A\nmetadata: {name: a}\nmode: 0444\n");
        assert_eq!(first.title(), "A a");
        assert_eq!(second.object["text"], "---\nmore\n");
    }
}
