//! The demo follows.
fn main() {}
