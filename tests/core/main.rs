//! The pure core through its public API: every rule of the protocol told as a story.
#![expect(clippy::unchecked_time_subtraction, reason = "a test that subtracts too much should panic")]

mod adversity;
mod application;
mod campaign;
mod endpoints;
mod enemy;
mod etcd;
mod inheritance;
mod jeopardy;
mod late;
mod lives;
mod observation;
mod publication;
mod renewal;
mod scene;
mod standing_down;
mod unheard;
mod work;
