//! Configuration is refused early: exit code 64, one line per fault, all faults at once.

use std::fs;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use crate::program::{Said, say, say_with};

/// The flags that have no default, and an identity that does not depend on the machine.
pub const MINIMAL: [&str; 7] =
    ["run", "--election", "web", "--etcd-endpoints", "http://localhost:2379", "--identity", "web-0"];

/// Every line but the last, which points to the help.
pub fn faults(said: &Said) -> Vec<&str> {
    assert_eq!((said.code, said.out.as_str()), (Some(64), ""), "{}", said.err);
    let mut lines: Vec<&str> = said.err.lines().collect();
    assert_eq!(lines.pop(), Some("See bellwether run --help."), "{}", said.err);
    lines.iter().map(|line| line.strip_prefix("error: ").expect("every fault is marked as an error")).collect()
}

/// The one fault that these flags besides the necessary ones have.
pub fn fault(more: &[&str]) -> String {
    fault_of(&[&MINIMAL, more].concat())
}

/// As [`fault`], with other endpoints.
fn fault_with_endpoints(endpoints: &str, more: &[&str]) -> String {
    fault_of(&[&["run", "--election", "web", "--identity", "web-0", "--etcd-endpoints", endpoints], more].concat())
}

fn fault_of(arguments: &[&str]) -> String {
    let said = say(arguments);
    let faults = faults(&said);
    assert_eq!(faults.len(), 1, "{faults:#?}");
    faults[0].to_owned()
}

#[test]
fn what_has_no_default_must_be_given() {
    let said = say(&["run", "--identity", "web-0"]);
    assert_eq!(
        faults(&said),
        [
            "--election: is missing; name what the replicas contend for, for example --election web",
            "--etcd-endpoints: is missing; list etcd's URLs, for example --etcd-endpoints \
             https://etcd-0:2379,https://etcd-1:2379",
        ]
    );
}

#[test]
fn all_faults_are_told_at_once() {
    let arguments = "run --identity a/b --etcd-endpoints ftp://a:1,,http://b:2,http://B:2/ --ttl 4s --safety-margin 3s \
                     --answer-validity 11s --http nowhere --log-level loud --epoch none";
    let arguments: Vec<&str> = arguments.split_ascii_whitespace().collect();
    let environment =
        [("BELLWETHER_ELECTION", "web/1"), ("BELLWETHER_NAMESPACE", "Shop"), ("BELLWETHER_DRAIN_TIMEOUT", "10s")];
    assert_eq!(
        faults(&say_with(&arguments, &environment)),
        [
            "--election: \"web/1\" is not a Kubernetes label value; use letters, digits, '-', '_' and '.', with a \
             letter or digit at both ends (set by BELLWETHER_ELECTION)",
            "--namespace: \"Shop\" is not a Kubernetes namespace; use lower-case letters, digits and '-', with a \
             letter or digit at both ends (set by BELLWETHER_NAMESPACE)",
            "--identity: \"a/b\" contains '/', which separates the parts of etcd keys; leave it out",
            "--epoch: \"none\" is not a whole number from 0 to 18446744073709551615; write for example 1",
            "--etcd-endpoints: \"ftp://a:1\" has the unknown scheme \"ftp\"; use http or https",
            "--etcd-endpoints: item 2 is empty; leave out the extra comma",
            "--etcd-endpoints: \"http://b:2\" is listed twice; leave one out",
            "--lease-ttl: 4s is too short for two renewal attempts: --keepalive-interval 1.333333333s + 2 × \
             --attempt-timeout 666.666666ms + --safety-margin 3s = 5.666666665s > 4s; raise --lease-ttl or lower one \
             of the others",
            "--answer-validity: 11s > --drain-timeout 10s: a release waits until the last answer has expired, so the \
             drain must be able to last as long; lower --answer-validity or raise --drain-timeout (set by \
             BELLWETHER_DRAIN_TIMEOUT)",
            "--http: \"nowhere\" does not start with an IP address; write for example 127.0.0.1:4040, [::1]:4040 or \
             localhost:4040",
            "--log-level: \"loud\" is unknown; choose one of error, warn, info, debug",
        ]
    );
}

#[test]
fn a_flag_wins_over_its_variable_and_an_empty_variable_counts_as_not_set() {
    let said = say_with(&[&MINIMAL[..], &["--ttl", "1s"]].concat(), &[("BELLWETHER_LEASE_TTL", "nonsense")]);
    assert_eq!(faults(&said), ["--lease-ttl: 1s is out of range; choose 2s to 3600s"]);

    let empty = [
        ("BELLWETHER_ELECTION", ""),
        ("BELLWETHER_ETCD_ENDPOINTS", ""),
        ("BELLWETHER_LEASE_TTL", ""),
        ("BELLWETHER_HTTP", ""),
        ("BELLWETHER_ALLOW_REMOTE_RESIGN", ""),
        ("BELLWETHER_ETCD_PASSWORD", ""),
    ];
    let said = say_with(&["run", "--identity", "web-0"], &empty);
    let missing = faults(&said);
    assert_eq!(missing.len(), 2, "{missing:#?}");
    assert!(missing[0].starts_with("--election: is missing") && missing[1].starts_with("--etcd-endpoints: is missing"));
}

#[test]
fn a_mistyped_flag_is_refused_with_the_one_that_was_meant() {
    let said = say(&[&MINIMAL[..], &["--lease-tt", "2s"]].concat());
    assert_eq!(said.code, Some(64));
    assert!(said.err.contains("'--lease-tt'") && said.err.contains("exists: '--lease-ttl'"), "{}", said.err);
}

#[test]
fn other_names_of_a_flag_are_that_flag() {
    for (name, fault_of_empty) in [
        ("--id", "--identity: \"\" is empty"),
        ("--election-namespace", "--namespace: \"\" is empty"),
        ("--ttl", "--lease-ttl: \"\" is empty; write for example 15s"),
    ] {
        let mut arguments = vec!["run", "--election", "web", "--etcd-endpoints", "http://localhost:2379", name, ""];
        if name != "--id" {
            arguments.extend(["--identity", "web-0"]);
        }
        assert_eq!(fault_of(&arguments), fault_of_empty, "{name}");
    }
}

#[test]
fn the_password_is_not_taken_from_a_flag_and_not_repeated() {
    for arguments in [&["run", "--etcd-password", "hunter2"][..], &["run", "--etcd-password=hunter2"]] {
        let said = say(arguments);
        assert_eq!((said.code, said.out.as_str()), (Some(64), ""));
        assert_eq!(
            said.err,
            "error: --etcd-password: does not exist, because everyone on the machine can read command lines; put the \
             password into a file and give --etcd-password-file, or set the environment variable \
             BELLWETHER_ETCD_PASSWORD\n"
        );
    }
}

#[test]
fn timings_are_refused_with_both_sides_of_the_relation() {
    for (flags, message) in [
        (["--ttl", "15"], "--lease-ttl: \"15\" has no unit; write 15s for seconds or 15ms for milliseconds"),
        (["--ttl", "1s"], "--lease-ttl: 1s is out of range; choose 2s to 3600s"),
        (["--ttl", "2h"], "--lease-ttl: 7200s is out of range; choose 2s to 3600s"),
        (
            ["--ttl", "2500ms"],
            "--lease-ttl: 2.5s is not a whole number of seconds, and etcd counts leases in seconds; choose 2s or 3s",
        ),
        (["--attempt-timeout", "1ms"], "--attempt-timeout: 1ms is too short; choose at least 10ms"),
        (
            ["--reconnect-window", "soon"],
            "--reconnect-window: \"soon\" is not a duration; write for example 15s, 500ms or 1m30s",
        ),
        (
            ["--keepalive-interval", "8s"],
            "--lease-ttl: 15s is too short for two renewal attempts: --keepalive-interval 8s + 2 × --attempt-timeout \
             2.5s + --safety-margin 3s = 16s > 15s; raise --lease-ttl or lower one of the others",
        ),
    ] {
        assert_eq!(fault(&flags), message);
    }
}

#[test]
fn names_are_refused_when_they_do_not_fit_where_they_go() {
    for (flags, message) in [
        (["--lock-key", "/a/"], "--lock-key: \"/a/\" ends with '/'; leave the last '/' out"),
        (["--lock-key", ""], "--lock-key: \"\" is empty"),
        (["--lock-key", "/a\u{7}"], "--lock-key: \"/a\\u{7}\" contains a control character; leave it out"),
        (
            ["--namespace", "a.b"],
            "--namespace: \"a.b\" is not a Kubernetes namespace; use lower-case letters, digits and '-', with a letter \
             or digit at both ends",
        ),
    ] {
        assert_eq!(fault(&flags), message);
    }
    let long = "x".repeat(64);
    assert_eq!(
        fault_of(&["run", "--etcd-endpoints", "http://localhost:2379", "--identity", "web-0", "--election", &long]),
        format!("--election: \"{long}\" is 64 bytes long; at most 63 are allowed")
    );
}

#[test]
fn endpoints_are_refused_for_what_is_wrong_with_them() {
    for (endpoints, message) in [
        ("etcd-0:2379", "\"etcd-0:2379\" has no scheme; write http://etcd-0:2379 or https://etcd-0:2379"),
        ("", "item 1 is empty; leave out the extra comma"),
        ("http://etcd-0", "\"http://etcd-0\" has no valid port; etcd's is usually 2379, as in http://etcd-0:2379"),
        ("http://etcd-0:2379/v3", "\"http://etcd-0:2379/v3\" has a path; an endpoint ends with its port"),
        (
            "http://root:hunter2@etcd-0:2379",
            "\"http://…@etcd-0:2379\" carries credentials; use --etcd-user with --etcd-password-file or the \
             environment variable BELLWETHER_ETCD_PASSWORD",
        ),
    ] {
        assert_eq!(fault_with_endpoints(endpoints, &[]), format!("--etcd-endpoints: {message}"));
    }
    let many: Vec<String> = (0..17).map(|n| format!("http://etcd-{n}:2379")).collect();
    assert_eq!(
        fault_with_endpoints(&many.join(","), &[]),
        "--etcd-endpoints: 17 endpoints are listed; at most 16 are allowed"
    );
    assert_eq!(
        fault_with_endpoints("http://etcd-0:2379,https://etcd-1:2379", &[]),
        "--etcd-endpoints: both http and https endpoints are listed; use one scheme for all"
    );
}

#[test]
fn two_listeners_on_one_address_are_refused() {
    for (flags, message) in [
        (&["--http", "127.0.0.1:4041"][..], "--telemetry: 0.0.0.0:4041 collides with --http 127.0.0.1:4041"),
        (&["--http", "localhost:1,127.0.0.1:1"], "--http: 127.0.0.1:1 collides with --http 127.0.0.1:1"),
        (&["--http", "unix:/a", "--http", "unix:/a"], "--http: unix:/a collides with --http unix:/a"),
        (
            &["--telemetry", "[::]:4040", "--http", "127.0.0.1:4040"],
            "--telemetry: [::]:4040 collides with --http 127.0.0.1:4040",
        ),
    ] {
        assert_eq!(fault(flags), format!("{message}; choose another address or port for one of them"));
    }
}

#[test]
fn listeners_logs_and_switches_are_refused_when_they_cannot_be_read() {
    for (flags, message) in [
        (&["--http", "unix:"][..], "--http: \"unix:\" has no path; write for example unix:/run/bellwether.sock"),
        (&["--http", "127.0.0.1"], "--http: \"127.0.0.1\" has no port; write for example 127.0.0.1:4040"),
        (
            &["--telemetry", "unix:/a"],
            "--telemetry: \"unix:/a\" is a unix socket; telemetry listens on TCP, for example 0.0.0.0:4041",
        ),
        (&["--log-format", "xml"], "--log-format: \"xml\" is unknown; choose one of auto, text, json"),
        (&["--allow-remote-resign=maybe"], "--allow-remote-resign: \"maybe\" is unknown; choose one of true, false"),
    ] {
        assert_eq!(fault(flags), message);
    }
    let path = "x".repeat(108);
    assert_eq!(
        fault(&["--http", &format!("unix:{path}")]),
        format!("--http: \"unix:{path}\" has a path of 108 bytes; a unix socket's path has at most 107")
    );
}

#[test]
fn user_and_password_come_together_and_from_one_place() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = write(&folder, "password", "hunter2\n");
    let empty = write(&folder, "empty", "\n");
    assert_eq!(
        fault(&["--etcd-user", "web"]),
        "--etcd-user: is set without a password; give --etcd-password-file or the environment variable \
         BELLWETHER_ETCD_PASSWORD"
    );
    assert_eq!(
        fault(&["--etcd-password-file", &file]),
        "--etcd-password-file: is set without --etcd-user; give both or neither"
    );
    assert_eq!(
        fault(&["--etcd-user", "web", "--etcd-password-file", &empty]),
        format!("--etcd-password-file: \"{empty}\" is empty; write the password into it")
    );
    let password = [("BELLWETHER_ETCD_PASSWORD", "hunter2")];
    let said = say_with(&MINIMAL, &password);
    assert_eq!(faults(&said), ["BELLWETHER_ETCD_PASSWORD: is set without --etcd-user; give both or neither"]);
    let said = say_with(&[&MINIMAL[..], &["--etcd-user", "web", "--etcd-password-file", &file]].concat(), &password);
    assert_eq!(faults(&said), ["--etcd-password-file: is set, and so is BELLWETHER_ETCD_PASSWORD; keep one of them"]);
}

const HTTPS: &str = "https://localhost:2379";

#[test]
fn the_authoritys_certificate_is_read_before_anything_is_started() {
    let folder = TempDir::new().expect("a temporary folder");
    let text = write(&folder, "text", "not PEM at all\n");
    let broken = write(&folder, "broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let missing = folder.path().join("missing").display().to_string();
    let with = |ca_file: &str| fault_with_endpoints(HTTPS, &["--etcd-ca-file", ca_file]);

    assert_eq!(
        fault_with_endpoints(HTTPS, &[]),
        "--etcd-ca-file: is missing; https endpoints need the PEM file of the authority that signed etcd's \
         certificates (kubeadm keeps it in /etc/kubernetes/pki/etcd/ca.crt)"
    );
    assert_eq!(
        with(&missing),
        format!("--etcd-ca-file: \"{missing}\" cannot be read: No such file or directory (os error 2)")
    );
    assert_eq!(
        with(&text),
        format!(
            "--etcd-ca-file: \"{text}\" holds no PEM certificate; give a file with a block \"-----BEGIN CERTIFICATE-----\""
        )
    );
    let of_broken = with(&broken);
    let start = format!("--etcd-ca-file: \"{broken}\" holds something that is not a usable certificate: ");
    assert!(of_broken.starts_with(&start), "{of_broken}");
    assert_eq!(
        with("/dev/zero"),
        "--etcd-ca-file: \"/dev/zero\" is larger than 1048576 bytes; give the file that holds only what is needed"
    );
}

#[test]
fn a_client_certificate_needs_its_own_key() {
    let folder = TempDir::new().expect("a temporary folder");
    let (certificate, key) = certificate(&folder, "web");
    let (_, other_key) = self::certificate(&folder, "other");
    let ca = ["--etcd-ca-file", certificate.as_str()];
    let with = |more: &[&str]| fault_with_endpoints(HTTPS, &[&ca[..], more].concat());

    assert_eq!(
        with(&["--etcd-cert-file", &certificate]),
        "--etcd-cert-file: is set without --etcd-key-file; give both or neither"
    );
    assert_eq!(
        with(&["--etcd-key-file", &key]),
        "--etcd-key-file: is set without --etcd-cert-file; give both or neither"
    );
    assert_eq!(
        with(&["--etcd-cert-file", &certificate, "--etcd-key-file", &certificate]),
        format!(
            "--etcd-key-file: \"{certificate}\" holds no PEM private key; give a file with a block \"-----BEGIN PRIVATE \
             KEY-----\""
        )
    );
    assert_eq!(
        with(&["--etcd-cert-file", &certificate, "--etcd-key-file", &other_key]),
        format!(
            "--etcd-cert-file: \"{certificate}\" does not belong to --etcd-key-file \"{other_key}\"; give the key it was \
             issued for"
        )
    );
    assert_eq!(
        with(&["--etcd-server-name", "not a name"]),
        "--etcd-server-name: \"not a name\" is not a host name or IP address; write for example etcd.example.com"
    );
    assert_eq!(
        fault(&ca),
        "--etcd-ca-file: is set, but --etcd-endpoints is not https; write https:// there or leave --etcd-ca-file out"
    );
}

#[test]
fn the_switch_of_the_tests_is_refused_when_it_names_nothing() {
    let said = say_with(&MINIMAL, &[("BELLWETHER_SABOTAGE", "nothing")]);
    let faults = faults(&said);
    assert_eq!(faults.len(), 1, "{faults:#?}");
    let start = "BELLWETHER_SABOTAGE: \"nothing\" cannot be taken away in this build; ";
    assert!(faults[0].starts_with(start), "{faults:#?}");
}

fn write(folder: &TempDir, name: &str, content: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, content).expect("a file in a temporary folder can be written");
    path.to_str().expect("temporary paths are text").to_owned()
}

/// A self-signed certificate and its key, as files.
fn certificate(folder: &TempDir, name: &str) -> (String, String) {
    let key = KeyPair::generate().expect("a key can be generated");
    let params = CertificateParams::new(vec![name.to_owned()]).expect("a name in a test is a DNS name");
    let certificate = params.self_signed(&key).expect("a certificate can sign itself");
    (
        write(folder, &format!("{name}.pem"), &certificate.pem()),
        write(folder, &format!("{name}-key.pem"), &key.serialize_pem()),
    )
}
