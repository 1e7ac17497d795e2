//! 429 Too Many Requests, from the real server.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::api::ApiClient;
use super::runtime::runtime;
use super::{ApiServer, LOOK_AGAIN};
use crate::moment::Moment;

/// How long the server may take to follow a change of its flow configuration.
const PATIENCE: Duration = Duration::from_secs(30);
/// Whose request takes the place.
const PLUG: &str = "throttle-plug";

/// Every request of one service account is answered 429 with `Retry-After`; everybody else is served, and watches that
/// are open stay so. Ends when lifted, or dropped.
///
/// The service account's requests go to a priority level without any capacity. The server still admits one at a time
/// there, so another account holds that place with a request whose body never ends. When the server gives up on it,
/// after a minute, another takes its place; one request can slip in between.
pub struct Throttle {
    admin: ApiClient,
    victim: ApiClient,
    objects: [Value; 2],
    plug: JoinHandle<()>,
    lifted: bool,
}

impl Throttle {
    /// Throttles a service account and waits until it is so.
    ///
    /// # Errors
    /// When the server does not take it.
    pub fn start(server: &ApiServer, namespace: &str, service_account: &str) -> Result<Self> {
        let admin = server.admin();
        let plug = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": PLUG}});
        admin.apply_object(namespace, &plug)?.ok()?;
        // Who has no right is sent away before the body is looked at.
        admin.grant(namespace, PLUG, "[{apiGroups: [''], resources: [configmaps], verbs: [create]}]")?;
        let objects = flow_objects(namespace, service_account);
        for object in objects.iter().rev() {
            admin.apply_object("", object)?.ok()?;
        }
        let plug = Plug {
            server: server.address(),
            ca_file: server.ca_file(),
            token: admin.unbound_token(namespace, PLUG)?,
            namespace: namespace.to_owned(),
        };
        let throttle = Self {
            admin: admin.clone(),
            victim: server.client(&admin.unbound_token(namespace, service_account)?)?,
            objects,
            plug: runtime().spawn(async move { plug.hold().await }),
            lifted: false,
        };
        throttle.wait_until(true)?;
        Ok(throttle)
    }

    /// Ends it and waits until it is so.
    ///
    /// # Errors
    /// When the server does not follow.
    pub fn lift(mut self) -> Result<()> {
        self.remove()?;
        self.wait_until(false)
    }

    fn remove(&mut self) -> Result<()> {
        self.lifted = true;
        self.plug.abort();
        for object in &self.objects {
            self.admin.delete(&self.admin.path_of("", object)?)?.ok()?;
        }
        Ok(())
    }

    fn wait_until(&self, throttled: bool) -> Result<()> {
        let deadline = Moment::now().after(PATIENCE);
        while (self.victim.get("/version")?.status == 429) != throttled {
            ensure!(!deadline.passed(), "throttled is not {throttled} within {PATIENCE:?}");
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        if !self.lifted {
            // The server may be dead by now, and its data with it.
            self.remove().ok();
        }
    }
}

/// The flow schema and the priority level.
fn flow_objects(namespace: &str, service_account: &str) -> [Value; 2] {
    let name = format!("throttle-{namespace}-{service_account}");
    let level = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "PriorityLevelConfiguration",
        "metadata": {"name": name},
        "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 0,
            "borrowingLimitPercent": 0,
            "limitResponse": {"type": "Reject"},
        }},
    });
    let subject =
        |account: &str| json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": account}});
    let resources =
        json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"], "namespaces": ["*"], "clusterScope": true});
    let schema = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": {"name": name},
        "spec": {
            "priorityLevelConfiguration": {"name": name},
            // Before those of the system, which has one for all service accounts; 1 is reserved.
            "matchingPrecedence": 2,
            "rules": [{
                "subjects": [subject(service_account), subject(PLUG)],
                "resourceRules": [resources],
                "nonResourceRules": [{"nonResourceURLs": ["*"], "verbs": ["*"]}],
            }],
        },
    });
    [schema, level]
}

/// A request that the server begins to serve and that never ends.
struct Plug {
    server: SocketAddr,
    ca_file: PathBuf,
    token: String,
    namespace: String,
}

impl Plug {
    async fn hold(self) {
        loop {
            // Ends when the server has given up on it, is not there, or has not yet room: in each case again.
            self.request().await.ok();
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn request(&self) -> Result<()> {
        let stream = TcpStream::connect(self.server).await?;
        let mut stream = connector(&self.ca_file)?.connect(ServerName::from(self.server.ip()), stream).await?;
        let head = format!(
            "POST /api/v1/namespaces/{}/configmaps HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{",
            self.namespace, self.server, self.token
        );
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_buf(&mut answer).await.context("the server closed the connection")?;
        Ok(())
    }
}

fn connector(ca_file: &Path) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca_file)?)?;
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
