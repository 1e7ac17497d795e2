//! What service accounts asked of the server, from its audit log.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::ApiServer;

/// The log's name in the server's folder.
pub(super) const FILE: &str = "audit.log";

/// A request that has been answered; a watch that has begun.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedRequest {
    /// `system:serviceaccount:<namespace>:<name>`
    pub user: String,
    /// The pod that the token is bound to.
    pub pod: Option<String>,
    /// get, list, watch, patch, create, …
    pub verb: String,
    /// The path with its query.
    pub uri: String,
    /// The resource, `pods` or `pods/status`; empty for paths that are none.
    pub resource: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name; empty for a collection.
    pub name: String,
    /// The status that was answered.
    pub code: u64,
    /// What was sent; `Null` when nothing was, or nobody looked because rights were missing.
    pub body: Value,
    /// When the server received it, by the wall clock: RFC 3339 with microseconds.
    pub received: String,
}

impl LoggedRequest {
    fn of(entry: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let verb = text(&entry["verb"]);
        let stage = if verb == "watch" { "ResponseStarted" } else { "ResponseComplete" };
        if entry["stage"] != stage {
            return None;
        }
        let object = &entry["objectRef"];
        let mut resource = text(&object["resource"]);
        if let Some(subresource) = object["subresource"].as_str() {
            resource = format!("{resource}/{subresource}");
        }
        Some(Self {
            user: text(&entry["user"]["username"]),
            pod: entry["user"]["extra"]["authentication.kubernetes.io/pod-name"][0].as_str().map(str::to_owned),
            uri: text(&entry["requestURI"]),
            resource,
            namespace: text(&object["namespace"]),
            name: text(&object["name"]),
            code: entry["responseStatus"]["code"].as_u64().unwrap_or_default(),
            body: entry["requestObject"].clone(),
            received: text(&entry["requestReceivedTimestamp"]),
            verb,
        })
    }
}

impl ApiServer {
    /// Every request of a service account in this namespace so far, in the order of answers. Requests whose token was
    /// refused are nobody's and not here.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn requests(&self, namespace: &str) -> Result<Vec<LoggedRequest>> {
        let log = fs::read_to_string(self.path(FILE)).context("there is no audit log")?;
        let mut requests = Vec::new();
        // The last line may be half written.
        for line in log.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            requests.extend(LoggedRequest::of(&serde_json::from_str(line)?));
        }
        requests.retain(|request| request.user.starts_with(&format!("system:serviceaccount:{namespace}:")));
        Ok(requests)
    }
}
