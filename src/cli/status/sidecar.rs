//! An election as a running sidecar sees it.

use std::time::Duration;

use anyhow::{Context, ensure};
use hyper::{Method, StatusCode};
use serde::Deserialize;

use super::report::{Leader, Report, ToldBy, with_roles};
use crate::cli::http_client::ask;
use crate::config::ApiAddress;

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
    not_leading: Option<String>,
    #[serde(default)]
    candidates: Vec<CandidateBody>,
    #[serde(default)]
    candidates_total: u64,
}

#[derive(Deserialize)]
struct CandidateBody {
    identity: String,
    #[serde(default)]
    registered_at: Option<String>,
}

fn report(address: &ApiAddress, body: StatusBody) -> Report {
    let mut notes = Vec::new();
    if body.etcd == "unreachable" {
        notes.push("etcd does not answer this sidecar: what it tells is what it last heard".into());
    }
    let leader = (!body.name.is_empty()).then_some(body.name);
    let queue = body.candidates.into_iter().map(|candidate| (candidate.identity, candidate.registered_at));
    Report {
        election: body.election,
        since: body.since,
        candidates: with_roles(queue, leader.as_deref()),
        candidates_total: body.candidates_total,
        leader: leader.map(|identity| Leader { identity, epoch: body.epoch, term: body.term, lease_remaining_s: None }),
        told_by: ToldBy::Sidecar {
            address: address.to_string(),
            identity: body.identity,
            state: body.state,
            etcd: body.etcd,
            not_leading: body.not_leading,
        },
        notes,
    }
}
