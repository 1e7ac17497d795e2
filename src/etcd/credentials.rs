//! Certificates and password: read from files, read again when the files change.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::{Certificate, ClientTlsConfig, Identity as TlsIdentity};

use super::error::{EtcdError, call_error};
use crate::config::{EtcdConfig, PasswordSource, TlsConfig};
use crate::election::{CallError, CallErrorKind};

/// How often the files are compared with what was read: rotations leave hours of overlap, and a few
/// kilobytes every ten seconds cost nothing.
pub(super) const FILES_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// No certificate, key or password file is larger; a mistaken path must not be read into memory whole.
const FILE_SIZE_MAX: u64 = 1 << 20;

/// The contents of every file the configuration names: equal contents, equal credentials.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    tls: Option<TlsMaterial>,
    password: Option<String>,
}

#[derive(Clone, PartialEq, Eq)]
struct TlsMaterial {
    ca: Vec<u8>,
    client: Option<(Vec<u8>, Vec<u8>)>,
    server_name: Option<String>,
}

impl Credentials {
    /// Reads every file.
    pub(super) fn read(config: &EtcdConfig) -> Result<Self, EtcdError> {
        Ok(Self {
            tls: config.tls.as_ref().map(TlsMaterial::read).transpose()?,
            password: match &config.auth {
                Some(auth) => Some(read_password(&auth.password)?),
                None => None,
            },
        })
    }

    /// What tonic needs for TLS; `None` without TLS. A handshake may take `timeout`.
    pub(super) fn tls(&self, timeout: Duration) -> Option<ClientTlsConfig> {
        let material = self.tls.as_ref()?;
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&material.ca)).timeout(timeout);
        if let Some((cert, key)) = &material.client {
            tls = tls.identity(TlsIdentity::from_pem(cert, key));
        }
        if let Some(name) = &material.server_name {
            tls = tls.domain_name(name);
        }
        Some(tls)
    }
}

impl TlsMaterial {
    fn read(config: &TlsConfig) -> Result<Self, EtcdError> {
        let ca = read_file("--etcd-ca-file", &config.ca_file)?;
        require_certificate("--etcd-ca-file", &config.ca_file, &ca)?;
        let client = match &config.client {
            Some(client) => {
                let cert = read_file("--etcd-cert-file", &client.cert_file)?;
                require_certificate("--etcd-cert-file", &client.cert_file, &cert)?;
                let key = read_file("--etcd-key-file", &client.key_file)?;
                require_key("--etcd-key-file", &client.key_file, &key)?;
                Some((cert, key))
            }
            None => None,
        };
        Ok(Self { ca, client, server_name: config.server_name.clone() })
    }
}

fn read_file(flag: &'static str, path: &Path) -> Result<Vec<u8>, EtcdError> {
    let unreadable = |source| EtcdError::Unreadable { flag, path: path.to_owned(), source };
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > FILE_SIZE_MAX {
        return Err(malformed(flag, path, "larger than 1 MiB"));
    }
    std::fs::read(path).map_err(unreadable)
}

/// tonic would take a file without a certificate for an empty list, and every handshake would fail.
fn require_certificate(flag: &'static str, path: &Path, pem: &[u8]) -> Result<(), EtcdError> {
    let mut count = 0;
    for certificate in rustls_pemfile::certs(&mut &*pem) {
        certificate.map_err(|error| malformed(flag, path, &format!("not valid PEM: {error}")))?;
        count += 1;
    }
    if count == 0 { Err(malformed(flag, path, "no certificate (PEM) in it")) } else { Ok(()) }
}

fn require_key(flag: &'static str, path: &Path, pem: &[u8]) -> Result<(), EtcdError> {
    match rustls_pemfile::private_key(&mut &*pem) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(malformed(flag, path, "no private key (PEM) in it")),
        Err(error) => Err(malformed(flag, path, &format!("not valid PEM: {error}"))),
    }
}

fn malformed(flag: &'static str, path: &Path, reason: &str) -> EtcdError {
    EtcdError::Malformed { flag, path: path.to_owned(), reason: reason.to_owned() }
}

const PASSWORD_FLAG: &str = "--etcd-password-file";

fn read_password(source: &PasswordSource) -> Result<String, EtcdError> {
    match source {
        PasswordSource::Given(password) => Ok(password.clone()),
        PasswordSource::File(path) => String::from_utf8(read_file(PASSWORD_FLAG, path)?)
            .map(trimmed)
            .map_err(|_| malformed(PASSWORD_FLAG, path, "not UTF-8")),
    }
}

/// The password as it is now, for one authentication.
pub(super) async fn current_password(source: PasswordSource) -> Result<String, CallError> {
    // Files can hang (network file systems); the loop that stands a leader down must not hang with them.
    match tokio::task::spawn_blocking(move || read_password(&source)).await {
        Ok(Ok(password)) => Ok(password),
        Ok(Err(error)) => Err(call_error(CallErrorKind::Unauthenticated, error.to_string())),
        Err(error) => Err(call_error(CallErrorKind::Other, format!("reading the password: {error}"))),
    }
}

fn trimmed(mut password: String) -> String {
    while password.ends_with(['\n', '\r']) {
        password.pop();
    }
    password
}

/// Every file the configuration names.
pub(super) fn files(config: &EtcdConfig) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if let Some(tls) = &config.tls {
        files.push(tls.ca_file.clone());
        if let Some(client) = &tls.client {
            files.extend([client.cert_file.clone(), client.key_file.clone()]);
        }
    }
    if let Some(PasswordSource::File(path)) = config.auth.as_ref().map(|auth| &auth.password) {
        files.push(path.clone());
    }
    files
}
