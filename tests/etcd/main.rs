//! The etcd adapter against real etcd.

mod auth;
mod calls;
mod failures;
mod harness;
mod keep_alive;
mod resume;
mod snapshot;
mod tls;
mod watch;
