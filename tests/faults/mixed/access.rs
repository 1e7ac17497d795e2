//! How everybody comes to etcd: in the clear, or with certificate and password.

use std::time::Duration;

use std::fs;

use anyhow::{Context as _, Result};
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use support::etcd::{ClientTls, EtcdCluster, EtcdOptions};
use tokio::time::timeout;

use crate::certificates::authority;
use crate::flock::LOCK_KEY;

/// For the connection, and for the first answer.
const PATIENCE: Duration = Duration::from_millis(800);
/// A connection that says nothing is asked whether it is there: no sooner than etcd allows, which is every 5 s.
const ASK_AFTER: Duration = Duration::from_secs(6);
/// And given up after this.
const GIVE_UP_AFTER: Duration = Duration::from_secs(2);

/// Shorter than a keep-alive interval: whoever comes again finds that its token has expired.
const TOKEN_TTL: Duration = Duration::from_secs(1);
/// The sidecars' user, which may touch what is the election's, and its password.
pub const SIDECAR: [&str; 2] = ["bellwether", "secret"];
/// The user of applications and witnesses, which may touch everything, and its password.
const APPLICATION: [&str; 2] = ["application", "also-secret"];

/// Whether the members ask who comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// They do not.
    Open,
    /// Over TLS, with a client certificate, a user and a password; tokens expire within a second.
    Secured,
}

impl Security {
    /// What etcd is started with.
    pub fn apply(self, options: EtcdOptions) -> EtcdOptions {
        match self {
            Self::Open => options,
            Self::Secured => {
                let mut arguments = options.arguments;
                // Passwords are checked all the time here, and the processors are for something else.
                arguments.push("--bcrypt-cost=4".to_owned());
                EtcdOptions { tls: ClientTls::Mutual, auth_token_ttl: Some(TOKEN_TTL), arguments, ..options }
            }
        }
    }

    /// Adds the users, and has etcd ask for them from now on.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn enable(self, etcd: &mut EtcdCluster) -> Result<()> {
        match self {
            Self::Open => Ok(()),
            Self::Secured => {
                for ([user, password], prefix) in [(SIDECAR, LOCK_KEY), (APPLICATION, "/")] {
                    etcd.add_user(user, password, prefix).await?;
                }
                fs::write(etcd.path("password"), SIDECAR[1])?;
                etcd.enable_auth().await
            }
        }
    }

    /// The sidecars' arguments for it.
    ///
    /// # Errors
    /// When a path is not UTF-8.
    pub fn arguments(self, etcd: &EtcdCluster) -> Result<Vec<String>> {
        match self {
            Self::Open => Ok(Vec::new()),
            Self::Secured => {
                let files = [
                    ("--etcd-ca-file", etcd.ca_file()),
                    ("--etcd-cert-file", etcd.client_cert_file()),
                    ("--etcd-key-file", etcd.client_key_file()),
                    ("--etcd-password-file", etcd.path("password")),
                ];
                let mut arguments = ["--etcd-user", SIDECAR[0]].map(str::to_owned).to_vec();
                for (flag, path) in files {
                    let path = path.to_str().context("a temporary path is UTF-8")?;
                    arguments.extend([flag.to_owned(), path.to_owned()]);
                }
                Ok(arguments)
            }
        }
    }

    /// How applications and witnesses come in.
    ///
    /// # Errors
    /// When their certificate cannot be read.
    pub fn access(self, etcd: &EtcdCluster) -> Result<Access> {
        match self {
            Self::Open => Ok(Access::with(ConnectOptions::new())),
            Self::Secured => {
                let identity =
                    Identity::from_pem(fs::read(etcd.client_cert_file())?, fs::read(etcd.client_key_file())?);
                let ca = Certificate::from_pem(&authority(etcd)?.cert_pem);
                let tls = TlsOptions::new().ca_certificate(ca).identity(identity).domain_name("localhost");
                Ok(Access::with(ConnectOptions::new().with_tls(tls).with_user(APPLICATION[0], APPLICATION[1])))
            }
        }
    }

    /// The beginning of etcd's URLs.
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::Open => "http",
            Self::Secured => "https",
        }
    }

    /// What the report calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "in the clear",
            Self::Secured => "secured",
        }
    }
}

/// What a client needs beside an address.
#[derive(Clone)]
pub struct Access {
    options: ConnectOptions,
}

impl Access {
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
