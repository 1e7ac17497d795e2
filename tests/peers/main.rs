//! In the place of other sidecars, and the term at the resource: what `docs/migration.md` and `docs/fencing.md` say, done
//! with the real binary, a real etcd and the clients that people have.

#![expect(
    clippy::panic_in_result_fn,
    reason = "a test asserts what it is about, and returns the failures of what it only needs"
)]

mod compat;
mod document;
mod fencing;
mod script;
mod sidecar;
mod stage;
