//! In the place of nais' elector: `last_update`, `/sse`, `/healthz`, and its variables.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use support::etcd::EtcdServer;
use support::{HttpClient, Moment};

use super::client::{is_leader, python};
use crate::script::{PATIENCE, Script};
use crate::sidecar::{Peer, Pod};

/// What naiserator gives each pod.
const ARGS: [&str; 4] =
    ["--election=app", "--election-namespace=team", "--http=localhost:{http}", "--probe-address=127.0.0.1:{telemetry}"];

fn pod<'a>(env: &'a [(&'a str, &'a str)]) -> Pod<'a> {
    Pod { compat: "nais", args: &ARGS, env }
}

const APP_0: [(&str, &str); 3] =
    [("ELECTOR_LOG_FORMAT", "json"), ("BELLWETHER_IDENTITY", "app-0"), ("BELLWETHER_LEASE_TTL", "2s")];
const APP_1: [(&str, &str); 3] =
    [("ELECTOR_LOG_FORMAT", "json"), ("BELLWETHER_IDENTITY", "app-1"), ("BELLWETHER_LEASE_TTL", "2s")];

#[tokio::test]
async fn the_answer_carries_the_time_since_when_it_is_so() -> Result<()> {
    let etcd = EtcdServer::start().await?;
    let peer = Peer::start(&pod(&APP_0), &etcd)?;
    peer.wait_for_name("app-0")?;
    for path in ["/", "/whatever"] {
        let body = peer.request("GET", path)?.json();
        assert_eq!(body.as_object().context("an object")?.len(), 2, "{body}");
        let last_update = body["last_update"].as_str().context("a time")?;
        assert!(last_update.len() == 20 && last_update.ends_with('Z'), "{last_update}: RFC 3339, to the second, UTC");
        let since = peer.request("GET", "/leader")?.json()["since"].clone();
        assert_eq!(last_update, since);
    }
    Ok(())
}

#[tokio::test]
async fn the_probes_of_naiserator_find_what_they_ask_for() -> Result<()> {
    let etcd = EtcdServer::start().await?;
    let peer = Peer::start(&pod(&APP_0), &etcd)?;
    peer.wait_for_name("app-0")?;
    for path in ["/healthz", "/readyz", "/livez", "/metrics"] {
        let response = HttpClient::new(peer.telemetry, Duration::from_secs(5)).get(path)?;
        assert_eq!(response.status, 200, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn the_clients_that_poll_work_with_either_variable() -> Result<()> {
    let etcd = EtcdServer::start().await?;
    let leader = Peer::start(&pod(&APP_0), &etcd)?;
    leader.wait_for_name("app-0")?;
    let standby = Peer::start(&pod(&APP_1), &etcd)?;
    standby.wait_until_standby()?;
    for (peer, host, leads) in [(&leader, "app-0", true), (&standby, "app-1", false)] {
        let elector_path = format!("localhost:{}", peer.http.port());
        // ELECTOR_GET_URL has the slash; who uses ELECTOR_PATH puts the scheme before it.
        for url in [format!("http://{elector_path}/"), format!("http://{elector_path}")] {
            assert_eq!(is_leader(host, &url)?, leads, "{url}");
        }
    }
    Ok(())
}

/// Follows a stream until the news are as many as these.
fn follow(host: &str, peer: &Peer, news: usize) -> Result<Script> {
    let url = [("ELECTOR_SSE_URL".to_owned(), format!("http://localhost:{}/sse", peer.http.port()))];
    let text = format!(
        "seen = []
def leads(it):
    if not seen or seen[-1] != it:
        seen.append(it)
        print(it)
    if len(seen) == {news}:
        os._exit(0)
follow(leads)"
    );
    python(host, "sse.py", &text, &url)
}

#[tokio::test]
async fn the_client_of_the_stream_is_told_who_leads_and_who_leads_next() -> Result<()> {
    let etcd = EtcdServer::start().await?;
    let mut first = Peer::start(&pod(&APP_0), &etcd)?;
    first.wait_for_name("app-0")?;
    let second = Peer::start(&pod(&APP_1), &etcd)?;
    second.wait_for_name("app-0")?;
    let (of_first, of_second) = (follow("app-0", &first, 2)?, follow("app-1", &second, 2)?);
    wait_for_streams(&first, 1)?;
    wait_for_streams(&second, 1)?;
    first.signal(Signal::SIGTERM)?;
    assert_eq!(of_first.wait()?.out, "True\nFalse\n");
    assert_eq!(of_second.wait()?.out, "False\nTrue\n");
    Ok(())
}

/// A leader that is killed says nothing any more; the end of its stream does.
#[tokio::test]
async fn the_end_of_the_stream_is_no() -> Result<()> {
    let etcd = EtcdServer::start().await?;
    let mut peer = Peer::start(&pod(&APP_0), &etcd)?;
    peer.wait_for_name("app-0")?;
    let client = follow("app-0", &peer, 2)?;
    wait_for_streams(&peer, 1)?;
    peer.signal(Signal::SIGKILL)?;
    assert_eq!(client.wait()?.out, "True\nFalse\n");
    Ok(())
}

/// As many event streams are open.
fn wait_for_streams(peer: &Peer, streams: u32) -> Result<()> {
    let deadline = Moment::now().after(PATIENCE);
    let line = format!("bellwether_http_open_streams{{kind=\"events\",election=\"app\"}} {streams}\n");
    loop {
        let metrics = HttpClient::new(peer.telemetry, Duration::from_secs(5)).get("/metrics")?.text();
        if metrics.contains(&line) {
            return Ok(());
        }
        ensure!(!deadline.passed(), "no stream was opened:\n{metrics}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test]
async fn an_event_of_the_stream_is_the_answer_of_the_root_and_nothing_else() -> Result<()> {
    let etcd = EtcdServer::start().await?;
    let peer = Peer::start(&pod(&APP_0), &etcd)?;
    peer.wait_for_name("app-0")?;
    let text = format!("curl -sN --max-time 1 -D head http://localhost:{}/sse; cat head >&2", peer.http.port());
    let ended = Script::start(&text, &[], &[])?.wait()?;
    assert!(ended.err.contains("content-type: text/event-stream\r\n"), "{}", ended.err);
    let root = peer.request("GET", "/")?.text();
    let lines: Vec<&str> = ended.out.lines().collect();
    assert!(lines[0].starts_with("id: "), "{lines:?}");
    assert_eq!(lines[1..], [&format!("data: {}", root.trim()), ""]);
    Ok(())
}

#[tokio::test]
async fn its_variables_alone_configure_it_and_ours_come_first() -> Result<()> {
    let etcd = EtcdServer::start().await?;
    let env = [
        ("ELECTOR_ELECTION", "app"),
        ("ELECTOR_ELECTION_NAMESPACE", "team"),
        ("ELECTOR_HTTP", "localhost:{http}"),
        ("ELECTOR_LOG_LEVEL", "warning"),
        ("ELECTOR_PATH", "localhost:1"),
        ("BELLWETHER_IDENTITY", "app-0"),
        ("BELLWETHER_ELECTION", "ours"),
    ];
    let peer = Peer::start(&Pod { compat: "nais", args: &["run"], env: &env }, &etcd)?;
    peer.wait_for_name("app-0")?;
    assert_eq!(peer.request("GET", "/leader")?.json()["election"], "team/ours");
    assert!(!peer.log()?.contains("INFO"), "{}", peer.log()?);
    Ok(())
}
