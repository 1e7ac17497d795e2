//! An election as a running sidecar sees it.

use std::time::Duration;

use anyhow::{Context, ensure};
use hyper::{Method, StatusCode};
use serde::Deserialize;

use super::report::{Leader, Line, Report, ToldBy, with_roles};
use crate::cli::http_client::ask;
use crate::config::ApiAddress;
use crate::election::NotLeading;

/// Asks for `/status`.
pub async fn look(address: &ApiAddress, timeout: Duration) -> anyhow::Result<Report> {
    let answer = ask(address, Method::GET, "/status", timeout).await?;
    ensure!(answer.status == StatusCode::OK, "{address} answered {} to GET /status; is that a sidecar?", answer.status);
    let body: StatusBody =
        serde_json::from_str(&answer.body).with_context(|| format!("{address} did not tell a sidecar's status"))?;
    Ok(report(address, body))
}

/// `/status`, as far as it is told here. What another version leaves out is left out.
#[derive(Deserialize)]
struct StatusBody {
    identity: String,
    election: String,
    state: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    epoch: Option<u64>,
    #[serde(default)]
    term: i64,
    #[serde(default)]
    since: Option<String>,
    #[serde(default)]
    etcd: String,
    #[serde(default)]
    part: Option<String>,
    #[serde(default)]
    not_leading: Option<String>,
    #[serde(default)]
    not_leading_reason: Option<String>,
    #[serde(default)]
    candidates: Vec<CandidateBody>,
    #[serde(default)]
    candidates_total: u64,
    #[serde(default)]
    endpoints: Vec<EndpointBody>,
}

#[derive(Deserialize)]
struct CandidateBody {
    identity: String,
    #[serde(default)]
    registered_at: Option<String>,
    #[serde(default)]
    leading_since: Option<String>,
}

#[derive(Deserialize)]
struct EndpointBody {
    url: String,
    #[serde(default)]
    health: String,
    #[serde(default)]
    failed_operation: Option<String>,
    #[serde(default)]
    failure: Option<String>,
}

fn report(address: &ApiAddress, body: StatusBody) -> Report {
    let mut notes = Vec::new();
    // A sidecar reads the line now and then, and knows of itself at once.
    let gated = [NotLeading::NeverLeads, NotLeading::AppStarting, NotLeading::AppUnhealthy].map(|why| why.as_str());
    let line = match body.not_leading_reason.as_deref() {
        _ if body.etcd == "unreachable" => Line::Past,
        Some(why) if gated.contains(&why) => Line::Without(&body.identity),
        Some(_) | None => Line::Current,
    };
    if line == Line::Past {
        notes.push("etcd gives this sidecar no answer it can use: what is told here is what it last heard".into());
    }
    notes.extend(body.endpoints.iter().filter_map(trouble));
    let leader = (!body.name.is_empty()).then_some(body.name);
    // The sidecar's own `since` counts from when it saw the leader, which may be when it started.
    let leads = |candidate: &&CandidateBody| Some(&candidate.identity) == leader.as_ref();
    let leading_since = body.candidates.iter().find(leads).and_then(|candidate| candidate.leading_since.clone());
    let queue = body.candidates.into_iter().map(|candidate| (candidate.identity, candidate.registered_at));
    let candidates = with_roles(queue, leader.as_deref(), line);
    Report {
        election: body.election,
        since: leading_since.or(body.since),
        candidates,
        candidates_total: body.candidates_total,
        leader: leader.map(|identity| Leader { identity, epoch: body.epoch, term: body.term, lease_remaining_s: None }),
        told_by: ToldBy::Sidecar {
            address: address.to_string(),
            identity: body.identity,
            part: body.part,
            state: body.state,
            etcd: body.etcd,
            not_leading: body.not_leading,
        },
        notes,
    }
}

/// What is wrong with an endpoint, if anything.
fn trouble(endpoint: &EndpointBody) -> Option<String> {
    let EndpointBody { url, health, failed_operation, failure } = endpoint;
    match health.as_str() {
        "failing" => {
            let operation = failed_operation.as_deref().unwrap_or("unknown");
            let failure = failure.as_deref().unwrap_or("unknown");
            Some(format!("endpoint {url} fails: {failure} at {operation}; the sidecar's log has the words"))
        }
        "refused" => Some(format!("endpoint {url} belongs to another cluster and is not asked; see --etcd-endpoints")),
        // What other versions may say is not trouble until it is known to be.
        _ => None,
    }
}
