//! Beginnings and ends: patches that outlive the role they were made for, pods that outlive their process and the
//! other way round, and kubeconfigs that change under a running sidecar.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use support::{Direction, Flow, Moment};

use crate::gate::{Asked, Gate, Verdict};
use crate::stage::{
    ELECTION, NEVER_EXPIRES, PATIENCE, PROMISES_LITTLE, PROMISES_NOTHING, RIGHT_WITHIN, ROLE, Stage, TERM, figure,
    pod_options, wait_for,
};

/// How long a release waits at most until the label has been taken off.
const LABEL_WAIT: Duration = Duration::from_millis(500);
/// For calls, on a loaded machine.
const SLACK: Duration = Duration::from_secs(5);
const SYNCED: &str = "bellwether_label_synced";

fn to_lead(asked: &Asked) -> bool {
    asked.patches("web-0") && asked.body["metadata"]["labels"][ROLE] == "leader"
}

fn hold_patches_to_lead(gate: &Gate) {
    gate.judge(|asked| if to_lead(asked) { Verdict::Hold } else { Verdict::Pass });
}

/// `web-0` leads behind a gate. Who takes its place when it resigns knows nothing of pods: nobody but `web-0` itself
/// sees to its label.
async fn lead(prepare: fn(&Gate)) -> Result<(Stage, Gate)> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_NOTHING, &["--label-follower="]]).await?;
    stage.create(&pod_options("web-0"))?;
    let gate = Gate::start(&stage)?;
    prepare(&gate);
    let options = gate.before(&stage, stage.options("web-0")?)?;
    stage.start_with("web-0", |_| options)?;
    stage.wait_for("web-0", |status, _| status == 200)?;
    stage.create(&pod_options("web-1"))?;
    stage.start_with("web-1", |options| options.with(&["--pod-label", "off"]))?;
    stage.wait_for("web-1", |_, body| body["state"] == "standby")?;
    Ok((stage, gate))
}

/// `web-0` leads, and the patch that labels it is on its way: its pod never had a role.
async fn label_on_its_way() -> Result<(Stage, Gate)> {
    let (stage, gate) = lead(hold_patches_to_lead).await?;
    wait_for("the patch is sent", PATIENCE, || Ok(gate.asked().iter().any(to_lead)))?;
    Ok((stage, gate))
}

/// Whether the leader's label ever came, and when it went for good.
fn label_went(stage: &Stage) -> Result<Option<Moment>> {
    stage.timeline.catch_up(PATIENCE)?;
    let changes = stage.timeline.label_changes(ROLE);
    ensure!(changes.last().is_none_or(|last| last.to.is_none()), "{changes:?}");
    Ok(changes.last().map(|last| last.seen))
}

#[tokio::test]
async fn while_nothing_is_known_of_a_leaders_patch_sigterm_holds_the_lock_for_half_a_second() -> Result<()> {
    let (mut stage, gate) = label_on_its_way().await?;
    // Nor can anything overtake it.
    gate.judge(|asked| if asked.patches("web-0") { Verdict::Hold } else { Verdict::Pass });
    let begin = Moment::now();
    stage.sidecar("web-0")?.signal(Signal::SIGTERM)?;
    let took = lock_gone(&stage)?.since(begin);
    figure("SIGTERM to the lock gone, patches on their way", format_args!("{took:?}"));
    ensure!(took >= LABEL_WAIT, "{took:?}: nobody could know that the label was off");
    ensure!(stage.sidecar("web-0")?.wait_exit(PATIENCE)?.code() == Some(0));
    Ok(())
}

fn lock_gone(stage: &Stage) -> Result<Moment> {
    Ok(stage.lock.wait_for(PATIENCE, |change| change.value.as_deref() != Some("web-0"))?.seen)
}

#[tokio::test]
async fn a_leaders_patch_that_is_held_up_is_made_worthless_before_the_lock_goes() -> Result<()> {
    for stop in [Stop::Sigterm, Stop::Resign] {
        let (mut stage, gate) = label_on_its_way().await?;
        stop.stop(&mut stage)?;
        let lock_gone = lock_gone(&stage)?;
        stage.wait_for_pod("web-0", PATIENCE, |pod| pod.annotation(TERM).is_some())?;
        let changes = stage.timeline.changes();
        let stamped = changes.iter().find(|it| it.pod.name == "web-0" && it.pod.annotation(TERM).is_some());
        ensure!(stamped.context("just seen")?.seen < lock_gone, "the lock was gone before the pod was stamped");
        gate.open();
        wait_for("the patch arrives", PATIENCE, || Ok(!gate.passed_late().is_empty()))?;
        ensure!(gate.passed_late() == [409], "{:?}", gate.passed_late());
        ensure!(label_went(&stage)?.is_none(), "{:?}", stage.timeline.label_changes(ROLE));
    }
    Ok(())
}

#[tokio::test]
async fn a_leaders_patch_that_lands_at_sigterm_is_taken_back_before_the_lock_goes() -> Result<()> {
    for stop in [Stop::Sigterm, Stop::Resign] {
        let (mut stage, gate) = label_on_its_way().await?;
        stop.stop(&mut stage)?;
        stage.wait_for("web-0", |status, _| status == 503)?;
        gate.open();
        let lock_gone = lock_gone(&stage)?;
        wait_for("the patch arrives", PATIENCE, || Ok(!gate.passed_late().is_empty()))?;
        stage.wait_for_role("web-0", None)?;
        // On a slow machine it was overtaken before it arrived.
        let late = gate.passed_late();
        match label_went(&stage)? {
            Some(label_gone) => ensure!(late == [200] && label_gone < lock_gone, "{late:?}: the lock was gone first"),
            None => ensure!(late == [409], "{late:?}"),
        }
    }
    Ok(())
}

enum Stop {
    Sigterm,
    Resign,
}

impl Stop {
    fn stop(&self, stage: &mut Stage) -> Result<()> {
        match self {
            Self::Sigterm => stage.sidecar("web-0")?.signal(Signal::SIGTERM),
            Self::Resign => resign(stage),
        }
    }
}

fn resign(stage: &mut Stage) -> Result<()> {
    ensure!(stage.sidecar("web-0")?.resign("1h")? == 202);
    Ok(())
}

#[tokio::test]
async fn a_leaders_patch_that_nobody_waited_for_long_enough_is_refused_when_it_arrives() -> Result<()> {
    let (mut stage, gate) = label_on_its_way().await?;
    // The pod is to be labelled still: the call has its time, and the next one is held as well.
    wait_for("it is sent again", PATIENCE, || Ok(gate.asked().iter().filter(|asked| to_lead(asked)).count() > 1))?;
    resign(&mut stage)?;
    stage.wait_for_pod("web-0", PATIENCE, |pod| pod.annotation(TERM).is_some())?;
    gate.open();
    wait_for("both arrive", PATIENCE, || Ok(gate.passed_late().len() > 1))?;
    ensure!(gate.passed_late().iter().all(|code| *code == 409), "{:?}", gate.passed_late());
    ensure!(label_went(&stage)?.is_none(), "{:?}", stage.timeline.label_changes(ROLE));
    Ok(())
}

#[tokio::test]
async fn a_leaders_repair_that_is_held_up_is_made_worthless_although_the_pod_has_the_term_already() -> Result<()> {
    let (mut stage, gate) = lead(Gate::pass_everything).await?;
    stage.wait_for_role("web-0", Some("leader"))?;
    // The pod has the term already: the same stamp again would not make it another version.
    hold_patches_to_lead(&gate);
    let begin = Moment::now();
    let edited = stage.label("web-0", ROLE, None)?;
    wait_for("the repair is sent", PATIENCE, || Ok(gate.asked_since(begin).iter().any(to_lead)))?;
    resign(&mut stage)?;
    stage.wait_for_pod("web-0", PATIENCE, |pod| pod.revision > edited.revision)?;
    gate.open();
    wait_for("the repair arrives", PATIENCE, || Ok(!gate.passed_late().is_empty()))?;
    ensure!(gate.passed_late() == [409], "{:?}", gate.passed_late());
    ensure!(stage.pod("web-0")?.label(ROLE).is_none());
    Ok(())
}

#[tokio::test]
async fn synced_is_0_from_the_change_of_role_until_it_is_shown() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    stage.join("first")?;
    stage.create(&pod_options("web-0"))?;
    let gate = Gate::start(&stage)?;
    hold_patches_to_lead(&gate);
    let options = gate.before(&stage, stage.options("web-0")?)?;
    stage.start_with("web-0", |_| options)?;
    stage.at_rest()?;
    wait_for("a follower, and so labelled", PATIENCE, || Ok(stage.sidecar("web-0")?.metric(SYNCED)? == Some(1.0)))?;
    stage.stop("first")?;
    stage.wait_for("web-0", |status, _| status == 200)?;
    wait_for("the patch is sent", PATIENCE, || Ok(gate.asked().iter().any(to_lead)))?;
    ensure!(stage.sidecar("web-0")?.metric(SYNCED)? == Some(0.0), "{}", stage.what_they_say());
    gate.open();
    wait_for("the label is shown", PATIENCE, || Ok(stage.sidecar("web-0")?.metric(SYNCED)? == Some(1.0)))?;
    Ok(())
}

#[tokio::test]
async fn a_standbys_label_has_gone_when_its_process_has() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    stage.join("web-0")?;
    stage.join("web-1")?;
    stage.at_rest()?;
    stage.proxy("web-1")?.set(Direction::ToServer, Flow::Delay(Duration::from_millis(100)));
    stage.stop("web-1")?;
    ensure!(stage.pod("web-1")?.label(ROLE).is_none(), "{:?}", stage.pod("web-1")?);
    Ok(())
}

/// With a token that outlives the pod.
fn outlive_the_pod(stage: &Stage) -> Result<()> {
    let token = stage.admin().unbound_token(&stage.namespace, crate::stage::ACCOUNT)?;
    stage.mount("web-0")?.replace_token(&token)
}

fn told(stage: &mut Stage, text: &str) -> Result<usize> {
    Ok(stage.sidecar("web-0")?.log().iter().filter(|line| line.contains(text)).count())
}

const REPLACED: &str = "there is another pod of this one's name now";

#[tokio::test]
async fn the_next_pod_of_the_same_name_is_left_alone_and_that_is_said_once() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    stage.create(&pod_options("web-0"))?;
    outlive_the_pod(&stage)?;
    stage.start("web-0")?;
    stage.at_rest()?;
    stage.admin().delete_pod(&stage.namespace, "web-0")?;
    let heir = stage.admin().create_pod(&stage.namespace, &pod_options("web-0"))?;
    stage.sidecar("web-0")?.wait_for_log(REPLACED, PATIENCE)?;
    for poke in ["one", "two", "three"] {
        stage.annotate("web-0", "test/poke", Some(poke))?;
    }
    let edited = stage.label("web-0", ROLE, Some("whatever"))?;
    wait_for("it is told", PATIENCE, || Ok(stage.sidecar("web-0")?.metric(SYNCED)? == Some(0.0)))?;
    ensure!(stage.sidecar("web-0")?.leader()?.0 == 200, "the lock does not care");
    stage.stop("web-0")?;
    ensure!(stage.pod("web-0")? == edited, "somebody touched the new pod: {:?}", stage.pod("web-0")?);
    ensure!(told(&mut stage, REPLACED)? == 1);
    // Nor are the events of the old life told of it.
    let events = stage.admin().events(&stage.namespace)?;
    let on_heir: Vec<_> = events
        .iter()
        .filter(|event| event["regarding"]["uid"] == heir.uid || event["involvedObject"]["uid"] == heir.uid)
        .collect();
    ensure!(on_heir.is_empty(), "{on_heir:#?}");
    Ok(())
}

#[tokio::test]
async fn that_there_is_no_such_pod_is_said_each_time_it_happens_and_not_at_every_try() -> Result<()> {
    const SAID: &str = "there is no pod web-0";
    let tries = "bellwether_kubernetes_errors_total{code=\"not_found\",operation=\"list\"}";
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    stage.create(&pod_options("web-0"))?;
    outlive_the_pod(&stage)?;
    stage.start("web-0")?;
    stage.at_rest()?;
    for time in 1..=2 {
        let before = stage.sidecar("web-0")?.metric(tries)?.unwrap_or_default();
        stage.admin().delete_pod(&stage.namespace, "web-0")?;
        let again = before + 4.0;
        wait_for("it is tried again", PATIENCE, || {
            Ok(stage.sidecar("web-0")?.metric(tries)?.unwrap_or_default() >= again)
        })?;
        ensure!(told(&mut stage, SAID)? == time, "said {} times, happened {time} times", told(&mut stage, SAID)?);
        stage.admin().create_pod(&stage.namespace, &pod_options("web-0"))?;
        // It is found, and is another.
        if time == 1 {
            stage.sidecar("web-0")?.wait_for_log(REPLACED, PATIENCE)?;
        }
    }
    Ok(())
}

/// Every call fails in a way that has a new client made.
fn lose_the_client(gate: &Gate) {
    gate.judge(|_| Verdict::Refuse(401));
    gate.end(|asked| asked.uri.contains("watch=true"));
}

#[tokio::test]
async fn a_kubeconfig_that_comes_to_run_a_program_or_names_no_server_or_never_ends_holds_nobody_up() -> Result<()> {
    let mut stage = Stage::shared(&[&["--lease-ttl", "6s"], &PROMISES_LITTLE]).await?;
    stage.create(&pod_options("web-0"))?;
    let gate = Gate::start(&stage)?;
    let options = gate.before(&stage, stage.options("web-0")?)?;
    stage.start_with("web-0", |_| options)?;
    let rest = stage.at_rest()?;
    stage.poll("web-0", Duration::from_millis(10))?;
    let begin = Moment::now();
    let good = fs::read_to_string(gate.kubeconfig())?;
    let trace = stage.mount("web-0")?.folder().join("the-program-ran");
    let script = format!("echo ran > {}; sleep 8", trace.display());
    let exec =
        json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script]}});
    let no_scheme = good.replace("http://127", "127");
    ensure!(no_scheme != good);
    for (bad, said) in [
        (gate.kubeconfig_of(&stage.namespace, &exec), "it runs a program"),
        (no_scheme, "is no URL"),
        ("{".to_owned(), "no client for the API server can be made"),
    ] {
        fs::write(gate.kubeconfig(), bad)?;
        lose_the_client(&gate);
        stage.sidecar("web-0")?.wait_for_log(said, PATIENCE)?;
        fs::write(gate.kubeconfig(), &good)?;
        gate.pass_everything();
        // What makes a difference between calls that fail and those that work again.
        wait_for("it works again", PATIENCE, || Ok(stage.sidecar("web-0")?.metric(SYNCED)? == Some(1.0)))?;
    }
    ensure!(!trace.exists(), "the program was run");
    // A file that whoever reads it waits for.
    fs::remove_file(gate.kubeconfig())?;
    ensure!(Command::new("mkfifo").arg(gate.kubeconfig()).status()?.success());
    lose_the_client(&gate);
    stage.sidecar("web-0")?.wait_for_log("were not read within", PATIENCE)?;
    let samples = stage.poller("web-0")?.samples_since(begin);
    let slowest = samples.iter().map(|sample| sample.received.since(sample.sent)).max().context("it was asked")?;
    figure("the slowest answer of /leader", format_args!("{slowest:?}"));
    ensure!(slowest < Duration::from_secs(2), "{slowest:?}");
    ensure!(samples.iter().all(|sample| sample.leading().is_some()), "/leader wavered");
    ensure!(stage.wait_for("web-0", |status, _| status == 200)?["term"] == rest.term.1);
    // It never ends, and this does all the same.
    let begin = Moment::now();
    stage.stop("web-0")?;
    ensure!(Moment::now().since(begin) < SLACK);
    Ok(())
}

#[tokio::test]
async fn the_label_that_names_the_election_is_repaired_when_it_is_made_to_name_another() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    stage.join("web-0")?;
    stage.join("web-1")?;
    let rest = stage.at_rest()?;
    for pod in ["web-0", "web-1"] {
        let edited = stage.label(pod, ELECTION, Some("other"))?.revision;
        stage.wait_for_pod(pod, RIGHT_WITHIN, |pod| pod.revision > edited && pod.label(ELECTION) == Some("test"))?;
        ensure!(stage.at_rest_within(RIGHT_WITHIN)? == rest);
    }
    Ok(())
}
