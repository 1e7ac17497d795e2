//! What runs only while a candidate leads: `bellwether exec` and the hooks, with the real binary against a real etcd.
//!
//! The command is a witness: this very program, which writes down every few milliseconds that it is alive, in which
//! term. Whatever is done to bellwether, to its guardian or to the connection, nobody may be alive outside the term.

mod disguises;
mod hooks;
mod scene;
mod stops;
mod strikes;
mod trials;
mod witness;
