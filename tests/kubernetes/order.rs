//! What comes first: who stops says so, loses the label, and only then lets go; who wins takes the label off the
//! one before, and only then carries it.
//!
//! The pollers, the timeline of the pods and that of the lock key are on one clock. What the timelines saw had
//! happened before; ways to and from the API server are slow where that would leave a doubt.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use support::kubernetes::{LabelChange, PodView};
use support::{Direction, Flow, Moment};

use crate::stage::{
    EXPIRES_SOON, NEVER_EXPIRES, PATIENCE, PROMISES_LITTLE, PROMISES_NOTHING, ROLE, Stage, TERM, figure, pod_options,
};

/// How much later a patch arrives, and its answer: together less than the 500 ms for which a release waits for the
/// label, and each far more than any timeline is late.
const PATCH_TAKES: Duration = Duration::from_millis(150);
const ANSWER_TAKES: Duration = Duration::from_millis(100);

/// A leader that has let go of the lock.
struct StoodDown {
    stage: Stage,
    begin: Moment,
    no: Moment,
    lock_gone: Moment,
}

/// A leader behind a slow path to the API server stops.
async fn stand_down(sabotage: &str, stop: fn(&mut Stage) -> Result<()>) -> Result<StoodDown> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_NOTHING]).await?;
    stage.create(&pod_options("web-0"))?;
    stage.start_with("web-0", |options| options.with_env("BELLWETHER_SABOTAGE", sabotage))?;
    stage.at_rest()?;
    // What is seen from here on is of the end.
    stage.timeline.catch_up(PATIENCE)?;
    stage.poll("web-0", Duration::from_millis(2))?;
    stage.proxy("web-0")?.set(Direction::ToServer, Flow::Delay(PATCH_TAKES));
    stage.proxy("web-0")?.set(Direction::ToClient, Flow::Delay(ANSWER_TAKES));
    let begin = Moment::now();
    stop(&mut stage)?;
    let no = stage.poller("web-0")?.wait_for(begin, begin.after(PATIENCE), |sample| sample.leading().is_none());
    let no = no.with_context(|| stage.what_they_say())?;
    let lock_gone = stage.lock.wait_for(PATIENCE, |change| change.value.is_none())?.seen;
    let late = stage.poller("web-0")?.samples_since(no.received).into_iter().find(|sample| sample.leading().is_some());
    ensure!(late.is_none_or(|sample| sample.sent > lock_gone), "200 again before the lock was gone: {late:?}");
    Ok(StoodDown { stage, begin, no: no.received, lock_gone })
}

/// Waits for the first change of a pod's role to this, seen since.
fn role_change(stage: &Stage, pod: &str, since: Moment, to: Option<&str>) -> Result<LabelChange> {
    let find = || {
        let changes = stage.timeline.label_changes(ROLE);
        changes.into_iter().find(|it| it.pod == pod && it.seen >= since && it.to.as_deref() == to)
    };
    crate::stage::wait_for(&format!("{pod} becomes {to:?}"), PATIENCE, || Ok(find().is_some()))?;
    find().context("just seen")
}

fn on_sigterm(stage: &mut Stage) -> Result<()> {
    stage.sidecar("web-0")?.signal(Signal::SIGTERM)
}

fn on_resigning(stage: &mut Stage) -> Result<()> {
    ensure!(stage.sidecar("web-0")?.resign("1h")? == 202);
    Ok(())
}

fn first_503_then_the_label_then_the_lock(what: &str, stood_down: &StoodDown) -> Result<()> {
    let StoodDown { stage, begin, no, lock_gone } = stood_down;
    let label_gone = role_change(stage, "web-0", *begin, None)?.seen;
    let label_after = label_gone.since(*no);
    let lock_after = lock_gone.since(label_gone);
    figure(&format!("{what}: 503 to the label gone, patches take {PATCH_TAKES:?}"), format_args!("{label_after:?}"));
    figure(
        &format!("{what}: label gone to the lock gone, answers take {ANSWER_TAKES:?}"),
        format_args!("{lock_after:?}"),
    );
    // The patch was sent after the 503 was published, and the lock is deleted after the answer has come back.
    ensure!(*no < label_gone, "the label was gone before the 503");
    ensure!(label_gone < *lock_gone, "the lock was gone before the label");
    Ok(())
}

#[tokio::test]
async fn on_sigterm_503_comes_first_then_the_label_goes_then_the_lock() -> Result<()> {
    first_503_then_the_label_then_the_lock("SIGTERM", &stand_down("", on_sigterm).await?)
}

#[tokio::test]
async fn on_resigning_503_comes_first_then_the_label_goes_then_the_lock() -> Result<()> {
    first_503_then_the_label_then_the_lock("resign", &stand_down("", on_resigning).await?)
}

#[tokio::test]
async fn control_without_waiting_for_the_label_the_lock_is_gone_before_it() -> Result<()> {
    for stop in [on_sigterm, on_resigning] {
        let StoodDown { stage, begin, lock_gone, .. } = stand_down("no-label-wait", stop).await?;
        // Who exits does not wait for long; the label may never go.
        let changes = stage.timeline.label_changes(ROLE).into_iter();
        let before: Vec<_> = changes.filter(|it| begin < it.seen && it.seen < lock_gone).collect();
        ensure!(before.is_empty(), "the test of the order does not bite: {before:?}");
    }
    Ok(())
}

/// What one sidecar after another made of the labels.
struct TakenOver {
    stage: Stage,
    /// The earlier leader's pod after each change, from when the new one led.
    term: String,
}

/// `web-0` leads, something happens to it, and `web-1` leads.
async fn take_over(
    sabotage: &str,
    arguments: &[&[&str]],
    stop: impl Fn(&mut Stage) -> Result<()>,
) -> Result<TakenOver> {
    let mut stage = Stage::shared(arguments).await?;
    stage.join("web-0")?;
    stage.create(&pod_options("web-1"))?;
    stage.start_with("web-1", |options| options.with_env("BELLWETHER_SABOTAGE", sabotage))?;
    stage.at_rest()?;
    stop(&mut stage)?;
    let body = stage.wait_for("web-1", |status, _| status == 200)?;
    stage.wait_for_role("web-1", Some("leader"))?;
    stage.timeline.catch_up(PATIENCE)?;
    let term = format!("{}/{}", body["epoch"], body["term"]);
    Ok(TakenOver { stage, term })
}

impl TakenOver {
    /// At which instants more than one pod carried the label.
    fn carried_together(&self) -> Vec<Vec<String>> {
        let carriers = self.stage.timeline.carriers(ROLE, "leader").into_iter();
        carriers.map(|(_, pods)| pods).filter(|pods| pods.len() > 1).collect()
    }

    /// The revision of the first change after which a pod is so.
    fn first(&self, pod: &str, is_so: impl Fn(&PodView) -> bool) -> Result<u64> {
        let changes = self.stage.timeline.changes();
        let found = changes.iter().find(|it| it.pod.name == pod && is_so(&it.pod));
        Ok(found.with_context(|| format!("{pod} never was so: {changes:#?}"))?.pod.revision)
    }

    /// The one before is without the label and stamped with the new term before the new one carries it.
    fn is_in_order(&self) -> Result<()> {
        let together = self.carried_together();
        ensure!(together.is_empty(), "at once: {together:?}");
        let new_term = |pod: &PodView| pod.annotation(TERM) == Some(&self.term);
        let stripped = self.first("web-0", |pod| pod.label(ROLE) != Some("leader") && new_term(pod))?;
        let labelled = self.first("web-1", |pod| pod.label(ROLE) == Some("leader"))?;
        ensure!(stripped < labelled, "stamped at {stripped}, the next labelled at {labelled}");
        // One patch does both: no version of the pod has the label together with a term that is not its own.
        let both = self.first("web-0", |pod| pod.label(ROLE) == Some("leader") && new_term(pod));
        ensure!(both.is_err(), "stamped with the next term while it carried the label");
        Ok(())
    }
}

fn kill9(stage: &mut Stage) -> Result<()> {
    stage.sidecar("web-0")?.kill9()
}

#[tokio::test]
async fn after_kill_9_the_dead_leaders_pod_is_stripped_and_stamped_before_the_next_is_labelled() -> Result<()> {
    take_over("", &[&EXPIRES_SOON, &PROMISES_LITTLE], kill9).await?.is_in_order()
}

#[tokio::test]
async fn also_when_each_call_takes_a_while_the_dead_leaders_pod_is_stripped_before_the_next_is_labelled() -> Result<()>
{
    // One call and the way to the server of a second fit into the 500 ms for which the others may delay one's own label.
    let slow = Flow::Delay(Duration::from_millis(150));
    let kill9_and_be_slow = |stage: &mut Stage| {
        stage.proxy("web-1")?.set(Direction::ToServer, slow);
        stage.proxy("web-1")?.set(Direction::ToClient, slow);
        kill9(stage)
    };
    take_over("", &[&EXPIRES_SOON, &PROMISES_LITTLE], kill9_and_be_slow).await?.is_in_order()
}

#[tokio::test]
async fn a_leader_that_took_its_label_off_is_stamped_all_the_same_before_the_next_is_labelled() -> Result<()> {
    for stop in [on_sigterm, on_resigning] {
        take_over("", &[&NEVER_EXPIRES, &PROMISES_LITTLE], stop).await?.is_in_order()?;
    }
    Ok(())
}

#[tokio::test]
async fn control_without_stripping_two_pods_carry_the_label() -> Result<()> {
    let taken_over = take_over("no-stripping", &[&EXPIRES_SOON, &PROMISES_LITTLE], kill9).await?;
    ensure!(taken_over.carried_together() == [["web-0", "web-1"]], "the test of stripping does not bite");
    Ok(())
}

#[tokio::test]
async fn in_jeopardy_the_label_goes_after_the_503_and_comes_back_with_the_same_term() -> Result<()> {
    let mut stage = Stage::shared(&[&["--lease-ttl", "3s"], &PROMISES_LITTLE]).await?;
    stage.join("web-0")?;
    stage.join("web-1")?;
    let before = stage.at_rest()?;
    stage.poll("web-0", Duration::from_millis(4))?;
    stage.etcd.freeze()?;
    let frozen = Moment::now();
    let no = stage.poller("web-0")?.wait_for(frozen, frozen.after(PATIENCE), |sample| sample.leading().is_none());
    let no = no.with_context(|| stage.what_they_say())?;
    let gone = role_change(&stage, "web-0", frozen, None)?;
    ensure!(no.sent < gone.seen, "the label was gone before the 503");
    figure("jeopardy: from the 503 to the label gone", format_args!("{:?}", gone.seen.since(no.received)));
    ensure!(gone.seen.since(no.received) < Duration::from_secs(1), "{:?}", gone.seen.since(no.received));
    stage.etcd.thaw()?;
    // Whether the lease has survived is for etcd to say; the labels follow.
    let after = stage.at_rest()?;
    ensure!(after == before || after.term > before.term, "{before:?}, then {after:?}");
    ensure!(TakenOver { stage, term: String::new() }.carried_together().is_empty());
    Ok(())
}
