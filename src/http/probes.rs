//! The routes of the telemetry listener.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde::Serialize;

use super::Shared;
use super::local_api::{unknown_path, wrong_method};
use super::refusal::{Refusal, json};
use crate::config::Compat;

#[derive(Serialize)]
struct ProbeBody {
    status: &'static str,
}

pub(super) fn routes(shared: Arc<Shared>) -> Router {
    let ours = Router::new().route("/livez", get(livez)).route("/readyz", get(readyz)).route("/metrics", get(metrics));
    let all = match shared.about().compat {
        // What its startup probe asks for.
        Some(Compat::Nais) => ours.route("/healthz", get(livez)),
        Some(Compat::LeaderElector | Compat::Instana) | None => ours,
    };
    all.fallback(unknown_path).method_not_allowed_fallback(wrong_method).with_state(shared)
}

/// 503 only when the driver is stuck: a restart is the one thing that helps then, and it helps nothing else.
async fn livez(State(shared): State<Arc<Shared>>) -> Result<Response<Body>, Refusal> {
    match shared.driver_stuck_for() {
        None => Ok(json(StatusCode::OK, &ProbeBody { status: "alive" })),
        Some(silent) => Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the driver has made no turn for {} s", silent.as_secs()),
        )),
    }
}

/// Never tied to leading, or rollouts deadlock, nor to etcd, or its outage takes the application down.
async fn readyz(State(shared): State<Arc<Shared>>) -> Result<Response<Body>, Refusal> {
    if shared.is_ready() {
        Ok(json(StatusCode::OK, &ProbeBody { status: "ready" }))
    } else {
        Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the driver does not run yet"))
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response<Body> {
    let view = shared.view();
    match shared.metrics().render(&view, (shared.clock())()) {
        Ok(text) => {
            let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            ([(header::CONTENT_TYPE, content_type)], text).into_response()
        }
        Err(error) => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
