//! Against a real kube-apiserver: the sidecar's label and events, the charts, the admission policy.

mod adversity;
mod charts;
mod cluster;
mod events;
mod failovers;
mod helm;
mod label;
mod late;
mod manifests;
mod order;
mod pods;
mod policy;
mod rights;
mod stage;
mod wait;
