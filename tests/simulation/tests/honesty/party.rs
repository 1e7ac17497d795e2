//! An etcd that can be asked and broken, modelled or real: what a story is told with.

use std::time::Duration;

use anyhow::Result;
use bellwether::election::{Answer, Call, CallError, Change, Header, LeaseId, Revision, WatchTarget};
use simulation::etcd::{Behaviour, Operation};

/// What a story needs.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub members: usize,
    pub election_timeout: Duration,
    /// Whether the store can be filled up.
    pub small: bool,
}

impl Shape {
    /// One member, with the shortest lifetimes that there are.
    pub const ALONE: Self = Self { members: 1, election_timeout: Duration::from_millis(200), small: false };
    /// One member that is soon full.
    pub const SMALL: Self = Self { small: true, ..Self::ALONE };
    /// Three members that do not lose their leader on a busy machine.
    pub const THREE: Self = Self { members: 3, election_timeout: Duration::from_secs(1), small: false };
}

/// A call that has left, or a watch.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub who: &'static str,
    /// Of the call or the watch.
    pub id: u64,
}

/// What comes of a keep-alive: the header and the seconds.
pub type Renewed = Result<(Header, i64), CallError>;

/// What a watch reports.
#[derive(Clone, Debug)]
pub enum Heard {
    Created(Header),
    Changed(Header, Change),
    Ended(CallError),
}

/// Everything that both etcds can do. The identity of who asks decides whose candidate key is meant.
pub trait Party {
    fn behaviour(&self) -> Behaviour;

    /// Since some beginning.
    fn clock(&self) -> Duration;

    /// By how much what is seen may come later than what the protocol says.
    fn slack(&self) -> Duration;

    async fn rest(&mut self, time: Duration) -> Result<()>;

    /// Sends a call, which may take so long.
    async fn send(&mut self, who: &'static str, member: usize, patience: Duration, call: Call) -> Result<Sent>;

    /// What came of it.
    async fn outcome(&mut self, sent: Sent) -> Result<Result<Answer, CallError>>;

    /// One keep-alive, which may take so long, on the stream to this member.
    async fn keep_alive(&mut self, member: usize, patience: Duration, lease: LeaseId) -> Result<Renewed>;

    /// Watches as who asks.
    async fn watch(&mut self, who: &'static str, member: usize, target: WatchTarget, from: Revision) -> Result<Sent>;

    /// What the watch reports next, if that comes within this time.
    async fn heard(&mut self, watch: Sent, within: Duration) -> Result<Option<Heard>>;

    /// Returns when it has been done.
    async fn operate(&mut self, operation: Operation) -> Result<()>;

    /// The member that the others take for the leader.
    async fn leader(&mut self) -> Result<usize>;

    /// SIGKILL.
    async fn kill(&mut self, member: usize) -> Result<()>;

    /// Returns when it answers.
    async fn restart(&mut self, member: usize) -> Result<()>;

    /// SIGSTOP.
    async fn stop(&mut self, member: usize) -> Result<()>;

    /// SIGCONT.
    async fn cont(&mut self, member: usize) -> Result<()>;

    /// From now on writes to its disk do not return.
    async fn stall(&mut self, member: usize) -> Result<()>;

    /// They do again, those that have been waiting too.
    async fn end_stall(&mut self, member: usize) -> Result<()>;

    /// Writes until the store refuses.
    async fn fill(&mut self) -> Result<()>;

    /// Makes room, and takes the alarm down.
    async fn make_room(&mut self) -> Result<()>;

    /// All data gone, on the same addresses.
    async fn wipe(&mut self) -> Result<()>;
}
