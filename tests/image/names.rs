//! It finds etcd by name. A static glibc looks names up by itself, without the libraries that a usual system has for it.

use std::time::Duration;

use anyhow::{Result, ensure};
use support::etcd::{ClientTls, EtcdOptions, EtcdServer};
use support::{Sidecar, SidecarOptions};

use crate::empty_root::{EmptyRoot, PodFiles, in_own_network};
use crate::name_server::NameServer;

/// How long it may take until it leads: etcd is there already.
const PATIENCE: Duration = Duration::from_secs(20);

fn sidecar(root: &EmptyRoot, endpoint: &str, arguments: &[&str]) -> Result<Sidecar> {
    Sidecar::start(&SidecarOptions::new(root.entrypoint()?, "web-0", &[endpoint.to_owned()]).with(arguments))
}

fn url(scheme: &str, name: &str, etcd: &EtcdServer) -> String {
    let port = etcd.client_address(0).rsplit(':').next().unwrap_or_default().to_owned();
    format!("{scheme}://{name}:{port}")
}

#[test]
fn it_reaches_etcd_by_a_name_that_only_the_hosts_file_knows() -> Result<()> {
    in_own_network(async || {
        let etcd = EtcdServer::start().await?;
        // Denies the name, as a cluster's does: the file must be asked first.
        let name_server = NameServer::start(&[])?;
        let root = EmptyRoot::with(&PodFiles { hosts: "127.0.0.1\tetcd.hosts".to_owned(), ..PodFiles::default() })?;
        sidecar(&root, &url("http", "etcd.hosts", &etcd), &[])?.wait_until_leading(PATIENCE)?;
        ensure!(name_server.asked().is_empty(), "{:?}", name_server.asked());
        Ok(())
    })
}

#[test]
fn it_reaches_etcd_by_the_short_name_of_a_service() -> Result<()> {
    in_own_network(async || {
        let etcd = EtcdServer::start().await?;
        let name_server = NameServer::start(&["etcd.default.svc.cluster.local"])?;
        let root = EmptyRoot::with(&PodFiles::default())?;
        sidecar(&root, &url("http", "etcd", &etcd), &[])?.wait_until_leading(PATIENCE)?;
        ensure!(
            name_server.asked().contains(&"etcd.default.svc.cluster.local".to_owned()),
            "{:?}",
            name_server.asked()
        );
        Ok(())
    })
}

#[test]
fn a_name_that_nobody_knows_is_said_and_nobody_leads_by_it() -> Result<()> {
    in_own_network(async || {
        let etcd = EtcdServer::start().await?;
        let name_server = NameServer::start(&["etcd.default.svc.cluster.local"])?;
        let root = EmptyRoot::with(&PodFiles { hosts: "127.0.0.1\tetcd.hosts".to_owned(), ..PodFiles::default() })?;
        let sidecar = sidecar(&root, &url("http", "nobody", &etcd), &[])?;
        sidecar.wait_for_log("Name or service not known", PATIENCE)?;
        ensure!(sidecar.leader()?.0 == 503);
        // It asked what the two that find it ask: they would notice if their names led elsewhere.
        ensure!(name_server.asked().contains(&"nobody.default.svc.cluster.local".to_owned()));
        Ok(())
    })
}

#[test]
fn it_checks_etcd_s_certificate_against_the_name() -> Result<()> {
    in_own_network(async || {
        let etcd = EtcdServer::start_with(EtcdOptions { tls: ClientTls::Server, ..EtcdOptions::default() }).await?;
        let root = EmptyRoot::with(&PodFiles {
            hosts: "127.0.0.1\tetcd.hosts".to_owned(),
            files: vec![("etc/bellwether/ca.crt", etcd.ca_file())],
        })?;
        let ca = ["--etcd-ca-file", "/etc/bellwether/ca.crt"];
        // The certificate is for localhost.
        sidecar(&root, &url("https", "localhost", &etcd), &ca)?.wait_until_leading(PATIENCE)?;
        let sidecar = sidecar(&root, &url("https", "etcd.hosts", &etcd), &ca)?;
        sidecar.wait_for_log("--etcd-server-name", PATIENCE)?;
        ensure!(sidecar.leader()?.0 == 503);
        Ok(())
    })
}
