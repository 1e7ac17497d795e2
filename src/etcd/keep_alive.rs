//! One keep-alive stream.
//!
//! etcd-client's own `lease_keep_alive` keeps the first answer to itself and turns a lease that is gone
//! into an error. Every send needs its answer here, so this speaks the gRPC method itself: two messages.

use futures_util::stream;
use tokio::sync::mpsc;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

use super::Report;
use super::endpoint::{Endpoint, Link, Service};
use super::error::{call_error, incomplete, of_status, of_transport};
use crate::election::{
    CallError, CallErrorKind, ClusterId, Event, Header, LeaseId, MemberId, RaftTerm, Revision, StreamId,
};

/// Keep-alives queued before a stream is open, at most: the core gives a stream up after one attempt has
/// timed out, so there are two at most.
pub(super) const QUEUED_MAX: usize = 16;

const METHOD: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

/// etcdserverpb.LeaseKeepAliveRequest
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct KeepAliveRequest {
    #[prost(int64, tag = "1")]
    id: i64,
}

impl KeepAliveRequest {
    pub(super) fn of(lease: LeaseId) -> Self {
        Self { id: lease.0 }
    }
}

/// etcdserverpb.LeaseKeepAliveResponse
#[derive(Clone, PartialEq, prost::Message)]
struct KeepAliveResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(int64, tag = "2")]
    id: i64,
    #[prost(int64, tag = "3")]
    ttl: i64,
}

/// etcdserverpb.ResponseHeader
#[derive(Clone, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "1")]
    cluster_id: u64,
    #[prost(uint64, tag = "2")]
    member_id: u64,
    #[prost(int64, tag = "3")]
    revision: i64,
    #[prost(uint64, tag = "4")]
    raft_term: u64,
}

/// A stream's two ends: what to send, and where to report.
pub(super) struct Ends {
    pub(super) sends: mpsc::Receiver<KeepAliveRequest>,
    pub(super) reports: mpsc::Sender<Report>,
}

/// Sends what comes in and reports what comes back, until the stream ends; reports the end.
pub(super) async fn run(endpoint: &Endpoint, id: StreamId, ends: Ends) {
    let reports = ends.reports.clone();
    let error = match endpoint.link().await {
        Ok(link) => {
            let error = link.explain(serve(&link, id, ends).await);
            if endpoint.wants_new_token(error.kind) {
                // So that the stream that replaces this one starts with a token that is good. Whether that
                // worked will be seen there.
                drop(endpoint.renewed_link(&link).await);
            }
            error
        }
        Err(error) => error,
    };
    super::report(&reports, Event::StreamEnded { stream: id, error }).await;
}

/// Returns why the stream ended.
async fn serve(link: &Link, id: StreamId, ends: Ends) -> CallError {
    let mut answers = match open(link.service(), ends.sends).await {
        Ok(answers) => answers,
        Err(error) => return error,
    };
    loop {
        let answer = match answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return call_error(CallErrorKind::Unavailable, "etcd closed the keep-alive stream"),
            Err(status) => return of_status(&status),
        };
        link.heard();
        let Some(header) = answer.header else { return incomplete("its header") };
        super::report(
            &ends.reports,
            Event::KeepAliveAnswered { stream: id, header: header.into(), ttl_seconds: answer.ttl },
        )
        .await;
    }
}

/// etcd sends the response's head with the first answer, so this returns after the first send only.
async fn open(
    service: Service,
    mut sends: mpsc::Receiver<KeepAliveRequest>,
) -> Result<Streaming<KeepAliveResponse>, CallError> {
    let sends = stream::poll_fn(move |context| sends.poll_recv(context));
    let mut grpc = Grpc::new(service);
    grpc.ready().await.map_err(|error| of_transport(&error))?;
    let codec = ProstCodec::<KeepAliveRequest, KeepAliveResponse>::default();
    let path = PathAndQuery::from_static(METHOD);
    let response = grpc.streaming(Request::new(sends), path, codec).await.map_err(|status| of_status(&status))?;
    Ok(response.into_inner())
}

impl From<ResponseHeader> for Header {
    fn from(header: ResponseHeader) -> Self {
        Self {
            cluster: ClusterId(header.cluster_id),
            member: MemberId(header.member_id),
            revision: Revision(header.revision),
            raft_term: RaftTerm(header.raft_term),
        }
    }
}
