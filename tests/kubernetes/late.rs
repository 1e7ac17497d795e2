//! Leaders of the past: a patch that was held up on its way, and one that does not know yet that it has been
//! deposed. Neither gets its label back.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use support::kubernetes::LoggedRequest;
use support::{Direction, Flow, Moment};

use crate::stage::{
    ELECTION, EXPIRES_SOON, NEVER_EXPIRES, PATIENCE, PROMISES_LITTLE, PROMISES_NOTHING, RIGHT_WITHIN, ROLE, Stage,
    TERM, figure, pod_options, wait_for, wait_until,
};

/// How late `old` hears from the API server. Two calls take longer than the 500 ms for which taking the label off
/// others may delay its own: so it gives up on the second, opens another connection, and when it hears that this is
/// open sends the patch with its own label. In between its way is blocked.
const HEARS_LATE: Duration = Duration::from_millis(300);
/// A request with a token is longer, and whatever else goes that way when a connection is opened is shorter.
const REQUEST_BYTES_LEAST: usize = 600;
/// How often the blocking is tried: a loaded machine may be too slow for it.
const ATTEMPTS: usize = 5;

/// `old` has won, and the patch that labels it is on its way, stuck in its proxy.
///
/// Followers carry no label here: so there is none to take off when it stops, and nothing else to patch before.
async fn a_patch_is_stuck(sabotage: &str, lease: &[&str]) -> Result<Stage> {
    for _ in 0..ATTEMPTS {
        let mut stage = Stage::shared(&[lease, &PROMISES_NOTHING, &["--label-follower="]]).await?;
        stage.join("first")?;
        stage.create(&pod_options("old"))?;
        stage.start_with("old", |options| options.with_env("BELLWETHER_SABOTAGE", sabotage))?;
        stage.wait_for("old", |_, body| body["state"] == "standby")?;
        stage.join("new")?;
        stage.wait_for_role("first", Some("leader"))?;
        has_a_connection(&mut stage, "old")?;
        stage.proxy("old")?.set(Direction::ToClient, Flow::Delay(HEARS_LATE));
        let connections = stage.proxy("old")?.accepted();
        stage.stop("first")?;
        let proxy = stage.proxy("old")?;
        wait_for("another connection", PATIENCE, || Ok(proxy.accepted() > connections))?;
        // Its first words have to pass; the answer to them is late.
        wait_until(Moment::now().after(HEARS_LATE / 4));
        proxy.set(Direction::ToServer, Flow::Silent);
        let stuck = || proxy.held(Direction::ToServer) > REQUEST_BYTES_LEAST;
        let sent = Moment::now().after(4 * HEARS_LATE);
        while !stuck() && !sent.passed() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if stuck() && stage.pod("old")?.label(ROLE).is_none() {
            return Ok(stage);
        }
    }
    bail!("the patch got through before its way was blocked, {ATTEMPTS} times");
}

/// Has a sidecar patch its pod, so that it has a connection open that nobody uses.
fn has_a_connection(stage: &mut Stage, pod: &str) -> Result<()> {
    stage.label(pod, ELECTION, None)?;
    let patches = |stage: &mut Stage| stage.sidecar(pod)?.metric("bellwether_label_patches_total{result=\"ok\"}");
    wait_for("it mends its pod", PATIENCE, || Ok(patches(stage)? == Some(1.0)))?;
    ensure!(stage.pod(pod)?.label(ELECTION).is_some());
    Ok(())
}

/// `old` is frozen while its patch is on its way; its lease expires, and `new` leads and is labelled.
async fn a_patch_is_late(sabotage: &str) -> Result<Stage> {
    let mut stage = a_patch_is_stuck(sabotage, &EXPIRES_SOON).await?;
    stage.sidecar("old")?.freeze()?;
    stage.wait_for("new", |status, _| status == 200)?;
    stage.wait_for_role("new", Some("leader"))?;
    Ok(stage)
}

/// The patches with which a pod labelled itself the leader.
fn patches_to_lead(stage: &Stage, pod: &str) -> Result<Vec<LoggedRequest>> {
    let mut requests = stage.server().requests(&stage.namespace)?;
    requests.retain(|it| {
        it.verb == "patch"
            && it.pod.as_deref() == Some(pod)
            && it.name == pod
            && it.body["metadata"]["labels"][ROLE] == "leader"
    });
    Ok(requests)
}

#[tokio::test]
async fn a_patch_of_an_old_leader_that_arrives_late_is_refused_with_409() -> Result<()> {
    let mut stage = a_patch_is_late("").await?;
    ensure!(patches_to_lead(&stage, "old")?.is_empty());
    stage.proxy("old")?.heal();
    wait_for("the late patch arrives", PATIENCE, || Ok(!patches_to_lead(&stage, "old")?.is_empty()))?;
    let late = &patches_to_lead(&stage, "old")?[0];
    ensure!(late.code == 409, "{late:?}");
    ensure!(late.body["metadata"]["resourceVersion"].is_string(), "{late:?}");
    stage.sidecar("old")?.thaw()?;
    stage.wait_for("old", |_, body| body["state"] == "standby")?;
    stage.timeline.catch_up(PATIENCE)?;
    let carriers = stage.timeline.carriers(ROLE, "leader").into_iter().map(|(_, pods)| pods);
    let carriers: Vec<_> = carriers.filter(|pods| !pods.is_empty()).collect();
    ensure!(carriers == [["first"], ["new"]], "{carriers:?}");
    Ok(())
}

#[tokio::test]
async fn control_without_resource_version_the_late_patch_of_an_old_leader_lands() -> Result<()> {
    let stage = a_patch_is_late("no-resource-version").await?;
    stage.proxy("old")?.heal();
    wait_for("the late patch arrives", PATIENCE, || Ok(!patches_to_lead(&stage, "old")?.is_empty()))?;
    let late = &patches_to_lead(&stage, "old")?[0];
    ensure!(late.code == 200, "the test of late patches does not bite: {late:?}");
    // The leader of now watches for whoever passes for it.
    stage.wait_for_pod("old", RIGHT_WITHIN, |pod| pod.label(ROLE) != Some("leader"))?;
    let carriers = stage.timeline.carriers(ROLE, "leader");
    let together = carriers.windows(2).find(|pair| pair[0].1 == ["new", "old"]);
    let [(begin, _), (end, _)] = together.context("the late patch landed and nobody saw it")? else { bail!("a pair") };
    figure("a late patch that landed was stripped after", format_args!("{:?}", end.since(*begin)));
    Ok(())
}

/// An operator has deleted the lock key of `old`, which cannot hear of it and believes for most of a minute that it
/// leads. `new` leads in a higher term.
async fn a_deposed_leader(sabotage: &str) -> Result<Stage> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    stage.create(&pod_options("old"))?;
    stage.start_with("old", |options| options.with_env("BELLWETHER_SABOTAGE", sabotage))?;
    stage.wait_for("old", |status, _| status == 200)?;
    stage.join("new")?;
    stage.at_rest()?;
    stage.proxy_to_etcd("old")?.black_hole();
    stage.etcd.delete(&stage.lock_key()).await?;
    stage.wait_for("new", |status, _| status == 200)?;
    Ok(stage)
}

#[tokio::test]
async fn who_believes_that_it_leads_in_a_lower_term_never_gets_its_label_back() -> Result<()> {
    let mut stage = a_deposed_leader("").await?;
    stage.wait_for_role("new", Some("leader"))?;
    let stripped = stage.wait_for_role("old", None)?;
    ensure!(stripped.annotation(TERM) == stage.pod("new")?.annotation(TERM), "{stripped:?}");
    stage.sidecar("old")?.wait_for_log("has seen a higher term", PATIENCE)?;
    ensure!(stage.sidecar("old")?.leader()?.0 == 200, "it still believes that it leads");
    stage.wait_until_synced("old", false)?;
    // Whatever else changes about its pod, it leaves the label alone: each change makes it look.
    let patches = patches_to_lead(&stage, "old")?.len();
    for poke in ["one", "two", "three"] {
        stage.annotate("old", "test/poke", Some(poke))?;
        stage.label("old", ROLE, Some("follower"))?;
    }
    stage.proxy_to_etcd("old")?.heal();
    ensure!(stage.at_rest()?.leader == "new");
    ensure!(patches_to_lead(&stage, "old")?.len() == patches, "it tried to label itself");
    let labelled = stage.timeline.label_changes(ROLE).into_iter();
    let labelled: Vec<_> = labelled.filter(|it| it.pod == "old" && it.to.as_deref() == Some("leader")).collect();
    ensure!(labelled.len() == 1, "{labelled:?}");
    let told = stage.sidecar("old")?.log().iter().filter(|line| line.contains("has seen a higher term")).count();
    ensure!(told == 1, "said {told} times");
    Ok(())
}

#[tokio::test]
async fn control_without_the_term_check_who_believes_that_it_leads_labels_itself_again() -> Result<()> {
    let stage = a_deposed_leader("no-term-check").await?;
    let again = || {
        let changes = stage.timeline.label_changes(ROLE).into_iter();
        changes.filter(|it| it.pod == "old" && it.to.as_deref() == Some("leader")).count() > 1
    };
    wait_for("the deposed leader labels itself: else the test of terms does not bite", PATIENCE, || Ok(again()))
}

#[tokio::test]
async fn a_higher_term_written_by_hand_keeps_the_label_off_until_it_is_taken_away_and_leadership_is_as_before()
-> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    stage.create(&pod_options("web-0").annotated(TERM, "0/9000000000000000000"))?;
    stage.start("web-0")?;
    stage.wait_for("web-0", |status, _| status == 200)?;
    let line = stage.sidecar("web-0")?.wait_for_log("has seen a higher term", PATIENCE)?;
    ensure!(line.contains("kubectl annotate pod web-0 bellwether.dev/term-"), "{line}");
    ensure!(stage.pod("web-0")?.label(ROLE) != Some("leader"));
    stage.wait_until_synced("web-0", false)?;
    let begin = Moment::now();
    stage.annotate("web-0", TERM, None)?;
    ensure!(stage.at_rest_within(RIGHT_WITHIN)?.leader == "web-0");
    figure("label right after a term written by hand is taken away", format_args!("{:?}", Moment::now().since(begin)));
    stage.wait_until_synced("web-0", true)?;
    Ok(())
}

#[tokio::test]
async fn who_stops_while_its_own_label_is_on_its_way_lets_go_only_when_that_cannot_arrive_any_more() -> Result<()> {
    let mut stage = a_patch_is_stuck("", &NEVER_EXPIRES).await?;
    let begin = Moment::now();
    stage.sidecar("old")?.signal(Signal::SIGTERM)?;
    stage.wait_for("old", |status, body| status == 503 && body["state"] == "standing_down")?;
    ensure!(stage.etcd.get(&stage.lock_key()).await?.as_deref() == Some("old"), "it let go while its label may arrive");
    stage.proxy("old")?.heal();
    let let_go = stage.lock.wait_for(PATIENCE, |change| change.seen > begin && change.value.is_none())?.seen;
    figure(
        "stopped while the label was on its way: until the lock was gone",
        format_args!("{:?}", let_go.since(begin)),
    );
    stage.sidecar("old")?.wait_exit(PATIENCE)?;
    stage.wait_for_role("new", Some("leader"))?;
    stage.timeline.catch_up(PATIENCE)?;
    let late = stage.timeline.label_changes(ROLE).into_iter();
    let late: Vec<_> = late.filter(|it| it.pod == "old" && it.to.is_some() && it.seen > let_go).collect();
    ensure!(late.is_empty() && stage.pod("old")?.label(ROLE).is_none(), "{late:?}");
    Ok(())
}
