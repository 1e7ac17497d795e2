//! One etcd member for itself.

use anyhow::Result;

use super::{EtcdCluster, EtcdOptions};

/// One etcd member for itself.
pub struct EtcdServer(EtcdCluster);

impl EtcdServer {
    /// Starts one with default options.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub async fn start() -> Result<Self> {
        Self::start_with(EtcdOptions::default()).await
    }

    /// Starts one with these options.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub async fn start_with(options: EtcdOptions) -> Result<Self> {
        Ok(Self(EtcdCluster::start(EtcdOptions { members: 1, ..options }).await?))
    }

    /// Its client URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.0.endpoint(0)
    }

    /// SIGKILL; returns when the process is gone.
    pub fn kill(&mut self) {
        self.0.kill(0);
    }

    /// Starts it again after [`kill`](Self::kill), with the same ports and data, and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up, with the end of its log.
    pub async fn restart(&mut self) -> Result<()> {
        self.0.restart(0)?;
        self.0.wait_until_ready().await
    }

    /// SIGSTOP: its kernel still accepts connections, nothing answers.
    ///
    /// # Errors
    /// When it is not running.
    pub fn freeze(&self) -> Result<()> {
        self.0.freeze(0)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it is not running.
    pub fn thaw(&self) -> Result<()> {
        self.0.thaw(0)
    }
}

impl std::ops::Deref for EtcdServer {
    type Target = EtcdCluster;

    fn deref(&self) -> &EtcdCluster {
        &self.0
    }
}

impl std::ops::DerefMut for EtcdServer {
    fn deref_mut(&mut self) -> &mut EtcdCluster {
        &mut self.0
    }
}
