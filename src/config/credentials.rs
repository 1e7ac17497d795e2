//! Certificates, keys and passwords: read once at the start, so that a bad file is refused and not met later.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use thiserror::Error;

use super::fault::FaultKind;
use super::faults::Faults;
use super::sources::{PASSWORD_VARIABLE, Surroundings};
use super::{AuthConfig, ClientCertificate, PasswordSource, TlsConfig};
use crate::cli::flags::EtcdFlags;

/// A bundle of every public authority is a quarter of this; a device file would never end.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why a file cannot be used, worded to follow its path.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FileFault {
    /// Not there, not ours to read, a directory.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// See [`FILE_BYTES_MAX`].
    #[error("is larger than {FILE_BYTES_MAX} bytes; give the file that holds only what is needed")]
    TooLarge,
    /// No PEM block of the kind.
    #[error("holds no PEM {0}; give a file with a block \"-----BEGIN {1}-----\"")]
    NoPem(&'static str, &'static str),
    /// A PEM block that is broken.
    #[error("is not valid PEM: {0}")]
    BrokenPem(String),
    /// Well-formed PEM around something else.
    #[error("holds something that is not a usable certificate: {0}")]
    BadCertificate(String),
    /// Well-formed PEM around something else.
    #[error("holds something that is not a usable private key: {0}")]
    BadKey(String),
    /// Nothing in it but perhaps a newline.
    #[error("is empty; write the password into it")]
    EmptyPassword,
    /// etcd's API takes text only.
    #[error("is not UTF-8; a password for etcd is text")]
    PasswordNotText,
}

/// The TLS part of the flags; `tls` says whether the endpoints are `https`, `None` when they are faulty.
pub(super) fn parse_tls(flags: &EtcdFlags, tls: Option<bool>, faults: &mut Faults<'_>) -> Option<TlsConfig> {
    let ca_file = faults.path("--etcd-ca-file", flags.etcd_ca_file.as_ref());
    let cert_file = faults.path("--etcd-cert-file", flags.etcd_cert_file.as_ref());
    let key_file = faults.path("--etcd-key-file", flags.etcd_key_file.as_ref());
    let server_name = faults.value("--etcd-server-name", flags.etcd_server_name.as_ref());

    if tls == Some(false) {
        for (flag, given) in [
            ("--etcd-ca-file", ca_file.is_some()),
            ("--etcd-cert-file", cert_file.is_some()),
            ("--etcd-key-file", key_file.is_some()),
            ("--etcd-server-name", server_name.is_some()),
        ] {
            if given {
                faults.push(FaultKind::TlsWithoutHttps { flag });
            }
        }
    }
    if tls == Some(true) && ca_file.is_none() {
        faults.push(FaultKind::Missing {
            flag: "--etcd-ca-file",
            hint: "https endpoints need the PEM file of the authority that signed etcd's certificates \
                   (kubeadm keeps it in /etc/kubernetes/pki/etcd/ca.crt)",
        });
    }
    if let Some(path) = &ca_file
        && let Err(fault) = check_authorities(path)
    {
        faults.push(FaultKind::File { flag: "--etcd-ca-file", path: path.clone(), fault });
    }
    let client = parse_client_certificate(cert_file, key_file, faults);
    if let Some(name) = server_name
        && ServerName::try_from(name).is_err()
    {
        faults.push(FaultKind::ServerName(name.to_owned()));
    }
    Some(TlsConfig { ca_file: ca_file?, client, server_name: server_name.map(str::to_owned) })
}

fn parse_client_certificate(
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    faults: &mut Faults<'_>,
) -> Option<ClientCertificate> {
    const CERT: &str = "--etcd-cert-file";
    const KEY: &str = "--etcd-key-file";
    let chain = cert_file.as_ref().and_then(|path| faults.file(CERT, path, read_certificates(path)));
    let key = key_file.as_ref().and_then(|path| faults.file(KEY, path, read_key(path)));
    let (cert_file, key_file) = match (cert_file, key_file) {
        (None, None) => return None,
        (Some(_), None) => {
            faults.push(FaultKind::HalfAPair { given: CERT, missing: KEY });
            return None;
        }
        (None, Some(_)) => {
            faults.push(FaultKind::HalfAPair { given: KEY, missing: CERT });
            return None;
        }
        (Some(cert_file), Some(key_file)) => (cert_file, key_file),
    };
    match CertifiedKey::from_der(chain?, key?, &ring::default_provider()) {
        Ok(_) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            faults.push(FaultKind::KeyMismatch { certificate: cert_file.clone(), key: key_file.clone() });
        }
        Err(rustls::Error::InvalidCertificate(error)) => {
            let fault = FileFault::BadCertificate(error.to_string());
            faults.push(FaultKind::File { flag: CERT, path: cert_file.clone(), fault });
        }
        Err(error) => {
            let fault = FileFault::BadKey(error.to_string());
            faults.push(FaultKind::File { flag: KEY, path: key_file.clone(), fault });
        }
    }
    Some(ClientCertificate { cert_file, key_file })
}

/// User and password: both or neither, the password from one place.
pub(super) fn parse_auth(
    flags: &EtcdFlags,
    surroundings: &Surroundings,
    faults: &mut Faults<'_>,
) -> Option<AuthConfig> {
    const FILE: &str = "--etcd-password-file";
    let user = faults.value("--etcd-user", flags.etcd_user.as_ref());
    if user == Some("") {
        faults.push(FaultKind::Missing {
            flag: "--etcd-user",
            hint: "it is set to nothing; name the user or leave it out",
        });
    }
    let file = faults.path(FILE, flags.etcd_password_file.as_ref());
    if let Some(path) = &file {
        let _checked = faults.file(FILE, path, read_password(path));
    }
    let password = match (file, surroundings.password.as_deref()) {
        (Some(_), Some(_)) => {
            faults.push(FaultKind::TwoPasswords);
            return None;
        }
        (Some(path), None) => Some((FILE, PasswordSource::File(path))),
        (None, Some(given)) => {
            let text = faults.keep(given.to_str().ok_or(FaultKind::PasswordNotText))?;
            Some((PASSWORD_VARIABLE, PasswordSource::Given(text.to_owned())))
        }
        (None, None) => None,
    };
    match (user, password) {
        (Some(user), Some((_, password))) => Some(AuthConfig { user: user.to_owned(), password }),
        (Some(_), None) => {
            faults.push(FaultKind::UserWithoutPassword);
            None
        }
        (None, Some((given, _))) => {
            faults.push(FaultKind::PasswordWithoutUser(given));
            None
        }
        (None, None) => None,
    }
}

fn check_authorities(path: &Path) -> Result<(), FileFault> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|error| FileFault::BadCertificate(error.to_string()))?;
    }
    Ok(())
}

/// The certificates in a PEM file, at least one.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileFault> {
    let pem = read_bounded(path)?;
    let certificates = rustls_pemfile::certs(&mut pem.as_slice())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| FileFault::BrokenPem(error.to_string()))?;
    if certificates.is_empty() { Err(FileFault::NoPem("certificate", "CERTIFICATE")) } else { Ok(certificates) }
}

/// The first private key in a PEM file.
pub(crate) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileFault> {
    let pem = read_bounded(path)?;
    rustls_pemfile::private_key(&mut pem.as_slice())
        .map_err(|error| FileFault::BrokenPem(error.to_string()))?
        .ok_or(FileFault::NoPem("private key", "PRIVATE KEY"))
}

/// The password in a file: everything but one newline at the end.
///
/// # Errors
/// Unreadable, larger than 1 MiB, not UTF-8 or empty.
pub fn read_password(path: &Path) -> Result<String, FileFault> {
    let text = String::from_utf8(read_bounded(path)?).map_err(|_why| FileFault::PasswordNotText)?;
    let password = text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if password.is_empty() { Err(FileFault::EmptyPassword) } else { Ok(password.to_owned()) }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, FileFault> {
    let unreadable = |error: io::Error| FileFault::Unreadable(error.to_string());
    let mut content = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)).map_err(unreadable)?;
    if content.len() as u64 > FILE_BYTES_MAX { Err(FileFault::TooLarge) } else { Ok(content) }
}
