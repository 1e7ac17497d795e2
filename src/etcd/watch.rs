//! One watch on one key.

use etcd_client::{EventType, WatchOptions, WatchResponse};
use tokio::sync::mpsc;

use super::Report;
use super::endpoint::{Endpoint, Link};
use super::error::{call_error, incomplete, kind_of, of_client};
use super::keys::{Keys, header, lock_key};
use crate::election::{CallError, CallErrorKind, Change, Event, Revision, WatchId, WatchTarget};

/// What to watch, and how to report it.
pub(super) struct Watch {
    pub(super) id: WatchId,
    pub(super) target: WatchTarget,
    pub(super) from: Revision,
    pub(super) reports: mpsc::Sender<Report>,
}

/// Reports what happens to the key until the watch ends; reports the end.
pub(super) async fn run(endpoint: &Endpoint, keys: &Keys, watch: Watch) {
    let error = match endpoint.link().await {
        Ok(link) => {
            let error = link.explain(watch.serve(&link, keys).await);
            if may_be_stale_token(endpoint, &error) {
                // So that the watch that replaces this one starts with a token that is good. Whether that
                // worked will be seen there.
                drop(endpoint.renewed_link(&link).await);
            }
            error
        }
        Err(error) => error,
    };
    super::report(&watch.reports, Event::WatchEnded { watch: watch.id, error }).await;
}

/// etcd 3.4 cancels a watch with a stale token as "permission denied".
fn may_be_stale_token(endpoint: &Endpoint, error: &CallError) -> bool {
    endpoint.wants_new_token(error.kind)
        || error.kind == CallErrorKind::PermissionDenied && endpoint.wants_new_token(CallErrorKind::Unauthenticated)
}

impl Watch {
    /// Returns why the watch ended.
    async fn serve(&self, link: &Link, keys: &Keys) -> CallError {
        match self.try_serve(link, keys).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn try_serve(&self, link: &Link, keys: &Keys) -> Result<std::convert::Infallible, CallError> {
        let options = WatchOptions::new().with_start_revision(self.from.0).with_progress_notify();
        let mut client = link.client().await?;
        let mut stream =
            client.watch(keys.watched(&self.target), Some(options)).await.map_err(|error| of_client(&error))?;
        loop {
            let response = stream
                .message()
                .await
                .map_err(|error| of_client(&error))?
                .ok_or_else(|| call_error(CallErrorKind::Unavailable, "etcd closed the watch"))?;
            link.heard();
            if response.canceled() {
                return Err(cancelled(&response));
            }
            self.report(keys, &response).await?;
        }
    }

    async fn report(&self, keys: &Keys, response: &WatchResponse) -> Result<(), CallError> {
        let header = header(response.header())?;
        if response.created() {
            super::report(&self.reports, Event::WatchCreated { watch: self.id, header }).await;
        }
        for event in response.events() {
            let kv = event.kv().ok_or_else(|| incomplete("the key that changed"))?;
            let change = match (event.event_type(), &self.target) {
                (EventType::Delete, _) => Change::Deleted(Revision(kv.mod_revision())),
                (EventType::Put, WatchTarget::Lock) => Change::LockPut(lock_key(kv)),
                (EventType::Put, WatchTarget::Candidate(_)) => Change::CandidatePut(keys.candidate_key(kv)),
            };
            super::report(&self.reports, Event::WatchChanged { watch: self.id, header, change }).await;
        }
        Ok(())
    }
}

/// A compacted revision comes without a reason.
fn cancelled(response: &WatchResponse) -> CallError {
    if response.compact_revision() != 0 {
        let compacted = response.compact_revision();
        return call_error(CallErrorKind::Compacted, format!("revisions before {compacted} have been compacted"));
    }
    let reason = response.cancel_reason();
    if reason.is_empty() {
        return call_error(CallErrorKind::Unavailable, "etcd cancelled the watch without a reason");
    }
    call_error(kind_of(tonic::Code::Unknown, reason), format!("etcd cancelled the watch: {reason}"))
}
