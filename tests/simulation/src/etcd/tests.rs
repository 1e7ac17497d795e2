//! The model by itself, without anything real beside it: a healthy cluster, and each way of losing a leader.

use std::time::Duration;

use bellwether::election::{
    Answer, Body, Call, CallError, CandidateRecord, Epoch, Identity, LeaseId, Revision, WallTime, WatchTarget,
};

use super::log::Proposal;
use super::store::Command;
use super::{Asked, Behaviour, Cluster, ClusterOptions, Extension, Operation, Output, Ticket};

const LEASE: LeaseId = LeaseId(4711);
const TTL: Duration = Duration::from_secs(15);

struct Scene {
    cluster: Cluster,
    now: u64,
    tickets: u64,
    said: Vec<Output>,
}

impl Scene {
    fn new(behaviour: Behaviour, extension: Extension, seed: u64) -> Self {
        let election_timeout = Duration::from_secs(1);
        let cluster = Cluster::new(ClusterOptions { members: 3, behaviour, extension, election_timeout, seed });
        Self { cluster, now: 0, tickets: 0, said: Vec::new() }
    }

    fn wait(&mut self, seconds: f64) {
        let until = self.now + u64::try_from(Duration::from_secs_f64(seconds).as_nanos()).expect("short");
        while let Some(at) = self.cluster.next_at().filter(|at| *at <= until) {
            self.cluster.advance(at);
        }
        self.now = until;
        self.cluster.advance(until);
        while let Some(output) = self.cluster.poll_output() {
            self.said.push(output);
        }
    }

    fn send(&mut self, member: usize, asked: Asked) -> Ticket {
        self.tickets += 1;
        self.cluster.ask(self.now, member, Ticket(self.tickets), asked);
        Ticket(self.tickets)
    }

    /// What was said to this ticket, waiting as long as the server may take.
    fn said_to(&mut self, ticket: Ticket) -> Option<Output> {
        for _ in 0..800 {
            if let Some(place) = self.said.iter().position(|output| output.ticket() == ticket) {
                return Some(self.said.remove(place));
            }
            self.wait(0.01);
        }
        None
    }

    fn call(&mut self, member: usize, call: Call) -> Result<Answer, CallError> {
        let ticket = self.send(member, Asked::Call { identity: Identity::new("web-0"), call });
        match self.said_to(ticket) {
            Some(Output::Answered { result, .. }) => result,
            other => panic!("no answer: {other:?}"),
        }
    }

    fn keep_alive(&mut self, member: usize) -> Result<i64, CallError> {
        let ticket = self.send(member, Asked::KeepAlive { lease: LEASE });
        match self.said_to(ticket) {
            Some(Output::KeptAlive { ttl_seconds, .. }) => Ok(ttl_seconds),
            Some(Output::StreamEnded { error, .. }) => Err(error),
            other => panic!("no answer: {other:?}"),
        }
    }

    fn holds_lock(&mut self) {
        self.call(0, Call::Grant { lease: LEASE, ttl: TTL }).expect("a grant");
        let claim = Call::Claim { lease: LEASE, record: record() };
        let answer = self.call(1, claim).expect("a claim");
        assert!(matches!(answer.body, Body::Claimed { won: true, .. }));
    }

    fn leader(&self) -> usize {
        self.cluster.leader().expect("a leader")
    }
}

fn record() -> CandidateRecord {
    CandidateRecord { epoch: Epoch(0), registered_at: WallTime::from_unix_nanos(0), leading_since: None, nonce: None }
}

/// Every cluster there is, many seeds of each.
fn each(story: impl Fn(&mut Scene, Behaviour, Extension)) {
    for behaviour in [Behaviour::WithStaleLeases, Behaviour::Current] {
        for extension in [Extension::Full, Extension::Checkpointed] {
            for seed in 0..20 {
                story(&mut Scene::new(behaviour, extension, seed), behaviour, extension);
            }
        }
    }
}

#[test]
fn a_lease_lasts_while_it_is_kept_alive_and_takes_its_keys_along() {
    each(|scene, _, _| {
        scene.holds_lock();
        for beat in 0..10 {
            scene.wait(5.0);
            assert_eq!(scene.keep_alive(beat % 3), Ok(15));
        }
        scene.tickets += 1;
        scene.cluster.watch(scene.now, 2, Ticket(scene.tickets), WatchTarget::Lock, Revision(1));
        scene.wait(14.9);
        assert!(scene.cluster.lock().is_some());
        scene.wait(0.7);
        assert!(scene.cluster.lock().is_none() && !scene.cluster.has_lease(LEASE));
        assert_eq!(scene.keep_alive(0), Ok(0));
        let changes = scene.said.iter().filter(|output| matches!(output, Output::WatchChanged { .. })).count();
        assert_eq!(changes, 2, "put and gone");
        assert!(scene.cluster.stale_revokes().is_empty());
    });
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Killed,
    Stopped,
    CutOff,
    Stalled,
}

#[test]
fn the_majority_replaces_a_leader_and_no_lease_ends_early_or_never() {
    for fault in [Fault::Killed, Fault::Stopped, Fault::CutOff, Fault::Stalled] {
        each(|scene, _, extension| {
            scene.holds_lock();
            let leader = scene.leader();
            match fault {
                Fault::Killed => scene.cluster.kill(scene.now, leader),
                Fault::Stopped => scene.cluster.stop(scene.now, leader),
                Fault::CutOff => scene.cluster.isolate(scene.now, leader, true),
                Fault::Stalled => {
                    scene.cluster.stall(scene.now, leader);
                    scene.cluster.operate(scene.now, Operation::PutElsewhere);
                }
            }
            scene.wait(6.5);
            let next = scene.leader();
            assert_ne!(next, leader, "{fault:?}");
            let read = scene.call(next, Call::Confirm).expect("a read");
            assert!(matches!(read.body, Body::Confirmed { lock: Some(_), .. }));
            scene.wait(8.0);
            assert!(scene.cluster.has_lease(LEASE), "{fault:?}: nothing expires early");
            let lasts = match extension {
                Extension::Checkpointed => 15.6,
                Extension::Full => 15.6 + 1.0 + 6.5,
            };
            scene.wait(lasts - 14.4);
            assert!(!scene.cluster.has_lease(LEASE), "{fault:?}: and not much later");
        });
    }
}

/// The disk of etcd's leader stalls for longer than a lease lives, which is kept alive through the next leader.
fn leader_stalls(behaviour: Behaviour, seed: u64) -> (Scene, Result<i64, CallError>) {
    let mut scene = Scene::new(behaviour, Extension::Full, seed);
    scene.holds_lock();
    let old = scene.leader();
    scene.cluster.stall(scene.now, old);
    scene.cluster.operate(scene.now, Operation::PutElsewhere);
    scene.wait(4.0);
    let next = scene.leader();
    assert_ne!(next, old);
    let through_the_old = scene.keep_alive(old);
    for _ in 0..4 {
        assert_eq!(scene.keep_alive(next), Ok(15));
        scene.wait(5.0);
    }
    assert!(scene.cluster.has_lease(LEASE));
    scene.cluster.end_stall(scene.now, old);
    scene.wait(1.0);
    (scene, through_the_old)
}

#[test]
fn a_stalled_leader_acknowledges_where_it_may_and_revokes_when_it_thaws() {
    for seed in 0..20 {
        let (scene, through_the_old) = leader_stalls(Behaviour::WithStaleLeases, seed);
        assert_eq!(through_the_old, Ok(15), "the first half");
        assert!(!scene.cluster.has_lease(LEASE), "the second half");
        assert_eq!(scene.cluster.stale_revokes().len(), 1);
    }
}

#[test]
fn a_current_leader_does_neither() {
    for seed in 0..20 {
        let (scene, through_the_old) = leader_stalls(Behaviour::Current, seed);
        assert!(through_the_old.is_err());
        assert!(scene.cluster.has_lease(LEASE));
        assert!(scene.cluster.stale_revokes().is_empty());
    }
}

/// Two of three are gone, and what the third has taken waits for a leader; whoever it is, the cluster goes on.
#[test]
fn what_has_waited_for_a_leader_is_carried_out_by_the_next_one() {
    each(|scene, _, _| {
        scene.holds_lock();
        let alone = (scene.leader() + 1) % 3;
        let gone: Vec<usize> = (0..3).filter(|member| *member != alone).collect();
        for member in &gone {
            scene.cluster.kill(scene.now, *member);
        }
        scene.wait(3.0);
        for lease in [LeaseId(1), LeaseId(2)] {
            let command = Command::Grant { lease, ttl: TTL };
            scene.cluster.propose(alone, Proposal { command, origin: None, over_quota: false });
        }
        for member in gone {
            scene.cluster.restart(scene.now, member);
        }
        scene.wait(6.0);
        assert!(scene.cluster.has_lease(LeaseId(1)) && scene.cluster.has_lease(LeaseId(2)));
        scene.call(alone, Call::Grant { lease: LeaseId(3), ttl: TTL }).expect("a grant");
    });
}

/// Where lifetimes go on from the last renewal, that of a leader which was still the leader is one.
#[test]
fn a_renewal_by_a_leader_whose_disk_had_stalled_for_a_moment_outlives_it() {
    for seed in 0..20 {
        let mut scene = Scene::new(Behaviour::WithStaleLeases, Extension::Checkpointed, seed);
        scene.holds_lock();
        scene.wait(10.0);
        let leader = scene.leader();
        scene.cluster.stall(scene.now, leader);
        scene.cluster.operate(scene.now, Operation::PutElsewhere);
        scene.wait(0.1);
        assert_eq!(scene.keep_alive(leader), Ok(15));
        scene.cluster.end_stall(scene.now, leader);
        scene.wait(0.2);
        assert_eq!(scene.leader(), leader, "nobody stands for election so soon");
        scene.cluster.kill(scene.now, leader);
        scene.wait(8.0);
        assert!(scene.cluster.has_lease(LEASE), "18 s after the grant, 8 s after the renewal");
        scene.wait(8.0);
        assert!(!scene.cluster.has_lease(LEASE));
    }
}

#[test]
fn a_member_that_joins_after_a_restore_begins_with_the_backup() {
    each(|scene, _, _| {
        scene.holds_lock();
        let backup = scene.cluster.backup();
        let place = (scene.leader() + 1) % 3;
        scene.cluster.remove(scene.now, place);
        scene.cluster.restore(scene.now, &backup);
        scene.wait(4.0);
        scene.cluster.add(scene.now, place);
        scene.wait(1.0);
        let answer = scene.call(place, Call::Confirm).expect("it has caught up");
        let Body::Confirmed { lock, .. } = answer.body else { panic!("a confirm answered with {:?}", answer.body) };
        assert_eq!(lock.as_ref(), scene.cluster.lock());
        assert_eq!(Some(answer.header.revision), scene.cluster.lock().map(|lock| lock.create_revision));
    });
}

#[test]
fn the_same_seed_says_the_same() {
    let tell = || {
        let mut scene = Scene::new(Behaviour::WithStaleLeases, Extension::Full, 7);
        scene.holds_lock();
        let leader = scene.leader();
        scene.cluster.kill(scene.now, leader);
        for member in (0..3).filter(|member| *member != leader) {
            scene.send(member, Asked::KeepAlive { lease: LEASE });
            scene.send(member, Asked::Call { identity: Identity::new("web-1"), call: Call::Confirm });
        }
        scene.wait(60.0);
        scene.said
    };
    let said = tell();
    assert!(!said.is_empty());
    assert_eq!(said, tell());
}

#[test]
fn a_restored_store_is_as_it_was_and_a_new_member_catches_up() {
    each(|scene, _, _| {
        scene.holds_lock();
        let backup = scene.cluster.backup();
        let revision = scene.cluster.revision();
        let leader = scene.leader();
        scene.cluster.remove(scene.now, leader);
        scene.wait(5.0);
        scene.cluster.add(scene.now, leader);
        scene.wait(5.0);
        assert_eq!(scene.call(leader, Call::Confirm).expect("a read").header.revision, revision);
        scene.call(leader, Call::Revoke { lease: LEASE }).expect("a revoke");
        assert!(scene.cluster.lock().is_none());
        scene.cluster.restore(scene.now, &backup);
        scene.wait(5.0);
        assert!(scene.cluster.lock().is_some() && scene.cluster.revision() == revision);
        assert_eq!(scene.keep_alive(leader), Ok(15));
        scene.cluster.wipe(scene.now);
        scene.wait(5.0);
        assert!(scene.cluster.lock().is_none() && scene.cluster.revision() == Revision(1));
    });
}

/// Every pair of members cut at some time, one way and both, while others are killed and lag: the truth stays one.
#[test]
fn a_member_that_answers_a_read_knows_every_claim_answered_before() {
    each(|scene, _, _| {
        scene.holds_lock();
        let mut newest = Revision(0);
        for round in 0..30_usize {
            let (one, other) = (round % 3, (round + 1 + round / 3 % 2) % 3);
            scene.cluster.cut(scene.now, one, other);
            scene.cluster.lag(scene.now, other, 300_000_000);
            if round % 5 == 0 {
                scene.cluster.kill(scene.now, one);
            }
            scene.wait(1.7);
            for member in (0..3).filter(|member| scene.cluster.is_running(*member)).collect::<Vec<_>>() {
                let call = if round % 2 == 0 { Call::Confirm } else { Call::Observe { before: None } };
                if let Ok(answer) = scene.call(member, call) {
                    assert!(answer.header.revision >= newest, "round {round}: {answer:?} after {newest}");
                    newest = answer.header.revision;
                }
            }
            scene.cluster.operate(scene.now, Operation::PutElsewhere);
            scene.cluster.mend(scene.now, one, other);
            scene.cluster.restart(scene.now, one);
        }
        assert!(newest > Revision(5), "nothing was written: {newest}");
    });
}
