//! Requests to the API server, as they are: a path, a body, a status.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::{Client, Config};
use serde_json::Value;
use tokio::time::timeout;

use super::runtime::block_on;

/// How long a request may take: a loaded machine, not a promise of the server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// An object.
    Json,
    /// The fields to change; null removes one.
    MergePatch,
    /// The same, with lists merged by key.
    StrategicMergePatch,
    /// Operations.
    JsonPatch,
    /// Server-side apply.
    Apply,
}

impl Content {
    const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::MergePatch => "application/merge-patch+json",
            Self::StrategicMergePatch => "application/strategic-merge-patch+json",
            Self::JsonPatch => "application/json-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }
}

/// Requests in somebody's name. Nothing is tried again.
#[derive(Clone)]
pub struct ApiClient {
    client: Client,
    token: String,
}

/// What the server answered.
#[derive(Clone, Debug)]
pub struct ApiAnswer {
    /// The status code.
    pub status: u16,
    /// The texts of the `Warning` headers: pod security and deprecations speak through them.
    pub warnings: Vec<String>,
    /// The body; `Null` when it is not JSON.
    pub body: Value,
}

impl ApiAnswer {
    /// The body of an answer with a status of 2xx.
    ///
    /// # Errors
    /// For other answers, with what the server said.
    pub fn ok(self) -> Result<Value> {
        if (200..300).contains(&self.status) { Ok(self.body) } else { bail!("{self}") }
    }

    /// What the server said of a request that it refused.
    #[must_use]
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}

impl fmt::Display for ApiAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.message())
    }
}

impl ApiClient {
    pub(super) fn new(server: SocketAddr, ca_file: &Path, token: &str) -> Result<Self> {
        let mut config = Config::new(format!("https://{server}").parse()?);
        config.root_cert_file = Some(ca_file.to_owned());
        config.default_retry = false;
        // Setting it up needs a runtime to spawn on.
        let client = block_on(async { Client::try_from(config) })?;
        Ok(Self { client, token: token.to_owned() })
    }

    /// `GET path`.
    ///
    /// # Errors
    /// When it is not answered.
    pub fn get(&self, path: &str) -> Result<ApiAnswer> {
        self.request(Method::GET, path, Content::Json, String::new())
    }

    /// `POST path`.
    ///
    /// # Errors
    /// When it is not answered.
    pub fn post(&self, path: &str, body: &Value) -> Result<ApiAnswer> {
        self.request(Method::POST, path, Content::Json, body.to_string())
    }

    /// `PUT path`.
    ///
    /// # Errors
    /// When it is not answered.
    pub fn put(&self, path: &str, body: &Value) -> Result<ApiAnswer> {
        self.request(Method::PUT, path, Content::Json, body.to_string())
    }

    /// `PATCH path`.
    ///
    /// # Errors
    /// When it is not answered.
    pub fn patch(&self, path: &str, content: Content, body: &Value) -> Result<ApiAnswer> {
        self.request(Method::PATCH, path, content, body.to_string())
    }

    /// `DELETE path`, at once: there is no kubelet that would end a pod gracefully.
    ///
    /// # Errors
    /// When it is not answered.
    pub fn delete(&self, path: &str) -> Result<ApiAnswer> {
        let body = serde_json::json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"});
        self.request(Method::DELETE, path, Content::Json, body.to_string())
    }

    /// Any request.
    ///
    /// # Errors
    /// When it is not answered.
    pub fn request(&self, method: Method, path: &str, content: Content, body: String) -> Result<ApiAnswer> {
        let what = format!("{method} {path}");
        let exchange = async {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header(CONTENT_TYPE, content.media_type())
                .body(Body::from(body.into_bytes()))?;
            let (parts, body) = self.send(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            anyhow::Ok(ApiAnswer { status: parts.status.as_u16(), warnings: warnings(&parts.headers), body })
        };
        block_on(async { timeout(REQUEST_TIMEOUT, exchange).await.context("no answer")? }).context(what)
    }

    /// Sends a request in this client's name; for answers that are read as they come.
    pub(super) async fn send(&self, mut request: Request<Body>) -> Result<http::Response<Body>> {
        request.headers_mut().insert(AUTHORIZATION, format!("Bearer {}", self.token).parse()?);
        Ok(self.client.send(request).await?)
    }
}

/// `299 - "text"`, with quotes inside escaped.
fn warnings(headers: &HeaderMap) -> Vec<String> {
    let text = |value: &http::HeaderValue| {
        let value = value.to_str().ok()?;
        let quoted = value.split_once('"')?.1;
        Some(quoted.strip_suffix('"').unwrap_or(quoted).replace("\\\"", "\""))
    };
    headers.get_all("warning").iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_read_without_their_quotes() {
        let mut headers = HeaderMap::new();
        headers.append("warning", "299 - \"plain\"".parse().unwrap());
        headers.append("warning", r#"299 - "would violate \"restricted\": x""#.parse().unwrap());
        assert_eq!(warnings(&headers), ["plain", r#"would violate "restricted": x"#]);
    }
}
