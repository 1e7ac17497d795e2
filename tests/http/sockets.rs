//! Binding: what stands in the way, and what is said about it.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Result;
use bellwether::config::{HttpConfig, HttpListen};
use bellwether::http::{HttpError, LocalApi, Telemetry};

use crate::client::Client;
use crate::sidecar::{Sidecar, leading};

fn only(listen: HttpListen) -> HttpConfig {
    HttpConfig { listen: vec![listen], allow_remote_resign: false }
}

fn unix(path: &Path) -> HttpConfig {
    only(HttpListen::Unix(path.to_owned()))
}

#[tokio::test]
async fn the_unix_socket_answers_like_tcp() -> Result<()> {
    let sidecar = Sidecar::start().await?;
    sidecar.publish(leading());
    let over_unix = Client::unix(&sidecar.socket).await?.ask("GET", "/leader").await?;
    let over_tcp = sidecar.client().await?.ask("GET", "/leader").await?;
    assert_eq!((over_unix.status, over_unix.body), (200, over_tcp.body));
    Ok(())
}

#[tokio::test]
async fn everybody_in_the_pod_may_use_the_socket_and_it_goes_with_its_owner() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("s");
    let bound = LocalApi::bind(&unix(&path)).await?;
    assert_eq!(bound.addresses(), [format!("unix:{}", path.display())]);
    assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o666);
    drop(bound);
    assert!(!path.exists());
    Ok(())
}

#[tokio::test]
async fn a_stale_socket_is_replaced() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path)?);
    assert!(path.exists(), "a socket outlives its listener");
    let _bound = LocalApi::bind(&unix(&path)).await?;
    Client::unix(&path).await?;
    Ok(())
}

#[tokio::test]
async fn a_live_socket_is_left_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("s");
    let _living = LocalApi::bind(&unix(&path)).await?;
    let second = LocalApi::bind(&unix(&path)).await;
    assert!(matches!(second, Err(HttpError::SocketInUse(_))), "{second:?}");
    Client::unix(&path).await?;
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("s");
    std::fs::write(&path, "precious")?;
    let refused = LocalApi::bind(&unix(&path)).await;
    assert!(matches!(refused, Err(HttpError::NotASocket(_))), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&path)?, "precious");
    Ok(())
}

#[tokio::test]
async fn a_socket_that_another_process_put_in_its_place_is_not_removed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("s");
    let bound = LocalApi::bind(&unix(&path)).await?;
    // The first file is kept, so that its inode is not given to the second.
    std::fs::rename(&path, folder.path().join("moved"))?;
    let _successor = std::os::unix::net::UnixListener::bind(&path)?;
    drop(bound);
    assert!(path.exists());
    Ok(())
}

#[tokio::test]
async fn a_taken_address_is_named_with_a_way_out() -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?;
    let error = LocalApi::bind(&only(HttpListen::Tcp(address))).await.expect_err("it is taken").to_string();
    for part in ["--http", &address.to_string(), "another process listens there", "choose another"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    let error = Telemetry::bind(address).await.expect_err("it is taken").to_string();
    assert!(error.contains("--telemetry"), "{error}");
    Ok(())
}

#[tokio::test]
async fn an_address_that_may_be_missing_is_done_without() -> Result<()> {
    // Documentation addresses (RFC 5737) are on no machine.
    let missing: SocketAddr = "192.0.2.1:0".parse()?;
    let present: SocketAddr = "127.0.0.1:0".parse()?;
    let listen = vec![HttpListen::Tcp(present), HttpListen::TcpIfAvailable(missing)];
    let bound = LocalApi::bind(&HttpConfig { listen, allow_remote_resign: false }).await?;
    assert_eq!(bound.local_addrs().len(), 1);
    let none = LocalApi::bind(&only(HttpListen::TcpIfAvailable(missing))).await;
    assert!(matches!(none, Err(HttpError::NoAddress)), "{none:?}");
    let required = LocalApi::bind(&only(HttpListen::Tcp(missing))).await;
    assert!(matches!(required, Err(HttpError::Bind { .. })), "{required:?}");
    Ok(())
}
