//! The etcd adapter against real etcd.

mod calls;
mod harness;
