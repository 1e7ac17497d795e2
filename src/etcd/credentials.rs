//! Certificates and password: read from files, read again when the files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore};

use super::error::{EtcdError, call_error};
use crate::config::{
    ClientCertificate, EtcdConfig, FileFault, PasswordSource, TlsConfig, read_certificates, read_key, read_password,
};
use crate::election::{CallError, CallErrorKind};

/// How often the files are compared with what was read: rotations leave hours of overlap, and a few
/// kilobytes every ten seconds cost nothing.
pub(super) const FILES_CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// The contents of every file the configuration names: equal contents, equal credentials.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    tls: Option<TlsMaterial>,
    password: Option<String>,
}

#[derive(Clone, PartialEq, Eq)]
struct TlsMaterial {
    ca_file: PathBuf,
    authorities: Vec<CertificateDer<'static>>,
    client: Option<ClientMaterial>,
}

#[derive(Clone, PartialEq, Eq)]
struct ClientMaterial {
    cert_file: PathBuf,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
}

/// The TLS of all endpoints: they differ in the server's name only.
#[derive(Clone)]
pub(super) struct TlsSetup {
    pub(super) config: Arc<ClientConfig>,
    pub(super) client: Option<Arc<CertifiedKey>>,
}

const CA_FLAG: &str = "--etcd-ca-file";
const CERT_FLAG: &str = "--etcd-cert-file";
const KEY_FLAG: &str = "--etcd-key-file";
const PASSWORD_FLAG: &str = "--etcd-password-file";

impl Credentials {
    /// Reads every file.
    pub(super) fn read(config: &EtcdConfig) -> Result<Self, EtcdError> {
        let password = match config.auth.as_ref().map(|auth| &auth.password) {
            Some(PasswordSource::File(path)) => Some(read_password(path).map_err(in_file(PASSWORD_FLAG, path))?),
            Some(PasswordSource::Given(_)) | None => None,
        };
        Ok(Self { tls: config.tls.as_ref().map(TlsMaterial::read).transpose()?, password })
    }

    /// What rustls needs; `None` without TLS.
    pub(super) fn tls(&self) -> Result<Option<TlsSetup>, EtcdError> {
        self.tls.as_ref().map(TlsMaterial::setup).transpose()
    }
}

impl TlsMaterial {
    fn read(config: &TlsConfig) -> Result<Self, EtcdError> {
        let path = &config.ca_file;
        Ok(Self {
            ca_file: path.clone(),
            authorities: read_certificates(path).map_err(in_file(CA_FLAG, path))?,
            client: config.client.as_ref().map(ClientMaterial::read).transpose()?,
        })
    }

    fn setup(&self) -> Result<TlsSetup, EtcdError> {
        let mut roots = RootCertStore::empty();
        for authority in &self.authorities {
            roots
                .add(authority.clone())
                .map_err(|error| in_file(CA_FLAG, &self.ca_file)(FileFault::BadCertificate(error.to_string())))?;
        }
        let provider = Arc::new(default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring has the suites of TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = self.client.as_ref().map(|client| client.certified_key(&provider)).transpose()?;
        Ok(TlsSetup { config: Arc::new(config), client })
    }
}

impl ClientMaterial {
    fn read(config: &ClientCertificate) -> Result<Self, EtcdError> {
        let ClientCertificate { cert_file, key_file } = config;
        Ok(Self {
            cert_file: cert_file.clone(),
            chain: read_certificates(cert_file).map_err(in_file(CERT_FLAG, cert_file))?,
            key: Arc::new(read_key(key_file).map_err(in_file(KEY_FLAG, key_file))?),
        })
    }

    /// Fails while a rotation has replaced one of the two files.
    fn certified_key(&self, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, EtcdError> {
        CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), provider).map(Arc::new).map_err(|error| {
            in_file(CERT_FLAG, &self.cert_file)(FileFault::BadCertificate(format!(
                "it does not go with the key in {KEY_FLAG}: {error}"
            )))
        })
    }
}

fn in_file(flag: &'static str, path: &Path) -> impl FnOnce(FileFault) -> EtcdError {
    move |fault| EtcdError::File { flag, path: path.to_owned(), fault }
}

/// The password as it is now, for one authentication.
pub(super) async fn current_password(source: PasswordSource) -> Result<String, CallError> {
    let path = match source {
        PasswordSource::Given(password) => return Ok(password),
        PasswordSource::File(path) => path,
    };
    // Files can hang (network file systems); the loop that stands a leader down must not hang with them.
    let read = tokio::task::spawn_blocking(move || read_password(&path).map_err(in_file(PASSWORD_FLAG, &path)));
    match read.await {
        Ok(Ok(password)) => Ok(password),
        Ok(Err(error)) => Err(call_error(CallErrorKind::Unauthenticated, error.to_string())),
        Err(error) => Err(call_error(CallErrorKind::Other, format!("reading the password: {error}"))),
    }
}

/// Whether the configuration names any file.
pub(super) fn names_files(config: &EtcdConfig) -> bool {
    let password_file = config.auth.as_ref().is_some_and(|auth| matches!(auth.password, PasswordSource::File(_)));
    config.tls.is_some() || password_file
}
