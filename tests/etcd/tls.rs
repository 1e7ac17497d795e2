//! TLS: certificates on both sides, what people are told when they are wrong, and their rotation.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bellwether::config::{ClientCertificate, EtcdConfig, TlsConfig};
use bellwether::election::{Call, CallError, CallErrorKind, Event};
use support::certificates::Authority;
use support::etcd::{ClientTls, EtcdOptions, EtcdServer};

use crate::harness::{Adapter, LEASE, ME, TTL, plain, quick};

async fn server(tls: ClientTls) -> Result<EtcdServer> {
    EtcdServer::start_with(EtcdOptions { tls, ..quick() }).await
}

fn config(server: &EtcdServer, client: bool) -> EtcdConfig {
    let client =
        client.then(|| ClientCertificate { cert_file: server.client_cert_file(), key_file: server.client_key_file() });
    let tls = TlsConfig { ca_file: server.ca_file(), client, server_name: None };
    EtcdConfig { endpoints: server.endpoints(), tls: Some(tls), auth: None }
}

fn tls(config: &mut EtcdConfig) -> &mut TlsConfig {
    config.tls.as_mut().expect("made with TLS")
}

async fn failure(config: &EtcdConfig) -> Result<CallError> {
    Adapter::new(config, ME)?.refusal(Call::Confirm).await
}

#[tokio::test]
async fn a_server_s_certificate_is_checked_against_the_authority() -> Result<()> {
    let server = server(ClientTls::Server).await?;
    let mut config = config(&server, false);
    Adapter::new(&config, ME)?.lock().await?;
    let stranger = server.path("stranger.crt");
    fs::write(&stranger, Authority::new("stranger")?.cert_pem)?;
    tls(&mut config).ca_file = stranger;
    let error = failure(&config).await?;
    assert_eq!(error.kind, CallErrorKind::Tls);
    assert_eq!(error.message, "the server's certificate is not signed by a certificate authority in --etcd-ca-file");
    Ok(())
}

#[tokio::test]
async fn a_server_s_certificate_is_checked_against_the_name() -> Result<()> {
    let server = server(ClientTls::Server).await?;
    let mut config = config(&server, false);
    tls(&mut config).server_name = Some("localhost".to_owned());
    Adapter::new(&config, ME)?.lock().await?;
    tls(&mut config).server_name = Some("etcd.example".to_owned());
    let error = failure(&config).await?;
    assert_eq!(error.kind, CallErrorKind::Tls);
    ensure!(
        error.message.contains("--etcd-server-name") && error.message.contains("etcd.example"),
        "{}",
        error.message
    );
    Ok(())
}

#[tokio::test]
async fn a_client_certificate_opens_calls_streams_and_watches() -> Result<()> {
    let server = server(ClientTls::Mutual).await?;
    let mut adapter = Adapter::new(&config(&server, true), ME)?;
    adapter.grant(LEASE, TTL).await?;
    adapter.keep_alive(1, LEASE);
    adapter.renewal(1).await?;
    adapter.watch(1, bellwether::election::WatchTarget::Lock, 1);
    adapter.watch_created(1).await?;
    Ok(())
}

#[tokio::test]
async fn a_missing_client_certificate_is_said_so_by_calls_and_streams() -> Result<()> {
    let server = server(ClientTls::Mutual).await?;
    let mut adapter = Adapter::new(&config(&server, false), ME)?;
    let call = adapter.refusal(Call::Confirm).await?;
    adapter.keep_alive(1, LEASE);
    let stream = adapter.stream_end(1).await?;
    for error in [call, stream] {
        assert_eq!(error.kind, CallErrorKind::Tls, "{}", error.message);
        ensure!(
            error.message.contains("client certificate") && error.message.contains("--etcd-cert-file"),
            "{}",
            error.message
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_client_certificate_of_another_authority_is_said_to_be_refused() -> Result<()> {
    let server = server(ClientTls::Mutual).await?;
    let mut config = config(&server, true);
    let stranger = Authority::new("stranger")?.client("bellwether")?;
    let (cert_file, key_file) = (server.path("stranger.crt"), server.path("stranger.key"));
    fs::write(&cert_file, stranger.cert_pem)?;
    fs::write(&key_file, stranger.key_pem)?;
    tls(&mut config).client = Some(ClientCertificate { cert_file, key_file });
    let error = failure(&config).await?;
    assert_eq!(error.kind, CallErrorKind::Tls, "{}", error.message);
    ensure!(error.message.contains("--etcd-cert-file"), "{}", error.message);
    Ok(())
}

#[tokio::test]
async fn http_where_https_is_spoken_and_the_other_way_round_are_understandable() -> Result<()> {
    let server = server(ClientTls::Server).await?;
    let error = failure(&plain(vec![server.endpoint().replace("https", "http")])).await?;
    ensure!(error.message.contains("https"), "{error:?}");
    let in_the_clear = crate::harness::server().await?;
    let mut config = config(&server, false);
    config.endpoints = vec![in_the_clear.endpoint().replace("http", "https")];
    let error = failure(&config).await?;
    ensure!(error.message.contains("speak TLS"), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_never_answers_the_handshake_is_given_up_in_time() -> Result<()> {
    let server = server(ClientTls::Server).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let mut config = config(&server, false);
    config.endpoints = vec![format!("https://{}", listener.local_addr()?)];
    let error = failure(&config).await?;
    assert_eq!(error.kind, CallErrorKind::Unavailable, "{}", error.message);
    assert_eq!(error.message, "no answer to the TLS handshake in time");
    Ok(())
}

#[test]
fn files_that_cannot_be_used_are_named_at_the_start() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("ca.crt");
    let mut told = Vec::new();
    let config = EtcdConfig {
        endpoints: vec!["https://127.0.0.1:1".to_owned()],
        tls: Some(TlsConfig { ca_file: path.clone(), ..TlsConfig::default() }),
        auth: None,
    };
    told.push(Adapter::new(&config, ME).err().context("no such file")?.to_string());
    fs::write(&path, "garbage")?;
    told.push(Adapter::new(&config, ME).err().context("no PEM")?.to_string());
    for told in told {
        ensure!(told.contains("--etcd-ca-file") && told.contains("ca.crt"), "{told}");
    }
    Ok(())
}

/// A mutual-TLS server and a client whose certificate it does not accept, yet.
struct Rotation {
    server: EtcdServer,
    cert_file: PathBuf,
    key_file: PathBuf,
    adapter: Adapter,
}

impl Rotation {
    async fn start() -> Result<Self> {
        let server = server(ClientTls::Mutual).await?;
        let (cert_file, key_file) = (server.path("mine.crt"), server.path("mine.key"));
        let stranger = Authority::new("stranger")?.client("bellwether")?;
        fs::write(&cert_file, stranger.cert_pem)?;
        fs::write(&key_file, stranger.key_pem)?;
        let mut config = config(&server, true);
        tls(&mut config).client = Some(ClientCertificate { cert_file: cert_file.clone(), key_file: key_file.clone() });
        let mut adapter = Adapter::new(&config, ME)?;
        assert_eq!(adapter.refusal(Call::Confirm).await?.kind, CallErrorKind::Tls);
        Ok(Self { server, cert_file, key_file, adapter })
    }

    fn rotate(&self) -> Result<()> {
        fs::copy(self.server.client_cert_file(), &self.cert_file)?;
        fs::copy(self.server.client_key_file(), &self.key_file)?;
        Ok(())
    }
}

#[tokio::test]
async fn a_reload_takes_the_new_certificate_and_says_so() -> Result<()> {
    let mut it = Rotation::start().await?;
    it.rotate()?;
    it.adapter.etcd.reload()?;
    assert_eq!(it.adapter.event().await?, Event::CredentialsRenewed);
    it.adapter.lock().await?;
    Ok(())
}

#[tokio::test]
async fn a_changed_file_is_taken_without_being_told_and_once() -> Result<()> {
    let mut it = Rotation::start().await?;
    it.rotate()?;
    assert_eq!(it.adapter.event().await?, Event::CredentialsRenewed);
    it.adapter.lock().await?;
    it.adapter.silence(Duration::from_millis(300)).await
}

#[tokio::test]
async fn a_reload_of_garbage_keeps_the_old_certificate() -> Result<()> {
    let server = server(ClientTls::Mutual).await?;
    let mut adapter = Adapter::new(&config(&server, true), ME)?;
    adapter.lock().await?;
    fs::write(server.path("client.key"), "garbage")?;
    let error = adapter.etcd.reload().err().context("garbage")?;
    ensure!(error.to_string().contains("--etcd-key-file"), "{error}");
    adapter.lock().await?;
    adapter.silence(Duration::from_millis(300)).await
}

#[tokio::test]
async fn a_stream_outlives_a_reload() -> Result<()> {
    let server = server(ClientTls::Mutual).await?;
    let mut adapter = Adapter::new(&config(&server, true), ME)?;
    adapter.grant(LEASE, TTL).await?;
    adapter.keep_alive(1, LEASE);
    adapter.renewal(1).await?;
    adapter.etcd.reload()?;
    assert_eq!(adapter.event().await?, Event::CredentialsRenewed);
    adapter.keep_alive(1, LEASE);
    assert_eq!(adapter.renewal(1).await?.1, 30);
    Ok(())
}
