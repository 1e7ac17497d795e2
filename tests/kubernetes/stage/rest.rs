//! What the pods and sidecars of a stage show, and how everything is when it has come to rest.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use serde_json::json;
use support::Moment;
use support::kubernetes::PodView;

use super::{Actor, LOOK_AGAIN, PATIENCE, ROLE, Stage, TERM, wait_for};

/// How everything is when it has come to rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    /// The pod that carries the label, and whose sidecar answers 200.
    pub leader: String,
    /// Epoch, then term.
    pub term: (u64, u64),
}

/// What matters of an answer of `/leader`.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    state: String,
    term: (u64, u64),
}

impl Stage {
    /// A pod's labels and annotations as they are.
    pub fn pod(&self, pod: &str) -> Result<PodView> {
        self.admin().pod(&self.namespace, pod)
    }

    /// Sets or removes a label by hand.
    pub fn label(&self, pod: &str, key: &str, value: Option<&str>) -> Result<PodView> {
        self.admin().merge_patch_pod(&self.namespace, pod, &json!({"metadata": {"labels": {key: value}}}))
    }

    /// Sets or removes an annotation by hand.
    pub fn annotate(&self, pod: &str, key: &str, value: Option<&str>) -> Result<PodView> {
        self.admin().merge_patch_pod(&self.namespace, pod, &json!({"metadata": {"annotations": {key: value}}}))
    }

    /// Waits until a pod is as it should be.
    pub fn wait_for_pod(&self, pod: &str, within: Duration, is_it: impl Fn(&PodView) -> bool) -> Result<PodView> {
        let changes = self.timeline.wait_for(within, |changes| {
            changes.iter().rev().find(|it| it.pod.name == pod).is_some_and(|it| !it.deleted && is_it(&it.pod))
        });
        let changes = changes.with_context(|| self.what_they_say())?;
        Ok(changes.into_iter().rev().find(|it| it.pod.name == pod).context("just seen")?.pod)
    }

    /// Waits until the sidecar of a pod says whether the label is what it wants it to be.
    pub fn wait_until_synced(&mut self, pod: &str, synced: bool) -> Result<()> {
        let expected = Some(f64::from(u8::from(synced)));
        let sidecar = self.sidecar(pod)?;
        wait_for(&format!("{pod} is synced: {synced}"), PATIENCE, || {
            Ok(sidecar.metric("bellwether_label_synced")? == expected)
        })
    }

    /// Waits until a pod carries this role, or none.
    pub fn wait_for_role(&self, pod: &str, role: Option<&str>) -> Result<PodView> {
        self.wait_for_pod(pod, PATIENCE, |pod| pod.label(ROLE) == role)
    }

    /// Waits until exactly one pod carries the leader's label, and it is the one whose sidecar answers 200, with its
    /// term in the annotation, and every standby is labelled a follower.
    pub fn at_rest(&self) -> Result<Rest> {
        self.at_rest_within(PATIENCE)
    }

    /// As [`at_rest`](Self::at_rest), within this time.
    pub fn at_rest_within(&self, within: Duration) -> Result<Rest> {
        let deadline = Moment::now().after(within);
        loop {
            match self.look() {
                Ok(rest) => return Ok(rest),
                Err(error) if deadline.passed() => {
                    return Err(anyhow!("not at rest within {within:?}: {error:#}; {}", self.what_they_say()));
                }
                Err(_) => thread::sleep(LOOK_AGAIN),
            }
        }
    }

    /// The term of the one that answers 200, when exactly one does and every other sidecar stands by.
    pub fn settled(&self) -> Option<(u64, u64)> {
        let answers = self.answers();
        let mut leaders = answers.iter().filter(|(_, answer)| answer.status == 200);
        let (leader, more) = (leaders.next()?, leaders.next());
        let others = answers.iter().filter(|(_, answer)| answer.state == "standby").count();
        (more.is_none() && others + 1 == self.actors.len()).then_some(leader.1.term)
    }

    /// One look: at rest, or what is not.
    pub fn look(&self) -> Result<Rest> {
        let before = self.answers();
        let pods = self.admin().pods(&self.namespace, "")?;
        ensure!(before == self.answers(), "the sidecars' answers change");
        let leaders: Vec<_> = before.iter().filter(|(_, answer)| answer.status == 200).collect();
        let carriers: Vec<_> = pods.iter().filter(|pod| pod.label(ROLE) == Some("leader")).collect();
        let ([(leader, answer)], [carrier]) = (leaders.as_slice(), carriers.as_slice()) else {
            bail!("answer 200: {leaders:?}; carry the label: {carriers:?}");
        };
        let (epoch, term) = answer.term;
        ensure!(*leader == carrier.name, "{leader} answers 200, {} carries the label", carrier.name);
        ensure!(carrier.annotation(TERM) == Some(&format!("{epoch}/{term}")), "{answer:?}, but {carrier:?}");
        for (name, _) in before.iter().filter(|(_, answer)| answer.state == "standby") {
            let pod = pods.iter().find(|pod| pod.name == *name).with_context(|| format!("no pod {name}"))?;
            ensure!(pod.label(ROLE) == Some("follower"), "{name} stands by: {pod:?}");
        }
        Ok(Rest { leader: leader.clone(), term: answer.term })
    }

    /// What the sidecars say that answer.
    fn answers(&self) -> Vec<(String, Answer)> {
        let answer = |actor: &Actor| {
            let (status, body) = actor.sidecar.as_ref()?.leader().ok()?;
            let number = |name: &str| body[name].as_u64().unwrap_or_default();
            let state = body["state"].as_str().unwrap_or_default().to_owned();
            Some((actor.pod.clone(), Answer { status, state, term: (number("epoch"), number("term")) }))
        };
        self.actors.iter().filter_map(answer).collect()
    }

    /// The answers and logs of all, for messages.
    pub fn what_they_say(&self) -> String {
        let say = |actor: &Actor| match &actor.sidecar {
            Some(sidecar) => format!("\n{}: {:?}\n{}", actor.pod, sidecar.leader(), sidecar.log_tail()),
            None => format!("\n{}: no sidecar", actor.pod),
        };
        self.actors.iter().map(say).collect()
    }
}
