//! Bellwether: a leader-election sidecar for Kubernetes, on etcd. See ARCHITECTURE.md.

pub mod cli;
pub mod clock;
pub mod config;
pub mod election;
pub mod etcd;
pub mod protections;
