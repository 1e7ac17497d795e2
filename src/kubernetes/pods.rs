//! The pods of one namespace, through one API server: each call once, in bounded time.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod as ApiPod;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, PartialObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::Value;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Sleep, sleep, timeout};

use super::client::{Clients, make_clients};
use super::fault::{ApiCode, ApiFault, ApiOperation};
use super::pace::Pace;
use super::pod::Pod;
use super::report::{Report, Reports};
use crate::clock;
use crate::config::{LabelConfig, Labels};
use crate::election::Instant;

/// A call takes milliseconds. One that takes longer than this is taken for lost: the connection may have been
/// dropped silently, and the label is to be right within 5 s after the API server is back.
const CALL_MOST: Duration = Duration::from_secs(3);
/// A watch is opened anew, after a fresh read, at least this often: a connection that was dropped silently
/// reports nothing. Spread over its upper half, so that sidecars do not come all at once.
const WATCH_MOST: Duration = Duration::from_secs(60);
/// The server ends a watch that has had its time. One that it has not ended by then is dead.
const WATCH_GRACE: Duration = Duration::from_secs(5);
/// A watch that ends sooner than this had no time to be of use.
const WATCH_SHORT: Duration = Duration::from_secs(10);
/// Pods that pass for the leader: one, or two after a crash. More than this are the work of somebody else; the rest
/// is found when the watch is opened anew.
const LEADERS_LISTED: u32 = 32;
/// Who wrote a field, in the pod's `managedFields`.
const FIELD_MANAGER: &str = "bellwether";

/// Where to ask and how to read the answers.
pub(super) struct Pods {
    config: LabelConfig,
    clients: Option<Clients>,
    /// Clients being made, beside the thread that answers. One at a time, however long its files take.
    making: Option<JoinHandle<Result<Clients, String>>>,
    namespace: String,
    reports: Reports,
    pace: Pace,
    /// What failed last, to say when it works again.
    failing: BTreeSet<(ApiOperation, Selection)>,
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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Selection {
    /// The sidecar's own.
    Own,
    /// Those of the election that carry the leader's label, or did.
    Others,
}

/// A patch on its way. It takes bounded time, whether anybody waits or not.
pub(super) type Patching = BoxFuture<'static, Result<PartialObjectMeta<ApiPod>, ApiFault>>;

impl Pods {
    pub(super) fn new(config: LabelConfig, reports: Reports) -> Self {
        let pace = Pace::of(&config);
        let failing = BTreeSet::new();
        Self { config, clients: None, making: None, namespace: String::new(), reports, pace, failing }
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

    pub(super) fn pace(&self) -> Pace {
        Pace::of(&self.config)
    }

    /// One pod by its name.
    pub(super) async fn get(&mut self, selection: Selection, name: &str) -> Result<Option<Pod>, ApiFault> {
        let operation = ApiOperation::Get;
        let api = self.api(operation).await?;
        let found = within(operation, api.get_metadata_opt(name)).await;
        let found = self.note(operation, selection, found).await?;
        found.map(|found| self.read(operation, &found)).transpose()
    }

    /// For the own pod: exactly that.
    pub(super) async fn list(&mut self, selection: Selection) -> Result<Listed, ApiFault> {
        let operation = ApiOperation::List;
        let api = self.api(operation).await?;
        let selector = self.selector(selection);
        let params = match selection {
            Selection::Own => ListParams::default().fields(&selector),
            Selection::Others => ListParams::default().labels(&selector).limit(LEADERS_LISTED),
        };
        let mut found = within(operation, api.list_metadata(&params)).await;
        if selection == Selection::Own && found.as_ref().is_ok_and(|found| found.items.is_empty()) {
            let message = format!("there is no pod {} in the namespace {}", self.config.pod, self.namespace);
            found = Err(ApiFault::new(operation, ApiCode::NotFound, message));
        }
        let found = self.note(operation, selection, found).await?;
        Ok(Listed {
            pods: found.items.iter().map(|item| self.read(operation, item)).collect::<Result<_, _>>()?,
            version: found.metadata.resource_version.unwrap_or_default(),
        })
    }

    /// The changes after a list.
    pub(super) async fn watch(&mut self, selection: Selection, after: &str) -> Result<PodWatch, ApiFault> {
        let operation = ApiOperation::Watch;
        let clients = self.clients(operation).await?;
        let api: Api<ApiPod> = Api::namespaced(clients.watches, &self.namespace);
        let selector = self.selector(selection);
        let lasts = self.pace.between(WATCH_MOST / 2, WATCH_MOST);
        let seconds = u32::try_from(lasts.as_secs()).expect("a minute at most");
        let params = WatchParams::default().timeout(seconds);
        let params = match selection {
            Selection::Own => params.fields(&selector),
            Selection::Others => params.labels(&selector),
        };
        let opened = within(operation, api.watch_metadata(&params, after)).await;
        let stream = self.note(operation, selection, opened).await?;
        Ok(PodWatch {
            stream: Box::pin(stream),
            labels: self.config.labels.clone(),
            over: Box::pin(sleep(lasts + WATCH_GRACE)),
            opened: clock::now().boot,
        })
    }

    /// Sends a merge patch. It goes on its way although nobody may wait for it; [`landed`](Self::landed) takes what
    /// comes of it.
    pub(super) async fn send_patch(&mut self, name: &str, patch: Value) -> Result<Patching, ApiFault> {
        let operation = ApiOperation::Patch;
        let api = self.api(operation).await?;
        let name = name.to_owned();
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let patching = async move {
            let patch = Patch::Merge(patch);
            within(operation, api.patch_metadata(&name, &params, &patch)).await
        };
        Ok(patching.boxed())
    }

    /// How the pod is after a patch.
    pub(super) async fn landed(
        &mut self,
        selection: Selection,
        done: Result<PartialObjectMeta<ApiPod>, ApiFault>,
    ) -> Result<Pod, ApiFault> {
        let operation = ApiOperation::Patch;
        self.reports.send(Report::Patched(done.as_ref().err().map(|fault| fault.code))).await;
        let done = self.note(operation, selection, done).await?;
        self.read(operation, &done)
    }

    pub(super) async fn create_event(&mut self, event: &Event) -> Result<(), ApiFault> {
        let operation = ApiOperation::Event;
        let clients = self.clients(operation).await?;
        let api: Api<Event> = Api::namespaced(clients.calls, &self.namespace);
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
        let created = within(operation, api.create(&params, event)).await;
        self.note(operation, Selection::Own, created).await.map(drop)
    }

    /// A failure that is found out here, not by the API server.
    pub(super) async fn fail(&mut self, selection: Selection, fault: ApiFault) -> ApiFault {
        self.failing.insert((fault.operation, selection));
        self.reports.send(Report::Failed(fault.clone())).await;
        fault
    }

    fn selector(&self, selection: Selection) -> String {
        let Labels { role_key, leader, election_key, election, .. } = &self.config.labels;
        match selection {
            Selection::Own => format!("metadata.name={}", self.config.pod),
            Selection::Others => format!("{election_key}={election},{role_key}={leader}"),
        }
    }

    fn read(&self, operation: ApiOperation, pod: &PartialObjectMeta<ApiPod>) -> Result<Pod, ApiFault> {
        Pod::read(&pod.metadata, &self.config.labels)
            .ok_or_else(|| ApiFault::new(operation, ApiCode::Other, "a pod without name, uid or resourceVersion"))
    }

    /// Tells of a failure, or of the first success after one.
    async fn note<T>(
        &mut self,
        operation: ApiOperation,
        selection: Selection,
        result: Result<T, ApiFault>,
    ) -> Result<T, ApiFault> {
        match result {
            Ok(done) => {
                let failed = self.failing.remove(&(operation, selection));
                if failed && !self.failing.iter().any(|(other, _)| *other == operation) {
                    self.reports.send(Report::Recovered(operation)).await;
                }
                Ok(done)
            }
            Err(fault) => {
                if fault.asks_for_a_new_client() {
                    self.clients = None;
                }
                // A conflict is how two writers find out about each other, and other pods come and go.
                let ordinary = match fault.code {
                    ApiCode::Conflict => true,
                    ApiCode::NotFound => operation == ApiOperation::Patch && selection == Selection::Others,
                    ApiCode::Unauthorized
                    | ApiCode::Forbidden
                    | ApiCode::Throttled
                    | ApiCode::Rejected
                    | ApiCode::Timeout
                    | ApiCode::Unavailable
                    | ApiCode::Unusable
                    | ApiCode::Other => false,
                };
                Err(if ordinary { fault } else { self.fail(selection, fault).await })
            }
        }
    }

    async fn api(&mut self, operation: ApiOperation) -> Result<Api<ApiPod>, ApiFault> {
        let clients = self.clients(operation).await?;
        Ok(Api::namespaced(clients.calls, &self.namespace))
    }

    async fn clients(&mut self, operation: ApiOperation) -> Result<Clients, ApiFault> {
        if let Some(clients) = &self.clients {
            return Ok(clients.clone());
        }
        let config = &self.config;
        let making = self.making.get_or_insert_with(|| {
            let api_server = config.api_server.clone();
            spawn_blocking(move || make_clients(&api_server))
        });
        let made = match timeout(CALL_MOST, making).await {
            Err(_) => Err(format!("the files for it were not read within {CALL_MOST:?}")),
            Ok(made) => {
                self.making = None;
                made.unwrap_or_else(|error| Err(error.to_string()))
            }
        };
        match made {
            Ok(clients) => {
                self.namespace = self.config.namespace.clone().unwrap_or_else(|| clients.namespace.clone());
                Ok(self.clients.insert(clients).clone())
            }
            Err(message) => {
                let fault = ApiFault::new(operation, ApiCode::Unusable, message);
                Err(self.fail(Selection::Own, fault).await)
            }
        }
    }
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
    /// When it ends, whatever the connection says or does not say.
    over: Pin<Box<Sleep>>,
    opened: Instant,
}

impl PodWatch {
    /// The next change; `None` when the watch has ended, for whatever reason. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Change> {
        loop {
            let event = tokio::select! {
                biased;
                event = self.stream.next() => event?,
                () = self.over.as_mut() => return None,
            };
            match event {
                Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) => {
                    return Pod::read(&pod.metadata, &self.labels).map(Change::Is);
                }
                Ok(WatchEvent::Deleted(pod)) => return Pod::read(&pod.metadata, &self.labels).map(Change::Gone),
                Ok(WatchEvent::Bookmark(_)) => {}
                Ok(WatchEvent::Error(_)) | Err(_) => return None,
            }
        }
    }

    /// Whether it had no time to be of use: who opens the next one should not hurry.
    pub(super) fn was_short(&self) -> bool {
        clock::now().boot.since(self.opened) < WATCH_SHORT
    }
}
