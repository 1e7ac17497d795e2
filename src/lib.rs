//! Bellwether: a leader-election sidecar for Kubernetes, on etcd. See ARCHITECTURE.md.

pub mod app_health;
pub mod cli;
pub mod clock;
pub mod config;
pub mod driver;
pub mod election;
pub mod etcd;
pub mod http;
pub mod kubernetes;
pub mod logs;
pub mod metrics;
pub mod protections;
pub mod report;
pub mod signals;
pub mod state_dir;
pub mod work;
