//! The flags by which the application has a say are refused early, like all others.

use crate::faults::{MINIMAL, fault, faults};
use crate::program::{say, say_with};

#[test]
fn targets_are_refused_for_what_is_wrong_with_them() {
    for (target, message) in [
        (
            "localhost:8080",
            "\"localhost:8080\" is none of http://, tcp://, unix:, exec: and file:; write for example \
             http://localhost:8080/healthz",
        ),
        (
            "https://localhost:8443/",
            "\"https://localhost:8443/\" is https, which is not spoken here; give the application's health a port \
             without TLS on loopback, or use tcp://",
        ),
        (
            "http://root:hunter2@localhost:8080/",
            "\"http://…@localhost:8080/\" carries credentials, which would end up in logs; let the application answer \
             health without any",
        ),
        ("tcp://localhost", "\"tcp://localhost\" has no valid port; write for example tcp://localhost:5432"),
        ("exec:", "\"exec:\" has no command; write for example exec:pg_isready"),
        ("file:alive", "\"file:alive\" has no absolute path; write for example file:/run/app/alive"),
        (
            "file:/alive?max-age=10",
            "\"file:/alive?max-age=10\" has a max-age that has no unit; write 10s for seconds or 10ms for milliseconds",
        ),
        (
            "unix:/run/app.sock?url=/",
            "\"unix:/run/app.sock?url=/\" has the unknown option \"url\"; the only one is path",
        ),
    ] {
        assert_eq!(fault(&["--app-health", target]), format!("--app-health: {message}"));
    }
}

#[test]
fn probes_that_would_overlap_are_refused_with_both_sides() {
    let asked = ["--app-health", "tcp://localhost:5432"];
    assert_eq!(
        fault(&[&asked[..], &["--app-health-timeout", "3s"]].concat()),
        "--app-health-timeout: 3s > --app-health-interval 2s: a probe must end before the next begins; lower \
         --app-health-timeout or raise --app-health-interval"
    );
    assert_eq!(
        fault(&[&asked[..], &["--app-health-timeout", "1ms"]].concat()),
        "--app-health-timeout: 1ms is out of range; choose 10ms to 1h"
    );
    assert_eq!(
        fault(&[&asked[..], &["--app-health-start-grace", "2h"]].concat()),
        "--app-health-start-grace: 2h is out of range; choose 0s to 1h"
    );
    for count in ["0", "101", "+1", "two"] {
        assert_eq!(
            fault(&[&asked[..], &["--app-health-failures", count]].concat()),
            format!("--app-health-failures: {count:?} is not a whole number from 1 to 100; write for example 3")
        );
    }
}

#[test]
fn all_faults_of_the_probes_are_told_at_once_with_where_they_come_from() {
    let environment = [("BELLWETHER_APP_HEALTH_INTERVAL", "50ms"), ("BELLWETHER_APP_HEALTH_SUCCESSES", "0")];
    let more = ["--app-health", "ftp://x", "--app-health-timeout", "soon"];
    assert_eq!(
        faults(&say_with(&[&MINIMAL[..], &more].concat(), &environment)),
        [
            "--app-health: \"ftp://x\" is none of http://, tcp://, unix:, exec: and file:; write for example \
             http://localhost:8080/healthz",
            "--app-health-interval: 50ms is out of range; choose 100ms to 1h (set by BELLWETHER_APP_HEALTH_INTERVAL)",
            "--app-health-timeout: \"soon\" is not a duration; write for example 15s, 500ms or 1m30s",
            "--app-health-successes: \"0\" is not a whole number from 1 to 100; write for example 3 (set by \
             BELLWETHER_APP_HEALTH_SUCCESSES)",
        ]
    );
}

#[test]
fn how_to_ask_is_refused_where_nobody_is_to_be_asked() {
    let said = say(&[&MINIMAL[..], &["--app-health-timeout", "1s", "--app-health-failures", "2"]].concat());
    assert_eq!(
        faults(&said),
        [
            "--app-health-timeout: is set without --app-health; say with --app-health how the application is asked",
            "--app-health-failures: is set without --app-health; say with --app-health how the application is asked",
        ]
    );
}

#[test]
fn an_observer_has_no_use_for_what_concerns_leading() {
    assert_eq!(
        fault(&["--never-lead", "--app-health", "tcp://localhost:5432"]),
        "--app-health: is set, and so is --never-lead, whose sidecar never leads; leave one of them out"
    );
    assert_eq!(fault(&["--never-lead=perhaps"]), "--never-lead: \"perhaps\" is unknown; choose one of true, false");
}
