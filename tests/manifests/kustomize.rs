//! Runs `kubectl kustomize`, and looks into what comes of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize as _;
use serde_json::Value;
use tempfile::TempDir;

/// manifests/ of this repository.
pub fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests")
}

/// Objects, as they would be applied.
pub struct Objects(Vec<Value>);

impl Objects {
    /// Of a text with one or more documents.
    pub fn parse(text: &str) -> Result<Self> {
        let documents = serde_norway::Deserializer::from_str(text).map(Value::deserialize);
        let objects = documents.collect::<Result<Vec<_>, _>>()?;
        Ok(Self(objects.into_iter().filter(|object| !object.is_null()).collect()))
    }

    /// All of them.
    pub fn all(&self) -> &[Value] {
        &self.0
    }

    /// The only one of this kind.
    pub fn only(&self, kind: &str) -> Result<&Value> {
        let mut found = self.0.iter().filter(|object| object["kind"] == kind);
        let one = found.next().with_context(|| format!("no {kind}"))?;
        ensure!(found.next().is_none(), "more than one {kind}");
        Ok(one)
    }

    /// The one of this kind and name.
    pub fn get(&self, kind: &str, name: &str) -> Result<&Value> {
        let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        self.0.iter().find(is_it).with_context(|| format!("no {kind} {name}: {:?}", self.names()))
    }

    /// Kind and name of each.
    pub fn names(&self) -> Vec<String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.0.iter().map(|it| format!("{}/{}", text(&it["kind"]), text(&it["metadata"]["name"]))).collect()
    }
}

/// `kubectl kustomize FOLDER`.
pub fn kustomize(folder: &Path) -> Result<Objects> {
    // The tests that need a kube-apiserver have one beside it.
    let assets = std::env::var_os("BELLWETHER_KUBE_ASSETS").map(|folder| PathBuf::from(folder).join("kubectl"));
    let output = Command::new(assets.unwrap_or_else(|| PathBuf::from("kubectl")))
        .arg("kustomize")
        .arg(folder)
        .stdin(Stdio::null())
        .output()
        .context("no kubectl on the PATH: scripts/tools.sh with kubectl -- cargo test --test manifests")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Objects::parse(&String::from_utf8(output.stdout)?)
}

/// Somebody's kustomization, in a folder of its own, with the component in it.
pub struct Kustomization(TempDir);

impl Kustomization {
    /// With these files, `kustomization.yaml` among them. The component is `sidecar`.
    pub fn with(files: &[(&str, &str)]) -> Result<Self> {
        let folder = TempDir::with_prefix("bellwether-manifests-")?;
        let component = folder.path().join("sidecar");
        fs::create_dir(&component)?;
        for entry in fs::read_dir(manifests().join("components/sidecar"))? {
            let entry = entry?;
            fs::copy(entry.path(), component.join(entry.file_name()))?;
        }
        for (path, content) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
            fs::write(path, content)?;
        }
        Ok(Self(folder))
    }

    /// What comes of it.
    pub fn build(&self) -> Result<Objects> {
        kustomize(self.0.path())
    }
}

/// The names in a list of containers, volumes, … in order.
pub fn names(list: &Value) -> Vec<&str> {
    list.as_array().map(|items| items.iter().filter_map(|item| item["name"].as_str()).collect()).unwrap_or_default()
}

/// The one of this name in such a list.
pub fn named<'a>(list: &'a Value, name: &str) -> Result<&'a Value> {
    let items = list.as_array().context("a list")?;
    items.iter().find(|item| item["name"] == name).with_context(|| format!("no {name} in {:?}", names(list)))
}

/// `template.spec` of a workload.
pub fn pod_spec(workload: &Value) -> &Value {
    &workload["spec"]["template"]["spec"]
}
