//! What operators do with the certificates of a cluster behind TLS.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use support::certificates::{Authority, Issued};
use support::etcd::EtcdCluster;

/// Issues the members a new certificate by this authority, in the place of the one they have: each takes it from the
/// next connection on.
///
/// # Errors
/// When it cannot be written.
pub fn renew_the_servers(etcd: &EtcdCluster, by: &Authority, members: usize) -> Result<()> {
    let hosts = (0..members).filter_map(|member| etcd.host(member)).map(|host| host.address().to_string());
    let names: Vec<String> = ["127.0.0.1".to_owned(), "localhost".to_owned()].into_iter().chain(hosts).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    put(&by.server(&names)?, &etcd.path("server.crt"), &etcd.path("server.key"))
}

/// Issues clients a new certificate by this authority, in the place of the one they have: each takes it when it is told.
///
/// # Errors
/// When it cannot be written.
pub fn renew_the_clients(etcd: &EtcdCluster, by: &Authority) -> Result<()> {
    put(&by.client("rotated")?, &etcd.client_cert_file(), &etcd.client_key_file())
}

/// The authority that the cluster was started with.
///
/// # Errors
/// When it has none.
pub fn authority(etcd: &EtcdCluster) -> Result<&Authority> {
    etcd.authority.as_ref().context("TLS is on")
}

fn put(issued: &Issued, certificate: &Path, key: &Path) -> Result<()> {
    // By renaming, as those do that rotate certificates: nobody reads half a file.
    for (pem, path) in [(&issued.cert_pem, certificate), (&issued.key_pem, key)] {
        let fresh = path.with_extension("new");
        fs::write(&fresh, pem)?;
        fs::rename(fresh, path)?;
    }
    Ok(())
}
