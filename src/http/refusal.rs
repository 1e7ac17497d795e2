//! Answers that refuse: always JSON with one sentence in `error`.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;

/// A request that gets no for an answer.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: String,
    header: Option<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct RefusalBody<'a> {
    error: &'a str,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into(), header: None }
    }

    pub(super) fn with_header(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    /// Nothing here reads a body, so it is not even received.
    pub(super) fn body_not_wanted() -> Response<Body> {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "no request here has a body; what can be said is said in the path and the query",
        )
        .with_header(header::CONNECTION, HeaderValue::from_static("close"))
        .into_response()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response<Body> {
        let mut response = json(self.status, &RefusalBody { error: &self.error });
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// A JSON answer, written once.
pub(super) fn json<T: Serialize>(status: StatusCode, body: &T) -> Response<Body> {
    // No body here is longer on average; a longer one grows.
    let mut bytes = Vec::with_capacity(512);
    serde_json::to_writer(&mut bytes, body).expect("our bodies have string keys, and a Vec takes every write");
    bytes.push(b'\n');
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
