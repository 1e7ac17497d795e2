//! Makes connections: TCP, then TLS where the endpoint is `https`. Done here rather than by tonic, because
//! a server that refuses a client certificate says so after the handshake, by closing the connection. What a
//! person needs to know then is that the server asked for a certificate, and only the handshake knows.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tonic::codegen::http::Uri;
use tower::Service;

use super::error::{call_error, of_transport};
use crate::election::{CallError, CallErrorKind};

const H2: &[u8] = b"h2";

/// A byte stream of either kind.
pub(super) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// Why no connection was made, in words. It travels through tonic's chain of sources.
#[derive(Debug, Error)]
#[error("{}", .0.message)]
pub(super) struct ConnectFailure(pub(super) CallError);

/// How to speak TLS with one endpoint.
#[derive(Clone)]
pub(super) struct Tls {
    /// With everything but the client certificate.
    pub(super) config: Arc<ClientConfig>,
    /// The client certificate, if there is one.
    pub(super) client: Option<Arc<CertifiedKey>>,
    /// The name to check the server's certificate against.
    pub(super) server_name: ServerName<'static>,
}

/// What has come over a connection, and what to think when it ends before anything has.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    heard: AtomicU64,
    suspicion: Mutex<Option<Suspicion>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suspicion {
    SpeaksTls,
    WantsCertificate,
    RefusesCertificate,
}

impl Evidence {
    /// Something came.
    pub(super) fn heard(&self) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        self.suspect(None);
    }

    /// How much has come.
    pub(super) fn count(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    fn suspect(&self, suspicion: Option<Suspicion>) {
        *self.suspicion.lock().unwrap_or_else(PoisonError::into_inner) = suspicion;
    }

    /// The error in better words when the connection was cut before anything came over it.
    pub(super) fn explain(&self, error: CallError) -> CallError {
        let suspicion = *self.suspicion.lock().unwrap_or_else(PoisonError::into_inner);
        match (error.kind, suspicion) {
            (CallErrorKind::Unavailable, Some(suspicion)) => suspicion.explain(&error),
            _ => error,
        }
    }
}

impl Suspicion {
    fn explain(self, error: &CallError) -> CallError {
        let (kind, why) = match self {
            Self::SpeaksTls => (CallErrorKind::Unavailable, "is this a client URL of etcd, and is it to be https?"),
            Self::WantsCertificate => (
                CallErrorKind::Tls,
                "the server asks for a client certificate: set --etcd-cert-file and --etcd-key-file",
            ),
            Self::RefusesCertificate => (
                CallErrorKind::Tls,
                "the server may not accept the client certificate in --etcd-cert-file: is it valid, and signed by \
                 an authority that the server trusts?",
            ),
        };
        call_error(kind, format!("connection closed before any answer; {why} ({})", error.message))
    }
}

/// Connects to one endpoint, as often as tonic asks for it.
#[derive(Clone)]
pub(super) struct Connector {
    tcp: HttpConnector,
    tls: Option<Tls>,
    timeout: Duration,
    evidence: Arc<Evidence>,
}

impl Connector {
    /// TCP and TLS may take `timeout` each. What is learnt about each connection goes into `evidence`.
    pub(super) fn new(tls: Option<Tls>, timeout: Duration, evidence: Arc<Evidence>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        // Divided among the addresses of a name, so that a dead one does not take all of it.
        tcp.set_connect_timeout(Some(timeout));
        Self { tcp, tls, timeout, evidence }
    }

    async fn connect(mut self, uri: Uri) -> Result<TokioIo<Box<dyn Bytes>>, ConnectFailure> {
        self.evidence.suspect(None);
        // tonic would wait for ever where a name server is silent.
        let tcp = tokio::time::timeout(self.timeout * 2, self.tcp.call(uri))
            .await
            .map_err(|_elapsed| failure("the name of the endpoint was not resolved in time"))?
            .map_err(|error| ConnectFailure(of_transport(&error)))?
            .into_inner();
        let Some(tls) = self.tls else {
            self.evidence.suspect(Some(Suspicion::SpeaksTls));
            return Ok(TokioIo::new(Box::new(tcp)));
        };
        let asked = Arc::new(AtomicBool::new(false));
        let has_certificate = tls.client.is_some();
        let handshake = TlsConnector::from(tls.config_asking(&asked)).connect(tls.server_name, tcp);
        let stream = tokio::time::timeout(self.timeout, handshake)
            .await
            .map_err(|_elapsed| failure("no answer to the TLS handshake in time"))?
            .map_err(|error| in_handshake(&error))?;
        if stream.get_ref().1.alpn_protocol() != Some(H2) {
            return Err(failure("the server does not offer HTTP/2: is this etcd's client port?"));
        }
        self.evidence.suspect(match (asked.load(Ordering::Relaxed), has_certificate) {
            (false, _) => None,
            (true, false) => Some(Suspicion::WantsCertificate),
            (true, true) => Some(Suspicion::RefusesCertificate),
        });
        Ok(TokioIo::new(Box::new(stream)))
    }
}

/// Who does not understand a handshake closes the connection.
fn in_handshake(error: &io::Error) -> ConnectFailure {
    let error = of_transport(error);
    if error.kind == CallErrorKind::Tls {
        return ConnectFailure(error);
    }
    failure(&format!("{} in the TLS handshake; does the server speak TLS here?", error.message))
}

fn failure(message: &str) -> ConnectFailure {
    ConnectFailure(call_error(CallErrorKind::Unavailable, message))
}

impl Tls {
    /// The configuration for one handshake, which notes in `asked` whether the server asks for a certificate.
    fn config_asking(&self, asked: &Arc<AtomicBool>) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = vec![H2.to_vec()];
        config.client_auth_cert_resolver =
            Arc::new(NotingResolver { client: self.client.clone(), asked: Arc::clone(asked) });
        Arc::new(config)
    }
}

#[derive(Debug)]
struct NotingResolver {
    client: Option<Arc<CertifiedKey>>,
    asked: Arc<AtomicBool>,
}

impl ResolvesClientCert for NotingResolver {
    fn resolve(&self, _authorities: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        self.client.clone()
    }

    /// True even without one: rustls asks `resolve` only then, and sends an empty list when it gets nothing.
    fn has_certs(&self) -> bool {
        true
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Bytes>>;
    type Error = ConnectFailure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(context).map_err(|error| ConnectFailure(of_transport(&error)))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// The failure to connect in a chain of sources.
pub(super) fn connect_failure<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a CallError> {
    error.downcast_ref::<ConnectFailure>().map(|failure| &failure.0)
}
