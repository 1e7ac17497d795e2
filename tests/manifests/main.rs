//! manifests/: what `kubectl kustomize` makes of the component and the examples, and what was rendered from the chart.
//!
//! No cluster is asked. kubectl is that of `BELLWETHER_KUBE_ASSETS`, else the one on the PATH.

mod component;
mod examples;
mod kustomize;
mod rendered;
