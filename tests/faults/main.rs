//! The real binary against a real etcd, broken on purpose.
//!
//! Each story polls every sidecar from its start, every 4 ms or faster, and ends with a judgement of all that was
//! answered: at no instant two leaders, no answer's promise broken, terms only growing. The figures go to stderr,
//! past the test harness's capture.

mod bounds;
mod certificates;
mod etcd_gone;
mod flock;
mod handover;
mod hosts;
mod members;
mod mixed;
mod network;
mod operator;
mod resume;
mod secured;
mod stalled_disk;
mod store;
mod thaw;
mod wall_clock;
