//! Against whoever undoes what is done, and an API server that says no: a bounded number of tries, and plain words.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use support::Moment;

use crate::gate::{Asked, Gate, Verdict, leader_behind_a_gate};
use crate::stage::{
    Again, NEVER_EXPIRES, PATIENCE, PROMISES_LITTLE, RIGHT_WITHIN, ROLE, Stage, TERM, figure, pod_options, wait_for,
    wait_until,
};

const SYNCED: &str = "bellwether_label_synced";
/// How long tries are counted.
const COUNTED: Duration = Duration::from_secs(20);

async fn leader(names: &[&str]) -> Result<Stage> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    for name in names {
        stage.join(name)?;
    }
    stage.at_rest()?;
    Ok(stage)
}

fn synced(stage: &mut Stage, value: f64) -> Result<()> {
    wait_for(&format!("{SYNCED} {value}"), PATIENCE, || Ok(stage.sidecar("web-0")?.metric(SYNCED)? == Some(value)))
}

fn told(stage: &mut Stage, text: &str) -> Result<usize> {
    Ok(stage.sidecar("web-0")?.log().iter().filter(|line| line.contains(text)).count())
}

const CONTENDED: &str = "somebody keeps changing the labels";

#[tokio::test]
async fn who_labels_another_pod_again_after_each_strip_is_answered_ever_more_slowly_and_that_is_said_once() -> Result<()>
{
    let mut stage = leader(&["web-0"]).await?;
    stage.admin().create_pod(&stage.namespace, &pod_options("impostor"))?;
    let (admin, namespace) = (stage.admin().clone(), stage.namespace.clone());
    let begin = Moment::now();
    let enemy = Again::and_again(Duration::from_millis(20), move || {
        let leader = json!({"metadata": {"labels": {ROLE: "leader"}}});
        admin.merge_patch_pod(&namespace, "impostor", &leader).ok();
    })?;
    wait_until(begin.after(Duration::from_secs(10)));
    let stripped = |it: &&support::kubernetes::LabelChange| it.pod == "impostor" && it.to.is_none();
    let strips = stage.timeline.label_changes(ROLE).iter().filter(stripped).count();
    figure("strips in a war of 10 s", strips);
    // At once, then after 500 ms, 1 s, 2 s, 4 s; one more for a machine that is late.
    ensure!((3..=6).contains(&strips), "{strips} strips");
    ensure!(stage.sidecar("web-0")?.metric(SYNCED)? == Some(0.0), "the other pod passes for the leader meanwhile");
    stage.sidecar("web-0")?.wait_for_log(CONTENDED, PATIENCE)?;
    ensure!(told(&mut stage, "somebody had changed this pod's label")? == 0, "it was another's");
    // Beyond the next repair.
    let said = Moment::now();
    wait_until(said.after(Duration::from_secs(5)));
    ensure!(told(&mut stage, CONTENDED)? == 1);
    drop(enemy);
    stage.wait_for_pod("impostor", RIGHT_WITHIN, |pod| pod.label(ROLE).is_none())?;
    synced(&mut stage, 1.0)
}

#[tokio::test]
async fn who_edits_the_own_pod_after_each_repair_is_told_of_while_it_lasts() -> Result<()> {
    let mut stage = leader(&["web-0"]).await?;
    let (admin, namespace) = (stage.admin().clone(), stage.namespace.clone());
    let enemy = Again::and_again(Duration::from_millis(20), move || {
        let wrong = json!({"metadata": {"labels": {ROLE: "wrong"}}});
        admin.merge_patch_pod(&namespace, "web-0", &wrong).ok();
    })?;
    stage.sidecar("web-0")?.wait_for_log(CONTENDED, PATIENCE)?;
    synced(&mut stage, 0.0)?;
    // The label is right for 20 ms of 4 s.
    let looks = (0..20).map(|_| {
        std::thread::sleep(Duration::from_millis(50));
        stage.sidecar("web-0")?.metric(SYNCED)
    });
    let wrong = looks.collect::<Result<Vec<_>>>()?.into_iter().filter(|synced| *synced == Some(0.0)).count();
    ensure!(wrong >= 15, "told in {wrong} of 20 looks");
    drop(enemy);
    stage.at_rest_within(RIGHT_WITHIN)?;
    synced(&mut stage, 1.0)
}

#[tokio::test]
async fn another_pod_that_carries_the_label_with_a_higher_term_is_told_of_as_long_as_it_does() -> Result<()> {
    let mut stage = leader(&["web-0"]).await?;
    synced(&mut stage, 1.0)?;
    let high = pod_options("impostor").labelled(ROLE, "leader").annotated(TERM, "0/9000000000000000000");
    let before = stage.admin().create_pod(&stage.namespace, &high)?;
    synced(&mut stage, 0.0)?;
    stage.sidecar("web-0")?.wait_for_log("has seen a higher term", PATIENCE)?;
    // It stays so, whatever else makes it look.
    stage.annotate("web-0", "test/poke", Some("one"))?;
    let edited = stage.label("web-0", ROLE, None)?.revision;
    stage.wait_for_pod("web-0", PATIENCE, |pod| pod.revision > edited && pod.label(ROLE) == Some("leader"))?;
    synced(&mut stage, 0.0)?;
    ensure!(stage.pod("impostor")? == before, "not ours to change");
    stage.label("impostor", ROLE, None)?;
    synced(&mut stage, 1.0)
}

/// Patches of the own pod are answered with this for a while after an edit by hand; what was asked meanwhile, and how
/// many connections that took.
async fn refused_for_a_while(code: u16) -> Result<(Vec<Asked>, usize)> {
    let (mut stage, gate) = leader_behind_a_gate().await?;
    gate.judge(move |asked| if asked.patches("web-0") { Verdict::Refuse(code) } else { Verdict::Pass });
    let connections = gate.connections();
    let begin = Moment::now();
    stage.label("web-0", ROLE, None)?;
    wait_until(begin.after(COUNTED));
    let asked = gate.asked_since(begin);
    let connections = gate.connections() - connections;
    synced(&mut stage, 0.0)?;
    gate.pass_everything();
    stage.at_rest_within(RIGHT_WITHIN)?;
    figure(&format!("{code} for 20 s: requests"), asked.len());
    figure(&format!("{code} for 20 s: connections"), connections);
    Ok((asked, connections))
}

/// A connection for each watch that ends meanwhile, and one for calls.
const CONNECTIONS_MOST: usize = 4;

#[tokio::test]
async fn a_server_that_asks_for_less_is_asked_less_and_one_that_refuses_too() -> Result<()> {
    for code in [429, 422] {
        let (asked, connections) = refused_for_a_while(code).await?;
        let patches = asked.iter().filter(|asked| asked.patches("web-0")).count();
        // At the least 50, 100, 200, 400, 800 and 1600 ms in between, then 2 s: 7 in 3.2 s and 9 in the rest.
        ensure!((3..=16).contains(&patches), "{code}: {patches} patches");
        // And two calls for each watch that ended.
        ensure!(asked.len() <= patches + 8, "{code}: {asked:#?}");
        ensure!(connections <= CONNECTIONS_MOST, "{code}: {connections} connections");
    }
    Ok(())
}

#[tokio::test]
async fn a_server_in_trouble_is_not_asked_for_a_handshake_at_each_try() -> Result<()> {
    for code in [500, 503] {
        let (asked, connections) = refused_for_a_while(code).await?;
        let patches = asked.iter().filter(|asked| asked.patches("web-0")).count();
        // At the least 50, 100, 200 and 400 ms in between, then 500 ms: 5 in 0.75 s and 39 in the rest. Each might
        // have been done, and is preceded by a look.
        ensure!((10..=44).contains(&patches), "{code}: {patches} patches");
        ensure!(asked.len() <= 2 * patches + 8, "{code}: {asked:#?}");
        ensure!(connections <= CONNECTIONS_MOST, "{code}: {connections} connections");
    }
    Ok(())
}

#[tokio::test]
async fn an_endless_conflict_is_said() -> Result<()> {
    let (mut stage, gate) = leader_behind_a_gate().await?;
    gate.judge(|asked| if asked.patches("web-0") { Verdict::Refuse(409) } else { Verdict::Pass });
    stage.label("web-0", ROLE, None)?;
    stage.sidecar("web-0")?.wait_for_log("this pod is changed all the time", PATIENCE)?;
    synced(&mut stage, 0.0)?;
    let ended = Moment::now();
    gate.pass_everything();
    stage.at_rest_within(RIGHT_WITHIN)?;
    figure("label right after an endless conflict", format_args!("{:?}", Moment::now().since(ended)));
    Ok(())
}

#[tokio::test]
async fn an_event_that_is_refused_does_not_hold_up_the_next() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    stage.create(&pod_options("web-0"))?;
    let gate = Gate::start(&stage)?;
    let became = |asked: &Asked| asked.body["note"].as_str().is_some_and(|note| note.contains("became leader"));
    gate.judge(move |asked| if became(asked) { Verdict::Refuse(422) } else { Verdict::Pass });
    let options = gate.before(&stage, stage.options("web-0")?)?;
    stage.start_with("web-0", |_| options)?;
    stage.at_rest()?;
    ensure!(stage.sidecar("web-0")?.resign("1h")? == 202);
    let begin = Moment::now();
    wait_for("the next event is there", PATIENCE, || {
        let events = stage.admin().events(&stage.namespace)?;
        Ok(events.iter().any(|event| event.to_string().contains("stopped leading")))
    })?;
    let took = Moment::now().since(begin);
    ensure!(took < RIGHT_WITHIN, "{took:?}");
    // A lone candidate leads again.
    let notes: Vec<_> =
        gate.asked().into_iter().filter(became).map(|asked| asked.body["metadata"]["name"].clone()).collect();
    let distinct: std::collections::BTreeSet<_> = notes.iter().map(Value::to_string).collect();
    ensure!(distinct.len() == notes.len(), "tried again in vain: {notes:?}");
    Ok(())
}

#[tokio::test]
async fn no_library_speaks_in_the_log_when_the_api_server_is_restarted() -> Result<()> {
    let mut stage = Stage::alone(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    stage.join("web-0")?;
    stage.at_rest()?;
    stage.server_mut()?.kill();
    stage.sidecar("web-0")?.wait_for_log("the API server does not answer as it should", PATIENCE)?;
    stage.server_mut()?.restart()?;
    stage.at_rest_within(RIGHT_WITHIN)?;
    synced(&mut stage, 1.0)?;
    for line in stage.sidecar("web-0")?.log() {
        let line: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        let target = line["target"].as_str().unwrap_or_default();
        ensure!(target.starts_with("bellwether"), "{line}");
    }
    Ok(())
}

#[tokio::test]
async fn who_did_it_is_written_in_the_pods_managed_fields_and_the_servers_audit_log() -> Result<()> {
    let stage = leader(&["web-0"]).await?;
    let pod = stage.admin().pod_object(&stage.namespace, "web-0")?;
    let fields = pod["metadata"]["managedFields"].as_array().context("fields have managers")?;
    let ours = fields.iter().find(|field| field["fieldsV1"].to_string().contains(ROLE)).context("the role has one")?;
    ensure!(ours["manager"] == "bellwether", "{ours}");
    let log = std::fs::read_to_string(stage.server().path("audit.log"))?;
    let entries = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_the_sidecar: Vec<_> = entries.filter(|entry| entry["objectRef"]["namespace"] == *stage.namespace).collect();
    ensure!(!of_the_sidecar.is_empty());
    for entry in of_the_sidecar {
        let agent = entry["userAgent"].as_str().unwrap_or_default();
        ensure!(agent.starts_with("bellwether/"), "{agent}: {}", entry["requestURI"]);
    }
    Ok(())
}
