//! Keeps the pod's label what the candidate last published, whatever others do to it.
//!
//! One round looks at what is and sends what is missing. A new publication ends whatever is being read or waited for,
//! but never a patch of this pod: that is on its way, and what came of it is taken in before anything else is said
//! about the pod.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::events::Announcer;
use super::fault::{ApiCode, ApiFault, ApiOperation};
use super::others::Others;
use super::pace::Pace;
use super::pod::{Doubt, Plan, Pod, Recollection};
use super::pods::{Change, Patching, PodWatch, Pods, Selection};
use super::report::{Report, Reports};
use super::war::War;
use crate::election::{Publication, Role};

/// How long taking the label off others may delay the new leader's own: they may be many, or in conflict.
const STRIP_FIRST_MOST: Duration = Duration::from_millis(500);
/// After a conflict the pod is read again and the patch made anew. Who loses three times in a row contends with
/// something that writes all the time, and takes a pause.
pub(super) const TRIES_MAX: usize = 3;
/// A patch takes milliseconds. What takes longer than this is held up somewhere.
const LANDING_SOON: Duration = Duration::from_millis(100);
/// How long the end of the process waits for the last publication to be shown.
const LAST_ROUND_MOST: Duration = Duration::from_millis(400);

/// The last publication, once there is one.
pub(super) type Wanted = watch::Receiver<Option<Publication>>;

/// Runs until nobody can publish any more.
pub(super) async fn run(mut labeller: Labeller, mut wanted: Wanted) {
    while let Some(publication) = next(&mut wanted).await {
        labeller.begin(&publication).await;
        tokio::select! {
            biased;
            changed = wanted.changed() => if changed.is_err() {
                timeout(LAST_ROUND_MOST, labeller.round(&publication)).await.ok();
                break;
            },
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
    /// For watches that can be opened and end before they are of use.
    pace_of_watches: Pace,
    war: War,
    own: Option<Own>,
    /// The first life of the pod that was seen is this process's. A pod of the same name that comes after is not.
    uid: Option<String>,
    /// A patch of this pod that nobody has heard of yet.
    landing: Option<Landing>,
    recollection: Recollection,
    others: Others,
    /// What this pod was last made to show; to tell a repair from a change of mind.
    shown: Option<Role>,
    synced: Option<bool>,
}

/// This pod as it was last seen.
struct Own {
    pod: Pod,
    /// Somebody else has changed it since.
    stale: bool,
    follow: Follow,
}

/// How changes after a list are learned of.
pub(super) enum Follow {
    /// By a watch that is yet to be opened, from this version on.
    From(String),
    /// By this watch.
    Watching(PodWatch),
}

struct Landing {
    role: Role,
    /// The version that it was made for.
    resource_version: String,
    patching: Patching,
}

/// What came of one round.
struct Round {
    /// The pod shows what it should, and no other passes for the leader.
    right: bool,
    /// Somebody had undone what an earlier round did to this pod.
    repaired: bool,
    /// Or to another.
    stripped_again: bool,
}

/// What came of showing this pod's role.
struct Shown {
    right: bool,
    repaired: bool,
}

impl Labeller {
    pub(super) fn new(pods: Pods, reports: Reports, announcer: Announcer) -> Self {
        let (pace, pace_of_watches) = (pods.pace(), pods.pace());
        Self {
            others: Others::new(reports.clone()),
            pods,
            reports,
            announcer,
            pace,
            pace_of_watches,
            war: War::default(),
            own: None,
            uid: None,
            landing: None,
            recollection: Recollection::default(),
            shown: None,
            synced: None,
        }
    }

    async fn begin(&mut self, publication: &Publication) {
        self.announcer.note(&publication.role);
        if self.shown.as_ref() != Some(&publication.role) {
            self.shown = None;
            self.tell_synced(false).await;
        }
    }

    /// Makes the pod show this publication, and repairs it for as long as it is the last one.
    async fn keep(&mut self, publication: &Publication) {
        loop {
            match self.round(publication).await {
                Ok(round) => {
                    self.pace.reset();
                    self.tell_synced(round.right).await;
                    if round.repaired || round.stripped_again {
                        self.pause_between_battles(&round, publication).await;
                        // What has changed meanwhile has been taken in.
                        continue;
                    }
                    if self.change().await {
                        sleep(self.pace_of_watches.unhurried()).await;
                    } else {
                        self.pace_of_watches.reset();
                    }
                }
                Err(fault) => {
                    self.tell_synced(false).await;
                    sleep(self.pace.after(&fault)).await;
                }
            }
        }
    }

    /// Nothing is repaired meanwhile, but it is told that something should be.
    async fn pause_between_battles(&mut self, round: &Round, publication: &Publication) {
        let over = sleep(self.war.battle());
        tokio::pin!(over);
        if self.war.is_declared() {
            self.reports.send(Report::Contended).await;
        } else if self.war.is_new() && round.repaired {
            self.reports.send(Report::Repaired).await;
        }
        while self.is_right(publication) {
            tokio::select! {
                _ = self.change() => {}
                () = &mut over => return,
            }
        }
        self.tell_synced(false).await;
        over.await;
    }

    /// Whether everything is as it should be as far as is known, and watched.
    fn is_right(&self, publication: &Publication) -> bool {
        let Some(Own { pod, stale: false, follow: Follow::Watching(_) }) = &self.own else { return false };
        let plan = pod.show(&publication.role, self.pods.labels(), &self.recollection);
        plan == Plan::Leave && self.others.are_settled()
    }

    async fn tell_synced(&mut self, synced: bool) {
        if self.synced != Some(synced) {
            self.reports.send(Report::Synced(synced)).await;
            self.synced = Some(synced);
        }
    }

    async fn round(&mut self, publication: &Publication) -> Result<Round, ApiFault> {
        self.hear_of_landing().await;
        self.see_own().await?;
        let stripped = match &publication.role {
            Role::Leader { term, predecessor } => {
                self.others.begin(*term, predecessor.as_ref());
                let stripping = self.others.strip(&mut self.pods, *term);
                timeout(STRIP_FIRST_MOST, stripping).await.ok().and_then(Result::ok)
            }
            Role::Follower | Role::Unknown => {
                self.others.forget();
                Some(false)
            }
        };
        // What is refused is no reason not to look on: what others change is learned of by the watches only.
        let shown = unless_silent(self.show(publication).await)?;
        self.watch_own().await?;
        let stripped = match (stripped, &publication.role) {
            (None, Role::Leader { term, .. }) => unless_silent(self.others.strip(&mut self.pods, *term).await)?,
            (stripped, _) => Ok(stripped.unwrap_or_default()),
        };
        self.others.watch(&mut self.pods).await?;
        let (shown, stripped_again) = (shown?, stripped?);
        Ok(Round { right: shown.right && !self.others.is_contested(), repaired: shown.repaired, stripped_again })
    }

    /// Waits until something has changed that may matter; whether it is that a watch ended before it was of use.
    /// Cancel-safe.
    async fn change(&mut self) -> bool {
        let me = self.pods.own_name().to_owned();
        tokio::select! {
            short = own_change(&mut self.own) => short,
            short = self.others.change(&me) => short,
        }
    }

    // ---- this pod

    /// Sees to it that this pod is known.
    async fn see_own(&mut self) -> Result<(), ApiFault> {
        if self.own.as_mut().is_some_and(|own| !own.catch_up()) {
            self.own = None;
        }
        match &mut self.own {
            Some(own) if !own.stale => return Ok(()),
            Some(own) => match self.pods.get(Selection::Own, &own.pod.name).await? {
                Some(pod) => (own.pod, own.stale) = (pod, false),
                None => self.own = None,
            },
            None => {}
        }
        if self.own.is_none() {
            let listed = self.pods.list(Selection::Own).await?;
            let pod = listed.pods.into_iter().next().expect("a list of the own pod has it, or fails");
            self.own = Some(Own { pod, stale: false, follow: Follow::From(listed.version) });
        }
        Ok(())
    }

    async fn watch_own(&mut self) -> Result<(), ApiFault> {
        if let Some(own) = &mut self.own
            && let Follow::From(version) = &own.follow
        {
            match self.pods.watch(Selection::Own, version).await {
                Ok(watch) => own.follow = Follow::Watching(watch),
                // What has happened since the list is not known, and may be too long ago to be told.
                Err(fault) => {
                    self.own = None;
                    return Err(fault);
                }
            }
        }
        Ok(())
    }

    async fn show(&mut self, publication: &Publication) -> Result<Shown, ApiFault> {
        let mut repaired = false;
        for _ in 0..TRIES_MAX {
            self.see_own().await?;
            let Some(Own { pod, .. }) = &self.own else { break };
            if *self.uid.get_or_insert_with(|| pod.uid.clone()) != pod.uid {
                self.reports.send(Report::Replaced).await;
                return Ok(Shown { right: false, repaired: false });
            }
            self.recollection.mine |= pod.is_of(self.pods.labels());
            match pod.show(&publication.role, self.pods.labels(), &self.recollection) {
                // Nothing can overtake it, so it has to be waited for.
                Plan::Leave if self.landing.is_some() => drop(self.land().await?),
                Plan::Leave => {
                    self.shown(publication).await;
                    return Ok(Shown { right: true, repaired });
                }
                Plan::Patch(patch) => {
                    let patching = self.pods.send_patch(&pod.name, patch).await?;
                    let resource_version = pod.resource_version.clone();
                    self.landing = Some(Landing { role: publication.role.clone(), resource_version, patching });
                    repaired |= self.land().await? && self.shown.is_some();
                }
                Plan::Newer(seen) => {
                    if let Role::Leader { term: mine, .. } = publication.role {
                        let pod = pod.name.clone();
                        self.reports.send(Report::Newer { pod, seen: seen.term(), mine }).await;
                    }
                    return Ok(Shown { right: false, repaired: false });
                }
                Plan::Foreign(election) => {
                    self.reports.send(Report::Foreign { election }).await;
                    return Ok(Shown { right: false, repaired: false });
                }
            }
        }
        let message = "this pod is changed all the time";
        Err(self.pods.fail(Selection::Own, ApiFault::new(ApiOperation::Patch, ApiCode::Conflict, message)).await)
    }

    /// Takes in what became of a patch that an earlier publication sent, its failure told by itself. One that is held
    /// up is overtaken: what is sent next makes the pod another version than it was made for.
    async fn hear_of_landing(&mut self) {
        let held_up = timeout(LANDING_SOON, self.land()).await.is_err();
        if let Some(Landing { role: Role::Leader { term, .. }, resource_version, .. }) = &self.landing
            && held_up
        {
            self.recollection.doubt = Some(Doubt { resource_version: resource_version.clone(), term: *term });
        }
    }

    /// Waits for what comes of a patch of this pod; whether it landed. What is known of the pod is brought up to date
    /// before anything else can happen.
    async fn land(&mut self) -> Result<bool, ApiFault> {
        let Some(landing) = &mut self.landing else { return Ok(false) };
        let done = landing.patching.as_mut().await;
        let landing = self.landing.take();
        match &done {
            Ok(pod) => {
                self.recollection.doubt = None;
                let now = Pod::read(&pod.metadata, self.pods.labels());
                match (&mut self.own, now) {
                    (Some(own), Some(now)) if !now.is_older_than(&own.pod) => own.pod = now,
                    (Some(_), Some(_)) => {}
                    (Some(_), None) | (None, _) => self.own = None,
                }
            }
            Err(fault) if fault.code == ApiCode::Conflict => {
                if let Some(own) = &mut self.own {
                    own.stale = true;
                }
            }
            Err(fault) if fault.code.is_ambiguous() => {
                if let Some(Landing { role: Role::Leader { term, .. }, resource_version, .. }) = landing {
                    self.recollection.doubt = Some(Doubt { resource_version, term });
                }
                self.own = None;
            }
            Err(fault) if fault.code == ApiCode::NotFound => self.own = None,
            Err(_) => {}
        }
        match self.pods.landed(Selection::Own, done).await {
            Ok(_) => Ok(true),
            Err(fault) if fault.code == ApiCode::Conflict => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    async fn shown(&mut self, publication: &Publication) {
        self.shown = Some(publication.role.clone());
        self.finish_announcing();
        self.reports.send(Report::Published(publication.id)).await;
    }

    fn finish_announcing(&mut self) {
        // What comes after it under its name is another's.
        if let Some(own) = self.own.as_ref().filter(|own| self.uid.as_ref() == Some(&own.pod.uid)) {
            self.announcer.announce(&own.pod, self.pods.namespace());
        }
    }

    /// Hands over what is still to be announced.
    fn finish(mut self) {
        self.finish_announcing();
    }
}

impl Own {
    /// Takes in what has arrived, without waiting; `false` when the pod has to be looked for afresh.
    fn catch_up(&mut self) -> bool {
        while let Follow::Watching(watch) = &mut self.follow {
            match watch.next().now_or_never() {
                None => return true,
                Some(Some(Change::Is(pod))) => self.take(pod),
                Some(Some(Change::Gone(_)) | None) => return false,
            }
        }
        true
    }

    fn take(&mut self, pod: Pod) {
        if !pod.is_older_than(&self.pod) {
            self.pod = pod;
        }
    }
}

/// A refusal for later; silence at once, since the next call would wait as long in vain.
fn unless_silent<T>(outcome: Result<T, ApiFault>) -> Result<Result<T, ApiFault>, ApiFault> {
    match outcome {
        Err(fault) if fault.is_silence() => Err(fault),
        outcome => Ok(outcome),
    }
}

async fn own_change(own: &mut Option<Own>) -> bool {
    let Some(Own { follow: Follow::Watching(watch), .. }) = own else { return false };
    match watch.next().await {
        Some(Change::Is(pod)) => {
            if let Some(own) = own {
                own.take(pod);
            }
            false
        }
        Some(Change::Gone(_)) => {
            *own = None;
            false
        }
        None => {
            let short = watch.was_short();
            *own = None;
            short
        }
    }
}
