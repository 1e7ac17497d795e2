//! What can go wrong with etcd, in words a person understands.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use rustls::{AlertDescription, CertificateError};
use tonic::{Code, Status};

use super::connect::connect_failure;
use crate::config::FileFault;
use crate::election::{CallError, CallErrorKind};

/// Why the adapter cannot work, or could not take over new credentials.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// A file named in the configuration cannot be used.
    #[error("{flag}: {} {fault}", path.display())]
    File {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: FileFault,
    },
    /// An endpoint is no URL, or its host no name for a certificate.
    #[error("--etcd-endpoints: {endpoint}: {reason}")]
    Endpoint {
        /// The endpoint as configured.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A task of the adapter panicked: a bug.
    #[error("a task of the etcd adapter ended unexpectedly: {0}")]
    TaskDied(tokio::task::JoinError),
    /// No endpoint answered.
    #[error("no etcd endpoint answered: {}", .0.iter().map(|(endpoint, error)| format!("{endpoint}: {}", error.message)).collect::<Vec<_>>().join("; "))]
    NoAnswer(Vec<(String, CallError)>),
}

/// A [`CallError`] of this kind.
pub(super) fn call_error(kind: CallErrorKind, message: impl Into<String>) -> CallError {
    CallError { kind, message: message.into() }
}

/// etcd broke its own protocol: a field that is always there is missing.
pub(super) fn incomplete(what: &str) -> CallError {
    call_error(CallErrorKind::Other, format!("the answer lacks {what}"))
}

/// Whether a grant failed because the lease is there already.
pub(super) fn is_lease_exists(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.message().contains("lease already exists"))
}

/// Whether an authentication failed because the server has authentication switched off.
pub(super) fn is_auth_disabled(error: &etcd_client::Error) -> bool {
    matches!(error, etcd_client::Error::GRpcStatus(status) if status.message().contains("authentication is not enabled"))
}

/// The kind and the words for an error of the client crate, whose own `Display` dumps internals.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the client crate's enum: what is not told apart here is told in its words"
)]
pub(super) fn of_client(error: &etcd_client::Error) -> CallError {
    match error {
        etcd_client::Error::GRpcStatus(status) => of_status(status),
        etcd_client::Error::TransportError(error) => of_transport(error),
        etcd_client::Error::IoError(error) => of_transport(error),
        other => call_error(CallErrorKind::Other, other.to_string()),
    }
}

/// The kind and the words for a gRPC status: the server's when it has no source, else the transport's.
pub(super) fn of_status(status: &Status) -> CallError {
    match status.source() {
        Some(source) => of_transport(source),
        None => CallError { kind: kind_of(status.code(), status.message()), message: words_of(status) },
    }
}

/// The kind of what the server says: by its message first, because codes are shared by several reasons.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "gRPC's codes: those that call for no reaction of their own are one kind"
)]
pub(super) fn kind_of(code: Code, message: &str) -> CallErrorKind {
    const BY_MESSAGE: [(&str, CallErrorKind); 10] = [
        ("requested lease not found", CallErrorKind::LeaseNotFound),
        ("database space exceeded", CallErrorKind::NoSpace),
        ("required revision has been compacted", CallErrorKind::Compacted),
        ("invalid auth token", CallErrorKind::Unauthenticated),
        ("revision of auth store is old", CallErrorKind::Unauthenticated),
        ("user name is empty", CallErrorKind::Unauthenticated),
        ("authentication failed", CallErrorKind::Unauthenticated),
        ("permission denied", CallErrorKind::PermissionDenied),
        ("no leader", CallErrorKind::Unavailable),
        ("not a primary lessor", CallErrorKind::Unavailable),
    ];
    if let Some((_, kind)) = BY_MESSAGE.iter().find(|(part, _)| message.contains(part)) {
        return *kind;
    }
    match code {
        Code::Unavailable | Code::Cancelled | Code::Aborted => CallErrorKind::Unavailable,
        Code::DeadlineExceeded => CallErrorKind::Timeout,
        Code::Unauthenticated => CallErrorKind::Unauthenticated,
        Code::PermissionDenied => CallErrorKind::PermissionDenied,
        _ => CallErrorKind::Other,
    }
}

fn words_of(status: &Status) -> String {
    match (status.message().is_empty(), status.message().contains("user name is empty")) {
        (true, _) => status.code().description().to_owned(),
        (false, true) => "etcd requires authentication: set --etcd-user and --etcd-password-file".to_owned(),
        (false, false) => status.message().to_owned(),
    }
}

/// The kind and the words for a failed connection: the cause is at the end of the chain of sources.
pub(super) fn of_transport(error: &(dyn StdError + 'static)) -> CallError {
    let mut words = error.to_string();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(failure) = connect_failure(error) {
            return failure.clone();
        }
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return call_error(CallErrorKind::Tls, tls_words(tls));
        }
        if let Some(io) = error.downcast_ref::<io::Error>()
            && let Some(known) = io_words(io)
        {
            return call_error(CallErrorKind::Unavailable, known);
        }
        words = error.to_string();
        next = cause(error);
    }
    // The HTTP/2 library has an own error for the same thing.
    let closed = words.contains("broken pipe");
    call_error(CallErrorKind::Unavailable, if closed { "connection closed".to_owned() } else { words })
}

/// What lies behind an error. `io::Error::source` skips the very error it wraps.
fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

/// Words for what a network does; other errors of the system speak for themselves.
#[expect(clippy::wildcard_enum_match_arm, reason = "the system's kinds, which grow: the others speak for themselves")]
fn io_words(error: &io::Error) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Some("connection refused"),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Some("connection reset"),
        io::ErrorKind::TimedOut => Some("no connection in time"),
        io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => Some("connection closed"),
        _ => None,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "rustls' enum, which grows: what has no advice is told in its words"
)]
fn tls_words(error: &rustls::Error) -> String {
    use rustls::Error as Tls;
    match error {
        Tls::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "the server's certificate is not signed by a certificate authority in --etcd-ca-file".to_owned()
        }
        Tls::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            format!("the server's certificate is for another name (see --etcd-server-name): {error}")
        }
        Tls::InvalidCertificate(_) => format!("the server's certificate is not good: {error}"),
        Tls::AlertReceived(AlertDescription::CertificateRequired | AlertDescription::BadCertificate) => format!(
            "the server requires a client certificate it trusts (--etcd-cert-file and --etcd-key-file): {error}"
        ),
        Tls::AlertReceived(
            AlertDescription::UnknownCA | AlertDescription::CertificateExpired | AlertDescription::CertificateUnknown,
        ) => format!("the server does not accept the client certificate in --etcd-cert-file: {error}"),
        Tls::InvalidMessage(_) => format!("the server does not speak TLS here: {error}"),
        _ => format!("TLS failed: {error}"),
    }
}
