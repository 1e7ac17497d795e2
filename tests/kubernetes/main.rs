//! Against a real kube-apiserver: the sidecar's label and events, the charts, the admission policy.

mod cluster;
mod wait;
