//! manifests/: what `kubectl kustomize` makes of the component and the examples, and what was rendered from the chart.
//!
//! kubectl comes from the PATH (`scripts/tools.sh with kubectl -- …`); no cluster is asked.

mod component;
mod examples;
mod kustomize;
mod rendered;
