//! The wall clock of the leader is set, forward and back, while its boot clock goes on.

use anyhow::{Result, ensure};
use support::etcd::EtcdServer;
use support::{Moment, WallClock};

use crate::flock::{Flock, VALID_UNTIL_UNTIL, figure, quick};

/// The margin is 2.4 s.
const TTL: [&str; 4] = ["--lease-ttl", "12s", "--keepalive-interval", "3s"];
/// An hour, in milliseconds: far beyond any margin.
const HOUR: i64 = 3_600_000;

#[tokio::test]
async fn a_leader_whose_wall_clock_is_set_forward_stops_until_it_has_renewed_and_back_changes_nothing() -> Result<()> {
    let etcd = EtcdServer::start_with(quick()).await?;
    let clock = WallClock::new()?;
    let mut flock = Flock::new(etcd.endpoints(), &[&TTL, &VALID_UNTIL_UNTIL]);
    let options = clock.give_to(flock.options("only"));
    flock.join_as("only", &options)?;
    let lead = flock.lead_of_one("only", Moment::now())?;
    // From here on nothing is renewed for the three seconds of an interval.
    flock.wait_for_renewals("only", 1)?;
    let forward = Moment::now();
    clock.set_ahead_by(HOUR)?;
    let no = flock.not_leading_since("only", forward)?;
    figure("wall clock an hour forward: to the 503", format_args!("{:?}", no.received.since(forward)));
    let asked_after = flock.poller("only")?.samples_since(no.received);
    ensure!(no.received.since(forward) < std::time::Duration::from_secs(3), "that was no wall clock: {asked_after:?}");
    let again = flock.lead_of_one("only", no.received)?;
    ensure!(again.term == lead.term, "nobody took the lock: {again:?}");
    flock.wait_for_renewals("only", 1)?;
    for ahead in [HOUR + 2000, HOUR, 0, -HOUR] {
        // Within the margin forward, and back by as much as one likes.
        clock.set_ahead_by(ahead)?;
        flock.wait_for_renewals("only", 1)?;
    }
    let interrupted = flock.poller("only")?.samples_since(again.sample.sent);
    let interrupted = interrupted.iter().find(|sample| sample.leading().is_none());
    ensure!(interrupted.is_none(), "{interrupted:?}");
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 1, "{audit}");
    Ok(())
}
