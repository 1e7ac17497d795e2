//! `--compat`: what the clients of other sidecars ask for. Each answer comes from one look at the view and the clock,
//! like ours, and what it promises is written down like ours: nothing here says that this candidate leads unless it does.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Extension, Router};

use super::Shared;
use super::answer::Moment;
use super::local_api::{Answer, commit, name, with_term, wrong_method};
use crate::config::Compat;

/// Adds what `compat` answers to our own routes, which keep their meaning.
pub(super) fn add_routes(ours: Router<Arc<Shared>>, compat: Compat) -> Router<Arc<Shared>> {
    let all = match compat {
        Compat::LeaderElector => ours,
        Compat::Instana => ours.route("/health", get(health).fallback(wrong_method)),
        Compat::Nais => ours,
    };
    // They have one answer for every path they do not know.
    all.fallback(get(name).fallback(wrong_method))
}

/// Instana's: whether a leader is known, whoever it is.
async fn health(State(shared): State<Arc<Shared>>, Extension(answer): Answer) -> Response<Body> {
    let view = shared.view();
    let moment = Moment::new(&view, shared.about(), (shared.clock())());
    commit(&answer, moment.leading_by_name());
    let (status, text) = match moment.leader() {
        Some(leader) => (StatusCode::OK, format!("Valid leader set: &{{{}}}", leader.identity)),
        None => (StatusCode::INTERNAL_SERVER_ERROR, "Invalid leader".to_owned()),
    };
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    with_term((status, [(header::CONTENT_TYPE, content_type)], text).into_response(), &moment)
}
