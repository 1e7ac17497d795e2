//! The whole protocol as a state machine that does no IO, reads no clock, spawns nothing and draws no
//! randomness of its own. The same state and the same input give the same output.

mod asks;
mod backoff;
mod candidate;
mod effect;
mod endpoints;
mod event;
mod ids;
mod instant;
mod lease;
mod notice;
mod random;
mod settings;
mod sight;
mod state;
mod timings;
mod view;

pub use candidate::Candidate;
pub use effect::{
    CANDIDATES_LISTED, Call, CandidateRecord, Effect, Operation, Publication, Request, Role, WatchTarget,
};
pub use event::{Answer, AppHealth, Body, CallError, CallErrorKind, CandidateKey, Change, Event, Header, LockKey};
pub use ids::{
    ClusterId, EndpointId, Epoch, Identity, LeaseId, MemberId, Nonce, OpId, RaftTerm, Revision, StreamId, Term, WatchId,
};
pub use instant::{Instant, Reading, Until, WallTime};
pub use notice::{ClaimResult, Notice, Reason, RenewalFailure};
pub(crate) use random::Random;
pub use settings::{Application, Inheritance, Memory, Part, Settings};
pub use timings::{
    LEASE_TTL_MAX, LEASE_TTL_MIN, LEASE_TTL_RIDES_OUT_ELECTION, StopTime, TimingFault, Timings, TimingsRequest,
};
pub use view::{
    CandidateView, EndpointHealth, EndpointView, EtcdContact, KnownLeader, Lead, NotLeading, PublicState, RECENT_TERMS,
    RecentTerm, View,
};
