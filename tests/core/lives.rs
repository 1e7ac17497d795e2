//! Thousands of random lives, one after another on one etcd: nothing that a life sends, however late it arrives, takes the
//! lock from under an answer, from under its work or from under the life after it.

use std::ops::Range;
use std::time::Duration;

use bellwether::election::{
    AppHealth, Application, CallErrorKind, Effect, Event, Identity, Inheritance, Instant, Nonce, Notice, OpId,
    PublicState, Reason, Revision, Settings, StopTime, Timings, TimingsRequest,
};

#[cfg(feature = "sabotage")]
use bellwether::protections::Protections;

use crate::scene::{ME, Pending, RIVAL, RIVAL_LEASE, Scene};

const G: Duration = Duration::from_secs(2);
const V: Duration = Duration::from_secs(1);
/// How many walks are taken unless `WALK_COUNT` says otherwise: a second or two.
const WALKS: u64 = 60;
/// Some minutes of a life or ten.
const STEPS: usize = 600;

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }

    fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).expect("small")
    }
}

/// What the world has been promised.
#[derive(Default)]
struct Promised {
    /// The last answer, and the lock it was about.
    answer: Option<(Revision, Instant)>,
    work: Option<Working>,
}

struct Working {
    id: OpId,
    token: Revision,
    /// By when it is gone, whoever is frozen.
    gone_by: Instant,
    stopping: bool,
}

struct Walk {
    scene: Scene,
    dice: Dice,
    promised: Promised,
    /// Requests that lie in the queue of a stalled member, and the life that sent them.
    late: Vec<(u64, Pending)>,
    works: bool,
    /// Operators, clocks and restores take part: what is promised of the lock is not asked then.
    wild: bool,
    lives: u64,
    /// How many of the lives that are over went on with a term.
    inherited: usize,
}

fn settings(works: bool, nonce: u64, inheritance: Inheritance) -> Settings {
    let stop_time = if works { StopTime::Default } else { StopTime::NoWork };
    let timings = Timings::new(TimingsRequest { stop_time, ..TimingsRequest::default() }).expect("they hold");
    let bare = Settings::bare(Identity::new(ME), timings, 2, nonce);
    Settings { works, remembers: true, nonce: Nonce(nonce), application: Application::Checked, inheritance, ..bare }
}

impl Walk {
    fn new(seed: u64) -> Self {
        let works = !seed.is_multiple_of(3);
        let scene = Scene::of(settings(works, seed * 1000 + 1, Inheritance::Nothing));
        let dice = Dice(seed);
        Self {
            scene,
            dice,
            promised: Promised::default(),
            late: Vec::new(),
            works,
            wild: false,
            lives: 1,
            inherited: 0,
        }
    }

    fn step(&mut self) {
        if self.wild && self.dice.below(25) == 0 {
            self.go_wild();
        }
        match self.dice.below(100) {
            0..=44 => self.answer_one(),
            45..=47 => self.scene.catch_up(),
            48 | 49 => self.calm(),
            50..=69 => {
                let millis = [1, 20, 100, 300, 500, 1000, 2500][self.dice.index(7)];
                self.advance(Duration::from_millis(millis));
            }
            70 => {
                let millis = [100, 2000, 9000, 16_000][self.dice.index(4)];
                self.scene.freeze(Duration::from_millis(millis));
            }
            71..=74 => self.spoil_one(),
            75..=79 => self.put_off_one(),
            80..=83 => self.late_one(),
            84..=86 => {
                let health = [AppHealth::Healthy, AppHealth::Healthy, AppHealth::Unhealthy][self.dice.index(3)];
                self.scene.event(Event::AppHealth(health));
            }
            87 if self.dice.below(2) == 0 => self.calm(),
            87 => self.scene.event(Event::Resign { cooldown: Duration::from_secs(2) }),
            88..=91 => self.settle(),
            92..=94 => self.work_moves(),
            95 if self.dice.below(4) == 0 => self.scene.event(Event::Stop),
            95 => self.scene.event(Event::CredentialsRenewed),
            96 => {
                let boot = self.scene.now().boot.nanos();
                self.scene.etcd.elects_a_leader(boot);
            }
            97 => self.rival(),
            98 if self.dice.below(4) == 0 => self.scene.go_deaf(),
            98 => self.die(),
            _ => self.scene.etcd.revoke(RIVAL_LEASE),
        }
        if self.scene.has_exited() {
            self.die();
        }
        self.look();
    }

    fn advance(&mut self, by: Duration) {
        let end = self.scene.now().boot.after(by);
        self.scene.wake();
        while self.scene.now().boot < end {
            let next = self.scene.next_deadline().map_or(end, |at| at.min(end));
            self.scene.pass(next.since(self.scene.now().boot));
            self.look();
        }
    }

    /// What nobody answers for: operators, clocks, restores.
    fn go_wild(&mut self) {
        let me = Identity::new(ME);
        match self.dice.below(9) {
            0 | 1 => self.scene.etcd.operator_deletes_lock(),
            2 => self.scene.etcd.operator_deletes_candidate(&me),
            3 => self.scene.etcd.somebody_puts_lock(ME, self.scene.etcd.candidate(&me).and_then(|key| key.lease)),
            4 => self.scene.etcd.somebody_puts_lock(RIVAL, None),
            5 => self.scene.wall_jumps(Duration::from_secs(1 + self.dice.below(20))),
            6 => {
                if let Some(watch) = self.scene.watches().first().map(|watch| watch.target.clone()) {
                    self.scene.end_watch(&watch, CallErrorKind::Unavailable);
                }
            }
            7 => {
                let stream = self.scene.pending().iter().find_map(|pending| match pending {
                    Pending::KeepAlive { stream, .. } => Some(*stream),
                    Pending::Call(_) => None,
                });
                if let Some(stream) = stream {
                    self.scene.end_stream(stream);
                }
            }
            _ if self.dice.below(6) == 0 => self.scene.etcd.is_wiped(),
            _ => self.scene.etcd.is_busy(),
        }
    }

    /// For a moment everything works.
    fn calm(&mut self) {
        self.scene.answer_all();
        self.look();
        self.advance(Duration::from_millis(300));
        self.scene.answer_all();
    }

    fn take_one(&mut self) -> Option<Pending> {
        let count = self.scene.pending().len();
        if count == 0 {
            return None;
        }
        let place = self.dice.index(count);
        Some(self.scene.take_at(place))
    }

    fn answer_one(&mut self) {
        if let Some(pending) = self.take_one() {
            let event = self.scene.apply(&pending);
            self.look();
            self.scene.event(event);
        }
    }

    /// Fails, applied or not.
    fn spoil_one(&mut self) {
        if let Some(pending) = self.take_one() {
            if self.dice.below(2) == 0 {
                self.scene.apply(&pending);
            }
            self.scene.event(crate::scene::failed(&pending, CallErrorKind::Unavailable));
        }
    }

    fn put_off_one(&mut self) {
        if let Some(pending) = self.take_one() {
            self.late.push((self.lives, pending));
        }
    }

    fn late_one(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let place = self.dice.index(self.late.len());
        let (life, pending) = self.late.swap_remove(place);
        let event = self.scene.apply(&pending);
        self.look();
        if life == self.lives && self.dice.below(2) == 0 {
            self.scene.event(event);
        }
    }

    fn settle(&mut self) {
        let over = self.promised.answer.is_none_or(|(_, until)| self.scene.now().boot >= until);
        if self.scene.is_settling() && over {
            self.scene.settle_answers();
        }
    }

    fn work_moves(&mut self) {
        let Some(working) = &self.promised.work else { return };
        let (id, stopping) = (working.id, working.stopping);
        if stopping {
            self.promised.work = None;
            self.scene.event(Event::WorkStopped { id });
        } else if self.dice.below(4) == 0 {
            let event = if self.dice.below(3) == 0 { Event::WorkFinished { id } } else { Event::WorkFailed { id } };
            self.scene.event(event);
        }
    }

    fn rival(&mut self) {
        if self.scene.etcd.has_lease(RIVAL_LEASE) {
            self.scene.etcd.revoke(RIVAL_LEASE);
        } else {
            self.scene.rival_registers(RIVAL, RIVAL_LEASE);
            self.scene.rival_claims(RIVAL, RIVAL_LEASE);
        }
    }

    /// kill -9. Some of what it had sent is still on its way; what ran in its name is killed before the next one starts.
    fn die(&mut self) {
        while let Some(pending) = self.take_one() {
            if self.dice.below(2) == 0 {
                self.late.push((self.lives, pending));
            }
        }
        self.late.truncate(12);
        self.inherited +=
            self.scene.told(|notice| matches!(notice, Notice::Transition { reason: Reason::Inherited, .. }));
        self.lives += 1;
        let after = Duration::from_millis([1, 50, 300, 2000, 8000, 20_000][self.dice.index(6)]);
        let memory = self.scene.memory.clone();
        let now = self.scene.now().boot.after(after);
        let inheritance = match memory.clone() {
            Some(memory) if self.dice.below(4) == 0 => {
                Inheritance::Release { not_before: now.after(memory.validity), memory }
            }
            Some(memory) => Inheritance::Resume(memory),
            None => Inheritance::Nothing,
        };
        let scene = std::mem::replace(&mut self.scene, Scene::new());
        let nonce = scene.now().boot.nanos() + self.lives;
        self.scene = scene.reborn(after, settings(self.works, nonce, inheritance));
        self.scene.memory = memory;
        self.promised.work = None;
        self.look();
        if self.dice.below(4) > 0 {
            self.scene.event(Event::AppHealth(AppHealth::Healthy));
        }
    }

    /// What holds at every moment.
    fn look(&mut self) {
        self.read_orders();
        if self.wild {
            return;
        }
        let now = self.scene.now();
        let lock = self.scene.my_lock().map(|lock| lock.create_revision);
        if self.scene.leads() {
            let token = self.scene.token();
            assert_eq!(lock, Some(token), "leads without the lock");
            let until = now.boot.after(V.min(self.scene.remaining()));
            self.promised.answer = Some((token, until));
        }
        if let Some((token, until)) = self.promised.answer {
            assert!(lock == Some(token) || now.boot >= until, "the lock was let go of under an answer");
        }
        if let Some(working) = &self.promised.work {
            let there = now.boot < working.gone_by;
            assert!(!there || lock == Some(working.token), "the lock was let go of under work");
        }
    }

    fn read_orders(&mut self) {
        let now = self.scene.now().boot;
        for order in std::mem::take(&mut self.scene.orders) {
            match (order, &mut self.promised.work) {
                (Effect::StartWork { id, term, until }, none @ None) => {
                    *none = Some(Working { id, token: term.token, gone_by: until.boot().after(G), stopping: false });
                }
                (Effect::ExtendWork { id, until }, Some(working)) if id == working.id && !working.stopping => {
                    working.gone_by = until.boot().after(G);
                }
                (Effect::StopWork { id, kill_at }, Some(working)) if id == working.id && !working.stopping => {
                    assert!(kill_at <= working.gone_by && kill_at <= now.after(G));
                    working.gone_by = kill_at;
                    working.stopping = true;
                }
                (order, _) => panic!("{order:?} out of order"),
            }
        }
    }

    /// Everything works again.
    fn heal(&mut self) {
        self.late.clear();
        if self.wild {
            self.scene.etcd.operator_deletes_lock();
            // Who was barred leads only in another life.
            self.die();
        }
        self.scene.etcd.revoke(RIVAL_LEASE);
        if self.scene.state() == PublicState::StandingDown {
            self.die();
        }
        self.scene.lose_all();
        self.scene.wake();
        self.scene.event(Event::AppHealth(AppHealth::Healthy));
        for _ in 0..120 {
            self.scene.live(Duration::from_secs(1));
            self.settle();
            if self.promised.work.as_ref().is_some_and(|working| working.stopping) {
                self.work_moves();
            }
            self.look();
            if self.scene.has_exited() {
                self.die();
                self.scene.event(Event::AppHealth(AppHealth::Healthy));
            }
        }
        assert!(self.scene.leads(), "{:?}", self.scene.view());
    }
}

/// Walks from these seeds, and says of those that broke something what it was.
fn broken(seeds: Range<u64>, wild: bool) -> Vec<(u64, String)> {
    let walk = |seed| {
        std::panic::catch_unwind(|| {
            let mut walk = Walk::new(seed);
            walk.wild = wild;
            for _ in 0..STEPS {
                walk.step();
            }
            walk.heal();
        })
    };
    seeds.filter_map(|seed| walk(seed).err().map(|panic| (seed, words(&*panic)))).collect()
}

/// `WALK_FIRST` and `WALK_COUNT` choose others, to walk further by hand.
fn seeds() -> Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("WALK_FIRST").unwrap_or(1);
    first..first + number("WALK_COUNT").unwrap_or(WALKS)
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words").to_owned()
}

#[test]
fn no_life_lets_go_of_the_lock_under_an_answer_or_under_work_and_one_leads_in_the_end() {
    let broken = broken(seeds(), false);
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn operators_clocks_and_restores_leave_nobody_stuck_or_in_a_hot_loop() {
    let broken = broken(seeds(), true);
    assert!(broken.is_empty(), "{broken:#?}");
}

#[cfg(feature = "sabotage")]
#[test]
fn without_waiting_for_the_work_some_life_lets_go_of_the_lock_under_it() {
    Protections::take_away(Some(Protections::NO_WORK_WAIT));
    let broken = broken(1..WALKS, false);
    Protections::take_away(None);
    assert!(broken.iter().any(|(_, words)| words.contains("under work")), "{broken:#?}");
}

#[test]
fn many_of_the_lives_go_on_with_the_term_of_the_one_before() {
    // What the walk is for must be reached by it.
    let inherited = (1..50).map(|seed| {
        let mut walk = Walk::new(seed);
        (0..STEPS).for_each(|_| walk.step());
        walk.inherited
    });
    let inherited = inherited.sum::<usize>();
    assert!(inherited > 20, "{inherited} in 49 walks");
}
