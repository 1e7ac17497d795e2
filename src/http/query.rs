//! What requests say in their query.

use axum::extract::Query;
use axum::http::{StatusCode, Uri};

use super::refusal::Refusal;

/// Whether `?identity=` is absent or names this sidecar, every time it is given.
pub(super) fn is_meant(uri: &Uri, identity: &str) -> bool {
    if uri.query().is_none() {
        return true;
    }
    match Query::<Vec<(String, String)>>::try_from_uri(uri) {
        Ok(Query(pairs)) => pairs.iter().filter(|(name, _)| name == "identity").all(|(_, value)| value == identity),
        // What cannot be read may have named somebody else.
        Err(_) => false,
    }
}

/// Every name and value, in order. `example` shows how to write it.
pub(super) fn pairs(uri: &Uri, example: &str) -> Result<Vec<(String, String)>, Refusal> {
    match Query::<Vec<(String, String)>>::try_from_uri(uri) {
        Ok(Query(pairs)) => Ok(pairs),
        Err(fault) => Err(bad(format!("the query cannot be read: {fault}; write it like {example}"))),
    }
}

/// 400 with one sentence.
pub(super) fn bad(error: String) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, error)
}

/// What a client sent, cut to what a sentence can hold.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}
