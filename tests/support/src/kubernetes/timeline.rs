//! What became of the pods of a namespace, change by change.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::api::ApiClient;
use super::pods::PodView;
use super::runtime::runtime;
use super::{ApiServer, LOOK_AGAIN};
use crate::moment::Moment;

/// A pod after a change, or as it was when the timeline began.
#[derive(Clone, Debug)]
pub struct PodChange {
    /// When the server's message was read. The order of changes is exact, by revision; this comes after the change.
    pub seen: Moment,
    /// The pod; what it last was when it is deleted.
    pub pod: PodView,
    /// Whether it is gone.
    pub deleted: bool,
}

/// A label that came, changed or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelChange {
    /// When the server's message was read.
    pub seen: Moment,
    /// The resourceVersion of the pod after it.
    pub revision: u64,
    /// Whose.
    pub pod: String,
    /// What it was.
    pub from: Option<String>,
    /// What it is; `None` too when the pod is gone.
    pub to: Option<String>,
}

#[derive(Default)]
struct Record {
    changes: Vec<PodChange>,
    /// Why the last watch ended, for messages.
    trouble: Option<String>,
}

#[derive(Default)]
struct Shared {
    record: Mutex<Record>,
    more: Condvar,
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A watch of every pod of a namespace. Goes on when the server is killed, frozen and started again. What happened
/// to one pod while there was no watch is seen as one change only if the server has forgotten the steps.
pub struct PodTimeline {
    client: ApiClient,
    namespace: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl PodTimeline {
    /// Begins with the pods that are there, then follows.
    ///
    /// # Errors
    /// When the pods cannot be listed.
    pub fn start(server: &ApiServer, namespace: &str) -> Result<Self> {
        let client = server.admin().clone();
        let shared = Arc::new(Shared::default());
        let mut watch = Watch { client: client.clone(), namespace: namespace.to_owned(), shared: Arc::clone(&shared) };
        let revision = super::runtime::block_on(watch.list())?;
        let task = runtime().spawn(async move { watch.follow(revision).await });
        Ok(Self { client, namespace: namespace.to_owned(), shared, task })
    }

    /// Every change so far, in order.
    #[must_use]
    pub fn changes(&self) -> Vec<PodChange> {
        self.shared.record().changes.clone()
    }

    /// Waits until what has been seen so far `is_it`, and returns it.
    ///
    /// # Errors
    /// When it is not `within` this time, with the changes so far.
    pub fn wait_for(&self, within: Duration, is_it: impl Fn(&[PodChange]) -> bool) -> Result<Vec<PodChange>> {
        let deadline = Moment::now().after(within);
        let mut record = self.shared.record();
        while !is_it(&record.changes) {
            let left = deadline.remaining();
            if left.is_zero() {
                bail!("not within {within:?}; watch: {:?}; pods: {:#?}", record.trouble, record.changes);
            }
            record = self.shared.more.wait_timeout(record, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(record.changes.clone())
    }

    /// Waits until everything that has happened up to now has been seen.
    ///
    /// # Errors
    /// When it is not `within` this time.
    pub fn catch_up(&self, within: Duration) -> Result<Vec<PodChange>> {
        let now = self.client.pods(&self.namespace, "")?;
        self.wait_for(within, |changes| {
            let seen =
                |pod: &PodView| changes.iter().any(|it| it.pod.uid == pod.uid && it.pod.revision >= pod.revision);
            let last = latest(changes);
            now.iter().all(seen) && last.values().all(|it| it.deleted || now.iter().any(|pod| pod.uid == it.pod.uid))
        })
    }

    /// Every change of one label, in order.
    #[must_use]
    pub fn label_changes(&self, key: &str) -> Vec<LabelChange> {
        let mut present: BTreeMap<String, Option<String>> = BTreeMap::new();
        let mut label_changes = Vec::new();
        for PodChange { seen, pod, deleted } in self.changes() {
            let to = if deleted { None } else { pod.label(key).map(str::to_owned) };
            let from = present.insert(pod.uid.clone(), to.clone()).flatten();
            if from != to {
                label_changes.push(LabelChange { seen, revision: pod.revision, pod: pod.name, from, to });
            }
        }
        label_changes
    }

    /// After every change of one label: which pods carry this value.
    #[must_use]
    pub fn carriers(&self, key: &str, value: &str) -> Vec<(Moment, Vec<String>)> {
        let mut carriers: Vec<String> = Vec::new();
        let mut history = Vec::new();
        for change in self.label_changes(key) {
            carriers.retain(|pod| *pod != change.pod);
            if change.to.as_deref() == Some(value) {
                carriers.push(change.pod);
            }
            if history.last().is_none_or(|(_, last)| *last != carriers) {
                history.push((change.seen, carriers.clone()));
            }
        }
        history
    }
}

impl Drop for PodTimeline {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The last change of every pod, by uid.
fn latest(changes: &[PodChange]) -> BTreeMap<&str, &PodChange> {
    changes.iter().map(|change| (change.pod.uid.as_str(), change)).collect()
}

struct Watch {
    client: ApiClient,
    namespace: String,
    shared: Arc<Shared>,
}

/// How a watch ended.
enum End {
    /// It can go on from the last change.
    Broken(anyhow::Error),
    /// The server has forgotten what came after the last change.
    Forgotten,
}

impl Watch {
    async fn follow(&mut self, mut revision: String) {
        loop {
            let trouble = match self.watch(&mut revision).await {
                End::Broken(error) => format!("{error:#}"),
                End::Forgotten => match self.list().await {
                    Ok(listed) => {
                        revision = listed;
                        continue;
                    }
                    Err(error) => format!("{error:#}"),
                },
            };
            self.shared.record().trouble = Some(trouble);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Records what differs from what is known, and returns the list's revision.
    async fn list(&mut self) -> Result<String> {
        let answer = self.send("").await?.into_body().collect().await?.to_bytes();
        let list: Value = serde_json::from_slice(&answer)?;
        let items = list["items"].as_array().with_context(|| format!("not a list of pods: {list}"))?;
        let pods = items.iter().map(PodView::of).collect::<Result<Vec<_>>>()?;
        let revision = list["metadata"]["resourceVersion"].as_str().context("a list has a revision")?.to_owned();
        let known = self.shared.record().changes.clone();
        let known = latest(&known);
        for gone in known.values().filter(|it| !it.deleted && !pods.iter().any(|pod| pod.uid == it.pod.uid)) {
            self.push(PodChange { seen: Moment::now(), deleted: true, ..(*gone).clone() });
        }
        for pod in pods {
            if known.get(pod.uid.as_str()).is_none_or(|it| it.pod.revision < pod.revision) {
                self.push(PodChange { seen: Moment::now(), pod, deleted: false });
            }
        }
        Ok(revision)
    }

    async fn watch(&self, revision: &mut String) -> End {
        match self.read(revision).await {
            Ok(end) => end,
            Err(error) => End::Broken(error),
        }
    }

    async fn read(&self, revision: &mut String) -> Result<End> {
        let query = format!("?watch=1&allowWatchBookmarks=true&resourceVersion={revision}");
        let response = self.send(&query).await?;
        if response.status() == http::StatusCode::GONE {
            return Ok(End::Forgotten);
        }
        if !response.status().is_success() {
            bail!("the watch is answered {}", response.status());
        }
        let mut body = response.into_body();
        let mut buffer = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            let seen = Moment::now();
            buffer.extend_from_slice(&data);
            while let Some(end) = buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line)?;
                if event["type"] == "ERROR" {
                    let code = &event["object"]["code"];
                    return if *code == 410 { Ok(End::Forgotten) } else { bail!("the watch ended: {event}") };
                }
                let latest = event["object"]["metadata"]["resourceVersion"].as_str();
                latest.context("an event has a revision")?.clone_into(revision);
                if event["type"] != "BOOKMARK" {
                    let pod = PodView::of(&event["object"])?;
                    self.push(PodChange { seen, pod, deleted: event["type"] == "DELETED" });
                }
            }
        }
        bail!("the watch ended")
    }

    async fn send(&self, query: &str) -> Result<http::Response<Body>> {
        let uri = format!("/api/v1/namespaces/{}/pods{query}", self.namespace);
        self.client.send(Request::builder().method(Method::GET).uri(uri).body(Body::empty())?).await
    }

    fn push(&self, change: PodChange) {
        self.shared.record().changes.push(change);
        self.shared.more.notify_all();
    }
}
