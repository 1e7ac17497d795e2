//! The pods of one namespace, through one API server: each call once, in bounded time.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod as ApiPod;
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, PartialObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::Value;
use tokio::time::timeout;

use super::fault::{ApiCode, ApiFault, ApiOperation};
use super::pace::Pace;
use super::pod::Pod;
use super::report::{Report, Reports};
use crate::config::{ApiServer, LabelConfig, Labels};

/// A call takes milliseconds. One that takes longer than this is taken for lost: the connection may have been
/// dropped silently, and the label is to be right within 5 s after the API server is back.
const CALL_MOST: Duration = Duration::from_secs(3);
/// Within a cluster a connection takes a millisecond; a lost first packet is sent again after one second.
const CONNECT_MOST: Duration = Duration::from_millis(1500);
/// A watch is opened anew, after a fresh read, at least this often: a connection that was dropped silently
/// reports nothing. Spread over its upper half, so that sidecars do not come all at once.
const WATCH_MOST: Duration = Duration::from_secs(60);
/// Pods that pass for the leader: one, or two after a crash. More than this are the work of somebody else; the rest
/// is found when the watch is opened anew.
const LEADERS_LISTED: u32 = 32;

/// Where to ask and how to read the answers.
pub(super) struct Pods {
    config: LabelConfig,
    client: Option<Client>,
    namespace: String,
    reports: Reports,
    pace: Pace,
    /// What failed last, to say when it works again.
    failing: BTreeSet<ApiOperation>,
}

/// Some pods, and the version as of which they were read.
pub(super) struct Listed {
    pub(super) pods: Vec<Pod>,
    pub(super) version: String,
}

/// A change of a watched pod.
pub(super) enum Change {
    /// This is how it is now.
    Is(Pod),
    /// It is not there any more, or does not match any more.
    Gone(Pod),
}

/// Which pods.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Selection {
    /// The sidecar's own.
    Own,
    /// Those of the election that carry the leader's label.
    Leaders,
}

impl Pods {
    pub(super) fn new(config: LabelConfig, reports: Reports) -> Self {
        let pace = Pace::of(&config.pod);
        Self { config, client: None, namespace: String::new(), reports, pace, failing: BTreeSet::new() }
    }

    pub(super) const fn labels(&self) -> &Labels {
        &self.config.labels
    }

    pub(super) fn own_name(&self) -> &str {
        &self.config.pod
    }

    pub(super) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// One pod by its name.
    pub(super) async fn get(&mut self, name: &str) -> Result<Option<Pod>, ApiFault> {
        let operation = ApiOperation::Get;
        let api = self.api(operation).await?;
        let found = within(operation, api.get_metadata_opt(name)).await;
        let found = self.note(operation, found).await?;
        found.map(|found| self.read(operation, &found)).transpose()
    }

    pub(super) async fn list(&mut self, selection: Selection) -> Result<Listed, ApiFault> {
        let operation = ApiOperation::List;
        let api = self.api(operation).await?;
        let selector = self.selector(selection);
        let params = match selection {
            Selection::Own => ListParams::default().fields(&selector),
            Selection::Leaders => ListParams::default().labels(&selector).limit(LEADERS_LISTED),
        };
        let found = within(operation, api.list_metadata(&params)).await;
        let found = self.note(operation, found).await?;
        Ok(Listed {
            pods: found.items.iter().map(|item| self.read(operation, item)).collect::<Result<_, _>>()?,
            version: found.metadata.resource_version.unwrap_or_default(),
        })
    }

    /// The changes after a list.
    pub(super) async fn watch(&mut self, selection: Selection, after: &str) -> Result<PodWatch, ApiFault> {
        let operation = ApiOperation::Watch;
        let api = self.api(operation).await?;
        let selector = self.selector(selection);
        let lasts = self.pace.between(WATCH_MOST / 2, WATCH_MOST);
        let seconds = u32::try_from(lasts.as_secs()).expect("a minute at most");
        let params = WatchParams::default().timeout(seconds);
        let params = match selection {
            Selection::Own => params.fields(&selector),
            Selection::Leaders => params.labels(&selector),
        };
        let opened = within(operation, api.watch_metadata(&params, after)).await;
        let stream = self.note(operation, opened).await?;
        Ok(PodWatch { stream: Box::pin(stream), labels: self.config.labels.clone() })
    }

    /// Sends a merge patch; how the pod is afterwards.
    pub(super) async fn patch(&mut self, name: &str, patch: &Value) -> Result<Pod, ApiFault> {
        let operation = ApiOperation::Patch;
        let api = self.api(operation).await?;
        let params = PatchParams::default();
        let done = within(operation, api.patch_metadata(name, &params, &Patch::Merge(patch))).await;
        self.reports.send(Report::Patched(done.as_ref().err().map(|fault| fault.code))).await;
        let done = self.note(operation, done).await?;
        self.read(operation, &done)
    }

    pub(super) async fn create_event(&mut self, event: &Event) -> Result<(), ApiFault> {
        let operation = ApiOperation::Event;
        let client = self.client(operation).await?;
        let api: Api<Event> = Api::namespaced(client, &self.namespace);
        let created = within(operation, api.create(&PostParams::default(), event)).await;
        self.note(operation, created).await.map(drop)
    }

    fn selector(&self, selection: Selection) -> String {
        let Labels { role_key, leader, election_key, election, .. } = &self.config.labels;
        match selection {
            Selection::Own => format!("metadata.name={}", self.config.pod),
            Selection::Leaders => format!("{election_key}={election},{role_key}={leader}"),
        }
    }

    fn read(&self, operation: ApiOperation, pod: &PartialObjectMeta<ApiPod>) -> Result<Pod, ApiFault> {
        Pod::read(&pod.metadata, &self.config.labels)
            .ok_or_else(|| ApiFault::new(operation, ApiCode::Other, "a pod without name, uid or resourceVersion"))
    }

    /// Tells of a failure, or of the first success after one.
    async fn note<T>(&mut self, operation: ApiOperation, result: Result<T, ApiFault>) -> Result<T, ApiFault> {
        match &result {
            Ok(_) => {
                if self.failing.remove(&operation) {
                    self.reports.send(Report::Recovered(operation)).await;
                }
            }
            Err(fault) => {
                if fault.code.asks_for_a_new_client() {
                    self.client = None;
                }
                // A conflict is how two writers find out about each other, and pods come and go.
                let ordinary = matches!(fault.code, ApiCode::Conflict | ApiCode::NotFound);
                if !(ordinary && operation == ApiOperation::Patch) {
                    self.failing.insert(operation);
                    self.reports.send(Report::Failed(fault.clone())).await;
                }
            }
        }
        result
    }

    async fn api(&mut self, operation: ApiOperation) -> Result<Api<ApiPod>, ApiFault> {
        let client = self.client(operation).await?;
        Ok(Api::namespaced(client, &self.namespace))
    }

    async fn client(&mut self, operation: ApiOperation) -> Result<Client, ApiFault> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        match make_client(&self.config.api_server).await {
            Ok((client, default_namespace)) => {
                self.namespace = self.config.namespace.clone().unwrap_or(default_namespace);
                Ok(self.client.insert(client).clone())
            }
            Err(message) => self.note(operation, Err(ApiFault::new(operation, ApiCode::Unavailable, message))).await,
        }
    }
}

/// A client and the namespace it speaks of by default, from the files as they are now.
async fn make_client(api_server: &ApiServer) -> Result<(Client, String), String> {
    let mut config = match api_server {
        ApiServer::InCluster => Config::incluster().map_err(|error| error.to_string())?,
        ApiServer::Kubeconfig(path) => {
            let kubeconfig = Kubeconfig::read_from(path).map_err(|error| error.to_string())?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| error.to_string())?
        }
    };
    // Retries are the labeller's, which knows what is still wanted.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_MOST);
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(|error| error.to_string())?;
    Ok((client, namespace))
}

async fn within<T>(operation: ApiOperation, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ApiFault> {
    match timeout(CALL_MOST, call).await {
        Ok(result) => result.map_err(|error| ApiFault::of(operation, &error)),
        Err(_) => Err(ApiFault::new(operation, ApiCode::Timeout, format!("no answer within {CALL_MOST:?}"))),
    }
}

type Changes = Pin<Box<dyn Stream<Item = Result<WatchEvent<PartialObjectMeta<ApiPod>>, kube::Error>> + Send>>;

/// An open watch. It ends by itself after a while; who wants to know more reads afresh.
pub(super) struct PodWatch {
    stream: Changes,
    labels: Labels,
}

impl PodWatch {
    /// The next change; `None` when the watch has ended, for whatever reason. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Change> {
        loop {
            match self.stream.next().await? {
                Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) => {
                    return Pod::read(&pod.metadata, &self.labels).map(Change::Is);
                }
                Ok(WatchEvent::Deleted(pod)) => return Pod::read(&pod.metadata, &self.labels).map(Change::Gone),
                Ok(WatchEvent::Bookmark(_)) => {}
                Ok(WatchEvent::Error(_)) | Err(_) => return None,
            }
        }
    }
}
