//! What the labels are, and that they stay so, whoever else writes them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::kubernetes::{PodOptions, PodView};
use support::{Moment, Sidecar};

use crate::stage::{
    ACCOUNT, ELECTION, NEVER_EXPIRES, PATIENCE, PROMISES_LITTLE, RIGHT_WITHIN, ROLE, Rest, Stage, TERM, figure,
    pod_options, wait_for,
};

/// A leader `web-0` and a follower `web-1`.
async fn leader_and_follower() -> Result<(Stage, Rest)> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    stage.join("web-0")?;
    stage.join("web-1")?;
    let rest = stage.at_rest()?;
    ensure!(rest.leader == "web-0", "{rest:?}");
    Ok((stage, rest))
}

/// Waits until everything is as it was, and says how long that took.
fn mended(stage: &Stage, what: &str, since: Moment, rest: &Rest) -> Result<()> {
    let now = stage.at_rest_within(RIGHT_WITHIN)?;
    figure(&format!("mended: {what}"), format_args!("{:?}", Moment::now().since(since)));
    ensure!(now == *rest, "{rest:?}, then {now:?}");
    Ok(())
}

#[tokio::test]
async fn the_leaders_pod_is_labelled_with_its_term_and_the_others_are_followers() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    for pod in ["web-0", "web-1", "web-2"] {
        stage.join(pod)?;
    }
    let rest = stage.at_rest()?;
    ensure!(rest.leader == "web-0", "{rest:?}");
    for pod in ["web-1", "web-2"] {
        ensure!(stage.pod(pod)?.label(ROLE) == Some("follower"));
    }
    stage.stop("web-0")?;
    let next = stage.at_rest()?;
    ensure!(next.leader == "web-1" && next.term > rest.term, "{next:?} after {rest:?}");
    ensure!(stage.pod("web-0")?.label(ROLE).is_none(), "who has gone is neither");
    Ok(())
}

#[tokio::test]
async fn in_the_cluster_the_service_account_and_the_environment_suffice() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES]).await?;
    for pod in ["web-0", "web-1"] {
        stage.create(&pod_options(pod))?;
        let options = stage.options_in_cluster(pod)?;
        stage.start_with(pod, |_| options)?;
        stage.wait_for(pod, |_, body| body["state"] != "starting")?;
    }
    let rest = stage.at_rest()?;
    ensure!(rest.leader == "web-0", "{rest:?}");
    // The lock is that of the service account's namespace.
    ensure!(stage.etcd.get(&stage.lock_key()).await?.as_deref() == Some("web-0"));
    Ok(())
}

#[tokio::test]
async fn a_pod_that_is_not_to_be_labelled_is_left_alone_and_the_api_server_is_never_asked() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES]).await?;
    stage.create(&pod_options("web-0"))?;
    let before = stage.pod("web-0")?;
    stage.start_with("web-0", |options| options.with(&["--pod-label", "off"]))?;
    stage.wait_for("web-0", |status, _| status == 200)?;
    stage.stop("web-0")?;
    ensure!(stage.pod("web-0")? == before && stage.proxy("web-0")?.accepted() == 0);
    Ok(())
}

#[tokio::test]
async fn what_is_written_by_hand_is_mended_on_leader_and_follower() -> Result<()> {
    // Few at a time: who edits again and again is another test.
    let stories: [&[(&str, &str, Option<&str>)]; 4] = [
        &[("web-0", ROLE, None), ("web-1", ROLE, None), ("web-0", ELECTION, None), ("web-1", ELECTION, None)],
        &[("web-0", ROLE, Some("follower")), ("web-1", ROLE, Some("leader")), ("web-0", TERM, None)],
        &[("web-0", ROLE, Some("whatever")), ("web-1", ROLE, Some("whatever")), ("web-0", TERM, Some("0/1"))],
        &[("web-0", ELECTION, Some("other")), ("web-1", ELECTION, Some("other")), ("web-0", TERM, Some("high"))],
    ];
    for story in stories {
        let (mut stage, rest) = leader_and_follower().await?;
        for (pod, key, value) in story {
            let begin = Moment::now();
            let change =
                if *key == TERM { stage.annotate(pod, key, *value)? } else { stage.label(pod, key, *value)? };
            stage.wait_for_pod(pod, RIGHT_WITHIN, |pod| {
                pod.revision > change.revision && pod.label(ELECTION) == Some("test")
            })?;
            mended(&stage, &format!("{key}={value:?} on {pod}"), begin, &rest)?;
        }
        for pod in ["web-0", "web-1"] {
            ensure!(
                stage.sidecar(pod)?.log().iter().any(|line| line.contains("somebody had changed this pod's label"))
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn labels_and_annotations_of_others_are_never_touched() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    for pod in ["web-0", "web-1"] {
        stage.create(&pod_options(pod).labelled("app", "web").annotated("note", "mine"))?;
        stage.start(pod)?;
    }
    stage.at_rest()?;
    stage.label("web-0", "app", Some("other"))?;
    stage.stop("web-0")?;
    stage.at_rest()?;
    let of_others = |pod: PodView| {
        let ours = [ROLE, ELECTION, TERM];
        let theirs = pod.labels.into_iter().chain(pod.annotations).filter(|(key, _)| !ours.contains(&key.as_str()));
        theirs.map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>()
    };
    ensure!(of_others(stage.pod("web-0")?) == ["app=other", "note=mine"]);
    ensure!(of_others(stage.pod("web-1")?) == ["app=web", "note=mine"]);
    Ok(())
}

#[tokio::test]
async fn every_pod_that_passes_for_the_leader_is_stripped_within_5_s_and_those_of_other_elections_are_not() -> Result<()>
{
    let (stage, rest) = leader_and_follower().await?;
    // As many at once as one look of the leader takes in.
    let impostors: Vec<String> = (0..32).map(|number| format!("impostor-{number}")).collect();
    let leader = |pod: PodOptions| pod.labelled(ROLE, "leader");
    stage
        .admin()
        .create_pod(&stage.namespace, &leader(PodOptions::new("foreigner", ACCOUNT)).labelled(ELECTION, "db"))?;
    stage.admin().create_pod(&stage.namespace, &leader(PodOptions::new("bystander", ACCOUNT)))?;
    for name in &impostors {
        stage.admin().create_pod(&stage.namespace, &pod_options(name))?;
    }
    for name in &impostors {
        stage.label(name, ROLE, Some("leader"))?;
    }
    let labelled = Moment::now();
    for name in &impostors {
        let stripped = stage.wait_for_pod(name, PATIENCE, |pod| pod.label(ROLE).is_none())?;
        ensure!(stripped.annotation(TERM) == Some(&format!("{}/{}", rest.term.0, rest.term.1)), "{stripped:?}");
    }
    let took = Moment::now().since(labelled);
    figure("32 pods labelled by hand, stripped after the last was", format_args!("{took:?}"));
    ensure!(took < RIGHT_WITHIN, "{took:?}");
    for name in ["foreigner", "bystander"] {
        let pod = stage.pod(name)?;
        ensure!(pod.label(ROLE) == Some("leader") && pod.annotation(TERM).is_none(), "{pod:?}");
    }
    Ok(())
}

#[tokio::test]
async fn pods_that_passed_for_the_leader_before_anybody_led_are_stripped_when_somebody_does() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES]).await?;
    for name in ["impostor-0", "impostor-1"] {
        stage.create(&pod_options(name).labelled(ROLE, "leader").annotated(TERM, "0/1"))?;
    }
    stage.join("web-0")?;
    ensure!(stage.at_rest()?.leader == "web-0");
    stage.timeline.catch_up(PATIENCE)?;
    let carriers: Vec<_> = stage.timeline.carriers(ROLE, "leader").into_iter().map(|(_, pods)| pods).collect();
    ensure!(!carriers.iter().any(|pods| pods.len() > 1 && pods.contains(&"web-0".to_owned())), "{carriers:?}");
    Ok(())
}

#[tokio::test]
async fn a_pod_restored_with_the_label_and_term_of_the_past_is_stripped_and_then_a_follower() -> Result<()> {
    let (mut stage, rest) = leader_and_follower().await?;
    let old = format!("{}/{}", rest.term.0, rest.term.1);
    stage.stop("web-0")?;
    let rest = stage.at_rest()?;
    // As a backup or a StatefulSet's edited template would bring it back.
    stage.admin().delete_pod(&stage.namespace, "web-0")?;
    let begin = Moment::now();
    stage.create(&pod_options("web-0").labelled(ROLE, "leader").annotated(TERM, &old))?;
    mended(&stage, "a restored pod with the leader's label, its sidecar not yet started", begin, &rest)?;
    stage.start("web-0")?;
    ensure!(stage.at_rest()? == rest);
    ensure!(stage.pod("web-0")?.label(ROLE) == Some("follower"));
    Ok(())
}

#[tokio::test]
async fn a_container_that_starts_anew_takes_the_label_of_its_past_off_before_it_leads_again() -> Result<()> {
    let mut stage = Stage::shared(&[&["--lease-ttl", "5s"], &PROMISES_LITTLE]).await?;
    stage.join("web-0")?;
    let before = stage.at_rest()?;
    stage.sidecar("web-0")?.kill9()?;
    ensure!(stage.pod("web-0")?.label(ROLE) == Some("leader"), "nobody is there to take it off");
    let begin = Moment::now();
    stage.sidecar("web-0")?.restart()?;
    stage.wait_for_role("web-0", None)?;
    let gone = Moment::now();
    figure("from the start of the process to the stale label gone", format_args!("{:?}", gone.since(begin)));
    ensure!(gone.since(begin) < RIGHT_WITHIN);
    let after = stage.at_rest()?;
    ensure!(after.term > before.term, "{before:?}, then {after:?}");
    let roles: Vec<_> = stage.timeline.label_changes(ROLE).into_iter().map(|it| it.to).collect();
    // A follower in between is no lie; the leader of before is.
    let roles: Vec<_> = roles.iter().map(Option::as_deref).filter(|role| *role != Some("follower")).collect();
    ensure!(roles == [Some("leader"), None, Some("leader")], "{roles:?}");
    Ok(())
}

/// With `--state-dir`, as in the charts: the kubelet starts a container again that was killed.
#[tokio::test]
async fn a_container_that_goes_on_with_its_term_wears_the_leaders_label_and_no_other_pod_does() -> Result<()> {
    let mut stage = Stage::shared(&[&["--lease-ttl", "3s"], &PROMISES_LITTLE]).await?;
    let folder = tempfile::tempdir()?;
    let flags = ["--state-dir", folder.path().to_str().context("a path of ASCII")?];
    stage.create(&pod_options("web-0"))?;
    stage.start_with("web-0", |options| options.with(&flags))?;
    stage.wait_for("web-0", |status, _| status == 200)?;
    stage.join("web-1")?;
    let before = stage.at_rest()?;
    wait_for("the sidecar has outlasted its lease", PATIENCE, || {
        let left: Value = serde_json::from_slice(&std::fs::read(folder.path().join("state.json"))?)?;
        let time = |name: &str| left[name].as_u64().unwrap_or(0);
        Ok(time("sent_ns").saturating_sub(time("began_ns")) >= 3_000_000_000)
    })?;
    stage.sidecar("web-0")?.kill9()?;
    let begin = Moment::now();
    stage.sidecar("web-0")?.restart()?;
    mended(&stage, "a killed sidecar goes on with its term", begin, &before)?;
    // The old label may not have been taken off yet when that was seen; this is when the new process has shown its role.
    stage.wait_until_synced("web-0", true)?;
    mended(&stage, "and its label is its own", begin, &before)?;
    let changes = stage.timeline.label_changes(ROLE);
    let shown = changes.iter().filter(|it| it.to.as_deref() == Some("leader"));
    ensure!(shown.clone().count() > 0 && shown.clone().all(|it| it.pod == "web-0"), "{changes:?}");
    Ok(())
}

#[tokio::test]
async fn the_label_of_the_past_goes_at_the_start_also_when_etcd_is_away() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES]).await?;
    stage.create(&pod_options("web-0").labelled(ROLE, "leader").annotated(TERM, "0/1"))?;
    stage.etcd.kill();
    stage.start_with("web-0", |options| options)?;
    stage.wait_for_role("web-0", None)?;
    stage.etcd.restart().await?;
    ensure!(stage.at_rest()?.leader == "web-0");
    Ok(())
}

#[tokio::test]
async fn the_label_of_another_election_is_respected_and_said_once_until_it_is_corrected() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES]).await?;
    let foreign = PodOptions::new("web-0", ACCOUNT).labelled(ELECTION, "db").labelled(ROLE, "leader");
    stage.create(&foreign)?;
    let before = stage.pod("web-0")?;
    stage.start_with("web-0", |options| options)?;
    stage.wait_for("web-0", |status, _| status == 200)?;
    let said = "carries the label bellwether.dev/election of another election";
    stage.sidecar("web-0")?.wait_for_log(said, PATIENCE)?;
    ensure!(stage.pod("web-0")? == before, "left as it was");
    stage.wait_until_synced("web-0", false)?;
    // Each change makes it look again.
    for poke in ["one", "two"] {
        stage.annotate("web-0", "test/poke", Some(poke))?;
    }
    let begin = Moment::now();
    stage.label("web-0", ELECTION, Some("test"))?;
    ensure!(stage.at_rest_within(RIGHT_WITHIN)?.leader == "web-0");
    figure("label right after the election's is corrected", format_args!("{:?}", Moment::now().since(begin)));
    let told = stage.sidecar("web-0")?.log().iter().filter(|line| line.contains(said)).count();
    ensure!(told == 1, "said {told} times");
    Ok(())
}

#[tokio::test]
async fn the_elections_label_is_added_where_the_template_lacks_it() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES]).await?;
    for pod in ["web-0", "web-1"] {
        stage.create(&PodOptions::new(pod, ACCOUNT))?;
        stage.start(pod)?;
    }
    stage.at_rest()?;
    for pod in ["web-0", "web-1"] {
        ensure!(stage.pod(pod)?.label(ELECTION) == Some("test"));
    }
    Ok(())
}

type Pairs = BTreeMap<String, String>;

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Pairs {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Starts a leader and a follower with these arguments and waits until their labels are exactly these.
fn become_labelled(stage: &mut Stage, election: &str, arguments: &[&str], labels: [Pairs; 2]) -> Result<[PodView; 2]> {
    let names = [format!("{election}-0"), format!("{election}-1")];
    for name in &names {
        stage.create(&PodOptions::new(name, ACCOUNT))?;
        stage.start_with(name, |mut options| {
            election.clone_into(&mut options.election);
            options.with(arguments)
        })?;
        stage.wait_for(name, |_, body| body["state"] == "leading" || body["state"] == "standby")?;
    }
    let [leader, follower] = labels;
    Ok([
        stage.wait_for_pod(&names[0], PATIENCE, |pod| pod.labels == leader)?,
        stage.wait_for_pod(&names[1], PATIENCE, |pod| pod.labels == follower)?,
    ])
}

#[tokio::test]
async fn a_preset_labels_as_older_sidecars_did() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES]).await?;
    let presets = [
        ("bellwether", "bellwether.dev/role", "leader", "follower"),
        ("leader-labeler", "is-leader", "true", "false"),
        ("leader-elector", "role", "leader", "follower"),
        ("patroni", "role", "primary", "replica"),
        ("spilo", "spilo-role", "master", "replica"),
        ("vault", "vault-active", "true", "false"),
    ];
    for (preset, key, leader, follower) in presets {
        let labels = [leader, follower].map(|role| pairs([(ELECTION, preset), (key, role)]));
        let [leader, follower] = become_labelled(&mut stage, preset, &["--label-preset", preset], labels)?;
        ensure!(leader.annotation(TERM).is_some() && follower.annotation(TERM).is_none(), "{leader:?} {follower:?}");
    }
    Ok(())
}

#[tokio::test]
async fn every_key_and_value_can_be_chosen_and_followers_can_go_without_a_label() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES]).await?;
    let keys = ["--label-key=shop.example/role", "--election-label-key=shop.example/of"];
    let more = ["--term-annotation-key=shop.example/term", "--label-leader=boss", "--label-follower="];
    let of = ("shop.example/of", "shop");
    let labels = [pairs([of, ("shop.example/role", "boss")]), pairs([of])];
    let [leader, follower] = become_labelled(&mut stage, "shop", &[&keys[..], &more[..]].concat(), labels)?;
    let keys: Vec<_> = leader.annotations.keys().collect();
    ensure!(keys == ["shop.example/term"] && follower.annotations.is_empty(), "{leader:?} {follower:?}");
    stage.stop("shop-0")?;
    let labels = pairs([of, ("shop.example/role", "boss")]);
    stage.wait_for_pod("shop-1", PATIENCE, |pod| pod.labels == labels)?;
    ensure!(stage.pod("shop-0")?.labels == pairs([of]));
    Ok(())
}

#[tokio::test]
async fn two_sidecars_of_two_elections_share_a_pod_when_each_has_keys_of_its_own() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES]).await?;
    stage.join("web-0")?;
    let mut options = stage.options("web-0")?;
    "db".clone_into(&mut options.election);
    let keys = ["--label-key=db.example/role", "--election-label-key=db.example/of"];
    let second = Sidecar::start(&options.with(&keys).with(&["--term-annotation-key=db.example/term"]))?;
    second.wait_until_leading(PATIENCE)?;
    let ours = [(ELECTION, "test"), (ROLE, "leader"), ("db.example/of", "db"), ("db.example/role", "leader")];
    let labels = pairs(ours);
    stage.wait_for_pod("web-0", PATIENCE, |pod| pod.labels == labels)?;
    // Each repairs its own.
    for key in [ROLE, "db.example/role"] {
        let edit = stage.label("web-0", key, None)?.revision;
        stage.wait_for_pod("web-0", RIGHT_WITHIN, |pod| pod.revision > edit && pod.labels == labels)?;
    }
    Ok(())
}
