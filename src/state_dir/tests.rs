//! Each reason to inherit and not to, and what the folder withstands.

use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use tempfile::TempDir;

use super::verdict::{Difference, Ignored};
use super::*;
use crate::election::{ClusterId, Epoch, Instant, Revision, Term};

const TTL: Duration = Duration::from_secs(15);
const VALIDITY: Duration = Duration::from_secs(1);

fn heir() -> Heir {
    Heir {
        election: "default/web".into(),
        lock_key: "/bellwether/default/web".into(),
        identity: "web-0".into(),
        epoch: 2,
        lease_ttl: TTL,
        answer_validity: VALIDITY,
        part: Part::Candidate,
    }
}

fn memory(sent: Instant) -> Memory {
    let term = Term { epoch: Epoch(2), token: Revision(48) };
    // Greater than what a floating-point number holds exactly.
    Memory { cluster: ClusterId(u64::MAX - 1), lease: LeaseId(i64::MAX - 1), ttl: TTL, term, sent, validity: VALIDITY }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder for a test")
}

async fn open(folder: &Path, heir: Heir) -> StateDir {
    StateDir::open(folder, heir, Duration::ZERO).await.expect("the folder is free")
}

/// A folder in which a life that began so long ago renewed its lease for the last time so long ago.
async fn left_behind(began_ago: Duration, sent_ago: Duration) -> TempDir {
    let there = folder();
    let mut dir = open(there.path(), heir()).await;
    let now = clock::now().boot;
    dir.life.began = now.before(began_ago);
    dir.remember(memory(now.before(sent_ago)));
    dir.finish().await;
    there
}

/// One that outlasted its lease, and renewed it a second ago.
async fn long_lived() -> TempDir {
    left_behind(Duration::from_mins(1), Duration::from_secs(1)).await
}

fn state_file(there: &TempDir) -> PathBuf {
    there.path().join(folder::STATE_FILE)
}

fn is_resumed(inheritance: &Inheritance) -> bool {
    matches!(inheritance, Inheritance::Resume(memory) if *memory == self::memory(memory.sent))
}

/// What a life makes of the folder that differs from the former one in this.
async fn inherited_by(there: &TempDir, change: impl FnOnce(&mut Heir)) -> Inheritance {
    let mut heir = heir();
    change(&mut heir);
    open(there.path(), heir).await.inherit()
}

/// The verdict on what is there, with its reason.
async fn verdict(there: &TempDir, change: impl FnOnce(&mut Life)) -> Verdict {
    let mut dir = open(there.path(), heir()).await;
    change(&mut dir.life);
    let bytes = dir.folder.read().expect("it can be read").expect("it is there");
    dir.life.judge(&Legacy::parse(&bytes).expect("it is in order"))
}

#[tokio::test]
async fn what_a_life_that_outlasted_its_lease_has_left_is_resumed_to_the_last_digit() {
    let there = long_lived().await;
    assert!(is_resumed(&inherited_by(&there, |_| {}).await));
}

#[tokio::test]
async fn an_empty_folder_leaves_nothing() {
    assert_eq!(inherited_by(&folder(), |_| {}).await, Inheritance::Nothing);
}

#[tokio::test]
async fn what_is_forgotten_is_gone() {
    let there = long_lived().await;
    let dir = open(there.path(), heir()).await;
    dir.forget();
    dir.finish().await;
    assert_eq!(inherited_by(&there, |_| {}).await, Inheritance::Nothing);
    assert!(!state_file(&there).exists());
}

#[tokio::test]
async fn a_lease_that_has_expired_is_stale() {
    let there = left_behind(Duration::from_mins(1), TTL).await;
    let verdict = verdict(&there, |_| {}).await;
    assert!(matches!(verdict, Verdict::Ignore(Ignored::Stale { ttl: TTL, .. })), "{verdict:?}");
    let there = left_behind(Duration::from_mins(1), TTL - Duration::from_secs(5)).await;
    assert!(is_resumed(&inherited_by(&there, |_| {}).await), "it has five seconds left");
}

#[tokio::test]
async fn whatever_is_not_of_this_boot_folder_election_key_identity_and_epoch_is_foreign() {
    type Change = fn(&mut Place);
    let changes: [(Change, Difference); 7] = [
        (|place| place.boot = "another".into(), Difference::Boot),
        (|place| place.lock.inode += 1, Difference::LockFile),
        (|place| place.lock.device += 1, Difference::LockFile),
        (|place| place.election = "default/api".into(), Difference::Election),
        (|place| place.lock_key = "/other".into(), Difference::LockKey),
        (|place| place.identity = "web-1".into(), Difference::Identity),
        (|place| place.epoch = 3, Difference::Epoch),
    ];
    let there = long_lived().await;
    for (change, difference) in changes {
        let found = verdict(&there, |life| change(&mut life.place)).await;
        assert_eq!(found, Verdict::Ignore(Ignored::Foreign(difference)));
    }
    assert_eq!(verdict(&there, |_| {}).await, Verdict::Resume);
}

#[tokio::test]
async fn a_lease_shorter_than_is_asked_for_now_is_ignored_and_a_longer_one_is_not() {
    let there = long_lived().await;
    let wanted = TTL + Duration::from_secs(1);
    let found = verdict(&there, |life| life.lease_ttl = wanted).await;
    assert_eq!(found, Verdict::Ignore(Ignored::SmallerTtl { recorded: TTL, wanted }));
    assert_eq!(verdict(&there, |life| life.lease_ttl = Duration::from_secs(2)).await, Verdict::Resume);
}

#[tokio::test]
async fn what_is_from_the_future_is_damaged() {
    let there = long_lived().await;
    let found = verdict(&there, |life| life.began = life.began.before(Duration::from_secs(2))).await;
    assert!(matches!(found, Verdict::Ignore(Ignored::Damaged(_))), "{found:?}");
}

#[tokio::test]
async fn a_life_shorter_than_its_lease_leaves_a_lock_to_let_go_of_once_its_answers_have_expired() {
    let there = left_behind(TTL, Duration::from_millis(100)).await;
    let mut dir = open(there.path(), heir()).await;
    let inheritance = dir.inherit();
    let Inheritance::Release { not_before, .. } = inheritance else { panic!("{inheritance:?}") };
    assert_eq!(not_before, dir.life.began.after(VALIDITY));
}

#[tokio::test]
async fn a_life_that_dies_before_its_first_renewal_counts_as_a_short_one() {
    let there = long_lived().await;
    assert!(is_resumed(&inherited_by(&there, |_| {}).await));
    let second = inherited_by(&there, |_| {}).await;
    assert!(matches!(second, Inheritance::Release { .. }), "{second:?}");
    let third = inherited_by(&there, |_| {}).await;
    assert!(matches!(third, Inheritance::Release { .. }), "{third:?}");
}

#[tokio::test]
async fn an_observer_lets_go_of_the_lock_whatever_its_ttl() {
    let there = long_lived().await;
    let inheritance = inherited_by(&there, |heir| {
        heir.part = Part::Observer;
        heir.lease_ttl = TTL * 2;
    });
    let inheritance = inheritance.await;
    assert!(matches!(inheritance, Inheritance::Release { .. }), "{inheritance:?}");
}

#[tokio::test]
async fn answers_of_a_life_that_were_valid_for_longer_are_waited_for_by_the_lives_after_it() {
    let long = Duration::from_secs(10);
    let there = folder();
    let mut dir = open(there.path(), heir()).await;
    dir.life.began = clock::now().boot.before(Duration::from_mins(1));
    dir.remember(Memory { validity: long, ..memory(clock::now().boot) });
    dir.finish().await;
    // With a validity of its own of a second, it dies after its first renewal.
    let mut dir = open(there.path(), heir()).await;
    let inheritance = dir.inherit();
    assert!(matches!(&inheritance, Inheritance::Resume(memory) if memory.validity == long), "{inheritance:?}");
    dir.remember(memory(clock::now().boot));
    dir.finish().await;
    for _life in 0..2 {
        let mut dir = open(there.path(), heir()).await;
        let inheritance = dir.inherit();
        let Inheritance::Release { not_before, .. } = inheritance else { panic!("{inheritance:?}") };
        assert_eq!(not_before, dir.life.began.after(long));
    }
}

#[tokio::test]
async fn whatever_the_file_says_it_is_resumed_as_it_was_written_or_ignored() {
    let there = long_lived().await;
    let good = fs::read(state_file(&there)).expect("it is there");
    for length in 0..good.len() - 1 {
        assert!(Legacy::parse(&good[..length]).is_err(), "cut at {length}");
    }
    let text = String::from_utf8(good).expect("JSON");
    for (what, with) in [
        ("\"version\":1", "\"version\":2"),
        ("\"version\":1,", ""),
        ("\"lease\":9223372036854775806", "\"lease\":0"),
        ("\"lease\":9223372036854775806", "\"lease\":9223372036854775808"),
        ("\"term\":48", "\"term\":-48"),
        ("\"term\":48", "\"term\":\"48\""),
        ("\"lease_ttl_ns\":15000000000", "\"lease_ttl_ns\":0"),
        ("\"lease_ttl_ns\":15000000000", "\"lease_ttl_ns\":15000000000000"),
        ("\"boot\":", "\"boots\":"),
        ("\"sent_ns\":", "\"sent_ns\":-"),
    ] {
        assert!(text.contains(what), "{text}");
        fs::write(state_file(&there), text.replace(what, with)).expect("it can be written");
        assert_eq!(inherited_by(&there, |_| {}).await, Inheritance::Nothing, "{with}");
        assert!(!state_file(&there).exists(), "it would be complained of again");
    }
}

#[tokio::test]
async fn a_file_that_this_program_cannot_have_written_is_ignored_unread() {
    type Make = fn(&Path, &Path);
    let makes: [Make; 5] = [
        |file, good| symlink(good, file).expect("a link"),
        |file, _| fs::create_dir(file).expect("a folder"),
        |file, _| nix::unistd::mkfifo(file, nix::sys::stat::Mode::S_IRWXU).expect("a pipe"),
        |file, good| {
            fs::copy(good, file).expect("a copy");
            fs::set_permissions(file, fs::Permissions::from_mode(0o666)).expect("it is ours");
        },
        |file, _| fs::write(file, vec![b' '; 1 << 20]).expect("it can be written"),
    ];
    for make in makes {
        let there = long_lived().await;
        let good = there.path().join("good");
        fs::rename(state_file(&there), &good).expect("it is there");
        make(&state_file(&there), &good);
        assert_eq!(inherited_by(&there, |_| {}).await, Inheritance::Nothing);
        assert!(good.exists(), "what a link leads to is left alone");
    }
}

#[tokio::test]
async fn writing_follows_no_link_and_leaves_a_file_for_this_user_alone() {
    let there = folder();
    let elsewhere = there.path().join("elsewhere");
    fs::write(&elsewhere, "untouched").expect("it can be written");
    for name in [folder::STATE_FILE, "state.json.new"] {
        symlink(&elsewhere, there.path().join(name)).expect("a link");
    }
    let dir = open(there.path(), heir()).await;
    dir.remember(memory(clock::now().boot));
    dir.finish().await;
    assert_eq!(fs::read_to_string(&elsewhere).expect("it is there"), "untouched");
    let about = fs::symlink_metadata(state_file(&there)).expect("it is there");
    assert!(about.is_file());
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_lock_file_that_is_a_link_is_refused() {
    let there = folder();
    symlink("elsewhere", there.path().join(folder::LOCK_FILE)).expect("a link");
    let refused = StateDir::open(there.path(), heir(), Duration::ZERO).await;
    assert!(matches!(refused, Err(StateDirError::NotWritable { .. })), "{refused:?}");
    assert!(!there.path().join("elsewhere").exists());
}

#[tokio::test]
async fn the_newest_of_many_words_is_what_stays() {
    let there = folder();
    let dir = open(there.path(), heir()).await;
    let first = clock::now().boot.before(Duration::from_secs(5));
    for nanos in 0..1000 {
        dir.remember(memory(first.after(Duration::from_nanos(nanos))));
    }
    dir.finish().await;
    let left = Legacy::parse(&fs::read(state_file(&there)).expect("it is there")).expect("it is in order");
    assert_eq!(left.memory.sent, first.after(Duration::from_nanos(999)));
}

/// The temporary file's name is taken by a folder, which no write gets past.
#[tokio::test]
async fn a_write_that_fails_leaves_the_file_as_it_was_and_the_next_one_that_works_counts() {
    let there = long_lived().await;
    let in_the_way = there.path().join("state.json.new");
    fs::create_dir(&in_the_way).expect("a folder");
    let before = fs::read(state_file(&there)).expect("it is there");
    let mut dir = open(there.path(), heir()).await;
    assert!(is_resumed(&dir.inherit()), "what cannot be written down can be resumed all the same");
    dir.remember(memory(clock::now().boot));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(fs::read(state_file(&there)).expect("it is there"), before);
    fs::remove_dir(&in_the_way).expect("it is empty");
    dir.remember(memory(clock::now().boot));
    dir.finish().await;
    assert_ne!(fs::read(state_file(&there)).expect("it is there"), before);
}

#[tokio::test]
async fn a_folder_that_is_held_is_refused_after_a_second_and_the_stop_time() {
    let there = folder();
    let held = open(there.path(), heir()).await;
    let stop_time = Duration::from_millis(300);
    let begin = clock::now().boot;
    let refused = StateDir::open(there.path(), heir(), stop_time).await;
    assert!(matches!(refused, Err(StateDirError::Held(_))), "{refused:?}");
    assert!(clock::now().boot.since(begin) >= LOCK_PATIENCE + stop_time);
    drop(held);
    open(there.path(), heir()).await;
}

#[tokio::test]
async fn a_folder_that_becomes_free_in_time_is_taken() {
    let there = folder();
    let held = open(there.path(), heir()).await;
    let (next, ()) = tokio::join!(StateDir::open(there.path(), heir(), Duration::from_secs(30)), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(held);
    });
    next.expect("it is free now");
}

/// The guardian of a killed life still has a copy of the descriptor; a command it has started has none.
#[tokio::test]
async fn the_folder_is_held_until_the_last_copy_of_its_descriptor_is_closed_and_commands_get_none() {
    let there = folder();
    let dir = open(there.path(), heir()).await;
    let guardian = dir.try_clone_lock().expect("a copy");
    let mut command = Command::new("sleep").arg("60").spawn().expect("sleep is there");
    let number = guardian.as_raw_fd();
    drop(dir);
    let refused = StateDir::open(there.path(), heir(), Duration::ZERO).await;
    assert!(matches!(refused, Err(StateDirError::Held(_))), "{refused:?}");
    drop(guardian);
    let free = StateDir::open(there.path(), heir(), Duration::ZERO).await;
    command.kill().expect("it runs");
    command.wait().expect("it is ours");
    free.unwrap_or_else(|error| panic!("a command has inherited descriptor {number}: {error}"));
}

#[tokio::test]
async fn a_lock_file_that_is_replaced_makes_a_folder_of_its_own_and_what_was_there_foreign() {
    let there = long_lived().await;
    let old = open(there.path(), heir()).await;
    fs::remove_file(there.path().join(folder::LOCK_FILE)).expect("it is there");
    let inheritance = inherited_by(&there, |_| {}).await;
    assert_eq!(inheritance, Inheritance::Nothing);
    drop(old);
}

#[tokio::test]
async fn a_missing_folder_is_made_for_this_user_alone_and_its_parents_are_not() {
    let there = folder();
    let path = there.path().join("state");
    open(&path, heir()).await;
    assert_eq!(fs::metadata(&path).expect("it is made").permissions().mode() & 0o777, 0o700);
    let refused = StateDir::open(&there.path().join("not/there"), heir(), Duration::ZERO).await;
    assert!(matches!(refused, Err(StateDirError::NoParent(_))), "{refused:?}");
}

#[tokio::test]
async fn what_is_no_folder_is_refused_by_its_name() {
    let there = folder();
    let file = there.path().join("file");
    fs::write(&file, "").expect("it can be written");
    for path in [file.clone(), file.join("below")] {
        let refused = StateDir::open(&path, heir(), Duration::ZERO).await;
        assert!(matches!(refused, Err(StateDirError::NotAFolder(_))), "{refused:?}");
    }
}
