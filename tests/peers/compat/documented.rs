//! The pods of `docs/migration.md`, started as they stand there but for the ports.

use anyhow::{Context, Result};
use serde::Deserialize;
use support::etcd::EtcdServer;

use crate::document::Document;
use crate::sidecar::{Peer, Pod};

/// What Kubernetes would put in the place of the pod's name.
const POD_NAME: &str = "web-0";

#[derive(Deserialize)]
struct Container {
    args: Vec<String>,
    env: Vec<Variable>,
}

/// Without a value it comes from the pod's fields, of which the documents need the name.
#[derive(Deserialize)]
struct Variable {
    name: String,
    value: Option<String>,
}

/// Ports that are free, for those of the document.
fn with_ports(text: &str) -> String {
    text.replace("localhost:4040", "localhost:{http}")
        .replace("localhost:42655", "localhost:{http}")
        .replace("0.0.0.0:4041", "127.0.0.1:{telemetry}")
        .replace("$(POD_NAME)", POD_NAME)
}

#[tokio::test]
async fn the_pods_of_the_document_elect_a_leader() -> Result<()> {
    let etcd = EtcdServer::start().await?;
    let document = Document::read("migration.md")?;
    for compat in ["leader-elector", "instana", "nais"] {
        let containers: Vec<Container> = serde_norway::from_str(document.example(compat)?)?;
        let [Container { args, env }] = containers.try_into().ok().context("one container")?;
        let args: Vec<String> = args.iter().map(|text| with_ports(text)).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let given = |name: &str| env.iter().find(|it| it.name == name).and_then(|it| it.value.as_deref());
        assert_eq!(given("BELLWETHER_COMPAT"), Some(compat));
        assert!(given("BELLWETHER_ETCD_ENDPOINTS").is_some_and(|url| url.starts_with("http://")));
        let more: Vec<(&str, &str)> = env
            .iter()
            .filter(|it| !it.name.starts_with("BELLWETHER_"))
            .map(|it| (it.name.as_str(), it.value.as_deref().unwrap_or(POD_NAME)))
            .chain([("BELLWETHER_IDENTITY", POD_NAME)])
            .collect();
        let peer = Peer::start(&Pod { compat, args: &args, env: &more }, &etcd)?;
        peer.wait_for_name(POD_NAME)?;
    }
    Ok(())
}

/// The settings that the document gives to clients that ask every five seconds.
#[tokio::test]
async fn the_settings_for_slow_clients_cover_five_seconds_and_end_the_warning() -> Result<()> {
    let etcd = EtcdServer::start().await?;
    let args = ["--election=web", "--http=localhost:{http}"];
    let compat = "leader-elector";
    let warned = Peer::start(&Pod { compat, args: &args, env: &[("BELLWETHER_IDENTITY", "a")] }, &etcd)?;
    assert!(warned.log()?.contains("asks every P seconds"), "{}", warned.log()?);
    let env = [("BELLWETHER_LEASE_TTL", "30s"), ("BELLWETHER_ANSWER_VALIDITY", "5s"), ("BELLWETHER_IDENTITY", "b")];
    let settled = Peer::start(&Pod { compat, args: &args, env: &env }, &etcd)?;
    let timings = settled.request("GET", "/status")?.json()["timings"].clone();
    assert_eq!((&timings["answer_validity_ms"], &timings["safety_margin_ms"]), (&5000.into(), &6000.into()));
    assert!(!settled.log()?.contains("asks every P seconds"), "{}", settled.log()?);
    Ok(())
}
