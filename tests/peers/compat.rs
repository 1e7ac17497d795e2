//! `--compat`, as in `docs/migration.md`: each sidecar's pod with its own arguments, and the clients that its users have.

mod client;
mod documented;
mod instana;
mod leader_elector;
mod nais;
mod promises;
mod settings;
