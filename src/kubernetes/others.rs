//! The other pods of the election, as far as they could pass for the leader: only a leader looks at them.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt;

use super::fault::{ApiCode, ApiFault, ApiOperation};
use super::labeller::{Follow, TRIES_MAX};
use super::pod::{Plan, Pod};
use super::pods::{Change, Pods, Selection};
use super::report::{Report, Reports};
use crate::config::check_pod_name;
use crate::election::{Identity, Term};
use crate::protections::Protections;

/// How many stripped pods are remembered: more than an election has in its life, unless somebody makes them for it.
const STRIPPED_MAX: usize = 256;

pub(super) struct Others {
    reports: Reports,
    /// For which term they are being stripped.
    term: Option<Term>,
    predecessor: Option<Identity>,
    /// The predecessor, and whoever was seen to carry the leader's label and has not been dealt with. As many as a
    /// list may have, and those that the watch adds.
    suspects: BTreeMap<String, Suspect>,
    /// They have seen a higher term, and pass for the leader all the same.
    contested: BTreeSet<String>,
    /// The predecessor was seen to, once in this term.
    begun: bool,
    /// On whoever carries the leader's label.
    follow: Option<Follow>,
    /// Who has been made not to pass for the leader in this term: whoever does again is made to by somebody.
    stripped: BTreeSet<String>,
}

struct Suspect {
    pod: Pod,
    /// How often it was tried in vain: who has waited longest is next, so that one pod that cannot be changed keeps
    /// nobody else from it.
    tries: u32,
}

/// What came of stripping one pod.
enum Stripped {
    /// It does not pass for the leader; whether it did.
    Done { led: bool },
    /// It is not ours to change.
    Contested,
}

impl Others {
    pub(super) const fn new(reports: Reports) -> Self {
        Self {
            reports,
            term: None,
            predecessor: None,
            suspects: BTreeMap::new(),
            contested: BTreeSet::new(),
            begun: false,
            follow: None,
            stripped: BTreeSet::new(),
        }
    }

    /// From now on this candidate leads this term.
    pub(super) fn begin(&mut self, term: Term, predecessor: Option<&Identity>) {
        if self.term != Some(term) {
            self.forget();
            self.term = Some(term);
            self.predecessor = predecessor.cloned();
        }
    }

    /// This candidate does not lead.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.reports.clone());
    }

    /// Whether somebody passes for the leader who is not ours to change.
    pub(super) fn is_contested(&self) -> bool {
        !self.contested.is_empty()
    }

    /// Sees to it that no other pod passes for the leader, and that no patch of an earlier leader can land. Whether
    /// one did again that had been dealt with in this term.
    pub(super) async fn strip(&mut self, pods: &mut Pods, term: Term) -> Result<bool, ApiFault> {
        if Protections::NO_STRIPPING.taken_away() {
            return Ok(false);
        }
        // Whoever was seen to lead last comes first: where calls take long, the time for the others is soon over. But
        // only once, for it may be the one that cannot be changed.
        if !std::mem::replace(&mut self.begun, true) {
            self.see_predecessor(pods).await.and(self.strip_suspects(pods, term).await).ok();
        }
        self.see_leaders(pods).await?;
        let seen = self.see_predecessor(pods).await;
        if seen.as_ref().is_err_and(ApiFault::is_silence) {
            return seen.map(|()| false);
        }
        let again = self.strip_suspects(pods, term).await?;
        seen?;
        Ok(again)
    }

    async fn strip_suspects(&mut self, pods: &mut Pods, term: Term) -> Result<bool, ApiFault> {
        let mut again = false;
        let mut outcome = Ok(());
        let mut suspects: Vec<_> = self.suspects.values().map(|suspect| (suspect.tries, suspect.pod.clone())).collect();
        suspects.sort_by_key(|(tries, _)| *tries);
        for (_, pod) in suspects {
            // The rest would take as long, and there is the own pod to look after as well.
            if outcome.as_ref().is_err_and(ApiFault::is_silence) {
                break;
            }
            let name = pod.name.clone();
            self.suspects.entry(name.clone()).and_modify(|suspect| suspect.tries = suspect.tries.saturating_add(1));
            match self.strip_one(pods, pod, term).await {
                Ok(Stripped::Done { led }) => {
                    self.settle(&name);
                    again |= led && self.has_been_stripped(name);
                }
                Ok(Stripped::Contested) => {
                    self.settle(&name);
                    self.contested.insert(name);
                }
                Err(fault) => outcome = Err(fault),
            }
        }
        outcome.map(|()| again)
    }

    /// Sees to it that whoever carries the leader's label is known.
    async fn see_leaders(&mut self, pods: &mut Pods) -> Result<(), ApiFault> {
        let me = pods.own_name().to_owned();
        while let Some(Follow::Watching(watch)) = &mut self.follow {
            match watch.next().now_or_never() {
                None => return Ok(()),
                Some(change) => drop(self.take(change, &me)),
            }
        }
        // Also when there is a list that no watch was opened for: it is of another round.
        if !matches!(self.follow, Some(Follow::Watching(_))) {
            let listed = pods.list(Selection::Others).await?;
            self.contested.clear();
            for pod in listed.pods {
                self.take(Some(Change::Is(pod)), &me);
            }
            self.follow = Some(Follow::From(listed.version));
        }
        Ok(())
    }

    /// The predecessor's label may be off already, and its next patch still on its way.
    async fn see_predecessor(&mut self, pods: &mut Pods) -> Result<(), ApiFault> {
        let Some(name) = self.predecessor.as_ref().map(|identity| identity.as_str().to_owned()) else {
            return Ok(());
        };
        if self.suspects.contains_key(&name) {
            return Ok(());
        }
        let other = check_pod_name(&name).is_ok() && name != pods.own_name();
        let found = if other { pods.get(Selection::Others, &name).await? } else { None };
        match found {
            Some(pod) => self.suspect(pod),
            None => self.settle(&name),
        }
        Ok(())
    }

    async fn strip_one(&mut self, pods: &mut Pods, mut pod: Pod, term: Term) -> Result<Stripped, ApiFault> {
        let led = pod.leads(pods.labels());
        for _ in 0..TRIES_MAX {
            let patch = match pod.strip(term, pods.labels()) {
                Plan::Leave | Plan::Foreign(_) => return Ok(Stripped::Done { led: false }),
                Plan::Newer(seen) => {
                    self.reports.send(Report::Newer { pod: pod.name.clone(), seen: seen.term(), mine: term }).await;
                    let leads = pod.leads(pods.labels());
                    return Ok(if leads { Stripped::Contested } else { Stripped::Done { led: false } });
                }
                Plan::Patch(patch) => patch,
            };
            let done = pods.send_patch(&pod.name, patch).await?.await;
            match pods.landed(Selection::Others, done).await {
                Ok(now) if now.leads(pods.labels()) => pod = now,
                Ok(_) => {
                    if led {
                        self.reports.send(Report::Stripped { pod: pod.name }).await;
                    }
                    return Ok(Stripped::Done { led });
                }
                // It is gone, and its name perhaps another's, which the watch tells.
                Err(fault) if fault.code == ApiCode::NotFound => return Ok(Stripped::Done { led: false }),
                Err(fault) if fault.code == ApiCode::Conflict => match pods.get(Selection::Others, &pod.name).await? {
                    Some(fresh) => pod = fresh,
                    None => return Ok(Stripped::Done { led: false }),
                },
                Err(fault) => return Err(fault),
            }
        }
        let message = format!("the pod {} is changed all the time", pod.name);
        Err(pods.fail(Selection::Others, ApiFault::new(ApiOperation::Patch, ApiCode::Conflict, message)).await)
    }

    /// Sees to it that whoever comes to carry the leader's label is learned of.
    pub(super) async fn watch(&mut self, pods: &mut Pods) -> Result<(), ApiFault> {
        if let Some(Follow::From(version)) = &self.follow {
            match pods.watch(Selection::Others, version).await {
                Ok(watch) => self.follow = Some(Follow::Watching(watch)),
                // What has happened since the list is not known, and may be too long ago to be told.
                Err(fault) => {
                    self.follow = None;
                    return Err(fault);
                }
            }
        }
        Ok(())
    }

    /// Whether nobody is known to pass for the leader, and whoever comes to do so will be. True when this candidate
    /// does not lead.
    pub(super) fn are_settled(&self) -> bool {
        let watched = matches!(self.follow, Some(Follow::Watching(_)));
        self.term.is_none() || (watched && self.suspects.is_empty() && self.contested.is_empty())
    }

    /// Takes in a change; whether there is somebody to be stripped, or everything to be read afresh.
    fn take(&mut self, change: Option<Change>, me: &str) -> bool {
        match change {
            Some(Change::Is(pod)) if pod.name == me => false,
            Some(Change::Is(pod)) => {
                self.suspect(pod);
                true
            }
            Some(Change::Gone(pod)) => {
                self.suspects.remove(&pod.name);
                self.contested.remove(&pod.name)
            }
            None => {
                self.follow = None;
                true
            }
        }
    }

    fn suspect(&mut self, pod: Pod) {
        let suspect = self.suspects.entry(pod.name.clone()).or_insert_with(|| Suspect { pod: pod.clone(), tries: 0 });
        suspect.pod = pod;
    }

    /// Whether this pod had been stripped before.
    fn has_been_stripped(&mut self, name: String) -> bool {
        if self.stripped.len() >= STRIPPED_MAX {
            self.stripped.clear();
        }
        !self.stripped.insert(name)
    }

    /// This pod has been dealt with.
    fn settle(&mut self, name: &str) {
        self.suspects.remove(name);
        self.contested.remove(name);
        self.predecessor.take_if(|predecessor| predecessor.as_str() == name);
    }

    /// Waits until there is something to do, for ever when this candidate does not lead; whether it is that the watch
    /// ended before it was of use.
    pub(super) async fn change(&mut self, me: &str) -> bool {
        loop {
            let Some(Follow::Watching(watch)) = &mut self.follow else {
                return if self.term.is_some() && !Protections::NO_STRIPPING.taken_away() {
                    false
                } else {
                    std::future::pending().await
                };
            };
            let change = watch.next().await;
            let short = change.is_none() && watch.was_short();
            if self.take(change, me) {
                return short;
            }
        }
    }
}
