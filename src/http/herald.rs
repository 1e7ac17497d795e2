//! Rings the bell when what `/leader` tells changes. One task does it for all who wait: a renewal every few seconds
//! then wakes one task and not a thousand, and one timer watches `until`.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use super::Shared;

/// While this candidate leads the clock is looked at this often at least: timers count a clock that stands still while
/// the machine is suspended, and no timer tells that the wall clock has jumped. The driver looks as often.
const LOOK: Duration = Duration::from_secs(1);
/// And no sooner than this: below a millisecond a timer fires at once and the wait would spin.
const LOOK_LEAST: Duration = Duration::from_millis(1);

/// Rings whenever the version changes, also when `until` passes and the driver does not turn. Never ends.
pub(super) async fn ring_the_news(shared: Arc<Shared>) -> Infallible {
    let mut views = shared.views();
    let mut told = shared.version();
    loop {
        let view = Arc::clone(&views.borrow_and_update());
        let version = shared.version();
        if version != told {
            told = version;
            shared.ring();
        }
        let now = (shared.clock())();
        let left = view.lead.map(|lead| match lead.until.remaining(now) {
            Duration::ZERO => LOOK,
            left => left.clamp(LOOK_LEAST, LOOK),
        });
        let look = async {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => pending().await,
            }
        };
        tokio::select! {
            changed = views.changed() => if changed.is_err() {
                // The driver is gone, and the process is about to be.
                pending::<()>().await;
            },
            () = look => {}
        }
    }
}
