//! Where the clients run.

use std::future::Future;
use std::panic::resume_unwind;
use std::sync::OnceLock;
use std::thread;

use tokio::runtime::{Builder, Runtime};

/// One for the whole process, never dropped: connections and watches live on it whatever thread asked for them.
pub(super) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("kubernetes clients")
            .enable_all()
            .build()
            .expect("the machine starts threads for the tests themselves")
    })
}

/// Runs a future to its end, from wherever: on a thread of its own, because the caller's may be inside a runtime.
pub(super) fn block_on<F>(future: F) -> F::Output
where
    F: Future + Send,
    F::Output: Send,
{
    let runtime = runtime();
    thread::scope(|scope| scope.spawn(|| runtime.block_on(future)).join()).unwrap_or_else(|panic| resume_unwind(panic))
}
