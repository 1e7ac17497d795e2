//! Nobody leads by a key that is gone for longer than the news of it takes, nor beyond `until`.

use std::time::Duration;

use support::audit::Reign;

use super::scene::LEADS_ON;
use super::verdict::who;
use super::witness::KeyEnd;

/// How long a sidecar may take from the news that its lock is gone to its last 200: 1 to 5 ms by measurement, and what is
/// left is for a machine with more processes than processors.
pub const VIEW: Duration = Duration::from_millis(50);
/// Whoever has answered 200 so shortly before its key was gone had not let it go: that takes as long as an answer is valid.
const HELD: Duration = Duration::from_millis(100);

/// The lock was taken from a leader that had not let it go. Times count from when anybody first heard that it was gone.
#[derive(Clone, Debug)]
pub struct Theft {
    /// From whom.
    pub leader: String,
    /// The news had come to its host by every way; `None` if a way was disturbed.
    pub news: Option<Duration>,
    /// Its last 200 was asked for.
    pub last: Duration,
    /// And may have been, at the latest.
    pub bound: Duration,
}

/// Whether the leader still answered 200, or what it had promised still held, when its key was gone.
pub fn had_not_let_go(reign: &Reign, end: KeyEnd) -> bool {
    reign.promised_until.max(reign.end_latest.after(HELD)) >= end.gone
}

/// The last 200 of a reign whose key is gone.
pub struct Last<'a> {
    reign: &'a Reign,
    end: KeyEnd,
    /// No 200 may have been asked for later than this after the key was gone.
    bound: Duration,
}

impl<'a> Last<'a> {
    /// Where a fault keeps the news from the leader, or the leader from acting on it (`is_hit`), `until` alone is the bound:
    /// no renewal since can count. `held_up`: for how long the machine had no processor for this process, nor for others.
    pub fn of(reign: &'a Reign, end: KeyEnd, is_hit: bool, held_up: Duration) -> Self {
        let told = end.news.filter(|_| !is_hit).map(|news| news.since(end.gone) + VIEW + held_up);
        Self { reign, end, bound: told.map_or(LEADS_ON, |told| told.min(LEADS_ON)) }
    }

    fn asked_after(&self) -> Duration {
        self.reign.end_earliest.since(self.end.gone)
    }

    /// What is too much about it.
    pub fn excess(&self) -> Option<String> {
        let (who, asked, bound) = (who(self.reign), self.asked_after(), self.bound);
        let what = || {
            format!("{who} answered 200 {asked:?} after its key was gone, and the bound is {bound:?}: {:?}", self.end)
        };
        (asked > bound).then(what)
    }

    /// What it says of a theft, if it was one.
    pub fn theft(&self) -> Option<Theft> {
        let theft = Theft {
            leader: self.reign.leader.clone(),
            news: self.end.news.map(|news| news.since(self.end.gone)),
            last: self.asked_after(),
            bound: self.bound,
        };
        (self.reign.end_latest.after(HELD) >= self.end.gone).then_some(theft)
    }
}
