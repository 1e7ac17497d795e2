//! What the image contains, run the way Kubernetes runs it: nothing in its root but the image's own files and the two
//! that kubelet writes, nothing of it writable, no user but a number, no rights.
//!
//! The files come from `make image-binary` (scripts/image-stages.sh carries out the Dockerfile), the namespaces from
//! util-linux's `unshare`: no root, no container engine.

mod contents;
mod dockerfile;
mod elf;
mod empty_root;
mod name_server;
mod names;
mod rights;
