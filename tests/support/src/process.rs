//! Child processes that cannot outlive the tests.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::sys::prctl;
use nix::sys::signal::Signal;

type Order = (Command, SyncSender<io::Result<Child>>);

/// Starts a process that the kernel kills when this one dies, however that comes about.
///
/// The kernel counts the *thread* that started a process as its parent here, and a test's thread ends
/// with the test: so one thread that lives as long as the process starts them all.
///
/// # Errors
/// When the program cannot be started.
pub fn spawn_bound(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<SyncSender<Order>>> = OnceLock::new();
    // SAFETY: prctl is async-signal-safe and takes no lock.
    unsafe {
        command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
    }
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = sync_channel::<Order>(1);
        std::thread::spawn(move || {
            while let Ok((mut command, answer)) = inbox.recv() {
                let _asker_gone = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let gone = || io::Error::other("the thread that starts processes has ended");
    let (answer, started) = sync_channel(1);
    spawner.lock().unwrap_or_else(PoisonError::into_inner).send((command, answer)).map_err(|_| gone())?;
    started.recv().map_err(|_| gone())?
}
