//! Which programs to start.

use std::env;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::etcd::etcd_binary;

/// A program of Kubernetes': from the folder in `BELLWETHER_KUBE_ASSETS` or `KUBEBUILDER_ASSETS`, else on the PATH.
///
/// # Errors
/// When there is none, with what to do.
pub fn kubernetes_binary(name: &str) -> Result<PathBuf> {
    find(name, &["BELLWETHER_KUBE_ASSETS", "KUBEBUILDER_ASSETS"]).with_context(|| {
        format!("no {name}: run the tests through `make test`, or set BELLWETHER_KUBE_ASSETS to the folder that has it")
    })
}

/// Helm, by its major version: `helm-3` or `helm-4` from the folder in `BELLWETHER_HELM_BIN`, else on the PATH.
///
/// # Errors
/// When there is none, with what to do.
pub fn helm_binary(major: u8) -> Result<PathBuf> {
    let name = format!("helm-{major}");
    find(&name, &["BELLWETHER_HELM_BIN"]).with_context(|| {
        format!("no {name}: run the tests through `make test`, or set BELLWETHER_HELM_BIN to the folder that has it")
    })
}

/// An etcd that a current kube-apiserver works with: `BELLWETHER_ETCD_CURRENT`, else what the other tests use.
///
/// # Errors
/// When there is none, with what to do.
pub fn etcd_current_binary() -> Result<PathBuf> {
    match env::var_os("BELLWETHER_ETCD_CURRENT") {
        Some(path) => Ok(path.into()),
        None => etcd_binary(),
    }
}

fn find(name: &str, folders: &[&str]) -> Option<PathBuf> {
    let named = folders.iter().filter_map(env::var_os).map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    named.chain(env::split_paths(&path)).map(|folder| folder.join(name)).find(|candidate| candidate.is_file())
}
