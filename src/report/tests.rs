use std::sync::{Arc, Mutex};

use super::*;
use crate::config::{
    ElectionConfig, EtcdConfig, HttpConfig, LabelOff, LockKeyName, LogConfig, LogFormat, LogLevel, PodLabelConfig,
};
use crate::election::{Epoch, Part, PublicState, Reason, Revision, Timings, TimingsRequest, WallTime};

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no writer panics").clone()).expect("it is text")
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn config() -> Config {
    let lock_key = LockKeyName("/bellwether/default/it's mine".to_owned());
    Config {
        election: ElectionConfig {
            name: "web".into(),
            namespace: "default".into(),
            identity: Identity::new("web-1"),
            lock_key,
            epoch: Epoch(4),
        },
        etcd: EtcdConfig { endpoints: vec!["http://a:2379".into(), "http://b:2379".into()], tls: None, auth: None },
        timings: Timings::new(TimingsRequest::default()).expect("the defaults fit each other"),
        part: Part::Candidate,
        app_health: None,
        http: HttpConfig { listen: Vec::new(), allow_remote_resign: false },
        telemetry: ([127, 0, 0, 1], 0).into(),
        work: None,
        compat: None,
        pod_label: PodLabelConfig::Off(LabelOff::Asked),
        state_dir: None,
        log: LogConfig { format: LogFormat::Text, level: LogLevel::Info },
        warnings: Vec::new(),
    }
}

/// The lines on stderr, from info on, and the text on stdout, of notices a second apart each.
fn reported(notices: &[Notice]) -> (Vec<String>, String) {
    let (log, stdout) = (Written::default(), Written::default());
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        let mut reporter = Reporter::new(&config(), Box::new(stdout.clone()));
        for (second, notice) in (0..).zip(notices) {
            let boot = Instant::from_nanos(0).after(Duration::from_secs(second));
            reporter.report(notice, Reading { boot, wall: WallTime::from_unix_nanos(0) });
        }
    });
    (log.text().lines().map(str::to_owned).collect(), stdout.text())
}

fn failed(endpoint: usize, kind: CallErrorKind) -> Notice {
    let operation = Operation::KeepAlive;
    Notice::EtcdFailed { endpoint: EndpointId(endpoint), operation, kind, message: "broken pipe".into() }
}

fn told(version: &str) -> Notice {
    Notice::ServerVersion { endpoint: EndpointId(0), version: version.into() }
}

#[test]
fn a_leader_is_named_on_stdout_and_its_absence_is_not() {
    let leader = |name| Notice::LeaderChanged { leader: Some(Identity::new(name)), term: None };
    let none = Notice::LeaderChanged { leader: None, term: None };
    let (_, stdout) = reported(&[leader("web-0"), none, leader("web-1")]);
    assert_eq!(stdout, "web-0 is the leader\nweb-1 is the leader\n");
}

#[test]
fn a_name_cannot_forge_a_line() {
    let leader = Some(Identity::new("x\nweb-1 is the leader\u{1b}[2J"));
    let (log, stdout) = reported(&[Notice::LeaderChanged { leader, term: None }]);
    assert_eq!((log.len(), stdout.lines().count()), (1, 1), "{stdout}");
    assert!(!stdout.contains('\u{1b}'));
}

#[test]
fn a_transition_says_reason_term_and_what_comes_next() {
    let term = Some(Term { epoch: Epoch(4), token: Revision(48213) });
    let (from, to, reason) = (PublicState::Leading, PublicState::Jeopardy, Reason::UntilPassed);
    let (log, _) = reported(&[Notice::Transition { from, to, reason, term }]);
    assert_eq!(log.len(), 1);
    for part in [
        "WARN",
        "leading",
        "jeopardy",
        "until_passed",
        "term=48213",
        "epoch=4",
        "/leader answers 503",
        "same term goes on",
    ] {
        assert!(log[0].contains(part), "{part} in {}", log[0]);
    }
}

#[test]
fn who_held_no_lock_is_not_said_to_let_go_of_one() {
    let (from, to, reason) = (PublicState::Standby, PublicState::StandingDown, Reason::Stopped);
    let of = |term| reported(&[Notice::Transition { from, to, reason, term }]).0.remove(0);
    assert!(!of(None).contains("let go"));
    assert!(of(Some(Term { epoch: Epoch(0), token: Revision(7) })).contains("let go"));
}

#[test]
fn a_leader_that_loses_its_term_is_warned_about_with_the_cause() {
    let term = Some(Term { epoch: Epoch(0), token: Revision(7) });
    let lost = |from, reason| {
        let mut log = reported(&[Notice::Transition { from, to: PublicState::Standby, reason, term }]).0;
        assert_eq!(log.len(), 1);
        log.remove(0)
    };
    let removed = lost(PublicState::Leading, Reason::LockDeleted);
    for part in ["WARN", "lock key is gone", "/leader answers 503", "stays away"] {
        assert!(removed.contains(part), "{part} in {removed}");
    }
    let expired = lost(PublicState::Jeopardy, Reason::LockDeleted);
    assert!(expired.contains("WARN") && expired.contains("claims the lock when its turn comes"), "{expired}");
    let overwritten = lost(PublicState::Leading, Reason::LockOverwritten);
    assert!(overwritten.contains("somebody else wrote the lock key"), "{overwritten}");
    assert!(lost(PublicState::Leading, Reason::LeaseLost).contains("does not know its lease"));
}

#[test]
fn who_resigned_is_not_said_to_claim_the_lock_next() {
    let term = Some(Term { epoch: Epoch(0), token: Revision(7) });
    let (from, to, reason) = (PublicState::StandingDown, PublicState::Standby, Reason::Resigned);
    let (log, _) = reported(&[Notice::Transition { from, to, reason, term }]);
    assert!(log[0].contains("INFO") && log[0].contains("stays away") && !log[0].contains("turn"), "{}", log[0]);
}

#[test]
fn a_change_of_leader_that_a_transition_tells_is_not_told_twice() {
    let leader = |name| Notice::LeaderChanged { leader: Some(Identity::new(name)), term: None };
    let none = || Notice::LeaderChanged { leader: None, term: None };
    assert!(reported(&[leader("web-1"), none()]).0.is_empty(), "web-1 is this candidate");
    let (log, _) = reported(&[leader("web-0"), none()]);
    assert!(log.len() == 2 && log[0].contains("leader=web-0") && log[1].contains("no leader is known"), "{log:?}");
}

#[test]
fn a_failure_that_comes_back_after_a_while_is_said_again() {
    let down = || failed(0, CallErrorKind::Unavailable);
    let quiet = || Notice::Renewed(Duration::from_millis(1));
    let mut notices = vec![down()];
    notices.extend((0..30).map(|_| quiet()));
    notices.push(down());
    assert_eq!(reported(&notices).0.len(), 1, "the same series");
    notices.extend((0..60).map(|_| quiet()));
    notices.push(down());
    assert_eq!(reported(&notices).0.len(), 2);
    assert_eq!(reported(&vec![down(); 600]).0.len(), 1, "ten minutes without a pause");
    assert_eq!(reported(&vec![down(); 601]).0.len(), 2, "and then once more");
}

#[test]
fn a_failure_that_needs_a_person_is_said_again_once_a_minute() {
    for kind in [CallErrorKind::Unauthenticated, CallErrorKind::PermissionDenied, CallErrorKind::Tls] {
        assert_eq!(reported(&vec![failed(0, kind); 121]).0.len(), 3, "{kind:?}");
    }
}

#[test]
fn each_way_an_endpoint_fails_is_said_once_until_etcd_is_back() {
    let (down, late) = (CallErrorKind::Unavailable, CallErrorKind::Timeout);
    let outage = [failed(0, down), failed(0, down), failed(1, down), failed(0, late), failed(0, down)];
    let (log, _) = reported(&outage);
    assert_eq!(log.len(), 3, "{log:?}");
    assert!(log[0].contains("http://a:2379") && log[0].contains("broken pipe") && log[0].contains("keepalive"));
    let (log, _) = reported(&[failed(0, down), Notice::EtcdBack, failed(0, down)]);
    assert_eq!(log.len(), 3, "{log:?}");
}

#[test]
fn an_outage_is_said_and_so_is_its_end_although_its_first_failure_was_met_a_moment_before() {
    let late = || failed(0, CallErrorKind::Timeout);
    let (log, _) = reported(&[late(), late(), Notice::EtcdSilent, Notice::EtcdBack]);
    assert_eq!(log.len(), 3, "{log:?}");
    assert!(log[1].contains("WARN") && log[1].contains("no answer"), "{}", log[1]);
    assert!(log[2].contains("INFO") && log[2].contains("answers again"), "{}", log[2]);
}

#[test]
fn a_renewal_is_not_worth_a_line() {
    let renewed = Notice::Renewed(Duration::from_millis(1));
    assert!(reported(&[renewed, Notice::RenewalFailed(RenewalFailure::Timeout)]).0.is_empty());
}

#[test]
fn what_came_of_an_ended_stream_is_said_once() {
    let (ended, renewed) = (Notice::StreamEnded { window: Duration::from_secs(5) }, Notice::Renewed(Duration::ZERO));
    let (log, _) = reported(&[renewed.clone(), ended.clone(), renewed.clone(), renewed.clone()]);
    assert!(log.len() == 2 && log[1].contains("confirmed in time"), "{log:?}");
    let (from, to, reason) = (PublicState::Leading, PublicState::Jeopardy, Reason::StreamEnded);
    let (log, _) = reported(&[ended, Notice::Transition { from, to, reason, term: None }, renewed]);
    assert!(log.len() == 2 && log[1].contains("in jeopardy"), "{log:?}");
}

#[test]
fn how_long_a_claim_took_is_a_number_of_milliseconds() {
    let (log, _) = reported(&[Notice::TookOver(Duration::from_nanos(6_047_601))]);
    assert!(log[0].contains("took_ms=6.048"), "{}", log[0]);
}

#[test]
fn the_command_that_clears_a_lock_without_lease_can_be_pasted() {
    let holder = Identity::new("somebody");
    let (log, _) = reported(&[Notice::LockWithoutLease { holder }]);
    assert!(log[0].contains(r"etcdctl del '/bellwether/default/it'\''s mine'"), "{}", log[0]);
    assert!(log[0].contains("ERROR"));
    assert_eq!(shell_word("/bellwether/default/web"), "/bellwether/default/web");
}

#[test]
fn a_standing_fault_is_said_again_once_a_minute() {
    let notices = vec![Notice::IdentityTaken { lease: None }; 121];
    assert_eq!(reported(&notices).0.len(), 3);
}

#[test]
fn a_store_reset_names_the_epoch_to_restart_with() {
    let (log, _) = reported(&[Notice::StoreReset { seen: Revision(900), now: Revision(3) }]);
    assert!(log[0].contains("revision 3 came after 900") && log[0].contains("--epoch 5"), "{}", log[0]);
}

#[test]
fn versions_are_judged_by_what_they_do_to_leases() {
    for (version, advice) in [
        ("3.3.25", Advice::RevokesLiveLeases),
        ("3.4.23", Advice::RevokesLiveLeases),
        ("3.4.30", Advice::RevokesLiveLeases),
        ("3.4.31", Advice::EndOfLife),
        ("3.5.0", Advice::RevokesLiveLeases),
        ("3.5.12", Advice::RevokesLiveLeases),
        ("3.5.13", Advice::Fine),
        ("3.6.0-rc.1", Advice::Fine),
        ("2.3.8", Advice::RevokesLiveLeases),
        ("4.0.0", Advice::Fine),
        ("3.6", Advice::Unknown),
        ("", Advice::Unknown),
    ] {
        assert_eq!(Advice::on(version), advice, "{version}");
    }
}

#[test]
fn a_version_is_warned_about_once() {
    let (log, _) = reported(&[told("3.4.23"), told("3.4.23"), told("3.5.28"), told("3.4.40")]);
    assert_eq!(log.len(), 2, "{log:?}");
    assert!(log[0].contains("WARN") && log[0].contains("15247") && log[0].contains("3.4.23"));
    assert!(log[1].contains("INFO") && log[1].contains("end of its life"));
}
