//! Keeps the pod's label what the candidate last published, whatever others do to it.
//!
//! One round looks at what is and sends what is missing; it does not remember what it has sent. A new publication
//! ends the round at once, wherever it is: a patch that was on its way lands on the version it was made for, or not
//! at all, and the next round reads.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::events::Announcer;
use super::fault::{ApiCode, ApiFault, ApiOperation};
use super::pace::Pace;
use super::pod::{Plan, Pod};
use super::pods::{Change, PodWatch, Pods, Selection};
use super::report::{Report, Reports};
use crate::config::check_pod_name;
use crate::election::{Identity, Publication, Role, Term};
use crate::protections::Protections;

/// How long taking the label off others may delay the new leader's own: they may be many, or in conflict.
const STRIP_FIRST_MOST: Duration = Duration::from_millis(500);
/// After a conflict the pod is read again and the patch made anew. Who loses three times in a row contends with
/// something that writes all the time, and takes a pause.
const TRIES_MAX: usize = 3;
/// Two writers that each repair what the other has done must not do so as fast as they can.
const REPAIR_PAUSE: Duration = Duration::from_millis(500);
/// A watch that has ended is opened anew after this long at most: not at once, should they all end at once.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);
/// Both watches end by themselves within a minute. Nothing to do for longer than this means that one is dead.
const LOOK_AGAIN: Duration = Duration::from_secs(75);

/// The last publication, once there is one.
pub(super) type Wanted = watch::Receiver<Option<Publication>>;

/// Runs until nobody can publish any more.
pub(super) async fn run(mut labeller: Labeller, mut wanted: Wanted) {
    while let Some(publication) = next(&mut wanted).await {
        tokio::select! {
            biased;
            changed = wanted.changed() => if changed.is_err() { break },
            () = labeller.keep(&publication) => {}
        }
    }
    labeller.finish();
}

/// The publication to be carried out now; `None` when there will be none.
async fn next(wanted: &mut Wanted) -> Option<Publication> {
    wanted.wait_for(Option::is_some).await.ok()?.clone()
}

pub(super) struct Labeller {
    pods: Pods,
    reports: Reports,
    announcer: Announcer,
    pace: Pace,
    /// This pod as it was last seen, while a watch on it is open.
    own: Option<(Pod, PodWatch)>,
    others: Others,
    /// What this pod was last made to show; to tell a repair from a change of mind.
    shown: Option<Role>,
    synced: Option<bool>,
}

/// The other pods of the election, as far as they could pass for the leader.
#[derive(Default)]
struct Others {
    /// For which term they are being stripped.
    term: Option<Term>,
    predecessor: Option<Identity>,
    /// The predecessor, and whoever was seen to carry the leader's label and has not been stripped yet. As many as
    /// a list may have, and those that the watch adds.
    suspects: BTreeMap<String, Pod>,
    /// On whoever carries the leader's label.
    watch: Option<PodWatch>,
}

/// What came of one round.
enum Round {
    /// The pod shows what it should.
    Right { repaired: bool },
    /// The pod's label is not this candidate's to change.
    HandsOff,
}

impl Labeller {
    pub(super) fn new(pods: Pods, reports: Reports, announcer: Announcer) -> Self {
        let pace = Pace::of(pods.own_name());
        Self { pods, reports, announcer, pace, own: None, others: Others::default(), shown: None, synced: None }
    }

    /// Makes the pod show this publication, and repairs it for as long as it is the last one.
    async fn keep(&mut self, publication: &Publication) {
        self.announcer.note(&publication.role);
        loop {
            match self.round(publication).await {
                Ok(round) => {
                    self.pace.reset();
                    self.tell_synced(matches!(round, Round::Right { .. })).await;
                    if let Round::Right { repaired: true } = round {
                        self.reports.send(Report::Repaired).await;
                        sleep(REPAIR_PAUSE).await;
                    }
                    if timeout(LOOK_AGAIN, self.change()).await.is_err() {
                        self.own = None;
                        self.others.watch = None;
                    } else if self.own.is_none() || self.others.is_blind() {
                        sleep(self.pace.between(REOPEN_PAUSE / 2, REOPEN_PAUSE)).await;
                    }
                }
                Err(fault) => {
                    self.tell_synced(false).await;
                    sleep(self.pace.after(&fault)).await;
                }
            }
        }
    }

    async fn tell_synced(&mut self, synced: bool) {
        if self.synced.replace(synced) != Some(synced) {
            self.reports.send(Report::Synced(synced)).await;
        }
    }

    async fn round(&mut self, publication: &Publication) -> Result<Round, ApiFault> {
        self.see_own().await?;
        let stripped = match &publication.role {
            Role::Leader { term, predecessor } => {
                self.others.begin(*term, predecessor.as_ref());
                let stripped = timeout(STRIP_FIRST_MOST, self.strip_others(*term)).await;
                matches!(stripped, Ok(Ok(())))
            }
            Role::Follower | Role::Unknown => {
                self.others = Others::default();
                true
            }
        };
        let round = self.show(publication).await?;
        if let (false, Role::Leader { term, .. }) = (stripped, &publication.role) {
            self.strip_others(*term).await?;
        }
        Ok(round)
    }

    // ---- this pod

    /// Sees to it that this pod is known and watched.
    async fn see_own(&mut self) -> Result<(), ApiFault> {
        while let Some((own, watch)) = &mut self.own {
            // What has arrived since the last round, without waiting.
            match watch.next().now_or_never() {
                None => return Ok(()),
                Some(Some(Change::Is(pod))) if pod.is_older_than(own) => {}
                Some(Some(Change::Is(pod))) => *own = pod,
                Some(Some(Change::Gone(_)) | None) => self.own = None,
            }
        }
        let listed = self.pods.list(Selection::Own).await?;
        let Some(pod) = listed.pods.into_iter().next() else {
            let (name, namespace) = (self.pods.own_name(), self.pods.namespace());
            let message = format!("there is no pod {name} in the namespace {namespace}");
            let fault = ApiFault::new(ApiOperation::List, ApiCode::NotFound, message);
            self.reports.send(Report::Failed(fault.clone())).await;
            return Err(fault);
        };
        let watch = self.pods.watch(Selection::Own, &listed.version).await?;
        self.own = Some((pod, watch));
        Ok(())
    }

    async fn show(&mut self, publication: &Publication) -> Result<Round, ApiFault> {
        let mut repaired = false;
        for _ in 0..TRIES_MAX {
            let Some((own, _)) = &self.own else { break };
            match own.show(&publication.role, self.pods.labels()) {
                Plan::Leave => return Ok(self.shown(publication, repaired).await),
                Plan::Patch(patch) => {
                    let name = own.name.clone();
                    let done = self.pods.patch(&name, &patch).await;
                    repaired = done.is_ok() && self.shown.as_ref() == Some(&publication.role);
                    self.see(&name, done).await?;
                }
                Plan::Newer(seen) => {
                    if let Role::Leader { term: mine, .. } = publication.role {
                        let pod = own.name.clone();
                        self.reports.send(Report::Newer { pod, seen: seen.term(), mine }).await;
                    }
                    return Ok(Round::HandsOff);
                }
                Plan::Foreign(election) => {
                    self.reports.send(Report::Foreign { election }).await;
                    return Ok(Round::HandsOff);
                }
            }
        }
        Err(ApiFault::new(ApiOperation::Patch, ApiCode::Conflict, "this pod is changed all the time"))
    }

    /// Takes in how this pod is after a patch, or reads it again when it was not the one the patch was made for.
    async fn see(&mut self, name: &str, done: Result<Pod, ApiFault>) -> Result<(), ApiFault> {
        let seen = match done {
            Ok(pod) => Some(pod),
            Err(fault) if fault.code == ApiCode::Conflict => self.pods.get(name).await?,
            // Whether it was done is not known; nor is the pod there for certain.
            Err(fault) => {
                self.own = None;
                return Err(fault);
            }
        };
        match (seen, &mut self.own) {
            (Some(pod), Some((own, _))) => *own = pod,
            (None, _) | (Some(_), None) => self.own = None,
        }
        Ok(())
    }

    async fn shown(&mut self, publication: &Publication, repaired: bool) -> Round {
        self.shown = Some(publication.role.clone());
        self.reports.send(Report::Published(publication.id)).await;
        if let Some((own, _)) = &self.own {
            self.announcer.announce(own, self.pods.namespace());
        }
        Round::Right { repaired }
    }

    // ---- the others

    /// Sees to it that no other pod passes for the leader, and that no patch of an earlier leader can land.
    async fn strip_others(&mut self, term: Term) -> Result<(), ApiFault> {
        if Protections::NO_STRIPPING.taken_away() {
            return Ok(());
        }
        self.see_leaders().await?;
        self.see_predecessor().await?;
        let mut outcome = Ok(());
        for pod in self.others.suspects.values().cloned().collect::<Vec<_>>() {
            let name = pod.name.clone();
            match self.strip(pod, term).await {
                Ok(()) => self.others.settle(&name),
                Err(fault) => outcome = Err(fault),
            }
        }
        outcome
    }

    /// Sees to it that whoever carries the leader's label is known and watched.
    async fn see_leaders(&mut self) -> Result<(), ApiFault> {
        let me = self.pods.own_name().to_owned();
        while let Some(watch) = &mut self.others.watch {
            match watch.next().now_or_never() {
                None => return Ok(()),
                Some(change) => drop(self.others.take(change, &me)),
            }
        }
        let listed = self.pods.list(Selection::Leaders).await?;
        for pod in listed.pods {
            self.others.take(Some(Change::Is(pod)), &me);
        }
        self.others.watch = Some(self.pods.watch(Selection::Leaders, &listed.version).await?);
        Ok(())
    }

    /// The predecessor's label may be off already, and its next patch still on its way.
    async fn see_predecessor(&mut self) -> Result<(), ApiFault> {
        let Some(name) = self.others.predecessor.as_ref().map(|identity| identity.as_str().to_owned()) else {
            return Ok(());
        };
        if check_pod_name(&name).is_ok() && !self.others.suspects.contains_key(&name) && name != self.pods.own_name() {
            match self.pods.get(&name).await? {
                Some(pod) => drop(self.others.suspects.insert(name, pod)),
                None => self.others.settle(&name),
            }
        }
        Ok(())
    }

    async fn strip(&mut self, mut pod: Pod, term: Term) -> Result<(), ApiFault> {
        for _ in 0..TRIES_MAX {
            let patch = match pod.strip(term, self.pods.labels()) {
                Plan::Leave | Plan::Foreign(_) => return Ok(()),
                Plan::Newer(seen) => {
                    let report = Report::Newer { pod: pod.name, seen: seen.term(), mine: term };
                    self.reports.send(report).await;
                    return Ok(());
                }
                Plan::Patch(patch) => patch,
            };
            match self.pods.patch(&pod.name, &patch).await {
                Ok(_) => {
                    if pod.leads(self.pods.labels()) {
                        self.reports.send(Report::Stripped { pod: pod.name }).await;
                    }
                    return Ok(());
                }
                // It is gone, and its name perhaps another's, which the watch tells.
                Err(fault) if fault.code == ApiCode::NotFound => return Ok(()),
                Err(fault) if fault.code == ApiCode::Conflict => match self.pods.get(&pod.name).await? {
                    Some(fresh) => pod = fresh,
                    None => return Ok(()),
                },
                Err(fault) => return Err(fault),
            }
        }
        let message = format!("the pod {} is changed all the time", pod.name);
        Err(ApiFault::new(ApiOperation::Patch, ApiCode::Conflict, message))
    }

    /// Waits until a pod has changed in a way that may matter. Cancel-safe.
    async fn change(&mut self) {
        let me = self.pods.own_name().to_owned();
        tokio::select! {
            () = own_change(&mut self.own) => {}
            () = self.others.change(&me) => {}
        }
    }

    /// Hands over what is still to be announced.
    fn finish(mut self) {
        if let Some((own, _)) = &self.own {
            self.announcer.announce(own, self.pods.namespace());
        }
    }
}

async fn own_change(own: &mut Option<(Pod, PodWatch)>) {
    let Some((pod, watch)) = own else { return };
    match watch.next().await {
        Some(Change::Is(now)) if now.is_older_than(pod) => {}
        Some(Change::Is(now)) => *pod = now,
        Some(Change::Gone(_)) | None => *own = None,
    }
}

impl Others {
    fn begin(&mut self, term: Term, predecessor: Option<&Identity>) {
        if self.term != Some(term) {
            *self = Self { term: Some(term), predecessor: predecessor.cloned(), ..Self::default() };
        }
    }

    /// Whether somebody could pass for the leader unseen.
    const fn is_blind(&self) -> bool {
        self.term.is_some() && self.watch.is_none()
    }

    /// Takes in a change; whether there is somebody to be stripped, or everything to be read afresh.
    fn take(&mut self, change: Option<Change>, me: &str) -> bool {
        match change {
            Some(Change::Is(pod)) if pod.name == me => false,
            Some(Change::Is(pod)) => {
                self.suspects.insert(pod.name.clone(), pod);
                true
            }
            Some(Change::Gone(pod)) => {
                self.suspects.remove(&pod.name);
                false
            }
            None => {
                self.watch = None;
                true
            }
        }
    }

    /// This pod does not pass for the leader any more.
    fn settle(&mut self, name: &str) {
        self.suspects.remove(name);
        self.predecessor.take_if(|predecessor| predecessor.as_str() == name);
    }

    /// Waits until there is something to do; for ever when nobody is to be stripped.
    async fn change(&mut self, me: &str) {
        loop {
            let change = match (&mut self.watch, self.term) {
                (Some(watch), _) => watch.next().await,
                (None, Some(_)) => return,
                (None, None) => std::future::pending().await,
            };
            if self.take(change, me) {
                return;
            }
        }
    }
}
