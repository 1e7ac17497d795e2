//! What hyper sees of a connection: its socket and the bodies it sends, both telling the connection what comes and
//! goes.

use std::io;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::{AnswerInProgress, Connection};
use super::listener::Stream;
use super::stopped_write::StoppableWrite;

/// A body that ends its [`AnswerInProgress`] when hyper has taken all of it.
#[derive(Debug)]
pub(super) struct CountedBody {
    body: Body,
    _answer: Arc<AnswerInProgress>,
}

impl CountedBody {
    pub(super) fn new(body: Body, answer: Arc<AnswerInProgress>) -> Self {
        Self { body, _answer: answer }
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The socket, seen from hyper: tells the connection what comes and what has gone.
#[derive(Debug)]
pub(super) struct WatchedStream {
    stream: Stream,
    connection: Arc<Connection>,
    /// Comes before what the socket has to read.
    read_first: Bytes,
}

impl WatchedStream {
    pub(super) fn new(stream: Stream, connection: Arc<Connection>) -> Self {
        Self { stream, connection, read_first: Bytes::new() }
    }

    /// These bytes are read before any others.
    pub(super) fn read_first(&mut self, bytes: Bytes) {
        self.read_first = bytes;
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn socket(&self) -> &Stream {
        &self.stream
    }

    fn check_before_write(&self) -> io::Result<()> {
        if self.connection.is_too_late_to_write() {
            // A connection that closes without an answer says "not leader", as a refused one does.
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the answer expired before it was written"));
        }
        Ok(())
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.read_first.is_empty() {
            let length = buf.remaining().min(self.read_first.len());
            buf.put_slice(&self.read_first.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.connection.bytes_arrived();
        }
        polled
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let _stoppable = StoppableWrite::to(self.stream.as_raw_fd());
        self.check_before_write()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let _stoppable = StoppableWrite::to(self.stream.as_raw_fd());
        self.check_before_write()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes its socket only once its own buffer is empty.
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        if let Poll::Ready(Ok(())) = polled {
            self.connection.flushed();
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for WatchedStream {
    fn drop(&mut self) {
        // What has not been written will not be.
        self.connection.flushed();
    }
}
