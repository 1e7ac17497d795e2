//! A network of the test's own, and in it a root that has the image's files and nothing else.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use support::process::{spawn_bound, write_program};
use tempfile::TempDir;

use crate::dockerfile::{Dockerfile, image};

/// Set in the process that is inside already.
const INSIDE: &str = "BELLWETHER_TEST_INSIDE";

/// Runs a test's body in a network where only loopback is, where port 53 can be bound, and where it may mount.
///
/// The test's program runs itself again with only this test: a process that has threads cannot enter a namespace.
pub fn in_own_network<Story: AsyncFnOnce() -> Result<()>>(story: Story) -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(story());
    }
    // "image::names::a_test::{{closure}}"
    let path = std::any::type_name::<Story>();
    let test = path.split("::").skip(1).take_while(|part| !part.starts_with('{')).collect::<Vec<_>>().join("::");
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--net", "--mount", "--", "sh", "-c"])
        .args(["ip link set lo up && exec \"$@\"", "sh"])
        .arg(std::env::current_exe()?)
        .args(["--exact", &test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = spawn_bound(command).context("unshare (util-linux) and ip (iproute2) are needed")?;
    let Output { status, stdout, stderr } = child.wait_with_output()?;
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    // Also when it found no test of that name.
    if !status.success() || !stdout.contains("1 passed") {
        let indented = |text: &str| text.lines().fold(String::new(), |all, line| all + "\n  | " + line);
        bail!(
            "{test}, in a network of its own: {status}{}{}{}",
            if stdout.is_empty() { ": does this machine allow unprivileged user namespaces?" } else { "" },
            indented(&stdout),
            indented(&stderr)
        );
    }
    Ok(())
}

/// What kubelet puts into a pod's /etc.
#[derive(Clone, Debug, Default)]
pub struct PodFiles {
    /// More lines of /etc/hosts, beside localhost.
    pub hosts: String,
    /// Further files as volumes would bring them: path in the root, and the original.
    pub files: Vec<(&'static str, PathBuf)>,
}

/// A root in which nothing can be written, and the program to start in it.
pub struct EmptyRoot {
    directory: TempDir,
}

impl EmptyRoot {
    /// The image's files and these. Only inside [`in_own_network`], where mounting is allowed.
    pub fn with(pod: &PodFiles) -> Result<Self> {
        let root = Self { directory: TempDir::with_prefix("bellwether-image-")? };
        // By a process of its own: see `write_program`.
        execute(Command::new("cp").arg("-R").args([image()?, root.path()]))?;
        root.write("etc/hosts", format!("127.0.0.1\tlocalhost\n::1\tlocalhost\n{}\n", pod.hosts).as_bytes())?;
        // As kubelet writes it for a pod in the namespace `default`.
        let resolver = "search default.svc.cluster.local svc.cluster.local cluster.local\n\
                        nameserver 127.0.0.1\noptions ndots:5\n";
        root.write("etc/resolv.conf", resolver.as_bytes())?;
        for (path, original) in &pod.files {
            root.write(path, &[])?;
            fs::copy(original, root.path().join(path))?;
        }
        // A mount of its own, so that it can be read-only: readOnlyRootFilesystem.
        execute(Command::new("mount").arg("--bind").args([root.path(), root.path()]))?;
        execute(Command::new("mount").args(["-o", "remount,bind,ro"]).arg(root.path()))?;
        ensure!(fs::write(root.path().join("written"), "x").is_err(), "the root can be written to");
        Ok(root)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
        fs::write(path, content)?;
        Ok(())
    }

    /// A program that becomes the image's entry point, in this root, as the image's user, and passes its arguments on.
    ///
    /// No environment, no capabilities, nothing to gain by setuid: runAsNonRoot, drop ALL, allowPrivilegeEscalation false.
    pub fn entrypoint(&self) -> Result<PathBuf> {
        self.entry(&Dockerfile::read()?.entrypoint()?)
    }

    /// As [`entrypoint`](Self::entrypoint), for any program in the root.
    pub fn entry(&self, program: &str) -> Result<PathBuf> {
        let (user, group) = Dockerfile::read()?.user()?;
        let entry = self.directory.path().join(format!("enter{}", program.replace('/', "-")));
        // The user namespace has this one user: there is no other that the program could be, and its capabilities
        // end as it starts, since that user is not root.
        let script = format!(
            "#!/bin/sh\nexec env -i \"PATH=$PATH\" setpriv --no-new-privs \
             unshare --user --map-user={user} --map-group={group} --root='{}' --wd=/ -- {program} \"$@\"\n",
            self.path().display()
        );
        write_program(&entry, &script)?;
        Ok(entry)
    }
}

/// Runs a program to its end.
pub fn run(program: PathBuf, arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(program).args(arguments).stdin(Stdio::null()).output()?)
}

impl Drop for EmptyRoot {
    fn drop(&mut self) {
        // Else the folder could not be deleted.
        execute(Command::new("umount").arg(self.path())).ok();
    }
}

fn execute(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
