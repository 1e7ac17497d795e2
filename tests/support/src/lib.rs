//! Starts, breaks and stops the real servers that the tests and the demo run against.

pub mod certificates;
pub mod etcd;
pub mod process;
