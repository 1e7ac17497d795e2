//! The real Helm, and what it renders.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use support::kubernetes::{ApiServer, Manifest, helm_binary, manifests};
use tempfile::TempDir;

/// What a chart is rendered for where no server is asked: the version of the server of these tests.
const KUBE_VERSION: &str = "1.36.3";

/// What a command has written.
#[derive(Debug)]
pub struct Said {
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// The lines that warn of something. What Helm says of the symbolic link between the charts is none.
    pub fn warnings(&self) -> Vec<&str> {
        self.stderr.lines().filter(|line| !line.contains("found symbolic link")).collect()
    }
}

/// One version of Helm, with nothing of the machine's.
pub struct Helm {
    binary: PathBuf,
    kubeconfig: PathBuf,
    home: TempDir,
}

impl Helm {
    /// Helm 3 or 4, for this server.
    pub fn new(major: u8, server: &ApiServer) -> Result<Self> {
        let home = TempDir::with_prefix("bellwether-helm-")?;
        let kubeconfig = home.path().join("kubeconfig");
        fs::copy(server.admin_kubeconfig()?, &kubeconfig)?;
        Ok(Self { binary: helm_binary(major)?, kubeconfig, home })
    }

    /// A command that must succeed.
    pub fn run(&self, namespace: &str, arguments: &[&str]) -> Result<Said> {
        Self::end(self.start(namespace, arguments)?, arguments)
    }

    /// A command that is waited for with [`end`](Self::end).
    pub fn start(&self, namespace: &str, arguments: &[&str]) -> Result<Child> {
        let home = |name: &str| self.home.path().join(name);
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .args(["--namespace", namespace])
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HELM_CACHE_HOME", home("cache"))
            .env("HELM_CONFIG_HOME", home("config"))
            .env("HELM_DATA_HOME", home("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().with_context(|| format!("cannot start {}", self.binary.display()))
    }

    /// Waits for the end of a command, which must be success.
    pub fn end(child: Child, arguments: &[&str]) -> Result<Said> {
        let output = child.wait_with_output()?;
        let said = Said { stdout: String::from_utf8(output.stdout)?, stderr: String::from_utf8(output.stderr)? };
        ensure!(
            output.status.success(),
            "helm {}: {}\n{}{}",
            arguments.join(" "),
            output.status,
            said.stdout,
            said.stderr
        );
        Ok(said)
    }

    /// What `helm template` makes of the chart as the release `demo`, with these arguments.
    pub fn template(&self, namespace: &str, arguments: &[&str]) -> Result<Vec<Manifest>> {
        let chart = chart();
        let chart = chart.to_str().context("the path is text")?;
        let mut all = vec!["template", "demo", chart, "--kube-version", KUBE_VERSION];
        all.extend(arguments);
        manifests(&self.run(namespace, &all)?.stdout)
    }
}

/// The chart that installs a workload.
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/bellwether")
}

/// Its CI values files.
pub fn ci_values() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(chart().join("ci"))? {
        files.push(entry?.path());
    }
    files.sort();
    ensure!(!files.is_empty(), "there are CI values");
    Ok(files)
}
