//! Flags of the others that cannot be mapped, or not here.

use anyhow::Result;

use crate::sidecar::{REFUSED, bellwether};

/// Exit code and stderr of a start that must not come to anything: nobody listens at the endpoint.
fn refused(compat: &str, args: &[&str], env: &[(&str, &str)]) -> Result<Vec<String>> {
    let output = bellwether()
        .args(args)
        .env("BELLWETHER_COMPAT", compat)
        .env("BELLWETHER_ETCD_ENDPOINTS", "http://127.0.0.1:1")
        .env("BELLWETHER_ELECTION", "web")
        .envs(env.iter().copied())
        .output()?;
    assert_eq!(output.status.code(), Some(REFUSED), "{output:?}");
    let lines = String::from_utf8(output.stderr)?;
    Ok(lines.lines().filter_map(|line| line.strip_prefix("error: ")).map(str::to_owned).collect())
}

#[test]
fn without_compat_the_flags_of_others_are_refused_with_the_way_out() -> Result<()> {
    for (flag, line) in [
        (
            "--use-cluster-credentials",
            "--use-cluster-credentials: is understood only with --compat leader-elector or instana; leave it out: the \
             election is in etcd, and the pod's label uses the service account anyway",
        ),
        (
            "--initial-wait=true",
            "--initial-wait: is understood only with --compat leader-elector or instana; leave it out: a lock that is \
             held is never claimed",
        ),
        ("--probe-address=:1", "--probe-address: is understood only with --compat nais; write --telemetry"),
        ("--metrics-address=:1", "--metrics-address: is understood only with --compat nais; write --telemetry"),
    ] {
        assert_eq!(refused("", &["run", flag], &[])?, [line]);
    }
    // Another's are no better.
    assert_eq!(refused("instana", &["run", "--probe-address=:1"], &[])?.len(), 1);
    assert_eq!(refused("nais", &["run", "--initial-wait"], &[])?.len(), 1);
    Ok(())
}

#[test]
fn what_cannot_be_mapped_says_what_to_do() -> Result<()> {
    assert_eq!(
        refused("nais", &["--probe-address=0.0.0.0:4041", "--metrics-address=0.0.0.0:29090"], &[])?,
        [
            "--metrics-address: \"0.0.0.0:29090\" is not \"0.0.0.0:4041\", where the probes are; metrics and probes share \
          one address here: leave --metrics-address out and scrape 0.0.0.0:4041"
        ]
    );
    assert_eq!(
        refused("nais", &["--probe-address=:1", "--telemetry=:2"], &[])?,
        ["--probe-address: is set, and so is --telemetry; keep one of them"]
    );
    assert_eq!(
        refused("consul", &["run"], &[])?,
        ["--compat: \"consul\" is unknown; choose one of leader-elector, instana, nais (set by BELLWETHER_COMPAT)"]
    );
    assert_eq!(
        refused("nais", &["run"], &[("ELECTOR_HTTP", "web:4040")])?,
        ["--http: \"web:4040\" does not start with an IP address; write for example 127.0.0.1:4040, [::1]:4040 or \
          localhost:4040 (set by ELECTOR_HTTP)"]
    );
    assert_eq!(
        refused("leader-elector", &["--ttl=1.5s"], &[])?,
        ["--lease-ttl: \"1.5s\" has a fraction; write whole numbers, for example 1s500ms"]
    );
    Ok(())
}

#[test]
fn flags_without_a_subcommand_are_understood_only_with_compat() -> Result<()> {
    assert!(refused("", &["--lease-ttl=nonsense"], &[])?[0].contains("unexpected argument"));
    for compat in [("leader-elector", vec!["--ttl=x"]), ("", vec!["--ttl=x", "--compat=nais"])] {
        assert_eq!(
            refused(compat.0, &compat.1, &[])?,
            ["--lease-ttl: \"x\" is not a duration; write for example 15s, 500ms or 1m30s"]
        );
    }
    Ok(())
}
