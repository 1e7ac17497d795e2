//! How long nobody leads after each fault, against its bound: five sidecars, and an etcd of three members.
//!
//! Times are read off the samples, so that nothing but the sidecars' own answers is measured. `make test` has time for
//! a few trials of what takes long; all of them:
//! `BELLWETHER_TRIALS=20 make test ARGS='--test faults bounds::'`.

mod figures;
mod muffler;
mod newcomer;
mod scene;

mod connections;
mod etcd_leader;
mod handover;
mod membership;
mod partition;
mod quorum;
mod upkeep;
mod watch;
