//! What is learned of the pods when a watch is silent, refused, or too late.

use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use support::Moment;

use crate::gate::{Asked, Gate, Verdict, leader_behind_a_gate};
use crate::stage::{
    ACCOUNT, NEVER_EXPIRES, PATIENCE, PROMISES_LITTLE, RIGHT_WITHIN, ROLE, RULES, Stage, figure, pod_options, wait_for,
};

/// A watch ends after a minute, and is given up when it has not ended 5 s later.
const WATCH_MOST: Duration = Duration::from_secs(65);
/// For calls, on a loaded machine.
const SLACK: Duration = Duration::from_secs(5);

/// Edits the leader's role by hand and waits until it is as it was.
fn repaired(stage: &Stage, edit: Option<&str>, within: Duration) -> Result<()> {
    let edited = stage.label("web-0", ROLE, edit)?.revision;
    stage.wait_for_pod("web-0", within, |pod| pod.revision > edited && pod.label(ROLE) == Some("leader")).map(drop)
}

fn on_others(asked: &Asked) -> bool {
    asked.watches_by("labelSelector")
}

fn on_its_own(asked: &Asked) -> bool {
    asked.watches_by("fieldSelector")
}

fn impostor(stage: &Stage, name: &str) -> Result<()> {
    stage.admin().create_pod(&stage.namespace, &pod_options(name).labelled(ROLE, "leader")).map(drop)
}

#[tokio::test]
async fn a_watch_for_other_leaders_that_has_fallen_silent_is_opened_anew_within_65_s_while_the_own_one_lives()
-> Result<()> {
    let (mut stage, gate) = leader_behind_a_gate().await?;
    let silenced = gate.silence(on_others);
    ensure!(silenced > 0, "no such watch: {:#?}", gate.asked());
    let begin = Moment::now();
    impostor(&stage, "impostor")?;
    stage.wait_for_pod("impostor", WATCH_MOST + SLACK, |pod| pod.label(ROLE).is_none())?;
    let took = Moment::now().since(begin);
    figure("a second leader beside a silent watch, stripped after", format_args!("{took:?}"));
    // The other watch was not what told: what is edited on the own pod is seen at once all the while.
    ensure!(took > RIGHT_WITHIN, "the watch was not silent");
    stage.sidecar("web-0")?.wait_for(PATIENCE, |status, _| status == 200)?;
    Ok(())
}

#[tokio::test]
async fn a_watch_of_the_own_pod_that_has_fallen_silent_is_opened_anew_within_65_s() -> Result<()> {
    let (stage, gate) = leader_behind_a_gate().await?;
    ensure!(gate.silence(on_its_own) > 0);
    let begin = Moment::now();
    repaired(&stage, Some("follower"), WATCH_MOST + SLACK)?;
    figure("an edit beside a silent watch, repaired after", format_args!("{:?}", Moment::now().since(begin)));
    Ok(())
}

#[tokio::test]
async fn without_the_right_to_watch_hand_edits_and_other_leaders_are_found_by_looking() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    let without_watch = RULES.replace("[get, list, watch, patch]", "[get, list, patch]");
    stage.admin().grant(&stage.namespace, ACCOUNT, &without_watch)?;
    stage.create(&pod_options("web-0"))?;
    stage.start_with("web-0", |options| options)?;
    stage.wait_for_role("web-0", Some("leader"))?;
    stage.sidecar("web-0")?.wait_for_log("a right is missing", PATIENCE)?;
    repaired(&stage, None, RIGHT_WITHIN + SLACK)?;
    impostor(&stage, "impostor")?;
    stage.wait_for_pod("impostor", RIGHT_WITHIN + SLACK, |pod| pod.label(ROLE).is_none())?;
    ensure!(stage.sidecar("web-0")?.metric("bellwether_label_synced")? == Some(0.0), "nobody would tell it of an edit");
    Ok(())
}

#[tokio::test]
async fn a_version_too_old_to_watch_from_is_not_tried_again() -> Result<()> {
    let (stage, gate) = leader_behind_a_gate().await?;
    for (which, impostor_name) in [(on_its_own as fn(&Asked) -> bool, "impostor-0"), (on_others, "impostor-1")] {
        // As after a compaction: the version of the first list is forgotten, and only a new list helps.
        let forgotten = Mutex::new(None);
        gate.judge(move |asked| {
            let Some(version) = asked.uri.split("resourceVersion=").nth(1).filter(|_| which(asked)) else {
                return Verdict::Pass;
            };
            let version = version.split('&').next().map(str::to_owned);
            let mut forgotten = forgotten.lock().expect("nobody panics");
            if *forgotten.get_or_insert_with(|| version.clone()) == version {
                Verdict::Refuse(410)
            } else {
                Verdict::Pass
            }
        });
        let begin = Moment::now();
        ensure!(gate.end(which) > 0);
        wait_for("it is told that it is too late", PATIENCE, || Ok(gate.asked_since(begin).iter().any(which)))?;
        repaired(&stage, Some("follower"), RIGHT_WITHIN + SLACK)?;
        impostor(&stage, impostor_name)?;
        stage.wait_for_pod(impostor_name, RIGHT_WITHIN + SLACK, |pod| pod.label(ROLE).is_none())?;
        gate.pass_everything();
    }
    Ok(())
}

#[tokio::test]
async fn a_pod_that_cannot_be_stripped_keeps_no_other_from_being_stripped() -> Result<()> {
    for verdict in [Verdict::Refuse(422), Verdict::Refuse(500), Verdict::Hold] {
        let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
        // The first by its name, and there from the beginning.
        impostor(&stage, "a-stuck")?;
        stage.create(&pod_options("web-0"))?;
        let gate = Gate::start(&stage)?;
        let judged = verdict.clone();
        gate.judge(move |asked| if asked.patches("a-stuck") { judged.clone() } else { Verdict::Pass });
        let options = gate.before(&stage, stage.options("web-0")?)?;
        stage.start_with("web-0", |_| options)?;
        stage.wait_for_role("web-0", Some("leader"))?;
        wait_for("it is tried", PATIENCE, || Ok(gate.asked().iter().any(|asked| asked.patches("a-stuck"))))?;
        wait_for("it is said", PATIENCE, || Ok(synced(&mut stage)? == Some(0.0)))?;
        for other in ["b-other", "c-other"] {
            let begin = Moment::now();
            impostor(&stage, other)?;
            stage.wait_for_pod(other, RIGHT_WITHIN + SLACK, |pod| pod.label(ROLE).is_none())?;
            figure(
                &format!("{verdict:?} for one pod, another is stripped after"),
                format_args!("{:?}", Moment::now().since(begin)),
            );
        }
        // Nor its own from being repaired.
        repaired(&stage, None, RIGHT_WITHIN + SLACK)?;
        gate.pass_everything();
        stage.wait_for_pod("a-stuck", RIGHT_WITHIN + SLACK, |pod| pod.label(ROLE).is_none())?;
        wait_for("all is right", PATIENCE, || Ok(synced(&mut stage)? == Some(1.0)))?;
    }
    Ok(())
}

fn synced(stage: &mut Stage) -> Result<Option<f64>> {
    stage.sidecar("web-0")?.metric("bellwether_label_synced")
}

#[tokio::test]
async fn a_predecessors_pod_that_cannot_be_read_keeps_no_other_from_being_stripped() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    stage.join("web-0")?;
    stage.create(&pod_options("web-1"))?;
    let gate = Gate::start(&stage)?;
    let options = gate.before(&stage, stage.options("web-1")?)?;
    gate.judge(|asked| {
        let reads = asked.method == hyper::Method::GET && asked.uri.contains("/pods/web-0");
        if reads { Verdict::Refuse(403) } else { Verdict::Pass }
    });
    stage.start_with("web-1", |_| options)?;
    stage.at_rest()?;
    impostor(&stage, "impostor-0")?;
    stage.wait_for_role("impostor-0", None)?;
    stage.stop("web-0")?;
    stage.wait_for_role("web-1", Some("leader")).context("the next leads")?;
    impostor(&stage, "impostor-1")?;
    stage.wait_for_pod("impostor-1", RIGHT_WITHIN + SLACK, |pod| pod.label(ROLE).is_none())?;
    Ok(())
}
