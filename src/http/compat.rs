//! `--compat`: what the clients of other sidecars ask for. Each answer comes from one look at the view and the clock,
//! like ours, and what it promises is written down like ours: nothing here says that this candidate leads unless it does.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Router};

use super::Shared;
use super::answer::{Moment, NameBody};
use super::events::{Told, stream};
use super::local_api::{Answer, commit, name, with_term, wrong_method};
use crate::config::Compat;
use crate::metrics::Path;

/// Without an empty line after it: clients that never met a comment (nais' sends none) take that for the end of an event
/// without data.
const BARE_HEARTBEAT: &[u8] = b":\n";

/// Adds what `compat` answers to our own routes, which keep their meaning.
pub(super) fn add_routes(ours: Router<Arc<Shared>>, compat: Compat) -> Router<Arc<Shared>> {
    let all = match compat {
        Compat::LeaderElector => ours,
        Compat::Instana => ours.route("/health", get(health).fallback(wrong_method)),
        Compat::Nais => ours.route("/sse", get(sse).fallback(wrong_method)),
    };
    // They have one answer for every path they do not know.
    all.fallback(get(name).fallback(wrong_method))
}

/// Instana's: whether a leader is known, whoever it is.
async fn health(State(shared): State<Arc<Shared>>, Extension(answer): Answer) -> Response<Body> {
    let view = shared.view();
    let moment = shared.moment(&view);
    commit(&answer, moment.leading_by_name());
    let (status, text) = match moment.leader() {
        Some(leader) => (StatusCode::OK, format!("Valid leader set: &{{{}}}", leader.identity)),
        None => (StatusCode::INTERNAL_SERVER_ERROR, "Invalid leader".to_owned()),
    };
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    with_term((status, [(header::CONTENT_TYPE, content_type)], text).into_response(), &moment)
}

/// Nais': the body of `/` as an event without a type, at first and with each change.
async fn sse(State(shared): State<Arc<Shared>>, Extension(answer): Answer, request: Request<Body>) -> Response<Body> {
    let (request, _no_body) = request.into_parts();
    let tell = |moment: &Moment<'_>| Told::json(None, &NameBody::of(moment), moment.leading_by_name());
    stream(&shared, &answer, &request, Path::Other, BARE_HEARTBEAT, Box::new(tell)).await
}
