//! One host of the laboratory network.

use std::ffi::OsStr;
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::tools;

/// One host: a network namespace with an interface on the lab's bridge. Clones are the same host.
#[derive(Clone, Debug)]
pub struct Host(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    name: String,
    address: Ipv4Addr,
    namespace: PathBuf,
    /// The bridge's end of its cable.
    port: String,
    ip: PathBuf,
}

impl Host {
    pub(super) fn new(name: &str, address: Ipv4Addr, port: String, ip: PathBuf) -> Self {
        let namespace = Path::new("/run/netns").join(name);
        Self(Arc::new(Parts { name: name.to_owned(), address, namespace, port, ip }))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its address in the lab.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.0.address
    }

    /// The file that names its network namespace.
    #[must_use]
    pub fn namespace(&self) -> &Path {
        &self.0.namespace
    }

    pub(super) fn port(&self) -> &str {
        &self.0.port
    }

    /// A command that runs on this host. The program takes the place of the one that enters, so the process id stays.
    ///
    /// # Errors
    /// When there is no `nsenter`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = Command::new(tools::program("nsenter")?);
        command.arg(format!("--net={}", self.0.namespace.display())).arg("--").arg(program);
        Ok(command)
    }

    /// Moves this thread to the host, for good: sockets it makes from now on are the host's, those it has are not.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self) -> Result<()> {
        let namespace = File::open(&self.0.namespace).with_context(|| format!("no host {}", self.name()))?;
        setns(namespace, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter host {}", self.name()))
    }

    /// Does something on the host, on a thread that ends with it.
    ///
    /// # Errors
    /// When the host cannot be entered, or no thread be started.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let work = move || {
                self.enter()?;
                Ok(work())
            };
            let worker = thread::Builder::new().name(format!("on {}", self.name())).spawn_scoped(scope, work)?;
            worker.join().map_err(|_panic| anyhow!("what ran on host {} panicked", self.name()))?
        })
    }

    /// Pulls the cable: the interface loses its carrier, and nothing comes or goes.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn unplug(&self) -> Result<()> {
        self.link("down")
    }

    /// Puts the cable back.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn plug_in(&self) -> Result<()> {
        self.link("up")
    }

    fn link(&self, state: &str) -> Result<()> {
        tools::run(&self.0.ip, &["link", "set", self.port(), state], "")?;
        Ok(())
    }

    /// Orders to `ip`, carried out on this host.
    pub(super) fn batch(&self, orders: &str) -> Result<()> {
        let mut command = self.command(&self.0.ip)?;
        command.args(["-batch", "-"]);
        tools::run_command(command, orders)?;
        Ok(())
    }
}
