//! The routes of the local API.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Method, Response, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Extension, Router};

use super::Shared;
use super::answer::{Leading, Moment, NameBody, StatusBody};
use super::check::check;
use super::compat;
use super::connection::AnswerInProgress;
use super::events::events;
use super::leader::leader;
use super::refusal::{Refusal, json};
use super::resign::resign;

/// The token of the known leader's term, as in the body; absent when no leader is known.
const TERM: HeaderName = HeaderName::from_static("bellwether-term");
/// The epoch beside it.
const EPOCH: HeaderName = HeaderName::from_static("bellwether-epoch");

pub(super) type Answer = Extension<Arc<AnswerInProgress>>;

pub(super) fn routes(shared: Arc<Shared>) -> Router {
    let ours = Router::new()
        .route("/", get(name))
        .route("/leader", get(leader))
        .route("/events", get(events))
        .route("/check", get(check))
        .route("/status", get(status))
        .route("/resign", post(resign))
        .method_not_allowed_fallback(wrong_method);
    let all = match shared.about().compat {
        Some(compat) => compat::add_routes(ours, compat),
        None => ours.fallback(unknown_path),
    };
    all.with_state(shared)
}

pub(super) async fn name(State(shared): State<Arc<Shared>>, Extension(answer): Answer) -> Response<Body> {
    let view = shared.view();
    let moment = shared.moment(&view);
    commit(&answer, moment.leading_by_name());
    with_term(json(StatusCode::OK, &NameBody::of(&moment)), &moment)
}

async fn status(State(shared): State<Arc<Shared>>, Extension(answer): Answer) -> Response<Body> {
    let view = shared.view();
    let moment = shared.moment(&view);
    commit(&answer, moment.leading());
    with_term(json(StatusCode::OK, &StatusBody::of(&moment)), &moment)
}

pub(super) async fn unknown_path(uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(100).collect();
    Refusal::new(StatusCode::NOT_FOUND, format!("there is nothing at {path}"))
}

pub(super) async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    let method: String = method.as_str().chars().take(20).collect();
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} does not answer to {method}; the header Allow says to what", uri.path()),
    )
}

/// Writes down what an answer commits to, before it is handed to anybody.
pub(super) fn commit(answer: &AnswerInProgress, leading: Option<Leading>) {
    if let Some(leading) = leading {
        answer.says_leading(leading.promised, leading.term);
    }
}

pub(super) fn with_term(mut response: Response<Body>, moment: &Moment<'_>) -> Response<Body> {
    if let Some(leader) = moment.leader() {
        let headers = response.headers_mut();
        headers.insert(TERM, HeaderValue::from(leader.term.token.0));
        headers.insert(EPOCH, HeaderValue::from(leader.term.epoch.0));
    }
    response.into_response()
}
