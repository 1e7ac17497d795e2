//! One request to a sidecar, with an end in time and in size.

use std::io;
use std::pin::pin;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::config::{ApiAddress, Span};

/// `/status` with its bounded lists is a hundredth of this.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// What a sidecar said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The code.
    pub status: StatusCode,
    /// The body, as text.
    pub body: String,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// No connection.
    #[error("cannot connect to {address}: {error}; is a sidecar running there?")]
    Connect {
        /// Where to.
        address: ApiAddress,
        /// Why not.
        error: io::Error,
    },
    /// Too slow.
    #[error("{address} did not answer within {}; --timeout sets how long to wait", Span(*.timeout))]
    Timeout {
        /// Who.
        address: ApiAddress,
        /// How long it had.
        timeout: Duration,
    },
    /// Not HTTP, or cut short.
    #[error("{address} did not answer in HTTP/1.1: {error}")]
    Broken {
        /// Who.
        address: ApiAddress,
        /// What happened.
        error: hyper::Error,
    },
    /// An endless body.
    #[error("{0} answered with more than {BODY_BYTES_MAX} bytes; is that a sidecar?")]
    TooLarge(ApiAddress),
    /// The path cannot be sent.
    #[error("{path:?} cannot be asked for: {error}")]
    Path {
        /// Path and query.
        path: String,
        /// Why not.
        error: hyper::http::Error,
    },
}

/// Asks once and waits for the whole answer, `timeout` at most.
///
/// # Errors
/// When there is none.
pub async fn ask(address: &ApiAddress, method: Method, path: &str, timeout: Duration) -> Result<Answer, AskError> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, address.host_header())
        .header(USER_AGENT, concat!("bellwether/", env!("CARGO_PKG_VERSION")))
        .body(Empty::new())
        .map_err(|error| AskError::Path { path: path.to_owned(), error })?;
    tokio::time::timeout(timeout, connect_and_send(address, request))
        .await
        .map_err(|_elapsed| AskError::Timeout { address: address.clone(), timeout })?
}

async fn connect_and_send(address: &ApiAddress, request: Request<Empty<Bytes>>) -> Result<Answer, AskError> {
    let refused = |error| AskError::Connect { address: address.clone(), error };
    match address {
        ApiAddress::Tcp { host, port } => {
            send(address, TcpStream::connect((host.as_str(), *port)).await.map_err(refused)?, request).await
        }
        ApiAddress::Unix(path) => send(address, UnixStream::connect(path).await.map_err(refused)?, request).await,
    }
}

async fn send(
    address: &ApiAddress,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Empty<Bytes>>,
) -> Result<Answer, AskError> {
    let broken = |error| AskError::Broken { address: address.clone(), error };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|error| match error.downcast::<hyper::Error>() {
            Ok(error) => broken(*error),
            Err(other) => {
                debug_assert!(other.is::<LengthLimitError>(), "a limited body fails by its limit or by its inside");
                AskError::TooLarge(address.clone())
            }
        })?;
        Ok(Answer { status, body: String::from_utf8_lossy(&body.to_bytes()).into_owned() })
    };
    let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection ends first when the server closes it; what the exchange needs of it has then been handed over.
        _ended = &mut connection => exchange.await,
    }
}
