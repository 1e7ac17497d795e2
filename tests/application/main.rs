//! The application has a say in who leads: the real binary, a real etcd, and applications that listen and fall ill.

mod app;
mod exec;
#[path = "../faults/flock.rs"]
#[expect(dead_code, reason = "the faults need more of it than the applications")]
mod flock;
mod gate;
mod never_lead;
mod scene;
mod stop;
