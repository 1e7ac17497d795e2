//! The pure core through its public API: every rule of the protocol told as a story, and a storm.

mod campaign;
mod etcd;
mod scene;
#[cfg(feature = "sabotage")]
mod storm;
mod unheard;
