//! One probe after the other of one target.

use std::time::Duration;

use super::answer::Failure;
use super::connect::{Names, connect_unix};
use super::exec::Commands;
use super::file::Looks;
use super::http;
use crate::config::{AppHealthConfig, Target};

/// Asks the target. What outlasts a probe in the kernel or at a name server is kept track of here.
#[derive(Debug)]
pub(super) struct Prober {
    target: Target,
    timeout: Duration,
    names: Names,
    commands: Commands,
    looks: Looks,
}

impl Prober {
    pub(super) fn new(config: &AppHealthConfig) -> Self {
        Self {
            target: config.target.clone(),
            timeout: config.timeout,
            names: Names::default(),
            commands: Commands::default(),
            looks: Looks::default(),
        }
    }

    /// Asks once. Whoever drops the future gives the probe up.
    ///
    /// # Errors
    /// When the application is not well, or cannot be asked in time.
    pub(super) async fn probe(&mut self) -> Result<(), Failure> {
        let timeout = self.timeout;
        tokio::time::timeout(timeout, self.ask()).await.unwrap_or(Err(Failure::Slow(timeout)))
    }

    async fn ask(&mut self) -> Result<(), Failure> {
        match &self.target {
            Target::Http { host, path } => http::get(self.names.connect(host).await?, &host.to_string(), path).await,
            Target::Unix { socket, path } => http::get(connect_unix(socket).await?, "localhost", path).await,
            Target::Tcp(host) => self.names.connect(host).await.map(drop),
            Target::Exec(command) => self.commands.run(command).await,
            Target::File { path, max_age } => self.looks.look(path, *max_age).await,
        }
    }
}
