//! The etcd adapter against real etcd.

mod harness;
mod calls;
