//! What a pod's sidecar finds to reach the API server: the projected service account, or a kubeconfig.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::ApiServer;
use crate::process::write_program;

/// Puts the folder in the place where a container finds its service account, and starts the program in its stead,
/// with the same process id. /run is covered because /var/run leads there and the folder's place has to be made.
const IN_CLUSTER: &str = r#"mount -t tmpfs none /run
mkdir -p "$1"
mount --bind "$2" "$1"
shift 2
exec "$@""#;
/// Where a container finds it: on Debian and others /var/run is a link to /run.
const SERVICE_ACCOUNT: &str = "/run/secrets/kubernetes.io/serviceaccount";

/// A pod's service account as the kubelet projects it: `token`, `ca.crt`, `namespace`; and a kubeconfig that reads
/// the same files. Deleted when dropped.
#[derive(Debug)]
pub struct TokenMount {
    namespace: String,
    directory: TempDir,
}

impl TokenMount {
    /// The folder with the three files.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.directory.path().join("serviceaccount")
    }

    /// The file with the token.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.folder().join("token")
    }

    /// Puts another token in the place of the present one, in one step as the kubelet does.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn replace_token(&self, token: &str) -> Result<()> {
        let new = self.folder().join(".token");
        fs::write(&new, token)?;
        Ok(fs::rename(new, self.token_file())?)
    }

    /// A kubeconfig that reads the token from the file, for a server at this address: its own or a proxy's.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig(&self, server: SocketAddr) -> Result<PathBuf> {
        let file = self.directory.path().join("kubeconfig");
        let user = json!({"tokenFile": self.token_file()});
        let ca_file = self.folder().join("ca.crt");
        write_kubeconfig(&file, &format!("https://{server}"), &ca_file, &self.namespace, &user)?;
        Ok(file)
    }

    /// A program that starts `binary` with its own arguments as if in a container of the pod: the service account is
    /// where the kubelet mounts it, and the environment names the server. For nobody else the machine looks different.
    ///
    /// Needs to be root, or to be allowed user namespaces with the rights of root inside; not all machines allow them.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn in_cluster(&self, binary: &Path, server: SocketAddr) -> Result<PathBuf> {
        let script = self.directory.path().join("in-cluster");
        let unshare =
            if nix::unistd::geteuid().is_root() { "unshare --mount" } else { "unshare --mount --map-root-user" };
        let text = format!(
            "#!/bin/sh\n\
             export KUBERNETES_SERVICE_HOST={host} KUBERNETES_SERVICE_PORT={port}\n\
             exec {unshare} sh -ec '{IN_CLUSTER}' sh {SERVICE_ACCOUNT} {folder} {binary} \"$@\"\n",
            host = server.ip(),
            port = server.port(),
            folder = self.folder().display(),
            binary = binary.display(),
        );
        write_program(&script, &text)?;
        Ok(script)
    }
}

impl ApiServer {
    /// What the kubelet would mount into a container of this pod.
    ///
    /// # Errors
    /// When the server gives no token.
    pub fn mount_token(&self, namespace: &str, pod: &str) -> Result<TokenMount> {
        let directory = TempDir::with_prefix("bellwether-pod-")?;
        let mount = TokenMount { namespace: namespace.to_owned(), directory };
        fs::create_dir(mount.folder())?;
        fs::copy(self.ca_file(), mount.folder().join("ca.crt")).context("cannot copy the authority's certificate")?;
        fs::write(mount.folder().join("namespace"), namespace)?;
        mount.replace_token(&self.admin().pod_token(namespace, pod)?)?;
        Ok(mount)
    }
}

/// A kubeconfig with one of everything. JSON is YAML.
pub(super) fn write_kubeconfig(file: &Path, url: &str, ca_file: &Path, namespace: &str, user: &Value) -> Result<()> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": ca_file}}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
        "current-context": "test",
    });
    fs::write(file, config.to_string())?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
    Ok(())
}
