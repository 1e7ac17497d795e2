//! Events on the pods: who became leader, who stopped; delivered late rather than not, and bounded.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use support::Moment;
use support::kubernetes::kubernetes_binary;

use crate::stage::{NEVER_EXPIRES, PATIENCE, PROMISES_LITTLE, PROMISES_NOTHING, Stage, wait_for, wait_until};

/// How many events of one sidecar wait for the API server at most.
const WAITING_MAX: usize = 8;

/// The notes of the events on a pod, oldest first.
fn notes(stage: &Stage, pod: &str) -> Result<Vec<String>> {
    let events = stage.admin().events(&stage.namespace)?.into_iter();
    let of_pod = events.filter(|event| event["regarding"]["name"] == pod);
    Ok(of_pod.map(|event| event["note"].as_str().unwrap_or_default().to_owned()).collect())
}

fn wait_for_notes(stage: &Stage, pod: &str, expected: &[&str]) -> Result<()> {
    let mut seen = Vec::new();
    let all = wait_for("the events", PATIENCE, || {
        seen = notes(stage, pod)?;
        Ok(seen.len() >= expected.len())
    });
    all.with_context(|| format!("{seen:?}"))?;
    ensure!(seen == expected, "{seen:?}");
    Ok(())
}

fn time(event: &Value, field: &str) -> Result<Timestamp> {
    let text = event[field].as_str().or_else(|| event["metadata"][field].as_str());
    Ok(text.with_context(|| format!("no {field}: {event}"))?.parse()?)
}

#[tokio::test]
async fn who_becomes_leader_and_who_stops_is_an_event_on_the_pod() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    let begin = Timestamp::now();
    stage.join("web-0")?;
    stage.join("web-1")?;
    stage.at_rest()?;
    ensure!(stage.sidecar("web-0")?.resign("1h")? == 202);
    wait_for_notes(&stage, "web-1", &["web-1 became leader"])?;
    wait_for_notes(&stage, "web-0", &["web-0 became leader", "web-0 stopped leading"])?;
    // Also what is said last, on the way out.
    stage.stop("web-1")?;
    wait_for_notes(&stage, "web-1", &["web-1 became leader", "web-1 stopped leading"])?;
    for event in stage.admin().events(&stage.namespace)? {
        let pod = stage.pod(event["regarding"]["name"].as_str().context("a pod")?)?;
        let regarding = json!({
            "apiVersion": "v1", "kind": "Pod", "name": pod.name, "namespace": stage.namespace, "uid": pod.uid,
        });
        ensure!(event["regarding"] == regarding, "{event}");
        let told = json!([event["reason"], event["type"], event["reportingController"], event["reportingInstance"]]);
        ensure!(told == json!(["LeaderElection", "Normal", "bellwether.dev/sidecar", pod.name]), "{event}");
        ensure!(event["action"].as_str().is_some_and(|action| !action.is_empty()), "{event}");
        let at = time(&event, "eventTime")?;
        ensure!(begin <= at && at <= Timestamp::now(), "{event}");
    }
    let described = Command::new(kubernetes_binary("kubectl")?)
        .arg("--kubeconfig")
        .arg(stage.server().admin_kubeconfig()?)
        .args(["events", "--namespace", &stage.namespace, "--for", "pod/web-0", "--cache-dir"])
        .arg(stage.server().path("kubectl-cache"))
        .output()?;
    let told = String::from_utf8(described.stdout)?;
    ensure!(told.contains("LeaderElection") && told.contains("web-0 stopped leading"), "what kubectl says: {told}");
    Ok(())
}

#[tokio::test]
async fn what_happened_while_the_api_server_was_away_is_told_when_it_is_back_with_the_time_at_which_it_happened()
-> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    stage.join("web-0")?;
    stage.join("web-1")?;
    stage.at_rest()?;
    wait_for_notes(&stage, "web-0", &["web-0 became leader"])?;
    stage.proxies().iter().for_each(|proxy| proxy.cut_and_refuse());
    let before = Timestamp::now();
    ensure!(stage.sidecar("web-0")?.resign("1h")? == 202);
    stage.wait_for("web-1", |status, _| status == 200)?;
    let after = Timestamp::now();
    // Long enough that the times of happening and of telling cannot be taken for each other.
    let away = Duration::from_secs(3);
    wait_until(Moment::now().after(away));
    ensure!(notes(&stage, "web-1")?.is_empty());
    stage.proxies().iter().for_each(|proxy| proxy.heal());
    wait_for_notes(&stage, "web-0", &["web-0 became leader", "web-0 stopped leading"])?;
    wait_for_notes(&stage, "web-1", &["web-1 became leader"])?;
    let events = stage.admin().events(&stage.namespace)?;
    for event in events.iter().filter(|event| event["note"] != "web-0 became leader") {
        let (happened, told) = (time(event, "eventTime")?, time(event, "creationTimestamp")?);
        ensure!(before <= happened && happened <= after, "{event}");
        // The server's times are whole seconds.
        let late = SignedDuration::try_from(away)? - SignedDuration::from_secs(1);
        ensure!(told.duration_since(happened) >= late, "{event}");
    }
    Ok(())
}

#[tokio::test]
async fn what_waits_for_the_api_server_is_bounded_and_nothing_is_told_twice() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_NOTHING]).await?;
    let pods = ["web-0", "web-1"];
    for pod in pods {
        stage.join(pod)?;
    }
    stage.at_rest()?;
    wait_for_notes(&stage, "web-0", &["web-0 became leader"])?;
    stage.proxies().iter().for_each(|proxy| proxy.cut_and_refuse());
    // Each leads six times: twelve things to say of each.
    for _ in 0..6 {
        for (leader, next) in [(0, 1), (1, 0)] {
            stage.wait_for(pods[leader], |status, _| status == 200)?;
            ensure!(stage.sidecar(pods[leader])?.resign("0s")? == 202);
            stage.wait_for(pods[next], |status, _| status == 200)?;
        }
    }
    stage.proxies().iter().for_each(|proxy| proxy.heal());
    stage.at_rest()?;
    for pod in pods {
        let before = usize::from(pod == "web-0");
        let told = || notes(&stage, pod).map(|notes| notes.len() - before);
        wait_for("what waited is told", PATIENCE, || Ok(told()? >= WAITING_MAX))?;
    }
    // What happens from now on is told again; it comes after all that waited.
    ensure!(stage.sidecar("web-0")?.resign("0s")? == 202);
    for (pod, last, before) in [("web-0", "web-0 stopped leading", 1), ("web-1", "web-1 became leader", 0)] {
        let is_last =
            |notes: &[String]| notes.len() > before + WAITING_MAX && notes.last().is_some_and(|it| it == last);
        wait_for("the latest is told", PATIENCE, || Ok(is_last(&notes(&stage, pod)?)))?;
        let notes = notes(&stage, pod)?;
        ensure!(notes.len() == before + WAITING_MAX + 1, "{notes:#?}");
    }
    Ok(())
}
