//! Authentication: passwords, tokens that go stale, and permissions.

use std::fs;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bellwether::config::{AuthConfig, EtcdConfig, PasswordSource};
use bellwether::election::{Call, CallErrorKind, Event, WatchTarget};
use support::etcd::{EtcdOptions, EtcdServer};

use crate::harness::{Adapter, CALL_TIMEOUT, LEASE, LOCK, ME, eventually, metric, plain, quick};

const USER: &str = "bellwether";
const PASSWORD: &str = "correct horse";

async fn server_with(options: EtcdOptions, prefix: &str) -> Result<EtcdServer> {
    let mut server = EtcdServer::start_with(options).await?;
    server.add_user(USER, PASSWORD, prefix).await?;
    server.enable_auth().await?;
    Ok(server)
}

async fn server() -> Result<EtcdServer> {
    server_with(quick(), LOCK).await
}

fn config(server: &EtcdServer, password: &str) -> EtcdConfig {
    let password = PasswordSource::Given(password.to_owned());
    EtcdConfig { auth: Some(AuthConfig { user: USER.to_owned(), password }), ..plain(server.endpoints()) }
}

#[tokio::test]
async fn user_and_password_open_calls_streams_and_watches() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::new(&config(&server, PASSWORD), ME)?;
    let (won, ..) = adapter.claim(LEASE).await?;
    ensure!(won);
    adapter.keep_alive(1, LEASE);
    assert_eq!(adapter.renewal(1).await?.1, 30);
    adapter.watch(1, WatchTarget::Lock, 1);
    adapter.watch_created(1).await?;
    Ok(())
}

#[tokio::test]
async fn the_password_file_is_read_at_each_authentication() -> Result<()> {
    let server = server().await?;
    let file = server.path("password");
    fs::write(&file, "wrong\n")?;
    let mut config = config(&server, "");
    config.auth = Some(AuthConfig { user: USER.to_owned(), password: PasswordSource::File(file.clone()) });
    let mut adapter = Adapter::new(&config, ME)?;
    assert_eq!(adapter.refusal(Call::Confirm).await?.kind, CallErrorKind::Unauthenticated);
    fs::write(&file, format!("{PASSWORD}\n"))?;
    adapter.lock().await?;
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_one_are_said_so() -> Result<()> {
    let server = server().await?;
    let wrong = Adapter::new(&config(&server, "wrong"), ME)?.refusal(Call::Confirm).await?;
    assert_eq!(wrong.kind, CallErrorKind::Unauthenticated);
    ensure!(wrong.message.contains("invalid user ID or password"), "{}", wrong.message);
    let missing = Adapter::new(&plain(server.endpoints()), ME)?.refusal(Call::Confirm).await?;
    assert_eq!(missing.kind, CallErrorKind::Unauthenticated);
    ensure!(missing.message.contains("--etcd-user"), "{}", missing.message);
    Ok(())
}

#[tokio::test]
async fn a_missing_permission_is_told_from_missing_credentials() -> Result<()> {
    let server = server_with(quick(), "/other/").await?;
    let error = Adapter::new(&config(&server, PASSWORD), ME)?.refusal(Call::Confirm).await?;
    assert_eq!(error.kind, CallErrorKind::PermissionDenied, "{}", error.message);
    Ok(())
}

#[tokio::test]
async fn credentials_for_a_server_without_authentication_do_no_harm() -> Result<()> {
    let server = EtcdServer::start_with(quick()).await?;
    Adapter::new(&config(&server, PASSWORD), ME)?.lock().await?;
    Ok(())
}

#[tokio::test]
async fn requests_at_the_same_time_share_one_authentication() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::new(&config(&server, PASSWORD), ME)?;
    let count = authentications(&server, async || twenty_calls_at_once(&mut adapter).await);
    assert_eq!(count.await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_token_that_expired_is_renewed_within_the_call() -> Result<()> {
    let ttl = Duration::from_secs(1);
    // The default logger of 3.4, and the default level of 3.6, keep it to themselves.
    let arguments = ["--logger", "zap", "--log-level", "debug"].map(str::to_owned).to_vec();
    let server = server_with(EtcdOptions { auth_token_ttl: Some(ttl), arguments, ..quick() }, LOCK).await?;
    let mut adapter = Adapter::new(&config(&server, PASSWORD), ME)?;
    adapter.lock().await?;
    eventually("etcd lets the token expire", async || Ok(has_forgotten_a_token(&server))).await?;
    let count = authentications(&server, async || {
        adapter.lock().await?;
        Ok(())
    });
    assert_eq!(count.await?, 1);
    Ok(())
}

/// Whether the log says so. To ask with the token would keep it alive.
fn has_forgotten_a_token(server: &EtcdServer) -> bool {
    let log = server.log_tail(0);
    log.lines().any(|line| line.contains("deleted a simple token") && line.contains(&format!("\"{USER}\"")))
}

async fn twenty_calls_at_once(adapter: &mut Adapter) -> Result<()> {
    for _ in 0..20 {
        adapter.send(0, CALL_TIMEOUT, Call::Confirm);
    }
    for _ in 0..20 {
        ensure!(matches!(adapter.event().await?, Event::Answered { result: Ok(_), .. }));
    }
    Ok(())
}

/// How many authentications `act` takes.
async fn authentications(server: &EtcdServer, act: impl AsyncFnOnce() -> Result<()>) -> Result<u64> {
    let count = || metric(server, "grpc_server_started_total", "Authenticate");
    let before = count().await?;
    act().await?;
    Ok(count().await? - before)
}

#[tokio::test]
async fn a_token_that_etcd_forgot_is_renewed_once_for_all_calls() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::new(&config(&server, PASSWORD), ME)?;
    adapter.lock().await?;
    server.change_password(USER, PASSWORD).await?;
    let count = authentications(&server, async || twenty_calls_at_once(&mut adapter).await);
    assert_eq!(count.await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_watch_with_a_forgotten_token_ends_and_the_next_one_has_a_good_one() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::new(&config(&server, PASSWORD), ME)?;
    adapter.lock().await?;
    server.change_password(USER, PASSWORD).await?;
    adapter.watch(1, WatchTarget::Lock, 1);
    let error = adapter.watch_end(1).await?;
    // etcd 3.4 does not tell the two apart here.
    let kinds = [CallErrorKind::Unauthenticated, CallErrorKind::PermissionDenied];
    ensure!(kinds.contains(&error.kind), "{error:?}");
    let count = authentications(&server, async || {
        adapter.watch(2, WatchTarget::Lock, 1);
        adapter.watch_created(2).await?;
        Ok(())
    });
    assert_eq!(count.await?, 0, "the token was renewed before the end was reported");
    Ok(())
}

#[tokio::test]
async fn a_stream_survives_a_forgotten_token_or_the_next_one_has_a_good_one() -> Result<()> {
    let server = server().await?;
    let mut adapter = Adapter::new(&config(&server, PASSWORD), ME)?;
    adapter.claim(LEASE).await?;
    server.change_password(USER, PASSWORD).await?;
    adapter.keep_alive(1, LEASE);
    match adapter.event().await? {
        // etcd asks for no token here before 3.4.42, 3.5.28 and 3.6.9.
        Event::KeepAliveAnswered { ttl_seconds, .. } => assert_eq!(ttl_seconds, 30),
        Event::StreamEnded { error, .. } => {
            assert_eq!(error.kind, CallErrorKind::Unauthenticated, "{}", error.message);
            adapter.keep_alive(2, LEASE);
            assert_eq!(adapter.renewal(2).await?.1, 30);
        }
        other => bail!("{other:?}"),
    }
    Ok(())
}
