//! Against a real kube-apiserver: the sidecar's label and events, the charts, the admission policy.

mod adversity;
mod charts;
mod cluster;
mod events;
mod failovers;
mod gate;
mod helm;
mod label;
mod late;
mod lives;
mod manifests;
mod order;
mod pods;
mod policy;
mod rights;
mod stage;
mod wait;
mod wars;
mod watches;
