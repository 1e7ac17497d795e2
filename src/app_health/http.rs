//! One `GET` of the application, as the kubelet does it: 2xx and 3xx are healthy, and no redirect is followed.

use std::pin::pin;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::answer::Failure;

/// Status line and headers: hyper's smallest buffer, and more than any health page needs.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// As much as the kubelet reads. The rest is left where it is, so that an endless body ends here.
const BODY_BYTES_MAX: usize = 10 * 1024;

/// Asks on this connection, and closes it.
///
/// # Errors
/// When the answer is not good, or none.
pub(super) async fn get(stream: impl AsyncRead + AsyncWrite + Unpin, host: &str, path: &str) -> Result<(), Failure> {
    let request = Request::get(path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("bellwether/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Failure::Unwell(format!("{path} cannot be asked for: {error}")))?;
    let broken = |error: hyper::Error| Failure::Unwell(format!("did not answer in HTTP/1.1: {error}"));
    let mut dialect = http1::Builder::new();
    dialect.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = dialect.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broken)?;
        judge(response, broken).await
    };
    let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
    tokio::select! {
        answer = &mut exchange => answer,
        // The server may close first; what the exchange needs of the connection has then been handed over.
        _ended = &mut connection => exchange.await,
    }
}

/// The body is read as far as the kubelet would, so that an application sees no connection reset for its few words.
async fn judge(response: Response<Incoming>, broken: fn(hyper::Error) -> Failure) -> Result<(), Failure> {
    let status = response.status();
    let mut body = response.into_body();
    let mut read = 0;
    while read < BODY_BYTES_MAX
        && let Some(frame) = body.frame().await
    {
        read += frame.map_err(broken)?.data_ref().map_or(0, Bytes::len);
    }
    if status.is_success() || status.is_redirection() {
        Ok(())
    } else {
        Err(Failure::Unwell(format!("answered {status}")))
    }
}
