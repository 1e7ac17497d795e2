//! What the pod shows: which label, with which values, through which API server.

use std::path::{Path, PathBuf};

use super::fault::FaultKind;
use super::faults::Faults;
use super::names::{check_election, check_label_key, check_namespace, check_pod_name};
use super::sources::Surroundings;
use crate::cli::flags::KubernetesFlags;
use crate::kubernetes::read_kubeconfig;

const ELECTION_KEY: &str = "bellwether.dev/election";
const TERM_KEY: &str = "bellwether.dev/term";

/// The pod's label and events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodLabelConfig {
    /// The pod is left alone.
    Off(LabelOff),
    /// The pod is labelled.
    On(Box<LabelConfig>),
}

/// Why the pod is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelOff {
    /// `--pod-label off`
    Asked,
    /// Not in Kubernetes.
    OutsideCluster,
    /// In Kubernetes, without a service account token.
    NoToken,
}

/// How to label which pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelConfig {
    /// Where to do it.
    pub api_server: ApiServer,
    /// Whether somebody asked for it, by `--pod-label on` or `--kubeconfig`.
    pub asked: bool,
    /// `--pod-name`
    pub pod: String,
    /// `--pod-namespace`; `None`: that of the service account or the kubeconfig's context.
    pub namespace: Option<String>,
    /// The keys and values.
    pub labels: Labels,
}

/// How to reach the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiServer {
    /// As Kubernetes tells every container.
    InCluster,
    /// `--kubeconfig`
    Kubeconfig(PathBuf),
}

/// The keys and values that a pod of the election carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// The label with the role.
    pub role_key: String,
    /// Its value on the leader.
    pub leader: String,
    /// Its value on the others, if they carry it.
    pub follower: Option<String>,
    /// The label with the election's name.
    pub election_key: String,
    /// The election's name.
    pub election: String,
    /// The annotation with the last term.
    pub term_key: String,
}

/// The label of a tool that people come from.
#[derive(Clone, Copy)]
struct Preset {
    key: &'static str,
    leader: &'static str,
    follower: &'static str,
}

const BELLWETHER: Preset = Preset { key: "bellwether.dev/role", leader: "leader", follower: "follower" };

const PRESETS: [(&str, Preset); 6] = [
    ("bellwether", BELLWETHER),
    ("leader-labeler", Preset { key: "is-leader", leader: "true", follower: "false" }),
    ("leader-elector", Preset { key: "role", leader: "leader", follower: "follower" }),
    ("patroni", Preset { key: "role", leader: "primary", follower: "replica" }),
    ("spilo", Preset { key: "spilo-role", leader: "master", follower: "replica" }),
    ("vault", Preset { key: "vault-active", leader: "true", follower: "false" }),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Auto,
    On,
    Off,
}

pub(super) fn parse_pod_label(
    flags: &KubernetesFlags,
    election: Option<&str>,
    identity: Option<&str>,
    surroundings: &Surroundings,
    faults: &mut Faults<'_>,
) -> Option<PodLabelConfig> {
    let modes = [("auto", Mode::Auto), ("on", Mode::On), ("off", Mode::Off)];
    let mode = match faults.value("--pod-label", flags.pod_label.as_ref()) {
        Some(text) => faults.choice("--pod-label", text, "auto, on, off", &modes),
        None => Some(Mode::Auto),
    };
    let labels = parse_labels(flags, election, faults);
    let namespace = match faults.value("--pod-namespace", flags.pod_namespace.as_ref()) {
        Some(name) => faults.name("--pod-namespace", name, check_namespace).map(Some),
        None => Some(None),
    };
    let mode = mode?;
    let api_server = match find_api_server(flags, mode, surroundings, faults)? {
        Ok(api_server) => api_server,
        Err(off) => return labels.zip(namespace).map(|_| PodLabelConfig::Off(off)),
    };
    let pod = parse_pod_name(flags, identity, surroundings, faults)?;
    let asked = mode == Mode::On || matches!(api_server, ApiServer::Kubeconfig(_));
    Some(PodLabelConfig::On(Box::new(LabelConfig { api_server, asked, pod, namespace: namespace?, labels: labels? })))
}

/// Where to label the pod, or why not to; `None` with a fault on the list.
fn find_api_server(
    flags: &KubernetesFlags,
    mode: Mode,
    surroundings: &Surroundings,
    faults: &mut Faults<'_>,
) -> Option<Result<ApiServer, LabelOff>> {
    if mode == Mode::Off {
        return Some(Err(LabelOff::Asked));
    }
    if let Some(path) = faults.path("--kubeconfig", flags.kubeconfig.as_ref()) {
        return faults.keep(check_kubeconfig(&path)).map(|()| Ok(ApiServer::Kubeconfig(path)));
    }
    let missing = match (surroundings.in_cluster, surroundings.token_file.exists()) {
        (true, true) => return Some(Ok(ApiServer::InCluster)),
        (true, false) => LabelOff::NoToken,
        (false, _) => LabelOff::OutsideCluster,
    };
    if mode == Mode::On {
        faults.push(FaultKind::NoApiServer { token_file: surroundings.token_file.clone() });
        return None;
    }
    Some(Err(missing))
}

fn check_kubeconfig(path: &Path) -> Result<(), FaultKind> {
    read_kubeconfig(path).map(drop).map_err(|error| FaultKind::Kubeconfig { path: path.to_owned(), error })
}

fn parse_pod_name(
    flags: &KubernetesFlags,
    identity: Option<&str>,
    surroundings: &Surroundings,
    faults: &mut Faults<'_>,
) -> Option<String> {
    if let Some(name) = faults.value("--pod-name", flags.pod_name.as_ref()) {
        return faults.name("--pod-name", name, check_pod_name);
    }
    // On the node's network the host name is the node's, and the identity was given.
    if let Some(identity) = identity.filter(|identity| check_pod_name(identity).is_ok()) {
        return Some(identity.to_owned());
    }
    let value = surroundings.host_name.clone();
    let checked = check_pod_name(&value).map_err(|fault| FaultKind::PodHostName { value: value.clone(), fault });
    faults.keep(checked).map(|()| value)
}

fn parse_labels(flags: &KubernetesFlags, election: Option<&str>, faults: &mut Faults<'_>) -> Option<Labels> {
    const CHOICES: &str = "bellwether, leader-labeler, leader-elector, patroni, spilo, vault";
    let preset = match faults.value("--label-preset", flags.label_preset.as_ref()) {
        Some(name) => faults.choice("--label-preset", name, CHOICES, &PRESETS),
        None => Some(BELLWETHER),
    };
    let mut key = |flag: &'static str, given: &Option<String>, default: &str| match faults.value(flag, given.as_ref()) {
        Some(key) => faults.name(flag, key, check_label_key),
        None => Some(default.to_owned()),
    };
    let own = preset.unwrap_or(BELLWETHER);
    let role_key = key("--label-key", &flags.label_key, own.key);
    let election_key = key("--election-label-key", &flags.election_label_key, ELECTION_KEY);
    let term_key = key("--term-annotation-key", &flags.term_annotation_key, TERM_KEY);
    let leader = match faults.value("--label-leader", flags.label_leader.as_ref()) {
        Some(value) => faults.name("--label-leader", value, check_election),
        None => Some(own.leader.to_owned()),
    };
    let follower = match faults.value("--label-follower", flags.label_follower.as_ref()) {
        Some("") => Some(None),
        Some(value) => faults.name("--label-follower", value, check_election).map(Some),
        None => Some(Some(own.follower.to_owned())),
    };
    if let Some((role_key, _)) = role_key.as_ref().zip(election_key.as_ref()).filter(|(one, other)| one == other) {
        faults.push(FaultKind::SameLabelKey { key: role_key.clone() });
        return None;
    }
    if let Some(leader) = leader.as_ref().filter(|leader| follower.as_ref().and_then(Option::as_ref) == Some(leader)) {
        faults.push(FaultKind::SameLabelValue { value: leader.clone() });
        return None;
    }
    preset?;
    Some(Labels {
        role_key: role_key?,
        leader: leader?,
        follower: follower?,
        election_key: election_key?,
        election: election?.to_owned(),
        term_key: term_key?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sources::Sources;

    struct Pod {
        folder: tempfile::TempDir,
    }

    impl Pod {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a temporary folder");
            std::fs::write(folder.path().join("token"), "t").expect("a token can be written");
            Self { folder }
        }

        fn surroundings(&self) -> Surroundings {
            Surroundings { token_file: self.folder.path().join("token"), in_cluster: true, ..outside() }
        }
    }

    fn outside() -> Surroundings {
        Surroundings {
            password: None,
            host_name: "web-0".into(),
            namespace_file: "/nonexistent/namespace".into(),
            token_file: "/nonexistent/token".into(),
            in_cluster: false,
            elector: Vec::new(),
        }
    }

    fn parse(flags: &KubernetesFlags, surroundings: &Surroundings) -> Result<PodLabelConfig, Vec<String>> {
        let sources = Sources::default();
        let mut faults = Faults::new(&sources);
        let parsed = parse_pod_label(flags, Some("web"), Some("web-0"), surroundings, &mut faults);
        faults.finish(parsed).map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    fn labels_of(flags: &KubernetesFlags) -> Labels {
        match parse(flags, &Pod::new().surroundings()) {
            Ok(PodLabelConfig::On(config)) => config.labels,
            other => panic!("{other:?}"),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is what a flag that is given holds")]
    fn set(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn in_a_pod_with_a_token_the_pod_is_labelled() {
        let pod = Pod::new();
        let PodLabelConfig::On(config) = parse(&KubernetesFlags::default(), &pod.surroundings()).expect("in order")
        else {
            panic!("off")
        };
        assert_eq!((config.api_server, config.pod.as_str(), config.namespace), (ApiServer::InCluster, "web-0", None));
        let labels = config.labels;
        assert_eq!((labels.role_key.as_str(), labels.leader.as_str()), ("bellwether.dev/role", "leader"));
        assert_eq!(labels.follower.as_deref(), Some("follower"));
        assert_eq!((labels.election_key.as_str(), labels.election.as_str()), ("bellwether.dev/election", "web"));
        assert_eq!(labels.term_key, "bellwether.dev/term");
    }

    #[test]
    fn elsewhere_it_is_off_unless_asked_for() {
        let default = KubernetesFlags::default();
        assert_eq!(parse(&default, &outside()), Ok(PodLabelConfig::Off(LabelOff::OutsideCluster)));
        let no_token = Surroundings { in_cluster: true, ..outside() };
        assert_eq!(parse(&default, &no_token), Ok(PodLabelConfig::Off(LabelOff::NoToken)));
        let on = KubernetesFlags { pod_label: set("on"), ..default };
        let faults = parse(&on, &outside()).expect_err("there is no API server");
        assert_eq!(
            faults,
            ["--pod-label: on, but \"/nonexistent/token\", the token for the API server, is not there; mount the \
              service account token into this container, or give --kubeconfig"]
        );
    }

    #[test]
    fn off_is_off_in_a_pod_too() {
        let off = KubernetesFlags { pod_label: set("off"), ..KubernetesFlags::default() };
        assert_eq!(parse(&off, &Pod::new().surroundings()), Ok(PodLabelConfig::Off(LabelOff::Asked)));
    }

    #[test]
    fn a_kubeconfig_that_cannot_be_used_is_a_fault() {
        let flags = KubernetesFlags { kubeconfig: set("/nonexistent/config"), ..KubernetesFlags::default() };
        let faults = parse(&flags, &outside()).expect_err("there is no such file");
        assert!(faults[0].starts_with("--kubeconfig: \"/nonexistent/config\" cannot be used: "), "{faults:?}");
    }

    /// What is said of a kubeconfig with this server, this more of its cluster, and this user.
    fn faults_of_kubeconfig(server: &str, cluster: &str, user: &str) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, contexts: [{{name: c, context: {{cluster: k, user: u}}}}], \
             clusters: [{{name: k, cluster: {{server: '{server}'{cluster}}}}}], users: [{{name: u, user: {user}}}]}}"
        );
        std::fs::write(file.path(), text).expect("a file can be written");
        let flags =
            KubernetesFlags { kubeconfig: set(&file.path().display().to_string()), ..KubernetesFlags::default() };
        parse(&flags, &outside()).err().unwrap_or_default()
    }

    #[test]
    fn a_kubeconfig_that_could_hold_the_sidecar_up_is_refused_with_the_way_out() {
        let url = "https://10.0.0.1:6443";
        let exec = "{exec: {apiVersion: client.authentication.k8s.io/v1, command: cloud, args: [token]}}";
        let provider = "{auth-provider: {name: gcp, config: {cmd-path: cloud}}}";
        let cases = [
            (url, "", exec, "use a token, a tokenFile or a client certificate"),
            (url, "", provider, "use a token, a tokenFile or a client certificate"),
            ("10.0.0.1:6443", "", "{token: t}", "is no URL; write for example https://10.0.0.1:6443"),
            ("/api", "", "{token: t}", "is no URL; write for example https://10.0.0.1:6443"),
            ("grpc://10.0.0.1:6443", "", "{token: t}", "is no URL; write for example https://10.0.0.1:6443"),
            (url, ", proxy-url: 'http://proxy:3128'", "{token: t}", "through the proxy http://proxy:3128/"),
        ];
        for (server, cluster, user, said) in cases {
            let faults = faults_of_kubeconfig(server, cluster, user);
            assert!(faults.len() == 1 && faults[0].contains(said), "{server} {user}: {faults:?}");
            assert!(faults[0].starts_with("--kubeconfig: "), "{faults:?}");
        }
        assert_eq!(faults_of_kubeconfig(url, "", "{token: t}"), [""; 0]);
    }

    fn pod_of(flags: &KubernetesFlags, identity: Option<&str>, host_name: &str) -> Result<String, String> {
        let pod = Pod::new();
        let surroundings = Surroundings { host_name: host_name.into(), ..pod.surroundings() };
        let sources = Sources::default();
        let mut faults = Faults::new(&sources);
        let parsed = parse_pod_label(flags, Some("web"), identity, &surroundings, &mut faults);
        match faults.finish(parsed).map_err(|faults| faults[0].to_string())? {
            PodLabelConfig::On(config) => Ok(config.pod),
            PodLabelConfig::Off(off) => panic!("{off:?}"),
        }
    }

    #[test]
    fn the_pod_is_the_one_named_by_the_identity_if_that_can_be_a_pods_name() {
        let default = KubernetesFlags::default();
        assert_eq!(pod_of(&default, Some("web-0"), "node-7").as_deref(), Ok("web-0"), "on the node's network");
        assert_eq!(pod_of(&default, Some("Web of Berlin"), "web-0").as_deref(), Ok("web-0"));
        assert_eq!(pod_of(&default, None, "web-0").as_deref(), Ok("web-0"));
        let named = KubernetesFlags { pod_name: set("web-1"), ..KubernetesFlags::default() };
        assert_eq!(pod_of(&named, Some("web-0"), "web-0").as_deref(), Ok("web-1"));
        assert!(pod_of(&default, Some("Web of Berlin"), "Host_7").is_err(), "none of both can be");
    }

    #[test]
    fn a_preset_is_the_label_of_another_tool_and_each_part_can_be_replaced() {
        let patroni = KubernetesFlags { label_preset: set("patroni"), ..KubernetesFlags::default() };
        let labels = labels_of(&patroni);
        assert_eq!((labels.role_key.as_str(), labels.leader.as_str()), ("role", "primary"));
        assert_eq!(labels.follower.as_deref(), Some("replica"));
        let replaced = KubernetesFlags { label_key: set("shop.example/role"), label_follower: set(""), ..patroni };
        let labels = labels_of(&replaced);
        assert_eq!((labels.role_key.as_str(), labels.leader.as_str()), ("shop.example/role", "primary"));
        assert_eq!(labels.follower, None);
    }

    #[test]
    fn a_key_that_cannot_be_hides_no_two_values_that_are_alike() {
        let flags =
            KubernetesFlags { label_key: set("ro le"), label_follower: set("leader"), ..KubernetesFlags::default() };
        assert_eq!(parse(&flags, &outside()).expect_err("two faults").len(), 2);
    }

    #[test]
    fn every_fault_is_told_with_its_way_out() {
        let flags = KubernetesFlags {
            label_preset: set("raft"),
            label_key: set("ro le"),
            label_leader: set("yes/no"),
            pod_name: set("Web"),
            ..KubernetesFlags::default()
        };
        let faults = parse(&flags, &Pod::new().surroundings()).expect_err("four faults");
        assert_eq!(faults.len(), 4, "{faults:?}");
        let same = KubernetesFlags { label_follower: set("leader"), ..KubernetesFlags::default() };
        let faults = parse(&same, &outside()).expect_err("leader and follower look alike");
        assert_eq!(
            faults,
            ["--label-follower: \"leader\" is also the value of --label-leader, and nobody could tell who leads; \
              choose another for one of them"]
        );
    }
}
