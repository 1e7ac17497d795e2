//! Against a real kube-apiserver: the sidecar's label and events, the charts, the admission policy.

mod charts;
mod cluster;
mod helm;
mod policy;
mod wait;
