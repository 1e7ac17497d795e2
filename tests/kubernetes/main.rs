//! Against a real kube-apiserver: the sidecar's label and events, the charts, the admission policy.

mod adversity;
mod cluster;
mod events;
mod failovers;
mod label;
mod late;
mod order;
mod rights;
mod stage;
