//! The admission policies, as the chart renders one for a release, and the one of manifests/ for every account with a
//! label: what a sidecar's token can do with it, and could do without.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use support::kubernetes::{ApiAnswer, ApiClient, ApiServer, Content, PodOptions, PodSecurity};

use crate::helm::Helm;
use crate::wait::wait_until;

const ELECTION: &str = "demo-bellwether";
const ELECTION_KEY: &str = "bellwether.dev/election";
const ROLE: &str = "bellwether.dev/role";
const TERM: &str = "bellwether.dev/term";
const ACCOUNT: &str = "demo-bellwether";
/// The status of a refusal by the policy. Missing rights are a 403.
const REFUSED: u16 = 422;
/// Longer than the server remembers that a token was good.
const TOKEN_REMEMBERED: Duration = Duration::from_secs(10);

/// Who watches over the service account.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Guard {
    /// Nobody.
    Nobody,
    /// The policy that comes with the release.
    Chart,
    /// The policy of manifests/, which the server has: the account gets the label that it goes by.
    Manifests,
}

/// A namespace with what the chart installs for a sidecar, and pods:
/// `web-0` and `web-1` of the election, `new-0` of the election's workload without its label, `other-0` of another.
struct Scene<'a> {
    server: &'a ApiServer,
    namespace: String,
}

impl Scene<'static> {
    fn new(guard: Guard) -> Result<Self> {
        Self::on(ApiServer::shared()?, guard, &[])
    }
}

impl<'a> Scene<'a> {
    /// As the chart is rendered with these arguments.
    fn on(server: &'a ApiServer, guard: Guard, arguments: &[&str]) -> Result<Self> {
        let admin = server.admin();
        let namespace = admin.create_namespace("policy", PodSecurity::Restricted)?;
        let scene = Self { server, namespace };
        let helm = Helm::new(4, server)?;
        let mut arguments = arguments.to_vec();
        arguments.extend(["--show-only", "templates/serviceaccount.yaml", "--show-only", "templates/role.yaml"]);
        if guard == Guard::Chart {
            arguments.extend(["--show-only", "templates/admissionpolicy.yaml"]);
        }
        for manifest in helm.template(&scene.namespace, &arguments)? {
            admin.apply(&scene.namespace, &manifest.text)?;
        }
        if guard == Guard::Manifests {
            let account = json!({
                "apiVersion": "v1", "kind": "ServiceAccount",
                "metadata": {"name": ACCOUNT, "labels": {ELECTION_KEY: ELECTION}},
            });
            admin.apply_object(&scene.namespace, &account)?.ok()?;
        }
        for (pod, election) in
            [("web-0", Some(ELECTION)), ("web-1", Some(ELECTION)), ("new-0", None), ("other-0", Some("other"))]
        {
            scene.create_pod(pod, election)?;
        }
        scene.wait_until_in_force(if guard == Guard::Nobody { 200 } else { REFUSED })?;
        Ok(scene)
    }

    fn create_pod(&self, name: &str, election: Option<&str>) -> Result<()> {
        let mut options = PodOptions::new(name, ACCOUNT).labelled("app", "web").annotated("note", "of the operator");
        if let Some(election) = election {
            options = options.labelled(ELECTION_KEY, election);
        }
        self.server.admin().create_pod(&self.namespace, &options)?;
        Ok(())
    }

    /// The role and the policy are followed by watches; until they have arrived requests are judged without them.
    fn wait_until_in_force(&self, expected: u16) -> Result<()> {
        let probe = label("probe", Some("x"));
        let web_0 = self.sidecar("web-0")?;
        let look = || Ok(self.patch(&web_0, "web-0", &probe)?.status);
        wait_until("the role and the policy are in force", look, |it| *it == expected)?;
        Ok(())
    }

    /// Requests with the token that is mounted into this pod.
    fn sidecar(&self, pod: &str) -> Result<ApiClient> {
        self.server.client(&self.server.admin().pod_token(&self.namespace, pod)?)
    }

    fn patch(&self, client: &ApiClient, pod: &str, patch: &Value) -> Result<ApiAnswer> {
        client.patch(&self.path(pod, "?dryRun=All"), Content::MergePatch, patch)
    }

    fn path(&self, pod: &str, query: &str) -> String {
        format!("/api/v1/namespaces/{}/pods/{pod}{query}", self.namespace)
    }

    /// Requests with the tokens that these cases are about.
    fn clients(&self, cases: &[Case]) -> Result<Clients> {
        let mut clients = Clients::new();
        for by in cases.iter().map(|case| case.by) {
            if let Entry::Vacant(vacant) = clients.entry(by) {
                vacant.insert(match by {
                    Some(pod) => self.sidecar(pod)?,
                    None => self.server.client(&self.server.admin().unbound_token(&self.namespace, ACCOUNT)?)?,
                });
            }
        }
        Ok(clients)
    }
}

/// By what [`Case::by`] says.
type Clients = BTreeMap<Option<&'static str>, ApiClient>;

struct Case {
    /// What is tried.
    what: &'static str,
    /// Whose token; none: one that is bound to no pod.
    by: Option<&'static str>,
    /// Which pod is patched.
    pod: &'static str,
    patch: Value,
    /// A part of what the policy says against it.
    refusal: &'static str,
}

fn label(key: &str, value: Option<&str>) -> Value {
    json!({"metadata": {"labels": {key: value}}})
}

fn annotation(key: &str, value: Option<&str>) -> Value {
    json!({"metadata": {"annotations": {key: value}}})
}

fn image(image: &str) -> Value {
    let container = json!({
        "name": "app", "image": image,
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    json!({"spec": {"containers": [container]}})
}

/// With a token that is bound to no pod.
fn unbound(what: &'static str, patch: Value) -> Case {
    Case { what, by: None, pod: "web-0", patch, refusal: "a token that is bound to a pod" }
}

/// What every rule of the policy refuses.
fn forbidden() -> Vec<Case> {
    let case = |what, by, pod, patch, refusal| Case { what, by: Some(by), pod, patch, refusal };
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x"});
    // Those that every pod has, and one more.
    let every = |reason: &str| json!({"key": format!("node.kubernetes.io/{reason}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
    let tolerations = json!([every("not-ready"), every("unreachable"), {"operator": "Exists"}]);
    vec![
        case("make another the leader", "web-0", "web-1", label(ROLE, Some("leader")), "may be set on the own pod"),
        case("make another a follower", "web-0", "web-1", label(ROLE, Some("follower")), "may be set on the own pod"),
        case("another value", "web-0", "web-0", label(ROLE, Some("king")), "may be set on the own pod"),
        case("another label", "web-0", "web-0", label("app", Some("other")), "of the labels, only"),
        case("add a label", "web-0", "web-0", label("more", Some("x")), "of the labels, only"),
        case("remove a label", "web-0", "web-1", label("app", None), "of the labels, only"),
        case("another annotation", "web-0", "web-0", annotation("note", Some("x")), "of the annotations, only"),
        case("add an annotation", "web-0", "web-1", annotation("more", Some("x")), "of the annotations, only"),
        case("remove an annotation", "web-0", "web-0", annotation("note", None), "of the annotations, only"),
        case("a term that is none", "web-0", "web-0", annotation(TERM, Some("mine")), "<epoch>/<term>"),
        case("change its own image", "web-0", "web-0", image("evil:1"), "pod's spec"),
        case("change another's image", "web-0", "web-1", image("evil:1"), "pod's spec"),
        case("tolerate more", "web-0", "web-0", json!({"spec": {"tolerations": tolerations}}), "pod's spec"),
        case("a deadline", "web-0", "web-1", json!({"spec": {"activeDeadlineSeconds": 1}}), "pod's spec"),
        case("a finalizer", "web-0", "web-0", json!({"metadata": {"finalizers": ["x.dev/x"]}}), "finalizers"),
        case("an owner", "web-0", "web-1", json!({"metadata": {"ownerReferences": [owner]}}), "owners"),
        case("another origin", "web-0", "web-1", json!({"metadata": {"generateName": "x-"}}), "generateName"),
        case("leave the election", "web-0", "web-0", label(ELECTION_KEY, None), "must say"),
        case("go to another", "web-0", "web-0", label(ELECTION_KEY, Some("other")), "must say"),
        case("take another along", "web-0", "new-0", label(ELECTION_KEY, Some(ELECTION)), "is not of the election"),
        case("another election's pod", "web-0", "other-0", annotation(TERM, Some("0/9")), "is not of the election"),
        case("move over", "other-0", "other-0", label(ELECTION_KEY, Some(ELECTION)), "is not of the election"),
        unbound("make it the leader", label(ROLE, Some("leader"))),
        unbound("stamp", annotation(TERM, Some("0/9"))),
    ]
}

/// The life of an election, as its sidecars write it.
fn an_election(scene: &Scene) -> Result<()> {
    let (web_0, web_1, new_0) = (scene.sidecar("web-0")?, scene.sidecar("web-1")?, scene.sidecar("new-0")?);
    let role =
        |role: Option<&str>, term: &str| json!({"metadata": {"labels": {ROLE: role}, "annotations": {TERM: term}}});
    let take_over = [
        ("lead", &web_0, "web-0", role(Some("leader"), "0/7")),
        ("stamp a pod without a role", &web_0, "web-1", annotation(TERM, Some("0/7"))),
        ("follow", &web_1, "web-1", role(Some("follower"), "0/7")),
        ("stamp a follower", &web_0, "web-1", annotation(TERM, Some("0/8"))),
        ("strip the predecessor", &web_1, "web-0", role(None, "0/9")),
        ("lead after it", &web_1, "web-1", role(Some("leader"), "0/9")),
        ("say nothing", &web_1, "web-1", role(None, "0/9")),
        (
            "join with its first label",
            &new_0,
            "new-0",
            json!({"metadata": {"labels": {ELECTION_KEY: ELECTION, ROLE: "follower"}}}),
        ),
        ("stamp who has joined", &web_1, "new-0", annotation(TERM, Some("18446744073709551615/9223372036854775807"))),
    ];
    for (what, client, pod, mut patch) in take_over {
        // As the sidecar does it, on the version that it has seen.
        let version = scene.server.admin().pod(&scene.namespace, pod)?.revision.to_string();
        patch["metadata"]["resourceVersion"] = json!(version);
        client.patch(&scene.path(pod, ""), Content::MergePatch, &patch)?.ok().context(what)?;
    }
    let pods = scene.server.admin().pods(&scene.namespace, &format!("{ELECTION_KEY}={ELECTION}"))?;
    let roles: Vec<_> = pods.iter().map(|it| (it.name.as_str(), it.label(ROLE), it.annotation(TERM))).collect();
    let long = Some("18446744073709551615/9223372036854775807");
    let expected = [("new-0", Some("follower"), long), ("web-0", None, Some("0/9")), ("web-1", None, Some("0/9"))];
    ensure!(roles == expected, "{roles:?}");
    Ok(())
}

/// What is forbidden is refused, and by nothing else: the rights alone allow all of it.
fn a_guard_and_its_control(guarded: &Scene, unguarded: &Scene) -> Result<()> {
    let cases = forbidden();
    let (with_guard, without) = (guarded.clients(&cases)?, unguarded.clients(&cases)?);
    for case in &cases {
        let refused = guarded.patch(&with_guard[&case.by], case.pod, &case.patch)?;
        ensure!(refused.status == REFUSED, "{}: {refused} {}", case.what, refused.body["metadata"]);
        ensure!(refused.message().contains(case.refusal), "{}: {refused}", case.what);
        let allowed = unguarded.patch(&without[&case.by], case.pod, &case.patch)?;
        ensure!(allowed.status == 200, "{} is refused without the policy: {allowed}", case.what);
    }
    Ok(())
}

/// Each rule refuses something that no other does: each is switched off in turn, by what a request calls its manager.
fn each_rule_alone(scene: &Scene, name: &str) -> Result<()> {
    const SIGN: &str = "the switches are there";
    let admin = scene.server.admin();
    let path = format!("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/{name}");
    let policy = admin.get(&path)?.ok()?;
    let rules = policy["spec"]["validations"].as_array().context("a policy has rules")?;
    let switched = |(index, rule): (usize, &Value)| {
        let expression = rule["expression"].as_str().context("a rule has an expression")?;
        let expression = format!("request.options.fieldManager == 'without-{index}' || ({expression})");
        Ok(json!({"expression": expression, "message": rule["message"]}))
    };
    let mut switched = rules.iter().enumerate().map(switched).collect::<Result<Vec<_>>>()?;
    switched.insert(0, json!({"expression": "request.options.fieldManager != 'sign'", "message": SIGN}));
    admin.patch(&path, Content::MergePatch, &json!({"spec": {"validations": switched}}))?.ok()?;

    let send = |client: &ApiClient, manager: &str, pod: &str, patch: &Value| {
        let query = format!("?dryRun=All&fieldManager={manager}");
        client.patch(&scene.path(pod, &query), Content::MergePatch, patch)
    };
    let web_0 = scene.sidecar("web-0")?;
    let look = || send(&web_0, "sign", "web-0", &label(ROLE, Some("leader")));
    wait_until(SIGN, look, |answer| answer.message().contains(SIGN))?;
    let cases = forbidden();
    let clients = scene.clients(&cases)?;
    for (index, rule) in rules.iter().enumerate() {
        let mut let_through = 0;
        for case in &cases {
            let answer = send(&clients[&case.by], &format!("without-{index}"), case.pod, &case.patch)?;
            let_through += usize::from(answer.status == 200);
        }
        ensure!(let_through > 0, "nothing that is tried needs this rule: {rule:#}");
        ensure!(let_through < cases.len(), "everything goes through without this rule alone: {rule:#}");
    }
    Ok(())
}

#[test]
fn sidecars_hold_an_election_under_the_policy_of_the_chart() -> Result<()> {
    an_election(&Scene::new(Guard::Chart)?)
}

#[test]
fn what_a_sidecar_has_no_business_with_is_refused_by_the_policy_of_the_chart_and_by_nothing_else() -> Result<()> {
    a_guard_and_its_control(&Scene::new(Guard::Chart)?, &Scene::new(Guard::Nobody)?)
}

#[test]
fn each_rule_of_the_policy_of_the_chart_refuses_something_that_no_other_does() -> Result<()> {
    let scene = Scene::new(Guard::Chart)?;
    each_rule_alone(&scene, &format!("demo-bellwether.{}.bellwether.dev", scene.namespace))
}

/// On a server of its own: it holds in every namespace.
#[test]
fn the_policy_of_the_manifests_does_the_same_for_every_account_with_the_label() -> Result<()> {
    let server = ApiServer::start()?;
    let policy = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/policy.yaml"))?;
    server.admin().apply("", &policy)?;
    let guarded = Scene::on(&server, Guard::Manifests, &[])?;
    // Without the label on the account.
    let unguarded = Scene::on(&server, Guard::Nobody, &[])?;
    a_guard_and_its_control(&guarded, &unguarded)?;
    an_election(&guarded)?;
    each_rule_alone(&Scene::on(&server, Guard::Manifests, &[])?, "sidecars.bellwether.dev")
}

#[test]
fn the_policy_is_about_the_sidecars_of_its_election_alone() -> Result<()> {
    let guarded = Scene::new(Guard::Chart)?;
    let admin = guarded.server.admin();
    admin.create_service_account(&guarded.namespace, "operator")?;
    admin.grant(&guarded.namespace, "operator", "[{apiGroups: [''], resources: [pods], verbs: [get, patch]}]")?;
    let operator = guarded.server.client(&admin.unbound_token(&guarded.namespace, "operator")?)?;
    let unguarded = Scene::new(Guard::Nobody)?;
    let sidecar = unguarded.sidecar("web-1")?;
    for case in forbidden() {
        guarded.patch(&operator, case.pod, &case.patch)?.ok().with_context(|| format!("an operator: {}", case.what))?;
        let elsewhere = unguarded.patch(&sidecar, case.pod, &case.patch)?;
        elsewhere.ok().with_context(|| format!("in another namespace: {}", case.what))?;
    }
    Ok(())
}

#[test]
fn the_token_of_a_pod_is_not_good_for_its_successor_of_the_same_name() -> Result<()> {
    let scene = Scene::new(Guard::Chart)?;
    let before = scene.sidecar("web-0")?;
    let lead = label(ROLE, Some("leader"));
    before.patch(&scene.path("web-0", "?dryRun=All"), Content::MergePatch, &lead)?.ok()?;
    scene.server.admin().delete_pod(&scene.namespace, "web-0")?;
    scene.create_pod("web-0", Some(ELECTION))?;
    // For some seconds the server remembers that the token was good; the policy knows the uid.
    let answer = before.patch(&scene.path("web-0", "?dryRun=All"), Content::MergePatch, &lead)?;
    ensure!([REFUSED, 401].contains(&answer.status), "within {TOKEN_REMEMBERED:?}: {answer}");
    scene.patch(&scene.sidecar("web-0")?, "web-0", &lead)?.ok().context("its own token")?;
    Ok(())
}

#[test]
fn the_policy_goes_by_the_keys_and_values_of_the_chart() -> Result<()> {
    let names =
        ["--set", "label.preset=patroni", "--set", "label.key=example\\.com/role", "--set", "label.leader=head"];
    let more =
        ["--set", "label.electionKey=example\\.com/election", "--set", "label.termAnnotationKey=example\\.com/term"];
    let scene = Scene::on(
        ApiServer::shared()?,
        Guard::Chart,
        &[&names[..], &more, &["--set", "label.follower=", "--set", "election.name=blue"]].concat(),
    )?;
    let web_0 = scene.sidecar("web-0")?;
    let own = |role: &str, election: &str| json!({"metadata": {"labels": {"example.com/role": role, "example.com/election": election}}});
    scene.patch(&web_0, "web-0", &own("head", "blue"))?.ok()?;
    for (role, election) in [("leader", "blue"), ("follower", "blue"), ("head", ELECTION)] {
        ensure!(scene.patch(&web_0, "web-0", &own(role, election))?.status == REFUSED, "{role} of {election}");
    }
    // Other keys are just other labels.
    ensure!(scene.patch(&web_0, "web-0", &label(ROLE, Some("leader")))?.status == REFUSED);
    Ok(())
}

#[test]
fn the_rights_of_a_sidecar_end_where_it_has_no_use_for_them() -> Result<()> {
    let scene = Scene::new(Guard::Nobody)?;
    let sidecar = scene.sidecar("web-0")?;
    let core = format!("/api/v1/namespaces/{}", scene.namespace);
    let events = format!("/apis/events.k8s.io/v1/namespaces/{}/events", scene.namespace);
    let event = json!({
        "metadata": {"name": "web-0.18a1", "namespace": scene.namespace},
        "eventTime": "2026-11-22T12:00:00.000000Z", "type": "Normal", "reason": "LeaderElection", "action": "Elected",
        "note": "web-0 became leader", "reportingController": "bellwether.dev/sidecar", "reportingInstance": "web-0",
        "regarding": {"apiVersion": "v1", "kind": "Pod", "namespace": scene.namespace, "name": "web-0"},
    });
    sidecar.get(&format!("{core}/pods/web-0"))?.ok()?;
    sidecar.get(&format!("{core}/pods?labelSelector={ROLE}%3Dleader"))?.ok()?;
    sidecar.get(&format!("{core}/pods?watch=1&timeoutSeconds=1"))?.ok()?;
    sidecar.post(&events, &event)?.ok()?;

    let patch = |path: &str| sidecar.patch(&format!("{core}/{path}"), Content::MergePatch, &json!({}));
    let refused = [
        ("delete a pod", sidecar.delete(&format!("{core}/pods/web-1"))?),
        ("delete all pods", sidecar.delete(&format!("{core}/pods"))?),
        ("create a pod", sidecar.post(&format!("{core}/pods"), &json!({"metadata": {"name": "x"}}))?),
        ("evict", sidecar.post(&format!("{core}/pods/web-1/eviction"), &json!({}))?),
        ("exec", sidecar.post(&format!("{core}/pods/web-1/exec?command=sh"), &json!({}))?),
        ("log", sidecar.get(&format!("{core}/pods/web-1/log"))?),
        ("status", patch("pods/web-0/status")?),
        ("ephemeral containers", patch("pods/web-1/ephemeralcontainers")?),
        ("resize", patch("pods/web-1/resize")?),
        ("put", sidecar.put(&format!("{core}/pods/web-0"), &json!({"metadata": {"name": "web-0"}}))?),
        ("read events", sidecar.get(&events)?),
        ("old events", sidecar.post(&format!("{core}/events"), &json!({}))?),
        ("secrets", sidecar.get(&format!("{core}/secrets"))?),
        ("tokens", sidecar.post(&format!("{core}/serviceaccounts/{ACCOUNT}/token"), &json!({}))?),
        ("other namespaces", sidecar.get("/api/v1/namespaces/default/pods")?),
        ("nodes", sidecar.get("/api/v1/nodes")?),
    ];
    for (what, answer) in refused {
        ensure!(answer.status == 403, "{what}: {answer}");
    }
    Ok(())
}
