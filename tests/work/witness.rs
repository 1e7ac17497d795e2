//! The witness: a command that writes down when it is alive.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::unistd::setsid;
use signal_hook::consts::SIGTERM;
use support::Moment;

/// The book that a witness writes to. Only then is the test below one.
const BOOK: &str = "WITNESS_BOOK";
/// What a witness does besides: see [`Manner`].
const MANNER: &str = "WITNESS_MANNER";
/// Which one it is: `command`, `child`, `orphan`; `hook`.
const ROLE: &str = "WITNESS_ROLE";
/// Between two lines of a witness: finer than anything that is asserted of them.
const BEAT: Duration = Duration::from_millis(2);
/// How long a hook's witness lives: long enough to be struck in.
const HOOK_LIFE: Duration = Duration::from_millis(60);
/// A witness that nobody ends, because what is tested is broken, does not stay for ever.
const LIFE_MOST: Duration = Duration::from_secs(120);

/// What a witness does besides being alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Ends on SIGTERM, as programs do.
    Mild,
    /// Does not hear SIGTERM, and neither do its child and an orphan in a session of its own.
    Deaf,
}

/// The program and arguments of a witness that writes to `book`.
pub fn witness(book: &Path, manner: Manner) -> Result<Vec<String>> {
    witness_as("command", book, manner)
}

/// The command line of a hook that is a witness for a moment.
pub fn hook(book: &Path) -> Result<String> {
    Ok(format!("exec {}", witness_as("hook", book, Manner::Deaf)?.join(" ")))
}

fn witness_as(role: &str, book: &Path, manner: Manner) -> Result<Vec<String>> {
    let program = std::env::current_exe()?.display().to_string();
    let manner = match manner {
        Manner::Mild => "mild",
        Manner::Deaf => "deaf",
    };
    let variables = [format!("{BOOK}={}", book.display()), format!("{MANNER}={manner}"), format!("{ROLE}={role}")];
    let test = ["--exact", "witness::a_witness", "--nocapture", "--test-threads=1", "--quiet"].map(str::to_owned);
    Ok([&["/usr/bin/env".to_owned()][..], &variables, &[program], &test].concat())
}

/// Not a test but the witness itself, when it is run as one.
#[test]
fn a_witness() -> Result<()> {
    let Some(book) = std::env::var_os(BOOK) else { return Ok(()) };
    let role = std::env::var(ROLE)?;
    if std::env::var(MANNER)? == "deaf" {
        signal_hook::flag::register(SIGTERM, Arc::new(AtomicBool::new(false)))?;
    }
    match role.as_str() {
        "command" => beget("child")?,
        "child" => beget("parent of an orphan")?,
        // Its child is left to whoever takes in orphans, outside of group and session.
        "parent of an orphan" => {
            setsid()?;
            return beget("orphan");
        }
        _ => {}
    }
    let mut book = OpenOptions::new().append(true).create(true).open(book)?;
    let term = std::env::var("BELLWETHER_TERM")?;
    let identity = std::env::var("BELLWETHER_IDENTITY")?;
    let life = if role == "hook" { HOOK_LIFE } else { LIFE_MOST };
    let (pid, end) = (std::process::id(), Moment::now().after(life));
    while !end.passed() {
        // One write, at the end of the file: whole, whoever else writes.
        let now = Moment::now().nanos();
        book.write_all(format!("{identity} {term} {role} {pid} {now}\n").as_bytes())?;
        thread::sleep(BEAT);
    }
    Ok(())
}

fn beget(role: &str) -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?);
    child.args(std::env::args_os().skip(1)).env(ROLE, role).stdin(Stdio::null());
    child.spawn().context("a witness begets another")?;
    Ok(())
}

/// Everything that one process wrote: it was alive from the first to the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    pub identity: String,
    pub term: u64,
    pub role: String,
    pub pid: u32,
    pub first: Moment,
    pub last: Moment,
}

/// The lives in a book. Processes with one number in different terms are different lives.
pub fn lives(book: &Path) -> Result<Vec<Life>> {
    let mut lives: Vec<Life> = Vec::new();
    // Nobody may have written yet.
    let text = fs::read_to_string(book).unwrap_or_default();
    // The last line may be being written.
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let [identity, term, role, pid, now] = line.split(' ').collect::<Vec<_>>()[..] else {
            anyhow::bail!("a witness wrote {line:?}");
        };
        let (term, pid, now) = (term.parse()?, pid.parse()?, Moment::from_nanos(now.parse()?));
        match lives.iter_mut().find(|life| (life.term, life.pid, life.role.as_str()) == (term, pid, role)) {
            Some(life) => life.last = life.last.max(now),
            None => lives.push(Life {
                identity: identity.to_owned(),
                term,
                role: role.to_owned(),
                pid,
                first: now,
                last: now,
            }),
        }
    }
    Ok(lives)
}

/// Pairs of lives of different terms, of which the later began before the earlier had ended.
pub fn overlaps(lives: &[Life]) -> Vec<(Life, Life)> {
    let mut found = Vec::new();
    for early in lives {
        for late in lives.iter().filter(|late| late.term > early.term && late.first <= early.last) {
            found.push((early.clone(), late.clone()));
        }
    }
    found
}
