//! The API server is away, slow, refuses, or is fought over: the election and `/leader` do not notice, and the label
//! is right within 5 s after it is itself again.
//!
//! One story for each fault: a leader and a standby; one handover to compare with; the fault begins; another handover
//! in the midst of it; the fault lasts, then ends. Both sidecars are polled all the while.

use std::any::Any;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use support::kubernetes::{ApiAnswer, Content, Throttle};
use support::{Direction, Flow, Moment, Sample, audit};

use crate::stage::{
    ACCOUNT, Again, PATIENCE, PROMISES_LITTLE, RIGHT_WITHIN, ROLE, RULES, Rest, Stage, figure, wait_for, wait_until,
};

/// Short enough that a driver which is held up by the API server loses its lease within the story.
const LEASE: [&str; 2] = ["--lease-ttl", "6s"];
/// How long a release waits at most until the label has been taken off.
const LABEL_WAIT: Duration = Duration::from_millis(500);
/// What a loaded machine may add to a handover.
const SLACK: Duration = Duration::from_millis(700);
/// A fault lasts longer than any call is waited for and any pause between calls.
const LASTS: Duration = Duration::from_secs(6);

/// What is done against the API server, and what is left of it until the fault is to end.
type Fault = Box<dyn Any>;

struct Story {
    stage: Stage,
    what: &'static str,
    rest: Rest,
    usual_handover: Duration,
}

impl Story {
    /// A leader and a standby at rest, after one handover without any fault.
    fn begin(mut stage: Stage, what: &'static str) -> Result<Self> {
        for pod in ["web-0", "web-1"] {
            stage.join(pod)?;
            stage.poll(pod, Duration::from_millis(8))?;
        }
        let rest = stage.at_rest()?;
        let mut story = Self { stage, what, rest, usual_handover: Duration::ZERO };
        story.usual_handover = story.hand_over()?;
        story.rest = story.stage.at_rest()?;
        Ok(story)
    }

    fn leader_and_other(&self) -> (&'static str, &'static str) {
        if self.rest.leader == "web-0" { ("web-0", "web-1") } else { ("web-1", "web-0") }
    }

    /// SIGTERM for the leader, which is started again at once. Returns the time until the other's first 200, which
    /// from then on is the leader.
    fn hand_over(&mut self) -> Result<Duration> {
        let (leader, other) = self.leader_and_other();
        let begin = Moment::now();
        self.stage.sidecar(leader)?.signal(Signal::SIGTERM)?;
        let lead = self.lead(other, begin)?;
        self.stage.sidecar(leader)?.wait_exit(PATIENCE)?;
        self.stage.sidecar(leader)?.restart()?;
        other.clone_into(&mut self.rest.leader);
        Ok(lead.received.since(begin))
    }

    fn lead(&self, pod: &str, since: Moment) -> Result<Sample> {
        let sample = self.stage.poller(pod)?.wait_for(since, since.after(PATIENCE), |it| it.leading().is_some());
        sample.with_context(|| format!("{pod} does not lead; {}", self.stage.what_they_say()))
    }

    /// A fault through which no label is changed, with a handover in the midst of it. Returns how long that took.
    fn suffer(
        &mut self,
        lasts: Duration,
        bring: impl FnOnce(&mut Stage) -> Result<Fault>,
    ) -> Result<(Duration, Fault)> {
        let suffered = self.endure(lasts, bring)?;
        let carriers = self.stage.timeline.carriers(ROLE, "leader");
        let carriers = carriers.last().map(|(_, pods)| pods.as_slice()).unwrap_or_default();
        ensure!(*carriers != [self.rest.leader.clone()], "{}: the label was changed through the fault", self.what);
        Ok(suffered)
    }

    /// As [`suffer`](Self::suffer), for a fault through which labels may be changed.
    fn endure(
        &mut self,
        lasts: Duration,
        bring: impl FnOnce(&mut Stage) -> Result<Fault>,
    ) -> Result<(Duration, Fault)> {
        let (leader, _) = self.leader_and_other();
        let fault = bring(&mut self.stage)?;
        let begun = Moment::now();
        wait_until(begun.after(lasts / 3));
        self.did_not_waver(leader, begun)?;
        let took = self.hand_over()?;
        let (leader, _) = self.leader_and_other();
        let handed_over = Moment::now();
        wait_until(begun.after(lasts));
        self.stage.poller(leader)?.wait_for(handed_over, handed_over.after(PATIENCE), |it| it.sent >= handed_over);
        self.did_not_waver(leader, handed_over)?;
        figure(&format!("{}: handover, usually {:?}", self.what, self.usual_handover), format_args!("{took:?}"));
        ensure!(took < self.usual_handover + LABEL_WAIT + SLACK, "{took:?}, usually {:?}", self.usual_handover);
        Ok((took, fault))
    }

    /// That every request to this sidecar since then was answered 200.
    fn did_not_waver(&self, pod: &str, since: Moment) -> Result<()> {
        let samples = self.stage.poller(pod)?.samples_since(since);
        ensure!(!samples.is_empty(), "{pod} was not asked");
        let wavered = samples.iter().find(|sample| sample.leading().is_none());
        ensure!(wavered.is_none(), "{pod} wavered: {wavered:?}\n{}", self.stage.what_they_say());
        Ok(())
    }

    /// The fault ends; the label must be right in time, and the leader the same as before. What happened meanwhile is
    /// told.
    fn recover(mut self, end: impl FnOnce(&mut Stage) -> Result<()>) -> Result<()> {
        let (leader, _) = self.leader_and_other();
        let before = Moment::now();
        end(&mut self.stage)?;
        let ended = Moment::now();
        let rest = self.stage.at_rest_within(RIGHT_WITHIN)?;
        figure(&format!("{}: label right after its end", self.what), format_args!("{:?}", Moment::now().since(ended)));
        ensure!(rest.leader == leader, "{leader} led, then {rest:?}");
        self.did_not_waver(leader, before)?;
        let mut seen = Vec::new();
        for pod in ["web-0", "web-1"] {
            seen.push((pod, self.stage.poller(pod)?.samples()));
        }
        let audit = audit(seen.iter().map(|(pod, samples)| (*pod, samples.as_slice())));
        ensure!(audit.keeps_the_promise() && audit.reigns.len() == 3, "{audit}");
        let expected = format!("{leader} became leader");
        let is_it = |event: &serde_json::Value| event["note"] == *expected;
        let stage = &self.stage;
        let told = || anyhow::Ok(stage.admin().events(&stage.namespace)?.iter().filter(|event| is_it(event)).count());
        // It led at first, too.
        wait_for("what happened is told", PATIENCE, || Ok(told()? == 2))
    }
}

async fn on_the_shared_server(what: &'static str) -> Result<Story> {
    Story::begin(Stage::shared(&[&LEASE, &PROMISES_LITTLE]).await?, what)
}

async fn on_a_server_of_its_own(what: &'static str) -> Result<Story> {
    Story::begin(Stage::alone(&[&LEASE, &PROMISES_LITTLE]).await?, what)
}

/// The fault needs nothing kept.
#[expect(clippy::unnecessary_wraps, reason = "how most faults begin, the others can fail")]
fn nothing_kept() -> Result<Fault> {
    Ok(Box::new(()))
}

#[tokio::test]
async fn killed_for_60_s_nobody_notices_and_the_label_is_right_within_5_s_of_its_return() -> Result<()> {
    let mut story = on_a_server_of_its_own("API server killed for 60 s").await?;
    story.suffer(Duration::from_secs(60), |stage| {
        stage.server_mut()?.kill();
        nothing_kept()
    })?;
    story.recover(|stage| stage.server_mut()?.restart())
}

#[tokio::test]
async fn stopped_with_sigstop() -> Result<()> {
    let mut story = on_a_server_of_its_own("API server frozen").await?;
    story.suffer(LASTS, |stage| {
        stage.server_mut()?.freeze()?;
        nothing_kept()
    })?;
    story.recover(|stage| stage.server_mut()?.thaw())
}

#[tokio::test]
async fn behind_a_black_hole_a_handover_takes_the_half_second_longer_for_which_the_label_is_waited_for() -> Result<()> {
    let mut story = on_the_shared_server("black hole").await?;
    let (took, _) = story.suffer(LASTS, |stage| {
        stage.proxies().iter().for_each(|proxy| proxy.black_hole());
        nothing_kept()
    })?;
    ensure!(took > LABEL_WAIT, "{took:?}: the label was not waited for");
    story.recover(heal)
}

#[expect(clippy::unnecessary_wraps, reason = "other faults need a way to heal that can fail")]
fn heal(stage: &mut Stage) -> Result<()> {
    stage.proxies().iter().for_each(|proxy| proxy.heal());
    Ok(())
}

fn delay(stage: &Stage, each_way: Duration) {
    for proxy in stage.proxies() {
        proxy.set(Direction::ToServer, Flow::Delay(each_way));
        proxy.set(Direction::ToClient, Flow::Delay(each_way));
    }
}

#[tokio::test]
async fn so_slow_that_no_call_comes_back_in_time() -> Result<()> {
    let mut story = on_the_shared_server("4 s for each call").await?;
    story.suffer(LASTS, |stage| {
        delay(stage, Duration::from_secs(2));
        nothing_kept()
    })?;
    story.recover(heal)
}

#[tokio::test]
async fn slow_and_the_label_is_right_within_5_s_all_the_same() -> Result<()> {
    let mut story = on_the_shared_server("400 ms for each call").await?;
    story.endure(Duration::from_millis(500), |stage| {
        delay(stage, Duration::from_millis(200));
        nothing_kept()
    })?;
    // Still slow.
    story.recover(|_| Ok(()))
}

#[tokio::test]
async fn every_connection_is_reset_again_and_again() -> Result<()> {
    let mut story = on_the_shared_server("connections reset every 20 ms").await?;
    let (_, cutting) = story.suffer(LASTS, |stage| {
        let proxies = stage.proxies();
        let cut = move || proxies.iter().for_each(|proxy| proxy.cut());
        Ok(Box::new(Again::and_again(Duration::from_millis(20), cut)?))
    })?;
    story.recover(|_| {
        drop(cutting);
        Ok(())
    })
}

#[tokio::test]
async fn every_connection_is_refused() -> Result<()> {
    let mut story = on_the_shared_server("connections refused").await?;
    story.suffer(LASTS, |stage| {
        stage.proxies().iter().for_each(|proxy| proxy.cut_and_refuse());
        nothing_kept()
    })?;
    story.recover(heal)
}

/// Waits until a sidecar has been refused like this; each change of the pod makes it try.
fn refused(stage: &mut Stage, code: &str) -> Result<()> {
    for pod in stage.names() {
        wait_for(&format!("{pod}: {code}"), PATIENCE, || {
            stage.label(&pod, ROLE, Some("poke"))?;
            let metrics = stage.sidecar(&pod)?.metrics()?;
            let of_code = |line: &&str| line.starts_with("bellwether_kubernetes_errors_total") && line.contains(code);
            Ok(metrics.lines().filter(of_code).any(|line| !line.ends_with(" 0")))
        })?;
    }
    Ok(())
}

#[tokio::test]
async fn tokens_are_revoked_and_new_ones_are_written_to_the_files() -> Result<()> {
    let mut story = on_the_shared_server("401").await?;
    story.suffer(LASTS, |stage| {
        stage.admin().delete_service_account(&stage.namespace, ACCOUNT)?;
        stage.admin().create_service_account(&stage.namespace, ACCOUNT)?;
        // The server remembers for 10 s that a token was good.
        refused(stage, "unauthorized")?;
        nothing_kept()
    })?;
    story.recover(|stage| {
        for pod in stage.names() {
            stage.mount(&pod)?.replace_token(&stage.admin().pod_token(&stage.namespace, &pod)?)?;
        }
        Ok(())
    })
}

#[tokio::test]
async fn every_right_is_taken_and_given_back() -> Result<()> {
    let mut story = on_the_shared_server("403").await?;
    story.suffer(LASTS, |stage| {
        stage.admin().grant(&stage.namespace, ACCOUNT, "[]")?;
        refused(stage, "forbidden")?;
        nothing_kept()
    })?;
    story.recover(|stage| stage.admin().grant(&stage.namespace, ACCOUNT, RULES))
}

#[tokio::test]
async fn every_request_is_answered_429() -> Result<()> {
    let mut story = on_the_shared_server("429").await?;
    let (_, throttle) = story.suffer(LASTS, |stage| {
        let throttle = Throttle::start(stage.server(), &stage.namespace, ACCOUNT)?;
        refused(stage, "throttled")?;
        Ok(Box::new(throttle))
    })?;
    let throttle = throttle.downcast::<Throttle>().ok().context("what was kept")?;
    story.recover(|_| throttle.lift())
}

#[tokio::test]
async fn every_patch_is_answered_500() -> Result<()> {
    let mut story = on_the_shared_server("500").await?;
    story.suffer(LASTS, |stage| {
        stage.admin().apply_object("", &broken_webhook(stage))?.ok()?;
        wait_for("patches are answered 500", PATIENCE, || Ok(poke(stage)?.status == 500))?;
        nothing_kept()
    })?;
    story.recover(|stage| {
        let webhook = stage.admin().path_of("", &broken_webhook(stage))?;
        stage.admin().delete(&webhook)?.ok()?;
        wait_for("patches are taken", PATIENCE, || Ok(poke(stage)?.status == 200))
    })
}

/// An admission webhook that nobody answers, for pods of this stage: the API server says 500.
fn broken_webhook(stage: &Stage) -> serde_json::Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": format!("broken.{}.test", stage.namespace)},
        "webhooks": [{
            "name": "broken.bellwether.test",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": stage.namespace}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["UPDATE"]}],
            // Nobody listens on port 1.
            "clientConfig": {"url": "https://127.0.0.1:1/"},
        }],
    })
}

fn poke(stage: &Stage) -> Result<ApiAnswer> {
    let path = format!("/api/v1/namespaces/{}/pods/web-0", stage.namespace);
    let poke = json!({"metadata": {"annotations": {"test/poke": format!("{:?}", Moment::now())}}});
    stage.admin().patch(&path, Content::MergePatch, &poke)
}

/// Somebody who writes these pods all the time.
fn write_all_the_time(stage: &Stage, pods: &[&str]) -> Result<Again> {
    let (admin, namespace) = (stage.admin().clone(), stage.namespace.clone());
    let pods: Vec<String> = pods.iter().map(ToString::to_string).collect();
    Again::and_again(Duration::from_millis(1), move || {
        let poke = json!({"metadata": {"annotations": {"test/storm": format!("{:?}", Moment::now())}}});
        for pod in &pods {
            // A pod that is not there, or a server that is not: the next time, then.
            admin.merge_patch_pod(&namespace, pod, &poke).ok();
        }
    })
}

#[tokio::test]
async fn somebody_writes_both_pods_all_the_time() -> Result<()> {
    let mut story = on_the_shared_server("409").await?;
    let (_, writers) = story.endure(LASTS, |stage| Ok(Box::new(write_all_the_time(stage, &["web-0", "web-1"])?)))?;
    story.recover(|_| {
        drop(writers);
        Ok(())
    })
}

#[tokio::test]
async fn conflicts_over_the_predecessors_pod_never_delay_the_leaders_own_label_by_more_than_half_a_second() -> Result<()>
{
    let mut story = on_the_shared_server("409 on the predecessor's pod").await?;
    let (leader, other) = story.leader_and_other();
    let writers = write_all_the_time(&story.stage, &[leader])?;
    let begin = Moment::now();
    story.stage.sidecar(leader)?.signal(Signal::SIGTERM)?;
    let lead = story.lead(other, begin)?;
    story.stage.wait_for_role(other, Some("leader"))?;
    let changes = story.stage.timeline.label_changes(ROLE);
    let labelled =
        changes.into_iter().find(|it| it.pod == other && it.seen > begin && it.to.as_deref() == Some("leader"));
    let after = labelled.context("just seen")?.seen.since(lead.sent);
    figure("200 to the label, with a storm on the predecessor's pod", format_args!("{after:?}"));
    ensure!(after < Duration::from_millis(500) + SLACK, "{after:?}");
    drop(writers);
    story.stage.at_rest_within(RIGHT_WITHIN).map(drop)
}
