//! How whoever is not a sidecar comes to etcd: applications, and witnesses.

use std::time::Duration;

use anyhow::Result;
use etcd_client::{Client, ConnectOptions};
use tokio::time::timeout;

/// For the connection, and for the first answer.
const PATIENCE: Duration = Duration::from_millis(800);
/// A connection that says nothing is asked whether it is there: no sooner than etcd allows, which is every 5 s.
const ASK_AFTER: Duration = Duration::from_secs(6);
/// And given up after this.
const GIVE_UP_AFTER: Duration = Duration::from_secs(2);

/// What a client needs beside an address.
#[derive(Clone)]
pub struct Access {
    options: ConnectOptions,
}

impl Access {
    /// In the clear, as nobody in particular.
    pub fn open() -> Self {
        Self::with(ConnectOptions::new())
    }

    fn with(options: ConnectOptions) -> Self {
        let options = options.with_connect_timeout(PATIENCE).with_keep_alive(ASK_AFTER, GIVE_UP_AFTER);
        Self { options: options.with_keep_alive_while_idle(true) }
    }

    /// A client of these endpoints.
    ///
    /// # Errors
    /// When none of them answers in time.
    pub async fn connect(&self, endpoints: &[String]) -> Result<Client> {
        Ok(timeout(PATIENCE, Client::connect(endpoints, Some(self.options.clone()))).await??)
    }
}
