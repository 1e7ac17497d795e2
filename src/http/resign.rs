//! `POST /resign`, and who may send it.
//!
//! Any web page can make a browser on this machine send requests to loopback, by its address (cross-site
//! request forgery) or by a name of its own that it lets point there (DNS rebinding). Such a request shows: its
//! `Origin` is the page's, or its `Host` is that name.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use serde::Serialize;
use tokio::sync::mpsc::error::TrySendError;

use super::Shared;
use super::answer::millis;
use super::connection::Peer;
use super::query::{bad, pairs, shown};
use super::refusal::{Refusal, json};
use crate::config::{COOLDOWN_DEFAULT, Span, parse_cooldown};
use crate::election::{Event, NotLeading};

#[derive(Serialize)]
struct ResigningBody<'a> {
    resigning: bool,
    identity: &'a str,
    term: i64,
    cooldown_ms: u64,
}

pub(super) async fn resign(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response<Body>, Refusal> {
    check_sender(peer, &uri, &headers, shared.about().allow_remote_resign)?;
    let cooldown = cooldown(&uri)?;
    let view = shared.view();
    let about = shared.about();
    let moment = shared.moment(&view);
    let Some(lead) = view.lead.filter(|_| moment.leading().is_some()) else {
        let why = moment.not_leading().map(NotLeading::sentence).unwrap_or_default();
        return Err(Refusal::new(StatusCode::CONFLICT, format!("{} does not lead: {why}", about.identity)));
    };
    let busy = |error: &str| {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    };
    match shared.commands().try_send(Event::Resign { cooldown }) {
        Ok(()) => {
            tracing::info!(%peer, cooldown = %Span(cooldown), "asked to resign");
            let body = ResigningBody {
                resigning: true,
                identity: about.identity.as_str(),
                term: lead.term.token.0,
                cooldown_ms: millis(cooldown),
            };
            Ok(json(StatusCode::ACCEPTED, &body))
        }
        Err(TrySendError::Full(_)) => Err(busy("earlier commands are still waiting; try again in a second")),
        Err(TrySendError::Closed(_)) => Err(busy("this sidecar is stopping")),
    }
}

fn check_sender(peer: Peer, uri: &Uri, headers: &HeaderMap, allow_remote: bool) -> Result<(), Refusal> {
    let forbidden = |error: &str| Err(Refusal::new(StatusCode::FORBIDDEN, error));
    if !peer.is_local() && !allow_remote {
        return forbidden(
            "only who comes from loopback or the unix socket may do this; --allow-remote-resign changes that",
        );
    }
    // From another machine the sidecar has names that are not known here; there the Origin has to do.
    if peer.is_local() && !is_host_local(peer, uri, headers) {
        return forbidden("the Host of the request is not localhost, 127.0.0.1 or [::1]");
    }
    let host = headers.get(header::HOST);
    if !headers.get_all(header::ORIGIN).iter().all(|origin| is_same_local_origin(origin, host)) {
        return forbidden("the Origin of the request is a web page that this sidecar did not serve");
    }
    Ok(())
}

fn is_host_local(peer: Peer, uri: &Uri, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host_is_local = match (hosts.next(), hosts.next()) {
        (None, _) => peer == Peer::Unix,
        (Some(host), None) => host.to_str().is_ok_and(|host| host.parse().is_ok_and(|host| is_local(&host))),
        (Some(_), Some(_)) => false,
    };
    host_is_local && uri.authority().is_none_or(is_local)
}

/// Whether the page came from this very address, and the address is this machine's. `null`, which sandboxed
/// pages send, is foreign.
fn is_same_local_origin(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let (Ok(origin), Some(Ok(host))) = (origin.to_str(), host.map(HeaderValue::to_str)) else { return false };
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| {
        authority.eq_ignore_ascii_case(host) && authority.parse().is_ok_and(|authority| is_local(&authority))
    })
}

/// Whether the host part names this machine to itself, whatever the port.
fn is_local(authority: &Authority) -> bool {
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn cooldown(uri: &Uri) -> Result<Duration, Refusal> {
    let mut cooldown = COOLDOWN_DEFAULT;
    for (name, value) in &pairs(uri, "?cooldown=30s")? {
        if name != "cooldown" {
            let name = shown(name);
            return Err(bad(format!(
                "{name:?} is not a parameter of this call; there is cooldown, e.g. ?cooldown=30s"
            )));
        }
        cooldown = parse_cooldown(value).map_err(|fault| {
            bad(format!("cooldown: {:?} {fault}; the default is {}", shown(value), Span(COOLDOWN_DEFAULT)))
        })?;
    }
    Ok(cooldown)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn is_taken(peer: &str, headers: &[(&'static str, &'static str)], allow_remote: bool) -> bool {
        let peer = Peer::Tcp(peer.parse().expect("a test's addresses are ones"));
        let headers =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        check_sender(peer, &Uri::from_static("/resign"), &headers.collect(), allow_remote).is_ok()
    }

    #[test]
    fn only_this_machine_may_ask_unless_allowed() {
        let (local, named) = ([("host", "localhost:4040")], [("host", "web-1.web:4040")]);
        for near in ["127.0.0.1:50000", "[::1]:50000", "[::ffff:127.0.0.1]:50000"] {
            assert!(is_taken(near, &local, false), "{near}");
            assert!(!is_taken(near, &named, true), "{near}: a browser here could have been sent by that name");
        }
        for far in ["10.0.0.7:50000", "[fd00::7]:50000", "[::ffff:10.0.0.7]:50000"] {
            assert!(!is_taken(far, &local, false), "{far}");
            assert!(is_taken(far, &named, true), "{far}");
            assert!(!is_taken(far, &[("host", "web-1.web:4040"), ("origin", "http://web-1.web:4040")], true), "{far}");
        }
    }

    #[test]
    fn only_names_of_this_machine_are_local() {
        for local in ["localhost", "LocalHost:4040", "127.0.0.1:1", "[::1]:4040", "[::1]"] {
            assert!(local.parse().is_ok_and(|it| is_local(&it)), "{local}");
        }
        for foreign in
            ["localhost.evil.example", "evil.example:4040", "10.0.0.1", "[fe80::1]", "localhost@evil.example"]
        {
            assert!(!foreign.parse().is_ok_and(|it| is_local(&it)), "{foreign}");
        }
    }

    #[test]
    fn only_the_same_local_origin_passes() {
        let passes = |origin: &'static str, host: &'static str| {
            is_same_local_origin(&HeaderValue::from_static(origin), Some(&HeaderValue::from_static(host)))
        };
        assert!(passes("http://localhost:4040", "localhost:4040"));
        assert!(!passes("http://localhost:3000", "localhost:4040"), "another server on this machine");
        assert!(!passes("http://evil.example", "evil.example"), "a name that was let point here");
        assert!(!passes("https://evil.example", "localhost:4040"));
        assert!(!passes("http://localhost.evil.example", "localhost:4040"));
        assert!(!passes("null", "localhost:4040"));
        assert!(!is_same_local_origin(&HeaderValue::from_static("http://localhost:4040"), None));
    }
}
