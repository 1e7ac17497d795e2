//! How a client of the API server is made, and from what it must not be made.

use std::path::Path;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};
use kube::config::Kubeconfig;
use kube::{Client, Config};

use crate::config::ApiServer;

/// Within a cluster a connection takes a millisecond; a lost first packet is sent again after one second.
const CONNECT_MOST: Duration = Duration::from_millis(1500);
/// How the API server's audit log names this program.
const USER_AGENT: &str = concat!("bellwether/", env!("CARGO_PKG_VERSION"));

/// Ways to the API server.
#[derive(Clone)]
pub(super) struct Clients {
    /// For whatever is answered at once. Between calls it keeps its connection, which each list uses anew within a
    /// minute, so that a patch need not wait until one is open: when it stands down, a leader waits for its answer.
    pub(super) calls: Client,
    /// For watches, which would each take the connection of the call before.
    pub(super) watches: Client,
    /// What is spoken of by default.
    pub(super) namespace: String,
}

/// Clients, from the files as they are now. Reads files: not for the thread that answers.
pub(super) fn make_clients(api_server: &ApiServer) -> Result<Clients, String> {
    let mut config = match api_server {
        ApiServer::InCluster => Config::incluster().map_err(|error| error.to_string())?,
        ApiServer::Kubeconfig(path) => read_kubeconfig(path)?,
    };
    // Retries are the labeller's, which knows what is still wanted.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_MOST);
    config.headers.push((HeaderName::from_static("user-agent"), HeaderValue::from_static(USER_AGENT)));
    let namespace = config.default_namespace.clone();
    let make = |config: Config| Client::try_from(config).map_err(|error| error.to_string());
    Ok(Clients { calls: make(config.clone())?, watches: make(config)?, namespace })
}

/// What a kubeconfig says, if this program can live with it.
///
/// # Errors
/// Why not, in words that follow the file's name.
pub(crate) fn read_kubeconfig(path: &Path) -> Result<Config, String> {
    let kubeconfig = Kubeconfig::read_from(path).map_err(|error| error.to_string())?;
    let config = Config::try_from(kubeconfig).map_err(|error| error.to_string())?;
    if config.auth_info.exec.is_some() || config.auth_info.auth_provider.is_some() {
        return Err("it runs a program to get a token, which could hold this one up; use a token, a tokenFile or a \
                    client certificate"
            .to_owned());
    }
    if let Some(proxy) = &config.proxy_url {
        return Err(format!(
            "it is to be reached through the proxy {proxy}, as proxy-url or HTTPS_PROXY says, and this program cannot; \
             take that away"
        ));
    }
    let scheme = config.cluster_url.scheme_str();
    if !matches!(scheme, Some("http" | "https")) || config.cluster_url.authority().is_none() {
        return Err(format!("its server {} is no URL; write for example https://10.0.0.1:6443", config.cluster_url));
    }
    Ok(config)
}
