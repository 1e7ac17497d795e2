//! Bellwether: a leader-election sidecar for Kubernetes, on etcd. See ARCHITECTURE.md.

pub mod clock;
pub mod config;
pub mod election;
pub mod http;
pub mod metrics;
pub mod protections;
pub mod report;
pub mod telemetry;
