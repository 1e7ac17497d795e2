//! The pure core through its public API: every rule of the protocol told as a story, and a storm.

mod campaign;
mod endpoints;
mod etcd;
mod jeopardy;
mod observation;
mod renewal;
mod scene;
mod standing_down;
#[cfg(feature = "sabotage")]
mod storm;
mod unheard;
