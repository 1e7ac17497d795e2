//! A right that is missing is said once and plainly, with the rule that grants it; with that rule the label is right.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::Moment;

use crate::stage::{
    ACCOUNT, NEVER_EXPIRES, PATIENCE, PROMISES_LITTLE, RIGHT_WITHIN, ROLE, RULES, Stage, figure, pod_options, wait_for,
};

const PODS: &str = "{apiGroups: [''], resources: [pods], verbs: [get, list, watch, patch]}";
const EVENTS: &str = "{apiGroups: [events.k8s.io], resources: [events], verbs: [create]}";

/// The lines of a sidecar's log that say that a right is missing for this operation.
fn complaints(stage: &mut Stage, pod: &str, operation: &str) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    for line in stage.sidecar(pod)?.log() {
        let line: Value = serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
        let message = line["message"].as_str().context("a message")?;
        if line["operation"] == operation && message.contains("because a right is missing") {
            ensure!(line["level"] == "ERROR" && line["code"] == "forbidden", "{line}");
            complaints.push(message.to_owned());
        }
    }
    Ok(complaints)
}

fn failures(stage: &mut Stage, pod: &str, operation: &str) -> Result<f64> {
    let series = format!("bellwether_kubernetes_errors_total{{code=\"forbidden\",operation=\"{operation}\"}}");
    stage.sidecar(pod)?.metric(&series)?.with_context(|| format!("no {series}"))
}

/// The rule that a complaint names, as it stands there.
fn rule_in(complaint: &str) -> Result<&str> {
    let rule = complaint.split_once("with the rule ").and_then(|(_, rest)| rest.split_once(", or set")).map(|it| it.0);
    rule.with_context(|| format!("no rule in: {complaint}"))
}

/// What happens while one verb on pods is missing.
struct Missing {
    stage: Stage,
    operation: &'static str,
}

impl Missing {
    /// A leader, and a follower that takes over from it, without the verb.
    async fn verb(operation: &'static str) -> Result<Self> {
        let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
        let verbs: Vec<_> = ["get", "list", "watch", "patch"].into_iter().filter(|verb| *verb != operation).collect();
        let rules = format!("[{{apiGroups: [''], resources: [pods], verbs: [{}]}}, {EVENTS}]", verbs.join(", "));
        stage.admin().grant(&stage.namespace, ACCOUNT, &rules)?;
        for pod in ["web-0", "web-1"] {
            stage.create(&pod_options(pod))?;
            stage.start(pod)?;
        }
        stage.wait_for("web-0", |status, _| status == 200)?;
        stage.stop("web-0")?;
        stage.wait_for("web-1", |status, _| status == 200)?;
        Ok(Self { stage, operation })
    }

    /// It is tried again and again, and said once.
    fn is_said(&mut self, times: usize) -> Result<String> {
        let (stage, operation) = (&mut self.stage, self.operation);
        let before = failures(stage, "web-1", operation)?;
        wait_for("it is tried again", PATIENCE, || Ok(failures(stage, "web-1", operation)? >= before + 3.0))?;
        stage.wait_until_synced("web-1", false)?;
        let complaints = complaints(stage, "web-1", operation)?;
        ensure!(complaints.len() == times, "said {} times: {complaints:#?}", complaints.len());
        let complaint = complaints.into_iter().next_back().context("just counted")?;
        let place = format!("give the pod's service account a Role in namespace {}", stage.namespace);
        ensure!(complaint.contains("the pod's label may be wrong"), "{complaint}");
        // The kubeconfig names the namespace, the flags need not: then it is not known where.
        ensure!(complaint.contains(&place) || complaint.contains("a Role in the pod's namespace"), "{complaint}");
        ensure!(stage.sidecar("web-1")?.leader()?.0 == 200, "leadership depends on no right");
        Ok(complaint)
    }

    /// With the rule as it was said, everything is right.
    fn is_granted(&mut self, complaint: &str) -> Result<()> {
        let (stage, operation) = (&mut self.stage, self.operation);
        let rules = format!("[{}, {EVENTS}]", rule_in(complaint)?);
        stage.admin().grant(&stage.namespace, ACCOUNT, &rules)?;
        let granted = Moment::now();
        ensure!(stage.at_rest_within(RIGHT_WITHIN)?.leader == "web-1");
        let took = Moment::now().since(granted);
        figure(&format!("label right after {operation} is granted"), format_args!("{took:?}"));
        stage.wait_until_synced("web-1", true)?;
        let landed = stage.sidecar("web-1")?.metric("bellwether_label_patches_total{result=\"ok\"}")?;
        ensure!(landed >= Some(1.0), "{landed:?}");
        Ok(())
    }
}

#[tokio::test]
async fn without_list() -> Result<()> {
    let mut missing = Missing::verb("list").await?;
    let complaint = missing.is_said(1)?;
    missing.is_granted(&complaint)
}

#[tokio::test]
async fn without_watch() -> Result<()> {
    let mut missing = Missing::verb("watch").await?;
    let complaint = missing.is_said(1)?;
    missing.is_granted(&complaint)
}

#[tokio::test]
async fn without_get_the_leader_labels_itself_and_says_that_it_cannot_see_to_the_predecessor() -> Result<()> {
    let mut missing = Missing::verb("get").await?;
    missing.stage.wait_for_role("web-1", Some("leader"))?;
    let complaint = missing.is_said(1)?;
    missing.is_granted(&complaint)
}

#[tokio::test]
async fn without_patch_and_when_it_is_taken_away_a_second_time_it_is_said_a_second_time() -> Result<()> {
    let mut missing = Missing::verb("patch").await?;
    let complaint = missing.is_said(1)?;
    let refused = missing.stage.sidecar("web-1")?.metric("bellwether_label_patches_total{result=\"forbidden\"}")?;
    ensure!(refused >= Some(3.0), "{refused:?}");
    missing.is_granted(&complaint)?;
    let without = format!("[{}, {EVENTS}]", PODS.replace(", patch", ""));
    missing.stage.admin().grant(&missing.stage.namespace, ACCOUNT, &without)?;
    missing.stage.label("web-1", ROLE, None)?;
    let complaint = missing.is_said(2)?;
    missing.is_granted(&complaint)
}

#[tokio::test]
async fn without_the_right_to_create_events_the_label_is_right_and_the_events_come_when_it_is_granted() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    stage.admin().grant(&stage.namespace, ACCOUNT, &format!("[{PODS}]"))?;
    stage.join("web-0")?;
    stage.at_rest()?;
    wait_for("it is tried again", PATIENCE, || Ok(failures(&mut stage, "web-0", "event")? >= 3.0))?;
    stage.wait_until_synced("web-0", true)?;
    let complaints = complaints(&mut stage, "web-0", "event")?;
    let [complaint] = complaints.as_slice() else { anyhow::bail!("{complaints:#?}") };
    ensure!(complaint.contains("events are not created"), "{complaint}");
    ensure!(stage.admin().events(&stage.namespace)?.is_empty());
    let rules = format!("[{PODS}, {}]", rule_in(complaint)?);
    stage.admin().grant(&stage.namespace, ACCOUNT, &rules)?;
    wait_for("the event", PATIENCE, || Ok(stage.admin().events(&stage.namespace)?.len() == 1))
}

#[tokio::test]
async fn nothing_is_asked_for_beyond_the_rights_that_are_documented() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    stage.admin().grant(&stage.namespace, ACCOUNT, RULES)?;
    for pod in ["web-0", "web-1"] {
        stage.join(pod)?;
    }
    stage.stop("web-0")?;
    stage.at_rest()?;
    let requests = stage.server().requests(&stage.namespace)?;
    let refused: Vec<_> = requests.iter().filter(|it| it.code == 403).collect();
    ensure!(refused.is_empty(), "{refused:?}");
    let mut asked: Vec<_> = requests.iter().map(|it| format!("{} {}", it.verb, it.resource)).collect();
    asked.sort();
    asked.dedup();
    // Each of them is used: a right that nobody needs would not be documented.
    let allowed = ["create events", "get pods", "list pods", "patch pods", "watch pods"];
    ensure!(asked == allowed, "{asked:?}");
    Ok(())
}
