//! The stories, each written once.

pub mod cluster;
pub mod keys;
pub mod leases;
pub mod outages;
pub mod resumes;
pub mod stalls;
pub mod watches;

use std::time::Duration;

pub use bellwether::election::LeaseId;

const LEASE: LeaseId = LeaseId(4711);
const OTHER: LeaseId = LeaseId(4712);
/// Longer than any story that does not mean to see it end.
const LONG: u64 = 120;
/// Long enough for what is under way to arrive.
const QUIET: Duration = Duration::from_millis(700);
