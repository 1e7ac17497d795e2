//! The commands that ask: probe, resign and status, against answers a test chooses.

use std::net::TcpListener;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::one_answer::OneAnswer;
use crate::program::{Said, say, say_with};

const LEADING: &str = r#"{"name":"web-0","identity":"web-0","election":"default/web","leading":true,"state":"leading",
    "epoch":0,"term":48213,"valid_for_ms":60000,"since":"2026-11-22T07:00:00Z","etcd":"connected"}"#;
const STANDING_BY: &str = r#"{"name":"web-0","identity":"web-1","election":"default/web","leading":false,
    "state":"standby","epoch":0,"term":48213,"valid_for_ms":0,"since":"2026-11-22T07:00:00Z","etcd":"connected"}"#;

fn said(code: i32, out: &str, err: &str) -> Said {
    Said { code: Some(code), out: out.into(), err: err.into() }
}

/// A listener whose connections nobody accepts.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound listener has an address").to_string();
    (listener, address)
}

#[test]
fn probe_leader_says_yes_only_to_a_leading_sidecar() {
    let server = OneAnswer::http("200 OK", LEADING);
    assert_eq!(
        say(&["probe", "leader", "--api", &server.address]),
        said(0, "yes: web-0 leads default/web, term 48213, good for 60000 ms\n", "")
    );
    assert!(server.request().starts_with("GET /leader HTTP/1.1\r\n"));

    let server = OneAnswer::http("503 Service Unavailable", STANDING_BY);
    assert_eq!(
        say(&["probe", "leader", "--api", &format!("http://{}", server.address)]),
        said(1, "no: web-1 does not lead default/web, web-0 does\n", "")
    );
}

#[test]
fn probe_leader_can_insist_on_an_identity() {
    let server = OneAnswer::http("503 Service Unavailable", &LEADING.replace("true", "false"));
    assert_eq!(
        say(&["probe", "leader", "--id", "web 7", "--api", &server.address]),
        said(1, "no: the sidecar there is web-0, not the one asked for\n", "")
    );
    assert!(server.request().starts_with("GET /leader?identity=web%207 HTTP/1.1\r\n"));
}

#[test]
fn probe_leader_is_not_fooled_by_another_program_on_the_port() {
    let server = OneAnswer::http("200 OK", "hello");
    let expected = format!("no answer: http://{} said 200 OK without the body of /leader\n", server.address);
    assert_eq!(say(&["probe", "leader", "--api", &server.address]), said(2, "", &expected));

    let server = OneAnswer::raw("SSH-2.0-OpenSSH_9.2\r\n".into());
    let Said { code, out, err } = say(&["probe", "leader", "--api", &server.address]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("did not answer in HTTP/1.1"), "{err}");
}

#[test]
fn nobody_there_is_an_exit_code_of_its_own() {
    let folder = TempDir::new().expect("a temporary folder");
    let address = format!("unix:{}", folder.path().join("nobody.sock").display());
    let expected = format!(
        "no answer: cannot connect to {address}: No such file or directory (os error 2); is a sidecar running there?\n"
    );
    assert_eq!(say(&["probe", "leader", "--api", &address]), said(2, "", &expected));
    assert_eq!(say(&["probe", "livez", "--telemetry", &address]), said(2, "", &expected));
    assert_eq!(say(&["resign", "--api", &address]), said(2, "", &expected));
    assert_eq!(say(&["status", "--api", &address]), said(2, "", &expected));
}

#[test]
fn a_refused_connection_is_no_leader() {
    // Port 1 is in nobody's ephemeral range, and tcpmux is long dead.
    let Said { code, out, err } = say(&["probe", "leader", "--api", "127.0.0.1:1"]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.starts_with("no answer: cannot connect to http://127.0.0.1:1: Connection refused"), "{err}");
}

#[test]
fn silence_ends_with_the_timeout() {
    // The kernel accepts the connection, and nobody answers.
    let (_listener, address) = silent();
    let expected = format!("no answer: http://{address} did not answer within 50ms; --timeout sets how long to wait\n");
    assert_eq!(say(&["probe", "leader", "--timeout", "50ms", "--api", &address]), said(2, "", &expected));
}

#[test]
fn an_endless_body_is_given_up_on() {
    let server = OneAnswer::http("200 OK", &"x".repeat(1024 * 1024 + 1));
    let Said { code, err, .. } = say(&["status", "--timeout", "20s", "--api", &server.address]);
    assert_eq!(code, Some(2));
    assert!(err.contains("answered with more than 1048576 bytes"), "{err}");
}

#[test]
fn probes_of_telemetry_follow_the_status_code() {
    let server = OneAnswer::http("200 OK", "");
    assert_eq!(say(&["probe", "livez", "--telemetry", &server.address]), said(0, "yes: 200 OK\n", ""));
    assert!(server.request().starts_with("GET /livez HTTP/1.1\r\n"));

    let server = OneAnswer::http("503 Service Unavailable", "{\"error\":\"the driver does not run yet\"}\n");
    let telemetry = [("BELLWETHER_TELEMETRY", server.address.as_str())];
    assert_eq!(
        say_with(&["probe", "readyz"], &telemetry),
        said(1, "no: 503 Service Unavailable, {\"error\":\"the driver does not run yet\"}\n", "")
    );
    assert!(server.request().starts_with("GET /readyz HTTP/1.1\r\n"));
}

#[test]
fn in_the_sidecars_own_container_its_listener_is_found_by_itself() {
    let folder = TempDir::new().expect("a temporary folder");
    let server = OneAnswer::unix(&folder.path().join("b.sock"), "200 OK", LEADING);
    let listeners = format!("{},127.0.0.1:1", server.address);
    assert_eq!(say_with(&["probe", "leader"], &[("BELLWETHER_HTTP", &listeners)]).code, Some(0));
    assert!(server.request().contains("host: localhost\r\n"));
}

#[test]
fn resign_tells_what_came_of_it() {
    let accepted = r#"{"resigning":true,"identity":"web-0","term":7,"cooldown_ms":90000}"#;
    let server = OneAnswer::http("202 Accepted", accepted);
    assert_eq!(
        say(&["resign", "--cooldown", "1m30s", "--api", &server.address]),
        said(
            0,
            "web-0 stands down: it answers 503 from now on, releases the lock once the answers it gave have expired, \
             and stays away for 1m30s\n",
            ""
        )
    );
    assert!(server.request().starts_with("POST /resign?cooldown=90000ms HTTP/1.1\r\n"));

    let server = OneAnswer::http("409 Conflict", r#"{"error":"web-1 does not lead: web-0 holds the lock"}"#);
    assert_eq!(say(&["resign", "--api", &server.address]), said(1, "", "web-1 does not lead: web-0 holds the lock\n"));
    assert!(server.request().starts_with("POST /resign?cooldown=30000ms HTTP/1.1\r\n"));

    let server = OneAnswer::http("403 Forbidden", r#"{"error":"only from loopback\u001b[2J"}"#);
    let expected = format!("http://{} refused with 403 Forbidden: only from loopback\\u{{1b}}[2J\n", server.address);
    assert_eq!(say(&["resign", "--api", &server.address]), said(2, "", &expected));
}

fn status_body() -> String {
    let mut body: Value = serde_json::from_str(STANDING_BY).expect("the example is JSON");
    body["since"] = json!("2999-01-01T00:00:00Z");
    body["not_leading"] = json!("web-0 holds the lock");
    body["candidates_total"] = json!(3);
    body["candidates"] = json!([
        {"identity": "web-0", "epoch": 0, "registered_at": "2999-01-01T00:00:00Z", "leading_since": null},
        {"identity": "web-1", "epoch": null, "registered_at": null, "leading_since": null},
        {"identity": "web-2", "something": "newer"},
    ]);
    body["timings"] = json!({"lease_ttl_ms": 15000});
    body.to_string()
}

#[test]
fn status_of_a_sidecar_is_a_table_for_people() {
    let server = OneAnswer::http("200 OK", &status_body());
    let Said { code, out, err } = say(&["status", "--api", &server.address]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let expected = [
        "Election  default/web",
        "Leader    web-0, term 48213, epoch 0",
        "Since     2999-01-01T00:00:00Z",
        &format!("Told by   sidecar web-1 at http://{} (standby, etcd connected)", server.address),
        "          web-1 does not lead: web-0 holds the lock",
        "",
        "CANDIDATE  ROLE     REGISTERED",
        "web-0      leader   2999-01-01T00:00:00Z",
        "web-1      heir     -",
        "web-2      standby  -",
    ];
    assert_eq!(out.lines().collect::<Vec<_>>(), expected);
    assert!(server.request().starts_with("GET /status HTTP/1.1\r\n"));
}

#[test]
fn status_as_json_has_the_same_shape_wherever_it_comes_from() {
    let server = OneAnswer::http("200 OK", &status_body());
    let Said { code, out, .. } = say(&["status", "--output", "json", "--api", &server.address]);
    assert_eq!(code, Some(0));
    let told: Value = serde_json::from_str(&out).expect("it is JSON");
    assert_eq!(
        told,
        json!({
            "election": "default/web",
            "leader": {"identity": "web-0", "epoch": 0, "term": 48213, "lease_remaining_s": null},
            "since": "2999-01-01T00:00:00Z",
            "told_by": {
                "kind": "sidecar", "address": format!("http://{}", server.address), "identity": "web-1", "part": null,
                "state": "standby", "etcd": "connected", "not_leading": "web-0 holds the lock",
            },
            "notes": [],
            "candidates": [
                {"identity": "web-0", "role": "leader", "registered_at": "2999-01-01T00:00:00Z"},
                {"identity": "web-1", "role": "heir", "registered_at": null},
                {"identity": "web-2", "role": "standby", "registered_at": null},
            ],
            "candidates_total": 3,
        })
    );
}

#[test]
fn without_etcd_nobody_is_called_the_heir() {
    let mut body: Value = serde_json::from_str(&status_body()).expect("the example is JSON");
    (body["etcd"], body["name"]) = (json!("unreachable"), json!(""));
    let server = OneAnswer::http("200 OK", &body.to_string());
    let Said { out, .. } = say(&["status", "--api", &server.address]);
    let roles: Vec<&str> = out.lines().skip_while(|line| !line.starts_with("CANDIDATE")).skip(1).collect();
    assert_eq!(roles.len(), 3, "{out}");
    assert!(roles.iter().all(|line| line.contains("  unknown  ")), "{out}");
}

#[test]
fn who_does_not_want_to_lead_is_not_called_the_heir() {
    let mut body: Value = serde_json::from_str(&status_body()).expect("the example is JSON");
    body["not_leading"] = json!("its application is not healthy (--app-health)");
    for reason in ["app_unhealthy", "app_starting", "never_leads"] {
        body["not_leading_reason"] = json!(reason);
        let server = OneAnswer::http("200 OK", &body.to_string());
        let Said { out, .. } = say(&["status", "--api", &server.address]);
        assert!(
            out.contains("\n          web-1 does not lead: its application is not healthy (--app-health)\n"),
            "{out}"
        );
        assert!(out.contains("\nweb-1      left    -\n") && out.contains("\nweb-2      heir    -\n"), "{out}");
    }
}

#[test]
fn an_election_without_a_leader_is_an_answer_too() {
    let body = STANDING_BY.replace(r#""name":"web-0""#, r#""name":"""#).replace("connected", "unreachable");
    let server = OneAnswer::http("200 OK", &body);
    let Said { code, out, .. } = say(&["status", "--api", &server.address]);
    assert_eq!(code, Some(0));
    assert!(out.contains("\nLeader    none\n"), "{out}");
    assert!(out.contains("\nNote      etcd gives this sidecar no answer it can use"), "{out}");
}

#[test]
fn an_election_without_a_leader_is_a_failure_for_who_requires_one() {
    let nobody = STANDING_BY.replace(r#""name":"web-0""#, r#""name":"""#);
    for (body, required, code) in [(nobody.as_str(), "true", 1), (&nobody, "false", 0), (&status_body(), "true", 0)] {
        let server = OneAnswer::http("200 OK", body);
        let Said { code: ended, out, err } =
            say(&["status", &format!("--require-leader={required}"), "--api", &server.address]);
        assert_eq!((ended, err.as_str()), (Some(code), ""), "{required}: {out}");
        assert!(out.contains("\nLeader "), "it is told in any case: {out}");
    }
}

#[test]
fn a_leader_leads_since_it_says_so_and_not_since_it_was_seen() {
    let mut body: Value = serde_json::from_str(&status_body()).expect("the example is JSON");
    body["candidates"][0]["leading_since"] = json!("2998-01-01T00:00:00Z");
    let server = OneAnswer::http("200 OK", &body.to_string());
    let Said { out, .. } = say(&["status", "--api", &server.address]);
    assert!(out.contains("\nSince     2998-01-01T00:00:00Z\n"), "{out}");
}

#[test]
fn status_tells_which_endpoint_is_in_trouble() {
    let mut body: Value = serde_json::from_str(&status_body()).expect("the example is JSON");
    body["endpoints"] = json!([
        {"url": "http://a:2379", "health": "answering", "failed_operation": null, "failure": null, "version": "3.6.9"},
        {"url": "http://b:2379", "health": "failing", "failed_operation": "grant", "failure": "tls", "version": null},
        {"url": "http://c:2379", "health": "refused"},
    ]);
    let server = OneAnswer::http("200 OK", &body.to_string());
    let Said { out, .. } = say(&["status", "--api", &server.address]);
    assert!(!out.contains("http://a:2379"), "{out}");
    assert!(out.contains("\nNote      endpoint http://b:2379 fails: tls at grant;"), "{out}");
    assert!(out.contains("\nNote      endpoint http://c:2379 belongs to another cluster"), "{out}");
}

#[test]
fn endpoints_in_the_environment_alone_do_not_turn_status_to_etcd() {
    let server = OneAnswer::http("200 OK", &status_body());
    let environment =
        [("BELLWETHER_ETCD_ENDPOINTS", "http://127.0.0.1:1"), ("BELLWETHER_API", server.address.as_str())];
    assert_eq!(say_with(&["status"], &environment).code, Some(0));

    let said = say_with(&["status", "--from", "etcd", "--election", "web"], &environment);
    assert_eq!(said.code, Some(2));
    assert!(said.err.starts_with("no answer: no etcd endpoint answered: http://127.0.0.1:1: "), "{}", said.err);
}

#[test]
fn faults_of_the_commands_that_ask_are_told_at_once_too() {
    let Said { code, out, err } =
        say(&["status", "--output", "xml", "--api", "https://localhost:4040", "--timeout", "5"]);
    assert_eq!((code, out.as_str()), (Some(64), ""));
    let expected = [
        "error: --output: \"xml\" is unknown; choose one of table, json",
        "error: --api: \"https://localhost:4040\" is https, which the local API does not speak; write http://",
        "error: --timeout: \"5\" has no unit; write 5s for seconds or 5ms for milliseconds",
        "See bellwether status --help.",
    ];
    assert_eq!(err.lines().collect::<Vec<_>>(), expected);
    let Said { code, err, .. } = say(&["resign", "--cooldown", "2h"]);
    assert_eq!(code, Some(64));
    assert!(err.starts_with("error: --cooldown: \"2h\" is longer than 1h\n"), "{err}");
    let Said { code, err, .. } = say(&["status", "--api", ":1", "--etcd-endpoints", "http://localhost:2379"]);
    assert_eq!(code, Some(64));
    assert!(err.starts_with("error: --api: is set, and so is --etcd-endpoints; keep one of them\n"), "{err}");
}
